"""Numbers of two sets of images, forecasts and true futures, from their stored features: Frechet and kernel distances, neighbours."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rsw_rewards.core.metric import FeatureLookup, Frame, Metric, Numbers, Terms
from rsw_rewards.encoders import CMMD_ENCODER, encoder_label, is_standard_inception
from rsw_rewards.verifiers.frechet import (
    Moments,
    Reference,
    frechet_from_features,
    frechet_of_features,
    frechet_of_moments,
)
from rsw_rewards.verifiers.kernel_distances import Rows, kernel_sums, polynomial_kernel, unit_rbf_kernel
from rsw_rewards.verifiers.neighbours import frechet_at_infinity, precision_recall_density_coverage

BLOCK = 1024
"""Features that are held at once where sums over them will do."""
LEAST_VALID = 0.99
"""Share of valid forecasts below which a distance is not shown; ``docs/statistics.md`` says why this much."""
WORTH_SUMMING = 8192
"""Above this many images on each side, a part is left out by subtracting its sums."""


@dataclass(frozen=True)
class Sets:
    """The two sets of a score table: content hashes of forecasts, and of true futures, each of which counts once."""

    outputs: np.ndarray
    truths: np.ndarray
    part_of_output: np.ndarray
    part_of_truth: np.ndarray

    @classmethod
    def of(cls, rows: Frame, part: np.ndarray) -> Sets:
        """From score rows and a part number for each; rows that are not OK, and those of negative parts, are left out."""
        usable = (rows["status"] == "ok").to_numpy() & (part >= 0)
        content = rows["content"].to_numpy()[usable]
        # Several candidates of a sample have one truth between them.
        first = ~rows["sample"][usable].duplicated().to_numpy()
        return cls(
            np.array([row["output"] for row in content], dtype=object),
            np.array([row["reference"] for row in content[first]], dtype=object),
            part[usable],
            part[usable][first],
        )

    def features(self, encoder: str, lookup: FeatureLookup) -> tuple[Rows, Rows]:
        """(n, d) and (m, d), looked up where they are read."""
        return stored_rows(encoder, self.outputs, lookup), stored_rows(encoder, self.truths, lookup)


def stored_rows(encoder: str, hashes: np.ndarray, lookup: FeatureLookup) -> Rows:
    """The stored (n, d) float32 features of images; a block of them is looked up when it is read."""

    def read(rows: slice | np.ndarray) -> np.ndarray:
        return lookup.features(encoder, list(hashes[rows]))

    return Rows(len(hashes), read(slice(1)).shape[1], read)


def _moments(features: Rows) -> Moments:
    return Moments.of(map(features.read, features.blocks(BLOCK)))


@dataclass(frozen=True)
class SetMetric(Metric):
    """A number of two sets. Not a sum over rows: a resample must not repeat an image, because repeated images lower the spread of
    a set and so raise its distance. Weights are therefore 0 or 1."""

    encoder: str
    least_valid: ClassVar[float] = LEAST_VALID

    @property
    @abstractmethod
    def keys(self) -> tuple[str, ...]:
        """Names of the numbers."""

    def compute(self, rows: Frame, stats: Terms, weight: np.ndarray, features: FeatureLookup | None = None) -> Numbers:
        """See :class:`rsw_rewards.core.metric.Metric`. None with fewer than 2 forecasts or 2 samples.

        Raises:
            ValueError: weights other than 0 and 1.
            KeyError: features that were never stored.
        """
        if not np.isin(weight, (0.0, 1.0)).all():
            raise ValueError(f"{self.keys[0]} takes weights of 0 and 1 only: a set with repeated images is another set")
        sets = Sets.of(rows, np.where(weight > 0, 0, -1))
        if features is None or min(len(sets.outputs), len(sets.truths)) < 2:
            return dict.fromkeys(self.keys)
        return {**dict.fromkeys(self.keys), **self.numbers(sets, features, rows)}

    @abstractmethod
    def numbers(self, sets: Sets, features: FeatureLookup, rows: Frame) -> Numbers:
        """The numbers of two sets of two members or more."""

    def notes(self, rows: Frame) -> dict[str, str]:
        """Key -> what a reader of the number must know, in words."""
        n = int((rows["status"] == "ok").sum())
        return (
            dict.fromkeys(self.keys, f"a distance needs 2 forecasts or more that can be used, not {n}") if n < 2 else {}
        )


@dataclass(frozen=True)
class FrechetMetric(SetMetric):
    """Frechet distance between the forecasts of the valid rows and the true futures of their samples."""

    min_images: int
    """Number of forecasts below which the standard ``fid`` is not written."""
    bounds: ClassVar[tuple[float, float]] = (0.0, np.inf)

    @property
    def key(self) -> str:
        """``fid`` for clean-fid's Inception, ``fd_<encoder>`` for everything else."""
        return "fid" if is_standard_inception(self.encoder) else f"fd_{encoder_label(self.encoder)}"

    @property
    def keys(self) -> tuple[str, ...]:
        return ("fid", "fid@n") if self.key == "fid" else (self.key,)

    def written_key(self, rows: Frame) -> str:
        """The key that carries the number of these rows: ``fid@n`` instead of ``fid`` below ``min_images``.

        It depends on the rows, not on their weights, so that a jackknife does not change keys half way.
        """
        small = self.key == "fid" and int((rows["status"] == "ok").sum()) < self.min_images
        return "fid@n" if small else self.key

    def notes(self, rows: Frame) -> dict[str, str]:
        """Key -> what a reader of the number must know, in words: how many images, and which way that biases it."""
        n = int((rows["status"] == "ok").sum())
        if n >= self.min_images or n < 2:
            return super().notes(rows)
        why = f"{n} images, fewer than {self.min_images}: the distance is too large with few images; compare only runs with the same number of images"
        notes = {self.written_key(rows): why}
        if self.key == "fid":
            notes["fid"] = f"not written for {n} images, fewer than {self.min_images}; see fid@n"
        return notes

    def numbers(self, sets: Sets, features: FeatureLookup, rows: Frame) -> Numbers:
        small, large = sorted(sets.features(self.encoder, features), key=lambda side: side.count)
        if large.count <= large.dim:
            return {self.written_key(rows): frechet_from_features(small.whole, large.whole)}
        reference = Reference.from_moments(_moments(large))
        if small.count <= small.dim:
            return {self.written_key(rows): frechet_of_features(small.whole, reference)}
        reference.factor  # noqa: B018  (what takes most memory, before there are other sums)
        return {self.written_key(rows): frechet_of_moments(_moments(small), reference)}

    def left_out(
        self, rows: Frame, stats: Terms, part: np.ndarray, features: FeatureLookup | None
    ) -> list[Numbers] | None:
        """The numbers without each part of the rows: large sets are summed once, and a part's sums taken off."""
        sets = Sets.of(rows, part)
        if features is None or min(len(sets.outputs), len(sets.truths)) < WORTH_SUMMING:
            return None
        made, real = sets.features(self.encoder, features)
        of_made, of_real = _moments(made), _moments(real)

        def rest(whole: Moments, hashes: np.ndarray) -> Moments:
            return whole.without(_moments(stored_rows(self.encoder, hashes, features))) if len(hashes) else whole.copy()

        found = []
        for out in range(int(part.max()) + 1):
            reference = Reference.from_moments(rest(of_real, sets.truths[sets.part_of_truth == out]))
            value = frechet_of_moments(rest(of_made, sets.outputs[sets.part_of_output == out]), reference)
            found.append({**dict.fromkeys(self.keys), self.written_key(rows): value})
        return found


