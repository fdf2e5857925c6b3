"""A broken truth of a forecast sample is one status for every output, whatever the output is and wherever it is scored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rubric import VERIFIERS, Component, Rubric, build
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Batch, Context, Verifier
from rsw_rewards.engine.calls import scored
from rsw_rewards.engine.scorer import Scorer
from rsw_rewards.features.bank import FeatureBank
from rsw_rewards.io.images import write_png
from tests.verifiers.paired_pictures import built, near, ref

SIDE = 32
NETWORK = "tests.verifiers.test_damage_consistency:SHADES_NETWORK"
CASES: list[tuple[str, dict[str, Any]]] = [
    ("gain_over_copy", {}),
    ("psnr", {}),
    ("l1", {"region": "inside"}),
    ("mse", {"shift": 1, "gain": True}),
    ("ssim", {}),
    ("ms_ssim", {"scales": 1}),
    ("encoder_similarity", {}),
    ("change_consistency", {}),
    ("change_extent", {}),
    ("detector_consistency", {}),
    ("detector_consistency", {"detector": "cva", "against": "detector"}),
    ("damage_consistency", {"detector": NETWORK}),
    ("spectral_direction", {}),
    ("physical_range", {}),
    ("index_series", {}),
    ("clip_score", {}),
    ("caption_contrast", {"distractors": ["a lake", "a road"]}),
    ("directional_similarity", {}),
    ("clip_rsicd", {"encoder": "scene-clip"}),
    ("frechet", {}),
    ("kid", {}),
    ("cmmd", {"encoder": "scene-clip"}),
    ("neighbours", {"k": 1}),
    ("fid_rsicd", {"encoder": "scene-clip"}),
    ("frechet_credit", {}),
    ("frechet_influence", {}),
    ("mmd_credit", {}),
]
BANK = FeatureBank()
BROKEN = ("gone", "torn", "no brightness", "valid of another size", "clouds that are no mask")
"""Every verifier of forecasts gives an error for these."""
UNASKED = ("no number anywhere", "no future", "no text")
"""Nothing to ask, or an error; to some verifiers they are samples as any other."""


def id_of(case: object) -> str:
    return case if isinstance(case, str) else ""


def place(number: int, kind: str) -> Sample:
    before, after, mask = built(number, SIDE)
    text, damage = "buildings increased", np.where(mask, 4, 0).astype(np.uint8)
    reference: dict[str, Any] = {"mask": ref(mask), "text": text, "damage": ref(damage)}
    metadata: dict[str, Any] = {}
    if kind == "bands":
        images = [np.concatenate([picture, 255 - picture // 2], -1) / np.float32(300) for picture in (before, after)]
        metadata = {"bands": ["blue", "green", "red", "nir", "swir1", "swir2"]}
        first, futures = ImageRef(array=images[0]), [ImageRef(array=images[1])]
    elif kind == "series":
        frames = np.random.default_rng(number).uniform(0.1, 0.9, (4, SIDE, SIDE)).astype(np.float32)
        first, futures = ref(before), [ImageRef(array=frame) for frame in frames]
    else:
        first, futures = ref(before), [ref(after)]
    reference["images"] = futures
    return Sample(str(number), Task.FORECAST, (first,), text, reference, scene=str(number), metadata=metadata)


def broken(sample: Sample, how: str, folder: Path) -> Sample:
    *earlier, last = sample.reference["images"]
    pixels = last.pixels()
    new: dict[str, Any] = {}
    if how in ("gone", "torn"):
        path = folder / f"{how}.png"
        if how == "torn":
            write_png(path, np.zeros((SIDE, SIDE, 3), np.uint8))
            path.write_bytes(path.read_bytes()[:60])
        new["images"] = [*earlier, ImageRef(path=path)]
    elif how == "no brightness":
        new["images"] = [*earlier, ImageRef(array=np.zeros((SIDE, SIDE, 2), np.complex64))]
    elif how == "valid of another size":
        new["valid"] = ref(np.ones((8, 8), bool))
    elif how == "clouds that are no mask":
        new["clouds"] = "clouds.png"
    elif how == "no number anywhere":
        holes = np.full(pixels.shape, np.nan, np.float32)
        shown = {"bands": (0, 1, 2), "stretch": ((0.0, 1.0),) * 3} if pixels.ndim == 3 else {}
        new["images"] = [ImageRef(array=holes, **shown) for _ in sample.reference["images"]]  # type: ignore[arg-type]
    elif how == "no future":
        new["images"] = []
    else:
        return replace(sample, prompt="", reference={**sample.reference, "text": ""})
    return replace(sample, reference={**sample.reference, **new})


def outputs_for(sample: Sample, good: Sample, folder: Path) -> list[Output]:
    futures = good.reference["images"]
    made = [ImageRef(array=future.pixels() * np.asarray(0.9, future.pixels().dtype)) for future in futures]
    if futures[0].pixels().dtype == np.uint8:
        made = [ref(near(futures[0].pixels(), 7, 6.0))]
    gone = ImageRef(path=folder / "output.png")
    drawn: list[dict[str, Any]] = [
        {"images": tuple(made)},
        {"images": tuple(ImageRef(array=image.pixels()[1:]) for image in made)},
        {"images": (*made[:-1], gone)},
        {},
        {"invalid": "no prediction"},
    ]
    return [Output(sample.id, number, **fields) for number, fields in enumerate(drawn)]


def ready(name: str, config: dict[str, Any], samples: list[Sample]) -> Verifier:
    verifier = build(name, config)
    verifier.prepare(samples)
    verifier.setup(Context(BANK))
    return verifier


def all_scores(name: str, config: dict[str, Any], how: str, folder: Path) -> dict[str, list[Score]]:
    """Scores of four good samples and of one that is broken: five outputs each, in one batch."""
    kind = {"spectral_direction": "bands", "physical_range": "bands", "index_series": "series"}.get(name, "picture")
    good = [place(number, kind) for number in range(4)]
    spoilt = replace(broken(place(4, kind), how, folder), id="spoilt") if how else good[0]
    samples = [*good, spoilt] if how else good
    pairs = [(one, output) for one in samples for output in outputs_for(one, place(int(one.scene), kind), folder)]
    batch = Batch(*zip(*pairs, strict=True), [one.id for one, _ in pairs])  # type: ignore[arg-type]
    found = scored(ready(name, config, good), batch)
    assert isinstance(found, list), found.reason
    by_sample: dict[str, list[Score]] = {}
    for (one, _), score in zip(pairs, found, strict=True):
        by_sample.setdefault(one.id, []).append(score)
    return by_sample


@pytest.mark.parametrize(("name", "config"), CASES, ids=id_of)
def test_a_truth_that_cannot_be_used_is_one_status_for_all_outputs(
    name: str, config: dict[str, Any], tmp_path: Path
) -> None:
    for how in (*BROKEN, *UNASKED):
        found = all_scores(name, config, how, tmp_path)
        spoilt = found.pop("spoilt")
        told = [score.status for score in spoilt]
        if how in BROKEN:
            assert told == [Status.ERROR] * 5, (how, spoilt)
            assert "spoilt" in spoilt[0].reason and len({score.reason for score in spoilt}) == 1
        elif Status.OK not in told:
            assert len(set(told)) == 1 and told[0] in (Status.ERROR, Status.NOT_APPLICABLE), (how, spoilt)
        # What is broken costs the other samples nothing, and what is wrong with their outputs is the policy's.
        for scores in found.values():
            assert [score.status for score in scores] == [Status.OK] + [Status.INVALID_OUTPUT] * 4, (how, scores)


def test_every_verifier_of_forecasts_is_looked_at() -> None:
    elsewhere = {"lpips", "zero_shot_cls"}  # need weights; read the truth as their siblings do
    elsewhere |= {"earthnet_score", "greenearthnet_score"}  # of series of several steps, which have files of their own
    forecasts = {name for name, cls in VERIFIERS.all().items() if cls.tasks == {Task.FORECAST}}
    known = {name for name, _ in CASES} | elsewhere
    assert forecasts <= known, forecasts - known


def test_what_a_frozen_detector_cannot_see_is_not_applicable_to_silent_outputs_too() -> None:
    before, _, mask = built(1, SIDE)
    blind = Sample("s", Task.FORECAST, (ref(before),), reference={"images": [ref(before)], "mask": ref(mask)})
    verifier = ready("detector_consistency", {"detector": "cva", "against": "detector"}, [blind])
    outputs = [Output("s", 0, image=ref(before)), Output("s", 1), Output("s", 2, invalid="no prediction")]
    found = scored(verifier, Batch.of([blind], outputs))
    assert isinstance(found, list)
    assert [score.status for score in found] == [Status.NOT_APPLICABLE] * 3


def test_statuses_do_not_depend_on_where_a_verifier_runs(tmp_path: Path) -> None:
    samples = [place(0, "picture"), broken(place(1, "picture"), "gone", tmp_path)]
    samples += [broken(place(2, "picture"), "valid of another size", tmp_path)]
    outputs = [output for one in samples for output in outputs_for(one, place(int(one.id), "picture"), tmp_path)]
    rubric = Rubric(
        components=(Component(use="gain_over_copy"), Component(use="clip_score", config={"encoder": "scene-clip"}))
    )
    tables = []
    for workers in (0, 1):
        with Scorer(rubric, workers=workers) as scorer:
            frame = scorer.score(Batch.of(samples, outputs)).frame
            tables.append(frame[["verifier", "sample", "status", "value", "reason"]].to_json())
    assert tables[0] == tables[1] and tables[0].count('"error"') == 20
