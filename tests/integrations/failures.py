"""What a reward that failed does to its group in each trainer, as a table: raised, not a number, hanging, its process killed.

    python tests/integrations/failures.py NAME ...

A group has the rewards 1, 0, none and 1. Advantages come from the trainer's own functions, for which its package must be importable.
Of verifiers and NeMo-Gym, which leave advantages to trainers, it shows the rewards; of Inspect and lmms-eval the mean.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

import rsw_rewards as rsw

sys.modules["tests"] = tests = ModuleType(
    "tests"
)  # some packages bring a package `tests`, which would stand before ours
tests.__path__ = [str(Path(__file__).resolve().parents[1])]

FAULTS = ("raise", "nan", "hang", "kill")
QUESTION = {"id": "a", "task": "change_qa", "reference": {"answers": ["1"]}}
FORECAST = {"id": "a", "task": "forecast", "prompt": "a road", "images": [np.zeros((8, 8, 3), np.uint8)], "reference": {"images": [np.ones((8, 8, 3), np.uint8)]}}  # fmt: skip
RUBRIC = {"components": [{"use": f"{Path(__file__).resolve()}:share", "timeout_s": 5.0}]}


@rsw.verifier(tasks=("change_qa", "forecast"))
def share(sample: rsw.Sample, output: rsw.Output) -> float:
    """The number that a text is, or the share of red in an image's first pixel, unless they name a fault."""
    found = output.text
    if found is None:
        level = int(output.image.pixels()[0, 0, 0])
        found = FAULTS[level - 1] if 0 < level <= len(FAULTS) else str(level / 255)
    if found == "raise":
        raise ValueError("a fault of the verifier's")
    if found == "hang":
        time.sleep(3600)
    if found == "kill":
        os._exit(1)
    return float(found)


def images(texts: list[str]) -> list[np.ndarray]:
    levels = [FAULTS.index(text) + 1 if text in FAULTS else int(text) * 255 for text in texts]
    return [np.full((8, 8, 3), level, np.uint8) for level in levels]


def trl(texts: list[str]) -> list[float]:
    from tests.integrations.trl_step import step

    with tempfile.TemporaryDirectory() as folder:
        _, table = step(texts, RUBRIC, Path(folder), per_device_train_batch_size=len(texts))
    return [float(table[table["completion"] == text]["advantage"].iloc[0]) for text in texts]


def verl(texts: list[str], on_failure: str = "raise") -> list[float]:
    import torch
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

    from rsw_rewards.integrations.verl import Rewards
    from tests.integrations.test_verl import Tokenizer, held, settings

    rewards = Rewards(
        settings(rubric=RUBRIC, samples=[QUESTION], on_failure=on_failure, group_timeout_s=600), Tokenizer()
    )
    rewards.groups.size = len(texts) if rewards.why else 1

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(rewards.of_row(text, [7, 0], held()) for text in texts), return_exceptions=True)

    given = asyncio.run(all_of_them())
    known = [place for place, row in enumerate(given) if not isinstance(row, rsw.RunStopped)]
    scores = torch.tensor([[given[place]["reward_score"]] for place in known])
    found, _ = compute_grpo_outcome_advantage(scores, torch.ones_like(scores), np.array(["u"] * len(known)))
    return [float(found[known.index(place), 0]) if place in known else np.nan for place in range(len(texts))]


def swift(texts: list[str]) -> list[float]:
    import torch
    from swift.rl_core.advantage import compute_advantages

    from rsw_rewards.integrations.swift import RSWReward

    columns = {"id": ["a"] * len(texts), "prompt_id": ["p"] * len(texts), "is_truncated": [False] * len(texts)}
    given = torch.tensor(RSWReward(RUBRIC, [QUESTION]).rewards(texts, **columns))[:, None]
    return compute_advantages(given, torch.ones(1), len(texts), scale_rewards="group")[0].tolist()


def slime(texts: list[str]) -> list[float]:
    from rsw_rewards.integrations.slime import RSWReward

    reward = RSWReward(RUBRIC, [QUESTION])
    args = SimpleNamespace(advantage_estimator="grpo", rewards_normalization=True, grpo_std_normalization=True)
    samples = [SimpleNamespace(response=text, label="a", status="completed", group_index=0, remove_sample=False) for text in texts]  # fmt: skip
    for sample, given in zip(samples, asyncio.run(reward.rm(args, samples)), strict=True):
        sample.reward = given
    _, trained = reward.post_process(args, samples)
    return [np.nan if sample.remove_sample else number for sample, number in zip(samples, trained, strict=True)]


def easyr1(texts: list[str]) -> list[float]:
    from tests.foreign import checkout

    checkout("EasyR1", "b44b311")
    import torch
    from verl.trainer.core_algos import compute_grpo_outcome_advantage

    from rsw_rewards.integrations.easyr1 import compute_score

    asked = [{"response": text, "response_length": 2, "ground_truth": "a"} for text in texts]
    given = compute_score(asked, rubric=RUBRIC, samples=[QUESTION], max_response_length=8)
    scores = torch.tensor([[row["overall"]] for row in given])
    found, _ = compute_grpo_outcome_advantage(scores, torch.ones_like(scores), np.array(["u"] * len(texts)))
    return found[:, 0].tolist()


