"""Tiny folders in the shape that each benchmark's own loader reads, taken from the files to the numbers of its protocols."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import rsw_rewards as rsw
from rsw_rewards.core.records import Sample
from rsw_rewards.io.images import read_rgb
from rsw_rewards.io.records_io import load_samples

CUBES = "needs pip install 'rsw_rewards[cubes]'"


def saved(path: Path, pixels: Any, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).convert(mode).save(path)


def colours(seed: int = 0, size: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def written(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def changes(n: int, size: int = 16, value: int = 255) -> np.ndarray:
    mask = np.zeros((size, size), np.uint8)
    mask[: 2 + n, 3:9] = value
    return mask


def xlrs(folder: Path) -> None:
    """One image is grey and one has an alpha channel: the loader converts each to RGB. One row has two images, one five options."""
    import datasets

    def row(index: int, category: str, answer: str, options: int, *modes: str) -> dict[str, Any]:
        return {
            "index": index, "question": f"Question {index}?", "answer": answer, "category": category, "l2-category": "x/attribute",
            "multi-choice options": [f"({letter}) option {letter.lower()}." for letter in "ABCDE"[:options]],
            "image": [Image.fromarray(colours(index + n)).convert(mode) for n, mode in enumerate(modes)],
        }  # fmt: skip

    once = (
        "Complex reasoning/Anomaly Detection and Interpretation", "Complex reasoning/Environmental condition reasoning", "Complex reasoning/Route planning",
        "Counting/Counting with complex reasoning", "Counting/Regional counting", "Land use classification/Regional Land use classification",
        "Object properties/Object classification", "Object properties/Object motion state", "Object spatial relationship/Object spatial relationship",
    )  # fmt: skip
    rows = [
        row(11, "Land use classification/Overall Land use classification", "AC", 4, "RGB"),
        row(12, "Counting/Counting with changing detection", "B", 4, "L", "RGB"),
        row(13, "Object properties/Object color", "E", 5, "RGBA"),
        row(14, "Counting/Overall counting", "A", 4, "RGB"),
        *(row(20 + number, category, "D", 4, "RGB") for number, category in enumerate(once)),
    ]
    features = datasets.Features(
        {
            **dict.fromkeys(("question", "answer", "category", "l2-category"), datasets.Value("string")),
            "index": datasets.Value("int64"),
            "multi-choice options": datasets.List(datasets.Value("string")),
            "image": datasets.List(datasets.Image()),
        }
    )
    table = datasets.Dataset.from_list(rows, features=features)
    (folder / "data").mkdir(parents=True)
    table.to_parquet(folder / "data" / "train-00000-of-00001.parquet")


def of_xlrs(samples: Sequence[Sample]) -> None:
    assert [one.reference["answers"] for one in samples[:4]] == [["A, C"], ["B"], ["E"], ["A"]]
    assert [len(one.images) for one in samples[:4]] == [1, 2, 1, 1]
    assert len({one.kind for one in samples}) == 13
    for one in samples:
        assert (
            one.prompt
            and f"Question {one.id[-2:]}?" in one.prompt
            and "A. option a." in one.prompt.replace("(A)", "A.")
        )
        assert all(read_rgb(image).shape == (16, 16, 3) for image in one.images)
    assert np.array_equal(read_rgb(samples[0].images[0]), colours(11))


def rsvlm(folder: Path) -> None:
    """A line without an id has the image's name up to its first point; question ids are a language model's and may repeat."""

    def pair(kind: str, question: str, answer: str, number: int) -> dict[str, str]:
        return {"question_id": f"q{number}", "question_type": kind, "question": question, "answer": answer}

    asked = [
        pair("spatial", "Where is the road?", "The road runs along the left side.", 1),
        pair("caption", "Describe the image.", "A road passes a village.", 2),
        pair("quantity", "How many lakes are there?", "There are two lakes.", 2),
    ]
    rows = [
        {"id": "0001", "image": "/mnt/d/Storage/RSVL-QA/images/LoveDA/0001.png", "answer": "A village.", "relations": ["road left of village"],
         "tags": ["road"], "Seg": {}, "count_vqa_pairs": asked[2:], "vqa_pairs": asked},
        {"image": "/mnt/d/Storage/RSVL-QA/images/WHU/P1.5.jpg", "vqa_pairs": [pair("object", "What is visible?", "A red roof.", 1), pair("caption", "Describe it.", "Red roofs line a canal.", 2)]},
    ]  # fmt: skip
    written(folder / "json" / "RSVL-VQA_test.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    saved(folder / "images" / "LoveDA" / "0001.png", colours())
    saved(folder / "images" / "WHU" / "P1.5.jpg", colours(1))


def of_rsvlm(samples: Sequence[Sample]) -> None:
    assert [(one.kind, str(one.task)) for one in samples if one.kind != "caption"] == [
        ("spatial", "change_qa"),
        ("quantity", "change_qa"),
        ("object", "change_qa"),
    ]
    captions = [one.reference["captions"] for one in samples if str(one.task) == "change_caption"]
    assert captions == [["A road passes a village."], ["Red roofs line a canal."]]
    assert samples[2].reference["answers"] == ["There are two lakes."]
    assert "/P1/" in samples[3].id and "/0001/" in samples[0].id
    assert samples[3].images[0].path is not None and samples[3].images[0].path.name == "P1.5.jpg"


def ndvi_of_green(seed: int, size: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """NDVI (30, size, size) that varies by more than 0.1 and stays above 0, and where it was seen."""
    random = np.random.default_rng(seed)
    season = 0.5 + 0.3 * np.sin(np.arange(30) / 4.0)
    values = season[:, None, None] + random.uniform(-0.1, 0.1, (30, size, size))
    seen = random.uniform(size=values.shape) < 0.9
    seen[3] = False
    return values, seen


def greenearthnet(folder: Path) -> None:
    """Daily cubes with Sentinel-2 every fifth day, NaN between; the names hold points, as those of the data set do."""
    xarray = pytest.importorskip("xarray", reason=CUBES)
    pytest.importorskip("h5netcdf", reason=CUBES)
    places = (("MJJ21", "minicube_0_29SND_39.29_-8.56"), ("MJJ21", "minicube_225_34TET_47.11_22.30"), ("JAS21", "minicube_0_29SND_39.29_-8.56"))  # fmt: skip
    for number, (season, name) in enumerate(places):
        ndvi, seen = ndvi_of_green(number)
        size = ndvi.shape[1]
        bands = {
            key: np.full((150, size, size), np.nan, np.float32) for key in ("s2_B8A", "s2_B04", "s2_dlmask", "s2_SCL")
        }
        bands["s2_B04"][4::5] = 0.1
        bands["s2_B8A"][4::5] = 0.1 * (1 + ndvi) / (1 - ndvi)
        bands["s2_dlmask"][4::5] = ~seen
        bands["s2_SCL"][4::5] = 4
        cover = np.full((size, size), 10, np.float32)
        cover[4:], cover[:, 4:6], cover[:, 6], cover[:, 7] = 20, 30, 40, 50
        axes = {
            "time": np.datetime64("2021-03-09") + np.arange(150).astype("timedelta64[D]"),
            "lat": 39.29 - np.arange(size) * 2e-4,
            "lon": -8.56 + np.arange(size) * 2e-4,
        }
        variables: dict[str, Any] = {key: (("time", "lat", "lon"), values) for key, values in bands.items()}
        for key, plane in (("esawc_lc", cover), ("geom_cls", cover), ("cop_dem", cover)):
            variables[key] = (("lat", "lon"), plane)
        variables["eobs_tg"] = (("time",), np.zeros(150, np.float32))
        path = folder / "ood-t_chopped" / season / f"{name}.nc"
        path.parent.mkdir(parents=True, exist_ok=True)
        xarray.Dataset(variables, coords=axes).to_netcdf(path, engine="h5netcdf")


def of_greenearthnet(samples: Sequence[Sample]) -> None:
    assert [(len(one.images), len(one.reference["images"])) for one in samples] == [(10, 20)] * 3
    found = {one.id: one for one in samples}
    (one,) = (one for key, one in found.items() if "MJJ21" in key and "29SND_39.29_-8.56" in key)
    ndvi, seen = ndvi_of_green(0)
    frames = [np.load(image.path) for image in (*one.images, *one.reference["images"])]
    np.testing.assert_allclose(np.stack(frames), np.where(seen, ndvi, np.nan), atol=1e-6)
    dates = [image.date for image in one.images]
    assert (dates[0], dates[1]) == ("2021-03-13", "2021-03-18")
    assert {one.scene for one in samples} == {"greenearthnet/29SND", "greenearthnet/34TET"}


NAME = "29SND_2018-09-03_2019-01-30_441_569_2745_2873_6_86_42_122"


def reflectance(seed: int, frames: int, size: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.1, 0.6, (size, size, 4, frames)).astype(np.float16)


def earthnet2021(folder: Path) -> None:
    """Masks are the last channel, 1 where a pixel is bad; test cubes have five channels and train cubes seven."""

    def cube(path: Path, seed: int, frames: int, bad: Sequence[int], channels: int) -> None:
        values = reflectance(seed, frames)
        mask = np.zeros((8, 8, 1, frames), np.float16)
        mask[..., list(bad)] = 1
        values[..., list(bad)] = np.nan
        between = np.zeros((8, 8, channels - 5, frames), np.float16)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            path, highresdynamic=np.concatenate([values, between, mask], 2), highresstatic=np.zeros((8, 8, 1), np.float16),
            mesodynamic=np.zeros((8, 8, 5, 150), np.float16), mesostatic=np.zeros((8, 8, 1), np.float16),
        )  # fmt: skip

    other = "30TXM_2019-02-01_2019-06-30_1337_1465_3129_3257_20_100_48_128"
    for number, name in enumerate((NAME, other)):
        for part, frames in (("context", 10), ("target", 20)):
            path = folder / "iid_test_split" / part / name[:5] / f"{part}_{name}.npz"
            cube(path, 2 * number + (part == "target"), frames, [2] if part == "context" else [], 5)
    cube(folder / "train" / "29SND" / f"{NAME}.npz", 9, 30, [2], 7)


def of_earthnet2021(samples: Sequence[Sample]) -> None:
    assert [(len(one.images), len(one.reference["images"])) for one in samples] == [(10, 20)] * 2
    (one,) = (one for one in samples if NAME in one.id)
    frames = [np.load(image.path) for image in (*one.images, *one.reference["images"])]
    expected = np.moveaxis(np.concatenate([reflectance(0, 10), reflectance(1, 20)], -1), -1, 0).astype(np.float32)
    expected[2] = np.nan
    np.testing.assert_allclose(np.stack(frames), expected, atol=1e-6)
    assert [image.date for image in one.images[:2]] == ["2018-09-07", "2018-09-12"]


def landsat(kind: str) -> Callable[[Path], None]:
    """Open-CD's folders of splits, or SCanNet's lists; the lists have lines that are no image, and label maps hold indices."""

    def build(folder: Path) -> None:
        lists: dict[str, list[str]] = {"train_list.txt": [], "val_list.txt": [], "test_list.txt": []}
        for number, (split, name) in enumerate((("train", "10_3"), ("train", "4_12"), ("val", "7_1"), ("test", "9_9"))):
            before, after = changes(number, value=1 + number % 4), changes(number, value=1 + (number + 1) % 4)
            next(lines for file, lines in lists.items() if file.startswith(split)).append(f"{name}.png\n")
            parts = {
                "im1": colours(number),
                "im2": colours(number + 9),
                "label1": before,
                "label2": after,
                "label": changes(number),
            }
            for part, pixels in parts.items():
                if kind == "open-cd":
                    saved(folder / split / part / f"{name}.png", pixels)
                else:
                    renamed = {"im1": "A", "im2": "B", "label1": "labelA", "label2": "labelB", "label": "label"}[part]
                    saved(folder / renamed / f"{name}.png", pixels)
        if kind != "open-cd":
            for file, lines in lists.items():
                written(folder / file, "".join(lines) + "Thumbs.db\n")

    return build


def of_landsat(samples: Sequence[Sample]) -> None:
    assert sorted(one.metadata["split"] for one in samples) == ["test", "train", "train", "val"]
    (one,) = (one for one in samples if one.metadata["split"] == "test")
    assert one.reference["classes"][1:] == ["farmland", "desert", "building", "water"]
    assert np.array_equal(one.reference["map_before"].pixels(), changes(3, value=4))


def levir_plus(folder: Path) -> None:
    for number, (split, name) in enumerate((("train", "train_1"), ("train", "train_10"), ("test", "train_638"))):
        for part, pixels in (("A", colours(number)), ("B", colours(number + 5)), ("label", changes(number))):
            saved(folder / "LEVIR-CD+" / split / part / f"{name}.png", pixels)


def of_levir_plus(samples: Sequence[Sample]) -> None:
    assert [one.metadata["split"] for one in samples].count("train") == 2
    assert all("plus" in one.id or "+" in one.id for one in samples)


def cdchat(*below: str) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        sentences = ("Some new containers appeared on the bottom left.", "Vegetation turned into groundwork, bare land and a road.", "A new building appeared.")  # fmt: skip
        rows = [
            {"id": 16000 + n, "width": 16, "height": 16, "file_name": f"sysu_test_{n:05}.png", "folder_name": "test", "license": 0, "flickr_url": "",
             "coco_url": "", "date_captured": 0, "ischange": 1, "captions": [sentence],
             "attribute": {"num_regions": 1, "region_properties": [{"area": 9.5, "box": [0, 4, 9, 9], "orientation": [4.5, 6.0, 9.0, 1.0, 0.0]}]}}
            for n, sentence in zip((0, 2, 7), sentences, strict=True)
        ]  # fmt: skip
        written(
            folder / "sysu_test_captions.json",
            {"licenses": [{"name": "", "id": 0, "url": ""}], "info": {"year": ""}, "images": rows},
        )
        for row in rows:
            for part in ("A", "B", "label"):
                pixels = changes(2) if part == "label" else colours(row["id"])
                saved(folder.joinpath(*below, part, row["file_name"]), pixels)

    return build


def of_cdchat(samples: Sequence[Sample]) -> None:
    assert all(one.reference["changed"] and len(one.reference["captions"]) == 1 for one in samples)
    assert [[image.path.parent.name for image in one.images if image.path] for one in samples] == [["A", "B"]] * 3


def forest(folder: Path) -> None:
    """Any value over 0 is change; tokens of the file lose hyphens, and commas are glued to words."""

    def sentence(raw: str) -> dict[str, Any]:
        return {"raw": raw, "tokens": raw.replace(",", "").replace("-", "").split()}

    rows = []
    for number, name in enumerate(("train_000037", "val_000004", "test_000101", "test_000007")):
        split = name.partition("_")[0]
        raws = (
            f"{number + 1}.22 percent of the observed area has been affected by deforestation",
            "Minor forest loss is visible, primarily occurring in the middle-left and centre regions.",
        )
        raws = (
            raws
            if not number
            else (("", "a road cuts a plantation", "nothing grows near that river", "two clearings join up")[number],)
        )
        rows.append({"filename": f"{name}.png", "filepath": split, "split": split, "sentences": [sentence(raw) for raw in raws]})  # fmt: skip
        for part in "AB":
            saved(folder / "images" / split / part / f"{name}.png", colours(number))
        saved(folder / "images" / split / "label" / f"{name}.png", changes(number, value=(255, 1, 128, 255)[number]))
    written(folder / "ForestChatcaptions.json", {"images": rows})


def of_forest(samples: Sequence[Sample]) -> None:
    assert [one.metadata["split"] for one in samples].count("test") == 2


def captions_of_forest(samples: Sequence[Sample]) -> None:
    (one,) = (one for one in samples if "train_000037" in one.id)
    assert one.reference["captions"][:2] == [
        "1.22 percent of the observed area has been affected by deforestation",
        "minor forest loss is visible , primarily occurring in the middle-left and centre regions",
    ]


def landcover(folder: Path) -> None:
    """The authors' split.py reads masks as three equal channels and writes them so; the loader reads them as 'L'."""
    ids = {
        "train": ("M-33-20-D-c-4-2_0", "M-33-20-D-c-4-2_11"),
        "val": ("N-34-97-C-b-1-2_5",),
        "test": ("N-34-97-C-b-1-2_7",),
    }
    for split, names in ids.items():
        written(folder / f"{split}.txt", "".join(f"{name}\n" for name in names))
        for number, name in enumerate(names):
            saved(folder / "output" / f"{name}.jpg", colours(number))
            saved(folder / "output" / f"{name}_m.png", np.arange(256).reshape(16, 16) % (4 + number), "RGB")


