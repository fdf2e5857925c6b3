"""Run configurations: YAML in, a typed configuration or one clear sentence out.

A file names its ``method``; each method has a pydantic model that says which keys exist. ``--set a.b=c`` overrides a key, the
file's own ``smoke`` section holds the overrides of ``--smoke``.
"""

from __future__ import annotations

import os
import time
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PlainSerializer,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from rsw_rewards.core.plugins import resolve_object
from rsw_rewards.core.rubric import Rubric, parse_rubric
from rsw_rewards.core.settings import Strict, change, merge, validated
from rsw_rewards.core.yaml_text import read_yaml
from rsw_rewards.errors import ConfigError
from rsw_rewards.methods import METHODS
from rsw_rewards.rl_settings import FlowGrpoConfig, GenerationConfig, GrpoConfig, PpoConfig


class DataSpec(BaseModel):
    """Where samples come from: ``source`` and that source's own options (see ``rsw_rewards.training.sources``)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    source: str
    """``samples`` (a samples file), ``scene-world``, the name of a data adapter, or ``module:function`` giving a list of samples."""

    @model_validator(mode="before")
    @classmethod
    def _says_where(cls, value: Any) -> Any:
        if isinstance(value, DataSpec) or (isinstance(value, Mapping) and "source" in value):
            return value
        raise ValueError("it needs 'source', such as {source: samples, path: FILE.jsonl} or {source: scene-world}")

    @property
    def options(self) -> dict[str, Any]:
        """Everything but ``source``."""
        return dict(self.model_extra or {})


class PolicySpec(BaseModel):
    """A policy: ``use``, and that policy's own arguments (see :func:`rsw_rewards.rollouts.policies.build_policy`)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    use: Any
    """A name, ``package.module:object``, ``file.py:object``, the directory of a run, or the object itself."""

    @model_validator(mode="before")
    @classmethod
    def _by_name_alone(cls, value: Any) -> Any:
        return value if isinstance(value, Mapping | PolicySpec) else {"use": value}


RubricSpec = Annotated[
    Rubric,
    BeforeValidator(lambda value: value if isinstance(value, Rubric) else parse_rubric(value, "rubric")),
    PlainSerializer(Rubric.dump),
]
"""A rubric as the section of a run, which is written as it stands in YAML."""


class RolloutConfig(Strict):
    """How many replicas of the policy make rollouts, and where. See :class:`rsw_rewards.rollouts.pool.RolloutPool`."""

    actors: NonNegativeInt = 1
    num_gpus: float = Field(default=0.0, ge=0)
    num_cpus: float = Field(default=0.5, ge=0)
    threads: PositiveInt = 1
    chunk: PositiveInt = 4
    retries: NonNegativeInt = 2
    timeout_s: PositiveFloat | None = None
    device: str | None = None
    stale: Literal[0, 1] = 0
    """1 makes and scores a generation while the learner is at work on the one before, with the weights from before that update (of
    ``grpo``). Its ratios are then to the probabilities that the tokens were sampled with. 0 is on-policy."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """What samples: ``vllm`` for the policies ``vision_language`` and ``backbone_world_model`` on CUDA machines, with ratios as for
    ``stale``, since it rounds otherwise than the learner."""

    @property
    def off_policy(self) -> bool:
        """Whether tokens come from other probabilities than the learner's, so that ratios must be to those."""
        return bool(self.stale) or self.engine != "transformers"


class ScoringConfig(Strict):
    """Where outputs are scored. See :class:`rsw_rewards.engine.scorer.Scorer`."""

    actors: NonNegativeInt = 0
    """Ray actors per component of the rubric, beside the rollouts' own; 0 scores in a thread of this process. Components with
    ``timeout_s`` have an actor always, those with state never."""
    num_gpus: float = Field(default=0.0, ge=0)
    """Share of a GPU per actor; fractions put several verifiers on one card."""
    num_cpus: float = Field(default=0.1, ge=0)


class CheckpointConfig(Strict):
    """When the run can be taken up again."""

    every: NonNegativeInt = 0
    """Steps between checkpoints; 0 for none. Must be a multiple of the steps between generations."""
    keep: int | None = Field(default=2, ge=2)
    """How many stay; at least two, so that one is whole while the next is written. None keeps all."""


