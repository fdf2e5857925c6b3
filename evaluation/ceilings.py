"""How much a policy that understands nothing may earn from a verifier, and what the truth must earn.

A ceiling is what one sample may give, worked out from its truth without the verifier, so that a verifier that pays more for a
trick is found by its own protocol.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.per_sample import Unscored
from rsw_rewards.core.records import OUTPUT_FIELDS, Output, Sample
from rsw_rewards.errors import ImageError
from rsw_rewards.features.bank import FeatureBank
from rsw_rewards.io.images import read_class_map, read_marked, read_mask
from rsw_rewards.rollouts.baselines.pictures import size_of
from rsw_rewards.verifiers.answers import normalise
from rsw_rewards.verifiers.forecast_case import read_case
from rsw_rewards.verifiers.maps import in_levels
from rsw_rewards.verifiers.paired import error_map

LITTLE = 0.003
"""Mean squared error, pixels in [0, 1], under which two dates differ by no change; gain_over_copy divides by no less."""

SampleCeiling = Callable[[Sample, Output], float]


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The most that a policy may earn: a share of 1 for every sample, or one worked out from each."""

    most: float | SampleCeiling
    why: str

    def of(self, sample: Sample, output: Output) -> float:
        """The most this output may earn for this sample."""
        return self.most(sample, output) if callable(self.most) else self.most


def _accepted(sample: Sample) -> set[str]:
    reference = sample.reference
    label = reference.get("label")
    texts = [*reference.get("answers", ()), *reference.get("captions", ()), *([] if label is None else [label])]
    return {normalise(str(text)) for text in texts}


def _true(sample: Sample, output: Output) -> float:
    return float(normalise(output.text or "") in _accepted(sample))


def _starts_true(sample: Sample, output: Output) -> float:
    return _true(sample, Output(sample.id, text=(output.text or " ").split(" ")[0]))


def _true_or(partial: float) -> SampleCeiling:
    return lambda sample, output: max(partial, _true(sample, output))


def _labels(sample: Sample) -> set[str]:
    return {str(label) for label in sample.reference.get("labels") or ()}


def _no_labels(sample: Sample, output: Output) -> float:
    return float(not _labels(sample))


def _f1_of_all_labels(sample: Sample, output: Output) -> float:
    true, vocabulary = _labels(sample), sample.reference.get("vocabulary") or ()
    return 2 * len(true) / (len(true) + len(vocabulary)) if vocabulary else 1.0


def _f1_of_changes(sample: Sample, output: Output) -> float:
    """F1 of two lists of changes by object and change alone, which is never less than with places and counts."""
    try:
        listed = json.loads(output.text or "")
    except ValueError:
        return 0.0
    if not isinstance(listed, list):
        return 0.0
    true, said = (
        Counter(f"{change.get('object')} {change.get('change')}" for change in changes if isinstance(change, dict))
        for changes in (sample.reference["changes"], listed)
    )
    whole = true.total() + said.total()
    return 2 * (true & said).total() / whole if whole else 1.0


def _marked(sample: Sample, key: str) -> np.ndarray:
    """(pixels,) bool, which of the pixels that count the truth marks."""
    reference = sample.reference
    read = read_marked if key == "mask" and "classes" not in reference else read_class_map
    pixels, data = read(in_levels(reference[key], reference.get("levels")))
    counts = np.ones(pixels.shape, bool) if data is None else data
    if isinstance(valid := reference.get("valid"), ImageRef):
        counts = counts & read_mask(valid)
    return pixels[counts] != 0


def _nothing_marked(sample: Sample, output: Output) -> float:
    return float(not _marked(sample, "mask").any())


def _share_marked(sample: Sample, output: Output) -> float:
    return float(_marked(sample, "mask").mean())


def _unchanged_maps(sample: Sample, output: Output) -> float:
    return float(not any(_marked(sample, key).any() for key in ("map_before", "map_after")))


def _no_target(sample: Sample, output: Output) -> float:
    if "mask" in sample.reference:
        return _nothing_marked(sample, output)
    return float(not sample.reference.get("boxes"))


def _share_of_image(sample: Sample, output: Output) -> float:
    """Area of the largest thing referred to, as a share of the image: the IoU of the whole image with it."""
    if "mask" in sample.reference:
        return _share_marked(sample, output)
    height, width = size_of(sample)
    areas = [0.0]
    for box in sample.reference["boxes"]:
        xs, ys = (box[0::2], box[1::2])
        areas.append((max(xs) - min(xs)) * (max(ys) - min(ys)))
    return min(1.0, max(areas) / (height * width))


def _no_building(sample: Sample, output: Output) -> float:
    return float(not _marked(sample, "buildings").any())


