"""Boxes in texts, and published definitions of boxes against their own code."""

from __future__ import annotations

import json
import math
import random
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rsw_rewards as rsw
from rsw_rewards.core.records import Output
from rsw_rewards.errors import Unreadable
from rsw_rewards.verifiers.box_texts import FORMS, read_boxes
from rsw_rewards.verifiers.boxes import box_iou, parse_box
from rsw_rewards.verifiers.published_boxes import Target, choice, earthdial
from tests.originals import parts, text

IMAGE = np.zeros((60, 80, 3), np.uint8)


def evaluated(
    protocol: str, truths: list[dict[str, Any]], outputs: list[dict[str, Any]], **settings: Any
) -> dict[str, float]:
    samples = [
        {"id": f"s{n}", "task": "grounding", "images": [IMAGE], "reference": one} for n, one in enumerate(truths)
    ]
    answers = [{"id": f"s{n}", **one} for n, one in enumerate(outputs)]
    return {
        key: entry.value for key, entry in rsw.evaluate(protocol, samples, answers, settings=settings).metrics.items()
    }


@pytest.mark.parametrize(
    ("form", "said", "boxes"),
    [
        ("geochat", "It is {<10><20><50><60>|<0>} there", [[8, 12, 40, 36]]),
        ("geochat", "{<10><20><50><60>}{<0><0><10><10>}", [[8, 12, 40, 36], [0, 0, 8, 6]]),
        ("earthdial", "[[10, 20, 50, 60, 0]][[0, 0, 10, 10, 180]]", [[8, 12, 40, 36], [0, 0, 8, 6]]),
        ("teochat", "[10, 20, 50, 60]", [[8, 12, 40, 36]]),
        ("qwen2-vl", "<|box_start|>(100,200),(500,600)<|box_end|>", [[8, 12, 40, 36]]),
        ("qwen3-vl", '```json\n[{"bbox_2d": [100, 200, 500, 600], "label": "dam"}]\n```', [[8, 12, 40, 36]]),
        ("qwen2.5-vl", '{"bbox_2d": [8, 12, 40, 36]}', [[8, 12, 40, 36]]),
        ("teochat", "[]", []),
        ("geochat", "none", []),
    ],
)
def test_boxes_in_texts_are_boxes_in_pixels(form: Any, said: str, boxes: list[list[float]]) -> None:
    found = rsw.score("box_iou", {"text": said}, reference={"boxes": boxes}, images=[IMAGE], text=form)
    assert found.value == pytest.approx(1.0) and found.status == "ok", found


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("geochat", "at the top"),
        ("geochat", "{<1><2><3>}"),
        ("teochat", "[1, 2, 3, 4, 5]"),
        ("qwen2-vl", "(1,2)"),
        (None, "[1, 2, 3, 4]"),
        ("teochat", "[5, 5, 1, 1]"),
    ],
)
def test_texts_that_name_no_box_are_invalid(form: Any, said: str) -> None:
    found = rsw.score(
        "box_iou",
        {"text": said},
        reference={"boxes": [[8, 12, 40, 36]]},
        images=[IMAGE],
        **({"text": form} if form else {}),
    )
    assert (found.status, found.value) == ("invalid_output", 0.0) and found.reason


@given(st.text(max_size=80), st.sampled_from(sorted(FORMS)))
def test_no_text_breaks_a_form(said: str, form: Any) -> None:
    try:
        boxes = read_boxes(said, form, (1.0, 1.0))
    except Unreadable:
        return
    assert all(len(box) in (4, 8) for box in boxes)


