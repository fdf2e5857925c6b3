"""Watching a training: held-out numbers while it goes on, and an alarm where the reward rises while they fall.

A reward is what a policy is paid for, not what is wanted. Numbers that are never a reward are the only witnesses of the
difference, so they are measured during training as well, and it is said at once when they contradict the reward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rsw_rewards.config import ExperimentConfig
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.core.verifier import Batch
from rsw_rewards.errors import InputError
from rsw_rewards.rollouts.pool import RolloutPool
from rsw_rewards.training.agreement import (
    AGREEMENT,
    CLEAR,
    CLEAR_FROM,
    PROMPTS,
    agreements_by_prompt,
    generations,
    lowest,
)
from rsw_rewards.training.generation import Generation
from rsw_rewards.training.heldout import Change, Heldout, changes_record, first_of_each_task
from rsw_rewards.training.log_rows import append_row, keep_until, read_log
from rsw_rewards.training.runlog import RunLog, say

REWARD = "reward_mean/"
"""Before a task's name, the logged number that rises: the mean weighted sum of what the components gave, before anything is
normalised."""


def reward_rise(rewards: Sequence[float], steps: int) -> float | None:
    """How much the mean reward has risen so far: its mean over the newest steps less that over the first ones.

    Args:
        rewards: mean training reward, generation by generation.
        steps: length of the whole run, a fifth of which is averaged over at either end, but never more than half of what there
            is. One generation differs from the next by its prompts.

    Returns:
        None for fewer than two generations.
    """
    window = min(max(1, steps // 5), len(rewards) // 2)
    return float(np.mean(rewards[-window:]) - np.mean(rewards[:window])) if window else None


@dataclass(frozen=True, slots=True)
class Alarm:
    """A held-out number that nobody is paid for got worse while the reward rose."""

    step: int
    change: Change
    rise: float

    def __str__(self) -> str:
        change, low_high = self.change, self.change.difference.ci95 or (float("nan"),) * 2
        return (
            f"ALARM after step {self.step}: the reward rose by {self.rise:.3f} while {change.metric} ({change.mode}), which is never "
            f"rewarded, got worse: {change.before.value:.3f} -> {change.after.value:.3f}, {change.difference.value:+.3f} "
            f"[{low_high[0]:+.3f}, {low_high[1]:+.3f}]; look at what the policy draws and says before you trust the reward"
        )

    def record(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "step": self.step,
            "mode": self.change.mode,
            "metric": self.change.metric,
            "rise": self.rise,
            "words": str(self),
        }


def alarms(changes: Sequence[Change], rises: Mapping[str, float], step: int) -> list[Alarm]:
    """The rule: a metric whose verifier is no reward is worse than at the start, so that the 95 % interval of its paired difference
    over held-out scenes excludes zero, while the mean training reward of a task that it is measured on rose (:func:`reward_rise`
    above 0). Task by task, because in a mixed batch one task's ups and downs hide what happens to another.

    Each metric and each measurement is a test of its own at 2.5 % on the bad side: of a policy that only wanders, one metric
    looked at once raises a false alarm in 1 of 40 runs, and ten looks at two metrics do so now and then. An alarm that stays over
    several measurements is none of those.

    Args:
        changes: since before training.
        rises: of the reward, by the verifier of a change; see :func:`logged_rises`.
        step: steps done.
    """
    fallen = [change for change in changes if not change.rewarded and change.verdict == "worse"]
    return [Alarm(step, change, rise) for change in fallen if (rise := rises.get(change.verifier, 0.0)) > 0]


def agreement_numbers(heldout: Heldout, generation: Generation) -> dict[str, float | None]:
    """What is logged of a generation: how its rewards agree with every component that is measured and never rewarded.

    Components that rate a whole set, or ask a server, are left out.
    """
    labels = [
        label for label, one in heldout.scorer.by_name.items()
        if label not in heldout.trained and one.scope == "sample" and "endpoint" not in one.needs
    ]  # fmt: skip
    if not labels:
        return {}
    table = heldout.scorer.score(Batch.of(generation.paired, generation.outputs), only=labels)
    tasks = {sample.id: str(sample.task) for sample in generation.samples}
    paid = generation.rewards.set_index(["sample", "candidate"])["reward"]
    frame = table.frame.join(paid, on=["sample", "candidate"]).dropna(subset=["reward", "value"])
    numbers: dict[str, float | None] = {}
    for (task, label), rows in frame.groupby([frame["sample"].map(tasks), "verifier"]):
        found = agreements_by_prompt(list(rows["reward"]), list(rows["value"]), list(rows["sample"]))
        numbers[f"{AGREEMENT}{task}/{label}"] = float(np.mean(found)) if found else None
        numbers[f"{PROMPTS}{task}/{label}"] = float(len(found))
        numbers[f"{CLEAR}{task}/{label}"] = float(sum(one >= CLEAR_FROM for one in found))
    return numbers


class Watch:
    """Measures held-out samples every few steps, against the numbers from before training.

    Args:
        config: the run; ``measure.every`` says how often, ``measure.during`` on how many samples.
        heldout: what measures.
        before: its tables from before training.
        log: is told the numbers.
        resume_at: steps done already; what was measured from there on comes from a run that was interrupted.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        heldout: Heldout,
        before: Mapping[str, ScoreTable],
        log: RunLog,
        resume_at: int = 0,
    ) -> None:
        self.every, self.steps = config.measure.every, config.generation.steps
        self.heldout, self.log = heldout, log
        self.samples = first_of_each_task(heldout.samples, config.measure.during)
        kept = {sample.id for sample in self.samples}
        frame = before["greedy"].frame
        self.before = ScoreTable(frame[frame["sample"].isin(kept)].reset_index(drop=True))
        self._heard = generations(read_log(log.path))
        self.path = config.out / "heldout" / "during.jsonl"
        # What is measured after a step comes when the next generation is asked for, thus after that step's checkpoint: a run that is
        # taken up from there measures it again.
        boundary = config.generation.boundary
        self._last = max(0, resume_at - boundary)
        keep_until(self.path, resume_at - 1)
        looks = {step // self.every for step in range(boundary, self._last + 1, boundary)} - {0}
        if (there := len(read_log(self.path))) != len(looks):
            raise InputError(
                f"{self.path} holds {there} of the {len(looks)} measurements that were made before step {resume_at}; bring the file"
                " back from a copy, or start another run"
            )

    def hear(self, generation: Generation, step: int) -> None:
        """Hold the rewards of a generation against what is never rewarded; ``step`` steps are done."""
        numbers = agreement_numbers(self.heldout, generation)
        self.log.add(numbers)
        before = lowest(self._heard)
        self._heard += generations([{"step": step + 1, **numbers}])
        for task, alarm in lowest(self._heard).items():
            if task not in before:
                say(str(alarm), style="bold red")

    def look(self, pool: RolloutPool, step: int) -> None:
        """Measure if it is time: ``step`` steps are done, and the pool holds the weights that came of them."""
        if step // self.every <= self._last // self.every:
            return
        self._last = step
        tables = self.heldout.measure(pool, self.samples, ["greedy"])
        changes = self.heldout.compare({"greedy": self.before}, tables)
        shown = self.heldout.shown(changes)
        rises = logged_rises(self.log.path, self.steps, self.heldout)
        found = alarms(shown, rises, step)
        numbers: dict[str, float | None] = {f"heldout/{change.metric}": change.after.value for change in changes}
        self.log.add({**numbers, "alarms": float(len(found))})
        said = ", ".join(f"{change.metric} {_value(change)}" for change in shown)
        say(f"held-out after step {step} ({len(self.samples)} samples): {said}")
        for line in [*self.heldout.said_of(tables), *map(str, found)]:
            say(line, style="bold red")
        row = {"step": step, "n": len(self.samples), "reward_rise": rises, "changes": changes_record(changes)}
        append_row(self.path, {**row, "alarms": [alarm.record() for alarm in found]})


def logged_rises(path: Path, steps: int, heldout: Heldout) -> dict[str, float]:
    """:func:`reward_rise` by a run's ``log.jsonl``, for each measured component the greatest among the tasks that it measures."""
    rows = read_log(path)
    found: dict[str, float] = {}
    for label, tasks in heldout.tasks.items():
        logged = ([row[REWARD + task] for row in rows if row.get(REWARD + task) is not None] for task in sorted(tasks))
        rises = [rise for rewards in logged if (rise := reward_rise(rewards, steps)) is not None]
        if rises:
            found[label] = max(rises)
    return found


def _value(change: Change) -> str:
    if change.after.value is None:
        return "-"
    between = change.difference.ci95
    return f"{change.after.value:.3f}" + (
        f" ({change.difference.value:+.3f} [{between[0]:+.3f}, {between[1]:+.3f}])" if between else ""
    )
