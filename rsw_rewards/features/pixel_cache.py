"""PixelCache: every image decoded once while there is room for its pixels."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.errors import ImageError
from rsw_rewards.io.images import read_mask, read_rgb
from rsw_rewards.pixels import content_hash

KEPT_HASHES = 8192
"""Hashes of images that outlive :meth:`PixelCache.settle`; finding one again costs reading the image."""


class PixelCache:
    """Decoded images and masks, hashes of their content, and what is wrong with them. Arrays are shared and read-only.

    Args:
        budget: bytes of pixels kept in memory; the least recently used go first.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.decoded = 0
        """Images and masks read from files or from Ray's store."""
        self.hits = 0
        """Times that pixels were there when asked for."""
        self.bytes = 0
        """Size of the pixels that are there."""
        self._pixels: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._hashes: dict[Hashable, str] = {}
        self._refused: dict[Hashable, str] = {}
        self._lock = threading.RLock()

    def rgb(self, image: ImageRef) -> np.ndarray:
        """The image as (H, W, 3) uint8, decoded at most once while it stays in memory. Raises ``ImageError``."""
        return self._read("rgb", image)

    def mask(self, image: ImageRef, unknown: bool = False) -> np.ndarray:
        """The image as a (H, W) bool mask, decoded as in :meth:`rgb`; its pixels without data are ``unknown``. Raises ``ImageError``."""
        return self._read("covered" if unknown else "mask", image)

    def hash(self, image: ImageRef) -> str:
        """The content hash (hex) of the three bands that are shown. Raises ``ImageError``."""
        key = _identity(image)
        with self._lock:
            found = self._hashes.get(key) if key is not None else None
            if found is None:
                found = content_hash(self.rgb(image))
                if key is not None:
                    self._hashes[key] = found
            return found

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
        """Hand back pixels beyond ``keep`` bytes, and hashes where they are many: between the parts of a large set,
        whose images are done with, so that memory does not grow with it."""
        if self.bytes <= keep and max(len(self._hashes), len(self._refused)) <= KEPT_HASHES:
            return  # without waiting for whoever reads
        with self._lock:
            self._drop(keep)
            if len(self._hashes) > KEPT_HASHES:
                self._hashes.clear()
            if len(self._refused) > KEPT_HASHES:
                self._refused.clear()

    def _read(self, kind: str, image: ImageRef) -> np.ndarray:
        identity = _identity(image)
        coding = None if kind == "rgb" else (image.palette, image.levels, image.threshold, image.nodata)
        key = (kind, identity, coding)
        with self._lock:
            if identity is not None and key in self._pixels:
                self._pixels.move_to_end(key)
                self.hits += 1
                return self._pixels[key]
            pixels = (read_rgb(image) if kind == "rgb" else read_mask(image, unknown=kind == "covered")).view()
            pixels.flags.writeable = False
            self.decoded += image.array is None
            if identity is not None:
                self._pixels[key] = pixels
                self.bytes += pixels.nbytes
            self._drop(self.budget)
            return pixels

    def _drop(self, keep: int) -> None:
        while self.bytes > keep and len(self._pixels) > 1:
            _, dropped = self._pixels.popitem(last=False)
            self.bytes -= dropped.nbytes


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
