"""Ray beside another Ray: a cluster that was started for other work is joined when it is asked for, and left alone otherwise."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsw_rewards.io.records_io import write_jsonl

ASK = """
import os, sys
from rsw_rewards.engine.cluster import ensure_ray

address = sys.argv[1] if len(sys.argv) > 1 else None
# With RAY_ADDRESS, then with nothing but the cluster that runs on the machine; "auto" without it may find any cluster there.
for wanted in (True, False) if address is None else (True,):
    if not wanted:
        del os.environ["RAY_ADDRESS"]
    ensure_ray(address)
    import ray
    assert ray.get(ray.remote(lambda: 6 * 7).remote(), timeout=60) == 42
    print(ray.get_runtime_context().gcs_address.rpartition(":")[2], int(ray.cluster_resources()["CPU"]))
    ray.shutdown()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def other_cluster() -> Iterator[tuple[int, dict[str, str]]]:
    """The port of a cluster of one CPU that `ray start` started, and an environment that points to it."""
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="ray"))  # short: Ray's sockets lie in it
    rest = {key: value for key, value in os.environ.items() if not key.startswith("RAY_AUTH")}
    # Of a home of its own, since a token that another Ray left in the user's would be asked for.
    environment = {**rest, "HOME": str(folder), "RAY_TMPDIR": str(folder), "RAY_ADDRESS": f"127.0.0.1:{port}"}
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"]
    command += ["--num-cpus=1", "--include-dashboard=false", "--disable-usage-stats"]
    start = {key: value for key, value in environment.items() if key != "RAY_ADDRESS"}
    with (folder / "log").open("wb") as log:
        started = subprocess.Popen(command, env=start, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not list(folder.glob("ray/ray_current_cluster")):
            assert started.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.1)
        yield port, environment
    finally:
        started.terminate()  # Ray ends what it started
        started.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def test_another_cluster_is_joined_only_when_it_is_asked_for(other_cluster: tuple[int, dict[str, str]]) -> None:
    port, environment = other_cluster

    def asked(*arguments: str) -> list[list[int]]:
        done = subprocess.run(
            [sys.executable, "-c", ASK, *arguments],
            env=environment, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return [[int(word) for word in line.split()] for line in done.stdout.splitlines()]

    own = asked()
    assert len(own) == 2 and all(found != port and cpus >= 2 for found, cpus in own)
    assert asked("auto") == [[port, 1]]


def test_a_cluster_outlives_the_thread_that_started_it() -> None:
    code = (
        "import threading, time\n"
        "from rsw_rewards.engine.cluster import ensure_ray\n"
        "thread = threading.Thread(target=ensure_ray)\n"
        "thread.start(); thread.join(); time.sleep(1)\n"
        "import ray\n"
        "print(ray.get(ray.remote(lambda: 7).remote(), timeout=50))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert result.stdout.strip() == "7", result.stderr


_SLOW = """
import time
import rsw_rewards as rsw

@rsw.verifier(tasks="change_qa")
def slow(sample, output):
    time.sleep(0.2)
    return 1.0

mine = rsw.protocol("slow", [slow])
"""
_MAIN = "from rsw_rewards.cli import main; main()"


def _descendants(pid: int) -> dict[int, str]:
    """The processes below one, with the names that they show."""
    found = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(place.read_text().rpartition(") ")[2].split()[1])
            shown = (place.parent / "cmdline").read_text().partition("\0")[0]
        except OSError:
            continue
        if parent == pid:
            found |= {int(place.parent.name): shown, **_descendants(int(place.parent.name))}
    return found


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")
def test_a_raylet_that_dies_ends_the_command_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(_SLOW)
    truth = {"answers": ["yes"], "vocabulary": ["yes", "no"]}
    write_jsonl(tmp_path / "s.jsonl", [{"id": f"q{n}", "task": "change_qa", "reference": truth} for n in range(2000)])
    write_jsonl(tmp_path / "p.jsonl", [{"id": f"q{n}", "text": "yes"} for n in range(2000)])
    command = [
        sys.executable,
        "-c",
        _MAIN,
        "evaluate",
        "mine.py:mine",
        "--samples",
        "s.jsonl",
        "--predictions",
        "p.jsonl",
    ]
    going = subprocess.Popen(
        [*command, "--out", "out", "--workers", "1"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not any(
        name.startswith("ray::_") for name in _descendants(going.pid).values()
    ):
        time.sleep(0.2)
    time.sleep(2)
    raylet = next(pid for pid, name in _descendants(going.pid).items() if name.endswith("/raylet"))
    os.kill(raylet, signal.SIGKILL)
    _, said = going.communicate(timeout=60)
    assert going.returncode == 2
    assert said.splitlines()[-1].startswith("rsw: Ray's raylet, the process that runs the actors, died or was killed")


def test_a_ray_that_cannot_start_is_one_sentence(tmp_path: Path) -> None:
    long = tmp_path / ("long" * 30)  # Ray's sockets lie in it, whose paths may have 107 bytes
    long.mkdir()
    code = "from rsw_rewards.engine.cluster import ensure_ray\nfrom rsw_rewards.errors import ConfigError\n"
    code += "try: ensure_ray()\nexcept ConfigError as error: print(error)"
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | {"RAY_TMPDIR": str(long)}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("Ray could not be started on this machine: ") and said.stdout.count("\n") == 1
