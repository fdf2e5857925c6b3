"""Training against references: formulas written a second time, in NumPy and float64, and TRL's own trainer for GRPO.

Rows are of different lengths and padded; what stands in the padding is noise, which no result may depend on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from rsw_rewards.core.records import Output
from rsw_rewards.core.rewards import Column, combined
from rsw_rewards.core.rubric import Rubric
from rsw_rewards.rollouts.diffusion_steps import (
    Step,
    cps_step,
    dance_step,
    ddim_step,
    divergence,
    flow_step,
    log_ratio,
    step_weight,
)
from rsw_rewards.rollouts.diffusion_windows import Window
from rsw_rewards.training.advantages import Scale, group_advantages
from rsw_rewards.training.kept_weights import MovingAverage
from rsw_rewards.training.ppo_math import (
    KlEstimator,
    gae,
    kl_estimate,
    policy_loss,
    sequence_weights,
    token_rewards,
    value_loss,
    whiten,
)
from rsw_rewards.training.trainer_views import TokenView
from rsw_rewards.verifiers.lengths import overlong_penalty
from tests.training import grpo_steps
from tests.training.toy_lm import ToyLM

Array = np.ndarray


def close(found: torch.Tensor, expected: Array | float) -> None:
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-9, atol=1e-10)


# PPO


@dataclass
class Tokens:
    """A batch of token sequences with noise in its padding."""

    lengths: list[int]
    now: Array
    old: Array
    values: Array
    before: Array
    rewards: Array
    cut: Array

    @property
    def mask(self) -> torch.Tensor:
        return torch.arange(self.now.shape[1])[None] < torch.tensor(self.lengths)[:, None]

    @property
    def weights(self) -> torch.Tensor:
        """Every sequence counts the same, and so does every token of it."""
        shares = self.mask.numpy() / np.asarray(self.lengths)[:, None] / len(self.lengths)
        torch.testing.assert_close(sequence_weights(self.mask).double(), t(shares), atol=1e-7, rtol=1e-6)
        return t(shares)

    def rows(self) -> list[tuple[int, int]]:
        return list(enumerate(self.lengths))


def tokens(seed: int, spread: float = 0.5) -> Tokens:
    rng = np.random.default_rng(seed)
    lengths = [*map(int, rng.integers(1, 9, 5)), 8]
    shape = (6, 8)
    now, old, values, before = (rng.normal(0, spread, shape) for _ in range(4))
    return Tokens(lengths, now, old, values, before, rng.normal(size=6), rng.random(6) < 0.5)


def t(values: Array) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bootstrap", [False, True])
def test_advantages_of_padded_and_of_truncated_sequences(seed: int, bootstrap: bool) -> None:
    batch, gamma, lam, beta = tokens(seed), 0.97, 0.9, 0.1
    after = np.where(batch.cut, batch.before[:, 0], 0.0)
    kl = batch.now - batch.old
    expected = np.zeros_like(batch.now)
    for row, length in batch.rows():
        value = [*batch.values[row, :length], after[row] if bootstrap else 0.0]
        reward = [-beta * kl[row, k] + (batch.rewards[row] if k == length - 1 else 0.0) for k in range(length)]
        delta = [reward[k] + gamma * value[k + 1] - value[k] for k in range(length)]
        for k in range(length):
            expected[row, k] = sum((gamma * lam) ** (j - k) * delta[j] for j in range(k, length))
    per_token = token_rewards(t(batch.rewards), batch.mask, t(kl), beta)
    found, returns = gae(per_token, t(batch.values), batch.mask, gamma, lam, t(after) if bootstrap else None)
    close(found, expected)
    close(returns, np.where(batch.mask.numpy(), expected + batch.values, 0.0))


@pytest.mark.parametrize("spread", [0.3, 30.0])
@pytest.mark.parametrize(("high", "dual"), [(None, None), (0.28, None), (None, 3.0), (0.28, 3.0)])
def test_the_policy_loss_at_tame_and_at_wild_ratios(spread: float, high: float | None, dual: float | None) -> None:
    batch = tokens(5, spread)
    advantages = batch.before / spread
    total = clipped = 0.0
    for row, length in batch.rows():
        for k in range(length):
            share, gain = 1 / (len(batch.lengths) * length), advantages[row, k]
            ratio = math.exp(min(20.0, max(-20.0, batch.now[row, k] - batch.old[row, k])))
            inside = min(max(ratio, 0.8), 1.2 if high is None else 1 + high)
            loss = max(-ratio * gain, -inside * gain)
            outside = -inside * gain > -ratio * gain
            if dual is not None and gain < 0 and loss > -dual * gain:
                loss, outside = -dual * gain, True
            total += share * loss
            clipped += share * outside
    found = policy_loss(t(batch.now), t(batch.old), t(advantages), batch.weights, 0.2, high, dual)
    close(found[0], total)
    close(found[1], clipped)


@pytest.mark.parametrize("spread", [0.3, 30.0])
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_estimates_of_the_kl_divergence(spread: float, estimator: KlEstimator) -> None:
    batch = tokens(6, spread)
    ratio = np.clip(batch.old - batch.now, -20, 20)
    expected = {
        "k1": batch.now - batch.old,
        "k2": (batch.now - batch.old) ** 2 / 2,
        "k3": np.minimum(np.exp(ratio) - 1 - ratio, 10.0),
    }[estimator]
    close(kl_estimate(t(batch.now), t(batch.old), estimator), expected)


@pytest.mark.parametrize("epsilon", [None, 0.2])
def test_the_value_loss(epsilon: float | None) -> None:
    batch = tokens(7)
    returns, total = batch.now, 0.0
    for row, length in batch.rows():
        for k in range(length):
            value, old, goal = batch.values[row, k], batch.before[row, k], returns[row, k]
            error = (value - goal) ** 2
            if epsilon is not None:
                error = max(error, (old + min(epsilon, max(-epsilon, value - old)) - goal) ** 2)
            total += error / 2 / len(batch.lengths) / length
    found, _ = value_loss(t(batch.values), t(batch.before), t(returns), batch.weights, epsilon)
    close(found, total)


# Denoising steps


def log_density(value: Array, mean: Array, std: float) -> Array:
    each = -((value - mean) ** 2) / (2 * std**2) - np.log(std) - 0.5 * np.log(2 * np.pi)
    return each.reshape(len(value), -1).mean(1)


def expected_step(kind: str, x: Array, predicted: Array, now: float, after: float, noise: float) -> tuple[Array, float]:
    """Mean and standard deviation, as each paper writes them."""
    if kind == "ddim":  # products of 1 - beta, now the noisier one
        std = noise * math.sqrt((1 - after) / (1 - now)) * math.sqrt(1 - now / after)
        clean = (x - math.sqrt(1 - now) * predicted) / math.sqrt(now)
        return math.sqrt(after) * clean + math.sqrt(1 - after - std**2) * predicted, std
    dt = now - after
    if kind == "sde":
        spread = noise * math.sqrt(now / (1 - now))
        drift = predicted + spread**2 / (2 * now) * (x + (1 - now) * predicted)
        return x - drift * dt, spread * math.sqrt(dt)
    clean, seen = x - now * predicted, x + (1 - now) * predicted
    if kind == "dance":
        score = -(x - (1 - now) * clean) / now**2
        return x - (predicted - noise**2 / 2 * score) * dt, noise * math.sqrt(dt)
    std = after * math.sin(noise * math.pi / 2)
    return (1 - after) * clean + math.sqrt(after**2 - std**2) * seen, std


@pytest.mark.parametrize(
    ("kind", "levels"),
    [("ddim", (0.02, 0.3, 0.7, 0.99)), *((kind, (0.96, 0.7, 0.35, 0.05)) for kind in ("sde", "dance", "cps"))],
)
def test_steps_densities_and_divergences(kind: str, levels: tuple[float, ...]) -> None:
    rng = np.random.default_rng(8)
    steps: dict[str, Callable[..., Step]]
    steps = {"ddim": ddim_step, "sde": flow_step, "dance": dance_step, "cps": cps_step}
    for now, after in pairwise(levels):
        for noise in (0.3, 0.8):
            x, predicted, other, following = rng.normal(size=(4, 3, 2, 5))
            mean, std = expected_step(kind, x, predicted, now, after, noise)
            moved, _ = expected_step(kind, x, other, now, after, noise)
            at = t(np.array(now)), t(np.array(after))
            step = steps[kind](t(x), t(predicted), *at, noise)
            close(step.mean, mean)
            close(step.std, std)
            close(step.log_prob(t(following)), log_density(following, mean, std))
            divergence = ((mean - moved) ** 2 / (2 * std**2)).reshape(3, -1).mean(1)
            close(step.kl(steps[kind](t(x), t(other), *at, noise)), divergence)


@pytest.mark.parametrize("kind", ["sde", "dance", "cps"])
def test_ratios_and_divergences_of_a_step_that_moved(kind: str) -> None:
    """With the noise that was drawn: Flow-CPS takes squared distances alone, GRPO-Guard's ratio is the mean of noise times movement."""
    rng = np.random.default_rng(10)
    x, before, after, noise = rng.normal(size=(4, 3, 2, 5))
    after = before + 0.1 * after
    step_of = {"sde": flow_step, "dance": dance_step, "cps": cps_step}[kind]
    levels = t(np.array(0.8)), t(np.array(0.55))
    was, now = step_of(t(x), t(before), *levels, 0.7), step_of(t(x), t(after), *levels, 0.7)
    std = expected_step(kind, x, before, 0.8, 0.55, 0.7)[1]
    (old, _), (new, _) = (expected_step(kind, x, one, 0.8, 0.55, 0.7) for one in (before, after))
    value = old + std * noise

    def mean(values: Array) -> Array:
        return values.reshape(3, -1).mean(1)

    expected = {
        "density": log_density(value, new, std) - log_density(value, old, std),
        "distance": mean((value - old) ** 2) - mean((value - new) ** 2),
        "guard": mean(noise * (new - old)),
    }
    for ratio in expected:
        close(log_ratio(now, was.log_prob(t(value)), was.mean, t(value), ratio), expected[ratio])  # type: ignore[arg-type]
    close(step_weight(now, "guard"), 4.0)
    close(step_weight(now, "density"), 1.0)
    exact = mean((new - old) ** 2) / (2 * std**2)
    close(divergence(now, was, "step"), exact)
    close(divergence(now, was, "flow_grpo"), exact * 0.25)
    close(divergence(now, was, "velocity"), mean((after - before) ** 2))


