"""The supervised stages of large policies: a stage that was cut off goes on and ends where the whole one ends."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file as load_weights

import rsw_rewards as rsw
from rsw_rewards.errors import ConfigError
from rsw_rewards.rollouts.policies import build_policy, load_policy
from rsw_rewards.rollouts.weights import trained_weights
from rsw_rewards.training.run import train
from rsw_rewards.training.vlm_supervised import taught_text
from tests.training.run_files import same

HERE = Path(__file__).parent

STAGES: dict[str, dict[str, Any]] = {
    "diffusion": {
        "method": "diffusion_supervised",
        "policy": {"use": "diffusion_forecaster", "path": "tiny:flux_kontext", "size": 8},
        "train": {"source": f"{HERE / 'brightness.py'}:brightness", "count": 8, "side": 8},
    },
    "whole": {
        "method": "vlm_supervised",
        "policy": {"use": "vision_language", "path": "tiny:qwen2_5_vl"},
        "train": {"source": f"{HERE.parents[1] / 'examples/squares.py'}:squares", "count": 8},
        "micro_batch": 1,
    },
    "adapters": {
        "method": "vlm_supervised",
        "policy": {"use": "vision_language", "path": "tiny:qwen2_5_vl", "lora": {"r": 4}},
        "train": {"source": f"{HERE.parents[1] / 'examples/squares.py'}:squares", "count": 8},
    },
}


def weights(out: Path) -> dict[str, torch.Tensor]:
    files = [file for file in out.glob("**/*model.safetensors") if "checkpoints" not in file.parts]
    assert files
    return {f"{file.name}/{key}": tensor for file in files for key, tensor in load_weights(file).items()}


def weights_of(policy: Any) -> dict[str, torch.Tensor]:
    policy.setup()
    return trained_weights(policy.model)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_was_cut_off_ends_where_the_whole_one_ends(
    stage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "stage.yaml"
    common = {"steps": 5, "batch": 2, "threads": 1, "device": "cpu", "learning_rate": 1e-3, "log_every": 1}
    file.write_text(yaml.safe_dump({**STAGES[stage], **common, "checkpoints": {"every": 2}}))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(file, {"out": str(whole)})
    first = capsys.readouterr().out
    start, last, trained = (
        weights_of(made)
        for made in (
            build_policy(STAGES[stage]["policy"]),
            load_policy(whole / "checkpoints" / "checkpoint-4"),
            load_policy(whole),
        )
    )
    assert not same(start, last) and not same(start, trained) and not same(last, trained)
    for name in ("config.yaml", "inputs.json"):
        cut.mkdir(exist_ok=True)
        shutil.copyfile(whole / name, cut / name)
    shutil.copytree(whole / "checkpoints" / "checkpoint-2", cut / "checkpoints" / "checkpoint-2")
    train(file, resume=cut)
    again = capsys.readouterr().out
    assert "going on from step 2" in again and again.splitlines()[-1] == first.splitlines()[-1]
    ends = weights(whole), weights(cut)
    assert ends[0].keys() == ends[1].keys() and all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
    with pytest.raises(ConfigError, match="'batch'"):
        train(file, {"batch": 4}, resume=cut)


@pytest.mark.parametrize(
    ("task", "reference", "text"),
    [
        ("change_qa", {"answers": ["no", "yes", "yes"]}, "yes"),
        ("classification", {"label": "farm", "labels": ["farm", "road"]}, "farm"),
        ("classification", {"labels": ["farm", "road"]}, "farm, road"),
        ("change_caption", {"captions": ["a road"]}, "a road"),
    ],
)
def test_what_is_taught_is_what_answers_best(task: str, reference: dict[str, Any], text: str) -> None:
    sample = rsw.Sample("s", task, reference=reference)
    assert taught_text(sample, np.random.default_rng(0)) == text


def test_a_sample_without_a_truth_teaches_nothing() -> None:
    with pytest.raises(rsw.InputError, match="'s' has no answer, label or caption"):
        taught_text(rsw.Sample("s", "change_qa"), np.random.default_rng(0))


def test_a_stage_without_checkpoints_is_not_started_over_by_mistake(tmp_path: Path) -> None:
    file = tmp_path / "stage.yaml"
    file.write_text(yaml.safe_dump({**STAGES["diffusion"], "steps": 1, "batch": 2, "threads": 1, "device": "cpu"}))
    out = train(file, {"out": str(tmp_path / "run")})
    with pytest.raises(ConfigError, match="there is no whole checkpoint"):
        train(file, {"steps": 2}, resume=out)


def test_stages_of_the_embedded_models_are_started_anew(tmp_path: Path) -> None:
    embedded = HERE.parents[1] / "configs" / "embedded" / "supervised.yaml"
    with pytest.raises(ConfigError, match="cannot be taken up again; start it in another directory"):
        train(embedded, resume=tmp_path / "run")
