"""What a forecast sample says, read once before any output: its images, the bands and numbers they are shown in, the pixels that count.

A raster is shown as its reference says (``bands``, ``stretch``), and a forecast of it as the true future is. A pixel counts where
``reference.valid`` says so, where ``reference.clouds`` does not lie over it, and where input and true future
hold data: numbers that are finite and, in every band, not the raster's ``nodata`` value; of a picture not that value in all channels.
Networks see more than one pixel at a time; they are shown the others in one colour, the same in all images of a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.per_sample import PerSample, T, Unscored
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score
from rsw_rewards.data.rasters import present
from rsw_rewards.errors import ImageError
from rsw_rewards.features.bank import FeatureBank
from rsw_rewards.io.images import declared_bands, read_data
from rsw_rewards.pixels import content_hash
from rsw_rewards.verifiers.bands import check_holes, check_raster

NO_FUTURE = Score.not_applicable("the sample has no true future image (reference.images)")
NO_INPUT = Score.not_applicable("the sample has no input image")
NOTHING_COUNTS = Score.not_applicable("no pixel counts")
NO_FORECAST = "the output holds no image"


def forecast_of(output: Output) -> ImageRef:
    """The forecast of an output; of a series, its last frame. Raises :class:`ImageError` where there is none."""
    if output.forecast is None:
        raise ImageError(NO_FORECAST)
    return output.forecast


def in_bands(image: ImageRef, bands: tuple[int, ...] | None) -> ImageRef:
    """The image with the three bands that an encoder reads in place of those shown; as it is for an encoder that names none."""
    return image if bands is None else replace(image, bands=bands)


def as_future(image: ImageRef, future: ImageRef | None) -> ImageRef:
    """A forecast with the band mapping and stretch of the true future; a uint8 picture of three bands is shown as it is.

    Where the future itself is stored in three bands of uint8, so is a forecast of it. Raises :class:`ImageError`.
    """
    if future is None or not future.is_mapped or (image.bands, image.stretch) == (future.bands, future.stretch):
        return image
    drawn = image.pixels()
    if drawn.dtype == np.uint8 and (drawn.ndim == 2 or drawn.shape[-1] == 3):
        true = future.pixels()
        if (true.dtype, true.shape[2:]) != (drawn.dtype, drawn.shape[2:]):
            return replace(image, bands=None, stretch=None)
    return replace(image, bands=future.bands, stretch=future.stretch)


def check_bands(image: ImageRef, bands: tuple[int, ...]) -> None:
    """Raise :class:`Unscored` for an image of a sample that does not have all ``bands``, :class:`ImageError` for one that is none."""
    shape = image.pixels().shape
    count = shape[2] if len(shape) == 3 else 1
    if max(bands) >= count:
        raise Unscored(
            Score.not_applicable(
                f"the sample has {count} bands, the encoder reads band {max(bands)} (counted from 0; its #bands)"
            )
        )


def holds_data(bank: FeatureBank, image: ImageRef) -> np.ndarray | None:
    """(H, W) bool, the pixels of an image that hold data; None where that is all of them. Raises :class:`ImageError`."""
    data = read_data(image)
    if image.is_mapped:
        stored = image.pixels(bands=declared_bands(image))
        if image.nodata is None and stored.dtype.kind != "f":
            return data
        found = present(np.moveaxis(stored if stored.ndim == 3 else stored[..., None], -1, 0), (image.nodata,))
    elif image.nodata is None:
        return data
    else:
        found = (bank.rgb(image) != image.nodata).any(axis=-1)
    return found if data is None else found & data


def masked_in(bank: FeatureBank, sample: Sample, shape: tuple[int, ...]) -> np.ndarray:
    """(H, W) bool, the pixels that ``reference.valid`` and ``reference.clouds`` let count. Raises :class:`ImageError`."""
    valid = np.ones(shape[:2], dtype=bool)
    if (labelled := true_mask(bank, sample, "valid", shape)) is not None:
        valid &= labelled
    if (clouds := true_mask(bank, sample, "clouds", shape)) is not None:
        valid &= ~clouds
    return valid


def true_mask(bank: FeatureBank, sample: Sample, key: str, shape: tuple[int, ...] | None = None) -> np.ndarray | None:
    """(H, W) bool, a mask of the reference, if there is one. Raises :class:`ImageError` for one that does not fit ``shape``."""
    named = sample.reference.get(key)
    if named is None:
        return None
    if not isinstance(named, ImageRef):
        raise ImageError(f"reference.{key} of sample {sample.id!r} is {str(named)[:40]!r}; it must be a mask")
    mask = bank.mask(named, unknown=key == "clouds")
    return mask if shape is None else fitting(f"reference.{key}", mask, shape)


@dataclass(frozen=True, slots=True, eq=False)
class ForecastCase:
    """What a forecast sample says, read before any output for it: its images, how they are shown, the pixels that count."""

    bank: FeatureBank
    sample: Sample
    bands: tuple[int, ...] | None
    """Three bands of a raster that an encoder reads in place of those shown."""
    valid: np.ndarray | None = None
    """(H, W) bool, the pixels that count, one at least; None where all do."""
    colour: np.ndarray = field(default_factory=lambda: np.zeros(3, np.uint8))
    """(3,) uint8, what is shown where no pixel counts: the mean of the others in the true future, or else in the input."""

    @property
    def future(self) -> ImageRef:
        """The true future; of a series, its last frame."""
        return self.sample.reference["images"][-1]

    @property
    def newest(self) -> ImageRef:
        """The newest image that the model was shown."""
        return self.sample.images[-1]

    def picture(self, image: ImageRef) -> np.ndarray:
        """(H, W, 3) uint8 of an image of the sample, one colour where no pixel counts. Raises :class:`ImageError`."""
        return self._covered(self.bank.rgb(in_bands(image, self.bands)))

    def shown(self, image: ImageRef) -> ImageRef:
        """:meth:`picture` as an image that an encoder is given."""
        return self._named(in_bands(image, self.bands))

    def counted(self, picture: np.ndarray) -> np.ndarray:
        """(H, W) bool, the pixels of an (H, W, ...) picture that count."""
        return np.ones(picture.shape[:2], dtype=bool) if self.valid is None else self.valid

    def change(self, picture: np.ndarray) -> np.ndarray | None:
        """(H, W) bool, the reference change mask, if there is one. Raises :class:`ImageError` if it does not fit the picture."""
        return true_mask(self.bank, self.sample, "mask", picture.shape)

    def forecast(self, output: Output) -> ImageRef:
        """The forecast of an output as an encoder is given it: one colour where no pixel counts. Raises as :meth:`forecast_picture`."""
        return self._named(self._checked(output))

    def forecast_picture(self, output: Output) -> np.ndarray:
        """(H, W, 3) uint8, the forecast of an output; of a series, its last frame. It holds anything where no pixel counts.

        A raster is shown as the true future is. A forecast must have the true future's size, pixel by pixel, but for one that is
        made from a text alone.

        Raises:
            ImageError: there is none, it cannot be read or shown, has another size than the true future, has no data where a
                pixel counts, as its own mask or alpha band says, or is a raster that
                :func:`rsw_rewards.verifiers.bands.check_raster` refuses.
        """
        return self.bank.rgb(self._checked(output))

    def _checked(self, output: Output) -> ImageRef:
        future = self.future if self.sample.reference.get("images") else None
        drawn = as_future(forecast_of(output), future)
        shown = in_bands(drawn, self.bands)
        picture = self.bank.rgb(shown)
        if future is None or not self.sample.images:
            return shown
        fitting("the forecast", picture, self.bank.rgb(in_bands(future, self.bands)).shape)
        about = None if self.valid is None else hash(self.valid.tobytes())
        self.bank.check((drawn,), about, lambda: check_holes(drawn, declared_bands(drawn), self.valid))
        if drawn.is_mapped and future.is_mapped:
            self.bank.check((drawn, future), about, lambda: check_raster(drawn, future, self.valid))
        return shown

    def _covered(self, picture: np.ndarray) -> np.ndarray:
        if self.valid is None:
            return picture
        fitting("the image", picture, self.valid.shape, "the pixels that count")
        return np.where(self.valid[..., None], picture, self.colour)

    def _named(self, image: ImageRef) -> ImageRef:
        pixels = self._covered(self.bank.rgb(image))
        return image if self.valid is None else ImageRef(array=pixels, sha256=content_hash(pixels))


class PerForecast(PerSample[T]):
    """Base of the verifiers that hold one forecast against what its sample says."""

    tasks = frozenset({Task.FORECAST})
    needs = frozenset({"output.image", "reference.images"})
    at_once = 16  # no more images are held than a network looks at in one pass or two


def images_of(sample: Sample, future: bool, before: bool) -> list[ImageRef]:
    """The true future (of a series its last frame) and the newest input, those there are.

    Args:
        sample: a forecast to make.
        future: whether the sample must have a true future.
        before: whether it must have an input.

    Raises:
        Unscored: the sample lacks one that it must have.
    """
    futures: Sequence[ImageRef] = sample.reference.get("images") or ()
    if future and not futures:
        raise Unscored(NO_FUTURE)
    if before and not sample.images:
        raise Unscored(NO_INPUT)
    return [*futures[-1:], *sample.images[-1:]]


def read_case(
    bank: FeatureBank,
    sample: Sample,
    bands: tuple[int, ...] | None = None,
    *,
    future: bool = False,
    before: bool = False,
) -> ForecastCase:
    """What a forecast sample says.

    Args:
        bank: what decodes.
        sample: a forecast to make.
        bands: three bands of a raster to read in place of those shown; a sample without them is not applicable.
        future: a sample without a true future is not applicable. One that names a true future must have it in any case.
        before: a sample without an input is not applicable, and the newest one must have the size of the true future.

    Raises:
        ImageError: an image or a mask cannot be read, or they do not fit each other.
        Unscored: the sample is not applicable.
    """
    images = images_of(sample, future, before)
    if bands is not None:
        for image in images:
            check_bands(image, bands)
    masked = any(sample.reference.get(key) is not None for key in ("valid", "clouds"))
    masked = masked or any(
        image.is_mapped or image.nodata is not None or read_data(image) is not None for image in images
    )
    if masked and not images:
        raise ImageError("it has masks and no image that they are of")
    case = ForecastCase(bank, sample, bands)
    looked_at = images if before else images[:1] if masked or sample.reference.get("images") else []
    pictures = [case.picture(image) for image in looked_at]
    if len(pictures) == 2:
        fitting("the input image", pictures[1], pictures[0].shape)
    if not masked:
        return case
    valid = masked_in(bank, sample, pictures[0].shape)
    for image in images:
        if (data := holds_data(bank, image)) is not None:
            valid &= fitting("the input or the true future", data, valid.shape)
    if not valid.any():
        raise Unscored(NOTHING_COUNTS)
    return case if valid.all() else replace(case, valid=valid, colour=one_colour(pictures[0], valid))


def one_colour(picture: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The mean of the valid pixels of an (H, W, 3) uint8 picture, (3,) uint8: what stands where no pixel counts."""
    return np.rint(picture[valid].mean(axis=0, dtype=np.float64)).astype(np.uint8)


def fitting(what: str, mask: np.ndarray, shape: tuple[int, ...], other: str = "the true future") -> np.ndarray:
    """The (H, W, ...) array. Raises :class:`ImageError` where its height and width are not those of ``shape``."""
    if mask.shape[:2] != shape[:2]:
        raise ImageError(f"{what} is {mask.shape[1]} x {mask.shape[0]} pixels, {other} {shape[1]} x {shape[0]}")
    return mask
