"""Folders of another model's masks and forecasts: paired by their names, and read as they were meant or refused with the setting."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import rsw_rewards as rsw
from rsw_rewards.core.records import Sample, Task
from rsw_rewards.data.importers.file_names import read_names
from rsw_rewards.errors import ConfigError, InputError
from rsw_rewards.io.records_io import load_outputs

NAMES = [f"city/val/tile_{number}" for number in range(4)]
SIZE = 8


def true_mask(number: int) -> np.ndarray:
    """(8, 8) bool; that of number 0 is empty."""
    mask = np.zeros((SIZE, SIZE), bool)
    mask[:, :number] = True
    return mask


def predicted(number: int) -> np.ndarray:
    return np.roll(true_mask(number), 1, axis=1)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [
        Sample(name, Task.CHANGE_MASK, reference={"mask": true_mask(number).astype(np.uint8) * 255})
        for number, name in enumerate(NAMES)
    ]


def write(folder: Path, coded: Callable[[np.ndarray], np.ndarray], name: str = "{}.png", base: str = "tile_{}") -> Path:
    for number in range(len(NAMES)):
        file = folder / name.format(base.format(number))
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = coded(predicted(number))
        if file.suffix == ".npy":
            np.save(file, pixels)
        else:
            Image.fromarray(pixels).save(file)
    return folder


def grey(mask: np.ndarray) -> np.ndarray:
    return mask.astype(np.uint8) * 255


def iou(samples: list[Sample], outputs: Any) -> float | None:
    return rsw.evaluate("change-mask", samples, outputs).metrics["iou"].value


@pytest.fixture(scope="module")
def right(samples: list[Sample]) -> float | None:
    return iou(samples, [{"id": name, "mask": predicted(number)} for number, name in enumerate(NAMES)])


@pytest.mark.parametrize(
    ("coded", "name", "base"),
    [
        (grey, "{}.png", "tile_{}"),
        (grey, "{}_pred.png", "tile_{}"),
        (grey, "val/Mask-{}.tif", "tile_{}"),
        (grey, "{}.jpg", "city_val_tile_{}"),
        (lambda mask: mask, "{}.npy", "city-val-tile_{}"),
        (lambda mask: mask.astype(np.uint16) * 255, "{}.png", "tile_{}"),
    ],
)
def test_a_folder_is_paired_by_names(
    samples: list[Sample], right: float, tmp_path: Path, coded: Any, name: str, base: str
) -> None:
    assert iou(samples, write(tmp_path / "masks", coded, name, base)) == right


CODINGS: list[tuple[Callable[[np.ndarray], np.ndarray], str, str, dict[str, Any]]] = [
    (lambda mask: mask.astype(np.uint8), "{}.png", "hold the values 0 and 1,.* levels=[0, 1],", {"levels": [0, 1]}),
    (lambda mask: mask + np.uint8(1), "{}.png", "the values 1 and 2,.* levels=[1, 2],", {"levels": [1, 2]}),
    (lambda mask: mask.astype(np.uint16) * 65535, "{}.png", "levels=[0, 65535],", {"levels": [0, 65535]}),
    (lambda mask: mask.astype(np.float32) * 0.9, "{}.npy", "threshold=0.45,", {"threshold": 0.45}),
    (
        lambda mask: np.stack([grey(mask), *[0 * grey(mask)] * 2], -1), "{}.png",
        "the colours (0, 0, 0) and (255, 0, 0),.* palette=[[0, 0, 0], [255, 0, 0]],", {"palette": [[0, 0, 0], [255, 0, 0]]},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("coded", "name", "said", "setting"), CODINGS)
def test_a_coding_is_refused_once_with_the_setting_that_reads_it(
    samples: list[Sample], right: float, tmp_path: Path, coded: Any, name: str, said: str, setting: dict[str, Any]
) -> None:
    folder = write(tmp_path / "masks", coded, name)
    with pytest.raises(InputError, match=said.replace("[", r"\[").replace("(", r"\(").replace(")", r"\)")):
        iou(samples, folder)
    assert iou(samples, rsw.predictions.read("folder", folder, samples, **setting)) == right


def test_masks_of_another_size_are_refused_once(samples: list[Sample], tmp_path: Path) -> None:
    folder = write(tmp_path / "masks", lambda mask: grey(mask)[::2, ::2])
    with pytest.raises(
        InputError, match=r"4 of 4 files .* another size than the truth, .*: 4 x 4 pixels beside 8 x 8; write them at"
    ):
        rsw.predictions.read("folder", folder, samples)


@pytest.mark.parametrize(
    ("coded", "name", "said"),
    [
        (
            lambda mask: mask[None],
            "{}.npy",
            r"4 of 4 files .* shape of a mask, .* shape \(1, 8, 8\); write them as \(H, W\)",
        ),
        (lambda mask: np.stack([~mask, mask], -1) * 0.5, "{}.npy", r"4 of 4 files .* shape \(8, 8, 2\); write them"),
        (
            lambda mask: np.stack([grey(mask), *[0 * grey(mask)] * 2], -1),
            "{}.jpg",
            "colours, .*: write them in one band",
        ),
    ],
)
def test_masks_that_no_setting_reads_are_refused_once(
    samples: list[Sample], tmp_path: Path, coded: Any, name: str, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        rsw.predictions.read("folder", write(tmp_path / "masks", coded, name), samples)


def test_a_few_files_that_cannot_be_used_cost_nothing_else(samples: list[Sample], tmp_path: Path) -> None:
    folder = write(tmp_path / "masks", grey)
    (folder / "tile_1.png").write_bytes(b"no image")
    Image.fromarray(predicted(2).astype(np.uint8)).save(folder / "tile_2.png")
    (folder / "notes.txt").write_text("")
    (folder / ".tile_3.png").write_bytes(b"")
    (folder / "tile_3.png.aux.xml").write_text("")
    Image.fromarray(grey(predicted(3))).save(folder / "tile_9.png")
    found = rsw.evaluate("change-mask", samples, folder)
    assert [problem.kind for problem in found.problems] == ["unknown_id"]
    first, unreadable, coding = found.summary["warnings"][:3]
    assert "1 *.txt" in first and "1 hidden" in first and "1 *.xml" in first
    assert "1 of 4 files" in unreadable and "cannot be read, such as tile_1.png" in unreadable
    assert "1 of 3 files" in coding and "levels=[0, 1]" in coding and coding.endswith("they count as invalid")
    assert found.summary["status"]["change_mask"]["invalid_output"] == 2


@pytest.mark.parametrize("name", ["{0}_{1}.png", "{0}_mask_{1}.png", "{1}/{0}.png", "{0}/{1}.png"])
@pytest.mark.parametrize("first", [0, 1])
def test_candidates_have_numbers(samples: list[Sample], tmp_path: Path, name: str, first: int) -> None:
    for candidate in range(2):
        for number in range(len(NAMES)):
            file = tmp_path / name.format(f"tile_{number}", candidate + first)
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(grey(np.roll(predicted(number), candidate, axis=1))).save(file)
    found = rsw.predictions.read("folder", tmp_path, samples)
    assert [(output.sample_id, output.candidate) for output in found] == [(one, n) for one in NAMES for n in (0, 1)]
    for output in found:
        assert output.mask is not None and output.mask.path is not None
        assert str(output.candidate + first) in output.mask.path.relative_to(tmp_path).as_posix().replace("tile_", "")
    assert found.notes and not found.problems


def read(files: list[str], ids: list[str], task: Task = Task.CHANGE_MASK) -> tuple[dict[str, str], list[str]]:
    """Sample and field by file, and the files that are none's."""
    found, problems, _ = read_names(files, [Sample(name, task) for name in ids])
    return {named.file: f"{named.sample.id} {named.field}" for named in found}, [problem.where for problem in problems]


