"""What TRL's trainer is shown of a policy: samples as rows, rollouts as tokens; and what a policy must offer for that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch
from datasets import Dataset
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast, ProcessorMixin

from rsw_rewards.config import RunConfig
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.errors import ConfigError, ImageError
from rsw_rewards.rollouts.backbone_world_model import BackboneWorldModel
from rsw_rewards.rollouts.vision_language import VisionLanguageModel
from rsw_rewards.training.advantages import advantages

KEPT = 256
"""Samples whose decoded images are kept: at least those of a generation, each of which is asked for once per rollout."""


class Trainable(Protocol):
    """What a policy must offer beyond :class:`rsw_rewards.rollouts.policy.Policy` to be trained by GRPO or PPO."""

    model: PreTrainedModel
    """The network, after ``setup``. Its ``forward`` gives the logits that the sampler samples from."""
    eos_id: int
    """Token that ends a completion."""
    pad_id: int

    def load_weights(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """Take weights as ``rsw_rewards.rollouts.weights.trained_weights`` gives them."""

    def save(self, folder: Path) -> None:
        """Write what the policy can be loaded from again."""


class TrainerView(ABC):
    """A policy and the samples of a run, as TRL's trainer is shown them.

    Args:
        policy: after ``setup``.
        samples: what is trained on.
    """

    def __init__(self, policy: Any, samples: Sequence[Sample]) -> None:
        self.policy = policy
        self.samples: Mapping[str, Sample] = {sample.id: sample for sample in samples}

    @property
    @abstractmethod
    def processing_class(self) -> PreTrainedTokenizerBase | ProcessorMixin:
        """The tokenizer or processor that TRL asks for."""

    @abstractmethod
    def dataset(self, ids: Sequence[str]) -> Dataset:
        """Rows for samples, in the order of their ids. The column ``prompt`` comes back in :meth:`ids`."""

    @abstractmethod
    def ids(self, prompts: Sequence[Any]) -> list[str]:
        """The samples' ids in prompts that the trainer hands over."""

    @abstractmethod
    def lost(self, sample: str) -> list[int]:
        """The prompt that stands for that of a rollout without tokens."""

    @abstractmethod
    def shown(self, outputs: Sequence[Output], prompts: Sequence[Sequence[int]]) -> list[int]:
        """How many tokens of each prompt the trainer is shown as prompt; the rest goes before the completion, masked."""

    def tokens(self, outputs: Sequence[Output]) -> dict[str, Any]:
        """``prompt_ids``, ``completion_ids`` and ``env_mask`` of outputs; what has no tokens is an end token after its prompt.

        TRL hands ``env_mask`` on as ``tool_mask``.
        """
        check_tokens(outputs)
        prompts, completions = [], []
        for output in outputs:
            trace = output.tokens
            whole = trace is not None and trace.completion_ids and trace.prompt_ids
            prompts.append(list(trace.prompt_ids) if trace and whole else self.lost(output.sample_id))
            completions.append(list(trace.completion_ids) if trace and whole else [self.policy.eos_id])
        cuts = self.shown(outputs, prompts)
        rows = list(zip(prompts, completions, cuts, strict=True))
        return {
            "prompt_ids": [prompt[:cut] for prompt, _, cut in rows],
            "completion_ids": [prompt[cut:] + completion for prompt, completion, cut in rows],
            "env_mask": [[0] * len(prompt[cut:]) + [1] * len(completion) for prompt, completion, cut in rows],
        }


class TokenView(TrainerView):
    """Samples by their ids alone: rollouts bring the tokens of their prompts along.

    The prompts of questions (two images) are longer than those of forecasts, the completions shorter. All prompts are cut to the shortest,
    so that rows are nearly equally long, and little is spent on padding.
    """

    @property
    def processing_class(self) -> PreTrainedTokenizerBase:
        """A tokenizer that only knows ids: the trainer asks for one, but rollouts come to it as tokens already."""
        eos, pad = f"<{self.policy.eos_id}>", f"<{self.policy.pad_id}>"
        words = {f"<{number}>": number for number in range(self.policy.model.config.vocab_size)}
        names = Tokenizer(WordLevel(words, unk_token=pad))
        return PreTrainedTokenizerFast(tokenizer_object=names, eos_token=eos, pad_token=pad)

    def dataset(self, ids: Sequence[str]) -> Dataset:
        return Dataset.from_dict({"prompt": list(ids)})

    def ids(self, prompts: Sequence[Any]) -> list[str]:
        return list(prompts)

    def lost(self, sample: str) -> list[int]:
        return [self.policy.eos_id]

    def shown(self, outputs: Sequence[Output], prompts: Sequence[Sequence[int]]) -> list[int]:
        known = [len(prompt) for prompt, output in zip(prompts, outputs, strict=True) if output.tokens is not None]
        return [min(known, default=1)] * len(outputs)


