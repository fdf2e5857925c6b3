"""How the pictures of a sample and of its forecasts are looked at: in which bands, between which numbers, and without which pixels.

A raster is shown as its reference says (``bands``, ``stretch``), and a forecast of it as the true future is. A pixel counts where
``reference.valid`` (> 127) says so, where ``reference.clouds`` (> 127 = cloud) does not lie over it, and where input and true future
hold data: numbers that are finite and, in every band, not the raster's ``nodata`` value; of a picture not that value in all channels.
Networks see more than one pixel at a time; they are shown the others in one colour, the same in all pictures of a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rsw_rewards.core.records import ImageRef, Sample
from rsw_rewards.core.scores import Score
from rsw_rewards.data.rasters import present
from rsw_rewards.errors import ImageError
from rsw_rewards.features.bank import FeatureBank
from rsw_rewards.pixels import content_hash
from rsw_rewards.verifiers.bands import check_raster, without_clouds

READS = (
    " A raster is read in the bands and numbers that its record shows (bands, stretch), or in those that the encoder's name maps"
    " (#bands=3,2,1); pixels outside 'valid', of nodata and under clouds are shown to it in one colour."
)
"""What the cards of verifiers with an encoder say of rasters and masks."""


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


def forecast_shown(
    bank: FeatureBank,
    image: ImageRef,
    future: ImageRef | None,
    valid: np.ndarray | None,
    bands: tuple[int, ...] | None = None,
    sized: bool = True,
) -> ImageRef:
    """A forecast with the bands and the stretch that it is looked at with.

    Args:
        bank: what decodes.
        image: the forecast as the output names it.
        future: the true future, as which a raster is shown; None where there is none to hold it against.
        valid: (H, W) bool, pixels that count; None for all.
        bands: those that an encoder maps, in place of the ones shown.
        sized: whether it shows the place that the true future shows, pixel by pixel; a picture made from a text alone does not.

    Raises:
        ImageError: it cannot be read or shown, has another size than the true future, or is a raster that
            :func:`rsw_rewards.verifiers.bands.check_raster` refuses.
    """
    drawn = as_future(image, future)
    shown = in_bands(drawn, bands)
    picture = bank.rgb(shown)
    if future is None or not sized:
        return shown
    true = bank.rgb(in_bands(future, bands))
    if picture.shape != true.shape:
        raise ImageError(
            f"the forecast is {picture.shape[1]} x {picture.shape[0]} pixels, the true future {true.shape[1]} x {true.shape[0]}"
        )
    if drawn.is_mapped and future.is_mapped:
        about = None if valid is None else hash(valid.tobytes())
        bank.check((drawn, future), about, lambda: check_raster(drawn, future, valid))
    return shown


def lacking_bands(image: ImageRef, bands: tuple[int, ...] | None) -> Score | None:
    """The score of a sample whose image does not have all ``bands``. Raises :class:`ImageError`."""
    if bands is None:
        return None
    shape = image.pixels().shape
    count = shape[2] if len(shape) == 3 else 1
    if max(bands) < count:
        return None
    return Score.not_applicable(
        f"the sample has {count} bands, the encoder reads band {max(bands)} (counted from 0; its #bands)"
    )


def holds_data(bank: FeatureBank, image: ImageRef) -> np.ndarray | None:
    """(H, W) bool, the pixels of an image that hold data; None where that is all of them. Raises :class:`ImageError`."""
    if image.is_mapped:
        stored = image.pixels()
        if image.nodata is None and stored.dtype.kind != "f":
            return None
        return present(np.moveaxis(stored if stored.ndim == 3 else stored[..., None], -1, 0), (image.nodata,))
    return None if image.nodata is None else (bank.rgb(image) != image.nodata).any(axis=-1)


def counted(bank: FeatureBank, sample: Sample, images: Sequence[ImageRef], shape: tuple[int, ...]) -> np.ndarray:
    """(H, W) bool, the pixels that count in ``images`` of a sample. Raises :class:`ImageError` for a mask of another size."""
    valid = np.ones(shape, dtype=bool)
    for what, mask in (("the input or the true future", holds_data(bank, image)) for image in images):
        if mask is not None:
            valid &= _fitting(what, mask, shape)
    if isinstance(named := sample.reference.get("valid"), ImageRef):
        valid &= _fitting("reference.valid", bank.mask(named), shape)
    return without_clouds(bank, sample, valid)


def one_colour(picture: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The mean of the valid pixels of an (H, W, 3) uint8 picture, (3,) uint8: what stands where no pixel counts."""
    return np.rint(picture[valid].mean(axis=0, dtype=np.float64)).astype(np.uint8)


