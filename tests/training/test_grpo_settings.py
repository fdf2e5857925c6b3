"""The keys of ``grpo`` and ``grpo.trl``: each has an effect or is refused."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rsw_rewards.config import GrpoConfig, RunConfig
from rsw_rewards.core.records import Output
from rsw_rewards.errors import ConfigError
from rsw_rewards.rollouts.model_class import become
from rsw_rewards.training.grpo import train_grpo
from rsw_rewards.training.trl_arguments import REFUSED, SET, TAKEN, trl_arguments
from rsw_rewards.training.trl_trainer import score_through_forward
from tests.training.grpo_steps import GROUP, PROMPTS, rollouts, trainer, update
from tests.training.toy_lm import ToyLM

ADAPTIVE = {"use_adaptive_entropy": True, "entropy_target": 9.0, "entropy_coef": 0.1}

EFFECTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "epsilon_high": (0.01, {}),
    "delta": (1.01, {}),
    "importance_sampling_level": ("sequence", {}),
    "max_completion_length": (30, {"loss_type": "dr_grpo", "trl": {"max_completion_length": 20}}),
    "sapo_temperature_pos": (3.0, {"loss_type": "sapo"}),
    "sapo_temperature_neg": (3.0, {"loss_type": "sapo"}),
    "vespo_k_pos": (0.5, {"loss_type": "vespo"}),
    "vespo_k_neg": (0.5, {"loss_type": "vespo"}),
    "vespo_lambda_pos": (0.5, {"loss_type": "vespo"}),
    "vespo_lambda_neg": (0.5, {"loss_type": "vespo"}),
    "multi_objective_aggregation": ("normalize_then_sum", {}),
    "mask_truncated_completions": (True, {}),
    "off_policy_mask_threshold": (0.01, {}),
    "use_bias_correction_kl": (False, {"beta": 1.0}),
    "top_entropy_quantile": (0.3, {}),
    "entropy_coef": (1.0, {}),
    "use_adaptive_entropy": (True, {"trl": {"entropy_coef": 0.1}}),
    "entropy_coef_min": (0.5, {"trl": ADAPTIVE | {"entropy_target": 2.9, "entropy_coef_delta": 0.1}}),
    "entropy_coef_max": (0.1, {"trl": ADAPTIVE | {"entropy_coef_delta": 0.5}}),
    "entropy_coef_delta": (0.5, {"trl": ADAPTIVE}),
    "entropy_target": (9.0, {"trl": {"use_adaptive_entropy": True, "entropy_coef": 0.1}}),
    "bf16": (True, {}),
}  # fmt: skip
"""A value of every key that changes gradients or the entropy's coefficient, and what the key needs."""

STEPS: dict[str, tuple[Any, dict[str, Any]]] = {
    "warmup_steps": (3, {"schedule": "constant_with_warmup"}),
    "lr_scheduler_kwargs": ({"power": 9.0}, {"schedule": "polynomial"}),
    "optim": ("sgd", {}),
    "adam_beta1": (0.1, {}),
    "adam_epsilon": (0.1, {}),
}
"""The same of keys that change steps."""


def generation(group: int = GROUP) -> tuple[list[Output], list[float | None]]:
    outputs = rollouts(0, group)
    return outputs, [float(value) for value in np.random.default_rng(0).integers(0, 5, len(outputs)) / 4]


def gradients(folder: Path, section: dict[str, Any]) -> torch.Tensor:
    """What one update comes to, or two where it changes the next one, and the coefficient of the entropy after them."""
    made = trainer(folder, *generation(), stale=1, **section)
    for _ in range(1 + made.args.use_adaptive_entropy):
        _, grads = update(made)
    return torch.cat([*(grad.flatten() for grad in grads.values()), torch.tensor([made.entropy_coef])])


def weights(folder: Path, section: dict[str, Any]) -> torch.Tensor:
    """What two steps come to."""
    made = trainer(folder, *generation(), steps=2, **section)
    made.train()
    return torch.cat([weight.detach().flatten() for weight in made.model.parameters()])


@pytest.fixture(scope="module")
def plain() -> dict[str, torch.Tensor]:
    """What comes of sections without the argument, as far as it was needed."""
    return {}


def test_every_argument_of_trl_is_in_one_list() -> None:
    from trl import GRPOConfig

    listed = [*TAKEN, *SET, *(key for keys in REFUSED.values() for key in keys)]
    assert len(listed) == len(set(listed)), (
        "an argument of TRL is in two lists of rsw_rewards/training/trl_arguments.py"
    )
    known = {item.name for item in fields(GRPOConfig)}
    assert not (new := known - set(listed)), (
        f"TRL's GRPOConfig has {sorted(new)}, which no list of rsw_rewards/training/trl_arguments.py has: look up what they do, and take,"
        " set or refuse them"
    )
    assert not (gone := set(listed) - known), (
        f"TRL's GRPOConfig has no {sorted(gone)} any more: take them out of the lists"
    )
    assert {"gradient_checkpointing", *EFFECTS, *STEPS} == set(TAKEN), (
        "every argument that is taken has an effect that a test sees"
    )


