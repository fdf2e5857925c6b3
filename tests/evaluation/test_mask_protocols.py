"""Protocols of masks and maps through the command that users run: files in, published numbers out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rsw_rewards as rsw
from rsw_rewards.evaluation.protocols import PROTOCOLS
from rsw_rewards.io.images import write_png
from rsw_rewards.io.records_io import write_jsonl

GOLDEN = Path(__file__).parents[1] / "golden" / "semantic_change_second"
Record = dict[str, Any]


def evaluate(
    folder: Path, protocol: str, samples: Sequence[Record], predictions: Sequence[Record], **options: Any
) -> Any:
    """``summary.json`` of an evaluation below ``folder``."""
    number = len(list(folder.glob("out*")))
    write_jsonl(folder / "samples.jsonl", samples)
    write_jsonl(folder / "predictions.jsonl", predictions)
    out = folder / f"out{number}"
    rsw.evaluate([PROTOCOLS.find(protocol)], folder / "samples.jsonl", folder / "predictions.jsonl", out, **options)
    assert (out / "report.html").stat().st_size > 0
    return json.loads((out / "summary.json").read_text())


def values(rows: Record) -> dict[str, float | None]:
    return {key: entry["value"] for key, entry in rows["metrics"].items()}


def second(case: str) -> tuple[list[Record], list[Record]]:
    def maps(what: str, i: int) -> Record:
        return {"map_before": f"{case}/{what}_{i}_t1.png", "map_after": f"{case}/{what}_{i}_t2.png"}

    samples = [{"id": f"p{i}", "task": "semantic_change", "reference": maps("label", i)} for i in range(4)]
    return samples, [{"id": f"p{i}", **maps("pred", i)} for i in range(4)]


@pytest.mark.parametrize("case", ["good", "perfect"])
def test_second(tmp_path: Path, case: str) -> None:
    expected = json.loads((GOLDEN / "expected.json").read_text())[case]
    samples, predictions = second(case)
    stacked = evaluate(tmp_path, "second-stacked7", samples, predictions, roots=[GOLDEN])
    names = {"sek": "SeK", "fscd": "Fscd", "miou": "mIoU", "oa": "OA", "kappa": "kappa_n0", "score": "Score"}
    assert values(stacked) == pytest.approx({key: expected[name] for key, name in names.items()}, rel=1e-9)
    joint = evaluate(tmp_path, "second-fromto37", samples, predictions, roots=[GOLDEN])
    theirs = {"sek": "Sek", "miou": "mIoU", "kappa": "kappa", "score": "Score"}
    found = values(joint)
    assert {key: found[key] for key in theirs} == pytest.approx(
        {key: expected["from_to_37class"][name] for key, name in theirs.items()}, rel=1e-9
    )
    assert list(found) == list(names) == list(values(stacked))
    for summary in (stacked, joint):
        baselines = {name: values(rows) for name, rows in summary["baselines"].items()}
        assert baselines["oracle"] == pytest.approx(dict.fromkeys(names, 1.0))
        assert baselines["all_unchanged"]["sek"] == baselines["all_unchanged"]["fscd"] == 0.0
        assert baselines["swapped"]["miou"] == 1.0 and baselines["swapped"]["sek"] < 0.2  # type: ignore[operator]
        low, high = summary["metrics"]["sek"]["ci95"]
        assert low <= summary["metrics"]["sek"]["value"] <= high


def test_maps_that_contradict_each_other_are_counted_and_said(tmp_path: Path) -> None:
    samples, predictions = second("good")
    predictions[1]["map_before"] = predictions[0]["map_before"]
    (warning,) = evaluate(tmp_path, "second-fromto37", samples, predictions, roots=[GOLDEN])["warnings"]
    assert warning.startswith("1 of 4 predicted pairs of maps contradict each other") and "count as wrong" in warning
    assert evaluate(tmp_path, "second-stacked7", samples, predictions, roots=[GOLDEN])["warnings"] == []


@pytest.mark.parametrize("protocol", ["second-stacked7", "second-fromto37"])
def test_second_without_some_predictions(tmp_path: Path, protocol: str) -> None:
    samples, predictions = second("good")
    whole = values(evaluate(tmp_path, protocol, samples, predictions, roots=[GOLDEN]))
    lacking = evaluate(tmp_path, protocol, samples, predictions[:3], roots=[GOLDEN])
    assert lacking["status"]["semantic_change"]["invalid_output"] == 1
    assert all(value < whole[key] for key, value in values(lacking).items())  # type: ignore[operator]
    assert lacking["metrics"]["sek"]["valid_rate"] == 0.75


def test_second_where_nothing_changes(tmp_path: Path) -> None:
    write_png(tmp_path / "zero.png", np.zeros((9, 9), np.uint8))
    maps = {"map_before": "zero.png", "map_after": "zero.png"}
    samples = [{"id": f"p{i}", "task": "semantic_change", "reference": maps} for i in range(3)]
    summary = evaluate(tmp_path, "second-stacked7", samples, [{"id": f"p{i}", **maps} for i in range(3)])
    assert values(summary) == {"sek": None, "fscd": None, "miou": None, "oa": 1.0, "kappa": None, "score": None}
    assert "changed pixel" in summary["metrics"]["sek"]["reason"] and "reason" not in summary["metrics"]["oa"]
    assert "NaN" not in json.dumps(summary)


@pytest.fixture
def levir_mci(tmp_path: Path) -> tuple[list[Record], Callable[[int, np.ndarray], Record]]:
    """Labels as the data set has them, three equal bands of 0, 128, 255; and what writes a prediction."""
    rng = np.random.default_rng(0)
    samples = []
    for i in range(5):
        label = rng.integers(0, 3, (16, 16)).astype(np.uint8) if i else np.zeros((16, 16), np.uint8)
        write_png(tmp_path / f"label{i}.png", np.dstack([np.array([0, 128, 255], np.uint8)[label]] * 3))
        np.save(tmp_path / f"truth{i}.npy", label)
        reference = {
            "mask": f"label{i}.png", "classes": ["background", "road", "building"], "levels": [0, 128, 255],
        }  # fmt: skip
        samples.append({"id": f"s{i}", "task": "change_mask", "reference": reference})

    def predict(i: int, mask: np.ndarray) -> Record:
        write_png(tmp_path / f"mask{i}.png", mask)
        return {"id": f"s{i}", "mask": f"mask{i}.png"}

    return samples, predict


def test_levir_mci(tmp_path: Path, levir_mci: Any) -> None:
    samples, predict = levir_mci
    rng = np.random.default_rng(1)
    truths = [np.load(tmp_path / f"truth{i}.npy") for i in range(5)]
    masks = [np.where(rng.random(t.shape) < 0.3, rng.integers(0, 3, t.shape), t).astype(np.uint8) for t in truths]
    summary = evaluate(tmp_path, "levir-mci-mask", samples, [predict(i, mask) for i, mask in enumerate(masks)])
    matrix = np.zeros((3, 3))
    np.add.at(matrix, (np.concatenate(truths), np.concatenate(masks)), 1)
    hits, true, found = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    iou = hits / (true + found - hits)
    assert values(summary) == pytest.approx(
        {
            "miou": iou.mean(), "iou_0": iou[0], "iou_1": iou[1], "iou_2": iou[2],
            "pixel_accuracy": hits.sum() / matrix.sum(), "mean_pixel_accuracy": (hits / true).mean(),
            "fwiou": (true / true.sum() * iou).sum(),
        }
    )  # fmt: skip
    perfect = evaluate(tmp_path, "levir-mci-mask", samples, [predict(i, truth) for i, truth in enumerate(truths)])
    assert values(perfect) == dict.fromkeys(values(perfect), 1.0)
    page = (tmp_path / "out1" / "report.html").read_text()
    (held,) = re.findall(r'<script type="application/json">({"images".*?)</script>', page)
    shown = [[one["image"] for one in card["pictures"]] for card in json.loads(held)["cards"]]
    assert len(shown) == 5 and all(made == truth for made, truth in shown)  # labels look like their prediction
    baselines = {name: values(rows) for name, rows in summary["baselines"].items()}
    assert baselines["oracle"] == dict.fromkeys(baselines["oracle"], 1.0)
    assert baselines["all_unchanged"]["iou_1"] == baselines["all_unchanged"]["iou_2"] == 0.0
    lacking = evaluate(tmp_path, "levir-mci-mask", samples, [predict(0, masks[0])])
    assert all(value < values(summary)[key] for key, value in values(lacking).items())  # type: ignore[operator]


def test_grey_levels_as_a_prediction_are_no_classes(tmp_path: Path, levir_mci: Any) -> None:
    samples, predict = levir_mci
    summary = evaluate(tmp_path, "levir-mci-mask", samples, [predict(1, np.full((16, 16), 128, np.uint8))])
    assert summary["status"]["class_map"]["invalid_output"] == 5
    assert "the mask holds the value 128" in (tmp_path / "out0" / "report.html").read_text()


def test_xview2(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    samples, perfect, poor = [], [], []
    for i in range(4):
        damage = np.kron(rng.integers(0, 5, (8, 8)), np.ones((4, 4))).astype(np.uint8)
        maps = {
            "buildings": (damage > 0).astype(np.uint8), "damage": damage,
            "worse": np.where(rng.random(damage.shape) < 0.3, rng.integers(0, 5, damage.shape), damage).astype(np.uint8),
        }  # fmt: skip
        for name, pixels in maps.items():
            write_png(tmp_path / f"{name}{i}.png", pixels)
        truth = {"buildings": f"buildings{i}.png", "damage": f"damage{i}.png"}
        samples.append({"id": f"s{i}", "task": "damage", "kind": f"event{i % 2}", "reference": truth})
        perfect.append({"id": f"s{i}", **truth})
        poor.append({"id": f"s{i}", "buildings": f"worse{i}.png", "damage": f"worse{i}.png"})
    summary = evaluate(tmp_path, "xview2-damage", samples, poor)
    found = values(summary)
    keys = ["score", "localization_f1", "damage_f1", "f1_no_damage", "f1_minor", "f1_major", "f1_destroyed"]
    assert list(found) == keys and set(summary["slices"]) == {"event0", "event1"}
    harmonic = 4 / sum(1 / (found[key] + 1e-6) for key in keys[3:])  # type: ignore[operator]
    assert found["damage_f1"] == pytest.approx(harmonic)
    assert found["score"] == pytest.approx(0.3 * found["localization_f1"] + 0.7 * harmonic)  # type: ignore[operator]
    oracle = values(summary["baselines"]["oracle"])
    assert oracle == pytest.approx(values(evaluate(tmp_path, "xview2-damage", samples, perfect)))
    assert oracle["score"] == pytest.approx(1.0, abs=1e-6)
    assert values(summary["baselines"]["no_damage"])["score"] < found["score"]  # type: ignore[operator]
    lacking = values(evaluate(tmp_path, "xview2-damage", samples, poor[:2]))
    assert all(lacking[key] < found[key] for key in keys)  # type: ignore[operator]


def test_a_protocol_of_other_samples_says_so_in_every_row(tmp_path: Path) -> None:
    write_png(tmp_path / "mask.png", np.full((4, 4), 255, np.uint8))
    samples = [{"id": "s", "task": "change_mask", "reference": {"mask": "mask.png"}}]
    summary = evaluate(tmp_path, "levir-mci-mask", samples, [{"id": "s", "mask": "mask.png"}])
    assert summary["metrics"]["miou"]["value"] is None
    assert "no 'reference.classes'" in summary["metrics"]["miou"]["reason"]
