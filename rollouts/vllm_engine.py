"""vLLM as the engine that samples from vision-language models and from world models on their backbones (the extra ``vllm``).

vLLM computes with kernels of its own, so its probabilities are not quite the learner's. A training with it therefore takes importance
ratios to the log-probabilities that came with the tokens, as with stale rollouts, and logs how far both are apart (``sampler_gap``).
What is used of vLLM is its public interface: ``LLM.generate`` with a ``SamplingParams`` per prompt, its own ``reload_weights`` by
``LLM.collective_rpc``, the calls that empty its caches, and for world models a ``LogitsProcessor``. ``make test-vllm`` runs the tests
against vLLM itself, on a CPU.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rsw_rewards.core.records import Output, Sample
from rsw_rewards.errors import ConfigError
from rsw_rewards.rollouts.backbone_world_model import BackboneWorldModel
from rsw_rewards.rollouts.policy import Policy, Request
from rsw_rewards.rollouts.vision_language import VisionLanguageModel
from rsw_rewards.rollouts.vlm_files import load_model, load_processor, loading, not_text
from rsw_rewards.rollouts.weights import adapter_in, base_model, has_adapters, merged_weights

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

NEVER = -100.0
"""Bias on the logits of tokens that no answer holds, the strongest that vLLM takes."""


def vllm_sampler(policy: Policy, **options: Any) -> VllmSampler:
    """A sampler for a policy that was not set up yet: ``vision_language`` or ``backbone_world_model``.

    Args:
        policy: whose answers are wanted.
        options: arguments of ``vllm.LLM``, such as ``gpu_memory_utilization`` or ``max_model_len``.

    Raises:
        ConfigError: a policy whose rules or weights vLLM cannot be given.
    """
    kinds: dict[type[Policy], type[VllmSampler]] = {
        VisionLanguageModel: VllmSampler,
        BackboneWorldModel: VllmWorldModel,
    }
    kind = kinds.get(type(policy))
    if kind is None:
        raise ConfigError(
            f"rollouts.engine 'vllm' samples for the policies 'vision_language' and 'backbone_world_model'; {policy.name!r} is no "
            f"model that vLLM knows, so leave 'rollouts.engine' out"
        )
    sampler = kind.__new__(kind)
    vars(sampler).update(vars(policy), options=options, _engine=None)
    return sampler


class VllmSampler(VisionLanguageModel):
    """A vision-language model that answers through vLLM and is trained elsewhere. Made by :func:`vllm_sampler`.

    Adapters are merged: the model that they sit on is kept in memory of this process beside vLLM's, and vLLM is given the sum.
    """

    options: dict[str, Any]
    _engine: Any
    _bias: dict[int, float]

    def setup(self, device: str = "cpu", threads: int = 1) -> None:
        import torch

        os.environ.setdefault(
            "VLLM_ENABLE_V1_MULTIPROCESSING", "0"
        )  # weights then go to the worker without being pickled
        try:
            from vllm import LLM
        except ImportError as error:
            raise ConfigError(
                "rollouts.engine 'vllm' needs vLLM: pip install 'rsw_rewards[vllm]' on a machine with CUDA; 'make test-vllm' "
                "shows what to install on one without"
            ) from error
        from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig

        torch.set_num_threads(threads)
        path = self.folder()
        new = self.prepare(path, device)
        with loading(f"the policy {self.name!r}", path):
            self._processor = load_processor(path, self.limits)
            if self.lora is not None or adapter_in(path):
                self._model = load_model(path, self.dtype, None, self.lora, new)
                path = base_model(self._model).name_or_path
            else:
                with torch.device("meta"):  # for its settings and names alone
                    self._model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(path))
                self._model.generation_config = GenerationConfig.from_pretrained(path)
            self.fit_processor()
        # vLLM's own "auto" is half precision where weights are stored in float32, which the learner keeps.
        stored = str(AutoConfig.from_pretrained(path).dtype or "auto").removeprefix("torch.")
        dtype = stored if self.dtype == "auto" else self.dtype
        limits = {key: value for key, value in self.limits.items() if value is not None}
        self._engine = LLM(
            model=path,
            dtype=dtype,
            generation_config="vllm",  # nothing but what a request says: no repetition penalty from the model's folder
            logprobs_mode="processed_logprobs",  # of the distribution that is sampled from: after bias and temperature
            mm_processor_kwargs=limits or None,
            **self.rules(not_text(self._model, self._processor)),
            **self.options,
        )

    def rules(self, never: Sequence[int]) -> dict[str, Any]:
        """Arguments of ``vllm.LLM`` that rule out what no completion holds: here nothing, since each request says it.

        Args:
            never: tokens that no answer holds.
        """
        self._bias = dict.fromkeys(never, NEVER)
        return {}

    def prompt_text(self, sample: Sample) -> str:
        """The text that vLLM is given, with one place for each image."""
        return self.written(sample)

    def complete(self, requests: Sequence[Request], pictures: Mapping[str, list[Image]], count: int) -> list[Output]:
        """See :class:`VisionLanguageModel`. Every request has its own seed; rounding may differ with what else is in flight."""
        from vllm import SamplingParams

        prompts: list[dict[str, Any]] = []
        ids: list[list[int]] = []
        for sample in (request.sample for request in requests[::count]):
            shown = pictures[sample.id]
            told: dict[str, Any] = {"prompt": self.prompt_text(sample)}
            if shown:
                told["multi_modal_data"] = {"image": list(shown)}
            prompts += [told] * count
            ids.append(self.prompt([sample], [shown])["input_ids"][0].tolist())
        limit = self.longest(requests[0].sample)
        wanted = [
            SamplingParams(
                n=1,
                temperature=request.temperature,
                seed=request.seed,
                max_tokens=limit,
                stop_token_ids=list(self.ends),
                logit_bias=self._bias,
                logprobs=0,  # the sampled token's own, and no others
                detokenize=False,
            )
            for request in requests
        ]
        made = self._engine.generate(prompts, sampling_params=wanted, use_tqdm=False)
        outputs = []
        for row, (request, answer) in enumerate(zip(requests, made, strict=True)):
            prompt, completion = ids[row // count], answer.outputs[0]
            if list(answer.prompt_token_ids) != prompt:
                raise RuntimeError(
                    f"vLLM read the prompt of {request.sample.id} as {len(answer.prompt_token_ids)} tokens, the learner as "
                    f"{len(prompt)}: they must scale pictures alike"
                )
            tokens = list(completion.token_ids)
            logprobs = [float(step[token].logprob) for token, step in zip(tokens, completion.logprobs, strict=True)]
            outputs.append(self.output(request, prompt, tokens, logprobs))
        return outputs

    def load_weights(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """Give vLLM's workers new weights, and forget what was computed with the old ones: of prompts, and of images."""
        if has_adapters(self._model):
            super().load_weights(weights, version)
            weights = merged_weights(self._model)
        self._engine.collective_rpc("reload_weights", kwargs={"weights_iterator": list(weights.items())})
        self._engine.reset_prefix_cache()
        self._engine.llm_engine.reset_mm_cache()
        self._engine.llm_engine.reset_encoder_cache()

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "engine": "vllm"}


class VllmWorldModel(BackboneWorldModel, VllmSampler):
    """A world model that answers and draws through vLLM and is trained elsewhere. Made by :func:`vllm_sampler`.

    Its rules of what may follow are laid on vLLM's logits by a processor in each of its workers, so a picture has exactly its codes, and
    log-probabilities are of the tokens that were possible. Pictures are coded and decoded in this process.
    """

    def rules(self, never: Sequence[int]) -> dict[str, Any]:
        from rsw_rewards.rollouts.vllm_segments import KEY, PLACE

        self._bias = {}
        return {"logits_processors": [PLACE], "additional_config": {KEY: asdict(self.segments(never))}}

    def prompt_text(self, sample: Sample) -> str:
        """The text that vLLM is given: pictures in codes are tokens with names."""
        (album,) = self.albums([sample])
        return self.written(sample) + self.vocabulary.named(album)
