"""Our reward in PrimeIntellect's verifiers: a task of its own scores a trace of its own."""

from __future__ import annotations

import asyncio
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import rsw_rewards as rsw
from rsw_rewards.integrations.verifiers import make_reward
from tests.foreign import package
from tests.integrations.shown import QUESTIONS, RUBRIC, TEXTS, expected, share

PAGE = (Path(__file__).parents[2] / "docs/integrations/verifiers.md").read_text()
FILE = """
from rsw_rewards.integrations.verifiers import make_reward
from tests.integrations.shown import QUESTIONS, RUBRIC
reward = make_reward(RUBRIC, QUESTIONS)
"""


def trace(text: str | None, *, cut_off: bool = False, stop: str = "agent_completed", answers: int = 1) -> Any:
    messages = [SimpleNamespace(content=text)] * answers
    return SimpleNamespace(
        assistant_messages=messages, root_reply=None, is_truncated=cut_off, stop_condition=stop, metrics={}
    )


def ask(rubric: Any, trace: Any, **data: Any) -> float:
    return asyncio.run(make_reward(rubric, QUESTIONS)(SimpleNamespace(**data), trace))


def test_rewards_and_components() -> None:
    assert [ask(RUBRIC, trace(text), id="a") for text in TEXTS] == pytest.approx(expected(TEXTS))
    ask(RUBRIC, seen := trace("yes"), id="a")
    assert seen.metrics == {"exact_match": 1.0, "answer_format": 1.0}
    assert ask(RUBRIC, trace("yes", cut_off=True), id="a") == 0.0
    assert ask(RUBRIC, trace(None), id="a") == 0.0


def test_what_has_no_reward_raises() -> None:
    with pytest.raises(rsw.RunStopped, match="the output has no reward: share"):
        ask(share, seen := trace("broken"), id="a")
    assert seen.metrics == {"share": None}
    for lost in (trace("ye", stop="agent_timeout"), trace("", answers=0)):
        with pytest.raises(rsw.RunStopped, match="the model did not finish an answer"):
            ask(RUBRIC, lost, id="a")
    with pytest.raises(rsw.InputError, match="have no field 'id'; name the one with the sample by 'key'"):
        ask(RUBRIC, trace("yes"), sample_id="a")


def real_trace(task: Any, text: str, finish_reason: str = "stop") -> Any:
    import verifiers.v1 as vf
    from verifiers.v1.configs.agent import WireAgentConfig

    return vf.Trace(
        task=vf.TraceTask(type="Task", data=task.data),
        agent=vf.AgentInfo(config=WireAgentConfig()),
        nodes=[vf.MessageNode(message=vf.AssistantMessage(content=text), sampled=True)],
        calls=[vf.ModelCall(node=0, finish_reason=finish_reason)],
    )


def test_a_task_with_the_toml_of_the_page_gives_our_rewards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vf = package("verifiers.v1")
    monkeypatch.chdir(tmp_path)
    Path("reward.py").write_text(FILE)
    block = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert block
    config = vf.TaskConfig.model_validate(tomllib.loads(block[1])["env"]["taskset"]["task"])
    task = vf.Task(vf.TaskData(id="a", prompt="Changed?"), config)

    def scored(text: str, finish_reason: str = "stop") -> Any:
        asyncio.run(task.score(seen := real_trace(task, text, finish_reason)))
        return seen

    assert [scored(text).reward for text in TEXTS] == pytest.approx(expected(TEXTS))
    assert scored("yes").metrics == {"exact_match": 1.0, "answer_format": 1.0}
    assert scored("yes", "length").rewards["rsw"].score == 0.0


def test_a_failure_in_a_method_of_a_task_is_typed_and_no_number() -> None:
    vf = package("verifiers.v1")

    class Question(vf.Task[vf.TaskData]):
        rsw = vf.reward(make_reward(share, QUESTIONS), weight=2.0)

    task = Question(vf.TaskData(id="a", prompt="Changed?"))
    asyncio.run(task.score(seen := real_trace(task, "0.5")))
    assert seen.reward == 1.0
    for text in ("broken", "nan"):
        with pytest.raises(vf.TaskError, match="the output has no reward: share"):
            asyncio.run(task.score(seen := real_trace(task, text)))
        assert seen.rewards == {"rsw": None} and seen.metrics == {"share": None}
