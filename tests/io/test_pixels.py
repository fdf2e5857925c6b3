"""What files mean: bits of colour, palettes, orientation, masks and alpha of rasters; and what a file never makes the reader do."""

from __future__ import annotations

import io
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image

import rsw_rewards as rsw
from rsw_rewards.core.image_ref import ImageRef, image
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.data.rasters import open_raster
from rsw_rewards.errors import ImageError, InputError
from rsw_rewards.features.bank import FeatureBank
from rsw_rewards.io.images import read_data, read_mask, read_rgb, read_size
from rsw_rewards.pixels import read_picture, read_pixels
from rsw_rewards.verifiers.bands import stored_bands
from rsw_rewards.verifiers.forecast_case import read_case

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
COLOURS = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
HALF = np.zeros((16, 24), bool)
HALF[:, 12:] = True


def tiff(
    path: Path,
    pixels: np.ndarray,
    mask: np.ndarray | None = None,
    colours: Any = None,
    tags: Any = None,
    **profile: Any,
) -> Path:
    """A GeoTIFF of (bands, H, W) pixels with an internal mask or a colour table."""
    count, height, width = pixels.shape
    profile |= {"count": count, "height": height, "width": width, "dtype": pixels.dtype}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", driver="GTiff", **profile) as file:
        file.write(pixels)
        if mask is not None:
            file.write_mask(mask)
        if colours is not None:
            file.write_colormap(1, colours)
        if tags is not None:
            file.update_tags(ns="OVERVIEWS", **tags)
    return path


def png_of_16_bits(kind: int, bands: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = zlib.compress((b"\0" + b"\2\xbc" * 4 * bands) * 4)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, kind, 0, 0, 0)) + chunk(b"IDAT", rows)
        + chunk(b"IEND", b"")
    )  # fmt: skip


@pytest.mark.parametrize(
    "data",
    [
        png_of_16_bits(2, 3), png_of_16_bits(4, 2), png_of_16_bits(6, 4), b"P6\n2 1\n65535\n" + b"\1\2" * 6,
        b"P3\n2 1\n65535\n1 2 3 4 5 6\n", b"P5\n2 1\n2\n\0\2", b"P2\n2 1\n1000\n1 2\n",
    ],
)  # fmt: skip
def test_colours_of_more_bits_than_the_reader_keeps_are_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match="of which only 8 would be read; write it as GeoTIFF"):
        read_picture(data, "it")


@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_a_tiff_in_memory_or_under_another_name_keeps_its_bits_or_is_refused(tmp_path: Path, interleave: str) -> None:
    path = tiff(tmp_path / "a.tif", np.full((3, 8, 8), 700, np.uint16), photometric="RGB", interleave=interleave)
    assert (read_pixels(path) == 700).all()
    path.rename(tmp_path / "a.png")
    for read in (lambda: read_pixels(tmp_path / "a.png"), lambda: image((tmp_path / "a.png").read_bytes())):
        with pytest.raises(InputError, match="only 8 would be read"):
            read()


def test_colours_of_more_bits_in_jpeg_2000_are_refused() -> None:
    for depth, refused in ((np.uint8, False), (np.uint16, True)):
        with rasterio.MemoryFile() as memory:
            with memory.open(driver="JP2OpenJPEG", count=3, height=64, width=64, dtype=depth) as file:
                file.write(np.full((3, 64, 64), 70, depth))
            data = bytes(memory.read())
        if not refused:
            assert read_picture(data, "it").shape == (64, 64, 3)
            continue
        with pytest.raises(ImageError, match="only 8 would be read"):
            read_picture(data, "it")


def test_grey_of_16_bits_keeps_its_bits() -> None:
    assert read_picture(png_of_16_bits(0, 1), "it").tolist() == [[700] * 4] * 4
    assert read_picture(b"P5\n2 1\n65535\n\0\2\0\1", "it").tolist() == [[2, 1]]
    assert read_picture(b"P5\n2 1\n255\n\2\1", "it").tolist() == [[2, 1]]