@pytest.mark.parametrize("scale", ["batch", "group", "none"])
def test_advantages_against_the_other_rollouts_of_a_prompt(scale: Scale) -> None:
    rng = np.random.default_rng(9)
    rewards, groups = rng.random(12), np.array([0] * 3 + [1] * 5 + [2] * 4)
    rewards[4] = np.nan
    expected = np.zeros(12)
    for group in range(3):
        here = (groups == group) & ~np.isnan(rewards)
        std = {"batch": np.nanstd(rewards), "group": rewards[here].std(), "none": 1 - 1e-4}[scale] + 1e-4
        expected[here] = (rewards[here] - rewards[here].mean()) / std
    close(group_advantages(t(rewards), t(groups), scale), expected)


def test_a_sliding_window_goes_through_all_steps_and_starts_again() -> None:
    """MixGRPO's schedule, counted on: so many training steps at a place, then on by the stride, back at the end."""
    for size, every, stride, roll_back in ((4, 25, 1, True), (2, 3, 2, True), (3, 2, 1, False)):
        window, start, here = Window(size=size, every=every, stride=stride, roll_back=roll_back), 0, 0
        for version in range(200):
            assert list(window.at(version, steps=11)) == list(range(start, start + size))
            here += 1
            if here == every:
                here = 0
                if start + stride + size <= 10:
                    start += stride
                elif roll_back:
                    start = 0


