"""change_mask: counts over the pixels that count, the numbers that follow, and what unusable masks are worth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays
from sklearn.metrics import cohen_kappa_score, f1_score, jaccard_score, precision_score, recall_score

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Batch
from rsw_rewards.io.images import write_png
from rsw_rewards.verifiers.change_masks import ChangeMask
from rsw_rewards.verifiers.confusion import (
    METRIC_KEYS,
    binary_change_metrics,
    cohen_kappa,
    confusion_matrix,
    mask_iou,
)
from tests.shared_data import shared

TRUTH = np.zeros((8, 8), dtype=bool)
TRUTH[:2] = True
MASKS = arrays.arrays(bool, (6, 5))


def image(mask: np.ndarray) -> ImageRef:
    return ImageRef(array=mask)


def score(predicted: ImageRef | np.ndarray | None, truth: np.ndarray = TRUTH, **reference: object) -> Score:
    sample = Sample("s", Task.CHANGE_MASK, (), reference={"mask": image(truth), **reference})
    mask = image(predicted) if isinstance(predicted, np.ndarray) else predicted
    return ChangeMask().score(Batch.of([sample], [Output("s", mask=mask)]))[0]


def summed(scores: list[Score], **config: float) -> dict[str, float | None]:
    stats = {"confusion": np.stack([found.stats["confusion"] for found in scores])}
    rows, numbers = pd.DataFrame(index=range(len(scores))), {}
    for metric in ChangeMask(ChangeMask.Config.model_validate(config)).metrics():
        found = metric.compute(rows, stats, np.ones(len(scores)), None)
        numbers |= {key: found[key] for key in metric.keys}
    assert set(numbers) == set(METRIC_KEYS)
    return numbers


def test_values() -> None:
    assert score(TRUTH).value == 1.0
    assert score(np.zeros_like(TRUTH)).value == 0.0
    assert score(np.ones_like(TRUTH)).value == 0.25
    assert score(~TRUTH).value == 0.0


def test_empty_masks() -> None:
    empty = np.zeros_like(TRUTH)
    assert score(empty, empty).value == 1.0
    assert score(TRUTH, empty).value == 0.0
    numbers = binary_change_metrics(score(empty, empty).stats["confusion"])
    assert numbers == dict.fromkeys(METRIC_KEYS) | {"oa": 1.0}
    missed = binary_change_metrics(score(empty).stats["confusion"])
    assert (missed["precision"], missed["recall"], missed["f1"]) == (0.0, 0.0, 0.0)


def test_pixels_that_do_not_count_are_ignored() -> None:
    valid = np.zeros_like(TRUTH)
    valid[1:3] = True
    found = score(np.where(valid, TRUTH, ~TRUTH), valid=image(valid))
    assert (found.value, found.stats["confusion"].tolist()) == (1.0, [[8, 0], [0, 8]])
    assert score(TRUTH, valid=image(np.zeros_like(TRUTH))).status is Status.NOT_APPLICABLE


def test_unusable_masks_count_as_wrong_in_every_pixel(tmp_path: Path) -> None:
    small = score(TRUTH[:4])
    assert (small.status, small.reason) == (Status.INVALID_OUTPUT, "the mask has 8 x 4 pixels, the true one 8 x 8")
    missing = score(ImageRef(path=tmp_path / "none.png"))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n")
    broken = score(ImageRef(path=tmp_path / "broken.png"))
    ones = score(TRUTH.astype(np.uint8))
    colour = score(np.dstack([TRUTH, ~TRUTH, TRUTH]).astype(np.uint8) * 255)
    for found in (small, missing, broken, ones, colour, score(None)):
        assert (found.value, found.status) == (0.0, Status.INVALID_OUTPUT)
        assert found.stats["confusion"].tolist() == [[0, 48], [16, 0]]
    assert summed([score(TRUTH), small])["f1"] == pytest.approx(2 * 16 / (2 * 16 + 64))


def test_a_broken_truth_is_our_error(tmp_path: Path) -> None:
    sample = Sample("s", Task.CHANGE_MASK, (), reference={})
    assert ChangeMask().score(Batch.of([sample], [Output("s", mask=image(TRUTH))]))[0].status is Status.ERROR
    assert score(TRUTH, valid=image(TRUTH[:3])).status is Status.ERROR
    assert score(TRUTH, mask=ImageRef(path=tmp_path / "none.png")).status is Status.ERROR


def test_classes_count_as_changed_where_they_are_not_zero() -> None:
    truth = np.array([[0, 1], [2, 0]], dtype=np.uint8)
    assert (
        score(np.array([[0, 2], [1, 0]], dtype=np.uint8), truth, classes=["unchanged", "road", "building"]).value == 1.0
    )


def test_masks_from_files(tmp_path: Path) -> None:
    write_png(tmp_path / "mask.png", np.where(TRUTH, 255, 0).astype(np.uint8))
    assert score(ImageRef(path=tmp_path / "mask.png")).value == 1.0


def test_values_that_no_coding_explains_are_refused_in_a_truth_and_invalid_in_a_prediction() -> None:
    percent = (TRUTH * 100).astype(np.uint8)
    assert score(percent).status is Status.INVALID_OUTPUT and "the values 0 and 100" in score(percent).reason
    broken = [score(mask, percent) for mask in (TRUTH, percent)]
    assert [found.status for found in broken] == [Status.ERROR] * 2 and "the values 0 and 100" in broken[0].reason
    assert score(ImageRef(array=percent, threshold=50)).value == 1.0
    indices = TRUTH.astype(np.uint8)
    assert score(TRUTH, mask=image(indices), levels=[0, 1]).value == 1.0
    assert score(TRUTH, mask=image(indices), levels=[1, 0]).value == 0.0
    assert score(TRUTH, mask=image(indices), levels=[0, 2]).status is Status.ERROR


def test_pixels_of_a_declared_nodata_value_do_not_count() -> None:
    truth = TRUTH.astype(np.uint8)
    truth[4:] = 255
    assert score(TRUTH, mask=image(truth)).status is Status.ERROR
    declared = ImageRef(array=truth, nodata=255)
    predicted = TRUTH.copy()
    predicted[4:] = True
    assert score(predicted, mask=declared).value == 1.0
    assert score(declared, mask=declared).value == 1.0
    assert score(declared).status is Status.INVALID_OUTPUT  # it says nothing of pixels that count


def test_more_classes_than_the_reference_names_are_refused() -> None:
    three = np.array([[0, 1], [2, 0]], dtype=np.uint8)
    names = ["unchanged", "changed"]
    assert score(three, three, classes=names).status is Status.ERROR
    assert score(three, three.clip(max=1), classes=names).status is Status.INVALID_OUTPUT
    assert score((three > 0) * np.uint8(255), three, classes=[*names, "new"]).value == 1.0


@settings(max_examples=50)
@given(MASKS, MASKS, MASKS)
def test_metrics_agree_with_scikit_learn(truth: np.ndarray, predicted: np.ndarray, valid: np.ndarray) -> None:
    if not (truth & valid).any() or not (~truth & valid).any():
        return
    confusion = confusion_matrix(truth, predicted, valid)
    t, p = truth[valid], predicted[valid]
    found = binary_change_metrics(confusion)
    assert found == pytest.approx(
        {
            "f1": f1_score(t, p, zero_division=0),
            "iou": jaccard_score(t, p, zero_division=0),
            "precision": precision_score(t, p, zero_division=0),
            "recall": recall_score(t, p),
            "oa": (t == p).mean(),
            "kappa": cohen_kappa_score(t, p),
            "mf1": f1_score(t, p, average="macro", zero_division=0),
            "miou": jaccard_score(t, p, average="macro", zero_division=0),
        },
        abs=1e-12,
    )
    assert mask_iou(confusion) == found["iou"]


def test_kappa_of_more_classes() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    confusion = np.zeros((4, 4))
    np.add.at(confusion, (truth, predicted), 1)
    assert cohen_kappa(confusion) == pytest.approx(cohen_kappa_score(truth, predicted), abs=1e-12)
    assert cohen_kappa(np.zeros((4, 4))) is None


@pytest.mark.parametrize("model", ["BIT", "ChangeFormerV6", "DTCDSCN", "SiamUnet_conc", "SiamUnet_diff", "Unet"])
def test_golden_levir_masks(model: str) -> None:
    folder = shared("golden/change_mask_levir")
    expected = json.loads((folder / "expected.json").read_text())[model]
    labels = sorted((folder / "label").iterdir())
    samples = [Sample(p.name, Task.CHANGE_MASK, (), reference={"mask": ImageRef(path=p)}) for p in labels]
    outputs = [Output(p.name, mask=ImageRef(path=folder / "pred" / model / p.name)) for p in labels]
    scores = ChangeMask().score(Batch.of(samples, outputs))
    confusion = sum(found.stats["confusion"] for found in scores)
    assert confusion.tolist() == expected["confusion_rows_gt_cols_pred"]  # type: ignore[union-attr]
    names = {
        "oa": "acc", "f1": "F1_1", "iou": "iou_1", "precision": "precision_1", "recall": "recall_1", "mf1": "mf1", "miou": "miou",
    }  # fmt: skip
    numbers = summed(scores)
    assert {key: numbers[key] for key in names} == pytest.approx(
        {key: expected["scores"][name] for key, name in names.items()}, rel=1e-9
    )
    for sample, found in zip(samples, scores, strict=True):
        assert found.value == pytest.approx(expected["per_image"][sample.id]["scores"]["iou_1"], rel=1e-9)


def test_pixels_without_data_do_not_count(tmp_path: Path) -> None:
    labels = np.where(TRUTH, 255, 0).astype(np.uint8)
    labels[4:] = 7
    write_png(tmp_path / "labels.png", labels)
    predicted = TRUTH.copy()
    predicted[4:] = True
    found = score(predicted, mask=ImageRef(path=tmp_path / "labels.png", nodata=7))
    assert (found.value, found.stats["confusion"].tolist()) == (1.0, [[16, 0], [0, 16]])
    ones = score(predicted, mask=ImageRef(array=np.where(labels == 7, 255, labels > 0), nodata=255))
    assert ones.value == 1.0


def test_golden_taizhou_partial_labels() -> None:
    folder, labels = shared("golden/change_mask_taizhou_partial"), shared("data/landsat_taizhou")
    expected = json.loads((folder / "expected.json").read_text())
    change = ImageRef(path=labels / "change.png")
    valid = (change.pixels() > 127) | (ImageRef(path=labels / "unchanged.png").pixels() > 127)
    sample = Sample("taizhou", Task.CHANGE_MASK, (), reference={"mask": change, "valid": image(valid)})
    output = Output("taizhou", mask=ImageRef(path=folder / "pred_cva_otsu.png"))
    scores = ChangeMask().score(Batch.of([sample], [output]))
    assert scores[0].stats["confusion"].tolist() == expected["confusion_rows_gt_cols_pred"]
    names = {
        "oa": "OA",
        "kappa": "kappa",
        "precision": "precision",
        "recall": "recall",
        "f1": "F1",
        "iou": "IoU",
        "miou": "mIoU",
    }
    numbers = summed(scores, epsilon=0)  # scikit-learn's F1 is exact
    assert {key: numbers[key] for key in names} == pytest.approx(
        {key: expected[name] for key, name in names.items()}, rel=1e-9
    )
    assert numbers["f1"] == pytest.approx(0.9160, abs=5e-5)
