"""Change consistency by a detector: what it says is counted as it should be, its bias cancels, and nothing hidden reaches it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rubric import build
from rsw_rewards.core.scores import Status
from rsw_rewards.core.verifier import Batch, Verifier
from rsw_rewards.detectors import MICRO_BATCH
from rsw_rewards.errors import ConfigError
from rsw_rewards.verifiers.detector_consistency import DetectorConsistency, detector_label, soft_dice
from tests.shared_data import shared
from tests.verifiers.made_forecasts import (
    IGNORANT,
    grey,
    metrics,
    noisy,
    plain,
    ready,
    score_one,
    share_first,
    value_of,
    values,
    world,
)

SIZE = 32
MASK = np.zeros((SIZE, SIZE), np.uint8)
MASK[8:20, 8:20] = 255
NOTHING = np.zeros_like(MASK)


class Difference:
    """A detector that sees change wherever the pictures differ by more than a fifth; it must be called in full batches."""

    name, weights_sha256 = "difference", "0"

    def __init__(self) -> None:
        self.calls: list[int] = []

    def predict(self, before: np.ndarray, after: np.ndarray, valid: np.ndarray) -> np.ndarray:
        assert before.shape == after.shape and len(before) == MICRO_BATCH
        assert before.shape[1] % 4 == before.shape[2] % 4 == 0
        self.calls.append(int(before.any(axis=(1, 2, 3)).sum()))
        distance = np.abs(before.astype(np.float32) - after).mean(axis=-1) / 255
        return 1 / (1 + np.exp(-20 * (distance - 0.2)))


DIFFERENCE = Difference()


class Blind(Difference):
    def predict(self, before: np.ndarray, after: np.ndarray, valid: np.ndarray) -> np.ndarray:
        return np.zeros(before.shape[:3], np.float32)


BLIND = Blind()


def scene(seed: int = 0, mask: np.ndarray = MASK, size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Before and after: a block is built inside the mask, and the light shifts everywhere."""
    before = noisy(np.full((size, size, 3), 90), seed, 8)
    after = noisy(np.full((size, size, 3), 102), seed + 1, 8)
    after[mask > 0] = noisy(np.full((int((mask > 0).sum()), 3), 230), seed + 2, 8)
    return before, after


def sample(before: np.ndarray, future: np.ndarray, mask: np.ndarray | None = MASK, **more: object) -> Sample:
    reference: dict[str, object] = {"images": [ImageRef(array=future)], **more}
    if mask is not None:
        reference["mask"] = ImageRef(array=mask)
    return Sample("s", Task.FORECAST, (ImageRef(array=before),), reference=reference)


def detecting(which: str = "DIFFERENCE", **config: object) -> Verifier:
    return ready(DetectorConsistency, detector=f"{Path(__file__)}:{which}", **config)


def keys(verifier: Verifier, numbers: dict[str, float | None]) -> dict[str, float | None]:
    """Numbers under the plain names of their keys."""
    return {key.partition("/")[0]: value for key, value in numbers.items()}


def test_the_detector_sees_what_was_changed() -> None:
    before, future = scene()
    verifier, one = detecting(), sample(before, future)
    truth, copied = score_one(verifier, one, future), score_one(verifier, one, before)
    assert truth.raw["f1"] == 1.0 and truth.value is not None and truth.value > 0.8
    assert copied.raw["f1"] == 0.0 and copied.value is not None and copied.value < 0.1
    assert value_of(verifier, one, np.full_like(future, 255)) < 0.4
    assert value_of(detecting(soft=False), one, future) == 1.0
    assert truth.stats["confusion"].tolist() == [[SIZE * SIZE - 144, 0], [0, 144]]
    numbers = keys(verifier, metrics(verifier, [truth, copied]))
    assert numbers["change_f1"] == pytest.approx(2 * 144 / (2 * 144 + 144)) and numbers["change_iou"] == 0.5
    # A faint change that crosses no threshold is worth more than none.
    faint = before.copy()
    faint[MASK > 0] += 40
    assert value_of(verifier, one, faint) > copied.value


