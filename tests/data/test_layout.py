"""What adapters share: tolerant names, bounded files, and nothing outside the data set's folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rsw_rewards.data import layout
from rsw_rewards.data.layout import (
    ImageFolder,
    choose_splits,
    find_folder,
    image_folders,
    inside,
    natural,
    plain_name,
    read_json,
    read_records,
    take,
)
from rsw_rewards.errors import InputError
from rsw_rewards.io import text_files
from rsw_rewards.io.images import write_png


def images(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        write_png(folder / name, np.zeros((2, 2), np.uint8))
    return folder


def test_images_are_found_despite_suffix_and_case(tmp_path: Path) -> None:
    folder = ImageFolder(images(tmp_path / "A", "one.png", "Two.PNG", "three.tif", "a.b.png"), tmp_path)
    assert [folder[name] for name in ("one.png", "one", "two.png", "three.jpg", "a.b", "a.b.png")] == [
        "A/one.png", "A/one.png", "A/Two.PNG", "A/three.tif", "A/a.b.png", "A/a.b.png",
    ]  # fmt: skip
    assert folder.get("four.png") is None
    with pytest.raises(InputError, match=r"the image four.png was expected in .*A"):
        folder["four.png"]
    assert ImageFolder(tmp_path / "A", tmp_path / "A")["one"] == "one.png"


def test_two_files_of_one_name_are_not_guessed_between(tmp_path: Path) -> None:
    folder = ImageFolder(images(tmp_path / "A", "one.png", "one.tif"), tmp_path)
    assert folder["one.tif"] == "A/one.tif"
    with pytest.raises(InputError, match=r"has no one.jpg but one.png and one.tif"):
        folder["one.jpg"]
    with pytest.raises(InputError, match="differ in more than the suffix"):
        _ = folder.stems


def test_stems_are_in_natural_order_and_other_files_ignored(tmp_path: Path) -> None:
    folder = images(tmp_path / "A", "t_10.png", "t_2.png", ".hidden.png")
    (folder / "Thumbs.db").write_bytes(b"")
    assert ImageFolder(folder, tmp_path).stems == ["t_2", "t_10"]
    assert natural("t_²") == ["t_²"]


def test_links_may_not_lead_out(tmp_path: Path) -> None:
    outside = images(tmp_path / "outside", "one.png")
    source = images(tmp_path / "source" / "A", "two.png").parent
    (source / "A" / "here.png").symlink_to(source / "A" / "two.png")
    assert ImageFolder(source / "A", source)["here"] == "A/here.png"
    (source / "B").symlink_to(outside)
    with pytest.raises(InputError, match=r"source/B leads out of .*source; move the files there"):
        ImageFolder(source / "B", source)
    (source / "A" / "bad.png").symlink_to(outside / "one.png")
    with pytest.raises(InputError, match=r"bad.png leads out of"):
        ImageFolder(source / "A", source)
    with pytest.raises(InputError, match="leads out of"):
        inside(source / ".." / "outside", source)
    (tmp_path / "x.json").write_text("[]")
    (source / "x.json").symlink_to(tmp_path / "x.json")
    with pytest.raises(InputError, match=r"x.json leads out of"):
        read_json(source / "x.json", source)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b.png", "/a.png", "../a.png", "a\0.png", "a\\b.png", 3, None])
def test_names_that_are_paths_are_refused(name: object) -> None:
    with pytest.raises(InputError, match="is not a plain file name"):
        plain_name(name, "x.json")


def test_folders_are_found_in_any_case(tmp_path: Path) -> None:
    images(tmp_path / "a", "1.png")
    images(tmp_path / "Label", "1.png")
    (tmp_path / "B").write_text("a file")
    assert find_folder(tmp_path, "A", "t1") == tmp_path / "a"
    assert find_folder(tmp_path, "B") is None
    assert find_folder(tmp_path / "none", "A") is None
    assert image_folders(tmp_path, tmp_path, (("A",), ("label",))) is not None
    assert image_folders(tmp_path, tmp_path, (("A",), ("B", "t2"))) is None


def test_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(b'\xef\xbb\xbf{"images": [{"a": 1}]}')
    assert read_records(file, tmp_path, "images") == [{"a": 1}]
    with pytest.raises(InputError, match=r"x.json should be a list"):
        read_records(file, tmp_path, None)
    with pytest.raises(InputError, match=r"x.json should be an object with a list 'rows'"):
        read_records(file, tmp_path, "rows")
    file.write_text("[1]")
    with pytest.raises(InputError, match="entry 0 should be an object, not int"):
        read_records(file, tmp_path, None)
    for broken in (b"[", b"\xff\xfe", b"[" * 100_000, b"9" * 10_000):
        file.write_bytes(broken)
        with pytest.raises(InputError, match=r"x.json is not valid JSON"):
            read_json(file, tmp_path)
    with pytest.raises(InputError, match=r"none.json cannot be read"):
        read_json(tmp_path / "none.json", tmp_path)
    monkeypatch.setattr(text_files, "MAX_FILE_BYTES", 100)
    with pytest.raises(InputError, match=r"x.json has more than the 100 bytes that are read"):
        read_json(file, tmp_path)


def test_too_many_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MAX_FILES", 2)
    with pytest.raises(InputError, match="holds more than 2 images"):
        ImageFolder(images(tmp_path / "A", "1.png", "2.png", "3.png"), tmp_path)


def test_splits_and_limits(tmp_path: Path) -> None:
    assert choose_splits(["train", "test"], None, tmp_path) == ["train", "test"]
    assert choose_splits(["train", "Test"], "test", tmp_path) == ["Test"]
    with pytest.raises(InputError, match="holds the splits train, test, not 'val'"):
        choose_splits(["train", "test"], "val", tmp_path)
    assert (list(take("abc", 2)), list(take("abc", None)), list(take("abc", -1))) == (["a", "b"], ["a", "b", "c"], [])
