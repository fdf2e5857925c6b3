"""Encoders by name: the same bits everywhere, the published networks and resize rules, and errors that say what to put where."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rsw_rewards import encoders
from rsw_rewards.encoders import (
    Encoder,
    encoder_label,
    inception,
    is_pretrained_clip,
    is_standard_inception,
    load_encoder,
)
from rsw_rewards.encoders.names import missing_weights
from rsw_rewards.errors import ConfigError
from rsw_rewards.features.bank import MICRO_BATCH
from tests.tiny_clip import write_tiny_clip


def pictures(n: int, size: int = 24) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def clip_name(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tiny_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="module")
def clip(clip_name: str) -> Encoder:
    return load_encoder(clip_name, "cpu")


def test_a_feature_is_the_same_bits_whatever_else_is_in_the_batch(clip: Encoder) -> None:
    import torch

    images = pictures(MICRO_BATCH)
    whole = clip.encode_images(images, MICRO_BATCH)
    assert whole.shape == (MICRO_BATCH, clip.dim) and whole.dtype == np.float32
    np.testing.assert_array_equal(clip.encode_images(images[::-1], MICRO_BATCH)[::-1], whole)
    single = np.concatenate([clip.encode_images([image], MICRO_BATCH) for image in images])
    np.testing.assert_array_equal(single, whole)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            np.testing.assert_array_equal(clip.encode_images(images, MICRO_BATCH), whole)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    texts = ["a road", "a lake by a road", "x"]
    np.testing.assert_array_equal(
        np.concatenate([clip.encode_texts([text], MICRO_BATCH) for text in texts]),
        clip.encode_texts(texts, MICRO_BATCH),
    )


@pytest.mark.slow
def test_a_feature_is_the_same_bits_in_another_process(clip: Encoder, clip_name: str) -> None:
    program = (
        "import hashlib, numpy as np, rsw_rewards\n"
        "from rsw_rewards.encoders import load_encoder\n"
        f"encoder = load_encoder({clip_name!r}, 'cpu')\n"
        "images = list(np.random.default_rng(0).integers(0, 256, (5, 24, 24, 3), dtype=np.uint8))\n"
        f"print(encoder.id, hashlib.sha256(encoder.encode_images(images, {MICRO_BATCH}).tobytes()).hexdigest())"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    digest = hashlib.sha256(clip.encode_images(pictures(5), MICRO_BATCH).tobytes()).hexdigest()
    assert answer == [clip.id, digest]


def test_a_clip_knows_which_texts_it_would_cut(clip: Encoder) -> None:
    assert clip.truncates(["a road", "road " * 18, "road " * 19]) == [False, False, True]  # type: ignore[attr-defined]


def test_the_id_follows_the_weights_not_the_path(clip: Encoder, tmp_path: Path) -> None:
    same, other = write_tiny_clip(tmp_path / "a" / "tiny"), write_tiny_clip(tmp_path / "b" / "tiny", seed=1)
    assert load_encoder(same, "cpu").id == clip.id
    assert load_encoder(other, "cpu").id != clip.id


@pytest.mark.parametrize(
    ("name", "label", "published"),
    [
        ("scene-clip", "scene-clip", False),
        ("open_clip:ViT-B-32:laion2b_s34b_b79k", "ViT-B-32-laion2b_s34b_b79k", True),
        ("open_clip:ViT-B-32:/w/RemoteCLIP.pt", "ViT-B-32-RemoteCLIP", False),
        ("open_clip:local-dir:/w/my clip", "my-clip", False),
        ("open_clip:RemoteCLIP-ViT-L-14:weights", "RemoteCLIP-ViT-L-14", False),
        ("open_clip:ViT-L-14-336:openai#resize=crop-first", "ViT-L-14-336-openai-resize-crop-first", False),
        ("scene-clip#bands=3,2,1", "scene-clip-bands-3-2-1", False),
        ("dinov2:facebook/dinov2-large", "dinov2-large", False),
        ("dinov2:/w/mine", "dinov2-mine", False),
        ("hf_clip:/w/Git-RSCLIP", "Git-RSCLIP", False),
        ("clean-fid-inception:/w/inception-2015-12-05.pt", "clean-fid-inception", False),
        ("clean-fid-inception#bands=3,2,1", "clean-fid-inception-bands-3-2-1", False),
        ("rewards.py:my_encoder", "my_encoder", False),
    ],
)
def test_labels_for_metric_keys(name: str, label: str, published: bool) -> None:
    assert encoder_label(name) == label
    assert is_pretrained_clip(name) is published
    assert is_standard_inception(name) is (label == "clean-fid-inception")


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(encoders.INCEPTION_VARIABLE, raising=False)
    nowhere = tmp_path / "nowhere.safetensors"
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no weights")
    wanted = {
        "nothing": "open_clip:<model or preset>",
        "open_clip:ViT-B-32": "incomplete",
        f"open_clip:ViT-B-32:{nowhere}": str(nowhere),
        f"open_clip:NoSuch-Model:{nowhere}": "NoSuch-Model",
        "open_clip:ViT-B-32:no_such_tag": "laion2b",
        f"open_clip:local-dir:{tmp_path}": "open_clip_config.json",
        f"open_clip:RN50:{broken}": "cannot be loaded",
        "clean-fid-inception": "inception-2015-12-05.pt",
        f"clean-fid-inception:{nowhere}": str(nowhere),
        f"clean-fid-inception:{broken}": "SHA-256",
        "collections:Counter": "encode_images",
        "math:sqrt": "cannot be made",
    }
    for name, part in wanted.items():
        with pytest.raises(ConfigError) as caught:
            load_encoder(name, "cpu")
        assert part in str(caught.value), name


def test_weights_of_inception_that_nothing_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(encoders.INCEPTION_VARIABLE, raising=False)
    assert "RSW_INCEPTION" in (missing_weights("clean-fid-inception") or "")
    assert missing_weights(f"clean-fid-inception:{tmp_path}") is None


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    import torch

    trap = tmp_path / "trap.pt"
    torch.save({"visual": Path("x"), "code": print}, trap)
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_encoder(f"open_clip:RN50:{trap}", "cpu")


def test_clean_resize_equals_clean_fid() -> None:
    from cleanfid.resize import build_resizer

    for image in (*pictures(2, 64), pictures(1, 400)[0]):
        np.testing.assert_array_equal(encoders.clean_resize(image), build_resizer("clean")(image))


def test_inception_reads_clean_fids_file_as_clean_fid_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with the file's interface; the real file is only accepted by its hash."""
    import torch
    from cleanfid.inception_torchscript import InceptionV3W
    from cleanfid.resize import build_resizer

    class Layers(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 2048, 8, stride=97)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x).amax((2, 3))

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = Layers()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x)

    file = tmp_path / encoders.INCEPTION_FILE
    torch.jit.script(Net()).save(str(file))
    monkeypatch.setattr(inception, "INCEPTION_SHA256", hashlib.sha256(file.read_bytes()).hexdigest())
    monkeypatch.setenv(encoders.INCEPTION_VARIABLE, str(tmp_path))
    encoder = load_encoder("clean-fid-inception", "cpu")
    assert isinstance(encoder, Encoder)
    images = pictures(3, 32)
    ours = encoder.encode_images(images, 4)
    resized = np.stack([build_resizer("clean")(image) for image in images]).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        theirs = InceptionV3W(str(tmp_path), download=False)(torch.from_numpy(resized)).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(encoder.encode_images(images[1:2], 4)[0], ours[1])
    with pytest.raises(ConfigError, match="reads no text"):
        encoder.encode_texts(["x"], 4)