def test_names_are_never_guessed() -> None:
    assert read(["a_1.png", "a_12.png"], ["a_1"]) == ({"a_1.png": "a_1 mask"}, ["a_12.png"])
    assert read(["x_0.png", "x_512.png"], ["x"]) == ({}, ["x_0.png", "x_512.png"])  # tiles are no candidates
    assert read(["a_pred.png", "b_pred.png", "c_old.png"], ["a", "b", "c"])[1] == ["c_old.png"]
    assert read(["train_1_x.png", "val_2_x.png"], ["test_1", "test_2"])[1] == ["train_1_x.png", "val_2_x.png"]
    assert read(["1_2.png"], ["1", "2"]) == ({}, ["1_2.png"])
    assert read(["s/1.png", "1.png"], ["s/1", "t/1"]) == ({"s/1.png": "s/1 mask"}, ["1.png"])
    assert read(["001.png"], ["world/001/mask", "world/002/mask"]) == ({"001.png": "world/001/mask mask"}, [])
    assert read(["12/x.png", "12/y.png"], ["x", "y"])[1] == []  # a folder's number that counts nothing


def test_two_images_of_an_output_are_told_by_words() -> None:
    files = ["im1/a.png", "im2/a.png", "before/b.png", "after/b.png"]
    found, problems = read(files, ["a", "b"], Task.SEMANTIC_CHANGE)
    assert list(found.values()) == ["a map_before", "a map_after", "b map_before", "b map_after"] and not problems
    found, problems = read(["a_damage.png", "a_buildings.png", "a.png"], ["a"], Task.DAMAGE)
    assert list(found.values()) == ["a damage", "a buildings"] and problems == ["a.png"]


