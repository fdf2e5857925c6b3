"""Rollouts one step stale: whose weights made them, what ratios are to, and runs that are killed while the next is on its way."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file as load_weights
from trl import GRPOTrainer

from rsw_rewards.config import RunConfig
from rsw_rewards.core.plugins import load_file
from rsw_rewards.core.records import Output, TokenTrace
from rsw_rewards.errors import ConfigError
from rsw_rewards.training.collector import Collector
from rsw_rewards.training.grpo import train_grpo
from rsw_rewards.training.trainer_views import sampled_logprobs
from tests.training.run_files import changed, log, same, without_times

TOY = str(Path(__file__).parent / "toy_lm.py")
load_file(Path(TOY))
pytestmark = pytest.mark.usefixtures("ray_cluster")


def configuration(out: Path, **changes: Any) -> dict[str, Any]:
    config: dict[str, Any] = {
        "out": str(out),
        "seed": 5,
        "policy": {"use": f"{TOY}:ToyLM"},
        "train": {"source": f"{TOY}:toy_data"},
        "rubric": {"components": [{"use": f"{TOY}:near_three"}, {"use": f"{TOY}:bright"}]},
        "grpo": {"steps": 5, "prompts": 4, "group": 4, "learning_rate": 5e-3, "threads": 1},
        "rollouts": {"actors": 0, "chunk": 1, "stale": 1},
        "checkpoints": {"every": 1},
        "log": [],
    }
    return changed(config, changes)


def run(out: Path, resume: bool = False, **changes: Any) -> dict[str, torch.Tensor]:
    out.mkdir(parents=True, exist_ok=True)
    train_grpo(RunConfig.model_validate(configuration(out, **changes)), resume)
    return load_weights(out / "final" / "model.safetensors")


Seen = dict[str, list[Any]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, torch.Tensor], Seen]]:
    """A run, and what passed from rollouts to the loss."""
    seen: Seen = {"outputs": [], "old": []}
    collect, score = Collector.collect, GRPOTrainer._compute_loss

    def spy_collect(self: Collector, *args: Any) -> Any:
        found = collect(self, *args)
        seen["outputs"].append(found[0])
        return found

    def spy_loss(self: Any, model: Any, inputs: Any) -> Any:
        seen["old"].append((inputs["old_per_token_logps"] * inputs["completion_mask"] * inputs["tool_mask"]).sum(1))
        return score(self, model, inputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Collector, "collect", spy_collect)
        patch.setattr(GRPOTrainer, "_compute_loss", spy_loss)
        out = tmp_path_factory.mktemp("whole")
        yield out, run(out), seen


def test_every_generation_but_the_first_is_one_update_behind(whole: tuple[Path, Any, Seen]) -> None:
    versions = [{output.policy_version for output in outputs} for outputs in whole[2]["outputs"]]
    assert versions == [{0}, {0}, {1}, {2}, {3}]


def test_ratios_are_to_the_probabilities_that_tokens_were_sampled_with(whole: tuple[Path, Any, Seen]) -> None:
    seen = whole[2]
    assert len(seen["old"]) == 5
    for step, outputs in enumerate(seen["outputs"]):
        sampled = torch.tensor(sorted(sum(output.tokens.logprobs) for output in outputs))
        torch.testing.assert_close(seen["old"][step].sort().values, sampled, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_actors_at_work_beside_the_learner_train_the_same(whole: tuple[Path, Any, Seen], tmp_path: Path) -> None:
    assert same(run(tmp_path, rollouts={"actors": 1}), whole[1])
    assert without_times(log(tmp_path)) == without_times(log(whole[0]))


def test_a_run_killed_with_a_generation_on_its_way_resumes_exactly(
    whole: tuple[Path, Any, Seen], tmp_path: Path
) -> None:
    policy = {"die_at": 3, "mark": str(tmp_path / "died")}
    program = (
        "import json, sys\nfrom rsw_rewards.config import RunConfig\n"
        "from rsw_rewards.training.grpo import train_grpo\n"
        "train_grpo(RunConfig.model_validate(json.loads(sys.argv[1])))\n"
    )
    config = json.dumps(configuration(tmp_path, policy=policy))
    killed = subprocess.run([sys.executable, "-c", program, config], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert same(run(tmp_path, resume=True, policy=policy), whole[1])
    assert without_times(log(tmp_path)) == without_times(log(whole[0]))


def test_what_was_not_sampled_has_the_ratio_one() -> None:
    traced = Output("a", tokens=TokenTrace((1,), (5, 6), (-0.5, -1.5)))
    lost = Output("b", lost="its actor died")
    assert sampled_logprobs([[9, 9, 5, 6], [1]], [traced, lost]) == [[0.0, 0.0, -0.5, -1.5], [0.0]]
    silent = Output("c", tokens=TokenTrace((1,), (5, 6), ()))
    with pytest.raises(ConfigError, match="does not record"):
        sampled_logprobs([[5, 6]], [silent])


@pytest.mark.parametrize("method", ["ppo", "flow_grpo"])
def test_methods_that_take_rollouts_for_present_ones_refuse_stale_ones(method: str, tmp_path: Path) -> None:
    from rsw_rewards.config import load_config

    config = {**configuration(tmp_path), "method": method}
    del config["grpo"]
    (tmp_path / "run.yaml").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"'rollouts\.stale' is for the method 'grpo'"):
        load_config(tmp_path / "run.yaml")
