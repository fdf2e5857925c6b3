"""What adapters share: finding the folders, images and JSON files of a data set by tolerant names, and never leaving its folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard, TypeVar
from xml.etree import ElementTree

from rsw_rewards.errors import ConfigError, InputError, as_input_error
from rsw_rewards.io.text_files import load_json

SPLITS = ("train", "val", "test")

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})

MAX_FILES = 1 << 22
"""Most files that a folder of images may hold (4 million)."""

_T = TypeVar("_T")


def data_folder(source: Path, what: str, split: str | None = None) -> Path:
    """``source`` as a path.

    Args:
        source: what the user named.
        what: what the right folder holds, for the error.
        split: the split named by the user, where it becomes a part of file names.

    Raises:
        InputError: the source is not a folder, or the split is a path.
    """
    source = Path(source)
    if not source.is_dir():
        raise InputError(f"{source} is not a folder; give the one that holds {what}")
    if split is not None:
        plain_name(split, "--split")
    return source


def check_choice(value: Any, choices: Sequence[str], what: str) -> None:
    """Raise :class:`ConfigError` where an option of an adapter, called ``what``, is none of its choices."""
    if value not in choices:
        raise ConfigError(f"{what} is {' or '.join(map(repr, choices))}, not {value!r}")


def inside(path: Path, source: Path) -> Path:
    """``path``, once it is sure that neither ``..`` nor a link leads out of ``source``. Raises :class:`InputError` otherwise."""
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(source)):
        raise InputError(f"{path} leads out of {source}; move the files there, or give the folder that holds them all")
    return path


def plain_name(name: Any, where: str) -> str:
    """A file name out of a third party's file. Raises :class:`InputError` where it is a path, or no name at all."""
    if not isinstance(name, str) or name in ("", ".", "..") or any(sign in name for sign in "/\\\0"):
        raise InputError(f"the image name {name!r} in {where} is not a plain file name")
    return name


def find_entry(folder: Path, *names: str) -> Path | None:
    """The first of ``names`` that the folder has, in whatever case; None where it has none of them or does not exist."""
    for name in names:
        if (folder / name).exists():
            return folder / name
    try:
        known = {name.casefold(): name for name in sorted((entry.name for entry in folder.iterdir()), reverse=True)}
    except OSError:
        return None
    return next((folder / known[name.casefold()] for name in names if name.casefold() in known), None)


def find_folder(folder: Path, *names: str) -> Path | None:
    """Like :func:`find_entry`, for folders only."""
    found = find_entry(folder, *names)
    return found if found is not None and found.is_dir() else None


def needed(found: _T | None, otherwise: str) -> _T:
    """What was found. Raises :class:`InputError` with the sentence ``otherwise`` where it is None."""
    if found is None:
        raise InputError(otherwise)
    return found


def find_file(*places: Path) -> Path | None:
    """The first of the places that is a file; None where none is."""
    return next((place for place in places if place.is_file()), None)


def split_folders(source: Path, split: str | None = None) -> dict[str, Path]:
    """Where ``train``, ``val`` and ``test`` lie below a folder, and ``split`` where it is another one, in whatever case."""
    names = dict.fromkeys((*SPLITS, *([split] if split and split.lower() not in SPLITS else [])))
    return {name: find_folder(source, name) or source / name for name in names}


def natural(text: str) -> list[Any]:
    """A sort key that puts ``tile_2`` before ``tile_10``."""
    return [int(part) if part.isdecimal() and part.isascii() else part for part in re.split(r"([0-9]+)", text)]


def take(records: Iterable[_T], limit: int | None) -> Iterator[_T]:
    """The first ``limit`` records, or all of them."""
    return islice(iter(records), None if limit is None else max(limit, 0))


def choose_splits(found: Iterable[str], split: str | None, source: Path) -> list[str]:
    """The splits to convert: all that were found, or the one named, in whatever case.

    Raises:
        InputError: the one named is not there.
    """
    known = list(found)
    if split is None:
        return known
    for name in known:
        if name.casefold() == split.casefold():
            return [name]
    raise InputError(f"{source} holds the splits {', '.join(known)}, not {split!r}")


def choose_parts(places: Mapping[str, _T | None], split: str | None, source: Path, expected: str) -> dict[str, _T]:
    """Where the splits to convert lie, of the places of all; a place is None where a split is not there.

    Raises:
        InputError: none is there, and ``expected`` says what the source should hold; or the one named is not there.
    """
    found = {name: place for name, place in places.items() if place is not None}
    if not found:
        raise InputError(f"{source} should hold {expected}")
    return {name: found[name] for name in choose_splits(found, split, source)}


def only_split(known: Iterable[str], what: str | Path) -> str:
    """The split of a data set that is converted where none is named. Raises :class:`InputError` where there are several."""
    first, *others = known
    if others:
        raise InputError(f"{what} holds the splits {', '.join([first, *others])}; name one with --split")
    return first


def check_fields(record: Mapping[str, Any], fields: Mapping[str, type | tuple[type, ...]], where: str) -> None:
    """Raise :class:`InputError` where a field of a record is not there or is of another type."""
    for field, kind in fields.items():
        if not isinstance(record.get(field), kind):
            raise InputError(f"{where} lacks {field!r} or has it of another type")


def read_list(file: Path) -> str:
    """The text of a list of names. Raises :class:`InputError`."""
    with as_input_error(f"the list {file} cannot be read", OSError, ValueError):
        return file.read_text("utf-8-sig")


MAX_XML_BYTES = 1 << 20
"""Largest annotation file that is read (1 MiB)."""