def test_of_two_files_for_one_output_none_is_taken(samples: list[Sample], tmp_path: Path) -> None:
    write(tmp_path / "raw", grey)
    write(tmp_path / "smooth", grey)
    with pytest.raises(InputError, match=r"2 files may be the mask of .* say which are meant by files=PATTERN"):
        rsw.predictions.read("folder", tmp_path, samples)
    assert len(rsw.predictions.read("folder", tmp_path, samples, files="raw/*")) == len(NAMES)


def test_what_is_no_folder_of_predictions_is_refused(samples: list[Sample], tmp_path: Path) -> None:
    folder = write(tmp_path / "masks", grey)
    with pytest.raises(InputError, match="name the files by the ids of the samples, which are such as 'q1'"):
        rsw.predictions.read("folder", folder, [Sample("q1", Task.CHANGE_MASK)])
    with pytest.raises(InputError, match=r"no sample \(change_qa\) is of a task that images answer"):
        rsw.predictions.read("folder", folder, [Sample("tile_1", Task.CHANGE_QA)])
    with pytest.raises(InputError, match="is not a folder"):
        rsw.predictions.read("folder", folder / "tile_1.png", samples)
    with pytest.raises(ConfigError, match="no option 'level'; did you mean 'levels'"):
        rsw.predictions.read("folder", folder, samples, level=[0, 1])
    with pytest.raises(ConfigError, match="no option 'by'"):
        rsw.predictions.read("folder", folder, samples, by="order")
    with pytest.raises(InputError, match="'levels' must be a list of 2"):
        rsw.predictions.read("folder", folder, samples, levels=[1])


def test_samples_of_a_task_that_no_file_is_for_are_left_out(samples: list[Sample], tmp_path: Path) -> None:
    folder = write(tmp_path / "masks", grey)
    others = [Sample(f"scene/place_{number}", Task.FORECAST) for number in range(2)]
    found = rsw.predictions.read("folder", folder, [*samples, *others])
    assert not found.problems and found.notes == ["samples of tasks that no file is for are left out: 2 of forecast"]
    with pytest.raises(InputError, match="no file of 4 in"):
        rsw.predictions.read("folder", folder, [*samples, *others], task="forecast")


@pytest.mark.parametrize("inside", [True, False])
def test_a_predictions_file_finds_the_images(samples: list[Sample], right: float, tmp_path: Path, inside: bool) -> None:
    folder = write(tmp_path / "model" / "masks", grey)
    imported = rsw.predictions.read("folder", folder, samples)
    file = imported.save(tmp_path / ("model" if inside else "other/place") / "p.jsonl")
    assert imported.roots(file) == ([] if inside else [folder])
    assert rsw.evaluate("change-mask", samples, file, roots=imported.roots(file)).metrics["iou"].value == right
    _, problems = load_outputs(file, samples)
    assert [problem.kind for problem in problems] == []


def test_a_link_out_of_the_folder_is_left_out(samples: list[Sample], tmp_path: Path) -> None:
    folder = write(tmp_path / "masks", grey)
    (folder / "tile_0.png").rename(tmp_path / "tile_0.png")
    (folder / "tile_0.png").symlink_to(tmp_path / "tile_0.png")
    found = rsw.predictions.read("folder", folder, samples)
    assert len(found) == 3 and "1 links that leave" in found.notes[0]


@pytest.fixture(scope="module")
def forecasts() -> list[Sample]:
    noise = np.random.default_rng(0).integers(0, 256, (2, SIZE * 4, SIZE * 4, 3), np.uint8)
    return [Sample("one", Task.FORECAST, (noise[0],), reference={"images": [noise[1]]})]  # type: ignore[arg-type]


def test_forecasts_of_16_bits_with_alpha(forecasts: list[Sample], tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    made = np.random.default_rng(1).integers(0, 256, (SIZE * 4, SIZE * 4, 3), np.uint8)
    profile = {"driver": "GTiff", "width": SIZE * 4, "height": SIZE * 4, "count": 4, "dtype": "uint16"}
    with rasterio.open(tmp_path / "one.tif", "w", **profile, photometric="RGB", alpha="YES") as file:
        file.write(
            np.concatenate([np.moveaxis(made.astype(np.uint16) * 257, -1, 0), np.full((1, 32, 32), 65535, np.uint16)])
        )
    with pytest.raises(
        InputError, match=r"hold uint16 numbers .* in 3 bands, .* read them with stretch=\[\[0, 65535\], \[0, 65535\], "
    ):
        rsw.predictions.read("folder", tmp_path, forecasts)
    read = rsw.predictions.read("folder", tmp_path, forecasts, stretch=[[0, 65535]] * 3)
    both = [rsw.rewards({"ssim": 1.0}, forecasts, outputs).mean for outputs in (read, [made])]
    assert both[0] is not None and both[0] == both[1]


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ((603, 3202, np.uint16), r"stretch=\[\[LOW, HIGH\], \[LOW, HIGH\], \[LOW, HIGH\]\], in every band the numbers"),
        ((-120, 3202, np.int16), r"\[LOW, HIGH\]"),
        ((0, 255, np.int64), r"\[0, 255\]"),
        ((-1, 1, np.float32), r"\[-1, 1\]"),
        ((0, 255, np.float32), r"\[0, 255\]"),
        ((-9, 1, np.float32), r"\[LOW, HIGH\]"),
    ],
)
def test_no_black_and_white_are_guessed(
    forecasts: list[Sample], tmp_path: Path, numbers: tuple[float, float, type], said: str
) -> None:
    low, high, kind = numbers
    np.save(
        tmp_path / "one.npy", np.linspace(low, high, SIZE * SIZE * 16 * 3).reshape(SIZE * 4, SIZE * 4, 3).astype(kind)
    )
    with pytest.raises(InputError, match=said):
        rsw.predictions.read("folder", tmp_path, forecasts)


