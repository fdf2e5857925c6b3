"""Every recipe in ``configs/`` runs its smoke section by the command, as somebody who tries it first would."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from rsw_rewards.cli import main
from rsw_rewards.config import load_config, read_yaml
from rsw_rewards.rollouts.policies import build_policy, load_policy
from rsw_rewards.rollouts.weights import trained_weights
from tests.shared_data import shared
from tests.training.run_files import same

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "configs").glob("*.yaml"))
LONG = ("rs_worldmodel_vro", "rs_worldmodel_sit", "landsat", "ablation")
SMOKES = [pytest.param(recipe, marks=[pytest.mark.slow] * (recipe.stem in LONG)) for recipe in RECIPES]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_whole_at_full_size(recipe: Path) -> None:
    """Keys, policy and verifiers, without the weights and data that only its user has."""
    config = load_config(recipe)
    if (policy := getattr(config, "policy", None)) is not None:
        build_policy(policy)
    if (rubric := getattr(config, "rubric", None)) is not None:
        assert all(component.build() for component in rubric.components)


@pytest.mark.parametrize("recipe", SMOKES, ids=lambda path: path.stem)
def test_a_recipe_runs_its_smoke(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "RSW_SHARED" in recipe.read_text():
        monkeypatch.setenv("RSW_SHARED", str(shared("data").parent))
    monkeypatch.setenv("RSW_RUNS", str(tmp_path))
    monkeypatch.chdir(tmp_path)  # a smoke run needs nothing that lies about
    rewarded = "rubric" in read_yaml(recipe)
    in_process = ["--set", "rollouts.actors=0"] if rewarded else []
    monkeypatch.setattr(sys, "argv", ["rsw", "train", str(recipe), "--smoke", *in_process])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    out = tmp_path / recipe.stem
    assert read_yaml(out / "config.yaml")
    if rewarded:
        steps = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        assert [step["step"] for step in steps] == [1, 2]
        assert all(step["failed"] == 0 for step in steps)
        assert (out / "heldout.json").is_file()
        ends: list[Any] = [load_policy(out), load_policy(out / "final"), load_policy(out / "checkpoints/checkpoint-2")]
        for policy in ends:
            policy.setup()
        assert all(same(trained_weights(ends[0].model), trained_weights(policy.model)) for policy in ends[1:])
    else:
        load_policy(out).setup()