class HeldoutConfig(Strict):
    """What is measured before, during and after training, on samples that training never sees."""

    components: list[dict[str, Any]] | None = None
    """Verifiers to run, as in a rubric; by default those the scene world's table needs."""
    metrics: list[str] | None = None
    """Metrics to print; all where left out. ``heldout.json`` holds all of them always."""
    sampled: bool = True
    """Measure at temperature 1 (as the policy is trained) beside greedy decoding."""
    every: NonNegativeInt = 0
    """Steps between measurements during training, greedy; 0 for none. One that falls between generations is made at the next."""
    during: PositiveInt | None = None
    """Samples of each task, the first ones, that are measured during training; all where left out."""
    chunk: PositiveInt = 32
    seed: int = 0


class ExperimentConfig(Strict):
    """What every method reads that trains a policy with rewards and measures it on held-out samples."""

    seed: NonNegativeInt = 0
    out: Path
    policy: PolicySpec
    train: DataSpec
    heldout: DataSpec | None = None
    rubric: RubricSpec
    rollouts: RolloutConfig = RolloutConfig()
    scoring: ScoringConfig = ScoringConfig()
    checkpoints: CheckpointConfig = CheckpointConfig()
    measure: HeldoutConfig = HeldoutConfig()
    control: Literal["permute_rewards", "supervised"] | None = None
    """A run to hold against this one: ``permute_rewards`` deals the rewards of each task out again at random and must not learn;
    ``supervised`` (of ``grpo``) goes on with supervised training instead, by the section of that name."""
    dump_every: NonNegativeInt | None = None
    """Steps between dumped generations, the first and the last of which are among them; 0 for none, a fifth of the run where left out."""
    print_every: PositiveInt = 10
    log: tuple[Literal["tensorboard", "trackio", "wandb"], ...] = ("tensorboard",)
    """Who is told the numbers of every step, beside the run's own ``log.jsonl``."""

    @property
    @abstractmethod
    def generation(self) -> GenerationConfig:
        """The method's own section."""

    def check_processes(self, count: int) -> None:
        """Raise :class:`ConfigError` for what cannot be divided among ``count`` learner processes."""

    @model_validator(mode="after")
    def _on_boundaries(self) -> ExperimentConfig:
        if self.checkpoints.every % self.generation.boundary:
            raise ValueError(
                f"'checkpoints.every' is {self.checkpoints.every}, but a generation lasts {self.generation.boundary} optimizer "
                f"steps; a run can only be resumed exactly from a multiple of that"
            )
        if self.rollouts.off_policy and not isinstance(self.generation, GrpoConfig):
            key = "rollouts.stale" if self.rollouts.stale else "rollouts.engine"
            raise ValueError(
                f"'{key}' is for the method 'grpo': others take their rollouts for those of the present weights"
            )
        if self.rollouts.stale and self.generation.refill:
            raise ValueError(
                "'refill' asks for prompts once rewards are known, which 'rollouts.stale' is too early for; leave one out"
            )
        return self


class RunConfig(ExperimentConfig):
    """``method: grpo``."""

    method: Literal["grpo"] = "grpo"
    grpo: GrpoConfig = GrpoConfig()
    supervised: dict[str, Any] = {}
    """Keys of ``method: supervised`` for the control; choose ``steps`` so that it takes as long as GRPO does."""

    @property
    def generation(self) -> GrpoConfig:
        return self.grpo

    def check_processes(self, count: int) -> None:
        if self.control == "supervised" and count > 1:
            raise ConfigError("control 'supervised' learns in one process; start it once")
        self.grpo.rows_per_pass(count)


class PpoRunConfig(ExperimentConfig):
    """``method: ppo``."""

    method: Literal["ppo"] = "ppo"
    ppo: PpoConfig = PpoConfig()
    checkpoints: CheckpointConfig = CheckpointConfig(every=1)
    control: Literal["permute_rewards"] | None = None

    @property
    def generation(self) -> PpoConfig:
        return self.ppo


class FlowGrpoRunConfig(ExperimentConfig):
    """``method: flow_grpo``."""

    method: Literal["flow_grpo"] = "flow_grpo"
    flow_grpo: FlowGrpoConfig = FlowGrpoConfig()
    checkpoints: CheckpointConfig = CheckpointConfig(every=10)
    control: Literal["permute_rewards"] | None = None

    @property
    def generation(self) -> FlowGrpoConfig:
        return self.flow_grpo


