"""Cosine of an encoder's features with the true future's, and its gain over a copy; with a small made encoder, offline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output
from rsw_rewards.core.rubric import build
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Batch
from rsw_rewards.errors import ConfigError
from tests.tiny_clip import write_tiny_clip
from tests.verifiers.paired_pictures import (
    blurred,
    built,
    forecast,
    image,
    jpeg,
    metric,
    near,
    ready,
    ref,
    sample,
    score_one,
)

POOLED = """
import hashlib
import numpy as np

class Pooled:
    '''Colours and contrasts of 4 x 4 blocks: a network by hand.'''

    def __init__(self, device):
        self.name, self.dim, self.id = "pooled", 96, "pooled@1"
        self.weights_sha256 = hashlib.sha256(b"pooled").hexdigest()
        self.calls = []

    def encode_images(self, images, micro_batch):
        self.calls.append(len(images))
        found = []
        for image in images:
            blocks = [part for rows in np.array_split(image / 255.0, 4) for part in np.array_split(rows, 4, axis=1)]
            means = [block.mean((0, 1)) - 0.45 for block in blocks]
            spreads = [np.abs(np.diff(block, axis=0)).mean((0, 1)) for block in blocks]
            found.append(np.concatenate([*means, *spreads]))
        return np.array(found, np.float32)

    def encode_texts(self, texts, micro_batch):
        raise NotImplementedError
