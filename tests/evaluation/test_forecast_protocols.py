"""Protocols of forecasts: the keys they report, encoders named on the command line, samples without an input image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rsw_rewards as rsw
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.data.scene_world import write_scene_world
from rsw_rewards.encoders import SCENE_CLIP_FOLDER
from rsw_rewards.evaluation.evaluation import Evaluation
from rsw_rewards.evaluation.protocols import PROTOCOLS
from rsw_rewards.io.records_io import load_samples
from rsw_rewards.pixels import content_hash

needs_clip = pytest.mark.skipif(not any(SCENE_CLIP_FOLDER.glob("*.safetensors")), reason="scene-clip is not made yet")


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    folder = tmp_path_factory.mktemp("tfsf")
    write_scene_world(folder, 10, 5, tasks=("forecast",))
    samples = load_samples(folder / "samples.jsonl")
    outputs = [Output(sample.id, image=sample.images[-1]) for sample in samples]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(folder))  # no weights of AlexNet
        return rsw.evaluate(PROTOCOLS.find("tfsf"), samples, outputs, folder / "run")


@needs_clip
def test_every_number_of_the_protocol_is_there_under_an_honest_name(copied: Evaluation) -> None:
    metrics = copied.summary["metrics"]
    for key in (
        "gain_over_copy", "ssim", "psnr", "change_f1", "preservation", "fulfilment", "fd_scene-clip", "kid_scene-clip",
        "cmmd_scene-clip", "clip_score_scene-clip", "cos_scene-clip", "caption_contrast_scene-clip",
        "directional_similarity_scene-clip",
    ):  # fmt: skip
        assert metrics[key]["value"] is not None, key
    assert not {"fid", "kid", "cmmd", "clip_score"} & metrics.keys()
    assert metrics["lpips"]["value"] is None and "alexnet" in metrics["lpips"]["reason"]


@needs_clip
def test_baselines_stand_beside_it_and_say_what_numbers_mean(copied: Evaluation) -> None:
    rows = {name: row["metrics"] for name, row in copied.summary["baselines"].items()}
    assert set(rows) == {
        "copy_before",
        "blurred_copy",
        "mean_image",
        "noise",
        "other_future",
        "tokenizer_ceiling",
        "oracle",
    }
    value = {name: metrics["gain_over_copy"]["value"] for name, metrics in rows.items() if metrics}
    assert value["oracle"] == 1.0 and value["copy_before"] == 0.0
    assert max(value[name] for name in ("blurred_copy", "mean_image", "noise", "other_future")) < 0.0
    distance = {name: metrics["fd_scene-clip"]["value"] for name, metrics in rows.items() if metrics}
    assert distance["copy_before"] < distance["blurred_copy"] < distance["noise"]  # what a set distance cannot see
    assert all(entry["ci95"] is None for metrics in rows.values() for entry in metrics.values())
    assert copied.summary["metrics"]["ssim"]["value"] == rows["copy_before"]["ssim"]["value"]
    assert copied.summary["metrics"]["ssim"]["ci95"] is not None


@needs_clip
def test_a_distance_does_not_get_better_by_leaving_forecasts_out(tmp_path: Path, copied: Evaluation) -> None:
    mine = rsw.protocol("distances", ["frechet", "kid", "ssim"], task="forecast", baselines=())
    whole = [Output(sample.id, image=sample.images[-1]) for sample in copied.samples]
    third = len(whole) // 3
    found = [
        rsw.evaluate(mine, copied.samples, outputs, tmp_path / name)
        for name, outputs in (("whole", whole), ("part", whole[third:]))
    ]
    full, part = (run.summary["metrics"] for run in found)
    assert full["fd_scene-clip"]["value"] == copied.summary["metrics"]["fd_scene-clip"]["value"]
    assert "value_of_valid" not in full["fd_scene-clip"] and part["ssim"]["value"] is not None
    for key in ("fd_scene-clip", "kid_scene-clip"):
        assert part[key]["value"] is None and part[key]["ci95"] is None and part[key]["value_of_valid"] is not None
        assert "are valid, and it is not shown below 99%" in part[key]["reason"]
    assert found[1].metrics["fd_scene-clip"].value_of_valid == part["fd_scene-clip"]["value_of_valid"]
    rows = {row["metric"]: row for row in rsw.compare(*found, protocol=mine).differences()}
    assert rows["fd_scene-clip"]["difference"] is None and "not shown below" in rows["fd_scene-clip"]["reason"]
    assert rows["ssim"]["difference"] is not None


@needs_clip
def test_encoders_are_named_by_setting_them(tmp_path: Path, copied: Evaluation) -> None:
    name = "clean-fid-inception:" + str(tmp_path / "none.pt")
    protocol = PROTOCOLS.find("tfsf").configured({"frechet.encoder": name, "kid.encoder": name})
    few = copied.samples[:4]
    outputs = [Output(sample.id, image=sample.images[-1]) for sample in few]
    metrics = rsw.evaluate(protocol, few, outputs, tmp_path / "run").summary["metrics"]
    for key in ("fid", "kid"):
        assert metrics[key]["value"] is None and "no weights at" in metrics[key]["reason"]
    assert metrics["cmmd_scene-clip"]["value"] is not None


def test_samples_without_an_input_image_run_through_and_say_what_is_missing(tmp_path: Path) -> None:
    def picture(seed: int) -> ImageRef:
        pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
        return ImageRef(array=pixels, sha256=content_hash(pixels))

    samples = [
        Sample(f"s{n}", Task.FORECAST, (), "a park", {"images": [picture(n)], "label": "park"}, scene=f"s{n}")
        for n in range(4)
    ]
    outputs = [Output(s.id, candidate=c, image=picture(9 + n + c)) for n, s in enumerate(samples) for c in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(tmp_path))
        result = rsw.evaluate(PROTOCOLS.find("txt2img-mhn-rsicd"), samples, outputs, tmp_path / "run")
    metrics: dict[str, Any] = result.summary["metrics"]
    for key, words in (
        ("fid_rsicd/own-images", "pretrain_inception.py"), ("zero_shot_cls_oa", "resnet18"), ("clip_rsicd", "clip-rsicd-v2"),
    ):  # fmt: skip
        assert metrics[key]["value"] is None and words in metrics[key]["reason"]
    assert result.summary["candidates"]["k"] == 2
    assert {name: row["n"] for name, row in result.summary["baselines"].items()} == dict.fromkeys(
        ("noise", "mean_image", "other_future", "oracle"), 4
    )
