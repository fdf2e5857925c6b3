"""PPO learns from the rollouts of a prompt as one row, with the numbers of each row by itself."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rsw_rewards.config import PpoConfig
from rsw_rewards.core.records import Output, Sample, TokenTrace
from rsw_rewards.training import ppo
from rsw_rewards.training.critic import Rows, packs_of, score_rows
from rsw_rewards.training.ppo import PpoLearner
from tests.training.test_shared_prefix import EMBEDDED, GROUP, Made, questions, questions_and_forecasts, vlm, world

CASES = {
    "qwen2_5_vl": (vlm("qwen2_5_vl"), questions, {}),
    "qwen3_vl": (vlm("qwen3_vl"), questions, {"critic": "copy"}),
    "adapters": (vlm("qwen3_vl", lora={"r": 4}), questions, {"beta": 0.1}),
    "eager": (vlm("qwen2_5_vl", attn="eager"), questions, {}),
    "blind": (vlm("qwen2_5_vl", send_images=False), questions, {"beta": 0.1}),
    "token_world_model": (EMBEDDED, questions_and_forecasts, {"beta": 0.1, "entropy_weight": 0.1}),
    "token_world_model_copy": (EMBEDDED, questions_and_forecasts, {"critic": "copy"}),
    "backbone": (world("qwen2_5_vl"), questions_and_forecasts, {}),
    "backbone_adapters": (world("qwen3_vl", lora={"r": 4}), questions_and_forecasts, {"beta": 0.1}),
}
QUICK = ("qwen2_5_vl", "adapters", "token_world_model")


def learner(made: Made, **changes: Any) -> PpoLearner:
    section = {"prompts": len(made.asked), "group": GROUP, "threads": 1, "device": "cpu", "minibatches": 1, "epochs": 1}
    return PpoLearner(made.policy, PpoConfig.model_validate(section | changes), 0)


def uneven(policy: dict[str, Any], samples: Sequence[Sample], folder: Path) -> Made:
    """Rollouts of which each has another length, as those of a trained policy do."""
    made = Made(policy, samples, folder)
    for place, output in enumerate(made.outputs):
        if trace := output.tokens:
            kept = len(trace.completion_ids) - place % 3
            short = TokenTrace(trace.prompt_ids, trace.completion_ids[:kept], trace.logprobs[:kept])
            made.outputs[place] = replace(output, tokens=short if kept > 0 else trace)
    return made


def rows_of(made: Made, packs: bool) -> Rows:
    kept = [output for output in made.outputs if output.tokens is not None]
    samples = [made.samples[output.sample_id] for output in kept]
    traces = [output.tokens for output in kept if output.tokens]
    return Rows(traces, samples, made.policy.pad_id, packs_of(samples, GROUP) if packs else None)


def rewards(outputs: list[Output]) -> list[float | None]:
    return [None if output.lost else float(n % 3 == 0) for n, output in enumerate(outputs)]


@pytest.mark.parametrize("case", [pytest.param(one, marks=() if one in QUICK else pytest.mark.slow) for one in CASES])
def test_numbers_and_gradients_are_those_of_rows_by_themselves(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, samples, changes = CASES[case]
    made = uneven(policy, samples(), tmp_path)
    learners = [learner(made, shared_prefix=shared, **changes) for shared in (True, False)]
    assert [one.together for one in learners] == [GROUP, 1]
    shapes: list[int] = []
    look = made.policy.model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    inputs = learners[0].inputs
    with torch.no_grad():
        found, expected = (score_rows(made.policy.model, rows_of(made, packs), 0.9, inputs) for packs in (True, False))
    look.remove()
    assert shapes == [1, 1, 1, 3 * GROUP - 1]
    assert len(set((rows_of(made, True).mask).sum(1).tolist())) > 1, "padding is part of the test"
    for name in ("log_probs", "entropy", "hidden", "after"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=1e-5, rtol=1e-5, msg=name)

    gradients = []
    given, asked = rewards(made.outputs), [made.samples[output.sample_id] for output in made.outputs]
    for one in learners:
        monkeypatch.setattr(one.optimizer, "step", lambda: None)
        monkeypatch.setattr(one.critic, "start_from", lambda value: None)
        with torch.no_grad():
            torch.manual_seed(1)
            for weight in one.critic.head.parameters():
                weight.normal_(std=0.1)
        numbers = one.update(asked, made.outputs, given, 0)
        gradients.append(
            {
                name: weight.grad.clone()
                for module in (made.policy.model, one.critic)
                for name, weight in module.named_parameters()
                if weight.grad is not None
            }
            | {f"log {name}": torch.tensor(value) for name, value in numbers.items() if value is not None}
        )
        made.policy.model.zero_grad()
    assert gradients[0].keys() == gradients[1].keys()
    for name, alone in gradients[1].items():
        assert float((gradients[0][name] - alone).norm()) <= 1e-4 * float(alone.norm()) + 2e-6, name


@pytest.mark.parametrize("micro_batch", [None, 2, 4])
def test_ratios_of_unchanged_weights_are_exactly_one(
    micro_batch: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However rows are divided into minibatches and micro-batches, in whatever order."""
    made = uneven(vlm("qwen2_5_vl"), questions(), tmp_path)
    one = learner(made, micro_batch=micro_batch, minibatches=3, epochs=2)
    monkeypatch.setattr(one.optimizer, "step", lambda: None)
    ratios = []
    real = ppo.policy_loss

    def looked(new: torch.Tensor, old: torch.Tensor, *rest: Any) -> Any:
        ratios.append((torch.equal(new.detach(), old), bool((old != 0).any())))
        return real(new, old, *rest)

    monkeypatch.setattr(ppo, "policy_loss", looked)
    one.update([made.samples[out.sample_id] for out in made.outputs], made.outputs, rewards(made.outputs), 0)
    assert set(ratios) == {(True, True)} and len(ratios) == 2 * 3 * (2 if micro_batch == 2 else 1)


def test_a_policy_with_inputs_of_its_own_says_why_it_is_learnt_from_row_by_row(tmp_path: Path, caplog: Any) -> None:
    made = Made(EMBEDDED, questions_and_forecasts(), tmp_path)
    made.policy.learner_inputs = lambda samples, ids: {}
    with caplog.at_level(logging.WARNING, "rsw_rewards"):
        assert learner(made).together == 1
    assert "ppo.shared_prefix" in caplog.text and "learner_inputs" in caplog.text