def test_vrsbench() -> None:
    original = parts("lx709/VRSBench", "d38cee1", "eval_fianl/eval_utils.py", "computeIoU")
    chance = random.Random(1)
    corners = [sorted(chance.sample(range(101), 2)) + sorted(chance.sample(range(101), 2)) for _ in range(60)]
    true = [[x1, y1, x2, y2] for x1, x2, y1, y2 in corners]
    said = [
        "{{<{}><{}><{}><{}>}}".format(*(max(0, side + chance.randint(-6, 6)) for side in box)) if n % 7 else "at the top left" if n % 2 else "{<3><4>}"
        for n, box in enumerate(true)
    ] + ["{<50><50><10><10>|<45>}", "x1: 10.5, 20, 30", ""]  # fmt: skip
    true += [[10, 10, 20, 20]] * 3
    ious: list[float] = []
    shared = union = 0.0
    for box, one in zip(true, said, strict=True):
        numbers = [int(number) for number in re.findall(r"\d+", one)][:4]
        try:
            iou, i, u = original.computeIoU(box, numbers, return_iou=True)
        except (ValueError, ZeroDivisionError):  # the notebook goes on behind any error
            continue
        ious.append(iou)
        shared, union = shared + i, union + u
    truths = [
        {
            "boxes": [[side * (0.8, 0.6)[place % 2] for place, side in enumerate(box)]],
            "text": "{{<{}><{}><{}><{}>}}".format(*box),
        }
        for box in true
    ]
    for given_text in (True, False):
        rows = truths if given_text else [{"boxes": one["boxes"]} for one in truths]
        found = evaluated("vrsbench-grounding", rows, [{"text": one} for one in said])
        expected = {"acc@0.5": sum(iou >= 0.5 for iou in ious) / len(said), "acc@0.7": sum(iou >= 0.7 for iou in ious) / len(said),
                    "mean_iou": sum(ious) / len(said), "cumulative_iou": shared / union}  # fmt: skip
        assert found == pytest.approx(expected, abs=1e-12)


def test_opt_rsvg() -> None:
    torch = pytest.importorskip("torch", reason="needs the extra torch")
    where = ("like413/OPT-RSVG", "ff0fc20")
    boxes = parts(*where, "utils/box_utils.py", "bbox_iou", "xywh2xyxy", torch=torch)
    original = parts(
        *where,
        "utils/eval_utils.py",
        "trans_vg_eval_test",
        torch=torch,
        np=np,
        xywh2xyxy=boxes.xywh2xyxy,
        bbox_iou=boxes.bbox_iou,
    )
    rng = np.random.default_rng(0)
    true = np.sort(rng.uniform(0, 80, (200, 2, 2)), axis=1).reshape(-1, 4)
    given_ = true + rng.normal(0, 6, true.shape)
    given_[:5] = [[-20, -20, 90, 90], [0, 0, 0, 0], [40, 40, 30, 30], [79, 79, 100, 100], [*true[4]]]

    def centred(rows: np.ndarray) -> Any:
        x1, y1, x2, y2 = (rows / 80).T
        return torch.tensor(np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], axis=1))

    *hits, mean, cumulative = original.trans_vg_eval_test(centred(given_), centred(true))
    samples = [
        {"id": f"s{n}", "task": "grounding", "images": [np.zeros((80, 80), np.uint8)], "reference": {"boxes": [box]}}
        for n, box in enumerate(true.tolist())
    ]
    found = rsw.evaluate(
        "opt-rsvg", samples, [{"id": f"s{n}", "boxes": [box]} for n, box in enumerate(given_.tolist())]
    ).metrics
    expected = {f"acc@0.{tenth}": int(hit) / 200 for tenth, hit in zip(range(5, 10), hits, strict=True)}
    assert {key: entry.value for key, entry in found.items()} == pytest.approx(
        {**expected, "mean_iou": mean, "cumulative_iou": cumulative}, abs=1e-12
    )
    inside = [
        n
        for n in range(5, 200)
        if (given_[n] >= 0).all() and (given_[n] <= 80).all() and (given_[n][2:] > given_[n][:2]).all()
    ]
    plain = rsw.evaluate(
        "visual-grounding",
        [samples[n] for n in inside],
        [{"id": f"s{n}", "boxes": [given_[n].tolist()]} for n in inside],
    ).metrics
    *_, cumulative = original.trans_vg_eval_test(centred(given_[inside]), centred(true[inside]))
    assert plain["cumulative_iou"].value == pytest.approx(cumulative, abs=1e-12)


