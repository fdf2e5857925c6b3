"""Forecast verifiers on the scene world: the truth wins, and policies that do not look score low.

Also the shipped encoder and detector, where they are there: the same bits in every batch, and no text cut short.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from rsw_rewards import detectors
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rubric import build
from rsw_rewards.core.scores import ScoreTable, Status
from rsw_rewards.core.verifier import Batch, Context, Verifier
from rsw_rewards.data.scene_world import Scene, make_scene, split_seed
from rsw_rewards.encoders import SCENE_CLIP, SCENE_CLIP_FOLDER, load_encoder
from rsw_rewards.features.bank import MICRO_BATCH, FeatureBank

N = 60
needs_clip = pytest.mark.skipif(not any(SCENE_CLIP_FOLDER.glob("*.safetensors")), reason="scene-clip is not made yet")
needs_detector = pytest.mark.skipif(
    not any(Path(detectors.SCENE_DETECTOR_FOLDER).glob("*.safetensors")), reason="the scene detector is not made yet"
)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene(split_seed("dev", 7), index) for index in range(N)]


def samples_of(scenes: list[Scene]) -> list[Sample]:
    return [
        Sample(
            str(number),
            Task.FORECAST,
            (ImageRef(array=scene.before),),
            prompt=scene.forecast_prompt,
            reference={
                "images": [ImageRef(array=scene.after)],
                "mask": ImageRef(array=scene.mask.astype(np.uint8) * 255),
                "text": scene.forecast_prompt,
            },
        )
        for number, scene in enumerate(scenes)
    ]


POLICIES = {
    "truth": lambda scene: scene.after,
    "copy": lambda scene: scene.before,
    "blur": lambda scene: gaussian_filter(scene.before, (2, 2, 0)),
    "grey": lambda scene: np.full_like(scene.before, 110),
    "noise": lambda scene: np.random.default_rng(1).integers(0, 256, scene.before.shape, dtype=np.uint8),
    "repaint": lambda scene: np.where(scene.mask[..., None], scene.after, 255 - scene.after),
}


def run(name: str, scenes: list[Scene], policy: str, **config: object) -> tuple[np.ndarray, dict[str, float | None]]:
    """Values of the samples and the metrics of one policy."""
    verifier: Verifier = build(name, config)
    bank = FeatureBank()
    verifier.setup(Context(bank))
    samples = samples_of(scenes)
    outputs = [Output(s.id, image=ImageRef(array=POLICIES[policy](c))) for s, c in zip(samples, scenes, strict=True)]
    scores = verifier.score(Batch.of(samples, outputs))
    assert {score.status for score in scores} == {Status.OK}
    columns = {key: [getattr(score, key) for score in scores] for key in ("status", "raw", "stats", "content")}
    table = ScoreTable.from_columns({**columns, "sample": [sample.id for sample in samples]})
    numbers: dict[str, float | None] = {}
    for metric in verifier.metrics():
        numbers |= metric.compute(table.frame, table.stats(), np.ones(len(scores)), bank)
    return np.array([np.nan if score.value is None else score.value for score in scores]), numbers


@pytest.mark.parametrize("name", ["gain_over_copy", "change_consistency", "ssim", "psnr", "l1"])
def test_the_truth_wins(name: str, scenes: list[Scene]) -> None:
    means = {policy: run(name, scenes, policy)[0].mean() for policy in POLICIES}
    assert means["truth"] == pytest.approx(1.0)
    assert max(value for policy, value in means.items() if policy != "truth") == means["copy"] < 0.97


@pytest.mark.parametrize(("name", "ceiling"), [("gain_over_copy", 0.5), ("change_consistency", 0.27)])
def test_ignorance_has_a_ceiling_where_something_changes(name: str, ceiling: float, scenes: list[Scene]) -> None:
    changed = [scene for scene in scenes if scene.changed]
    assert len(changed) > 20
    for policy in ("copy", "blur", "grey", "noise", "repaint"):
        values, _ = run(name, changed, policy)
        assert values.mean() <= ceiling + 0.05, policy


def test_where_nothing_changes_copying_is_right(scenes: list[Scene]) -> None:
    still = [scene for scene in scenes if not scene.changed]
    assert len(still) > 5
    for name in ("gain_over_copy", "change_consistency"):
        copied = run(name, still, "copy")[0]
        for policy in ("grey", "noise", "repaint"):
            assert copied.mean() > 2 * run(name, still, policy)[0].mean(), (name, policy)


@needs_detector
@pytest.mark.parametrize("against", ["mask", "detector"])
def test_the_shipped_detector_tells_the_truth_from_a_copy(against: str, scenes: list[Scene]) -> None:
    values, numbers = run("detector_consistency", scenes, "truth", against=against)
    copied, copies = run("detector_consistency", scenes, "copy", against=against)
    changed = np.array([scene.changed for scene in scenes])
    key = "change_f1" if against == "mask" else "change_f1/vs-detector"
    assert numbers[key] is not None and numbers[key] > 0.6 and copies[key] < 0.05  # type: ignore[operator]
    assert values[changed].mean() > 0.5 and copied[changed].mean() < 0.1
    for policy in ("grey", "noise", "repaint"):
        assert run("detector_consistency", scenes, policy, against=against)[0].mean() < values.mean()


@needs_detector
def test_the_shipped_detector_gives_the_same_bits_in_every_batch(scenes: list[Scene]) -> None:
    verifier = build("detector_consistency")
    verifier.setup(Context(FeatureBank()))
    few = scenes[:20]  # a full batch and a padded one
    samples = samples_of(few)
    outputs = [Output(s.id, image=ImageRef(array=c.after)) for s, c in zip(samples, few, strict=True)]
    whole = [(score.value, score.raw) for score in verifier.score(Batch.of(samples, outputs))]
    back = [(score.value, score.raw) for score in verifier.score(Batch.of(samples, outputs[::-1]))][::-1]
    single = [verifier.score(Batch([s], [o], ["g"]))[0] for s, o in zip(samples, outputs, strict=True)]
    assert whole == back == [(score.value, score.raw) for score in single]


@needs_clip
def test_the_shipped_clip_prefers_the_future_and_cuts_no_prompt(scenes: list[Scene]) -> None:
    changed = [scene for scene in scenes if scene.changed]
    future, numbers = run("clip_score", changed, "truth")
    before, _ = run("clip_score", changed, "copy")
    assert np.mean(future > before) > 0.7
    assert list(numbers) == ["clip_score_scene-clip", "clip_score_scene-clip_truncated_rate"]
    encoder = load_encoder(SCENE_CLIP, "cpu")
    prompts = [scene.forecast_prompt for scene in scenes]
    assert not any(encoder.truncates(prompts))  # type: ignore[attr-defined]


@needs_clip
def test_the_shipped_clip_gives_the_same_bits_in_every_batch(scenes: list[Scene]) -> None:
    encoder = load_encoder(SCENE_CLIP, "cpu")
    images = [scene.after for scene in scenes[:MICRO_BATCH]]
    whole = encoder.encode_images(images, MICRO_BATCH)
    np.testing.assert_array_equal(encoder.encode_images(images[::-1], MICRO_BATCH)[::-1], whole)
    np.testing.assert_array_equal(encoder.encode_images(images[3:4], MICRO_BATCH)[0], whole[3])


@needs_clip
def test_the_set_distance_orders_the_policies(scenes: list[Scene]) -> None:
    distance = {}
    for policy in POLICIES:
        values, numbers = run("frechet", scenes, policy)
        assert np.isnan(values).all()
        ((key, number),) = numbers.items()
        assert key == "fd_scene-clip" and number is not None
        distance[policy] = number
    assert distance["truth"] == pytest.approx(0.0, abs=1e-6)
    assert distance["copy"] < distance["blur"] < max(distance["grey"], distance["noise"], distance["repaint"])