def test_views_of_an_image_are_averaged_and_kept_apart_from_the_plain_encoder():
    from rsw_rewards.encoders import load_encoder

    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    plain, once, eight = (
        load_encoder(name, "cpu") for name in ("scene-clip", "scene-clip#views=1", "scene-clip#views=8")
    )
    first, again = (eight.encode_images([image, image[::-1].copy()], 4) for _ in range(2))
    assert np.array_equal(first, again) and first.shape == (2, plain.dim)
    assert np.array_equal(first[0], eight.encode_images([image], 4)[0])
    assert np.allclose(once.encode_images([image], 4), plain.encode_images([image], 4))
    assert not np.allclose(first[0], plain.encode_images([image], 4)[0])
    assert len({plain.id, eight.id, load_encoder("scene-clip#views=4", "cpu").id}) == 3
    assert np.array_equal(eight.encode_texts(["a road"], 4), plain.encode_texts(["a road"], 4))


@pytest.mark.parametrize(
    "name", ["scene-clip#views=0", "scene-clip#views=99", "scene-clip#views=two", "scene-clip#views="]
)
def test_a_number_of_views_that_cannot_be_is_named(name):
    from rsw_rewards.encoders import load_encoder

    with pytest.raises(ConfigError, match="views"):
        load_encoder(name, "cpu")


def test_gradients_see_the_views_that_the_encoder_sees():
    import torch

    from rsw_rewards.encoders.views import MOST_VIEWS, view, view_tensor

    image = np.random.default_rng(1).integers(0, 256, (24, 16, 3)).astype(np.uint8)
    pixels = torch.tensor(image, dtype=torch.float64).permute(2, 0, 1)[None]
    for number in range(MOST_VIEWS):
        seen = view_tensor(pixels, number)[0].permute(1, 2, 0).numpy()
        assert np.abs(seen - view(image, number)).max() < 0.51, number