def _copy_gains_nothing(sample: Sample, output: Output) -> float:
    """0.5 for a copy where something changed; up to 1 where before and after differ by less than a change."""
    try:
        case = read_case(FeatureBank(), sample, future=True, before=True)
    except (ImageError, Unscored):
        return 1.0
    future = case.picture(case.future)
    error = error_map(case.picture(case.newest), future)[case.counted(future)].mean()
    return 1 / (1 + min(1.0, float(error) / LITTLE))


def _blur_gains_little(sample: Sample, output: Output) -> float:
    return max(0.6, _copy_gains_nothing(sample, output))


def _false_alarms(sample: Sample, output: Output) -> float:
    mask = sample.reference.get("mask")
    return 1.0 if isinstance(mask, ImageRef) and not read_mask(mask).any() else 0.3


_ANSWER = Ceiling(_true, "an answer is worth what equals the truth, and nothing else")
_NOTHING = Ceiling(0.0, "says nothing, everything, or what no question asks for")
_EQUAL = dict.fromkeys(("constant", "majority", "blind", "shuffled", "letter", "echo"), _ANSWER)
_SILLY = dict.fromkeys(("empty", "hedge", "every_tag"), _NOTHING)
_SINGLE = {**_EQUAL, **_SILLY, "all_labels": _NOTHING}
_PLEASED = Ceiling(1.0, "measures likeness alone, which a copy has; read it beside gain_over_copy")
_FLAT = Ceiling(0.5, "a value that stays is no better than a pixel's mean over the horizon")
_MASK = {
    "empty": Ceiling(_nothing_marked, "an empty mask is right where the truth is empty"),
    "all_unchanged": Ceiling(_nothing_marked, "an empty mask is right where the truth is empty"),
    "all_changed": Ceiling(_share_marked, "the IoU of a full mask is the share that is marked"),
    "noise": Ceiling(lambda sample, output: _share_marked(sample, output) + 0.05, "half of all pixels, at random"),
}

CEILINGS: Mapping[str, Mapping[str, Ceiling]] = {
    "exact_match": _SINGLE,
    "scene_label": _SINGLE,
    "multiple_choice": _SINGLE,
    "vqa_accuracy": _SINGLE,
    "numeric_match": {**_SILLY, "letter": _NOTHING},
    "vsi-mra/numeric_match": {
        "hedge": Ceiling(_starts_true, "VSI-Bench reads what precedes the first blank"),
    },
    "label_set": {
        "empty": Ceiling(_no_labels, "no label is right where there is none"),
        "all_labels": Ceiling(_f1_of_all_labels, "F1 of the whole vocabulary with the true labels"),
    },
    "difference_list": dict.fromkeys(
        ("constant", "majority", "blind", "shuffled"), Ceiling(_f1_of_changes, "what the two lists have in common")
    ),
    "change_mask": _MASK,
    "class_map": {
        "empty": Ceiling(
            lambda sample, output: max(0.5, _nothing_marked(sample, output)), "right on the background alone"
        ),
        "all_unchanged": Ceiling(
            lambda sample, output: max(0.5, _nothing_marked(sample, output)), "right on the background alone"
        ),
    },
    "semantic_change": {
        "empty": Ceiling(
            lambda sample, output: max(0.5, _unchanged_maps(sample, output)), "right where nothing changed"
        ),
        "all_unchanged": Ceiling(
            lambda sample, output: max(0.5, _unchanged_maps(sample, output)), "right where nothing changed"
        ),
        "swapped": Ceiling(
            lambda sample, output: max(0.7, _unchanged_maps(sample, output)), "right places, wrong order"
        ),
    },
    "building_damage": {"empty": Ceiling(_no_building, "right where there is no building")},
    "referring_mask": {
        "empty": Ceiling(_no_target, "right where nothing is referred to"),
        "whole_image": Ceiling(_share_of_image, "the share of the image that is referred to"),
        "noise": _MASK["noise"],
    },
    "box_iou": {
        "empty": Ceiling(_no_target, "right where nothing is referred to"),
        "whole_image": Ceiling(_share_of_image, "the share of the image that is referred to"),
    },
    "gain_over_copy": {
        "copy_before": Ceiling(_copy_gains_nothing, "a copy gains nothing, which is worth 0.5"),
        "blurred_copy": Ceiling(_blur_gains_little, "blur takes the sensor's noise away, and nothing else"),
        "noise": Ceiling(0.5, "noise is further from the truth than a copy"),
    },
    "change_consistency": {
        "copy_before": Ceiling(_false_alarms, "a copy brings about no change"),
        "blurred_copy": Ceiling(_false_alarms, "a blurred copy brings about no change"),
    },
    "detector_consistency": {"copy_before": Ceiling(_false_alarms, "a detector sees no change in a copy")},
    **{
        name: dict.fromkeys(("copy_before", "blurred_copy", "mean_image", "noise"), _PLEASED)
        for name in ("ssim", "ms_ssim", "psnr", "l1", "mse", "lpips")
    },
    "encoder_similarity": dict.fromkeys(
        ("copy_before", "blurred_copy", "mean_image", "noise", "other_future"),
        Ceiling(1.0, "places look alike to a network that was not made to tell them apart; read it with gain"),
    ),
    "physical_range": dict.fromkeys(
        ("copy_before", "blurred_copy", "mean_image", "other_future", "noise"),
        Ceiling(1.0, "a guard: whatever the sensor could have measured passes"),
    ),
    "index_series": {
        "persistence": _FLAT,
        "copy_before": _FLAT,
        "climatology": Ceiling(1.0, "a forecast in its own right, where one year is like another"),
    },
    "clip_score": {
        policy: Ceiling(1.0, "cosines lie in a narrow band; read it beside copy_before's")
        for policy in ("copy_before", "blurred_copy", "noise")
    },
}
"""Verifier, or ``protocol/verifier`` -> policy -> what it may earn. What is not here has the default of :func:`ceiling`."""