class ConversationView(TrainerView):
    """Samples as conversations with images; the sample's id travels as a further key of the last message.

    TRL rebuilds the pixels for its loss from the data set's ``images``; the tokens of prompt and completion come from the rollouts. Both
    use the policy's own messages and processor, so they fit together: as many places for image features as there are features.
    """

    policy: VisionLanguageModel

    def __init__(self, policy: VisionLanguageModel, samples: Sequence[Sample]) -> None:
        super().__init__(policy, samples)
        self.pictures = lru_cache(KEPT)(self._pictures)

    @property
    def processing_class(self) -> ProcessorMixin:
        """The model's own processor."""
        return self.policy.processor

    def dataset(self, ids: Sequence[str]) -> Dataset:
        """Rows with ``prompt`` (messages) and ``images`` (RGB pictures), made when they are asked for."""
        return Dataset.from_dict({"prompt": list(ids)}).with_transform(self._rows)

    def _rows(self, batch: Mapping[str, Sequence[str]]) -> dict[str, list[Any]]:
        prompts = []
        for name in batch["prompt"]:
            *system, user = self.policy.conversation(self.samples[name])
            prompts.append([*system, {**user, "sample": name}])
        return {"prompt": prompts, "images": [list(self.pictures(name)) for name in batch["prompt"]]}

    def _pictures(self, name: str) -> list[Image.Image]:
        """The images of a sample, or black ones where they cannot be used: its rollouts are lost and have no reward."""
        sample = self.samples[name]
        try:
            pictures = self.policy.pictures(sample)
            self.policy.encode([sample], [pictures])
            return pictures
        except ImageError:
            return [Image.new("RGB", (64, 64)) for _ in sample.images]

    def ids(self, prompts: Sequence[Any]) -> list[str]:
        return [prompt[-1]["sample"] for prompt in prompts]

    def lost(self, sample: str) -> list[int]:
        """The prompt that fits the sample's images."""
        found = self.policy.encode([self.samples[sample]], [self.pictures(sample)])
        return list(found["input_ids"][0].tolist())

    def shown(self, outputs: Sequence[Output], prompts: Sequence[Sequence[int]]) -> list[int]:
        return [len(prompt) for prompt in prompts]


class WorldView(ConversationView):
    """The same for world models. The trainer is shown the user's turn as prompt; the pictures in codes that a forecast continues go
    before its completion, so that the trainer need not know of them."""

    policy: BackboneWorldModel

    def shown(self, outputs: Sequence[Output], prompts: Sequence[Sequence[int]]) -> list[int]:
        found = []
        for output, prompt in zip(outputs, prompts, strict=True):
            sample = self.samples[output.sample_id]
            drawn = sample.task is Task.FORECAST and output.tokens is not None
            found.append(len(prompt) - (self.policy.vocabulary.album_length(len(sample.images)) if drawn else 0))
        return found


def generation_columns(
    view: TrainerView, outputs: Sequence[Output], given: Sequence[float | None], config: RunConfig
) -> dict[str, Any]:
    """What TRL's rollout function returns of outputs, a row each.

    Args:
        view: gives the tokens of outputs.
        outputs: whole groups, one after another.
        given: the reward of each, or None. Nothing of a row without one is learnt from: its tokens count in no mean and no KL term.
        config: the run.
    """
    found = view.tokens(outputs)
    rows = zip(found["env_mask"], given, strict=True)
    found["env_mask"] = [[0] * len(mask) if reward is None else mask for mask, reward in rows]
    # On-policy, the learner's own are those of the sampler.
    off_policy = config.rollouts.off_policy
    found["logprobs"] = sampled_logprobs(found["completion_ids"], outputs) if off_policy else None
    tasks = [str(view.samples[output.sample_id].task) for output in outputs]
    names = [output.sample_id for output in outputs]
    return found | {"collected": given, "advantage": advantages(given, tasks, config.grpo), "sample": names}


def sampled_logprobs(completions: Sequence[Sequence[int]], outputs: Sequence[Output]) -> list[list[float]]:
    """Log-probabilities that the tokens of each completion were sampled with; zeros before them, where a completion starts with
    what was not sampled, and for rollouts that were lost.

    Raises:
        ConfigError: the policy does not record them.
    """
    found = []
    for completion, output in zip(completions, outputs, strict=True):
        known = () if output.tokens is None else output.tokens.logprobs
        if output.tokens is not None and len(known) != len(output.tokens.completion_ids):
            raise ConfigError(
                "this policy does not record the probabilities of what it samples, so ratios cannot be to them; leave "
                "'rollouts.stale' and 'rollouts.engine' out"
            )
        found.append([0.0] * (len(completion) - len(known)) + list(known))
    return found


def check_tokens(outputs: Sequence[Output]) -> None:
    """Raise :class:`ConfigError` for outputs none of which has the tokens it was sampled as, though they are fine otherwise."""
    fine = [output for output in outputs if output.invalid is None and output.lost is None]
    if fine and all(output.tokens is None for output in fine):
        raise ConfigError(
            "the policy's outputs have no 'tokens' (prompt_ids, completion_ids, logprobs), so nothing can be learnt from them; see"
            " 'A policy of your own' in docs/training.md"
        )


def trainer_view(policy: Trainable, samples: Sequence[Sample]) -> TrainerView:
    """Samples as conversations with images for a vision-language policy, by their ids for others."""
    if isinstance(policy, BackboneWorldModel):
        return WorldView(policy, samples)
    return ConversationView(policy, samples) if isinstance(policy, VisionLanguageModel) else TokenView(policy, samples)
