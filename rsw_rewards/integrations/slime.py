"""A reward function and a reward post-processing for slime, for a file that its command line names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from rsw_rewards.core.records import Output
from rsw_rewards.integrations.adapter import Adapter, from_text, group_means
from rsw_rewards.io.given_images import images_of

_WITH_STD = ("grpo", "gspo", "cispo")


class RSWReward:
    """The two functions that slime takes: ``rm`` for ``--custom-rm-path``, ``post_process`` for ``--custom-reward-post-process-path``.

    Args:
        rubric, samples, truth, settings: as for :class:`~rsw_rewards.integrations.adapter.Adapter`. A sample's ``label`` is the id of
            one of ``samples``, a whole sample as JSON, or the field that ``truth`` names.

    Give both: a sample without a reward is removed from the loss by ``rm`` and from its group's mean by ``post_process``.

    >>> import asyncio
    >>> from types import SimpleNamespace
    >>> sample = {"id": "a", "task": "change_qa", "reference": {"answers": "yes", "vocabulary": ["yes", "no"]}}
    >>> rollout = SimpleNamespace(response="yes", label="a", status="completed", group_index=0, remove_sample=False)
    >>> asyncio.run(RSWReward({"exact_match": 1.0}, [sample]).rm(None, rollout))
    {'score': 1.0, 'exact_match': 1.0}
    """

    def __init__(
        self, rubric: Any, samples: Any = None, *, truth: tuple[str, str] | None = None, **settings: Any
    ) -> None:
        self.adapter = Adapter(rubric, samples, truth=truth, on_failure="drop", choices=("drop",), **settings)

    async def rm(self, args: Any, sample: Any, **unused: Any) -> Any:
        """``score`` and the value of every component, of one sample or, under ``--group-rm``, of each of a group.

        A text with the status ``truncated`` is invalid; one that is aborted or failed was lost, and has no reward.
        """
        many = sample if isinstance(sample, list) else [sample]
        outputs = [_output(one) for one in many]
        samples = [self.adapter.sample(one.label, images_of(getattr(one, "prompt", None))) for one in many]
        ask = self.adapter.reward.amany if isinstance(sample, list) else self._alone
        results = await ask(outputs, samples, [one.group_index for one in many])
        rows = []
        for one, result in zip(many, results, strict=True):
            one.remove_sample = one.remove_sample or result.reward is None
            rows.append({"score": np.nan if result.reward is None else result.reward, **self.adapter.logged(result)})
        return rows if isinstance(sample, list) else rows[0]

    async def _alone(self, outputs: list[Output], samples: list[Any], groups: Sequence[Any]) -> list[Any]:
        return [await self.adapter.reward.aone(outputs[0], samples[0])]

    def post_process(self, args: Any, samples: Sequence[Any]) -> tuple[list[float], list[float]]:
        """The rewards as they are logged, and those that slime trains on: normalised as its arguments say, over what has a reward."""
        samples = [one for part in samples for one in (part if isinstance(part, list) else [part])]
        groups = [one.group_index for one in samples]
        given = [None if np.isnan(one.reward["score"]) else one.reward["score"] for one in samples]
        raw = [float(reward or 0.0) for reward in group_means(given, groups)]
        if (
            args.advantage_estimator not in (*_WITH_STD, "reinforce_plus_plus_baseline")
            or not args.rewards_normalization
        ):
            return raw, raw
        divided = args.advantage_estimator in _WITH_STD and args.grpo_std_normalization
        rows: dict[Any, list[int]] = defaultdict(list)
        for row, (group, reward) in enumerate(zip(groups, given, strict=True)):
            if reward is not None:
                rows[group].append(row)
        trained = np.zeros(len(samples))
        for members in rows.values():
            if len(members) > 1:
                values = np.array([raw[row] for row in members])
                trained[members] = (values - values.mean()) / (values.std(ddof=1) + 1e-6 if divided else 1.0)
        return raw, trained.tolist()


def _output(sample: Any) -> Output:
    status = getattr(sample.status, "value", sample.status)
    if status in ("aborted", "failed"):
        return Output(lost=f"slime reports that the generation {status}")
    return from_text(sample.response, status == "truncated")
