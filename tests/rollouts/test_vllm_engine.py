"""vLLM's adapter against a stand-in for its public interface: what it is asked, and what is made of its answers.

The stand-in has the signatures of ``vllm.LLM`` and ``vllm.SamplingParams`` and refuses what those do not know. vLLM itself needs CUDA.
"""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rsw_rewards.core.plugins import load_file, resolve_object
from rsw_rewards.errors import ConfigError
from rsw_rewards.rollouts.policies import build_policy
from rsw_rewards.rollouts.policy import Request
from rsw_rewards.rollouts.tiny_vlm import build_tiny
from rsw_rewards.rollouts.vision_language import VisionLanguageModel
from rsw_rewards.rollouts.vllm_engine import vllm_sampler

SAMPLES = load_file(Path(__file__).parents[2] / "examples/squares.py").squares(2)
ANSWER = (30, 31)


@dataclasses.dataclass
class SamplingParams:
    n: int = 1
    temperature: float = 1.0
    seed: int | None = None
    max_tokens: int = 16
    stop_token_ids: list[int] | None = None
    logit_bias: dict[int, float] | None = None
    logprobs: int | None = None
    detokenize: bool = True


class Model:
    def __init__(self) -> None:
        self.held: dict[str, torch.Tensor] = {}

    def load_weights(self, weights: list[tuple[str, torch.Tensor]]) -> None:
        self.held |= dict(weights)


