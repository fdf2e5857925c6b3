"""What TRL's trainer is shown of a policy: samples as rows, rollouts as tokens; and what a policy must offer for that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rsw_rewards.core.records import Output, Sample
from rsw_rewards.errors import ConfigError
from rsw_rewards.rollouts.backbone_world_model import BackboneWorldModel
from rsw_rewards.rollouts.vision_language import VisionLanguageModel
from rsw_rewards.training.vision_language import ConversationView, WorldView


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


class TokenView:
    """Samples by their ids alone: rollouts bring the tokens of their prompts along."""

    def __init__(self, policy: Trainable) -> None:
        self.policy = policy

    @property
    def processing_class(self) -> PreTrainedTokenizerBase:
        """Names for the ids of tokens."""
        return token_names(self.policy.model.config.vocab_size, self.policy.eos_id, self.policy.pad_id)

    def dataset(self, ids: Sequence[str]) -> Dataset:
        """Rows for samples, in the order of their ids. The column ``prompt`` comes back in :meth:`ids`."""
        return Dataset.from_dict({"prompt": list(ids)})

    def ids(self, prompts: Sequence[Any]) -> list[str]:
        """The samples' ids in prompts that the trainer hands over."""
        return list(prompts)

    def tokens(self, outputs: Sequence[Output]) -> dict[str, Any]:
        """What a rollout function returns of outputs: ``prompt_ids``, ``completion_ids``, ``logprobs``, ``env_mask``.

        The prompts of questions (two images) are longer than those of forecasts, the completions shorter. All prompts are cut
        to the shortest and the rest goes before the completion, masked: rows are then nearly equally long, and little is spent on
        padding.
        """
        eos = self.policy.eos_id
        check_tokens(outputs)
        traces = [
            ([eos], [eos])
            if output.tokens is None or not output.tokens.completion_ids or not output.tokens.prompt_ids
            else (list(output.tokens.prompt_ids), list(output.tokens.completion_ids))
            for output in outputs
        ]
        lengths = [
            len(prompt) for (prompt, _), output in zip(traces, outputs, strict=True) if output.tokens is not None
        ]
        cut = min(lengths, default=1)
        return {
            "prompt_ids": [prompt[:cut] for prompt, _ in traces],
            "completion_ids": [prompt[cut:] + completion for prompt, completion in traces],
            "env_mask": [[0] * len(prompt[cut:]) + [1] * len(completion) for prompt, completion in traces],
            "logprobs": None,  # on-policy: the learner's own are those of the sampler
        }


def check_tokens(outputs: Sequence[Output]) -> None:
    """Raise :class:`ConfigError` for outputs none of which has the tokens it was sampled as, though they are fine otherwise."""
    fine = [output for output in outputs if output.invalid is None and output.lost is None]
    if fine and all(output.tokens is None for output in fine):
        raise ConfigError(
            "the policy's outputs have no 'tokens' (prompt_ids, completion_ids, logprobs), so nothing can be learnt from them; see"
            " 'A policy of your own' in docs/training.md"
        )


TrainerView = TokenView | ConversationView
"""How the trainer is shown samples and rollouts."""


def trainer_view(policy: Trainable, samples: Sequence[Sample]) -> TrainerView:
    """Samples as conversations with images for a vision-language policy, by their ids for others."""
    if isinstance(policy, BackboneWorldModel):
        return WorldView(policy, samples)
    return ConversationView(policy, samples) if isinstance(policy, VisionLanguageModel) else TokenView(policy)


def token_names(vocabulary: int, eos_id: int, pad_id: int) -> PreTrainedTokenizerBase:
    """A tokenizer that only knows ids: the trainer asks for one, but rollouts come to it as tokens already."""
    words = {f"<{number}>": number for number in range(vocabulary)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token=f"<{pad_id}>")),
        eos_token=f"<{eos_id}>",
        pad_token=f"<{pad_id}>",
    )