def test_empty_masks() -> None:
    before, future = scene(mask=NOTHING)
    one, verifier = sample(before, future, NOTHING), detecting()
    kept = score_one(verifier, one, before)
    assert (kept.value, kept.raw["f1"], kept.raw["iou"]) == (1.0, 1.0, 1.0)
    invented = before.copy()
    invented[:8, :8] = 255
    false = score_one(verifier, one, invented)
    assert false.raw["f1"] == 0.0 and false.value == pytest.approx(1 / (1 + 100 * 64 / 1024))
    nothing = {"change_f1": None, "change_iou": None, "no_change_accuracy": 1.0}
    assert keys(verifier, metrics(verifier, [kept])) == nothing
    assert keys(verifier, metrics(verifier, [kept, false])) == {
        "change_f1": 0.0,
        "change_iou": 0.0,
        "no_change_accuracy": 0.5,
    }
    changed = score_one(verifier, sample(*scene()), scene()[1])
    assert keys(verifier, metrics(verifier, [changed]))["no_change_accuracy"] is None


@pytest.mark.parametrize("against", ["mask", "detector"])
def test_an_invalid_output_is_worse_than_any_picture(against: str) -> None:
    before, future = scene()
    one, still = sample(before, future), sample(*scene(mask=NOTHING), NOTHING)
    verifier = detecting(against=against)
    base = [score_one(verifier, one, future), score_one(verifier, still, still.images[0].array)]  # type: ignore[arg-type]
    for bad in (one, still):
        lost = verifier.invalid(bad, "gone")
        assert lost.status is Status.INVALID_OUTPUT and lost.value == 0.0 and lost.reason == "gone"
        worst = metrics(verifier, [*base, lost])
        for picture in (before, future, 255 - future, np.where(MASK[..., None] > 0, before, 255).astype(np.uint8)):
            numbers = metrics(verifier, [*base, score_one(verifier, bad, picture)])
            assert all((numbers[key] or 0.0) >= (worst[key] or 0.0) for key in worst)
    small = score_one(verifier, one, future[:16])
    assert (
        small.status is Status.INVALID_OUTPUT and "32 x 16" in small.reason and small.stats["confusion"].sum() == 1024
    )


def test_against_the_detector_its_bias_cancels() -> None:
    """A detector blind to half of the change: the true future is still worth everything."""
    before, future = scene()
    half = future.copy()
    half[14:] = before[14:]
    one = sample(before, half)  # the mask says more than can be seen
    assert score_one(detecting(), one, half).raw["f1"] < 0.8
    for case in (one, sample(before, half, None)):
        score = score_one(detecting(against="detector"), case, half)
        assert score.raw["f1"] == 1.0 and score.value == 1.0
    # False alarms of the true pair are forgiven where nothing changed, and others are not.
    still, seen = scene(mask=NOTHING)
    seen[:2, :2] = 255
    quiet = sample(still, seen, NOTHING)
    assert score_one(detecting(against="detector"), quiet, seen).value == 1.0
    assert score_one(detecting(against="detector"), quiet, still).value == 1.0
    assert value_of(detecting(), quiet, seen) < 1.0
    worse = seen.copy()
    worse[:8] = 255
    assert value_of(detecting(against="detector"), quiet, worse) < 0.1
    # A detector that sees no change where there is one cannot tell a copy from the truth.
    assert score_one(detecting("BLIND", against="detector"), one, before).status is Status.NOT_APPLICABLE
    assert score_one(detecting("BLIND"), one, before).value == 0.0


@pytest.mark.parametrize("detector", ["scene-detector", "cva"])
@pytest.mark.parametrize("against", ["mask", "detector"])
def test_an_honest_forecast_comes_first(detector: str, against: str) -> None:
    """Against every policy that does not know the future, in 95 % of the changed scenes."""
    made, verifier = world(30), ready(DetectorConsistency, detector=detector, against=against)
    share, means = share_first(verifier, made)
    assert share >= 0.95
    assert max(means[name] for name in IGNORANT) < 0.25 < 0.75 < means["honest"]
    if against == "detector":
        truths = values(verifier, [one.after for one in made.scenes], made.samples)
        assert np.allclose(truths, 1.0)


