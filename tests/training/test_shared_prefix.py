"""Rows of a prompt learnt from as one row, against each row with its own prompt: the same numbers, for every kind of policy."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from rsw_rewards.config import RunConfig
from rsw_rewards.core.plugins import load_file
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.data.scene_world import scene_world_samples
from rsw_rewards.errors import ConfigError
from rsw_rewards.rollouts.policies import build_policy
from rsw_rewards.rollouts.policy import Request
from rsw_rewards.training.run_folder import run_folder
from rsw_rewards.training.shared_prefix import inputs_of, pack, why_not
from rsw_rewards.training.trainer_views import trainer_view
from rsw_rewards.training.trl_trainer import Trainer
from tests.training import grpo_steps
from tests.training.toy_lm import ToyLM

GROUP = 4
ROOT = Path(__file__).parents[2]


def questions() -> list[Sample]:
    """Two with equal words about other images, and a longer one."""
    first, second, third = load_file(ROOT / "examples/squares.py").squares(3)
    return [first, second, replace(third, prompt=f"{third.prompt} {third.prompt}")]


def questions_and_forecasts() -> list[Sample]:
    made = scene_world_samples(6, 0, split="rl", tasks=("change_qa", "forecast"))
    by_task = [[one for one in made if one.task is task] for task in (Task.CHANGE_QA, Task.FORECAST)]
    return [by_task[0][0], by_task[1][0], by_task[0][1]]


class Made:
    """A policy with rollouts of its own, the last of which is lost, and trainers over them."""

    def __init__(self, policy: dict[str, Any], samples: Sequence[Sample], folder: Path) -> None:
        torch.manual_seed(0)
        self.policy: Any = build_policy(policy)
        self.policy.setup("cpu", 1)
        self.asked, self.folder = list(samples), folder
        self.samples = {sample.id: sample for sample in samples}
        requests = [Request(one, number, 10 * number, 1.0) for one in samples for number in range(GROUP)]
        *rest, last = self.policy.generate(requests)
        self.outputs = [*rest, Output(last.sample_id, last.candidate, lost="for the test")]
        with torch.no_grad():  # adapters begin as nothing
            for weight in self.policy.model.parameters():
                weight += 0.05 * torch.randn_like(weight) * weight.requires_grad

    def collect(self, ids: Sequence[str], step: int, weights: Any) -> tuple[list[Output], list[float | None]]:
        chosen = [output for one in ids for output in self.outputs if output.sample_id == one]
        return chosen, [None if output.lost else float(n % 3 == 0) for n, output in enumerate(chosen)]

    def trainer(self, **grpo: Any) -> Any:
        section = {"steps": 1, "prompts": len(self.asked), "group": GROUP, "threads": 1, "device": "cpu"}
        self.config = RunConfig.model_validate({
            "out": self.folder, "policy": "", "train": {"source": ""}, "rubric": {"components": [{"use": "exact_match"}]},
            "grpo": section | grpo,
        })  # fmt: skip
        view = trainer_view(self.policy, self.asked)
        self.rows = list(view.dataset([one.id for one in self.asked for _ in range(GROUP)]))
        collector: Any = self
        made = Trainer(self.config, view, list(self.samples), collector)
        made.model.train()
        return made

    def batch(self, made: Any) -> dict[str, Any]:
        """The first micro-batch."""
        made.current_gradient_accumulation_steps = made.args.gradient_accumulation_steps
        found: dict[str, Any] = made._prepare_inputs([dict(row) for row in self.rows])
        return found


def log_probs(made: Any, batch: dict[str, Any]) -> torch.Tensor:
    ids, mask = (torch.cat([batch[f"prompt_{what}"], batch[f"completion_{what}"]], 1) for what in ("ids", "mask"))
    images = {key: batch.get(key) for key in ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")}
    keep = batch["completion_ids"].shape[1]
    found: torch.Tensor = made._get_per_token_logps_and_entropies(made.model, ids, mask, keep, **images)[0]
    return found * batch["completion_mask"]


def gradients(made: Any, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    made.model.zero_grad()
    made.compute_loss(made.model, batch).backward()
    return {name: weight.grad.clone() for name, weight in made.model.named_parameters() if weight.grad is not None}


def vlm(name: str, **more: Any) -> dict[str, Any]:
    return {"use": "vision_language", "path": f"tiny:{name}", "max_new_tokens": 6, **more}


def world(name: str, **more: Any) -> dict[str, Any]:
    return {**vlm(name, **more), "use": "backbone_world_model"}


EMBEDDED = {"use": "token_world_model", "path": "embedded"}
CASES = {
    "qwen2_5_vl": (vlm("qwen2_5_vl"), questions, {}),
    "qwen3_vl": (vlm("qwen3_vl"), questions, {}),
    "adapters": (vlm("qwen3_vl", lora={"r": 4}), questions, {"beta": 0.1}),
    "eager": (vlm("qwen2_5_vl", attn="eager"), questions, {"loss_type": "dapo"}),
    "blind": (vlm("qwen2_5_vl", send_images=False), questions, {}),
    "checkpointing": (vlm("qwen2_5_vl"), questions, {"beta": 0.1, "trl": {"gradient_checkpointing": True}}),
    "entropy": (vlm("qwen2_5_vl"), questions, {"trl": {"entropy_coef": 0.1}}),
    "token_world_model": (EMBEDDED, questions_and_forecasts, {"beta": 0.1}),
    "backbone": (world("qwen2_5_vl"), questions_and_forecasts, {}),
    "backbone_adapters": (world("qwen3_vl", lora={"r": 4}), questions_and_forecasts, {"beta": 0.1}),
}


QUICK = ("qwen2_5_vl", "adapters", "token_world_model", "backbone")


@pytest.mark.parametrize("case", [pytest.param(one, marks=() if one in QUICK else pytest.mark.slow) for one in CASES])
def test_log_probabilities_and_gradients_are_those_of_rows_by_themselves(case: str, tmp_path: Path) -> None:
    policy, samples, grpo = CASES[case]
    made = Made(policy, samples(), tmp_path)
    together, alone = (made.trainer(shared_prefix=shared, **grpo) for shared in (True, False))
    if "beta" in grpo:  # away from the start
        with torch.no_grad():
            for weight in made.policy.model.parameters():
                weight += 0.01 * torch.randn_like(weight) * weight.requires_grad
    batch = made.batch(together)
    made.batch(alone)
    assert len({len(row[row > 0]) for row in batch["completion_mask"]}) > 1, "padding is part of the test"
    shapes: list[tuple[int, int]] = []
    look = made.policy.model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    torch.testing.assert_close(log_probs(together, batch), log_probs(alone, batch), atol=1e-5, rtol=0)
    look.remove()
    assert [rows for rows, _ in shapes] == [1, 1, 1, 3 * GROUP]
    found, expected = gradients(together, batch), gradients(alone, batch)
    assert found.keys() == expected.keys()
    for name, one in expected.items():
        assert float((found[name] - one).norm()) <= 1e-4 * float(one.norm()) + 1e-7, name
    if "beta" in grpo:
        reference = [made.batch(each)["ref_per_token_logps"].sum() for each in (together, alone)]
        torch.testing.assert_close(reference[0], reference[1], atol=1e-3, rtol=1e-6)


@pytest.mark.parametrize("micro_batch", [2, 4, 6])
def test_ratios_of_unchanged_weights_are_exactly_one(micro_batch: int, tmp_path: Path) -> None:
    """However the rows of a generation are shuffled into micro-batches."""
    made = Made(vlm("qwen2_5_vl"), questions(), tmp_path)
    trainer = made.trainer(micro_batch=micro_batch, iterations=2)
    for step in range(12 // micro_batch):
        trainer._step = step
        batch = made.batch(trainer)
        known = batch["old_per_token_logps"] * batch["completion_mask"]
        assert torch.equal(log_probs(trainer, batch), known) and bool((known != 0).any())


def test_a_pack_holds_the_prompt_once() -> None:
    prompt = list(range(1, 101))
    ids = torch.tensor([[0, *prompt, 200 + n, 300, 300] for n in range(8)])
    seen = (ids > 0).int()
    packed = pack(ids, seen, 3)
    model = ToyLM()
    model.setup()
    assert inputs_of(model.model, packed)["input_ids"].shape == (1, 99 + 8 * 3)


@pytest.mark.parametrize("same", [True, False])
def test_rows_that_are_equal_or_have_nothing_in_common(same: bool) -> None:
    ids = torch.tensor([[2, 3, 4, 5]] * 3 if same else [[2, 3, 4, 5], [6, 7, 8, 9], [10, 11, 12, 13]])
    packed = pack(ids, torch.ones_like(ids), 2)
    assert len(packed.labels) == (3 if same else 9)
    assert torch.equal(packed.unpack(packed.labels.float()), ids[:, -2:].float())


class Deaf(Qwen3ForCausalLM):
    """Takes a mask and does not keep to it."""

    def forward(self, *args: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
        return super().forward(*args, **kwargs)


class Strict(Qwen3ForCausalLM):
    """Takes a mask of padding alone."""

    def forward(self, *args: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
        if attention_mask is not None and attention_mask.ndim != 2:
            raise ValueError("two dimensions, please")
        return super().forward(*args, attention_mask=attention_mask, **kwargs)


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        (Deaf, {}, "does not keep to a mask of rows"),
        (Strict, {}, "two dimensions, please"),
        (
            Qwen3ForCausalLM,
            {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0},
            "sliding_attention",
        ),
    ],
    ids=["deaf", "strict", "sliding"],
)
def test_a_model_that_cannot_says_why_and_is_trained_row_by_row(
    kind: type, changes: dict[str, Any], words: str, tmp_path: Path, monkeypatch: Any, caplog: Any
) -> None:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=20, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        head_dim=8, pad_token_id=0, eos_token_id=1, **changes,
    )  # fmt: skip
    model = kind(config)
    assert words in why_not(model)
    setup = ToyLM.setup

    def other(self: ToyLM, device: str = "cpu", threads: int = 1) -> None:
        setup(self, device, threads)
        self.model = model

    monkeypatch.setattr(ToyLM, "setup", other)
    with caplog.at_level(logging.WARNING, "rsw_rewards"):
        made = grpo_steps.trainer(tmp_path, grpo_steps.rollouts(), [0.0, 1.0] * 8)
    assert words in caplog.text and "grpo.shared_prefix" in caplog.text
    loss, _ = grpo_steps.update(made)
    assert loss == loss


def test_an_attention_that_takes_no_mask_is_named() -> None:
    policy = ToyLM()
    policy.setup()
    assert why_not(policy.model) == ""
    policy.model.set_attn_implementation("flex_attention")
    assert "attn: sdpa" in why_not(policy.model)


def test_images_that_are_no_grids_are_not_packed() -> None:
    policy = ToyLM()
    policy.setup()
    assert "pixel_attention_mask" in why_not(policy.model, ["input_ids", "pixel_values", "pixel_attention_mask"])
    assert "no grids of patches" in why_not(policy.model, ["input_ids", "pixel_values"])


def test_resume_compares_the_setting(tmp_path: Path) -> None:
    def config(**grpo: Any) -> RunConfig:
        return RunConfig.model_validate({
            "out": tmp_path / "run", "policy": "", "train": {"source": ""}, "rubric": {"components": [{"use": "exact_match"}]},
            "grpo": {"steps": 1, **grpo},
        })  # fmt: skip

    with run_folder(tmp_path / "run", config(), resume=False):
        pass
    with (
        pytest.raises(ConfigError, match=r"grpo\.shared_prefix"),
        run_folder(tmp_path / "run", config(shared_prefix=False), resume=True),
    ):
        pass
