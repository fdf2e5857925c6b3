"""A reward for NeMo-Gym: what a resources server answers to ``/verify``, as JSON in and JSON out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from rsw_rewards.core.records import Output
from rsw_rewards.errors import InputError
from rsw_rewards.integrations.adapter import Adapter
from rsw_rewards.io.chat_reply import Answer
from rsw_rewards.io.given_images import images_of

_FINISHED = {"max_output_tokens": "length", "content_filter": "content_filter"}


def make_verify(
    rubric: Any, samples: Any = None, *, key: str = "id", truth: tuple[str, str] | None = None, **settings: Any
) -> Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]:
    """An async function from the body of a request to ``/verify`` to the reply.

    Args:
        rubric, samples, truth, settings: as for :class:`~rsw_rewards.integrations.adapter.Adapter`.
        key: the field of the body with the id of the sample, the whole sample, or the field that ``truth`` names.

    The reply is the body with ``reward``, ``mask_sample`` and ``rsw_COMPONENT`` for each component, None where it has no value. Where
    there is no reward, ``mask_sample`` is True, ``failure_reason`` says why, and ``reward`` is 0 only because a number must stand there.
    The function raises :class:`rsw_rewards.InputError` for a body that cannot be used.

    >>> import asyncio
    >>> sample = {"id": "a", "task": "change_qa", "reference": {"answers": "yes", "vocabulary": ["yes", "no"]}}
    >>> message = {"type": "message", "content": [{"type": "output_text", "text": "yes"}]}
    >>> body = {"id": "a", "response": {"status": "completed", "output": [message]}}
    >>> reply = asyncio.run(make_verify({"exact_match": 1.0}, [sample])(body))
    >>> reply["reward"], reply["rsw_exact_match"], reply["mask_sample"]
    (1.0, 1.0, False)
    """
    adapter = Adapter(
        rubric, samples, truth=truth, alone="NeMo-Gym shows a resources server one output at a time", **settings
    )

    async def verify(body: dict[str, Any]) -> dict[str, Any]:
        if key not in body:
            raise InputError(f"the body has no field {key!r}; name the one with the sample by 'key'")
        asked = body.get("responses_create_params") or {}
        sample = adapter.sample(body[key], images_of(asked.get("input")))
        result = await adapter.reward.aone(_output(body.get("response")), sample)
        failed = {} if result.reward is not None else {"failure_reason": result.reason}
        values = {
            f"rsw_{label}": None if (score := result.parts.get(label)) is None else score.value
            for label in adapter.labels
        }
        return {**body, **values, "reward": result.reward or 0.0, "mask_sample": result.reward is None, **failed}

    return verify


def _output(response: Any) -> Output:
    """The last message of a response in the form of OpenAI's Responses."""
    if not isinstance(response, Mapping) or not isinstance(response.get("output"), list):
        raise InputError("the body has no 'response' with a list 'output', as OpenAI's Responses have")
    if (status := response.get("status") or "completed") not in ("completed", "incomplete"):
        return Output(lost=f"the response is {status}: {response.get('error') or 'nothing says why'}")
    messages = [item for item in response["output"] if item.get("type") == "message"]
    content = messages[-1]["content"] if messages else []
    parts = [{"type": "output_text", "text": content}] if isinstance(content, str) else content
    why = (response.get("incomplete_details") or {}).get("reason", "")
    answer = Answer(
        "".join(part["text"] for part in parts if part["type"] == "output_text"),
        _FINISHED.get(why, "length" if status == "incomplete" else ""),
        refusal=" ".join(part["refusal"] for part in parts if part["type"] == "refusal"),
        reasoned=any(item.get("type") == "reasoning" for item in response["output"]),
    )
    return Output(text=answer.text if messages else None, invalid=answer.problem or None)