def test_choice_grounding() -> None:
    geometry = pytest.importorskip("shapely.geometry", reason="shapely is not installed")
    given_ = {"re": re, "math": math, "Polygon": geometry.Polygon, "print": lambda *_: None}
    theirs = parts(
        "ShawnAn-WHU/CHOICE", "eb6c430", "ms-swift/infer_vlm/evaluator.py", "AccEvaluator", **given_
    ).AccEvaluator("", "")
    chance = random.Random(2)
    said = [
        "(0.1, 0.2, 0.5, 0.6)",
        "[120, 340, 560, 780]",
        "x1=0.1 y2",
        "",
        "30 meter wide, 0.1 0.2 0.3 0.4",
        "B2 0.2,0.2;0.9,0.8",
        "(0.5,0.5,0.5,0.5)",
        "1.0 1 0 0",
    ]
    said += [", ".join(f"{chance.uniform(-0.1, 1):.3f}" for _ in range(4)) for _ in range(200)]
    for number, one in enumerate(said):
        polygon = (
            [[0.2, 0.1], [0.6, 0.2], [0.5, 0.6], [0.1, 0.5]]
            if number % 2
            else [[0.1, 0.1], [0.9, 0.1], [0.9, 0.7], [0.1, 0.7]]
        )
        target = Target((tuple(side for point in polygon for side in point),), "", (1.0, 1.0))
        try:
            found = choice(target, Output("s", text=one))
        except Unreadable:
            found = {"hit5": 0.0, "hit3": 0.0}
        hit5, hit3, _ = theirs.bbox_evaluater(one, polygon)
        assert (found["hit5"], found["hit3"]) == (float(hit5), float(hit3)), one


@pytest.mark.parametrize(
    ("script", "flat"), [("rs_detection/eval.py", False), ("rs_change_detection/eval_detection.py", True)]
)
def test_earthdial_on_its_own_results(script: str, flat: bool) -> None:
    geometry = pytest.importorskip("shapely.geometry", reason="shapely is not installed")
    where, place = ("hiyamdebary/EarthDial", "92c1260"), "src/earthdial/eval/"
    original = parts(
        *where,
        place + script,
        "get_rotated_box_vertices",
        "calculate_iou",
        "parse_bboxes",
        np=np,
        re=re,
        Polygon=geometry.Polygon,
        print=print,
    )
    results = "rs_change_detection/results/xBD_object_detection.jsonl" if flat else "rs_detection/results/GeoChat.jsonl"
    rows = [json.loads(line) for line in text(*where, place + results).splitlines()][:400]
    made = [
        "[[1,2,3,4]]",
        "[[10, 10, 30, 20, 45]], [[10, 10, 10, 20, 0]]",
        "none",
        "",
        "[[-5, 0, 10, 10, 3]]",
        "[10, 10, 30, 20, 45][10,10,30,20,45]",
    ]
    pairs = [(row["answer"], row["caption0" if flat else "gt_bbox"]) for row in rows]
    if not flat:  # the change script stops at boxes of other than five numbers
        pairs += [(one, "[[10, 10, 30, 20, 40]]") for one in made]
    for said, true in pairs:
        theirs = 0
        for box in (given_ := original.parse_bboxes(said)):
            if flat:
                box[-1] = 0
            try:
                turned = original.get_rotated_box_vertices(*box)
                ious = [
                    original.calculate_iou(turned, original.get_rotated_box_vertices(*one))
                    for one in original.parse_bboxes(true)
                ]
            except TypeError:  # as the script catches everything
                continue
            theirs += any(iou >= (0.25 if flat else 0.5) for iou in ious)
        found = earthdial(Target(((0, 0, 1, 1),), true, (100.0, 100.0)), Output("s", text=said), flat)
        assert (found["hits"], found["boxes"]) == (theirs, len(given_)), (said, true)