_DEFAULT_TEXT = Ceiling(_true_or(0.6), "no more than partial credit where the text is not the truth (default)")
_DEFAULT_PICTURE = Ceiling(0.75, "well below the truth (default)")


def ceiling(protocol: str, verifier: str, policy: str, sample: Sample) -> Ceiling:
    """What ``policy`` may earn from ``verifier``, as a protocol configures it, for samples like this one."""
    for name in (f"{protocol}/{verifier}", verifier):
        if (declared := CEILINGS.get(name, {}).get(policy)) is not None:
            return declared
    if OUTPUT_FIELDS[sample.task] != ("text",):
        return _DEFAULT_PICTURE
    return _NOTHING if policy == "empty" else _DEFAULT_TEXT


GOLD: Mapping[str, str] = {
    **dict.fromkeys(
        ("clip_score", "ref_clip_score", "caption_contrast", "directional_similarity"),
        "a cosine of the encoder; the truth need not reach 1",
    ),
    "detector_consistency": "as good as its detector",
    "change_consistency": "the true future also differs outside the mask: season, light, noise",
    "judge": "a model's opinion",
    "vqa_accuracy": "annotators may disagree",
}
"""Verifiers that need not give the truth 1, and why."""

LOSSES = frozenset({"mae", "rmse", "bias", "biasabs", "hamming", "l1", "mse"})
"""Keys whose perfect value is 0."""
DISTANCES = ("fid", "fd_", "kid", "cmmd", "lpips")
"""How keys of distances begin, behind which the name of an encoder may follow; their perfect value is 0, too."""
OPEN: Mapping[str, str] = {
    "psnr": "unbounded",
    "cider": "depends on how far the references agree",
    "cider_d": "depends on how far the references agree",
    "s_star_m": "holds CIDEr",
    "meteor": "its penalties leave a sentence just below 1",
    "preservation": "the true future also differs outside the mask",
    "change_f1": "as good as its detector",
    "change_iou": "as good as its detector",
    "change_accuracy": "read from the sentences",
}
"""Keys of which the truth need not reach the perfect value, and why."""
OPEN_OF_ENCODERS = ("fid", "fd_", "kid", "clip_", "ref_clip_", "caption_contrast", "directional_", "judge_")
"""How keys begin that are as good as their encoder or judge, or, of a set held against itself, 0 but for rounding or bias."""
OPEN_THERE: Mapping[tuple[str, str], str] = {
    ("cdvqa-vista", "aa"): "seven types divided by eight",
    ("changechat-localization", "jaccard"): "two empty lists count 0",
    ("vqa-v2", "accuracy"): "annotators may disagree",
    ("segearth-r1", "giou_mean"): "1e-5 is added to what is divided by",
    ("greenearthnet", "biasabs"): "forecasts count at dates that are not masked and have no value",
    ("xlrs-bench", "aa"): "sub-tasks without a sample count 0",
    **dict.fromkeys(
        (("earthnet2021", key) for key in ("ens", "mad", "ols", "emd", "ssim")),
        "forecasts count at dates that nobody saw",
    ),
}
"""The same of one protocol's keys."""


def falls(key: str) -> bool:
    """Whether less is better."""
    return key.partition("/")[0] in LOSSES or key.startswith(DISTANCES)


def perfect(key: str, protocol: str) -> float | None:
    """The value of a key for faultless outputs; None where that is open."""
    stem = key.partition("/")[0]
    if stem in OPEN or (protocol, stem) in OPEN_THERE or stem.startswith(OPEN_OF_ENCODERS):
        return None
    return 0.0 if falls(key) else 1.0
