"""One generation: groups come in from the pool, are scored while others are still being made, and go to the learner."""

from __future__ import annotations

import copy
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from rsw_rewards.config import ExperimentConfig
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.rewards import rewards
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.core.verifier import SCOPES, Batch, Scope
from rsw_rewards.engine.circuit_breaker import CircuitBreaker
from rsw_rewards.engine.scorer import Scorer
from rsw_rewards.errors import ConfigError, RunStopped
from rsw_rewards.rollouts.dumps import write_dump
from rsw_rewards.rollouts.pool import RolloutPool
from rsw_rewards.training.generation import Generation, Refilled, logged_numbers, refill, remarks, reserve
from rsw_rewards.training.runlog import RunLog, say
from rsw_rewards.training.watch import Watch


@dataclass(slots=True)
class Clock:
    """Seconds of the whole run by what the learner was doing."""

    generation: float = 0.0
    """Waiting for rollouts."""
    exposed: float = 0.0
    """Waiting for rewards after the last rollout had come in."""
    measuring: float = 0.0
    """Measuring held-out samples."""
    started: float = field(default_factory=time.perf_counter)

    def summary(self, steps: int) -> str:
        """One line for the end of a run."""
        total = time.perf_counter() - self.started
        update = total - self.generation - self.exposed - self.measuring
        measuring = f", measuring {self.measuring / total:.0%}" if self.measuring else ""
        return (
            f"{steps} steps in {total:.0f} s: {total / max(steps, 1):.2f} s a step, of which generation {self.generation / total:.0%}, "
            f"waiting for rewards {self.exposed / total:.1%}, update {update / total:.0%}{measuring}"
        )


