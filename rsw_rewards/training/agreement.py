"""Whether the reward and what is wanted agree on which rollouts of a prompt are better.

A policy moves towards the rollouts that earn more than their siblings. Where a number that is never rewarded finds these no better, it
will not rise; where it finds them worse, it will fall. That can be seen in the rollouts before it has fallen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np

from rsw_rewards.core.rewards import tied

AGREEMENT = "agreement/"
"""Before ``<task>/<component>``, the logged number: the mean of :func:`agreements_by_prompt` of the task's rewards and the component."""
PROMPTS = "agreement_prompts/"
"""Before the same, over how many prompts that is."""
CLEAR = "agreement_clear/"
"""Before the same, on how many of these prompts they agree clearly: their correlation is :data:`CLEAR_FROM` or more."""
CLEAR_FROM = 0.8
EXPECTED = 0.85
"""The least share of prompts on which a sound reward agrees clearly."""
CHANCE = 0.02
"""The alarm is raised if a sound reward would agree clearly on so few prompts with less than this probability, ..."""
LOW = 0.6
"""... and if the mean agreement is below this too. All four were chosen on other seeds than those that benchmarks/alarms.py reports."""
NEWEST = 24
"""Prompts that are looked at, the newest ones, in whole generations; fewer where there are not yet so many."""
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


def chance_of(clear: int, prompts: int) -> float:
    """The probability that a sound reward agrees clearly on ``clear`` of so many prompts or fewer: a binomial tail.

    >>> chance_of(0, 2) > CHANCE > chance_of(0, 3)
    True
    """
    return sum(comb(prompts, k) * EXPECTED**k * (1 - EXPECTED) ** (prompts - k) for k in range(clear + 1))


@dataclass(frozen=True, slots=True)
class Disagreement:
    """On too many prompts of a task the rollouts that earn more are hardly better by what is never rewarded."""

    step: int
    component: str
    """``<task>/<component>``, the component of the task that agrees most."""
    clear: int
    """Prompts on which it agrees clearly."""
    prompts: int
    agreement: float
    """The mean over these prompts."""

    def __str__(self) -> str:
        return (
            f"ALARM at step {self.step}: rollouts with higher rewards than others for the same prompt are hardly better in any metric that is never rewarded: "
            f"rewards agree clearly with {self.component} on {self.clear} of the newest {self.prompts} prompts whose rewards differ, "
            f"and the mean correlation is {self.agreement:.2f}; "
            "look at the outputs that earn most before you trust the reward"
        )

    def record(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "step": self.step,
            "metric": AGREEMENT + self.component,
            "clear": self.clear,
            "prompts": self.prompts,
            "agreement": self.agreement,
            "words": str(self),
        }


def newest_agreement(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[int, int, float]:
    """On how many prompts the rewards agreed clearly, of how many, and the mean: of the newest generations that hold :data:`NEWEST`.

    Args:
        rows: of ``log.jsonl``, step by step.
        name: ``<task>/<component>``.
    """
    clear, prompts, total = 0, 0, 0.0
    for row in reversed(rows):
        if count := int(row.get(PROMPTS + name) or 0):
            clear, prompts, total = (
                clear + int(row[CLEAR + name]),
                prompts + count,
                total + count * row[AGREEMENT + name],
            )
        if prompts >= NEWEST:
            break
    return clear, prompts, total / max(prompts, 1)


def generations(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows of a log that say how the rewards of a generation agreed; a generation may be learnt from in several steps."""
    return [row for row in rows if any(key.startswith(AGREEMENT) for key in row)]


def lowest(rows: Sequence[Mapping[str, Any]]) -> dict[str, Disagreement]:
    """The tasks of which even the component that agrees most does so on too few prompts, after the last of ``rows``.

    Rows more than :data:`LOOKED_AT` steps before the last are not looked at.
    """
    step = int(rows[-1]["step"]) if rows else 0
    rows = [row for row in rows[-LOOKED_AT:] if row["step"] > step - LOOKED_AT]
    names = dict.fromkeys(key.removeprefix(CLEAR) for row in rows for key in row if key.startswith(CLEAR))
    found: dict[str, Disagreement] = {}
    for name in names:
        one, task = Disagreement(step, name, *newest_agreement(rows, name)), name.partition("/")[0]
        if one.prompts and (task not in found or one.clear * found[task].prompts > found[task].clear * one.prompts):
            found[task] = one
    return {
        task: one for task, one in found.items() if chance_of(one.clear, one.prompts) < CHANCE and one.agreement < LOW
    }


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
