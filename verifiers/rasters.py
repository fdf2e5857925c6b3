"""The rasters of a forecast sample in all their bands, as they are stored, and the forecast of an output likewise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.per_sample import Unscored
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.data.rasters import Georeference, present
from rsw_rewards.errors import ImageError
from rsw_rewards.features.bank import FeatureBank
from rsw_rewards.io.images import read_data
from rsw_rewards.verifiers.bands import (
    Units,
    check_holes,
    check_numbers,
    check_place,
    grid_of,
    read_units,
    size_of,
    stored_bands,
)
from rsw_rewards.verifiers.forecast_case import NOTHING_COUNTS, forecast_of, images_of, masked_in, true_mask


@dataclass(frozen=True, slots=True, eq=False)
class Rasters:
    """What a sample says of the future in all bands. Arrays share height, width and bands."""

    before: np.ndarray
    """(H, W, C), the newest input image, as stored."""
    future: np.ndarray
    """(H, W, C), the true future (of a series the last frame), as stored."""
    valid: np.ndarray
    """(H, W) bool, pixels that count; at least one does."""
    mask: np.ndarray | None
    """(H, W) bool, the reference change mask, if there is one."""
    units: Units
    grid: Georeference | None
    """Where the rasters lie, if they say so."""

    def forecast(self, output: Output) -> np.ndarray:
        """All bands of a forecast (of a series its last frame), (H, W, C) in the type it is stored in; it may hold NaN.

        Raises:
            ImageError: there is none, it cannot be read, it has another size, other bands or another scale than the true future,
                it has no data at a pixel that counts, as its own mask or alpha band says, or it lies elsewhere.
        """
        drawn = forecast_of(output)
        forecast = stored_bands(drawn, self.future.shape[2])
        if forecast.shape != self.future.shape:
            raise ImageError(f"the forecast is {size_of(forecast)}, the true future {size_of(self.future)}")
        check_holes(drawn, self.future.shape[2], self.valid)
        check_numbers(forecast, self.future, self.valid)
        check_place(drawn, self.grid, self.valid.shape)
        return forecast


def read_rasters(bank: FeatureBank, sample: Sample) -> Rasters:
    """The rasters of a sample. Raises :class:`Unscored` where it has none, :class:`ImageError` where they do not fit each other."""
    images = images_of(sample, future=True, before=True)
    named = sample.metadata.get("bands")
    count = len(named) if isinstance(named, Sequence) else None
    future, before = (stored_bands(image, count) for image in images)
    if before.shape != future.shape:
        raise ImageError(f"the input is {size_of(before)}, the true future {size_of(future)}")
    units = read_units(sample.metadata, future.dtype)
    if units.names is not None and len(units.names) != future.shape[-1]:
        raise ImageError(f"metadata.bands names {len(units.names)} bands, the true future has {future.shape[-1]}")
    valid = masked_in(bank, sample, future.shape) & _present(future, images[0]) & _present(before, images[1])
    mask = true_mask(bank, sample, "mask", future.shape)
    if not valid.any():
        raise Unscored(NOTHING_COUNTS)
    return Rasters(before, future, valid, mask, units, grid_of(images[0]) or grid_of(images[1]))


def _present(pixels: np.ndarray, image: ImageRef) -> np.ndarray:
    found = present(np.moveaxis(pixels, -1, 0), (image.nodata,))
    data = read_data(image, pixels.shape[2])
    return found if data is None else found & data
