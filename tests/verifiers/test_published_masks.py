"""Published readings of masks and damage against their own code, and masks that stand in texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rsw_rewards as rsw
from rsw_rewards.verifiers.mask_texts import teochat, text4seg
from tests.originals import parts


def values(
    protocol: str, samples: list[dict[str, Any]], outputs: list[dict[str, Any]], **settings: Any
) -> dict[str, float]:
    return {
        key: entry.value for key, entry in rsw.evaluate(protocol, samples, outputs, settings=settings).metrics.items()
    }


def test_damage_as_mamba_measures_it() -> None:
    original = parts("ChenHongruixuan/MambaCD", "96c3240", "changedetection/utils_func/metrics.py", "Evaluator", np=np)
    located, graded = original.Evaluator(2), original.Evaluator(5)
    rng = np.random.default_rng(3)
    samples, outputs = [], []
    for number in range(5):
        damage = (rng.integers(0, 6, (24, 24)) % 5).astype(np.uint8) * (rng.random((24, 24)) < 0.5 + 0.1 * number)
        said = np.where(rng.random((24, 24)) < 0.6, damage, rng.integers(0, 5, (24, 24))).astype(np.uint8)
        built = ((damage > 0) ^ (rng.random((24, 24)) < 0.1)).astype(np.uint8)
        located.add_batch((damage > 0).astype(np.int64), built.astype(np.int64))
        graded.add_batch(damage[damage > 0].astype(np.int64), said[damage > 0].astype(np.int64))
        samples.append({"id": f"s{number}", "task": "damage", "reference": {"buildings": damage, "damage": damage}})
        outputs.append({"id": f"s{number}", "buildings": built, "damage": said})
    levels = graded.Damage_F1_socore()
    harmonic = len(levels) / np.sum(1.0 / levels)
    found = values("xbd-unmasked-damage", samples, outputs)
    expected = {
        "localization_f1": located.Pixel_F1_score(),
        "damage_f1": harmonic,
        "score": 0.3 * located.Pixel_F1_score() + 0.7 * harmonic,
    }
    assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-12)
    assert [found[f"f1_{name}"] for name in ("no_damage", "minor", "major", "destroyed")] == pytest.approx(
        levels.tolist(), abs=1e-12
    )


def test_segearth_r1() -> None:
    torch = pytest.importorskip("torch", reason="needs the extra torch")
    where = ("earth-insights/SegEarth-R1", "e796b3b", "segearth_r1/eval_and_test/eval.py")
    original = parts(*where, "intersectionAndUnionGPU", torch=torch)
    rng = np.random.default_rng(7)
    masks = [
        (rng.random((10, 10)) < share, rng.random((10, 10)) < other)
        for share, other in ((0.5, 0.5), (0, 0), (0.3, 0), (0, 0.2), (0.9, 0.95))
    ]
    half = np.zeros((10, 10), bool)
    half[:5] = True
    masks += [(half, half), (half, np.ones((10, 10), bool))]  # the last has an IoU of exactly 0.5
    shared, union, ious = np.zeros(2), np.zeros(2), []
    for true, said in masks:
        i, u, _ = (
            one.numpy()
            for one in original.intersectionAndUnionGPU(
                torch.tensor(said).int().float(), torch.tensor(true).int().float(), 2
            )
        )
        iou = i / (u + 1e-5)
        iou[u == 0] = 1.0
        shared, union, ious = shared + i, union + u, [*ious, float(iou[1])]
    samples = [{"id": f"s{n}", "task": "grounding", "reference": {"mask": true}} for n, (true, _) in enumerate(masks)]
    found = values("segearth-r1", samples, [{"id": f"s{n}", "mask": said} for n, (_, said) in enumerate(masks)])
    expected = {"giou_mean": sum(ious) / (len(ious) + 1e-5), "ciou_cumulative": shared[1] / (union[1] + 1e-10)}
    expected |= {f"p@0.{tenth}": sum(iou > tenth / 10 for iou in ious) / (len(ious) + 1e-5) for tenth in range(5, 10)}
    assert found == pytest.approx(expected, abs=1e-6)  # the original divides in float32


def test_run_lengths_of_text4seg() -> None:
    original = parts("mc-lan/Text4Seg", "d6540b6", text4seg_file(), "decode_mask")
    said = "others *5| sea dam *3| others *8\n others *16\n sea dam *16"
    labels = original.decode_mask(said).split("|")
    labels = (labels + [labels[-1]] * 256)[:256]
    expected = np.array([one != "others" for one in labels]).reshape(16, 16)
    assert (text4seg(f"It is <seg>{said}</seg>.", (16, 16)) == expected).all()
    assert (text4seg(said, (32, 48)) == np.kron(expected, np.ones((2, 3), bool))).all()


def text4seg_file() -> str:
    return "llava/eval/utils.py"


def test_boxes_of_teochat_are_filled_as_it_fills_them() -> None:
    from PIL import Image, ImageDraw

    image = Image.new("L", (256, 256), 0)
    for x1, y1, x2, y2 in ((10, 20, 30.5, 40), (60, 60, 61, 90)):
        corners = [
            (x1 / 100 * 256, y1 / 100 * 256),
            (x1 / 100 * 256, y2 / 100 * 256),
            (x2 / 100 * 256, y2 / 100 * 256),
            (x2 / 100 * 256, y1 / 100 * 256),
        ]
        ImageDraw.Draw(image).polygon(corners, outline=1, fill=1)
    assert (teochat("[10, 20, 30.5, 40], [60, 60, 61, 90]", (256, 256)) == (np.asarray(image) > 0)).all()
    assert not teochat("nothing has changed", (8, 8)).any()


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("text4seg", "all of it"),
        ("text4seg", "others *"),
        ("teochat", "[1, 2, 3]"),
        (None, "others *256"),
        ("text4seg", "dam *99999"),
    ],
)
def test_texts_that_write_no_mask_are_invalid(form: Any, said: str) -> None:
    reference = {"mask": np.eye(16, dtype=bool)}
    found = rsw.score(
        "referring_mask", {"text": said}, reference=reference, task="grounding", **({"text": form} if form else {})
    )
    assert (found.status, found.value) == ("invalid_output", 0.0) and found.reason


def test_a_mask_in_a_text_is_measured_as_a_mask() -> None:
    mask = np.zeros((32, 32), bool)
    mask[:16, :16] = True
    samples = [{"id": "a", "task": "grounding", "reference": {"mask": mask}}]
    said = "\n ".join(["dam *8| others *8"] * 8 + ["others *16"] * 8)
    assert (
        values("referring-segmentation", samples, [{"id": "a", "text": said}], **{"referring_mask.text": "text4seg"})[
            "giou_mean"
        ]
        == 1.0
    )
