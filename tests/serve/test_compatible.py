"""Reward clients of other projects, from their own files, get from the service what rsw.Reward gives."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import rsw_rewards as rsw
from rsw_rewards.serve.front import FrontSettings
from tests.serve.served import served

LEVELS = np.random.default_rng(0)
BEFORE, AFTER, OTHER = (LEVELS.integers(0, 256, (16, 16, 3)).astype(np.uint8) for _ in range(3))
PICTURES = [AFTER, BEFORE, OTHER, (AFTER // 2 + BEFORE // 2).astype(np.uint8)]
FORECAST = rsw.Sample("f", "forecast", images=(BEFORE,), prompt="a road", reference={"images": [AFTER]})
QUESTION = rsw.Sample("q", "change_qa", prompt="Changed?", reference={"answers": ["yes"], "vocabulary": ["yes", "no"]})
RUBRIC = {"gain_over_copy": 0.7, "ssim": 0.3, "exact_match": 1.0}
OPEN = FrontSettings()


def file_of(*places: str) -> Path:
    """A file of another project, in a folder that RSW_TRAINERS names; the test is skipped without it."""
    for place in places:
        found = Path(os.environ.get("RSW_TRAINERS", "/nowhere"), place)
        if found.is_file():
            return found
    pytest.skip(f"needs {places[0]} in the folder that RSW_TRAINERS names")


def module_of(file: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(RUBRIC, [FORECAST, QUESTION], front=OPEN) as address:
        yield address


def rewards_of(outputs: list[Any], sample: rsw.Sample) -> list[rsw.Result]:
    with rsw.Reward(RUBRIC) as reward:
        return reward.many(outputs, [sample] * len(outputs))


def test_the_client_of_unirl(url: str) -> None:
    client_module = module_of(file_of("UniRL/unirl-reward-service/reward_service/client.py"), "unirl_client")
    client = client_module.RewardClient(url, image_format="PNG")
    assert client.health() == {"status": "ok"} and client.rewards() == ["reward", *RUBRIC]
    wanted = ["reward", "ssim"]
    requests = [
        client_module.RewardRequest(
            [("a road", Image.fromarray(pixels))], wanted, {"sample_id": "f"} if place % 2 else None
        )
        for place, pixels in enumerate(PICTURES)
    ]
    expected = rewards_of(PICTURES, FORECAST)
    assert client.score(requests) == [
        {"reward": {"reward": one.reward}, "ssim": {"value": one.parts["ssim"].value}} for one in expected
    ]
    import requests as http

    with pytest.raises(http.HTTPError, match="422"):
        client_module.RewardClient(url).score(requests)  # as JPEG
    video = client_module.RewardRequest([("a road", None)], wanted, None, ["/etc/passwd"])
    with pytest.raises(http.HTTPError, match="422"):
        client.score([video])


def test_the_client_of_flow_factory(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = file_of("Flow-Factory/src/flow_factory/rewards/my_reward_remote.py")
    for name in ("flow_factory", "flow_factory.rewards", "flow_factory.rewards.abc", "flow_factory.hparams"):
        held = types.ModuleType(name)  # the client is asked alone; its wrappers need the whole trainer
        for needed in ("GroupwiseRewardModel", "PointwiseRewardModel", "RewardModelOutput", "RewardArguments"):
            setattr(held, needed, object)
        monkeypatch.setitem(sys.modules, name, held)
    pytest.importorskip("torch")
    client = module_of(file, "flow_factory_client").RemoteRewardClient(url)
    assert client.health_check()
    images = [Image.fromarray(pixels) for pixels in PICTURES]
    expected = [result.reward for result in rewards_of(PICTURES, FORECAST)]
    assert client.compute(["a road"] * 4, images, condition_images=[[Image.fromarray(BEFORE)]] * 4) == expected
    series = [result.reward for result in rewards_of([[BEFORE, AFTER]], FORECAST)]
    assert client.compute(["a road"], video=[[Image.fromarray(BEFORE), Image.fromarray(AFTER)]]) == series
    with pytest.raises(RuntimeError, match="422"):
        client.compute(["a field"], images[:1])


def test_the_client_of_openrlhf(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = file_of("openrlhf/openrlhf-0.11.2.data/purelib/openrlhf/utils/agent.py", "openrlhf/openrlhf/utils/agent.py")
    pytest.importorskip("aiohttp", reason="needs the extra [serve]")
    for name in ("openrlhf", "openrlhf.utils"):  # whose other modules need the whole trainer
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    logging_utils = module_of(agent.parent / "logging_utils.py", "openrlhf.utils.logging_utils")
    monkeypatch.setitem(sys.modules, "openrlhf.utils.logging_utils", logging_utils)
    executor_class = module_of(agent, "openrlhf_agent").SingleTurnAgentExecutor
    executor = executor_class(f"{url}/openrlhf?end=</s>,<eos>")
    whole = json.dumps({"id": "w", "task": "change_qa", "reference": {"answers": ["no"], "vocabulary": ["yes", "no"]}})
    queries = ["Changed? yes</s>", "Changed? no<eos>", "Changed? yes", "Changed? no</s>"]
    (found,) = asyncio.run(executor._fetch_rewards_via_http(queries, ["Changed? "] * 4, ["q", "q", "q", whole]))
    assert found["rewards"] == found["scores"] == found["extra_logs"]["exact_match"] == [1.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/score", {"requests": []}, "'requests' must be a list that is not empty"),
        ("/score", {"requests": [{"history": [{"text": "a road", "image_b64": "/9j/"}], "required_rewards": ["x"]}]}, "there is no reward 'x'"),
        ("/score", {"requests": [{"history": [{"text": "a road", "image_b64": "/9j/"}], "required_rewards": ["ssim"]}]}, "a JPEG, which changes"),
        ("/score", {"requests": [{"history": [{"text": "a road", "video_path": "/x"}], "required_rewards": ["ssim"]}]}, "videos are not read"),
        ("/score", {"requests": [{"history": [{"text": "b", "image_b64": ""}], "required_rewards": ["ssim"]}]}, "0 of the service's samples"),
        ("/compute", {"prompt": ["a road"], "image": []}, "'image' must be a list"),
        ("/compute", {"prompt": ["a road"], "image": ["/etc/passwd"]}, "not base64"),
        ("/compute", {"prompt": ["a road"] * 2, "image": ["a"]}, "1 of 'image' for 2 of 'prompt'"),
        ("/openrlhf", {"query": ["a"], "prompts": ["a"], "labels": ["q"]}, "the address needs '?end='"),
        ("/openrlhf?end=x", {"query": ["a"], "prompts": ["b"], "labels": ["q"]}, "does not start with its prompt"),
        ("/openrlhf?end=x", {"query": ["a"], "prompts": ["a"], "labels": ["/etc/passwd"]}, "the id of none"),
        ("/openrlhf?end=x", {"query": ["a"], "prompts": ["a"], "labels": ['{"task": "forecast", "images": ["/x"]}']}, "images.0"),
        ("/openrlhf?end=x", {"query": [1], "prompts": ["a"], "labels": ["q"]}, "number 0 is none"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_by_a_sentence(url: str, path: str, body: Any, told: str) -> None:
    answer = httpx.post(url + path, json=body)
    assert answer.status_code == 422 and told in answer.json()["error"]["message"]


def test_groups_are_asked_for_where_the_rubric_needs_them() -> None:
    import base64
    import io

    def png(pixels: np.ndarray) -> str:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        return base64.b64encode(stream.getvalue()).decode()

    rubric = rsw.Rubric({"gain_over_copy": 1.0}, combine="normalize_each")
    body = {"prompt": ["a road"] * 4, "image": [png(pixels) for pixels in PICTURES]}
    with served(rubric, [FORECAST], front=OPEN) as address, rsw.Reward(rubric) as reward:
        alone = httpx.post(address + "/compute", json=body)
        assert alone.status_code == 422 and "put /groups before it" in alone.json()["error"]["message"]
        whole = httpx.post(address + "/groups/compute", json=body).json()["rewards"]
        assert whole == [one.reward for one in reward.many(PICTURES, [FORECAST] * 4)]


def test_an_output_without_a_reward_is_no_number() -> None:
    @rsw.verifier(tasks="change_qa")
    def broken(sample: rsw.Sample, output: rsw.Output) -> float:
        """Fails."""
        raise ValueError("it broke")

    with served(broken, [QUESTION], front=OPEN) as address:
        body = {"query": ["Changed? yes."], "prompts": ["Changed? "], "labels": ["q"]}
        answer = httpx.post(f"{address}/openrlhf?end=.", json=body)
        assert answer.status_code == 503 and "it broke" in answer.json()["error"]["message"]
