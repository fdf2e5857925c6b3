"""The critic, and the one way in which a policy's tokens are scored: log-probabilities, entropies and last hidden states."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from rsw_rewards.core.records import Sample, TokenTrace
from rsw_rewards.training.shared_prefix import UNSCORED, Images, Pack, inputs_of

_IMPOSSIBLE = -1e4
"""Log-probability that stands for minus infinity: its differences and gradients are zero instead of not a number."""

Inputs = Callable[[Sequence[Sample], Tensor], Mapping[str, Any]]
"""What a model's ``forward`` needs beside tokens, such as the pixels of a vision-language model, from the rows' samples and tokens."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rollouts as tokens."""

    traces: Sequence[TokenTrace]
    samples: Sequence[Sample]
    pad_id: int
    packs: Sequence[int] | None = None
    """Number of the pack that each row is computed in, see :mod:`rsw_rewards.training.shared_prefix`; None where rows are computed
    one by one. Rows of a pack are of one sample and follow each other."""

    def __len__(self) -> int:
        return len(self.traces)

    def part(self, places: Sequence[int] | np.ndarray) -> Rows:
        """Some of the rows, those of a pack all or none."""
        packs = None if self.packs is None else [self.packs[p] for p in places]
        return Rows([self.traces[p] for p in places], [self.samples[p] for p in places], self.pad_id, packs)

    @property
    def units(self) -> list[np.ndarray]:
        """The places of the rows that are computed together, pack by pack; each row's own where there are no packs."""
        numbers = np.arange(len(self)) if self.packs is None else np.asarray(self.packs)
        return np.split(np.arange(len(self)), np.flatnonzero(np.diff(numbers)) + 1)

    @property
    def mask(self) -> Tensor:
        """(n, t) bool: where there is a token of a completion."""
        lengths = torch.tensor([len(trace.completion_ids) for trace in self.traces])
        return torch.arange(int(lengths.max()))[None] < lengths[:, None]

    def aligned(self, values: Sequence[Sequence[float]]) -> Tensor:
        """(n, t) float32 of one number per token of each completion."""
        out = torch.zeros(self.mask.shape)
        out[self.mask] = torch.tensor([number for row in values for number in row], dtype=torch.float32)
        return out


def packs_of(samples: Sequence[Sample], size: int) -> list[int]:
    """Numbers of packs of at most ``size`` rows of one sample, for rows of which those of a sample follow each other.

    >>> first, second = (Sample(name, "change_qa", (), "?") for name in "ab")
    >>> packs_of([first, first, first, second], 2)
    [0, 0, 1, 2]
    """
    numbers: list[int] = []
    for _, group in groupby(sample.id for sample in samples):
        begun = numbers[-1] + 1 if numbers else 0
        numbers += [begun + place // size for place, _ in enumerate(group)]
    return numbers


@dataclass(frozen=True, slots=True)
class Scored:
    """What a model says of the tokens of completions, (n, t) each; 0 where there is no token."""

    log_probs: Tensor
    entropy: Tensor
    hidden: Tensor
    """(n, t, width): the last hidden state from which each token was chosen."""
    after: Tensor
    """(n, width): the last hidden state after the last token."""


def score_rows(model: PreTrainedModel, rows: Rows, temperature: float, inputs: Inputs | None = None) -> Scored:
    """Score completions by the model's own ``forward``, whose logits are those that the sampler sampled from.

    Only the logits of completions are asked for and only those of real tokens are turned into probabilities, so that short
    answers beside long pictures cost little. Each pack is computed by itself, so that its numbers do not depend on the others.
    """
    if rows.packs is not None:
        return _joined([_score_pack(model, rows.part(unit), temperature, inputs) for unit in rows.units])
    device = model.device
    sequences = [[*trace.prompt_ids, *trace.completion_ids] for trace in rows.traces]
    width = max(map(len, sequences))
    ids = torch.tensor([row + [rows.pad_id] * (width - len(row)) for row in sequences], device=device)
    attention = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in sequences], device=device)
    first = min(len(trace.prompt_ids) for trace in rows.traces) - 1
    place = torch.arange(first, width - 1)
    starts = torch.tensor([len(trace.prompt_ids) - 1 for trace in rows.traces])[:, None]
    ends = torch.tensor([len(row) - 1 for row in sequences])[:, None]
    chosen = ((place >= starts) & (place < ends)).to(device)
    with _last_hidden(model) as hidden:
        logits = model(
            input_ids=ids,
            attention_mask=attention,
            use_cache=False,
            logits_to_keep=width - first,
            **(inputs(rows.samples, ids) if inputs else {}),
        ).logits
    picked, entropy = _probabilities(logits[:, :-1][chosen], ids[:, first + 1 :][chosen], temperature)
    mask = rows.mask.to(device)

    def spread(flat: Tensor) -> Tensor:
        # Both masks run through the tokens row by row, so the n-th place of one is the n-th of the other.
        return flat.new_zeros(*mask.shape, *flat.shape[1:]).masked_scatter(
            mask.reshape(*mask.shape, *(1 for _ in flat.shape[1:])), flat
        )

    states = hidden[0][:, -(width - first) :]
    after = states[torch.arange(len(states), device=device), ends[:, 0].to(device) - first].float()
    return Scored(spread(picked), spread(entropy), spread(states[:, :-1][chosen].float()), after)