@pytest.mark.parametrize("broken", [False, True])
def test_forecasts_in_the_numbers_of_the_raster_are_shown_as_the_futures_are(
    forecasts: list[Sample], tmp_path: Path, broken: bool
) -> None:
    """The samples say between which numbers their futures were drawn; metadata of a stranger may hold anything."""
    stretch = {"low": [[0, 0, 0], [600.5, 500, 400]], "high": [[9, 9, 9], [3102, 3000, 2900] if not broken else 7]}
    known = [dataclasses.replace(forecasts[0], metadata={"stretch": stretch})]
    true = forecasts[0].reference["images"][0].pixels()
    low, high = (np.array(stretch[end][-1], float) for end in ("low", "high"))
    np.save(tmp_path / "one.npy", np.rint(true / 255 * (high - low) + low).astype(np.uint16))
    with pytest.raises(InputError) as refused:
        rsw.predictions.read("folder", tmp_path, known)
    if broken:
        assert "[LOW, HIGH]" in str(refused.value)
        return
    setting = "[[600.5, 3102.0], [500.0, 3000.0], [400.0, 2900.0]]"
    assert f"stretch={setting}, the numbers of black and white" in str(refused.value)
    read = rsw.predictions.read("folder", tmp_path, known, stretch=json.loads(setting))
    assert rsw.rewards({"l1": 1.0}, known, read).mean == pytest.approx(1.0, abs=1e-4)


def test_floats_are_shown_where_their_range_is_said(forecasts: list[Sample], tmp_path: Path) -> None:
    made = np.linspace(0, 1, SIZE * SIZE * 16 * 3, dtype=np.float32).reshape(SIZE * 4, SIZE * 4, 3)
    made[0, 0] = np.nan
    np.save(tmp_path / "one.npy", made)
    with pytest.raises(
        InputError, match=r"hold float32 numbers from 0\S* to 1 in 3 bands, .* stretch=\[\[0, 1\], \[0, 1\], \[0, 1\]\]"
    ):
        rsw.predictions.read("folder", tmp_path, forecasts)


def test_jpeg_forecasts_are_said_to_lose_detail(forecasts: list[Sample], tmp_path: Path) -> None:
    Image.new("RGB", (SIZE * 4, SIZE * 4)).save(tmp_path / "one.jpg")
    assert "1 of 1 forecasts are JPEG" in rsw.predictions.read("folder", tmp_path, forecasts).notes[0]


IDS = {
    "with and without a split": [
        f"levir_cd/{name}" for name in ("tile_1", "tile_2", "test_tile_1", "train_tile_2", "val_tile_3")
    ],
    "numbers": [f"set/{name}" for name in ("1", "2", "3", "test_1", "train_2", "val_3")],
    "two marks": ["test-tile_1", "test_tile_1", "train-tile_2", "val_tile_3"],
    "folders": ["levir/test_1", "levir/train_1", "levir/val_1", "levir/val_2"],
}


@pytest.mark.parametrize("ids", IDS.values(), ids=IDS)
@pytest.mark.parametrize("form", ["{}_pred.png", "{}.png", "mask-{}.png", "{}/pred.png"])
def test_ids_that_mix_splits_are_all_found(ids: list[str], form: str) -> None:
    names = {form.format(name.rpartition("/")[2]): name for name in ids}
    found, problems, _ = read_names(names, [Sample(name, Task.CHANGE_MASK) for name in ids])
    assert {named.file: named.sample.id for named in found} == names
    assert problems == []


def test_the_folder_of_a_split_decides_between_ids_with_and_without_one() -> None:
    samples = [Sample(name, Task.CHANGE_MASK) for name in ("set/1", "set/test_1", "set/test_2")]
    found, _, _ = read_names(["test/1_pred.png", "test/2_pred.png"], samples)
    assert [named.sample.id for named in found] == ["set/test_1", "set/test_2"]
