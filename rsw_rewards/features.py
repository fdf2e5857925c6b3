"""FeatureBank: every image decoded once, every encoder run once per image, shared by all verifiers of a run."""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rsw_rewards.images import ImageRef, content_hash, read_mask, read_rgb

if TYPE_CHECKING:
    from rsw_rewards.encoders import Encoder

MICRO_BATCH = 16
"""Images per forward pass of an encoder, always padded to this number.

Floating-point sums depend on the shape of a batch; with one shape everywhere a feature does not depend on which images
happened to be scored together.
"""


class FeatureBank:
    """Decoded pixels and encoder features, kept by content.

    Args:
        device: where encoders run.
        directory: features are kept here as well, one file per encoder and image, and survive the process. None: memory only.
        pixel_budget: bytes of decoded pixels kept in memory; the least recently used go first.

    A pickled bank travels as its settings alone; the copy starts empty. Arrays it hands out are shared and read-only.
    """

    def __init__(self, device: str = "cpu", directory: Path | None = None, pixel_budget: int = 256 << 20) -> None:
        self.device = device
        self.directory = None if directory is None else Path(directory)
        self.pixel_budget = pixel_budget
        self._pixels: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._pixel_bytes = 0
        self._hashes: dict[Hashable, str] = {}
        self._features: dict[tuple[str, str], np.ndarray] = {}
        self._encoders: dict[str, Encoder] = {}
        self._lock = threading.RLock()
        self.decoded = 0
        """Images and masks read and decoded."""
        self.encoded: dict[str, int] = {}
        """Images (and texts, under ``"<encoder> text"``) put through an encoder, by encoder name."""
        self.hits = 0
        """Pixels and features that were asked for and already there."""

    def __getstate__(self) -> dict[str, object]:
        return {"device": self.device, "directory": self.directory, "pixel_budget": self.pixel_budget}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def rgb(self, image: ImageRef) -> np.ndarray:
        """The image as (H, W, 3) uint8, decoded at most once while it stays in memory. Raises ``ImageError``."""
        return self._read("rgb", image)

    def mask(self, image: ImageRef) -> np.ndarray:
        """The image as a (H, W) bool mask, decoded at most once while it stays in memory. Raises ``ImageError``."""
        return self._read("mask", image)

    def hash(self, image: ImageRef) -> str:
        """The content hash (hex) of the image as shown, which is its RGB pixels. Raises ``ImageError``."""
        key = _identity(image)
        with self._lock:
            found = self._hashes.get(key) if key is not None else None
            if found is None:
                found = content_hash(self.rgb(image))
                if key is not None:
                    self._hashes[key] = found
            return found

    def _read(self, kind: str, image: ImageRef) -> np.ndarray:
        identity = _identity(image)
        key = (kind, identity)
        with self._lock:
            if identity is not None and key in self._pixels:
                self._pixels.move_to_end(key)
                self.hits += 1
                return self._pixels[key]
            pixels = (read_rgb if kind == "rgb" else read_mask)(image).view()
            pixels.flags.writeable = False
            self.decoded += 1
            if identity is not None:
                self._pixels[key] = pixels
                self._pixel_bytes += pixels.nbytes
            while self._pixel_bytes > self.pixel_budget and len(self._pixels) > 1:
                _, dropped = self._pixels.popitem(last=False)
                self._pixel_bytes -= dropped.nbytes
            return pixels

    def encoder(self, name: str) -> Encoder:
        """The encoder of that name, loaded once per bank. Raises ``ConfigError`` when its weights cannot be had."""
        with self._lock:
            if name not in self._encoders:
                from rsw_rewards.encoders import load_encoder

                self._encoders[name] = load_encoder(name, self.device)
            return self._encoders[name]

    def weights(self) -> dict[str, str]:
        """Encoders used so far: id -> SHA-256 of their weights."""
        return {model.id: model.weights_sha256 for model in self._encoders.values()}

    def image_features(self, encoder: str, images: Sequence[ImageRef]) -> np.ndarray:
        """(n, d) float32 image features; only images without stored features are encoded. Raises ``ImageError``."""
        model = self.encoder(encoder)
        with self._lock:
            hashes: list[str] = []
            waiting: dict[str, np.ndarray] = {}
            for image in images:
                digest = self.hash(image)
                hashes.append(digest)
                if digest in waiting or self._lookup(model, digest) is not None:
                    self.hits += 1
                    continue
                # The pixels are held until their micro-batch is full, because the cache may drop them before.
                waiting[digest] = self.rgb(image)
                if len(waiting) == MICRO_BATCH:
                    self._encode(encoder, model, waiting)
            if waiting:
                self._encode(encoder, model, waiting)
            return self.features(encoder, hashes)

    def _encode(self, name: str, model: Encoder, waiting: dict[str, np.ndarray]) -> None:
        encoded = model.encode_images(list(waiting.values()), MICRO_BATCH)
        for digest, feature in zip(waiting, encoded, strict=True):
            self._store(model, digest, feature)
        self.encoded[name] = self.encoded.get(name, 0) + len(waiting)
        waiting.clear()

    def text_features(self, encoder: str, texts: Sequence[str]) -> np.ndarray:
        """(n, d) float32 text features; each text is encoded once. Raises ``ConfigError`` for an encoder without text."""
        model = self.encoder(encoder)
        with self._lock:
            todo = [text for text in dict.fromkeys(texts) if (model.id, f"text:{text}") not in self._features]
            for start in range(0, len(todo), MICRO_BATCH):
                part = todo[start : start + MICRO_BATCH]
                for text, feature in zip(part, model.encode_texts(part, MICRO_BATCH), strict=True):
                    self._features[(model.id, f"text:{text}")] = feature
            counter = f"{encoder} text"
            self.encoded[counter] = self.encoded.get(counter, 0) + len(todo)
            self.hits += len(texts) - len(todo)
            return np.stack([self._features[(model.id, f"text:{text}")] for text in texts])

    def features(self, encoder: str, hashes: Sequence[str]) -> np.ndarray:
        """Stored image features by content hash, (n, d) float32. Raises ``KeyError`` for an image that was never encoded."""
        model = self.encoder(encoder)
        found = np.empty((len(hashes), model.dim), np.float32)
        with self._lock:
            for row, digest in enumerate(hashes):
                feature = self._lookup(model, digest)
                if feature is None:
                    raise KeyError(f"no {encoder} features are stored for the image {digest[:12]}")
                found[row] = feature
        return found

    def _lookup(self, model: Encoder, digest: str) -> np.ndarray | None:
        key = (model.id, digest)
        if key not in self._features and self.directory is not None:
            feature = _load(self._path(model, digest), model.dim)
            if feature is not None:
                self._features[key] = feature
        return self._features.get(key)

    def _store(self, model: Encoder, digest: str, feature: np.ndarray) -> None:
        feature = np.asarray(feature, np.float32)
        self._features[(model.id, digest)] = feature
        if self.directory is not None:
            path = self._path(model, digest)
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{path.stem}.{os.getpid()}.{threading.get_ident()}.npy")
            np.save(partial, feature, allow_pickle=False)
            partial.replace(path)

    def _path(self, model: Encoder, digest: str) -> Path:
        assert self.directory is not None
        return self.directory / re.sub(r"[^\w.@-]+", "_", model.id) / digest[:2] / f"{digest}.npy"


def _load(path: Path, dim: int) -> np.ndarray | None:
    """A stored feature, or None where there is none or the file is damaged: the image is then encoded again."""
    try:
        feature = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    sound = isinstance(feature, np.ndarray) and feature.shape == (dim,) and feature.dtype == np.float32
    return feature if sound and bool(np.isfinite(feature).all()) else None


def _identity(image: ImageRef) -> Hashable | None:
    """What tells two references apart without decoding them; None for an array in memory that nobody has hashed.

    An array's ``id`` would not do: it is given out again once the array is gone.
    """
    if image.path is not None:
        try:
            status = image.path.stat()
        except OSError:
            return None
        return (str(image.path), image.bands, status.st_mtime_ns, status.st_size)
    if image.sha256 is not None:
        return (image.sha256, image.bands)
    if image.ref is not None:
        return (image.ref.hex(), image.index, image.bands)
    return None
