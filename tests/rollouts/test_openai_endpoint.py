from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from rsw_rewards.cli import main
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.errors import ConfigError, RswError
from rsw_rewards.rollouts.policies import build_policy
from rsw_rewards.rollouts.policy import Request
from rsw_rewards.rollouts.pool import RolloutPool
from tests.chat_server import Reply, chat_server, completion


def sample(name: str = "s", **reference: Any) -> Sample:
    images = tuple(ImageRef(array=np.full((8, 12, 3), value, np.uint8)) for value in (10, 200))
    return Sample(name, Task.CHANGE_QA, images, "Did it change?", {"answers": ["yes"], **reference})


def test_both_images_and_the_prompt_are_sent_in_time_order() -> None:
    with chat_server(lambda body, number: completion("yes")) as server:
        policy = build_policy(
            {
                "use": "openai_endpoint",
                "base_url": server.url,
                "model": "m",
                "template": "{prompt} Choose: {vocabulary}.",
            }
        )
        policy.setup()
        (output,) = policy.generate([Request(sample(vocabulary=["yes", "no"]), seed=7, temperature=0.0)])
    assert output.text == "yes" and output.finish_reason == "stop"
    content = server.bodies[0]["messages"][0]["content"]
    assert content[-1]["text"] == "Did it change? Choose: yes, no."
    shown = [Image.open(io.BytesIO(base64.b64decode(part["image_url"]["url"].split(",")[1]))) for part in content[:-1]]
    assert [picture.size for picture in shown] == [(12, 8)] * 2
    assert [picture.getpixel((0, 0)) for picture in shown] == [(10, 10, 10), (200, 200, 200)]


def test_a_truncated_answer_is_invalid_and_a_failed_request_is_lost() -> None:
    def answer(body: dict[str, Any], number: int) -> Reply:
        return completion("yes, because", "length") if body["seed"] == 1 else (400, {"error": "too long"}, {})

    with chat_server(answer) as server:
        policy = build_policy({"use": "openai_endpoint", "base_url": server.url, "model": "m"})
        policy.setup()
        cut, lost = policy.generate([Request(sample(), seed=1), Request(sample(), 1, seed=2)])
    assert cut.invalid and cut.lost is None
    assert lost.lost and "too long" in lost.lost and lost.invalid is None and lost.candidate == 1


def answered(reply: Reply) -> Output:
    """What the policy makes of one reply, through a real server."""
    with chat_server(lambda body, number: reply) as server:
        policy = build_policy({"use": "openai_endpoint", "base_url": server.url, "model": "m", "retries": 0})
        policy.setup()
        (output,) = policy.generate([Request(sample())])
    return output


CUT = "cut off at max_tokens, "


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (completion(None, "length", reasoning_content="I compare the roofs"), CUT + "inside its reasoning"),
        (completion("", "length", reasoning="I compare the roofs"), CUT + "inside its reasoning"),
        (completion(None, "length"), CUT + "before its end"),
        (completion("yes, bec", "length", reasoning_content="short"), CUT + "before its end"),
        (completion(None, "model_length"), CUT + "before its end"),
        (completion(None, refusal="I cannot\nhelp."), "refused: I cannot help."),
        (completion([{"type": "refusal", "refusal": "No."}]), "refused: No."),
        (completion(None, "content_filter"), "filtered"),
        (completion("ye", "content_filter"), "filtered"),
        ((400, {"error": {"code": "content_filter", "message": "management policy"}}, {}), "filtered"),
        (completion(None, "tool_calls", tool_calls=[{"id": "1"}]), "it called a tool"),
        (completion(None, reasoning_content="I compare"), "nothing stands after the reasoning"),
        (completion([{"type": "thinking", "thinking": []}], "length"), CUT + "inside its reasoning"),
    ],
)
def test_no_whole_answer_is_the_models_doing(reply: Reply, why: str) -> None:
    output = answered(reply)
    assert output.lost is None and output.text is None
    assert output.invalid and output.invalid.startswith(why)
    assert (output.finish_reason == "length") == why.startswith(CUT)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "y"}, {"type": "text", "text": "es"}], "yes"),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "no"}]}, {"type": "text", "text": "yes"}], "yes"),
        (["yes"], "yes"),
        ("", ""),
        (None, ""),
    ],
)
def test_the_text_is_what_the_parts_of_text_hold(content: Any, text: str) -> None:
    output = answered(completion(content))
    assert (output.text, output.invalid, output.lost) == (text, None, None)


@pytest.mark.parametrize(
    "reply",
    [
        (200, {"choices": [{"message": {"content": None}}]}, {}),
        (200, {"choices": []}, {}),
        (200, {"error": {"message": "no worker is free"}}, {}),
        (200, b"[1]", {}),
        completion(7),
        completion([{"type": "text", "text": 7}]),
        completion(None, "abort"),
        (503, {}, {"Retry-After": "0"}),
    ],
)
def test_a_broken_server_costs_no_policy_an_answer(reply: Reply) -> None:
    output = answered(reply)
    assert output.lost and output.invalid is None


