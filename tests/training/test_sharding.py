"""Processes that divide the weights among themselves (FSDP2): they learn what one learns, and any number of them goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from benchmarks import sharded
from rsw_rewards.training.run import train

STAGES = [*sharded.configurations(Path())]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every stage in one process, in two, and in two that divide the weights."""
    out = tmp_path_factory.mktemp("sharded")
    sharded.run(out, STAGES)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_learn_what_one_learns_and_hold_half(runs: Path, stage: str) -> None:
    found = sharded.result(runs, stage)
    alone, plain, divided = (found[way]["held"] for way in sharded.PROCESSES)
    trained, every = alone[0]["weights"]
    assert trained == every and not alone[0]["divided"]
    for one in plain:
        assert one["weights"] == [every, every] and not one["divided"]
    for one in divided:
        # Whatever accelerate says of itself: the parameters are shares, and so are their gradients.
        assert one["divided"] and one["weights"][1] == every and one["gradients"][0] == one["gradients"][1]
    assert sum(one["weights"][0] for one in divided) == every
    assert max(one["weights"][0] for one in divided) <= 0.6 * every
    assert [sum(parts) for parts in zip(*(one["reference"] for one in divided), strict=True)] == alone[0]["reference"]
    assert all(one["together"] == alone[0]["together"] for one in [*plain, *divided])
    assert found[sharded.PLAIN]["difference"] < 1e-5 and found[sharded.SHARDED]["difference"] < 1e-5


@pytest.mark.slow
def test_what_was_compared_is_what_the_stages_are_about(runs: Path) -> None:
    held = {stage: sharded.result(runs, stage)[sharded.ONE]["held"][0] for stage in STAGES}
    assert held["ppo, packed"]["together"] == held["grpo"]["together"] == [4]
    assert held["ppo"]["together"] == [1]
    assert all(held[stage]["reference"] for stage in ("grpo", "grpo, LoRA", "ppo", "ppo, LoRA"))
    assert held["ppo, critic: copy"]["weights"][0] > 2 * held["grpo"]["weights"][0]
    start = load_file(runs / "start" / "model.safetensors")
    for stage in ("grpo", "ppo", "vlm_supervised"):
        ended = {
            name.rpartition("/")[2]: weight for name, weight in sharded.weights(runs / sharded.ONE / stage).items()
        }
        assert max(float((ended[name] - start[name]).abs().max()) for name in ended) > 1e-3, stage


RESUMED = """
import shutil, sys
from pathlib import Path
import torch.distributed as dist
from rsw_rewards.training.run import train
from tests.training.test_sharding import cut_off

one, two = map(Path, sys.argv[1:])
for file in sorted(one.glob("*.yaml")):
    train(file, {"out": str(two / file.stem)})
    for source in (one, two):
        again = two / f"{source.name}_{file.stem}"
        if dist.get_rank() == 0:
            cut_off(source / file.stem, again)
        dist.barrier()
        train(file, resume=again)
"""
"""What two processes do: runs of their own, which they and one process began."""


def cut_off(run: Path, copy: Path) -> None:
    """A copy of a run as it was after two of its three steps."""
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("final", "checkpoint-3", "complete.json", "*.safetensors"))
    shutil.copytree(run / "checkpoints/checkpoint-2", copy / "checkpoints/checkpoint-2", dirs_exist_ok=True)


def state(run: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The weights and the optimizer's moments after three steps."""
    folder = run / "checkpoints" / "checkpoint-3"
    if (folder / "optimizer.pt").is_file():
        found = torch.load(folder / "optimizer.pt", weights_only=True)
    else:
        found = torch.load(folder / "learner_state.pt", weights_only=True)["optimizer"]
    moments = {f"{key}/{n}": one[key] for n, one in found["state"].items() for key in ("exp_avg", "exp_avg_sq")}
    return sharded.weights(run), moments


def far(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The distance of all tensors, as a share of their size."""
    assert one.keys() == other.keys() and one
    size, apart = (sum(float((one[key] - other[key] * share).square().sum()) for key in one) ** 0.5 for share in (0, 1))
    return apart / size


@pytest.mark.slow
def test_another_number_of_processes_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under Adam, whose moments are linear in gradients while its steps are nearly their signs."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    one, two = tmp_path / "one", tmp_path / "two"
    start = sharded.start_from(tmp_path / "start")
    stages = {
        "grpo": sharded.rewarded("grpo", start, learning_rate=1e-4),
        "grpo_lora": sharded.rewarded("grpo", start, lora=True, learning_rate=1e-4),
        "ppo": sharded.rewarded("ppo", start, learning_rate=1e-4, critic="copy"),
        "vlm_supervised": sharded.supervised(start) | {"learning_rate": 1e-4},
    }
    for folder in (one, two):
        folder.mkdir()
    for name, config in stages.items():
        config |= {"checkpoints": {"every": 1, "keep": None}}
        (one / f"{name}.yaml").write_text(yaml.safe_dump(sharded.sharded(config)))
        train(one / f"{name}.yaml", {"out": str(one / name)})
    script = tmp_path / "resumed.py"
    script.write_text(RESUMED)
    sharded.launched(2, [str(script), str(one), str(two)])
    for name in stages:
        cut_off(two / name, one / f"two_{name}")
        train(one / f"{name}.yaml", resume=one / f"two_{name}")
        for begun, gone_on in (((one / name), two / f"one_{name}"), (two / name, one / f"two_{name}")):
            for whole, again, limit in zip(state(begun), state(gone_on), (1e-4, 1e-5), strict=True):
                assert far(whole, again) < limit, (name, gone_on)
        for whole, again in zip(state(two / name), state(two / f"two_{name}"), strict=True):
            assert all(torch.equal(whole[key], again[key]) for key in whole | again), name
