"""Questions with computed answers, and captions and forecast prompts, of one bi-temporal scene."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rsw_rewards.data.bins import RATIO_BINS, ratio_bin
from rsw_rewards.data.scene_world.land import CLASSES, EVENTS, PLACES, SIZES, Event

KINDS = (
    "change_or_not",
    "increase_or_not",
    "decrease_or_not",
    "largest_change",
    "smallest_change",
    "change_ratio",
    "change_ratio_types",
    "change_to_what",
    "new_buildings",
    "removed_buildings",
)
"""The eight question types of CDVQA and two counts."""

YES_NO = ("yes", "no")
MAX_COUNT = 30
COUNTS = tuple(str(n) for n in range(MAX_COUNT + 1))

_SPOKEN = {
    "water": "water",
    "NVG_surface": "ground",
    "low_vegetation": "low vegetation",
    "trees": "trees",
    "buildings": "buildings",
    "playgrounds": "playgrounds",
}
_REAL = np.arange(1, len(CLASSES))  # class indices without "unchanged"
_CLEAR_PX = 12  # per 4096 pixels: differences below are too close to call, and not asked about


@dataclass(frozen=True, slots=True)
class Question:
    """One question; ``vocabulary`` is the closed set that ``answer`` comes from."""

    kind: str
    prompt: str
    answer: str
    vocabulary: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClassAreas:
    """Pixels per class (length ``len(CLASSES)``, index 0 unused) that the questions are answered from."""

    gained: NDArray[np.int64]  # changed pixels by their class after
    lost: NDArray[np.int64]  # changed pixels by their class before
    transitions: NDArray[np.int64]  # (class before, class after) of changed pixels
    changed: int
    pixels: int


def measure(before: NDArray[np.uint8], after: NDArray[np.uint8], mask: NDArray[np.bool_]) -> ClassAreas:
    """Counts the changed pixels of two class maps under a change mask, all of shape (s, s)."""
    n = len(CLASSES)
    moved = before[mask].astype(np.int64) * n + after[mask]
    transitions = np.bincount(moved, minlength=n * n).reshape(n, n)
    return ClassAreas(
        gained=transitions.sum(0),
        lost=transitions.sum(1),
        transitions=transitions,
        changed=int(mask.sum()),
        pixels=mask.size,
    )


def _pick(rng: np.random.Generator, items: NDArray[np.int64]) -> int:
    return int(items[rng.integers(0, len(items))])


def _wanted(rng: np.random.Generator, yes: NDArray[np.bool_], share: float) -> int:
    """A class whose answer is yes with probability ``share``, as far as there are classes of both answers."""
    hit, miss = _REAL[yes[1:]], _REAL[~yes[1:]]
    if len(hit) and (rng.random() < share or not len(miss)):
        return _pick(rng, hit)
    return _pick(rng, miss)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _clear_extreme(areas: NDArray[np.int64], margin: float, largest: bool) -> int | None:
    """The class of largest (or smallest nonzero) area, or None if it is not ahead of the next by ``margin`` pixels."""
    present = np.flatnonzero(areas)
    if len(present) < 2:
        return None  # one class alone is both the largest and the smallest: no question
    order = present[np.argsort(areas[present], kind="stable")]
    first, second = (order[-1], order[-2]) if largest else (order[0], order[1])
    return int(first) if abs(int(areas[first]) - int(areas[second])) >= margin else None


def make_questions(rng: np.random.Generator, areas: ClassAreas, new: int, removed: int) -> tuple[Question, ...]:
    """At most one question of each kind; kinds whose answer would be undefined or too close to call are left out.

    Args:
        rng: chooses among wordings, classes and dates.
        areas: measured on the full class maps.
        new: buildings that appeared.
        removed: buildings that vanished.
    """
    margin = _CLEAR_PX * areas.pixels / 4096
    # Generators, which run one after another: what each takes of the generator of chance depends on those before it.
    asked = (
        _whether(rng, areas),
        _directions(rng, areas, margin),
        _extremes(rng, areas, margin),
        _shares(rng, areas),
        _destination(rng, areas, margin),
        _counts(rng, new, removed),
    )
    return tuple(question for questions in asked for question in questions)


def _whether(rng: np.random.Generator, areas: ClassAreas) -> Iterator[Question]:
    """Whether anything changed, or one class."""
    touched = (areas.gained + areas.lost) > 0
    if areas.changed == 0 or rng.random() < 0.3:
        whole = ("has anything changed?", "is there any change?")[rng.integers(0, 2)]
        yield Question("change_or_not", whole, _yes(areas.changed > 0), YES_NO)
    else:
        c = _wanted(rng, touched, 0.4)
        words = ("did the areas of {} change?", "have the {} changed?")[rng.integers(0, 2)]
        yield Question("change_or_not", words.format(_SPOKEN[CLASSES[c]]), _yes(bool(touched[c])), YES_NO)


def _directions(rng: np.random.Generator, areas: ClassAreas, margin: float) -> Iterator[Question]:
    """Whether a class grew, and whether one shrank."""
    growth = areas.gained - areas.lost
    for kind, verb, sign in (("increase_or_not", "increase", 1), ("decrease_or_not", "decrease", -1)):
        # A growth of between zero and the margin is neither a clear yes nor a clear no.
        yes = sign * growth >= margin
        unclear = (sign * growth > 0) & ~yes
        for _ in range(4):
            c = _wanted(rng, yes, 0.6)
            if not unclear[c]:
                words = (f"did the areas of {{}} {verb}?", f"have the {{}} {verb}d?")[rng.integers(0, 2)]
                yield Question(kind, words.format(_SPOKEN[CLASSES[c]]), _yes(bool(yes[c])), YES_NO)
                break


def _extremes(rng: np.random.Generator, areas: ClassAreas, margin: float) -> Iterator[Question]:
    """Which class changed most, and which least."""
    both = ("", areas.gained + areas.lost)
    when, by_date = (both, both, *_by_image(areas))[rng.integers(0, 4)]
    for kind, word in (("largest_change", "largest"), ("smallest_change", "smallest")):
        extreme = _clear_extreme(by_date, margin, word == "largest")
        if extreme is not None:
            yield Question(kind, f"what is the {word} change{when}?", CLASSES[extreme], CLASSES[1:])


def _by_image(areas: ClassAreas) -> tuple[tuple[str, NDArray[np.int64]], ...]:
    return (" in the first image", areas.lost), (" in the second image", areas.gained)


def _shares(rng: np.random.Generator, areas: ClassAreas) -> Iterator[Question]:
    """How much of the scene changed, and how much of it in one class."""
    share = areas.changed / areas.pixels
    stayed = bool(rng.random() < 0.4)
    words = f"how much of the area has {'not ' if stayed else ''}changed?"
    yield Question("change_ratio", words, ratio_bin(1 - share if stayed else share), RATIO_BINS)
    when, by_date = _by_image(areas)[rng.integers(0, 2)]
    c = _wanted(rng, by_date > 0, 0.6)
    words = f"how much area of {_SPOKEN[CLASSES[c]]} has changed{when}?"
    yield Question("change_ratio_types", words, ratio_bin(int(by_date[c]) / areas.pixels), RATIO_BINS)


def _destination(rng: np.random.Generator, areas: ClassAreas, margin: float) -> Iterator[Question]:
    """What one class mainly changed to."""
    origins = np.flatnonzero(areas.lost >= margin)
    if len(origins):
        c = _pick(rng, origins)
        to = np.sort(areas.transitions[c])
        if to[-1] - to[-2] >= margin:
            words = f"what have the areas of {_SPOKEN[CLASSES[c]]} mainly changed to?"
            answer = CLASSES[int(areas.transitions[c].argmax())]
            yield Question("change_to_what", words, answer, CLASSES[1:])


def _counts(rng: np.random.Generator, new: int, removed: int) -> Iterator[Question]:
    """How many buildings are new, and how many gone."""
    # Counts of scenes without such buildings are always zero: asked now and then, so that zero stays an answer.
    for kind, word, count in (("new_buildings", "new", new), ("removed_buildings", "removed", removed)):
        if count or rng.random() < 0.25:
            yield Question(kind, f"how many {word} buildings are there?", str(min(count, MAX_COUNT)), COUNTS)


def forecast_prompt(event: Event) -> str:
    """What should change and where, in a few words."""
    if event.kind == "nothing":
        return "nothing changes"
    if event.kind == "road":
        return f"new {event.style} road in the {event.place}"
    return " ".join(word for word in (event.size, event.style, event.kind, "in the", event.place) if word)


NO_CHANGE = (
    "nothing has changed",
    "the two images show the same land cover",
    "there is no change between the images",
    "the scene is the same as before",
    "no change can be seen",
)
"""Captions of a scene in which nothing has changed."""

_CAPTIONS = {
    "nothing": NO_CHANGE,
    "construction": (
        "{style} new buildings appear in the {place}",
        "a {size} {style} group of houses is built in the {place}",
        "{n} buildings with white roofs are built in the {place}",
        "in the {place} {style} construction covers a {size} area",
        "{n} new houses stand in the {place}",
    ),
    "clearing": (
        "trees in the {place} are cut down",
        "a {size} area of forest in the {place} is cleared",
        "bare ground replaces trees in the {place}",
        "in the {place} the trees are gone",
        "a {size} clearing appears in the {place}",
    ),
    "flooding": (
        "water covers the {place}",
        "a {size} area in the {place} is flooded",
        "a {size} flood reaches the {place}",
        "in the {place} the land turns into water",
        "the {place} is under water",
    ),
    "demolition": (
        "buildings in the {place} are torn down",
        "{n} buildings are removed in the {place}",
        "bare ground replaces buildings in the {place}",
        "in the {place} {n} houses are gone",
        "a {size} area of buildings in the {place} is demolished",
    ),
    "planting": (
        "trees are planted in the {place}",
        "a {size} area in the {place} turns into trees",
        "trees replace grass in the {place}",
        "in the {place} a {size} forest grows",
        "new trees cover the {place}",
    ),
    "road": (
        "a {style} road is built in the {place}",
        "a new road runs through the {place}",
        "a new {style} road crosses the scene",
        "in the {place} there is a new road",
        "a {style} road appears in the {place}",
    ),
    "playground": (
        "a playground is built in the {place}",
        "a new playground appears in the {place}",
        "in the {place} there is a new playground",
        "a {size} playground covers the {place}",
        "the {place} has a new playground",
    ),
}


def captions(event: Event, buildings: int) -> tuple[str, ...]:
    """Five paraphrases of what happened; ``buildings`` is how many were built or removed."""
    return tuple(
        text.format(style=event.style, size=event.size, place=event.place, n=buildings)
        for text in _CAPTIONS[event.kind]
    )


def vocabulary() -> tuple[str, ...]:
    """Every word that prompts, answers and captions of the scene world can hold, sorted. Punctuation is left out."""
    text = [
        "has anything is there any change did the areas of have changed increase increased decrease decreased",
        "what largest smallest in first second image how much area not mainly to many new removed buildings are",
        "nothing changes new road",
        *_SPOKEN.values(),
        *YES_NO,
        *CLASSES[1:],
        *RATIO_BINS,
        *COUNTS,
        *PLACES,
        *SIZES,
        *EVENTS,
        "dense sparse horizontal vertical",
        *(line for lines in _CAPTIONS.values() for line in lines),
    ]
    return tuple(sorted({word for line in text for word in line.split() if not word.startswith("{")}))
