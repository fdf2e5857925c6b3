"""Records that a program makes: completed and checked as those from files are, and what is the caller's fault raises at once."""

from __future__ import annotations

import base64
import dataclasses
import doctest
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import rsw_rewards as rsw
from rsw_rewards.core.image_ref import ImageRef, image
from rsw_rewards.core.records import OUTPUT_FIELDS, Output, Sample, Task
from rsw_rewards.errors import InputError
from rsw_rewards.evaluation.inputs import Inputs
from rsw_rewards.evaluation.protocols import PROTOCOLS
from rsw_rewards.evaluation.run import run_protocol
from rsw_rewards.io import in_memory, outputs
from rsw_rewards.io.images import read_index, read_mask, read_rgb, write_png
from rsw_rewards.io.in_memory import as_sample, as_samples, pair_outputs
from rsw_rewards.io.outputs import as_output
from rsw_rewards.io.records_io import load_outputs, load_samples, write_jsonl

RGB = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
GREY = RGB[..., 0]
FORECAST = Sample("f", "forecast", [RGB], reference={"images": [RGB]})  # type: ignore[arg-type]


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def data_url(pixels: np.ndarray) -> str:
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()


def tensor(pixels: np.ndarray) -> Any:
    return pytest.importorskip("torch").tensor(pixels)


def test_a_sample_is_completed_as_one_from_a_file_is(tmp_path: Path) -> None:
    record = {
        "id": "a",
        "task": "change_qa",
        "prompt": "?",
        "reference": {"answers": ["yes"], "vocabulary": ["yes", "no"]},
    }
    write_jsonl(tmp_path / "s.jsonl", [record])
    (wanted,) = load_samples(tmp_path / "s.jsonl")
    for answers, vocabulary in (
        ("yes", ("yes", "no")),
        (["yes"], np.array(["yes", "no"])),
        (np.array(["yes"]), pd.Series(["yes", "no"])),
    ):
        made = Sample("a", "change_qa", prompt="?", reference={"answers": answers, "vocabulary": vocabulary})  # type: ignore[arg-type]
        assert made == wanted and made.task is Task.CHANGE_QA and made.scene == "a"
        assert as_sample({**record, "reference": dict(made.reference)}, 0) == wanted


