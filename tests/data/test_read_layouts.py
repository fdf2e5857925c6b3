"""How adapters parse what is odd in the files of a benchmark; whole layouts are in test_official_layouts.py."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import rsw_rewards as rsw
from rsw_rewards.errors import ConfigError, InputError
from rsw_rewards.io.records_io import load_samples, write_jsonl


def png(height: int = 6, width: int = 8) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(stream, "png")
    return stream.getvalue()


def xlrs(folder: Path, **changed: Any) -> None:
    import datasets

    row = {
        "image": [{"bytes": png(), "path": None}], "question": "Which?", "multi-choice options": ["(A) a (big) pond", "(B) B. road", "(C) none"],
        "answer": "AC", "category": "Land use classification/Overall Land use classification", "l2-category": "attribute/x", "index": 7, **changed,
    }  # fmt: skip
    features = datasets.Features(
        {
            **dict.fromkeys(("question", "answer", "category", "l2-category"), datasets.Value("string")),
            "image": datasets.List(datasets.Image()),
            "multi-choice options": datasets.List(datasets.Value("string")),
            "index": datasets.Value("int64"),
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_list([row], features=features).to_parquet(folder / "train-0.parquet")


def test_options_and_letters_of_xlrs_bench(tmp_path: Path) -> None:
    xlrs(tmp_path / "copy")
    done = rsw.data.convert("xlrs-bench", tmp_path / "copy", tmp_path / "out")
    (one,) = load_samples(done.file, [tmp_path / "out"])
    assert one.reference == {"answers": ["A, C"], "choices": ["a (big) pond", "B. road", "none"]}
    assert one.images[0].path is not None and one.images[0].path.read_bytes() == png()
    for changed, words in (
        ({"answer": "D"}, "no letter of its 3 options"),
        ({"multi-choice options": ["(B) x", "(A) y"]}, r"should be '\(A\)"),
    ):
        xlrs(tmp_path / "copy", **changed)
        with pytest.raises(InputError, match=words):
            rsw.data.convert("xlrs-bench", tmp_path / "copy", tmp_path / "out")


def test_paths_of_the_authors_machine_and_pairs_without_an_answer(tmp_path: Path) -> None:
    (tmp_path / "data" / "LoveDA").mkdir(parents=True)
    (tmp_path / "data" / "LoveDA" / "7.a.png").write_bytes(png())
    pairs = [
        {"question_id": "q1", "question_type": "spatial", "question": "Where?", "answer": "Left."},
        {"question_id": "q1", "question_type": "caption", "question": "Describe.", "answer": "A road."},
        {"question_id": "q3", "question_type": "spatial", "question": "What?"},
    ]
    write_jsonl(tmp_path / "data" / "RSVL-VQA_test.jsonl", [{"image": "/mnt/d/LoveDA/7.a.png", "vqa_pairs": pairs}])
    done = rsw.data.convert("rsvlm-qa", tmp_path / "data", tmp_path / "out")
    first, second = load_samples(done.file, done.roots)
    assert (first.id, first.kind, first.reference) == ("rsvlm_qa/test/7/0", "spatial", {"answers": ["Left."]})
    assert (str(second.task), second.reference) == ("change_caption", {"captions": ["A road."]})
    assert first.images[0].path == tmp_path / "data" / "LoveDA" / "7.a.png"
    assert "1 pairs lack" in done.notes[0]
    (tmp_path / "data" / "RSVL-VQA_test.jsonl").write_text(json.dumps({"image": "../x.png", "vqa_pairs": []}))
    with pytest.raises(InputError, match="not a path of an image"):
        rsw.data.convert("rsvlm-qa", tmp_path / "data", tmp_path / "out")


def test_the_mask_of_a_cube_is_its_last_channel_whatever_their_number(tmp_path: Path) -> None:
    name, shown = "29SND_2018-09-03_2019-01-30_441_569_2745_2873_6_86_42_122", tmp_path / "data" / "iid_test_split"
    for part, channels, dates in (("context", 5, 10), ("target", 5, 20)):
        (shown / part / "29SND").mkdir(parents=True)
        values = np.full((8, 8, channels, dates), 0.25, np.float16)
        values[..., -1, :] = 0
        values[0, 0, -1, 3], values[1, 1, 0, 4] = 1, np.nan
        np.savez(shown / part / "29SND" / f"{part}_{name}.npz", highresdynamic=values)
    (tmp_path / "data" / "train" / "29SND").mkdir(parents=True)
    whole = np.full((8, 8, 7, 30), 0.5, np.float16)
    whole[..., -1, 12:] = 1
    np.savez(tmp_path / "data" / "train" / "29SND" / f"{name}.npz", highresdynamic=whole)
    done = rsw.data.convert("earthnet2021", tmp_path / "data", tmp_path / "out", split="iid")
    (one,) = load_samples(done.file, done.roots)
    assert (one.id, one.scene) == (f"earthnet2021/iid/{name}", "earthnet2021/29SND")
    assert [len(one.images), len(one.reference["images"])] == [10, 20]
    assert (one.images[0].date, one.reference["images"][0].date) == ("2018-09-07", "2018-10-27")
    future = [image.pixels(bands=4) for image in one.reference["images"]]
    assert np.isnan(future[3][0, 0]).all() and np.isfinite(future[2]).all() and future[4][1, 1, 0] == 0
    done = rsw.data.convert("earthnet2021", tmp_path / "data", tmp_path / "out2", split="train")
    (one,) = load_samples(done.file, done.roots)
    assert [bool(np.isnan(image.pixels(bands=4)).all()) for image in one.reference["images"]] == [False] * 2 + [
        True
    ] * 18


def image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


COLOURS = [(255, 255, 255), (0, 155, 0), (255, 165, 0), (230, 30, 100), (0, 170, 240)]


@pytest.mark.parametrize("coloured", [True, False])
def test_landsat_scd_in_folders_of_splits_and_in_lists(tmp_path: Path, coloured: bool) -> None:
    indices = np.arange(40).reshape(5, 8) % 5
    labels = np.array(COLOURS)[indices] if coloured else indices
    names = ("im1", "im2", "label1", "label2") if coloured else ("A", "B", "labelA", "labelB")
    place = tmp_path / "data" / "test" if coloured else tmp_path / "data"
    for name in names:
        pixels = labels if name.startswith("label") else np.zeros((5, 8, 3))
        for stem in ("7", "8"):
            image(place / name / f"{stem}.png", pixels)
    (tmp_path / "data" / "test_list.txt").write_text("8.png\n")
    done = rsw.data.convert("landsat-scd", tmp_path / "data", tmp_path / "out", split="test")
    samples = load_samples(done.file, done.roots)
    assert [one.id for one in samples] == [f"landsat_scd/test/{stem}" for stem in ("7", "8")[0 if coloured else 1 :]]
    assert samples[0].reference["classes"] == ["not changed", "farmland", "desert", "building", "water"]
    assert rsw.evaluate("second-stacked7", samples, policy="oracle", settings={"semantic_change.classes": 5}).metrics[
        "miou"
    ].value == pytest.approx(1.0)


def test_captions_of_cdchat_and_of_forest_change(tmp_path: Path) -> None:
    record = {"file_name": "sysu_test_00012.png", "folder_name": "test", "ischange": 1, "captions": ["A road. "]}
    (tmp_path / "cdchat").mkdir()
    (tmp_path / "cdchat" / "sysu_test_captions.json").write_text(json.dumps({"images": [record]}))
    done = rsw.data.convert("cdchat-sysu", tmp_path / "cdchat", tmp_path / "out")
    (one,) = load_samples(done.file, done.roots)
    assert (one.scene, one.reference) == ("sysu_cd/test/00012", {"captions": ["A road."], "changed": True})
    assert "no imagery" in done.notes[1]
    sentences = [{"raw": "1.22 percent lost, mostly left.", "tokens": ["x"]}]
    entry = {"filename": "val_000001.png", "filepath": "val", "split": "val", "sentences": sentences}
    forest = tmp_path / "forest"
    for name in ("A", "B"):
        image(forest / "images" / "val" / name / "val_000001.png", np.zeros((5, 8, 3)))
    image(forest / "images" / "val" / "label" / "val_000001.png", np.arange(40).reshape(5, 8) % 3)
    (forest / "ForestChatcaptions.json").write_text(json.dumps({"images": [entry]}))
    done = rsw.data.convert("forest-change", forest, tmp_path / "out2", split="val", task="caption")
    (one,) = load_samples(done.file, done.roots)
    assert one.reference == {"captions": ["1.22 percent lost , mostly left"]}
    done = rsw.data.convert("forest-change", forest, tmp_path / "out3")
    samples = load_samples(done.file, done.roots)
    assert rsw.evaluate("change-mask", samples, policy="oracle").metrics["f1"].value == pytest.approx(1.0, abs=1e-6)


def test_tiles_of_landcover_ai_are_read_by_the_lists(tmp_path: Path) -> None:
    for stem in ("M-33-20_0", "M-33-20_1"):
        image(tmp_path / "data" / "output" / f"{stem}.jpg", np.zeros((5, 8, 3)))
        image(tmp_path / "data" / "output" / f"{stem}_m.png", np.arange(40).reshape(5, 8) % 5)
    (tmp_path / "data" / "test.txt").write_text("M-33-20_1\n")
    done = rsw.data.convert("landcover-ai", tmp_path / "data", tmp_path / "out", split="test")
    samples = load_samples(done.file, done.roots)
    assert [(one.id, one.scene) for one in samples] == [("landcover_ai/test/M-33-20_1", "landcover_ai/M-33-20")]
    found = rsw.evaluate("class-map", samples, policy="oracle", settings={"class_map.classes": 5})
    assert found.metrics["miou"].value == 1.0


def test_patches_of_so2sat_and_tiles_of_gamus(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="needs pip install 'rsw_rewards[cubes]'")
    (tmp_path / "lcz").mkdir()
    with h5py.File(tmp_path / "lcz" / "testing.h5", "w") as stored:
        stored["sen2"] = np.random.default_rng(0).uniform(0, 0.3, (3, 32, 32, 10))
        stored["label"] = np.eye(17)[[16, 0, 12]]
    done = rsw.data.convert("so2sat", tmp_path / "lcz", tmp_path / "out", split="test")
    samples = load_samples(done.file, done.roots)
    assert [one.reference["label"] for one in samples] == ["water", "compact high rise", "bush, scrub"]
    assert samples[0].images[0].bands == (2, 1, 0)
    for part, ending, values in (
        ("images", "IMG", np.zeros((8, 8, 3))),
        ("classes", "CLS", np.arange(64).reshape(8, 8) % 7),
    ):
        (tmp_path / "gamus" / part / "val").mkdir(parents=True)
        with h5py.File(tmp_path / "gamus" / part / "val" / f"a_1_{ending}.h5", "w") as stored:
            stored["image"] = values
    done = rsw.data.convert("gamus", tmp_path / "gamus", tmp_path / "out2")
    samples = load_samples(done.file, done.roots)
    assert [one.id for one in samples] == ["gamus/val/a_1"]
    found = rsw.evaluate("class-map", samples, policy="oracle", settings={"class_map.classes": 7})
    assert found.metrics["miou"].value == 1.0


def test_labels_and_bands_of_reben(tmp_path: Path) -> None:
    import pandas as pd

    name = "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57"
    table = pd.DataFrame(
        {"patch_id": [name], "labels": [["Pastures", "Inland waters"]], "split": ["validation"], "country": ["Austria"]}
    )
    (tmp_path / "data").mkdir()
    table.to_parquet(tmp_path / "data" / "metadata.parquet")
    for value, band in enumerate(("B02", "B03", "B04", "B08"), start=1):
        place = tmp_path / "data" / "BigEarthNet-S2" / name.removesuffix("_26_57") / name
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((12, 12), 300 * value, np.uint16)).save(place / f"{name}_{band}.tif")
    done = rsw.data.convert("reben", tmp_path / "data", tmp_path / "out", split="val")
    (one,) = load_samples(done.file, done.roots)
    assert one.reference["labels"] == ["Pastures", "Inland waters"] and len(one.reference["vocabulary"]) == 19
    assert one.images[0].pixels(bands=3)[0, 0].tolist() == [900, 600, 300]
    assert one.scene == f"reben/{name.removesuffix('_26_57')}"
    assert rsw.evaluate("multi-label", [one], policy="oracle").metrics["micro_f1"].value == 1.0


def test_a_sequence_of_fmow_is_in_the_order_of_its_times(tmp_path: Path) -> None:
    place = tmp_path / "data" / "val" / "multi-unit_residential" / "multi-unit_residential_3"
    for frame, day in enumerate(("2017-05-01", "2015-06-01", "2016-01-31")):
        files = {kind: place / f"{place.name}_{frame}_{kind}.jpg" for kind in ("rgb", "msrgb")}
        for file in files.values():
            image(file, np.zeros((5, 8, 3)))
        box = {"ID": 1, "box": [1, 2, 3, 4], "category": "multi-unit_residential"}
        told = {
            "timestamp": f"{day}T10:32:22Z",
            "gsd": 0.5,
            "cloud_cover": 4,
            "bounding_boxes": box if frame else [box],
        }
        files["rgb"].with_suffix(".json").write_text(json.dumps(told))
        files["msrgb"].with_suffix(".json").write_text("{}")
    done = rsw.data.convert("fmow", tmp_path / "data", tmp_path / "out")
    (one,) = load_samples(done.file, done.roots)
    assert [image.date for image in one.images] == ["2015-06-01", "2016-01-31", "2017-05-01"]
    assert one.images[0].path is not None and one.images[0].path.stem.startswith(f"{place.name}_1_")
    assert one.metadata["frames"][0]["boxes"] == [[1, 2, 4, 6]] and one.reference["label"] == "multi-unit residential"
    assert len(one.reference["vocabulary"]) == 62


def test_forecasts_of_cubes_are_candidates_and_reach_their_score(tmp_path: Path) -> None:
    name = "29SND_2018-09-03_2019-01-30_441_569_2745_2873_6_86_42_122"
    whole = np.random.default_rng(0).uniform(0.1, 0.5, (16, 16, 7, 30)).astype(np.float32)
    whole[..., -1, :] = 0
    for place in ("data/train/29SND", "said/29SND"):
        (tmp_path / place).mkdir(parents=True)
    np.savez(tmp_path / "data/train/29SND" / f"{name}.npz", highresdynamic=whole)
    for word, values in (("a_1_", whole[:, :, :4, 10:]), ("b_", whole[:, :, :4, 10:] * 0.5)):
        np.savez(tmp_path / "said/29SND" / f"{word}{name}.npz", values)
    np.savez(tmp_path / "said/29SND" / "29SND_other.npz", whole)
    done = rsw.data.convert("earthnet2021", tmp_path / "data", tmp_path / "out")
    samples = load_samples(done.file, done.roots)
    with pytest.raises(ConfigError, match="frames=FOLDER"):
        rsw.predictions.read("cubes", tmp_path / "said", samples)
    said = rsw.predictions.read("cubes", tmp_path / "said", samples, frames=tmp_path / "frames")
    assert [(one.candidate, len(one.images or ())) for one in said] == [(0, 20), (1, 20)]
    assert [problem.kind for problem in said.problems] == ["unknown_id"]
    assert rsw.evaluate("earthnet2021", samples, said).metrics["ens"].value == pytest.approx(1.0, abs=1e-4)


def test_a_list_is_a_split_of_scenes(tmp_path: Path) -> None:
    for name in ("airport", "bridge"):
        for number in (1, 2):
            image(tmp_path / "NWPU-RESISC45" / name / f"{name}_00{number}.jpg", np.zeros((5, 8, 3)))
    (tmp_path / "resisc45-test.txt").write_text("airport_002.jpg\nbridge_001.jpg\n")
    done = rsw.data.convert("resisc45", tmp_path / "NWPU-RESISC45", tmp_path / "out", split="test")
    samples = load_samples(done.file, done.roots)
    assert [one.id for one in samples] == ["resisc45/airport/airport_002", "resisc45/bridge/bridge_001"]
    assert samples[0].metadata["split"] == "test" and samples[0].reference["vocabulary"] == ["airport", "bridge"]
    with pytest.raises(InputError, match="not 'val'"):
        rsw.data.convert("resisc45", tmp_path / "NWPU-RESISC45", tmp_path / "out", split="val")


def test_levir_cd_plus_whatever_its_images_are_called(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("A", "B"):
            image(tmp_path / "LEVIR-CD+" / split / name / "austin_1.png", np.zeros((5, 8, 3)))
        image(tmp_path / "LEVIR-CD+" / split / "label" / "austin_1.png", np.arange(40).reshape(5, 8) % 2 * 255)
    done = rsw.data.convert("levir-cd-plus", tmp_path / "LEVIR-CD+", tmp_path / "out", split="test")
    (one,) = load_samples(done.file, done.roots)
    assert (one.id, one.metadata["dataset"]) == ("levir_cd_plus/test/austin_1", "levir_cd_plus")
    assert rsw.evaluate("change-mask", [one], policy="oracle").metrics["f1"].value == pytest.approx(1.0, abs=1e-6)
