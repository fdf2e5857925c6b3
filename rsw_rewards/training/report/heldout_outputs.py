"""Held-out outputs before and after training, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.evaluation.pages import shortened, truth_of
from rsw_rewards.evaluation.pictures import data_uri, difference_map
from rsw_rewards.io.records_io import load_outputs, load_samples
from rsw_rewards.training.shown_rollouts import forecast_pixels, input_and_truth


def before_and_after(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """The kept held-out outputs of a run: cards of forecasts, and rows of texts. ``after`` is missing until training has ended.

    Args:
        folder: ``heldout/`` of the run, which holds ``outputs_before`` and ``outputs_after``.
    """
    if not (folder / "outputs_before" / "samples.jsonl").is_file():
        return [], []
    samples = load_samples(folder / "outputs_before" / "samples.jsonl")
    before, after = (_outputs(folder / f"outputs_{when}", samples) for when in ("before", "after"))
    forecasts = [_forecast(one, before.get(one.id), after.get(one.id)) for one in samples if one.task is Task.FORECAST]
    texts = [
        {"id": one.id, "prompt": shortened(one.prompt), "truth": shortened(truth_of(one)), "before": _said(before.get(one.id)),
         "after": _said(after.get(one.id))}
        for one in samples if one.task is not Task.FORECAST
    ]  # fmt: skip
    return forecasts, texts


def _outputs(folder: Path, samples: list[Sample]) -> dict[str, Output]:
    file = folder / "predictions.jsonl"
    if not file.is_file():
        return {}
    return {output.sample_id: output for output in load_outputs(file, samples, own=True)[0]}


def _forecast(sample: Sample, before: Output | None, after: Output | None) -> dict[str, Any]:
    shown_last, truth = input_and_truth(sample)
    made = {"before": forecast_pixels(sample, before), "after": forecast_pixels(sample, after)}
    images = {"input": shown_last, **made, "truth": truth}
    shown = [
        {"label": name, "src": data_uri(pixels, photo=True)} for name, pixels in images.items() if pixels is not None
    ]
    for first, second in (("before", "after"), ("before", "truth"), ("after", "truth")):
        one, other = images[first], images[second]
        if one is not None and other is not None and one.shape == other.shape:
            shown.append({"label": f"difference, {first} to {second}", "src": data_uri(difference_map(one, other))})
    outputs = {"before": before, "after": after}
    problems = {name: _said(output) for name, output in outputs.items() if output is not None and output.forecast is None}  # fmt: skip
    return {
        "id": sample.id,
        "task": str(sample.task),
        "kind": sample.kind or "",
        "prompt": shortened(sample.prompt),
        "pictures": shown,
        "texts": problems,
    }


def _said(output: Output | None) -> str:
    if output is None:
        return ""
    return shortened(output.text or output.invalid or output.lost or "")
