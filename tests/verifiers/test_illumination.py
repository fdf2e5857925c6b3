"""Matched colours: a change of light is forgiven, a wrong change is not, and nothing is to be had by it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rsw_rewards.core.scores import Status
from rsw_rewards.verifiers.illumination import histogram_table, matched, moments_table
from tests.verifiers.paired_pictures import built, forecast, ground, image, metric, near, ready, ref, sample, score_one

MATCHES = ("moments", "histogram")
PIXELS = ("mse", "l1", "ssim", "psnr", "gain_over_copy")


def relit(pixels: np.ndarray, kind: str) -> np.ndarray:
    """The same ground under another light: linear in every band, or on a curve."""
    values = pixels.astype(float) / 255
    lit = values * (0.55, 0.7, 0.62) + (0.2, 0.02, 0.1) if kind == "linear" else values ** np.array([0.7, 1.3, 0.8])
    return np.clip(np.rint(lit * 255), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("match", "light"), [("moments", "linear"), ("histogram", "linear"), ("histogram", "curve")])
@pytest.mark.parametrize("name", PIXELS)
def test_the_truth_under_another_light_is_nearly_perfect_once_matched(name: str, match: str, light: str) -> None:
    before, after, mask = built(1)
    one = sample(before, after, mask=ref(mask))
    plain = score_one(ready(name), one, forecast(relit(after, light)))
    fitted = score_one(ready(name, match=match), one, forecast(relit(after, light)))
    assert plain.value is not None and fitted.value is not None
    assert fitted.value > 0.93 and 1 - fitted.value < (1 - plain.value) / 2


@pytest.mark.parametrize("match", MATCHES)
@pytest.mark.parametrize("name", ["mse", "l1", "ssim"])
def test_a_wrong_change_inside_the_mask_stays_wrong(name: str, match: str) -> None:
    """A dark pond where a bright block is built, under a season's light: no worse and no better for the match."""
    before, after, mask = built(2)
    wrong = after.copy()
    wrong[mask] = (20, 40, 50)
    one = sample(before, after, mask=ref(mask))
    verifier = ready(name, match=match, region="inside")
    right, pond = (score_one(verifier, one, forecast(relit(x, "linear"))).value for x in (after, wrong))
    assert right is not None and pond is not None and right > 0.85 and pond < 0.6
    missed = score_one(ready(name, match=match, region="inside", gain=True), one, forecast(relit(before, "linear")))
    assert missed.value == pytest.approx(0.5, abs=0.03)  # the copy in the gain is matched as well


@pytest.mark.parametrize("match", MATCHES)
def test_the_light_of_a_season_is_no_gain_once_both_are_matched(match: str) -> None:
    """The input brought to the future's light has gained under the plain error, and nothing once the copy is matched."""
    before = ground(4)
    summer = relit(before, "linear")
    one = sample(before, near(summer, 1, 2.0))
    brought = forecast(summer)
    plain, fitted = (score_one(ready("gain_over_copy", match=how), one, brought) for how in ("none", match))
    assert plain.raw["gain"] > 0.9
    assert abs(fitted.raw["error"] - fitted.raw["copy_error"]) < 1e-3


@pytest.mark.parametrize("match", MATCHES)
@pytest.mark.parametrize("name", [*PIXELS, "ms_ssim"])
def test_an_image_of_one_colour_cannot_be_matched_and_takes_the_worst(name: str, match: str) -> None:
    before, after, mask = built(3)
    one = sample(before, after, mask=ref(mask))
    config = {"match": match, **({"scales": 3} if name == "ms_ssim" else {})}
    verifier = ready(name, **config)
    flat = np.broadcast_to(after.mean((0, 1)).astype(np.uint8), after.shape)
    speckled = near(flat, 1, 0.4)
    noise = score_one(verifier, one, forecast(image(1, 64)))
    for made in (flat, speckled):
        score = score_one(verifier, one, forecast(made))
        assert (score.status, score.value) == (Status.INVALID_OUTPUT, 0.0) and "one colour" in score.reason
        assert noise.value is not None and noise.value > score.value
        (key,) = metric(verifier, [noise])
        with_it, without = (metric(verifier, scores)[key] for scores in ([noise, score], [noise]))
        assert with_it is not None and without is not None
        assert with_it > without if name in ("mse", "l1") else with_it < without


@pytest.mark.parametrize("match", MATCHES)
def test_a_flat_truth_may_be_forecast_flat(match: str) -> None:
    """Open water without texture is a picture of one colour, and a forecast of it is right."""
    sea = np.full((32, 32, 3), (20, 60, 90), np.uint8)
    score = score_one(ready("l1", match=match), sample(ground(1, 32), sea), forecast(sea + 20))
    assert score.value == pytest.approx(1.0)


@pytest.mark.parametrize("match", MATCHES)
def test_an_input_that_cannot_be_matched_is_copied_as_it_is(match: str) -> None:
    _, after, _ = built(1)
    night = np.zeros_like(after)
    plain, fitted = (
        score_one(ready("gain_over_copy", match=how), sample(night, after), forecast(after)) for how in ("none", match)
    )
    assert fitted.raw["copy_error"] == plain.raw["copy_error"] > 0.1 and fitted.value == 1.0


def test_where_all_is_changed_there_is_nothing_to_match_on() -> None:
    before, after, _ = built(1)
    everything = sample(before, after, mask=ref(np.ones((64, 64), bool)))
    for match in MATCHES:
        score = score_one(ready("l1", match=match), everything, forecast(after))
        assert score.status is Status.NOT_APPLICABLE and "64 pixels" in score.reason


@given(arrays.arrays(np.uint8, st.integers(1, 80)), arrays.arrays(np.uint8, st.integers(1, 80)))
@settings(max_examples=60, deadline=None)
def test_the_order_of_levels_is_kept(have: np.ndarray, want: np.ndarray) -> None:
    for table in (moments_table(have, want), histogram_table(have, want)):
        assert table.shape == (256,) and (np.diff(table) >= -1e-9).all()


def test_moments_and_histograms_become_those_of_the_target() -> None:
    have, want = ground(1)[..., 0].ravel(), ground(7)[..., 1].ravel()
    moved = moments_table(have, want)[have]
    assert (moved.mean(), moved.std()) == pytest.approx((want.mean(), want.std()))
    ranked = histogram_table(have, want)[have]
    assert np.percentile(ranked, [5, 25, 50, 75, 95]) == pytest.approx(
        np.percentile(want, [5, 25, 50, 75, 95]), abs=1.5
    )


def test_a_histogram_matched_to_itself_changes_nothing() -> None:
    picture = ground(2)
    fit = np.zeros((64, 64), bool)
    fit[:, :20] = True
    np.testing.assert_array_equal(matched(picture, picture, fit, "histogram"), picture)
    np.testing.assert_array_equal(matched(picture, picture, fit, "moments"), picture)


def test_what_is_brighter_than_all_that_was_there_stays_brighter() -> None:
    """A new roof outside the range of the ground keeps its distance to it, whatever the ground's histogram says."""
    table = histogram_table(np.array([50, 60, 70], np.uint8), np.array([80, 90, 100], np.uint8))
    assert table[70] == 100 and table[120] == 150 and table[40] == 70 and table[55] == pytest.approx(85)