def covered(picture: np.ndarray, valid: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """An (H, W, 3) picture with ``colour`` where no pixel counts. Raises :class:`ImageError` for one of another size."""
    _fitting("the image", picture, valid.shape, "the pixels that count")
    return picture if valid.all() else np.where(valid[..., None], picture, colour)


@dataclass(frozen=True, slots=True, eq=False)
class Showing:
    """How an encoder is shown the pictures of one sample."""

    future: ImageRef | None
    bands: tuple[int, ...] | None
    """Those that the encoder's name maps."""
    valid: np.ndarray | None
    """(H, W) bool; None where every pixel counts."""
    colour: np.ndarray
    """(3,) uint8, what stands where no pixel counts."""
    sized: bool
    """Whether a forecast must have the future's size: not where there is no input image, and the picture comes from a text alone."""

    def given(self, bank: FeatureBank, image: ImageRef) -> ImageRef:
        """An image of the sample as the encoder sees it, its band mapping applied. Raises :class:`ImageError`."""
        return self._covered(bank, in_bands(image, self.bands))

    def drawn(self, bank: FeatureBank, image: ImageRef) -> ImageRef:
        """A forecast as the encoder sees it. Raises :class:`ImageError`; see :func:`forecast_shown`."""
        return self._covered(bank, forecast_shown(bank, image, self.future, self.valid, self.bands, self.sized))

    def _covered(self, bank: FeatureBank, image: ImageRef) -> ImageRef:
        if self.valid is None:
            return image
        pixels = covered(bank.rgb(image), self.valid, self.colour)
        return ImageRef(array=pixels, sha256=content_hash(pixels))


def read_showing(bank: FeatureBank, sample: Sample, bands: tuple[int, ...] | None = None) -> Showing | Score:
    """How an encoder that maps ``bands`` is shown a sample, or the score of one whose pictures or masks cannot be used."""
    futures: Sequence[ImageRef] = sample.reference.get("images") or ()
    images = [*sample.images[-1:], *futures[-1:]]
    future = futures[-1] if futures else None
    grey = np.full(3, 127, np.uint8)
    try:
        for image in images:
            if (score := lacking_bands(image, bands)) is not None:
                return score
        masked = any(sample.reference.get(key) is not None for key in ("valid", "clouds"))
        if not masked and not any(image.is_mapped or image.nodata is not None for image in images):
            return Showing(future, bands, None, grey, bool(sample.images))
        if not images:
            return Score.error(f"sample {sample.id!r} has masks and no image that they are of")
        picture = bank.rgb(in_bands(images[-1], bands))
        valid = counted(bank, sample, images, picture.shape[:2])
    except ImageError as error:
        return Score.error(f"an image of the sample cannot be used: {error}")
    if valid.all():
        return Showing(future, bands, None, grey, bool(sample.images))
    if not valid.any():
        return Score.not_applicable("no pixel counts")
    return Showing(future, bands, valid, one_colour(picture, valid), bool(sample.images))


def _fitting(what: str, mask: np.ndarray, shape: tuple[int, ...], other: str = "the true future") -> np.ndarray:
    if mask.shape[:2] != shape[:2]:
        raise ImageError(f"{what} is {mask.shape[1]} x {mask.shape[0]} pixels, {other} {shape[1]} x {shape[0]}")
    return mask
