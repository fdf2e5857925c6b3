"""Tokens that are sampled by random numbers of each row's own, so that a rollout does not depend on which others are in its batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from rsw_rewards.rollouts.weights import base_model


class Draw:
    """A logits processor that decides every token with the row's own random numbers, and keeps its log-probability.

    Args:
        seeds: one per row.
        temperature: what logits are divided by; 0 takes the likeliest token (its log-probability is that of temperature 1).
        limit: tokens at most.
    """

    def __init__(self, seeds: Sequence[int], temperature: float, limit: int) -> None:
        self.temperature = temperature
        self.uniforms = np.stack([np.random.default_rng(seed).random(limit) for seed in seeds]) if temperature else None
        self.logprobs: list[torch.Tensor] = []
        """(rows,) float32 per step."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (rows, vocabulary) that leave one token possible in each row."""
        token, logprob = self.draw(scores, range(len(scores)), len(self.logprobs))
        self.logprobs.append(logprob)
        return torch.full_like(scores, -torch.inf).scatter_(1, token[:, None], 0.0)

    def draw(self, logits: torch.Tensor, rows: Sequence[int], step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(n,) tokens and (n,) log-probabilities of ``rows`` at a step, from (n, vocabulary) logits."""
        log_p = torch.log_softmax(logits.float() / (self.temperature or 1.0), -1)
        if self.uniforms is None:
            token = log_p.argmax(-1, keepdim=True)
        else:
            # The first token whose cumulative probability passes the row's number: never one without probability.
            total = log_p.double().exp().cumsum(-1)
            number = torch.from_numpy(self.uniforms[list(rows), step]).to(total.device)
            token = (total > number[:, None] * total[:, -1:]).int().argmax(-1, keepdim=True)
        return token[:, 0], log_p.gather(1, token)[:, 0]


def readable_once(model: Any) -> bool:
    """Whether a model's prompts can be read once for several rows: its positions can be told, and it attends to all before."""
    core = base_model(model)
    kinds = set(getattr(core.config.get_text_config(), "layer_types", None) or ())
    return kinds <= {"full_attention"} and hasattr(core.model, "get_rope_index")


@torch.no_grad()
def sample_groups(
    model: Any, inputs: Mapping[str, Tensor], count: int, draw: Draw, limit: int, ends: Sequence[int]
) -> tuple[list[list[int]], list[list[float]]]:
    """Tokens, with the end if it came, and their log-probabilities: ``count`` rows of each prompt, those of a prompt together.

    Args:
        model: one that is :func:`readable_once`.
        inputs: what ``forward`` takes of the prompts, padded on the left.
        count: completions of each prompt.
        draw: decides on tokens.
        limit: tokens of a completion at most.
        ends: tokens that end one.
    """
    core = base_model(model)
    seen = inputs["attention_mask"]
    places, deltas = _positions(core, inputs)
    find = getattr(core, "picture_positions", None)
    cache = DynamicCache(config=core.config.get_text_config())
    out = model(**inputs, position_ids=places, past_key_values=cache, use_cache=True, logits_to_keep=1)
    cache.batch_repeat_interleave(count)
    logits, seen, deltas, ids = (
        one.repeat_interleave(count, 0) for one in (out.logits[:, -1], seen, deltas, inputs["input_ids"])
    )
    rows = list(range(len(ids)))
    tokens: list[list[int]] = [[] for _ in rows]
    logprobs: list[list[float]] = [[] for _ in rows]
    stop = torch.tensor(sorted(ends), device=ids.device)
    for step in range(limit):
        token, logprob = draw.draw(logits, rows, step)
        for row, one, probability in zip(rows, token.tolist(), logprob.tolist(), strict=True):
            tokens[row].append(one)
            logprobs[row].append(probability)
        live = ~torch.isin(token, stop)
        if step + 1 == limit or not bool(live.any()):
            break
        if not bool(live.all()):
            stay = live.nonzero()[:, 0]
            cache.batch_select_indices(stay)
            token, seen, deltas, ids = token[stay], seen[stay], deltas[stay], ids[stay]
            rows = [rows[place] for place in stay.tolist()]
        ids = torch.cat([ids, token[:, None]], 1)
        seen = torch.cat([seen, torch.ones_like(seen[:, :1])], 1)
        place = seen.sum(1, keepdim=True) - 1 + deltas  # padding has no place
        more = {} if find is None else {"picture_positions": find(ids)[:, -1:]}
        logits = model(
            input_ids=token[:, None],
            attention_mask=seen,
            position_ids=place.expand(3, -1, -1),
            past_key_values=cache,
            use_cache=True,
            **more,
        ).logits[:, -1]
    return tokens, logprobs


def _positions(core: Any, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(3, n, length) positions of the prompts, and (n, 1) how far those behind are from the number of tokens before."""
    seen = inputs["attention_mask"]
    if "image_grid_thw" in inputs:
        told = {key: inputs[key] for key in ("input_ids", "mm_token_type_ids", "image_grid_thw") if key in inputs}
        places, deltas = core.model.get_rope_index(**told, attention_mask=seen)
        return places, deltas.reshape(-1, 1)
    places = (seen.cumsum(1) - 1).clamp(min=0)
    return places.expand(3, -1, -1), seen.new_zeros(len(seen), 1)
