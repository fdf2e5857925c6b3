"""A training with rewards, from its configuration to its folder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import cast

import torch

from rsw_rewards.config import ExperimentConfig
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.engine.scorer import Scorer
from rsw_rewards.errors import ConfigError, ImageError
from rsw_rewards.features.bank import FeatureBank
from rsw_rewards.rollouts.policies import build_policy
from rsw_rewards.rollouts.policy import Policy, set_up
from rsw_rewards.rollouts.pool import RolloutPool
from rsw_rewards.rollouts.trained import CHECKPOINTS, FINAL, LEARNER, REPORT, read_state, writing
from rsw_rewards.rollouts.weights import trained_weights
from rsw_rewards.training.agreement import alarms_so_far
from rsw_rewards.training.checkpoints import (
    STATE,
    checkpoint_step,
    last_complete,
    write_checkpoint,
)
from rsw_rewards.training.checks import check_apart, check_learnable
from rsw_rewards.training.collector import Collector
from rsw_rewards.training.heldout import Heldout, counted, print_changes, write_baselines, write_changes
from rsw_rewards.training.learner import Learner
from rsw_rewards.training.log_rows import read_log
from rsw_rewards.training.placement import check_placement
from rsw_rewards.training.processes import ALONE, Processes
from rsw_rewards.training.report.run_files import BASELINES
from rsw_rewards.training.run_folder import check_inputs
from rsw_rewards.training.runlog import RunLog, say
from rsw_rewards.training.schedule import prompt_order, shares
from rsw_rewards.training.sharding import whole_policy
from rsw_rewards.training.sources import load_source
from rsw_rewards.training.trackers import check_trackers
from rsw_rewards.training.trainer_views import Trainable
from rsw_rewards.training.watch import Watch, alarms, logged_rises


class TrainingRun:
    """What stands around the steps of every method that learns from rewards: samples, scorer, pool, held-out numbers, folder.

    Entered, the first learner process (usually the only one) has a scorer and a pool, has measured the held-out samples and knows
    where to go on; the others have waited for that. A method then learns, and hands the trained policy to :meth:`finish`.

    Args:
        config: the run. Its ``out`` gets ``checkpoints/``, ``dumps/``, ``log.jsonl``, ``heldout.json`` and ``final/``.
        resume: go on from the last whole checkpoint under ``out``, or from the start where there is none.
        processes: the learner processes.

    Raises:
        RswError: the configuration and the data do not fit, or the run was stopped on purpose.
    """

    scorer: Scorer
    pool: RolloutPool

    def __init__(self, config: ExperimentConfig, resume: bool = False, processes: Processes = ALONE) -> None:
        self.config, self.resume, self.processes = config, resume, processes
        check_trackers(config.log)
        section = config.generation
        samples = load_source(config.train, config.seed, "train")
        self.share = shares(samples, section.prompts, section.mix)
        """Prompts per generation by task."""
        self.samples = [sample for sample in samples if str(sample.task) in self.share]
        self.policy = build_policy(config.policy)
        """What is trained, before its ``setup``. The pool has policies of its own, of the same configuration and with the weights of this one."""
        check_learnable(config, self.policy, self.samples)
        self.final = config.out / FINAL
        self.checkpoint: Path | None = None
        """Where to go on; None starts anew."""
        self.heldout: Heldout | None = None
        self.before: Mapping[str, ScoreTable] = {}
        """Scores of the held-out samples from before training."""

    def __enter__(self) -> TrainingRun:
        with ExitStack() as started:
            if self.config.generation.threads is not None:
                started.callback(torch.set_num_threads, torch.get_num_threads())
                torch.set_num_threads(self.config.generation.threads)
            if self.processes.first:
                self._start(started)
            self.checkpoint = self.processes.broadcast(self.checkpoint)
            self._started = started.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._started.close()

    def _start(self, started: ExitStack) -> None:
        """In the first process: everything that is there before the first step."""
        config = self.config
        if config.heldout is not None:
            held = load_source(config.heldout, 0, "heldout")
            self.heldout = Heldout(held, config.measure, config.rubric, config.generation.temperature)
            started.callback(self.heldout.close)
            check_apart(self.samples, held)
        section = config.generation
        say(f"{config.out}: {counted(self.samples)} to train on, {section.steps} steps of {section.rows} rollouts")
        check_placement(config, config.rubric)
        self.checkpoint = last_complete(config.out / CHECKPOINTS) if self.resume else None
        self.scorer = started.enter_context(_scorer(self.samples, config))
        self.pool = started.enter_context(_pool(config))
        known = {"train": self.samples, "heldout": self.heldout.samples if self.heldout else []}
        check_inputs(config.out, known, self.scorer.by_name, config.seed)
        self.before = self._measured("before")
        if self.heldout is not None:
            write_baselines(config.out / "heldout" / BASELINES, self.heldout)

    @property
    def done(self) -> int:
        """Steps done already."""
        return checkpoint_step(self.checkpoint) if self.checkpoint else 0

    @property
    def prompts(self) -> list[str]:
        """Ids of the samples that the run asks for, generation after generation."""
        section = self.config.generation
        return prompt_order(self.samples, -(-section.steps // section.boundary), self.share, self.config.seed)

    @contextmanager
    def collector(self) -> Iterator[Collector | None]:
        """What makes, scores and logs generations, from the checkpoint on; None in all processes but the first."""
        if not self.processes.first:
            yield None
            return
        config, steps = self.config, self.config.generation.steps
        log = RunLog(config.out, sorted(self.share), steps, config.print_every, config.log, self.done)
        watch = None
        if config.measure.every and self.heldout is not None:
            watch = Watch(config, self.heldout, self.before, log, self.done)
        ahead = self.prompts if config.rollouts.stale else []
        collector = Collector(config, self.samples, self.scorer, self.pool, log, watch, ahead)
        try:
            if self.checkpoint is not None:
                collector.load_state_dict(read_state(self.checkpoint / STATE))
                say(f"going on from step {self.done} ({self.checkpoint})")
            yield collector
            say(collector.clock.summary(steps - self.done))
        finally:
            collector.close()
            log.close()

    def learn_in_cycles(self, learner: Learner) -> None:
        """Generation after generation, from the checkpoint on: rollouts and their rewards in, one update, log and checkpoint out.

        The first process makes the rollouts and hands them to the others.
        """
        if self.checkpoint is not None:
            learner.load_state_dict(read_state(self.checkpoint / LEARNER))
        by_id = {sample.id: sample for sample in self.samples}
        prompts, order, checkpoints = self.config.generation.prompts, self.prompts, self.config.checkpoints
        with self.collector() as collector:
            for step in range(self.done, self.config.generation.steps):
                start = time.perf_counter()
                weights = trained_weights(learner.policy.model)  # put together in all processes at once
                rollouts = None
                if collector is not None:
                    outputs, given = collector.collect(order[step * prompts : (step + 1) * prompts], step, weights)
                    alone = self.processes.count == 1
                    rollouts = outputs if alone else [_of_learning(output) for output in outputs], given
                outputs, given = self.processes.broadcast(rollouts)
                numbers = learner.update([by_id[output.sample_id] for output in outputs], outputs, given, step)
                if collector is not None:
                    collector.log.write(step + 1, {**numbers, "step_time": time.perf_counter() - start})
                if checkpoints.every and (step + 1) % checkpoints.every == 0:
                    state = learner.state_dict()
                    if collector is not None:
                        folder = self.config.out / CHECKPOINTS
                        write_checkpoint(folder, step + 1, state, collector.state_dict(), checkpoints.keep)

    def finish(self, policy: Trainable) -> Path:
        """Write the trained policy, measure the held-out samples again and compare; returns the folder of the policy."""
        trained = whole_policy(policy, self.config.policy, self.processes)
        if not self.processes.first:
            return self.final
        steps = self.config.generation.steps
        with writing(self.final, steps):
            trained.save(self.final)
        if self.heldout is not None:
            self.pool.load_weights(trained_weights(trained.model), steps)
            self._report(self.heldout, self._measured("after"))
        say(f"the trained policy is in {self.final}, every step in {self.config.out / 'log.jsonl'}")
        say(f"page: {self.config.out / REPORT}")
        return self.final

    def _measured(self, when: str) -> dict[str, ScoreTable]:
        """Scores of the held-out samples under the pool's weights, also kept in ``heldout/``; nothing without held-out samples."""
        if self.heldout is None:
            return {}
        folder = self.config.out / "heldout"
        if when == "before" and (stored := self.heldout.stored(folder, when)):
            say(f"the numbers from before training are in {folder} already")
            return stored
        say(f"measuring {when} training on held-out samples: {counted(self.heldout.samples)}")
        tables = self.heldout.measure(self.pool, keep=folder / f"outputs_{when}")
        for line in self.heldout.said_of(tables):
            say(line, "bold red")
        for mode, table in tables.items():
            table.write(folder / f"{when}_{mode}.parquet")
        return tables

    def _report(self, heldout: Heldout, after: Mapping[str, ScoreTable]) -> None:
        """Print and write what changed on the held-out samples, with the alarms."""
        config, steps = self.config, self.config.generation.steps
        changes = heldout.compare(self.before, after)
        shown = heldout.shown(changes)
        print_changes(shown, f"{counted(heldout.samples)}; paired over scenes")
        final = alarms(shown, logged_rises(config.out / "log.jsonl", steps, heldout), steps)
        for alarm in final:
            say(str(alarm), "bold red")
        logged = read_log(config.out / "heldout" / "during.jsonl"), read_log(config.out / "log.jsonl")
        about = {
            "seed": config.seed,
            "control": config.control,
            "steps": steps,
            "alarms": [*alarms_so_far(*logged), *(alarm.record() for alarm in final)],
            "n": len(heldout.samples),
            "rubric": config.rubric.dump(),
        }
        write_changes(config.out / "heldout.json", changes, about)


