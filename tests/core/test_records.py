"""Samples, outputs and images: what is read, what is refused, and what a refusal says."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rsw_rewards as rsw
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Sample, Task
from rsw_rewards.errors import ImageError, InputError
from rsw_rewards.io.images import encode_png, read_mask, read_rgb, write_png
from rsw_rewards.io.paths import Roots
from rsw_rewards.io.records_io import load_outputs, load_samples, output_to_json, sample_to_json, write_jsonl
from rsw_rewards.pixels import content_hash, read_pixels
from rsw_rewards.rollouts.dumps import write_dump


def write_samples(folder: Path, *records: dict[str, object]) -> Path:
    path = folder / "samples.jsonl"
    write_jsonl(path, records)
    return path


def question(name: str, **more: object) -> dict[str, object]:
    return {"id": name, "task": "change_qa", "reference": {"answers": ["yes"]}, **more}


def bomb(path: Path, side: int) -> None:
    """A PNG of a few bytes that declares ``side`` x ``side`` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def test_samples_survive_a_round_trip(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))
    record = {
        "id": "x/1", "task": "forecast", "scene": "x", "kind": "flooding", "prompt": "flooding",
        "images": ["a.png", {"path": "a.png", "date": "2020-01-01", "bands": [2, 1, 0]}],
        "reference": {"images": ["a.png"], "text": "flooded"}, "metadata": {"gsd_m": 0.5},
    }  # fmt: skip
    sample = load_samples(write_samples(tmp_path, record))[0]
    assert sample.images[1].date == "2020-01-01" and sample.images[1].bands == (2, 1, 0)
    assert sample.reference["images"][0].path == (tmp_path / "a.png").resolve()
    assert sample_to_json(sample, tmp_path) == record


@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd", "a/../../secret.png", "link/secret.png", "a\0b"])
def test_a_path_that_leaves_the_roots_is_refused(tmp_path: Path, path: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret.png").write_bytes(encode_png(np.zeros((2, 2), np.uint8)))
    (inside / "link").symlink_to(tmp_path)
    with pytest.raises(InputError):
        Roots(inside).resolve(path)
    with pytest.raises(InputError, match=r"samples.jsonl:1"):
        load_samples(write_samples(inside, question("q", images=[path])))


def test_a_root_of_the_user_is_searched_first(tmp_path: Path) -> None:
    for name in ("own", "other"):
        (tmp_path / name).mkdir()
    write_png(tmp_path / "other" / "a.png", np.zeros((2, 2, 3), np.uint8))
    sample = load_samples(write_samples(tmp_path / "own", question("q", images=["a.png"])), [tmp_path / "other"])[0]
    assert sample.images[0].path == (tmp_path / "other" / "a.png").resolve()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not valid JSON"),
        ("[1]", "must be a JSON object"),
        ('{"task": "change_qa"}', "'id'"),
        ('{"id": "a", "task": "paint"}', "'task' is 'paint'"),
        ('{"id": "a", "task": "change_qa", "images": "a.png"}', "'images' must be a list"),
        ('{"id": "a", "task": "change_qa", "reference": {"answers": "yes"}}', "reference.answers"),
        ('{"id": "ok", "task": "change_qa"}', "stands already at"),
    ],
)
def test_a_bad_sample_is_named_with_its_line(tmp_path: Path, line: str, says: str) -> None:
    path = write_samples(tmp_path, question("ok"))
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError, match=r"samples\.jsonl:2") as error:
        load_samples(path)
    assert says in str(error.value)


def test_problems_of_predictions_are_counted_and_cost_nothing_else(tmp_path: Path) -> None:
    samples = load_samples(write_samples(tmp_path, question("a"), question("b"), question("c"), question("d")))
    path = tmp_path / "predictions.jsonl"
    lines = [{"id": "a", "text": "yes"}, {"id": "b", "text": 3}, {"id": "zzz", "text": "no"}, {"id": "a", "text": "no"}]
    path.write_text("\n".join([*(json.dumps(line) for line in lines), "{broken", '{"id": "d", "candidate": -1}']))
    outputs, problems = load_outputs(path, samples)
    assert [problem.kind for problem in problems] == [
        "wrong_field", "unknown_id", "duplicate", "malformed", "malformed", "missing", "missing",
    ]  # fmt: skip
    assert "predictions.jsonl:5" in problems[3].where
    assert [(output.sample_id, output.text, bool(output.invalid)) for output in outputs] == [
        ("a", "yes", False), ("b", None, True), ("c", None, True), ("d", None, True),
    ]  # fmt: skip
    assert [output.sample_id for output in load_outputs(path, samples, on_missing="drop")[0]] == ["a", "b"]


