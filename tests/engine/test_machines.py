"""docs/machines.md on a cluster of two Ray nodes on this machine: its commands run, and a node that dies ends them as the page says."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from rsw_rewards.engine.cluster import ensure_ray
from rsw_rewards.errors import ConfigError
from rsw_rewards.io.records_io import write_jsonl

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/machines.md").read_text(encoding="utf-8")
HEAD, OTHER, COMMANDS, *_ = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
TRUTH = {"answers": ["yes"], "vocabulary": ["yes", "no"]}
SLOW = """
import time
from pathlib import Path
import ray
import rsw_rewards as rsw

@rsw.verifier(tasks="change_qa")
def slow(sample, output):
    Path(sample.prompt, ray.get_runtime_context().get_node_id()).touch()
    time.sleep(0.1)
    return 1.0

mine = rsw.protocol("slow", [slow])
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def family(pid: int) -> list[int]:
    """A process and all below it."""
    parents = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(place.parent.name)] = int(place.read_text().rpartition(") ")[2].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def kill(started: subprocess.Popen[str]) -> None:
    """What a machine without power does."""
    for pid in family(started.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    started.wait()


class Machines:
    """Two Ray nodes, started by the commands of the page."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        self.environment |= {"HOME": str(folder), "RAY_TMPDIR": str(folder), "RSW_RUNS": str(folder / "runs")}
        self.environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.started: list[subprocess.Popen[str]] = []

    def written(self, block: str) -> str:
        """A block of the page for this machine."""
        block = block.replace("HEAD:6379", f"127.0.0.1:{self.port}").replace("--port=6379", f"--port={self.port}")
        return block.replace("SECRET", "0123456789abcdef" * 4).replace("ray start", "ray start --num-cpus=1")

    def start(self, block: str) -> subprocess.Popen[str]:
        with (self.folder / f"node{len(self.started)}.log").open("w") as log:
            self.started.append(self.run(block, stdout=log, stderr=log))
        return self.started[-1]

    def run(self, block: str, **streams: object) -> subprocess.Popen[str]:
        command = ["bash", "-ec", self.written(block)]
        return subprocess.Popen(command, cwd=ROOT, env=self.environment, text=True, **streams)  # type: ignore[call-overload]

    def ask(self, code: str) -> None:
        secret = next(line for line in COMMANDS.splitlines() if line.startswith("export"))
        asked = (
            f"{secret}\npython - <<'END'\nimport time, ray\nray.init('HEAD:6379', log_to_driver=False)\n{code}\nEND\n"
        )
        assert self.run(asked).wait(300) == 0


@pytest.fixture
def machines() -> Iterator[Machines]:
    folder = Path(tempfile.mkdtemp(prefix="ray"))  # short: Ray's sockets lie in it
    made = Machines(folder)
    try:
        made.start(HEAD)
        deadline = time.monotonic() + 300
        while not list(folder.glob("ray/ray_current_cluster")):
            assert made.started[0].poll() is None and time.monotonic() < deadline, (folder / "node0.log").read_text()
            time.sleep(0.2)
        made.start(OTHER)
        made.ask("while len(ray.nodes()) < 2: time.sleep(0.5)")
        yield made
    finally:
        for one in made.started:
            if one.poll() is None:
                kill(one)
        shutil.rmtree(folder, ignore_errors=True)


def questions(folder: Path, count: int) -> None:
    (folder / "nodes").mkdir()
    (folder / "mine.py").write_text(SLOW)
    (folder / "rubric.yaml").write_text("components: [{use: exact_match}]\n")
    told = {"task": "change_qa", "prompt": str(folder / "nodes"), "reference": TRUTH}
    write_jsonl(folder / "samples.jsonl", [{"id": f"q{n}", **told} for n in range(count)])
    write_jsonl(folder / "predictions.jsonl", [{"id": f"q{n}", "text": "yes"} for n in range(count)])


@pytest.mark.slow
def test_the_commands_of_the_page_run(machines: Machines) -> None:
    folder = machines.folder
    questions(folder, 20)
    named = re.sub(r"\b(samples\.jsonl|predictions\.jsonl|rubric\.yaml|runs/\w+)\b", rf"{folder}/\1", COMMANDS)
    assert machines.run(named).wait(900) == 0
    assert (folder / "runs/two/final").is_dir()
    assert (folder / "runs/eval/summary.json").is_file() and (folder / "runs/rewards/rewards.jsonl").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(("lost", "code"), [("other", 0), ("head", 2)])
def test_a_machine_that_is_lost_ends_a_command_as_the_page_says(machines: Machines, lost: str, code: int) -> None:
    folder = machines.folder
    questions(folder, 300)
    exports = COMMANDS.splitlines()[0]
    command = f"exec rsw evaluate {folder}/mine.py:mine --samples {folder}/samples.jsonl --predictions {folder}/predictions.jsonl"
    going = machines.run(
        f"{exports}\n{command} --out {folder}/out --workers 4 --ray-address HEAD:6379\n",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    deadline = time.monotonic() + 300
    while len(list((folder / "nodes").iterdir())) < 2:  # both machines score
        assert going.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    kill(machines.started[lost == "other"])
    said, _ = going.communicate(timeout=300)
    assert going.returncode == code, said
    if code:
        (sentence,) = re.findall(r"rsw: Ray's raylet.*?--resume", PAGE)
        assert sentence in said
    else:
        assert "300 samples" in said


@pytest.mark.slow
def test_a_machine_on_which_ray_does_not_run_says_what_to_start(machines: Machines) -> None:
    alone = ["unshare", "--pid", "--fork", "--mount-proc"]  # it sees no process of the nodes
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to make a namespace of processes")
    secret = COMMANDS.splitlines()[0]
    going = machines.run(
        f"{secret}\nexec {' '.join(alone)} rsw train configs/quickstart.yaml --dry-run --ray-address HEAD:6379\n",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    said, _ = going.communicate(timeout=300)
    assert going.returncode == 2, said
    assert "needs a Ray node of the cluster on its own machine, which 'ray start --address=HOST:PORT' starts" in said


def test_an_address_at_which_nobody_answers_is_refused() -> None:
    with pytest.raises(ConfigError, match="no Ray cluster answers at"):
        ensure_ray(f"127.0.0.1:{free_port()}")


SLURM = {
    "scontrol": "#!/bin/sh\necho 127.0.0.1\necho other\n",
    # srun: the command without the options, on this machine.
    "srun": '#!/bin/bash\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n',
}


@pytest.mark.slow
def test_the_slurm_script_runs_a_command_on_two_nodes_and_ends_with_its_code() -> None:
    folder = Path(tempfile.mkdtemp(prefix="ray"))
    questions(folder, 20)
    (folder / "bin").mkdir()
    for name, text in SLURM.items():
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | {
        "HOME": str(folder), "RAY_TMPDIR": str(folder), "RAY_PORT": str(free_port()), "SLURM_JOB_NODELIST": "two",
        "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "1",
        "PATH": f"{folder}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    command = ["bash", str(ROOT / "examples/cluster/slurm.sh"), "score", "rubric.yaml", "--samples", "samples.jsonl"]
    command += ["--predictions", "predictions.jsonl", "--out", "out", "--workers", "2"]
    try:
        for missing, code in ((False, 0), (True, 2)):
            if missing:
                (folder / "rubric.yaml").unlink()
                environment["RAY_PORT"] = str(free_port())
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600
            )
            assert done.returncode == code, done.stderr[-2000:]
        assert len((folder / "out/rewards.jsonl").read_text().splitlines()) == 20
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_the_kubernetes_file_is_one_job_with_a_shared_volume() -> None:
    job = yaml.safe_load((ROOT / "examples/cluster/kuberay.yaml").read_text(encoding="utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert f"job/{job['metadata']['name']}" in PAGE
    cluster = job["spec"]["rayClusterSpec"]
    pods = [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    assert all({"name": "work", "mountPath": "/data"} in pod["containers"][0]["volumeMounts"] for pod in pods)
    words = job["spec"]["entrypoint"].split()
    assert words[:2] == ["rsw", "train"] and words[-2:] == ["--ray-address", "auto"]
    assert all(place.startswith("/data/") for place in re.findall(r"[ =](/\S+)", job["spec"]["entrypoint"]))
