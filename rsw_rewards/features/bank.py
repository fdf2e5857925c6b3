"""FeatureBank: every image decoded once, every encoder run once per image, shared by all verifiers of a run."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.errors import ImageError
from rsw_rewards.features.store import FeatureFile, FeatureRows, MemoryRows
from rsw_rewards.io.images import read_mask, read_rgb
from rsw_rewards.pixels import content_hash

if TYPE_CHECKING:
    from rsw_rewards.encoders import Encoder

MICRO_BATCH = 16
"""Images per forward pass of an encoder, always padded to this number.

Floating-point sums depend on the shape of a batch; with one shape everywhere a feature does not depend on which images
happened to be scored together.
"""
KEPT_HASHES = 8192
"""Hashes of images that outlive :meth:`FeatureBank.settle`; finding one again costs reading the image."""
COPIED_ROWS = 4096
"""Features that are held at once while they are copied to another folder."""
SHARED_VARIABLE = "RSW_FEATURES"
"""Environment variable that names a folder of features which several runs share, beside the folder of each."""


class FeatureBank:
    """Decoded pixels and encoder features, kept by content.

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
        self.device = device
        self.directory = None if directory is None else Path(directory)
        self.pixel_budget = pixel_budget
        self.feature_budget = feature_budget
        named = shared if shared is not None else os.environ.get(SHARED_VARIABLE) or None
        self.shared = None if named is None else Path(named)
        self._pixels: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._pixel_bytes = 0
        self._hashes: dict[Hashable, str] = {}
        self._refused: dict[Hashable, str] = {}
        self._rows: dict[tuple[str, str], list[FeatureRows]] = {}
        self._encoders: dict[str, Encoder] = {}
        self._before = _rows_in(self.directory)
        self._lock = threading.RLock()
        self.decoded = 0
        """Images and masks read from files or from Ray's store."""
        self.encoded: dict[str, int] = {}
        """Images (and texts, under ``"<encoder> text"``) put through an encoder, by encoder name."""
        self._hits: Counter[str] = Counter()
        """Times that something asked for was there: under ``"pixels"``, and under the keys of ``encoded``."""

    def __getstate__(self) -> dict[str, object]:
        names = ("device", "directory", "pixel_budget", "feature_budget", "shared")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @property
    def hits(self) -> int:
        """Pixels and features that were asked for and already there."""
        return self._hits.total()

    def rgb(self, image: ImageRef) -> np.ndarray:
        """The image as (H, W, 3) uint8, decoded at most once while it stays in memory. Raises ``ImageError``."""
        return self._read("rgb", image)

    def mask(self, image: ImageRef, unknown: bool = False) -> np.ndarray:
        """The image as a (H, W) bool mask, decoded at most once while it stays in memory. Raises ``ImageError``.

        Pixels of it that hold no data are ``unknown``.
        """
        return self._read("covered" if unknown else "mask", image)

    def hash(self, image: ImageRef, encoder: str | None = None) -> str:
        """The content hash (hex) of the three bands that are shown, or that ``encoder`` reads where its name maps bands.

        It is what :meth:`features` finds the image's features by. Raises ``ImageError``.
        """
        image = image if encoder is None else _as_read_by(encoder, [image])[0]
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
        coding = None if kind == "rgb" else (image.palette, image.levels, image.threshold, image.nodata)
        key = (kind, identity, coding)
        with self._lock:
            if identity is not None and key in self._pixels:
                self._pixels.move_to_end(key)
                self._hits["pixels"] += 1
                return self._pixels[key]
            pixels = (read_rgb(image) if kind == "rgb" else read_mask(image, unknown=kind == "covered")).view()
            pixels.flags.writeable = False
            self.decoded += image.array is None
            if identity is not None:
                self._pixels[key] = pixels
                self._pixel_bytes += pixels.nbytes
            self._drop_pixels(self.pixel_budget)
            return pixels

    def check(self, images: Sequence[ImageRef], about: Hashable, look: Callable[[], object]) -> None:
        """Run ``look``, which raises :class:`ImageError` where something is wrong with ``images``, once for them and ``about``."""
        identities = tuple(_identity(image) for image in images)
        if None in identities:
            look()
            return
        key = (identities, about)
        with self._lock:
            if key not in self._refused:
                try:
                    look()
                    self._refused[key] = ""
                except ImageError as error:
                    self._refused[key] = str(error)
            if why := self._refused[key]:
                raise ImageError(why)

    def settle(self, keep: int = 32 << 20) -> None:
        """Hand back decoded pixels beyond ``keep`` bytes, and hashes where they are many: between the parts of a large set,
        whose pictures are done with, so that memory does not grow with it."""
        if self._pixel_bytes <= keep and max(len(self._hashes), len(self._refused)) <= KEPT_HASHES:
            return  # without waiting for whoever encodes
        with self._lock:
            self._drop_pixels(keep)
            if len(self._hashes) > KEPT_HASHES:
                self._hashes.clear()
            if len(self._refused) > KEPT_HASHES:
                self._refused.clear()

    def _drop_pixels(self, keep: int) -> None:
        while self._pixel_bytes > keep and len(self._pixels) > 1:
            _, dropped = self._pixels.popitem(last=False)
            self._pixel_bytes -= dropped.nbytes

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

    def image_features(self, encoder: str, images: Sequence[ImageRef], as_is: bool = False) -> np.ndarray:
        """(n, d) float32 image features; only images without stored features are encoded.

        ``as_is`` says that the three bands shown are already those that the encoder's name maps.

        Raises:
            ImageError: an image cannot be read.
            ValueError: the encoder gave something other than ``d`` finite numbers for an image.
        """
        model = self.encoder(encoder)
        with self._lock:
            hashes: list[str] = []
            waiting: dict[bytes, np.ndarray] = {}
            for image in images if as_is else _as_read_by(encoder, images):
                digest = self.hash(image)
                key = bytes.fromhex(digest)
                hashes.append(digest)
                if key in waiting or self._has(model, "image", key):
                    self._hits[encoder] += 1
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
        self._store(name, model, "image", keys, encoded)

    def text_features(self, encoder: str, texts: Sequence[str]) -> np.ndarray:
        """(n, d) float32 text features; each text is encoded once.

        Raises:
            ConfigError: the encoder reads no text.
            ValueError: it gave something other than ``d`` finite numbers for a text.
        """
        model = self.encoder(encoder)
        keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
        with self._lock:
            todo = {
                key: text
                for key, text in dict(zip(keys, texts, strict=True)).items()
                if not self._has(model, "text", key)
            }
            new = list(todo)
            for start in range(0, len(new), MICRO_BATCH):
                part = new[start : start + MICRO_BATCH]
                encoded = model.encode_texts([todo[key] for key in part], MICRO_BATCH)
                self._store(encoder, model, "text", part, encoded)
            self._hits[f"{encoder} text"] += len(texts) - len(new)
            found, there = self._look_up(model, "text", keys)
            assert there.all()
            return found

    def features(self, encoder: str, hashes: Sequence[str]) -> np.ndarray:
        """Stored image features by content hash, (n, d) float32. Raises ``KeyError`` for an image that was never encoded."""
        model = self.encoder(encoder)
        try:
            keys = [bytes.fromhex(digest) for digest in hashes]
        except ValueError:
            raise KeyError("a content hash is 64 hexadecimal digits") from None
        with self._lock:
            found, there = self._look_up(model, "image", keys)
        if not there.all():
            digest = hashes[int(np.argmin(there))]
            raise KeyError(f"no {encoder} features are stored for the image {digest[:12]}")
        return found

    def copy_to(self, directory: Path) -> None:
        """Write the features of this run into a folder, where a bank of that ``directory`` finds them."""
        if self.directory is not None and self.directory.resolve() == directory.resolve():
            return
        with self._lock:
            for model in self._encoders.values():
                for kind in ("image", "text"):
                    own = self._stores(model, kind)[0]
                    there = FeatureFile(directory / _stem(model, kind), model.dim)
                    new = [key for key in own.keys() if not there.has(key)]  # noqa: SIM118 - no mapping
                    for start in range(0, len(new), COPIED_ROWS):
                        keys = new[start : start + COPIED_ROWS]
                        rows, sound = own.read(keys)
                        there.add([key for key, fine in zip(keys, sound, strict=True) if fine], rows[sound])

    def _stores(self, model: Encoder, kind: str) -> list[FeatureRows]:
        """Where rows of an encoder are: of this run first, then of the folder that runs share."""
        key = (f"{model.id} {model.weights_sha256}", kind)
        if key not in self._rows:
            stem = _stem(model, kind)
            stores: list[FeatureRows] = []
            if self.directory is None:
                stores.append(MemoryRows(model.dim, self.feature_budget))
            else:
                stores.append(FeatureFile(self.directory / stem, model.dim))
            if self.shared is not None and self.shared != self.directory:
                stores.append(FeatureFile(self.shared / stem, model.dim))
            self._rows[key] = stores
        return self._rows[key]

    def _has(self, model: Encoder, kind: str, key: bytes) -> bool:
        return any(store.has(key) for store in self._stores(model, kind))

    def _look_up(self, model: Encoder, kind: str, keys: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        own, *others = self._stores(model, kind)
        found, there = own.read(keys)
        for store in others:
            missing = [place for place, known in enumerate(there) if not known]
            if not missing:
                break
            rows, known = store.read([keys[place] for place in missing])
            places = [place for place, sound in zip(missing, known, strict=True) if sound]
            own.add([keys[place] for place in places], rows[known])
            found[places], there[places] = rows[known], True
        return found, there

    def _store(self, name: str, model: Encoder, kind: str, keys: Sequence[bytes], encoded: np.ndarray) -> None:
        encoded = np.asarray(encoded, np.float32)
        if encoded.shape != (len(keys), model.dim):
            raise ValueError(
                f"the encoder {name!r} gave an array of {encoded.shape} for {len(keys)} {kind}s of {model.dim} features"
            )
        finite = np.isfinite(encoded).all(axis=1)
        for store in self._stores(model, kind):
            store.add([key for key, sound in zip(keys, finite, strict=True) if sound], encoded[finite])
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
        for name, model in self._encoders.items():
            for kind, counter in (("image", name), ("text", f"{name} text")):
                encoded, hits = self.encoded.get(counter, 0), self._hits[counter]
                store = self._stores(model, kind)[0]
                if kind == "text" and not encoded and not hits and not len(store):
                    continue
                rows[counter] = {
                    **(describe(model) if kind == "image" else {"id": model.id}),
                    "encoded": encoded,
                    "hits": hits,
                    "hit_rate": hits / (hits + encoded) if hits + encoded else None,
                    "stored": len(store),
                    "added": store.added - self._before.get(_stem(model, kind), 0),
                }
        return {"decoded": self.decoded, "pixel_hits": self._hits["pixels"], "encoders": rows}


def _as_read_by(encoder: str, images: Sequence[ImageRef]) -> Sequence[ImageRef]:
    """The images with the band mapping that the encoder's name carries, if any."""
    from rsw_rewards.encoders import bands_of

    bands = bands_of(encoder)
    return images if bands is None else [replace(image, bands=bands) for image in images]


def _stem(model: Encoder, kind: str) -> str:
    """Where in a folder the rows of an encoder are: apart for every version of its weights, under a name that people can read."""
    whole = hashlib.sha256(f"{model.id} {model.weights_sha256}".encode()).hexdigest()[:12]
    readable = re.sub(r"[^\w.@-]+", "_", model.id)[:80]
    return f"{readable}-{whole}/{kind}-{model.dim}"


def _rows_in(directory: Path | None) -> dict[str, int]:
    """Rows that a folder holds, by :func:`_stem`."""
    found = directory.glob("*/*.idx") if directory is not None else ()
    return {f"{index.parent.name}/{index.stem}": FeatureFile(index.with_suffix(""), 1).added for index in found}


def _identity(image: ImageRef) -> Hashable | None:
    """What tells two references apart without decoding them; None for an array in memory that nobody has hashed.

    An array's ``id`` would not do: it is given out again once the array is gone.
    """
    if image.path is not None:
        try:
            status = image.path.stat()
        except OSError:
            return None
        return (str(image.path), image.bands, image.stretch, status.st_mtime_ns, status.st_size)
    if image.sha256 is not None:
        return (image.sha256, image.bands, image.stretch)
    if image.ref is not None:
        return (image.ref.hex(), image.index, image.bands, image.stretch)
    return None
