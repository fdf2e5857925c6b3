"""Adapter ``era``: ERA, events in aerial videos (Mou et al., arXiv 2001.11394, lcmou.github.io/ERA_Dataset).

Expected: ``Train`` and ``Test`` (or one of them as the source), in each a folder per class, and in that a folder per clip that
holds its frames as images in order. The data set comes as one video per clip, which is not decoded here: extract the frames
first, for a clip ``Fire_001_02.mp4`` into a folder ``Fire_001_02`` beside it.

A clip is called by its class, its source video and its number in that: ``Traffic_Jam_017_02``. Clips of one video are one scene.
The folders have short names of their own (``Normal``, ``Traffic_Jam``, ``running``); labels and prompts take the 25 names of the paper.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rsw_rewards.data.adapter import Conversion, conversion
from rsw_rewards.data.layout import ImageFolder, choose_parts, data_folder, find_folder, inside, natural
from rsw_rewards.errors import ConfigError, InputError

CLASSES = (
    "post-earthquake", "flood", "fire", "landslide", "mudslide", "traffic collision", "traffic congestion", "harvesting",
    "ploughing", "constructing", "police chase", "conflict", "baseball", "basketball", "boating", "cycling", "running",
    "soccer", "swimming", "car racing", "party", "concert", "parade/protest", "religious activity", "non-event",
)  # fmt: skip
"""The names of the classes in the paper, whose tables are about a choice among all of them."""

_FOLDERS = {"normal": "non-event", "trafficjam": "traffic congestion"}
"""Folders that share no word with the paper's name, by their letters alone."""
_CLIP = re.compile(r"(.+_[0-9]+)_[0-9]+")
_SPLITS = ("Train", "Test")
_VIDEOS = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".m4v"})


def evenly(total: int, wanted: int) -> list[int]:
    """Indices of ``wanted`` frames out of ``total``, the middles of equal spans; all of them where there are no more."""
    if total <= wanted:
        return list(range(total))
    return [(2 * place + 1) * total // (2 * wanted) for place in range(wanted)]


def _entries(folder: Path, source: Path) -> list[Path]:
    """What a folder holds, in natural order, without hidden entries."""
    try:
        found = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from error
    return [inside(entry, source) for entry in sorted(found, key=lambda entry: natural(entry.name))]


def _clips(folder: Path, source: Path) -> list[Path]:
    """The folders of frames of a class. Raises :class:`InputError` for a clip that is only there as a video."""
    entries = _entries(folder, source)
    clips = [entry for entry in entries if entry.is_dir()]
    stems = {clip.name for clip in clips}
    for entry in entries:
        if entry.suffix.lower() in _VIDEOS and entry.stem not in stems:
            raise InputError(
                f"{entry} is a video, which is not decoded; extract its frames: mkdir {entry.stem} && ffmpeg -i {entry.name} -vf fps=2 {entry.stem}/%04d.png"
            )
    return clips


def _letters(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalpha())


def class_of(folder: str) -> str | None:
    """The paper's name for a class folder; None where none of them, or more than one, shares its letters.

    >>> class_of("Traffic_Jam"), class_of("Parade"), class_of("running"), class_of("Traffic")
    ('traffic congestion', 'parade/protest', 'running', None)
    """
    own = _letters(folder)
    if own in _FOLDERS:
        return _FOLDERS[own]
    equal = [name for name in CLASSES if _letters(name) == own]
    found = equal or [name for name in CLASSES if own and own in _letters(name)]
    return found[0] if len(found) == 1 else None


def scene_of(clip: str) -> str:
    """The source video of a clip, ``Traffic_Jam_017`` for ``Traffic_Jam_017_02``; otherwise the name itself."""
    found = _CLIP.fullmatch(clip)
    return found[1] if found else clip


def _samples(source: Path, split: str, labels: dict[Path, str], frames: int) -> Iterator[dict[str, Any]]:
    prompt = f"Which event does the clip show? Answer with one of: {', '.join(CLASSES)}."
    for place, label in labels.items():
        for clip in _clips(place, source):
            images = ImageFolder(clip, source)
            stems = images.stems
            if not stems:
                raise InputError(f"{clip} holds no images; it should hold the frames of the clip")
            name = f"{place.name}/{clip.name}"
            yield {
                "id": f"era/{split.lower()}/{name}",
                "task": "classification",
                "scene": f"era/{place.name}/{scene_of(clip.name)}",
                "images": [images[stems[index]] for index in evenly(len(stems), frames)],
                "prompt": prompt,
                "reference": {"label": label, "vocabulary": list(CLASSES)},
                "metadata": {"dataset": "era", "split": split.lower(), "frames": len(stems)},
            }


def convert(
    source: Path, out: Path, *, split: str | None = None, limit: int | None = None, frames: int = 8
) -> Conversion:
    """Write classification samples, frames as images. See :class:`rsw_rewards.data.adapter.Adapter`.

    Args:
        source, out, split, limit: as there; without ``split`` both are written.
        frames: how many frames of a clip are shown, evenly spaced; all of them where a clip has no more.
    """
    if not isinstance(frames, int) or isinstance(frames, bool) or frames < 1:
        raise ConfigError(f"'frames' must be a whole number from 1, not {frames!r}")
    source = data_folder(source, "ERA's Train and Test")
    found = {name: place for name in _SPLITS if (place := find_folder(source, name)) is not None}
    if not found and source.name.capitalize() in _SPLITS:
        found = {source.name.capitalize(): source}
    expected = "Train and Test, in each a folder per class with a folder per clip"
    chosen = choose_parts(found, split, source, expected)
    labels = {name: _labels(place, source) for name, place in found.items()}
    records = (record for name in chosen for record in _samples(source, name, labels[name], frames))
    there = {label for name in chosen for label in labels[name].values()}
    few = f"{len(there)} of the {len(CLASSES)} classes were found: numbers over some classes are not comparable with the paper's"
    notes = [few if len(there) < len(CLASSES) else ""]
    return conversion(out, records, limit, f"the classes in {source} have no folders of frames", [source], notes)


def _labels(folder: Path, source: Path) -> dict[Path, str]:
    """Class folder -> the paper's name. Raises :class:`InputError` for a folder that is none of the classes."""
    labels: dict[Path, str] = {}
    for place in _entries(folder, source):
        if not place.is_dir():
            continue
        label = class_of(place.name)
        if label is None or label in labels.values():
            raise InputError(
                f"{place} is {'no' if label is None else 'a second'} folder of one of ERA's classes; rename it to one of: {', '.join(CLASSES).replace('/', '-')}"
            )
        labels[place] = label
    return labels
