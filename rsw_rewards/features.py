"""FeatureBank: every image decoded once, every encoder run once per image, shared by all verifiers of a run."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rsw_rewards.images import ImageRef, content_hash, read_rgb

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
    """

    def __init__(self, device: str = "cpu", directory: Path | None = None, pixel_budget: int = 256 << 20) -> None:
        self.device = device
        self.directory = None if directory is None else Path(directory)
        self.pixel_budget = pixel_budget
        self._pixels: OrderedDict[object, tuple[str, np.ndarray]] = OrderedDict()
        self._pixel_bytes = 0
        self._features: dict[tuple[str, str], np.ndarray] = {}
        self._encoders: dict[str, Encoder] = {}
        self._lock = threading.RLock()
        self.decoded = 0
        self.encoded: dict[str, int] = {}

    def __getstate__(self) -> dict[str, object]:
        return {"device": self.device, "directory": self.directory, "pixel_budget": self.pixel_budget}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def rgb(self, image: ImageRef) -> np.ndarray:
        """The image as (H, W, 3) uint8, decoded at most once while it stays in memory. Raises ``ImageError``."""
        return self._read(image)[1]

    def hash(self, image: ImageRef) -> str:
        """The content hash of the image as shown (RGB)."""
        return self._read(image)[0]

    def _read(self, image: ImageRef) -> tuple[str, np.ndarray]:
        key = _identity(image)
        with self._lock:
            if key in self._pixels:
                self._pixels.move_to_end(key)
                return self._pixels[key]
            pixels = read_rgb(image)
            self.decoded += 1
            entry = (content_hash(pixels), pixels)
            self._pixels[key] = entry
            self._pixel_bytes += pixels.nbytes
            while self._pixel_bytes > self.pixel_budget and len(self._pixels) > 1:
                _, (_, dropped) = self._pixels.popitem(last=False)
                self._pixel_bytes -= dropped.nbytes
            return entry

    def encoder(self, name: str) -> Encoder:
        """The encoder of that name, loaded once per bank. Raises ``ConfigError`` when its weights cannot be had."""
        with self._lock:
            if name not in self._encoders:
                from rsw_rewards.encoders import load_encoder

                self._encoders[name] = load_encoder(name, self.device)
            return self._encoders[name]

    def image_features(self, encoder: str, images: Sequence[ImageRef]) -> np.ndarray:
        """(n, d) float32 image features; only images without stored features are encoded."""
        model = self.encoder(encoder)
        hashes = [self.hash(image) for image in images]
        missing: dict[str, ImageRef] = {
            digest: image for digest, image in zip(hashes, images, strict=True) if self._lookup(model, digest) is None
        }
        todo = list(missing.items())
        for start in range(0, len(todo), MICRO_BATCH):
            part = todo[start : start + MICRO_BATCH]
            encoded = model.encode_images([self.rgb(image) for _, image in part], MICRO_BATCH)
            for (digest, _), feature in zip(part, encoded, strict=True):
                self._store(model, digest, feature)
            self.encoded[encoder] = self.encoded.get(encoder, 0) + len(part)
        return self.features(encoder, hashes)

    def text_features(self, encoder: str, texts: Sequence[str]) -> np.ndarray:
        """(n, d) float32 text features of an encoder that reads text."""
        model = self.encoder(encoder)
        keys = [f"text:{text}" for text in texts]
        todo = list(dict.fromkeys(key for key in keys if (model.id, key) not in self._features))
        for start in range(0, len(todo), MICRO_BATCH):
            part = todo[start : start + MICRO_BATCH]
            for key, feature in zip(part, model.encode_texts([key[5:] for key in part], MICRO_BATCH), strict=True):
                self._features[(model.id, key)] = feature
        return np.stack([self._features[(model.id, key)] for key in keys])

    def features(self, encoder: str, hashes: Sequence[str]) -> np.ndarray:
        """Stored image features by content hash, (n, d) float32. Raises ``KeyError`` for an image that was never encoded."""
        model = self.encoder(encoder)
        found = [self._lookup(model, digest) for digest in hashes]
        for digest, feature in zip(hashes, found, strict=True):
            if feature is None:
                raise KeyError(f"no {encoder} features are stored for the image {digest[:12]}")
        return np.stack([feature for feature in found if feature is not None])

    def _lookup(self, model: Encoder, digest: str) -> np.ndarray | None:
        key = (model.id, digest)
        if key not in self._features and self.directory is not None:
            path = self._path(model, digest)
            if path.exists():
                self._features[key] = np.load(path, allow_pickle=False)
        return self._features.get(key)

    def _store(self, model: Encoder, digest: str, feature: np.ndarray) -> None:
        self._features[(model.id, digest)] = feature
        if self.directory is not None:
            path = self._path(model, digest)
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{path.stem}.{threading.get_ident()}.npy")
            np.save(partial, feature, allow_pickle=False)
            partial.replace(path)

    def _path(self, model: Encoder, digest: str) -> Path:
        assert self.directory is not None
        return self.directory / model.id.replace("/", "_") / digest[:2] / f"{digest}.npy"


def _identity(image: ImageRef) -> object:
    """What tells two references apart without decoding them."""
    if image.path is not None:
        status = image.path.stat() if image.path.exists() else None
        return (str(image.path), image.bands, status and (status.st_mtime_ns, status.st_size))
    if image.sha256 is not None:
        return (image.sha256, image.bands)
    return (id(image.array), image.ref, image.index, image.bands)
