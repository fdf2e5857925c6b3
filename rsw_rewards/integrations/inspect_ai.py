"""A scorer for Inspect (inspect_ai): the reward and each component, with the status of each in the metadata."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

from rsw_rewards.core.answer import TRUNCATED
from rsw_rewards.core.records import Output
from rsw_rewards.engine.reward import Result
from rsw_rewards.errors import InputError
from rsw_rewards.integrations.adapter import Adapter
from rsw_rewards.io.chat_reply import Answer
from rsw_rewards.io.given_images import images_of


def make_scorer(
    rubric: Any, samples: Any = None, *, key: str = "", truth: tuple[str, str] | None = None, **settings: Any
) -> Any:
    """A scorer for a task of Inspect, with the mean and the standard error of the reward and of each component.

    Args:
        rubric, samples, truth, settings: as for :class:`~rsw_rewards.integrations.adapter.Adapter`. A field that ``truth`` names is
            the target of Inspect's sample.
        key: the entry of the metadata of Inspect's sample with the id of the sample, the whole sample, or the field that ``truth``
            names. Where left out, it is the id of Inspect's sample, or its target under ``truth``.

    An output without a reward is unscored: Inspect leaves it out of all metrics and counts it in ``unscored_samples``.

    >>> scored = score_of(rsw.Result(0.5, {"exact_match": rsw.Score(0.5, "ok")}), ["exact_match"])
    >>> scored["value"], scored["metadata"]["status"]
    ({'reward': 0.5, 'exact_match': 0.5}, {'exact_match': 'ok'})
    """
    from inspect_ai.scorer import Score, mean, scorer, stderr

    adapter = Adapter(rubric, samples, truth=truth, alone="Inspect shows a scorer one output at a time", **settings)

    @scorer(metrics={name: [mean(), stderr()] for name in ("reward", *adapter.labels)}, name="rsw")
    def make() -> Callable[[Any, Any], Awaitable[Any]]:
        async def score(state: Any, target: Any) -> Any:
            if key and key not in state.metadata:
                raise InputError(f"the metadata of the sample {state.sample_id!r} have no {key!r}")
            texts = list(target)
            of_target = texts[0] if len(texts) == 1 else texts
            asked = state.metadata[key] if key else of_target if truth else state.sample_id
            sample = adapter.sample(asked, images_of(state.input))
            result = await adapter.reward.aone(_output(state.output), sample)
            fields = score_of(result, adapter.labels)
            return Score.unscored(**fields) if result.reward is None else Score(**fields)

        return score

    return make()


def score_of(result: Result, labels: list[str]) -> dict[str, Any]:
    """The fields of Inspect's ``Score`` that a result becomes; without ``value`` where there is no reward."""
    parts = result.parts
    invalid = next((score.reason for score in parts.values() if score.status == "invalid_output"), None)
    metadata = {
        "status": {label: str(score.status) for label, score in parts.items()},
        "reasons": {label: score.reason for label, score in parts.items() if score.reason},
    }
    values = {label: np.nan if score.value is None else score.value for label, score in parts.items()}
    if result.reward is None:
        return {"reason": "scoring_failed", "explanation": result.reason, "metadata": {**metadata, "values": values}}
    value = {"reward": result.reward, **{label: values.get(label, np.nan) for label in labels}}
    reason = None if invalid is None else "invalid_response_format"
    return {"value": value, "reason": reason, "explanation": invalid, "metadata": metadata}


def _output(output: Any) -> Output:
    """What the model answered last, with what Inspect says of its end."""
    if output.empty:
        return Output(lost=f"the model gave no output: {output.error or 'Inspect says no more'}")
    stopped = "length" if output.stop_reason in TRUNCATED else output.stop_reason
    return Output(text=output.completion, invalid=Answer(output.completion, stopped).problem or None)
