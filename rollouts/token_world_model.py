"""The token world model: one causal language model over words, metadata and visual codes.

It answers questions about pictures and draws the picture that follows. Which tokens are possible next is decided inside
``forward``, by the segment that a position lies in: after begin-of-image only visual codes, after a full grid of them only
the end token, elsewhere only words and the end token. Whoever samples, scores or trains thus sees one distribution.

    world = load_world_model("embedded")                 # model, vocabulary and visual tokenizer
    prompts = world.prompts(samples)                     # list of token ids
    rows = sample(world.model, prompts, repeats=8, temperature=1.0, seeds=seeds)
    world.read(rows[0].ids, task)                        # Reading(text=... | codes=..., finish_reason=...)
    world.tokenizer.decode_forecast(before, codes)       # (n, h, w, 3) uint8
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM
from transformers.cache_utils import DynamicCache
from transformers.modeling_outputs import CausalLMOutputWithPast

from rsw_rewards.assets import ASSETS
from rsw_rewards.core.records import Sample, Task
from rsw_rewards.errors import ImageError
from rsw_rewards.io.images import read_rgb
from rsw_rewards.rollouts.picture_segments import IMPOSSIBLE, Segments
from rsw_rewards.rollouts.sampling import Draw
from rsw_rewards.rollouts.token_vocabulary import Vocabulary
from rsw_rewards.rollouts.visual_tokenizer import VisualTokenizer
from rsw_rewards.rollouts.weights import check_complete

MAX_ANSWER_TOKENS = 8


class TokenWorldModelConfig(Qwen3Config):
    """A Qwen3 configuration that knows where the visual codes lie.

    Args:
        boi_token_id: id of begin-of-image.
        text_start: first id of the words; they end where the codes start.
        visual_start: first id of the visual codes.
        visual_codes: how many there are.
        grid_codes: codes of one picture.
        picture_side: side in pixels of one picture.
    """

    model_type = "token_world_model"

    # Every argument needs a default: the configuration class is also made empty by the library.
    boi_token_id: int = 3
    text_start: int = 8
    visual_start: int = 8
    visual_codes: int = 0
    grid_codes: int = 64
    picture_side: int = 64


def tiny_config(vocabulary: Vocabulary, **changes: Any) -> TokenWorldModelConfig:
    """The configuration of the shipped model (0.5 M parameters); keyword arguments replace any of its values."""
    values: dict[str, Any] = {
        "vocab_size": len(vocabulary),
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 32,
        "max_position_embeddings": 512,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
        "tie_word_embeddings": True,
        "pad_token_id": vocabulary.pad,
        "eos_token_id": vocabulary.eos,
        "bos_token_id": None,
        "boi_token_id": vocabulary.boi,
        "text_start": vocabulary.text_start,
        "visual_start": vocabulary.visual_start,
        "visual_codes": vocabulary.codes,
    }
    return TokenWorldModelConfig(**(values | changes))


class TokenWorldModel(Qwen3ForCausalLM):
    """Qwen3 whose logits are masked by segment. Takes any size of ``TokenWorldModelConfig``, new or from a path."""

    config_class = TokenWorldModelConfig
    config: TokenWorldModelConfig

    def __init__(self, config: TokenWorldModelConfig) -> None:
        super().__init__(config)
        self.cell_embedding = torch.nn.Embedding(config.grid_codes + 1, config.hidden_size)
        self.post_init()

    @cached_property
    def segments(self) -> Segments:
        """Which tokens may follow which."""
        c = self.config
        return Segments(
            begin=c.boi_token_id,
            end=int(c.eos_token_id),  # type: ignore[arg-type]
            codes=(c.visual_start, c.visual_codes),
            grid=(1, c.grid_codes),
            words=(c.text_start, c.visual_start),
            size=c.vocab_size,
        )

    def embed(self, input_ids: Tensor, picture_positions: Tensor) -> Tensor:
        """(n, length, hidden) token embeddings; inside a picture, that of the place in the grid is added.

        Relative positions alone tell the model where in a picture it is only after long training.
        """
        embedded = self.model.embed_tokens(input_ids)
        place = self.cell_embedding(picture_positions.clamp(0, self.config.grid_codes))
        return embedded + place * (picture_positions >= 0)[..., None]

    def picture_positions(self, input_ids: Tensor) -> Tensor:
        """How far into a picture each position is.

        Args:
            input_ids: (n, length) whole sequences, from their first token on.

        Returns:
            (n, length) int64: 0 at begin-of-image, k at the k-th code after it, -1 outside of pictures.
        """
        return self.segments.positions(input_ids)

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: DynamicCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        picture_positions: Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits of the next token, those of impossible tokens at ``IMPOSSIBLE``.

        Args:
            picture_positions: (n, length), see the method of that name. Only needed where ``input_ids`` is not the whole
                sequence because a cache holds its beginning.

        Raises:
            ValueError: the segment of a position cannot be known.
        """
        picture_positions = self.segments.places(picture_positions, input_ids, past_key_values)
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("give input_ids or inputs_embeds")
            inputs_embeds = self.embed(input_ids, picture_positions)
        out = super().forward(
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            **(kwargs | {"return_dict": True}),
        )
        if isinstance(logits_to_keep, int):
            kept = picture_positions[:, -logits_to_keep:] if logits_to_keep else picture_positions
        else:
            kept = picture_positions[:, logits_to_keep]
        out.logits = out.logits.masked_fill(~self.segments.mask(kept), IMPOSSIBLE)
        if labels is not None:
            out.loss = self.loss_function(logits=out.logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return out

    def prepare_inputs_for_generation(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Lets ``generate`` step with a cache: the segments come from the whole sequence."""
        inputs = super().prepare_inputs_for_generation(input_ids, *args, **kwargs)  # type: ignore[misc,arg-type]
        length = inputs["input_ids"].shape[1]
        inputs["picture_positions"] = self.picture_positions(input_ids)[:, -length:]
        return inputs


def start_from_codebook(model: TokenWorldModel, codebook: Tensor, seed: int = 0) -> None:
    """Gives similar codes similar first embeddings: a random projection of the codebook (codes, dim)."""
    generator = torch.Generator().manual_seed(seed)
    c = model.config
    vectors = (codebook - codebook.mean(0)) / codebook.std(0)
    projection = torch.randn(vectors.shape[1], c.hidden_size, generator=generator) / vectors.shape[1] ** 0.5
    with torch.no_grad():
        rows = model.model.embed_tokens.weight[c.visual_start : c.visual_start + c.visual_codes]
        rows.mul_(0.5).add_(2 * c.initializer_range * vectors @ projection)


# Sampling


@dataclass(frozen=True, slots=True)
class Completion:
    """What was sampled for one row: token ids (the end token included, if it was reached) and their log-probabilities."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]


def sample(
    model: TokenWorldModel,
    prompts: Sequence[Sequence[int]],
    repeats: int = 1,
    temperature: float = 1.0,
    seeds: Sequence[int] | None = None,
    max_answer_tokens: int = MAX_ANSWER_TOKENS,
    rows_at_once: int = 512,
) -> list[Completion]:
    """Samples completions. Each prompt is read once, however often it is repeated.

    Questions and forecasts may be mixed; they are run apart, since their lengths differ by far.

    Args:
        model: in evaluation mode or not; dropout is not used by this architecture.
        prompts: token ids, of any lengths.
        repeats: completions per prompt.
        temperature: what logits are divided by; 0 takes the likeliest token (its log-probability is that of temperature 1).
        seeds: one per completion, prompt by prompt; every random number of a row comes from its own seed.
            May be left out at temperature 0.
        max_answer_tokens: an answer that has not ended by then is cut off.
        rows_at_once: most completions that are stepped together.

    Returns:
        ``len(prompts) * repeats`` completions, those of one prompt together.

    Raises:
        ValueError: seeds of the wrong number, or missing.
    """
    total = len(prompts) * repeats
    if temperature < 0:
        raise ValueError(f"temperature must be 0 or more, got {temperature}")
    if temperature > 0 and (seeds is None or len(seeds) != total):
        raise ValueError(f"{total} seeds are needed, one per completion, got {None if seeds is None else len(seeds)}")
    out: list[Completion | None] = [None] * total
    draws = [k for k, prompt in enumerate(prompts) if prompt[-1] == model.config.boi_token_id]
    answers = [k for k, prompt in enumerate(prompts) if prompt[-1] != model.config.boi_token_id]
    at_once = max(1, rows_at_once // repeats)
    for group, limit in ((answers, max_answer_tokens), (draws, model.config.grid_codes + 1)):
        for first in range(0, len(group), at_once):
            part = group[first : first + at_once]
            rows = [k * repeats + r for k in part for r in range(repeats)]
            draw = Draw([seeds[row] for row in rows] if seeds is not None else (), temperature, limit)
            made = _run(model, [prompts[k] for k in part], repeats, draw, limit)
            for row, completion in zip(rows, made, strict=True):
                out[row] = completion
    return [completion for completion in out if completion is not None]


@torch.no_grad()
def _run(
    model: TokenWorldModel,
    prompts: Sequence[Sequence[int]],
    repeats: int,
    draw: Draw,
    limit: int,
) -> list[Completion]:
    c, device = model.config, model.device
    pad = int(c.pad_token_id or 0)
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts], device=device)
    seen = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    padded = bool((seen == 0).any())
    cache = DynamicCache(config=c)
    logits = model(
        input_ids=ids, attention_mask=seen if padded else None, past_key_values=cache, use_cache=True, logits_to_keep=1
    ).logits[:, -1]
    here = model.picture_positions(ids)[:, -1].repeat_interleave(repeats)
    if repeats > 1:
        cache.batch_repeat_interleave(repeats)
        logits = logits.repeat_interleave(repeats, 0)
        seen = seen.repeat_interleave(repeats, 0)
    alive = torch.ones(len(logits), dtype=torch.bool, device=device)
    tokens, logprobs, lives = [], [], []
    for step in range(limit):
        token, logprob = draw.draw(logits, range(len(logits)), step)
        token = torch.where(alive, token, pad)
        tokens.append(token)
        logprobs.append(logprob)
        lives.append(alive)
        alive = alive & (token != c.eos_token_id)
        if step + 1 == limit or not alive.any():
            break
        visual = (token >= c.visual_start) & (token < c.visual_start + c.visual_codes)
        here = torch.where(visual & (here >= 0), here + 1, -1)
        if bool((here[alive] >= c.grid_codes).all()):
            # Nothing but the end token is left, so the network need not be asked.
            logits = torch.where(model.segments.mask(here), 0.0, IMPOSSIBLE)
            continue
        seen = torch.cat([seen, torch.ones_like(seen[:, :1])], 1)
        logits = model(
            input_ids=token[:, None],
            attention_mask=seen if padded else None,
            past_key_values=cache,
            use_cache=True,
            picture_positions=here[:, None],
        ).logits[:, -1]
    ids_out = torch.stack(tokens, 1).tolist()
    logp_out = torch.stack(logprobs, 1).tolist()
    lengths = torch.stack(lives, 1).sum(1).tolist()
    return [Completion(tuple(i[:n]), tuple(p[:n])) for i, p, n in zip(ids_out, logp_out, lengths, strict=True)]


# Everything together


@dataclass(frozen=True, slots=True)
class Reading:
    """What a completion says: ``text`` for a question, ``codes`` for a forecast; neither if it was cut off."""

    finish_reason: str
    """``"stop"``, or ``"length"`` for a completion without its end token or a grid that is not full."""
    text: str | None = None
    codes: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class WorldModel:
    """A token world model with the vocabulary and the visual tokenizer that belong to it."""

    model: TokenWorldModel
    vocabulary: Vocabulary
    tokenizer: VisualTokenizer

    def prompts(self, samples: Sequence[Sample]) -> list[list[int]]:
        """Token ids of the prompts of questions and forecasts, in any order; every picture is encoded once.

        The date of a forecast's target is ``sample.metadata["target_date"]``; it is unknown to the model where that is missing.

        Raises:
            ValueError: a sample of another task.
            ImageError: a picture cannot be read, or has another size than the model knows.
        """
        pictures = [pixels for sample in samples for pixels in self._pictures(sample)]
        codes = iter(self.tokenizer.encode(np.stack(pictures)) if pictures else ())
        prompts = []
        for sample in samples:
            shown = [next(codes) for _ in sample.images]
            dates = [image.date for image in sample.images]
            if sample.task == Task.CHANGE_QA:
                prompts.append(self.vocabulary.question_prompt(sample.prompt, shown, dates, sample.metadata))
            else:
                target = sample.metadata.get("target_date")
                prompts.append(self.vocabulary.forecast_prompt(sample.prompt, shown, dates, target, sample.metadata))
        return prompts

    def _pictures(self, sample: Sample) -> Iterator[NDArray[np.uint8]]:
        if sample.task not in (Task.CHANGE_QA, Task.FORECAST):
            raise ValueError(
                f"{sample.id}: a token world model does {Task.CHANGE_QA} and {Task.FORECAST}, not {sample.task}"
            )
        if not sample.images:
            raise ImageError(f"{sample.id}: a token world model needs at least one image")
        side = self.model.config.picture_side
        for image in sample.images:
            pixels = read_rgb(image)
            if pixels.shape[:2] != (side, side):
                raise ImageError(
                    f"{image} has {pixels.shape[1]} x {pixels.shape[0]} pixels; the model takes {side} x {side}"
                )
            yield pixels

    def read(self, ids: Sequence[int], task: Task) -> Reading:
        """Answer or codes of a completion."""
        v = self.vocabulary
        ended = bool(ids) and ids[-1] == v.eos
        if task == Task.CHANGE_QA:
            return Reading("stop", text=v.decode_text(ids)) if ended else Reading("length", text=v.decode_text(ids))
        codes = np.array(ids[:-1] if ended else ids, np.int64) - v.visual_start
        if not ended or len(codes) != self.model.config.grid_codes or codes.min() < 0 or codes.max() >= v.codes:
            return Reading("length")
        return Reading("stop", codes=codes)

    def save(self, folder: Path | str) -> None:
        """Writes model, vocabulary and tokenizer; ``load_world_model`` reads them back."""
        folder = Path(folder)
        self.model.save_pretrained(folder)
        self.vocabulary.save(folder)
        self.tokenizer.save(folder / "tokenizer")


def load_world_model(path: Path | str = "embedded", device: str | torch.device = "cpu") -> WorldModel:
    """Reads a folder that ``WorldModel.save`` wrote, or the shipped model for ``"embedded"``; float32, evaluation mode.

    The visual tokenizer lies in the folder's ``tokenizer/`` or, as for the shipped model, beside the folder.

    Raises:
        OSError: a file is missing or cannot be read.
        ValueError: a file is damaged, or there are fewer weights than the model has.
    """
    folder = ASSETS / "world_model" if str(path) == "embedded" else Path(path)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no token world model (config.json is missing)")
    tokenizer = folder / "tokenizer" if (folder / "tokenizer").is_dir() else folder.parent / "tokenizer"
    loaded: Any = TokenWorldModel.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa", output_loading_info=True
    )
    model, found = loaded
    check_complete(found)
    torch.nn.Module.to(model, device)
    return WorldModel(model.eval(), Vocabulary.load(folder), VisualTokenizer.load(tokenizer, device))
