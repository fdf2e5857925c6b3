"""GRPO's losses and their gradients against verl's, for the rows with a reward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from rsw_rewards.core.records import Output
from tests.foreign import package
from tests.training.grpo_steps import GROUP, rollouts, trainer, update

CASES: dict[str, tuple[dict[str, Any], str, str, dict[str, float]]] = {
    "grpo": ({"loss_type": "grpo"}, "vanilla", "seq-mean-token-mean", {}),
    "dapo": ({"loss_type": "dapo", "trl": {"epsilon_high": 0.28}}, "vanilla", "token-mean", {"clip_ratio_high": 0.28}),
    "bnpo": ({"loss_type": "bnpo"}, "vanilla", "token-mean", {}),
    "dr_grpo": (
        {"loss_type": "dr_grpo", "trl": {"max_completion_length": 9}},
        "vanilla",
        "seq-mean-token-sum-norm",
        {},
    ),
    "gspo": (
        {"loss_type": "grpo", "epsilon": 3e-4, "trl": {"importance_sampling_level": "sequence"}},
        "gspo",
        "seq-mean-token-mean",
        {"clip_ratio_low": 3e-4, "clip_ratio_high": 3e-4},
    ),
    # verl bounds ratios to 1 - low and 1 + high: no lower bound, and the cap of 5.
    "cispo": ({"loss_type": "cispo"}, "cispo", "token-mean", {"clip_ratio_low": 10.0, "clip_ratio_high": 4.0}),
    "sapo": ({"loss_type": "sapo"}, "sapo", "seq-mean-token-mean", {}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_an_update_is_verls(name: str, tmp_path: Path) -> None:
    package("verl")
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage, get_policy_loss_fn
    from verl.workers.config import ActorConfig

    section, loss_name, mode, keys = CASES[name]
    outputs, rng = rollouts(1), np.random.default_rng(1)
    given: list[float | None] = [float(value) for value in rng.integers(0, 5, len(outputs)) / 4]
    given[2], outputs[2] = None, Output(outputs[2].sample_id, 2, lost="its image is gone")
    ours = trainer(tmp_path, outputs, given, stale=1, **section)
    loss, gradients = update(ours)

    kept = [place for place, reward in enumerate(given) if reward is not None]
    traces = [trace for place in kept if (trace := outputs[place].tokens) is not None]
    log_p = []
    for trace in traces:
        logits = ours.model(torch.tensor([trace.prompt_ids + trace.completion_ids])).logits[0]
        chosen = torch.log_softmax(logits[len(trace.prompt_ids) - 1 : -1], -1)
        log_p.append(chosen.gather(1, torch.tensor(trace.completion_ids)[:, None])[:, 0])
    now = pad_sequence(log_p, True)
    old = pad_sequence([torch.tensor(trace.logprobs) for trace in traces], True)
    mask = pad_sequence([torch.ones(len(trace.completion_ids)) for trace in traces], True)
    rewards = torch.zeros_like(mask)
    rewards[:, 0] = torch.tensor([given[place] for place in kept], dtype=torch.float32)
    groups = np.array([place // GROUP for place in kept])
    # verl adds 1e-6 to a group's standard deviation where nothing is said, TRL 1e-4.
    advantages, _ = compute_grpo_outcome_advantage(rewards, mask, groups, epsilon=1e-4)
    config = ActorConfig(strategy="fsdp", rollout_n=GROUP, ppo_micro_batch_size_per_gpu=1, clip_ratio_c=1e9, **keys)
    if mode == "seq-mean-token-sum-norm":
        config.global_batch_info["loss_scale_factor"] = section["trl"]["max_completion_length"]
    expected, _ = get_policy_loss_fn(loss_name)(old, now, advantages, mask, mode, config)
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5, abs=1e-6)
    weights = dict(ours.model.named_parameters())
    for (key, found), wanted in zip(
        gradients.items(), torch.autograd.grad(expected, list(weights.values())), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5, msg=f"the gradient of {key}")