def test_every_form_of_an_image_is_the_same_image(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", RGB)
    same = ImageRef(array=RGB)
    for value in (
        RGB, np.asfortranarray(RGB), RGB[::-1][::-1], tensor(RGB), Image.fromarray(RGB), png(RGB), bytearray(png(RGB)), data_url(RGB),
        {"bytes": png(RGB), "path": None}, {"path": str(tmp_path / "a.png")}, tmp_path / "a.png", str(tmp_path / "a.png"), same,
        image(np.moveaxis(RGB, -1, 0), layout="CHW"), image(tensor(RGB).permute(2, 0, 1), layout="CHW"),
        image(RGB / 255.0, range=(0, 1)), image(RGB.astype(np.int64), range=(0, 255)),
        image(tensor(RGB).float().permute(2, 0, 1) / 127.5 - 1, layout="CHW", range=(-1, 1)),
        Image.fromarray(np.dstack([RGB, GREY]), "RGBA"),
    ):  # fmt: skip
        output = as_output(value, FORECAST)
        assert output.invalid is None and output.image is not None
        assert (read_rgb(output.image) == RGB).all()
        assert (read_rgb(Sample("a", Task.FORECAST, [value]).images[0]) == RGB).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_pillow_images_are_looked_at_as_their_files_are(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(RGB).convert(mode) if mode != "I;16" else Image.fromarray(GREY.astype(np.uint16) * 257)
    if mode in ("I;16", "F"):
        with pytest.raises(InputError, match=r"'image': .*range"):
            Output("f", image=picture)  # type: ignore[arg-type]
        return
    picture.save(tmp_path / "a.tiff" if mode == "CMYK" else tmp_path / "a.png")
    made = Output("f", image=picture).image  # type: ignore[arg-type]
    assert made is not None
    if mode != "CMYK":
        assert (read_rgb(made) == read_rgb(ImageRef(path=tmp_path / "a.png"))).all()
    assert (read_rgb(made) == np.asarray(picture.convert("RGB"))).all()


def test_masks_and_maps_keep_their_indices() -> None:
    classes = np.arange(12, dtype=np.int64).reshape(3, 4) % 5
    palette = Image.fromarray(classes.astype(np.uint8)).convert("P")
    for value in (
        classes,
        tensor(classes),
        Image.fromarray(classes.astype(np.uint8)),
        palette,
        png(classes.astype(np.uint8)),
    ):
        output = Output("a", map_before=value, map_after=value)
        assert output.map_before is not None and (read_index(output.map_before) == classes).all()
    changed = Sample("a", Task.CHANGE_MASK, reference={"mask": classes > 2}).reference["mask"]
    assert (read_mask(changed) == (classes > 2)).all()


def test_pixels_are_kept_as_they_were_when_the_record_was_made() -> None:
    reused = RGB.copy()
    output = Output("f", image=reused)  # type: ignore[arg-type]
    reused[:] = 0
    assert output.image is not None and (read_rgb(output.image) == RGB).all()
    assert output != Output("f", image=reused)  # type: ignore[arg-type]  # resuming tells outputs apart by their content


STRANGE_IMAGES = [
    (RGB / 255.0, "range"),
    (RGB.astype(np.float32), "range"),
    (RGB.astype(np.int64), "range"),
    (np.moveaxis(RGB, -1, 0), "layout"),
    (np.moveaxis(RGB, -1, 0) / 255.0, "layout"),
    (np.zeros((12, 16, 4), np.uint8), "bands"),
    (np.zeros((0, 16, 3), np.uint8), "shape"),
    (np.zeros((2, 12, 16, 3), np.uint8), "shape"),
    (np.array(["a"]), "numbers"),
    (b"no image", "8 bytes"),
    ("data:image/png;base64,!", "base64"),
    (data_url(RGB)[:-40], "cannot be read"),
    (7, "no image"),
    (object(), "no image"),
    ("", "no image"),
    ("a\0b", "no image"),
    (RGB.tolist(), "no image"),
]


@pytest.mark.parametrize(("value", "why"), STRANGE_IMAGES)
def test_a_forecast_that_is_the_callers_fault_raises_at_once(value: Any, why: str) -> None:
    for make in (
        lambda: Output("f", image=value),
        lambda: as_output({"image": value}, FORECAST),
        lambda: pair_outputs([FORECAST], [Output(image=value)]),
        lambda: Sample("s", Task.FORECAST, reference={"images": [value]}),
        lambda: Sample("s", Task.FORECAST, [value]),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError, match=why) as error:
            make()
        assert "image" in str(error.value)


def test_a_tensor_on_an_unknown_scale_raises() -> None:
    chw = tensor(RGB).permute(2, 0, 1)
    for value, why in ((chw, "layout"), (chw.float() / 255, "layout"), (tensor(RGB).bfloat16(), "range")):
        with pytest.raises(InputError, match=why):
            as_output(value, FORECAST)


def test_numbers_of_a_raster_are_taken_where_the_sample_holds_rasters() -> None:
    stored = np.full((12, 16, 4), 0.25, np.float32)
    raster = Sample("r", Task.FORECAST, reference={"images": [image(stored, stretch=[(0, 1)] * 4, bands=(2, 1, 0))]})
    output = as_output(image(stored, range="stored"), raster)
    assert output.image is not None and output.image.pixels().dtype == np.float32
    for undeclared in (
        ImageRef(array=stored),
        image(stored, range="stored"),
        Output("f", image=ImageRef(array=stored)),
    ):
        with pytest.raises(InputError, match="range"):
            as_output(undeclared, FORECAST)
    with pytest.raises(InputError, match="mask"):
        as_output(ImageRef(array=stored[..., 0]), Sample("m", Task.CHANGE_MASK))


@pytest.mark.parametrize(
    ("keywords", "why"),
    [
        ({"range": (0, 0.5)}, "outside its range"),
        ({"range": (1, 0)}, "low < high"),
        ({"range": (0, float("nan"))}, "finite"),
        ({"range": 3}, "'range'"),
        ({"layout": "CHW"}, "'CHW'|bands"),
        ({"layout": "WHC"}, "'WHC' is unknown"),
        ({"layout": "HW"}, "dimensions"),
        ({"range": (0, 1), "stretch": [(0, 1)] * 3}, "not both"),
        ({"range": (0, 1), "bands": "rgb"}, "'bands'"),
        ({"range": (0, 1), "palette": [(0, 0, 0), (0, 0, 0)]}, "twice"),
        ({"range": (0, 1), "nodata": "x"}, "'nodata'"),
        ({"range": (0, 1), "date": 2020}, "'date'"),
    ],
)
def test_what_is_declared_must_fit_the_array(keywords: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        image(np.linspace(0, 1, 12 * 16 * 3).reshape(12, 16, 3), **keywords)


def test_a_forecast_that_diverged_has_no_brightness() -> None:
    with pytest.raises(InputError, match="not finite"):
        image(np.full((4, 4, 3), np.nan), range=(0, 1))


@given(st.integers(1, 9), st.integers(4, 9), st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
@settings(max_examples=40)
def test_a_declared_range_scales_to_the_nearest_grey_level(height: int, width: int, low: float, extent: float) -> None:
    levels = np.random.default_rng(height * width).integers(0, 256, (height + 3, width, 3))
    made = image(low + levels / 255 * extent, range=(low, low + extent)).array
    assert (
        made is not None
        and made.dtype == np.uint8
        and np.abs(made.astype(int) - levels).max() <= 1e-6 * 255 * abs(low) / extent + 0
    )


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"id": 3}, "'id'"), ({"id": ""}, "'id'"), ({"id": "\ud800"}, "'id'"), ({"task": "paint"}, "'task' is 'paint'"),
        ({"task": "change_q"}, "did you mean 'change_qa'"), ({"task": None}, "'task'"), ({"prompt": 3}, "'prompt'"),
        ({"scene": 3}, "'scene'"), ({"kind": 3}, "'kind'"), ({"metadata": []}, "'metadata'"), ({"reference": "yes"}, "'reference'"),
        ({"reference": {"answers": 3}}, "'reference.answers'"), ({"reference": {"vocabulary": "yes"}}, "'reference.vocabulary'"),
        ({"reference": {"label": 3}}, "'reference.label'"), ({"reference": {"changed": 1}}, "'reference.changed'"),
        ({"reference": {"mask": np.zeros((4, 4))}}, "'reference.mask'"), ({"reference": {"boxes": 3}}, "'reference.boxes'"),
    ],
)  # fmt: skip
def test_a_field_of_a_sample_is_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        Sample(**{"id": "a", "task": "change_qa", **fields})
    if fields.get("id", "a") and fields.get("task", ""):
        with pytest.raises(InputError, match=named):
            as_samples([{"id": "a", "task": "change_qa", **fields}])


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"text": 3}, "'text' must be a string, not 3"), ({"text": ["yes"]}, "'text'"), ({"text": "\ud800"}, "'text'"),
        ({"boxes": [[0, 0, 1]]}, "'boxes'.*4 or 8"), ({"boxes": [[0, 0, 1, float("nan")]]}, "'boxes'.*finite"),
        ({"boxes": np.full((2, 4), np.inf)}, "'boxes'.*finite"), ({"boxes": [["0", 0, 1, 1]]}, "'boxes'.*number"),
        ({"boxes": [[True, 0, 1, 1]]}, "'boxes'.*number"), ({"boxes": "0 0 1 1"}, "'boxes'"), ({"boxes": [[10**400, 0, 1, 1]]}, "'boxes'"),
        ({"candidate": True}, "'candidate'"), ({"candidate": -1}, "'candidate'"), ({"candidate": 1.0}, "'candidate'"),
        ({"seed": "x"}, "'seed'"), ({"invalid": 3}, "'invalid'"), ({"images": []}, "'images'"), ({"mask": np.zeros((4, 4))}, "'mask'"),
        ({"sample_id": 3}, "'sample_id'"),
    ],
)  # fmt: skip
def test_a_field_of_an_output_is_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        Output(**{"sample_id": "a", **fields})


