"""Which tokens are possible next: pictures hold exactly one code per cell, and nothing of a picture stands among words.

A picture is ``begin code ... code [row_end] ... [picture_end]``, row by row. The rules are the sampler's and the learner's alike, because
models lay them on their logits inside ``forward``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

IMPOSSIBLE = -1e4
"""Logit of an impossible token: its probability is exactly zero in float32, yet sums and products with it stay finite."""

_WORDS, _CODE, _ROW_END, _PICTURE_END, _END = range(5)


@dataclass(frozen=True)
class Segments:
    """The ids of a vocabulary by what they may follow.

    Attributes:
        begin: opens a picture.
        end: ends a completion: the only token after a picture that is complete.
        codes: first id of the visual codes, and how many there are.
        grid: rows and columns of codes of a picture.
        words: first and last but one id of the range that holds the words.
        never: ids of that range that no completion holds.
        ends: further tokens that may end an answer in words.
        row_end: stands behind each row, if there is such a token.
        picture_end: stands behind the last row, if there is such a token.
        size: of the whole vocabulary.
    """

    begin: int
    end: int
    codes: tuple[int, int]
    grid: tuple[int, int]
    words: tuple[int, int]
    size: int
    never: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    row_end: int | None = None
    picture_end: int | None = None

    @cached_property
    def _row(self) -> int:
        return self.grid[1] + (self.row_end is not None)

    @cached_property
    def span(self) -> int:
        """Tokens of a picture behind its first, ``begin``."""
        return self.grid[0] * self._row + (self.picture_end is not None)

    def is_code(self, ids: Tensor) -> Tensor:
        """Where visual codes stand."""
        first, count = self.codes
        return (ids >= first) & (ids < first + count)

    def positions(self, input_ids: Tensor) -> Tensor:
        """How far into a picture each position is.

        Args:
            input_ids: (n, length) whole sequences, from their first token on.

        Returns:
            (n, length) int64: 0 at begin-of-image, k at the k-th token of the picture after it, -1 outside of pictures.
        """
        position = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        inside = self.is_code(input_ids)
        for token in (self.row_end, self.picture_end):
            if token is not None:
                inside = inside | (input_ids == token)
        last_other = torch.where(inside, -1, position).cummax(1).values
        opened = input_ids.gather(1, last_other.clamp(min=0)) == self.begin
        return torch.where(opened & (last_other >= 0), position - last_other, -1)

    def places(self, given: Tensor | None, input_ids: Tensor | None, cache: Any) -> Tensor:
        """The positions that ``forward`` was given, else those of its tokens where they are the whole sequence.

        Raises:
            ValueError: a cache holds the beginning of the sequence, or there are no tokens.
        """
        if given is not None:
            return given
        if input_ids is None or (cache is not None and cache.get_seq_length() > 0):
            raise ValueError("give picture_positions where input_ids is not the whole sequence")
        return self.positions(input_ids)

    def after(self, position: int, token: int) -> int:
        """The position of a token that follows on one at ``position``, as :meth:`positions` gives it for whole sequences."""
        first, count = self.codes
        if token == self.begin:
            return 0
        inside = first <= token < first + count or token in (self.row_end, self.picture_end)
        return position + 1 if inside and position >= 0 else -1

    def mask(self, positions: Tensor) -> Tensor:
        """Which tokens may follow: (..., size) bool for positions as given by :meth:`positions`."""
        drawn = self.grid[0] * self._row
        kind = torch.where(positions % self._row < self.grid[1], _CODE, _ROW_END)
        kind = torch.where(positions < 0, _WORDS, kind)
        kind = torch.where(positions >= drawn, _PICTURE_END if self.picture_end is not None else _END, kind)
        kind = torch.where(positions >= self.span, _END, kind)
        return self._table(positions.device)[kind]

    def _table(self, device: torch.device) -> Tensor:
        """(5, size) bool: the tokens of each kind."""
        kept: dict[torch.device, Tensor] = self.__dict__.setdefault("_tables", {})
        if device not in kept:
            table = torch.zeros(5, self.size, dtype=torch.bool)
            table[_WORDS, self.words[0] : self.words[1]] = True
            table[_WORDS, list(self.never)] = False
            table[_WORDS, [self.end, *self.ends]] = True
            table[_CODE, self.codes[0] : sum(self.codes)] = True
            for kind, token in ((_ROW_END, self.row_end), (_PICTURE_END, self.picture_end), (_END, self.end)):
                if token is not None:
                    table[kind, token] = True
            kept[device] = table.to(device)
        return kept[device]
