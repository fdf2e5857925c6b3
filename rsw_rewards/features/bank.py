"""FeatureBank: every image decoded once, every encoder run once per image, shared by all verifiers of a run."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.randomness import same_randomness
from rsw_rewards.features.pixel_cache import PixelCache
from rsw_rewards.features.store import KINDS, FeatureStore

if TYPE_CHECKING:
    from rsw_rewards.encoders import Encoder

MICRO_BATCH = 16
"""Images per forward pass of an encoder, always padded to this number.

Floating-point sums depend on the shape of a batch; with one shape everywhere a feature does not depend on which images
happened to be scored together.
"""
SHARED_VARIABLE = "RSW_FEATURES"
"""Environment variable that names a folder of features which several runs share, beside the folder of each."""


class FeatureBank(PixelCache):
    """Decoded pixels, as its base keeps them, and encoder features, kept by content.

    Args:
        device: where encoders run.
        directory: features are kept here as well and survive the process; other processes may use the folder at the same time.
            None: in memory, and in a temporary file past ``feature_budget``.
        pixel_budget: bytes of decoded pixels kept in memory; the least recently used go first.
        feature_budget: bytes of features per encoder kept in memory where there is no ``directory``.
        shared: a second folder that is looked into before anything is encoded, and that is given what is encoded. What is found
            there is copied into ``directory``, so that a run stays whole without it. None: what ``RSW_FEATURES`` names, if anything.

    A pickled bank travels as its settings alone; the copy starts empty. Arrays of pixels it hands out are shared and read-only.
    """

    def __init__(
        self,
        device: str = "cpu",
        directory: Path | None = None,
        pixel_budget: int = 256 << 20,
        feature_budget: int = 64 << 20,
        shared: Path | None = None,
    ) -> None:
        super().__init__(pixel_budget)
        named = shared if shared is not None else os.environ.get(SHARED_VARIABLE) or None
        self.directory = None if directory is None else Path(directory)
        self.shared = None if named is None else Path(named)
        self.device = device
        self._settings = (device, self.directory, pixel_budget, feature_budget, self.shared)
        self.encoders: dict[str, Encoder] = {}
        """Those loaded so far, by name."""
        self.store = FeatureStore(self.directory, self.shared, feature_budget)
        self._encoding = threading.RLock()
        self.encoded: dict[str, int] = {}
        """Images (and texts, under ``"<encoder> text"``) put through an encoder, by encoder name."""
        self._found: Counter[str] = Counter()
        """Times that features asked for were there, under the keys of ``encoded``."""

    def __reduce__(self) -> Any:
        return type(self), self._settings

    def hash(self, image: ImageRef, encoder: str | None = None) -> str:
        """The content hash (hex) of the three bands that are shown, or that ``encoder`` reads where its name maps bands.

        It is what :meth:`features` finds the image's features by. Raises ``ImageError``.
        """
        return super().hash(image if encoder is None else _as_read_by(encoder, [image])[0])

    def encoder(self, name: str) -> Encoder:
        """The encoder of that name, loaded once per bank. Raises ``ConfigError`` when its weights cannot be had."""
        with self._encoding:
            if name not in self.encoders:
                from rsw_rewards.encoders import load_encoder

                with same_randomness():
                    self.encoders[name] = load_encoder(name, self.device)
            return self.encoders[name]

    def weights(self) -> dict[str, str]:
        """Encoders used so far: id -> SHA-256 of their weights."""
        return {model.id: model.weights_sha256 for model in self.encoders.values()}

    def image_features(self, encoder: str, images: Sequence[ImageRef], as_is: bool = False) -> np.ndarray:
        """(n, d) float32 image features; only images without stored features are encoded.

        ``as_is`` says that the three bands shown are already those that the encoder's name maps.

        Raises:
            ImageError: an image cannot be read.
            ValueError: the encoder gave something other than ``d`` finite numbers for an image.
        """
        model = self.encoder(encoder)
        with self._encoding:
            hashes: list[str] = []
            waiting: dict[bytes, np.ndarray] = {}
            for image in images if as_is else _as_read_by(encoder, images):
                digest = super().hash(image)
                key = bytes.fromhex(digest)
                hashes.append(digest)
                if key in waiting or self.store.has(model, "image", key):
                    self._found[encoder] += 1
                    continue
                # The pixels are held until their micro-batch is full, because the cache may drop them before.
                waiting[key] = self.rgb(image)
                if len(waiting) == MICRO_BATCH:
                    self._encode(encoder, model, waiting)
            if waiting:
                self._encode(encoder, model, waiting)
            return self.features(encoder, hashes)

    def _encode(self, name: str, model: Encoder, waiting: dict[bytes, np.ndarray]) -> None:
        encoded = model.encode_images(list(waiting.values()), MICRO_BATCH)
        keys = list(waiting)
        waiting.clear()
        self._keep(name, model, "image", keys, encoded)

    def text_features(self, encoder: str, texts: Sequence[str]) -> np.ndarray:
        """(n, d) float32 text features; each text is encoded once.

        Raises:
            ConfigError: the encoder reads no text.
            ValueError: it gave something other than ``d`` finite numbers for a text.
        """
        model = self.encoder(encoder)
        keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
        with self._encoding:
            todo = {
                key: text
                for key, text in dict(zip(keys, texts, strict=True)).items()
                if not self.store.has(model, "text", key)
            }
            new = list(todo)
            for start in range(0, len(new), MICRO_BATCH):
                part = new[start : start + MICRO_BATCH]
                encoded = model.encode_texts([todo[key] for key in part], MICRO_BATCH)
                self._keep(encoder, model, "text", part, encoded)
            self._found[f"{encoder} text"] += len(texts) - len(new)
            found, there = self.store.read(model, "text", keys)
            assert there.all()
            return found

    def features(self, encoder: str, hashes: Sequence[str]) -> np.ndarray:
        """Stored image features by content hash, (n, d) float32. Raises ``KeyError`` for an image that was never encoded."""
        model = self.encoder(encoder)
        try:
            keys = [bytes.fromhex(digest) for digest in hashes]
        except ValueError:
            raise KeyError("a content hash is 64 hexadecimal digits") from None
        with self._encoding:
            found, there = self.store.read(model, "image", keys)
        if not there.all():
            digest = hashes[int(np.argmin(there))]
            raise KeyError(f"no {encoder} features are stored for the image {digest[:12]}")
        return found

    def has_features(self, encoder: str, hashes: Sequence[str]) -> np.ndarray:
        """(n,) bool: whether image features are stored under a content hash, and sound."""
        model = self.encoder(encoder)
        return np.array([self.store.has(model, "image", bytes.fromhex(digest)) for digest in hashes], dtype=bool)

    def copy_to(self, directory: Path) -> None:
        """Write the features of this run into a folder, where a bank of that ``directory`` finds them."""
        with self._encoding:
            self.store.copy_to(directory, self.encoders.values())

    def _keep(self, name: str, model: Encoder, kind: str, keys: Sequence[bytes], encoded: np.ndarray) -> None:
        encoded = np.asarray(encoded, np.float32)
        if encoded.shape != (len(keys), model.dim):
            raise ValueError(
                f"the encoder {name!r} gave an array of {encoded.shape} for {len(keys)} {kind}s of {model.dim} features"
            )
        finite = np.isfinite(encoded).all(axis=1)
        self.store.add(model, kind, [key for key, sound in zip(keys, finite, strict=True) if sound], encoded[finite])
        counter = name if kind == "image" else f"{name} text"
        self.encoded[counter] = self.encoded.get(counter, 0) + int(finite.sum())
        if not finite.all():
            raise ValueError(
                f"the encoder {name!r} gave features that are not finite for {int((~finite).sum())} {kind}s"
            )

    def report(self) -> dict[str, Any]:
        """What was decoded, encoded and found, as JSON; beside it what :func:`rsw_rewards.encoders.describe` says of each encoder.

        ``{"decoded", "pixel_hits", "encoders": {name: {..., "encoded", "hits", "hit_rate", "stored", "added"}}}``; texts of an encoder
        stand under ``"<encoder> text"``. This process alone: ``encoded``, ``hits`` and ``hit_rate``, the share of the features asked
        for that were there (None where none was asked for). All processes that use the folder: rows ``stored`` in it, and rows
        ``added`` since this bank was made.
        """
        from rsw_rewards.encoders import describe

        rows: dict[str, Any] = {}
        for name, model in self.encoders.items():
            for kind, counter in zip(KINDS, (name, f"{name} text"), strict=True):
                encoded, hits = self.encoded.get(counter, 0), self._found[counter]
                stored, added = self.store.counts(model, kind)
                if kind == "text" and not encoded and not hits and not stored:
                    continue
                rows[counter] = {
                    **(describe(model) if kind == "image" else {"id": model.id}),
                    "encoded": encoded,
                    "hits": hits,
                    "hit_rate": hits / (hits + encoded) if hits + encoded else None,
                    "stored": stored,
                    "added": added,
                }
        return {"decoded": self.decoded, "pixel_hits": self.hits, "encoders": rows}


def _as_read_by(encoder: str, images: Sequence[ImageRef]) -> Sequence[ImageRef]:
    """The images with the band mapping that the encoder's name carries, if any."""
    from rsw_rewards.encoders import bands_of

    bands = bands_of(encoder)
    return images if bands is None else [replace(image, bands=bands) for image in images]
