"""How a Hugging Face data set is opened without running anything of it, and how its images become files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from rsw_rewards.data.layout import inside, only_split, plain_name, read_json
from rsw_rewards.errors import InputError
from rsw_rewards.extras import need
from rsw_rewards.io.images import write_png
from rsw_rewards.pixels import MAX_BYTES, read_pixels

if TYPE_CHECKING:
    from datasets import IterableDataset

_BUILDERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv"}
_SPLITS = {"train": "train", "test": "test", "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation"}  # fmt: skip
_NOT_DATA = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})
_TIFF = (b"II*\0", b"MM\0*")
_SIGNS = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", **dict.fromkeys(_TIFF, ".tif")}


def _pick(known: list[str], split: str | None, what: str) -> str:
    if split is not None and split not in known:
        raise InputError(f"{what} holds the splits {', '.join(known)}, not {split!r}")
    return only_split(known, what) if split is None else split


def _split_of(file: Path, folder: Path) -> str:
    """The split that a file belongs to, by its folder's name or the first word of its own; ``all`` where neither tells."""
    parts = file.relative_to(folder).parts
    first = file.stem.replace("-", "_").replace(".", "_").split("_")[0]
    return next((_SPLITS[word.lower()] for word in (first, *reversed(parts[:-1])) if word.lower() in _SPLITS), "all")


def _undecoded(data: IterableDataset) -> IterableDataset:
    try:
        return data.decode(False)
    except ValueError:  # a table of text, whose columns have no declared types: there is nothing to decode
        return data


def _saved(folder: Path, split: str | None) -> tuple[IterableDataset, str]:
    """What ``save_to_disk`` wrote: one data set, or a folder per split."""
    from datasets import load_from_disk

    if (folder / "dataset_dict.json").is_file():
        known = sorted(place.parent.name for place in folder.glob("*/state.json"))
        if not known:
            raise InputError(f"{folder} has a dataset_dict.json, but no split beside it")
        chosen = _pick(known, split, str(folder))
        folder = inside(folder / chosen, folder)
    else:
        chosen = split or "all"
    state = read_json(folder / "state.json", folder)
    files = state.get("_data_files") if isinstance(state, dict) else None
    for entry in files if isinstance(files, list) else []:
        name = entry.get("filename") if isinstance(entry, dict) else None
        inside(folder / plain_name(name, f"{folder / 'state.json'}"), folder)
    return load_from_disk(str(folder)).to_iterable_dataset(), chosen


def open_local(folder: Path, split: str | None) -> tuple[IterableDataset, str]:
    """A copy in a folder as a stream of undecoded rows, and the name of its split.

    Raises:
        InputError: no data are there, several splits and none named, or datasets cannot read them.
    """
    need("a data set in the form of Hugging Face", "datasets")
    from datasets import load_dataset

    try:
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            data, chosen = _saved(folder, split)
            return _undecoded(data), chosen
        # Files are listed here, and not by datasets, which would follow what a README in the folder says.
        files = [file for file in sorted(folder.rglob("*")) if file.suffix.lower() in _BUILDERS and file.is_file()]
        files = [inside(file, folder) for file in files if file.name not in _NOT_DATA and not file.name.startswith(".")]
        by_split: dict[str, list[Path]] = {}
        for file in files:
            by_split.setdefault(_split_of(file, folder), []).append(file)
        if not by_split:
            raise InputError(f"{folder} holds no Parquet, JSON or CSV files and was not written by save_to_disk")
        chosen = _pick(list(by_split), split, str(folder))
        suffixes = {file.suffix.lower() for file in by_split[chosen]}
        if len(suffixes) > 1:
            raise InputError(
                f"{folder} holds {' and '.join(sorted(suffixes))} files for {chosen}; keep those of one kind"
            )
        suffix = suffixes.pop()
        named = {"data": [str(file) for file in by_split[chosen]]}
        more: dict[str, Any] = {"sep": "\t"} if suffix == ".tsv" else {}
        data = load_dataset(_BUILDERS[suffix], data_files=named, split="data", streaming=True, **more)
        return _undecoded(data), chosen
    except InputError:
        raise
    except Exception as error:  # whatever a broken file makes datasets raise
        raise InputError(f"{folder} cannot be read: {type(error).__name__}: {error}") from error


def open_data(
    source: Path, name: str, split: str | None, config: str | None = None, revision: str | None = None
) -> tuple[IterableDataset, str, Path | None]:
    """The undecoded rows of a data set, the name of their split, and the folder that holds them; None for the hub.

    Args:
        source: ``-`` for the hub, or a folder that holds a copy.
        name: of the data set on the hub.
        split, config, revision: as for :func:`open_remote`.

    Raises:
        InputError: the data cannot be found or read.
    """
    if split is not None:
        plain_name(split, "--split")
    if str(source) == "-":
        return *open_remote(name, split, config, revision), None
    folder = Path(source)
    if not folder.is_dir():
        raise InputError(
            f"{folder} is not a folder; give '-' to read {name} from the hub, or a folder that holds a copy"
        )
    return *open_local(folder, split), folder


def open_remote(name: str, split: str | None, config: str | None, revision: str | None) -> tuple[IterableDataset, str]:
    """A data set on the hub as a stream of undecoded rows, and the name of its split. Raises :class:`InputError`."""
    need("a data set of the hub", "datasets")
    from datasets import load_dataset

    try:
        found = load_dataset(name, name=config, revision=revision, streaming=True)
        chosen = _pick([str(key) for key in found], split, name)
        return _undecoded(found[chosen]), chosen
    except InputError:
        raise
    except Exception as error:  # no such data set, no network, several configurations
        raise InputError(f"{name} cannot be read from the hub: {type(error).__name__}: {error}") from error


