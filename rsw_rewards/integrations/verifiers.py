"""A reward for PrimeIntellect's verifiers and prime-rl, for a file that their configuration names or a method of a task."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from rsw_rewards.core.records import Output
from rsw_rewards.errors import InputError
from rsw_rewards.integrations.adapter import Adapter, from_text
from rsw_rewards.io.given_images import images_of


def make_reward(
    rubric: Any, samples: Any = None, *, key: str = "id", truth: tuple[str, str] | None = None, **settings: Any
) -> Callable[[Any, Any], Awaitable[float]]:
    """An async function of a task and a trace, which gives the reward and records the value of each component as a metric.

    Args:
        rubric, samples, truth, settings: as for :class:`~rsw_rewards.integrations.adapter.Adapter`.
        key: the field of the task's data with the id of the sample, the whole sample, or the field that ``truth`` names.

    The function raises :class:`rsw_rewards.RunStopped` where there is no reward; verifiers records it as a ``TaskError``.

    >>> import asyncio
    >>> from types import SimpleNamespace
    >>> sample = {"id": "a", "task": "change_qa", "reference": {"answers": "yes", "vocabulary": ["yes", "no"]}}
    >>> trace = SimpleNamespace(
    ...     assistant_messages=[SimpleNamespace(content="yes")], root_reply=None, is_truncated=False, stop_condition="agent_completed", metrics={}
    ... )
    >>> asyncio.run(make_reward({"exact_match": 1.0}, [sample])(SimpleNamespace(id="a"), trace)), trace.metrics
    (1.0, {'exact_match': 1.0})
    """
    adapter = Adapter(rubric, samples, truth=truth, alone="verifiers shows a reward one trace at a time", **settings)

    async def rsw(task: Any, trace: Any) -> float:
        data = getattr(task, "data", task)  # a method is given the task, a function of a file its data
        if not hasattr(data, key):
            raise InputError(f"the data of the task have no field {key!r}; name the one with the sample by 'key'")
        trace.metrics.update(dict.fromkeys(adapter.labels))
        sample = adapter.sample(getattr(data, key), images_of(getattr(data, "prompt", None)))
        result = await adapter.reward.aone(_output(trace), sample)
        trace.metrics.update({label: score.value for label, score in result.parts.items()})
        return adapter.number(result)

    return rsw


def _output(trace: Any) -> Output:
    """What the root agent answered last; verifiers says whether a limit of tokens or turns cut it off."""
    if trace.stop_condition == "agent_timeout" or not trace.assistant_messages:
        return Output(lost=f"the model did not finish an answer; verifiers says {trace.stop_condition}")
    text = trace.assistant_messages[-1].content if trace.root_reply is None else trace.root_reply
    return from_text(text, trace.is_truncated)
