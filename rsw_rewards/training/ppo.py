"""``method: ppo``: proximal policy optimisation with rollouts from the pool, a critic, and rewards from the rubric."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rsw_rewards.config import PpoRunConfig
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.rl_settings import PpoConfig
from rsw_rewards.training.critic import Critic, Rows, packs_of, score_rows
from rsw_rewards.training.kept_weights import StartingWeights
from rsw_rewards.training.learner import Learner
from rsw_rewards.training.ppo_math import (
    gae,
    kl_estimate,
    policy_loss,
    sequence_weights,
    token_rewards,
    value_loss,
    whiten,
)
from rsw_rewards.training.processes import ALONE, Processes, micro_batches
from rsw_rewards.training.sharding import shard
from rsw_rewards.training.shared_prefix import why_not
from rsw_rewards.training.trainer_views import Trainable, check_tokens
from rsw_rewards.training.training_run import TrainingRun, trainable_by_tokens

_log = logging.getLogger("rsw_rewards")


def train_ppo(config: PpoRunConfig, resume: bool = False, processes: Processes = ALONE) -> Path:
    """Run a whole training, see :class:`TrainingRun`; returns the folder of the final policy."""
    with TrainingRun(config, resume, processes) as run:
        learner = PpoLearner(trainable_by_tokens(run.policy), config.ppo, config.seed, processes)
        run.learn_in_cycles(learner)
        return run.finish(learner.policy)


class PpoLearner(Learner):
    """Policy, critic and their optimizer. The seed is also that of the critic's first weights.

    Where the policy's model needs more than tokens, it has a method ``learner_inputs(samples, input_ids)`` that gives the further arguments
    of ``forward`` for those rows.
    """

    learns = "policy or critic"
    rates = "'ppo.learning_rate' or 'ppo.critic_learning_rate'"
    policy: Trainable
    config: PpoConfig

    def __init__(self, policy: Trainable, config: PpoConfig, seed: int, processes: Processes = ALONE) -> None:
        super().__init__(policy, config, seed, processes)
        device = "cpu" if config.on_cpu else "cuda"
        # Evaluation mode: dropout would make the learner's distribution another one than the sampler's.
        self.model = torch.nn.Module.to(policy.model, device).eval()  # type: ignore[arg-type]
        self.inputs = getattr(policy, "learner_inputs", None)
        self.critic = self.beside["critic"] = Critic(policy.model, config.critic == "copy", seed)
        self.together = self._rows_together() if config.shared_prefix else 1
        for network in (self.model, self.critic):
            shard(network, processes)
        self.start = StartingWeights(self.model) if config.beta else None
        self.optimizer = torch.optim.AdamW(
            [
                {"params": _trained(self.model), "lr": config.learning_rate},
                {"params": _trained(self.critic), "lr": config.critic_learning_rate},
            ],
            betas=(0.9, config.adam_beta2),
            weight_decay=config.weight_decay,
        )

    def update(
        self, samples: Sequence[Sample], outputs: Sequence[Output], given: Sequence[float | None], step: int
    ) -> dict[str, float | None]:
        """See :class:`Learner`. Rows that were cut off (``finish_reason`` is ``length``) are treated as ``truncated`` of the configuration
        says."""
        check_tokens(outputs)
        usable = [
            place
            for place, (output, reward) in enumerate(zip(outputs, given, strict=True))
            if reward is not None and output.tokens and output.tokens.completion_ids and output.tokens.prompt_ids
            if not (self.config.truncated == "leave_out" and output.finish_reason == "length")
        ]
        if not usable:
            return {"loss": None, "reward": None, "rows": 0.0}
        traces = [trace for place in usable if (trace := outputs[place].tokens)]
        learnt = [samples[place] for place in usable]
        packs = packs_of(learnt, self.together) if self.together > 1 else None
        rows = Rows(traces, learnt, self.policy.pad_id, packs)
        rewards = torch.tensor([given[place] for place in usable], dtype=torch.float32)
        if not self.optimizer.state:  # nothing has been learnt yet
            self.critic.start_from(float(rewards.double().mean()))  # exact where all are equal
        cut = torch.tensor([outputs[place].finish_reason == "length" for place in usable])
        old, numbers = self._look(rows, rewards, cut)
        numbers["reward"] = float(rewards.mean())
        numbers["rows"] = float(len(rows))
        return numbers | self.learn(len(rows.units), step, lambda units: self._optimize(rows, units, old, step))

    @torch.no_grad()
    def _look(self, rows: Rows, rewards: Tensor, cut: Tensor) -> tuple[dict[str, Tensor], dict[str, float | None]]:
        """Everything about a generation that stays the same while it is learnt from, and numbers on it."""
        config, mask = self.config, rows.mask
        log_p, values, reference, entropy = (torch.zeros(mask.shape) for _ in range(4))
        after = torch.zeros(len(rows))
        for places, counted in self._micro(rows, np.arange(len(rows.units))):
            part = rows.part(places)
            scored = score_rows(self.model, part, config.temperature, self.inputs)
            value, after_end = self.critic(part, scored, config.temperature, self.inputs)
            after[places] = after_end.cpu() * counted
            width = value.shape[1]
            for kept, new in ((log_p, scored.log_probs), (values, value), (entropy, scored.entropy)):
                kept[places, :width] = new.cpu() * counted[:, None]
            if self.start is not None:
                with self.start:
                    other = score_rows(self.model, part, config.temperature, self.inputs).log_probs
                reference[places, :width] = other.cpu() * counted[:, None]
        for filled in (log_p, values, after, entropy, *((reference,) if self.start is not None else ())):
            self.processes.add(filled)
        weights = sequence_weights(mask)
        kl = kl_estimate(log_p, reference, config.kl_estimator) * mask if self.start is not None else None
        beyond = after * cut if config.truncated == "bootstrap" else None
        per_token = token_rewards(rewards, mask, kl, config.beta)
        advantages, returns = gae(per_token, values, mask, config.gamma, config.lam, beyond)
        spread = (weights * (returns - (weights * returns).sum()).square()).sum()
        numbers: dict[str, float | None] = {
            "entropy": float((weights * entropy).sum()),
            "value": float((weights * values).sum()),
            "advantage_std": float((weights * advantages.square()).sum().sqrt()),
            "explained_variance": float(1 - (weights * advantages.square()).sum() / spread) if spread > 0 else None,
            "truncated": float(cut.float().mean()),
            "sampler_gap": float((log_p - rows.aligned([t.logprobs for t in rows.traces])).abs().max()),
        }
        if kl is not None:
            numbers["kl"] = float((weights * kl).sum())
        if config.whiten != "none":
            tasks = sorted({str(sample.task) for sample in rows.samples})
            groups = torch.tensor([tasks.index(str(sample.task)) for sample in rows.samples])
            advantages = whiten(advantages, weights, groups if config.whiten == "task" else None)
        return {"log_p": log_p, "values": values, "advantages": advantages, "returns": returns}, numbers

    def _optimize(self, rows: Rows, units: np.ndarray, old: Mapping[str, Tensor], step: int) -> dict[str, float]:
        """One optimizer step on some of ``rows.units``."""
        config = self.config
        places_of = rows.units
        places = np.concatenate([places_of[number] for number in units])
        all_weights = torch.zeros(old["log_p"].shape)
        all_weights[places] = sequence_weights(rows.mask[places])
        self.optimizer.zero_grad(set_to_none=True)
        totals: dict[str, float] = {}
        for some, counted in self._micro(rows, units):
            part = rows.part(some)
            width, device = part.mask.shape[1], self.model.device
            held = {key: tensor[some, :width].to(device) for key, tensor in old.items()}
            weights = (all_weights[some, :width] * counted[:, None]).to(device)
            scored = score_rows(self.model, part, config.temperature, self.inputs)
            values, _ = self.critic(part, scored, config.temperature, self.inputs)
            actor, clipped = policy_loss(
                scored.log_probs,
                held["log_p"],
                held["advantages"],
                weights,
                config.epsilon,
                config.epsilon_high,
                config.dual_clip,
            )
            critic, value_clipped = value_loss(values, held["values"], held["returns"], weights, config.value_epsilon)
            loss = actor + critic - config.entropy_weight * (weights * scored.entropy).sum()
            loss.backward()
            moved = (weights * kl_estimate(held["log_p"], scored.log_probs.detach(), "k3")).sum()
            parts = {
                "loss": loss,
                "policy_loss": actor,
                "value_loss": critic,
                "clip_fraction": clipped,
                "value_clip_fraction": value_clipped,
                "moved_kl": moved,
            }
            for key, number in parts.items():
                totals[key] = totals.get(key, 0.0) + float(number.detach())
        return self.take_step(totals, step)

    def _micro(self, rows: Rows, units: np.ndarray) -> list[tuple[np.ndarray, Tensor]]:
        """The places of the rows of ``units`` that are this process's, in the portions that one pass takes, and 0 for those of them
        that only fill its share up, else 1."""
        size = self.config.micro_batch and self.config.micro_batch // self.together
        share, counted = self.processes.own(units)
        places_of = rows.units
        found = []
        for part in micro_batches(np.arange(len(share)), size):
            places = [places_of[share[number]] for number in part]
            counts = [torch.full((len(rows_of),), float(n < counted)) for n, rows_of in zip(part, places, strict=True)]
            found.append((np.concatenate(places), torch.cat(counts)))
        return found

    def _rows_together(self) -> int:
        """Rows of a sample that are computed as one: as many as divide a group, a minibatch and a micro-batch; 1 where none can be."""
        config, processor = self.config, getattr(self.policy, "processor", None)
        if processor is None and self.inputs is not None:
            reason = "what its 'learner_inputs' gives is not known here"
        else:
            reason = why_not(self.model, getattr(processor, "model_input_names", ()))
        if reason:
            _log.warning("ppo.shared_prefix: every rollout is learnt from with its own prompt, since %s", reason)
            return 1
        return math.gcd(config.group, config.rows // config.minibatches, config.micro_batch or 0)


def _trained(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
