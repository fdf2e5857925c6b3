"""What the supervised stages of large policies share: settings, the loop of optimizer steps, its checkpoints and its log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from rsw_rewards.config import CheckpointConfig, DataSpec, PolicySpec
from rsw_rewards.core.records import Sample
from rsw_rewards.core.settings import Strict
from rsw_rewards.errors import ConfigError
from rsw_rewards.rollouts.policy import Policy, set_up
from rsw_rewards.rollouts.trained import CHECKPOINTS, writing
from rsw_rewards.rollouts.weights import trained_weights
from rsw_rewards.training.log_rows import append_row, keep_until

if TYPE_CHECKING:
    import torch


class TeachingConfig(Strict):
    """What every supervised stage reads."""

    out: Path
    policy: PolicySpec
    """What is trained; with ``lora`` only its adapter is."""
    train: DataSpec
    seed: NonNegativeInt = 0
    steps: PositiveInt = 1000
    batch: PositiveInt = 16
    """Samples per step."""
    learning_rate: PositiveFloat = 1e-5
    warmup: NonNegativeInt = 20
    """Steps over which the learning rate rises."""
    checkpoints: CheckpointConfig = Field(default_factory=CheckpointConfig)
    threads: PositiveInt | None = None
    device: str = "auto"
    log_every: PositiveInt = 50


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Where a stage keeps its weights and its optimizer, and from which step it goes on."""

    folder: Path
    every: int
    """Steps from one to the next; 0 for none."""
    keep: int | None
    last: Path | None = None
    """The one to go on from."""

    @property
    def done(self) -> int:
        """Steps done already."""
        from rsw_rewards.training.checkpoints import checkpoint_step

        return checkpoint_step(self.last) if self.last else 0

    def restore(self, policy: Any, optimizer: torch.optim.Optimizer) -> None:
        """Put back what :meth:`save` wrote. Raises :class:`ConfigError` where it is that of another network."""
        from rsw_rewards.training.checkpoints import learner_state

        if self.last is None:
            return
        state = learner_state(self.last)
        try:
            policy.load_weights(state["policy"], self.done)
            optimizer.load_state_dict(state["optimizer"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise ConfigError(f"the checkpoint {self.last} is of another network: {error}") from error

    def save(self, step: int, policy: Any, optimizer: torch.optim.Optimizer) -> None:
        """Write a checkpoint where one is due after ``step`` steps."""
        from rsw_rewards.training.checkpoints import write_checkpoint

        if self.every and step % self.every == 0:
            learner = {"policy": trained_weights(policy.model), "optimizer": optimizer.state_dict()}
            write_checkpoint(self.folder, step, learner, {}, self.keep)


def optimise(
    policy: Any,
    backward: Callable[[np.random.Generator], float],
    *,
    steps: int,
    learning_rate: float,
    warmup: int,
    betas: tuple[float, float],
    seed: int,
    checkpoints: Checkpoints | None = None,
) -> Iterator[float]:
    """AdamW steps on a policy (after ``setup``), each from its own seed; yields the loss of each.

    Args:
        policy: has ``model`` and ``load_weights``.
        backward: draws a batch, adds the gradients of its loss and returns the loss.
        steps: of the whole stage, those done already among them.
        learning_rate: after ``warmup`` steps over which it rises; constant from there.
        betas: of AdamW.
        seed: of the stage; what step k draws follows from it and k.
        checkpoints: where to go on from, and to keep the state.
    """
    import torch

    weights = [weight for weight in policy.model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, learning_rate, betas=betas, weight_decay=0.0)
    if checkpoints is not None:
        checkpoints.restore(policy, optimizer)
    for step in range(checkpoints.done if checkpoints else 0, steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / max(warmup, 1))
        loss = backward(np.random.default_rng([seed, step]))
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if checkpoints is not None:
            checkpoints.save(step + 1, policy, optimizer)
        yield loss


def prepare(config: TeachingConfig, policy: Policy) -> None:
    """Set a policy up where the configuration says. Raises :class:`ConfigError`."""
    import torch

    device = config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    set_up(policy, device, config.threads or torch.get_num_threads())


def teach(
    config: TeachingConfig,
    policy: Any,
    samples: Sequence[Sample],
    fit: Callable[[Checkpoints], Iterator[float]],
    resume: bool,
    unit: str = "",
) -> None:
    """Run a stage: goes on from its last checkpoint, prints the mean loss, and writes the policy to ``config.out``.

    Args:
        fit: the steps from a checkpoint on; yields the loss of each.
        unit: of the loss, for the line that is printed.
    """
    from rsw_rewards.training.checkpoints import last_complete
    from rsw_rewards.training.report.page import LivePage
    from rsw_rewards.training.run_folder import check_inputs

    check_inputs(config.out, {"train": samples}, {})
    folder = config.out / CHECKPOINTS
    every, keep = config.checkpoints.every, config.checkpoints.keep
    checkpoints = Checkpoints(folder, every, keep, last_complete(folder) if resume else None)
    if resume and checkpoints.last is None:
        raise ConfigError(
            f"--resume: there is no whole checkpoint in {folder}; start the stage anew in another directory, with checkpoints: {{every: N}}"
        )
    if checkpoints.last is not None:
        print(f"going on from step {checkpoints.done} ({checkpoints.last})", flush=True)
    log, page = config.out / "log.jsonl", LivePage(config.out)
    keep_until(log, checkpoints.done)
    losses: list[float] = []
    for step, loss in enumerate(fit(checkpoints), start=checkpoints.done + 1):
        losses.append(loss)
        append_row(log, {"step": step, "loss": loss if np.isfinite(loss) else None})
        page.refresh()
        if step % config.log_every == 0:
            print(f"step {step}: loss {np.mean(losses[-config.log_every :]):.4f}{unit}", flush=True)
    with writing(config.out, config.steps):
        policy.save(config.out)
