"""The refsegrs and rrsis-d adapters on small folders in the official layouts, and the masks they read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsw_rewards.core.records import Task
from rsw_rewards.data import refsegrs, rrsis_d
from rsw_rewards.data.referring import decode_rle
from rsw_rewards.errors import InputError
from rsw_rewards.io.images import read_mask, write_png
from rsw_rewards.io.records_io import load_samples

MASK = np.zeros((6, 8), bool)
MASK[1:3, 2:7] = True


def runs(mask: np.ndarray) -> list[int]:
    """Run lengths of a mask down its columns, off first."""
    counts, value = [0], False
    for pixel in mask.T.ravel():
        if pixel != value:
            counts.append(0)
            value = bool(pixel)
        counts[-1] += 1
    return counts


@given(st.integers(1, 9), st.integers(1, 9), st.randoms(use_true_random=False))
def test_run_lengths_give_the_mask_back(height: int, width: int, random: Any) -> None:
    mask = np.array([[random.random() < 0.5 for _ in range(width)] for _ in range(height)])
    np.testing.assert_array_equal(decode_rle({"size": [height, width], "counts": runs(mask)}, "x"), mask)


def test_compressed_run_lengths_are_those_of_pycocotools() -> None:
    coco = pytest.importorskip("pycocotools.mask")
    noise = np.random.default_rng(0).random((40, 30))
    for share in (0.0, 0.02, 0.5, 0.98, 1.0):
        encoded = coco.encode(np.asfortranarray(noise < share, np.uint8))
        text = encoded["counts"].decode()
        np.testing.assert_array_equal(decode_rle({"size": [40, 30], "counts": text}, "x"), noise < share)


def test_compressed_run_lengths_by_hand() -> None:
    # 13, 2, 4, 2, 27: from the third run on the difference to the run before the last is written, so 13 2 4 0 23.
    expected = np.zeros(48, bool)
    expected[13:15] = expected[19:21] = True
    assert (decode_rle({"size": [6, 8], "counts": "=240g0"}, "x") == expected.reshape(8, 6).T).all()


@pytest.mark.parametrize(
    ("encoded", "sentence"),
    [
        ([[0, 0, 3, 0, 3, 3]], "should have a 'size'"),
        ({"size": [6, 8]}, "should have 'counts'"),
        ({"size": [6, -8], "counts": []}, "should have a 'size'"),
        ({"size": [10**5, 10**5], "counts": "0"}, "declares 100000 x 100000 pixels"),
        ({"size": [6, 8], "counts": [40]}, "fill 40 of 48 pixels"),
        ({"size": [6, 8], "counts": [50, -2]}, "should have 'counts'"),
        ({"size": [6, 8], "counts": "`" * 9}, "holds '`'"),
        ({"size": [6, 8], "counts": "é"}, "is no part of a compressed mask"),
        ({"size": [6, 8], "counts": "g"}, "ends in the middle of a number"),
    ],
)  # fmt: skip
def test_masks_that_are_none(encoded: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        decode_rle(encoded, "the mask")


def ref_seg(folder: Path, values: int = 255) -> Path:
    import rasterio

    for name, value in (("images", 1), ("masks", values)):
        (folder / name).mkdir(parents=True)
        for key in ("7", "12"):
            with rasterio.open(folder / name / f"{key}.tif", "w", driver="GTiff", height=6, width=8, count=1, dtype="uint8") as file:  # fmt: skip
                file.write(MASK.astype(np.uint8) * value, 1)
    (folder / "output_phrase_test.txt").write_text("7 road\n12 vehicle on the left\n7 light-duty vehicle \n\n")
    (folder / "output_phrase_val.txt").write_text("12 building\n")
    return folder


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("value", [255, 51])
def test_refsegrs(tmp_path: Path, value: int) -> None:
    source = ref_seg(tmp_path / "ref", value)
    done = refsegrs.convert(source, tmp_path / "out", split="test")
    samples = load_samples(done.file, done.roots)
    assert [sample.id for sample in samples] == ["refsegrs/test/7", "refsegrs/test/12", "refsegrs/test/7_2"]
    assert [sample.scene for sample in samples] == ["refsegrs/7", "refsegrs/12", "refsegrs/7"]
    assert [sample.metadata["expression"] for sample in samples] == [
        "road",
        "vehicle on the left",
        "light-duty vehicle",
    ]
    assert samples[0].task is Task.GROUNDING
    assert samples[1].prompt.endswith("vehicle on the left")
    for sample in samples:
        np.testing.assert_array_equal(read_mask(sample.reference["mask"]), MASK)
    assert (tmp_path / "out" / "masks").exists() == (value != 255)
    assert len(done.notes) == (value != 255)
    assert refsegrs.convert(source, tmp_path / "out").samples == 4


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_refsegrs_marks_with_values_over_50(tmp_path: Path) -> None:
    import rasterio

    source = ref_seg(tmp_path / "ref")
    stored = np.where(MASK, 255, np.arange(48).reshape(6, 8)).astype(np.uint8)
    with rasterio.open(source / "masks" / "12.tif", "r+") as file:
        file.write(stored, 1)
    done = refsegrs.convert(source, tmp_path / "out", split="val")
    (sample,) = load_samples(done.file, [source, tmp_path / "out"])
    np.testing.assert_array_equal(read_mask(sample.reference["mask"]), MASK)
    with rasterio.open(source / "masks" / "12.tif", "r+") as file:
        file.write(MASK.astype(np.uint8), 1)
    with pytest.raises(InputError, match=r"12\.tif marks with values to 1; RefSegRS marks with values over 50"):
        refsegrs.convert(source, tmp_path / "out", split="val")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_refsegrs_that_does_not_fit(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="should hold images, masks and output_phrase_train"):
        refsegrs.convert(tmp_path / "empty", tmp_path / "out")
    source = ref_seg(tmp_path / "ref")
    with pytest.raises(InputError, match="holds the splits val, test, not 'train'"):
        refsegrs.convert(source, tmp_path / "out", split="train")
    for line, sentence in (
        ("7", "should be an id, a blank"),
        ("../7 x", "not a plain file name"),
        ("9 x", "9.tif was expected"),
    ):
        (source / "output_phrase_test.txt").write_text(f"12 ok\n{line}\n")
        with pytest.raises(InputError, match=sentence):
            refsegrs.convert(source, tmp_path / "out", split="test")


XML = (
    "<annotation><folder>x</folder><filename>{n}.jpg</filename><split>{split}</split><object><name>ship</name>"
    "<description>The ship number {n}</description></object></annotation>"
)  # fmt: skip


def rrsis(folder: Path) -> Path:
    images, annotations = [], []
    for name in ("rrsisd", "images/rrsisd/JPEGImages", "images/rrsisd/ann_split"):
        (folder / name).mkdir(parents=True)
    for number, split in ((2, "train"), (10, "test"), (11, "test")):
        name = f"{number:05d}"
        write_png(folder / "images/rrsisd/JPEGImages" / f"{name}.jpg", np.zeros((6, 8, 3), np.uint8))
        (folder / "images/rrsisd/ann_split" / f"{name}.xml").write_text(XML.format(n=name, split=split))
        images.append({"file_name": f"{name}.jpg", "height": 6, "width": 8, "id": number})
        annotations.append(
            {
                "bbox": [2, 1, 7, 3],
                "id": number,
                "image_id": number,
                "segmentation": [{"size": [6, 8], "counts": runs(MASK)}],
            }
        )
    annotations[2]["bbox"] = [2, 1, 7, 300]
    (folder / "rrsisd/instances.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": []})
    )
    (folder / "rrsisd/refs(unc).p").write_bytes(
        b"cos\nsystem\n(S'exit 3'\ntR."
    )  # would run a command if it were opened
    return folder


def edit(source: Path, **changes: Any) -> None:
    file = source / "rrsisd/instances.json"
    loaded = json.loads(file.read_text())
    loaded["annotations"][1] |= changes
    file.write_text(json.dumps(loaded))


def test_rrsis_d(tmp_path: Path) -> None:
    source = rrsis(tmp_path / "rrsis")
    done = rrsis_d.convert(source, tmp_path / "out", split="test")
    samples = load_samples(done.file, done.roots)
    assert [sample.id for sample in samples] == ["rrsis_d/test/00010", "rrsis_d/test/00011"]
    assert {sample.kind for sample in samples} == {"ship"}
    assert samples[0].metadata["expression"] == "The ship number 00010"
    np.testing.assert_array_equal(read_mask(samples[0].reference["mask"]), MASK)
    assert samples[0].reference["boxes"] == [[2.0, 1.0, 7.0, 3.0]]
    assert "boxes" not in samples[1].reference
    assert "1 boxes of" in done.notes[0]
    assert "00011.jpg" in done.notes[0]
    assert rrsis_d.convert(source, tmp_path / "out", limit=1).samples == 1
    assert rrsis_d.convert(source, tmp_path / "out").samples == 3


def test_pixels_of_exactly_one_part_are_meant(tmp_path: Path) -> None:
    source = rrsis(tmp_path / "rrsis")
    parts = [np.zeros((6, 8), bool) for _ in range(2)]
    parts[0][1:4, 1:4] = parts[1][2:5, 2:6] = True
    edit(source, segmentation=[{"size": [6, 8], "counts": runs(part)} for part in parts], categories_id=3, area=1.0)
    done = rrsis_d.convert(source, tmp_path / "out", split="test", limit=1)
    (sample,) = load_samples(done.file, done.roots)
    np.testing.assert_array_equal(read_mask(sample.reference["mask"]), parts[0] ^ parts[1])


@pytest.mark.parametrize(
    ("xml", "sentence"),
    [
        ('<!DOCTYPE a [<!ENTITY b "c">]>' + XML.format(n="00010", split="test"), "has a document type"),
        (XML.format(n="00010", split="test")[:-3], "is not valid XML"),
        (XML.format(n="00010", split=" "), "has no 'split'"),
        (XML.format(n="../../10", split="test"), "not a plain file name"),
        (XML.format(n="00011", split="test"), "is the second annotation of the image 00011.jpg"),
        (XML.format(n="00099", split="test"), "has 0 annotations of the image 00099.jpg"),
        ("<annotation/>", "describes 0 objects"),
        (" " * (1 << 20) + "<annotation/>", "more than 1,048,576 bytes"),
    ],
)  # fmt: skip
def test_annotations_that_do_not_fit(tmp_path: Path, xml: str, sentence: str) -> None:
    source = rrsis(tmp_path / "rrsis")
    (source / "images/rrsisd/ann_split/00010.xml").write_text(xml)
    with pytest.raises(InputError, match=sentence):
        rrsis_d.convert(source, tmp_path / "out")


def test_rrsis_d_that_does_not_fit(tmp_path: Path) -> None:
    source = rrsis(tmp_path / "rrsis")
    with pytest.raises(InputError, match="holds the splits test, train, not 'val'"):
        rrsis_d.convert(source, tmp_path / "out", split="val")
    edit(source, segmentation=[])
    with pytest.raises(InputError, match=r"the mask of 00010.jpg in .* is empty"):
        rrsis_d.convert(source, tmp_path / "out")
    edit(source, image_id=2)
    with pytest.raises(InputError, match=r"has 2 annotations of the image 00002.jpg"):
        rrsis_d.convert(source, tmp_path / "out")
    (source / "images/rrsisd/ann_split").rename(tmp_path / "gone")
    with pytest.raises(
        InputError, match=r"images/rrsisd/ann_split; refs\(unc\).p is a pickle and is not read in their place"
    ):
        rrsis_d.convert(source, tmp_path / "out")
