"""One generation: groups come in from the pool, are scored while others are still being made, and go to the learner."""

from __future__ import annotations

import copy
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rsw_rewards.config import ExperimentConfig
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.rewards import rewards
from rsw_rewards.core.rubric import Rubric
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.core.verifier import SCOPES, Batch, Scope
from rsw_rewards.engine.circuit_breaker import CircuitBreaker
from rsw_rewards.engine.monitor import component_stats
from rsw_rewards.engine.scorer import Scorer
from rsw_rewards.errors import ConfigError, RunStopped
from rsw_rewards.evaluation.summary import in_words, nothing_valid
from rsw_rewards.rollouts.dumps import write_dump
from rsw_rewards.rollouts.pool import RolloutPool
from rsw_rewards.rollouts.weights import trained_weights
from rsw_rewards.training.refill import Refilled, refill, reserve, sampled_tokens, without_spread
from rsw_rewards.training.runlog import RunLog

if TYPE_CHECKING:
    import torch

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


class Rollouts:
    """Sample ids in, outputs and rewards out.

    Args:
        config: the run.
        samples: what the ids stand for.
        rubric, scorer: how outputs are rewarded.
        pool: makes the outputs.
        log: is told the numbers of every step.
        eos_id: stands in for the tokens of a rollout that was lost.
        watch: measures held-out samples now and then.
        order: the prompts of the whole run, where each generation is to be made one step ahead with older weights.

    Raises:
        ConfigError: groups are to be replaced, but a verifier's scores depend on the whole generation.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        samples: Sequence[Sample],
        rubric: Rubric,
        scorer: Scorer,
        pool: RolloutPool,
        log: RunLog,
        eos_id: int,
        watch: Watch | None = None,
        order: Sequence[str] = (),
    ) -> None:
        self.config = config
        self.samples = {sample.id: sample for sample in samples}
        self.rubric = rubric
        self.scorer = scorer
        self.pool = pool
        self.log = log
        self.eos_id = eos_id
        self.watch = watch
        whole = [label for label, verifier in scorer.by_name.items() if verifier.scope == "population"]
        if config.generation.refill and whole:
            raise ConfigError(
                f"'refill' replaces groups after they were scored, but {whole[0]!r} scores a generation as a whole; leave one of them out"
            )
        self.breaker = CircuitBreaker(rubric)
        self.clock = Clock()
        self._sent: int | None = None
        self._said: set[str] = set()
        # A verifier of the whole step waits for its end; without actors everything does, since the policy runs here too.
        early = {v.scope for v in scorer.verifiers} - {"population"} if config.rollouts.actors > 0 else set()
        self._early: frozenset[Scope] = frozenset(early)
        self._apart = ThreadPoolExecutor(1, thread_name_prefix="scoring")
        self.order = list(order)
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self._pending: tuple[list[str], Future[tuple[list[Output], ScoreTable]]] | None = None
        """Prompts of the generation that is being made ahead, and what comes of it."""
        self._behind: dict[str, Any] | None = None
        """The weights it is made with, and the scorer's state before it."""

    def collect(self, ids: Sequence[str], step: int, model: torch.nn.Module) -> tuple[list[Output], list[float | None]]:
        """Let the pool make a group for each of ``ids`` with the weights of ``model``, and score it.

        With ``refill`` in the configuration, groups of other samples may stand in the place of groups without spread. The numbers
        that are logged of rewards are those of the samples that were asked for, so that they are not chosen by their outcome.

        Returns:
            The outputs, group by group in the order of ``ids``, and the reward of each: None where a verifier failed or the
            rollout was lost, which the learner must leave out.

        Raises:
            RunStopped: nothing could be made, or verifiers fail too often.
        """
        samples = [self.samples[prompt] for prompt in ids]
        generation, exposed = self.clock.generation, self.clock.exposed
        if self._pending is not None:
            outputs, table = self._awaited(ids)
        elif self._behind is not None:  # a resumed run makes again what was on its way
            self.pool.load_weights(self._behind["weights"], self._behind["version"])
            outputs, table = self._made_and_scored(samples, step)
        else:
            self._send(model, step)
            outputs, table = self._made_and_scored(samples, step)
        self._log(outputs, table)
        everything = table
        if self.config.generation.refill:
            refilled = self._refilled(samples, outputs, table, step)
            samples, outputs, table = refilled.samples, refilled.outputs, refilled.table
            everything = refilled.everything
        self.scorer.observe(Batch.of(samples, outputs, step))
        self.log.add(
            {
                "time/generation": self.clock.generation - generation,
                "time/exposed_scoring": self.clock.exposed - exposed,
                "time/exposed_share": self.clock.exposed / (time.perf_counter() - self.clock.started),
            }
        )
        given = self._rewards(outputs, table, step)
        every, boundary = self.config.dump_every, self.config.generation.boundary
        if every and (step // boundary) % max(1, every // boundary) == 0:
            self._dump(step, samples, outputs, table, given)
        try:
            self.breaker.check(everything)
        except RunStopped:
            self._dump(step, samples, outputs, table, given)  # what stopped the run can be looked at
            raise
        if self.order:
            self._go_ahead(step, model)
        return outputs, given

    def _send(self, model: torch.nn.Module, step: int) -> None:
        """Give the pool the weights after ``step`` steps, unless it has them, and let the watch look at them."""
        if self._sent == step:
            return
        self.pool.load_weights(trained_weights(model), step)
        self._sent = step
        if self.watch is not None:
            start = time.perf_counter()
            self.watch.look(self.pool, step)
            self.clock.measuring += time.perf_counter() - start

    def _go_ahead(self, step: int, model: torch.nn.Module) -> None:
        """Have the next generation made with the present weights, while the learner changes them."""
        asked = self.config.generation
        following = step + asked.boundary
        place = following // asked.boundary * asked.prompts
        ids = self.order[place : place + asked.prompts]
        self._pending = self._behind = None
        if following >= asked.steps or not ids:
            return
        self._send(model, step)
        weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in trained_weights(model).items()}
        # What a run that is taken up from here needs to make the generation again. The scorer's state of now, because scores
        # that are made meanwhile must find the same when they are made again.
        self._behind = {"version": step, "weights": weights, "scorer": copy.deepcopy(self.scorer.state_dict())}
        samples = [self.samples[prompt] for prompt in ids]
        clock = Clock()  # nobody waits meanwhile
        if self.config.rollouts.actors:
            self._pending = ids, self._ahead.submit(self._made_and_scored, samples, following, clock)
        else:
            made: Future[tuple[list[Output], ScoreTable]] = Future()
            made.set_result(self._made_and_scored(samples, following))
            self._pending = ids, made

    def _awaited(self, ids: Sequence[str]) -> tuple[list[Output], ScoreTable]:
        """The generation that was made ahead."""
        assert self._pending is not None
        known, made = self._pending
        if list(ids) != known:
            raise RuntimeError("the trainer asks for other prompts than those whose rollouts were made ahead")
        start = time.perf_counter()
        found = made.result()
        self.clock.generation += time.perf_counter() - start
        return found

    def _made_and_scored(
        self, samples: Sequence[Sample], step: int, clock: Clock | None = None
    ) -> tuple[list[Output], ScoreTable]:
        """All outputs in the order of ``samples``, and their scores. Scoring runs beside the generation of later groups.

        ``clock`` counts the time, the run's own where left out.
        """
        clock = clock or self.clock
        start = time.perf_counter()
        made: dict[str, list[Output]] = {}
        scored: list[Future[ScoreTable]] = []
        waiting: list[Output] = []
        for group in self._groups(samples, step):
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
        return outputs, table

    def _groups(self, samples: Sequence[Sample], step: int) -> Iterator[list[Output]]:
        asked = self.config.generation
        return self.pool.generate(samples, asked.group, asked.temperature, self.config.seed, step)

    def _score(self, outputs: Sequence[Output], step: int, scopes: Collection[Scope]) -> ScoreTable:
        batch = Batch.of((self.samples[output.sample_id] for output in outputs), outputs, step)
        return self.scorer.score(batch, step=step, scopes=scopes)

    def _refilled(self, samples: Sequence[Sample], outputs: Sequence[Output], table: ScoreTable, step: int) -> Refilled:
        """The generation with groups of further samples in the place of groups without spread."""
        asked = [sample.id for sample in samples]
        tasks = {sample.task for sample in samples}
        others = (sample for sample in self.samples.values() if sample.task in tasks)
        refilled = refill(
            samples,
            outputs,
            table,
            bound=self.config.generation.refill,
            more=reserve(others, asked, self.config.seed, step),
            make=lambda fresh: self._made_and_scored(fresh, step),
            flat=lambda scores: without_spread(rewards(scores, self.rubric)),
        )
        self.log.add(refilled.numbers())
        return refilled

    def _rewards(self, outputs: Sequence[Output], table: ScoreTable, step: int) -> list[float | None]:
        """What the trainer is given for each output."""
        given = self._given(outputs, table, self.rubric)
        if self.config.control == "permute_rewards":
            tasks = [str(self.samples[output.sample_id].task) for output in outputs]
            given = _permuted(given, tasks, self.config.seed, step)
        return given

    def _given(self, outputs: Sequence[Output], table: ScoreTable, rubric: Rubric) -> list[float | None]:
        frame = rewards(table, rubric)
        value = [None if np.isnan(reward) else float(reward) for reward in frame["reward"].to_numpy(np.float64)]
        found = dict(zip(zip(frame["sample"], frame["candidate"], strict=True), value, strict=True))
        return [found.get((output.sample_id, output.candidate)) for output in outputs]

    def _log(self, outputs: Sequence[Output], table: ScoreTable) -> None:
        """A generation's numbers for the log."""
        given = self._given(outputs, table, self.rubric)
        numbers: dict[str, float | None] = dict(component_stats(table, self.rubric))
        tasks = [str(self.samples[output.sample_id].task) for output in outputs]
        plain = given
        if self.rubric.combine != "weighted_sum":  # normalised rewards have the mean 0, whatever is learnt
            plain = self._given(outputs, table, self.rubric.model_copy(update={"combine": "weighted_sum"}))
        for key, values in (("reward_task/", given), ("reward_mean/", plain)):
            for task in sorted(set(tasks)):
                known = [value for value, name in zip(values, tasks, strict=True) if name == task and value is not None]
                numbers[key + task] = float(np.mean(known)) if known else None
        numbers["groups"] = float(len({output.sample_id for output in outputs}))
        numbers["groups_zero_std"] = float(len(without_spread(rewards(table, self.rubric))))
        numbers["failed"] = float(sum(value is None for value in given))
        self._say_why(table)
        numbers["lost"] = float(sum(output.lost is not None for output in outputs))
        numbers["tokens"] = float(sampled_tokens(outputs))
        self.log.add(numbers)

    def _say_why(self, table: ScoreTable) -> None:
        """Print, once a run each: why rollouts have no reward, that none of a task is valid, which optional component is out."""
        frame = rewards(table, self.rubric)
        for row in frame[frame["reward"].isna() & (frame["reason"] != "")].itertuples():
            cause = str(row.reason).partition(":")[0]
            if cause not in self._said:
                self._said.add(cause)
                self.log.say(f"without a reward, and left out: candidate {row.candidate} of {row.sample}: {row.reason}")
        paid = [component.label for component in self.rubric.components if component.weight > 0]
        for found in nothing_valid(table, paid):
            if (task := f"task {found['task']}") not in self._said:
                self._said.add(task)
                for line in in_words(found):
                    self.log.say(line, style="bold red")
        optional = {component.label for component in self.rubric.components if not component.required}
        out = table.frame[table.frame["verifier"].isin(optional) & table.frame["status"].isin(["error", "timeout"])]
        for row in out.drop_duplicates("verifier").itertuples():
            if (label := str(row.verifier)) not in self._said:
                self._said.add(label)
                self.log.say(f"{row.verifier!r}, which is optional, is out where it fails: {row.sample}: {row.reason}")

    def _dump(
        self,
        step: int,
        samples: Sequence[Sample],
        outputs: Sequence[Output],
        table: ScoreTable,
        given: Sequence[float | None],
    ) -> None:
        folder = self.config.out / "dumps" / f"step_{step:06d}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        write_dump(folder, samples, outputs, table, given, self.rubric.dump())

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of scoring."""
        state = {"breaker": self.breaker.state_dict(), "scorer": self.scorer.state_dict()}
        if self._behind is not None:
            state |= {"scorer": self._behind["scorer"], "behind": self._behind}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
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
