"""A few samples for every protocol, made here, on which ``rsw validate`` is run: changed and unchanged, common and rare answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Sample, Task
from rsw_rewards.pixels import content_hash

SIZE = 32
COUNT = 12


def picture(pixels: np.ndarray) -> ImageRef:
    return ImageRef(array=pixels, sha256=content_hash(pixels))


def patch(number: int, value: int = 255) -> np.ndarray:
    """A rectangle in the (SIZE, SIZE) uint8 plane, elsewhere 0; every fourth plane is empty."""
    plane = np.zeros((SIZE, SIZE), np.uint8)
    if number % 4:
        top, left = 2 + number, 20 - number
        plane[top : top + 8, left : left + 10] = value
    return plane


def sample(
    number: int, task: Task, reference: dict[str, Any], kind: str | None = None, prompt: str = "What?"
) -> Sample:
    return Sample(f"made_{number:03}", task, (photo(number),), prompt, reference, f"scene_{number // 2}", kind)


def photo(number: int, plane: np.ndarray | None = None) -> ImageRef:
    """Smooth land with, where ``plane`` says so, something bright built on it."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    land = 90 + 40 * np.sin(rows / 5 + number) + 30 * np.cos(columns / 7)
    pixels = np.stack([land, land * 0.9, land * 0.7], axis=-1)
    if plane is not None:
        pixels[plane > 0] = (230, 225, 220)
    return picture(np.rint(pixels).astype(np.uint8))


def answers(
    vocabulary: list[str] | None, *given: str, kinds: tuple[str | None, ...] = (None,), **more: Any
) -> list[Sample]:
    made = []
    for number in range(COUNT):
        reference: dict[str, Any] = {"answers": [given[number % len(given)]], **more}
        if vocabulary is not None:
            reference["vocabulary"] = vocabulary
        made.append(
            sample(number, Task.CHANGE_QA, reference, kinds[number % len(kinds)], f"Question {number % 3}, is it so?")
        )
    return made


def masks(classes: list[str] | None = None) -> list[Sample]:
    made = []
    for number in range(COUNT):
        plane = patch(number, 255 if classes is None else 1 + number % (len(classes) - 1))
        reference: dict[str, Any] = {"mask": picture(plane)}
        made.append(sample(number, Task.CHANGE_MASK, reference | ({} if classes is None else {"classes": classes})))
    return made


def levelled() -> list[Sample]:
    """Masks of three classes whose files hold 0, 128 and 255."""
    made = masks(["background", "road", "building"])
    for one in made:
        stored = np.array([0, 128, 255], np.uint8)[one.reference["mask"].pixels()]
        one.reference.update(mask=picture(stored), levels=[0, 128, 255])  # type: ignore[attr-defined]
    return made


def semantic() -> list[Sample]:
    made = []
    for number in range(COUNT):
        before, after = patch(number, 1 + number % 6), patch(number, 1 + (number + 2) % 6)
        made.append(sample(number, Task.SEMANTIC_CHANGE, {"map_before": picture(before), "map_after": picture(after)}))
    return made


