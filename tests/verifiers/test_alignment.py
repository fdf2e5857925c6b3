"""CLIPScore, RefCLIPScore and directional similarity: the authors' numbers, their values, what is cut, and whose number it is called."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rubric import build
from rsw_rewards.core.scores import Score, ScoreTable, Status
from rsw_rewards.core.verifier import Batch, Context, Verifier
from rsw_rewards.errors import ConfigError
from rsw_rewards.features.bank import FeatureBank
from rsw_rewards.verifiers.alignment import TEMPLATES, cosine, ensemble, unit
from rsw_rewards.verifiers.clip_score import HIGHEST_REF_CLIP_SCORE, clip_score, ref_clip_score
from rsw_rewards.verifiers.directional import directional_similarity
from tests.tiny_clip import write_tiny_clip

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "clipscore_embeddings.json").read_text())
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 24, 24, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tiny_clip(tmp_path_factory.mktemp("clip") / "tiny", seed=1)


def ready(name: str, encoder: str, **config: object) -> Verifier:
    verifier = build(name, {"encoder": encoder, **config})
    verifier.setup(Context(FeatureBank()))
    return verifier


def forecasts(n: int, text: str = "a new road") -> tuple[list[Sample], list[Output]]:
    images = [ImageRef(array=pixels) for pixels in PIXELS]
    samples = [Sample(str(i), Task.FORECAST, (images[i + 20],), prompt=f"{text} {i}") for i in range(n)]
    return samples, [Output(str(i), image=images[i]) for i in range(n)]


def captions(n: int) -> tuple[list[Sample], list[Output]]:
    images = [ImageRef(array=pixels) for pixels in PIXELS]
    references = {"captions": ["a road appears", "there is a new road"]}
    samples = [Sample(str(i), Task.CHANGE_CAPTION, (images[0], images[i]), reference=references) for i in range(n)]
    return samples, [Output(str(i), text=f"road number {i} is built") for i in range(n)]


def one(verifier: Verifier, sample: Sample, output: Output) -> Score:
    return verifier.score(Batch([sample], [output], [sample.id]))[0]


def numbers(verifier: Verifier, scores: Sequence[Score]) -> dict[str, float | None]:
    table = ScoreTable.from_columns(
        {key: [getattr(score, key) for score in scores] for key in ("status", "raw", "stats")}
    )
    found: dict[str, float | None] = {}
    for metric in verifier.metrics():
        found |= metric.compute(table.frame, table.stats(), np.ones(len(scores)), None)
    return found


def test_the_definitions_reproduce_the_authors_numbers() -> None:
    images, texts = (np.array(GOLDEN[f"{kind}_embeddings"]) for kind in ("image", "caption"))
    cosines = [cosine(*pair) for pair in zip(images, texts, strict=True)]
    best = [
        [cosine(text, np.array(reference)) for reference in references]
        for text, references in zip(texts, GOLDEN["reference_embeddings"], strict=True)
    ]
    expected = GOLDEN["expected"]
    np.testing.assert_allclose([clip_score(cos) for cos in cosines], expected["CLIPScore_per_item"], rtol=1e-6)
    np.testing.assert_allclose([max(*row, 0.0) for row in best], expected["ref_only_per_item"], rtol=1e-6)
    ours = [ref_clip_score(*pair) for pair in zip(cosines, best, strict=True)]
    np.testing.assert_allclose(ours, expected["RefCLIPScore_per_item"], rtol=1e-6)


def test_scores_equal_open_clip(encoder: str) -> None:
    import open_clip
    import torch
    from PIL import Image

    place = encoder.partition(":")[2]
    model, _, preprocess = open_clip.create_model_and_transforms(place)

    def theirs(pixels: np.ndarray, text: str) -> float:
        with torch.inference_mode():
            image = model.eval().encode_image(preprocess(Image.fromarray(pixels))[None], normalize=True)  # type: ignore[union-attr]
            return float(image @ model.encode_text(open_clip.get_tokenizer(place)([text]), normalize=True).T)

    verifier = ready("clip_score", encoder)
    samples, outputs = forecasts(8)
    score = verifier.score(Batch.of(samples, outputs))[7]
    assert score.raw["cos"] == pytest.approx(theirs(PIXELS[7], samples[7].prompt), abs=1e-5)
    assert score.value == pytest.approx((score.raw["cos"] + 1) / 2)
    assert score.raw["clip_score"] == clip_score(score.raw["cos"])
    sample, output = captions(3)[0][2], captions(3)[1][2]
    said = one(verifier, sample, output)
    assert said.raw["cos"] == pytest.approx(theirs(PIXELS[2], f"A photo depicts {output.text}"), abs=1e-5)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("clip_score", forecasts),
        ("clip_score", captions),
        ("ref_clip_score", captions),
        ("directional_similarity", forecasts),
    ],
)
def test_scores_do_not_depend_on_order_or_batch(name: str, make: object, encoder: str) -> None:
    samples, outputs = make(18)  # type: ignore[operator]
    scores = ready(name, encoder).score(Batch.of(samples, outputs))
    assert len({tuple(score.raw.values()) for score in scores}) > 9
    assert scores[::-1] == ready(name, encoder).score(Batch.of(samples, outputs[::-1]))
    again = ready(name, encoder)
    assert scores[5:8] == [one(again, samples[row], outputs[row]) for row in range(5, 8)]


def test_statuses_of_forecasts(encoder: str, tmp_path: Path) -> None:
    (sample,), (output,) = forecasts(1)
    missing = ImageRef(path=tmp_path / "none.png")
    for name in ("clip_score", "directional_similarity"):
        verifier = ready(name, encoder)
        assert one(verifier, replace(sample, prompt=" "), output).status is Status.NOT_APPLICABLE
        broken = one(verifier, sample, Output("0", image=missing))
        assert (broken.status, broken.value) == (Status.INVALID_OUTPUT, 0.0) and "none.png" in broken.reason
        assert one(verifier, sample, Output("0")).status is Status.INVALID_OUTPUT
        named = replace(sample, prompt="x", reference={"text": sample.prompt})
        assert one(verifier, named, output) == one(verifier, sample, output)
    assert (
        one(ready("directional_similarity", encoder), replace(sample, images=(missing,)), output).status is Status.ERROR
    )


def test_a_caption_is_read_without_its_reasoning(encoder: str) -> None:
    (sample,), (output,) = captions(1)
    thought = replace(output, text=f"<think>no change</think> {output.text}<|im_end|>")
    for name in ("clip_score", "ref_clip_score"):
        plain = one(ready(name, encoder), sample, output)
        assert one(ready(name, encoder), sample, thought).value == plain.value
        assert one(ready(name, encoder, thinking="keep"), sample, thought).value != plain.value
        cut = one(ready(name, encoder), sample, replace(output, text="<think>a road"))
        assert (cut.status, cut.reason) == (Status.INVALID_OUTPUT, "the text was cut off inside its reasoning")


def test_statuses_of_captions(encoder: str) -> None:
    (sample,), (output,) = captions(1)
    for name in ("clip_score", "ref_clip_score"):
        verifier = ready(name, encoder)
        assert one(verifier, sample, Output("0", text=" \n")).status is Status.INVALID_OUTPUT
        assert one(verifier, replace(sample, images=()), output).status is Status.NOT_APPLICABLE
        assert one(verifier, sample, Output("0", text="{} {0} {name}")).status is Status.OK
    assert one(ready("ref_clip_score", encoder), replace(sample, reference={}), output).status is Status.ERROR


def test_what_the_model_does_not_read_is_said_and_counted(encoder: str) -> None:
    (sample,), (output,) = forecasts(1)
    verifier = ready("clip_score", encoder)
    short = one(verifier, sample, output)
    long = one(verifier, replace(sample, prompt="road " * 60), output)
    huge = one(verifier, replace(sample, prompt="r" * 1_000_000), output)
    assert short.raw["truncated"] == 0.0 and not short.reason
    assert long.raw["truncated"] == huge.raw["truncated"] == 1.0 and "longer" in long.reason
    found = numbers(verifier, [short, long, huge, Score.invalid("no image")])
    assert [value for key, value in found.items() if key.endswith("_truncated_rate")] == [pytest.approx(2 / 3)]


def test_an_invalid_output_counts_as_the_worst(encoder: str) -> None:
    for name, worst in (("clip_score", 0.0), ("ref_clip_score", 0.0), ("directional_similarity", -1.0)):
        assert next(iter(numbers(ready(name, encoder), [Score.invalid("lost")]).values())) == worst


def test_wordings_are_averaged_over_their_unit_features(encoder: str) -> None:
    (sample,), (output,) = forecasts(1)
    templates = ["{}", "a satellite image of {}"]
    score = one(ready("clip_score", encoder, templates=templates), sample, output)
    bank = FeatureBank()
    texts = bank.text_features(encoder, [template.replace("{}", sample.prompt) for template in templates])
    image = bank.image_features(encoder, [output.image])[0]  # type: ignore[list-item]
    assert score.raw["cos"] == pytest.approx(cosine(image, unit(texts[0]) + unit(texts[1])), abs=1e-12)
    named = one(ready("clip_score", encoder, templates="remote-sensing"), sample, output)
    spelt = one(ready("clip_score", encoder, templates=TEMPLATES["remote-sensing"]), sample, output)
    assert named == spelt != one(ready("clip_score", encoder), sample, output)
    with pytest.raises(ConfigError, match="where the text goes"):
        build("clip_score", {"templates": ["a satellite image"]})


def test_the_key_says_whose_number_it_is() -> None:
    names = {
        "open_clip:ViT-B-32:openai": "clip_score",
        "open_clip:ViT-B-32:/w/RemoteCLIP.pt": "clip_score_ViT-B-32-RemoteCLIP",
        "scene-clip": "clip_score_scene-clip",
    }
    for name, key in names.items():
        assert build("clip_score", {"encoder": name}).metrics()[0].keys == (key,)
        assert build("ref_clip_score", {"encoder": name}).metrics()[0].keys == (f"ref_{key}",)
    other = {"encoder": "open_clip:ViT-B-32:openai", "templates": "remote-sensing"}
    assert build("clip_score", other).metrics()[0].keys == ("clip_score_ViT-B-32-openai_remote-sensing",)


class Blind:
    name, weights_sha256, dim, id = "blind", "0", 2, "blind@0"

    def __init__(self, device: str) -> None:
        self.device = device

    def encode_images(self, images: list[np.ndarray], micro_batch: int) -> np.ndarray:
        raise NotImplementedError

    def encode_texts(self, texts: list[str], micro_batch: int) -> np.ndarray:
        raise ConfigError("reads no text")


def test_an_encoder_that_reads_no_text_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match="reads no text"):
        build("clip_score", {"encoder": f"{__file__}:Blind"}).setup(Context(FeatureBank()))


def test_no_change_is_the_worst_change_and_nothing_escapes_by_a_nudge(encoder: str) -> None:
    verifier = ready("directional_similarity", encoder, least_change=1.5)
    (sample,), (output,) = forecasts(1)
    copy = one(verifier, sample, Output("0", image=ImageRef(array=PIXELS[20].copy())))
    assert (copy.status, copy.value, copy.raw["change"]) == (Status.OK, 0.0, 0.0) and "unchanged" in copy.reason
    nudged = PIXELS[20].copy()
    nudged[0, 0] ^= 1
    nudge = one(verifier, sample, Output("0", image=ImageRef(array=nudged)))
    assert 0.0 < nudge.value < 0.01 and "hardly" in nudge.reason  # type: ignore[operator]
    far = one(ready("directional_similarity", encoder, least_change=1e-6), sample, output)
    assert far.raw["directional"] == pytest.approx(far.raw["cos"]) and far.value == pytest.approx(
        (far.raw["cos"] + 1) / 2
    )
    features = FeatureBank().image_features(encoder, [output.image, sample.images[0]])  # type: ignore[list-item]
    texts = FeatureBank().text_features(encoder, [sample.prompt, "a satellite image"])
    moved, told = (unit(pair[0]) - unit(pair[1]) for pair in (features, texts))
    assert far.raw["cos"] == pytest.approx(float(moved @ told / np.linalg.norm(moved) / np.linalg.norm(told)))


def test_a_direction_needs_a_change_that_is_asked_for(encoder: str) -> None:
    (sample,), (output,) = forecasts(1)
    verifier = ready("directional_similarity", encoder)
    empty = ImageRef(array=np.zeros((24, 24), np.uint8))
    for reference in ({"changed": False}, {"mask": empty}, {"text_before": f" {sample.prompt}. "}):
        assert one(verifier, replace(sample, reference=reference), output).status is Status.NOT_APPLICABLE
    before = one(verifier, replace(sample, metadata={"text_before": "a forest"}), output)
    assert before == one(ready("directional_similarity", encoder, text_before="a forest"), sample, output)
    assert before != one(verifier, sample, output)


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(0, 2), st.floats(0, 2), st.floats(0.01, 2))
def test_directional_similarity_is_bounded_and_monotone(a: float, b: float, c: float, d: float, least: float) -> None:
    (low, high), (near, far) = sorted((a, b)), sorted((c, d))
    assert -1.0 <= directional_similarity(low, near, least) <= directional_similarity(high, far, least) <= 1.0
    assert directional_similarity(high, 0.0, least) == -1.0


@given(st.floats(-1, 1), st.floats(-1, 1), st.lists(st.floats(-1, 1), min_size=1, max_size=5))
def test_ref_clip_score_is_bounded_and_monotone(a: float, b: float, references: list[float]) -> None:
    low, high = sorted((a, b))
    bound = HIGHEST_REF_CLIP_SCORE + 1e-12
    assert 0.0 <= ref_clip_score(low, references) <= ref_clip_score(high, references) + 1e-12 <= bound + 1e-12


def test_nothing_is_like_nothing() -> None:
    assert cosine(np.zeros(3, np.float32), np.ones(3, np.float32)) == 0.0
    assert not ensemble([np.zeros(3)]).any()