class TeachingConfig(Strict):
    """What every supervised stage reads."""

    out: Path
    policy: PolicySpec
    """What is trained; with ``lora`` only its adapter is."""
    train: DataSpec
    seed: NonNegativeInt = 0
    steps: PositiveInt = 1000
    batch: PositiveInt = 16
    """Samples per step, of all processes together."""
    learning_rate: PositiveFloat = 1e-5
    warmup: NonNegativeInt = 20
    """Steps over which the learning rate rises."""
    checkpoints: CheckpointConfig = Field(default_factory=CheckpointConfig)
    threads: PositiveInt | None = None
    device: str = "auto"
    fsdp: bool = False
    """Divide weights, gradients and optimizer state among the processes (FSDP2), where there are several."""
    log_every: PositiveInt = 50

    @property
    def on_cpu(self) -> bool:
        """Whether the stage is computed on the CPU."""
        import torch

        return self.device == "cpu" or (self.device == "auto" and not torch.cuda.is_available())

    def check_processes(self, count: int) -> None:
        """Raise :class:`ConfigError` for what cannot be divided among ``count`` processes."""


class VlmSupervisedConfig(TeachingConfig):
    """Configuration of ``method: vlm_supervised``: true answers and true futures by cross-entropy, the start of reinforcement learning.

    RS-WorldModel's first two stages (arXiv 2603.14941) are this with a ``backbone_world_model``: forecasts by metadata alone
    (``policy.forecast_template`` empty), then forecasts and questions together.
    """

    method: Literal["vlm_supervised"] = "vlm_supervised"
    steps: PositiveInt = 200
    mix: dict[str, NonNegativeInt] | None = None
    """Samples per step by task, adding up to ``batch``; drawn from all samples alike where left out."""
    micro_batch: PositiveInt | None = None
    """Samples per forward and backward pass, of all processes together; all of a task where left out."""
    autocast: bool = False
    """Compute in bfloat16 while the weights stay as they are: what training all weights, in float32, is fast with."""
    gradient_checkpointing: bool = False
    """Compute activations a second time instead of remembering them."""
    warmup: NonNegativeInt = 10
    """Steps over which the learning rate rises."""
    log_every: PositiveInt = 20

    @model_validator(mode="after")
    def _shares_add_up(self) -> VlmSupervisedConfig:
        if self.mix is not None and sum(self.mix.values()) != self.batch:
            raise ValueError(f"the shares in 'mix' add up to {sum(self.mix.values())}, but 'batch' is {self.batch}")
        return self


class DiffusionSupervisedConfig(TeachingConfig):
    """Configuration of ``method: diffusion_supervised``; the policy is a ``diffusion_forecaster``."""

    method: Literal["diffusion_supervised"] = "diffusion_supervised"
    drop_text: float = Field(default=0.0, ge=0, lt=1)
    """Share of samples shown without their text, and again without their picture: what classifier-free guidance needs."""

    def check_processes(self, count: int) -> None:
        if self.batch % count:
            raise ConfigError(f"a batch of {self.batch} cannot be divided among {count} processes; change 'batch'")


def load_config(path: Path, changes: Mapping[str, Any] | None = None, smoke: bool = False) -> BaseModel:
    """Read, change and validate a run configuration.

    Args:
        path: the YAML file.
        changes: ``a.b`` -> value; they win over the file and its smoke section.
        smoke: apply the file's ``smoke`` section.

    Returns:
        The method's own model: :class:`RunConfig` for ``grpo``.

    Raises:
        ConfigError: one sentence naming the file and the key.
    """
    content = read_yaml(path)
    smaller = content.pop("smoke", {})
    if smoke:
        if not isinstance(smaller, dict):
            raise ConfigError(f"{path}: 'smoke' must be a mapping of keys to change")
        merge(content, smaller)
    for key, value in (changes or {}).items():
        change(content, key, value)
    method = content.setdefault("method", "grpo")
    if method not in METHODS:
        raise ConfigError(f"{path}: 'method' is {method!r}; it must be one of {', '.join(METHODS)}")
    content.setdefault("out", str(default_out(path)))
    rubric = content.get("rubric")
    if isinstance(rubric, str):
        beside = Path(path).parent / rubric
        content["rubric"] = read_yaml(beside if beside.exists() else Path(rubric))
    return validated(resolve_object(METHODS[method].config, "configuration"), content, str(path))


def default_out(path: Path) -> Path:
    """A run directory of its own under ``$RSW_RUNS`` (or ``runs``), named after the configuration and the time."""
    folder = Path(os.environ.get("RSW_RUNS", "runs"))
    plain = folder / Path(path).stem
    return plain if not plain.exists() else folder / f"{Path(path).stem}-{time.strftime('%Y%m%d-%H%M%S')}"
