"""Whether the reward and what is wanted agree on which rollouts of a prompt are better.

A policy moves towards the rollouts that earn more than their siblings. Where a number that is never rewarded finds these no better, it
will not rise; where it finds them worse, it will fall. That can be seen in the rollouts before it has fallen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rsw_rewards.core.rewards import tied

AGREEMENT = "agreement/"
"""Before ``<task>/<component>``, the logged number: the mean of :func:`agreements_by_prompt` of the task's rewards and the component."""
PROMPTS = "agreement_prompts/"
"""Before the same, over how many prompts that is."""
LOW = 0.3
"""The alarm rings below it. Chosen by benchmarks/alarms.py on other seeds than those that it reports."""
NEWEST = 6
"""Prompts that the mean is over at least, the newest ones."""
LOOKED_AT = 50
"""Steps back that these prompts are looked for."""


def agreements_by_prompt(rewards: Sequence[float], values: Sequence[float], prompts: Sequence[str]) -> list[float]:
    """The correlation of rewards and values among the rollouts of each prompt.

    A prompt whose rewards are all the same teaches nothing and is left out. One whose values are all the same counts as 0: what is
    learnt from it has nothing to do with them.

    Args:
        rewards: of every rollout.
        values: what something else gives to the same rollouts, higher is better.
        prompts: the prompt of each.

    Returns:
        Numbers in [-1, 1].

    Example:
        >>> agreements_by_prompt([0.0, 1.0, 0.0, 1.0], [0.2, 0.4, 0.7, 0.7], ["a", "a", "b", "b"])
        [1.0, 0.0]
    """
    found = []
    where, paid, wanted = np.asarray(prompts), np.asarray(rewards, np.float64), np.asarray(values, np.float64)
    for prompt in dict.fromkeys(prompts):
        x, y = paid[where == prompt], wanted[where == prompt]
        if tied(x.min(), x.max()):
            continue
        if tied(y.min(), y.max()):
            found.append(0.0)
            continue
        x, y = x - x.mean(), y - y.mean()
        found.append(float((x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum())))
    return found


@dataclass(frozen=True, slots=True)
class Disagreement:
    """The rollouts of a task that earn more are hardly better by what is never rewarded."""

    step: int
    component: str
    """``<task>/<component>``, the component of the task that agrees most."""
    agreement: float
    prompts: int

    def __str__(self) -> str:
        return (
            f"ALARM at step {self.step}: rollouts with higher rewards than others for the same prompt are hardly better in any metric that is never rewarded: "
            f"the correlation with {self.component} is {self.agreement:.2f} over the newest {self.prompts} prompts, below {LOW}; "
            "look at the outputs that earn most before you trust the reward"
        )

    def record(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "step": self.step,
            "metric": AGREEMENT + self.component,
            "agreement": self.agreement,
            "words": str(self),
        }


def newest_agreement(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[float, int] | None:
    """The mean agreement over the newest generations that hold :data:`NEWEST` prompts, and how many there are; None with fewer.

    Args:
        rows: of ``log.jsonl``, step by step.
        name: ``<task>/<component>``.
    """
    total, prompts = 0.0, 0
    for row in reversed(rows):
        if count := int(row.get(PROMPTS + name) or 0):
            total, prompts = total + count * row[AGREEMENT + name], prompts + count
        if prompts >= NEWEST:
            return total / prompts, prompts
    return None


def generations(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows of a log that say how the rewards of a generation agreed; a generation may be learnt from in several steps."""
    return [row for row in rows if any(key.startswith(AGREEMENT) for key in row)]


def lowest(rows: Sequence[Mapping[str, Any]]) -> dict[str, Disagreement]:
    """The tasks of which even the component that agrees most has a mean agreement below :data:`LOW`, after the last of ``rows``.

    Rows more than :data:`LOOKED_AT` steps before the last are not looked at.
    """
    step = int(rows[-1]["step"]) if rows else 0
    rows = [row for row in rows[-LOOKED_AT:] if row["step"] > step - LOOKED_AT]
    names = dict.fromkeys(key.removeprefix(AGREEMENT) for row in rows for key in row if key.startswith(AGREEMENT))
    known = [(*newest, name) for name in names if (newest := newest_agreement(rows, name)) is not None]
    best = {name.partition("/")[0]: (value, prompts, name) for value, prompts, name in sorted(known)}
    return {task: Disagreement(step, name, value, prompts) for task, (value, prompts, name) in best.items() if value < LOW}  # fmt: skip


def disagreements(rows: Sequence[Mapping[str, Any]]) -> list[Disagreement]:
    """The alarms that the rows of a log give: one each time that a task begins to be among the :func:`lowest`."""
    found: list[Disagreement] = []
    before: dict[str, Disagreement] = {}
    heard = generations(rows)
    for end in range(1, len(heard) + 1):
        now = lowest(heard[max(0, end - LOOKED_AT) : end])
        found += [alarm for task, alarm in now.items() if task not in before]
        before = now
    return found


def alarms_so_far(during: Sequence[Mapping[str, Any]], log: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every alarm that was raised while a run went on, by its held-out measurements and its log, in the order of steps."""
    fallen = [alarm for row in during for alarm in row.get("alarms", ())]
    found = [*fallen, *(alarm.record() for alarm in disagreements(log))]
    return sorted(found, key=lambda alarm: int(alarm["step"]))
