"""Trains the small encoders that run offline, on the scene world: an open_clip model and a change detector."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor

from rsw_rewards.core.files import write_text
from rsw_rewards.data.scene_world import CLASSES, Scene
from rsw_rewards.detectors import SceneDetector, build_network
from rsw_rewards.training.small import Pairs, SmallConfig, make_pairs, steps, update

_MEAN, _STD = (0.42, 0.46, 0.32), (0.18, 0.14, 0.12)
_QUARTERS = ("northwest", "northeast", "southwest", "southeast")


class DetectorConfig(SmallConfig):
    """Configuration of ``method: detector``."""

    method: Literal["detector"] = "detector"
    scenes: PositiveInt = 4000
    held_out: PositiveInt = 400
    steps: PositiveInt = 800
    batch: PositiveInt = 16
    width: PositiveInt = 24
    learning_rate: float = 3e-3


class ClipConfig(SmallConfig):
    """Configuration of ``method: clip``."""

    method: Literal["clip"] = "clip"
    scenes: PositiveInt = 12000
    held_out: PositiveInt = 512
    steps: PositiveInt = 2000
    batch: PositiveInt = 96
    learning_rate: float = 1e-3


def _write_weights(model: torch.nn.Module, path: Path) -> None:
    """Half precision on disk; the weights in memory are rounded with them, so that what is measured is what is shipped."""
    from safetensors.torch import save_file

    state = {key: value.detach().half().contiguous() for key, value in model.state_dict().items()}
    save_file(state, path)


def _unit(images: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255


def _rate(config: SmallConfig) -> Callable[[int], float]:
    """Short warm-up, then a straight line to a twentieth."""
    return lambda step: min(1.0, (step + 1) / 50) * (1 - 0.95 * step / config.steps)


def mask_scores(probability: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """F1 and IoU of the class "changed" at a threshold of 0.5, over all pixels of all pairs together."""
    said = probability > 0.5
    hit, false, missed = int((said & mask).sum()), int((said & ~mask).sum()), int((~said & mask).sum())
    return {"f1": 2 * hit / max(1, 2 * hit + false + missed), "iou": hit / max(1, hit + false + missed)}


def train_detector(config: DetectorConfig) -> None:
    """Trains the change detector and writes ``config.out``. Deterministic for a number of steps and threads."""
    torch.manual_seed(config.seed)
    pairs = make_pairs("encoders", config.scenes, config.seed)
    model = build_network(config.width)
    optimiser = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=1e-4)
    for step in steps(config, optimiser, _rate(config)):
        rng = np.random.default_rng([config.seed, step])
        rows = rng.integers(0, config.scenes, config.batch)
        before, after = _unit(pairs.before[rows]), _unit(pairs.after[rows])
        mask = torch.from_numpy(pairs.mask[rows]).float()
        if rng.random() < 0.5:
            before, after = after, before
        logits = model(before, after)
        p = logits.sigmoid()
        # Overlap (soft Dice) beside cross-entropy, because few pixels change.
        overlap = 1 - (2 * (p * mask).sum() + 1) / (p.sum() + mask.sum() + 1)
        loss = F.binary_cross_entropy_with_logits(logits, mask) + 0.5 * overlap
        update(model, optimiser, loss)
        if (step + 1) % config.log_every == 0:
            print(f"step {step + 1}: loss {loss.item():.4f}", flush=True)
    config.out.mkdir(parents=True, exist_ok=True)
    write_text(config.out / "config.json", json.dumps({"width": config.width}) + "\n")
    _write_weights(model, config.out / "model.safetensors")
    unseen = make_pairs("dev", config.held_out, 2)
    shipped = SceneDetector(config.out, "cpu", "trained")
    metrics = mask_scores(shipped.predict(unseen.before, unseen.after), unseen.mask)
    write_text(config.out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    print(f"detector on unseen scenes: {metrics}", flush=True)


def describe_cover(scene: Scene, after: bool) -> str:
    """What a single picture shows: land cover by share, buildings by quarter of the picture."""
    classes = scene.map_after if after else scene.map_before
    share = np.bincount(classes.ravel(), minlength=len(CLASSES)) / classes.size
    names = [
        CLASSES[k].replace("_", " ").replace("NVG surface", "ground") for k in np.argsort(-share) if share[k] > 0.01
    ]
    half = len(classes) // 2
    parts = (classes[:half, :half], classes[:half, half:], classes[half:, :half], classes[half:, half:])
    built = [
        name for name, part in zip(_QUARTERS, parts, strict=True) if (part == CLASSES.index("buildings")).sum() > 60
    ]
    where = f", buildings in the {' and '.join(built)}" if built else ""
    return f"an image of {', '.join(names)}{where}"


def _clip_model_config() -> dict[str, Any]:
    return {
        "embed_dim": 64,
        "vision_cfg": {
            "image_size": 64,
            "layers": 4,
            "width": 96,
            "head_width": 32,
            "patch_size": 8,
            "pool_type": "avg",
        },
        # The library's own vocabulary of 49,408 tokens makes up most of the weights, hence the narrow tower.
        "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 2},
    }


def _clip_pair(pairs: Pairs, k: int, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """A picture and a text that fits it: what happened (for the later picture) or what is there (for either)."""
    scene = pairs.scenes[k]
    if scene.changed and rng.random() < 0.6:
        texts = (scene.forecast_prompt, scene.forecast_prompt, *scene.captions)
        return pairs.after[k], texts[rng.integers(0, len(texts))]
    after = bool(rng.random() < 0.5)
    return (pairs.after if after else pairs.before)[k], describe_cover(scene, after)


def _retrieval(similarity: Tensor, texts: list[str]) -> float:
    """Share of pictures whose most similar text is theirs (or reads the same)."""
    best = similarity.argmax(1).tolist()
    return float(np.mean([texts[b] == texts[k] for k, b in enumerate(best)]))


def train_clip(config: ClipConfig) -> None:
    """Trains the open_clip model and writes a folder that open_clip opens as ``local-dir:``."""
    import open_clip

    torch.manual_seed(config.seed)
    config.out.mkdir(parents=True, exist_ok=True)
    description = {
        "model_cfg": _clip_model_config(),
        "preprocess_cfg": {
            "mean": list(_MEAN),
            "std": list(_STD),
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }
    write_text(config.out / "open_clip_config.json", json.dumps(description, indent=2) + "\n")
    name = f"local-dir:{config.out}"
    model = open_clip.create_model(name, load_weights=False)
    tokenize = open_clip.get_tokenizer(name)
    mean, std = (torch.tensor(x)[:, None, None] for x in (_MEAN, _STD))
    pairs = make_pairs("encoders", config.scenes, config.seed)
    optimiser = torch.optim.AdamW(model.parameters(), config.learning_rate, betas=(0.9, 0.98), weight_decay=0.05)

    def embed(images: list[np.ndarray], texts: list[str]) -> tuple[Tensor, Tensor]:
        picture = model.encode_image((_unit(np.stack(images)) - mean) / std, normalize=True)
        return picture, model.encode_text(tokenize(texts), normalize=True)

    model.train()
    for step in steps(config, optimiser, _rate(config)):
        rng = np.random.default_rng([config.seed, step])
        rows = rng.choice(config.scenes, config.batch, replace=False)
        images, texts = zip(*(_clip_pair(pairs, int(k), rng) for k in rows), strict=True)
        picture, text = embed(list(images), list(texts))
        logits = model.logit_scale.exp() * picture @ text.T
        # Equal texts within a batch are equally right.
        same = torch.tensor([[a == b for b in texts] for a in texts]).float()
        target = same / same.sum(1, keepdim=True)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        update(model, optimiser, loss)
        with torch.no_grad():
            model.logit_scale.clamp_(0, 4.6)
        if (step + 1) % config.log_every == 0:
            print(f"step {step + 1}: loss {loss.item():.3f}", flush=True)
    _write_weights(model, config.out / "open_clip_model.safetensors")

    model.eval()
    unseen = make_pairs("dev", config.held_out, 3)
    rng = np.random.default_rng(config.seed)
    images, texts = zip(*(_clip_pair(unseen, k, rng) for k in range(config.held_out)), strict=True)
    changed = [k for k, scene in enumerate(unseen.scenes) if scene.changed]
    prompts = [unseen.scenes[k].forecast_prompt for k in changed]
    with torch.no_grad():
        picture, text = embed(list(images), list(texts))
        after, prompt = embed([unseen.after[k] for k in changed], prompts)
        before, _ = embed([unseen.before[k] for k in changed], prompts)
    metrics = {
        "retrieval_at_1": _retrieval(picture @ text.T, list(texts)),
        "candidates": config.held_out,
        # How often the true future fits the text of the change better than the picture before it.
        "prefers_future": float(((after * prompt).sum(1) > (before * prompt).sum(1)).float().mean()),
    }
    write_text(config.out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    print(f"clip on unseen scenes: {metrics}", flush=True)