def _of_learning(output: Output) -> Output:
    """The part of an output that the learner needs: tokens or latents, without images."""
    try:
        latents = None if output.trajectory is None else ImageRef(array=output.trajectory.pixels())
    except ImageError:
        latents = None
    return Output(
        output.sample_id, output.candidate, tokens=output.tokens, trajectory=latents, invalid=output.invalid, lost=output.lost,
        finish_reason=output.finish_reason,
    )  # fmt: skip


def trainable(policy: Policy) -> Trainable:
    """The policy with its starting weights, on the CPU. Raises :class:`ConfigError` for one that cannot be trained."""
    if not policy.trainable:
        raise ConfigError(f"the policy {policy.name!r} cannot be trained")
    set_up(policy, "cpu", torch.get_num_threads())
    return cast(Trainable, policy)


def trainable_by_tokens(policy: Policy) -> Trainable:
    """The same for methods that learn from tokens. Raises :class:`ConfigError` for a policy that lacks what they need."""
    made = trainable(policy)
    lacks = [name for name in ("model", "eos_id", "pad_id", "save") if not hasattr(made, name)]
    if not lacks and not hasattr(made.model, "get_output_embeddings"):
        lacks = ["model.get_output_embeddings"]
    if lacks:
        raise ConfigError(
            f"the policy {policy.name!r} cannot be trained by tokens, it has no {lacks[0]!r}; docs/training.md says what a policy needs,"
            " and method 'flow_grpo' trains diffusion forecasters"
        )
    return made


def _pool(config: ExperimentConfig) -> RolloutPool:
    policy = build_policy(config.policy)
    if config.rollouts.engine == "vllm":
        from rsw_rewards.rollouts.vllm_engine import vllm_sampler

        policy = vllm_sampler(policy)
    return RolloutPool(policy, **config.rollouts.model_dump(exclude={"stale", "engine"}))


PIXEL_BUDGET = 64 << 20
"""Bytes of decoded pictures that scoring keeps: a generation's are looked at by several verifiers, and then never again."""


def _scorer(samples: list[Sample], config: ExperimentConfig) -> Scorer:
    where = config.scoring
    device = "cuda" if where.num_gpus else "cpu"
    scorer = Scorer(
        config.rubric,
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