def test_the_palette_of_a_tiff_is_read_as_that_of_a_png(tmp_path: Path) -> None:
    indices = (np.arange(16 * 24) % 5).astype(np.uint8).reshape(16, 24)
    table = {0: (9, 8, 7), 1: (255, 0, 0), 2: (0, 255, 0), 3: (1, 2, 3), 4: (200, 100, 50)}
    path = tiff(tmp_path / "p.tif", indices[None], colours=table)
    np.testing.assert_array_equal(read_rgb(ImageRef(path=path)), np.array(list(table.values()), np.uint8)[indices])
    np.testing.assert_array_equal(read_pixels(path), indices)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_pictures_and_their_sizes_are_turned_as_a_viewer_turns_them(
    tmp_path: Path, orientation: int, suffix: str
) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOURS).save(tmp_path / f"a.{suffix}", exif=exif)
    seen = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / f"a.{suffix}")).convert("RGB"))
    assert seen.shape[:2] == ((24, 16) if orientation > 4 else (16, 24))
    stored = ImageRef(path=tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read_rgb(stored), seen)
    assert read_size(stored) == seen.shape[:2]
    np.testing.assert_array_equal(image(Image.open(tmp_path / f"a.{suffix}")).pixels(), seen)


def test_one_bit_and_white_as_zero(tmp_path: Path) -> None:
    for name, pixels, photometric in (
        ("bit", HALF, 1), ("white-bit", ~HALF, 0), ("grey", HALF * np.uint8(255), 1), ("white", ~HALF * np.uint8(255), 0),
    ):  # fmt: skip
        Image.fromarray(HALF if pixels.dtype == bool else HALF * np.uint8(255)).save(
            tmp_path / f"{name}.tif", tiffinfo={262: photometric}
        )
        shown = np.asarray(Image.open(tmp_path / f"{name}.tif")) > 0
        np.testing.assert_array_equal(read_mask(ImageRef(path=tmp_path / f"{name}.tif")), shown)


def test_a_raster_that_is_stored_turned_is_refused(tmp_path: Path) -> None:
    for orientation in (1, 6):
        Image.fromarray(COLOURS).save(tmp_path / f"{orientation}.tif", tiffinfo={274: orientation})
    np.testing.assert_array_equal(read_pixels(tmp_path / "1.tif"), COLOURS)
    with pytest.raises(ImageError, match="stored turned"):
        read_pixels(tmp_path / "6.tif")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_alpha_bands_and_internal_masks_are_pixels_without_data(tmp_path: Path, dtype: Any) -> None:
    numbers = np.moveaxis(COLOURS, -1, 0).astype(dtype)
    opaque = (HALF * np.iinfo(dtype).max).astype(dtype)[None]
    alpha = tiff(tmp_path / "alpha.tif", np.concatenate([numbers, opaque]), photometric="RGB", alpha="yes")
    masked = tiff(tmp_path / "masked.tif", numbers, mask=HALF)
    stretch = None if dtype is np.uint8 else ((0.0, 255.0),) * 3
    for path in (alpha, masked):
        shown = ImageRef(path=path, stretch=stretch)
        np.testing.assert_array_equal(read_rgb(shown), COLOURS)
        np.testing.assert_array_equal(read_data(shown), HALF)
        raster = open_raster(path, bands=3)
        assert raster.bands == 3
        np.testing.assert_array_equal(raster.window(0, 0, 16, 24)[1], HALF)
        sample = Sample("a", "forecast", (image(COLOURS),), reference={"images": [shown]})
        case = read_case(FeatureBank(), sample)
        assert case.valid is not None
        np.testing.assert_array_equal(case.valid, HALF)
        np.testing.assert_array_equal(stored_bands(shown, 3), COLOURS)
    assert read_data(ImageRef(path=tiff(tmp_path / "whole.tif", numbers))) is None
    # Four declared bands are four bands, whatever the writer marked the last one as.
    assert open_raster(alpha, bands=4).bands == 4 and open_raster(alpha, bands=4).data is None
    assert stored_bands(ImageRef(path=alpha), 4).shape == (16, 24, 4)