def read_rows(data: IterableDataset, name: str) -> Iterator[Mapping[str, Any]]:
    """The rows of an opened data set. Raises :class:`InputError` where one cannot be read."""
    try:
        yield from data
    except Exception as error:  # whatever a broken file or connection makes datasets raise
        raise InputError(f"{name} cannot be read: {type(error).__name__}: {error}") from error


class ImageWriter:
    """Turns the image values of rows into files, and says where they are."""

    def __init__(self, out: Path, split: str, folder: Path | None, name: str) -> None:
        self.out, self.split, self.folder, self.name = out, split, folder, name
        self.roots: list[Path] = []
        """The folder that was read, once some image stayed there."""

    def image(self, value: Any, stem: str, where: str) -> str:
        """The path of an image, relative to the output or to the folder that was read. Raises :class:`InputError`."""
        if isinstance(value, str) and self.folder is not None:
            self.roots[:] = [self.folder]
            return self._inside(value, where).relative_to(self.folder).as_posix()
        pixels = self._pixels(value, where)
        if pixels.dtype == bool:
            pixels = pixels.astype(np.uint8) * 255
        if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[-1] != 3):
            raise InputError(
                f"{where}: the image has shape {pixels.shape} of {pixels.dtype}; 8 bits in one or three bands are wanted, so stretch it first"
            )
        return self._write("images", stem, pixels)

    def as_stored(self, value: Any, stem: str, where: str) -> str:
        """The path of an image whose bytes are written as they are, however many pixels they hold. Raises :class:`InputError`."""
        data = value.get("bytes") if isinstance(value, Mapping) else None
        suffix = next(
            (suffix for sign, suffix in _SIGNS.items() if isinstance(data, bytes) and data.startswith(sign)), None
        )
        if data is None or suffix is None or len(data) > MAX_BYTES:
            return self.image(value, stem, where)
        path = f"images/{self.split}/{stem}{suffix}"
        (self.out / path).parent.mkdir(parents=True, exist_ok=True)
        (self.out / path).write_bytes(data)
        return path

    def mask(self, value: Any, stem: str, where: str) -> str:
        """The path of a mask as 0 and 255, relative to the output. Raises :class:`InputError` for other values."""
        pixels = self._pixels(value, where)
        if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
            pixels = pixels[..., 0]
        values = np.unique(pixels)
        if pixels.ndim != 2 or not (set(values.tolist()) <= {0, 1} or set(values.tolist()) <= {0, 255}):
            raise InputError(
                f"{where}: the mask has shape {pixels.shape} and the values {values[:6].tolist()}; 0 and 1 or 0 and 255 in one band are wanted"
            )
        return self._write("masks", stem, (pixels > 0).astype(np.uint8) * 255)

    def _write(self, kind: str, stem: str, pixels: np.ndarray) -> str:
        path = f"{kind}/{self.split}/{stem}.png"
        (self.out / path).parent.mkdir(parents=True, exist_ok=True)
        write_png(self.out / path, pixels)
        return path

    def _inside(self, path: str, where: str) -> Path:
        assert self.folder is not None
        named = PurePosixPath(path)
        if "\0" in path or ".." in named.parts or not (self.folder / named).is_file():
            raise InputError(f"{where} names the image {path[:80]!r}, which was expected in {self.folder}")
        file = inside(self.folder / named, self.folder)
        if not file.is_relative_to(self.folder):
            raise InputError(f"{where} names the image {path[:80]!r}; write it relative to {self.folder}")
        return file

    def _pixels(self, value: Any, where: str) -> np.ndarray:
        if isinstance(value, str) and self.folder is not None:
            return read_pixels(self._inside(value, where))
        if not isinstance(value, Mapping) or not {"bytes", "path"} & value.keys():
            raise InputError(f"{where} holds {str(value)[:60]!r} where an image was expected")
        data, path = value.get("bytes"), value.get("path")
        if data is None and isinstance(path, str):
            if self.folder is not None:
                return read_pixels(self._inside(path, where))
            data = self._fetch(path, where)
        if not isinstance(data, bytes) or not 0 < len(data) <= MAX_BYTES:
            raise InputError(f"{where} holds an image without contents, or one of more than {MAX_BYTES:,} bytes")
        # A file, so that every format goes through the reader that checks sizes first.
        self.out.mkdir(parents=True, exist_ok=True)
        incoming = self.out / (".incoming.tif" if data[:4] in _TIFF else ".incoming")
        try:
            incoming.write_bytes(data)
            return read_pixels(incoming)
        except InputError as error:
            raise InputError(f"{where}: {str(error).replace(str(incoming), 'the image')}") from error
        finally:
            incoming.unlink(missing_ok=True)

    def _fetch(self, path: str, where: str) -> bytes:
        """The bytes of a file on the hub that a row names. Only files of data sets there are fetched."""
        if not path.split("::")[-1].startswith("hf://datasets/"):
            raise InputError(f"{where} names the image {path[:80]!r}, which is no file of a data set on the hub")
        from datasets.utils.file_utils import xopen

        try:
            with xopen(path, "rb") as stream:
                return bytes(stream.read(MAX_BYTES + 1))
        except Exception as error:  # whatever the connection makes it raise
            raise InputError(f"{where}: the image {path[:80]!r} cannot be fetched: {error}") from error
