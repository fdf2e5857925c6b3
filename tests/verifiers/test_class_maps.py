"""class_map: the numbers of LEVIR-MCI from summed counts, labels that are stored as grey levels, and maps that cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import accuracy_score, jaccard_score, recall_score

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Batch
from rsw_rewards.io.images import write_png
from rsw_rewards.verifiers.class_maps import ClassMap

CLASSES = ["background", "road", "building"]
TRUTH = np.zeros((6, 8), np.uint8)
TRUTH[:2], TRUTH[2, :4] = 1, 2
MAPS = arrays.arrays(np.uint8, (5, 4), elements=st.integers(0, 2))
VALID = arrays.arrays(bool, (5, 4))


def image(pixels: np.ndarray, **fields: float) -> ImageRef:
    return ImageRef(array=pixels, **fields)  # type: ignore[arg-type]


def score(predicted: np.ndarray | ImageRef | None, truth: np.ndarray = TRUTH, **reference: object) -> Score:
    sample = Sample("s", Task.CHANGE_MASK, (), reference={"mask": image(truth), "classes": CLASSES, **reference})
    mask = image(predicted) if isinstance(predicted, np.ndarray) else predicted
    return ClassMap().score(Batch.of([sample], [Output("s", mask=mask)]))[0]


def numbers(scores: list[Score]) -> dict[str, float | None]:
    (metric,) = ClassMap().metrics()
    stats = {"counts": np.stack([found.stats["counts"] for found in scores])}
    return metric.compute(pd.DataFrame(index=range(len(scores))), stats, np.ones(len(scores)), None)


def test_values() -> None:
    assert score(TRUTH).value == 1.0
    background = score(np.zeros_like(TRUTH))
    assert background.value == pytest.approx((28 / 48 + 0 + 0) / 3)
    assert score((TRUTH + 1) % 3).value == 0.0
    assert score(np.zeros_like(TRUTH), np.zeros_like(TRUTH)).value == 1.0
    stray = np.zeros_like(TRUTH)
    stray[0, 0] = 1
    assert score(stray, np.zeros_like(TRUTH)).value == pytest.approx((47 / 48 + 0) / 2)


@settings(max_examples=50)
@given(st.lists(st.tuples(MAPS, MAPS, VALID), min_size=1, max_size=3))
def test_numbers_agree_with_scikit_learn(images: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
    images = [item for item in images if item[2].any()]
    if not images:
        return
    found = numbers([score(p, t, valid=image(v)) for t, p, v in images])
    truth = np.concatenate([t[v] for t, _, v in images])
    predicted = np.concatenate([p[v] for _, p, v in images])
    seen, true = np.union1d(truth, predicted), np.unique(truth)
    ious = jaccard_score(truth, predicted, labels=seen, average=None)
    assert found["miou"] == pytest.approx(ious.mean(), abs=1e-12)
    for place in range(3):
        expected = ious[list(seen).index(place)] if place in seen else None
        assert found[f"iou_{place}"] == (None if expected is None else pytest.approx(expected, abs=1e-12))
    assert found["pixel_accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    recalls = recall_score(truth, predicted, labels=true, average="macro", zero_division=0)
    assert found["mean_pixel_accuracy"] == pytest.approx(recalls, abs=1e-12)
    assert found["fwiou"] == pytest.approx(
        jaccard_score(truth, predicted, labels=seen, average="weighted", zero_division=0), abs=1e-12
    )


@settings(max_examples=100)
@given(st.lists(st.tuples(MAPS, MAPS), max_size=2), MAPS, MAPS)
def test_no_wrong_map_is_worth_less_than_a_missing_one(
    others: list[tuple[np.ndarray, np.ndarray]], truth: np.ndarray, predicted: np.ndarray
) -> None:
    rest = [score(p, t) for t, p in others]
    given_one, missing = numbers([*rest, score(predicted, truth)]), numbers([*rest, score(None, truth)])
    for key, value in missing.items():
        if given_one[key] is not None:
            assert value is not None and value <= given_one[key] + 1e-12, key  # type: ignore[operator]


def test_labels_stored_as_grey_levels(tmp_path: Path) -> None:
    grey = np.array([0, 128, 255], np.uint8)[TRUTH]
    write_png(tmp_path / "label.png", np.dstack([grey] * 3))  # as the data set has them
    label = ImageRef(path=tmp_path / "label.png")
    assert score(TRUTH, mask=label, levels=[0, 128, 255]).value == 1.0
    assert score((TRUTH == 1).astype(np.uint8), mask=label, levels=[0, 128, 255]).value == pytest.approx(
        (28 / 32 + 1) / 3
    )
    raw = score(TRUTH, mask=label)
    assert raw.status is Status.ERROR and "holds the value 255; classes are 0 .. 2" in raw.reason
    grey[5, 5] = 77
    odd = score(TRUTH, mask=image(grey), levels=[0, 128, 255])
    assert odd.status is Status.ERROR and "77" in odd.reason
    assert score(TRUTH, mask=image(grey, nodata=77), levels=[0, 128, 255]).value == 1.0
    for levels in ([0, 128], [0, 128, 128], "0,128,255", [0, 128, 255.0]):
        found = score(TRUTH, mask=label, levels=levels)
        assert found.status is Status.ERROR and "levels'" in found.reason


def test_maps_that_cannot_be_used_are_wrong_everywhere(tmp_path: Path) -> None:
    values = TRUTH.copy()
    values[0, 0] = 3
    negative = TRUTH.astype(np.int16)
    negative[0, 0] = -1
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    cases = {
        "no mask in the output": score(None),
        "the mask has 8 x 3 pixels, the true one 8 x 6": score(TRUTH[:3]),
        "the mask holds the value 3; classes are 0 .. 2": score(values),
        "the mask holds the value -1; classes are 0 .. 2": score(negative),
        "broken.png": score(ImageRef(path=tmp_path / "broken.png")),
        "shape (6, 8, 3)": score(np.dstack([TRUTH, TRUTH, 2 - TRUTH])),
    }
    for reason, found in cases.items():
        assert (found.status, found.value) == (Status.INVALID_OUTPUT, 0.0)
        assert reason in found.reason
        assert found.stats["counts"].tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 0], [28, 16, 4]]
    assert numbers([cases["no mask in the output"]]) == dict.fromkeys(numbers([score(TRUTH)]), 0.0)
    sample = Sample("s", Task.CHANGE_MASK, (), reference={"mask": image(TRUTH), "classes": CLASSES})
    truncated = ClassMap().invalid(sample, "truncated")
    assert (truncated.reason, truncated.stats["counts"].tolist()) == ("truncated", found.stats["counts"].tolist())


def test_a_broken_truth_is_our_error(tmp_path: Path) -> None:
    assert "neither" not in score(TRUTH).reason
    assert score(TRUTH, mask=ImageRef(path=tmp_path / "none.png")).status is Status.ERROR
    assert score(TRUTH, valid=image(np.ones((3, 3), bool))).status is Status.ERROR
    assert "'reference.classes'" in score(TRUTH, classes=None).reason
    assert "4 classes" in score(TRUTH, classes=["a", "b", "c", "d"]).reason
    assert score(TRUTH, valid=image(np.zeros_like(TRUTH, bool))).status is Status.NOT_APPLICABLE


def test_pixels_that_do_not_count_are_never_looked_at() -> None:
    valid = np.zeros_like(TRUTH, bool)
    valid[:3] = True
    other = TRUTH.copy()
    other[3:] = 200
    assert score(other, valid=image(valid)).value == 1.0
    assert score(other, other, valid=image(valid)).stats["counts"].sum(axis=1).tolist() == [24, 24, 24, 0]
    labels = np.where(valid, TRUTH, 255).astype(np.uint8)
    assert score(other, mask=image(labels, nodata=255)).value == 1.0


def test_a_class_that_does_not_occur_is_named() -> None:
    found = numbers([score(np.minimum(TRUTH, 1), np.minimum(TRUTH, 1))])
    assert (found["iou_2"], found["miou"], found["mean_pixel_accuracy"]) == (None, 1.0, 1.0)
    (metric,) = ClassMap().metrics()
    rows = pd.DataFrame({"stats": [score(np.minimum(TRUTH, 1), np.minimum(TRUTH, 1)).stats]})
    assert set(metric.notes(rows)) == {"iou_2"}  # type: ignore[attr-defined]