def test_a_mask_with_an_internal_mask_says_where_it_is_labelled(tmp_path: Path) -> None:
    from rsw_rewards.core.verifier import Batch
    from rsw_rewards.verifiers.change_masks import ChangeMask

    truth = np.zeros((16, 24), np.uint8)
    truth[:8] = 255
    path = tiff(tmp_path / "m.tif", truth[None], mask=HALF)
    sample = Sample("a", "change_mask", reference={"mask": ImageRef(path=path)})
    wrong_outside = np.where(HALF, truth > 0, truth == 0)
    (score,) = ChangeMask().score(Batch.of([sample], [Output("a", mask=wrong_outside)]))
    assert score.value == 1.0 and score.stats["confusion"].sum() == HALF.sum()


class _Server(BaseHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_error(404)

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    handler = type("Handler", (_Server,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()


def test_a_raster_opens_no_address_and_no_other_file(
    tmp_path: Path, server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rsw_rewards.data import rasters

    url, asked = server
    pixels = np.full((1, 512, 512), 3, np.uint8)
    secret = tiff(tmp_path / "secret.tif", np.full((1, 256, 256), 77, np.uint8))
    monkeypatch.setattr(rasters, "MAX_PIXELS", 1024)  # so that it is read in parts
    monkeypatch.setattr(rasters, "SAMPLED_PIXELS", 256 * 256)
    for place, overview in enumerate((f"/vsicurl/{url}/x.tif", str(secret))):
        path = tiff(tmp_path / f"{place}.tif", pixels, tags={"OVERVIEW_FILE": overview})
        raster = open_raster(path)
        assert raster.array is None
        small, data = raster.overview()
        assert small.shape == (1, 256, 256) and set(np.unique(small)) == {3} and data is None
        assert (raster.window(4, 4, 8, 8)[0] == 3).all() and (read_pixels(path) == 3).all()
    notes = f'<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">/vsicurl/{url}/o.tif</MDI></Metadata></PAMDataset>'
    (tmp_path / "0.tif.aux.xml").write_text(notes)
    (tmp_path / "0.tif.ovr").symlink_to(secret)
    assert (open_raster(tmp_path / "0.tif").overview()[0] == 3).all()
    assert asked == []


def test_a_file_beside_a_raster_that_would_change_its_values_is_told(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", np.full((1, 8, 8), 3, np.uint8))
    (tmp_path / "a.tif.aux.xml").write_text(
        "<PAMDataset><Metadata><MDI key='STATISTICS_MEAN'>3</MDI></Metadata></PAMDataset>"
    )
    assert (read_pixels(path) == 3).all()
    (tmp_path / "a.tif.aux.xml").write_text(
        "<PAMDataset><PAMRasterBand band='1'><NoDataValue>3</NoDataValue></PAMRasterBand></PAMDataset>"
    )
    with pytest.raises(ImageError, match=r"a\.tif\.aux\.xml, which is not read; write them into the raster"):
        open_raster(path)
    (tmp_path / "a.tif.aux.xml").unlink()
    (tmp_path / "a.tif.msk").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ImageError, match=r"mask in the file a\.tif\.msk"):
        read_pixels(path)


def test_memory_is_bounded_by_what_a_header_declares(tmp_path: Path) -> None:
    sparse: dict[str, Any] = {"driver": "GTiff", "sparse_ok": True, "tiled": True}
    for name, kind, side, count in (("c.tif", "complex128", 8192, 1), ("f.tif", "float64", 8192, 2)):
        with rasterio.open(tmp_path / name, "w", dtype=kind, count=count, height=side, width=side, **sparse):
            pass
        with pytest.raises(ImageError, match=r"complex numbers|more than the 536,870,912 bytes"):
            read_pixels(tmp_path / name)
    assert open_raster(tmp_path / "f.tif").array is None  # read by window
    with rasterio.open(tmp_path / "b.tif", "w", dtype="uint8", count=4097, height=8, width=8, **sparse):
        pass
    with pytest.raises(ImageError, match="4,097 bands, more than the 4,096"):
        read_pixels(tmp_path / "b.tif")
    long = b"\x93NUMPY\x02\0" + struct.pack("<I", 2**32 - 10)
    (tmp_path / "long.npy").write_bytes(long + b" " * 100_000)
    with zipfile.ZipFile(tmp_path / "long.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", long + b" " * (1 << 22))
    for name in ("long.npy", "long.npz"):
        with pytest.raises(ImageError, match="cannot be read as a NumPy image"):
            read_pixels(tmp_path / name)
    stream = io.BytesIO()
    np.save(stream, np.zeros((4, 4), np.uint8))
    (tmp_path / "ok.npy").write_bytes(stream.getvalue())
    assert read_pixels(tmp_path / "ok.npy").shape == (4, 4)


def test_only_the_last_band_is_left_out_as_alpha(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    profile = {"driver": "GTiff", "count": 4, "height": 2, "width": 2, "dtype": "uint16", "alpha": "yes"}
    with rasterio.open(tmp_path / "a.tif", "w", **profile) as file:  # grey bands, of which it marks the second
        file.write(np.arange(16, dtype=np.uint16).reshape(4, 2, 2))
    assert read_pixels(tmp_path / "a.tif").shape == (2, 2, 4)
    with pytest.raises(ImageError, match=r"a\.tif has band 2 of 4 marked as alpha; only the last"):
        read_pixels(tmp_path / "a.tif", bands=3)


def test_the_palette_of_a_raster_with_an_alpha_band(tmp_path: Path) -> None:
    indices = np.arange(6, dtype=np.uint8).reshape(2, 3) % 4
    colours = np.array([[0, 0, 0], [200, 10, 20], [30, 90, 40], [255, 255, 0]], np.uint8)
    alpha = np.array([[255, 0, 255], [255, 255, 255]], np.uint8)
    table = {place: (*map(int, colour), 255) for place, colour in enumerate(colours)}
    path = tiff(tmp_path / "p.tif", np.stack([indices, alpha]), colours=table, photometric="palette", alpha="yes")
    assert (read_rgb(ImageRef(path=path)) == colours[indices]).all()
    data = read_data(ImageRef(path=path))
    assert data is not None and (data == (alpha > 0)).all()


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_what_is_transparent_in_a_picture_holds_no_data(tmp_path: Path, suffix: str) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    alpha = np.full((8, 12), 255, np.uint8)
    turned = Image.Exif()
    for transparent, exif in ((0, None), (3, None), (3, turned)):
        alpha[:, :transparent] = 0
        if exif is not None:
            exif[0x112] = 6
        more = {"lossless": True, "exact": True} if suffix == "webp" else {}
        path = tmp_path / f"{transparent}{exif is None}.{suffix}"
        Image.fromarray(np.dstack([colours, alpha])).save(path, **more, **({} if exif is None else {"exif": exif}))
        data = read_data(ImageRef(path=path))
        seen = (alpha > 0) if exif is None else np.rot90(alpha > 0, -1)
        assert (data is None and seen.all()) or (data is not None and (data == seen).all())
        assert read_rgb(ImageRef(path=path)).shape[:2] == seen.shape
    Image.fromarray(colours).save(tmp_path / "before.png")
    asked = Sample("s", "forecast", (tmp_path / "before.png",), reference={"images": [tmp_path / "before.png"]})  # type: ignore[arg-type]
    for name, status in (("0True", "ok"), ("3True", "invalid_output")):
        (found,) = rsw.rewards(
            {"l1": 1.0}, [asked], [Output("s", image=tmp_path / f"{name}.{suffix}")]
        ).scores.itertuples()  # type: ignore[arg-type]
        assert found.status == status, found.reason


def test_the_reason_of_a_broken_header_is_the_same_in_every_process(tmp_path: Path) -> None:
    file = tmp_path / "broken.npy"
    np.save(file, np.zeros((4, 4), np.uint8))
    file.write_bytes(file.read_bytes().replace(b"(4, 4)", b"f(4,4)"))
    with pytest.raises(ImageError, match="cannot be read as a NumPy image") as caught:
        read_pixels(file)
    assert " at 0x" not in str(caught.value)
