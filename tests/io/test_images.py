"""Images by reference: colours read as classes through the palette of their record, and sizes read from headers."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Task
from rsw_rewards.data.rasters import georeference_of, open_raster
from rsw_rewards.errors import ImageError, InputError
from rsw_rewards.io.images import read_data, read_index, read_size, write_png
from rsw_rewards.io.paths import Roots
from rsw_rewards.io.records_io import load_samples, sample_to_json, write_jsonl

WHITE, BLUE, GREY = (255, 255, 255), (0, 0, 255), (128, 128, 128)
PALETTE = [list(WHITE), list(BLUE), list(GREY)]


def entry(file: Path, palette: object) -> ImageRef:
    return Roots(file.parent).image({"path": file.name, "palette": palette})


def test_colours_become_their_places_in_the_palette(tmp_path: Path) -> None:
    write_png(tmp_path / "map.png", np.array([[WHITE, BLUE], [GREY, BLUE]], np.uint8))
    indices = read_index(entry(tmp_path / "map.png", PALETTE))
    assert indices.dtype == np.uint8
    assert indices.tolist() == [[0, 1], [2, 1]]


def test_grey_levels_and_palette_files_are_colours_too(tmp_path: Path) -> None:
    write_png(tmp_path / "grey.png", np.array([[0, 128, 255]], np.uint8))
    assert read_index(entry(tmp_path / "grey.png", [[n] * 3 for n in (0, 128, 255)])).tolist() == [[0, 1, 2]]
    indexed = Image.fromarray(np.array([[1, 0]], np.uint8), "P")
    indexed.putpalette([*BLUE, *WHITE])
    indexed.save(tmp_path / "p.png")
    assert read_index(entry(tmp_path / "p.png", PALETTE)).tolist() == [[0, 1]]


@given(
    st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=256, unique=True), st.integers(0, 2**32 - 1)
)
def test_any_map_survives_its_painting(palette: list[tuple[int, int, int]], seed: int) -> None:
    indices = np.random.default_rng(seed).integers(0, len(palette), (5, 7))
    image = ImageRef(array=np.array(palette, np.uint8)[indices], palette=tuple(palette))
    assert np.array_equal(read_index(image), indices)


def test_a_strange_colour_is_an_error_that_names_it(tmp_path: Path) -> None:
    write_png(tmp_path / "map.png", np.array([[WHITE, (1, 2, 3)]], np.uint8))
    with pytest.raises(ImageError, match=r"map.png holds the colour \(1, 2, 3\), which is not one of the 3"):
        read_index(entry(tmp_path / "map.png", PALETTE))
    with pytest.raises(ImageError, match="three bands of uint8"):
        read_index(ImageRef(array=np.zeros((2, 2, 4), np.uint8), palette=(WHITE,)))


@pytest.mark.parametrize(
    ("palette", "sentence"),
    [
        ([], "1 to 256 colours"), ("white", "1 to 256 colours"), ([[0, 0]], "1 to 256 colours"),
        ([[0, 0, 256]], "1 to 256 colours"), ([[0, 0, True]], "1 to 256 colours"), ([[0, 0, 0]] * 257, "1 to 256 colours"),
        ([[0, 0, 0], [0, 0, 0]], "names a colour twice"),
    ],
)  # fmt: skip
def test_palettes_that_are_none_are_refused(palette: object, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        entry(Path("map.png"), palette)


def test_a_palette_survives_the_record(tmp_path: Path) -> None:
    write_png(tmp_path / "map.png", np.array([[GREY]], np.uint8))
    record = {
        "id": "a", "task": "semantic_change", "images": [],
        "reference": {"map_before": {"path": "map.png", "palette": PALETTE}},
    }  # fmt: skip
    write_jsonl(tmp_path / "one.jsonl", [record])
    sample = load_samples(tmp_path / "one.jsonl")[0]
    write_jsonl(tmp_path / "two.jsonl", [sample_to_json(sample, tmp_path)])
    again = load_samples(tmp_path / "two.jsonl")[0]
    assert again.task is Task.SEMANTIC_CHANGE
    assert again.reference["map_before"] == sample.reference["map_before"]
    assert read_index(again.reference["map_before"]).tolist() == [[2]]


def test_the_size_of_a_picture_is_read_without_its_pixels(tmp_path: Path) -> None:
    write_png(tmp_path / "mask.png", np.zeros((3, 5), np.uint8))
    whole = (tmp_path / "mask.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: whole.index(b"IDAT") + 6])
    np.save(tmp_path / "mask.npy", np.zeros((3, 5), np.uint8))
    for name in ("mask.png", "cut.png", "mask.npy"):
        assert read_size(ImageRef(path=tmp_path / name)) == (3, 5)
    assert read_size(ImageRef(array=np.zeros((3, 5), bool))) == (3, 5)
    for name in ("none.png", "none.npy"):
        with pytest.raises(ImageError, match=name):
            read_size(ImageRef(path=tmp_path / name))


def npy(shape: tuple[int, ...], data: bytes = b"") -> bytes:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data


def encrypted(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", npy((2, 2), b"\0" * 4))
    changed = bytearray(path.read_bytes())
    changed[6] |= 1
    changed[changed.rfind(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(changed))


def damaged(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.npy", npy((64, 64), b"\0" * 4096))
    changed = bytearray(path.read_bytes())
    start = changed.find(b"a.npy") + 14
    changed[start : start + 11] = b"\xff" * 11
    path.write_bytes(bytes(changed))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("huge.NPY", lambda path: path.write_bytes(npy((10**7, 10**6)))),
        ("array.npz", lambda path: path.write_bytes(npy((10**7, 10**6)))),
        ("negative.npy", lambda path: path.write_bytes(npy((-1, 2)))),
        ("no_bands.npy", lambda path: path.write_bytes(npy((2, 2, 0)))),
        ("encrypted.npz", encrypted),
        ("damaged.npz", damaged),
        ("x" * 5000 + ".png", lambda path: None),
    ],
)
def test_a_bad_file_is_an_image_error_whatever_it_makes_a_library_raise(
    tmp_path: Path, name: str, write: Callable[[Path], object]
) -> None:
    """Anything else would be our error, and an output could leave the benchmark by naming such a file."""
    write(tmp_path / name)
    with pytest.raises(ImageError):
        ImageRef(path=tmp_path / name).pixels()


@pytest.mark.parametrize("name", ["pipe.png", "pipe.tif", "pipe.npy"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    image = ImageRef(path=tmp_path / name)
    for read in (read_size, read_data, ImageRef.pixels):
        if name == "pipe.tif" or read is not read_data:  # only a raster has a mask of its own
            with pytest.raises(ImageError, match=f"{name} is no file"):
                read(image)


def test_formats_that_name_other_files_or_start_programs_are_not_looked_for(tmp_path: Path) -> None:
    write_png(tmp_path / "secret.png", np.full((2, 2), 255, np.uint8))
    band = f"<SourceFilename relativeToVRT='0'>{tmp_path / 'secret.png'}</SourceFilename><SourceBand>1</SourceBand>"
    (tmp_path / "mask.tif").write_text(
        "<VRTDataset rasterXSize='2' rasterYSize='2'><VRTRasterBand dataType='Byte' band='1'><SimpleSource>"
        f"{band}</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    Image.new("RGB", (2, 2)).save(tmp_path / "page.eps")
    (tmp_path / "page.eps").rename(tmp_path / "page.png")
    for name in ("mask.tif", "page.png"):
        with pytest.raises(ImageError, match="cannot be read"):
            ImageRef(path=tmp_path / name).pixels()
    with pytest.raises(ImageError, match="cannot be read"):
        georeference_of(tmp_path / "mask.tif")
    with pytest.raises(InputError, match="cannot be read"):
        open_raster(tmp_path / "mask.tif")


@pytest.mark.parametrize("bands", [[float("inf")], "012", 3, [True, 0, 1]])
def test_bands_that_are_no_whole_numbers_are_refused(bands: object) -> None:
    with pytest.raises(InputError, match="'bands'"):
        Roots(Path()).image({"path": "a.png", "bands": bands})
