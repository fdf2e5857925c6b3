"""Change extent: copies, and copies changed within what counts as invisible, are worth nothing where something changes."""

import numpy as np
import pytest

import rsw_rewards as rsw
from rsw_rewards.core.scores import Status
from rsw_rewards.verifiers.change_extent import ChangeExtent, visible_change
from tests.verifiers.made_forecasts import IGNORANT, grey, noisy, ready, values, world
from tests.verifiers.paired_pictures import near

SIDE = 32
BEFORE = np.full((SIDE, SIDE, 3), 90, np.uint8)
MASK = np.zeros((SIDE, SIDE), bool)
MASK[8:16, 8:24] = True  # an eighth of the image


def changed(mask: np.ndarray, by: int = 60) -> np.ndarray:
    return np.where(mask[..., None], BEFORE + by, BEFORE).astype(np.uint8)


def extent(output: np.ndarray, future: np.ndarray | None = None, mask: np.ndarray | None = MASK, **config) -> rsw.Score:
    reference = {"images": [changed(MASK) if future is None else future]}
    if mask is not None:
        reference["mask"] = grey(mask)
    return rsw.score("change_extent", output=output, images=[BEFORE], reference=reference, **config)


def test_it_is_the_smaller_share_by_the_larger():
    assert extent(changed(MASK)).value == 1.0
    half = MASK & (np.arange(SIDE) < 16)
    assert extent(changed(half)).value == 0.5
    assert extent(changed(np.roll(MASK, 8, 0))).value == 1.0  # elsewhere: not its business
    assert extent(np.full_like(BEFORE, 200)).value == 0.125
    found = extent(changed(half)).raw
    assert found == {"extent": 0.0625, "true_extent": 0.125}


def test_a_copy_changed_within_the_levels_or_in_single_pixels_is_a_copy():
    for levels in (0, 3, 12, 24):
        assert extent(changed(np.ones_like(MASK), levels)).value == 0.0
    assert extent(changed(np.ones_like(MASK), 25)).value == 0.125
    chance = np.random.default_rng(0)
    specks = (np.add.outer(np.arange(SIDE), np.arange(SIDE)) % 3 == 0) & (chance.random((SIDE, SIDE)) < 0.9)
    assert specks.mean() > 0.25 and extent(changed(specks, 120)).value == 0.0
    assert extent(changed(MASK, 20), levels=10).value == 1.0


def test_a_scene_without_change_wants_none():
    for mask in (None, np.zeros_like(MASK)):
        assert extent(BEFORE, future=near(BEFORE, 0, 2.0), mask=mask).value == 1.0
        assert extent(changed(MASK), future=BEFORE, mask=mask).value == pytest.approx(1 / 13.5)


def test_only_what_the_mask_says_counts_as_true_change():
    future = changed(np.ones_like(MASK))  # another light everywhere
    assert extent(changed(MASK), future=future).value == 1.0
    assert extent(changed(MASK), future=future, mask=None).value == 0.125


def test_pixels_that_do_not_count_are_not_looked_at():
    valid = np.ones_like(MASK)
    valid[:, 16:] = False
    forecast = changed(MASK & valid)
    forecast[:, 20:] = 255
    found = rsw.score("change_extent", output=forecast, images=[BEFORE], reference={"images": [changed(MASK)], "mask": grey(MASK), "valid": grey(valid)})  # fmt: skip
    assert found.value == 1.0 and found.raw["extent"] == 0.125


def test_an_output_that_is_no_forecast_is_invalid():
    assert extent(np.zeros((8, 8, 3), np.uint8)).status is Status.INVALID_OUTPUT


def test_blocks_are_found_as_a_loop_finds_them():
    image = noisy(np.full((13, 17, 3), 100), 2, 30)
    before = noisy(np.full((13, 17, 3), 100), 3, 30)
    moved = (np.abs(image.astype(int) - before) > 20).any(-1)
    wanted = np.zeros_like(moved)
    for y in range(12):
        for x in range(16):
            if moved[y : y + 2, x : x + 2].all():
                wanted[y : y + 2, x : x + 2] = True
    assert 0 < wanted.sum() < moved.sum()
    assert (visible_change(image, before, 20) == wanted).all()


def test_honest_forecasts_open_the_gate_and_copies_do_not():
    made = world(24)
    rows = [row for row, scene in enumerate(made.scenes) if scene.mask.any()]
    samples = [made.samples[row] for row in rows]
    honest = values(ready(ChangeExtent), [made.honest[row] for row in rows], samples)
    assert (honest >= 0.25).mean() >= 0.9
    copies = values(ready(ChangeExtent), [IGNORANT["copy"](made, row) for row in rows], samples)
    assert (copies < 0.25).all()