@pytest.mark.parametrize(
    ("reply", "advice"),
    [
        ((401, {"error": "Unauthorized"}, {}), "wants a key; put it into the environment variable NO_SUCH_KEY"),
        ((403, {"error": "no"}, {}), "forbids this; check that the key in NO_SUCH_KEY may use the model 'm'"),
        ((404, {"error": {"message": "The model `m` does not exist."}}, {}), r"serves no model 'm'; give 'model' as .*/v1/models lists it"),
        ((404, {"detail": "Not Found"}, {}), "give base_url up to and with /v1"),
        ((405, b"", {}), "give base_url up to and with /v1"),
        ((200, b"<!DOCTYPE html><html>Welcome</html>", {}), "is not where a chat model is served"),
        ((308, b"", {"Location": "https://there/v1/chat/completions"}), "sends its callers to https://there/v1"),
        ((429, {"error": {"code": "insufficient_quota"}}, {}), "no credit left"),
    ],
)  # fmt: skip
def test_what_every_request_would_meet_stops_the_run_at_first_contact(reply: Reply, advice: str) -> None:
    with chat_server(lambda body, number: reply) as server:
        spec = {"use": "openai_endpoint", "base_url": server.url, "model": "m", "api_key_env": "NO_SUCH_KEY"}
        with (
            RolloutPool(build_policy({**spec, "concurrency": 1}), actors=0, chunk=8) as pool,
            pytest.raises(RswError, match=advice) as stopped,
        ):
            list(pool.generate([sample(str(number)) for number in range(60)]))
    assert f"{server.url}/chat/completions" in str(stopped.value)
    assert len(server.bodies) == 1


def test_a_key_that_is_refused_is_told_from_one_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", " old \n")
    with chat_server(lambda body, number: (401, {}, {})) as server:
        policy = build_policy({"use": "openai_endpoint", "base_url": server.url, "model": "m", "api_key_env": "MY_KEY"})
        policy.setup()
        with pytest.raises(RswError, match="does not accept the key; correct the environment variable MY_KEY"):
            policy.generate([Request(sample())])
    assert server.headers[0]["Authorization"] == "Bearer old"


def test_a_server_without_tls_and_one_that_is_not_there_are_said_to_be_so() -> None:
    def contact(url: str, **more: Any) -> str:
        policy = build_policy({"use": "openai_endpoint", "base_url": url, "model": "m", **more})
        policy.setup()
        with pytest.raises(RswError) as stopped:
            policy.generate([Request(sample())])
        return str(stopped.value)

    with chat_server(lambda body, number: completion("yes")) as server:
        assert "begin base_url with http:// where" in contact(server.url.replace("http://", "https://"))
    assert "start the server, or correct base_url" in contact("http://127.0.0.1:9/v1", retries=0)


def test_a_fault_after_the_first_answer_costs_its_own_request() -> None:
    with chat_server(lambda body, number: completion("yes") if number == 0 else (401, {}, {})) as server:
        policy = build_policy({"use": "openai_endpoint", "base_url": server.url, "model": "m", "concurrency": 1})
        policy.setup()
        first, second = policy.generate([Request(sample()), Request(sample(), 1)])
    assert first.text == "yes" and second.lost and "key" in second.lost


@pytest.mark.parametrize(
    ("key", "url", "wrong"),
    [("k\u00e9y", "http://x/v1", "MY_KEY holds characters"), ("", "http://[::1/v1", r"'http://\[::1/v1' is no address")],
)  # fmt: skip
def test_an_address_or_a_key_that_cannot_be_sent_is_refused_at_setup(
    key: str, url: str, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", key)
    policy = build_policy({"use": "openai_endpoint", "base_url": url, "model": "m", "api_key_env": "MY_KEY"})
    with pytest.raises(ConfigError, match=wrong):
        policy.setup()


def test_large_images_are_scaled_down_where_asked_and_left_out_for_a_blind_run() -> None:
    with chat_server(lambda body, number: completion("no")) as server:
        for options in ({"longest_side": 6}, {"send_images": False}):
            policy = build_policy({"use": "openai_endpoint", "base_url": server.url, "model": "m", **options})
            policy.setup()
            policy.generate([Request(sample())])
    small, blind = (body["messages"][0]["content"] for body in server.bodies)
    assert Image.open(io.BytesIO(base64.b64decode(small[0]["image_url"]["url"].split(",")[1]))).size == (6, 4)
    assert [part["type"] for part in blind] == ["text"]


def test_a_served_model_is_evaluated_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    records = [
        {
            "id": f"q{n}",
            "task": "change_qa",
            "images": ["a.png", "b.png"],
            "prompt": f"{n}?",
            "reference": {"answers": [a]},
        }
        for n, a in enumerate(("yes", "no", "yes"))
    ]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    with chat_server(lambda body, number: completion("yes")) as server:
        (tmp_path / "served.yaml").write_text(
            yaml.safe_dump({"use": "openai_endpoint", "base_url": server.url, "model": "m"})
        )
        arguments = [
            "rsw",
            "evaluate",
            "exact-qa",
            "--samples",
            f"{tmp_path}/samples.jsonl",
            "--out",
            f"{tmp_path}/out",
        ]
        monkeypatch.setattr("sys.argv", [*arguments, "--policy", f"{tmp_path}/served.yaml"])
        with pytest.raises(SystemExit) as stopped:
            main()
    assert stopped.value.code == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["metrics"]["accuracy"]["value"] == pytest.approx(2 / 3)


def test_a_wrong_setting_is_named() -> None:
    with pytest.raises(ConfigError, match="max_tokens"):
        build_policy({"use": "openai_endpoint", "base_url": "http://x/v1", "model": "m", "max_tokens": 0})
