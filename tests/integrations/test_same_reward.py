"""The same outputs have the same rewards in every trainer, to the last bit, as ``rsw score`` gives them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import rsw_rewards as rsw
from rsw_rewards.integrations import (
    areal,
    easyr1,
    flow_factory,
    flow_grpo,
    inspect_ai,
    lmms_eval,
    nemo_gym,
    openrlhf,
    slime,
    swift,
    trl,
    verifiers,
    verl,
    verl_omni,
)
from tests.foreign import package
from tests.integrations.test_verl import Settings

LEVELS = np.random.default_rng(0)
VOCABULARY = ["yes", "no", "buildings", "trees", "water"]
END = 2
PLAIN = {"components": [{"use": "exact_match", "weight": 0.9}, {"use": "answer_format", "weight": 0.1}]}
OF_GROUPS = PLAIN | {"combine": "normalize_each"}
OF_IMAGES = {"components": [{"use": "gain_over_copy", "weight": 0.7}, {"use": "ssim", "weight": 0.3}]}


@dataclass(frozen=True)
class Row:
    """An output, and the sample that it answers."""

    sample: dict[str, Any]
    output: Any
    """A text; or the levels of a forecast, float32 of shape (H, W, 3) in [0, 1]."""
    is_truncated: bool = False

    @property
    def tokens(self) -> list[int]:
        return [7] if self.is_truncated else [7, END]


def texts() -> list[Row]:
    """Eight of each question."""
    rows = []
    for number in range(125):
        right, wrong = (VOCABULARY[(number + shift) % 5] for shift in (0, 1))
        reference = {"answers": [right], "vocabulary": VOCABULARY}
        sample = {"id": f"q{number}", "task": "change_qa", "scene": f"q{number}", "reference": reference}
        rows += [
            Row(sample, right),
            Row(sample, wrong),
            Row(sample, f"<think>It was {wrong}; it is {right}.</think>{right.upper()}"),
            Row(sample, f"<think>It was {wrong}, thus {right}"),
            Row(sample, f"  {right}<|im_end|>\n"),
            Row(sample, f"I see {wrong} and {right}"),
            Row(sample, ""),
            Row(sample, right, is_truncated=True),
        ]
    return rows


def forecasts(folder: Path) -> list[Row]:
    """Eight of each scene, whose images lie in a folder."""

    def file(name: str, image: np.ndarray) -> str:
        Image.fromarray(image).save(folder / name)
        return str(folder / name)

    rows = []
    for number in range(25):
        before, after, other = LEVELS.integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
        sample = {
            "id": f"f{number}", "task": "forecast", "scene": f"f{number}", "images": [file(f"{number}a.png", before)],
            "reference": {"images": [file(f"{number}b.png", after)]},
        }  # fmt: skip
        shares = (1, 0, 0.5, 0.9, 0.1, 0.3, 0.7)
        mixed = [np.float32(share) * after + np.float32(1 - share) * before for share in shares]
        rows += [Row(sample, image.astype(np.float32) / np.float32(255)) for image in (*mixed, other)]
    return rows


def in_bytes(row: Row) -> np.ndarray:
    """The nearest of 256 grey levels, halves the one above."""
    return np.floor(row.output.astype(np.float64) * 255 + 0.5).astype(np.uint8)


def scored(rows: list[Row], rubric: Any, folder: Path) -> list[float]:
    """The rewards of ``rsw score``, from files."""
    samples, predictions = folder / "samples.jsonl", folder / "predictions.jsonl"
    held_in_file = "".join(json.dumps(sample) + "\n" for sample in unique(rows))
    samples.write_text(held_in_file.replace(f"{folder}/", ""))  # a file's paths are relative to it
    written = []
    for number, row in enumerate(rows):
        held: dict[str, Any] = {"id": row.sample["id"], "candidate": number % 8}
        if isinstance(row.output, str):
            held |= {"text": row.output, "finish_reason": "length" if row.is_truncated else "stop"}
        else:
            held |= {"image": f"{number}.png"}
            Image.fromarray(in_bytes(row)).save(folder / held["image"])
        written.append(held)
    predictions.write_text("".join(json.dumps(held) + "\n" for held in written))
    return [record["reward"] for record in rsw.rewards(rubric, samples, predictions).records]


def unique(rows: list[Row]) -> list[dict[str, Any]]:
    return list({row.sample["id"]: row.sample for row in rows}.values())


def grouped(rows: list[Row]) -> Iterator[tuple[str, list[Row]]]:
    return ((name, list(some)) for name, some in groupby(rows, lambda row: row.sample["id"]))


Adapter = Callable[[list[Row], Callable[[Row], Any], dict[str, Any]], list[float]]
"""Takes the outputs, what stands in each row for its sample, and the settings of a reward."""


def by_trl(rows: list[Row], truth: Any, given: dict[str, Any]) -> list[float]:
    reward = trl.RSWReward(**given, eos_token_id=END)
    fields = ["id"] if given["samples"] else ["id", "task", "scene", "reference"]
    columns = {name: [row.sample[name] for row in rows] for name in fields}
    turns = [[{"role": "assistant", "content": row.output}] for row in rows]
    return reward(["?"] * len(rows), turns, [row.tokens for row in rows], **columns)


def by_verl_function(rows: list[Row], truth: Any, given: dict[str, Any]) -> list[float]:
    return [verl.compute_score("levir", row.output, truth(row), {}, **given)["score"] for row in rows]


def by_verl_manager(rows: list[Row], truth: Any, given: dict[str, Any]) -> list[float]:
    config = Settings(
        reward={"num_workers": 1, "custom_reward_function": {"reward_kwargs": given}},
        actor_rollout_ref={"rollout": {"n": 8, "val_kwargs": {"n": 8}}},
        trainer={"val_before_train": False, "test_freq": -1, "use_v1": True},
    )
    rewards = verl.Rewards(config, SimpleNamespace(eos_token_id=END))

    async def step() -> list[Any]:
        held = ({"uid": row.sample["id"], "reward_model": {"ground_truth": truth(row)}} for row in rows)
        return await asyncio.gather(
            *(rewards.of_row(row.output, row.tokens, one) for row, one in zip(rows, held, strict=True))
        )

    return [given["reward_score"] for given in asyncio.run(step())]


def by_openrlhf(rows: list[Row], truth: Any, given: dict[str, Any]) -> list[float]:
    reward_func = openrlhf.make_reward(**given, end="</s>")
    prompt = "<|im_start|>user\nChanged?<|im_end|>\n<|im_start|>assistant\n"
    asked = [prompt + row.output + "</s>" * (not row.is_truncated) for row in rows]
    return reward_func(asked, [prompt] * len(rows), [truth(row) for row in rows])["rewards"].tolist()


def by_areal(rows: list[Row], truth: Any, given: dict[str, Any]) -> list[float]:
    reward_fn = areal.RSWReward(**given, eos_token_id=END)
    return [reward_fn("Changed?", row.output, [5], row.tokens, id=truth(row)) for row in rows]


def by_easyr1(rows: list[Row], truth: Any, given: dict[str, Any]) -> list[float]:
    asked = [
        {"response": row.output, "response_length": 8 if row.is_truncated else 7, "ground_truth": truth(row)}
        for row in rows
    ]
    return [row["overall"] for row in easyr1.compute_score(asked, **given, max_response_length=8)]


def by_slime(rows: list[Row], truth: Any, given: dict[str, Any]) -> list[float]:
    reward = slime.RSWReward(**given)
    found = []
    for number, (_, some) in enumerate(grouped(rows)):
        held = [
            SimpleNamespace(
                response=row.output, label=truth(row), group_index=number, remove_sample=False,
                status="truncated" if row.is_truncated else "completed",
            )
            for row in some
        ]  # fmt: skip
        found += asyncio.run(reward.rm(None, held))
    return [row["score"] for row in found]


def by_swift(rows: list[Row], truth: Any, given: dict[str, Any]) -> list[float]:
    return swift.RSWReward(**given).rewards(
        [row.output for row in rows],
        id=[truth(row) for row in rows],
        prompt_id=[row.sample["id"] for row in rows],
        is_truncated=[row.is_truncated for row in rows],
    )


def by_verifiers(rows: list[Row], truth: Any, given: dict[str, Any]) -> list[float]:
    reward = verifiers.make_reward(**given)

    async def step() -> list[float]:
        return await asyncio.gather(
            *(
                reward(
                    SimpleNamespace(id=truth(row)),
                    SimpleNamespace(
                        assistant_messages=[SimpleNamespace(content=row.output)], root_reply=None, metrics={},
                        is_truncated=row.is_truncated, stop_condition="agent_completed",
                    ),
                )
                for row in rows
            )
        )  # fmt: skip

    return asyncio.run(step())


def by_nemo_gym(rows: list[Row], truth: Any, given: dict[str, Any]) -> list[float]:
    verify = nemo_gym.make_verify(**given)

    def body(row: Row) -> dict[str, Any]:
        message = {"type": "message", "content": [{"type": "output_text", "text": row.output}]}
        ended = {"status": "completed"}
        if row.is_truncated:
            ended = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
        return {"id": truth(row), "response": {"output": [message], **ended}}

    async def step() -> list[Any]:
        return await asyncio.gather(*(verify(body(row)) for row in rows))

    return [reply["reward"] for reply in asyncio.run(step())]


def by_inspect_ai(rows: list[Row], truth: Any, given: dict[str, Any]) -> list[float]:
    package("inspect_ai")
    from inspect_ai.model import ModelOutput
    from inspect_ai.scorer import Target
    from inspect_ai.solver import TaskState

    score = inspect_ai.make_scorer(**given, key="sample")

    def state(row: Row) -> Any:
        stopped = "max_tokens" if row.is_truncated else "stop"
        output = ModelOutput.from_content("mockllm/model", row.output, stop_reason=stopped)
        held = {"input": "Changed?", "messages": [], "output": output, "metadata": {"sample": truth(row)}}
        return TaskState(model="mockllm/model", sample_id=row.sample["id"], epoch=1, **held)

    async def step() -> list[Any]:
        return await asyncio.gather(*(score(state(row), Target("")) for row in rows))

    return [scored.value["reward"] for scored in asyncio.run(step())]


def by_lmms_eval(rows: list[Row], truth: Any, given: dict[str, Any]) -> list[float]:
    process_results = lmms_eval.make_process_results(**given)
    return [process_results({"id": truth(row)}, [row.output])["rsw"]["score"] for row in rows]


def by_verl_omni(rows: list[Row], truth: Any, given: dict[str, Any]) -> list[float]:
    torch = pytest.importorskip("torch")
    images = [torch.from_numpy(np.moveaxis(in_bytes(row), -1, 0).copy()) for row in rows]
    return [
        verl_omni.compute_score("scenes", image, truth(row), {}, **given)["score"]
        for image, row in zip(images, rows, strict=True)
    ]


def by_flow_factory(rows: list[Row], truth: Any, given: dict[str, Any]) -> list[float]:
    images = [[Image.fromarray(in_bytes(row))] for row in rows]
    rewards = flow_factory.Rewards(given, groups=False)
    return rewards.of_batch(["a road"] * len(rows), images, names=[truth(row) for row in rows])[0]


def by_flow_grpo(rows: list[Row], truth: Any, given: dict[str, Any]) -> list[float]:
    torch = pytest.importorskip("torch")
    score = flow_grpo.RSWReward(**given).score_functions()["rsw"]()
    images = torch.from_numpy(np.stack([np.moveaxis(row.output, -1, 0) for row in rows]))
    return score(images, ["a road"] * len(rows), [{"id": truth(row)} for row in rows])[0]


OF_TEXTS: dict[str, Adapter] = {
    "trl": by_trl,
    "verl": by_verl_function,
    "verl_manager": by_verl_manager,
    "openrlhf": by_openrlhf,
    "areal": by_areal,
    "easyr1": by_easyr1,
    "slime": by_slime,
    "swift": by_swift,
    "verifiers": by_verifiers,
    "nemo_gym": by_nemo_gym,
    "inspect_ai": by_inspect_ai,
    "lmms_eval": by_lmms_eval,
}
WHOLE_GROUPS = ("trl", "verl_manager", "easyr1", "slime", "swift")
SAYS_NOTHING_OF_TRUNCATION = ("verl", "lmms_eval")
BITS_32 = ("openrlhf",)
"""Those whose rewards are tensors of 32 bits."""


def given_to(rubric: Any, folder: Path, by_id: bool) -> tuple[Callable[[Row], Any], dict[str, Any]]:
    """What a row holds for its sample, and the settings of a reward."""
    samples = str(folder / "samples.jsonl") if by_id else None
    return (lambda row: row.sample["id"] if by_id else json.dumps(row.sample)), {"rubric": rubric, "samples": samples}


@pytest.fixture(scope="module", params=[PLAIN, OF_GROUPS], ids=["each", "groups"])
def of_texts(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, list[float], list[Row], Path]:
    rows, folder = texts(), tmp_path_factory.mktemp("texts")
    return request.param, scored(rows, request.param, folder), rows, folder


@pytest.mark.parametrize("by_id", [True, False], ids=["id", "row"])
@pytest.mark.parametrize("name", OF_TEXTS)
def test_texts(name: str, by_id: bool, of_texts: tuple[Any, list[float], list[Row], Path]) -> None:
    rubric, expected, rows, folder = of_texts
    assert len(rows) == 1000 and len(set(expected)) >= 3
    if rubric is OF_GROUPS and name not in WHOLE_GROUPS:
        with pytest.raises(rsw.ConfigError, match=r"normalises each .* use a rubric that rewards outputs one by one"):
            OF_TEXTS[name](rows, *given_to(rubric, folder, by_id))
        return
    if name == "openrlhf":
        pytest.importorskip("torch")
    told = [place for place, row in enumerate(rows) if not (row.is_truncated and name in SAYS_NOTHING_OF_TRUNCATION)]
    found = OF_TEXTS[name]([rows[place] for place in told], *given_to(rubric, folder, by_id))
    kind = np.float32 if name in BITS_32 else np.float64
    assert found == [kind(expected[place]) for place in told]


@pytest.fixture(scope="module")
def of_forecasts(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[float], list[Row], Path]:
    folder = tmp_path_factory.mktemp("forecasts")
    rows = forecasts(folder)
    return scored(rows, OF_IMAGES, folder), rows, folder


@pytest.mark.parametrize("adapter", [by_verl_omni, by_flow_grpo, by_flow_factory])
@pytest.mark.parametrize("by_id", [True, False], ids=["id", "row"])
def test_forecasts(adapter: Adapter, by_id: bool, of_forecasts: tuple[list[float], list[Row], Path]) -> None:
    expected, rows, folder = of_forecasts
    assert len(rows) == 200 and len(set(expected)) > 150
    assert adapter(rows, *given_to(OF_IMAGES, folder, by_id)) == expected
