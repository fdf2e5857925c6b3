"""Names of encoders, ``kind:rest#options``, and what can be told from them without any weights."""

from __future__ import annotations

import os
import re
from pathlib import Path

from rsw_rewards.encoders.presets import PRESETS
from rsw_rewards.errors import ConfigError
from rsw_rewards.io.model_files import missing_model

SCENE_CLIP = "scene-clip"
INCEPTION = "clean-fid-inception"
CMMD_RESIZE = "crop-first"
CMMD_ENCODER = f"open_clip:ViT-L-14-336:openai#resize={CMMD_RESIZE}"
"""The encoder of the published CMMD. google-research/cmmd@io_util.py cuts the central square out first and then resizes it to
336 x 336 by Pillow's antialiased bicubic filter (``_center_crop_and_resize``); the bicubic resize of its embedding.py then has nothing
left to do. open_clip resizes first and cuts then, which is the same for square images and differs a little for others."""

NAMES_HELP = (
    f"{SCENE_CLIP}, open_clip:<model or preset>:<weights file or pretrained tag>, open_clip:local-dir:<folder>, "
    f"hf_clip:<folder>, dinov2:<folder or hub name>, timm:<model>:<weights file>, {INCEPTION}[:<file>], rsicd-inception:<file>, "
    "sentence:<folder or hub name> (texts alone), pkg.mod:object or file.py:object; add #bands=3,2,1 to read other bands than "
    "red, green, blue, and #views=8 to average over views of an image"
)


def split_options(name: str) -> tuple[str, dict[str, str]]:
    """A name without its options, and the options: ``"x#bands=3,2,1&resize=y"`` -> ``("x", {"bands": "3,2,1", "resize": "y"})``.

    Raises:
        ConfigError: an option that no encoder has, or one without a value.
    """
    plain, _, tail = name.partition("#")
    options: dict[str, str] = {}
    for part in tail.split("&") if tail else ():
        key, _, value = part.partition("=")
        known = (key == "bands" and value) or (key == "views" and re.fullmatch(r"[1-9]\d?", value))
        if not known and part != f"resize={CMMD_RESIZE}":
            raise ConfigError(
                f"the option {part!r} of the encoder {name!r} is not known; write bands=3,2,1, views=8 or resize={CMMD_RESIZE}"
            )
        options[key] = value
    return plain, options


def bands_of(name: str) -> tuple[int, ...] | None:
    """The zero-based bands of a raster that the encoder reads as its three channels; None: those shown as red, green and blue.

    Raises:
        ConfigError: not three numbers.
    """
    if "#" not in name:
        return None
    value = split_options(name)[1].get("bands")
    if value is None:
        return None
    if not re.fullmatch(r"\d{1,4},\d{1,4},\d{1,4}", value):
        raise ConfigError(
            f"the bands {value!r} of the encoder {name!r} are not three numbers such as 3,2,1 (counted from 0)"
        )
    return tuple(int(band) for band in value.split(","))


def views_of(name: str) -> int:
    """How many views of an image the encoder averages over; 1 where its name does not say. Raises :class:`ConfigError`."""
    return int(split_options(name)[1].get("views", 1)) if "#" in name else 1


def encoder_label(name: str) -> str:
    """A short form of an encoder's name for metric keys, such as ``fd_<label>``; needs no weights.

    ``open_clip:ViT-B-32:/w/RemoteCLIP.pt`` gives ``ViT-B-32-RemoteCLIP``, ``rewards.py:my_encoder`` gives ``my_encoder``.
    """
    plain, options = split_options(name)
    kind, _, rest = plain.partition(":")
    if kind in ("open_clip", "timm"):
        model, _, weights = rest.partition(":")
        label = model if model in PRESETS else f"{model}-{_stem(weights)}"
        label = Path(weights).name if model == "local-dir" else label
    elif kind in ("sentence", "dinov2", "hf_clip"):
        label = Path(rest).name
        label = f"dinov2-{label}" if kind == "dinov2" and not label.lower().startswith("dino") else label
    elif kind in (SCENE_CLIP, INCEPTION):
        label = kind
    else:
        label = plain.rpartition(":")[2]
    label = "-".join([label, *(f"{key}-{value}" for key, value in sorted(options.items()))])
    return re.sub(r"[^\w.-]+", "-", label).strip("-")


def is_pretrained_clip(name: str) -> bool:
    """Whether the name means an open_clip model with published weights (a tag), so that ``clip_score`` is the known number."""
    kind, _, rest = name.partition(":")
    model, _, weights = rest.partition(":")
    local = model == "local-dir" or model in PRESETS or is_path(weights)
    return kind == "open_clip" and bool(weights) and not local and "#" not in name


def is_standard_inception(name: str) -> bool:
    """Whether the name means clean-fid's Inception, the only encoder whose Frechet distance is called ``fid``."""
    return name.partition(":")[0] == INCEPTION and "#" not in name


def missing_weights(name: str) -> str | None:
    """What is missing on this machine of the files that an encoder's name means, as a clause; None where nothing is known to be."""
    kind, _, rest = split_options(name)[0].partition(":")
    if kind == SCENE_CLIP or kind.endswith(".py"):
        return None
    if kind in ("dinov2", "hf_clip", "sentence"):
        return missing_model(rest)
    if kind == INCEPTION:
        rest = rest or os.environ.get("RSW_INCEPTION", "")
        if not rest:
            return f"neither {INCEPTION}:<file> nor the environment variable RSW_INCEPTION names its weights"
        return None if Path(rest).expanduser().exists() else f"there is no file {rest!r}"
    model, _, weights = rest.partition(":")
    weights = weights or model
    there = Path(weights).expanduser().exists()
    return f"there is no file or folder {weights}" if (is_path(weights) or model == "local-dir") and not there else None


def is_path(weights: str) -> bool:
    """Whether the weights in a name are a file or folder rather than a published tag."""
    return any(mark in weights for mark in "/\\") or Path(weights).suffix in {".safetensors", ".pt", ".pth", ".bin"}


def _stem(weights: str) -> str:
    return Path(weights).stem if is_path(weights) else weights