def test_boxes_and_numbers_of_numpy_become_plain() -> None:
    output = Output("a", np.int64(2), boxes=np.array([[0, 1, 2, 3]]), seed=np.uint32(7))  # type: ignore[arg-type]
    assert output == Output("a", 2, boxes=((0.0, 1.0, 2.0, 3.0),), seed=7)
    assert json.dumps([output.candidate, output.seed, output.boxes]) == "[2, 7, [[0.0, 1.0, 2.0, 3.0]]]"


def test_a_bare_value_answers_the_field_of_its_task() -> None:
    grounding, mask = Sample("g", Task.GROUNDING), Sample("m", Task.CHANGE_MASK)
    assert as_output("yes", Sample("q", Task.CHANGE_QA)) == Output("q", text="yes")
    assert as_output([[0, 0, 1, 1]], grounding) == Output("g", boxes=((0.0, 0.0, 1.0, 1.0),))
    assert as_output(np.array([[0.0, 0, 1, 1]]), grounding).boxes == ((0.0, 0.0, 1.0, 1.0),)
    assert as_output(GREY > 9, grounding).mask is not None and as_output(GREY > 9, mask).mask is not None
    series = as_output([RGB, RGB], FORECAST)
    assert series.images is not None and len(series.images) == 2
    for value, sample, why in (
        (np.zeros((9, 4), np.int64), grounding, "boxes or a mask"),
        (RGB, Sample("d", Task.DAMAGE), "buildings and damage"),
        (3, Sample("q", Task.CHANGE_QA), "'text' must be a string, not 3"),
        ({"id": "x", "text": "yes"}, Sample("q", Task.CHANGE_QA), "of the sample 'x'"),
        (Output("x", text="yes"), Sample("q", Task.CHANGE_QA), "of the sample 'x'"),
    ):
        with pytest.raises(InputError, match=why):
            as_output(value, sample)


