"""Good records of every task, and the ways in which ``benchmarks/fuzz.py`` breaks them, their images and their files.

Everything is made on the spot from a seeded ``random.Random``. Image files are made when they are first named.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from PIL import Image
from rasterio.transform import from_origin

SIDE = 64
_NOISE = np.random.default_rng(0)
RGB = _NOISE.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
MASK = (_NOISE.random((SIDE, SIDE)) > 0.5).astype(np.uint8) * 255
INDEX = _NOISE.integers(0, 7, (SIDE, SIDE), np.uint8)
DAMAGE = _NOISE.integers(0, 5, (SIDE, SIDE), np.uint8)


def _pil(array: np.ndarray, mode: str | None = None, **options: Any) -> Callable[[Path], None]:
    image = Image.fromarray(array)
    return lambda path: (image.convert(mode) if mode else image).save(path, **options)


def _png(width: int, height: int, body: int = 0, depth: int = 8, kind: int = 0, more: tuple[bytes, int] | None = None):
    """A PNG that declares a size and holds ``body`` bytes of zeros; ``more`` is another chunk of so many compressed bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    def write(path: Path) -> None:
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
        extra = chunk(more[0], b"a\0\0" + zlib.compress(bytes(more[1]), 1)) if more else b""
        data = chunk(b"IDAT", zlib.compress(bytes(body), 1)) + chunk(b"IEND", b"")
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + extra + data)

    return write


def _npy(array: np.ndarray) -> Callable[[Path], None]:
    return lambda path: np.save(path, array, allow_pickle=True)


def _lying(shape: str, kind: str = "|u1", body: int = 10) -> bytes:
    """A .npy file whose header declares another shape or type than its ``body`` bytes have."""
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    head += b" " * ((64 - (len(head) + 11) % 64) % 64) + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(head)) + head + bytes(body)


def _zip(**members: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name.replace("_npy", ".npy"), data)

    return write


def _tif(array: np.ndarray | None, shape: tuple[int, int, int] = (1, SIDE, SIDE), kind: str = "uint8", overviews: str | None = None, **options: Any):  # fmt: skip
    def write(path: Path) -> None:
        bands, height, width = shape if array is None else array.shape
        kind_of = kind if array is None else array.dtype
        with rasterio.open(path, "w", driver="GTiff", height=height, width=width, count=bands, dtype=kind_of,
                           transform=from_origin(0, 0, 1, 1), **options) as raster:  # fmt: skip
            if array is not None:
                raster.write(array)
            if overviews:
                raster.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=overviews)

    return write


