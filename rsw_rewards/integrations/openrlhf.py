"""A reward function for OpenRLHF, for a file that ``--reward.remote_url`` names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rsw_rewards.integrations.adapter import Adapter, from_text
from rsw_rewards.serve.compatible import completion


def make_reward(
    rubric: Any, samples: Any = None, *, end: str | Sequence[str], truth: tuple[str, str] | None = None, **settings: Any
) -> Callable[[Sequence[str], Sequence[str], Sequence[Any]], dict[str, Any]]:
    """What the file calls ``reward_func``. It is asked about one output at a time.

    Args:
        rubric, samples, truth, settings: as for :class:`~rsw_rewards.integrations.adapter.Adapter`. A label is the id of a sample, a
            whole sample as JSON, or the field that ``truth`` names.
        end: the tokens that may end a text, as ``tokenizer.eos_token``. A text without was cut off, and is invalid.

    Returns:
        A function of queries, prompts and labels, n texts each. It gives ``rewards`` and ``scores``, float tensors of shape (n,), and
        ``extra_logs``, such a tensor for every component. It raises :class:`rsw_rewards.RunStopped` where there is no reward.

    >>> sample = {"id": "a", "task": "change_qa", "reference": {"answers": "yes", "vocabulary": ["yes", "no"]}}
    >>> reward_func = make_reward({"exact_match": 1.0}, [sample], end="</s>")
    >>> reward_func(["Changed? yes</s>", "Changed? yes"], ["Changed? "] * 2, ["a", "a"])["rewards"].tolist()
    [1.0, 0.0]
    """
    adapter = Adapter(rubric, samples, truth=truth, alone="OpenRLHF shows one output at a time", **settings)
    ends = (end,) if isinstance(end, str) else tuple(end)

    def reward_func(queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any]) -> dict[str, Any]:
        import torch

        outputs = [from_text(*completion(query, prompt, ends)) for query, prompt in zip(queries, prompts, strict=True)]
        results = adapter.reward.many(outputs, [adapter.sample(label) for label in labels], range(len(outputs)))
        rewards = torch.tensor([adapter.number(result) for result in results])
        logged = [adapter.logged(result) for result in results]
        extra = {label: torch.tensor([row[label] for row in logged]) for label in adapter.labels}
        return {"rewards": rewards, "scores": rewards, "extra_logs": extra}

    return reward_func
