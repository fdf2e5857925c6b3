"""Writes scene-world data sets: PNG files and ``samples.jsonl`` in the project's record format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Sample, Task
from rsw_rewards.data.scene_world.land import CLASSES
from rsw_rewards.data.scene_world.questions import NO_CHANGE
from rsw_rewards.data.scene_world.scene import Scene, make_scene
from rsw_rewards.data.scene_world.splits import split_seed
from rsw_rewards.io.images import write_png
from rsw_rewards.io.records_io import write_jsonl
from rsw_rewards.pixels import content_hash

TASKS = ("change_qa", "forecast", "change_caption", "change_mask", "semantic_change")
DEFAULT_TASKS = ("change_qa", "forecast")


Picture = Callable[[str, NDArray[np.uint8], str | None], Any]
"""Keeps a picture of one scene (its role, pixels and date) and returns the entry of a record that names it."""
Keep = Callable[[Scene, str, NDArray[np.uint8], str | None], Any]
"""The same for all scenes; asked once for each picture."""


def _record(scene: Scene, task: str, question: int, picture: Picture) -> dict[str, Any]:
    """One sample of a scene; ``question`` picks among the scene's questions."""
    kind: str | None = scene.event.kind
    metadata = dict(scene.metadata)
    identity = f"{scene.name}/{task}"
    images = [picture("before", scene.before, scene.dates[0])]
    if task != "forecast":
        images.append(picture("after", scene.after, scene.dates[1]))
    reference: dict[str, Any]
    if task == "change_qa":
        q = scene.questions[question]
        identity, kind, prompt = f"{scene.name}/{q.kind}", q.kind, q.prompt
        reference = {"answers": [q.answer], "vocabulary": list(q.vocabulary)}
    elif task == "forecast":
        prompt = scene.forecast_prompt
        metadata["target_date"] = scene.dates[1]
        reference = {
            "images": [picture("after", scene.after, scene.dates[1])],
            "mask": picture("mask", scene.mask.astype(np.uint8) * 255, None),
            "text": scene.forecast_prompt,
        }
    elif task == "change_caption":
        prompt = "describe the change"
        reference = {"captions": list(scene.captions), "changed": scene.changed, "no_change": list(NO_CHANGE)}
    elif task == "change_mask":
        prompt = "mark what has changed"
        reference = {"mask": picture("mask", scene.mask.astype(np.uint8) * 255, None)}
    else:
        prompt = "map the land cover of what has changed"
        reference = {
            "map_before": picture("map_before", scene.map_before * scene.mask, None),
            "map_after": picture("map_after", scene.map_after * scene.mask, None),
            "classes": list(CLASSES),
        }
    return {
        "id": identity,
        "task": task,
        "scene": scene.name,
        "kind": kind,
        "images": images,
        "prompt": prompt,
        "reference": reference,
        "metadata": metadata,
    }


def _check(n: int, tasks: Sequence[str], first: int) -> None:
    if not tasks or len(set(tasks)) != len(tasks) or not set(tasks) <= set(TASKS):
        raise ValueError(f"tasks must be different ones of {', '.join(TASKS)}, got {list(tasks)!r}")
    if n < 1 or first < 0:
        raise ValueError(f"n must be at least 1 and first at least 0, got n={n}, first={first}")


def _picture_of(scene: Scene, keep: Keep) -> Picture:
    kept: dict[str, Any] = {}

    def picture(role: str, pixels: NDArray[np.uint8], date: str | None) -> Any:
        if role not in kept:
            kept[role] = keep(scene, role, pixels, date)
        return kept[role]

    return picture


def _records(
    keep: Keep, n: int, generator_seed: int, tasks: Sequence[str], first: int, size: int
) -> Iterator[dict[str, Any]]:
    made = 0
    while made < n:
        index = first + made // len(tasks)
        scene = make_scene(generator_seed, index, size)
        picture = _picture_of(scene, keep)
        # Scenes take their kinds in turn; a kind that a scene does not have falls to its next one.
        question = index % len(scene.questions)
        for task in tasks[: n - made]:
            yield _record(scene, task, question, picture)
            made += 1


def scene_world_samples(
    n: int,
    seed: int = 0,
    *,
    split: str = "test",
    tasks: Sequence[str] = DEFAULT_TASKS,
    first: int = 0,
    size: int = 64,
) -> list[Sample]:
    """The samples that ``write_scene_world`` would write, with their pictures in memory. Same arguments and errors."""

    def keep(scene: Scene, role: str, pixels: NDArray[np.uint8], date: str | None) -> ImageRef:
        return ImageRef(array=pixels, sha256=content_hash(pixels), date=date)

    _check(n, tasks, first)
    return [
        Sample(**{**record, "task": Task(record["task"]), "images": tuple(record["images"])})
        for record in _records(keep, n, split_seed(split, seed), tasks, first, size)
    ]


def write_scene_world(
    out_dir: Path | str,
    n: int,
    seed: int = 0,
    *,
    split: str = "test",
    tasks: Sequence[str] = DEFAULT_TASKS,
    first: int = 0,
    size: int = 64,
) -> Path:
    """Writes ``n`` samples; every scene gives one sample of each task, in the order of ``tasks``.

    Args:
        out_dir: folder for ``samples.jsonl`` and ``images/``; made if missing.
        n: number of samples, not of scenes.
        seed: number of the data set within its split.
        split: a key of ``SPLITS``.
        tasks: some of ``TASKS``.
        first: index of the first scene; sets of one seed with disjoint ranges of scenes share nothing.
        size: side of the pictures in pixels.

    Returns:
        The path of ``samples.jsonl``.

    Raises:
        ValueError: unknown task or split, or a number out of range.
    """
    folder = Path(out_dir)

    def keep(scene: Scene, role: str, pixels: NDArray[np.uint8], date: str | None) -> str | dict[str, str]:
        name = f"images/{scene.name.rsplit('/', 1)[-1]}_{role}.png"
        write_png(folder / name, pixels)
        return name if date is None else {"path": name, "date": date}

    _check(n, tasks, first)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    path = folder / "samples.jsonl"
    write_jsonl(path, _records(keep, n, split_seed(split, seed), tasks, first, size))
    return path
