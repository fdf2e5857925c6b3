"""referring_mask: IoU per expression and over pixels, expressions that refer to nothing, and masks that cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import jaccard_score

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Batch
from rsw_rewards.verifiers.referring import METRIC_KEYS, ReferringMask

MASKS = arrays.arrays(bool, (4, 5))
EMPTY, FULL = np.zeros((4, 5), bool), np.ones((4, 5), bool)
TOP = np.zeros((4, 5), bool)
TOP[:2] = True


def verifier(no_target: Literal["match", "zero"]) -> ReferringMask:
    return ReferringMask(ReferringMask.Config(no_target=no_target))


def score(
    predicted: np.ndarray | ImageRef | None, truth: np.ndarray, no_target: Literal["match", "zero"] = "match"
) -> Score:
    sample = Sample("s", Task.GROUNDING, (), reference={"mask": ImageRef(array=truth)})
    mask = ImageRef(array=predicted) if isinstance(predicted, np.ndarray) else predicted
    return verifier(no_target).score(Batch.of([sample], [Output("s", mask=mask)]))[0]


def summed(scores: list[Score], no_target: Literal["match", "zero"] = "match") -> dict[str, float | None]:
    (metric,) = verifier(no_target).metrics()
    assert metric.keys == METRIC_KEYS
    stats = {name: np.stack([found.stats[name] for found in scores]) for name in scores[0].stats}
    return metric.compute(pd.DataFrame(index=range(len(scores))), stats, np.ones(len(scores)), None)


def test_values() -> None:
    assert [score(mask, TOP).value for mask in (TOP, FULL, EMPTY, ~TOP)] == [1.0, 0.5, 0.0, 0.0]


def test_the_mean_and_the_cumulative_iou_differ() -> None:
    small = np.zeros((4, 5), bool)
    small[0, 0] = True
    numbers = summed([score(FULL, FULL), score(EMPTY, small)])
    assert numbers["giou_mean"] == 0.5
    assert numbers["ciou_cumulative"] == pytest.approx(20 / 21)


def test_precision_counts_expressions_at_or_over_the_threshold() -> None:
    numbers = summed([score(FULL, TOP), score(TOP, TOP)])  # IoU 0.5 and 1
    assert [numbers[f"p@{t}"] for t in (0.5, 0.6, 0.7, 0.8, 0.9)] == [1.0, 0.5, 0.5, 0.5, 0.5]


def test_nothing_meant() -> None:
    silent, spoken = score(EMPTY, EMPTY), score(TOP, EMPTY)
    assert (silent.value, spoken.value) == (1.0, 0.0)
    numbers = summed([silent, spoken, score(TOP, TOP), score(EMPTY, TOP)])
    assert numbers["giou_mean"] == 0.5
    assert numbers["ciou_cumulative"] == pytest.approx(10 / 30)
    assert numbers["p@0.5"] == 0.5  # of the two expressions with a target
    assert (numbers["no_target_accuracy"], numbers["target_accuracy"]) == (0.5, 0.5)


def test_nothing_meant_in_the_way_of_rrsis_d() -> None:
    silent = score(EMPTY, EMPTY, "zero")
    assert silent.value == 0.0
    numbers = summed([silent, score(TOP, TOP, "zero")], "zero")
    assert (numbers["giou_mean"], numbers["p@0.5"]) == (0.5, 0.5)
    assert numbers["no_target_accuracy"] == 1.0


def test_without_such_expressions_there_is_no_accuracy_of_them() -> None:
    numbers = summed([score(TOP, TOP)])
    assert numbers["no_target_accuracy"] is None
    assert summed([score(EMPTY, EMPTY)])["ciou_cumulative"] is None


@given(st.lists(st.tuples(MASKS, MASKS), min_size=1, max_size=5))
def test_agrees_with_scikit_learn(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    scores = [score(predicted, truth, "zero") for truth, predicted in pairs]
    each = [jaccard_score(truth.ravel(), predicted.ravel(), zero_division=0) for truth, predicted in pairs]
    truth, predicted = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    assert [found.value for found in scores] == pytest.approx(each, abs=1e-12)
    numbers = summed(scores, "zero")
    assert numbers["giou_mean"] == pytest.approx(np.mean(each), abs=1e-12)
    assert numbers["p@0.7"] == pytest.approx(np.mean(np.array(each) >= 0.7), abs=1e-12)
    if (truth | predicted).any():
        assert numbers["ciou_cumulative"] == pytest.approx(jaccard_score(truth, predicted, zero_division=0), abs=1e-12)


@given(MASKS, MASKS)
def test_leaving_an_expression_out_never_raises_a_number(truth: np.ndarray, predicted: np.ndarray) -> None:
    other = score(FULL, TOP)
    answered, left_out = summed([other, score(predicted, truth)]), summed([other, score(None, truth)])
    for key in METRIC_KEYS:
        given_answer, without = answered[key], left_out[key]
        assert (given_answer is None) == (without is None)
        assert given_answer is None or without is None or without <= given_answer


def test_unusable_masks_are_invalid(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n")
    for mask in (None, TOP[:2], TOP.astype(np.uint8), ImageRef(path=tmp_path / "broken.png")):
        found = score(mask, EMPTY)
        assert (found.value, found.status) == (0.0, Status.INVALID_OUTPUT)
        assert found.reason
        assert float(found.stats["union"]) == 20
    assert score(TOP[:2], TOP).reason == "the mask has 5 x 2 pixels, the true one 5 x 4"


def test_a_missing_prediction_carries_its_statistics() -> None:
    sample = Sample("s", Task.GROUNDING, (), reference={"mask": ImageRef(array=TOP)})
    found = ReferringMask().invalid(sample, "no prediction for this sample")
    assert (found.status, found.reason) == (Status.INVALID_OUTPUT, "no prediction for this sample")
    assert (float(found.stats["intersection"]), float(found.stats["union"])) == (0, 20)


def test_the_truth_is_ours() -> None:
    output = Output("s", mask=ImageRef(array=TOP))
    for reference, status in (
        ({}, Status.ERROR),
        ({"mask": "a.png"}, Status.ERROR),
        ({"mask": ImageRef(path=Path("none.png"))}, Status.ERROR),
        ({"boxes": [[0, 0, 1, 1]]}, Status.NOT_APPLICABLE),
        ({"mask": ImageRef(array=np.zeros((0, 0), bool))}, Status.NOT_APPLICABLE),
    ):
        sample = Sample("s", Task.GROUNDING, (), reference=reference)
        assert ReferringMask().score(Batch.of([sample], [output]))[0].status is status