@pytest.mark.parametrize("task", list(Task))
def test_what_is_missing_is_invalid_and_never_raises(task: Task) -> None:
    sample = Sample("a", task)
    for value in (None, float("nan"), np.nan, pd.NA, pd.NaT, {}, Output(), {"text": None, "image": None}):
        assert as_output(value, sample).invalid
    assert as_output(Output(lost="our server died"), sample).lost == "our server died"
    assert as_output(Output(invalid="cut off"), sample).invalid == "cut off"
    assert len(OUTPUT_FIELDS[task]) > 1 or OUTPUT_FIELDS[task][0] in str(as_output({}, sample).invalid)


QUESTIONS = [
    {
        "id": f"q{n}",
        "task": "change_qa",
        "scene": f"s{n // 2}",
        "reference": {"answers": ["yes"], "vocabulary": ["yes", "no"]},
    }
    for n in range(8)
]
MASKS = [{"id": f"m{n}", "task": "change_mask", "reference": {}} for n in range(4)]
PREDICTIONS: dict[str, list[Any]] = {
    "half are missing": [{"id": f"q{n}", "text": "yes"} for n in range(4)],
    "unknown ids": [{"id": f"q{n}", "text": "yes"} for n in range(4, 12)],
    "duplicates": [{"id": "q1", "text": "yes"}, {"id": "q1", "text": "no"}, {"id": "q1", "candidate": 1, "text": "no"}],
    "wrong fields": [{"id": "q0", "text": 3}, {"id": "q1", "text": ["yes"]}, {"id": "q2", "text": None}, {"id": "q3", "text": "yes"}],
    "misplaced fields": [{"id": "q0", "mask": "a.png"}, {"id": "q1", "boxes": [[0, 0, 1, 1]]}, {"id": "q2", "answer": "yes"}],
    "candidates": [
        {"id": "q0", "candidate": c, "text": "yes"} for c in (True, -1, 1.0, "0", None, 1 << 31, 3, 0)
    ],
    "not for predictions": [{"id": "q0", "lost": "x"}, {"id": "q1", "invalid": "cut off"}, {"id": "q2", "lost": "x", "invalid": "y"}],
    "other fields": [{"id": "q0", "text": "yes", "seed": "x"}, {"id": "q1", "text": "no", "seed": 7, "finish_reason": "stop"}],
    "malformed": [{"id": "q0", "text": "yes"}, {"text": "yes"}, {"id": 3, "text": "yes"}, ["q1", "yes"], None, "yes"],
}  # fmt: skip


@pytest.mark.parametrize("name", PREDICTIONS)
@pytest.mark.parametrize("on_missing", ["invalid", "drop"])
def test_outputs_in_memory_are_counted_as_those_of_a_file(tmp_path: Path, name: str, on_missing: str) -> None:
    write_jsonl(tmp_path / "s.jsonl", QUESTIONS)
    write_jsonl(tmp_path / "p.jsonl", PREDICTIONS[name])
    samples = load_samples(tmp_path / "s.jsonl")
    assert as_samples(QUESTIONS) == samples == as_samples(tmp_path / "s.jsonl") == as_samples(samples)
    wanted, problems = load_outputs(tmp_path / "p.jsonl", samples, on_missing=on_missing)
    outputs, found = pair_outputs(samples, PREDICTIONS[name], on_missing=on_missing)
    assert outputs == wanted
    assert [(problem.kind, problem.reason) for problem in found] == [
        (problem.kind, problem.reason) for problem in problems
    ]
    assert pair_outputs(samples, tmp_path / "p.jsonl", on_missing=on_missing) == (wanted, problems)
    protocol = PROTOCOLS.find("exact-qa")
    by_file, by_list = (
        run_protocol(protocol, Inputs(samples, pairs, said), out=tmp_path / folder)
        for folder, pairs, said in (("file", wanted, problems), ("memory", outputs, found))
    )
    columns = ["sample", "scene", "candidate", "verifier", "status", "value", "reason", "raw"]
    assert by_file.table.frame[columns].equals(by_list.table.frame[columns])
    for key in ("metrics", "slices", "status", "warnings"):
        assert by_file.summary.get(key) == by_list.summary.get(key)
    assert by_file.summary["problems"]["counts"] == by_list.summary["problems"]["counts"]


