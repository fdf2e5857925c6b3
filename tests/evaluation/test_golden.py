"""Published evaluation code against ours, through the command that users run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import rsw_rewards as rsw
from rsw_rewards.evaluation.protocols import PROTOCOLS
from rsw_rewards.io.records_io import write_jsonl
from rsw_rewards.io.text_files import read_records
from tests.shared_data import shared

MODELS = ("BIT", "ChangeFormerV6", "DTCDSCN", "SiamUnet_conc", "SiamUnet_diff", "Unet")


@pytest.mark.parametrize("model", MODELS)
def test_change_masks_of_six_models(tmp_path: Path, model: str) -> None:
    golden = shared("golden/change_mask_levir")
    expected = json.loads((golden / "expected.json").read_text())[model]
    names = sorted(path.name for path in (golden / "label").glob("*.png"))
    samples = [
        {"id": name, "task": "change_mask", "scene": name.rsplit("_", 2)[0], "reference": {"mask": f"label/{name}"}}
        for name in names
    ]
    write_jsonl(tmp_path / "s.jsonl", samples)
    write_jsonl(tmp_path / "p.jsonl", [{"id": name, "mask": f"pred/{model}/{name}"} for name in names])
    (result,) = rsw.evaluate(
        [PROTOCOLS.find("change-mask")], tmp_path / "s.jsonl", tmp_path / "p.jsonl", tmp_path / "out", roots=[golden]
    )
    metrics = {key: entry["value"] for key, entry in result.summary["metrics"].items()}
    scores = expected["scores"]
    pairs = {
        "f1": "F1_1", "iou": "iou_1", "precision": "precision_1", "recall": "recall_1",
        "oa": "acc", "mf1": "mf1", "miou": "miou",
    }  # fmt: skip
    for ours, theirs in pairs.items():
        assert metrics[ours] == pytest.approx(scores[theirs], rel=1e-9), ours
    assert result.table.stats()["confusion"].sum(0).tolist() == expected["confusion_rows_gt_cols_pred"]
    assert result.summary["baselines"]["oracle"]["metrics"]["f1"]["value"] == pytest.approx(1, abs=1e-6)
    assert result.summary["baselines"]["all_unchanged"]["metrics"]["recall"]["value"] == 0.0


def test_partial_labels_leave_the_rest_of_the_scene_out(tmp_path: Path) -> None:
    import numpy as np

    from rsw_rewards.core.image_ref import ImageRef
    from rsw_rewards.io.images import read_mask, write_png

    golden, data = shared("golden/change_mask_taizhou_partial"), shared("data/landsat_taizhou")
    expected = json.loads((golden / "expected.json").read_text())
    labelled = read_mask(ImageRef(path=data / "change.png")) | read_mask(ImageRef(path=data / "unchanged.png"))
    write_png(tmp_path / "valid.png", labelled.astype(np.uint8) * 255)
    reference = {"mask": "change.png", "valid": "valid.png"}
    write_jsonl(tmp_path / "s.jsonl", [{"id": "taizhou", "task": "change_mask", "reference": reference}])
    write_jsonl(tmp_path / "p.jsonl", [{"id": "taizhou", "mask": "pred_cva_otsu.png"}])
    (result,) = rsw.evaluate(
        [PROTOCOLS.find("change-mask")],
        tmp_path / "s.jsonl",
        tmp_path / "p.jsonl",
        tmp_path / "out",
        roots=[golden, data],
    )
    metrics = {key: entry["value"] for key, entry in result.summary["metrics"].items()}
    for ours, theirs in {"f1": "F1", "oa": "OA", "kappa": "kappa", "precision": "precision", "iou": "IoU"}.items():
        # The protocol divides as the mask benchmarks' code does, with float32's epsilon beside every denominator.
        assert metrics[ours] == pytest.approx(expected[theirs], rel=1e-6), ours
    assert result.summary["metrics"]["f1"]["ci95"] is None  # one scene gives no interval
    assert "one scene" in result.summary["metrics"]["f1"]["reason"]


@pytest.mark.parametrize("predictor", ["pred_majority", "pred_noisy"])
def test_cdvqa(tmp_path: Path, predictor: str) -> None:
    golden = shared("golden/cdvqa_accuracy")
    expected = json.loads((golden / "expected.json").read_text())[predictor]["types8"]
    items = [item for _, item in read_records(golden / "items.jsonl")]
    samples = [
        {
            "id": str(item["question_id"]), "task": "change_qa", "kind": item["type"], "scene": item["image"],
            "prompt": item["question"], "reference": {"answers": [item["answer"]]},
        }
        for item in items
    ]  # fmt: skip
    write_jsonl(tmp_path / "s.jsonl", samples)
    write_jsonl(tmp_path / "p.jsonl", [{"id": str(item["question_id"]), "text": item[predictor]} for item in items])
    (result,) = rsw.evaluate([PROTOCOLS.find("cdvqa")], tmp_path / "s.jsonl", tmp_path / "p.jsonl", tmp_path / "out")
    summary = result.summary
    assert summary["metrics"]["oa"]["value"] == pytest.approx(expected["OA"], rel=1e-9)
    assert summary["metrics"]["aa"]["value"] == pytest.approx(expected["AA"], rel=1e-9)
    for kind, accuracy in expected["per_type"].items():
        assert summary["slices"][kind]["oa"]["value"] == pytest.approx(accuracy, rel=1e-9)
        assert summary["slices"][kind]["oa"]["n"] == expected["n_per_type"][kind]
    assert summary["n_scenes"] == 30
