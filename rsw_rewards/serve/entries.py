"""What clients and the service write: samples, outputs and results as objects of JSON."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from rsw_rewards.core.image_ref import DECLARED, ImageRef
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.scores import Score
from rsw_rewards.engine.reward import Result
from rsw_rewards.errors import InputError
from rsw_rewards.io.images import declared_bands, encode_png, read_data
from rsw_rewards.serve.wire import INDEX_MAPS, OUTPUT_IMAGES


def image_entry(ref: ImageRef, is_map: bool = False) -> dict[str, Any]:
    """The object by which an image travels. Raises :class:`InputError` for one that cannot be read or would be read otherwise."""
    bands = 1 if is_map else declared_bands(ref)
    if read_data(ref, bands) is not None:
        raise InputError(f"{ref} has a mask or an alpha band, which does not travel; write it without")
    if is_map and ref.path is not None and ref.path.suffix.lower() in {".jpg", ".jpeg"}:
        raise InputError(f"{ref} is a JPEG, whose noise in a mask would be read otherwise; write it as PNG")
    pixels = ref.pixels(colours=not is_map or ref.palette is not None, bands=bands)
    plain = pixels.dtype == np.uint8 and (pixels.ndim == 2 or pixels.shape[2] == 3)
    if plain and pixels.nbytes > 1 << 16:  # smaller ones cost less time as they are
        kind, data = "png", encode_png(pixels)
    else:
        stream = io.BytesIO()
        np.save(stream, pixels, allow_pickle=False)
        kind, data = "npy", stream.getvalue()
    declared = {key: value for key in DECLARED if (value := getattr(ref, key)) is not None}
    return {kind: base64.b64encode(data).decode(), **declared}


def sample_entry(sample: Sample) -> dict[str, Any]:
    """The object by which a sample travels."""
    reference = dict(sample.reference)
    for key, value in reference.items():
        if isinstance(value, ImageRef):
            reference[key] = image_entry(value, key != "image")
        elif key == "images":
            reference[key] = [image_entry(one) for one in value]
    about = {
        "id": sample.id, "task": str(sample.task), "prompt": sample.prompt, "reference": reference, "scene": sample.scene,
        "kind": sample.kind, "metadata": dict(sample.metadata), "images": [image_entry(one) for one in sample.images],
    }  # fmt: skip
    return {key: value for key, value in about.items() if value not in (None, "", [], {})}


def output_entry(output: Output) -> dict[str, Any]:
    """The fields of an item that an output fills."""
    names = ("candidate", "text", "boxes", "finish_reason", "invalid", "lost")
    entry = {name: value for name in names if (value := getattr(output, name)) is not None}
    for name in OUTPUT_IMAGES:
        if name == "frames":
            if output.images is not None:
                entry[name] = [image_entry(one) for one in output.images]
        elif (held := getattr(output, name)) is not None:
            entry[name] = image_entry(held, name in INDEX_MAPS)
    if (trace := output.tokens) is not None:
        lists = ("prompt_ids", "completion_ids", "logprobs")
        entry["tokens"] = {name: list(getattr(trace, name)) for name in lists}
    return entry


def dumped(value: Any) -> bytes:
    """Strict JSON. Raises ``ValueError`` for numbers that are not finite."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"), default=_plain).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise InputError(f"a {type(value).__name__} cannot travel; give plain texts, numbers, lists and objects")


def _number(value: Any) -> Any:
    value = value if type(value) in (int, float) else float(value)
    return value if math.isfinite(value) else str(value)  # strict JSON has no word for them


def result_entry(result: Result) -> dict[str, Any]:
    """The object by which a result travels."""
    parts = {}
    for label, score in result.parts.items():
        part: dict[str, Any] = {"value": score.value, "status": str(score.status)}
        if score.raw:
            part["raw"] = {key: _number(value) for key, value in score.raw.items()}
        if score.reason:
            part["reason"] = score.reason
        if score.content:
            part["content"] = dict(score.content)
        parts[label] = part
    reward = None if result.reward is None else _number(result.reward)
    return {"reward": reward, "reason": result.reason, "parts": parts}


def read_result(entry: Mapping[str, Any]) -> Result:
    """The result of its object."""
    parts = {
        label: Score(
            part["value"], part["status"], {key: float(value) if isinstance(value, str) else value for key, value in part.get("raw", {}).items()},
            reason=part.get("reason", ""), content=part.get("content", {}),
        )
        for label, part in entry["parts"].items()
    }  # fmt: skip
    reward = entry["reward"]
    return Result(None if reward is None else float(reward), parts, entry["reason"])
