"""Caption rewards and the captions verifier: what captions, tricks and broken data are worth."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rubric import build
from rsw_rewards.core.scores import Score, ScoreTable, Status
from rsw_rewards.core.verifier import Batch, Context
from rsw_rewards.errors import ConfigError
from rsw_rewards.features.bank import FeatureBank
from rsw_rewards.verifiers.caption_base import is_changed, says_no_change
from rsw_rewards.verifiers.document_frequency import read_document_frequency, write_document_frequency
from rsw_rewards.verifiers.ngrams import bleu

REFERENCES = ["a road is built in the desert", "a new road crosses the bareland"]
SAME = ["there is no difference", "the two scenes seem identical"]
REWARDS = ("bleu", "rouge_l", "cider_d")


def sample(captions: Any = REFERENCES, name: str = "s", **reference: Any) -> Sample:
    return Sample(name, Task.CHANGE_CAPTION, (), reference={"captions": captions, **reference})


OTHERS = [sample(), sample(SAME, "t"), sample(["some trees are removed"], "u")]


def score(name: str, text: str, about: Sample | None = None, **config: Any) -> Score:
    verifier = build(name, {"meteor": False, **config} if name == "captions" else config)
    verifier.prepare(OTHERS)
    about = about if about is not None else sample()
    return verifier.score(Batch.of([about], [Output(about.id, text=text)]))[0]


def corpus(texts: dict[str, str | None], about: list[Sample], **config: Any) -> dict[str, float | None]:
    """Numbers of the captions verifier over samples; None for an output that is missing."""
    verifier = build("captions", {"meteor": False, "tokens": "words", **config})
    scores = []
    for one in about:
        text = texts[one.id]
        outputs = [Output(one.id, text=text)]
        scores.append(verifier.invalid(one, "missing") if text is None else verifier.score(Batch.of([one], outputs))[0])
    table = ScoreTable.from_columns(
        {
            "sample": [one.id for one in about],
            "status": [found.status for found in scores],
            "raw": [found.raw for found in scores],
            "stats": [found.stats for found in scores],
            "content": [found.content for found in scores],
        }
    )
    numbers: dict[str, float | None] = {}
    for metric in verifier.metrics():
        numbers |= metric.compute(table.frame, table.stats(), np.ones(len(about)), None)
    return numbers


@pytest.mark.parametrize("name", [*REWARDS, "captions"])
def test_a_reference_beats_every_trick(name: str) -> None:
    best = score(name, REFERENCES[0])
    assert best.status is Status.OK and best.value is not None and best.value > 0.4
    for trick in ("road " * 7, " ".join(REFERENCES), SAME[0], "a", "zzz", " ".join(REFERENCES * 3)):
        found = score(name, trick)
        assert found.value is not None and 0.0 <= found.value < best.value, trick
    assert score(name, "A road is built, in the desert.").value == best.value


@pytest.mark.parametrize("name", [*REWARDS, "captions"])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no word"),
        (" .\n", "no word"),
        ("a b " * 200, "400 words"),
        ("*" * 400, "400 words"),
        ("x" * 1_000_000, "characters"),
    ],
)
def test_captions_that_are_none(name: str, text: str, reason: str) -> None:
    found = score(name, text)
    assert (found.value, found.status) == (0.0, Status.INVALID_OUTPUT)
    assert reason in found.reason


@pytest.mark.parametrize("name", [*REWARDS, "captions"])
@pytest.mark.parametrize("captions", [None, [], [3], ["..."], ["x" * 1_000_000], ["a road " * 100] * 12])
def test_broken_references_are_errors(name: str, captions: Any) -> None:
    verifier = build(name, {"meteor": False} if name == "captions" else {})
    verifier.prepare([*OTHERS, sample(captions)])
    broken = sample(captions)
    for found in (
        verifier.score(Batch.of([broken], [Output("s", text="a road")]))[0],
        verifier.invalid(broken, "missing"),
    ):
        assert (found.value, found.status) == (None, Status.ERROR)
        assert "'s'" in found.reason


def test_values() -> None:
    assert score("bleu", REFERENCES[0]).value == pytest.approx(1.0)
    assert score("bleu", "a road is").value == pytest.approx(bleu([3, 6, 3, 2, 1, 0, 3, 2, 1, 0])[3])
    assert score("bleu", "a road is", order=2).raw.keys() == {"bleu2"}
    assert score("rouge_l", "a road is").value == pytest.approx(2.44 * 3 / 7 / (3 / 7 + 1.44))
    found = score("cider_d", "some trees are removed", OTHERS[2])
    assert found.value == pytest.approx(1.0) and found.raw["cider_d"] == pytest.approx(10.0)


def test_document_frequencies_are_those_of_the_run_or_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "df.json"
    written = write_document_frequency(path, [one.reference["captions"] for one in OTHERS])
    assert read_document_frequency(path, "ptb").words() == written.words()
    text = "a road in the bareland"
    assert score("cider_d", text, document_frequency=str(path)) == score("cider_d", text)
    other = tmp_path / "other.json"
    write_document_frequency(other, [REFERENCES, *[["the bareland"]] * 3])
    assert score("cider_d", text, document_frequency=str(other)).value != score("cider_d", text).value
    verifier = build("cider_d")
    verifier.prepare(OTHERS)
    again = pickle.loads(pickle.dumps(verifier))
    batch = Batch.of([sample()], [Output("s", text=text)])
    assert again.score(batch) == verifier.score(batch)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", '{"tokens": "ptb", "documents": 2}', '{"tokens": "words", "documents": 2, "ngrams": {}}',
        '{"tokens": "ptb", "documents": 2, "ngrams": {"a": 3}}', '{"tokens": "ptb", "documents": 2, "ngrams": {"a": 0}}',
        '{"tokens": "ptb", "documents": 2, "ngrams": {"a b c d e": 1}}', '{"tokens": "ptb", "documents": 2, "ngrams": {"": 1}}',
        '{"tokens": "ptb", "documents": 1, "ngrams": {"a": 1}}', '{"tokens": "ptb", "documents": true, "ngrams": {"a": 1}}',
    ],
)  # fmt: skip
def test_tables_that_are_none_stop_a_run(tmp_path: Path, text: str) -> None:
    path = tmp_path / "df.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"document frequencies|df\.json"):
        build("cider_d", {"document_frequency": str(path)}).setup(Context(FeatureBank()))


def test_cider_d_without_documents_says_what_to_set() -> None:
    for samples in (None, [sample()]):
        verifier = build("cider_d")
        if samples:
            verifier.prepare(samples)
        with pytest.raises(ConfigError, match="document_frequency"):
            verifier.setup(Context(FeatureBank()))


def test_ids_need_a_word_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RSW_WORD_MAP", raising=False)
    with pytest.raises(ConfigError, match="RSW_WORD_MAP"):
        build("captions", {"tokens": "ids"}).setup(Context(FeatureBank()))
    path = tmp_path / "words.json"
    path.write_text(json.dumps({"a": 1, "road": 2, "<unk>": 3}))
    monkeypatch.setenv("RSW_WORD_MAP", str(path))
    found = score("rouge_l", "a road was made", tokens="ids")
    assert (
        found.value == score("rouge_l", "a road zzz zzz", tokens="ids", word_map=str(path)).value
    )  # unknown words match
    before = build("rouge_l", {"tokens": "ids"}).hash
    path.write_text(json.dumps({"a": 1, "road": 4, "<unk>": 3}))
    assert build("rouge_l", {"tokens": "ids"}).hash != before


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("There is no difference.", True), ("the two scenes seem identical ", True), ("no", False), ("", False),
     ("there is no difference there is no difference", False), ("almost nothing has changed but a road", False)],
)  # fmt: skip
def test_the_five_sentences(text: str, wanted: bool) -> None:
    assert says_no_change(text) is wanted


def test_whether_a_pair_is_changed() -> None:
    assert is_changed(sample()) and not is_changed(sample(SAME))
    assert is_changed(sample([*SAME, "a road"]))
    assert is_changed(sample(SAME, changed=True)) and not is_changed(sample(changed=False))


SECOND_CC = ["no change is occurred", "almost nothing is changed"]


def test_the_data_set_says_how_no_change_is_said() -> None:
    own = sample(SECOND_CC, "own", no_change=SECOND_CC)
    assert not is_changed(own) and is_changed(sample(SECOND_CC))
    for text, wanted in (("No change is occurred .", 1.0), ("no change has occurred", 0.0)):
        assert corpus({"own": text}, [own])["change_accuracy"] == wanted
    assert corpus({"s": "no change is occurred"}, [sample(SAME)])["change_accuracy"] == 0.0


@pytest.mark.parametrize("sentences", [[], [3]])
def test_sentences_for_no_change_that_are_none_are_an_error(sentences: Any) -> None:
    found = score("captions", "a road", sample(no_change=sentences, changed=True))
    assert found.status is Status.ERROR and "reference.no_change" in found.reason


def test_change_recognition_counts_silence_as_wrong() -> None:
    about = [sample(name="a"), sample(name="b"), sample(SAME, "c"), sample(SAME, "d")]
    texts: dict[str, str | None] = {"a": "a road", "b": None, "c": "There is no difference.", "d": ""}
    numbers = corpus(texts, about)
    assert (numbers["change_accuracy"], numbers["change_recall"], numbers["no_change_recall"]) == (0.5, 0.5, 0.5)


def test_cider_counts_the_documents_of_the_rows() -> None:
    about = [sample(name="a"), sample(SAME, "b"), sample(SAME, "c")]
    texts: dict[str, str | None] = {"a": REFERENCES[0], "b": SAME[0], "c": SAME[1]}
    assert corpus(texts, about[1:])["cider"] == 0.0  # every n-gram stands in every document
    whole = corpus(texts, about)["cider"]
    assert whole is not None and whole > 2.0


def test_leaving_hard_samples_out_does_not_pay() -> None:
    about = [sample(name="a"), sample(["some trees near the river are cut"], "b"), sample(SAME, "c")]
    wrong: dict[str, str | None] = {"a": REFERENCES[0], "b": "a house is built by a river", "c": SAME[0]}
    tried = corpus(wrong, about)
    for silence in (None, ""):
        silent = corpus({**wrong, "b": silence}, about)
        for key in ("bleu1", "bleu4", "rouge_l", "cider", "change_accuracy"):
            left, right = silent[key], tried[key]
            assert left is not None and right is not None and left < right + 1e-12, (key, silence)


def test_metrics_without_meteor_say_why() -> None:
    verifier = build("captions", {"meteor": False})
    found = verifier.score(Batch.of([sample()], [Output("s", text="a road")]))[0]
    frame = ScoreTable.from_columns({"sample": ["s"], "content": [found.content], "raw": [found.raw]}).frame
    notes = verifier.metrics()[0].notes(frame)  # type: ignore[attr-defined]
    assert notes["meteor"] == notes["s_star_m"] == "METEOR was left out by 'meteor: false'"
    numbers = corpus({"s": "a road"}, [sample()])
    assert numbers["meteor"] is None and numbers["s_star_m"] is None and numbers["bleu1"] is not None


def test_scores_do_not_depend_on_the_batch() -> None:
    texts = ["a road is built", "the the the", "", "new houses", REFERENCES[1]]
    for name in (*REWARDS, "captions"):
        verifier = build(name, {"meteor": False} if name == "captions" else {})
        verifier.prepare(OTHERS)
        outputs = [Output("s", n, text=text) for n, text in enumerate(texts)]
        whole = verifier.score(Batch.of([sample()], outputs))
        for output, found in zip(outputs[::-1], whole[::-1], strict=True):
            (alone,) = verifier.score(Batch.of([sample()], [output]))
            assert (alone.value, alone.raw) == (found.value, found.raw)
