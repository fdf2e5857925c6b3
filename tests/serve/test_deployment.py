"""The service on a real Ray Serve: two replicas behind one port, one of which is killed under load."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

import rsw_rewards as rsw

TOKEN = "a token of some length"
QUESTION = rsw.Sample("q", "change_qa", reference={"answers": ["yes"], "vocabulary": ["yes", "no"]})
RUBRIC = "components:\n  - {use: exact_match, weight: 0.9}\n  - {use: answer_format, weight: 0.1}\n"
SAMPLE = '{"id": "q", "task": "change_qa", "reference": {"answers": ["yes"], "vocabulary": ["yes", "no"]}}\n'
RSW = [sys.executable, "-c", "from rsw_rewards.cli import main; main()", "serve"]
ITEMS = {"items": [{"sample_id": "q", "text": "yes"}, {"sample_id": "q", "text": "no", "candidate": 1}]}


def replicas_of(process: psutil.Process) -> list[psutil.Process]:
    """Ray Serve's replicas among the descendants of a process."""
    found = []
    for one in process.children(recursive=True):
        try:
            if "ServeReplica:rsw-rewards" in " ".join(one.cmdline()):
                found.append(one)
        except psutil.Error:  # it has ended meanwhile
            continue
    return found


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, psutil.Process]]:
    pytest.importorskip("ray.serve", reason="needs the extra [serve]", exc_type=ImportError)
    pytest.importorskip("uvicorn", reason="needs the extra [serve]")
    folder = tmp_path_factory.mktemp("service")
    (folder / "rubric.yaml").write_text(RUBRIC)
    (folder / "samples.jsonl").write_text(SAMPLE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *RSW,
        "rubric.yaml",
        "--samples",
        "samples.jsonl",
        "--replicas",
        "2",
        "--num-cpus",
        "0.5",
        "--body-mib",
        "1",
    ]
    environment = {**os.environ, "RSW_SERVE_TOKEN": TOKEN}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, "--port", str(port)], cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            end = time.monotonic() + 240
            while f"ready: {url}" not in (folder / "log").read_text():
                assert process.poll() is None and time.monotonic() < end, (folder / "log").read_text()
                time.sleep(0.5)
            yield url, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(120)
        assert process.returncode == 0 and (folder / "log").read_text().rstrip().endswith("ended")


@pytest.mark.slow
def test_the_proxy_asks_for_the_token_and_cuts_bodies_off(service: tuple[str, psutil.Process]) -> None:
    url, _ = service
    assert httpx.get(url + "/ready").json() == {"status": "ready"}
    assert httpx.post(url + "/v1/score", json=ITEMS).status_code == 401
    headers = {"authorization": f"Bearer {TOKEN}"}
    large = httpx.post(url + "/v1/score", content=iter([b" " * (600 << 10)] * 2), headers=headers)
    assert large.status_code == 413 and large.json()["error"]["type"] == "too_large"
    assert httpx.post(url + "/v1/score", content=b"{", headers=headers).status_code == 422
    with rsw.RemoteReward(url, TOKEN) as remote, rsw.Reward({"exact_match": 0.9, "answer_format": 0.1}) as local:
        texts = ["yes", "no", None] * 20
        assert remote.many(texts, [QUESTION] * 60) == local.many(texts, [QUESTION] * 60)


@pytest.mark.slow
def test_a_replica_killed_under_load_costs_no_answer(service: tuple[str, psutil.Process]) -> None:
    url, process = service
    headers = {"authorization": f"Bearer {TOKEN}"}
    seen: Counter[int | str] = Counter()
    wrong: list[str] = []
    right: list[bool] = []
    end = time.monotonic() + 25

    def bare() -> None:
        with httpx.Client(headers=headers, timeout=60) as client:
            while time.monotonic() < end:
                answer = client.post(url + "/v1/score", json=ITEMS)
                seen[answer.status_code] += 1
                if answer.status_code == 200:
                    if [item["reward"] for item in answer.json()["items"]] != [1.0, 0.1]:
                        wrong.append(answer.text)
                elif "retry-after" not in answer.headers:
                    wrong.append(answer.text)

    def trainer() -> None:
        with rsw.RemoteReward(url, TOKEN) as remote:
            while time.monotonic() < end:
                rewards = [result.reward for result in remote.many(["yes", "no"], [QUESTION] * 2)]
                right.append(rewards == [1.0, 0.1])

    threads = [threading.Thread(target=work) for work in [bare] * 4 + [trainer] * 2]
    for thread in threads:
        thread.start()
    time.sleep(4)
    killed = replicas_of(process)
    assert len(killed) == 2
    os.kill(killed[0].pid, signal.SIGKILL)
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    assert set(seen) <= {200, 429, 503} and seen[200] > 50 and not wrong
    assert all(right) and len(right) > 10
    end = time.monotonic() + 60
    while len(replicas_of(process)) < 2:  # it is started again
        assert time.monotonic() < end
        time.sleep(1)


@pytest.mark.slow
def test_a_service_that_cannot_start_says_why_in_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn", reason="needs the extra [serve]")
    (tmp_path / "rubric.yaml").write_text(RUBRIC.replace("exact_match", "exact_mach"))
    environment = {**os.environ, "RSW_SERVE_TOKEN": TOKEN}
    ended = subprocess.run([*RSW, "rubric.yaml"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 2 and "did you mean 'exact_match'?" in ended.stderr and "Traceback" not in ended.stderr
    del environment["RSW_SERVE_TOKEN"]
    ended = subprocess.run([*RSW, "rubric.yaml"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 2 and "needs a token" in ended.stderr
