"""Which samples each generation asks for: a pure function of seed and position, so that a resumed run asks for the same ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from rsw_rewards.core.records import Sample
from rsw_rewards.errors import ConfigError


def shares(samples: Sequence[Sample], prompts: int, mix: Mapping[str, int] | None) -> dict[str, int]:
    """Prompts per generation by task.

    Args:
        samples: what there is to train on.
        prompts: prompts per generation.
        mix: the shares, where the configuration gives them; else the tasks of ``samples`` share equally, the first
            (alphabetically) taking what is left over.

    Raises:
        ConfigError: a task without samples, or with fewer than one generation asks for.
    """
    counts = Counter(str(sample.task) for sample in samples)
    tasks = sorted(counts)
    if mix is None:
        mix = {task: prompts // len(tasks) + (number < prompts % len(tasks)) for number, task in enumerate(tasks)}
    for task, share in mix.items():
        if share > counts[task]:
            raise ConfigError(
                f"a generation asks for {share} samples of the task {task!r}, but the training data holds {counts[task]}"
            )
    return {task: share for task, share in sorted(mix.items()) if share}


def prompt_order(samples: Sequence[Sample], generations: int, share: Mapping[str, int], seed: int) -> list[str]:
    """Ids of the samples to ask for, generation after generation.

    Each task goes through its samples in shuffled epochs of its own. A longer run starts like a shorter one.
    A sample never stands twice in one generation.
    """
    by_task = {task: [sample.id for sample in samples if sample.task == task] for task in share}
    streams = {task: _epochs(ids, share[task], generations, seed, task) for task, ids in by_task.items()}
    return [
        sample
        for number in range(generations)
        for task, count in share.items()
        for sample in streams[task][number * count : (number + 1) * count]
    ]


def _epochs(ids: Sequence[str], share: int, generations: int, seed: int, task: str) -> list[str]:
    """Shuffled epochs cut to whole generations, so that no generation spans two and meets a sample twice."""
    usable = len(ids) - len(ids) % share
    order: list[str] = []
    epoch = 0
    while len(order) < generations * share:
        rng = np.random.default_rng([seed, epoch, *task.encode()])
        order.extend(ids[place] for place in rng.permutation(len(ids))[:usable])
        epoch += 1
    return order