@pytest.mark.parametrize("content", ["", "\n\n", "{broken\n", '{"id": "zzz", "text": "no"}\n'])
def test_a_predictions_file_of_no_use_is_an_error(tmp_path: Path, content: str) -> None:
    samples = load_samples(write_samples(tmp_path, question("a")))
    (tmp_path / "p.jsonl").write_text(content)
    with pytest.raises(InputError, match="no prediction that can be used"):
        load_outputs(tmp_path / "p.jsonl", samples)


def test_outputs_survive_a_round_trip(tmp_path: Path) -> None:
    write_png(tmp_path / "f.png", np.zeros((4, 4, 3), np.uint8))
    record = {"id": "f", "task": "forecast", "images": ["f.png"], "reference": {"images": ["f.png"]}}
    samples = load_samples(write_samples(tmp_path, record))
    lines = [{"id": "f", "candidate": 0, "image": "f.png"}, {"id": "f", "candidate": 1, "invalid": "truncated"}]
    write_jsonl(tmp_path / "p.jsonl", lines)
    outputs, problems = load_outputs(tmp_path / "p.jsonl", samples)
    assert not problems
    assert [output_to_json(output, tmp_path) for output in outputs] == lines


def test_half_a_surrogate_pair_is_no_text(tmp_path: Path) -> None:
    """JSON can escape it, but nothing can write it down again: not the scores, not the report."""
    samples = load_samples(write_samples(tmp_path, question("a"), question("b")))
    (tmp_path / "p.jsonl").write_text('{"id": "a", "text": "\\ud83d\\ude00"}\n{"id": "b", "text": "\\ud800"}\n')
    outputs, problems = load_outputs(tmp_path / "p.jsonl", samples)
    assert outputs[0].text == "\N{GRINNING FACE}" and outputs[1].invalid
    assert [problem.kind for problem in problems] == ["malformed", "missing"]
    (tmp_path / "s.jsonl").write_text('{"id": "\\ud800", "task": "change_qa"}\n')
    with pytest.raises(InputError, match=r"s.jsonl:1: .*surrogate pair"):
        load_samples(tmp_path / "s.jsonl")