class Collector:
    """Sample ids in, outputs and rewards out.

    Args:
        config: the run.
        samples: what the ids stand for.
        scorer: scores outputs; its rubric says how they are rewarded.
        pool: makes the outputs.
        log: is told the numbers of every step.
        watch: measures held-out samples now and then.
        order: the prompts of the whole run, where each generation is to be made one step ahead with older weights.

    Raises:
        ConfigError: groups are to be replaced, but a verifier's scores depend on the whole generation.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        samples: Sequence[Sample],
        scorer: Scorer,
        pool: RolloutPool,
        log: RunLog,
        watch: Watch | None = None,
        order: Sequence[str] = (),
    ) -> None:
        self.config = config
        self.samples = {sample.id: sample for sample in samples}
        self.rubric, self.scorer = scorer.rubric, scorer
        self.pool = pool
        self.log = log
        self.watch = watch
        whole = [label for label, verifier in scorer.by_name.items() if verifier.scope == "population"]
        if config.generation.refill and whole:
            raise ConfigError(
                f"'refill' replaces groups after they were scored, but {whole[0]!r} scores a generation as a whole; leave one of them out"
            )
        self.breaker = CircuitBreaker(self.rubric)
        self.clock = Clock()
        self._sent: int | None = None
        self._said: set[str] = set()
        # A verifier of the whole step waits for its end; without actors everything does, since the policy runs here too.
        early = {v.scope for v in scorer.verifiers} - {"population"} if config.rollouts.actors > 0 else set()
        self._early: frozenset[Scope] = frozenset(early)
        self._apart = ThreadPoolExecutor(1, thread_name_prefix="scoring")
        self.order = list(order)
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self._pending: tuple[list[str], Future[Generation]] | None = None
        """Prompts of the generation that is being made ahead, and what comes of it."""
        self._behind: dict[str, Any] | None = None
        """The weights it is made with, and the scorer's state before it."""

    def collect(
        self, ids: Sequence[str], step: int, weights: Mapping[str, torch.Tensor]
    ) -> tuple[list[Output], list[float | None]]:
        """Let the pool make a group for each of ``ids`` with ``weights``, and score it.

        With ``refill`` in the configuration, groups of other samples may stand in the place of groups without spread. The numbers
        that are logged of rewards are those of the samples that were asked for, so that they are not chosen by their outcome.

        Returns:
            The outputs, group by group in the order of ``ids``, and the reward of each: None where a verifier failed or the
            rollout was lost, which the learner must leave out.

        Raises:
            RunStopped: nothing could be made, or verifiers fail too often.
        """
        waited, exposed = self.clock.generation, self.clock.exposed
        if self._pending is not None:
            generation = self._awaited(ids)
        elif self._behind is not None:  # a resumed run makes again what was on its way
            self.pool.load_weights(self._behind["weights"], self._behind["version"])
            generation = self._made_and_scored([self.samples[prompt] for prompt in ids], step)
        else:
            self._send_and_look(weights, step)
            generation = self._made_and_scored([self.samples[prompt] for prompt in ids], step)
        self.log.add(logged_numbers(generation, self.rubric))
        if self.watch is not None:
            start = time.perf_counter()
            self.watch.hear(generation, step)
            self.clock.measuring += time.perf_counter() - start
        self._say_why(generation)
        everything = generation.table
        if self.config.generation.refill:
            refilled = self._refilled(generation, step)
            generation, everything = refilled.generation, refilled.everything
        self.scorer.observe(Batch.of(generation.samples, generation.outputs, step))
        self.log.add(
            {
                "time/generation": self.clock.generation - waited,
                "time/exposed_scoring": self.clock.exposed - exposed,
                "time/exposed_share": self.clock.exposed / (time.perf_counter() - self.clock.started),
            }
        )
        given = generation.given
        if self.config.control == "permute_rewards":
            given = _permuted(given, generation.tasks, self.config.seed, step)
        if self._is_dumped(step):
            self._dump(step, generation, given)
        try:
            self.breaker.check(everything)
        except RunStopped:
            self._dump(step, generation, given)  # what stopped the run can be looked at
            raise
        if self.order:
            self._go_ahead(step, weights)
        return generation.outputs, given

    def _send_and_look(self, weights: Mapping[str, torch.Tensor], step: int) -> None:
        """Give the pool the weights after ``step`` steps, unless it has them, and let the watch look at them."""
        if self._sent == step:
            return
        self.pool.load_weights(weights, step)
        self._sent = step
        if self.watch is not None:
            start = time.perf_counter()
            self.watch.look(self.pool, step)
            self.clock.measuring += time.perf_counter() - start

    def _go_ahead(self, step: int, weights: Mapping[str, torch.Tensor]) -> None:
        """Have the next generation made with the present weights, while the learner changes them."""
        section = self.config.generation
        following = step + section.boundary
        place = following // section.boundary * section.prompts
        ids = self.order[place : place + section.prompts]
        self._pending = self._behind = None
        if following >= section.steps or not ids:
            return
        self._send_and_look(weights, step)
        kept = {name: tensor.detach().to("cpu", copy=True) for name, tensor in weights.items()}
        # What a run that is taken up from here needs to make the generation again. The scorer's state of now, because scores
        # that are made meanwhile must find the same when they are made again.
        self._behind = {"version": step, "weights": kept, "scorer": copy.deepcopy(self.scorer.state_dict())}
        samples = [self.samples[prompt] for prompt in ids]
        clock = Clock()  # nobody waits meanwhile
        if self.config.rollouts.actors:
            self._pending = ids, self._ahead.submit(self._made_and_scored, samples, following, clock)
        else:
            made: Future[Generation] = Future()
            made.set_result(self._made_and_scored(samples, following))
            self._pending = ids, made

    def _awaited(self, ids: Sequence[str]) -> Generation:
        """The generation that was made ahead."""
        assert self._pending is not None
        known, made = self._pending
        if list(ids) != known:
            raise RuntimeError("the trainer asks for other prompts than those whose rollouts were made ahead")
        start = time.perf_counter()
        found = made.result()
        self.clock.generation += time.perf_counter() - start
        return found

    def _made_and_scored(self, samples: Sequence[Sample], step: int, clock: Clock | None = None) -> Generation:
        """The generation of ``samples``. Scoring runs beside the generation of later groups.

        ``clock`` counts the time, the run's own where left out.
        """
        clock = clock or self.clock
        start = time.perf_counter()
        made: dict[str, list[Output]] = {}
        scored: list[Future[ScoreTable]] = []
        waiting: list[Output] = []
        section = self.config.generation
        for group in self.pool.generate(samples, section.group, section.temperature, self.config.seed, step):
            made[group[0].sample_id] = group
            waiting += group
            if self._early and len(waiting) >= self.pool.chunk * len(group):
                scored.append(self._apart.submit(self._score, waiting, step, self._early))
                waiting = []
        generated = time.perf_counter()
        outputs = [output for sample in samples for output in made[sample.id]]
        if waiting and self._early:
            scored.append(self._apart.submit(self._score, waiting, step, self._early))
        scored.append(self._apart.submit(self._score, outputs, step, SCOPES - self._early))
        table = ScoreTable.concat([part.result() for part in scored])
        ready = time.perf_counter()
        clock.generation += generated - start
        clock.exposed += ready - generated
        return Generation(list(samples), outputs, table, rewards(table, self.rubric))

    def _score(self, outputs: Sequence[Output], step: int, scopes: Collection[Scope]) -> ScoreTable:
        batch = Batch.of((self.samples[output.sample_id] for output in outputs), outputs, step)
        return self.scorer.score(batch, step=step, scopes=scopes)

    def _refilled(self, generation: Generation, step: int) -> Refilled:
        """The generation with groups of further samples in the place of groups without spread."""
        tasks = {sample.task for sample in generation.samples}
        others = (sample for sample in self.samples.values() if sample.task in tasks)
        refilled = refill(
            generation,
            bound=self.config.generation.refill,
            more=reserve(others, [sample.id for sample in generation.samples], self.config.seed, step),
            make=lambda fresh: self._made_and_scored(fresh, step),
        )
        self.log.add(refilled.numbers())
        return refilled

    def _say_why(self, generation: Generation) -> None:
        """Print what there is to remark on a generation, every cause once a run."""
        for cause, lines, style in remarks(generation, self.rubric):
            if cause not in self._said:
                self._said.add(cause)
                for line in lines:
                    say(line, style=style)

    def _is_dumped(self, step: int) -> bool:
        """Whether the generation of a step is dumped: every ``dump_every`` steps from the first on, and the last."""
        every, section = self.config.dump_every, self.config.generation
        if every is None:
            every = max(1, section.steps // 5)
        place, last = step // section.boundary, (section.steps - 1) // section.boundary
        return bool(every) and (place % max(1, every // section.boundary) == 0 or place == last)

    def _dump(self, step: int, generation: Generation, given: Sequence[float | None]) -> None:
        # Folders count the steps done before the generation, from 0; trackers and the log count the step that it belongs to, from 1.
        folder = self.config.out / "dumps" / f"step_{step:06d}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        write_dump(folder, generation.samples, generation.outputs, generation.table, given, self.rubric.dump())
        keys = [(output.sample_id, output.candidate) for output in generation.outputs]
        self.log.trackers.rollouts(
            step + 1, generation.samples, generation.outputs, dict(zip(keys, given, strict=True))
        )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of scoring."""
        state = {
            "seed": self.config.seed,
            "breaker": self.breaker.state_dict(),
            "scorer": self.scorer.state_dict(),
        }
        if self._behind is not None:
            state |= {"scorer": self._behind["scorer"], "behind": self._behind}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`. Raises :class:`ConfigError` for that of a run with another seed."""
        if (seed := state.get("seed", self.config.seed)) != self.config.seed:
            raise ConfigError(
                f"the checkpoint is of a run with the seed {seed}, not {self.config.seed}; bring back the run's own"
            )
        self.breaker.load_state_dict(state["breaker"])
        self.scorer.load_state_dict(state["scorer"])
        self._behind = state.get("behind")

    def close(self) -> None:
        """Stop scoring."""
        self._ahead.shutdown(wait=False, cancel_futures=True)
        self._apart.shutdown(wait=False, cancel_futures=True)


def _permuted(given: Sequence[float | None], tasks: Sequence[str], seed: int, step: int) -> list[float | None]:
    """The same rewards, dealt out at random among the outputs of each task: the control that must not learn."""
    rng = np.random.default_rng([seed, step, 1])
    permuted = list(given)
    for task in sorted(set(tasks)):
        places = [place for place, name in enumerate(tasks) if name == task]
        for place, source in zip(places, rng.permutation(places), strict=True):
            permuted[place] = given[source]
    return permuted
