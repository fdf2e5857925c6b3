"""Completions of a prompt that is read once: the same as the library's ``generate`` gives for the same seeds, at the price of one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.data.scene_world import scene_world_samples
from rsw_rewards.rollouts import sampling
from rsw_rewards.rollouts.policies import build_policy
from rsw_rewards.rollouts.policy import Request

GROUP = 4


def samples(forecasts: bool) -> list[Sample]:
    """Two questions of different lengths, and a forecast."""
    made = scene_world_samples(4, 0, split="rl", tasks=("change_qa", "forecast"))
    first, second = [one for one in made if one.task is Task.CHANGE_QA][:2]
    rest = [one for one in made if one.task is Task.FORECAST][:1] if forecasts else []
    return [first, replace(second, prompt=f"{second.prompt} {second.prompt}"), *rest]


def policy(use: str, name: str, **more: Any) -> Any:
    made = build_policy({"use": use, "path": f"tiny:{name}", "max_new_tokens": 12, **more})
    made.setup("cpu", 1)
    # A third of the words end an answer, so that rows end at different steps.
    made.model.generation_config.eos_token_id = [made.eos_id, *range(20, 160)]
    return made


def answers(made: Any, asked: list[Sample], temperature: float = 1.0) -> list[Output]:
    found: list[Output] = made.generate(
        [
            Request(one, number, 100 * place + number, temperature)
            for place, one in enumerate(asked)
            for number in range(GROUP)
        ]
    )
    return found


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
@pytest.mark.parametrize(
    ("use", "name", "more"),
    [
        ("vision_language", "qwen2_5_vl", {}),
        ("vision_language", "qwen3_vl", {"lora": {"r": 4}}),
        ("vision_language", "qwen2_5_vl", {"send_images": False}),
        ("backbone_world_model", "qwen3_vl", {}),
    ],
    ids=["qwen2_5_vl", "adapters", "blind", "backbone"],
)
def test_it_samples_what_generate_samples(
    use: str, name: str, more: dict[str, Any], temperature: float, monkeypatch: Any
) -> None:
    made, asked = policy(use, name, **more), samples(use == "backbone_world_model" and temperature == 1.0)
    once = answers(made, asked, temperature)
    monkeypatch.setattr(sampling, "readable_once", lambda model: False)
    each = answers(made, asked, temperature)
    for found, expected in zip(once, each, strict=True):
        assert found.tokens and expected.tokens
        assert (found.text, found.finish_reason, found.invalid) == (
            expected.text,
            expected.finish_reason,
            expected.invalid,
        )
        assert found.tokens.prompt_ids == expected.tokens.prompt_ids
        assert found.tokens.completion_ids == expected.tokens.completion_ids
        torch.testing.assert_close(
            torch.tensor(found.tokens.logprobs), torch.tensor(expected.tokens.logprobs), atol=1e-5, rtol=0
        )
    if temperature == 1.0:
        assert len({len(output.tokens.completion_ids) for output in once if output.tokens}) > 1


def test_images_are_read_once_and_rows_that_have_ended_leave() -> None:
    made, asked = policy("vision_language", "qwen2_5_vl"), samples(False)
    calls: list[tuple[int, int]] = []
    patches: list[int] = []

    def look(module: Any, args: Any, kwargs: Any) -> None:
        calls.append(tuple(kwargs["input_ids"].shape))
        patches.extend(len(kwargs[key]) for key in ("pixel_values",) if key in kwargs)

    made.model.register_forward_pre_hook(look, with_kwargs=True)
    outputs = answers(made, asked)
    alone = made.encode(asked, [made.pictures(one) for one in asked])
    assert calls[0] == tuple(alone["input_ids"].shape) and patches == [len(alone["pixel_values"])]
    lengths = [len(output.tokens.completion_ids) for output in outputs if output.tokens]
    assert calls[1:] == [(sum(length > step for length in lengths), 1) for step in range(1, max(lengths))]