def damage() -> list[Sample]:
    made = []
    for number in range(COUNT):
        built = patch(number, 1)
        made.append(
            sample(number, Task.DAMAGE, {"buildings": picture(built), "damage": picture(built * (1 + number // 3))})
        )
    return made


def boxes() -> list[Sample]:
    return [
        sample(number, Task.GROUNDING, {"boxes": [[2 + number, 3, 10 + number, 14]]}, prompt="the shed")
        for number in range(COUNT)
    ]


def referred() -> list[Sample]:
    return [
        sample(number, Task.GROUNDING, {"mask": picture(patch(number))}, prompt="the shed") for number in range(COUNT)
    ]


def labels(several: bool) -> list[Sample]:
    names = ["airport", "beach", "forest", "harbour", "river", "school"]
    made = []
    for number in range(COUNT):
        chosen = [names[number % 6], names[(number * 2 + 1) % 6]] if several else [names[number % 6]]
        reference = {"labels": sorted(set(chosen))} if several else {"label": chosen[0]}
        made.append(sample(number, Task.CLASSIFICATION, {**reference, "vocabulary": names}))
    return made


def captions() -> list[Sample]:
    unchanged = ["the scene is the same as before", "there is no difference", "no change has occurred"]
    changed = [
        [
            "a house appears near the river",
            "someone has built a small villa by the water",
            "one dwelling stands on the bank now",
        ],
        ["the forest was cleared", "trees have been cut down everywhere", "all woodland is gone from this area"],
        [
            "a wide road crosses bare land",
            "new asphalt runs from left to right",
            "they paved a street through the desert",
        ],
        ["two car parks replace the meadow", "parking lots cover former grass", "where it was green vehicles stand"],
        ["a lake has dried up", "water disappeared in the lower corner", "only mud remains of that pond"],
    ]
    made = []
    for number in range(COUNT):
        said = changed[number % 5] if number % 3 else unchanged
        reference = {"captions": said, "changed": bool(number % 3)}
        made.append(
            sample(number, Task.CHANGE_CAPTION, reference, "changed" if number % 3 else "unchanged", "Describe it.")
        )
    return made


def changes() -> list[Sample]:
    made = []
    for number in range(COUNT):
        listed = [{"object": thing, "change": "appeared"} for thing in ("house", "road", "pond")[: number % 4]]
        made.append(sample(number, Task.CHANGE_QA, {"changes": listed}))
    return made


def forecasts() -> list[Sample]:
    made = []
    for number in range(COUNT):
        plane = patch(number)
        reference = {"images": [photo(number, plane)], "mask": picture(plane), "text": "a building appears"}
        made.append(
            Sample(f"made_{number:03}", Task.FORECAST, (photo(number),), "Build.", reference, f"scene_{number}")
        )
    return made


def rasters() -> list[Sample]:
    """Fields of grass in six bands, thin and dense, and a building that appears on them."""
    grass, building = np.array([10, 23, 15, 89, 56, 31.0]), np.array([46, 51, 56, 61, 76, 71.0])
    names = ["blue", "green", "red", "nir", "swir1", "swir2"]

    def frame(number: int, plane: np.ndarray | None = None) -> ImageRef:
        fields = np.random.default_rng(number).uniform(0.4, 1.6, (SIZE // 8, SIZE // 8))
        pixels = np.kron(fields, np.ones((8, 8)))[..., None] * grass
        if plane is not None:
            pixels[plane > 0] = building
        return replace(picture(np.rint(pixels).astype(np.uint8)), bands=(2, 1, 0))

    made = []
    for number in range(COUNT):
        plane = patch(number)
        reference = {"images": [frame(number, plane)], "mask": picture(plane), "text": "a building appears"}
        past, name = (frame(number),), f"made_{number:03}"
        made.append(
            Sample(name, Task.FORECAST, past, "Build.", reference, f"scene_{number}", metadata={"bands": names})
        )
    return made


def series() -> list[Sample]:
    """A year of a vegetation index that greens and browns, then five dates to come, a little drier; clouds over a corner."""

    def frame(number: int, month: int, year: int) -> ImageRef:
        rows, columns = np.mgrid[:SIZE, :SIZE]
        green = 0.45 + 0.3 * np.sin((month - 4) / 6 * np.pi + rows / 40) - 0.15 * (year - 2019) * (columns / SIZE)
        green[: number % 5, : month % 7] = np.nan
        return replace(picture(green.astype(np.float32)), date=f"{year}-{month:02}-15")

    made = []
    for number in range(COUNT):
        past, future = (tuple(frame(number, month, year) for month in months)
                        for months, year in ((range(1, 13), 2019), ((2, 4, 6, 8, 10), 2020)))  # fmt: skip
        made.append(Sample(f"made_{number:03}", Task.FORECAST, past, "", {"images": list(future)}, f"scene_{number}"))
    return made


def cubes() -> list[Sample]:
    """Series of four bands: ten dates shown, twenty to come, clouds over a corner of some."""
    chance = np.random.default_rng(4)
    made = []
    for number in range(4):
        base = chance.uniform(0.05, 0.5, (16, 16, 4))
        frames = []
        for step in range(30):
            frame = np.clip(base + 0.1 * np.sin(step / 5 + number) * np.array([0.2, 0.3, -0.5, 1.0]), 0, 1)
            frame[: (step * number) % 9, :5] = np.nan
            frames.append(picture(frame.astype(np.float32)))
        made.append(
            Sample(f"made_{number}", Task.FORECAST, tuple(frames[:10]), "", {"images": frames[10:]}, f"scene_{number}")
        )
    return made


def greening() -> list[Sample]:
    """Ten dates of NDVI and twenty to come, of land covers that count and one that does not, with clouds over a corner."""
    made = []
    for number in range(4):
        rows, columns = np.mgrid[:16, :16]
        frames = []
        for step in range(30):
            frame = 0.5 + 0.3 * np.sin(step / 6 + rows / 20 + number) + columns / 200
            frame[: (step * number) % 9, :5] = np.nan
            frames.append(picture(frame.astype(np.float32)))
        frames = [
            replace(frame, date=f"2020-{1 + 2 * step // 30:02}-{1 + step % 15:02}") for step, frame in enumerate(frames)
        ]
        cover = np.array([10, 20, 30, 40, 50], np.uint8)[(rows // 4 + number) % 5]
        reference = {"images": frames[10:], "land_cover": picture(cover)}
        made.append(Sample(f"made_{number}", Task.FORECAST, tuple(frames[:10]), "", reference, f"scene_{number}"))
    return made


def mapped() -> list[Sample]:
    """Maps of four classes: a patch of each but the background."""
    made = []
    for number in range(COUNT):
        plane = patch(number, 1)
        plane[20:24, :8], plane[26:30, 20:28] = number % 3, 3
        made.append(
            sample(
                number,
                Task.CHANGE_MASK,
                {"mask": picture(plane), "classes": ["background", "intact", "damaged", "destroyed"]},
            )
        )
    return made


def cells() -> list[Sample]:
    grid = [f"{row}-{column}" for row in ("top", "center", "bottom") for column in ("left", "center", "right")]
    texts = [f"roads {[grid[i % 9]]} buildings {grid[i % 7 : i % 7 + i % 4]}" for i in range(COUNT)]
    return answers(None, *texts)


def choices() -> list[Sample]:
    options = ["a new road", "a pond", "nothing", "a school"]
    return answers(None, "A", "C", "B", "D", "A, B", choices=options)


def annotated() -> list[Sample]:
    made = answers(None, "yes", "no", "2", "red")
    for one in made:
        one.reference["answers"].extend([one.reference["answers"][0]] * 5 + ["other"] * 4)  # type: ignore[index]
    return made


def worded() -> list[Sample]:
    """Choices of which three samples each are the wordings of one question."""
    made = answers(None, "A", "A", "A", "C", "C", "C", choices=["a new road", "a pond", "nothing", "a school"])
    return [replace(one, id=f"made_{number // 3}#{number % 3}") for number, one in enumerate(made)]


def counted() -> list[Sample]:
    kinds = ("Basic Judging", "Basic Counting", "Reasoning-based Counting")
    return answers(None, "Yes", "3", "10%-20%", "No", "0", "40%-50%", kinds=kinds)


MAKERS: dict[str, Callable[[], list[Sample]]] = {
    "exact-qa": lambda: answers(["yes", "no", "water", "trees"], "yes", "no", "water"),
    "numeric-qa": lambda: answers(None, "3", "7", "12", "0"),
    "cdvqa": lambda: answers(
        ["yes", "no", "0_to_10", "buildings"], "yes", "no", "0_to_10", kinds=("change_or_not", "change_ratio")
    ),
    "cdvqa-7": lambda: MAKERS["cdvqa"](),
    "cdvqa-vista": lambda: MAKERS["cdvqa"](),
    "rsvqa-lr": lambda: answers(
        None, "rural", "yes", "15", "no", "urban", "no", "0", "yes", kinds=("rural_urban", "presence", "count", "comp")
    ),
    "rsvqa-hr": lambda: answers(
        None, "120m2", "yes", "15", "no", "0m2", "no", "0", "yes", kinds=("area", "presence", "count", "comp")
    ),
    "vqa-v2": annotated,
    "vsi-mra": lambda: answers(None, "3", "7", "12", "1"),
    "multiple-choice": choices,
    "prompt-variants": worded,
    "geobench-vlm": worded,
    "choice-original": worded,
    "mme-realworld": worded,
    "xlrs-bench": choices,
    "monitrs": worded,
    "earthmind": worded,
    "earthmind-hrben": lambda: answers(None, "yes", "no", kinds=("presence", "comp")),
    "teochat-keywords": lambda: answers(None, "yes", "no", "top left"),
    "earthdial-labels": lambda: labels(False),
    "earthdial-vqa": lambda: MAKERS["rsvqa-three-types"](),
    "rsvqa-three-types": lambda: answers(
        None, "rural", "yes", "15", "no", "urban", "no", "0", "yes", kinds=("rural_urban", "presence", "count", "comp")
    ),
    "lrs-vqa": lambda: answers(None, "yes", "bridge", "3", kinds=("count", "reasoning", "rural_urban")),
    "earthvqa": counted,
    "teochat-exact": lambda: answers(["yes", "no", "water"], "yes", "no", "water"),
    "changechat-binary": lambda: answers(["yes", "no"], "yes", "no"),
    "changechat-count": lambda: answers(
        None, "2 new roads and 5 new buildings", "no new roads or buildings", "1 new road and 12 new buildings"
    ),
    "changechat-localization": cells,
    "change-mask": masks,
    "levir-mci-mask": levelled,
    "class-map": mapped,
    "second-stacked7": semantic,
    "second-fromto37": semantic,
    "xview2-damage": damage,
    "xbd-unmasked-damage": damage,
    "segearth-r1": referred,
    "visual-grounding": boxes,
    "detection": lambda: [
        replace(one, reference={**one.reference, "labels": [("shed", "barn")[number % 2]]})
        for number, one in enumerate(boxes())
    ],
    **dict.fromkeys(
        ("vrsbench-grounding", "opt-rsvg", "choice-grounding", "earthdial-detection", "earthdial-change-detection"),
        boxes,
    ),
    "referring-segmentation": referred,
    "scene-classification": lambda: labels(False),
    "multi-label": lambda: labels(True),
    "levir-cc-ids": captions,
    "levir-cc-words": captions,
    "coco-caption": captions,
    "change-list": changes,
    "tfsf": forecasts,
    "spectral-forecast": rasters,
    "ndvi-series": series,
    "earthnet2021": cubes,
    "greenearthnet": greening,
}
"""Protocol -> what makes its samples."""
