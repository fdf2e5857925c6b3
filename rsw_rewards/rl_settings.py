"""Settings of the methods that learn from rollouts: what all of them have, and the sections ``grpo``, ``ppo`` and ``flow_grpo``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from rsw_rewards.core.settings import Strict
from rsw_rewards.errors import ConfigError

Ratio = Literal["density", "distance", "guard"]
"""What the ratio of a step is made of; see :func:`rsw_rewards.rollouts.diffusion_steps.log_ratio`."""
Divergence = Literal["step", "flow_grpo", "velocity"]
"""What the KL term of a step is; see :func:`rsw_rewards.rollouts.diffusion_steps.divergence`."""


class GenerationConfig(Strict):
    """What every method that learns from rollouts has: how many steps, and which rollouts each generation asks for."""

    steps: PositiveInt = 120
    """Length of the run."""
    prompts: PositiveInt = 8
    """Prompts per generation."""
    group: PositiveInt = 8
    """Rollouts per prompt."""
    mix: dict[str, NonNegativeInt] | None = None
    """Prompts per generation by task; equal shares where left out."""
    refill: NonNegativeInt = 0
    """At most so many prompts more per generation, to replace groups whose rewards are all the same (DAPO's dynamic sampling)."""
    micro_batch: PositiveInt | None = None
    """Rollouts per forward and backward pass; all of an optimizer step where left out."""
    learning_rate: PositiveFloat = 3e-4
    adam_beta2: float = Field(default=0.95, gt=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: PositiveFloat = 1.0
    beta: float = Field(default=0.0, ge=0)
    """Weight of the KL term against the starting weights."""
    epsilon: PositiveFloat = 0.2
    """How far a ratio of probabilities may leave 1 before it is clipped."""
    temperature: PositiveFloat = 1.0
    threads: PositiveInt | None = None
    """Torch threads of the learner; torch's own choice where left out."""
    device: Literal["auto", "cpu"] = "auto"
    fsdp: bool = False
    """Divide weights, gradients and optimizer state among the learner processes (FSDP2), where there are several."""

    @property
    def rows(self) -> int:
        """Rollouts of one generation."""
        return self.prompts * self.group

    @property
    def on_cpu(self) -> bool:
        """Whether the learner is on the CPU."""
        import torch

        return self.device == "cpu" or not torch.cuda.is_available()

    @property
    def boundary(self) -> int:
        """Steps from one generation to the next."""
        return 1

    @model_validator(mode="after")
    def _shares_add_up(self) -> GenerationConfig:
        if self.mix is not None and sum(self.mix.values()) != self.prompts:
            raise ValueError(f"the shares in 'mix' add up to {sum(self.mix.values())}, but 'prompts' is {self.prompts}")
        return self


class GrpoConfig(GenerationConfig):
    """GRPO. A generation makes ``prompts`` x ``group`` rollouts, from which ``updates`` x ``iterations`` optimizer steps follow."""

    group: int = Field(default=8, ge=2)
    """Rollouts per prompt, which are compared with each other."""
    updates: PositiveInt = 1
    """Optimizer steps that one generation is divided into."""
    iterations: PositiveInt = 1
    """How often a generation is used."""
    schedule: str = "constant"
    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo"] = "grpo"
    """``grpo`` is the mean over sequences: a short answer beside a long image keeps its half of the loss. ``bnpo`` is the mean over the
    tokens of each micro-batch, so ``micro_batch`` and the number of processes change it; no other loss type is changed by them."""
    shared_prefix: bool = True
    """Learn from the rollouts of a prompt as one row that holds the prompt once, where the model's attention takes a mask."""
    scale_rewards: Literal["group", "batch", "task", "none"] | None = None
    """What advantages are divided by: the spread of each prompt's rewards, of the batch's, of each task's, or nothing. Left out, ``group``,
    or ``batch`` under a rubric that normalises each component already. With ``task``, all tasks have advantages of the same size."""
    trl: dict[str, Any] = {}
    """Further arguments of TRL's ``GRPOConfig``, for what this section does not name; those without an effect here are refused
    (``rsw_rewards/training/trl_arguments.py`` lists all)."""

    @property
    def boundary(self) -> int:
        """Optimizer steps from one generation to the next."""
        return self.updates * self.iterations

    def rows_per_pass(self, processes: int) -> int:
        """Rollouts of a forward and backward pass of one of ``processes``. Raises :class:`ConfigError` where they cannot be divided."""
        update = self.rows // self.updates
        rows = self.micro_batch or max(1, update // processes)
        if update % (rows * processes):
            micro = f" in micro-batches of {self.micro_batch}" if self.micro_batch else ""
            raise ConfigError(
                f"grpo: an update of {update} rollouts cannot be divided among {processes} processes{micro}; change 'grpo.prompts', "
                f"'grpo.group' or 'grpo.micro_batch', or start fewer processes"
            )
        return rows

    @model_validator(mode="after")
    def _fits(self) -> GrpoConfig:
        if self.rows % self.updates:
            raise ValueError(f"{self.rows} rollouts (prompts x group) cannot be divided into {self.updates} updates")
        if self.micro_batch is not None and (self.rows // self.updates) % self.micro_batch:
            raise ValueError(
                f"an update of {self.rows // self.updates} rollouts cannot be divided into micro-batches of {self.micro_batch}"
            )
        return self


class PpoConfig(GenerationConfig):
    """PPO. A step is one generation of ``prompts`` x ``group`` rollouts and all that is learnt from it:
    ``epochs`` passes, each divided into ``minibatches`` optimizer steps.

    Every sequence has the same weight in the losses and in whitening, whatever its length: a short answer beside a long image
    keeps its share.
    """

    group: PositiveInt = 4
    """Rollouts per prompt. PPO needs no group; the critic is the baseline."""
    epochs: PositiveInt = 2
    minibatches: PositiveInt = 2
    shared_prefix: bool = True
    """Learn from the rollouts of a prompt as one row that holds the prompt once, where the model's attention takes a mask. Rows of a
    prompt then share a minibatch, as many as divide ``group``, a minibatch and ``micro_batch``."""
    gamma: float = Field(default=1.0, ge=0, le=1)
    """Discount per token."""
    lam: float = Field(default=0.95, ge=0, le=1)
    """Lambda of generalised advantage estimation: 1 is Monte Carlo returns, 0 is one-step temporal differences."""
    whiten: Literal["task", "batch", "none"] = "task"
    """Over what advantages get mean 0 and standard deviation 1: each task's rows of a generation, or all rows. Over all, the task
    whose rewards differ most drowns the others."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k1"
    """Estimate of the KL penalty per token; only where ``beta`` is above 0. ``k3`` is cut at 10 a token, as in verl."""
    epsilon_high: PositiveFloat | None = None
    """How far a ratio may exceed 1, where that is not ``epsilon`` (DAPO's clip-higher, arXiv 2503.14476)."""
    dual_clip: float | None = Field(default=None, gt=1)
    """Bound of a ratio where the advantage is negative (arXiv 1912.09729); verl has 3. Left out, ratios are bounded by e^20 alone."""
    truncated: Literal["end", "bootstrap", "leave_out"] = "end"
    """Sequences that were cut off at the limit: ``end`` takes the limit for an end, with nothing to expect after it (as verl
    and OpenRLHF do); ``bootstrap`` adds what the critic expects after it (arXiv 1712.00378); ``leave_out`` learns nothing from them."""
    value_epsilon: PositiveFloat | None = 0.2
    """How far a value may leave the one at generation before it is clipped; None never clips."""
    entropy_weight: float = Field(default=0.0, ge=0)
    critic: Literal["head", "copy"] = "head"
    """``head`` reads the policy's last hidden states without changing them; ``copy`` has a network of its own beside it."""
    critic_learning_rate: PositiveFloat = 1e-3

    @model_validator(mode="after")
    def _enough_rows(self) -> PpoConfig:
        if self.minibatches > self.rows:
            raise ValueError(f"{self.rows} rollouts cannot be divided into {self.minibatches} minibatches")
        if self.refill:
            raise ValueError(
                "'refill' replaces groups without spread, but PPO compares with its critic and learns from them; leave it out"
            )
        above = 1 + (self.epsilon if self.epsilon_high is None else self.epsilon_high)
        if self.dual_clip is not None and self.dual_clip <= above:
            raise ValueError(
                f"'dual_clip' is {self.dual_clip:g}, inside of the range of ratios, which ends at {above:g}; it must lie above"
            )
        return self


class FlowGrpoConfig(GenerationConfig):
    """A step of the run is one generation of ``prompts`` x ``group`` rollouts and all that is learnt from it: ``epochs`` passes,
    each divided into ``minibatches`` optimizer steps. Gradients of all denoising steps are added up before an optimizer step.
    """

    group: int = Field(default=8, ge=2)
    """Rollouts per prompt, which are compared with each other."""
    epochs: PositiveInt = 1
    minibatches: PositiveInt = 1
    epsilon: PositiveFloat = 1e-3
    """How far a step's ratio may leave 1. Small, because log-densities are means over a latent's elements: DDPO has 1e-4."""
    epsilon_high: PositiveFloat | None = None
    """How far a ratio may exceed 1, where that is not ``epsilon`` (DAPO's clip-higher, arXiv 2503.14476)."""
    advantage_clip: PositiveFloat = 5.0
    """Advantages beyond it are cut, as in DDPO and Flow-GRPO."""
    scale_rewards: Literal["batch", "group", "none"] = "batch"
    """What advantages are divided by: the standard deviation of the ``batch`` (Flow-GRPO), of the ``group`` (DanceGRPO), or by nothing."""
    ratio: Ratio = "density"
    """What a step's ratio is made of: ``density`` (DDPO, Flow-GRPO, DanceGRPO), ``distance`` (Flow-CPS) or ``guard`` (GRPO-Guard, which also
    gives the gradients of all noise levels one size). Each has a range ``epsilon`` of its own."""
    kl: Divergence = "step"
    """What ``beta`` weighs: the exact KL divergence of a ``step``, that times the step's length (``flow_grpo``, as its code), or the
    squared difference of the ``velocity``."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay of a moving average of the weights, which is what the run ends with; its rollouts and checkpoints are those of the weights
    themselves. None for no average."""
    ema_every: PositiveInt = 1
    """Optimizer steps from one update of that average to the next."""
    timestep_share: float = Field(default=1.0, gt=0, le=1)
    """Share of the denoising steps that are learnt from; one at least."""
    timestep_order: Literal["first", "random"] = "first"
    """Which ones: the noisiest (Flow-GRPO), or others in every generation (DanceGRPO)."""

    @model_validator(mode="after")
    def _enough_rows(self) -> FlowGrpoConfig:
        if self.minibatches > self.rows:
            raise ValueError(f"{self.rows} rollouts cannot be divided into {self.minibatches} minibatches")
        if self.fsdp:
            raise ValueError(
                "'fsdp' is not for 'flow_grpo', which learns with whole weights; leave it out, or train with LoRA"
            )
        if self.ema is None and self.ema_every != 1:
            raise ValueError(
                "'ema_every' says how often the moving average is updated, but there is none; set 'ema' to its decay"
            )
        if self.kl != "step" and not self.beta:
            raise ValueError(
                f"'kl' is {self.kl!r}, but 'beta' is 0, so there is no KL term; set 'beta' or leave 'kl' out"
            )
        return self
