"""A generation whose rewards are equal up to rounding changes no weight of a policy, under any method."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsw_rewards.config import PpoConfig
from rsw_rewards.core.plugins import load_file
from rsw_rewards.rollouts.diffusion_forecaster import DiffusionForecaster
from rsw_rewards.rollouts.policy import Request
from rsw_rewards.training.diffusion import DiffusionLearner, FlowGrpoConfig
from rsw_rewards.training.ppo import PpoLearner
from tests.training.grpo_steps import PROMPTS, rollouts, rows, trainer
from tests.training.run_files import same

HERE = Path(__file__).parent
toy = load_file(HERE / "toy_lm.py")
brightness = load_file(HERE / "brightness.py").brightness
STEP = {"learning_rate": 1e-2, "device": "cpu", "threads": 1}


def nearly_equal(constant: float, count: int) -> list[list[float]]:
    """Rewards that are equal, or that rounding in float32 or float64 tells apart."""
    above = [float(np.nextafter(kind(constant), kind(np.inf))) for kind in (np.float32, np.float64)]
    equal = [constant] * count
    return [equal, *([value, *equal[2:], value] for value in above)]


@pytest.mark.parametrize(
    ("group", "keys"),
    [
        (2, {"scale_rewards": "group"}),
        (3, {"scale_rewards": "batch"}),
        (7, {"scale_rewards": "none"}),
        (8, {"scale_rewards": "task"}),
        (8, {"trl": {"multi_objective_aggregation": "normalize_then_sum"}}),
    ],
)
def test_grpo(group: int, keys: dict[str, Any], tmp_path: Path) -> None:
    given: list[float | None] = [0.7] * (PROMPTS * group)
    made = trainer(tmp_path, rollouts(group=group), given, group=group, steps=2, **keys)
    for constant in (0.1, 0.7, 1 / 3, 1e6, -0.3):
        for values in nearly_equal(constant, len(given)):
            given[:] = values
            assert not made._generate_and_score_completions(rows(made))["advantages"].any()
    start = copy.deepcopy(made.model.state_dict())
    made.train()
    assert same(start, made.model.state_dict())


def learn(learner: Any, prompts: list[Any], group: int, constant: float) -> None:
    samples = [sample for sample in prompts for _ in range(group)]
    for step in range(2):
        outputs = learner.policy.generate([Request(s, n % group, 97 * step + n, 1.0) for n, s in enumerate(samples)])
        learner.update(samples, outputs, [constant] * len(samples), step)


@pytest.mark.parametrize(("group", "constant"), [(3, 0.7), (8, 0.1), (7, 1 / 3), (2, 1e6), (7, -0.3)])
def test_ppo(group: int, constant: float) -> None:
    policy = toy.ToyLM()
    policy.setup()
    learner = PpoLearner(policy, PpoConfig.model_validate(STEP), 0)
    learner.critic.start_from(float(constant))
    before = copy.deepcopy(learner.state_dict())
    learn(learner, toy.toy_data(4), group, constant)
    assert all(same(before[part], learner.state_dict()[part]) for part in ("policy", "critic"))


@pytest.mark.parametrize(
    ("kind", "scale"), [("flux_kontext", "batch"), ("flux_kontext", "group"), ("instruct_pix2pix", "none")]
)
def test_denoising_steps(kind: str, scale: str) -> None:
    """Flow-GRPO's, DanceGRPO's and DDPO's."""
    policy = DiffusionForecaster(f"tiny:{kind}", size=8, steps=3, lora={"r": 2})
    policy.setup()
    learner = DiffusionLearner(policy, FlowGrpoConfig.model_validate(STEP | {"scale_rewards": scale}), 0)
    before = copy.deepcopy(learner.state_dict()["policy"])
    learn(learner, brightness(2, side=8), 7, 0.7)
    assert same(before, learner.state_dict()["policy"])