def of_landcover(samples: Sequence[Sample]) -> None:
    assert len({one.scene for one in samples}) == 2
    assert samples[0].reference["classes"] == ["background", "building", "woodland", "water", "road"]


def gamus(folder: Path) -> None:
    """Names of New York's images end in IMG and the others' in RGB: the loader cuts six characters. Washington's maps are float."""
    h5py = pytest.importorskip("h5py", reason=CUBES)

    def store(path: Path, values: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            file["image"] = values

    for number, (split, base, word) in enumerate((("train", "NYC_26210_", "IMG"), ("val", "DC_29_06_", "RGB"), ("test", "PHL_4008_", "RGB"))):  # fmt: skip
        plane = np.arange(256).reshape(16, 16) % 7
        store(folder / "images" / split / f"{base}{word}.h5", colours(number))
        store(
            folder / "classes" / split / f"{base}CLS.h5",
            plane.astype(np.float32 if base.startswith("DC") else np.uint8),
        )
        store(folder / "heights" / split / f"{base}AGL.h5", np.full((16, 16), -0.5, np.float32))


def of_gamus(samples: Sequence[Sample]) -> None:
    assert sorted(one.metadata["split"] for one in samples) == ["test", "train", "val"]
    for number, split in enumerate(("train", "val", "test")):
        (one,) = (one for one in samples if one.metadata["split"] == split)
        assert np.array_equal(one.images[0].pixels(), colours(number))
    assert samples[0].reference["classes"] == [
        "others",
        "ground",
        "low vegetation",
        "buildings",
        "water",
        "road",
        "tree",
    ]


def reben(folder: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    pandas = pytest.importorskip("pandas")
    rows = [
        ("S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57", "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_61_39", "train", ["Urban fabric", "Transitional woodland, shrub"]),
        ("S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_58", "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_61_40", "train", ["Arable land"]),
        ("S2B_MSIL2A_20170615T102019_N9999_R122_T32TNS_45_23", "S1A_IW_GRDH_1SDV_20170615T170156_32TNS_77_12", "validation", ["Pastures", "Inland waters"]),
        ("S2A_MSIL2A_20170618T101021_N9999_R022_T32TQR_89_34", "S1A_IW_GRDH_1SDV_20170618T165722_32TQR_92_45", "test", ["Marine waters"]),
    ]  # fmt: skip
    columns = ("patch_id", "s1_name", "split", "labels")
    table = pandas.DataFrame([dict(zip(columns, row, strict=True)) for row in rows])
    folder.mkdir(parents=True, exist_ok=True)
    table.assign(country="Austria", contains_seasonal_snow=False).to_parquet(folder / "metadata.parquet")

    def store(path: Path, size: int, dtype: str, value: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        grid = {"crs": "EPSG:32633", "transform": rasterio.transform.from_origin(3e5, 5e6, 10, 10)}
        with rasterio.open(path, "w", driver="GTiff", height=size, width=size, count=1, dtype=dtype, **grid) as file:
            file.write(np.full((size, size), value, dtype), 1)

    bands = {"B01": 20, "B02": 120, "B03": 120, "B04": 120, "B05": 60, "B06": 60, "B07": 60, "B08": 120, "B09": 20, "B11": 60, "B12": 60, "B8A": 60}  # fmt: skip
    for patch, radar, _, _ in rows:
        base = folder / "BigEarthNet-S2" / patch.rsplit("_", 2)[0] / patch
        for number, (band, size) in enumerate(bands.items()):
            store(base / f"{patch}_{band}.tif", size, "uint16", 200 * number)
        for polarisation in ("VH", "VV"):
            store(
                folder / "BigEarthNet-S1" / radar.rsplit("_", 3)[0] / radar / f"{radar}_{polarisation}.tif",
                120,
                "float32",
                -9,
            )
        store(
            folder / "Reference_Maps" / patch.rsplit("_", 2)[0] / patch / f"{patch}_reference_map.tif",
            120,
            "uint16",
            111,
        )


def of_reben(samples: Sequence[Sample]) -> None:
    (one,) = (one for one in samples if one.id.endswith("26_57"))
    assert one.reference["labels"] == ["Urban fabric", "Transitional woodland, shrub"]
    assert len(one.reference["vocabulary"]) == 19 and one.reference["vocabulary"][-1] == "Marine waters"
    assert samples[0].images[0].pixels().shape == (120, 120, 3)
    assert samples[0].images[0].pixels()[0, 0].tolist() == [600, 400, 200]
    assert samples[0].images[0].stretch == ((0.0, 2000.0),) * 3


def so2sat(folder: Path) -> None:
    h5py = pytest.importorskip("h5py", reason=CUBES)
    folder.mkdir(parents=True, exist_ok=True)
    for split, labels in (("training", (0, 16)), ("validation", (12,)), ("testing", (2,))):
        with h5py.File(folder / f"{split}.h5", "w") as file:
            file["sen1"] = np.zeros((len(labels), 32, 32, 8))
            file["sen2"] = np.broadcast_to(np.arange(10) * 0.02, (len(labels), 32, 32, 10))
            file["label"] = np.eye(17)[list(labels)]


def of_so2sat(samples: Sequence[Sample]) -> None:
    assert [one.reference["label"] for one in samples] == ["compact high rise", "water", "bush, scrub", "compact low rise"]  # fmt: skip
    red, green, blue = np.load(samples[0].images[0].path)[0, 0, list(samples[0].images[0].bands or ())]
    assert (red, green, blue) == pytest.approx((0.04, 0.02, 0.0))


def fmow(folder: Path) -> None:
    """As in fmow-rgb, whose records still name .tif files; frame numbers are not in order of time, and a box may stand alone."""
    azimuths = dict.fromkeys(("target_azimuth_dbl", "sun_azimuth_dbl", "sun_elevation_dbl", "off_nadir_angle_dbl", "pan_resolution_dbl", "multi_resolution_dbl"), 31.2)  # fmt: skip

    def frame(split: str, category: str, place: int, number: int, when: str, boxes: Any) -> None:
        name = f"{category}_{place}_{number}"
        base = folder / split / category / f"{category}_{place}"
        for kind in ("rgb", "msrgb"):
            saved(base / f"{name}_{kind}.jpg", colours(number))
            record = {
                "gsd": 0.468, "utm": "32T", "timestamp": when, "cloud_cover": 3, "scan_direction": "Reverse", "country_code": "CHE", "img_width": 16,
                "img_height": 16, "img_filename": f"{name}_{kind}.tif", "approximate_wavelengths": [661, 545, 477], "bounding_boxes": boxes, **azimuths,
            }  # fmt: skip
            written(base / f"{name}_{kind}.json", record)

    def box(category: str, number: int = 47768) -> dict[str, Any]:
        return {"ID": number, "box": [2, 3, 8, 6], "category": category, "visible": "True"}

    frame("train", "fountain", 514, 0, "2015-06-01T10:32:22Z", [box("fountain", -1), box("fountain")])
    frame("train", "fountain", 514, 1, "2012-04-02T10:32:22Z", box("fountain"))
    frame("train", "multi-unit_residential", 7, 0, "2016-01-02T00:00:00Z", [box("multi-unit_residential")])
    frame("val", "airport", 0, 0, "2016-03-04T10:00:00Z", [box("airport")])


def of_fmow(samples: Sequence[Sample]) -> None:
    assert sorted(one.reference["label"] for one in samples) == ["airport", "fountain", "multi-unit residential"]
    (one,) = (one for one in samples if "fountain" in one.id)
    assert [image.path.name for image in one.images if image.path] == [
        "fountain_514_1_rgb.jpg",
        "fountain_514_0_rgb.jpg",
    ]
    assert [str(image.date)[:10] for image in one.images] == ["2012-04-02", "2015-06-01"]


# Each protocol: its settings, what its oracle gets, and a baseline that gets less of the first metric.
Run = tuple[str, Mapping[str, Any], Mapping[str, float], str]
CASES: list[tuple[str, Callable[[Path], None], str, dict[str, Any], int, Callable[[Sequence[Sample]], None], list[Run]]] = [
    ("xlrs-bench", xlrs, "", {}, 13, of_xlrs, [("xlrs-bench", {}, {"oa": 1, "aa": 1}, "empty"), ("multiple-choice", {}, {"accuracy": 1}, "constant")]),
    ("rsvlm-qa", rsvlm, "", {}, 5, of_rsvlm, [("exact-qa", {}, {"accuracy": 1}, "constant")]),
    ("greenearthnet", greenearthnet, "", {}, 3, of_greenearthnet, [("greenearthnet", {}, {"nse": 1, "R2": 1, "rmse": 0}, "persistence")]),
    ("earthnet2021", earthnet2021, "", {"split": "iid"}, 2, of_earthnet2021, [("earthnet2021", {}, {"ens": 1}, "copy_before")]),
    ("landsat-scd", landsat("open-cd"), "", {}, 4, of_landsat, [("second-stacked7", {"semantic_change.classes": 5}, {"sek": 1, "miou": 1}, "swapped")]),
    ("landsat-scd", landsat("lists"), "", {}, 4, of_landsat, []),
    ("levir-cd-plus", levir_plus, "LEVIR-CD+", {}, 3, of_levir_plus, [("change-mask", {}, {"f1": 1, "iou": 1}, "all_changed")]),
    ("cdchat-sysu", cdchat(), "", {}, 3, of_cdchat, []),
    ("cdchat-sysu", cdchat("test"), "", {}, 3, of_cdchat, []),
    ("forest-change", forest, "", {}, 4, of_forest, [("change-mask", {}, {"f1": 1, "iou": 1}, "all_changed")]),
    ("forest-change", forest, "", {"task": "caption"}, 4, captions_of_forest, []),
    ("landcover-ai", landcover, "", {}, 4, of_landcover, [("class-map", {"class_map.classes": 5}, {"miou": 1}, "all_unchanged")]),
    ("gamus", gamus, "", {}, 3, of_gamus, [("class-map", {"class_map.classes": 7}, {"miou": 1}, "all_unchanged")]),
    ("reben", reben, "", {}, 4, of_reben, [("multi-label", {}, {"micro_f1": 1, "macro_f1": 1}, "all_labels")]),
    ("so2sat", so2sat, "", {}, 4, of_so2sat, [("scene-classification", {}, {"oa": 1, "aa": 1}, "all_labels")]),
    ("fmow", fmow, "", {}, 3, of_fmow, [("scene-classification", {}, {"oa": 1, "aa": 1}, "all_labels")]),
]  # fmt: skip
CAPTIONS: list[tuple[str, Callable[[Path], None], str, dict[str, Any], int, Callable[[Sequence[Sample]], None], list[Run]]] = [
    ("rsvlm-qa", rsvlm, "", {}, 5, of_rsvlm, [("coco-caption", {}, {"bleu4": 1}, "no_change")]),
    ("cdchat-sysu", cdchat(), "", {}, 3, of_cdchat, [("coco-caption", {}, {"bleu4": 1}, "constant")]),
    ("forest-change", forest, "", {"task": "caption"}, 4, captions_of_forest, [("levir-cc-words", {}, {"bleu4": 1}, "no_change")]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "build", "below", "options", "count", "check", "runs"),
    [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in CAPTIONS)],
)
def test_from_the_files_of_the_loader_to_the_numbers(
    name: str,
    build: Callable[[Path], None],
    below: str,
    options: dict[str, Any],
    count: int,
    check: Callable[[Sequence[Sample]], None],
    runs: list[Run],
    tmp_path: Path,
) -> None:
    build(tmp_path / "data")
    done = rsw.data.convert(name, tmp_path / "data" / below, tmp_path / "out", **options)
    samples = load_samples(done.file, done.roots)
    assert done.samples == len(samples) == len({one.id for one in samples}) == count
    check(samples)
    for protocol, settings, best, baseline in runs:
        checked = rsw.validate(protocol, samples, settings=settings)
        assert checked.ok, [*checked.problems, *map(str, checked.failed)]
        found = rsw.evaluate(protocol, samples, policy="oracle", settings=settings)
        assert {key: found.metrics[key].value for key in best} == pytest.approx(dict(best), abs=1e-6), protocol
        key, row = next(iter(best)), found.summary["baselines"].get(baseline)
        worse = (
            row["metrics"][key]["value"] if row else rsw.evaluate(protocol, samples, policy=baseline).metrics[key].value
        )
        assert worse is not None and worse < best[key] - 0.01, (protocol, baseline)
