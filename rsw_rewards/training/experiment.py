"""What every training with rewards does around its own steps: samples, pool, scorer, and held-out samples before and after."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from rich.console import Console

from rsw_rewards.config import ExperimentConfig
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.rubric import Rubric
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.engine.scorer import Scorer
from rsw_rewards.errors import ConfigError, ImageError
from rsw_rewards.features.bank import FeatureBank
from rsw_rewards.rollouts.policies import build_policy
from rsw_rewards.rollouts.policy import set_up
from rsw_rewards.rollouts.pool import RolloutPool
from rsw_rewards.rollouts.trained import CHECKPOINTS, FINAL, writing
from rsw_rewards.rollouts.weights import trained_weights
from rsw_rewards.training.checkpoints import (
    checkpoint_step,
    engine_state,
    last_complete,
    learner_state,
    write_checkpoint,
)
from rsw_rewards.training.heldout import Heldout, counted, print_changes, write_changes
from rsw_rewards.training.placement import check_placement
from rsw_rewards.training.processes import ALONE, Processes
from rsw_rewards.training.rollouts import Rollouts
from rsw_rewards.training.run_folder import check_inputs
from rsw_rewards.training.runlog import RunLog
from rsw_rewards.training.schedule import prompt_order, shares
from rsw_rewards.training.sources import load_source
from rsw_rewards.training.trainer_views import Trainable
from rsw_rewards.training.watch import Watch, alarms, logged_alarms, logged_rises


class Learner(Protocol):
    """What learns from one generation at a time."""

    def update(
        self, samples: Sequence[Sample], outputs: Sequence[Output], given: Sequence[float | None], step: int
    ) -> dict[str, float | None]:
        """Learn from rollouts and their rewards (None: left out); returns the step's numbers for the log."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        ...


@dataclass(frozen=True, slots=True)
class Course:
    """What every learner process knows of a training."""

    samples: list[Sample]
    share: Mapping[str, int]
    """Prompts per generation by task."""
    checkpoint: Path | None
    """Where to go on; None starts anew."""
    processes: Processes = ALONE

    @property
    def done(self) -> int:
        """Steps done already."""
        return checkpoint_step(self.checkpoint) if self.checkpoint else 0

    def follow_cycles(self, config: ExperimentConfig, learner: Learner) -> None:
        """The updates of :meth:`Setting.run_cycles` in a process beside the first one, which hands over its rollouts."""
        if self.checkpoint is not None:
            learner.load_state_dict(learner_state(self.checkpoint))
        by_id = {sample.id: sample for sample in self.samples}
        for step in range(self.done, config.generation.steps):
            outputs, given = self.processes.share()
            learner.update([by_id[output.sample_id] for output in outputs], outputs, given, step)


