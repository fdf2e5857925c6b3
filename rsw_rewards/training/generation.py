"""A generation: the outputs of some prompts, their scores, and the reward of each, which is computed once.

Groups from which nothing can be learnt may be replaced: the dynamic sampling of DAPO (arXiv 2503.14476), with a bound. Where all candidates
of a prompt earn the same, none has an advantage, and the rollouts were for nothing. Which prompts are drawn in their place is a function of
seed, step and what was found without spread, so a resumed run draws the same ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice

import numpy as np
import pandas as pd

from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.rewards import rewards, tied
from rsw_rewards.core.rubric import Rubric
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.engine.monitor import component_stats
from rsw_rewards.evaluation.summary import in_words, nothing_valid


@dataclass
class Generation:
    """Outputs with their scores and rewards."""

    samples: list[Sample]
    outputs: list[Output]
    """Group by group in the order of ``samples``."""
    table: ScoreTable
    rewards: pd.DataFrame
    """Of the table, see :func:`rsw_rewards.core.rewards.rewards`."""

    @cached_property
    def given(self) -> list[float | None]:
        """The reward of each output; None where a verifier failed or the rollout was lost."""
        return _in_order(self.rewards, self.outputs)

    @cached_property
    def paired(self) -> list[Sample]:
        """The sample of each output."""
        by_id = {sample.id: sample for sample in self.samples}
        return [by_id[output.sample_id] for output in self.outputs]

    @cached_property
    def tasks(self) -> list[str]:
        """The task of each output."""
        return [str(sample.task) for sample in self.paired]

    @cached_property
    def flat(self) -> set[str]:
        """The samples without spread, see :func:`without_spread`."""
        return without_spread(self.rewards)


def _in_order(frame: pd.DataFrame, outputs: Sequence[Output]) -> list[float | None]:
    value = [None if np.isnan(reward) else float(reward) for reward in frame["reward"].to_numpy(np.float64)]
    found = dict(zip(zip(frame["sample"], frame["candidate"], strict=True), value, strict=True))
    return [found.get((output.sample_id, output.candidate)) for output in outputs]


def without_spread(rewards: pd.DataFrame) -> set[str]:
    """The samples whose candidates all have one reward, or of which fewer than two have one.

    Args:
        rewards: of one generation, as :func:`rsw_rewards.core.rewards.rewards` gives them.
    """
    by_sample = rewards.groupby("sample")["reward"]
    low, high = by_sample.min(), by_sample.max()
    return set(low.index[low.isna() | tied(low, high)])


def sampled_tokens(outputs: Iterable[Output]) -> int:
    """Completion tokens that were sampled."""
    return sum(len(output.tokens.completion_ids) for output in outputs if output.tokens is not None)


def lengths(outputs: Iterable[Output]) -> dict[str, float | None]:
    """Tokens of a rollout: ``length/mean``, ``length/min``, ``length/max``; None where the policy has no tokens."""
    found = [len(output.tokens.completion_ids) for output in outputs if output.tokens is not None]
    return {
        f"length/{name}": float(of(found)) if found else None
        for name, of in (("mean", np.mean), ("min", min), ("max", max))
    }


def commonest_share(outputs: Iterable[Output]) -> float | None:
    """The share of the most common text among the valid texts; None where there is none."""
    texts = Counter(output.text.strip() for output in outputs if output.text is not None and output.invalid is None)
    return max(texts.values()) / texts.total() if texts else None


def logged_numbers(generation: Generation, rubric: Rubric) -> dict[str, float | None]:
    """What is logged of a generation: statistics of each component, mean rewards by task, and counts."""
    numbers: dict[str, float | None] = dict(component_stats(generation.table, rubric))
    given, tasks, outputs = generation.given, generation.tasks, generation.outputs
    plain = given
    if rubric.combine != "weighted_sum":  # normalised rewards have the mean 0, whatever is learnt
        weighted = rubric.model_copy(update={"combine": "weighted_sum"})
        plain = _in_order(rewards(generation.table, weighted), outputs)
    for key, values in (("reward_task/", given), ("reward_mean/", plain)):
        for task in sorted(set(tasks)):
            known = [value for value, name in zip(values, tasks, strict=True) if name == task and value is not None]
            numbers[key + task] = float(np.mean(known)) if known else None
    return numbers | {
        "groups": float(len({output.sample_id for output in outputs})),
        "groups_zero_std": float(len(generation.flat)),
        "failed": float(sum(value is None for value in given)),
        "lost": float(sum(output.lost is not None for output in outputs)),
        "tokens": float(sampled_tokens(outputs)),
        "cut_off": float(np.mean([output.finish_reason == "length" for output in outputs])),
        "commonest_answer": commonest_share(outputs),
        **lengths(outputs),
    }


def remarks(generation: Generation, rubric: Rubric) -> Iterator[tuple[str, list[str], str | None]]:
    """Why rollouts have no reward, that no output of a task is valid, and which optional component is out.

    Yields:
        The cause, which is to be said once a run; the lines to say; their style on the console.
    """
    frame = generation.rewards
    for row in frame[frame["reward"].isna() & (frame["reason"] != "")].itertuples():
        why = f"without a reward, and left out: candidate {row.candidate} of {row.sample}: {row.reason}"
        yield str(row.reason).partition(":")[0], [why], None
    paid = [component.label for component in rubric.components if component.weight > 0]
    for found in nothing_valid(generation.table, paid):
        yield f"task {found['task']}", in_words(found), "bold red"
    optional = {component.label for component in rubric.components if not component.required}
    scores = generation.table.frame
    out = scores[scores["verifier"].isin(optional) & scores["status"].isin(["error", "timeout"])]
    for row in out.drop_duplicates("verifier").itertuples():
        why = f"{row.verifier!r}, which is optional, is out where it fails: {row.sample}: {row.reason}"
        yield str(row.verifier), [why], None


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
