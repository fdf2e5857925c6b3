"""``method: flow_grpo``: policy gradients over the denoising steps of a diffusion forecaster.

With flow matching this is Flow-GRPO (arXiv 2505.05470), with DDIM steps it is DDPO (arXiv 2305.13301) with advantages against the
other rollouts of a prompt; which one it is follows from the policy's pipeline. Every denoising step is a choice with a density, and
each is made more or less probable by what the finished picture was worth. The last step makes no choice and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rsw_rewards.config import FlowGrpoRunConfig
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.errors import ConfigError
from rsw_rewards.rl_settings import FlowGrpoConfig
from rsw_rewards.rollouts.diffusion_base import Conditions
from rsw_rewards.rollouts.diffusion_forecaster import DiffusionForecaster, read_trajectory
from rsw_rewards.rollouts.diffusion_steps import Step, divergence, log_ratio, step_weight
from rsw_rewards.training.advantages import group_advantages
from rsw_rewards.training.kept_weights import MovingAverage, StartingWeights
from rsw_rewards.training.learner import Learner
from rsw_rewards.training.ppo_math import policy_loss
from rsw_rewards.training.processes import ALONE, Processes, micro_batches
from rsw_rewards.training.training_run import TrainingRun, trainable


def train(config: FlowGrpoRunConfig, resume: bool = False, processes: Processes = ALONE) -> Path:
    """Run a whole training, see :class:`TrainingRun`; returns the folder of the final policy."""
    if config.flow_grpo.scale_rewards == "group" and config.rubric.combine == "normalize_each":
        raise ConfigError(
            "flow_grpo.scale_rewards is 'group', which would undo the rubric's 'normalize_each'; set it to 'batch' or 'none'"
        )
    with TrainingRun(config, resume, processes) as run:
        policy = trainable(run.policy)
        if not isinstance(policy, DiffusionForecaster):
            raise ConfigError(f"method 'flow_grpo' trains a 'diffusion_forecaster', not {run.policy.name!r}")
        learner = DiffusionLearner(policy, config.flow_grpo, config.seed, processes)
        run.learn_in_cycles(learner)
        if learner.average is not None:
            learner.average.apply()
        return run.finish(policy)


class Rows:
    """The rollouts that are learnt from: their latents, and what the denoiser was told of each.

    Args:
        policy: after ``setup``.
        samples, outputs: a row each.
        latents: (n, steps + 1, C, h, w) float32, on the CPU.
    """

    def __init__(self, policy: DiffusionForecaster, samples: Sequence[Sample], latents: Tensor) -> None:
        self.policy, self.latents = policy, latents
        unique = list({sample.id: sample for sample in samples}.values())
        place = {sample.id: number for number, sample in enumerate(unique)}
        self.groups = torch.tensor([place[sample.id] for sample in samples])
        # A text and a picture are encoded once per prompt, and kept off the card until their rows are due.
        self.told = {key: value.cpu() for key, value in policy.conditions(unique).items()}

    def __len__(self) -> int:
        return len(self.latents)

    def part(self, places: np.ndarray) -> tuple[Tensor, Conditions]:
        """Latents and conditions of some rows, on the policy's device."""
        device = self.policy.pipeline.device
        told = {key: value[self.groups[places]].to(device) for key, value in self.told.items()}
        return self.latents[places].to(device), told


@dataclass(frozen=True, slots=True)
class Old:
    """The steps that are learnt from, as they were when they were sampled."""

    log_prob: Tensor
    """(n, k) log-densities of what was sampled."""
    mean: Tensor | None
    """(n, k, C, h, w) means, where ratios need them."""


