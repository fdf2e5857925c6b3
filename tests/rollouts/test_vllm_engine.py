"""vLLM as a sampler, against vLLM itself: `make test-vllm` builds an environment in which it runs on a CPU."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rsw_rewards.config import RunConfig
from rsw_rewards.core.plugins import load_file
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.data.scene_world import scene_world_samples
from rsw_rewards.errors import ConfigError
from rsw_rewards.rollouts.backbone_builder import build_world_model
from rsw_rewards.rollouts.backbone_world_model import BackboneWorldModel
from rsw_rewards.rollouts.policies import build_policy
from rsw_rewards.rollouts.policy import Request
from rsw_rewards.rollouts.tiny_vlm import build_tiny, tiny_folder
from rsw_rewards.rollouts.vision_language import VisionLanguageModel
from rsw_rewards.rollouts.vllm_engine import vllm_sampler
from rsw_rewards.rollouts.weights import trained_weights
from rsw_rewards.training.critic import Rows, score_rows
from rsw_rewards.training.grpo import train_grpo
from tests.training.taught import fit

SQUARES = Path(__file__).parents[2] / "examples/squares.py"
SAMPLES = load_file(SQUARES).squares(2)
real = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM: make test-vllm")
CLOSE = 1e-4
"""Nats that log-probabilities of vLLM's kernels may be from the learner's."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose attention heads have the 32 numbers that vLLM wants on a CPU, and which has learnt to end an answer."""
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, GenerationConfig

    folder, source = tmp_path_factory.mktemp("tiny"), tiny_folder("qwen2_5_vl")
    config = AutoConfig.from_pretrained(source)
    for key, value in {"hidden_size": 128, "intermediate_size": 256, "max_position_embeddings": 4096}.items():
        setattr(config.text_config, key, value)
    config.text_config.rope_parameters["mrope_section"] = [4, 6, 6]
    for key, value in {"hidden_size": 128, "intermediate_size": 256, "out_hidden_size": 128}.items():
        setattr(config.vision_config, key, value)
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    model.generation_config = GenerationConfig.from_pretrained(source)
    model.save_pretrained(folder)
    AutoProcessor.from_pretrained(source).save_pretrained(folder)
    policy = VisionLanguageModel(folder, max_new_tokens=5)
    policy.setup()
    for _ in fit(policy, load_file(SQUARES).squares(200, seed=9), steps=40, batch=8, learning_rate=1e-3):
        pass
    policy.save(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def on_a_cpu() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        for key, value in {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "WARNING"}.items():
            patched.setenv(key, os.environ.get(key, value))
        yield


def sampler_of(folder: Path, **changes: Any) -> Any:
    made = vllm_sampler(VisionLanguageModel(folder, max_new_tokens=5, **changes), max_model_len=512, enforce_eager=True)
    made.setup()
    return made


@pytest.fixture(scope="module")
def sampler(folder: Path) -> Any:
    return sampler_of(folder)


def asked(count: int = 3) -> list[Request]:
    return [Request(sample, k, 100 * row + k, 1.0) for row, sample in enumerate(SAMPLES) for k in range(count)]


def learner(folder: Path, **changes: Any) -> VisionLanguageModel:
    made = VisionLanguageModel(folder, max_new_tokens=5, **changes)
    made.setup()
    return made


def gap(
    policy: VisionLanguageModel,
    outputs: Sequence[Output],
    samples: Sequence[Sample] = SAMPLES,
    temperature: float = 1.0,
) -> float:
    """The largest difference between the log-probabilities that came with tokens and the learner's own."""
    traces = [output.tokens for output in outputs if output.tokens]
    assert len(traces) == len(outputs)
    asked = [samples[place // (len(outputs) // len(samples))] for place in range(len(outputs))]
    rows = Rows(traces, asked, policy.pad_id)
    with torch.no_grad():
        found = score_rows(policy.model, rows, temperature, policy.learner_inputs).log_probs
    return float((found - rows.aligned([trace.logprobs for trace in traces])).abs().max())


def moved(policy: VisionLanguageModel) -> None:
    """Change what is trained."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight += 0.02 * torch.randn_like(weight) * weight.requires_grad


@real
def test_answers_carry_the_learners_prompts_and_log_probabilities(sampler: Any, folder: Path) -> None:
    outputs = sampler.generate(asked())
    policy = learner(folder)
    assert gap(policy, outputs) < CLOSE
    for request, output in zip(asked(), outputs, strict=True):
        assert (output.sample_id, output.candidate) == (request.sample.id, request.candidate)
        assert output.finish_reason == ("length" if output.invalid else "stop")
    assert sampler.generate(asked()) == outputs, "a request has its own seed"
    words = replace(SAMPLES[0], prompt="<|vision_start|><|image_pad|><|vision_end|>\n<|im_end|> did it change?")
    (output,) = sampler.generate([Request(words)])
    assert output.tokens and output.lost is None, "names of special tokens are words for both"


@real
def test_new_weights_answer_and_nothing_of_the_old_ones_is_left(sampler: Any, folder: Path) -> None:
    policy = learner(folder)
    before = sampler.generate(asked())
    moved(policy)
    assert gap(policy, before) > 5 * CLOSE
    sampler.load_weights(trained_weights(policy.model), 1)
    assert gap(policy, sampler.generate(asked())) < CLOSE


@real
def test_adapters_are_merged(folder: Path) -> None:
    lora = {"r": 4, "alpha": 32}
    sampler, policy = sampler_of(folder, lora=lora), learner(folder, lora=lora)
    for _ in range(2):
        moved(policy)
        sampler.load_weights(trained_weights(policy.model), 1)
        assert gap(policy, sampler.generate(asked())) < CLOSE


@real
def test_a_run_learns_and_logs_how_far_sampler_and_learner_are_apart(folder: Path, tmp_path: Path) -> None:
    content = {
        "out": str(tmp_path / "run"), "policy": {"use": "vision_language", "path": str(folder), "max_new_tokens": 5},
        "train": {"source": f"{SQUARES}:squares", "count": 48}, "log": [],
        "rubric": {"components": [{"use": f"{Path(__file__).with_name('says_no.py')}:says_no"}]},
        "grpo": {"steps": 8, "prompts": 4, "group": 8, "threads": 1, "learning_rate": 2e-4, "device": "cpu"},
        "rollouts": {"actors": 0, "engine": "vllm"},
    }  # fmt: skip
    train_grpo(RunConfig.model_validate(content))
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    rewards = [row["reward"] for row in rows]
    assert np.mean(rewards[-2:]) > np.mean(rewards[:2]) + 0.1
    for row in rows:
        assert 0 <= row["sampler_gap_mean"] <= row["sampler_gap"] < CLOSE
        assert row["clip_ratio/region_mean"] == 0.0


def world(folder: Path, out: Path, side: int) -> Path:
    build_world_model(str(folder), "tiny:movq", out, side)
    return out


def of_the_world(folder: Path, **changes: Any) -> tuple[Any, BackboneWorldModel]:
    """A sampler by vLLM and the learner's model of one folder."""
    sampler = vllm_sampler(
        BackboneWorldModel(folder, max_new_tokens=5, **changes), max_model_len=3072, enforce_eager=True
    )
    sampler.setup()
    policy = BackboneWorldModel(folder, max_new_tokens=5, **changes)
    policy.setup()
    return sampler, policy


@real
def test_a_world_model_answers_and_draws_by_its_rules(folder: Path, tmp_path: Path) -> None:
    samples = scene_world_samples(2, 0, split="dev", tasks=("change_qa", "forecast"))
    requests = [Request(sample, k, 100 * row + k, 0.7) for row, sample in enumerate(samples) for k in range(3)]
    sampler, policy = of_the_world(world(folder, tmp_path / "world", 32))
    for version in range(2):
        outputs = sampler.generate(requests)
        assert gap(policy, outputs, samples, 0.7) < CLOSE
        for output, request in zip(outputs, requests, strict=True):
            assert (output.image is not None) == (request.sample.task is Task.FORECAST)
        moved(policy)
        sampler.load_weights(trained_weights(policy.model), version + 1)


@real
def test_a_world_model_with_adapters(folder: Path, tmp_path: Path) -> None:
    samples = scene_world_samples(2, 0, split="dev", tasks=("forecast",))
    requests = [Request(sample, k, 100 * row + k) for row, sample in enumerate(samples) for k in range(2)]
    sampler, policy = of_the_world(world(folder, tmp_path / "world", 32), lora={"r": 4, "alpha": 32})
    moved(policy)
    sampler.load_weights(trained_weights(policy.model), 1)
    assert gap(policy, sampler.generate(requests), samples) < CLOSE


@real
def test_a_forecast_of_a_thousand_tokens_is_drawn_among_others(folder: Path, tmp_path: Path) -> None:
    samples = scene_world_samples(2, 0, split="dev", tasks=("forecast",))
    requests = [Request(sample, k, 100 * row + k) for row, sample in enumerate(samples) for k in range(2)]
    sampler, policy = of_the_world(world(folder, tmp_path / "world", 256))
    outputs = sampler.generate(requests)
    assert [len(output.tokens.completion_ids) for output in outputs] == [1058] * 4
    assert all(output.image is not None for output in outputs)
    assert gap(policy, outputs, samples) < CLOSE


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_it_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pip install 'rsw_rewards\[vllm\]'"):
        vllm_sampler(VisionLanguageModel(build_tiny("qwen2_5_vl", tmp_path))).setup()


def test_models_that_vllm_does_not_know_are_refused() -> None:
    with pytest.raises(ConfigError, match="'token_world_model' is no model that vLLM knows"):
        vllm_sampler(build_policy("token_world_model"))
