"""The scene world: determinism, exact truth, and that nothing trivial answers its questions."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter, defaultdict

import numpy as np
import pytest

import rsw_rewards as rsw
from rsw_rewards.data.bins import RATIO_BINS, ratio_bin
from rsw_rewards.data.scene_world import (
    CLASSES,
    KINDS,
    SPLITS,
    TASKS,
    make_scene,
    scene_world_samples,
    split_seed,
    write_scene_world,
)
from rsw_rewards.data.scene_world.questions import vocabulary
from rsw_rewards.io.images import read_index, read_mask, read_rgb
from rsw_rewards.io.records_io import load_samples

SEED = split_seed("dev", 900)


@pytest.fixture(scope="module")
def scenes():
    return [make_scene(SEED, index) for index in range(500)]


def test_a_scene_depends_on_seed_and_index_alone(scenes):
    again = make_scene(SEED, 7)
    assert np.array_equal(again.before, scenes[7].before)
    assert np.array_equal(again.after, scenes[7].after)
    assert again.questions == scenes[7].questions
    assert again.metadata == scenes[7].metadata
    assert not np.array_equal(make_scene(SEED + 1, 7).before, again.before)


def test_splits_are_disjoint_and_bounded():
    seeds = sorted((r.start, r.stop) for r in SPLITS.values())
    assert all(stop <= start for (_, stop), (start, _) in itertools.pairwise(seeds))
    assert {"tokenizer", "supervised", "rl", "dev", "test"} <= set(SPLITS)
    with pytest.raises(ValueError, match="unknown"):
        split_seed("train", 0)
    with pytest.raises(ValueError, match="fit"):
        split_seed("dev", 1_000_000)


def test_about_a_fifth_is_unchanged_and_only_events_enter_the_mask(scenes):
    unchanged = [s for s in scenes if not s.changed]
    assert 0.14 < len(unchanged) / len(scenes) < 0.26
    for scene in unchanged:
        assert not scene.mask.any()
        assert np.array_equal(scene.map_before, scene.map_after)
        assert not np.array_equal(scene.before, scene.after)  # season, light and noise are there all the same
    for scene in scenes:
        assert scene.mask.any() == scene.changed
        assert not ((scene.map_before != scene.map_after) & ~scene.mask).any()
        assert scene.map_before.min() > 0


def test_answers_agree_with_the_maps(scenes):
    spoken = {k: {"NVG_surface": "ground"}.get(c, c.replace("_", " ")) for k, c in enumerate(CLASSES) if k}
    asked = set()
    for scene in scenes:
        for q in scene.questions:
            asked.add(q.kind)
            assert q.answer in q.vocabulary
            named = [k for k, word in spoken.items() if re.search(rf"\b{word}\b", q.prompt)]
            if q.kind == "change_ratio":
                share = scene.mask.mean()
                assert q.answer == ratio_bin(1 - share if " not " in q.prompt else share)
            elif q.kind == "increase_or_not":
                grown = (scene.map_after == named[0]).sum() > (scene.map_before == named[0]).sum()
                assert q.answer == ("yes" if grown else "no")
            elif q.kind == "change_to_what":
                to = np.bincount(scene.map_after[scene.mask & (scene.map_before == named[0])])
                assert q.answer == CLASSES[int(to.argmax())]
            elif q.kind == "new_buildings":
                assert q.answer == str(scene.new_buildings)
    assert asked == set(KINDS)


def test_the_majority_answer_does_not_answer(scenes):
    answers = defaultdict(Counter)
    for scene in scenes:
        for q in scene.questions:
            answers[q.kind][q.answer] += 1
    majority = {kind: c.most_common(1)[0][1] / c.total() for kind, c in answers.items()}
    assert max(majority.values()) < 0.68
    # One question a scene, kinds in turn, as data sets are written.
    turn = [s.questions[k % len(s.questions)] for k, s in enumerate(scenes)]
    best = {kind: c.most_common(1)[0][0] for kind, c in answers.items()}
    assert np.mean([best[q.kind] == q.answer for q in turn]) < 0.6
    assert Counter(q.answer for q in turn).most_common(1)[0][1] / len(turn) < 0.5


def test_change_outweighs_the_nuisances(scenes):
    error = np.array([np.square((s.before.astype(float) - s.after) / 255).mean() for s in scenes])
    changed = np.array([s.changed for s in scenes])
    assert error[changed].mean() > 8 * error[~changed].mean() > 0


def test_every_word_is_in_the_vocabulary(scenes):
    words = set(vocabulary())
    for scene in scenes:
        for text in (*scene.captions, scene.forecast_prompt, *(q.prompt for q in scene.questions)):
            assert set(text.rstrip("?").replace("?", "").split()) <= words
        assert {q.answer for q in scene.questions} <= words


def test_other_sizes():
    scene = make_scene(SEED, 0, size=96)
    assert scene.before.shape == (96, 96, 3)
    with pytest.raises(ValueError, match="multiple of 8"):
        make_scene(SEED, 0, size=60)


def test_written_samples_are_those_in_memory(tmp_path):
    path = write_scene_world(tmp_path, 40, seed=3, split="dev", tasks=TASKS)
    written = load_samples(path)
    memory = scene_world_samples(40, seed=3, split="dev", tasks=TASKS)
    assert [s.id for s in written] == [s.id for s in memory]
    assert len({s.scene for s in written}) == 8
    for a, b in zip(written, memory, strict=True):
        assert (a.task, a.kind, a.prompt, a.metadata) == (b.task, b.kind, b.prompt, b.metadata)
        assert all(np.array_equal(read_rgb(x), read_rgb(y)) for x, y in zip(a.images, b.images, strict=True))
        assert [x.date for x in a.images] == [x.date for x in b.images]
    forecast = next(s for s in written if s.task == "forecast")
    assert forecast.metadata["target_date"] == forecast.reference["images"][0].date
    semantic = next(s for s in written if s.task == "semantic_change" and s.kind not in ("nothing", "road"))
    mask = next(s for s in written if s.task == "change_mask" and s.scene == semantic.scene)
    assert np.array_equal(read_index(semantic.reference["map_before"]) > 0, read_mask(mask.reference["mask"]))


def test_a_true_caption_of_a_scene_without_change_is_recognised(tmp_path):
    samples = rsw.data.make_scene_world(tmp_path, n=20, tasks=["change_caption"])
    truth = [sample.reference["captions"][0] for sample in samples]
    found = rsw.evaluate("coco-caption", samples, truth, settings={"captions.meteor": False})
    assert found.metrics["no_change_recall"].value == found.metrics["change_recall"].value == 1.0


def test_writing_is_repeatable_and_a_longer_set_begins_with_the_shorter(tmp_path):
    short = write_scene_world(tmp_path / "a", 6, seed=1, split="dev")
    long = write_scene_world(tmp_path / "b", 10, seed=1, split="dev")
    lines = [path.read_text().splitlines() for path in (short, long)]
    assert lines[1][:6] == lines[0]
    assert {json.loads(line)["task"] for line in lines[0]} == {"change_qa", "forecast"}
    for file in (tmp_path / "a" / "images").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / "images" / file.name).read_bytes()


@pytest.mark.parametrize("arguments", [{"tasks": ["damage"]}, {"tasks": []}, {"n": 0}, {"split": "nowhere"}])
def test_bad_arguments_are_refused(tmp_path, arguments):
    with pytest.raises(ValueError, match=r"must be|unknown"):
        write_scene_world(tmp_path, **({"n": 2} | arguments))


@pytest.mark.parametrize(
    ("ratio", "name"),
    [
        (0, "0"),
        (1e-9, "0_to_10"),
        (0.0999, "0_to_10"),
        (0.1, "10_to_20"),
        (0.3, "30_to_40"),
        (0.99, "90_to_100"),
        (1, "90_to_100"),
    ],
)
def test_ratio_bins(ratio, name):
    assert ratio_bin(ratio) == name
    assert name in RATIO_BINS


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_ratios_outside_are_refused(ratio):
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        ratio_bin(ratio)
