"""Images a second of scoring by Inception and by CLIP, beside clean-fid and torchmetrics on the same device. Prints JSON.

    python benchmarks/gpu_scoring.py [--device cuda] [--images 2048] [--inception FILE] [--clip open_clip:ViT-B-32:openai]

Without weights the networks are those of the published sizes with random weights, which cost the same: torchvision's Inception-v3 traced
to 2048 pooled features stands for the 2015 file, ``ViT-B-32`` for CLIP. ``decode included``: from PNG files of 256 x 256 to
features; ``decode excluded``: from arrays. Ours runs as in a run, in one repeatable micro-batch size; clean-fid's resize and loader and
torchmetrics' update are theirs, with the same network; beside CLIP stands open_clip called by hand (ViT-B-32). Medians of several rounds.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import rsw_rewards  # noqa: F401  (first: on a CPU it lets torchvision load)
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.encoders import InceptionEncoder, OpenClipEncoder, load_encoder
from rsw_rewards.features.bank import MICRO_BATCH
from rsw_rewards.io.images import read_rgb, write_png


def random_inception(device: str) -> Any:
    """Torchvision's Inception-v3 as TorchScript over 299 x 299 pixels: (n, 2048)."""
    import torch
    import torchvision

    torch.manual_seed(0)
    network = torchvision.models.inception_v3(weights=None, init_weights=False, aux_logits=False).eval()
    network.fc = torch.nn.Identity()
    with torch.no_grad():
        return torch.jit.trace(network.to(device), torch.zeros(2, 3, 299, 299, device=device))


def rate(run: Callable[[], Any], images: int, device: str, repeats: int) -> float:
    """Images a second, median of several rounds after one that is not counted."""
    import torch

    seconds = []
    for round_ in range(repeats + 1):
        start = time.perf_counter()
        run()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        if round_:
            seconds.append(time.perf_counter() - start)
    return round(images / statistics.median(seconds), 2)


def difference(expected: Any, found: Any) -> float:
    """The largest distance between rows of two matrices, as a share of the first one's norm."""
    a, b = (np.asarray(one, np.float64) for one in (expected, found))
    return float((np.linalg.norm(a - b, axis=1) / np.linalg.norm(a, axis=1)).max())


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--inception", help="inception-2015-12-05.pt; random weights where left out")
    parser.add_argument("--clip", help="an encoder by name; ViT-B-32 with random weights where left out")
    options = parser.parse_args()
    import open_clip
    import torch
    from cleanfid.resize import build_resizer
    from PIL import Image
    from torchmetrics.image.fid import FrechetInceptionDistance

    device = options.device
    if options.inception:
        inception = InceptionEncoder.from_file(options.inception, device)
    else:
        inception = InceptionEncoder(random_inception(device), "0" * 64, device, "inception-random")
    model, _, preprocess = open_clip.create_model_and_transforms("ViT-B-32", pretrained=None, device=device)
    if options.clip:
        clip = load_encoder(options.clip, device)
    else:
        clip = OpenClipEncoder(model, preprocess, None, device, "open_clip:ViT-B-32")  # type: ignore[arg-type]
    rng, n = np.random.default_rng(0), options.images
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name(0) if device.startswith("cuda") else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(), "torch": torch.__version__, "images": n,
        "weights": {"inception": bool(options.inception), "clip": bool(options.clip)},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{row}.png" for row in range(n)]
        arrays = [np.kron(rng.integers(0, 256, (32, 32, 3), np.uint8), np.ones((8, 8, 1), np.uint8)) for _ in paths]
        for path, pixels in zip(paths, arrays, strict=True):
            write_png(path, pixels)

        def ours(encoder: Any, decode: bool) -> None:
            for first in range(0, n, MICRO_BATCH):
                part = slice(first, first + MICRO_BATCH)
                images = [read_rgb(ImageRef(path)) for path in paths[part]] if decode else arrays[part]
                encoder.encode_images(images, MICRO_BATCH)

        here = {
            "inception": InceptionEncoder.from_file(options.inception, "cpu") if options.inception else InceptionEncoder(random_inception("cpu"), "0" * 64, "cpu", "inception-random"),
            "clip": load_encoder(options.clip, "cpu") if options.clip else OpenClipEncoder(copy.deepcopy(model).cpu(), preprocess, None, "cpu", "open_clip:ViT-B-32"),  # type: ignore[arg-type]
        }  # fmt: skip
        found["difference_to_cpu"] = {
            name: difference(
                encoder.encode_images(arrays[:8], MICRO_BATCH), there.encode_images(arrays[:8], MICRO_BATCH)
            )
            for (name, encoder), there in zip(here.items(), (inception, clip), strict=True)
        }
        resize = build_resizer("clean")

        def cleanfid(decode: bool) -> None:
            for first in range(0, n, MICRO_BATCH):
                part = slice(first, first + MICRO_BATCH)
                images = [np.asarray(Image.open(path)) for path in paths[part]] if decode else arrays[part]
                batch = torch.from_numpy(np.stack([resize(image) for image in images])).permute(0, 3, 1, 2)
                with torch.no_grad():
                    inception.model((batch.float().to(device) - 128.0) / 128.0).cpu()

        class Resized(torch.nn.Module):
            """What torchmetrics does with a network of one's own: pixels in, features out."""

            num_features = 2048

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                x = torch.nn.functional.interpolate(x.float(), (299, 299), mode="bilinear")
                return inception.model((x - 128.0) / 128.0).reshape(len(x), -1)

        metric = FrechetInceptionDistance(feature=Resized(), normalize=False).to(device)

        def torchmetrics(decode: bool) -> None:
            for first in range(0, n, MICRO_BATCH):
                part = slice(first, first + MICRO_BATCH)
                images = [np.asarray(Image.open(path)) for path in paths[part]] if decode else arrays[part]
                metric.update(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(device), real=True)

        def plain_clip(decode: bool) -> None:
            for first in range(0, n, MICRO_BATCH):
                part = slice(first, first + MICRO_BATCH)
                images = [Image.open(path) if decode else Image.fromarray(array) for path, array in zip(paths[part], arrays[part], strict=True)]  # fmt: skip
                with torch.no_grad():
                    model.encode_image(torch.stack([preprocess(image) for image in images]).to(device)).cpu()

        runs: dict[str, Callable[[bool], None]] = {
            "inception": lambda decode: ours(inception, decode), "inception_clean_fid": cleanfid,
            "inception_torchmetrics": torchmetrics, "clip": lambda decode: ours(clip, decode),
            "clip_plain_open_clip": plain_clip,
        }  # fmt: skip
        found["images_per_second"] = {
            name: {
                label: rate(lambda run=run, decode=decode: run(decode), n, device, options.repeats)
                for label, decode in (("decode included", True), ("decode excluded", False))
            }
            for name, run in runs.items()
        }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
