"""Encoders: images (and texts) to feature vectors, behind one interface, by name, path or ``module:object``.

Nothing is downloaded unless a name asks for it by an open_clip tag or a hub name, and no weights file is ever unpickled.
"""

from __future__ import annotations

import os

from rsw_rewards.core.plugins import resolve_object
from rsw_rewards.encoders.base import BuiltIn, Encoder, describe, repeatable
from rsw_rewards.encoders.clip import SCENE_CLIP_FOLDER, OpenClipEncoder
from rsw_rewards.encoders.dinov2 import DinoV2Encoder
from rsw_rewards.encoders.hf_clip import HfClipEncoder
from rsw_rewards.encoders.inception import (
    INCEPTION_FILE,
    INCEPTION_SHA256,
    INCEPTION_VARIABLE,
    InceptionEncoder,
    clean_resize,
)
from rsw_rewards.encoders.names import (
    CMMD_ENCODER,
    INCEPTION,
    NAMES_HELP,
    SCENE_CLIP,
    bands_of,
    encoder_label,
    is_pretrained_clip,
    is_standard_inception,
    split_options,
)
from rsw_rewards.encoders.presets import PRESETS
from rsw_rewards.encoders.rsicd_inception import RSICD_INCEPTION, RsicdInception
from rsw_rewards.encoders.sentences import SentenceEncoder
from rsw_rewards.encoders.timm_models import TimmEncoder
from rsw_rewards.errors import ConfigError

__all__ = [
    "CMMD_ENCODER",
    "INCEPTION",
    "INCEPTION_FILE",
    "INCEPTION_SHA256",
    "INCEPTION_VARIABLE",
    "NAMES_HELP",
    "PRESETS",
    "RSICD_INCEPTION",
    "SCENE_CLIP",
    "SCENE_CLIP_FOLDER",
    "BuiltIn",
    "DinoV2Encoder",
    "Encoder",
    "HfClipEncoder",
    "InceptionEncoder",
    "OpenClipEncoder",
    "RsicdInception",
    "SentenceEncoder",
    "TimmEncoder",
    "bands_of",
    "clean_resize",
    "describe",
    "encoder_label",
    "is_pretrained_clip",
    "is_standard_inception",
    "load_encoder",
    "repeatable",
]


def load_encoder(name: str, device: str) -> Encoder:
    """The encoder of that name, its weights loaded onto ``device``.

    Raises:
        ConfigError: an unknown name, or weights that are not there, with what to put where.
    """
    plain, options = split_options(name)
    bands_of(name)
    kind, _, rest = plain.partition(":")
    if "resize" in options and kind not in ("open_clip", SCENE_CLIP):
        raise ConfigError(f"only open_clip encoders have another resize, not {name!r}; leave #resize out")
    if plain == SCENE_CLIP:
        return OpenClipEncoder.from_folder(SCENE_CLIP_FOLDER, device, name)
    if kind == "open_clip":
        return OpenClipEncoder.from_name(name, device)
    if kind == "hf_clip":
        return HfClipEncoder.load(rest, device, name)
    if kind == "dinov2":
        return DinoV2Encoder.load(rest, device, name)
    if kind == "timm":
        return TimmEncoder.load(rest, device, name)
    if kind == INCEPTION:
        return InceptionEncoder.from_file(rest or os.environ.get(INCEPTION_VARIABLE, ""), device, name)
    if kind == RSICD_INCEPTION:
        return RsicdInception.load(rest, device, name)
    if kind == "sentence":
        return SentenceEncoder.load(rest, device)
    if ":" in plain:
        return _user_encoder(plain, device)
    raise ConfigError(f"no encoder is named {name!r}; {NAMES_HELP}")


def _user_encoder(name: str, device: str) -> Encoder:
    found = resolve_object(name, "encoder")
    try:
        made = found if hasattr(found, "encode_images") and not isinstance(found, type) else found(device)
    except Exception as error:  # a user's own code may raise anything
        raise ConfigError(f"{name!r} cannot be made for {device!r}: {type(error).__name__}: {error}") from error
    if not isinstance(made, Encoder):
        wanted = ("name", "weights_sha256", "dim", "id", "encode_images", "encode_texts")
        lacks = [part for part in wanted if not hasattr(made, part)]
        raise ConfigError(f"{name!r} is not an encoder: it lacks {', '.join(lacks)} (see rsw_rewards.encoders.Encoder)")
    return made
