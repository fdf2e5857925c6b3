"""Change detectors: two pictures to a probability of change per pixel, behind one interface, by name, path or ``module:object``.

No file is ever unpickled. TorchScript is a program in a language of its own: name only files that you trust.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from rsw_rewards.core.registry import Registry
from rsw_rewards.detectors.base import (
    LEVELS,
    MICRO_BATCH,
    DamageDetector,
    Detector,
    Views,
    blanked,
    predict_pairs,
)
from rsw_rewards.detectors.cva import ChangeVectors, change_magnitude, otsu_threshold
from rsw_rewards.detectors.networks import NetworkDetector, is_network
from rsw_rewards.detectors.scene import SCENE_DETECTOR, SCENE_DETECTOR_FOLDER, SceneDetector, build_network
from rsw_rewards.errors import ConfigError

__all__ = [
    "DETECTORS",
    "LEVELS",
    "MICRO_BATCH",
    "SCENE_DETECTOR",
    "SCENE_DETECTOR_FOLDER",
    "ChangeVectors",
    "DamageDetector",
    "Detector",
    "NetworkDetector",
    "SceneDetector",
    "Views",
    "blanked",
    "build_network",
    "change_magnitude",
    "detector_bands",
    "load_damage_detector",
    "load_detector",
    "otsu_threshold",
    "predict_pairs",
]

NAMES_HELP = (
    f"{SCENE_DETECTOR}, cva (Otsu's threshold) or cva:<threshold>, the path of a folder with config.json and "
    "model.safetensors, torchscript:<file>, pkg.mod:object or file.py:object, with #weights=<file> where the object makes a "
    "network; add #bands=0,1,2,3 to read bands as they are stored"
)
MAX_BANDS = 64
_OPTIONS = frozenset({"bands", "weights", "output"})


def _split(name: str) -> tuple[str, dict[str, str]]:
    """A name without its options, and the options: ``"x#bands=3,2,1&weights=w"`` -> ``("x", {"bands": "3,2,1", "weights": "w"})``."""
    plain, _, tail = name.partition("#")
    options: dict[str, str] = {}
    for part in tail.split("&") if tail else ():
        key, _, value = part.partition("=")
        if key not in _OPTIONS or not value:
            raise ConfigError(
                f"the option {part!r} of the detector {name!r} is not known; write bands=0,1,2, weights=<file> or "
                f"output=probabilities"
            )
        options[key] = value
    if options.get("output", "logits") not in ("logits", "probabilities"):
        raise ConfigError(f"the output {options['output']!r} of the detector {name!r} must be logits or probabilities")
    return plain, options


def detector_bands(name: str) -> tuple[int, ...] | None:
    """The zero-based bands that a detector's name maps (``#bands=``), which it then reads as they are stored; None: RGB in uint8.

    Raises:
        ConfigError: not whole numbers, or more than :data:`MAX_BANDS`.
    """
    value = _split(name)[1].get("bands")
    if value is None:
        return None
    if not re.fullmatch(r"\d{1,4}(,\d{1,4})*", value) or value.count(",") >= MAX_BANDS:
        raise ConfigError(
            f"the bands {value!r} of the detector {name!r} are not numbers such as 3,2,1 (counted from 0, at most {MAX_BANDS})"
        )
    return tuple(int(band) for band in value.split(","))


DETECTORS: Registry[Any] = Registry(
    "change detector",
    "detectors",
    {
        SCENE_DETECTOR: "rsw_rewards.detectors:_shipped",
        "cva": "rsw_rewards.detectors:_change_vectors",
        "torchscript": "rsw_rewards.detectors:_torchscript",
    },
    others=NAMES_HELP,
)
"""The built-in kinds, as functions ``(rest of the name, device, name)``; and what is plugged in: a detector, or something that makes
one when it is called with the device."""


def load_detector(use: str | Any = SCENE_DETECTOR, device: str = "cpu") -> Detector:
    """The change detector that a name or an object of :data:`DETECTORS` stands for.

    Args:
        use: ``scene-detector`` (shipped, trained on the scene world); ``cva`` or ``cva:<threshold>`` (change-vector analysis,
            :class:`ChangeVectors`); the path of a folder in the form of the shipped one; ``torchscript:<file>`` (see
            :class:`NetworkDetector` for what it is called with); a plug-in: a detector, something that gives one when called with
            the device, or with ``#weights=<file>`` something that gives a ``torch.nn.Module`` when called without arguments, whose
            state dictionary the file holds.
        device: where it runs.

    Raises:
        ConfigError: nothing of that name, it is no detector, or its weights cannot be had.
    """
    made = _load(use, device)
    if not isinstance(made, Detector):
        raise ConfigError(_lacks(use, made, "change detector", "predict"))
    return made


def load_damage_detector(use: str | Any, device: str = "cpu") -> DamageDetector:
    """A damage detector: one of :func:`load_detector` that answers with five levels. Raises :class:`ConfigError`."""
    made = _load(use, device)
    if not isinstance(made, DamageDetector):
        raise ConfigError(_lacks(use, made, "damage detector", "predict_levels"))
    return made


def _load(use: str | Any, device: str) -> Any:
    if not isinstance(use, str):
        return _ready(DETECTORS.find(use), repr(use), device)
    plain, options = _split(use)
    detector_bands(use)
    kind, _, rest = plain.partition(":")
    if "weights" in options and kind != "torchscript":
        network = _called(plain, DETECTORS.find(plain))
        if not is_network(network):
            raise ConfigError(
                f"{plain!r} gives a {type(network).__name__}; with #weights= it must give a torch.nn.Module"
            )
        return NetworkDetector.from_state(
            network, Path(options["weights"]), device, use, options.get("output", "logits")
        )
    if "output" in options and kind != "torchscript":
        raise ConfigError(f"only networks have #output=, not {use!r}")
    if kind in DETECTORS.built_in:
        return DETECTORS.find(kind)(rest, device, use)
    if Path(plain).is_dir():
        return SceneDetector(Path(plain), device, Path(plain).name)
    return _ready(DETECTORS.find(plain), plain, device)


def _shipped(rest: str, device: str, name: str) -> SceneDetector:
    return SceneDetector(SCENE_DETECTOR_FOLDER, device, name)


def _change_vectors(rest: str, device: str, name: str) -> ChangeVectors:
    return ChangeVectors(_threshold(rest, name) if rest else None, name)


def _torchscript(rest: str, device: str, name: str) -> NetworkDetector:
    return NetworkDetector.from_torchscript(Path(rest), device, name, _split(name)[1].get("output", "logits"))


def _ready(found: Any, name: str, device: str) -> Any:
    ready = any(hasattr(found, part) for part in ("predict", "predict_levels")) and not isinstance(found, type)
    return found if ready else _called(name, found, device)


def _threshold(text: str, name: str) -> float:
    try:
        threshold = float(text)
    except ValueError:
        threshold = math.nan
    if not 0.0 < threshold < math.inf:
        raise ConfigError(
            f"the threshold {text!r} of {name!r} must be a number above 0 (standard deviations), such as cva:3"
        )
    return threshold


def _called(name: str, found: Any, *arguments: Any) -> Any:
    if not callable(found):
        raise ConfigError(f"{name!r} is a {type(found).__name__}, neither a detector nor something that makes one")
    try:
        return found(*arguments)
    except Exception as error:  # a user's own code may raise anything
        raise ConfigError(f"{name!r} cannot be made: {type(error).__name__}: {error}") from error


def _lacks(name: Any, made: Any, what: str, method: str) -> str:
    missing = [part for part in ("name", "weights_sha256", method) if not hasattr(made, part)]
    return f"{name!r} is not a {what}: it lacks {', '.join(missing)} (see rsw_rewards.detectors)"