@dataclass(frozen=True, slots=True)
class Setting(Course):
    """What the first process, usually the only one, learns with."""

    scorer: Scorer = field(kw_only=True)
    pool: RolloutPool = field(kw_only=True)
    heldout: Heldout | None = None
    before: Mapping[str, ScoreTable] = field(default_factory=dict)
    """Scores of the held-out samples from before training."""

    def log(self, config: ExperimentConfig) -> RunLog:
        """The log of the run, without the steps that are made again."""
        steps = config.generation.steps
        return RunLog(config.out, sorted(self.share), steps, config.print_every, config.tensorboard, self.done)

    def rollouts(self, config: ExperimentConfig, log: RunLog) -> Rollouts:
        """What makes and scores a generation."""
        generations = -(-config.generation.steps // config.generation.boundary)
        order = prompt_order(self.samples, generations, self.share, config.seed) if config.rollouts.stale else []
        watch = None
        if config.measure.every and self.heldout is not None:
            watch = Watch(config, self.heldout, self.before, log, self.done)
        return Rollouts(config, self.samples, self.scorer, self.pool, log, watch, order)

    def run_cycles(self, config: ExperimentConfig, learner: Learner, policy: Trainable) -> None:
        """Generation after generation, from the checkpoint on: rollouts and their rewards in, one update, log and checkpoint out."""
        asked, every = config.generation, config.checkpoints.every
        order = prompt_order(self.samples, asked.steps, self.share, config.seed)
        log = self.log(config)
        rollouts = self.rollouts(config, log)
        try:
            if self.checkpoint is not None:
                learner.load_state_dict(learner_state(self.checkpoint))
                rollouts.load_state_dict(engine_state(self.checkpoint))
                log.say(f"going on from step {self.done} ({self.checkpoint})")
            for step in range(self.done, asked.steps):
                start = time.perf_counter()
                ids = order[step * asked.prompts : (step + 1) * asked.prompts]
                outputs, given = rollouts.collect(ids, step, policy.model)
                if self.processes.count > 1:
                    outputs = [_of_learning(output) for output in outputs]
                    self.processes.share((outputs, given))
                samples = [rollouts.samples[output.sample_id] for output in outputs]
                numbers = learner.update(samples, outputs, given, step)
                log.write(step + 1, {**numbers, "step_time": time.perf_counter() - start})
                if every and (step + 1) % every == 0:
                    states = learner.state_dict(), rollouts.state_dict()
                    write_checkpoint(config.out / CHECKPOINTS, step + 1, *states, config.checkpoints.keep)
            log.say(rollouts.clock.summary(asked.steps - self.done))
        finally:
            rollouts.close()
            log.close()


def _of_learning(output: Output) -> Output:
    """What learners look at of an output: no pictures, and latents themselves instead of where they lie in this process's cluster."""
    try:
        latents = None if output.trajectory is None else ImageRef(array=output.trajectory.pixels())
    except ImageError:
        latents = None
    return Output(
        output.sample_id, output.candidate, tokens=output.tokens, trajectory=latents, invalid=output.invalid, lost=output.lost,
        finish_reason=output.finish_reason,
    )  # fmt: skip


def train_with_rewards(
    config: ExperimentConfig,
    learn: Callable[[Setting], Trainable],
    follow: Callable[[Course], None],
    resume: bool = False,
    processes: Processes = ALONE,
) -> Path:
    """Run a whole training; returns the folder of the final policy.

    Args:
        config: the run. Its ``out`` gets ``checkpoints/``, ``dumps/``, ``log.jsonl``, ``heldout.json`` and ``final/``.
        learn: the method: makes the steps and returns the trained policy.
        follow: the same steps in the other learner processes, with the rollouts of the first.
        resume: go on from the last whole checkpoint under ``out``, or from the start where there is none.
        processes: the learner processes.

    Raises:
        RswError: the configuration and the data do not fit, or the run was stopped on purpose.
    """
    rubric = config.rubric
    asked = config.generation
    samples = load_source(config.train, config.seed, "train")
    share = shares(samples, asked.prompts, asked.mix)
    samples = [sample for sample in samples if str(sample.task) in share]
    _check_learnable(config, rubric, samples)
    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    if not processes.first:
        follow(Course(samples, share, processes.share(), processes))
        return config.out / FINAL
    heldout = _heldout(config, rubric)
    if heldout is not None and (seen := {sample.scene for sample in samples} & {s.scene for s in heldout.samples}):
        raise ConfigError(
            f"{len(seen)} scenes, {min(seen)!r} among them, are in both 'train' and 'heldout': hold out other places"
        )
    say(f"{config.out}: {counted(samples)} to train on, {asked.steps} steps of {asked.rows} rollouts")
    check_placement(config, rubric)
    checkpoint = last_complete(config.out / CHECKPOINTS) if resume else None
    with _scorer(rubric, samples, config) as scorer, _pool(config) as pool:
        held = heldout.samples if heldout is not None else []
        check_inputs(config.out, {"train": samples, "heldout": held}, scorer.by_name)
        before = _measured(heldout, pool, "before", config)
        processes.share(checkpoint)
        policy = learn(
            Setting(samples, share, checkpoint, processes, scorer=scorer, pool=pool, heldout=heldout, before=before)
        )
        with writing(config.out / FINAL, asked.steps):
            policy.save(config.out / FINAL)
        if heldout is not None:
            pool.load_weights(trained_weights(policy.model), asked.steps)
            after = _measured(heldout, pool, "after", config)
            _report(config, heldout, before, after)
            heldout.close()
    say(f"the trained policy is in {config.out / 'final'}, every step in {config.out / 'log.jsonl'}")
    return config.out / FINAL


def _check_learnable(config: ExperimentConfig, rubric: Rubric, samples: Sequence[Sample]) -> None:
    """Raise :class:`ConfigError` for a run in which nothing, or not what was meant, could be learnt."""
    if not any(component.weight > 0 for component in rubric.components):
        raise ConfigError("rubric: no component has a weight above 0, so there is no reward to learn from")
    if rubric.combine == "normalize_each" and config.generation.group == 1:
        raise ConfigError(
            "rubric: 'normalize_each' compares the rollouts of a prompt, and with a group of 1 every reward is 0; set 'group' to 2 or"
            " more, or 'combine' to weighted_sum"
        )
    policy = build_policy(config.policy)
    if alien := sorted({str(sample.task) for sample in samples if sample.task not in policy.tasks}):
        raise ConfigError(
            f"train: there are samples of {alien[0]}, which the policy {policy.name!r} cannot do; leave the task out by the 'mix' of"
            f" the method's section (it does {', '.join(sorted(map(str, policy.tasks)))})"
        )


def trainable(config: ExperimentConfig) -> Trainable:
    """The policy with its starting weights, on the CPU. Raises :class:`ConfigError` for one that cannot be trained."""
    policy = build_policy(config.policy)
    if not policy.trainable:
        raise ConfigError(f"the policy {policy.name!r} cannot be trained")
    set_up(policy, "cpu", torch.get_num_threads())
    return cast(Trainable, policy)


def trainable_by_tokens(config: ExperimentConfig) -> Trainable:
    """The same for methods that learn from tokens. Raises :class:`ConfigError` for a policy that lacks what they need."""
    policy = trainable(config)
    lacks = [name for name in ("model", "eos_id", "pad_id", "save") if not hasattr(policy, name)]
    if not lacks and not hasattr(policy.model, "get_output_embeddings"):
        lacks = ["model.get_output_embeddings"]
    if lacks:
        raise ConfigError(
            f"the policy {getattr(policy, 'name', '')!r} cannot be trained by tokens, it has no {lacks[0]!r}; docs/training.md says what a policy needs,"
            " and method 'flow_grpo' trains diffusion forecasters"
        )
    return policy


def _report(
    config: ExperimentConfig, heldout: Heldout, before: Mapping[str, ScoreTable], after: Mapping[str, ScoreTable]
) -> None:
    changes = heldout.compare(before, after)
    shown = heldout.shown(changes)
    print_changes(
        shown,
        f"{counted(heldout.samples)}; paired over scenes",
    )
    steps = config.generation.steps
    final = alarms(shown, logged_rises(config.out / "log.jsonl", steps, heldout), steps)
    for alarm in final:
        say(str(alarm), "bold red")
    about = {
        "seed": config.seed,
        "control": config.control,
        "steps": steps,
        "alarms": [*logged_alarms(config.out), *(alarm.record() for alarm in final)],
        "n": len(heldout.samples),
        "rubric": config.rubric.dump(),
    }
    write_changes(config.out / "heldout.json", changes, about)


def _pool(config: ExperimentConfig) -> RolloutPool:
    policy = build_policy(config.policy)
    if config.rollouts.engine == "vllm":
        from rsw_rewards.rollouts.vllm_engine import vllm_sampler

        policy = vllm_sampler(policy)
    return RolloutPool(policy, **config.rollouts.model_dump(exclude={"stale", "engine"}))


PIXEL_BUDGET = 64 << 20
"""Bytes of decoded pictures that scoring keeps: a generation's are looked at by several verifiers, and then never again."""


def _scorer(rubric: Rubric, samples: list[Sample], config: ExperimentConfig) -> Scorer:
    where = config.scoring
    device = "cuda" if where.num_gpus else "cpu"
    scorer = Scorer(
        rubric,
        device=device,
        bank=FeatureBank(device, pixel_budget=PIXEL_BUDGET),
        workers=where.actors,
        num_gpus=where.num_gpus,
        num_cpus=where.num_cpus,
        seed=config.seed,
    )
    scorer.check(samples)
    scorer.prepare(samples)
    return scorer


def _heldout(config: ExperimentConfig, rubric: Rubric) -> Heldout | None:
    if config.heldout is None:
        return None
    samples = load_source(config.heldout, 0, "heldout")
    return Heldout(samples, config.measure, rubric, config.generation.temperature)


def _measured(heldout: Heldout | None, pool: RolloutPool, when: str, config: ExperimentConfig) -> dict[str, ScoreTable]:
    """Scores of the held-out samples under the pool's weights, also kept in ``heldout/``; nothing without held-out samples."""
    if heldout is None:
        return {}
    folder = config.out / "heldout"
    if when == "before" and (stored := heldout.stored(folder, when)):
        say(f"the numbers from before training are in {folder} already")
        return stored
    say(f"measuring {when} training on held-out samples: {counted(heldout.samples)}")
    tables = heldout.measure(pool)
    for line in heldout.said_of(tables):
        say(line, "bold red")
    for mode, table in tables.items():
        table.write(folder / f"{when}_{mode}.parquet")
    return tables


def say(line: str, style: str | None = None) -> None:
    """Print one line, whatever the width of the terminal."""
    Console().print(line, style=style, markup=False, highlight=False, soft_wrap=True)
