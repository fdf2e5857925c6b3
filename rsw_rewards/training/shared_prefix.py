"""Rows with a common beginning as one row: the beginning once, then what follows in each, beside each other.

A token attends to the common beginning and to its own row alone, and has the position that it has in its own row. The numbers of a
row are then those of the row by itself, up to rounding. With z, the last token of the common beginning, a pack of three rows is

    p p p p | z c1 c1 c1 | z c2 c2 | z c3 ...

z comes once per row, because another token follows it in each, and every position predicts one token. The last token of a row
predicts nothing and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rsw_rewards.core.plugins import raised
from rsw_rewards.rollouts.weights import base_model

UNSCORED = -100
"""Label of a position whose prediction is not asked for."""


@dataclass(frozen=True, slots=True)
class Pack:
    """Rows to be computed as one.

    >>> ids, seen = torch.tensor([[0, 5, 6, 7, 8], [0, 5, 6, 9, 0]]), torch.tensor([[0, 1, 1, 1, 1], [0, 1, 1, 1, 0]])
    >>> packed = pack(ids, seen, 2)
    >>> packed.lay(packed.rows), packed.labels
    (tensor([5, 6, 7, 6]), tensor([-100,    7,    8,    9]))
    """

    rows: list[Tensor]
    """(length,) int64 each: whole sequences without padding."""
    cut: int
    """Tokens that stand once, for all rows."""
    scored: Tensor
    """(n, keep) bool: columns for the tokens whose probability is asked for, which are the last ones of each row."""

    @classmethod
    def of(cls, rows: list[Tensor], scored: Tensor) -> Pack:
        """Rows as a pack whose common beginning is as long as it can be."""
        shortest = min(map(len, rows))
        alike = (torch.stack([row[:shortest] for row in rows]) == rows[0][:shortest]).all(0)
        return cls(rows, max(int(alike.int().cumprod(0).sum()) - 1, 0), scored)

    def lay(self, values: Sequence[Tensor], first: int = 0) -> Tensor:
        """(..., t) numbers of the pack's tokens from those of each row's tokens, (..., length); ``first`` is the row whose numbers
        the common tokens have."""
        return torch.cat([values[first][..., : self.cut], *(value[..., self.cut : -1] for value in values)], -1)

    @property
    def places(self) -> Tensor:
        """(t,) int64: the place of each token in its own row."""
        return self.lay([torch.arange(len(row), device=row.device) for row in self.rows])

    @property
    def labels(self) -> Tensor:
        """(t,) int64: the token that each position predicts where that is asked for, else :data:`UNSCORED`."""
        starts = [len(row) - int(count) for row, count in zip(self.rows, self.scored.sum(1), strict=True)]
        following = []
        for row, start in zip(self.rows, starts, strict=True):
            after = row.roll(-1)
            after[: max(start - 1, 0)] = UNSCORED
            following.append(after)
        return self.lay(following, first=starts.index(min(starts)))

    @property
    def mask(self) -> Tensor:
        """(1, 1, t, t) bool: True where a token (row of the matrix) attends to another (column)."""
        owner = self.lay([torch.full_like(row, number) for number, row in enumerate(self.rows)])
        owner[: self.cut] = -1
        same = (owner == owner[:, None]) | (owner == -1)
        return same.tril()[None, None]

    def unpack(self, numbers: Tensor) -> Tensor:
        """(n, keep, ...) numbers of the scored tokens from (t, ...) those of the positions that predict them; 0 elsewhere."""
        source = torch.full(self.scored.shape, -1, device=numbers.device)
        behind = self.cut  # where the tokens of a row's own begin
        for number, row in enumerate(self.rows):
            scored = self.scored[number]
            place = torch.arange(len(row) - int(scored.sum()), len(row), device=numbers.device) - 1
            source[number, scored] = torch.where(place < self.cut, place, place - self.cut + behind)
            behind += len(row) - 1 - self.cut
        absent = (source < 0).reshape(*source.shape, *(1 for _ in numbers.shape[1:]))
        return numbers[source.clamp(min=0)].masked_fill(absent, 0.0)


def pack(ids: Tensor, seen: Tensor, keep: int) -> Pack:
    """:meth:`Pack.of` rows with padding.

    Args:
        ids: (n, length) int64.
        seen: (n, length) 0 where there is padding, on either side.
        keep: columns at the end that hold the tokens whose probability is asked for.
    """
    real = seen.bool()
    return Pack.of([row[there] for row, there in zip(ids, real, strict=True)], real[:, -keep:])


@dataclass(frozen=True, slots=True)
class Images:
    """The images of a prompt, as models with a grid of patches take them."""

    pixel_values: Tensor
    """(patches, size)."""
    image_grid_thw: Tensor
    """(images, 3) int64."""

    @classmethod
    def of_row(cls, row: int, pixel_values: Tensor, image_grid_thw: Tensor, num_images: Sequence[int]) -> Images:
        """The images of one of the rows, of all of which the tensors hold the images one after another."""
        first = sum(num_images[:row])
        grid = image_grid_thw[first : first + num_images[row]]
        patch = int(image_grid_thw[:first].prod(-1).sum())
        return cls(pixel_values[patch : patch + int(grid.prod(-1).sum())], grid)


def inputs_of(
    model: Any, packed: Pack, images: Images | None = None, types: Sequence[Tensor] | None = None
) -> dict[str, Any]:
    """What ``forward`` takes for a pack, a batch of one row.

    Args:
        model: a causal language model, with or without adapters.
        packed: the rows.
        images: those of the rows' common prompt.
        types: (length,) each: ``mm_token_type_ids`` of the rows.
    """
    core = base_model(model)
    mask = packed.mask
    if core.config.get_text_config()._attn_implementation == "eager":  # which adds the mask to its scores
        mask = torch.where(mask, 0.0, torch.finfo(core.dtype).min).to(core.dtype)
    inputs = {
        "input_ids": packed.lay(packed.rows)[None],
        "attention_mask": mask,
        "position_ids": packed.places[None],
    }
    if types is not None:
        inputs["mm_token_type_ids"] = packed.lay(types)[None]
    if images is not None and len(images.image_grid_thw):
        inputs |= {"pixel_values": images.pixel_values, "image_grid_thw": images.image_grid_thw}
        # Images lie in the common prompt, and words go on evenly behind it: the longest row has all positions.
        longest = max(range(len(packed.rows)), key=lambda number: len(packed.rows[number]))
        row = packed.rows[longest][None]
        told = {} if types is None else {"mm_token_type_ids": types[longest][None]}
        own, _ = core.model.get_rope_index(
            row, image_grid_thw=images.image_grid_thw, attention_mask=torch.ones_like(row), **told
        )
        inputs["position_ids"] = packed.lay([own[..., : len(row)] for row in packed.rows])
    if find := getattr(core, "picture_positions", None):
        inputs["picture_positions"] = packed.lay([find(row[None])[0] for row in packed.rows])[None]
    return inputs


KNOWN = frozenset({
    "input_ids", "attention_mask", "mm_token_type_ids", "pixel_values", "image_grid_thw",
    "pixel_values_videos", "video_grid_thw", "second_per_grid_ts",
})  # fmt: skip
"""What a processor may give for :func:`inputs_of` to be enough; there are no videos."""


def why_not(model: Any, names: Sequence[str] = ()) -> str:
    """Why the rows of a model cannot be packed; empty where they can.

    Args:
        model: a causal language model, with or without adapters.
        names: what its processor gives, if it looks at images.
    """
    core = base_model(model)
    config = core.config.get_text_config()
    kinds = sorted(set(getattr(config, "layer_types", None) or ()) - {"full_attention"})
    if config._attn_implementation not in ("sdpa", "eager"):
        return f"its attention ({config._attn_implementation}) takes no mask of rows; that of 'attn: sdpa' does"
    if kinds:
        return f"it has layers of the kind {kinds[0]!r}"
    if alien := sorted(set(names) - KNOWN):
        return f"its processor gives {alien[0]!r}, which is not known here"
    if "pixel_values" in names and not hasattr(core.model, "get_rope_index"):
        return "its images are no grids of patches"
    training = model.training
    model.eval()
    try:
        far = difference(model)
    except Exception as error:  # whatever a model of any author does with a mask that it does not expect
        return f"its forward does not take a mask of rows ({raised(error)})"
    finally:
        model.train(training)
    half = torch.finfo(core.dtype).bits < 32
    return "" if far < (0.05 if half else 1e-3) else "its forward does not keep to a mask of rows and positions"


@torch.no_grad()
def difference(model: Any) -> float:
    """Mean difference of logits between two made-up rows as one and each by itself, as a share of the logits' standard deviation."""
    core = base_model(model)
    ids = (1 + 7 * torch.arange(16, device=core.device).reshape(2, 8)) % core.config.get_text_config().vocab_size
    ids[1, :4] = ids[0, :4]
    packed = pack(ids, torch.ones_like(ids), 4)
    inputs = inputs_of(model, packed)
    together = model(**inputs, use_cache=False).logits[0].float()
    alone = [model(input_ids=row[None], use_cache=False).logits[0].float().T for row in packed.rows]
    expected = packed.lay(alone).T
    possible = expected > -1e3  # others are ruled out by the model itself
    return float((together - expected)[possible].abs().mean() / expected[possible].std())
