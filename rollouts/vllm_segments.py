"""The rules of pictures among words as a logits processor of vLLM's own interface; imported by vLLM's workers alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from rsw_rewards.rollouts.picture_segments import IMPOSSIBLE, Segments

PLACE = f"{__name__}:SegmentRules"
"""What ``vllm.LLM(logits_processors=[...])`` takes."""
KEY = "rsw_segments"
"""Where ``vllm.LLM(additional_config={...})`` holds the fields of :class:`Segments`."""


@dataclass(slots=True)
class _Row:
    """A request in the batch."""

    position: int
    tokens: list[int]
    """What was sampled; vLLM appends to it."""
    read: int = 0


class SegmentRules(LogitsProcessor):
    """Gives the tokens that :class:`Segments` rules out the logit that models with these rules give them, before the temperature.

    vLLM makes one per engine. A request is followed by its tokens, wherever it moves in the batch and after it was set aside.

    Args:
        vllm_config: its ``additional_config`` holds the rules.
        device: of the logits.
        is_pin_memory: not used.
    """

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        told: dict[str, Any] = vllm_config.additional_config[KEY]
        rules: dict[str, Any] = {
            key: tuple(v) if isinstance(v, list) else v for key, v in told.items()
        }  # it may be JSON
        self.segments = Segments(**rules)
        self.rows: dict[int, _Row] = {}

    def is_argmax_invariant(self) -> bool:
        """False: the rules change which token is the likeliest."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Take in which requests came, moved and went."""
        process_dict_updates(self.rows, batch_update, lambda _, prompt, tokens: self._row(prompt or [], tokens))

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Change logits in place.

        Args:
            logits: (requests, vocabulary).
        """
        if not self.rows:
            return logits
        # Tokens are read here and not in update_state: those of the step before may only just have become known.
        places = torch.tensor([self._follow(self.rows[place]) for place in range(len(logits))], device=logits.device)
        return logits.masked_fill_(~self.segments.mask(places), IMPOSSIBLE)

    def _row(self, prompt: list[int], tokens: list[int]) -> _Row:
        return _Row(int(self.segments.positions(torch.tensor([prompt]))[0, -1]), tokens)

    def _follow(self, row: _Row) -> int:
        for token in row.tokens[row.read :]:
            row.position = self.segments.after(row.position, token)
        row.read = len(row.tokens)
        return row.position