@pytest.mark.parametrize("key", [*EFFECTS, *STEPS])
def test_an_argument_that_is_taken_has_an_effect(key: str, plain: dict[str, torch.Tensor], tmp_path: Path) -> None:
    value, section = (EFFECTS | STEPS)[key]
    given = section.get("trl", {})
    seen = gradients if key in EFFECTS else weights
    if (known := f"{seen.__name__} {section}") not in plain:
        plain[known] = seen(tmp_path, section)
    assert (seen(tmp_path, section | {"trl": given | {key: value}}) - plain[known]).abs().max() > 1e-5


def test_gradient_checkpointing_is_turned_on(tmp_path: Path) -> None:
    made = trainer(tmp_path, rollouts(), [0.0, 1.0] * 8, trl={"gradient_checkpointing": True})
    made.train()
    assert made.model.is_gradient_checkpointing


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"trl": {"sync_ref_model": True}}, "the KL term is held against the starting weights"),
        ({"trl": {"top_p": 0.9}}, "outputs are sampled by the policy"),
        ({"trl": {"fp16": True}}, "under another distribution"),
        ({"trl": {"beta": 0.1}}, "follows from other keys"),
        ({"trl": {"entropy_target": 1.0}}, "'entropy_target' has no effect without 'use_adaptive_entropy: true'"),
        ({"trl": {"epsilon_high": 0.3}, "loss_type": "sapo"}, "'epsilon_high' has no effect without 'loss_type' grpo or"),
        ({"trl": {"warmup_steps": 5}}, "no effect without a 'schedule' other than constant"),
        ({"trl": {"top_entropy_quantile": 20}}, "less than or equal to 1"),
        ({"trl": {"entropy_coeff": 1}}, "did you mean 'entropy_coef'"),
        ({"epsilon": 0.3, "loss_type": "cispo"}, "'epsilon' has no effect under 'loss_type' cispo; it caps ratios by"),
    ],
)  # fmt: skip
def test_a_key_without_effect_is_refused(section: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        trl_arguments(GrpoConfig.model_validate(section))


@pytest.mark.parametrize(
    ("combine", "section", "words"),
    [
        ("normalize_each", {"scale_rewards": "group"}, "scale_rewards is 'group', which would undo"),
        (
            "normalize_each",
            {"trl": {"multi_objective_aggregation": "normalize_then_sum"}},
            "multi_objective_aggregation is 'normalize_then_sum', which would undo",
        ),
        (
            "weighted_sum",
            {"scale_rewards": "batch", "trl": {"multi_objective_aggregation": "normalize_then_sum"}},
            "has no effect under 'normalize_then_sum'",
        ),
    ],
)
def test_what_undoes_the_rubric_is_refused(combine: str, section: dict[str, Any], words: str, tmp_path: Path) -> None:
    rubric = {"combine": combine, "components": [{"use": "exact_match"}]}
    run = {"out": tmp_path, "policy": "x", "train": {"source": "x"}, "rubric": rubric, "grpo": section}
    with pytest.raises(ConfigError, match=words):
        train_grpo(RunConfig.model_validate(run))


def test_cispo_caps_ratios_at_five_unless_told_otherwise() -> None:
    assert trl_arguments(GrpoConfig(loss_type="cispo")) == {"epsilon_high": 5.0}
    assert trl_arguments(GrpoConfig(loss_type="cispo", trl={"epsilon_high": 2})) == {"epsilon_high": 2.0}


@pytest.mark.parametrize("keys", [{"entropy_coef": 1.0}, ADAPTIVE])
def test_an_entropy_bonus_alone_raises_the_entropy(keys: dict[str, Any], tmp_path: Path) -> None:
    made = trainer(tmp_path, rollouts(), [0.5] * (PROMPTS * GROUP), steps=4, trl=keys)
    made.train()
    entropies = [row["entropy"] for row in made.state.log_history if "entropy" in row]
    assert entropies[-1] > entropies[0] + 0.01


def test_the_entropys_gradient_is_finite_where_tokens_are_impossible() -> None:
    policy = ToyLM()
    policy.setup()
    original = type(policy.model).forward

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = original(self, *args, **kwargs)
        out.logits = out.logits.index_fill(-1, torch.arange(10), -torch.inf)
        return out

    become(policy.model, forward=forward)
    ids = torch.tensor([[3, 4, 12, 15]])
    logits = original(policy.model, ids).logits[0, 1:3, 10:]
    p = torch.softmax(logits, -1)
    expected = torch.autograd.grad(-(p * p.log()).sum(), policy.model.lm_head.weight)[0]
    score_through_forward(policy.model, 1.0, learn_entropy=True)
    labels = ids.masked_fill(torch.arange(4) < 2, -100)
    found: Any = policy.model(input_ids=ids, labels=labels, fused_lm_head=True)
    (gradient,) = torch.autograd.grad(found.entropy.sum(), policy.model.lm_head.weight)
    torch.testing.assert_close(gradient, expected)