@given(
    garbage=arrays(np.uint8, (3, SIZE, SIZE, 3)),
    hidden=arrays(np.bool_, (SIZE, SIZE)),
    by=st.sampled_from(["valid", "clouds"]),
    against=st.sampled_from(["mask", "detector"]),
    detector=st.sampled_from(["scene-detector", "cva"]),
)
@settings(max_examples=20)
def test_what_does_not_count_moves_no_bit(
    garbage: np.ndarray, hidden: np.ndarray, by: str, against: str, detector: str
) -> None:
    before, future = scene()
    hidden[10:14, 10:14] = False  # some change is left to see
    output = noisy(future, 3, 10)
    cover = ImageRef(array=(hidden if by == "clouds" else ~hidden).astype(np.uint8) * 255)
    spoiled = [
        np.where(hidden[..., None], mess, part) for mess, part in zip(garbage, (before, future, output), strict=True)
    ]
    verifier = READY.setdefault((detector, against), ready(DetectorConsistency, detector=detector, against=against))
    first = score_one(verifier, sample(before, future, **{by: cover}), output)
    second = score_one(verifier, sample(spoiled[0], spoiled[1], **{by: cover}), spoiled[2])
    assert plain([first]) == plain([second])


READY: dict[tuple[str, str], Verifier] = {}


def test_a_band_around_the_mask_tolerates_registration() -> None:
    before, future = scene()
    wide = future.copy()
    wide[7:21, 7:21] = 230
    one = sample(before, future)
    assert score_one(detecting(), one, wide).raw["f1"] < 0.9
    assert score_one(detecting(band=1), one, wide).raw["f1"] == 1.0


def test_scores_do_not_depend_on_order_or_split_and_pairs_are_seen_once() -> None:
    samples, outputs = [], []
    for i in range(20):
        size = SIZE if i % 2 else 30
        mask = MASK[:size, :size]
        before, future = scene(i, mask, size)
        one = sample(before, future, mask)
        samples.append(Sample(f"s{i}", one.task, one.images, reference=one.reference))
        outputs.append(Output(f"s{i}", image=ImageRef(array=noisy(future, i, 40))))
    for config in ({}, {"against": "detector"}):
        verifier = detecting(**config)
        whole = verifier.score(Batch.of(samples, outputs))
        assert plain(verifier.score(Batch.of(samples, outputs[::-1]))[::-1]) == plain(whole)
        single = [verifier.score(Batch([one], [out], ["g"]))[0] for one, out in zip(samples, outputs, strict=True)]
        assert plain(single) == plain(whole)
    verifier.detector = Difference()  # type: ignore[attr-defined]
    verifier.score(Batch([samples[1]] * 5, [outputs[1]] * 5, ["g"] * 5))
    assert verifier.detector.calls == [2]  # type: ignore[attr-defined]


def taizhou() -> tuple[Sample, np.ndarray]:
    """The real pair as a forecast sample in six bands, and its true future."""
    folder = shared("data/landsat_taizhou")
    with np.load(folder / "bands_uint8.npz") as bands:
        before, after = (np.ascontiguousarray(np.moveaxis(bands[key], 0, -1)) for key in ("t1", "t2"))
    changed, unchanged = (np.asarray(Image.open(folder / f"{name}.png")) > 127 for name in ("change", "unchanged"))
    reference = {"images": [ImageRef(array=after)], "mask": grey(changed), "valid": grey(changed | unchanged)}
    return Sample("t", Task.FORECAST, (ImageRef(array=before),), reference=reference), after


def test_change_vectors_in_six_bands_of_a_real_pair() -> None:
    """Landsat-7, Taizhou: the published counts on the labelled pixels, all others being context."""
    one, after = taizhou()
    expected = json.loads((shared("golden/change_mask_taizhou_partial") / "expected.json").read_text())
    verifier = ready(DetectorConsistency, detector="cva#bands=0,1,2,3,4,5", outside_valid="shown")
    score = score_one(verifier, one, after)
    assert score.stats["confusion"].tolist() == expected["confusion_rows_gt_cols_pred"]
    assert score.raw["f1"] == pytest.approx(expected["F1"], rel=1e-9)
    assert list(metrics(verifier, [score])) == ["change_f1/cva", "change_iou/cva", "no_change_accuracy/cva"]
    assert score_one(verifier, one, one.images[0]).value == 0.0


