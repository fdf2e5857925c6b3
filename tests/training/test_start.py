"""The reference of the KL term is the policy that a run started from: under every method, whatever is trained, also when resumed."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from rsw_rewards.config import PpoConfig, RunConfig
from rsw_rewards.core.plugins import load_file
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.data.scene_world import scene_world_samples
from rsw_rewards.rollouts.backbone_world_model import BackboneWorldModel
from rsw_rewards.rollouts.diffusion_forecaster import DiffusionForecaster
from rsw_rewards.rollouts.policies import build_policy
from rsw_rewards.rollouts.policy import Request
from rsw_rewards.rollouts.vision_language import VisionLanguageModel
from rsw_rewards.training.diffusion import DiffusionLearner, FlowGrpoConfig
from rsw_rewards.training.ppo import PpoLearner
from rsw_rewards.training.trainer_views import trainer_view
from rsw_rewards.training.trl_trainer import Trainer
from tests.training.run_files import same

brightness = load_file(Path(__file__).parent / "brightness.py").brightness
QUESTIONS = scene_world_samples(1, 0, split="supervised", tasks=("change_qa",))[:1]
"""Their prompts hold place and dates, which are added tokens to a world model."""
PICTURES = brightness(1, side=8)


def policy(kind: str, path: str | None = None, lora: dict[str, Any] | None = None) -> Any:
    if kind == "token_world_model":
        made = build_policy(kind)
    elif kind == "vision_language":
        made = VisionLanguageModel(path or "tiny:qwen2_5_vl", lora=lora, max_new_tokens=2)
    elif kind == "backbone_world_model":
        made = BackboneWorldModel(path or "tiny:qwen3_vl", lora=lora, max_new_tokens=2)
    else:
        made = DiffusionForecaster(path or f"tiny:{kind}", size=8, steps=3, lora=lora)
    made.setup()
    return made


def started(kind: str, start: str, folder: Path) -> Any:
    """A policy of which everything is trained, a new adapter is, or one that has been trained before."""
    lora = None if start == "whole" else {"r": 2}
    if start != "trained":
        return policy(kind, lora=lora)
    before = policy(kind, lora=lora)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in before.model.parameters():
            if weight.requires_grad:
                weight += 0.05 * torch.randn_like(weight)
    before.save(folder / "before")
    return policy(kind, str(folder / "before"))


class Rollouts:
    """Has a policy of the same kind make outputs, and rewards them by their place."""

    def __init__(self, sampler: Any, config: RunConfig) -> None:
        self.sampler, self.config, self.samples = sampler, config, {sample.id: sample for sample in QUESTIONS}

    def collect(self, ids: Sequence[str], step: int, weights: Any) -> tuple[list[Output], list[float | None]]:
        self.sampler.load_weights(weights, step)
        # Seeds by which the two rollouts differ: alike ones teach nothing.
        asked = [Request(self.samples[name], n, 97 * step + 23 * n, 1.0) for name in ids for n in range(2)]
        return self.sampler.generate(asked), [float(n % 2) for n in range(len(asked))]


STEPS = {"learning_rate": 1e-2, "beta": 0.1, "device": "cpu", "threads": 1, "group": 2}


def grpo(policy: Any, sampler: Any, folder: Path, save_every: int = 0, resume: bool = False) -> list[float]:
    """The logged KL of two steps."""
    config = RunConfig.model_validate(
        {
            "out": folder,
            "policy": "unused",
            "train": {"source": "unused"},
            "rubric": {"components": [{"use": "exact_match"}]},
            "grpo": {**STEPS, "steps": 2, "prompts": 1},
            "checkpoints": {"every": save_every},
        }
    )
    view = trainer_view(policy, QUESTIONS)
    rollouts: Any = Rollouts(sampler, config)
    trainer = Trainer(config, view, [QUESTIONS[0].id] * 2, rollouts)
    trainer.train(resume_from_checkpoint=str(folder / "checkpoints/checkpoint-1") if resume else None)
    return [row["kl"] for row in trainer.state.log_history if "kl" in row]


def generation(
    policy: Any, samples: Sequence[Sample], step: int
) -> tuple[list[Sample], list[Output], list[float], int]:
    rows = [sample for sample in samples for _ in range(2)]
    outputs = policy.generate([Request(one, n % 2, 97 * step + 23 * n, 1.0) for n, one in enumerate(rows)])
    return rows, outputs, [float(n % 2) for n in range(len(rows))], step


CASES = [
    ("token_world_model", "whole"),
    ("vision_language", "whole"),
    ("vision_language", "trained"),
    ("backbone_world_model", "fresh"),
    pytest.param("backbone_world_model", "trained", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("kind", "start"), CASES)
def test_grpo_measures_its_kl_to_the_start(kind: str, start: str, tmp_path: Path) -> None:
    trained, sampler = started(kind, start, tmp_path), started(kind, start, tmp_path)
    resumed = (kind, start) == ("backbone_world_model", "trained")
    first, second = grpo(trained, sampler, tmp_path / "run", save_every=resumed)
    assert first == 0.0 < second
    if resumed:  # TRL loads its checkpoint over the start, which stays the reference
        again = grpo(policy(kind, str(tmp_path / "before")), sampler, tmp_path / "run", resume=True)
        assert again == [first, second]


@pytest.mark.parametrize(("kind", "start"), CASES)
def test_ppo_measures_its_kl_to_the_start(kind: str, start: str, tmp_path: Path) -> None:
    def learner() -> PpoLearner:
        return PpoLearner(
            started(kind, start, tmp_path), PpoConfig.model_validate({**STEPS, "epochs": 1, "kl_estimator": "k3"}), 0
        )

    measured_from_the_start(learner, QUESTIONS)


@pytest.mark.parametrize(
    ("kind", "start"),
    [
        ("instruct_pix2pix", "whole"),
        ("instruct_pix2pix", "trained"),
        ("flux_kontext", "fresh"),
        ("flux_kontext", "trained"),
    ],
)
def test_denoising_steps_measure_their_kl_to_the_start(kind: str, start: str, tmp_path: Path) -> None:
    """DDPO's with one pipeline, Flow-GRPO's with the other."""

    def learner() -> DiffusionLearner:
        return DiffusionLearner(started(kind, start, tmp_path), FlowGrpoConfig.model_validate(STEPS), 0)

    measured_from_the_start(learner, PICTURES)


def measured_from_the_start(learner: Any, samples: Sequence[Sample]) -> None:
    whole = learner()
    assert whole.update(*generation(whole.policy, samples, 0))["kl"] == 0.0
    state = copy.deepcopy(whole.state_dict())
    resumed = learner()
    resumed.load_state_dict(state)
    rollouts = generation(whole.policy, samples, 1)
    moved = resumed.update(*rollouts)
    assert moved["kl"] > 0.0
    assert whole.update(*rollouts)["kl"] == moved["kl"]
    # The reference was laid aside again: both have learnt the same, from the weights that they had.
    assert same(whole.state_dict()["policy"], resumed.state_dict()["policy"])
