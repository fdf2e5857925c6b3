"""Change consistency by pixels: neither copying nor repainting pleases it, and what does not count moves no bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Sample, Task
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.verifiers import pixel_consistency
from rsw_rewards.verifiers.pixel_consistency import ChangeConsistency
from tests.verifiers.made_forecasts import (
    IGNORANT,
    blurred,
    jpeg,
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


def scene(seed: int = 0, mask: np.ndarray = MASK) -> tuple[np.ndarray, np.ndarray]:
    """Before and after: a block is built inside the mask, and the light shifts everywhere."""
    before = noisy(np.full((SIZE, SIZE, 3), 90), seed, 8)
    after = noisy(np.full((SIZE, SIZE, 3), 102), seed + 1, 8)
    after[mask > 0] = noisy(np.full((int((mask > 0).sum()), 3), 230), seed + 2, 8)
    return before, after


def sample(before: np.ndarray, future: np.ndarray, mask: np.ndarray | None = MASK, **more: ImageRef) -> Sample:
    reference: dict[str, object] = {"images": [ImageRef(array=future)], **more}
    if mask is not None:
        reference["mask"] = ImageRef(array=mask)
    return Sample("s", Task.FORECAST, (ImageRef(array=before),), reference=reference)


def test_neither_copying_nor_repainting_pleases() -> None:
    before, future = scene()
    inside = MASK > 0
    verifier, one = ready(ChangeConsistency), sample(before, future)
    edited = before.copy()
    edited[inside] = future[inside]
    repainted = noisy(np.full_like(future, 128), 9, 60)
    repainted[inside] = future[inside]
    found = {
        "truth": value_of(verifier, one, future),
        "edit": value_of(verifier, one, edited),  # the light shift is not asked for
        "copy": value_of(verifier, one, before),
        "grey": value_of(verifier, one, np.full_like(future, 128)),
        "repaint": value_of(verifier, one, repainted),
        "noise": value_of(verifier, one, np.random.default_rng(5).integers(0, 256, future.shape, dtype=np.uint8)),
    }
    assert found["truth"] == pytest.approx(1.0) and found["edit"] == pytest.approx(1.0)
    assert found["copy"] == pytest.approx(pixel_consistency.COPY_FULFILMENT)
    assert found["copy"] < 0.3 and max(found["repaint"], found["noise"], found["grey"]) < found["copy"]
    half = noisy((before.astype(float) + future) / 2, 3, 0)
    assert found["copy"] < value_of(verifier, one, half) < found["truth"]


def test_an_honest_forecast_comes_first_in_nearly_every_changed_scene() -> None:
    """What the card claims: 95 % of changed scenes, against every policy that does not know the future."""
    made, verifier = world(), ready(ChangeConsistency)
    share, means = share_first(verifier, made)
    assert share >= 0.95
    assert max(means[name] for name in IGNORANT) < 0.3 < 0.9 < means["honest"]


def test_a_compressed_or_blurred_truth_lies_between_a_copy_and_the_truth() -> None:
    made, verifier = world(), ready(ChangeConsistency)
    rows = [row for row, one in enumerate(made.scenes) if one.changed]
    samples = [made.samples[row] for row in rows]
    copied = values(verifier, [made.scenes[row].before for row in rows], samples)
    for spoil in (lambda picture: jpeg(picture, 30), blurred):
        spoiled = values(verifier, [spoil(made.scenes[row].after) for row in rows], samples)
        assert (spoiled < 1).all() and (spoiled > copied).mean() >= 0.9


def test_where_nothing_changes_only_preservation_counts() -> None:
    made, verifier = world(), ready(ChangeConsistency)
    still = [row for row, one in enumerate(made.scenes) if not one.changed]
    samples = [made.samples[row] for row in still]
    copied = values(verifier, [made.scenes[row].before for row in still], samples)
    assert len(still) > 5 and (copied == 1.0).all()
    assert (values(verifier, [made.honest[row] for row in still], samples) > 0.9).all()
    for name in ("blurred copy", "noise", "another future", "one colour"):
        assert values(verifier, [IGNORANT[name](made, row) for row in still], samples).mean() < 0.7, name
    before, future = scene()
    everything = np.full_like(MASK, 255)
    score = score_one(verifier, sample(before, future, everything), future)
    assert score.value == 1.0 and "preservation" not in score.raw


def test_metrics_and_invalid_outputs() -> None:
    before, future = scene()
    verifier, one = ready(ChangeConsistency), sample(before, future)
    still = sample(*scene(mask=NOTHING), NOTHING)
    truth, copied = score_one(verifier, one, future), score_one(verifier, one, before)
    unchanged = score_one(verifier, still, scene(mask=NOTHING)[0])
    assert metrics(verifier, [truth]) == {"fulfilment": 1.0, "preservation": 1.0}
    assert metrics(verifier, [copied, unchanged]) == {"fulfilment": 0.0, "preservation": 1.0}
    assert metrics(verifier, [truth, copied]) == {"fulfilment": pytest.approx(0.5), "preservation": 1.0}
    assert metrics(verifier, [unchanged])["fulfilment"] is None
    # No picture is worse than none: whatever is drawn in its place, the numbers do not fall.
    missing = verifier.invalid(one, "no image")
    assert missing.status is Status.INVALID_OUTPUT and missing.reason == "no image"
    worst = metrics(verifier, [truth, missing])
    for picture in (before, 255 - future, noisy(future, 1, 200), np.where(future > 127, 0, 255).astype(np.uint8)):
        numbers = metrics(verifier, [truth, score_one(verifier, one, picture)])
        assert all((numbers[key] or 0.0) >= (worst[key] or 0.0) for key in worst)
    small = score_one(verifier, one, future[:16])
    assert plain([small])[0][3] == plain([missing])[0][3] and "32 x 16" in small.reason


@given(
    garbage=arrays(np.uint8, (3, SIZE, SIZE, 3)),
    hidden=arrays(np.bool_, (SIZE, SIZE)),
    by=st.sampled_from(["valid", "clouds"]),
    shift=st.sampled_from([0, 1]),
)
def test_what_does_not_count_moves_no_bit(garbage: np.ndarray, hidden: np.ndarray, by: str, shift: int) -> None:
    before, future = scene()
    output = noisy(future, 3, 10)
    hidden = hidden & np.random.default_rng(1).random(hidden.shape).__lt__(0.3)  # leave pixels to count
    cover = ImageRef(array=(hidden if by == "clouds" else ~hidden).astype(np.uint8) * 255)
    spoiled = [
        np.where(hidden[..., None], mess, part) for mess, part in zip(garbage, (before, future, output), strict=True)
    ]
    verifier = ready(ChangeConsistency, shift=shift)
    first = score_one(verifier, sample(before, future, **{by: cover}), output)
    second = score_one(verifier, sample(spoiled[0], spoiled[1], **{by: cover}), spoiled[2])
    assert plain([first]) == plain([second])


def test_nodata_of_input_and_future_does_not_count() -> None:
    before, future = scene()
    output = noisy(future, 3, 10)
    for date in (0, 1):
        images = [before.copy(), future.copy()]
        images[date][:9] = 0
        one = Sample(
            "s",
            Task.FORECAST,
            (ImageRef(array=images[0], nodata=0),),
            reference={"images": [ImageRef(array=images[1], nodata=0)], "mask": ImageRef(array=MASK)},
        )
        other = output.copy()
        other[:9] = 255
        verifier = ready(ChangeConsistency)
        assert plain([score_one(verifier, one, output)]) == plain([score_one(verifier, one, other)])


def test_a_tolerated_shift_is_forgiven() -> None:
    made = world()
    rows = [row for row, one in enumerate(made.scenes) if one.changed]
    moved = [np.roll(made.honest[row], 1, axis=1) for row in rows]
    samples = [made.samples[row] for row in rows]
    strict, tolerant = (values(ready(ChangeConsistency, shift=shift), moved, samples) for shift in (0, 1))
    assert strict.mean() < 0.7 and tolerant.mean() > 0.9


def test_statuses() -> None:
    before, future = scene()
    verifier = ready(ChangeConsistency)
    assert score_one(verifier, sample(before, future, None), future).status is Status.NOT_APPLICABLE
    nothing = ImageRef(array=NOTHING)
    assert score_one(verifier, sample(before, future, valid=nothing), future).status is Status.NOT_APPLICABLE
    assert score_one(verifier, sample(before[:16], future), future).status is Status.ERROR
    assert score_one(verifier, sample(before, future, clouds=ImageRef(array=MASK[:16])), future).status is Status.ERROR
    odd = sample(before, future, clouds="clouds.png")  # type: ignore[arg-type]
    assert "clouds" in score_one(verifier, odd, future).reason
    assert isinstance(verifier.invalid(sample(before, future, None), "x"), Score)
    assert verifier.invalid(sample(before, future, None), "x").status is Status.NOT_APPLICABLE


@given(st.floats(-50, 1), st.floats(-50, 1), st.floats(0, 1), st.floats(0, 1), st.floats(1e-3, 1))
def test_the_value_is_bounded_and_monotone(gain: float, other: float, error: float, less: float, copied: float) -> None:
    gain, other = sorted((gain, other))
    less, error = sorted((less, error))
    worse = pixel_consistency.change_consistency(gain, pixel_consistency.preservation(error, copied, 0.003))
    better = pixel_consistency.change_consistency(other, pixel_consistency.preservation(less, copied, 0.003))
    assert 0.0 <= worse <= better <= 1.0
