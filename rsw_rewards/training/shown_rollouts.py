"""A few rollouts of a generation as TensorBoard shows them: texts as a table, forecasts as a strip of images. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.errors import ImageError
from rsw_rewards.evaluation.numbers import number
from rsw_rewards.evaluation.pages import shortened, truth_of
from rsw_rewards.io.images import read_rgb
from rsw_rewards.training.heldout import first_of_each_task
from rsw_rewards.verifiers.forecast_case import as_future

FEW = 4
"""Groups of a task that are shown."""
SIDE = 128
"""Longer side of an image in a strip, in pixels."""

Rewards = Mapping[tuple[str, int], float | None]


def texts(samples: Sequence[Sample], outputs: Sequence[Output], rewards: Rewards) -> dict[str, str]:
    """Task -> a Markdown table of the answers to its first samples, with their rewards; outputs without a text are left out.

    >>> sample = Sample("a", Task.CHANGE_QA, prompt="Changed?", reference={"answers": ["yes"], "vocabulary": ["yes", "no"]})
    >>> print(texts([sample], [Output("a", text="no")], {("a", 0): 0.0})["change_qa"])
    | prompt | truth | answer | reward |
    |---|---|---|---|
    | Changed? | yes | no | 0.000 |
    """
    found: dict[str, list[str]] = {}
    for task, one, own in _first(samples, outputs):
        if task is Task.FORECAST:
            continue
        for output in own:
            said = output.text if output.text is not None else output.invalid or output.lost
            if said is None:  # a mask or boxes, of which a table shows nothing
                continue
            cells = [one.prompt, truth_of(one), said, number(rewards.get((one.id, output.candidate)))]
            plain = (" ".join(shortened(cell).split()).replace("|", "\\|") for cell in cells)
            found.setdefault(str(task), []).append("| " + " | ".join(plain) + " |")
    head = ["| prompt | truth | answer | reward |", "|---|---|---|---|"]
    return {task: "\n".join([*head, *rows]) for task, rows in found.items()}


def strips(samples: Sequence[Sample], outputs: Sequence[Output]) -> list[np.ndarray]:
    """(H, W, 3) uint8 for each of the first forecasts: the last input, the true future, then every candidate; black where one cannot be read."""
    found = []
    for task, one, own in _first(samples, outputs):
        if task is not Task.FORECAST:
            continue
        images = [*input_and_truth(one), *(forecast_pixels(one, output) for output in own)]
        found.append(np.concatenate([_square(image) for image in images], axis=1))
    return found


def _first(samples: Sequence[Sample], outputs: Sequence[Output]) -> list[tuple[Task, Sample, list[Output]]]:
    """The first samples of every task with their outputs."""
    by_sample: dict[str, list[Output]] = {}
    for output in outputs:
        by_sample.setdefault(output.sample_id, []).append(output)
    return [(one.task, one, by_sample.get(one.id, [])) for one in first_of_each_task(samples, FEW)]


def input_and_truth(sample: Sample) -> tuple[np.ndarray | None, np.ndarray | None]:
    """(H, W, 3) uint8 of the newest input and of the true future of a forecast; None for what cannot be read."""
    return _read(sample.images[-1] if sample.images else None), _read(_future(sample))


def forecast_pixels(sample: Sample, output: Output | None) -> np.ndarray | None:
    """(H, W, 3) uint8 of a forecast, shown as its true future is; None where there is none that can be read."""
    if output is None or output.forecast is None:
        return None
    try:
        return _read(as_future(output.forecast, _future(sample)))
    except ImageError:
        return None


def _future(sample: Sample) -> ImageRef | None:
    future: ImageRef | None = (sample.reference.get("images") or (None,))[-1]
    return future


def _read(image: ImageRef | None) -> np.ndarray | None:
    try:
        return None if image is None else read_rgb(image)
    except ImageError:
        return None


def _square(pixels: np.ndarray | None) -> np.ndarray:
    from PIL import Image

    if pixels is None:
        return np.zeros((SIDE, SIDE, 3), np.uint8)
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST))
