"""What the supervised stages of large policies share: the loop of optimizer steps, its checkpoints and its log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rsw_rewards.config import TeachingConfig
from rsw_rewards.core.records import Sample
from rsw_rewards.errors import ConfigError
from rsw_rewards.rollouts.policy import Policy, set_up
from rsw_rewards.rollouts.trained import CHECKPOINTS, LEARNER, read_state, writing
from rsw_rewards.rollouts.weights import trained_weights, whole
from rsw_rewards.training.checkpoints import checkpoint_step, last_complete, write_checkpoint
from rsw_rewards.training.log_rows import append_row, keep_until
from rsw_rewards.training.processes import ALONE, Processes
from rsw_rewards.training.report.page import LivePage
from rsw_rewards.training.run_folder import check_inputs
from rsw_rewards.training.sharding import load_optimizer, shard, whole_policy


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Where a stage keeps its weights and its optimizer, and from which step it goes on."""

    folder: Path
    every: int
    """Steps from one to the next; 0 for none."""
    keep: int | None
    last: Path | None = None
    """The one to go on from."""
    processes: Processes = ALONE
    """All of which restore and save, and the first of which writes."""

    @property
    def done(self) -> int:
        """Steps done already."""
        return checkpoint_step(self.last) if self.last else 0

    def restore(self, policy: Any, optimizer: torch.optim.Optimizer) -> None:
        """Put back what :meth:`save` wrote. Raises :class:`ConfigError` where it is that of another network."""
        if self.last is None:
            return
        state = read_state(self.last / LEARNER)
        try:
            policy.load_weights(state["policy"], self.done)
            load_optimizer(optimizer, state["optimizer"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise ConfigError(f"the checkpoint {self.last} is of another network: {error}") from error

    def save(self, step: int, policy: Any, optimizer: torch.optim.Optimizer) -> None:
        """Write a checkpoint where one is due after ``step`` steps."""
        if self.every and step % self.every == 0:
            learner = {"policy": trained_weights(policy.model), "optimizer": whole(optimizer.state_dict())}
            if self.processes.first:
                write_checkpoint(self.folder, step, learner, {}, self.keep)


Backward = Callable[[np.random.Generator], float]
"""Draws a batch, adds the gradients of this process's share of its loss, and returns that share."""


def optimise(
    config: TeachingConfig, policy: Any, backward: Backward, betas: tuple[float, float], checkpoints: Checkpoints
) -> Iterator[float]:
    """AdamW steps on a policy (after ``setup``), each from its own seed; yields the loss of each.

    Args:
        config: of the stage. The learning rate rises over ``warmup`` steps, and is constant from there. What step k draws follows from ``seed``
            and k.
        policy: has ``model`` and ``load_weights``.
        backward: gives the gradients of a step; all processes draw the same batches, and share the work.
        betas: of AdamW.
        checkpoints: where to go on from, and to keep the state.
    """
    processes = checkpoints.processes
    shard(policy.model, processes)
    weights = [weight for weight in policy.model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, config.learning_rate, betas=betas, weight_decay=0.0)
    checkpoints.restore(policy, optimizer)
    for step in range(checkpoints.done, config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * min(1.0, (step + 1) / max(config.warmup, 1))
        loss = processes.add_gradients(weights, {"loss": backward(np.random.default_rng([config.seed, step]))})["loss"]
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        checkpoints.save(step + 1, policy, optimizer)
        yield loss


def prepare(config: TeachingConfig, policy: Policy) -> None:
    """Set a policy up where the configuration says. Raises :class:`ConfigError`."""
    device = config.device if config.device != "auto" else "cpu" if config.on_cpu else "cuda"
    set_up(policy, device, config.threads or torch.get_num_threads())


def teach(
    config: TeachingConfig,
    policy: Any,
    samples: Sequence[Sample],
    backward: Backward,
    betas: tuple[float, float],
    resume: bool,
    processes: Processes,
    unit: str = "",
) -> None:
    """Run a stage: goes on from its last checkpoint, prints the mean loss, and writes the policy to ``config.out``.

    Args:
        backward, betas: see :func:`optimise`.
        processes: all of which take the steps; the first one prints and writes.
        unit: of the loss, for the line that is printed.
    """
    folder = config.out / CHECKPOINTS
    last = None
    if processes.first:
        check_inputs(config.out, {"train": samples}, {})
        last = last_complete(folder) if resume else None
    checkpoints = Checkpoints(
        folder, config.checkpoints.every, config.checkpoints.keep, processes.broadcast(last), processes
    )
    if resume and checkpoints.last is None:
        raise ConfigError(
            f"--resume: there is no whole checkpoint in {folder}; start the stage anew in another directory, with checkpoints: {{every: N}}"
        )
    steps = optimise(config, policy, backward, betas, checkpoints)
    if not processes.first:
        for _ in steps:
            pass
        whole_policy(policy, config.policy, processes)
        return
    if checkpoints.last is not None:
        print(f"going on from step {checkpoints.done} ({checkpoints.last})", flush=True)
    log, page = config.out / "log.jsonl", LivePage(config.out)
    keep_until(log, checkpoints.done)
    losses: list[float] = []
    for step, loss in enumerate(steps, start=checkpoints.done + 1):
        losses.append(loss)
        append_row(log, {"step": step, "loss": loss if np.isfinite(loss) else None})
        page.refresh()
        if step % config.log_every == 0:
            print(f"step {step}: loss {np.mean(losses[-config.log_every :]):.4f}{unit}", flush=True)
    trained = whole_policy(policy, config.policy, processes)
    with writing(config.out, config.steps):
        trained.save(config.out)
