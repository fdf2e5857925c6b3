"""METEOR: its formula, its program, and what happens where that is missing or dies."""

from __future__ import annotations

import json
import pickle
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rsw_rewards.core.records import Sample, Task
from rsw_rewards.engine.reward import Reward
from rsw_rewards.verifiers import meteor as module
from rsw_rewards.verifiers.meteor import SIZE, Meteor, MeteorError, jar, meteor, no_match
from tests.shared_data import shared

TRICKY = json.loads((Path(__file__).parents[1] / "golden" / "caption_tricky.json").read_text())


@pytest.fixture(scope="module")
def program() -> Iterator[Meteor]:
    """One process for all tests: it takes seconds to load its tables."""
    try:
        jar()
    except MeteorError as error:
        pytest.skip(str(error))
    found = Meteor()
    yield found
    found.close()


def statistics(**known: float) -> np.ndarray:
    """Statistics of a caption of 4 words, 1 of them a function word, whose reference is alike; all 4 match exactly in 2 chunks."""
    stats = np.zeros(SIZE)
    stats[:8] = [4, 4, 1, 1, 3, 3, 1, 1]
    stats[20:] = [2, 4, 4]
    for place, value in known.items():
        stats[int(place[1:])] = value
    return stats


def test_formula() -> None:
    assert meteor(statistics()) == pytest.approx(1 - 0.6 * 0.5**0.2)  # precision and recall 1; 2 chunks of 4 words
    assert meteor(statistics(_20=0)) == 1.0
    # 4 further content words in the reference: recall (0.75 * 3 + 0.25) / (0.75 * 7 + 0.25), precision 1
    recall = 2.5 / 5.5
    assert meteor(statistics(_1=8, _20=0)) == pytest.approx(1 / (0.15 + 0.85 / recall))
    # The 3 content words match as synonyms only, which weigh 0.8
    stats = statistics(_4=0, _5=0, _12=3, _13=3, _20=0)
    assert meteor(stats) == pytest.approx((0.8 * 0.75 * 3 + 0.25) / 2.5)


def test_nothing_in_common_is_worth_nothing() -> None:
    assert meteor(np.zeros(SIZE)) == 0.0
    worst = no_match(statistics())
    assert meteor(worst) == 0.0 and worst[:4].tolist() == [4, 4, 1, 1]
    assert meteor(statistics() + worst) < meteor(statistics() + statistics())


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    with pytest.raises(MeteorError, match=r"install a Java runtime|pip install"):
        Meteor().stats([(["a"], [["a"]])])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MeteorError, match=r"pip install 'rsw_rewards\[meteor\]'"):
        jar()


@pytest.mark.slow
def test_golden_numbers(program: Meteor) -> None:
    candidates = [text.split() for text in TRICKY["ptb_tokenised_candidates"]]
    references = [[text.split() for text in texts] for texts in TRICKY["ptb_tokenised_references"]]
    stats = program.stats(list(zip(candidates, references, strict=True)))
    np.testing.assert_allclose([meteor(one) for one in stats], TRICKY["per_item"]["METEOR"], rtol=1e-9)
    assert meteor(np.sum(stats, 0)) == pytest.approx(TRICKY["corpus"]["METEOR"], rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["words", "ids"])
def test_captions_of_levir_cc(program: Meteor, protocol: str) -> None:
    golden = shared("golden/caption_levircc")
    items = [json.loads(line) for line in (golden / "items.jsonl").read_text().splitlines()]
    word_map = json.loads((golden / "wordmap_rsicc_minfreq5.json").read_text())

    def tokens(text: str) -> list[str]:
        found = text.lower().split()
        return found if protocol == "words" else [str(word_map.get(word, word_map["<unk>"])) for word in found]

    expected = json.loads((golden / "expected.json").read_text())["first_60"][protocol]
    pairs = [(tokens(item["prediction"]), [tokens(text) for text in item["references"]]) for item in items]
    stats = program.stats(pairs)
    np.testing.assert_allclose([meteor(one) for one in stats], expected["per_item"]["METEOR"], rtol=1e-9)
    assert meteor(np.sum(stats, 0)) == pytest.approx(expected["corpus"]["METEOR"], rel=1e-9)


