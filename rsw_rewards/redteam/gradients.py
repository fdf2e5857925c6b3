"""Attacks with gradients: a copy of the input, changed by a few grey levels so that a network sees what the reward asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.verifier import Verifier
from rsw_rewards.detectors import SceneDetector, detector_bands, load_detector
from rsw_rewards.encoders import encoder_label
from rsw_rewards.encoders.views import SeenInViews, view_tensor
from rsw_rewards.errors import ConfigError, ImageError
from rsw_rewards.features.bank import FeatureBank
from rsw_rewards.io.images import read_rgb
from rsw_rewards.redteam.kit import Attack, Pool
from rsw_rewards.rollouts.baselines.base import in_memory, is_raster, whole_future
from rsw_rewards.rollouts.baselines.pictures import newest
from rsw_rewards.verifiers.alignment import forecast_text

if TYPE_CHECKING:
    import torch

LEVELS = (1, 3, 12)
"""Grey levels by which an attack may change a value."""
STEPS = 10
"""Of ascent; 24 of them raise the cosine with the truth by less than 0.01."""
TEMPERATURE = 0.05
"""Difference of cosines over which another text counts as beaten, as in ``caption_contrast``."""
OTHERS = 16
"""Texts of other samples that the own one must beat."""

Look = Callable[["torch.Tensor"], "torch.Tensor"]
"""(n, 3, H, W) pixels in [0, 255] -> (n, d) features, through which gradients flow."""
Worth = Callable[["torch.Tensor"], "torch.Tensor"]
"""(n, 3, H, W) pixels in [0, 255] -> (n,), what an attack makes large."""
Aim = Callable[[Sequence[Sample], np.ndarray], Worth | None]
"""Samples of one size and their newest inputs, (n, H, W, 3) uint8 -> what forecasts of them are worth; None where the network cannot look."""


def gradient_attacks(pool: Pool, verifiers: Sequence[Verifier], bank: FeatureBank) -> list[Attack]:
    """Attacks through every encoder and detector of the verifiers that gradients flow through: towards the text, and towards what it
    sees of the truth."""
    if pool.task is not Task.FORECAST:
        return []
    return [*_through_encoders(pool, verifiers, bank), *_through_detectors(pool, verifiers)]


def _through_encoders(pool: Pool, verifiers: Sequence[Verifier], bank: FeatureBank) -> list[Attack]:
    names = dict.fromkeys(name for verifier in verifiers for name in verifier.encoders())
    found = []
    for name in names:
        look = differentiable(bank.encoder(name))
        if look is None:
            continue
        aims: dict[str, Callable[[Sequence[Sample]], Any]] = {"truth": partial(_truths, bank, name)}
        try:
            bank.text_features(name, [""])
            aims["text"] = partial(_texts, bank, name, pool)
        except ConfigError:
            pass  # an encoder of images alone
        for aim, targets in aims.items():
            for levels in LEVELS:
                about = f"the newest input, changed by gradients of {name} towards {_AIMS[aim]}"
                make = _attack(pool, partial(_seen, look, targets), levels)
                found.append(
                    Attack(f"{encoder_label(name)} towards the {aim}, {levels} levels", "gradient", make, about)
                )
    return found


def _seen(
    look: Look, targets: Callable[[Sequence[Sample]], Any], samples: Sequence[Sample], copies: np.ndarray
) -> Worth:
    worth = targets(samples)
    return lambda pixels: worth(look(pixels))


def _through_detectors(pool: Pool, verifiers: Sequence[Verifier]) -> list[Attack]:
    names = dict.fromkeys(getattr(verifier.config, "detector", None) for verifier in verifiers)
    found = []
    for name in filter(None, names):
        detector = load_detector(name, "cpu") if detector_bands(name) is None else None
        if not isinstance(detector, SceneDetector):
            continue
        for levels in LEVELS:
            about = f"the newest input, changed by gradients of {name} towards the change that it sees in the true pair"
            make = _attack(pool, partial(_change, detector), levels)
            found.append(Attack(f"{name} towards the truth, {levels} levels", "gradient", make, about))
    return found


def _change(detector: SceneDetector, samples: Sequence[Sample], copies: np.ndarray) -> Worth | None:
    """The F1 of the map that a detector sees, by its probabilities, against its map of the true pair."""
    import torch

    futures = [read_rgb(sample.reference["images"][-1]) for sample in samples]
    if any(future.shape != copies.shape[1:] for future in futures) or copies.shape[1] % 4 or copies.shape[2] % 4:
        return None
    true = torch.tensor(detector.predict(copies, np.stack(futures)) > 0.5, dtype=torch.float32).flatten(1)
    network: Any = detector.network
    with torch.inference_mode(False), torch.no_grad():
        before = network.scales(torch.tensor(copies, dtype=torch.float32).permute(0, 3, 1, 2) / 255.0)

    def worth(pixels: torch.Tensor) -> torch.Tensor:
        chance = network.compared(before, network.scales(pixels / 255.0)).sigmoid().flatten(1)
        return 2 * (chance * true).sum(1) / (chance.sum(1) + true.sum(1) + 1e-6)  # type: ignore[no-any-return]

    return worth


_AIMS = {"truth": "its features of the truth", "text": "its features of the text"}


def differentiable(encoder: Any) -> Look | None:
    """How an encoder looks at images, as torch computes it; None for one whose network is not known here.

    Images are resized by torch's antialiased bicubic filter, which is near but not equal to what the encoders do.
    """
    if isinstance(encoder, SeenInViews):
        inner = differentiable(encoder.inner)
        return None if inner is None else _in_views(inner, encoder.views)
    kinds = {
        "OpenClipEncoder": lambda pixels: encoder.model.encode_image(pixels),
        "HfClipEncoder": lambda pixels: _vector(encoder.model.get_image_features(pixels)),
        "DinoV2Encoder": lambda pixels: encoder.model(pixels).pooler_output,
        "TimmEncoder": lambda pixels: encoder.model(pixels),
    }
    run = kinds.get(type(encoder).__name__)
    if run is None:
        return None
    mean, std = _normalisation(encoder)
    side = encoder.input_size

    def look(pixels: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import interpolate

        seen = pixels / 255.0
        if seen.shape[-2:] != (side, side):
            seen = interpolate(seen, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1)
        shift, scale = (seen.new_tensor(part).view(1, 3, 1, 1) for part in (mean, std))
        return run((seen - shift) / scale)  # type: ignore[no-any-return, no-untyped-call]

    return look


def _vector(found: Any) -> Any:
    return found if hasattr(found, "norm") else found.pooler_output


def _in_views(look: Look, views: int) -> Look:
    def averaged(pixels: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import normalize

        total = sum(normalize(look(view_tensor(pixels, number)), dim=1) for number in range(views))
        return total / views  # type: ignore[return-value]

    return averaged


def _normalisation(encoder: Any) -> tuple[Sequence[float], Sequence[float]]:
    from rsw_rewards.encoders import dinov2

    for step in getattr(getattr(encoder, "preprocess", None), "transforms", ()):
        if hasattr(step, "mean") and hasattr(step, "std"):
            return list(map(float, step.mean)), list(map(float, step.std))
    processor = getattr(encoder, "processor", None)
    if processor is not None:
        return processor.image_mean, processor.image_std
    return dinov2.MEAN, dinov2.STD


def _truths(bank: FeatureBank, name: str, samples: Sequence[Sample]) -> Callable[[torch.Tensor], torch.Tensor]:
    """The cosine with the features of the true future."""
    import torch
    from torch.nn.functional import cosine_similarity

    wanted = torch.tensor(bank.image_features(name, [sample.reference["images"][-1] for sample in samples]))
    return lambda seen: cosine_similarity(seen, wanted)


def _texts(
    bank: FeatureBank, name: str, pool: Pool, samples: Sequence[Sample]
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The cosine with the own text, and how clearly it beats other texts."""
    import torch
    from torch.nn.functional import cosine_similarity, normalize

    known = list(dict.fromkeys(text for one in pool.samples if (text := forecast_text(one))))
    own = torch.tensor(bank.text_features(name, [forecast_text(sample) for sample in samples]))
    rivals = []
    for sample in samples:
        texts = [text for text in known if text != forecast_text(sample)]
        pool.chance(sample, "rivals").shuffle(texts)
        rivals.append(normalize(torch.tensor(bank.text_features(name, texts[:OTHERS] or [""])), dim=1))

    def worth(seen: torch.Tensor) -> torch.Tensor:
        cos = cosine_similarity(seen, own)
        unit = normalize(seen, dim=1)
        clear = [torch.sigmoid((c - r @ u) / TEMPERATURE).mean() for c, r, u in zip(cos, rivals, unit, strict=True)]
        return cos + torch.stack(clear)

    return worth