def test_geochat_turns_boxes_as_earthdial_does() -> None:
    points = read_boxes("{<20><30><60><40>|<30>}", "geochat", (1.0, 1.0))[0]
    original = parts(
        "hiyamdebary/EarthDial", "92c1260", "src/earthdial/eval/rs_detection/eval.py", "get_rotated_box_vertices", np=np
    )
    theirs = [side for point in original.get_rotated_box_vertices(20, 30, 60, 40, 30) for side in point]
    assert points == pytest.approx(theirs) and box_iou(parse_box(points), parse_box(theirs)) == pytest.approx(1.0)


def test_one_sure_box_pleases_earthdial_and_not_us() -> None:
    truth = [{"boxes": [[0, 0, 8, 6], [40, 30, 48, 36], [60, 50, 68, 56]]}] * 2
    said = [{"text": "[[0, 0, 10, 10, 0]]" * 5}, {"text": "none"}]
    assert evaluated("earthdial-detection", truth, said)["precision"] == 1.0
    assert evaluated("visual-grounding", truth, said, **{"box_iou.text": "earthdial"})["acc@0.5"] == 0.0


def test_average_precision_is_that_of_coco() -> None:
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    torch = pytest.importorskip("torch", reason="needs the extra torch")
    torchmetrics = pytest.importorskip("torchmetrics.detection", reason="torchmetrics is not installed")
    rng, names = np.random.default_rng(5), ["ship", "plane", "dam"]
    theirs = torchmetrics.MeanAveragePrecision(backend="pycocotools")
    truths, outputs = [], []
    for _ in range(12):
        true = np.sort(rng.uniform(0, 60, (4, 2, 2)), axis=1).reshape(-1, 4).round(1)
        labels = rng.integers(0, 3, 4)
        near = np.concatenate(
            [true + rng.normal(0, 2, true.shape), np.sort(rng.uniform(0, 60, (2, 2, 2)), axis=1).reshape(-1, 4)]
        ).round(1)
        guess = np.concatenate([labels, rng.integers(0, 3, 2)])
        keep = ((near[:, 2:] - near[:, :2]) > 0.5).all(axis=1)
        near, guess = near[keep], guess[keep]
        scores = rng.permutation(100)[: len(near)] / 100
        theirs.update(
            [{"boxes": torch.tensor(near), "scores": torch.tensor(scores), "labels": torch.tensor(guess)}],
            [{"boxes": torch.tensor(true), "labels": torch.tensor(labels)}],
        )
        truths.append({"boxes": true.tolist(), "labels": [names[one] for one in labels]})
        rows = zip(near.tolist(), guess, scores.tolist(), strict=True)
        outputs.append(
            {"text": json.dumps([{"bbox_2d": box, "label": names[one], "score": score} for box, one, score in rows])}
        )
    expected = theirs.compute()
    found = evaluated("detection", truths, outputs)
    assert found == pytest.approx(
        {"map": float(expected["map"]), "map50": float(expected["map_50"]), "map75": float(expected["map_75"])},
        abs=1e-6,
    )
    assert evaluated("detection", truths, [{"text": "[]"}] * 12)["map"] == 0.0
    with_labels = [
        {"text": json.dumps([{"bbox_2d": box, "label": one} for box, one in zip(t["boxes"], t["labels"], strict=True)])}
        for t in truths
    ]
    assert evaluated("detection", truths, with_labels)["map"] == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["published_box", "detection_ap"])
def test_a_broken_truth_is_an_error_for_every_output(name: str) -> None:
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    for reference in (
        {"boxes": [[5, 5, 1, 1]], "labels": ["dam"]},
        {"labels": ["dam"]},
        {"boxes": [[1, 1, 2]], "labels": ["dam"]},
    ):
        config = {"reading": "vrsbench"} if name == "published_box" else {}
        found = [
            rsw.score(name, one, reference=reference, images=[IMAGE], task="grounding", **config)
            for one in ({"text": "[1, 1, 2, 2]"}, None)
        ]
        assert [one.status for one in found] == ["error", "error"], reference
