"""Text-image alignment: the definition, its value, and whose number it is called."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsw_rewards.contracts import Batch, Context
from rsw_rewards.errors import ConfigError
from rsw_rewards.features import FeatureBank
from rsw_rewards.images import ImageRef
from rsw_rewards.samples import Output, Sample, Task
from rsw_rewards.scores import Score, Status
from rsw_rewards.verifiers.alignment import AlignmentConfig, ClipAlignment, clip_score, contrast, cosine
from tests.tiny_clip import write_tiny_clip

GOLDEN = Path(__file__).parents[1] / "golden" / "clipscore_embeddings.json"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tiny_clip(tmp_path_factory.mktemp("clip") / "tiny")


def ready(encoder: str, **config: object) -> ClipAlignment:
    verifier = ClipAlignment(AlignmentConfig.model_validate({"encoder": encoder, **config}))
    verifier.setup(Context(FeatureBank()))
    return verifier


def items(n: int, text: str = "a new road") -> tuple[list[Sample], list[Output]]:
    pixels = np.random.default_rng(0).integers(0, 256, (n, 24, 24, 3), dtype=np.uint8)
    samples = [Sample(str(i), Task.FORECAST, (), prompt=f"{text} {i}") for i in range(n)]
    return samples, [Output(str(i), image=ImageRef(array=pixels[i])) for i in range(n)]


def score_one(verifier: ClipAlignment, sample: Sample, output: Output) -> Score:
    return verifier.score(Batch([sample], [output], [sample.id]))[0]


def test_the_definition_reproduces_the_authors_numbers() -> None:
    golden = json.loads(GOLDEN.read_text())
    pairs = zip(np.array(golden["image_embeddings"]), np.array(golden["caption_embeddings"]), strict=True)
    ours = [clip_score(cosine(image, text)) for image, text in pairs]
    np.testing.assert_allclose(ours, golden["expected"]["CLIPScore_per_item"], rtol=1e-6)


def test_scores_equal_open_clip_and_do_not_depend_on_the_batch(encoder: str) -> None:
    import open_clip
    import torch
    from PIL import Image

    verifier = ready(encoder)
    samples, outputs = items(20)
    scores = verifier.score(Batch.of(samples, outputs))
    assert scores == [score_one(ready(encoder), *pair) for pair in zip(samples, outputs, strict=True)]
    assert scores[::-1] == ready(encoder).score(Batch.of(samples, outputs[::-1]))
    place = encoder.partition(":")[2]
    model, _, preprocess = open_clip.create_model_and_transforms(place)
    with torch.inference_mode():
        image = model.eval().encode_image(preprocess(Image.fromarray(outputs[7].image.array))[None], normalize=True)  # type: ignore[union-attr]
        text = model.encode_text(open_clip.get_tokenizer(place)([samples[7].prompt]), normalize=True)
    assert scores[7].raw["cos"] == pytest.approx(float(image @ text.T), abs=1e-5)
    assert scores[7].value == pytest.approx((scores[7].raw["cos"] + 1) / 2)
    assert scores[7].raw["clip_score"] == clip_score(scores[7].raw["cos"])


def test_statuses(encoder: str, tmp_path: Path) -> None:
    verifier = ready(encoder)
    (sample,), (output,) = items(1)
    assert score_one(verifier, Sample("0", Task.FORECAST, ()), output).status is Status.NOT_APPLICABLE
    broken = score_one(verifier, sample, Output("0", image=ImageRef(path=tmp_path / "none.png")))
    assert (broken.status, broken.value) == (Status.INVALID_OUTPUT, 0.0)
    long = score_one(verifier, Sample("0", Task.FORECAST, (), prompt="road " * 60), output)
    assert long.raw["truncated"] == 1.0 and "longer" in long.reason
    assert score_one(verifier, sample, output).raw["truncated"] == 0.0
    named = Sample("0", Task.FORECAST, (), prompt="x", reference={"text": sample.prompt})
    assert score_one(verifier, named, output) == score_one(verifier, sample, output)


def test_distractors_make_the_value_a_graded_rank(encoder: str) -> None:
    (sample,), (output,) = items(1)
    plain = score_one(ready(encoder), sample, output)
    verifier = ready(encoder, distractors=["a lake", "a dense forest", "nothing changed"])
    score = score_one(verifier, sample, output)
    assert score.raw["cos"] == plain.raw["cos"] and 0.0 < score.value < 1.0  # type: ignore[operator]
    own = ready(encoder, distractors=[sample.prompt.upper()])
    assert score_one(own, sample, output).value == plain.value


def test_the_key_says_whose_number_it_is(encoder: str) -> None:
    names = {
        "open_clip:ViT-B-32:openai": "clip_score",
        "open_clip:ViT-B-32:/w/RemoteCLIP.pt": "clip_score_ViT-B-32-RemoteCLIP",
        "scene-clip": "clip_score_scene-clip",
    }
    for name, key in names.items():
        assert ClipAlignment(AlignmentConfig(encoder=name)).metrics()[0].keys == (key,)


def test_an_encoder_that_reads_no_text_is_refused_at_the_start() -> None:
    class Blind:
        name, weights_sha256, dim, id = "blind", "0", 2, "blind@0"

        def encode_texts(self, texts: list[str], micro_batch: int) -> np.ndarray:
            raise ConfigError("reads no text")

    bank = FeatureBank()
    bank._encoders["blind"] = Blind()  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="reads no text"):
        ClipAlignment(AlignmentConfig(encoder="blind")).setup(Context(bank))


@given(st.floats(-1, 1), st.floats(-1, 1), st.lists(st.floats(-1, 1), min_size=1, max_size=5), st.floats(0.01, 1))
def test_contrast_is_bounded_and_monotone(low: float, high: float, others: list[float], temperature: float) -> None:
    low, high = sorted((low, high))
    assert 0.0 <= contrast(low, others, temperature) <= contrast(high, others, temperature) <= 1.0


def test_cosine_of_nothing_is_zero() -> None:
    assert cosine(np.zeros(3, np.float32), np.ones(3, np.float32)) == 0.0
