"""semantic_change: both confusion matrices of the literature, their golden numbers, and what contradictions and gaps are worth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import cohen_kappa_score

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Batch
from rsw_rewards.verifiers.confusion import ClassCounts, confusion_matrix, semantic_change_metrics
from rsw_rewards.verifiers.semantic_change import SemanticChange, from_to

GOLDEN = Path(__file__).parents[1] / "golden" / "semantic_change_second"
JOINTS = ("stacked", "from_to")
BEFORE, AFTER = np.zeros((2, 6, 8), np.uint8)
BEFORE[:2], AFTER[:2] = 1, 3
BEFORE[2, :4], AFTER[2, :4] = 6, 2
NOTHING = np.zeros_like(BEFORE)

Maps = tuple[np.ndarray, np.ndarray]
MAP = arrays.arrays(np.uint8, (4, 5), elements=st.integers(0, 6))
MASK = arrays.arrays(bool, (4, 5))


@st.composite
def consistent(draw: st.DrawFn) -> Maps:
    """Maps of two dates that agree on what changed."""
    changed = draw(MASK)
    return (np.maximum(draw(MAP), 1) * changed, np.maximum(draw(MAP), 1) * changed)


def score(predicted: Maps | None, truth: Maps = (BEFORE, AFTER), joint: str = "stacked", **reference: object) -> Score:
    maps = {key: ImageRef(array=pixels) for key, pixels in zip(("map_before", "map_after"), truth, strict=True)}
    sample = Sample("s", Task.SEMANTIC_CHANGE, (), reference={**maps, **reference})
    drawn = [None, None] if predicted is None else [ImageRef(array=pixels) for pixels in predicted]
    output = Output("s", map_before=drawn[0], map_after=drawn[1])
    return verifier(joint).score(Batch.of([sample], [output]))[0]


def verifier(joint: str) -> SemanticChange:
    return SemanticChange(SemanticChange.Config.model_validate({"joint": joint}))


def numbers(scores: Sequence[Score], joint: str = "stacked") -> dict[str, float | None]:
    stats = {name: np.stack([found.stats[name] for found in scores]) for name in ("counts", "accuracy")}
    found: dict[str, float | None] = {}
    for metric in verifier(joint).metrics():
        computed = metric.compute(pd.DataFrame(index=range(len(scores))), stats, np.ones(len(scores)), None)
        found |= {key: computed[key] for key in metric.keys}
    return found


@pytest.mark.parametrize("case", ["good", "perfect"])
def test_golden(case: str) -> None:
    expected = json.loads((GOLDEN / "expected.json").read_text())[case]
    hist = np.array(expected["hist_rows_pred_cols_label"])
    for joint in JOINTS:
        samples, outputs = [], []
        for i in range(4):
            maps = {f"map_{name}": f"{i}_t{date}.png" for name, date in (("before", 1), ("after", 2))}
            labels = {key: ImageRef(path=GOLDEN / case / f"label_{file}") for key, file in maps.items()}
            drawn = {key: ImageRef(path=GOLDEN / case / f"pred_{file}") for key, file in maps.items()}
            samples.append(Sample(str(i), Task.SEMANTIC_CHANGE, (), reference=labels))
            outputs.append(Output(str(i), **drawn))  # type: ignore[arg-type]
        scores = verifier(joint).score(Batch.of(samples, outputs))
        found = numbers(scores, joint)
        if joint == "stacked":
            names = {"sek": "SeK", "fscd": "Fscd", "miou": "mIoU", "oa": "OA", "kappa": "kappa_n0", "score": "Score"}
            assert found == pytest.approx({key: expected[name] for key, name in names.items()}, rel=1e-9)
            hits, truth, predicted, unusable = sum(one.stats["counts"] for one in scores)  # type: ignore[misc]
            assert hits.tolist() == hist.diagonal().tolist() and not unusable.any()
            assert (truth.tolist(), predicted.tolist()) == (hist.sum(0).tolist(), hist.sum(1).tolist())
        else:
            names = {"sek": "Sek", "miou": "mIoU", "kappa": "kappa", "score": "Score"}
            theirs = expected["from_to_37class"]
            assert {key: found[key] for key in names} == pytest.approx(
                {key: theirs[name] for key, name in names.items()}, rel=1e-9
            )


@settings(max_examples=50)
@given(consistent(), consistent(), MASK)
def test_kappa_is_that_of_the_pixels_not_both_call_unchanged(truth: Maps, predicted: Maps, valid: np.ndarray) -> None:
    for joint in JOINTS:
        found = score(predicted, truth, joint, valid=ImageRef(array=valid))
        if not valid.any():
            assert found.status is Status.NOT_APPLICABLE
            continue
        code = (
            (lambda before, after: [np.r_[before[valid], after[valid]]])
            if joint == "stacked"
            else (lambda before, after: [np.where(before > 0, (before - 1.0) * 6 + after, 0)[valid]])
        )
        (t,), (p,) = code(*truth), code(*predicted)
        counted = (t > 0) | (p > 0)
        kappa = numbers([found], joint)["kappa"]
        if not counted.any() or (len(np.unique(t[counted])) == 1 and (t == p).all()):
            assert kappa is None
        else:
            assert kappa == pytest.approx(cohen_kappa_score(t[counted], p[counted]), abs=1e-9)
        assert found.raw["oa"] == pytest.approx((t == p).mean())


def test_transitions() -> None:
    before, after = np.meshgrid(np.arange(7, dtype=np.uint8), np.arange(7, dtype=np.uint8), indexing="ij")
    changed = (before > 0) & (after > 0)
    codes = from_to(before[changed], after[changed], 7)
    assert codes.tolist() == list(range(1, 37))
    assert from_to(np.zeros(3, np.uint8), np.zeros(3, np.uint8), 7).tolist() == [0, 0, 0]
    assert from_to(np.array([15], np.uint8), np.array([15], np.uint8), 16).tolist() == [225]


def test_the_two_conventions_differ() -> None:
    half = (BEFORE, np.where(AFTER == 3, 4, AFTER).astype(np.uint8))  # right at one date of most pixels
    stacked, joint = numbers([score(half)]), numbers([score(half, joint="from_to")], "from_to")
    assert stacked["fscd"] == pytest.approx(24 / 40) and joint["fscd"] == pytest.approx(4 / 20)
    assert stacked["miou"] == joint["miou"] == 1.0
    assert stacked["sek"] > joint["sek"]  # type: ignore[operator]


def test_values_have_a_slope_and_no_cheap_trick_is_worth_much() -> None:
    for joint in JOINTS:

        def value(predicted: Maps, truth: Maps = (BEFORE, AFTER), joint: str = joint) -> float:
            found = score(predicted, truth, joint)
            assert found.status is Status.OK and found.value is not None
            return found.value

        assert value((BEFORE, AFTER)) == 1.0 and value((NOTHING, NOTHING), (NOTHING, NOTHING)) == 1.0
        assert value((NOTHING, NOTHING)) == pytest.approx(0.15 * 28 / 48)
        everywhere = np.full_like(BEFORE, 1)
        assert value((everywhere, everywhere), (NOTHING, NOTHING)) == 0.0
        stray = NOTHING.copy()
        stray[0, 0] = 1
        assert value((stray, stray), (NOTHING, NOTHING)) == pytest.approx(0.15 * 47 / 48)
        wrong_class = (np.where(BEFORE, 5, 0).astype(np.uint8), np.where(AFTER, 5, 0).astype(np.uint8))
        assert value(wrong_class) == pytest.approx(0.3)
        part = BEFORE.copy(), AFTER.copy()
        for one in part:
            one[0] = 0
        assert value((NOTHING, NOTHING)) < value(wrong_class) < value(part) < 1.0


@settings(max_examples=100)
@given(st.lists(st.tuples(consistent(), consistent()), max_size=2), consistent(), consistent())
def test_no_wrong_maps_are_worth_less_than_missing_ones(
    others: list[tuple[Maps, Maps]], truth: Maps, predicted: Maps
) -> None:
    for joint in JOINTS:
        rest = [score(p, t, joint) for t, p in others]
        answered = numbers([*rest, score(predicted, truth, joint)], joint)
        missing = numbers([*rest, score(None, truth, joint)], joint)
        for key in ("fscd", "miou", "oa"):
            if answered[key] is not None:
                assert missing[key] is None or missing[key] <= answered[key] + 1e-12, key  # type: ignore[operator]


def test_leaving_samples_out_lowers_sek() -> None:
    for joint in JOINTS:
        good, bad = score((BEFORE, AFTER), joint=joint), score((AFTER, BEFORE), joint=joint)
        missing = score(None, joint=joint)
        assert (missing.value, missing.status, missing.reason) == (
            0.0, Status.INVALID_OUTPUT, "no map_before in the output",
        )  # fmt: skip
        found, lost = numbers([good, bad], joint), numbers([good, missing], joint)
        assert all(lost[key] < found[key] for key in found), (found, lost)  # type: ignore[operator]


def test_pixels_that_only_one_map_calls_changed_are_wrong_under_from_to() -> None:
    before = BEFORE.copy()
    before[2, :4] = 0
    found = score((before, AFTER), joint="from_to")
    hits, truth, predicted, unusable = found.stats["counts"]
    assert (hits.sum(), truth.sum(), predicted.sum(), unusable.sum()) == (44, 44, 44, 4)
    assert unusable[(6 - 1) * 6 + 2] == 4
    assert found.raw["contradictions"] == 4 and score((BEFORE, AFTER), joint="from_to").raw["contradictions"] == 0
    assert found.raw["oa"] == pytest.approx(44 / 48) and found.raw["fscd"] == pytest.approx(2 * 16 / (16 + 4 + 20))
    assert score((before, AFTER)).raw["oa"] == pytest.approx(92 / 96)
    odd = score((BEFORE, AFTER), (before, AFTER), "from_to")
    assert odd.status is Status.ERROR and "4 pixels changed at one date only" in odd.reason
    assert score((BEFORE, AFTER), (before, AFTER)).status is Status.OK


def test_sets_without_change_give_no_number_and_say_why() -> None:
    for joint in JOINTS:
        unchanged = score((NOTHING, NOTHING), (NOTHING, NOTHING), joint)
        found = numbers([unchanged], joint)
        assert found == dict.fromkeys(found) | {"oa": 1.0}
        rows = pd.DataFrame({"stats": [unchanged.stats]})
        notes = {key: why for metric in verifier(joint).metrics() for key, why in metric.notes(rows).items()}  # type: ignore[attr-defined]
        assert set(notes) == set(found) - {"oa"} and "changed pixel" in notes["sek"]
        false = numbers([score((BEFORE, AFTER), (NOTHING, NOTHING), joint)], joint)
        assert (false["fscd"], false["sek"], false["kappa"]) == (0.0, 0.0, 0.0)
        one_class = np.where(BEFORE == 1, 1, 0).astype(np.uint8)
        agreed = numbers([score((one_class, one_class), (one_class, one_class), joint)], joint)
        assert (agreed["kappa"], agreed["sek"], agreed["score"]) == (None, None, None)
        assert (agreed["fscd"], agreed["miou"]) == (1.0, 1.0)


def test_unusable_maps() -> None:
    for joint in JOINTS:
        seven = BEFORE.copy()
        seven[5, 5] = 7
        for predicted, reason in (
            ((seven, AFTER), "the map_before holds the value 7; classes are 0 .. 6"),
            ((BEFORE, AFTER[:4]), "the map_after has 8 x 4 pixels, the true one 8 x 6"),
        ):
            found = score(predicted, joint=joint)
            assert (found.status, found.value, found.reason) == (Status.INVALID_OUTPUT, 0.0, reason)
            assert found.stats["counts"][:3].sum() == 0
            assert found.stats["counts"][3].sum() == (96 if joint == "stacked" else 48)
    assert score((BEFORE, AFTER), (seven, AFTER)).status is Status.ERROR
    assert score((BEFORE, AFTER), classes=["unchanged", "water"]).status is Status.ERROR


def test_pixels_without_data_do_not_count() -> None:
    labels = BEFORE.copy()
    labels[5] = 255
    truth = ImageRef(array=labels, nodata=255)
    other = (BEFORE.copy(), AFTER.copy())
    other[0][5], other[1][5] = 9, 4
    for joint in JOINTS:
        found = score(other, joint=joint, map_before=truth)
        assert (found.value, found.raw["oa"]) == (1.0, 1.0)


def test_worst_pixels_of_kappa_are_the_error_that_chance_explains_best() -> None:
    confusion = np.diag([0, 50, 30, 20])
    lost = np.array([0, 10, 0, 0])
    placed = confusion.copy()
    placed[1, 2] += 10  # class 2 is the most common but class 1
    found = semantic_change_metrics(ClassCounts.of(confusion, lost))["kappa"]
    assert found == semantic_change_metrics(ClassCounts.of(placed))["kappa"]
    assert confusion_matrix(np.array([[1, 0]]), np.array([[1, 1]]), None, 4).tolist()[1] == [0, 1, 0, 0]
