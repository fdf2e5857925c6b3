"""FeatureStore: where the features of every encoder are kept, in memory or in folders that outlive a process."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rsw_rewards.features.rows import FeatureFile, MemoryRows

if TYPE_CHECKING:
    from rsw_rewards.encoders import Encoder

COPIED_ROWS = 4096
"""Features that are held at once while they are copied to another folder."""
KINDS = ("image", "text")
"""What has features."""


class FeatureStore:
    """Features by encoder, kind and key of 32 bytes, apart for every version of an encoder's weights.

    Args:
        directory: features are kept here and survive the process; None: in memory, and in a temporary file past ``budget``.
        shared: a second folder that is looked into as well and is given everything. What is found there is copied into
            ``directory``.
        budget: bytes of features per encoder and kind kept in memory where there is no ``directory``.
    """

    def __init__(self, directory: Path | None, shared: Path | None, budget: int) -> None:
        self.directory, self.shared, self.budget = directory, shared, budget
        self._rows: dict[tuple[str, str, str], list[FeatureFile | MemoryRows]] = {}
        found = directory.glob("*/*.idx") if directory is not None else ()
        self._before = {
            f"{index.parent.name}/{index.stem}": FeatureFile(index.with_suffix(""), 1).added for index in found
        }

    def has(self, model: Encoder, kind: str, key: bytes) -> bool:
        """Whether a feature is there."""
        return any(rows.has(key) for rows in self._kept(model, kind))

    def read(self, model: Encoder, kind: str, keys: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """(n, d) float32 features, zeros where there are none, and a (n,) bool mask of where there are some."""
        own, *others = self._kept(model, kind)
        found, there = own.read(keys)
        for rows in others:
            missing = [place for place, known in enumerate(there) if not known]
            if not missing:
                break
            further, known = rows.read([keys[place] for place in missing])
            places = [place for place, sound in zip(missing, known, strict=True) if sound]
            own.add([keys[place] for place in places], further[known])
            found[places], there[places] = further[known], True
        return found, there

    def add(self, model: Encoder, kind: str, keys: Sequence[bytes], features: np.ndarray) -> None:
        """Keep (n, d) features."""
        for rows in self._kept(model, kind):
            rows.add(keys, features)

    def counts(self, model: Encoder, kind: str) -> tuple[int, int]:
        """Features that are there, and those that were added since this store was made, by whatever process."""
        own = self._kept(model, kind)[0]
        return len(own), own.added - self._before.get(_stem(model, kind), 0)

    def copy_to(self, directory: Path, models: Iterable[Encoder]) -> None:
        """Write the features of encoders into a folder, where a store of that ``directory`` finds them."""
        if self.directory is not None and self.directory.resolve() == directory.resolve():
            return
        for model in models:
            for kind in KINDS:
                own = self._kept(model, kind)[0]
                there = FeatureFile(directory / _stem(model, kind), model.dim)
                new = [key for key in own.keys() if not there.has(key)]  # noqa: SIM118 - no mapping
                for start in range(0, len(new), COPIED_ROWS):
                    keys = new[start : start + COPIED_ROWS]
                    rows, sound = own.read(keys)
                    there.add([key for key, fine in zip(keys, sound, strict=True) if fine], rows[sound])

    def _kept(self, model: Encoder, kind: str) -> list[FeatureFile | MemoryRows]:
        """Where features of an encoder are: of this run first, then of the folder that runs share."""
        key = (model.id, model.weights_sha256, kind)
        if key not in self._rows:
            stem = _stem(model, kind)
            folders = [self.directory] if self.shared in (None, self.directory) else [self.directory, self.shared]
            self._rows[key] = [
                MemoryRows(model.dim, self.budget) if folder is None else FeatureFile(folder / stem, model.dim)
                for folder in folders
            ]
        return self._rows[key]


def _stem(model: Encoder, kind: str) -> str:
    """Where in a folder the rows of an encoder are: apart for every version of its weights, under a name that people can read."""
    whole = hashlib.sha256(f"{model.id} {model.weights_sha256}".encode()).hexdigest()[:12]
    readable = re.sub(r"[^\w.@-]+", "_", model.id)[:80]
    return f"{readable}-{whole}/{kind}-{model.dim}"