def _bytes(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None


_BANDS = np.moveaxis(RGB, -1, 0)
_TURNED = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
IMAGES: dict[str, Callable[[Path], Any]] = {
    "rgb.png": _pil(RGB), "other.png": _pil(255 - RGB), "mask.png": _pil(MASK), "index.png": _pil(INDEX), "damage.png": _pil(DAMAGE),
    "ones.png": _pil(np.full_like(MASK, 255)), "mask01.png": _pil(MASK // 255), "zeros.png": _pil(MASK * 0), "percent.png": _pil(MASK // 3),
    "bit1.png": _pil(MASK, "1"), "palette.png": _pil(RGB, "P"), "la.png": _pil(RGB, "LA"), "rgba.png": _pil(np.dstack([RGB, MASK])),
    "cmyk.jpg": _pil(RGB, "CMYK"), "mask.jpg": _pil(MASK), "exif.jpg": _pil(RGB, exif=_TURNED), "icc.png": _pil(RGB, icc_profile=bytes(100_000)),
    "deep.png": _pil(_NOISE.integers(0, 65535, (SIDE, SIDE), np.uint16)), "float.tiff": _pil(_NOISE.random((SIDE, SIDE), np.float32)),
    "int32.tiff": _pil(_NOISE.integers(0, 2**31, (SIDE, SIDE), np.int32)), "moving.gif": _pil(RGB, save_all=True, append_images=[Image.fromarray(255 - RGB)]),
    "moving.webp": _pil(RGB, save_all=True, append_images=[Image.fromarray(255 - RGB)]), "rgb.bmp": _pil(RGB), "rgb.ppm": _pil(RGB),
    "rgb.jp2": _pil(RGB), "pages.tiff": _pil(RGB, save_all=True, append_images=[Image.fromarray(RGB)] * 50), "tiff.png": _pil(RGB, format="TIFF"),
    "small.png": _pil(RGB[:1, :1]), "wide.png": _pil(np.tile(RGB[:1], (1, 64, 1))), "off.png": _pil(RGB[:63]), "mask_off.png": _pil(MASK[:, :63]),
    "bomb.png": _png(60000, 60000), "endless.png": _png(2**31 - 1, 2**31 - 1), "flat.png": _png(0, SIDE), "hollow.png": _png(SIDE, SIDE),
    "depth3.png": _png(SIDE, SIDE, 5000, depth=3), "no_palette.png": _png(SIDE, SIDE, 5000, kind=3), "overfull.png": _png(SIDE, SIDE, 50 << 20),
    "text_bomb.png": _png(SIDE, SIDE, 5000, more=(b"zTXt", 100 << 20)), "profile_bomb.png": _png(SIDE, SIDE, 5000, more=(b"iCCP", 100 << 20)),
    "largest.png": _png(8191, 8191, 8191 * 8192), "rgb.npy": _npy(RGB), "float.npy": _npy(_NOISE.random((SIDE, SIDE, 3))), "mask.npy": _npy(MASK > 0),
    "nan.npy": _npy(np.full((SIDE, SIDE, 3), np.nan)), "inf.npy": _npy(np.full((SIDE, SIDE), np.inf)), "complex.npy": _npy(np.zeros((SIDE, SIDE), complex)),
    "text.npy": _npy(np.full((SIDE, SIDE), "ab")), "dates.npy": _npy(np.zeros((SIDE, SIDE), "M8[s]")), "pickle.npy": _npy(np.array([[1, "a"], [None, {}]], object)),
    "negative.npy": _npy(np.full((SIDE, SIDE), -5, np.int16)), "wide.npy": _npy(np.full((SIDE, SIDE), 2**63 + 5, np.uint64)), "huge.npy": _npy(np.full((SIDE, SIDE, 3), 1e308)),
    "scalar.npy": _npy(np.array(3)), "four.npy": _npy(np.zeros((2, 2, 2, 2))), "void.npy": _npy(np.zeros((0, 5))), "records.npy": _npy(np.zeros((SIDE, SIDE), "i4,f4")),
    "short.npy": _bytes(_lying("(64, 64, 3)")), "vast.npy": _bytes(_lying("(1000000, 1000000)")), "minus.npy": _bytes(_lying("(-5, 64)")), "bool.npy": _bytes(_lying("(True, 64)")),
    "overflow.npy": _bytes(_lying(f"({2**70}, 64)")), "nothing.npy": _bytes(_lying("(64, 64)", "|V0")), "objects.npy": _bytes(_lying("(64, 64)", "|O", 64 * 64 * 8)),
    "rgb.npz": _zip(a_npy=_lying("(64, 64)", body=4096)), "two.npz": _zip(a_npy=_lying("(64, 64)", body=4096), b_npy=b""), "empty.npz": _zip(),
    "bomb.npz": _zip(a_npy=_lying("(64, 64)", body=100 << 20)), "vast.npz": _zip(a_npy=_lying("(100000, 100000)")), "climbing.npz": _zip(**{"../../x_npy": b"x"}),
    "rgb.tif": _tif(_BANDS), "mask.tif": _tif(MASK[None]), "nodata.tif": _tif(MASK[None], nodata=255), "rgba.tif": _tif(np.concatenate([_BANDS, MASK[None]]), photometric="RGB", alpha="YES"),
    "nan.tif": _tif(np.full((3, SIDE, SIDE), np.nan, np.float32)), "int16.tif": _tif(np.full((3, SIDE, SIDE), -3, np.int16)), "complex.tif": _tif(np.zeros((1, SIDE, SIDE), np.complex64)),
    "sparse.tif": _tif(None, (1, 200_000, 200_000), SPARSE_OK=True, BIGTIFF="YES", tiled=True), "bands.tif": _tif(None, (5000, SIDE, SIDE), SPARSE_OK=True, INTERLEAVE="BAND"),
    "largest.tif": _tif(None, (1, 8192, 8192), "complex128", SPARSE_OK=True, tiled=True), "hello.png": _bytes(b"hello"), "page.jpg": _bytes(b"<script>alert(1)</script>"),
    "script.eps": _bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n(%pipe%touch owned)(r)file\n"), "drawn.png": _bytes(b'<svg xmlns="http://www.w3.org/2000/svg"/>'),
    "empty.png": lambda path: path.touch(), "empty.tif": lambda path: path.touch(), "folder.png": lambda path: path.mkdir(), "pipe.png": os.mkfifo, "pipe.tif": os.mkfifo,
    "loop.png": lambda path: path.symlink_to("loop.png"), "null.png": lambda path: path.symlink_to("/dev/null"), "zero.tif": lambda path: path.symlink_to("/dev/zero"),
}  # fmt: skip
DECLARED = (
    {}, {"bands": [0, 0, 0]}, {"bands": [2, 1, 0]}, {"bands": [-1]}, {"bands": [10**30]}, {"bands": [True]}, {"stretch": [[0, 255]] * 3}, {"stretch": [[5, 5]]},
    {"stretch": [[-1e308, 1e308]] * 3}, {"nodata": 0}, {"nodata": float("nan")}, {"nodata": "x"}, {"palette": [[i, 0, 0] for i in range(300)]}, {"palette": [[0, 0, 0]] * 2},
    {"palette": []}, {"levels": [0, 255]}, {"levels": [0, 1]}, {"levels": [1, 1]}, {"levels": list(range(70000))}, {"threshold": 0.5}, {"threshold": float("inf")},
    {"date": "2020-13-77"}, {"date": 5}, {"role": "x"}, {"path": 3}, {"path": None}, {"unknown": 1},
)  # fmt: skip


class Files:
    """The folder of images, and beside it the folder that no record may read: what lies there is watched."""

    def __init__(self, work: Path, port: int) -> None:
        self.root, self.outside, self.port = work / "images", work / "outside", port
        self.root.mkdir(parents=True)
        self.outside.mkdir()
        for name in ("rgb.png", "mask.tif"):
            IMAGES[name](self.outside / name)
        self._links = {
            "link.png": self.outside / "rgb.png", "link.tif": self.outside / "mask.tif", "away": self.outside, "up": Path("..")
        }  # fmt: skip
        self._count = 0

    def path(self, name: str) -> str:
        """The path of an image relative to the root, made where it is not there."""
        file = self.root / name
        if not file.exists() and not file.is_symlink():
            IMAGES[name](file)
        return name

    def any_path(self, rng: random.Random) -> str:
        """A path of any kind: of a good or a bad image, a broken copy of one, a link, or of no image at all."""
        dice = rng.random()
        if dice < 0.55:
            return self.path(rng.choice(list(IMAGES)))
        if dice < 0.7:
            return self.broken(rng)
        if dice < 0.8:
            return self.raster_elsewhere(rng)
        for name, target in self._links.items():
            if not (self.root / name).is_symlink():
                (self.root / name).symlink_to(target)
        outside, web = self.outside / "rgb.png", f"http://127.0.0.1:{self.port}/a.png"
        return rng.choice([
            *self._links, "up/outside/rgb.png", "away/rgb.png", "", ".", "..", "../outside/rgb.png", str(outside), "/etc/passwd", f"file://{outside}", web, "/vsicurl/" + web,
            f"vsicurl/{web}", "/vsizip/rgb.npz", "/dev/zero", "\0.png", "a" * 300 + ".png", "a/" * 3000 + "x.png", "rgb.png ", "RGB.PNG", "~/x.png", "\u202ergb.png",
            "GTIFF_DIR:1:rgb.tif", "NETCDF:rgb.tif", "rgb.tif,rgb.tif", "data:image/png;base64,AAAA", "zip://rgb.npz!a", "<img src=x onerror=alert(1)>.png", "*.png", "-",
        ])  # fmt: skip

    def broken(self, rng: random.Random) -> str:
        """A copy of an image cut off, with other bytes, compressed as a whole, or under the name of another format."""
        source = rng.choice(
            [name for name in IMAGES if name.startswith(("rgb.", "mask.", "moving.", "pages.", "float."))]
        )
        data = broken_bytes(rng, (self.root / self.path(source)).read_bytes(), header=200)
        self._count += 1
        suffix = Path(source).suffix if rng.random() < 0.8 else rng.choice([".png", ".tif", ".npy", ".jpg", ".npz"])
        (self.root / f"broken{self._count}{suffix}").write_bytes(data)
        return f"broken{self._count}{suffix}"

    def raster_elsewhere(self, rng: random.Random) -> str:
        """A GeoTIFF whose overviews, mask or source lie elsewhere: outside the root, or behind an address."""
        self._count += 1
        file = self.root / f"elsewhere{self._count}.tif"
        aim = rng.choice([str(self.outside / "mask.tif"), f"/vsicurl/http://127.0.0.1:{self.port}/o.tif"])
        way = rng.randrange(4)
        if way == 0:
            band = f'<SimpleSource><SourceFilename relativeToVRT="0">{aim}</SourceFilename></SimpleSource>'
            file.write_text(f'<VRTDataset rasterXSize="64" rasterYSize="64"><VRTRasterBand dataType="Byte" band="1">{band}</VRTRasterBand></VRTDataset>')  # fmt: skip
            return file.name
        _tif(MASK[None], overviews=aim if way == 1 else None)(file)
        if way == 2:
            file.with_name(file.name + ".msk").symlink_to(self.outside / "mask.tif")
        if way == 3:
            overview = f'<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{aim}</MDI></Metadata>'
            file.with_name(file.name + ".aux.xml").write_text(f"<PAMDataset>{overview}</PAMDataset>")
        return file.name

    def tidy(self) -> None:
        """Remove what was made for one round."""
        for pattern in ("broken*", "elsewhere*"):
            for file in self.root.glob(pattern):
                file.unlink()


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


TEXTS = (
    "<answer>yes</answer>", "<answer>no</answer><answer>yes</answer>", "<answer>" * 2000, "<think>yes", "<think><answer>no</answer></think>yes", "yes. " * 20_000, "y" * 1_000_000,
    "between 1 and 3", "three", "-3", "1e999", "9" * 5000, "0x3", "3 m2", "3 km²", "٣", "½", "Ⅳ", "A, B", "(A)", "[" * 5000, "{" * 5000, '[{"object": 1}]', '{"river": NaN}', "(" * 50_000,
    "roads [] buildings []", "yes\u200b", "\u202eyes", "\uff59\uff45\uff53", "\u0443es", "e" + "\u0301" * 5000, "\0", "\ud7ff\U0010ffff", "", " ", "\n" * 10_000, "road " * 50_000, "<script>alert(1)</script>",
)  # fmt: skip
ODD = (
    None, True, False, 0, -1, 1, 0.5, 2**31, 2**63, 10**400, 1e308, 5e-324, float("nan"), float("inf"), -float("inf"), "NaN", [], {}, [[]], [None], [{}], {"a": 1}, [1, 2, 3, 4],
    ["yes"], nested(400), "\ud800", [True], [1e999] * 4, ["a", "a"], {"": ""}, "change_qa", "river", [0] * 10_000, "yes", "no", "3", "A",
)  # fmt: skip


def boxes(rng: random.Random) -> Any:
    """Boxes, and what is none: degenerate, reversed, far off, not finite, of other lengths, crossed or very many."""

    def number() -> Any:
        return rng.choice([rng.uniform(-10, 80), rng.randrange(64), 0, -0.0, float("nan"), float("inf"), 1e6, 1e308, 5e-324, 10**30, True, None, "3"])  # fmt: skip

    def one() -> Any:
        corners = [0, 0, 10, 10, 10, 0, 0, 10]
        return rng.choice([[number() for _ in range(rng.choice([4, 4, 8, 3, 5, 0]))], [5, 5, 5, 5], [5, 5, 4, 4], [1] * 8, corners, [0, 0, 1e-5, 0, 1e-5, 1e-5, 0, 1e-5], number()])  # fmt: skip

    return rng.choice([[one()], [one(), one()], [[0, 0, 64, 64]] * rng.choice([2, 100, 5000]), one(), [[one()]]])


def sample(rng: random.Random, task: str, number: int, form: int) -> dict[str, Any]:
    """A good sample of a task. ``form`` chooses among the references that a task may have."""
    forms = {
        "change_qa": [
            {"answers": ["yes"], "vocabulary": ["yes", "no"]}, {"answers": ["3"]}, {"answers": ["12%"]}, {"answers": ["A"], "choices": ["a road", "a pond"]},
            {"answers": ["2 new roads and 5 new buildings"]}, {"answers": ["roads ['top-left'] buildings []"]}, {"answers": ["yes"] * 6 + ["no"] * 4}, {"answers": ["0_to_10"]},
            {"changes": [{"object": "house", "change": "appeared"}]}, {"answers": ["3"], "unit": "m2", "mask": "mask.png"},
        ],
        "change_caption": [{"captions": [f"road {number} was built near the wood", "a new road appears"], "changed": True}, {"captions": ["there is no difference", f"place {number} is as it was"], "changed": False}],
        "change_mask": [{"mask": "mask.png"}, {"mask": "index.png", "classes": list("abcdefg")}, {"mask": "mask.png", "valid": "ones.png"}, {"mask": {"path": "mask01.png", "levels": [0, 1]}}],
        "semantic_change": [{"map_before": "index.png", "map_after": "index.png"}, {"map_before": "index.png", "map_after": "index.png", "classes": list("abcdefg")}],
        "damage": [{"buildings": "damage.png", "damage": "damage.png"}],
        "forecast": [
            {"images": ["other.png"], "mask": "mask.png", "text": f"road {number}"}, {"images": ["rgb.bmp"], "text": f"road {number}"},
            {"images": ["other.png"], "mask": "mask.png", "valid": "ones.png", "clouds": "zeros.png", "text": f"pond {number}"}, {"images": ["float.npy"] * 2},
        ],
        "grounding": [{"boxes": [[1, 2, 30, 40]]}, {"mask": "mask.png"}, {"boxes": []}, {"boxes": [[1, 2, 30, 40], [5, 5, 20, 20]]}],
        "classification": [{"label": "river", "vocabulary": ["river", "beach"]}, {"labels": ["river", "beach"], "vocabulary": ["river", "beach", "port"]}],
    }[task]  # fmt: skip
    images = ["rgb.png", "other.png"] if task.startswith(("change", "semantic", "damage")) else ["rgb.png"]
    return {
        "id": f"s{number}", "task": task, "scene": f"p{number // 2}", "kind": rng.choice(["a", "b", None]), "images": images,
        "prompt": f"what is new? {number}", "reference": forms[form % len(forms)], "metadata": {},
    }  # fmt: skip


def answer(record: dict[str, Any], candidate: int = 0) -> dict[str, Any]:
    """The prediction that says what a sample's own reference says."""
    truth, task = record.get("reference") or {}, record["task"]

    def first(key: str) -> Any:
        """The first text of a list; a whole number is a true answer as well."""
        held = truth.get(key)
        found = held[0] if isinstance(held, list) and held else None
        return str(found) if type(found) is int else found

    found = {
        "change_qa": lambda: {"text": json.dumps(truth["changes"]) if "changes" in truth else first("answers")},
        "change_caption": lambda: {"text": first("captions")},
        "change_mask": lambda: {"mask": truth.get("mask")},
        "semantic_change": lambda: {key: truth.get(key) for key in ("map_before", "map_after")},
        "damage": lambda: {key: truth.get(key) for key in ("buildings", "damage")},
        "forecast": lambda: {"images": truth.get("images")},
        "grounding": lambda: {key: truth[key] for key in ("boxes", "mask") if key in truth},
        "classification": lambda: {"text": truth.get("label") or ", ".join(map(str, truth.get("labels") or []))},
    }[task]()  # fmt: skip
    return {"id": record["id"], "candidate": candidate, **found}


def mutated(rng: random.Random, value: Any, files: Files) -> Any:
    """The value with one place of it changed: left out, doubled, moved, or of another type or content."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key, dice = rng.choice(list(value)), rng.random()
        if dice < 0.1:
            return {name: item for name, item in value.items() if name != key}
        if dice < 0.17:
            return {**value, rng.choice(["", "x", "\0", "__proto__", "images", "mask", "lost", "invalid", "levels"]): rng.choice(ODD)}  # fmt: skip
        if key == "boxes":
            return {**value, key: boxes(rng)}
        return {**value, key: mutated(rng, value[key], files)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        place, dice = rng.randrange(len(value)), rng.random()
        if dice < 0.1:
            return value[:place] + value[place + 1 :]
        if dice < 0.2:
            return value * rng.choice([2, 50])
        return [*value[:place], mutated(rng, value[place], files), *value[place + 1 :]]
    if isinstance(value, str) and Path(value).suffix and rng.random() < 0.8:
        path = files.any_path(rng)
        return path if rng.random() < 0.7 else {"path": path, **rng.choice(DECLARED)}
    return rng.choice(ODD) if rng.random() < 0.5 else rng.choice(TEXTS)


def as_line(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


def broken_line(rng: random.Random, line: bytes) -> bytes:
    """A line of a JSON Lines file that is no record, or one that readers may differ about."""
    return rng.choice([
        line[: len(line) // 2], line.replace(b'"', b"'", 1), b"[" * 100_000, b"{" + b'"a":{' * 50_000, line.strip()[:-1] + b',"text":"\\ud800"}', b"\xff\xfe{}", b"1" * 5000, b'{"id":' + b"1" * 5000 + b"}",
        line.replace(b":", b":\0", 1), b"null", b"[]", b'"x"', line.strip()[:-1] + b',"id":"s0"}', line.decode().encode("utf-16"), b"\xef\xbb\xbf" + line, gzip.compress(line), b'{"id": NaN}',
    ]).replace(b"\n", b" ") + b"\n"  # fmt: skip


def broken_bytes(rng: random.Random, data: bytes, header: int = 0) -> bytes:
    """A file cut off, with other bytes (in its first ``header`` at times), doubled, compressed, in another encoding, or replaced."""
    dice, changed = rng.random(), bytearray(data)
    if dice < 0.3:
        return data[: rng.randrange(len(data) + 1)]
    if dice < 0.7 and data:
        reach = min(len(data), header) if header and rng.random() < 0.6 else len(data)
        for _ in range(rng.randrange(1, 20)):
            changed[rng.randrange(reach)] = rng.randrange(256)
        return bytes(changed)
    if dice < 0.8:
        place = rng.randrange(len(data) + 1)
        return data[:place] + rng.choice([b"\xff", b"\0", b"NaN", b"1e999", b'"', b"\\ud800", b"\n", b",", b"{", b": ", b"- "]) + data[place:]  # fmt: skip
    text = data.decode("utf-8", "replace")
    return rng.choice([b"", bytes(100), b"[]", b"{}", b"null", b"[" * 100_000, data * 2, gzip.compress(data), text.encode("utf-16"), b"\xef\xbb\xbf" + data, data.replace(b"\n", b"\r")])  # fmt: skip


def foreign(rng: random.Random, kind: str, ids: list[str], files: Files) -> tuple[str, bytes]:
    """The name and the bytes of another tool's file of answers, with mutations in most."""
    entries: Any = {
        "json": [{"id": name, "prediction": "yes"} for name in ids],
        "csv": [{"id": name, "prediction": "yes"} for name in ids],
        "lmms-eval": [{"doc_id": place, "doc": {"id": name}, "filtered_resps": ["yes"], "target": "yes"} for place, name in enumerate(ids)],
        "vlmevalkit": [{"index": name, "prediction": "yes"} for name in ids],
        "inspect": {"samples": [{"id": name, "epoch": 1, "output": {"choices": [{"message": {"content": "yes"}}]}} for name in ids]},
        "coco-captions": [{"image_id": name, "caption": "a road"} for name in ids],
    }[kind]  # fmt: skip
    if rng.random() < 0.6:
        entries = mutated(rng, entries, files)
    if kind == "csv" and isinstance(entries, list) and all(isinstance(row, dict) for row in entries):
        text = io.StringIO()
        table = csv.DictWriter(text, ["id", "prediction"], extrasaction="ignore")
        table.writeheader()
        table.writerows(entries)
        name, data = "a.csv", text.getvalue().encode("utf-8", "surrogatepass")
    elif kind == "lmms-eval" and isinstance(entries, list):
        name, data = "a.jsonl", b"".join(map(as_line, entries))
    elif kind == "inspect" and isinstance(entries, dict) and rng.random() < 0.4:
        held, name = io.BytesIO(), "a.eval"
        listed = entries.get("samples")
        with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
            for place, entry in enumerate(listed if isinstance(listed, list) else []):
                archive.writestr(
                    f"samples/{place}_epoch_1.json",
                    broken_bytes(rng, as_line(entry)) if rng.random() < 0.3 else as_line(entry),
                )
        data = held.getvalue()
    else:
        name, data = "a.json", as_line(entries)
    name = name + ".gz" if rng.random() < 0.1 else name
    return name, gzip.compress(data) if name.endswith(".gz") and rng.random() < 0.7 else broken_bytes(
        rng, data
    ) if rng.random() < 0.4 else data
