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
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.training.generation import Generation, sampled_tokens


def reserve(samples: Iterable[Sample], taken: Iterable[str], seed: int, step: int) -> dict[str, Iterator[Sample]]:
    """Further prompts of each task in the order in which they are drawn, without those that a generation asked for already."""
    gone = set(taken)
    by_task: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.id not in gone:
            by_task.setdefault(str(sample.task), []).append(sample)
    return {task: iter(_shuffled(listed, [seed, step, 2, *task.encode()])) for task, listed in by_task.items()}


def _shuffled(samples: Sequence[Sample], key: Sequence[int]) -> list[Sample]:
    return [samples[place] for place in np.random.default_rng(key).permutation(len(samples))]


@dataclass(slots=True)
class Refilled:
    """A generation after its groups without spread were replaced as far as the bound allowed."""

    generation: Generation
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


def refill(
    generation: Generation,
    *,
    bound: int,
    more: Mapping[str, Iterator[Sample]],
    make: Callable[[Sequence[Sample]], Generation],
) -> Refilled:
    """Replace groups without spread by groups with one, of the same task, until all are replaced or ``bound`` prompts were drawn.

    Each round draws one prompt per group that is still to be replaced. A drawn group without spread is dropped. The reward of an
    output depends on its group alone, so none is computed again.

    Args:
        generation: what was asked for.
        bound: prompts that may be drawn.
        more: further prompts by task, see :func:`reserve`.
        make: lets the pool make groups of samples, and scores them.
    """
    kept = {sample.id: sample for sample in generation.samples}  # by the prompt that was asked for first
    parts, empty = [generation], generation.flat
    waiting = [sample for sample in generation.samples if sample.id in empty]
    while waiting and bound > 0:
        further = (next(more.get(str(old.task), iter(())), None) for old in waiting)
        fresh = list(islice((new for new in further if new is not None), bound))
        if not fresh:
            break
        bound -= len(fresh)
        parts.append(make(fresh))
        empty = parts[-1].flat
        for new in fresh:
            place = next((old for old in waiting if old.task == new.task), None)
            if new.id not in empty and place is not None:
                waiting.remove(place)
                kept[place.id] = new
    everything = ScoreTable.concat([part.table for part in parts])
    drawn = [output for part in parts[1:] for output in part.outputs]
    final = [kept[sample.id] for sample in generation.samples]
    names = {sample.id for sample in final}
    made: dict[str, list[Output]] = {}
    for output in (*generation.outputs, *drawn):
        made.setdefault(output.sample_id, []).append(output)
    rows = everything.frame[everything.frame["sample"].isin(names)].reset_index(drop=True)
    rewards = pd.concat([part.rewards for part in parts], ignore_index=True)
    learnt = Generation(
        final,
        [output for sample in final for output in made[sample.id]],
        ScoreTable(rows),
        rewards[rewards["sample"].isin(names)],
    )
    return Refilled(
        learnt, everything, drawn, sum(new.id != old.id for new, old in zip(final, generation.samples, strict=True))
    )
