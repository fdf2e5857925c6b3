"""The protocols of boxes, referred masks, labels and change lists on files: numbers, slices, baselines and what is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rsw_rewards as rsw
from rsw_rewards.errors import InputError
from rsw_rewards.evaluation.protocols import PROTOCOLS
from rsw_rewards.evaluation.protocols import grounding as family
from rsw_rewards.io.images import write_png
from rsw_rewards.io.records_io import load_samples, write_jsonl
from rsw_rewards.rollouts.baselines import BASELINES

SIZE = 32


def summary(folder: Path, protocol: str, samples: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> Any:
    write_jsonl(folder / "s.jsonl", samples)
    write_jsonl(folder / "p.jsonl", outputs)
    (result,) = rsw.evaluate([PROTOCOLS.find(protocol)], folder / "s.jsonl", folder / "p.jsonl", folder / "out")
    return result.summary


def values(metrics: Any) -> dict[str, float | None]:
    return {key: entry["value"] for key, entry in metrics.items()}


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    write_png(tmp_path / "image.png", np.zeros((SIZE, SIZE, 3), np.uint8))
    mask = np.zeros((SIZE, SIZE), np.uint8)
    write_png(tmp_path / "empty.png", mask)
    mask[:8, :8] = 255
    write_png(tmp_path / "corner.png", mask)
    mask[:8, :4] = 0
    write_png(tmp_path / "half.png", mask)
    return tmp_path


def grounding(id: str, **reference: Any) -> dict[str, Any]:
    return {"id": id, "task": "grounding", "images": ["image.png"], "prompt": "the house", "reference": reference}


def test_every_baseline_and_headline_exists() -> None:
    for protocol in family.PROTOCOLS:
        assert set(protocol.baselines) <= set(BASELINES.built_in)
        keys = {key for part in protocol.rubric.components for metric in part.build().metrics() for key in metric.keys}
        assert set(protocol.named) <= keys


@pytest.mark.parametrize(("scale", "steps"), [("thousandths", 1000), ("shares", 1)])
def test_boxes_on_another_scale_are_noted_and_read_where_it_is_declared(scale: str, steps: int, tmp_path: Path) -> None:
    write_png(tmp_path / "wide.png", np.zeros((20, 80, 3), np.uint8))
    true = [[n, n, n + 20, n + 10] for n in range(8)]
    samples = [{**grounding(f"q{n}", boxes=[box]), "images": ["wide.png"]} for n, box in enumerate(true)]
    written = [[x1 / 80 * steps, y1 / 20 * steps, x2 / 80 * steps, y2 / 20 * steps] for x1, y1, x2, y2 in true]
    write_jsonl(tmp_path / "s.jsonl", samples)
    write_jsonl(tmp_path / "p.jsonl", [{"id": f"q{n}", "boxes": [box]} for n, box in enumerate(written)])
    files = ("visual-grounding", tmp_path / "s.jsonl", tmp_path / "p.jsonl")
    undeclared = rsw.evaluate(*files)
    (note,) = (text for text in undeclared.summary["warnings"] if "the boxes look like" in text)
    assert f"look like {scale}, and are read as pixels" in note and f"--set box_iou.scale={scale}" in note
    declared = rsw.evaluate(*files, settings={"box_iou.scale": scale})
    assert declared.metrics["mean_iou"].value == pytest.approx(1.0)
    assert not any("the boxes look like" in text for text in declared.summary["warnings"])
    for name, row in undeclared.summary["baselines"].items():
        assert values(declared.summary["baselines"][name]["metrics"]) == pytest.approx(values(row["metrics"]))
    right = [{"id": f"q{n}", "boxes": [box]} for n, box in enumerate(true)]
    in_pixels = rsw.evaluate("visual-grounding", files[1], right, settings={"box_iou.scale": scale})
    assert any("look like pixels" in text for text in in_pixels.summary["warnings"])


def test_a_scale_of_the_image_needs_one_size() -> None:
    sizes = [np.zeros((20, 80, 3), np.uint8), np.zeros((20, 40, 3), np.uint8)]
    for images, words in ((sizes, "2 images of different sizes"), ([], "no image")):
        score = rsw.score(
            "box_iou",
            output=[[0, 0, 500, 500]],
            images=images,
            reference={"boxes": [[0, 0, 40, 10]]},
            scale="thousandths",
        )
        assert score.status is rsw.Status.ERROR and words in score.reason
    half = rsw.score(
        "box_iou",
        output=[[0, 0, 500, 500]],
        images=sizes[:1],
        reference={"boxes": [[0, 0, 40, 10]]},
        scale="thousandths",
    )
    assert half.value == 1.0


def test_referring_segmentation(scene: Path) -> None:
    masks = {"a": "corner.png", "b": "corner.png", "c": "empty.png"}
    samples = [grounding(name, mask=mask) for name, mask in masks.items()] + [grounding("d", boxes=[[0, 0, 8, 8]])]
    outputs = [{"id": "a", "mask": "half.png"}, {"id": "c", "mask": "empty.png"}, {"id": "d", "boxes": [[0, 0, 8, 8]]}]
    found = summary(scene, "referring-segmentation", samples, outputs)
    area = SIZE * SIZE  # the mask that is missing is wrong in every pixel
    assert values(found["metrics"]) == pytest.approx(
        {"giou_mean": 0.5, "ciou_cumulative": 32 / (64 + area), "p@0.5": 0.5}
        | dict.fromkeys(("p@0.6", "p@0.7", "p@0.8", "p@0.9"), 0.0)
        | {"no_target_accuracy": 1.0, "target_accuracy": 0.5}
    )
    assert found["status"]["referring_mask"]["not_applicable"] == 1
    rows = {name: values(row["metrics"])["giou_mean"] for name, row in found["baselines"].items()}
    assert rows == pytest.approx({"empty": 1 / 3, "whole_image": 2 * 64 / area / 3, "oracle": 1.0})


def test_the_convention_of_rrsis_d_is_a_setting(scene: Path) -> None:
    protocol = PROTOCOLS.find("referring-segmentation").configured({"referring_mask.no_target": "zero"})
    write_jsonl(scene / "s.jsonl", [grounding("a", mask="empty.png")])
    write_jsonl(scene / "p.jsonl", [{"id": "a", "mask": "empty.png"}])
    (result,) = rsw.evaluate([protocol], scene / "s.jsonl", scene / "p.jsonl", scene / "out")
    assert result.summary["metrics"]["giou_mean"]["value"] == 0.0


def test_visual_grounding(scene: Path) -> None:
    samples = [
        grounding("upright", boxes=[[0, 0, 8, 8]]),
        grounding("rotated", boxes=[[4, 0, 8, 4, 4, 8, 0, 4]]),
        grounding("missing", boxes=[[0, 0, 4, 4]]),
        grounding("broken", boxes=[[0, 0, 4, 4]]),
    ]
    outputs = [
        {"id": "upright", "boxes": [[0, 0, 8, 6]]},
        {"id": "rotated", "boxes": [[0, 0, 8, 8]]},
        {"id": "broken", "boxes": [[4, 4, 0, 0]]},
    ]
    found = summary(scene, "visual-grounding", samples, outputs)
    assert values(found["metrics"]) == pytest.approx(
        {
            "acc@0.5": 0.5,
            "acc@0.6": 0.25,
            "acc@0.7": 0.25,
            "acc@0.8": 0.0,
            "acc@0.9": 0.0,
            "mean_iou": (0.75 + 0.5) / 4,
            "cumulative_iou": (48 + 32) / (64 + 64 + 16 + 16),
        }
    )
    assert values(found["baselines"]["oracle"]["metrics"]) == dict.fromkeys(found["metrics"], 1.0)
    assert values(found["baselines"]["whole_image"]["metrics"])["acc@0.5"] == 0.0
    assert values(found["baselines"]["empty"]["metrics"])["mean_iou"] == 0.0


def classified(id: str, **reference: Any) -> dict[str, Any]:
    return {"id": id, "task": "classification", "reference": {"vocabulary": ["forest", "water", "road"], **reference}}


def test_scene_classification_reports_every_class(tmp_path: Path) -> None:
    samples = [classified(f"s{i}", label=label) for i, label in enumerate(["forest"] * 3 + ["water"])]
    outputs = [{"id": f"s{i}", "text": text} for i, text in enumerate(["Forest", "forest.", "water"])]
    found = summary(tmp_path, "scene-classification", samples, outputs)
    assert values(found["metrics"]) == pytest.approx({"oa": 0.5, "aa": 1 / 3, "oa/forest": 2 / 3, "oa/water": 0.0})
    assert list(found["metrics"])[:2] == ["oa", "aa"]
    assert found["metrics"]["oa"]["chance_corrected"] == pytest.approx((0.5 - 0.75) / 0.25)
    rows = {name: values(row["metrics"])["aa"] for name, row in found["baselines"].items()}
    assert rows == {"majority": 0.5, "all_labels": 0.0, "oracle": 1.0}


def test_multi_label(tmp_path: Path) -> None:
    samples = [classified("a", labels=["forest"]), classified("b", labels=["water", "road"])]
    outputs = [{"id": "a", "text": "forest, water"}, {"id": "b", "text": '["water", "road"]'}]
    found = summary(tmp_path, "multi-label", samples, outputs)
    assert values(found["metrics"]) == pytest.approx({"micro_f1": 6 / 7, "macro_f1": (1 + 2 / 3 + 1) / 3, "map": None})
    assert "without scores" in found["metrics"]["map"]["reason"]
    rows = {name: values(row["metrics"])["micro_f1"] for name, row in found["baselines"].items()}
    assert rows["oracle"] == 1.0
    assert rows["all_labels"] == pytest.approx(2 * 3 / (3 + 6))


def test_multi_label_with_scores(tmp_path: Path) -> None:
    samples = [classified("a", labels=["forest"]), classified("b", labels=["water", "road"])]
    outputs = [
        {"id": "a", "text": '{"forest": 0.9, "water": 0.4}'},
        {"id": "b", "text": '{"water": 0.3, "road": 0.8}'},
    ]
    found = values(summary(tmp_path, "multi-label", samples, outputs)["metrics"])
    assert found["map"] == pytest.approx((1 + 1 / 2 + 1) / 3)


def test_change_list(tmp_path: Path) -> None:
    road = {"object": "road", "change": "appeared"}
    samples = [
        {"id": "a", "task": "change_qa", "reference": {"changes": [road, {**road, "object": "house"}]}},
        {"id": "b", "task": "change_qa", "reference": {"changes": []}},
        {"id": "c", "task": "change_qa", "reference": {"answers": ["yes"]}},
    ]
    outputs = [
        {"id": "a", "text": "road | built\ntree | removed"},
        {"id": "b", "text": "none"},
        {"id": "c", "text": "yes"},
    ]
    found = summary(tmp_path, "change-list", samples, outputs)
    assert values(found["metrics"]) == pytest.approx(
        {"difference_f1": 0.5, "difference_precision": 0.5, "difference_recall": 0.5}
    )
    assert found["status"]["difference_list"] | {"ok": 2, "not_applicable": 1} == found["status"]["difference_list"]
    rows = {name: values(row["metrics"])["difference_f1"] for name, row in found["baselines"].items()}
    assert (rows["empty"], rows["oracle"]) == (0.0, 1.0)


def test_true_changes_that_are_no_list_are_refused_with_their_line(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "s.jsonl", [{"id": "a", "task": "change_qa", "reference": {"changes": "road | appeared"}}])
    with pytest.raises(InputError, match=r"s\.jsonl:1: 'reference\.changes' must be a list, not "):
        load_samples(tmp_path / "s.jsonl")
