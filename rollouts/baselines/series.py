"""Baselines of index series: what a pixel last was, and what it is at that time of the year."""

from __future__ import annotations

from datetime import date

import numpy as np

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.errors import ImageError
from rsw_rewards.rollouts.baselines.base import Baseline, in_memory
from rsw_rewards.verifiers.index_series import read_index_values

SEASON_DAYS = 24
"""Days before and after a date that count as the same season, in any year."""


def _frames(images: tuple[ImageRef, ...]) -> np.ndarray:
    """(T, H, W) float64 of the shown series, NaN where clouded."""
    if not images:
        raise ImageError("the sample shows no series")
    return np.stack([read_index_values(image) for image in images])


def last_seen(frames: np.ndarray) -> np.ndarray:
    """The newest value of every pixel, (H, W); the mean of all where a pixel was never seen."""
    found = np.full(frames.shape[1:], np.nan)
    for frame in frames:
        found = np.where(np.isfinite(frame), frame, found)
    seen = frames[np.isfinite(frames)]
    return np.where(np.isfinite(found), found, seen.mean() if seen.size else 0.0)


def _day(image: ImageRef) -> int:
    try:
        return date.fromisoformat((image.date or "")[:10]).timetuple().tm_yday
    except ValueError:
        raise ImageError(f"the frame {image.path} has no date (YYYY-MM-DD), which climatology needs") from None


class Persistence(Baseline):
    """The newest observation of every pixel, for the whole future."""

    name = "persistence"
    tasks = frozenset({Task.FORECAST})

    def answer(self, sample: Sample) -> Output:
        drawn = in_memory(last_seen(_frames(sample.images)).astype(np.float32))
        return Output(sample.id, images=(drawn,) * len(sample.reference["images"]))


class Climatology(Baseline):
    """For every future date the pixel's mean over the shown dates of that season; where there is none, persistence."""

    name = "climatology"
    tasks = frozenset({Task.FORECAST})

    def answer(self, sample: Sample) -> Output:
        frames = _frames(sample.images)
        fallback = last_seen(frames)
        days = np.array([_day(image) for image in sample.images])
        drawn = []
        for future in sample.reference["images"]:
            apart = np.abs(days - _day(future))
            season = frames[np.minimum(apart, 365 - apart) <= SEASON_DAYS]
            seen = np.isfinite(season)
            count = seen.sum(0)
            mean = np.where(seen, season, 0.0).sum(0) / np.maximum(count, 1)
            drawn.append(in_memory(np.where(count > 0, mean, fallback).astype(np.float32)))
        return Output(sample.id, images=tuple(drawn))