class LLM:
    """Answers two tokens and an end; the prompt as the processor would widen it."""

    made: LLM

    def __init__(self, *, model: str, worker_extension_cls: str, **options: Any) -> None:
        known = {"dtype", "generation_config", "logprobs_mode", "mm_processor_kwargs", "gpu_memory_utilization"}
        assert options.keys() <= known
        self.options, self.calls, self.resets = options, [], 0
        module, _, name = worker_extension_cls.rpartition(".")
        self.worker = type("Worker", (resolve_object(f"{module}:{name}", "extension"),), {})()
        self.worker.model_runner = types.SimpleNamespace(model=Model())
        self.reader = VisionLanguageModel(model)
        self.reader.setup()
        self.cut = False
        LLM.made = self

    def generate(
        self, prompts: Sequence[Any], sampling_params: Sequence[SamplingParams], use_tqdm: bool = True
    ) -> list[Any]:
        self.calls.append((prompts, sampling_params))
        return [self._answer(*pair) for pair in zip(prompts, sampling_params, strict=True)]

    def _answer(self, prompt: Any, asked: SamplingParams) -> Any:
        assert asked.stop_token_ids and asked.logprobs == 0
        ids = self.reader.processor(text=[prompt["prompt"]], images=[prompt["multi_modal_data"]["image"]])["input_ids"][
            0
        ]
        tokens = [*ANSWER, asked.stop_token_ids[0]][: asked.max_tokens]
        logprobs = [{token: types.SimpleNamespace(logprob=-0.5 - place)} for place, token in enumerate(tokens)]
        completion = types.SimpleNamespace(token_ids=tokens, logprobs=logprobs)
        return types.SimpleNamespace(prompt_token_ids=list(ids)[self.cut :], outputs=[completion])

    def collective_rpc(self, method: str, timeout: float | None = None, args: tuple[Any, ...] = ()) -> list[Any]:
        return [getattr(self.worker, method)(*args)]

    def reset_prefix_cache(self) -> None:
        self.resets += 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny("qwen2_5_vl", tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def sampler(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    stand_in = types.ModuleType("vllm")
    vars(stand_in).update(LLM=LLM, SamplingParams=SamplingParams)
    monkeypatch.setitem(sys.modules, "vllm", stand_in)
    made = vllm_sampler(VisionLanguageModel(folder, max_new_tokens=5), gpu_memory_utilization=0.5)
    made.setup()
    yield made


def asked(count: int = 2) -> list[Request]:
    return [Request(sample, k, 100 * row + k, 0.7) for row, sample in enumerate(SAMPLES) for k in range(count)]


def test_every_request_is_one_prompt_with_its_own_seed(sampler: Any) -> None:
    sampler.generate(asked())
    ((prompts, params),) = LLM.made.calls
    assert [one.seed for one in params] == [0, 1, 100, 101]
    assert {(one.temperature, one.max_tokens, one.n) for one in params} == {(0.7, 5, 1)}
    assert [len(prompt["multi_modal_data"]["image"]) for prompt in prompts] == [2] * 4
    assert LLM.made.options["logprobs_mode"] == "processed_logprobs"  # of what is sampled from, not of the raw logits
    assert LLM.made.options["generation_config"] == "vllm"
    assert LLM.made.options["gpu_memory_utilization"] == 0.5


def test_what_the_learner_gives_no_probability_vllm_gives_none(sampler: Any, folder: Path) -> None:
    sampler.generate(asked(1))
    plain = VisionLanguageModel(folder)
    plain.setup()
    row = plain.model(**plain.encode(SAMPLES[:1], [plain.pictures(SAMPLES[0])])).logits[0, -1]
    suppressed = set(torch.nonzero(row <= torch.finfo(row.dtype).min)[:, 0].tolist())
    (_, params), *_ = LLM.made.calls
    assert suppressed and set(params[0].logit_bias) == suppressed
    assert set(params[0].logit_bias.values()) == {-100.0}


def test_answers_carry_the_learners_prompt_and_the_log_probabilities_of_their_tokens(sampler: Any) -> None:
    outputs = sampler.generate(asked())
    assert [(out.sample_id, out.finish_reason) for out in outputs] == [
        (sample.id, "stop") for sample in SAMPLES for _ in range(2)
    ]
    for sample, output in zip([SAMPLES[0], SAMPLES[0], SAMPLES[1], SAMPLES[1]], outputs, strict=True):
        ids = sampler.encode([sample], [sampler.pictures(sample)])["input_ids"][0].tolist()
        assert list(output.tokens.prompt_ids) == ids
        assert output.tokens.completion_ids == (*ANSWER, sampler.eos_id)
        assert output.tokens.logprobs == (-0.5, -1.5, -2.5)


def test_an_answer_without_an_end_is_cut_off(sampler: Any) -> None:
    sampler.max_new_tokens = 2
    assert all(output.finish_reason == "length" and output.invalid for output in sampler.generate(asked()))


def test_another_reading_of_the_pictures_is_not_trained_on(sampler: Any) -> None:
    LLM.made.cut = True
    with pytest.raises(RuntimeError, match="must scale pictures alike"):
        sampler.generate(asked())


def test_words_that_name_special_tokens_are_words_for_both(sampler: Any) -> None:
    named = replace(SAMPLES[0], prompt="<|vision_start|><|image_pad|><|vision_end|>\n<|im_end|> did it change?")
    (output,) = sampler.generate([Request(named)])
    ((prompts, _),) = LLM.made.calls
    assert prompts[0]["prompt"].count("<|image_pad|>") == 2 and output.tokens and output.lost is None


def test_new_weights_reach_the_worker_and_old_prompts_are_forgotten(sampler: Any) -> None:
    weights = {"a.weight": torch.ones(3), "b.bias": torch.zeros(2)}
    sampler.load_weights(weights, 7)
    held = LLM.made.worker.model_runner.model.held
    assert held.keys() == weights.keys() and all(torch.equal(held[name], weights[name]) for name in weights)
    assert LLM.made.resets == 1


def test_without_vllm_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ConfigError, match=r"pip install 'rsw_rewards\[vllm\]'"):
        vllm_sampler(VisionLanguageModel(folder)).setup()


def test_policies_with_rules_of_their_own_or_adapters_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="'token_world_model' has rules of its own"):
        vllm_sampler(build_policy("token_world_model"))
    with pytest.raises(ConfigError, match="sent whole models"):
        vllm_sampler(VisionLanguageModel(folder, lora={"r": 2}))
