"""Adapter ``refsegrs``: RefSegRS (Yuan et al., arXiv 2306.08625, huggingface.co/datasets/JessicaYuan/RefSegRS).

Expected: ``images`` and ``masks`` with ``<id>.tif``, and ``output_phrase_<split>.txt`` (train, val, test) with lines
``<id> <expression>``. In a mask values over 50 are meant, as loaders in the line of RMSIN read it; the authors published no loader.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.data.adapter import Conversion, conversion
from rsw_rewards.data.layout import (
    SPLITS,
    ImageFolder,
    choose_splits,
    data_folder,
    find_folder,
    inside,
    plain_name,
)
from rsw_rewards.data.referring import expression, write_mask
from rsw_rewards.errors import InputError, as_input_error
from rsw_rewards.io.images import read_index

THRESHOLD = 50
"""Largest value in a mask that is not meant."""
MAX_PHRASE_BYTES = 1 << 26
"""Largest file of phrases that is read (64 MiB)."""

_PHRASES = "output_phrase_{}.txt"


def _phrases(file: Path, source: Path) -> Iterator[tuple[str, str]]:
    """Id and expression of every line. Raises :class:`InputError` with file and line."""
    inside(file, source)
    with as_input_error(f"{file} cannot be read", OSError, UnicodeDecodeError):
        if file.stat().st_size > MAX_PHRASE_BYTES:
            raise InputError(f"{file} has more than the {MAX_PHRASE_BYTES:,} bytes that are read; divide it")
        lines = file.read_text("utf-8-sig").split("\n")
    for number, line in enumerate(lines, start=1):
        key, _, text = line.strip().partition(" ")
        if not key:
            continue
        if not text.strip():
            raise InputError(f"{file}:{number}: {line.strip()[:60]!r} should be an id, a blank and an expression")
        yield plain_name(key, f"{file}:{number}"), text.strip()


class _Masks:
    """Masks by id: the files themselves where they hold 0 and 255, else copies in the output that do."""

    def __init__(self, folder: ImageFolder, source: Path, out: Path) -> None:
        self.folder, self.source, self.out, self.written = folder, source, out, 0
        self._known: dict[str, str] = {}

    def __getitem__(self, key: str) -> str:
        if key not in self._known:
            self._known[key] = self._find(key)
        return self._known[key]

    def _find(self, key: str) -> str:
        path = self.folder[f"{key}.tif"]
        pixels = read_index(ImageRef(path=self.source / path))
        if ((pixels == 0) | (pixels == 255)).all():
            return path
        marked = pixels > THRESHOLD
        if not marked.any():
            raise InputError(
                f"{self.source / path} marks with values to {pixels.max()}; RefSegRS marks with values over {THRESHOLD}"
            )
        self.written += 1
        return write_mask(self.out, key, marked)


def _samples(source: Path, splits: list[str], images: ImageFolder, masks: _Masks) -> Iterator[dict[str, Any]]:
    for split in splits:
        seen = Counter[str]()
        for key, text in _phrases(source / _PHRASES.format(split), source):
            seen[key] += 1
            name = key if seen[key] == 1 else f"{key}_{seen[key]}"
            yield expression("refsegrs", split, name, images[f"{key}.tif"], text, masks[key])


def convert(source: Path, out: Path, *, split: str | None = None, limit: int | None = None) -> Conversion:
    """Write referring segmentation samples. See :class:`rsw_rewards.data.adapter.Adapter`.

    Without ``split`` all that are there are written. Masks that are not stored as 0 and 255 are written anew into ``out/masks``.
    """
    source, out = data_folder(source, "RefSegRS's images, masks and output_phrase_*.txt"), Path(out)
    found = [name for name in SPLITS if (source / _PHRASES.format(name)).is_file()]
    images, masks = find_folder(source, "images"), find_folder(source, "masks")
    if not found or images is None or masks is None:
        raise InputError(f"{source} should hold images, masks and output_phrase_train.txt, _val.txt or _test.txt")
    chosen = choose_splits(found, split, source)
    known = _Masks(ImageFolder(masks, source), source, out)
    records = _samples(source, chosen, ImageFolder(images, source), known)
    done = conversion(out, records, limit, f"the files output_phrase_*.txt in {source} are empty", [source])
    if known.written:
        done.notes.append(
            f"{known.written} masks were not stored as 0 and 255 and were written anew into {out / 'masks'}: values over {THRESHOLD} are meant"
        )
    return done