@pytest.mark.parametrize("every", [1, 8])
def test_the_moving_average_of_weights(every: int) -> None:
    rng = np.random.default_rng(11)
    weight = torch.nn.Parameter(t(rng.normal(size=4)))
    average, expected = MovingAverage([weight], 0.9, every), weight.detach().numpy().copy()
    for step in range(1, 120):
        weight.data += t(rng.normal(size=4))
        average.update()
        if (step + 1) % every == 0:
            decay = min(0.9, (1 + step) / (10 + step))
            expected = decay * expected + (1 - decay) * weight.detach().numpy()
        close(average.weights[0], expected)


# Advantages


SIZES, CONSTANTS = (2, 3, 7, 8), (0.1, 0.7, 1 / 3, 1e6, -0.3)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_advantages_are_those_of_trl(scale: Scale) -> None:
    rng = np.random.default_rng(3)
    rewards = rng.random((6, 5))
    std = {"group": rewards.std(1, ddof=1, keepdims=True), "batch": rewards.std(ddof=1), "none": 1 - 1e-4}[scale]
    expected = (rewards - rewards.mean(1, keepdims=True)) / (std + 1e-4)
    close(group_advantages(t(rewards.ravel()), torch.arange(30) // 5, scale, ddof=1), expected.ravel())


def normalised(values: Array, weights: Array, group: int) -> Array:
    """Rewards under ``normalize_each``: (n, components) values, NaN where a component does not apply; groups are runs of rows."""
    labels = [f"c{k}" for k in range(values.shape[1])]
    components = [{"use": label, "weight": float(weight)} for label, weight in zip(labels, weights, strict=True)]
    rubric = Rubric(components, combine="normalize_each")
    absent = np.zeros(len(values), bool)
    columns = {label: Column(values[:, k], absent, np.full(len(values), "")) for k, label in enumerate(labels)}
    return combined(rubric, columns, np.arange(len(values)) // group)[0]


def test_normalised_components_give_the_advantages_of_gdpo() -> None:
    """GDPO (arXiv 2601.05242), as NVlabs and TRL write it: standard deviations with n - 1, the sum normalised over the batch."""
    rng = np.random.default_rng(4)
    group, values, weights = 8, rng.random((40, 3)), np.array([1.0, 0.5, 2.0])
    each = values.reshape(5, group, 3)
    z = (each - each.mean(1, keepdims=True)) / (each.std(1, ddof=1, keepdims=True) + 1e-4)
    total = (z * weights).sum(2).ravel()
    expected = (total - total.mean()) / (total.std(ddof=1) + 1e-4)
    rewards = normalised(values, weights, group)
    found = group_advantages(t(rewards), torch.arange(40) // group, "batch", ddof=1)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-3)  # 1e-4 beside deviations with n or with n - 1
    exact = ((each - each.mean(1, keepdims=True)) / (each.std(1, keepdims=True) + 1e-4) * weights).sum(2).ravel()
    np.testing.assert_allclose(rewards, exact / np.sqrt((weights**2).sum()), rtol=1e-9)


def test_normalised_components_that_are_not_divided_again_are_the_advantages_of_dance_grpo() -> None:
    """DanceGRPO (arXiv 2505.07818): the weighted sum of each reward's own advantages, their standard deviations with n - 1."""
    rng = np.random.default_rng(12)
    group, values, weights = 8, rng.random((40, 2)), np.array([0.7, 1.4])
    each = values.reshape(5, group, 2)
    advantages_of_each = (each - each.mean(1, keepdims=True)) / (each.std(1, ddof=1, keepdims=True) + 1e-8)
    rewards = t(normalised(values, weights, group))
    found = group_advantages(rewards, torch.arange(40) // group, "none") * math.sqrt((weights**2).sum() * 7 / 8)
    np.testing.assert_allclose(found.numpy(), (advantages_of_each * weights).sum(2).ravel(), atol=2e-3)  # 1e-4 or 1e-8


def test_tasks_weigh_alike_whatever_their_components() -> None:
    """One task with three components, one with one: by the rewards nearly, and with the scale ``task`` exactly."""
    rng, values = np.random.default_rng(5), np.full((480, 4), np.nan)
    values[:240, :3], values[240:, 3] = rng.random((240, 3)), rng.random(240)
    values[:240, 2] = values[:240, 1]  # two of them always agree
    tasks = torch.arange(480) // 240
    for correlated in (True, False):
        if not correlated:
            values[:240, 2] = rng.random(240)
        rewards = t(normalised(values, np.ones(4), 8))
        for scale, tolerance in (("batch", 0.6 if correlated else 0.1), ("task", 1e-3)):
            found = group_advantages(rewards, torch.arange(480) // 8, cast(Scale, scale), tasks)
            three, one = (float(found[tasks == task].square().mean().sqrt()) for task in (0, 1))
            assert three / one == pytest.approx(1, abs=tolerance)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("constant", CONSTANTS)
def test_equal_rewards_have_advantages_of_exactly_zero(size: int, constant: float) -> None:
    """Alone, and beside a prompt with spread; also where weighted sums of equal parts differ by rounding."""
    rows = torch.arange(3 * size)
    for dtype in (torch.float32, torch.float64):
        rewards = torch.full((3 * size,), constant, dtype=dtype)
        rewards[0] = torch.nextafter(rewards[0], torch.tensor(torch.inf, dtype=dtype))
        for beside in (rewards[-1:], torch.rand(size, dtype=dtype)):
            rewards = torch.cat([rewards[: 2 * size], beside.expand(size)])
            for scale in ("group", "batch", "task", "none"):
                for ddof in (0, 1):
                    found = group_advantages(rewards, rows // size, cast(Scale, scale), rows * 0, ddof)
                    assert not found[: 2 * size].any()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("constant", CONSTANTS)
def test_equal_advantages_are_whitened_to_exactly_zero(size: int, constant: float) -> None:
    lengths = torch.from_numpy(np.random.default_rng(size).integers(1, 6, size))
    mask = torch.arange(5)[None] < lengths[:, None]
    values = torch.where(mask, torch.tensor(constant), torch.tensor(7.0))
    values[0, 0] = torch.nextafter(values[0, 0], torch.tensor(torch.inf))
    assert not whiten(values, sequence_weights(mask)).any()
    assert not whiten(values.double(), sequence_weights(mask), torch.arange(size) % 2).any()
    # A critic that expects what comes finds no advantage in it, however many tokens it takes to come.
    rewards = torch.full((size,), constant)
    critic = torch.full(mask.shape, float(rewards.double().mean()))
    assert not gae(token_rewards(rewards, mask), critic, mask, 1.0, 0.95)[0].any()


# Rewards


@pytest.mark.parametrize(("limit", "cache"), [(20480, 4096), (16, 16), (10, 0)])
def test_the_soft_overlong_punishment(limit: int, cache: int) -> None:
    lengths = np.arange(0, 2 * limit, max(1, limit // 50))
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (limit - cache - lengths) / cache
    expected = np.where(lengths <= limit - cache, 0.0, np.where(lengths <= limit, between, -1.0))
    found = [overlong_penalty(float(length), limit, cache) for length in lengths]
    np.testing.assert_allclose(found, expected, atol=1e-12)


# GRPO

LOSSES: dict[str, dict[str, Any]] = {
    "grpo": {"loss_type": "grpo"},
    "grpo, two-sided": {"loss_type": "grpo", "trl": {"delta": 1.3}},
    "gspo": {"loss_type": "grpo", "epsilon": 3e-4, "trl": {"importance_sampling_level": "sequence"}},
    "bnpo": {"loss_type": "bnpo"},
    "dr_grpo": {"loss_type": "dr_grpo", "trl": {"max_completion_length": 9}},
    "dapo": {"loss_type": "dapo", "trl": {"epsilon_high": 0.28}},
    "dapo, high entropies": {"loss_type": "dapo", "trl": {"top_entropy_quantile": 0.4, "off_policy_mask_threshold": 0.3}},
    "cispo": {"loss_type": "cispo"},
    "cispo, sequence": {"loss_type": "cispo", "trl": {"importance_sampling_level": "sequence"}},
    "sapo": {"loss_type": "sapo"},
    "luspo": {"loss_type": "luspo", "trl": {"importance_sampling_level": "sequence"}},
    "luspo, token": {"loss_type": "luspo"},
    "vespo": {"loss_type": "vespo"},
}  # fmt: skip


def rewarded(seed: int) -> tuple[list[Output], list[float | None]]:
    """Rollouts of four groups: whole, one without two rewards, one of a single reward, one with two rollouts lost."""
    outputs, rng = grpo_steps.rollouts(seed), np.random.default_rng(seed)
    given: list[float | None] = [float(value) for value in rng.integers(0, 5, len(outputs)) / 4]
    for place in (4, 6, 8, 9, 11, 12, 15):
        given[place] = None
    for place in (12, 15):
        outputs[place] = Output(outputs[place].sample_id, outputs[place].candidate, lost="its image is gone")
    return outputs, given


def advantages(given: Sequence[float | None], scale: str) -> Array:
    """TRL's advantages in float64; 0 for rows without a reward and for groups of one."""
    values = np.array([np.nan if value is None else value for value in given]).reshape(-1, grpo_steps.GROUP)
    centred = values - np.nanmean(values, 1, keepdims=True)
    counts = (~np.isnan(values)).sum(1, keepdims=True)
    spread = np.sqrt(np.nansum(centred**2, 1, keepdims=True) / np.where(counts > 1, counts - 1, np.nan))
    if scale == "normalize_then_sum":
        each = np.where(counts == 1, 0 * centred, centred / (spread + 1e-4))
        return np.nan_to_num((each - np.nanmean(each)) / (np.nanstd(each, ddof=1) + 1e-4)).ravel()
    divisor = {"group": spread + 1e-4, "batch": np.nanstd(values, ddof=1) + 1e-4, "none": 1.0}[scale]
    return np.nan_to_num(centred / divisor).ravel()


def plain_update(ours: Any, section: dict[str, Any], outputs: Sequence[Output], given: Sequence[float | None]) -> Any:
    """Loss and gradients that TRL's own trainer has of the rows with a reward, as one batch; its own forward pass among them."""
    from trl import GRPOConfig, GRPOTrainer
    from trl.trainer.utils import add_fused_lm_head

    policy, start = ToyLM(), ToyLM()
    policy.setup()
    start.setup()
    policy.model.load_state_dict(ours.model.state_dict())
    kept = [place for place, reward in enumerate(given) if reward is not None]
    traces = [outputs[place].tokens for place in kept]
    settings = {"epsilon_high": 5.0 if section["loss_type"] == "cispo" else None} | section.get("trl", {})
    arguments = GRPOConfig(
        output_dir=ours.args.output_dir, per_device_train_batch_size=len(kept), num_generations=len(kept), use_cpu=True, bf16=False,
        loss_type=section["loss_type"], epsilon=section.get("epsilon", 0.2), report_to="none", gradient_checkpointing=False, **settings,
    )  # fmt: skip
    trainer = GRPOTrainer(
        policy.model,
        args=arguments,
        reward_funcs=lambda completions, **unused: [0.0] * len(completions),
        train_dataset=TokenView(policy, []).dataset(["f000"]),
        processing_class=TokenView(policy, []).processing_class,
    )
    add_fused_lm_head(start.model)
    trainer.beta = section.get("beta", 0.0)  # TRL would load the reference by the model's name
    trainer.current_gradient_accumulation_steps = 1
    prompts = pad_sequence([torch.tensor(trace.prompt_ids) for trace in traces], True, 0, "left")
    made = pad_sequence([torch.tensor(trace.completion_ids) for trace in traces], True, 0)
    mask = pad_sequence([torch.ones(len(trace.completion_ids)) for trace in traces], True, 0).long()
    seen = pad_sequence([torch.ones(len(trace.prompt_ids)) for trace in traces], True, 0, "left").long()
    batch = {
        "prompt_ids": prompts, "prompt_mask": seen, "completion_ids": made, "completion_mask": mask,
        "advantages": t(advantages(given, "group"))[kept].float(), "num_items_in_batch": mask.sum(),
        "old_per_token_logps": pad_sequence([torch.tensor(trace.logprobs) for trace in traces], True, 0),
    }  # fmt: skip
    whole = torch.cat([prompts, made], 1), torch.cat([seen, mask], 1), made.shape[1]
    with torch.no_grad():
        batch["ref_per_token_logps"], *_ = trainer._get_per_token_logps_and_entropies(start.model, *whole)
    policy.model.train()
    loss = trainer.compute_loss(policy.model, batch)
    loss.backward()
    return float(loss.detach()), {name: weight.grad for name, weight in policy.model.named_parameters()}


def difference(found: Any, expected: Any) -> float:
    """The largest difference of losses and gradients, relative to the largest of them."""
    largest = max(abs(expected[0]), *(float(grad.abs().max()) for grad in expected[1].values()))
    grads = [float((found[1][name] - grad).abs().max()) for name, grad in expected[1].items()]
    return max(abs(found[0] - expected[0]), *grads) / largest


@pytest.mark.parametrize("name", LOSSES)
def test_rows_without_a_reward_count_nowhere_and_the_others_as_in_trl(name: str, tmp_path: Path) -> None:
    """An update against TRL's trainer on the batch without them, in whole and in micro-batches some of which hold none with a reward."""
    section = {"beta": 0.1} | LOSSES[name]
    outputs, given = rewarded(1)
    ours = grpo_steps.trainer(tmp_path, outputs, given, stale=1, **section)
    expected = plain_update(ours, section, outputs, given)
    assert difference(grpo_steps.update(ours), expected) < 1e-5
    if "entropies" not in name and name != "bnpo":  # a threshold, and a mean, of each micro-batch
        parts = grpo_steps.trainer(tmp_path, outputs, given, stale=1, micro_batch=2, **section)
        assert difference(grpo_steps.update(parts), expected) < 1e-5


def test_the_entropy_bonus_is_trls(tmp_path: Path) -> None:
    outputs, given = rewarded(2)
    section = {"loss_type": "dapo", "beta": 0.1, "trl": {"entropy_coef": 0.5}}
    ours = grpo_steps.trainer(tmp_path, outputs, given, stale=1, **section)
    assert difference(grpo_steps.update(ours), plain_update(ours, section, outputs, given)) < 1e-5


def test_means_of_micro_batches_are_over_those_with_a_reward(tmp_path: Path) -> None:
    """In micro-batches of one row, the mean over micro-batches of ``bnpo`` and of the entropy bonus is the mean over rows of ``grpo``."""
    outputs, given = rewarded(3)
    bonus = {"beta": 0.1, "micro_batch": 1, "trl": {"entropy_coef": 0.5}}
    one, other = (
        grpo_steps.trainer(tmp_path, outputs, given, stale=1, loss_type=loss, **bonus) for loss in ("bnpo", "grpo")
    )
    assert difference(grpo_steps.update(one), grpo_steps.update(other)) < 1e-5
    kept = [place for place, reward in enumerate(given) if reward is not None]
    entropies = []
    for trace in (outputs[place].tokens for place in kept):
        assert trace is not None
        ids = torch.tensor([trace.prompt_ids + trace.completion_ids])
        log_p = torch.log_softmax(one.model.forward(ids).logits[0, len(trace.prompt_ids) - 1 : -1], -1)
        entropies.append(-(log_p.exp() * log_p).sum(-1).mean())
    (expected,) = torch.autograd.grad(torch.stack(entropies).mean(), one.model.lm_head.weight)
    none = grpo_steps.trainer(tmp_path, outputs, given, stale=1, loss_type="grpo", beta=0.1, micro_batch=1)
    found = grpo_steps.update(none)[1]["lm_head.weight"] - other.model.lm_head.weight.grad
    torch.testing.assert_close(found / 0.5, expected, atol=1e-6, rtol=1e-4)


def test_with_the_scale_task_all_tasks_have_advantages_of_one_size(tmp_path: Path) -> None:
    """Forecasts and questions take turns; the rewards of questions are a hundred times smaller."""
    outputs, rng = grpo_steps.rollouts(6), np.random.default_rng(6)
    values = rng.random((4, grpo_steps.GROUP)) * [[1.0], [0.01], [1.0], [0.01]]
    ours = grpo_steps.trainer(tmp_path, outputs, values.ravel().tolist(), scale_rewards="task")
    found = ours._generate_and_score_completions(grpo_steps.rows(ours))["advantages"].reshape(4, -1).numpy()
    for task in (0, 1):
        mine = values[task::2]
        expected = (mine - mine.mean(1, keepdims=True)) / (mine.std(ddof=1) + 1e-4)
        np.testing.assert_allclose(found[task::2], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", ["group", "batch", "none", "normalize_then_sum"])
def test_advantages_are_trls(scale: str, tmp_path: Path) -> None:
    outputs, given = rewarded(4)
    keys = (
        {"trl": {"multi_objective_aggregation": scale}} if scale == "normalize_then_sum" else {"scale_rewards": scale}
    )
    ours = grpo_steps.trainer(tmp_path, outputs, given, **keys)
    found = ours._generate_and_score_completions(grpo_steps.rows(ours))["advantages"]
    np.testing.assert_allclose(found.numpy(), advantages(given, scale), atol=1e-5)
