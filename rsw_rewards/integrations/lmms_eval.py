"""``process_results`` and aggregations for a task of lmms-eval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rsw_rewards.errors import InputError
from rsw_rewards.integrations.adapter import from_text, shared


def make_process_results(
    rubric: Any, samples: Any = None, *, key: str = "id", truth: tuple[str, str] | None = None, **settings: Any
) -> Callable[..., dict[str, Any]]:
    """A function of a document and its results, for ``process_results`` of a task.

    Args:
        rubric, samples, truth, settings: as for :class:`~rsw_rewards.integrations.adapter.Adapter`.
        key: the field of the document with the id of the sample, the whole sample, or the field that ``truth`` names.

    The function gives, of the first result, ``rsw`` (the reward) and ``rsw_COMPONENT`` as mappings with ``score``, ``status`` and
    ``reason``, and ``rsw_unscored``, which is 1 where there is no reward. What failed has no ``score``: take :func:`mean` over it.

    >>> sample = {"id": "a", "task": "change_qa", "reference": {"answers": "yes", "vocabulary": ["yes", "no"]}}
    >>> process_results = make_process_results({"exact_match": 1.0}, [sample])
    >>> process_results({"id": "a"}, ["yes"])["rsw"]
    {'status': 'ok', 'reason': '', 'score': 1.0}
    """
    alone = "lmms-eval shows one output at a time"
    adapter = shared(
        rubric, samples, truth=truth, alone=alone, **settings
    )  # lmms-eval runs a task's file several times

    def process_results(doc: Mapping[str, Any], results: Sequence[str], **unused: Any) -> dict[str, Any]:
        if key not in doc:
            raise InputError(f"the document has no field {key!r}; name the one with the sample by 'key'")
        result = adapter.reward.one(from_text(results[0], False), adapter.sample(doc[key]))
        parts = {
            f"rsw_{label}": _item(score.value, str(score.status), score.reason) for label, score in result.parts.items()
        }
        unscored = result.reward is None
        whole = _item(result.reward, "error" if unscored else "ok", result.reason)
        return {**parts, "rsw": whole, "rsw_unscored": float(unscored)}

    return process_results


def _item(score: float | None, status: str, reason: str) -> dict[str, Any]:
    """A value as lmms-eval logs it. Its standard error is over the items that hold ``score``."""
    return {"status": status, "reason": reason, **({} if score is None else {"score": score})}


def mean(items: Sequence[Mapping[str, Any]]) -> float:
    """The mean of the items with a score; NaN where none has one.

    >>> mean([{"score": 1.0}, {"status": "error"}, {"score": 0.5}])
    0.75
    """
    scores = [item["score"] for item in items if "score" in item]
    return float(np.mean(scores)) if scores else float("nan")


def total(items: Sequence[float]) -> float:
    """The sum, which of ``rsw_unscored`` is the number of documents without a reward.

    >>> total([0.0, 1.0, 1.0])
    2.0
    """
    return float(sum(items))
