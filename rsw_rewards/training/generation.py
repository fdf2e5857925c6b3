"""A generation: the outputs of some prompts, their scores, and the reward of each, which is computed once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

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
