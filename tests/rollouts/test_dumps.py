"""Dumps hold all they need: pixels and content hashes survive, lost and invalid outputs stay what they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import rsw_rewards as rsw
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rubric import parse_rubric
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.core.verifier import Batch
from rsw_rewards.engine.scorer import Scorer
from rsw_rewards.errors import InputError
from rsw_rewards.io.images import read_rgb, write_png
from rsw_rewards.io.records_io import load_outputs, load_samples
from rsw_rewards.pixels import content_hash
from rsw_rewards.rollouts.dumps import write_dump
from tests.training.run_files import dumped_rewards


def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (6, 5, 3), dtype=np.uint8) for _ in range(3)]


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    before, after, made = pictures()
    write_png(tmp_path / "before.png", before)
    sample = Sample(
        "a/1",
        Task.FORECAST,
        (ImageRef(path=tmp_path / "before.png", date="2018-06"),),
        "grow",
        {"images": [ImageRef(array=after)], "mask": ImageRef(array=np.full((6, 5), 255, np.uint8)), "text": "grow"},
        scene="a",
    )
    outputs = [
        Output("a/1", 0, image=ImageRef(array=made, sha256=content_hash(made)), seed=7, policy_version=3),
        Output("a/1", 1, lost="an actor died"),
        Output("a/1", 2, invalid="cut off"),
    ]
    folder = tmp_path / "dumps" / "step_000000"
    folder.parent.mkdir()
    for _ in range(2):  # the second replaces the first
        write_dump(folder, [sample], outputs, ScoreTable(), [0.1 + 0.2, None, 0.0], {"components": [{"use": "ssim"}]})
    (tmp_path / "before.png").unlink()  # a dump needs nothing but itself
    return folder


def test_samples_come_back_with_their_pictures(dump: Path) -> None:
    (sample,) = load_samples(dump / "samples.jsonl")
    before, after, _ = pictures()
    np.testing.assert_array_equal(read_rgb(sample.images[0]), before)
    assert sample.images[0].date == "2018-06"
    np.testing.assert_array_equal(read_rgb(sample.reference["images"][0]), after)
    assert sample.reference["mask"].pixels().min() == 255
    assert sample.reference["text"] == "grow"


def test_outputs_come_back_with_the_same_content(dump: Path) -> None:
    samples = load_samples(dump / "samples.jsonl")
    outputs, problems = load_outputs(dump / "predictions.jsonl", samples, own=True)
    assert not problems
    good, lost, invalid = outputs
    made = pictures()[2]
    assert good.image is not None
    assert content_hash(good.image.pixels()) == content_hash(made)
    assert (good.seed, good.policy_version) == (7, 3)
    assert lost.lost == "an actor died"
    assert invalid.invalid == "cut off"


def test_rewards_come_back_bit_for_bit(dump: Path) -> None:
    assert dumped_rewards(dump) == {("a/1", 0): 0.1 + 0.2, ("a/1", 1): None, ("a/1", 2): 0.0}
    assert not list(dump.parent.glob(".*"))


def test_a_dump_that_was_changed_is_not_scored(tmp_path: Path) -> None:
    rsw.data.make_scene_world(tmp_path / "data", 2, 0, tasks=["change_qa"])
    samples = load_samples(tmp_path / "data" / "samples.jsonl")
    outputs = [Output(sample.id, text="yes") for sample in samples]
    rubric = parse_rubric({"components": [{"use": "exact_match"}]}, "rubric")
    with Scorer(rubric) as scorer:
        table = scorer.score(Batch.of(samples, outputs))
    dump = tmp_path / "dump"
    write_dump(dump, samples, outputs, table, [1.0, 1.0], rubric.dump())
    files = (dump / "rubric.yaml", dump / "samples.jsonl", dump / "predictions.jsonl")
    assert len(rsw.rewards(*files).records) == 2
    (dump / "predictions.jsonl").write_text((dump / "predictions.jsonl").read_text().replace('"yes"', '"no"'))
    for read in (lambda: rsw.rewards(*files), lambda: rsw.reweight(dump, [{"exact_match": 1.0}])):
        with pytest.raises(
            InputError, match=r"predictions\.jsonl is not as it was written; bring the file back, or delete"
        ):
            read()
    (dump / "digests.json").unlink()
    assert len(rsw.rewards(*files).records) == 2
