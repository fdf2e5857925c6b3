"""Several learner processes: they learn what one learns, write what one writes, and go on where they stopped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file as load_weights

from rsw_rewards.errors import ConfigError
from rsw_rewards.training.ablation.run import ablate
from rsw_rewards.training.processes import ALONE, Processes, join, micro_batches
from rsw_rewards.training.run import train
from tests.training import test_diffusion, test_grpo, test_ppo
from tests.training.run_files import log, without_times

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"

RUNS = """
import shutil, sys
from pathlib import Path
import torch.distributed as dist
from rsw_rewards.training.run import train

folder = Path(sys.argv[1])
for name, actors in (("grpo", 0), ("ppo", 0), ("flow_grpo", 1)):  # an actor's latents lie in the first process's cluster
    train(folder / f"{name}.yaml", {"out": str(folder / name), "rollouts.actors": actors})
taken_up = folder / "taken_up"
if dist.get_rank() == 0:
    shutil.copytree(folder / "grpo", taken_up, ignore=shutil.ignore_patterns("final", "checkpoint-4"))
dist.barrier()
train(folder / "grpo.yaml", resume=taken_up)
"""
"""What each of the processes does."""


def configurations() -> dict[str, dict[str, Any]]:
    """A run of every method with rewards, some of whose settings divide rows further."""
    nowhere = Path("set on the command line")
    grpo = {"steps": 4, "micro_batch": 2, "beta": 0.01}
    return {
        "grpo": test_grpo.configuration(nowhere, grpo=grpo, dump_every=2, checkpoints={"every": 2})
        | {"method": "grpo"},
        "ppo": test_ppo.configuration(nowhere, ppo={"steps": 2, "micro_batch": 3, "beta": 0.01}),
        "flow_grpo": test_diffusion.configuration(nowhere, flow_grpo={"steps": 2, "epochs": 2, "beta": 0.1}),
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of the runs in one process and of those in two."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    for name, config in configurations().items():
        for folder in (one, two):
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    script = two / "runs.py"
    script.write_text(RUNS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    with subprocess.Popen(
        [*command, str(script), str(two)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as started:
        for name in configurations():
            train(one / f"{name}.yaml", {"out": str(one / name)})
        said, _ = started.communicate(timeout=400)
    assert started.returncode == 0, said[-4000:]
    assert said.count("the trained policy is in") == 4, "one process says what happens"
    return one, two


def final(folder: Path) -> dict[str, torch.Tensor]:
    files = sorted((folder / "final").glob("**/*model.safetensors"))
    assert files
    return {f"{file.name}/{key}": tensor for file in files for key, tensor in load_weights(file).items()}


def distance(weights: dict[str, torch.Tensor], others: dict[str, torch.Tensor] | None = None) -> float:
    """Of all weights from others, or from zero."""
    return sum(float((weights[key] - (others[key] if others else 0)).square().sum()) for key in weights) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", configurations())
def test_two_processes_learn_what_one_learns(runs: tuple[Path, Path], name: str) -> None:
    one, two = (folder / name for folder in runs)
    alone, together = final(one), final(two)
    # As a whole, because Adam blows up what rounding leaves of a gradient that is zero.
    assert distance(alone, together) < 1e-5 * distance(alone)
    for first, second in zip(without_times(log(one)), without_times(log(two)), strict=True):
        shared = (first.keys() & second.keys()) - {"kl"}  # which TRL logs as a mean of means
        assert {"reward", "loss", "grad_norm", "failed"} <= shared
        for key in shared:
            wanted = first[key] if first[key] is None else pytest.approx(first[key], rel=1e-3, abs=1e-4)
            assert second[key] == wanted, key


@pytest.mark.slow
def test_two_processes_go_on_where_they_stopped(runs: tuple[Path, Path]) -> None:
    _, two = runs
    whole, taken_up = final(two / "grpo"), final(two / "taken_up")
    assert all(torch.equal(whole[key], taken_up[key]) for key in whole)
    assert without_times(log(two / "grpo")) == without_times(log(two / "taken_up"))
    assert {path.name for path in (two / "taken_up" / "dumps").iterdir()} == {
        "step_000000",
        "step_000002",
        "step_000003",
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"grpo": {"prompts": 3, "group": 3}}, "9 rollouts cannot be divided among 2 processes"),
        ({"control": "supervised"}, "'supervised' learns in one process"),
    ],
)
def test_what_cannot_be_divided_is_refused_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(test_grpo.configuration(tmp_path / "run", **changes) | {"method": "grpo"}))
    with pytest.raises(ConfigError, match=words):
        train(file)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("rows", [1, 2, 11])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("size", [None, 1, 3, 11])
def test_processes_make_equally_many_passes_over_all_rows(rows: int, count: int, size: int | None) -> None:
    shares = [Processes(rank, count).own(np.arange(rows)) for rank in range(count)]
    assert sorted(int(place) for share, counted in shares for place in share[:counted]) == list(range(rows))
    passes = [[len(part) for part in micro_batches(share, size)] for share, _ in shares]
    assert passes[0] and all(each == passes[0] for each in passes)
    assert max(passes[0]) <= (size or rows)


def test_one_process_needs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join(on_cpu=True) is ALONE
    assert ALONE.broadcast(3) == 3 and ALONE.gather(3) == [3] and ALONE.scatter([3]) == 3


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("ACCELERATE_USE_FSDP", "set 'fsdp: true' in the method's section"),
        ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed is not supported.*or train with verl and the rewards of this package"),
    ],
)
def test_a_launcher_that_divides_weights_itself_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, words: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv(variable, "true")
    with pytest.raises(ConfigError, match=words):
        train(QUICKSTART, {"out": str(tmp_path / "run")})
    assert not (tmp_path / "run").exists()


def test_a_method_that_learns_in_one_process_is_told_to_be_started_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="'supervised' takes one process, but was started as 2"):
        train(QUICKSTART.parent / "embedded" / "supervised.yaml", {"out": str(tmp_path / "run")})
    with pytest.raises(ConfigError, match="an ablation takes one process"):
        ablate(QUICKSTART, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
