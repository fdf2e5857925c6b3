"""The one reader of masks: what is read as it was meant, what is declared, and what is refused with the values seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from rsw_rewards.core.image_ref import ImageRef, as_image, image
from rsw_rewards.core.records import Sample
from rsw_rewards.errors import ImageError, InputError
from rsw_rewards.features.bank import FeatureBank
from rsw_rewards.io.images import read_marked, read_mask
from rsw_rewards.io.paths import Roots
from rsw_rewards.io.records_io import load_samples, sample_to_json, write_jsonl

MASK = np.zeros((48, 64), bool)
MASK[8:30, 10:40] = True
GREY = MASK * np.uint8(255)


def of(values: Any, dtype: Any = np.uint8, **declared: Any) -> ImageRef:
    return ImageRef(array=np.array(values, dtype), **declared)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.int32, ">u2"])
def test_a_mask_of_any_whole_numbers_holds_0_and_255(dtype: Any) -> None:
    pixels = MASK if dtype is bool else GREY.astype(dtype)
    for stored, meant in ((pixels, MASK), (pixels[:8], MASK[:8]), (pixels[10:20, 12:30], MASK[10:20, 12:30])):
        np.testing.assert_array_equal(read_mask(ImageRef(array=stored)), meant)


def test_files_of_one_bit_and_grey_in_three_bands(tmp_path: Path) -> None:
    Image.fromarray(MASK).save(tmp_path / "bit.png")
    Image.fromarray(np.dstack([GREY] * 3)).save(tmp_path / "rgb.png")
    for name in ("bit.png", "rgb.png"):
        np.testing.assert_array_equal(read_mask(ImageRef(path=tmp_path / name)), MASK)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(60, 100), st.integers(0, 2**32 - 1))
def test_the_noise_of_jpeg_is_read_over(tmp_path: Path, quality: int, seed: int) -> None:
    rng, truth = np.random.default_rng(seed), np.zeros((64, 64), np.uint8)
    for _ in range(4):
        top, left, height, width = rng.integers(1, 30, 4)
        truth[top : top + height, left : left + width] = 255
    file = ImageRef(path=tmp_path / "mask.jpg")
    Image.fromarray(truth).save(tmp_path / "mask.jpg", quality=quality)
    np.testing.assert_array_equal(read_mask(file), truth > 127)
    if len(np.unique(noisy := file.pixels())) > 5:  # converted since then to a format without loss
        np.testing.assert_array_equal(read_mask(ImageRef(array=noisy)), truth > 127)


@pytest.mark.parametrize(
    ("image", "seen"),
    [
        (of([[0, 1]]), "the values 0 and 1"),
        (of([[1, 1]]), "the value 1"),
        (of([[0, 1, 255]]), "the values 0, 1 and 255"),
        (of([[0, 100]]), "the values 0 and 100"),
        (of([[0, 128, 255]]), "the values 0, 128 and 255"),
        (of([[0, 50, 200, 255]]), "the values 0, 50, 200 and 255"),
        (of([[0, -1]], np.int8), "the values -1 and 0"),
        (of([[0, 65535]], np.uint16), "the values 0 and 65535"),
        (of([[*range(21), 255]]), "22 values from 0 to 255"),
        (of([list(range(101))]), "101 values from 0 to 100"),
        (of([[0, 1, 2]], nodata=255), "the values 0, 1 and 2"),
        (of([[0.0, 1.0]], np.float32), "float32"),
    ],
)
def test_other_values_are_refused_by_name(image: ImageRef, seen: str) -> None:
    with pytest.raises(ImageError, match=f"{seen}; a mask holds 0 and 255"):
        read_mask(image)


def test_a_picture_that_is_transparent_in_parts_is_no_mask(tmp_path: Path) -> None:
    """What is marked may stand in the colours, in the alpha band, or in both: nothing says where."""
    opaque, black, white = (np.full_like(GREY, value) for value in (255, 0, 255))
    Image.fromarray(np.dstack([GREY, GREY, GREY, opaque])).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(ImageRef(path=tmp_path / "m.png")), MASK)
    for bands in ([black] * 3, [white] * 3, [white]):
        Image.fromarray(np.dstack([*bands, GREY])).save(tmp_path / "m.png")
        for declared in ({}, {"levels": (0, 255)}, {"threshold": 0}):
            with pytest.raises(
                ImageError, match=r"m\.png is transparent in parts; write masks and maps without an alpha"
            ):
                read_mask(ImageRef(path=tmp_path / "m.png", **declared))  # type: ignore[arg-type]


def test_a_mask_that_was_resized_with_soft_edges_needs_a_threshold() -> None:
    soft = np.asarray(Image.fromarray(GREY).resize((100, 75), Image.Resampling.BILINEAR))
    with pytest.raises(ImageError, match="say what other values mean by 'threshold'"):
        read_mask(ImageRef(array=soft))
    np.testing.assert_array_equal(read_mask(ImageRef(array=soft, threshold=127)), soft > 127)


@pytest.mark.parametrize(
    ("image", "meant"),
    [
        (of([[0, 1, 2]], levels=(0, 1, 2)), [False, True, True]),
        (of([[7, 3]], levels=(7, 3)), [False, True]),
        (of([[0, 100, 50]], threshold=50), [False, True, False]),
        (of([[0.2, 0.7]], np.float32, threshold=0.5), [False, True]),
        (of([[0, -1]], np.int8, levels=(0, -1)), [False, True]),
        (of([[0, 255]], palette=((0, 0, 0), (255, 255, 255))), [False, True]),
    ],
)
def test_a_declared_coding_is_read(image: ImageRef, meant: list[bool]) -> None:
    marked, data = read_marked(image)
    assert marked.tolist() == [meant] and data is None


@pytest.mark.parametrize("declared", [{}, {"threshold": 0}, {"levels": (0, 1)}])
def test_pixels_without_data_are_known(declared: Any) -> None:
    cloudy = of([[0, 1, 255]], nodata=255, **declared)
    marked, data = read_marked(cloudy)
    assert marked.tolist() == [[False, True, False]] and data is not None and data.tolist() == [[True, True, False]]
    bank = FeatureBank()
    stored = ImageRef(array=cloudy.array, sha256="a" * 64, nodata=255, **declared)
    assert bank.mask(stored, unknown=True).tolist() == [[False, True, True]]
    assert bank.mask(stored).tolist() == [[False, True, False]]


def test_one_file_in_two_codings_is_kept_apart_in_memory(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 60, 100]], np.uint8)).save(tmp_path / "p.png")
    bank = FeatureBank()
    found = [bank.mask(ImageRef(path=tmp_path / "p.png", threshold=limit)).tolist() for limit in (50, 80)]
    assert found == [[[False, True, True]], [[False, False, True]]]


def test_a_value_that_is_no_level_and_a_probability_that_is_no_number_are_refused() -> None:
    with pytest.raises(ImageError, match=r"the value 3, which is none of the levels \[0, 1\]"):
        read_mask(of([[0, 3]], levels=(0, 1)))
    with pytest.raises(ImageError, match="NaN"):
        read_mask(of([[0.1, np.nan]], np.float32, threshold=0.5))


def test_codings_are_declared_in_records_and_written_again(tmp_path: Path) -> None:
    Image.fromarray(MASK.astype(np.uint8)).save(tmp_path / "m.png")
    entry = {"path": "m.png", "levels": [0, 1], "threshold": None}
    read = Roots(tmp_path).image(entry)
    assert read.levels == (0, 1) and read_mask(read).sum() == MASK.sum()
    sample = Sample("a", "change_mask", reference={"mask": image(tmp_path / "m.png", threshold=0)})
    write_jsonl(tmp_path / "samples.jsonl", [sample_to_json(sample, tmp_path)])
    (again,) = load_samples(tmp_path / "samples.jsonl")
    assert again.reference["mask"].threshold == 0 and read_mask(again.reference["mask"]).sum() == MASK.sum()


def test_masks_in_memory_take_a_declared_coding() -> None:
    chances = np.where(MASK, 0.9, 0.1)
    for value in (
        image(chances, threshold=0.5),
        as_image({"array": chances, "threshold": 0.5}, "mask", index_map=True),
    ):
        np.testing.assert_array_equal(read_mask(value), MASK)
    coded = as_image({"array": np.where(MASK, 1, 9), "nodata": 9}, "mask", index_map=True)
    assert read_marked(coded)[1] is not None and read_mask(coded).sum() == MASK.sum()


@pytest.mark.parametrize(
    "declared",
    [{"levels": [0]}, {"levels": [0, 0]}, {"levels": [0, 0.5]}, {"levels": "01"}, {"levels": list(range(256))},
     {"threshold": "half"}, {"threshold": float("nan")}, {"threshold": [1]}],
)  # fmt: skip
def test_a_coding_that_says_nothing_is_refused(declared: Any) -> None:
    with pytest.raises(InputError, match=next(iter(declared))):
        image("m.png", **declared)