def test_numbers_that_no_float_holds_are_an_invalid_output(tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text('{"id": "a", "task": "grounding", "reference": {"boxes": [[0, 0, 1, 1]]}}\n')
    (tmp_path / "p.jsonl").write_text(f'{{"id": "a", "boxes": [[{"9" * 400}, 0, 1, 1]]}}\n')
    (output,), problems = load_outputs(tmp_path / "p.jsonl", load_samples(tmp_path / "s.jsonl"))
    assert output.invalid and [problem.kind for problem in problems] == ["wrong_field"]


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_with_a_sentence(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        samples = load_samples(write_samples(Path(folder), question("a")))
        path = Path(folder) / "p.jsonl"
        path.write_bytes(data)
        try:
            outputs, _ = load_outputs(path, samples)
        except InputError:
            return
        assert {output.sample_id for output in outputs} == {"a"}


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    for side in (9_000, 60_000):  # the first is below Pillow's own limit for an error, the second far above
        bomb(tmp_path / "bomb.png", side)
        with pytest.raises(ImageError, match="tile it first"):
            read_pixels(tmp_path / "bomb.png")


def test_a_bomb_in_an_npz_is_refused_by_its_header(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", np.zeros((9_000, 9_000), np.uint8))
    with pytest.raises(ImageError, match="tile it first"):
        read_pixels(tmp_path / "bomb.npz")


def test_pickles_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", np.array([{"a": 1}], dtype=object))
    np.save(tmp_path / "p.npy", np.array([[{"a": 1}]], dtype=object), allow_pickle=True)
    for name in ("p.npz", "p.npy"):
        with pytest.raises(ImageError):
            read_pixels(tmp_path / name)


def test_broken_images_say_so(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty.tif").write_bytes(b"")
    whole = encode_png(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    for name in ("text.png", "empty.tif", "cut.png", "absent.png"):
        with pytest.raises(ImageError, match=name):
            read_pixels(tmp_path / name)


def test_masks_hold_0_and_255(tmp_path: Path) -> None:
    write_png(tmp_path / "m.png", np.array([[0, 0], [255, 255]], np.uint8))
    assert read_mask(ImageRef(path=tmp_path / "m.png")).tolist() == [[False, False], [True, True]]
    write_png(tmp_path / "m.png", np.array([[0, 1], [1, 0]], np.uint8))
    with pytest.raises(ImageError, match="0 and 255"):
        read_mask(ImageRef(path=tmp_path / "m.png"))


def test_bands_to_look_at_are_declared() -> None:
    raster = np.arange(2 * 2 * 4, dtype=np.uint8).reshape(2, 2, 4)
    assert (read_rgb(ImageRef(array=raster, bands=(2, 1, 0))) == raster[..., [2, 1, 0]]).all()
    for image in (
        ImageRef(array=raster),
        ImageRef(array=raster, bands=(4, 1, 0)),
        ImageRef(array=raster.astype(np.float32)),
    ):
        with pytest.raises(ImageError):
            read_rgb(image)


def test_the_content_hash_does_not_depend_on_where_pixels_are(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (8, 9, 3), dtype=np.uint8)
    write_png(tmp_path / "a.png", pixels)
    assert content_hash(read_pixels(tmp_path / "a.png")) == content_hash(pixels)
    assert content_hash(pixels) != content_hash(pixels.reshape(9, 8, 3))


def test_every_task_knows_its_output_fields() -> None:
    from rsw_rewards.core.records import OUTPUT_FIELDS

    assert set(OUTPUT_FIELDS) == set(Task)


def test_nobody_elses_file_can_leave_the_benchmark_by_calling_an_output_lost(tmp_path: Path) -> None:
    samples = load_samples(write_samples(tmp_path, question("a"), question("b")))
    lines = [{"id": "a", "lost": "x"}, {"id": "b", "text": "yes", "lost": "x"}]
    write_jsonl(tmp_path / "p.jsonl", lines)
    (first, second), problems = load_outputs(tmp_path / "p.jsonl", samples)
    assert first.lost is None and [str(problem.reason) for problem in problems] == [
        "a change_qa prediction needs text, and the record has 'lost'"
    ]
    assert second.text == "yes" and second.lost is None
    found = rsw.rewards({"exact_match": 1.0}, tmp_path / "samples.jsonl", tmp_path / "p.jsonl")
    assert list(found.scores["status"]) == ["invalid_output", "ok"]
    with pytest.raises(InputError, match="'lost' is no field of a change_qa output"):
        rsw.score("exact_match", {"lost": "x"}, reference={"answers": ["yes"], "vocabulary": ["yes"]})
    (first, _), problems = load_outputs(tmp_path / "p.jsonl", samples, own=True)
    assert first.lost == "x" and not problems


def test_a_dump_of_our_own_says_which_outputs_were_lost(tmp_path: Path) -> None:
    samples = load_samples(write_samples(tmp_path, question("a"), question("b")))
    outputs = [rsw.Output("a", lost="its actor died"), rsw.Output("b", text="yes")]
    found = rsw.rewards({"exact_match": 1.0}, samples, outputs)
    write_dump(tmp_path / "dump", samples, outputs, found.table, [None, 1.0], {})
    again = rsw.rewards({"exact_match": 1.0}, samples, tmp_path / "dump" / "predictions.jsonl")
    assert [record["reward"] for record in again.records] == [None, 1.0]


@pytest.mark.parametrize("field", [{"seed": "x"}, {"seed": 1 << 80}, {"policy_version": "v1"}, {"invalid": 3}])
def test_a_field_of_another_kind_is_an_invalid_output(tmp_path: Path, field: dict[str, object]) -> None:
    samples = load_samples(write_samples(tmp_path, question("a")))
    write_jsonl(tmp_path / "p.jsonl", [{"id": "a", "text": "yes", **field}])
    (output,), _ = load_outputs(tmp_path / "p.jsonl", samples)
    assert output.invalid and next(iter(field)) in output.invalid


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04broken"])
def test_arrays_that_are_broken_say_so(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=name):
        read_pixels(tmp_path / name)


def test_an_array_of_too_many_bands_is_refused_unread(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "deep.npz", "w") as archive, archive.open("a.npy", "w") as member:
        header = {"descr": "|u1", "fortran_order": False, "shape": (8000, 8000, 4096)}
        member.write(b"\x93NUMPY\x01\x00")
        member.write(_npy_header(header))
    with pytest.raises(ImageError, match="bytes that are read"):
        read_pixels(tmp_path / "deep.npz")


def _npy_header(header: dict[str, object]) -> bytes:
    text = repr(header).encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return struct.pack("<H", len(text)) + text


def test_a_palette_is_looked_at_in_colour_and_read_as_indices(tmp_path: Path) -> None:
    from PIL import Image

    from rsw_rewards.io.images import read_index

    image = Image.fromarray(np.array([[1, 0]], np.uint8), mode="P")
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.save(tmp_path / "p.png")
    assert read_rgb(ImageRef(path=tmp_path / "p.png")).tolist() == [[[255, 0, 0], [0, 0, 0]]]
    assert read_index(ImageRef(path=tmp_path / "p.png")).tolist() == [[1, 0]]


GOOD_MASK = {
    "id": "a",
    "images": ["a.png", {"path": "b.png", "date": "2020", "sensor": "S2"}],
    "kind": "x",
    "reference": {},
}


@pytest.mark.parametrize(
    ("where", "entry", "message"),
    [
        ("images", {"path": "a.png", "date": 2020}, r"'images\[1\]': 'date' must be a string, not 2020"),
        ("images", {"path": ["a.png"]}, r"'images\[1\]': an image must be a path or an object with 'path'"),
        (
            "images",
            {"path": "a.tif", "bands": [0]},
            r"'images\[1\]': 'bands' must be \[red, green, blue\], .*not \[0\]",
        ),
        ("images", {"path": "a.tif", "bands": [0, 1, -1]}, r"'images\[1\]': 'bands' must be"),
        ("images", {"path": "a.tif", "strech": [[0, 1]]}, r"'images\[1\]': .*no 'strech'; did you mean 'stretch'"),
        ("images", "", r"'images\[1\]': the path '' names no file"),
        ("mask", {"path": "m.png", "nodata": True}, r"'reference\.mask': 'nodata' must be a number, not True"),
        ("mask", {"path": "m.png", "threshold": "0.5"}, r"'reference\.mask': 'threshold' must be a number, not '0\.5'"),
        ("mask", 3, r"'reference\.mask': an image must be a path"),
        ("kind", 3, r"'kind' must be a string, not 3"),
        ("reference", [], r"'reference' must be an object, not \[\]"),
    ],
)
def test_a_wrong_field_of_an_image_entry_is_named_with_line_and_place(
    where: str, entry: Any, message: str, tmp_path: Path
) -> None:
    record: dict[str, Any] = {
        "id": "b",
        "task": "change_mask",
        "images": ["a.png", "b.png"],
        "reference": {"mask": "m.png"},
    }
    record |= {
        "images": {"images": ["a.png", entry]}, "mask": {"reference": {"mask": entry}}, "kind": {"kind": entry},
        "reference": {"reference": entry},
    }[where]  # fmt: skip
    (tmp_path / "s.jsonl").write_text(json.dumps({**record, **GOOD_MASK}) + "\n" + json.dumps(record) + "\n")
    with pytest.raises(InputError, match=rf"s\.jsonl:2: {message}"):
        load_samples(tmp_path / "s.jsonl")


def test_a_wrong_image_entry_of_a_prediction_is_an_invalid_output_that_names_its_field(tmp_path: Path) -> None:
    sample = Sample("a", Task.CHANGE_MASK)
    (tmp_path / "p.jsonl").write_text(json.dumps({"id": "a", "mask": {"path": "m.png", "treshold": 1}}) + "\n")
    (output,), _ = load_outputs(tmp_path / "p.jsonl", [sample])
    assert output.invalid == "'mask': an image has no 'treshold'; did you mean 'threshold'?"
