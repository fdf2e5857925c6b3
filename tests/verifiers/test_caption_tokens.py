"""How captions become tokens: coco-caption's treebank tokens, plain words, numbers of a word map."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsw_rewards.errors import ConfigError
from rsw_rewards.verifiers.caption_tokens import (
    MAX_CHARACTERS,
    MAX_TOKENS,
    TextTooLong,
    ids,
    load_word_map,
    make_tokeniser,
    ptb,
    words,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "caption_tricky.json").read_text())
TRICKY = list(zip(GOLDEN["candidates"], GOLDEN["ptb_tokenised_candidates"], strict=True)) + [
    pair
    for texts, wanted in zip(GOLDEN["references"], GOLDEN["ptb_tokenised_references"], strict=True)
    for pair in zip(texts, wanted, strict=True)
]


@pytest.mark.parametrize(("text", "wanted"), TRICKY)
def test_tokens_of_the_original(text: str, wanted: str) -> None:
    assert " ".join(ptb(text)) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("cannot", "can not"), ("It cannot be seen.", "it can not be seen"), ("they're gonna", "they 're gon na"),
        ("St. James and roads, etc.", "st. james and roads etc."), ("no. 5 of the houses", "no. 5 of the houses"),
        ("There is no.", "there is no"), ("to the U.S.", "to the u.s."), ("in area A.", "in area a."),
        ("3 m² of 1,000 m", "3 m ² of 1,000 m"), ("50% of it", "50 % of it"), ("a/b and/or c-d", "a/b and/or c-d"),
        ("road.Then built", "road.then built"), ("don\u2019t \u201cgo\u201d \u2013 now", "do n't go now"),
        ("...", ""), (" \t\n ", ""), ("{a} [b] <c>", "-lcb- a -rcb- -lsb- b -rsb- <c>"), ("tree\U0001f333s", "tree s"),
        ("white '05' signs", "white 05 signs"), ("the '05 signs", "the '05 signs"), ("built in '05", "built in '05"),
        ("in '05, it", "in 05 it"), ("The roof is a double M.", "the roof is a double m"), ("area B. The road", "area b the road"),
        ("area B. the road", "area b. the road"), ("B. Go", "b. go"),
    ],
)  # fmt: skip
def test_rules(text: str, wanted: str) -> None:
    assert " ".join(ptb(text)) == wanted


CAPTIONS = [
    "A new road, with several villas, was built!", "Houses appear (at the top-left corner) near the t-shaped road.",
    "The forest's gone; it's replaced by 25 houses & 3 roads...", 'He said "no change" - and there wasn\'t any.',
    "Are there 1,234.5 m2 of bare-land? Yes: about 12% more.", "U-shaped roads/paths: built in 2010-2020, i.e. 10 yrs.",
    "the houses' roofs aren't red, they're grey", "white '05' signs and '12 ones", "it is in area B. The road, too", "near St. Mary's Ave. and the N. bank", "'some' houses [new] #1 @ 3 p.m.",
]  # fmt: skip


def test_agrees_with_the_program_itself(tmp_path: Path) -> None:
    found = importlib.util.find_spec("pycocoevalcap")
    if found is None or shutil.which("java") is None:
        pytest.skip("needs Java and the extra 'meteor'")
    folder = Path(next(iter(found.submodule_search_locations or ()))) / "tokenizer"
    (tmp_path / "captions.txt").write_text("\n".join(CAPTIONS), encoding="utf-8")
    command = ["java", "-cp", "stanford-corenlp-3.4.1.jar", "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines"]
    command += ["-lowerCase", str(tmp_path / "captions.txt")]
    said = subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout.decode().splitlines()
    dropped = {"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"}
    for caption, line in zip(CAPTIONS, said, strict=True):
        assert ptb(caption) == [token for token in line.split() if token not in dropped], caption


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_token_is_empty_or_holds_a_blank_and_lines_are_apart(first: str, second: str) -> None:
    for tokenise in (ptb, words):
        assert all(token == "".join(token.split()) != "" for token in tokenise(first))
    assert words(f"{first} {second}") == words(first) + words(second)


def test_words_keep_their_punctuation() -> None:
    assert words("The  Road, built.\n") == ["the", "road,", "built."]


def test_ids(tmp_path: Path) -> None:
    path = tmp_path / "words.json"
    path.write_text(json.dumps({"<pad>": 0, "road": 7, "<unk>": 9}))
    word_map = load_word_map(path)
    assert ids("Road house  villa", word_map) == ["7", "9", "9"]
    assert make_tokeniser("ids", word_map)("road") == ["7"]


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"<unk>": "1"}', '{"<unk>": true}', "[" * 100_000])
def test_files_that_are_no_word_map(tmp_path: Path, text: str) -> None:
    (tmp_path / "words.json").write_text(text)
    with pytest.raises(ConfigError, match=r"the word map .*words\.json"):
        load_word_map(tmp_path / "words.json")
    with pytest.raises(ConfigError, match="word_map"):
        make_tokeniser("ids")


@pytest.mark.parametrize(
    "text", ["a " * 500_000, "a" * 1_000_000, ",a" * 4096, "a'" * 4096, "<a b=" * 1600, "a." * 4096]
)
def test_hostile_texts_take_no_time(text: str) -> None:
    start = time.perf_counter()
    for kind in ("words", "ptb"):
        try:
            assert len(make_tokeniser(kind)(text)) <= MAX_TOKENS  # type: ignore[arg-type]
        except TextTooLong as error:
            assert str(MAX_CHARACTERS) in str(error) or str(MAX_TOKENS) in str(error)
    assert time.perf_counter() - start < 2


def test_half_surrogates_become_writable() -> None:
    (token,) = make_tokeniser("words")("\ud800x")
    assert token.encode("utf-8") == b"?x"
