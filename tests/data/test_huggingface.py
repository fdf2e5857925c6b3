"""The hf:NAME adapter on copies in folders; the hub itself is stood in for."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

import rsw_rewards as rsw
from rsw_rewards.core.records import Sample, Task
from rsw_rewards.data.adapter import Conversion
from rsw_rewards.data.registry import resolve_adapter
from rsw_rewards.errors import ConfigError, InputError
from rsw_rewards.io.images import read_mask, write_png
from rsw_rewards.io.records_io import load_samples

PAIR = [np.full((4, 5, 3), value, np.uint8) for value in (10, 200)]
MASK = np.arange(20).reshape(4, 5) % 2


def picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels.astype(np.uint8))


def table(rows: int = 3) -> datasets.Dataset:
    feature = datasets.Image()
    columns = {
        "key": [f"q{n}" for n in range(rows)], "pair": [[picture(PAIR[0]), picture(PAIR[1])]] * rows,
        "mask": [picture(MASK)] * rows, "said": ["yes", "7", "no"][:rows], "many": [["a b", "c d"]] * rows,
        "label": [1, 0, 1][:rows], "place": ["x", "x", "y"][:rows], "boxes": [[[0.0, 1.0, 2.0, 3.0]]] * rows,
    }  # fmt: skip
    features = datasets.Features(
        key=datasets.Value("string"), pair=datasets.List(feature), mask=feature, said=datasets.Value("string"),
        many=datasets.List(datasets.Value("string")), label=datasets.ClassLabel(names=["farm", "town"]),
        place=datasets.Value("string"), boxes=datasets.List(datasets.List(datasets.Value("float64"))),
    )  # fmt: skip
    return datasets.Dataset.from_dict(columns, features=features)


@pytest.fixture(params=["parquet", "disk", "disk of splits"])
def copy(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    if request.param == "parquet":
        (folder / "data").mkdir(parents=True)
        table().to_parquet(folder / "data" / "test-00000-of-00001.parquet")
        # datasets would follow this to a file outside the folder
        (folder / "README.md").write_text(
            "---\nconfigs:\n- config_name: default\n  data_files: ../elsewhere.parquet\n---\n"
        )
    elif request.param == "disk":
        table().save_to_disk(folder)
    else:
        datasets.DatasetDict({"test": table(), "train": table(1)}).save_to_disk(folder)
    return folder


def made(folder: Path | str, out: Path, **options: Any) -> tuple[Conversion, list[Sample]]:
    done = resolve_adapter("hf:me/set")(Path(folder), out, split="test", **options)
    return done, load_samples(done.file, done.roots)


def test_questions(copy: Path, tmp_path: Path) -> None:
    done, samples = made(
        copy, tmp_path / "out", task="change_qa", images="pair", id="key", question="place", answer="said", kind="label",
        scene="place",
    )  # fmt: skip
    assert (done.samples, done.roots, done.notes) == (3, [], [])
    assert [sample.id for sample in samples] == ["me/set/test/q0", "me/set/test/q1", "me/set/test/q2"]
    assert [sample.reference["answers"] for sample in samples] == [["yes"], ["7"], ["no"]]
    assert [sample.scene for sample in samples] == ["me/set/x", "me/set/x", "me/set/y"]
    assert [sample.kind for sample in samples] == ["town", "farm", "town"]
    assert [sample.prompt for sample in samples] == ["x", "x", "y"]
    for sample in samples:
        for image, pixels in zip(sample.images, PAIR, strict=True):
            np.testing.assert_array_equal(image.pixels(), pixels)
    assert not list((tmp_path / "out").glob(".*"))


def test_other_tasks(copy: Path, tmp_path: Path) -> None:
    _, samples = made(
        copy, tmp_path / "a", task="change_mask", images=["pair"], mask="mask", prompt="Mark it.", limit=1
    )
    assert (len(samples), samples[0].task, samples[0].id) == (1, Task.CHANGE_MASK, "me/set/test/0")
    assert samples[0].prompt == "Mark it."
    np.testing.assert_array_equal(read_mask(samples[0].reference["mask"]), MASK == 1)
    _, samples = made(copy, tmp_path / "b", task="change_caption", images="pair", captions=["many", "said"], limit=1)
    assert samples[0].reference == {"captions": ["a b", "c d", "yes"]}
    _, samples = made(copy, tmp_path / "c", task="classification", images="mask", answer="label")
    assert [sample.reference["label"] for sample in samples] == ["town", "farm", "town"]
    assert samples[0].reference["vocabulary"] == ["farm", "town"]
    _, samples = made(copy, tmp_path / "d", task="grounding", images="pair", boxes="boxes", question="said", limit=1)
    assert samples[0].reference == {"boxes": [[0.0, 1.0, 2.0, 3.0]]}


def rows(folder: Path, records: list[dict[str, Any]], name: str = "test.jsonl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def test_images_named_by_path_stay_where_they_are(tmp_path: Path) -> None:
    folder = rows(tmp_path / "copy", [{"a": "img/1.png", "b": "img/2.png", "said": 3}])
    (folder / "img").mkdir()
    for n, pixels in enumerate(PAIR, start=1):
        write_png(folder / "img" / f"{n}.png", pixels)
    done, samples = made(folder, tmp_path / "out", task="change_qa", images=["a", "b"], answer="said")
    assert done.roots == [folder]
    assert samples[0].reference["answers"] == ["3"]
    np.testing.assert_array_equal(samples[0].images[1].pixels(), PAIR[1])
    assert not (tmp_path / "out" / "images").exists()


@pytest.mark.parametrize("path", ["../secret.png", "/etc/hostname", "link.png", "none.png", "a\0b"])
def test_paths_out_of_the_folder_are_refused(tmp_path: Path, path: str) -> None:
    folder = rows(tmp_path / "copy", [{"a": path, "said": "x"}])
    write_png(tmp_path / "secret.png", PAIR[0])
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(InputError, match=r"which was expected in|leads out of"):
        made(folder, tmp_path / "out", task="change_qa", images="a", answer="said")
    with pytest.raises(InputError, match=r"which was expected in|leads out of"):
        made(folder, tmp_path / "out", task="change_mask", mask="a")


@pytest.mark.parametrize(("name", "separator"), [("test.csv", ","), ("validation.tsv", "\t")])
def test_tables_of_text(tmp_path: Path, name: str, separator: str) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / name).write_text(f"said{separator}why\nyes{separator}so\n")
    done = resolve_adapter("hf:me/set")(
        tmp_path / "copy", tmp_path / "out", task="change_qa", answer="said", question="why"
    )
    (sample,) = load_samples(done.file)
    assert (sample.id, sample.prompt) == (f"me/set/{name.split('.')[0]}/0", "so")
    assert sample.reference["answers"] == ["yes"]


def test_saved_data_may_not_point_elsewhere(tmp_path: Path) -> None:
    table().save_to_disk(tmp_path / "copy")
    table().save_to_disk(tmp_path / "other")
    state = json.loads((tmp_path / "copy" / "state.json").read_text())
    state["_data_files"][0]["filename"] = "../other/" + state["_data_files"][0]["filename"]
    (tmp_path / "copy" / "state.json").write_text(json.dumps(state))
    with pytest.raises(InputError, match="not a plain file name"):
        made(tmp_path / "copy", tmp_path / "out", task="change_qa", answer="said")


def in_parquet(folder: Path, value: Any) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    pq.write_table(pa.table({"image": [value], "said": ["x"]}), folder / "test.parquet")
    return folder


def encoded(pixels: Any, kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def test_images_are_decoded_within_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"task": "change_qa", "images": "image", "answer": "said"}
    for n, (data, sentence) in enumerate(
        [
            (b"GIF89a not really", "the image cannot be read as an image"),
            (b"", "an image without contents"),
            (encoded(np.ones((4, 5), np.uint16), "PNG"), "8 bits in one or three bands are wanted"),
        ]
    ):
        folder = in_parquet(tmp_path / f"copy{n}", {"bytes": data, "path": None})
        with pytest.raises(InputError, match=sentence):
            made(folder, tmp_path / "out", **options)
    folder = in_parquet(tmp_path / "tiff", {"bytes": encoded(PAIR[0], "TIFF"), "path": "x.tif"})
    _, samples = made(folder, tmp_path / "out", **options)
    np.testing.assert_array_equal(samples[0].images[0].pixels(), PAIR[0])
    monkeypatch.setattr("rsw_rewards.pixels.MAX_PIXELS", 10)
    with pytest.raises(InputError, match="declares 5 x 4 pixels"):
        made(folder, tmp_path / "out", **options)


def test_masks_of_other_values_are_refused(tmp_path: Path) -> None:
    folder = in_parquet(tmp_path / "copy", {"bytes": encoded(np.full((2, 2), 7, np.uint8), "PNG"), "path": None})
    with pytest.raises(InputError, match=r"the values \[7\]; 0 and 1 or 0 and 255"):
        made(folder, tmp_path / "out", task="change_mask", mask="image")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "needs --set task=TASK, one of change_qa, change_caption"),
        ({"task": "forecast"}, "not 'forecast'"),
        ({"task": "change_qa"}, "the task change_qa needs --set answer=COLUMN"),
        ({"task": "grounding"}, "needs --set mask=COLUMN or boxes=COLUMN"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit(tmp_path: Path, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        made(rows(tmp_path / "copy", [{"said": "x"}]), tmp_path / "out", **options)


def test_data_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="should name a data set, such as hf:owner/name"):
        resolve_adapter("hf:../x")
    qa = {"task": "change_qa", "answer": "said"}
    with pytest.raises(InputError, match="is not a folder; give '-' to read me/set from the hub"):
        made(tmp_path / "none", tmp_path / "out", **qa)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no Parquet, JSON or CSV files"):
        made(tmp_path / "empty", tmp_path / "out", **qa)
    folder = rows(tmp_path / "copy", [{"said": "x", "ok": True, "key": "1"}, {"said": "y", "ok": False, "key": "1"}])
    with pytest.raises(InputError, match=r"row 0 has no column 'answer'; it has said, ok, key"):
        made(folder, tmp_path / "out", task="change_qa", answer="answer")
    with pytest.raises(InputError, match="the answer is 'True', not a text or a number"):
        made(folder, tmp_path / "out", task="change_qa", answer="ok")
    with pytest.raises(InputError, match="row 1: the id '1' is empty or was there before"):
        made(folder, tmp_path / "out", **qa, id="key")
    with pytest.raises(InputError, match=r"holds 'x' where an image was expected|which was expected in"):
        made(folder, tmp_path / "out", **qa, images="said")
    rows(folder, [{"said": "x"}], "train.jsonl")
    with pytest.raises(InputError, match="holds the splits test, train; name one with --split"):
        resolve_adapter("hf:me/set")(folder, tmp_path / "out", **qa)
    with pytest.raises(InputError, match="holds the splits test, train, not 'dev'"):
        resolve_adapter("hf:me/set")(folder, tmp_path / "out", split="dev", **qa)
    (folder / "test.csv").write_text("said\nx\n")
    with pytest.raises(InputError, match=r"holds .csv and .jsonl files for test"):
        made(folder, tmp_path / "out", **qa)
    (folder / "test.csv").unlink()
    (folder / "test.jsonl").write_text('{"said": \n')
    with pytest.raises(InputError, match=r"copy cannot be read|me/set cannot be read"):
        made(folder, tmp_path / "out", **qa)


def test_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def load_dataset(path: str, **options: Any) -> Any:
        asked.update(path=path, **options)
        return {"test": table().to_iterable_dataset(), "train": table(1).to_iterable_dataset()}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    _, samples = made("-", tmp_path / "out", task="change_qa", answer="said", images="mask", config="c", revision="r")
    assert len(samples) == 3
    assert asked == {"path": "me/set", "name": "c", "revision": "r", "streaming": True}
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: {"test": datasets.Dataset.from_dict({"image": [{"bytes": None, "path": "http://10.0.0.1/x.png"}], "said": ["x"]}).to_iterable_dataset()})  # fmt: skip
    with pytest.raises(InputError, match="which is no file of a data set on the hub"):
        made("-", tmp_path / "out", task="change_qa", answer="said", images="image")
    monkeypatch.undo()
    with pytest.raises(InputError, match="me/set cannot be read from the hub"):
        made("-", tmp_path / "out", task="change_qa", answer="said")


def test_a_prompt_that_names_a_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "questions.csv").write_text("question,answer\nhas a road appeared?,yes\n")
    with pytest.raises(ConfigError, match="write question=question, since 'prompt' is one text for all rows"):
        rsw.data.convert("hf:mine", tmp_path, tmp_path / "out", task="change_qa", prompt="question", answer="answer")
    with pytest.raises(ConfigError, match=r"unexpected keyword argument 'questions'; known are .*question"):
        rsw.data.convert("hf:mine", tmp_path, tmp_path / "out", task="change_qa", questions="question", answer="answer")
