"""What our rewards cost in trainers: processor time per text in verl and OpenRLHF over a bare function's, and concurrent calls of an
encoder's reward beside one batch.

Run: python benchmarks/adapters.py [--json] [--calls 256]

verl and OpenRLHF are measured where they are installed (tests/integrations/environments.toml says what they need).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np

import rsw_rewards as rsw

QUESTION = {"id": "q", "task": "change_qa", "reference": {"answers": ["yes"], "vocabulary": ["yes", "no"]}}
RUBRIC = {"exact_match": 0.9, "answer_format": 0.1}
END = "</s>"
OPENRLHF = f"""
from rsw_rewards.integrations.openrlhf import make_reward
reward_func = make_reward({RUBRIC!r}, [{QUESTION!r}], end={END!r})
"""
BARE_OPENRLHF = """
import torch
def reward_func(queries, prompts, labels):
    return {"rewards": torch.tensor([1.0]), "scores": torch.tensor([1.0]), "extra_logs": {}}
"""


class Characters:
    """A tokenizer of characters."""

    def __call__(self, text: str, **unused: Any) -> Any:
        import torch

        return {"input_ids": torch.tensor([[ord(letter) for letter in text]])}

    def decode(self, ids: Any, skip_special_tokens: bool = True) -> str:
        return "".join(chr(int(one)) for one in ids)


async def together(call: Callable[[], Awaitable[Any]], calls: int) -> None:
    await asyncio.gather(*(call() for _ in range(calls)))


def over_bare(ours: Callable[[], Awaitable[Any]], bare: Callable[[], Awaitable[Any]], calls: int, loop: Any) -> float:
    """Processor time of an output in milliseconds over that of the bare function; the least of five runs of each, which alternate,
    since what else the machine does makes runs longer and never shorter."""

    def processor_ms(call: Callable[[], Awaitable[Any]]) -> float:
        start = time.process_time()
        loop.run_until_complete(together(call, calls))
        return (time.process_time() - start) / calls * 1e3

    runs = [(processor_ms(ours), processor_ms(bare)) for _ in range(6)][1:]
    return min(own for own, _ in runs) - min(other for _, other in runs)


def of_verl(calls: int) -> float:
    """Through the manager that calls a function of the user's for each output."""
    import torch
    from omegaconf import OmegaConf
    from tensordict import TensorDict
    from verl import DataProto
    from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager
    from verl.trainer.ppo.reward import get_custom_reward_fn

    def bare(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None) -> dict[str, float]:
        return {"score": 1.0, "exact_match": 1.0, "answer_format": 1.0}

    ids = torch.tensor([[ord(letter) for letter in "yes"]])
    tensors = {"prompts": torch.zeros(1, 2, dtype=torch.long), "responses": ids, "attention_mask": torch.ones(1, 5)}
    tensors["attention_mask"] = tensors["attention_mask"].long()
    held = {"data_source": "levir", "reward_model": {"ground_truth": "q"}, "extra_info": {"index": 0}}
    row = DataProto(
        batch=TensorDict(tensors, batch_size=1),
        non_tensor_batch={key: np.array([value], dtype=object) for key, value in held.items()},
    )
    with TemporaryDirectory() as folder:
        (path := Path(folder, "samples.jsonl")).write_text(json.dumps(QUESTION))
        function = {
            "path": "pkg://rsw_rewards.integrations.verl", "name": "compute_score",
            "reward_kwargs": {"rubric": RUBRIC, "samples": str(path)},
        }  # fmt: skip
        config = OmegaConf.create({"reward": {"custom_reward_function": function}})
        ours, other = (
            NaiveRewardManager(config, Characters(), given) for given in (get_custom_reward_fn(config), bare)
        )
        return over_bare(lambda: ours.run_single(row), lambda: other.run_single(row), calls, ours.loop)


class Engine:
    """Answers at once."""

    async def generate(self, *unused: Any, **unused_too: Any) -> Any:
        tokens = [ord(letter) for letter in "yes" + END]
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=tokens, finish_reason="stop", logprobs=None)])


def of_openrlhf(calls: int) -> float:
    """Through the executor of single turns."""
    from openrlhf.utils.agent import SingleTurnAgentExecutor

    settings = SimpleNamespace(max_tokens=8, logprobs=None)
    loop = asyncio.new_event_loop()
    with TemporaryDirectory() as folder:
        executors = []
        for name, text in (("ours.py", OPENRLHF), ("bare.py", BARE_OPENRLHF)):
            (path := Path(folder, name)).write_text(text)
            executors.append(SingleTurnAgentExecutor(str(path)))

        def call(executor: Any) -> Callable[[], Awaitable[Any]]:
            return lambda: executor.execute("Changed? ", "q", settings, 100, Characters(), Engine())

        return over_bare(call(executors[0]), call(executors[1]), calls, loop)


def of_encoder(count: int = 512, rounds: int = 3) -> float:
    """How many times as long as one batch of new images so many concurrent calls take, by the clock."""
    rng = np.random.default_rng(0)

    def new() -> tuple[list[Any], list[Any]]:
        images = [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(count)]
        samples = [
            {"id": f"f{n}", "task": "forecast", "images": [image], "prompt": "a new road"}
            for n, image in enumerate(images)
        ]
        return images, samples

    async def calls(reward: rsw.Reward, outputs: list[Any], samples: list[Any]) -> None:
        await asyncio.gather(*map(reward.aone, outputs, samples))

    ratios = []
    with rsw.Reward({"clip_score": 1.0}) as reward:
        reward.warm()
        reward.many(*new())
        for _ in range(rounds):
            first, second = new(), new()
            start = time.perf_counter()
            reward.many(*first)
            middle = time.perf_counter()
            asyncio.run(calls(reward, *second))
            ratios.append((time.perf_counter() - middle) / (middle - start))
    return statistics.median(ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=256)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found: dict[str, Any] = {"load": round(os.getloadavg()[0], 1), "cores": os.cpu_count()}
    for name, measure in (("verl", of_verl), ("openrlhf", of_openrlhf)):
        try:
            found[f"{name}_ms_over_bare"] = round(measure(asked.calls), 3)
        except ModuleNotFoundError as error:
            found[name] = (
                f"not measured: there is no module {error.name}; tests/integrations/environments.toml names what it needs"
            )
    found |= {"ms_target": 0.5, "encoder_512_calls_of_one_batch": round(of_encoder(), 2), "encoder_target": 1.5}
    print(json.dumps(found) if asked.json else "\n".join(f"{name}: {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
