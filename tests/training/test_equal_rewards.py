"""A generation whose rewards are all the same changes no weight: nothing of what rounding leaves is learnt."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from rsw_rewards.config import PpoConfig
from rsw_rewards.core.plugins import load_file
from rsw_rewards.rollouts.diffusion_forecaster import DiffusionForecaster
from rsw_rewards.rollouts.policy import Request
from rsw_rewards.training.diffusion import DiffusionLearner, FlowGrpoConfig
from rsw_rewards.training.ppo import PpoLearner
from tests.training.run_files import same

HERE = Path(__file__).parent
toy = load_file(HERE / "toy_lm.py")
brightness = load_file(HERE / "brightness.py").brightness
STEP = {"learning_rate": 1e-2, "device": "cpu", "threads": 1}


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