def _attack(pool: Pool, aim: Aim, levels: int) -> Any:
    """The forecasts of an attack; samples of one size go through the network together."""

    def make(samples: Sequence[Sample]) -> list[Output | None]:
        made: dict[int, Output] = {}
        by_size: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = {}
        for place, sample in enumerate(samples):
            try:
                if sample.images and forecast_text(sample) and not is_raster(sample, newest(sample)):
                    pixels = read_rgb(newest(sample))
                    by_size.setdefault(pixels.shape, []).append((place, pixels))
            except ImageError:
                continue
        for group in by_size.values():
            chosen = [samples[place] for place, _ in group]
            starts = [
                pool.noise(sample, f"start {levels}").uniform(-levels / 2, levels / 2, pixels.shape)
                for sample, (_, pixels) in zip(chosen, group, strict=True)
            ]
            copies = np.stack([pixels for _, pixels in group])
            worth = aim(chosen, copies)
            if worth is None:
                continue
            found = ascend(worth, copies, np.stack(starts), levels)
            for (place, _), pixels in zip(group, found, strict=True):
                made[place] = whole_future(samples[place], in_memory(pixels))
        return [made.get(place) for place in range(len(samples))]

    return make


def ascend(worth: Worth, copies: np.ndarray, starts: np.ndarray, levels: int) -> np.ndarray:
    """(n, H, W, 3) uint8 images within ``levels`` of ``copies`` for which ``worth`` is high.

    Projected gradient ascent by the sign of the gradient (Madry et al. 2018, arXiv 1706.06083).
    """
    import torch

    with torch.enable_grad():
        base = torch.tensor(copies, dtype=torch.float32).permute(0, 3, 1, 2)
        change = torch.tensor(starts, dtype=torch.float32).permute(0, 3, 1, 2).requires_grad_(True)
        for step in range(STEPS):
            (slope,) = torch.autograd.grad(worth((base + change).clamp(0, 255)).sum(), change)
            rate = 0.25 * levels * (1.0 - step / STEPS) + 0.05 * levels
            change = (change + rate * slope.sign()).clamp(-levels, levels).detach().requires_grad_(True)
    drawn = (base + change.detach()).round().clamp(0, 255).permute(0, 2, 3, 1)
    return np.ascontiguousarray(drawn.numpy().astype(np.uint8))
