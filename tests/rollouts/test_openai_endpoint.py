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
from rsw_rewards.core.records import Sample, Task
from rsw_rewards.errors import ConfigError
from rsw_rewards.rollouts.policies import build_policy
from rsw_rewards.rollouts.policy import Request
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