"""


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("encoder") / "pooled_encoder.py"
    file.write_text(POOLED)
    return f"{file}:Pooled"


def test_the_cosine_is_that_of_the_features(pooled: str) -> None:
    before, after, _ = built(1)
    verifier = ready("encoder_similarity", encoder=pooled)
    score = score_one(verifier, sample(before, after), forecast(before))
    first, second = verifier.context.bank.image_features(pooled, [ref(before), ref(after)]).astype(float)
    cos = float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))
    assert score.raw == {"cos": pytest.approx(cos)} and score.value == pytest.approx((cos + 1) / 2)
    assert metric(verifier, [score, Score.invalid("x")]) == {"cos_Pooled": pytest.approx((cos - 1) / 2)}


def test_the_gain_is_over_the_cosine_of_a_copy(pooled: str) -> None:
    before, after, _ = built(1)
    one = sample(before, after)
    verifier = ready("encoder_similarity", encoder=pooled, gain=True)
    plain = ready("encoder_similarity", encoder=pooled)
    output = forecast(near(after, 3, 10.0))
    score = score_one(verifier, one, output)
    cos, copied = (score_one(plain, one, made).raw["cos"] for made in (output, forecast(before)))
    assert 1 - copied > 0.05  # above the floor
    assert score.raw["gain"] == pytest.approx(1 - (1 - cos) / (1 - copied))
    assert score.value == pytest.approx(1 / (2 - score.raw["gain"]))
    assert score_one(verifier, one, forecast(before)).value == pytest.approx(0.5)
    assert score_one(verifier, one, forecast(after)).value == pytest.approx(1.0)
    assert metric(verifier, [score]) == {"gain_cos_Pooled": pytest.approx(score.raw["gain"])}


def test_an_unchanged_scene_does_not_blow_the_gain_up(pooled: str) -> None:
    still, again = near(built(1)[0], 5, 0.5), near(built(1)[0], 6, 0.5)
    score = score_one(ready("encoder_similarity", encoder=pooled, gain=True), sample(still, again), forecast(still))
    assert score.value is not None and 0.5 < score.value <= 1.0
    floor = ready("encoder_similarity", encoder=pooled, gain=True, min_change=1e-9)
    assert score_one(floor, sample(still, again), forecast(still)).value == pytest.approx(0.5)


def test_an_honest_forecast_gains_more_than_any_trick(pooled: str) -> None:
    totals: dict[str, list[float]] = {}
    verifier = ready("encoder_similarity", encoder=pooled, gain=True)
    for seed in (1, 2, 3):
        before, after, _ = built(seed)
        half = near(after, seed + 3, 2.0)
        half[:, :30] = before[:, :30]
        made = {
            "honest": half,
            "copy": before,
            "blurred copy": blurred(before, 2.0),
            "mean": np.broadcast_to(after.mean((0, 1)).astype(np.uint8), after.shape),
            "noise": image(seed, 64),
            "other future": built(seed + 1000)[1][::-1, ::-1],
            "jpeg of a copy": jpeg(before, 20),
            "jpeg of the truth": jpeg(after, 95),
        }
        for policy, pixels in made.items():
            value = score_one(verifier, sample(before, after), forecast(pixels)).value
            assert value is not None
            totals.setdefault(policy, []).append(value)
    worth = {policy: sum(values) / 3 for policy, values in totals.items()}
    best = worth.pop("jpeg of the truth")
    assert best > worth.pop("honest") > max(worth.values()) + 0.02


def test_a_whole_batch_goes_through_the_encoder_in_full_batches(pooled: str) -> None:
    places = [sample(*built(seed)[:2], name=f"s{seed}") for seed in range(4)]
    rows = [place for place in places for _ in range(4)]
    outputs = [forecast(image(row, 64), place.id) for row, place in enumerate(rows)]
    verifier = ready("encoder_similarity", encoder=pooled, gain=True)
    scores = verifier.score(Batch(rows, outputs, [row.id for row in rows]))
    assert {score.status for score in scores} == {Status.OK}
    assert verifier.context.bank.encoder(pooled).calls == [16, 8]  # 16 forecasts, 4 futures, 4 inputs
    again = ready("encoder_similarity", encoder=pooled, gain=True)
    assert [score_one(again, row, output) for row, output in zip(rows, outputs, strict=True)] == scores


def test_pixels_that_do_not_count_cannot_move_the_cosine(pooled: str) -> None:
    before, after, _ = built(1)
    valid = np.ones((64, 64), bool)
    valid[:16, :16] = False
    one = sample(before, after, valid=ref(valid))
    output = near(after, 2, 20.0)
    other = output.copy()
    other[~valid] = 255
    verifier = ready("encoder_similarity", encoder=pooled)
    first, second = (score_one(verifier, one, forecast(pixels)) for pixels in (output, other))
    assert first == second and 0.9 < first.raw["cos"] < 1.0


def test_leaving_a_hard_sample_out_never_raises_a_number(pooled: str) -> None:
    before, after, _ = built(1)
    one = sample(before, after)
    for gain in (False, True):
        verifier = ready("encoder_similarity", encoder=pooled, gain=gain)
        rest = [score_one(verifier, one, forecast(near(after, 1, 8.0)))]
        worst = score_one(verifier, one, forecast(255 - after))
        (drawn,), (left_out,) = (
            metric(verifier, [*rest, last]).values() for last in (worst, verifier.invalid(one, "x"))
        )
        assert drawn is not None and left_out is not None and left_out < drawn


def test_an_unreadable_forecast_costs_only_its_own_row(pooled: str, tmp_path: Path) -> None:
    before, after, _ = built(1)
    one = sample(before, after)
    outputs = [forecast(after), Output("s", image=ImageRef(path=tmp_path / "gone.png")), forecast(before)]
    scores = ready("encoder_similarity", encoder=pooled).score(Batch([one] * 3, outputs, ["s"] * 3))
    assert [score.status for score in scores] == [Status.OK, Status.INVALID_OUTPUT, Status.OK]
    (lone,) = ready("encoder_similarity", encoder=pooled).score(Batch([one], outputs[1:2], ["s"]))
    assert lone.status is Status.INVALID_OUTPUT


def test_a_feature_that_is_no_number_is_no_score(tmp_path: Path) -> None:
    """The scorer makes an error of ours of it, row by row."""
    file = tmp_path / "broken_encoder.py"
    file.write_text(POOLED.replace("np.array(found, np.float32)", "np.array(found, np.float32) * np.nan"))
    before, after, _ = built(1)
    with pytest.raises(ValueError, match="finite"):
        score_one(ready("encoder_similarity", encoder=f"{file}:Pooled"), sample(before, after), forecast(before))


def test_a_region_makes_no_sense_and_is_refused() -> None:
    with pytest.raises(ConfigError, match="region"):
        build("encoder_similarity", {"region": "inside"})


def test_missing_weights_show_when_it_is_set_up(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"open_clip_model\.safetensors"):
        ready("encoder_similarity", encoder=f"open_clip:local-dir:{tmp_path}")


def test_a_clip_model_gives_the_same_bits_in_every_batch(tmp_path: Path) -> None:
    encoder = write_tiny_clip(tmp_path / "tiny")
    verifier = ready("encoder_similarity", encoder=encoder, match="moments", shift=1)
    assert [key for one in verifier.metrics() for key in one.keys] == ["cos_tiny_moments_shift1"]
    places = [sample(*built(seed)[:2], name=f"s{seed}") for seed in range(3)]
    outputs = [forecast(near(built(seed)[1], seed, 5.0), f"s{seed}") for seed in range(3)]
    whole = verifier.score(Batch.of(places, outputs))
    single = [
        score_one(ready("encoder_similarity", encoder=encoder, match="moments", shift=1), place, output)
        for place, output in zip(places, outputs, strict=True)
    ]
    assert whole == single and all(score.status is Status.OK for score in whole)