def _joined(parts: Sequence[Scored]) -> Scored:
    """The rows of all parts, padded to the longest."""
    width = max(part.log_probs.shape[1] for part in parts)

    def padded(column: Sequence[Tensor]) -> Tensor:
        return torch.cat([F.pad(one, (*(0, 0) * (one.ndim - 2), 0, width - one.shape[1])) for one in column])

    return Scored(
        padded([part.log_probs for part in parts]),
        padded([part.entropy for part in parts]),
        padded([part.hidden for part in parts]),
        torch.cat([part.after for part in parts]),
    )


def _score_pack(model: PreTrainedModel, rows: Rows, temperature: float, inputs: Inputs | None) -> Scored:
    """:func:`score_rows` of rows of one sample as one row."""
    device = model.device
    # A token more per row, which nothing is asked of: the pack then holds the state after the last one.
    sequences = [
        torch.tensor([*trace.prompt_ids, *trace.completion_ids, rows.pad_id], device=device) for trace in rows.traces
    ]
    mask = rows.mask.to(device)
    ends = mask.sum(1)
    wanted = torch.arange(mask.shape[1] + 1, device=device) <= ends[:, None]
    packed = Pack.of(sequences, wanted)
    images = types = None
    if inputs is not None:
        told = inputs(rows.samples[:1], max(sequences, key=len)[None])
        if "pixel_values" in told:
            images = Images(told["pixel_values"], told["image_grid_thw"])
        if "mm_token_type_ids" in told:
            types = [told["mm_token_type_ids"][0, : len(row)] for row in sequences]
    labels = packed.labels
    scored = labels != UNSCORED
    first = int(scored.int().argmax())
    with _last_hidden(model) as hidden:
        logits = model(
            **inputs_of(model, packed, images, types), use_cache=False, logits_to_keep=len(labels) - first
        ).logits[0]
    states = hidden[0][0, first - len(labels) :].float()
    picked, entropy = _probabilities(logits[scored[first:]], labels[scored], temperature)

    def spread(flat: Tensor) -> Tensor:
        whole = flat.new_zeros(len(labels), *flat.shape[1:])
        return packed.unpack(whole.index_put((scored.nonzero()[:, 0],), flat))

    log_probs, entropies = (spread(one)[:, :-1].masked_fill(~mask, 0.0) for one in (picked, entropy))
    each = spread(states[scored[first:]])
    after = each[torch.arange(len(each), device=device), ends]
    return Scored(log_probs, entropies, each[:, :-1].masked_fill(~mask[..., None], 0.0), after)


def _probabilities(logits: Tensor, tokens: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(n,) log-probabilities of tokens and (n,) entropies, from (n, vocabulary) logits."""
    log_p = torch.log_softmax(logits.float() / temperature, -1)
    picked = log_p.gather(-1, tokens[:, None])[:, 0].clamp(min=_IMPOSSIBLE)
    return picked, -(log_p.exp() * log_p.clamp(min=_IMPOSSIBLE)).sum(-1)


@contextmanager
def _last_hidden(model: PreTrainedModel) -> Iterator[list[Tensor]]:
    """Collects what goes into the output matrix: the last hidden states, without those of all layers being kept."""
    found: list[Tensor] = []
    output = model.get_output_embeddings()
    if output is None:
        raise TypeError(f"{type(model).__name__} has no output embeddings, so a critic cannot read its hidden states")
    handle = output.register_forward_pre_hook(lambda _, arguments: found.append(arguments[0]))
    try:
        yield found
    finally:
        handle.remove()


class Critic(nn.Module):
    """Values of states, the expected reward from each token on.

    Args:
        policy: the network that is trained.
        own_network: read states with a copy of ``policy`` that is trained along; else with the policy's own hidden states, through
            which no gradient flows back: what the critic learns must not change what the policy does.
        seed: of the first weights.
    """

    def __init__(self, policy: PreTrainedModel, own_network: bool, seed: int) -> None:
        super().__init__()
        self.network = copy.deepcopy(policy) if own_network else None
        width = policy.get_output_embeddings().weight.shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))
        self.start_from(0.0)
        self.to(policy.device)

    def start_from(self, value: float) -> None:
        """Give every state this value: noise, or a mean that is far off, would be taken for advantages at first."""
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, value)

    def forward(
        self, rows: Rows, scored: Scored, temperature: float, inputs: Inputs | None = None
    ) -> tuple[Tensor, Tensor]:
        """Values of states.

        Args:
            rows: the rollouts.
            scored: what the policy says of them.

        Returns:
            (n, t) of the states in which the tokens were chosen, 0 where there is none, and (n,) of those after the last token.
        """
        if self.network is not None:
            scored = score_rows(self.network, rows, temperature, inputs)
            hidden, after = scored.hidden, scored.after
        else:
            hidden, after = scored.hidden.detach(), scored.after.detach()
        return self.head(hidden)[..., 0] * rows.mask.to(hidden.device), self.head(after)[..., 0]
