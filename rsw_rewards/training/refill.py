"""Prompts that replace groups from which nothing can be learnt: the dynamic sampling of DAPO (arXiv 2503.14476), with a bound.

Where all candidates of a prompt earn the same, none has an advantage, and the rollouts were for nothing. Which prompts are drawn
in their place is a function of seed, step and what was found without spread, so a resumed run draws the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import pandas as pd

from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.rewards import tied
from rsw_rewards.core.scores import ScoreTable


def without_spread(rewards: pd.DataFrame) -> set[str]:
    """The samples whose candidates all have one reward, or of which fewer than two have one.

    Args:
        rewards: of one generation, as ``rubric.rewards`` gives them.
    """
    by_sample = rewards.groupby("sample")["reward"]
    low, high = by_sample.min(), by_sample.max()
    return set(low.index[low.isna() | tied(low, high)])


def reserve(samples: Iterable[Sample], asked: Iterable[str], seed: int, step: int) -> dict[str, Iterator[Sample]]:
    """Further prompts of each task in the order in which they are drawn, without those that a generation asked for already."""
    taken = set(asked)
    by_task: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.id not in taken:
            by_task.setdefault(str(sample.task), []).append(sample)
    return {task: iter(_shuffled(listed, [seed, step, 2, *task.encode()])) for task, listed in by_task.items()}


def _shuffled(samples: Sequence[Sample], key: Sequence[int]) -> list[Sample]:
    return [samples[place] for place in np.random.default_rng(key).permutation(len(samples))]


@dataclass(slots=True)
class Refilled:
    """A generation after its groups without spread were replaced as far as the bound allowed."""

    samples: list[Sample]
    outputs: list[Output]
    """Group by group in the order of ``samples``."""
    table: ScoreTable
    everything: ScoreTable
    """Scores of all that was made, also of what is learnt nothing from."""
    drawn: list[Output] = field(default_factory=list)
    """All further rollouts."""
    replaced: int = 0

    def numbers(self) -> dict[str, float | None]:
        """For the log: what was drawn beyond the generation, and how much of it is learnt from."""
        return {
            "refill/prompts": float(len({output.sample_id for output in self.drawn})),
            "refill/replaced": float(self.replaced),
            "refill/rollouts": float(len(self.drawn)),
            "refill/tokens": float(sampled_tokens(self.drawn)),
        }


def sampled_tokens(outputs: Iterable[Output]) -> int:
    """Completion tokens that were sampled."""
    return sum(len(output.tokens.completion_ids) for output in outputs if output.tokens is not None)


def refill(
    samples: Sequence[Sample],
    outputs: Sequence[Output],
    table: ScoreTable,
    *,
    bound: int,
    more: Mapping[str, Iterator[Sample]],
    make: Callable[[Sequence[Sample]], tuple[list[Output], ScoreTable]],
    flat: Callable[[ScoreTable], set[str]],
) -> Refilled:
    """Replace groups without spread by groups with one, of the same task, until all are replaced or ``bound`` prompts were drawn.

    Each round draws one prompt per group that is still to be replaced. A drawn group without spread is dropped.

    Args:
        samples, outputs, table: the generation; outputs group by group.
        bound: prompts that may be drawn.
        more: further prompts by task, see :func:`reserve`.
        make: lets the pool make groups of samples, and scores them.
        flat: the samples without spread in a table, see :func:`without_spread`.
    """
    kept = {sample.id: sample for sample in samples}  # by the prompt that was asked for first
    made = {sample.id: [output for output in outputs if output.sample_id == sample.id] for sample in samples}
    tables, drawn = [table], []
    waiting = [sample for sample in samples if sample.id in flat(table)]
    while waiting and bound > 0:
        further = (next(more.get(str(old.task), iter(())), None) for old in waiting)
        fresh = list(islice((new for new in further if new is not None), bound))
        if not fresh:
            break
        bound -= len(fresh)
        new_outputs, new_table = make(fresh)
        drawn += new_outputs
        tables.append(new_table)
        empty = flat(new_table)
        for new in fresh:
            place = next((old for old in waiting if old.task == new.task), None)
            if new.id not in empty and place is not None:
                waiting.remove(place)
                kept[place.id] = new
                made[place.id] = [output for output in new_outputs if output.sample_id == new.id]
    everything = ScoreTable.concat(tables)
    final = [kept[sample.id] for sample in samples]
    frame = everything.frame
    learnt = ScoreTable(frame[frame["sample"].isin({sample.id for sample in final})].reset_index(drop=True))
    replaced = sum(kept[sample.id] is not sample for sample in samples)
    rows = [output for sample in samples for output in made[sample.id]]
    return Refilled(final, rows, learnt, everything, drawn, replaced)