def test_masks_in_memory_are_paired_as_those_of_a_file(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", GREY)
    write_jsonl(
        tmp_path / "p.jsonl", [{"id": "m0", "mask": "a.png"}, {"id": "m1", "text": "x"}, {"id": "m2", "mask": 3}]
    )
    samples = as_samples(MASKS)
    wanted, problems = load_outputs(tmp_path / "p.jsonl", samples)
    path = str((tmp_path / "a.png").resolve())
    outputs, found = pair_outputs(
        samples, [{"id": "m0", "mask": path}, {"id": "m1", "text": "x"}, {"id": "m2", "mask": 3}]
    )
    assert [(o.sample_id, o.mask, bool(o.invalid)) for o in outputs] == [
        (o.sample_id, o.mask, bool(o.invalid)) for o in wanted
    ]
    assert [problem.kind for problem in found] == [problem.kind for problem in problems]
    with pytest.raises(InputError, match=r"output 1: 'mask'.*no mask"):
        pair_outputs(samples, [{"id": "m0", "mask": GREY > 9}, {"id": "m1", "mask": GREY / 255.0}])


@pytest.mark.parametrize("empty", [[], [{"id": "zzz", "text": "no"}], pd.DataFrame({"id": [], "text": []})])
def test_outputs_of_no_use_are_an_error(empty: Any) -> None:
    with pytest.raises(InputError, match="no prediction that can be used"):
        pair_outputs(as_samples(QUESTIONS), empty)


def test_tables_are_read_by_row(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    samples = as_samples(pd.DataFrame(QUESTIONS))
    assert samples == as_samples(QUESTIONS) == as_samples(datasets.Dataset.from_list(QUESTIONS))
    frame = pd.DataFrame(
        {
            "id": ["q0", "q0", "q1", "q2"],
            "candidate": [0, 1, np.nan, 0],
            "text": ["yes", "no", "no", np.nan],
            "other": [1, 2, 3, 4],
        }
    )
    wanted = [Output("q0", 0, text="yes"), Output("q0", 1, text="no"), Output("q1", 0, text="no")]
    for table in (
        frame,
        frame.set_index("id"),
        frame.convert_dtypes(),
        datasets.Dataset.from_pandas(frame[["id", "text"]].iloc[[0, 2, 3]]),
    ):
        outputs, problems = pair_outputs(samples, table)
        assert [output for output in outputs if not output.invalid] == [
            o for o in wanted if len(table) == 4 or not o.candidate
        ]
        assert [problem.kind for problem in problems] == ["wrong_field"] + ["missing"] * 5
    double = pd.concat([frame["id"], frame["text"], frame["text"]], axis=1)
    with pytest.raises(InputError, match="twice"):
        pair_outputs(samples, double)


def test_values_without_names_are_paired_by_place() -> None:
    samples = as_samples(QUESTIONS)[:3]
    for values in (["yes", None, "no"], ("yes", None, "no"), pd.Series(["yes", None, "no"]), [{"text": "yes"}, {}, {"text": "no"}],
                   [Output(text="yes"), Output(), Output(text="no")], iter([Output(text="yes"), None, {"text": "no"}])):  # fmt: skip
        outputs, problems = pair_outputs(samples, values)
        assert [(output.sample_id, output.text) for output in outputs] == [("q0", "yes"), ("q1", None), ("q2", "no")]
        assert outputs[1].invalid and len(problems) == 1
    for values, why in (
        (["yes", "no"], "2 outputs for 3 samples"),
        (["yes", "no", 3], r"output 2: 'text' must be a string, not 3"),
        ({"q0": "yes"}, "must be a list"),
        ("yes", "cannot be read"),
        (b"yes", "must be a list"),
        (3, "must be a list"),
        (Output("q0"), "must be a list"),
    ):
        with pytest.raises(InputError, match=why):
            pair_outputs(samples, values)


def test_records_that_call_the_id_sample_id_are_paired_by_name(tmp_path: Path) -> None:
    samples = as_samples(QUESTIONS)[:3]
    turned = [{"sample_id": name, "text": name} for name in ("q2", "q0", "q1")]
    frame = pd.DataFrame(turned)
    made = [dataclasses.asdict(Output(record["sample_id"], text=record["text"])) for record in turned]
    write_jsonl(tmp_path / "p.jsonl", turned)
    for records in (turned, frame, frame.set_index("sample_id"), made, tmp_path / "p.jsonl"):
        outputs, problems = pair_outputs(samples, records)
        assert [(output.sample_id, output.text) for output in outputs] == [(name, name) for name in ("q0", "q1", "q2")]
        assert problems == []
    assert as_output({"sample_id": "q1", "text": "yes"}, samples[1]).text == "yes"
    with pytest.raises(InputError, match="of the sample 'q1', not of 'q0'"):
        as_output({"sample_id": "q1", "text": "yes"}, samples[0])
    two = {"id": "q0", "sample_id": "q1", "text": "yes"}
    with pytest.raises(
        InputError, match="output 1: the output names two samples, 'q0' as 'id' and 'q1' as 'sample_id'"
    ):
        pair_outputs(samples, [turned[0], two])
    with pytest.raises(InputError, match="two samples"):
        as_output(two, samples[0])
    write_jsonl(tmp_path / "p.jsonl", [turned[0], two])
    assert [problem.kind for problem in load_outputs(tmp_path / "p.jsonl", samples)[1]] == [
        "malformed",
        "missing",
        "missing",
    ]


def test_a_chat_message_is_its_text() -> None:
    sample = as_samples(QUESTIONS)[0]
    message = {"role": "assistant", "content": "yes"}
    asked = {"role": "user", "content": "Did it change?"}
    parts = {"role": "assistant", "content": [{"type": "text", "text": "y"}, {"type": "text", "text": "es"}]}
    for value in (message, [message], [asked, message], [message, asked, parts], (parts,)):
        assert as_output(value, sample) == Output("q0", text="yes")
        assert pair_outputs([sample], [value])[0] == [Output("q0", text="yes")]
    assert as_output([{"role": "assistant", "content": None}], sample).invalid
    for value, why in (
        ([message, asked], "'role' of the last message is 'user'"),
        ({"role": "assistant", "content": 3}, "'text' must be a string, not 3"),
        ({"role": "assistant", "content": [{"type": "image_url", "image_url": "a.png"}]}, "'content' of a message"),
    ):
        with pytest.raises(InputError, match=why):
            as_output(value, sample)


def test_an_answer_under_a_name_that_no_output_has_is_the_callers_fault() -> None:
    sample = as_samples(QUESTIONS)[0]
    for record, why in (
        ({"answer": "yes"}, "'answer' is no field of a change_qa output; known are text"),
        ({"id": "q0", "texts": "yes"}, "'texts' is no field of a change_qa output; did you mean 'text'"),
        ({"images": ["a.png"], "x": 1}, "'x' is no field"),
    ):
        with pytest.raises(InputError, match=why):
            as_output(record, sample)
    with pytest.raises(InputError, match="output 0: 'answer' is no field"):
        pair_outputs([sample], [{"answer": "yes"}])
    assert as_output({"text": "yes", "model": "m"}, sample).text == "yes"
    assert as_output({"finish_reason": "length"}, sample).invalid == "a change_qa prediction needs text"


def test_whole_numbers_for_a_mask_are_0_and_255_or_declared() -> None:
    marked = GREY > 127
    truth = Sample("m", "change_mask", reference={"mask": marked})  # type: ignore[arg-type]
    classes = Sample("c", "change_mask", reference={"mask": marked * 2, "classes": ["none", "road", "house"]})  # type: ignore[arg-type]
    grounding = Sample("g", Task.GROUNDING)
    for sample in (truth, grounding):
        for value in (marked, marked * np.uint8(255), marked * 255,
                      image(marked.astype(np.uint8), threshold=0), image(marked * 7, levels=[0, 7]),
                      {"array": marked.astype(np.uint8), "nodata": 9}):  # fmt: skip
            output = as_output({"mask": value}, sample)
            assert output.mask is not None and not output.invalid
            assert (read_mask(output.mask) == marked).all()
        for value in (np.zeros((12, 16), np.uint8), np.full((12, 16), 255)):
            assert not as_output({"mask": value}, sample).invalid
        for values, why in (
            (
                marked.astype(np.uint8),
                "'mask': the uint8 array .* holds the values 0 and 1; give a mask as bool or as 0 and 255",
            ),
            (np.ones((12, 16), np.int64), "holds the value 1"),
            (marked * -1, "holds the values -1 and 0"),
            (GREY % 100, "values from 0 to 99"),
        ):
            for call in (
                lambda: as_output({"mask": values}, sample),  # noqa: B023
                lambda: as_output(Output(mask=values), sample),  # noqa: B023
                lambda: pair_outputs([sample], [{"id": sample.id, "mask": values}]),  # noqa: B023
            ):
                with pytest.raises(InputError, match=why):
                    call()
    assert as_output((marked * 2).astype(np.uint8), classes).mask is not None
    for task, names in OUTPUT_FIELDS.items():
        if "map_before" in names or "damage" in names:
            assert not as_output(dict.fromkeys(names, marked.astype(np.uint8)), Sample("x", task)).invalid


@pytest.mark.parametrize("task", [task for task, names in OUTPUT_FIELDS.items() if names != ("text",)])
def test_a_text_that_is_no_file_is_no_image(task: Task, tmp_path: Path) -> None:
    sample, said = Sample("a", task), "I think a road appears"
    write_png(tmp_path / "a.png", GREY)
    names = OUTPUT_FIELDS[task][:1] if task in (Task.FORECAST, Task.GROUNDING) else OUTPUT_FIELDS[task]
    names = ("mask",) if task is Task.GROUNDING else names
    given = dict.fromkeys(names, str(tmp_path / "a.png"))
    assert not as_output(given, sample).invalid
    wrong = {**given, names[-1]: said}
    for value in (
        wrong,
        Output(**wrong),
        *([said, [{"role": "assistant", "content": said}]] if len(names) == 1 else []),
    ):
        with pytest.raises(InputError, match=f"'{names[-1]}': there is no file '{said}'; a {task} output is no text"):
            as_output(value, sample)
    assert pair_outputs([sample], [{"id": "a", **wrong}])[0] == [Output("a", **{**given, names[-1]: said})]
    if len(names) == 1:
        with pytest.raises(InputError, match=r"output 0: .*there is no file"):
            pair_outputs([sample], [said])


def test_a_text_too_long_for_a_file_name_is_refused_as_an_image() -> None:
    with pytest.raises(InputError, match=r"'image': there is no file 'road road .*; a forecast output is no text"):
        as_output({"image": "road " * 10_000}, FORECAST)


def test_boxes_as_a_text_are_refused() -> None:
    with pytest.raises(InputError, match=r"there is no file '\[\[1,1,5,5\]\]'.*give boxes as a list"):
        as_output("[[1,1,5,5]]", Sample("g", Task.GROUNDING))


def test_an_image_reference_holds_an_image() -> None:
    with pytest.raises(InputError, match="needs a 'path' or an 'array'"):
        ImageRef()
    for array, why in (
        (np.zeros((3, 8, 8), np.uint8), "'image': .*shape \\(3, 8, 8\\) has 8 bands.*layout='CHW'"),
        (np.zeros((8,), np.uint8), "'image': .*shape"),
        (np.zeros((2, 3, 8, 8), np.uint8), "'image': .*shape"),
        (np.zeros((0, 8), np.uint8), "'image': .*shape"),
        (tensor(RGB), "'image': .*rsw.image"),
        (RGB.tolist(), "'image': .*rsw.image"),
    ):
        with pytest.raises(InputError, match=why):
            as_output({"image": ImageRef(array=array)}, FORECAST)
        with pytest.raises(InputError, match=why):
            pair_outputs([FORECAST], [{"id": "f", "image": ImageRef(array=array)}])
    for fields in ({"mask": ImageRef(array=np.zeros(4, bool))}, {"images": [ImageRef(array=np.zeros(4, bool))]}):
        with pytest.raises(InputError, match=f"'{next(iter(fields))}': .*shape"):
            Output("a", **fields)
    with pytest.raises(InputError, match=r"'images': .*shape"):
        Sample("a", Task.FORECAST, (ImageRef(array=np.zeros((0, 4, 3), np.uint8)),))


def test_an_array_whose_mask_hides_elements_is_refused() -> None:
    hidden, whole = np.ma.masked_array(GREY, GREY > 9), np.ma.masked_array(RGB, False)
    for make in (
        lambda: as_output(np.ma.masked_array(GREY > 9, True), Sample("m", Task.CHANGE_MASK)),
        lambda: as_output(np.ma.masked_array(RGB, True), FORECAST),
        lambda: Sample("m", Task.CHANGE_MASK, reference={"mask": hidden}),
        lambda: Output("g", boxes=np.ma.masked_array([[0.0, 0, 1, 1]], [[True, False, False, False]])),  # type: ignore[arg-type]
        lambda: rsw.metrics.ssim(np.ma.masked_array(RGB, True), RGB),
        lambda: rsw.metrics.mean_absolute_error(hidden, GREY),
    ):
        with pytest.raises(InputError, match="has masked elements"):
            make()
    output = as_output(whole, FORECAST)
    assert output.image is not None and (read_rgb(output.image) == RGB).all()


@pytest.mark.parametrize("source", [{"id": "a"}, 3, None, b"x", [], [3], ["a"], [{"id": "a"}], [QUESTIONS[0]] * 2])
def test_samples_that_are_none_raise(source: Any) -> None:
    with pytest.raises(InputError):
        as_samples(source)


def test_an_output_of_a_sample_that_names_no_id_is_found_by_its_number() -> None:
    samples = as_samples([{"task": "change_qa", "reference": {"answers": "yes"}}] * 3)
    assert [(sample.id, sample.scene) for sample in samples] == [("0", "0"), ("1", "1"), ("2", "2")]
    assert as_samples([{"reference": {"label": "a"}}], task="classification")[0].task is Task.CLASSIFICATION


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.sampled_from([2**63, 10**400, -(2**64)]), st.floats(), st.text(max_size=8),
    st.sampled_from(["\ud800", "\0", "NaN", "data:,", "data:image/png;base64,AAAA", "a.png", "change_qa", b"", b"\x89PNG", 1j, object()]),
    st.sampled_from([np.float64("nan"), np.int8(3), np.bool_(True), np.str_("yes"), np.zeros(()), np.zeros((0, 4)), np.zeros((3, 4, 4)),
                     np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4)), np.array([{}], object), np.array(["a"]), pd.NA, pd.NaT]),
)  # fmt: skip
KEYS = st.sampled_from(
    ["path", "bytes", "array", "layout", "range", "bands", "stretch", "nodata", "palette", "date", "role", "id", "x"]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.tuples(inner), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=8,
)
REFERENCE_KEYS = ["answers", "captions", "vocabulary", "labels", "boxes", "images", "classes", "changes", "choices", "levels", "unit",
                  "text", "label", "changed", "mask", "valid", "clouds", "map_before", "buildings", "image", "no_change", "x"]  # fmt: skip