def test_context_is_shown_but_not_counted() -> None:
    before, future = scene()
    half = np.zeros_like(MASK)
    half[:16] = 255
    other = noisy(future, 3, 10)
    other[16:] = 255
    one = sample(before, future, valid=ImageRef(array=half))
    counts = [
        score_one(ready(DetectorConsistency, detector="cva", outside_valid=how), one, other).stats["confusion"]
        for how in ("hidden", "shown")
    ]
    assert counts[0].sum() == counts[1].sum() == SIZE * 16
    assert not np.array_equal(*counts)  # what lies outside has moved the threshold
    odd = sample(before, future, valid=ImageRef(array=half[:8]))
    assert score_one(detecting(outside_valid="shown"), odd, future).status is Status.ERROR


def test_bands_of_forecasts_are_checked() -> None:
    rng = np.random.default_rng(0)
    before, future = rng.integers(0, 3000, (2, 16, 16, 4)).astype(np.uint16)
    one = sample(before, future, np.full((16, 16), 255, np.uint8))
    verifier = ready(DetectorConsistency, detector="cva#bands=3,0")
    assert value_of(verifier, one, future) == value_of(verifier, one, future.astype(np.float32))
    other = future.copy()
    other[..., 1:3] = 0  # bands that the detector does not read
    assert value_of(verifier, one, other) == value_of(verifier, one, future)
    assert score_one(verifier, one, future[..., :3]).status is Status.INVALID_OUTPUT
    assert score_one(verifier, one, future.astype(np.uint8)).status is Status.INVALID_OUTPUT
    hole = future.astype(np.float32)
    hole[3, 3, 0] = np.nan
    assert "not finite" in score_one(verifier, one, hole).reason
    wide = ready(DetectorConsistency, detector="cva#bands=9")
    assert score_one(wide, one, future).status is Status.NOT_APPLICABLE


def test_statuses() -> None:
    before, future = scene()
    verifier = detecting()
    assert score_one(verifier, sample(before, future, None), future).status is Status.NOT_APPLICABLE
    nothing = ImageRef(array=NOTHING)
    assert score_one(verifier, sample(before, future, valid=nothing), future).status is Status.NOT_APPLICABLE
    assert score_one(verifier, sample(before[:16], future), future).status is Status.ERROR
    with pytest.raises(ConfigError, match="bands"):
        build("detector_consistency", {"detector": "cva#bands=x"})


def test_a_broken_detector_is_an_error_not_a_score() -> None:
    class Broken(Difference):
        def predict(self, before: np.ndarray, after: np.ndarray, valid: np.ndarray) -> np.ndarray:
            return np.full(before.shape[:3], np.nan, np.float32)

    verifier = detecting()
    verifier.detector = Broken()  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="not finite"):
        score_one(verifier, sample(*scene()), scene()[1])


@given(arrays(np.float32, 20, elements=st.floats(0, 1, width=32)), arrays(np.bool_, 20))
def test_soft_dice_is_a_share(probability: np.ndarray, truth: np.ndarray) -> None:
    truth[0] = True
    assert 0.0 <= soft_dice(probability, truth) <= 1.0
    assert soft_dice(truth.astype(np.float32), truth) == 1.0
    assert soft_dice(1.0 - truth, truth) == 0.0


def test_metric_keys_name_other_detectors() -> None:
    assert [metric.keys[0] for metric in build("detector_consistency").metrics()] == ["change_f1"]
    named = build("detector_consistency", {"detector": "cva:3#bands=1,2", "against": "detector"})
    assert [metric.keys[0] for metric in named.metrics()] == ["change_f1/cva-3-vs-detector"]
    assert detector_label("torchscript:/w/net.v2.pt") == "net.v2" and detector_label("nets.py:make#weights=w") == "make"
    assert detecting().invalid(sample(*scene(), None), "x").status is Status.NOT_APPLICABLE
