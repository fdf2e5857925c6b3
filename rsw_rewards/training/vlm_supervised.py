"""``method: vlm_supervised``: a vision-language policy learns what is true, the start of reinforcement learning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F

from rsw_rewards.config import VlmSupervisedConfig
from rsw_rewards.core.records import Sample, Task
from rsw_rewards.errors import ConfigError, InputError
from rsw_rewards.rollouts.backbone_world_model import BackboneWorldModel
from rsw_rewards.rollouts.baselines.base import true_text
from rsw_rewards.rollouts.policies import build_policy
from rsw_rewards.rollouts.vision_language import VisionLanguageModel
from rsw_rewards.training.processes import ALONE, Processes
from rsw_rewards.training.sources import load_source
from rsw_rewards.training.teaching import Backward, prepare, teach


def train(config: VlmSupervisedConfig, resume: bool = False, processes: Processes = ALONE) -> None:
    """Trains and writes the policy to ``config.out``. Deterministic for a number of threads.

    Raises:
        ConfigError: the policy is no vision-language model, or cannot be loaded.
        InputError: a sample without an answer or a future, or whose images cannot be used; or none of a task in ``mix``.
    """
    policy = build_policy(config.policy)
    if not isinstance(policy, VisionLanguageModel):
        raise ConfigError(f"method 'vlm_supervised' trains a 'vision_language' policy, not {policy.name!r}")
    samples = [s for s in load_source(config.train, config.seed, "train") if s.task in policy.tasks]
    if not samples:
        raise InputError(f"train: there is nothing among the samples that the policy {policy.name!r} does")
    for task, count in (config.mix or {}).items():
        if count and not any(sample.task == task for sample in samples):
            raise ConfigError(f"'mix' asks for {task}, of which there is none among the samples")
    prepare(config, policy)
    if config.gradient_checkpointing:
        policy.model.gradient_checkpointing_enable()

    backward = answers_taught(config, policy, samples, processes)
    teach(config, policy, samples, backward, (0.9, 0.98), resume, processes, " per token")


def answers_taught(
    config: VlmSupervisedConfig, policy: VisionLanguageModel, samples: Sequence[Sample], processes: Processes = ALONE
) -> Backward:
    """What gives the gradients of a step: a policy (after ``setup``) is taught what is true. Losses are in nats per token.

    Tasks count by their samples, not by their tokens: an answer of two tokens beside a picture of a thousand keeps its share.

    Raises:
        InputError: in a step, a sample without an answer or a future, or whose images cannot be used.
    """
    model, mix, batch = policy.model, config.mix, config.batch
    by_task = {str(task): [s for s in samples if s.task is task] for task in dict.fromkeys(s.task for s in samples)}

    def backward(rng: np.random.Generator) -> float:
        if mix is None:
            chosen = [samples[place] for place in rng.integers(0, len(samples), batch)]
        else:
            chosen = [by_task[t][place] for t, n in mix.items() if n for place in rng.integers(0, len(by_task[t]), n)]
        model.train()
        total = 0.0
        for part in _parts(chosen, config.micro_batch):
            completions = true_completions(policy, part, rng)
            words = sum(map(len, completions))
            mine, counted = processes.own(np.arange(len(part)))
            with torch.autocast(model.device.type, torch.bfloat16, enabled=config.autocast):
                nats = completion_loss(policy, [part[n] for n in mine], [completions[n] for n in mine], counted)
                loss = nats / words * (len(part) / batch)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        model.eval()
        return total

    return backward


def _parts(samples: Sequence[Sample], size: int | None) -> list[list[Sample]]:
    """Samples task by task, at most ``size`` at a time: those of a task are about equally long."""
    found = []
    for task in dict.fromkeys(sample.task for sample in samples):
        some = [sample for sample in samples if sample.task is task]
        found += [some[start : start + (size or len(some))] for start in range(0, len(some), size or len(some))]
    return found


def completion_loss(
    policy: VisionLanguageModel, samples: Sequence[Sample], completions: Sequence[Sequence[int]], counted: int
) -> torch.Tensor:
    """Cross-entropy of the first ``counted`` of ``completions``, summed over their tokens, ends included (nats), under the
    distribution that is sampled from."""
    inputs = dict(policy.prompt(samples, [policy.pictures(sample) for sample in samples]))
    width = max(map(len, completions))
    words = torch.tensor([[*ids, *[policy.pad_id] * (width - len(ids))] for ids in completions])
    real = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in completions])
    prompt = inputs["input_ids"].shape
    for key, value in inputs.items():
        if value.shape == prompt:  # per token: its id, whether it is there, whether it stands for an image
            more = {"input_ids": words, "attention_mask": real}.get(key, torch.zeros_like(words))
            inputs[key] = torch.cat([value, more.to(value.dtype)], 1)
        elif value.is_floating_point():
            inputs[key] = value.to(policy.model.dtype)
    inputs = {key: value.to(policy.model.device) for key, value in inputs.items()}
    logits = cast(Any, policy.model)(**inputs, use_cache=False, logits_to_keep=width + 1).logits[:, :-1]
    real[counted:] = 0
    target = words.masked_fill(real == 0, -100).to(logits.device)
    return F.cross_entropy(logits.float().flatten(0, 1), target.flatten(), reduction="sum")


def true_completions(
    policy: VisionLanguageModel, samples: Sequence[Sample], rng: np.random.Generator
) -> list[list[int]]:
    """Tokens of what is true of samples of one task: words, or for forecasts the true future in codes.

    Raises:
        InputError: there is none.
    """
    if samples[0].task is not Task.FORECAST:
        return [policy.answer_ids(taught_text(sample, rng)) for sample in samples]
    for sample in samples:
        if not sample.reference.get("images"):
            raise InputError(f"sample {sample.id!r} has no true future to learn from")
    return cast(BackboneWorldModel, policy).drawings([sample.reference["images"][-1] for sample in samples])


def taught_text(sample: Sample, rng: np.random.Generator) -> str:
    """What a sample teaches: one of its captions, or the text that answers it best, see :func:`true_text`.

    Raises:
        InputError: it has none.
    """
    if captions := sample.reference.get("captions"):
        return str(captions[rng.integers(len(captions))])
    if (text := true_text(sample)) is None:
        raise InputError(f"sample {sample.id!r} has no answer, label or caption to learn from")
    return text
