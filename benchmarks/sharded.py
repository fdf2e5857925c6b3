"""Do several processes learn what one learns, and what does each hold? Every stage in one process, in two, and in two under FSDP2.

Run: python benchmarks/sharded.py OUT [--only NAME ...]

All take steps of plain gradient descent, since Adam's first steps are nearly signs, in which rounding shows. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_pre_hook

from rsw_rewards.rollouts.weights import is_sharded
from rsw_rewards.training.kept_weights import StartingWeights
from rsw_rewards.training.ppo import PpoLearner
from rsw_rewards.training.run import train
from rsw_rewards.training.sharding import share
from rsw_rewards.training.trl_trainer import Trainer

ROOT = Path(__file__).resolve().parents[1]
SQUARES = f"{ROOT / 'examples/squares.py'}:squares"
STEPS = 3
ONE, PLAIN, SHARDED = "one process", "two processes", "two, FSDP2"
PROCESSES = {ONE: 1, PLAIN: 2, SHARDED: 2}


def policy(start: Path, lora: bool = False) -> dict[str, Any]:
    return {"use": "vision_language", "path": str(start), "max_new_tokens": 4, **({"lora": {"r": 4}} if lora else {})}


def supervised(start: Path, lora: bool = False) -> dict[str, Any]:
    return {
        "method": "vlm_supervised", "policy": policy(start, lora), "train": {"source": SQUARES, "count": 16}, "steps": STEPS, "batch": 5,
        "warmup": 0, "learning_rate": 0.1, "threads": 1, "device": "cpu",
    }  # fmt: skip


def rewarded(method: str, start: Path, lora: bool = False, **section: Any) -> dict[str, Any]:
    """Prompts with two images each, a group of four answers to each, and a term against the starting weights."""
    common = {
        "steps": STEPS,
        "prompts": 4,
        "group": 4,
        "learning_rate": 0.1,
        "beta": 0.05,
        "threads": 1,
        "device": "cpu",
    }
    return {
        "method": method, "policy": policy(start, lora), "train": {"source": SQUARES, "count": 16},
        "rubric": {"components": [{"use": "exact_match"}]}, "rollouts": {"actors": 0}, "log": [], method: common | section,
    }  # fmt: skip


def configurations(start: Path) -> dict[str, dict[str, Any]]:
    """The stages by name, those with rewards from a model that says yes or no."""
    grpo: dict[str, Any] = {"trl": {"optim": "sgd"}}
    ppo = {"critic_learning_rate": 0.01, "micro_batch": 4, "minibatches": 3}  # rows one by one, an odd number of them
    packed = {**ppo, "prompts": 6, "minibatches": 2}  # three packs, each of one prompt, for two processes
    scenes = {"train": {"source": "scene-world", "split": "rl", "questions": 8, "forecasts": 8}}
    diffusion = {"use": "diffusion_forecaster", "path": "tiny:flux_kontext", "size": 8}
    return {
        "vlm_supervised": supervised(start) | {"micro_batch": 4},
        "vlm_supervised, LoRA": supervised(start, lora=True),
        "diffusion_supervised": supervised(start)
        | {"method": "diffusion_supervised", "policy": diffusion, "batch": 4}
        | {"train": {"source": f"{ROOT / 'tests/training/brightness.py'}:brightness", "count": 8, "side": 8}},
        "grpo": rewarded("grpo", start, **grpo, micro_batch=4),
        "grpo, LoRA": rewarded("grpo", start, lora=True, **grpo),
        "ppo": rewarded("ppo", start, **ppo),
        "ppo, LoRA": rewarded("ppo", start, lora=True, **ppo),
        "ppo, critic: copy": rewarded("ppo", start, **ppo, critic="copy"),
        "ppo, packed": rewarded("ppo", start, **packed),
        "grpo, token world model": rewarded("grpo", start, **grpo)
        | {"policy": {"use": "token_world_model", "path": "embedded"}, **scenes}
        | {"rubric": {"components": [{"use": "exact_match"}, {"use": "gain_over_copy"}]}},
        "vlm_supervised, backbone, LoRA": supervised(start)
        | {"policy": {"use": "backbone_world_model", "path": "tiny:qwen3_vl", "lora": {"r": 4}}, **scenes},
    }


def sharded(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same with its weights divided."""
    method = config["method"]
    if method in config:
        return {**config, method: {**config[method], "fsdp": True}}
    return {**config, "fsdp": True}


def held(tensors: Iterable[torch.Tensor]) -> int:
    """Numbers that this process holds of tensors."""
    return sum((share(one) if is_sharded(one) else one).numel() for one in tensors)