@pytest.mark.slow
def test_the_formula_is_the_program_s_own(program: Meteor) -> None:
    chance = np.random.default_rng(3)
    vocabulary = [
        "a",
        "the",
        "house",
        "houses",
        "building",
        "road",
        "roads",
        "is",
        "are",
        "built",
        "constructed",
        "of",
        "new",
        ",",
    ]

    def text() -> list[str]:
        return chance.choice(vocabulary, chance.integers(1, 14)).tolist()

    stats = program.stats([(text(), [text() for _ in range(3)]) for _ in range(150)])
    command = ["java", "-Xmx2G", "-jar", str(jar()), "-", "-", "-stdio", "-l", "en", "-norm"]
    lines = " ||| ".join(" ".join(map(repr, one.tolist())) for one in stats)
    said = subprocess.run(command, input=f"EVAL ||| {lines}\n", capture_output=True, text=True, check=True, timeout=180)
    *each, whole = map(float, said.stdout.split())
    np.testing.assert_allclose([meteor(one) for one in stats], each, rtol=1e-9, atol=1e-12)
    assert meteor(np.sum(stats, 0)) == pytest.approx(whole, rel=1e-9)


@pytest.mark.slow
def test_hostile_captions_are_captions(program: Meteor) -> None:
    reference = [["the", "road", "is", "built"]]
    texts = [["|||"], ["|||", "road"], ["a|||b"], ["EVAL", "|||", "1"], ["\x00"], ["\u00e9" * 200], [], ["the"] * 256]
    stats = program.stats([(text, reference) for text in texts])
    assert [one[0] for one in stats if one is not stats[4]] == [0, 1, 1, 2, 1, 0, 256]
    assert stats[0].tolist() == stats[6].tolist()  # a caption of separators is an empty one
    assert 0 < meteor(stats[1]) < 1
    (again,) = program.stats([(["road"], [["the|||", "road", "|||"]])])
    assert again[:2].tolist() == [1, 2]


@pytest.mark.slow
def test_long_captions_take_longer_and_cost_nobody_their_number(
    program: Meteor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 0.2)
    program.stats([(["road"], [["road"]])])
    long, other = program.stats([(["road"] * 256, [["road"] * 256]), (["a", "house"], [["a", "house"]])])
    assert long[:2].tolist() == [256, 256] and meteor(other) == 1.0


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exec sleep 60", "too slow"),
        ("echo no memory >&2; exit 1", "no memory"),
        ("read line; echo nonsense; exec sleep 60", "nonsense"),
    ],
)
def test_a_program_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, said: str
) -> None:
    java = tmp_path / "java"
    java.write_text(f"#!/bin/sh\n{script}\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(module, "jar", lambda: tmp_path / "meteor.jar")
    monkeypatch.setattr(module, "START_S", 2.0)
    start = time.monotonic()
    with pytest.raises(MeteorError, match=said):
        Meteor().stats([(["a"], [["a"]])])
    assert time.monotonic() - start < 30


def test_a_program_that_died_is_started_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java = tmp_path / "java"
    java.write_text(
        f"#!/bin/sh\necho started >> {tmp_path}/log\nread line; echo {' '.join(['1'] * SIZE)}\n"
    )  # and ends
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(module, "jar", lambda: tmp_path / "meteor.jar")
    program = Meteor()
    for word in ("road", "house"):
        (stats,) = program.stats([([word], [[word]])])
        assert stats.tolist() == [1] * SIZE
    assert (tmp_path / "log").read_text() == "started\n" * 2
    pickle.loads(pickle.dumps(program)).stats([(["a"], [["a"]])])  # a copy starts one of its own
    assert (tmp_path / "log").read_text() == "started\n" * 3


def test_a_warm_up_starts_the_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    numbers = " ".join(["1"] * SIZE)
    java = tmp_path / "java"
    java.write_text(f"#!/bin/sh\necho started >> {tmp_path}/log\nwhile read line; do echo {numbers}; done\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(module, "jar", lambda: tmp_path / "meteor.jar")
    sample = Sample("c", Task.CHANGE_CAPTION, (), scene="c", reference={"captions": ["a road is built"]})
    with Reward({"captions": 1.0}) as reward:
        reward.warm()
        assert (tmp_path / "log").read_text() == "started\n"
        assert "meteor" in reward.one("a road was built", sample).parts["captions"].raw
    assert (tmp_path / "log").read_text() == "started\n"
