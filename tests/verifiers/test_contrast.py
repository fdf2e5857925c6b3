"""Contrast with distractors: chance is 0.5, the right text ranks first, and what is drawn depends on the sample alone."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rubric import build
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Batch, Context, Verifier
from rsw_rewards.data.scene_world import make_scene, split_seed
from rsw_rewards.encoders import SCENE_CLIP_FOLDER
from rsw_rewards.errors import ConfigError
from rsw_rewards.features.bank import FeatureBank
from rsw_rewards.verifiers.contrast import beaten, contrast, draw, plain, pool
from tests.tiny_clip import write_tiny_clip

N = 20
PIXELS = np.random.default_rng(0).integers(0, 256, (N, 24, 24, 3), dtype=np.uint8)
needs_clip = pytest.mark.skipif(not any(SCENE_CLIP_FOLDER.glob("*.safetensors")), reason="scene-clip is not made yet")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tiny_clip(tmp_path_factory.mktemp("clip") / "tiny")


def samples_of(n: int = N) -> list[Sample]:
    return [Sample(str(i), Task.FORECAST, (), prompt=f"{i} new roads") for i in range(n)]


def outputs_of(pixels: np.ndarray) -> list[Output]:
    return [Output(str(i), image=ImageRef(array=image)) for i, image in enumerate(pixels)]


def ready(encoder: str, samples: list[Sample], **config: object) -> Verifier:
    verifier = build("caption_contrast", {"encoder": encoder, **config})
    verifier.prepare(samples)
    verifier.setup(Context(FeatureBank()))
    return verifier


def one(verifier: Verifier, sample: Sample, output: Output) -> Score:
    return verifier.score(Batch([sample], [output], [sample.id]))[0]


def test_an_image_that_ignores_its_text_scores_chance(encoder: str) -> None:
    same = np.repeat(PIXELS[:1], N, axis=0)
    verifier = ready(encoder, samples_of(), n=N)
    scores = verifier.score(Batch.of(samples_of(), outputs_of(same)))
    values = [score.value for score in scores]
    assert np.mean(values) == pytest.approx(0.5, abs=1e-12) and np.std(values) > 0.001  # type: ignore[arg-type]
    assert np.mean([score.raw["beaten"] for score in scores]) == pytest.approx(0.5)


@needs_clip
def test_the_shipped_clip_ranks_the_right_text_first() -> None:
    scenes = [scene for index in range(40) if (scene := make_scene(split_seed("dev", 7), index)).changed]
    samples = [Sample(str(i), Task.FORECAST, (), prompt=scene.forecast_prompt) for i, scene in enumerate(scenes)]
    verifier = ready("scene-clip", samples)

    def mean(key: str) -> float:
        shown = np.stack([getattr(scene, key) for scene in scenes])
        return float(np.mean([score.value for score in verifier.score(Batch.of(samples, outputs_of(shown)))]))  # type: ignore[arg-type]

    assert mean("after") > 0.8 > 0.65 > mean("before") > 0.35


def test_scores_do_not_depend_on_order_batch_or_process(encoder: str) -> None:
    samples, outputs = samples_of(), outputs_of(PIXELS)
    verifier = ready(encoder, samples, n=5)
    sent = pickle.loads(pickle.dumps(build("caption_contrast", {"encoder": encoder, "n": 5})))
    sent.prepare(samples[::-1])
    sent = pickle.loads(pickle.dumps(sent))
    sent.setup(Context(FeatureBank()))
    scores = verifier.score(Batch.of(samples, outputs))
    assert scores[::-1] == sent.score(Batch.of(samples, outputs[::-1]))
    assert scores[3:6] == [one(sent, samples[row], outputs[row]) for row in range(3, 6)]
    assert len({score.value for score in scores}) > N // 2


def test_captions_are_held_against_the_captions_of_others(encoder: str) -> None:
    samples = [
        Sample(
            str(i), Task.CHANGE_CAPTION, tuple(ImageRef(array=pixels) for pixels in PIXELS[i : i + 2]),
            reference={"captions": [f"{i} roads", "some roads"]},
        )
        for i in range(3)
    ]  # fmt: skip
    verifier = ready(encoder, samples)
    score = one(verifier, samples[0], Output("0", text="1 roads"))
    assert set(verifier.truth(samples[0]).texts) == {"1 roads", "2 roads"}
    own, other = FeatureBank().text_features(encoder, ["1 roads", "2 roads"])
    assert 0.0 < score.value < 1.0 and not np.array_equal(own, other)  # type: ignore[operator]
    assert one(verifier, samples[0], Output("0", text=" ")).status is Status.INVALID_OUTPUT


def test_named_distractors_take_the_place_of_drawn_ones(encoder: str) -> None:
    verifier = ready(encoder, [], distractors=["A forest", "0 new  roads."])
    sample, output = samples_of()[0], outputs_of(PIXELS)[0]
    score = one(verifier, sample, output)
    assert score.raw["beaten"] in (0.0, 1.0)
    assert ("fits better: 'A forest'" in score.reason) == (score.raw["beaten"] == 0.0)
    alone = ready(encoder, [], distractors=["0 NEW ROADS"])
    assert one(alone, sample, output).status is Status.ERROR


def test_a_run_of_one_text_is_refused_with_what_to_do() -> None:
    verifier = build("caption_contrast")
    verifier.prepare([replace(sample, prompt="Nothing changes.") for sample in samples_of()])
    with pytest.raises(ConfigError, match="name texts in its 'distractors'"):
        verifier.setup(Context(FeatureBank()))


@given(st.floats(-1, 1), st.floats(-1, 1), st.lists(st.floats(-1, 1), min_size=1, max_size=5), st.floats(0.01, 1))
def test_contrast_is_bounded_monotone_and_fair(a: float, b: float, others: list[float], temperature: float) -> None:
    low, high = sorted((a, b))
    assert 0.0 <= contrast(low, others, temperature) <= contrast(high, others, temperature) <= 1.0
    assert contrast(low, [high], temperature) + contrast(high, [low], temperature) == pytest.approx(1.0)
    assert beaten(low, [high]) + beaten(high, [low]) == 1.0


WORDS = st.lists(st.sampled_from(["a road", "A road.", "a  road", "a lake", "", "two lakes", "a town"]), max_size=8)


@given(WORDS, WORDS, st.integers(1, 4), st.text(max_size=3), st.randoms())
def test_what_is_drawn_is_another_text_and_depends_on_the_seed_alone(
    texts: list[str], own: list[str], n: int, seed: str, random: object
) -> None:
    shuffled = list(texts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert pool(shuffled) == pool(texts)
    drawn = draw(pool(texts), own, n, seed)
    assert drawn == draw(pool(shuffled), own, n, seed)
    free = {plain(text) for text in texts} - {plain(text) for text in own} - {""}
    assert {plain(text) for text in drawn} <= free and len(set(drawn)) == len(drawn) == min(n, len(free))


def test_a_large_pool_is_cut_without_looking_at_its_order() -> None:
    texts = [f"text {i}" for i in range(50)]
    assert pool(texts, 10) == pool(texts[::-1], 10) and len(pool(texts, 10)) == 10
    assert len({draw(texts, [], 3, str(seed)) for seed in range(20)}) > 10