def work(folder: Path) -> None:
    """One process of the runs whose configurations lie in a folder; writes what it holds while it learns."""
    torch.optim.AdamW = lambda weights, lr=1e-3, **unused: torch.optim.SGD(weights, lr)  # type: ignore
    seen: dict[str, Any] = {}

    def look(optimizer: torch.optim.Optimizer, *unused: Any) -> None:
        trained = [weight for group in optimizer.param_groups for weight in group["params"]]
        alive = gc.get_objects()
        networks = [set(one.parameters()) for one in alive if isinstance(one, torch.nn.Module)]
        weights = set().union(*(network for network in networks if not network.isdisjoint(trained)))
        starts = [one for one in alive if isinstance(one, StartingWeights)]
        seen["weights"] = [held(weights), sum(weight.numel() for weight in weights)]
        seen["divided"] = all(map(is_sharded, weights))
        seen["gradients"] = [held([weight.grad for weight in trained]), held(trained)]
        seen["reference"] = [held(list(start.weights.values())) for start in starts]
        seen["together"] = [one.together for one in alive if isinstance(one, PpoLearner)]
        seen["together"] += [one._together for one in alive if isinstance(one, Trainer)]

    register_optimizer_step_pre_hook(look)
    for file in sorted(folder.glob("*.yaml")):
        seen.clear()
        train(file, {"out": str(folder / file.stem)})
        gc.collect()
        rank = os.environ.get("RANK", "0")
        (folder / f"{file.stem}.{rank}.json").write_text(json.dumps(seen))


def start_from(folder: Path) -> Path:
    """A tiny vision-language model that has learnt to say yes or no, without having learnt when."""
    if not (folder / "complete.json").is_file():
        config = supervised(Path("tiny:qwen2_5_vl")) | {"steps": 60, "batch": 4, "learning_rate": 3e-3}
        config["train"] = {"source": SQUARES, "count": 16, "blind": True}
        file = folder.with_suffix(".yaml")
        file.write_text(yaml.safe_dump(config))
        train(file, {"out": str(folder)})
    return folder


def run(out: Path, names: Sequence[str]) -> None:
    """Run the named stages in all three ways."""
    out.mkdir(parents=True, exist_ok=True)
    start = start_from(out / "start")
    configs = {name: config for name, config in configurations(start).items() if name in names}
    for way, count in PROCESSES.items():
        folder = out / way
        folder.mkdir(exist_ok=True)
        for name, config in configs.items():
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(sharded(config) if way == SHARDED else config))
        launched(count, [str(Path(__file__).resolve()), str(folder), "--work"])


def launched(count: int, command: Sequence[str]) -> str:
    """What a Python script says that is started so many times. Raises ``RuntimeError`` where it fails."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    done = subprocess.run(
        [sys.executable, *(torchrun if count > 1 else []), *command],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stdout[-4000:])
    return done.stdout


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """What a run ended with."""
    final = folder / "final" if (folder / "final").is_dir() else folder
    files = sorted(file for file in final.glob("**/*model.safetensors") if "checkpoints" not in file.parts)
    return {f"{file.name}/{key}": tensor for file in files for key, tensor in load_file(file).items()}


def difference(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    """The largest of any weight."""
    if one.keys() != other.keys() or not one:
        raise ValueError("the runs ended with other weights")
    return max(float((one[key] - other[key]).abs().max()) for key in one)


def result(out: Path, name: str) -> dict[str, dict[str, Any]]:
    """What the three ways of a stage came to: ``difference`` from one process, and what each process held."""
    whole = weights(out / ONE / name)
    found = {}
    for way, count in PROCESSES.items():
        ranks = [json.loads((out / way / f"{name}.{rank}.json").read_text()) for rank in range(count)]
        found[way] = {"difference": difference(whole, weights(out / way / name)), "held": ranks}
    return found


def table(out: Path, names: Sequence[str]) -> str:
    """The results as Markdown."""
    lines = [
        f"| stage | {' | '.join(PROCESSES)} | largest difference, two | largest difference, FSDP2 |",
        "|---|---|---|---|---|---|",
    ]
    for name in names:
        found = result(out, name)
        numbers = [" + ".join(f"{one['weights'][0]:,}" for one in found[way]["held"]) for way in PROCESSES]
        far = [f"{found[way]['difference']:.0e}" for way in (PLAIN, SHARDED)]
        lines.append(f"| {name} | {' | '.join([*numbers, *far])} |")
    return "\n".join(lines)


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("out", type=Path)
    cli.add_argument("--only", nargs="+", choices=[*configurations(Path())], default=[*configurations(Path())])
    cli.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    args = cli.parse_args()
    if args.work:
        work(args.out)
        return
    run(args.out, args.only)
    print(table(args.out, args.only))


if __name__ == "__main__":
    main()
