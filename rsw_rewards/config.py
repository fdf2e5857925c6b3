"""Run configurations: YAML in, a typed configuration or one clear sentence out.

A file names its ``method``; each method has a pydantic model that says which keys exist. ``--set a.b=c`` overrides a key, the
file's own ``smoke`` section holds the overrides of ``--smoke``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from rsw_rewards.core.yaml_text import read_yaml
from rsw_rewards.errors import ConfigError, did_you_mean, reason_of

Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """A section of a configuration: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSpec(BaseModel):
    """Where samples come from: ``source`` and that source's own options (see ``rsw_rewards.training.sources``)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    source: str
    """``scene-world``, ``samples`` (a samples file), or ``module:function`` giving a list of samples."""

    @property
    def options(self) -> dict[str, Any]:
        """Everything but ``source``."""
        return dict(self.model_extra or {})


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
    """What samples: ``vllm`` for the policy ``vision_language`` on CUDA machines, with ratios as for ``stale``, since it rounds
    otherwise than the learner."""

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
    """Rollouts per prompt. They need no company: the critic, not the group, says what was to be expected."""
    epochs: PositiveInt = 2
    minibatches: PositiveInt = 2
    gamma: float = Field(default=1.0, ge=0, le=1)
    """Discount per token."""
    lam: float = Field(default=0.95, ge=0, le=1)
    """Lambda of generalised advantage estimation: 1 for rewards as they came, 0 for one step and then the critic's word."""
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
    policy: dict[str, Any] | str
    train: DataSpec
    heldout: DataSpec | None = None
    rubric: dict[str, Any] | str
    """A rubric, or the path of one."""
    rollouts: RolloutConfig = RolloutConfig()
    scoring: ScoringConfig = ScoringConfig()
    checkpoints: CheckpointConfig = CheckpointConfig()
    measure: HeldoutConfig = HeldoutConfig()
    control: Literal["permute_rewards", "supervised"] | None = None
    """A run to hold against this one: ``permute_rewards`` deals the rewards of each task out again at random and must not learn;
    ``supervised`` (of ``grpo``) goes on with supervised training instead, by the section of that name."""
    dump_every: NonNegativeInt = 0
    """Steps between dumped generations; 0 for none."""
    print_every: PositiveInt = 10
    tensorboard: bool = True

    @property
    def generation(self) -> GenerationConfig:
        """The method's own section."""
        raise NotImplementedError

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


METHODS: Mapping[str, str] = {
    "grpo": "rsw_rewards.config:RunConfig",
    "ppo": "rsw_rewards.config:PpoRunConfig",
    "flow_grpo": "rsw_rewards.training.diffusion:FlowGrpoRunConfig",
    "supervised": "rsw_rewards.training.supervised:SupervisedConfig",
    "vlm_supervised": "rsw_rewards.training.vision_language:VlmSupervisedConfig",
    "build_world_model": "rsw_rewards.training.build_world_model:BuildWorldModelConfig",
    "diffusion_supervised": "rsw_rewards.training.diffusion_supervised:DiffusionSupervisedConfig",
    "tokenizer": "rsw_rewards.training.tokenizer:TokenizerConfig",
    "clip": "rsw_rewards.training.encoders:ClipConfig",
    "detector": "rsw_rewards.training.encoders:DetectorConfig",
}
"""The configuration model of every training method."""


def key_of_steps(content: Mapping[str, Any]) -> str:
    """The key of the training steps in a configuration: methods that learn from rewards have a section of their own."""
    method = content.get("method", "grpo")
    return f"{method}.steps" if method in ("grpo", "ppo", "flow_grpo") else "steps"


def change(content: dict[str, Any], key: str, value: Any) -> None:
    """Set ``a.b`` in nested mappings and lists, in place.

    Raises:
        ConfigError: the key is empty, or a part of it leads through something that is no mapping or list.
    """
    if not key:
        raise ConfigError(f"there is no key for the value {value!r}; write key=value")
    *parents, last = key.split(".")
    place: Any = content
    for depth, part in enumerate(parents):
        if isinstance(place, dict):
            if place.get(part) is None:
                place[part] = {}
            place = place[part]
        else:
            place = _item(place, part, ".".join(parents[: depth + 1]))
    if isinstance(place, dict):
        place[last] = value
    else:
        _item(place, last, key)
        place[int(last)] = value


def _item(place: Any, part: str, key: str) -> Any:
    if isinstance(place, list) and part.isdecimal() and int(part) < len(place):
        return place[int(part)]
    what = f"a list of {len(place)}" if isinstance(place, list) else f"the value {place!r}"
    raise ConfigError(f"the key {key}: {part!r} leads into {what}")


def _merge(content: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Apply changes in place, key by key; a section that names another ``source`` or ``use`` is replaced, for its options are others."""
    for key, value in changes.items():
        known = content.get(key)
        if (
            isinstance(value, Mapping)
            and isinstance(known, dict)
            and all(value[name] == known.get(name) for name in ("source", "use") if name in value)
        ):
            _merge(known, value)
        else:
            content[key] = value


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
        _merge(content, smaller)
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
    from rsw_rewards.core.plugins import resolve_object

    return validated(resolve_object(METHODS[method], "configuration"), content, str(path))


def default_out(path: Path) -> Path:
    """A run directory of its own under ``$RSW_RUNS`` (or ``runs``), named after the configuration and the time."""
    folder = Path(os.environ.get("RSW_RUNS", "runs"))
    plain = folder / Path(path).stem
    return plain if not plain.exists() else folder / f"{Path(path).stem}-{time.strftime('%Y%m%d-%H%M%S')}"


def validated(model: type[Model], content: Mapping[str, Any], where: str) -> Model:
    """``content`` as a ``model``. Raises :class:`ConfigError` naming ``where``, the key and what to do."""
    try:
        return model.model_validate(dict(content))
    except ValidationError as error:
        problem = error.errors()[0]
        parts = [str(part) for part in problem["loc"]]
        key = ".".join(parts)
        if problem["type"] == "extra_forbidden":
            known = _keys(model, parts[:-1])
            raise ConfigError(f"{where}: unknown key {key!r}; {did_you_mean(parts[-1], known)}") from None
        if problem["type"] == "missing":
            raise ConfigError(f"{where}: the key {key!r} is missing") from None
        raise ConfigError(f"{where}: {key + ': ' if key else ''}{reason_of(problem)}") from None


def _keys(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    """The keys of the section that ``path`` leads to, as far as it leads through models."""
    for part in path:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
