"""The xbd adapter on a small folder in the layout of the challenge's archives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsw_rewards.core.records import Task
from rsw_rewards.data.xbd import convert, draw_buildings, draw_damage, parse_polygon
from rsw_rewards.errors import InputError
from rsw_rewards.io.images import read_index, write_png
from rsw_rewards.io.records_io import load_samples

STEMS = ("hurricane-harvey_00000012", "guatemala-volcano_00000003")


def square(x: int, y: int, size: int, damage: str | None = None) -> dict[str, Any]:
    corners = [(x, y), (x + size, y), (x + size, y + size), (x, y + size), (x, y)]
    wkt = f"POLYGON (({', '.join(f'{a}.0 {b}.0' for a, b in corners)}))"
    properties = {"feature_type": "building", "uid": "u", **({"subtype": damage} if damage else {})}
    return {"properties": properties, "wkt": wkt}


def label(*polygons: dict[str, Any]) -> dict[str, Any]:
    return {"features": {"lng_lat": [], "xy": list(polygons)}, "metadata": {"width": 16, "height": 12}}


def official(folder: Path, split: str, targets: bool = True) -> Path:
    for name in ("images", "labels", *(["targets"] if targets else [])):
        (folder / split / name).mkdir(parents=True)
    for stem in STEMS:
        for when in ("pre", "post"):
            name = f"{stem}_{when}_disaster"
            write_png(folder / split / "images" / f"{name}.png", np.zeros((12, 16, 3), np.uint8))
            polygons = [square(2, 3, 4, "destroyed" if when == "post" else None)]
            (folder / split / "labels" / f"{name}.json").write_text(json.dumps(label(*polygons)))
            if targets:
                write_png(folder / split / "targets" / f"{name}_target.png", np.ones((12, 16), np.uint8))
    return folder


def test_samples_point_at_the_authors_targets(tmp_path: Path) -> None:
    source = official(official(tmp_path / "xbd", "train"), "test")
    done = convert(source, tmp_path / "out")
    assert (done.samples, done.roots, done.notes) == (4, [source], [])
    samples = load_samples(convert(source, tmp_path / "out", split="test").file, done.roots)
    assert [sample.id for sample in samples] == [f"xbd/test/{stem}" for stem in sorted(STEMS)]
    assert [sample.kind for sample in samples] == ["guatemala-volcano", "hurricane-harvey"]
    assert samples[0].task is Task.DAMAGE
    names = [image.path.name for image in samples[0].images if image.path]
    assert names == [f"{STEMS[1]}_pre_disaster.png", f"{STEMS[1]}_post_disaster.png"]
    assert samples[0].reference["buildings"].path.name == f"{STEMS[1]}_pre_disaster_target.png"
    assert samples[0].reference["damage"].path.name == f"{STEMS[1]}_post_disaster_target.png"


def test_a_split_may_be_the_source_itself(tmp_path: Path) -> None:
    source = official(tmp_path / "xbd", "hold") / "hold"
    assert load_samples(convert(source, tmp_path / "out").file, [source])[0].id == f"xbd/hold/{STEMS[1]}"
    with pytest.raises(InputError, match="is the split hold itself; for test give the folder above it"):
        convert(source, tmp_path / "out", split="test")


def test_targets_are_drawn_where_there_are_only_labels(tmp_path: Path) -> None:
    source = official(tmp_path / "xbd", "tier3", targets=False)
    done = convert(source, tmp_path / "out", limit=1)
    assert "has no targets: they were drawn from its labels" in done.notes[0]
    (sample,) = load_samples(done.file, done.roots)
    expected = np.zeros((12, 16), np.uint8)
    expected[3:8, 2:7] = 1  # from corner to corner, both included
    np.testing.assert_array_equal(read_index(sample.reference["buildings"]), expected)
    np.testing.assert_array_equal(read_index(sample.reference["damage"]), 4 * expected)
    assert len(list((tmp_path / "out" / "drawn" / "tier3").iterdir())) == 2


def test_where_buildings_overlap_there_is_none_and_the_later_damage() -> None:
    first, second = square(0, 0, 5, "destroyed"), square(4, 4, 5, "minor-damage")
    alone = square(12, 0, 2, "un-classified")
    buildings = draw_buildings(label(first, second, alone), "here")
    assert (buildings[:6, :6].sum(), buildings[4:6, 4:6].sum(), buildings.sum()) == (32, 0, 32 + 32 + 9)
    damage = draw_damage(label(first, second, alone), "here")
    assert (damage[4:6, 4:6] == 2).all() and (damage[:4, :6] == 4).all() and (damage[:3, 12:15] == 1).all()
    assert not draw_buildings(label(), "here").any()


def test_corners_are_cut_and_holes_are_ignored() -> None:
    """As np.array(.., np.int32) of the outer ring: 6.9 is 6, also of an official label with fourteen decimals."""
    wkt = (
        "POLYGON ((1.99999999999999 2.5, 6.9 2.01, 6.2 5.99, 1.1 5.4, 1.99999999999999 2.5), (3 3, 4 3, 4 4, 3 4, 3 3))"
    )
    assert parse_polygon(wkt, "here").tolist() == [[1, 2], [6, 2], [6, 5], [1, 5], [1, 2]]
    expected = np.zeros((12, 16), np.uint8)
    expected[2:6, 1:7] = 1
    np.testing.assert_array_equal(draw_buildings(label({"properties": {}, "wkt": wkt}), "here"), expected)


@pytest.mark.parametrize(
    ("wkt", "sentence"),
    [
        ("POLYGON EMPTY", "not a WKT polygon"),
        ("MULTIPOLYGON (((0 0, 1 0, 1 1, 0 0)))", "not a WKT polygon"),
        (None, "not a WKT polygon"),
        ("POLYGON ((0 0, 1 zero, 1 1, 0 0))", "not two numbers"),
        ("POLYGON ((0 0, 1 1))", "no closed polygon"),
        ("POLYGON ((0 0, 1 0, 1 inf, 0 0))", "no closed polygon"),
        ("POLYGON (" + "(" * 10_000, "no closed polygon"),
        ("POLYGON ((0 0, 1e9 0, 1e9 1e9, 0 0))", "more than 65,536 pixels from"),
    ],
)  # fmt: skip
def test_polygons_that_are_none(wkt: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        parse_polygon(wkt, "here")


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ([], "should hold 'metadata' with 'width'"),
        ({**label(), "metadata": {"width": 10**6, "height": 10**6}}, "declares 1000000 x 1000000 pixels"),
        (label(square(0, 0, 3, "soaked")), "has the damage 'soaked'; known are no-damage"),
        (label(7), "polygon 0 is not an object"),
    ],
)  # fmt: skip
def test_labels_that_do_not_fit(broken: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        draw_damage(broken, "here")


def test_layouts_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        convert(tmp_path / "none", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="should hold train, tier3, test or hold, each with images and targets"):
        convert(tmp_path / "empty", tmp_path / "out")
    source = official(tmp_path / "xbd", "test")
    with pytest.raises(InputError, match="holds the splits test, not 'train'"):
        convert(source, tmp_path / "out", split="train")
    (source / "test" / "targets" / f"{STEMS[0]}_post_disaster_target.png").unlink()
    with pytest.raises(InputError, match=r"the image .*_post_disaster_target.png was expected in .*targets"):
        convert(source, tmp_path / "out")
    for name in ("targets", "labels"):
        (source / "test" / name).rename(source / "test" / f"no_{name}")
    with pytest.raises(InputError, match="has neither targets nor labels beside images"):
        convert(source, tmp_path / "out")