def read_xml(file: Path, source: Path) -> ElementTree.Element:
    """The root of an annotation file.

    Raises:
        InputError: unreadable, too large, out of ``source``, with a document type (entities could grow without bounds), or not XML.
    """
    inside(file, source)
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_XML_BYTES + 1)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    if len(data) > MAX_XML_BYTES or any(mark in data for mark in (b"<!DOCTYPE", b"<!ENTITY", b"\0")):
        raise InputError(
            f"{file} has a document type, zero bytes or more than {MAX_XML_BYTES:,} bytes; annotations have none of these"
        )
    with as_input_error(f"{file} is not valid XML", ElementTree.ParseError, ValueError, LookupError):
        return ElementTree.fromstring(data)


def read_json(file: Path, source: Path) -> Any:
    """What a JSON file holds.

    Raises:
        InputError: it leads out of ``source``, or :func:`load_json` raises.
    """
    inside(file, source)
    return load_json(file)


def read_records(file: Path, source: Path, key: str | None) -> list[dict[str, Any]]:
    """The objects in the list of a JSON file: the file itself, or what stands under ``key``.

    Raises:
        InputError: as :func:`read_json`, or there is no such list of objects.
    """
    loaded = read_json(file, source)
    records = loaded if key is None else loaded.get(key) if isinstance(loaded, dict) else None
    if not isinstance(records, list):
        raise InputError(f"{file} should be {'a list' if key is None else f'an object with a list {key!r}'}")
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            raise InputError(f"{file}: entry {number} should be an object, not {type(record).__name__}")
    return records


def read_entries(file: Path, source: Path, key: str | None = None) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """The number of each object of :func:`read_records`, the words that say where it stands, and the object. Raises :class:`InputError`."""
    for number, record in enumerate(read_records(file, source, key)):
        yield number, f"{file}: entry {number}" + ("" if key is None else f" of {key!r}"), record


def text_in(record: Mapping[str, Any], key: str, where: str) -> str:
    """The text under a key of a record. Raises :class:`InputError` where there is none."""
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where} has no {key!r} that is a text")
    return value


def is_texts(value: Any) -> TypeGuard[list[str]]:
    """Whether a value is a list of texts, at least one."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)


def _split(name: str) -> tuple[str, str]:
    path = PurePosixPath(name)
    return path.stem, path.suffix


class ImageFolder:
    """The image files of one folder, found by name even where suffix or case differ from what an annotation says."""

    def __init__(self, folder: Path, source: Path) -> None:
        self.folder, self.source = inside(folder, source), source
        self._prefix = folder.relative_to(source).as_posix()
        self._names: set[str] = set()
        self._by_stem: dict[str, list[str]] = {}
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    stem, suffix = _split(entry.name)
                    if suffix.lower() not in IMAGE_SUFFIXES or entry.name.startswith("."):
                        continue
                    if entry.is_symlink():
                        inside(Path(entry.path), source)
                    self._names.add(entry.name)
                    self._by_stem.setdefault(stem.casefold(), []).append(entry.name)
                    if len(self._names) > MAX_FILES:
                        raise InputError(f"{folder} holds more than {MAX_FILES:,} images; split it")
        except OSError as error:
            raise InputError(f"{folder} cannot be read: {error.strerror}") from error

    def __len__(self) -> int:
        return len(self._names)

    @property
    def stems(self) -> list[str]:
        """Names without suffix, in natural order. Raises :class:`InputError` where two files have one."""
        for names in self._by_stem.values():
            if len(names) > 1:
                first, second, *_ = sorted(names)
                raise InputError(f"{self.folder} holds {first} and {second}; names must differ in more than the suffix")
        return sorted((_split(name)[0] for name in self._names), key=natural)

    def get(self, name: str) -> str | None:
        """The path, relative to the source, of the image called ``name`` (with a suffix or without); None if there is none.

        Raises:
            InputError: only files of other suffixes or case are there, and more than one.
        """
        if name not in self._names:
            stem, suffix = _split(name)
            names = self._by_stem.get((stem if suffix.lower() in IMAGE_SUFFIXES else name).casefold(), [])
            if len(names) > 1:
                raise InputError(f"{self.folder} has no {name} but {' and '.join(sorted(names)[:2])}; keep one of them")
            if not names:
                return None
            name = names[0]
        return name if self._prefix == "." else f"{self._prefix}/{name}"

    def __getitem__(self, name: str) -> str:
        found = self.get(name)
        if found is None:
            raise InputError(f"the image {name} was expected in {self.folder}")
        return found


def images_named(name: str, folders: Sequence[ImageFolder] | None, expected: Sequence[str]) -> list[str]:
    """The images of one name, one in each folder; below the ``expected`` folders where a copy has no imagery at all."""
    return [f"{place}/{name}" for place in expected] if folders is None else [folder[name] for folder in folders]


def image_folders(parent: Path, source: Path, names: Sequence[Sequence[str]]) -> list[ImageFolder] | None:
    """A folder per role below ``parent``, each under the first of its ``names`` that is there; None unless all are there."""
    found = [find_folder(parent, *options) for options in names]
    present = [folder for folder in found if folder is not None]
    return [ImageFolder(folder, source) for folder in present] if len(present) == len(names) else None


def split_parts(
    source: Path, split: str | None, names: Sequence[Sequence[str]], expected: str
) -> dict[str | None, list[ImageFolder]]:
    """The :func:`image_folders` of the splits to convert, which lie in a folder each; the only key is None where they lie in the source itself.

    Raises:
        InputError: neither is there, and ``expected`` says what the source should hold; or the split named is not there.
    """
    found = {name: image_folders(place, source, names) for name, place in split_folders(source, split).items()}
    below = {name: folders for name, folders in found.items() if folders is not None}
    if below:
        return {name: below[name] for name in choose_splits(below, split, source)}
    return {None: needed(image_folders(source, source, names), f"{source} should hold {expected}")}