class DiffusionLearner(Learner):
    """Policy, the moving average of its weights where there is one, and optimizer."""

    learns = "policy"
    rates = "'flow_grpo.learning_rate'"
    policy: DiffusionForecaster
    config: FlowGrpoConfig

    def __init__(
        self, policy: DiffusionForecaster, config: FlowGrpoConfig, seed: int, processes: Processes = ALONE
    ) -> None:
        if policy.pipeline.sampler == "ddim" and (config.ratio == "guard" or config.kl == "flow_grpo"):
            key, value = ("ratio", config.ratio) if config.ratio == "guard" else ("kl", config.kl)
            raise ConfigError(
                f"flow_grpo.{key} is {value!r}, which needs the length of a step in the time of a flow; DDIM steps, which this policy takes,"
                " have none: leave it out, or train a flow-matching policy"
            )
        super().__init__(policy, config, seed, processes)
        policy.pipeline.to("cpu" if config.on_cpu else "cuda")
        self.model = policy.model
        self.weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        processes.same_start(self.weights)
        self.start = StartingWeights(self.model) if config.beta else None
        self.average = MovingAverage(self.weights, config.ema, config.ema_every) if config.ema is not None else None
        if self.average is not None:
            self.beside["average"] = self.average
        self.optimizer = torch.optim.AdamW(
            self.weights, config.learning_rate, betas=(0.9, config.adam_beta2), weight_decay=config.weight_decay
        )

    def update(
        self, samples: Sequence[Sample], outputs: Sequence[Output], given: Sequence[float | None], step: int
    ) -> dict[str, float | None]:
        """See :class:`Learner`. Rows without a picture have a reward and count for their group's mean, but hold no choice to make less
        probable."""
        known = [reward for reward in given if reward is not None and np.isfinite(reward)]
        shape = (self.policy.steps + 1, *self.policy.pipeline.shape(self.policy.size))
        found = [read_trajectory(output, shape) for output in outputs]
        usable = [
            place
            for place, reward in enumerate(given)
            if reward is not None and np.isfinite(reward) and found[place] is not None
        ]
        if not usable:
            return {"loss": None, "reward": float(np.mean(known)) if known else None, "rows": 0.0}
        names = sorted({sample.id for sample in samples})
        rewards = torch.tensor([np.nan if reward is None else reward for reward in given], dtype=torch.float64)
        groups = torch.tensor([names.index(sample.id) for sample in samples])
        limit = self.config.advantage_clip
        advantages = group_advantages(rewards, groups, self.config.scale_rewards).float().clamp(-limit, limit)[usable]
        latents = torch.stack([kept for place in usable if (kept := found[place]) is not None])
        rows = Rows(self.policy, [samples[place] for place in usable], latents)
        old = self._look(rows, step)
        numbers: dict[str, float | None] = {
            "reward": float(np.mean(known)),
            "rows": float(len(rows)),
            "advantage_abs": float(advantages.abs().mean()),
        }
        return numbers | self.learn(len(rows), step, lambda places: self.optimize(rows, places, old, advantages, step))

    def steps_learnt(self, step: int) -> list[int]:
        """The denoising steps that a generation is learnt from, in order."""
        config, noisy = self.config, self.policy.noisy_steps(step)
        count = max(1, int(len(noisy) * config.timestep_share))
        if config.timestep_order == "first":
            return list(noisy[:count])
        rng = np.random.default_rng([self.seed, step, 2])
        return sorted(map(int, rng.choice(noisy, count, replace=False)))

    def _micro(self, places: np.ndarray) -> list[np.ndarray]:
        """The rows of ``places`` that are this process's, in the portions that one pass takes."""
        share, counted = self.processes.own(places)
        return micro_batches(share[:counted], self.config.micro_batch)

    @torch.no_grad()
    def _look(self, rows: Rows, step: int) -> Old | None:
        """The steps that are learnt from under the weights that made the generation; None where a single update is at those very weights.

        Computed here and not taken from the sampler, whose card, precision or batch may be others: the range of ratios is so
        small that such differences would be cut. In the batches of the first pass, so that its ratios are 1 exactly.
        """
        if self.config.epochs * self.config.minibatches == 1:
            return None
        learnt, guard = self.steps_learnt(step), self.config.ratio == "guard"
        shape = (len(rows), len(learnt))
        old = Old(torch.zeros(shape), torch.zeros(*shape, *rows.latents.shape[2:]) if guard else None)
        for places in self.minibatches(len(rows), step, 0):
            for some in self._micro(places):
                latents, told = rows.part(some)
                for place, number in enumerate(learnt):
                    found = self.denoising_step(latents, told, number)
                    old.log_prob[some, place] = found.log_prob(latents[:, number + 1]).cpu()
                    if old.mean is not None:
                        old.mean[some, place] = found.mean.cpu()
        for filled in (old.log_prob, *((old.mean,) if old.mean is not None else ())):
            self.processes.add(filled)
        return old

    def denoising_step(self, latents: Tensor, told: Conditions, number: int) -> Step:
        """The distribution of step ``number``, with gradients, from (n, steps, ...) latents of rollouts."""
        policy = self.policy
        return policy.pipeline.step(latents[:, number], told, number, policy.steps, policy.noise)

    def _log_ratio(self, now: Step, value: Tensor, old: Old | None, some: np.ndarray, place: int) -> Tensor:
        """(n,) log-ratios of rows ``some`` at the ``place``-th step that is learnt from."""
        log_prob, mean = (now.log_prob(value).detach(), now.mean.detach())
        if old is not None:
            log_prob = old.log_prob[some, place].to(value.device)
            mean = mean if old.mean is None else old.mean[some, place].to(value.device)
        return log_ratio(now, log_prob, mean, value, self.config.ratio)

    def optimize(
        self, rows: Rows, places: np.ndarray, old: Old | None, advantages: Tensor, step: int
    ) -> dict[str, float]:
        """One optimizer step on the rows at ``places``."""
        config = self.config
        self.optimizer.zero_grad(set_to_none=True)
        totals = dict.fromkeys(
            ("loss", "policy_loss", "clip_fraction", "ratio_gap", *(("kl",) if config.beta else ())), 0.0
        )
        learnt = self.steps_learnt(step)
        for some in self._micro(places):
            latents, told = rows.part(some)
            gain = advantages[some].to(latents.device)
            share = len(some) / len(places) / len(learnt)
            weights = torch.full_like(gain, 1 / len(some))
            for place, number in enumerate(learnt):
                now = self.denoising_step(latents, told, number)
                moved = self._log_ratio(now, latents[:, number + 1], old, some, place)
                loss, clipped = policy_loss(
                    moved, torch.zeros_like(moved), gain, weights, config.epsilon, config.epsilon_high
                )
                loss = loss * step_weight(now, config.ratio)
                gap = moved.detach().exp().sub(1).abs().max()
                parts = {"policy_loss": loss, "clip_fraction": clipped}
                if self.start is not None:
                    with torch.no_grad(), self.start:
                        reference = self.denoising_step(latents, told, number)
                    parts["kl"] = divergence(now, reference, config.kl).mean()
                    loss = loss + config.beta * parts["kl"]
                (share * loss).backward()  # type: ignore[no-untyped-call]
                for key, value in {"loss": loss, **parts}.items():
                    totals[key] += share * float(value.detach())
                totals["ratio_gap"] = max(totals["ratio_gap"], float(gap))
        totals = self.take_step(totals, step, largest=("ratio_gap",))
        if self.average is not None:
            self.average.update()
        return totals
