"""Samples and outputs from data sets of Hugging Face: classes by name, lists, images, missing cells, and whose fault is what."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import rsw_rewards as rsw
from rsw_rewards.io.dataset_rows import rows_of_dataset
from rsw_rewards.io.in_memory import as_samples, pair_outputs

datasets = pytest.importorskip("datasets")

LAND = datasets.ClassLabel(names=["farm", "town"])
TEXT, PICTURE = datasets.Value("string"), datasets.Image()
GREY = np.full((8, 8), 9, np.uint8)
CHANGED = np.pad(np.full((4, 4), 255, np.uint8), 2)


def png(pixels: np.ndarray) -> bytes:
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "PNG")
    return held.getvalue()


def table(features: dict[str, Any], **columns: list[Any]) -> Any:
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def every_form(data: Any) -> list[Any]:
    return [data, data.with_format("numpy"), data.with_format("torch"), data.to_iterable_dataset(), data.select([0])]


def test_classes_are_their_names_in_columns_lists_and_references() -> None:
    data = table(
        {"id": TEXT, "task": datasets.ClassLabel(names=["classification"]), "kind": LAND,
         "reference": {"label": LAND, "labels": datasets.List(LAND)}},
        id=["a"], task=[0], kind=[0], reference=[{"label": 1, "labels": [1, 0, -1]}],
    )  # fmt: skip
    for form in every_form(data):
        (sample,) = as_samples(form)
        assert (sample.task, sample.kind) == (rsw.Task.CLASSIFICATION, "farm")
        assert sample.reference == {"label": "town", "labels": ["town", "farm"], "vocabulary": ["farm", "town"]}
        assert pair_outputs([sample], table({"text": LAND}, text=[1]))[0][0].text == "town"
    listed = table({"id": TEXT, "text": datasets.List(LAND)}, id=["a"], text=[[1, 0]])
    assert rsw.evaluate("multi-label", data, listed).metrics["micro_f1"].value == 1.0


def test_a_class_that_is_none_is_missing_and_a_none_in_a_list_of_texts_is_left_out() -> None:
    features = {"id": TEXT, "text": LAND}
    samples = [rsw.Sample("a", rsw.Task.CLASSIFICATION), rsw.Sample("b", rsw.Task.CLASSIFICATION)]
    outputs, _ = pair_outputs(samples, table(features, id=["a", "b"], text=[-1, 0]))
    assert [output.text for output in outputs] == [None, "farm"] and outputs[0].invalid
    captions = table(
        {"task": TEXT, "reference": {"captions": datasets.List(TEXT)}},
        task=["change_caption"], reference=[{"captions": ["a road", None]}],
    )  # fmt: skip
    assert as_samples(captions)[0].reference["captions"] == ["a road"]


def test_images_are_read_from_pixels_bytes_and_paths_and_shown_in_their_declared_mode(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "grey.png")
    held = [
        Image.fromarray(GREY),
        {"bytes": png(GREY), "path": None},
        {"bytes": None, "path": str(tmp_path / "grey.png")},
    ]
    features = {"task": TEXT, "images": datasets.List(PICTURE), "reference": {"mask": PICTURE}}
    data = table(features, task=["change_mask"], images=[held], reference=[{"mask": Image.fromarray(CHANGED)}])
    for form in every_form(data):
        (sample,) = as_samples(form)
        assert all((image.pixels() == GREY).all() for image in sample.images)
        masks = table({"mask": datasets.Array2D((8, 8), "uint8")}, mask=[CHANGED])
        assert rsw.evaluate("change-mask", [sample], masks).metrics["oa"].value == 1.0
    coloured = table({"images": datasets.Image(mode="RGB")}, images=[Image.fromarray(GREY)])
    assert np.shape(next(rows_of_dataset(coloured, "samples"))["images"]) == (8, 8, 3)


def test_forecasts_and_boxes_of_columns() -> None:
    samples = [rsw.Sample(name, rsw.Task.FORECAST) for name in "ab"]
    features = {"id": TEXT, "image": PICTURE, "images": datasets.List(PICTURE)}
    data = table(features, id=["a", "b"], image=[Image.fromarray(GREY), None], images=[None, [Image.fromarray(GREY)]])
    first, second = pair_outputs(samples, data)[0]
    assert first.image is not None and first.images is None and second.images is not None and len(second.images) == 1
    boxes = table({"boxes": datasets.List(datasets.List(datasets.Value("float32")))}, boxes=[[[0, 0, 4, 4]], []])
    found, _ = pair_outputs([rsw.Sample(name, rsw.Task.GROUNDING) for name in "ab"], boxes)
    assert [output.boxes for output in found] == [((0.0, 0.0, 4.0, 4.0),), ()]


def test_what_is_wrong_is_one_output_or_a_sentence_with_row_and_column() -> None:
    samples = [rsw.Sample(name, rsw.Task.CHANGE_MASK) for name in "ab"]
    features = {"id": TEXT, "mask": PICTURE}
    broken = table(features, id=["a", "b"], mask=[{"bytes": b"nothing", "path": None}, Image.fromarray(CHANGED)])
    for form in every_form(broken)[:4]:
        first, second = pair_outputs(samples, form)[0]
        assert "'mask': the image of 7 bytes cannot be read" in str(first.invalid) and second.invalid is None
    shown = table(
        {"task": TEXT, "images": PICTURE},
        task=["change_qa"] * 2,
        images=[Image.fromarray(GREY), {"bytes": b"x", "path": None}],
    )
    with pytest.raises(rsw.InputError, match="sample 1: 'images': the image of 1 bytes cannot be read"):
        as_samples(shown)
    with pytest.raises(rsw.InputError, match="one split of a data set; give that of 'train', 'test'"):
        as_samples(datasets.DatasetDict({"train": shown, "test": shown}))

    def fails(batch: Any) -> Any:
        raise ZeroDivisionError("of mine")

    with pytest.raises(rsw.InputError, match="samples: row 0 cannot be read: ZeroDivisionError: of mine"):
        as_samples(shown.with_transform(fails))