def flow_factory(texts: list[str]) -> list[float]:
    from tests.integrations.test_flow_factory import processor, rollouts

    rewards = processor(
        {
            "reward_model": "rsw_rewards.integrations.flow_factory.RSWGroupwiseReward",
            "rubric": RUBRIC,
            "samples": [FORECAST],
        }
    )
    from flow_factory.advantage.advantage_processor import AdvantageProcessor

    samples = rollouts(images(texts))
    found = rewards.compute_rewards(samples)
    own = AdvantageProcessor(rewards.accelerator, {"rsw": 1.0}, len(texts), global_std=False, verbose=False)
    return own.compute_advantages(samples, found, aggregation_func="sum").tolist()


def openrlhf(texts: list[str]) -> list[float]:
    from rsw_rewards.integrations.openrlhf import make_reward

    reward = make_reward(RUBRIC, [QUESTION], end="</s>")
    return [float(reward(["?" + text + "</s>"], ["?"], ["a"])["rewards"]) for text in texts]


def areal(texts: list[str]) -> list[float]:
    from rsw_rewards.integrations.areal import RSWReward

    reward = RSWReward(RUBRIC, [QUESTION], eos_token_id=0)
    return [reward("?", text, [5], [7, 0], id="a") for text in texts]


def verl_omni(texts: list[str]) -> list[float]:
    import torch

    from rsw_rewards.integrations.verl_omni import compute_score

    tensors = [torch.from_numpy(np.moveaxis(image, -1, 0).copy()) for image in images(texts)]
    return [compute_score("s", one, "a", rubric=RUBRIC, samples=[FORECAST])["score"] for one in tensors]


def flow_grpo(texts: list[str]) -> list[float]:
    from rsw_rewards.integrations.flow_grpo import RSWReward

    score = RSWReward(RUBRIC, [FORECAST]).score_functions()["rsw"]()
    return score(np.stack(images(texts)), ["?"] * len(texts), [{"id": "a"}] * len(texts))[0]


def verifiers(texts: list[str]) -> list[float]:
    import verifiers.v1 as vf

    from rsw_rewards.integrations.verifiers import make_reward
    from tests.integrations.test_verifiers import real_trace

    class Question(vf.Task[vf.TaskData]):
        rsw = vf.reward(make_reward(RUBRIC, [QUESTION]))

    def rewarded(text: str) -> float:
        trace = real_trace(task, text)
        try:
            asyncio.run(task.score(trace))
        except vf.TaskError:
            return np.nan
        return float(trace.reward)

    task = Question(vf.TaskData(id="a", prompt="?"))
    return [rewarded(text) for text in texts]


def nemo_gym(texts: list[str]) -> list[float]:
    from rsw_rewards.integrations.nemo_gym import make_verify
    from tests.integrations.test_nemo_gym import body

    verify = make_verify(RUBRIC, [QUESTION])
    replies = [asyncio.run(verify(body(text))) for text in texts]
    return [np.nan if reply["mask_sample"] else reply["reward"] for reply in replies]


def inspect_ai(texts: list[str]) -> str:
    from inspect_ai.model import ModelOutput

    from rsw_rewards.integrations.inspect_ai import make_scorer
    from tests.integrations.test_inspect_ai import evaluated

    outputs = [ModelOutput.from_content("mockllm", text) for text in texts]
    scorer = make_scorer(RUBRIC, [QUESTION], key="sample")
    with tempfile.TemporaryDirectory() as folder:
        log = evaluated(Path(folder), scorer, outputs, metadata={"sample": "a"})
    reward = next(score for score in log.results.scores if score.name == "reward")
    return of_mean(reward.metrics["mean"].value, reward.unscored_samples)


def lmms_eval(texts: list[str]) -> str:
    from tests.integrations.test_lmms_eval import aggregated

    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_DATASETS_CACHE"] = folder
        found = aggregated(Path(folder), texts, "RUBRIC", "tests.integrations.failures")
    return of_mean(found["rsw,none"], found["rsw_unscored,none"])


def of_mean(mean: float, unscored: float) -> str:
    return f"mean {mean:.3f}, {unscored:.0f} unscored"


TRAINERS: dict[str, Callable[[list[str]], list[float] | str]] = {
    "trl": trl, "verl": verl, "verl group_mean": lambda texts: verl(texts, "group_mean"), "swift": swift, "slime": slime,
    "easyr1": easyr1, "flow_factory": flow_factory, "openrlhf": openrlhf, "areal": areal, "verl_omni": verl_omni,
    "flow_grpo": flow_grpo, "verifiers": verifiers, "nemo_gym": nemo_gym, "inspect_ai": inspect_ai, "lmms_eval": lmms_eval,
}  # fmt: skip
RAISES = ("openrlhf", "areal", "verl_omni", "flow_grpo")


def shown(numbers: list[float] | str) -> str:
    if isinstance(numbers, str):
        return numbers
    return ", ".join("left out" if number != number else f"{number:.3f}" for number in numbers)


def main() -> None:
    for name in sys.argv[1:]:
        cells = ["-" if name in RAISES else shown(TRAINERS[name](["1", "0", "1"]))]
        for fault in FAULTS:
            try:
                cells.append(shown(TRAINERS[name]([fault] if name in RAISES else ["1", "0", fault, "1"])))
            except rsw.RunStopped:
                cells.append("raises")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
