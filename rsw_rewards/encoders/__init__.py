"""Encoders: images (and texts) to feature vectors, behind one interface, by name, path or ``module:object``.

Nothing is downloaded unless a name asks for it by an open_clip tag or a hub name, and no weights file is ever unpickled.
"""

from __future__ import annotations

from typing import Any

from rsw_rewards.core.registry import Registry
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
    views_of,
)
from rsw_rewards.encoders.presets import PRESETS
from rsw_rewards.encoders.rsicd_inception import RSICD_INCEPTION, RsicdInception
from rsw_rewards.encoders.sentences import SentenceEncoder
from rsw_rewards.encoders.timm_models import TimmEncoder
from rsw_rewards.encoders.views import MOST_VIEWS, SeenInViews
from rsw_rewards.errors import ConfigError

__all__ = [
    "CMMD_ENCODER",
    "ENCODERS",
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


ENCODERS: Registry[Any] = Registry(
    "encoder",
    "encoders",
    {
        SCENE_CLIP: "rsw_rewards.encoders.clip:OpenClipEncoder.shipped",
        "open_clip": "rsw_rewards.encoders.clip:OpenClipEncoder.load",
        "hf_clip": "rsw_rewards.encoders.hf_clip:HfClipEncoder.load",
        "dinov2": "rsw_rewards.encoders.dinov2:DinoV2Encoder.load",
        "timm": "rsw_rewards.encoders.timm_models:TimmEncoder.load",
        INCEPTION: "rsw_rewards.encoders.inception:InceptionEncoder.load",
        RSICD_INCEPTION: "rsw_rewards.encoders.rsicd_inception:RsicdInception.load",
        "sentence": "rsw_rewards.encoders.sentences:SentenceEncoder.load",
    },
    others=NAMES_HELP,
)
"""The built-in kinds, as functions ``(rest of the name, device, name)``; and what is plugged in: an :class:`Encoder`, or something
that makes one when it is called with the device."""


def load_encoder(use: str | Any, device: str) -> Encoder:
    """The encoder that a name or an object of :data:`ENCODERS` stands for, its weights loaded onto ``device``.

    Raises:
        ConfigError: an unknown name, or weights that are not there, with what to put where.
    """
    if not isinstance(use, str):
        return _made(ENCODERS.find(use), repr(use), device)
    plain, options = split_options(use)
    bands_of(use)
    if (views := views_of(use)) > 1:
        return _in_views(use, views, device)
    kind, _, rest = plain.partition(":")
    if "resize" in options and kind not in ("open_clip", SCENE_CLIP):
        raise ConfigError(f"only open_clip encoders have another resize, not {use!r}; leave #resize out")
    if kind in ENCODERS.built_in:
        encoder: Encoder = ENCODERS.find(kind)(rest, device, use)
        return encoder
    return _made(ENCODERS.find(plain), plain, device)


def _in_views(use: str, views: int, device: str) -> Encoder:
    if views > MOST_VIEWS:
        raise ConfigError(f"the encoder {use!r} asks for {views} views; the most are {MOST_VIEWS}")
    plain, options = split_options(use)
    others = "&".join(f"{key}={value}" for key, value in options.items() if key != "views")
    return SeenInViews(load_encoder(f"{plain}#{others}" if others else plain, device), use, views)


def _made(found: Any, name: str, device: str) -> Encoder:
    try:
        made = found if hasattr(found, "encode_images") and not isinstance(found, type) else found(device)
    except Exception as error:  # a user's own code may raise anything
        raise ConfigError(f"{name!r} cannot be made for {device!r}: {type(error).__name__}: {error}") from error
    if not isinstance(made, Encoder):
        wanted = ("name", "weights_sha256", "dim", "id", "encode_images", "encode_texts")
        lacks = [part for part in wanted if not hasattr(made, part)]
        raise ConfigError(f"{name!r} is not an encoder: it lacks {', '.join(lacks)} (see rsw_rewards.encoders.Encoder)")
    return made