@given(
    st.sampled_from(["id", "task", "images", "prompt", "scene", "kind", "metadata", "reference", *REFERENCE_KEYS]),
    VALUES,
)
@settings(max_examples=300, deadline=None)
def test_any_sample_is_made_or_refused_by_name(name: str, value: Any) -> None:
    record = {"id": "a", "task": "change_qa", "reference": {"answers": "yes"}}
    if name in REFERENCE_KEYS:
        record["reference"] = {name: value}
    else:
        record[name] = value
    try:
        sample = as_sample(record, 0)
    except InputError as error:
        assert f"{name}'" in str(error) or f"{name}[" in str(error)
        return
    assert type(sample.task) is Task and sample.id and sample.scene
    assert all(type(shown) is ImageRef for shown in sample.every_image)


@given(st.sampled_from(list(Task)), st.sampled_from(["text", "image", "images", "mask", "map_before", "buildings", "boxes", "candidate",
                                                     "seed", "invalid", "lost", "finish_reason", "policy_version", "x"]), VALUES)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_any_output_is_made_or_refused_by_name(task: Task, name: str, value: Any) -> None:
    sample = Sample("a", task)
    try:
        output = as_output({name: value}, sample)
    except InputError as error:
        assert f"{name}'" in str(error) or f"{name}[" in str(error)
        return
    assert output.sample_id == "a" and type(output.candidate) is int
    try:
        pair_outputs([sample], [{"id": "a", name: value}])
        as_output(value, sample)
    except InputError:
        return


@given(
    st.lists(
        st.one_of(VALUES, st.dictionaries(st.sampled_from(["id", "candidate", "text", "mask", "boxes"]), VALUES)),
        max_size=4,
    )
)
@settings(max_examples=200, deadline=None)
def test_any_list_of_outputs_is_paired_or_refused(values: list[Any]) -> None:
    samples = as_samples(QUESTIONS)
    try:
        outputs, _ = pair_outputs(samples, values)
    except InputError:
        return
    assert {output.sample_id for output in outputs} == {sample.id for sample in samples}


def test_examples_run() -> None:
    assert doctest.testmod(in_memory).failed == doctest.testmod(outputs).failed == 0
