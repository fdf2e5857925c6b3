"""Any transformers image-text-to-text model as a policy: it looks at the images of a sample in time order and answers in words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import ValidationError

from rsw_rewards.core.answer import closing_tag, opened_reasoning
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.plugins import raised
from rsw_rewards.core.records import Output, Sample, Task, TokenTrace
from rsw_rewards.errors import ConfigError, ImageError
from rsw_rewards.extras import need
from rsw_rewards.io.images import read_rgb
from rsw_rewards.rollouts.model_class import suppress
from rsw_rewards.rollouts.policy import Policy, Request, after_setup, in_runs, request_text
from rsw_rewards.rollouts.special_tokens import as_words, hidden_ids, special_names
from rsw_rewards.rollouts.tiny import PREFIX
from rsw_rewards.rollouts.vlm_files import (
    LoraConfig,
    complete_tokens,
    load_model,
    load_processor,
    loading,
    missing_part,
    not_text,
)
from rsw_rewards.rollouts.weights import base_model, load_trained

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from transformers import BatchFeature, PreTrainedModel, ProcessorMixin

    from rsw_rewards.rollouts.sampling import Draw


_NAMED = re.compile(r"\{([a-z_]+)\}")


class VisionLanguageModel(Policy):
    """A vision-language model with its own chat template and processor.

    Args:
        path: a folder, the name of a model on the hub, the folder of a trained adapter, or ``tiny:qwen2_5_vl`` and the like for
            a small untrained one (:mod:`rsw_rewards.rollouts.tiny_vlm`).
        template: text of the request; ``{prompt}`` is the sample's prompt, ``{vocabulary}`` its closed answers, if any.
        system: system message; none by default.
        max_new_tokens: an answer that has not ended by then is cut off, and invalid.
        dtype: of the weights: ``auto`` (as stored), ``float32``, ``bfloat16``, ``float16``. All weights of a model in half
            precision are too coarse for the small steps of reinforcement learning; adapters are kept in float32 in any case.
        attn: attention implementation, such as ``sdpa`` or ``flash_attention_2``; the library's choice where left out.
        lora: adapters to train instead of the whole model (:class:`LoraConfig`).
        min_pixels, max_pixels: images are scaled until their pixels lie between these; the processor's own limits where left out.
        send_images: False asks the questions without the pictures, which is what a blind model would answer.

    Tokens that stand for images get no probability, neither here nor in training, because both take logits from the same
    ``forward``. A sample whose images cannot be read is lost; the others are made all the same. Names of special tokens in the words
    of a request are words. Where the chat template opens the reasoning, an answer's text begins with that tag, so that a text that
    never closes it has no answer.
    """

    name = "vision_language"
    tasks = frozenset({Task.CHANGE_QA, Task.CHANGE_CAPTION, Task.CLASSIFICATION, Task.GROUNDING})
    trainable = True

    def __init__(
        self,
        path: str | Path,
        *,
        template: str = "{prompt}",
        system: str = "",
        max_new_tokens: int = 64,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        attn: str | None = None,
        lora: Mapping[str, Any] | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        send_images: bool = True,
    ) -> None:
        if max_new_tokens < 1:
            raise ConfigError(f"{self.name}: 'max_new_tokens' must be 1 or more, not {max_new_tokens}")
        if alien := sorted({place[1] for place in _NAMED.finditer(template)} - {"prompt", "vocabulary"}):
            raise ConfigError(
                f"{self.name}: 'template' names {{{alien[0]}}}, which no sample has; it may name {{prompt}} and {{vocabulary}}"
            )
        if dtype not in ("auto", "float32", "bfloat16", "float16"):
            raise ConfigError(f"{self.name}: 'dtype' is {dtype!r}; it must be auto, float32, bfloat16 or float16")
        for key, limit in (("min_pixels", min_pixels), ("max_pixels", max_pixels)):
            if limit is not None and (not isinstance(limit, int) or limit < 1):
                raise ConfigError(f"{self.name}: {key!r} must be a whole number of 1 or more, not {limit!r}")
        try:
            self.lora = None if lora is None else LoraConfig.model_validate(dict(lora))
        except ValidationError as error:
            problem = error.errors()[0]
            raise ConfigError(f"{self.name}: lora.{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
        self.path = path
        self.template = template
        self.system = system
        self.max_new_tokens = max_new_tokens
        self.dtype = dtype
        self.attn = attn
        self.limits = {"min_pixels": min_pixels, "max_pixels": max_pixels}
        self.send_images = send_images
        self._model: Any = None
        self._processor: Any = None
        self._special: tuple[str, ...] = ()
        self._hidden: frozenset[int] = frozenset()
        self._opened = ""

    def missing(self) -> str | None:
        return None if str(self.path).startswith(PREFIX) else missing_part(str(self.path))

    def setup(self, device: str = "cpu", threads: int = 1) -> None:
        need(f"the policy {self.name!r}", "torch", "transformers")
        import torch
        from transformers.utils import logging

        torch.set_num_threads(threads)
        logging.disable_progress_bar()
        path = self.folder()
        new = self.prepare(path, device)
        with loading(f"the policy {self.name!r}", path):
            self._processor = load_processor(path, self.limits)
            self._model = load_model(path, self.dtype, self.attn, self.lora, new)
            self.fit_processor()
        self.constrain(not_text(self._model, self._processor))
        self._model.to(device).eval()

    def fit_processor(self) -> None:
        """Learn what tokenizer and chat template do with a request, from one that is made up.

        Raises:
            ValueError: they do not take it, or nothing ends an answer.
        """
        tokenizer = self._processor.tokenizer
        complete_tokens(tokenizer, self.model.generation_config.eos_token_id)
        self._special, self._hidden = special_names(tokenizer, self._processor), hidden_ids(tokenizer)
        grey = ImageRef(array=np.full((64, 64, 3), 128, np.uint8))
        probe = Sample("probe", Task.CHANGE_QA, (grey, grey), "did it change?")
        try:
            self.encode([probe], [self.pictures(probe)])
        except Exception as error:  # templates raise errors of their own
            instead = ", or leave 'system' out" if self.system else ""
            raise ValueError(
                f"its chat template does not take a request with images ({raised(error.__cause__ or error)}); copy chat_template.jinja of the base model{instead}"
            ) from error
        words = self.text(probe).strip()
        turn = self.written(probe)
        if words not in turn:
            raise ValueError(
                "its chat template leaves the words of a request out; copy chat_template.jinja of the base model"
            )
        self._opened = opened_reasoning(turn[turn.rindex(words) + len(words) :])

    def folder(self) -> str:
        """The folder, or the name on the hub, that ``path`` stands for."""
        from rsw_rewards.rollouts.tiny_vlm import tiny_folder

        path = str(self.path)
        return str(tiny_folder(path.removeprefix(PREFIX))) if path.startswith(PREFIX) else path

    def prepare(self, path: str, device: str) -> Sequence[int]:
        """Load what is needed beside the model; returns the tokens whose embeddings are trained along with adapters."""
        return ()

    def constrain(self, never: Sequence[int]) -> None:
        """Lay rules on the model's ``forward``; ``never`` are the tokens that no answer holds."""
        suppress(base_model(self._model), never)

    def longest(self, sample: Sample) -> int:
        """Tokens that a completion may have."""
        return self.max_new_tokens

    @property
    def model(self) -> PreTrainedModel:
        """The network that a trainer trains, with its adapters if it has any."""
        return after_setup(self._model)

    @property
    def processor(self) -> ProcessorMixin:
        """Tokenizer, image processor and chat template."""
        return after_setup(self._processor)

    @property
    def ends(self) -> tuple[int, ...]:
        """All tokens that end an answer."""
        given = self.model.generation_config.eos_token_id
        ends = given if isinstance(given, (list, tuple)) else [given]
        return tuple(dict.fromkeys([self._processor.tokenizer.eos_token_id, *ends]))

    @property
    def eos_id(self) -> int:
        """Token that ends an answer."""
        return self.ends[0]

    @property
    def pad_id(self) -> int:
        """Token that fills rows up."""
        return int(self._processor.tokenizer.pad_token_id)

    def learner_inputs(self, samples: Sequence[Sample], input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """What ``forward`` needs beside tokens: the pixels, and what the processor says of each token.

        Args:
            samples: one per row.
            input_ids: (n, length) each row's prompt as it was sampled from, its completion, and padding on the right.
        """
        found = self.encode(samples, [self.pictures(sample) for sample in samples])
        seen = found["attention_mask"].bool()
        inputs: dict[str, torch.Tensor] = {}
        for key, value in found.items():
            if key in ("input_ids", "attention_mask"):
                continue
            if value.shape == seen.shape:  # per token of the prompt; what was sampled after it is words, type 0
                moved = value.new_zeros(input_ids.shape)
                for row, real in enumerate(seen):
                    moved[row, : int(real.sum())] = value[row][real]
                value = moved
            elif value.is_floating_point():
                value = value.to(self.model.dtype)
            inputs[key] = value.to(input_ids.device)
        return inputs

    def load_weights(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        load_trained(self.model, weights)

    def merge_adapters(self) -> None:
        """Put what adapters have learnt into the weights of the model."""
        adapted: Any = self.model
        self._model = adapted.merge_and_unload()

    def save(self, folder: Path) -> None:
        """Write what ``path`` can name: the model, or its adapter and the name of what it sits on."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "path": str(self.path),
            "template": self.template,
            "system": self.system,
            "max_new_tokens": self.max_new_tokens,
            "dtype": self.dtype,
            "send_images": self.send_images,
            **{key: value for key, value in self.limits.items() if value is not None},
            **({"lora": self.lora.model_dump()} if self.lora else {}),
        }

    def text(self, sample: Sample) -> str:
        """Words of the request."""
        return as_words(request_text(self.template, sample), self._special)

    def conversation(self, sample: Sample) -> list[dict[str, Any]]:
        """Messages that ask about a sample, with a place for each of its images before the words."""
        places = [{"type": "image"} for _ in sample.images] if self.send_images else []
        user = {"role": "user", "content": [*places, {"type": "text", "text": self.text(sample)}]}
        told = [{"type": "text", "text": as_words(self.system, self._special)}]
        return [*([{"role": "system", "content": told}] if self.system else []), user]

    def written(self, sample: Sample) -> str:
        """The conversation as the chat template writes it, with one place per image and the beginning of the answer."""
        return str(
            self._processor.apply_chat_template(self.conversation(sample), add_generation_prompt=True, tokenize=False)
        )

    def pictures(self, sample: Sample) -> list[Image]:
        """The images of a sample as RGB pictures, in time order. Raises :class:`ImageError`."""
        from PIL import Image

        if self.send_images and not sample.images:
            raise ImageError(f"{sample.id}: the sample has no image")
        return [Image.fromarray(read_rgb(image)) for image in sample.images] if self.send_images else []

    def encode(self, samples: Sequence[Sample], pictures: Sequence[Sequence[Image]]) -> BatchFeature:
        """What the model takes, padded on the left.

        Raises:
            ImageError: the processor refuses a picture, for example one that is far longer than wide.
        """
        texts = [self.written(sample) for sample in samples]
        images = [list(each) for each in pictures]
        shown: dict[str, Any] = {"images": images} if any(images) else {}
        try:
            return self._processor(text=texts, padding=True, return_tensors="pt", **shown)
        except ValueError as error:
            names = ", ".join(sample.id for sample in samples[:3])
            raise ImageError(f"the processor does not take the images of {names}: {error}") from error

    def prompt(self, samples: Sequence[Sample], pictures: Sequence[Sequence[Image]]) -> BatchFeature:
        """What completions follow on, padded on the left."""
        return self.encode(samples, pictures)

    def answer_ids(self, text: str) -> list[int]:
        """Tokens of an answer, with its end, behind reasoning of no words where the chat template opens one."""
        closed = f"\n{closing_tag(self._opened)}\n\n" if self._opened else ""
        words = closed + as_words(text, self._special)
        return [*self._processor.tokenizer.encode(words, add_special_tokens=False), self.eos_id]

    def generate(self, requests: Sequence[Request]) -> list[Output]:
        """See :class:`Policy`. What a request gives depends on its seed and sample, and on the others by rounding alone."""
        outputs: dict[int, Output] = {}
        pictures: dict[str, list[Image]] = {}
        for place, request in enumerate(requests):
            sample = request.sample
            try:
                if sample.id not in pictures:
                    pictures[sample.id] = self.pictures(sample)
                    self.encode([sample], [pictures[sample.id]])
            except ImageError as error:
                pictures.pop(sample.id, None)
                outputs[place] = Output(sample.id, request.candidate, lost=str(error))
        usable = [place for place in range(len(requests)) if place not in outputs]
        made = in_runs(
            [requests[place] for place in usable],
            lambda run, count: self.complete(run, pictures, count),
            lambda request: (self.longest(request.sample), request.temperature),
        )
        outputs |= zip(usable, made, strict=True)
        return [outputs[place] for place in range(len(requests))]

    def complete(self, requests: Sequence[Request], pictures: Mapping[str, list[Image]], count: int) -> list[Output]:
        """Outputs of requests of one length and temperature that hold ``count`` candidates of each sample, those of a sample together."""
        from rsw_rewards.rollouts.sampling import Draw, readable_once, sample_groups

        samples = [request.sample for request in requests[::count]]
        longest = self.longest(samples[0])
        inputs = self.prompt(samples, [pictures[sample.id] for sample in samples]).to(self.model.device)
        floats = {key: value.to(self.model.dtype) for key, value in inputs.items() if value.is_floating_point()}
        inputs.update(floats)
        draw = Draw([request.seed for request in requests], requests[0].temperature, longest)
        if readable_once(self.model):
            completions, logprobs = sample_groups(self._model, inputs, count, draw, longest, self.ends)
        else:
            completions, logprobs = self._generated(inputs, count, draw, longest)
        prompts = [
            ids[seen.bool()].tolist() for ids, seen in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        ]
        return [
            self.output(request, prompts[row // count], completions[row], logprobs[row])
            for row, request in enumerate(requests)
        ]

    def _generated(
        self, inputs: BatchFeature, count: int, draw: Draw, longest: int
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Tokens and log-probabilities by the library's ``generate``, which reads a prompt once for each of its rows."""
        import torch
        from transformers import GenerationConfig, LogitsProcessorList

        plain = GenerationConfig(
            max_new_tokens=longest,
            do_sample=True,  # for several candidates of a prompt; what is drawn is decided by Draw
            num_return_sequences=count,
            eos_token_id=list(self.ends),
            pad_token_id=self.pad_id,
        )
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            rows = self._model.generate(**inputs, generation_config=plain, logits_processor=LogitsProcessorList([draw]))
        return rows[:, inputs["input_ids"].shape[1] :].tolist(), torch.stack(draw.logprobs, 1).tolist()

    def output(self, request: Request, prompt: list[int], tokens: list[int], logprobs: list[float]) -> Output:
        """The output that sampled tokens make."""
        end = next((place for place, token in enumerate(tokens) if token in self.ends), None)
        length = len(tokens) if end is None else end + 1
        trace = TokenTrace(tuple(prompt), tuple(tokens[:length]), tuple(logprobs[:length]))
        text = self._opened + self._processor.tokenizer.decode([id for id in tokens[:end] if id not in self._hidden])
        cut = f"cut off after {length} tokens, before its end" if end is None else None
        finish = "length" if end is None else "stop"
        return Output(request.sample.id, request.candidate, text=text, invalid=cut, tokens=trace, finish_reason=finish)
