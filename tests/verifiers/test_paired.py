"""Paired image verifiers: parity with reference implementations, regions, and what copying is worth."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Batch
from rsw_rewards.errors import ConfigError
from rsw_rewards.io.images import write_png
from rsw_rewards.verifiers import paired, regions
from tests.verifiers.paired_pictures import (
    blurred,
    built,
    forecast,
    ground,
    image,
    jpeg,
    metric,
    near,
    ready,
    ref,
    sample,
    score_one,
)

PIXELS = ("ssim", "psnr", "l1", "mse", "gain_over_copy")


def test_psnr_and_l1_equal_their_references() -> None:
    from skimage.metrics import peak_signal_noise_ratio

    first, second = image(0), near(image(0), 1, 20.0)
    one = sample(first, second)
    score = score_one(ready("psnr"), one, forecast(first))
    assert score.raw["psnr"] == pytest.approx(peak_signal_noise_ratio(first, second, data_range=255), rel=1e-12)
    assert score_one(ready("l1"), one, forecast(first)).raw["l1"] == pytest.approx(
        np.abs(first.astype(float) - second).mean() / 255, rel=1e-12
    )
    assert score_one(ready("psnr"), one, forecast(second)).raw["psnr"] == paired.PSNR_CEILING_DB


@pytest.mark.parametrize("name", PIXELS)
def test_the_truth_is_worth_one_and_more_noise_is_worth_less(name: str) -> None:
    future = image(0)
    one = sample(image(1), future)
    verifier = ready(name)
    values = [score_one(verifier, one, forecast(near(future, 2, noise))).value for noise in (0.0, 5.0, 20.0, 60.0)]
    assert values[0] == pytest.approx(1.0)
    assert all(better > worse for better, worse in itertools.pairwise(values))  # type: ignore[operator]


def test_region_means_do_not_depend_on_the_area_of_the_region() -> None:
    """The same error inside a small and a large mask is the same number, and what happens outside does not enter."""
    future = np.full((40, 40, 3), 100, np.uint8)
    for side in (4, 20):
        mask = np.zeros((40, 40), np.uint8)
        mask[10 : 10 + side, 10 : 10 + side] = 255
        output = future.copy()
        output[mask > 0] += 50
        output[0, 0] = 255
        one = sample(future, future, mask=ref(mask))
        inside = score_one(ready("l1", region="inside"), one, forecast(output))
        assert inside.raw["l1"] == pytest.approx(50 / 255)
    far = score_one(ready("l1", region="outside"), one, forecast(output)).raw["l1"]
    assert far == pytest.approx((155 / 255) / (1600 - 22 * 22))


def test_the_band_around_the_mask_belongs_to_neither_side() -> None:
    future = np.full((20, 20, 3), 100, np.uint8)
    mask = np.zeros((20, 20), np.uint8)
    mask[5:10, 5:10] = 255
    output = future.copy()
    output[4, 4:11] = 255  # the ring
    one = sample(future, future, mask=ref(mask))
    for region in ("inside", "outside"):
        assert score_one(ready("l1", region=region), one, forecast(output)).raw["l1"] == 0.0
    assert score_one(ready("l1", region="outside", band=0), one, forecast(output)).raw["l1"] > 0.0


@pytest.mark.parametrize("name", PIXELS)
def test_pixels_that_do_not_count_cannot_move_a_score(name: str) -> None:
    before, future = image(1), image(0)
    valid = np.full((32, 32), 255, np.uint8)
    valid[:, 20:] = 0
    holed = future.copy()
    holed[:10] = 7
    one = sample(before, holed, valid=ref(valid))
    one.reference["images"][0] = ref(holed, nodata=7)  # type: ignore[index]
    output = near(future, 3, 10.0)
    other = output.copy()
    other[:, 20:] = 0
    other[:10] = 255
    verifier = ready(name)
    first, second = (score_one(verifier, one, forecast(pixels)) for pixels in (output, other))
    assert first.status is Status.OK and first == second


def test_nothing_to_compare_depends_on_the_sample_alone() -> None:
    future = image(0)
    empty, no_mask = sample(future, future, mask=ref(np.zeros((32, 32), np.uint8))), sample(future, future)
    for one in (empty, no_mask):
        score = score_one(ready("psnr", region="inside"), one, forecast(image(3)))
        assert score.status is Status.NOT_APPLICABLE
        assert ready("psnr", region="inside").invalid(one, "no image").status is Status.NOT_APPLICABLE
    no_future = Sample("s", Task.FORECAST, (ref(future),))
    assert score_one(ready("ssim"), no_future, forecast(image(3))).status is Status.NOT_APPLICABLE
    assert score_one(ready("ssim"), sample(image(0, 8), image(1, 8)), forecast(image(3, 8))).status is (
        Status.NOT_APPLICABLE
    )


def test_blame_falls_on_who_is_to_blame(tmp_path: Path) -> None:
    future = image(0)
    broken, gone = tmp_path / "broken.png", tmp_path / "gone.png"
    broken.write_bytes(b"not a picture")
    good = tmp_path / "good.png"
    write_png(good, future)
    for name in ("ssim", "gain_over_copy"):
        verifier = ready(name)
        for path in (broken, gone):
            score = score_one(verifier, sample(future, future), Output("s", image=ImageRef(path=path)))
            assert (score.status, score.value) == (Status.INVALID_OUTPUT, 0.0) and str(path) in score.reason
            ours = Sample("s", Task.FORECAST, (ref(future),), reference={"images": [ImageRef(path=path)]})
            assert score_one(verifier, ours, Output("s", image=ImageRef(path=good))).status is Status.ERROR
        score = score_one(verifier, sample(future, future), forecast(image(0, 16)))
        assert score.status is Status.INVALID_OUTPUT
        assert "16 x 16" in score.reason and "32 x 32" in score.reason
    mask = sample(future, future, mask=ref(np.zeros((8, 8), np.uint8)))
    assert score_one(ready("l1", region="inside"), mask, forecast(future)).status is Status.ERROR
    input_size = sample(image(0, 16), future)
    assert score_one(ready("gain_over_copy"), input_size, forecast(future)).status is Status.ERROR


def test_copying_is_worth_half_and_the_metric_is_a_ratio_of_sums() -> None:
    before, future = image(1), image(0)
    verifier = ready("gain_over_copy")
    one = sample(before, future)
    outputs = [before, future, near(future, 4, 30.0), image(9)]
    scores = [score_one(verifier, one, forecast(pixels)) for pixels in outputs]
    assert scores[0].value == pytest.approx(0.5) and scores[0].raw["gain"] == pytest.approx(0.0)
    assert scores[1].value == pytest.approx(1.0)
    errors = sum(score.raw["error"] for score in scores)
    copies = sum(score.raw["copy_error"] for score in scores)
    assert metric(verifier, scores) == {"gain_over_copy": pytest.approx(1 - errors / copies)}
    assert metric(verifier, scores, np.array([0.0, 3.0, 0.0, 0.0])) == {"gain_over_copy": pytest.approx(1.0)}
    assert metric(verifier, [Score.invalid("x")]) == {"gain_over_copy": None}
    assert list(metric(ready("gain_over_copy", distance="l1", region="outside"), [])) == ["gain_over_copy_outside_l1"]


def test_where_nothing_changes_a_copy_beats_invention() -> None:
    future = image(0)
    before = near(future, 1, 1.0)
    verifier = ready("gain_over_copy")
    copied, invented = (
        score_one(verifier, sample(before, future), forecast(pixels)) for pixels in (before, near(future, 2, 30.0))
    )
    assert copied.value is not None and invented.value is not None
    assert copied.value > 0.95 > 0.5 > invented.value
    assert math.isfinite(invented.raw["gain"])


@pytest.mark.parametrize("name", PIXELS)
def test_scores_do_not_depend_on_order_or_split(name: str) -> None:
    samples = [sample(image(i), image(100 + i), f"s{i}") for i in range(5)]
    outputs = [forecast(near(image(100 + i), i, 20.0), f"s{i}") for i in range(5)]
    whole = ready(name).score(Batch.of(samples, outputs))
    backwards = ready(name).score(Batch.of(samples, outputs[::-1]))[::-1]
    single = [score_one(ready(name), one, output) for one, output in zip(samples, outputs, strict=True)]
    assert whole == backwards == single


@given(st.integers(0, 2**32 - 1), st.integers(0, 4))
@settings(max_examples=50, deadline=None)
def test_dilation_equals_its_definition(seed: int, radius: int) -> None:
    from scipy.ndimage import maximum_filter

    mask = np.random.default_rng(seed).random((9, 7)) < 0.1
    expected = maximum_filter(mask, size=2 * radius + 1, mode="constant")
    np.testing.assert_array_equal(regions.dilate(mask, radius), expected)


@given(st.floats(0, 10), st.floats(0, 10), st.floats(1e-3, 10))
def test_the_value_of_a_gain_is_bounded_and_monotone(first: float, second: float, copied: float) -> None:
    values = [paired.gain_to_value(paired.gain_over_copy(error, copied)) for error in sorted((first, second))]
    assert 1.0 >= values[0] >= values[1] > 0.0


GAINS = ("mse", "l1", "ssim", "ms_ssim")


def gained(name: str, **config: object) -> paired.Paired:
    made = ready(name, gain=True, **({"scales": 3, **config} if name == "ms_ssim" else config))
    assert isinstance(made, paired.Paired)
    return made


def policies(seed: int) -> dict[str, np.ndarray]:
    """What is forecast for the place of ``built(seed)``, by how."""
    before, after, _ = built(seed)
    honest = after.copy()
    honest[:, :34] = near(before, seed + 9, 3.0)[:, :34]  # half of the block is missed
    return {
        "honest": near(honest, seed + 3, 3.0),
        "copy": before,
        "blurred copy": blurred(before, 2.0),
        "mean": np.broadcast_to(after.mean((0, 1)).astype(np.uint8), after.shape).copy(),
        "noise": image(seed, 64),
        "other future": built(seed + 1000)[1][::-1, ::-1],
        "jpeg of a copy": jpeg(before, 20),
    }


@pytest.mark.parametrize("region", ["all", "inside"])
@pytest.mark.parametrize("match", ["none", "moments", "histogram"])
@pytest.mark.parametrize("name", GAINS)
def test_an_honest_forecast_gains_more_than_any_trick(name: str, match: str, region: str) -> None:
    """On average over places: half of a block in its place is worth more than all that knows nothing of it."""
    totals: dict[str, list[float]] = {}
    for seed in (1, 2, 3):
        before, after, mask = built(seed)
        one = sample(before, after, mask=ref(mask))
        verifier = gained(name, match=match, region=region)
        made = policies(seed)
        outputs = [forecast(pixels) for pixels in (*made.values(), after, jpeg(after, 97))]
        scores = verifier.score(Batch([one] * len(outputs), outputs, ["s"] * len(outputs)))
        for policy, score in zip((*made, "truth", "jpeg of the truth"), scores, strict=True):
            assert score.value is not None
            totals.setdefault(policy, []).append(score.value)
    worth = {policy: sum(values) / 3 for policy, values in totals.items()}
    assert worth["truth"] == pytest.approx(1.0)
    assert worth["truth"] > worth["jpeg of the truth"] > worth["honest"]
    tricks = {policy: worth[policy] for policy in worth if policy not in ("truth", "jpeg of the truth", "honest")}
    assert worth["honest"] > max(tricks.values()) + 0.02, worth
    assert worth["copy"] == pytest.approx(0.5)
    assert region == "inside" or max(tricks.values()) == worth["copy"]


@pytest.mark.parametrize("name", GAINS)
def test_a_gain_is_a_ratio_of_sums_and_an_unchanged_copy_is_worth_more_than_half(name: str) -> None:
    verifier = gained(name)
    scores = []
    for seed in (1, 2):
        before, after, _ = built(seed)
        scores += verifier.score(
            Batch([sample(before, after)] * 2, [forecast(before), forecast(near(after, 3, 9.0))], ["s"] * 2)
        )
    assert [scores[0].raw["gain"], scores[2].raw["gain"]] == pytest.approx([0.0, 0.0])
    errors, copies = (sum(score.raw[key] for score in scores) for key in ("error", "copy_error"))
    assert metric(verifier, scores) == {f"{verifier.key}": pytest.approx(1 - errors / copies)}
    still = ground(5)
    unchanged = sample(near(still, 1, 0.5), still)
    copied = score_one(verifier, unchanged, forecast(near(still, 1, 0.5)))
    assert copied.value is not None and 0.5 < copied.value < 1.0


def test_psnr_gains_decibels() -> None:
    before, after, _ = built(1)
    verifier = ready("psnr", gain=True)
    score = score_one(verifier, sample(before, after), forecast(near(after, 3, 4.0)))
    plain = ready("psnr")
    first, copied = (score_one(plain, sample(before, after), forecast(x)) for x in (near(after, 3, 4.0), before))
    assert score.raw["gain"] == pytest.approx(first.raw["psnr"] - copied.raw["psnr"])
    assert score.value == pytest.approx(1 / (1 + first.raw["mse"] / copied.raw["mse"]))
    assert metric(verifier, [score, score]) == {"gain_psnr": pytest.approx(score.raw["gain"])}


@pytest.mark.parametrize("name", ["psnr", "l1", "mse", "ssim", "ms_ssim"])
@pytest.mark.parametrize("gain", [False, True])
def test_leaving_a_hard_sample_out_never_raises_a_number(name: str, gain: bool) -> None:
    config = {"scales": 3} if name == "ms_ssim" else {}
    verifier = ready(name, gain=gain, **config)
    before, after, _ = built(1)
    worst = np.where(after > 127, 0, 255).astype(np.uint8)  # no picture is farther from the truth
    places = [sample(before, after), sample(worst, after)]
    rest = [score_one(verifier, place, forecast(near(after, 4, 9.0))) for place in places]
    (key,) = metric(verifier, rest)
    for hard in places:
        drawn = metric(verifier, [*rest, score_one(verifier, hard, forecast(worst))])[key]
        left_out = metric(verifier, [*rest, verifier.invalid(hard, "no image")])[key]
        assert drawn is not None and left_out is not None
        lower_is_better = name in ("l1", "mse") and not gain
        assert (left_out >= drawn - 1e-12) if lower_is_better else (left_out <= drawn + 1e-12)


def test_an_invalid_output_enters_a_gain_as_the_worst() -> None:
    before, after, _ = built(1)
    one = sample(before, after)
    for name in GAINS:
        lost = gained(name).invalid(one, "no image")
        assert lost.status is Status.INVALID_OUTPUT and lost.reason == "no image"
        assert float(lost.stats["gained"]) < 0


def test_keys_say_what_was_done() -> None:
    wanted = {
        "ssim": ("ssim", {}),
        "l1_inside": ("l1", {"region": "inside"}),
        "gain_mse_outside": ("mse", {"region": "outside", "gain": True}),
        "ssim_inside_moments": ("ssim", {"region": "inside", "match": "moments"}),
        "gain_psnr_histogram_shift2": ("psnr", {"gain": True, "match": "histogram", "shift": 2}),
        "gain_over_copy": ("gain_over_copy", {}),
        "gain_over_copy_inside_shift1": ("gain_over_copy", {"region": "inside", "shift": 1}),
        "ms_ssim": ("ms_ssim", {}),
        "gain_ms_ssim_3scales": ("ms_ssim", {"scales": 3, "gain": True}),
    }
    for key, (name, config) in wanted.items():
        verifier = ready(name, **config)
        assert [found for one in verifier.metrics() for found in one.keys] == [key]


@pytest.mark.parametrize("config", [{"gain": False}, {"shift": 4}, {"shift": -1}, {"match": "colour"}, {"band": -1}])
def test_what_makes_no_sense_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"gain_over_copy.*{next(iter(config))}"):
        ready("gain_over_copy", **config)


@pytest.mark.parametrize("name", ["l1", "mse", "psnr", "ssim", "gain_over_copy"])
def test_a_shift_within_the_tolerance_costs_nothing_and_one_beyond_it_does(name: str) -> None:
    wide = ground(3, 48)
    future, before = wide[4:-4, 4:-4], ground(9, 40)
    one = sample(before, future)
    for down, right in ((0, 0), (2, -1), (-2, 2)):
        moved = wide[4 + down : 44 + down, 4 + right : 44 + right]
        assert score_one(ready(name, shift=2), one, forecast(moved)).value == pytest.approx(1.0)
    far = wide[7:47, 4:44]
    assert score_one(ready(name, shift=2), one, forecast(far)).value < 0.99  # type: ignore[operator]
    assert score_one(ready(name, shift=3), one, forecast(far)).value == pytest.approx(1.0)


def test_the_copy_of_a_gain_gets_the_same_tolerance() -> None:
    """An input that is merely misregistered is no worse a copy for it, so undoing the shift earns nothing."""
    wide = ground(3, 72)
    future, before = wide[4:-4, 4:-4], wide[5:-3, 6:-2]
    one = sample(before, future)
    copied = score_one(ready("gain_over_copy", shift=2), one, forecast(before))
    assert copied.raw["copy_error"] == 0.0 and copied.value == pytest.approx(1.0)
    assert score_one(ready("gain_over_copy"), one, forecast(future)).raw["copy_error"] > 0.003


def test_holes_stay_without_effect_under_a_shift_and_matched_colours() -> None:
    before, after, mask = built(2)
    valid = np.ones((64, 64), bool)
    valid[:20, 40:] = False
    one = sample(before, after, mask=ref(mask), valid=ref(valid))
    output = near(after, 3, 9.0)
    other = output.copy()
    other[:20, 40:] = 255 - other[:20, 40:]
    for name in ("mse", "ssim", "gain_over_copy"):
        for match in ("none", "moments", "histogram"):
            verifier = ready(name, match=match)
            first, second = (score_one(verifier, one, forecast(pixels)) for pixels in (output, other))
            assert first.status is Status.OK and first == second
        assert score_one(ready(name, shift=2), one, forecast(output)).status is Status.OK


@given(st.integers(0, 2**32 - 1), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_the_best_shift_is_the_one_of_least_error(seed: int, shift: int) -> None:
    random = np.random.default_rng(seed)
    wide = random.integers(0, 256, (9, 11, 3), dtype=np.uint8)
    future = regions.inset(random.integers(0, 256, (9, 11, 3), dtype=np.uint8), shift)
    valid = random.random(future.shape[:2]) < 0.8
    found = regions.aligned(wide, future, valid, shift)

    def error(window: np.ndarray) -> int:
        return int(np.square(window.astype(int) - future)[valid].sum())

    height, width = valid.shape
    windows = [
        wide[top : top + height, left : left + width] for top in range(2 * shift + 1) for left in range(2 * shift + 1)
    ]
    assert found.shape == future.shape and error(found) == min(map(error, windows))