@dataclass(frozen=True)
class InfinityMetric(SetMetric):
    """The Frechet distance extrapolated to infinitely many forecasts; no interval, since the fit has its own scatter."""

    interval: ClassVar[bool] = False
    """An extrapolation of every part would cost minutes and say little."""

    @property
    def keys(self) -> tuple[str, ...]:
        return (
            "fid_infinity" if is_standard_inception(self.encoder) else f"fd_infinity_{encoder_label(self.encoder)}",
        )

    def numbers(self, sets: Sets, features: FeatureLookup, rows: Frame) -> Numbers:
        if len(sets.outputs) < 10:
            return {}
        made, real = sets.features(self.encoder, features)
        return {self.keys[0]: frechet_at_infinity(made, Reference.from_moments(_moments(real)))}


@dataclass(frozen=True)
class KernelMetric(SetMetric):
    """KID or CMMD between the forecasts of the valid rows and the true futures of their samples."""

    kind: str
    """``kid`` or ``cmmd``."""

    @property
    def bounds(self) -> tuple[float, float] | None:
        """CMMD is a squared norm; KID, which is unbiased, may fall below 0."""
        return (0.0, np.inf) if self.kind == "cmmd" else None

    @property
    def keys(self) -> tuple[str, ...]:
        standard = is_standard_inception(self.encoder) if self.kind == "kid" else self.encoder == CMMD_ENCODER
        return (self.kind if standard else f"{self.kind}_{encoder_label(self.encoder)}",)

    def numbers(self, sets: Sets, features: FeatureLookup, rows: Frame) -> Numbers:
        alone = np.zeros(len(sets.outputs), np.int64), np.zeros(len(sets.truths), np.int64)
        return self._numbers(sets, features, alone, np.ones((1, 1), bool))[0]

    def left_out(
        self, rows: Frame, stats: Terms, part: np.ndarray, features: FeatureLookup | None
    ) -> list[Numbers] | None:
        """The numbers without each part of the rows, all from one pass over the kernel."""
        sets = Sets.of(rows, part)
        if features is None or min(len(sets.outputs), len(sets.truths)) < 2:
            return None
        return self._numbers(
            sets, features, (sets.part_of_output, sets.part_of_truth), ~np.eye(int(part.max()) + 1, dtype=bool)
        )

    def _numbers(
        self, sets: Sets, lookup: FeatureLookup, parts: tuple[np.ndarray, np.ndarray], keeps: np.ndarray
    ) -> list[Numbers]:
        kernel = polynomial_kernel if self.kind == "kid" else unit_rbf_kernel
        sums = kernel_sums(*sets.features(self.encoder, lookup), kernel, *parts, count=keeps.shape[1])
        found: list[Numbers] = []
        for keep in keeps:
            value = sums.mmd(keep) if self.kind == "kid" else 1000.0 * sums.mmd(keep, "biased")
            found.append({self.keys[0]: value if np.isfinite(value) else None})
        return found


@dataclass(frozen=True)
class NeighbourMetric(SetMetric):
    """Improved precision and recall, density and coverage."""

    k: int

    @property
    def keys(self) -> tuple[str, ...]:
        label = encoder_label(self.encoder)
        return tuple(f"{name}_{label}" for name in ("precision", "recall", "density", "coverage"))

    @property
    def bounds(self) -> dict[str, tuple[float, float]]:
        """By key."""
        return dict(zip(self.keys, ((0.0, 1.0), (0.0, 1.0), (0.0, np.inf), (0.0, 1.0)), strict=True))

    def numbers(self, sets: Sets, features: FeatureLookup, rows: Frame) -> Numbers:
        if min(len(sets.outputs), len(sets.truths)) <= self.k:
            return {}
        made, real = sets.features(self.encoder, features)
        found = precision_recall_density_coverage(real, made, self.k)
        return dict(
            zip(self.keys, (found[name] for name in ("precision", "recall", "density", "coverage")), strict=True)
        )
