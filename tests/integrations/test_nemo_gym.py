"""Our reward as a resources server of NeMo-Gym: bodies as its clients send them, and one such client over HTTP."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import pytest

import rsw_rewards as rsw
from rsw_rewards.integrations.nemo_gym import make_verify
from tests.foreign import package
from tests.integrations.shown import QUESTIONS, RUBRIC, TEXTS, expected, share


def body(text: str | None, **response: Any) -> dict[str, Any]:
    """A body as NeMo-Gym sends it, with reasoning before the message."""
    message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
    output = [{"type": "reasoning", "summary": []}, *([] if text is None else [message])]
    return {"id": "a", "responses_create_params": {"input": "Changed?"}, "response": {"output": output, **response}}


def ask(rubric: Any, body: dict[str, Any], **settings: Any) -> dict[str, Any]:
    reply = asyncio.run(make_verify(rubric, QUESTIONS, **settings)(body))
    assert json.loads(json.dumps(reply, allow_nan=False)) == reply and reply.items() >= body.items()
    return reply


def test_rewards_and_components() -> None:
    replies = [ask(RUBRIC, body(text, status="completed")) for text in TEXTS]
    assert [reply["reward"] for reply in replies] == pytest.approx(expected(TEXTS))
    assert not any(reply["mask_sample"] for reply in replies)
    assert (replies[0]["rsw_exact_match"], replies[0]["rsw_answer_format"]) == (1.0, 1.0)


def test_what_is_no_whole_answer_is_invalid() -> None:
    refused = body("")
    refused["response"]["output"][-1]["content"] = [{"type": "refusal", "refusal": "I cannot"}]
    for one in (
        body("yes", status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
        body("yes", status="incomplete", incomplete_details={"reason": "content_filter"}),
        body("yes", incomplete_details={"reason": "max_output_tokens"}),
        body(None),
        refused,
    ):
        reply = ask(RUBRIC, one)
        assert (reply["reward"], reply["mask_sample"]) == (0.0, False)


def test_what_has_no_reward_is_masked() -> None:
    for rubric, one, why in (
        (share, body("broken"), "share: "),
        (share, body("nan"), "share: "),
        (RUBRIC, body("yes", status="failed", error={"code": "server_error"}), "server_error"),
    ):
        reply = ask(rubric, one)
        assert reply["mask_sample"] and why in reply["failure_reason"]
    assert ask(share, body("nan"))["rsw_share"] is None
    for bad in ({"id": "a"}, {"id": "a", "response": "yes"}, {"sample": "a"}):
        with pytest.raises(rsw.InputError, match="the body has no"):
            ask(RUBRIC, bad)


def test_a_client_of_nemo_gym_gets_our_rewards_over_http() -> None:
    """PrimeIntellect's verifiers asks resources servers of NeMo-Gym."""
    package("verifiers.v1")
    uvicorn, fastapi = package("uvicorn"), package("fastapi")
    from verifiers.v1.tasksets.nemo_gym.taskset import NeMoGymData, NeMoGymTask
    from verifiers.v1.tasksets.nemo_gym.toolset import NeMoGymState

    from tests.integrations.test_verifiers import real_trace

    app = fastapi.FastAPI()
    app.post("/verify")(make_verify(RUBRIC, QUESTIONS))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        task = NeMoGymTask(NeMoGymData(row={"id": "a", "responses_create_params": {"input": "Changed?"}}))

        def scored(text: str) -> Any:
            trace = real_trace(task, text)
            trace.state = NeMoGymState(resources_url=f"http://127.0.0.1:{port}")
            asyncio.run(task.score(trace))
            return trace

        assert [scored(text).reward for text in TEXTS] == pytest.approx(expected(TEXTS))
        assert scored("yes").metrics == {"rsw_exact_match": 1.0, "rsw_answer_format": 1.0, "mask_sample": 0.0}
    finally:
        server.should_exit = True
        thread.join()
