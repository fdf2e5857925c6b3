"""YAML is read by one loader, wherever it is given: words stay words, and what is written is read back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import rsw_rewards as rsw
from rsw_rewards.config import load_config
from rsw_rewards.core.yaml_text import parse_yaml, read_yaml, write_yaml
from rsw_rewards.data.registry import converted
from rsw_rewards.errors import ConfigError
from rsw_rewards.rollouts.policies import build_policy

WORDS = ["yes", "no", "on", "off", "y", "n", "Yes", "NO", "2019-01-30", "1:30", "1_000", "tRue", "-", "=", "1e"]
NUMBERS = {
    "1e-5": 1e-5,
    "1E5": 1e5,
    ".5": 0.5,
    "5.": 5.0,
    "-1": -1,
    "0o17": 15,
    "0x1f": 31,
    "017": 17,
    "-.inf": -math.inf,
}


@pytest.mark.parametrize("word", WORDS)
def test_words_and_dates_are_texts(word: str) -> None:
    assert parse_yaml(f"a: {word}\nb: [{word}]" if word != "-" else "{a: '-', b: ['-']}", "here") == {
        "a": word,
        "b": [word],
    }


def test_numbers_flags_and_nothing() -> None:
    for text, number in NUMBERS.items():
        assert parse_yaml(text, "here") == number and type(parse_yaml(text, "here")) is type(number)
    assert [parse_yaml(text, "here") for text in ("true", "False", "null", "~", "")] == [True, False, None, None, None]
    merged = parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}", "here")
    assert merged["b"] == {"x": 1, "y": 3}


@pytest.mark.parametrize(
    "value", [*WORDS, *NUMBERS, "true", "null", "~", "", "<<", 1e-5, 1e20, -math.inf, None, True, 3, "two\nlines", "é"]
)
def test_what_is_written_is_read_back(value: Any) -> None:
    again = parse_yaml(write_yaml({"a": value, "b": [value]}), "here")
    assert again == {"a": value, "b": [value]} and type(again["a"]) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("use: a\nuse: b", r"f\.yaml:2: .*the key 'use' is there twice"),
        ("a: {x: 1, 'x': 2}", "the key 'x' is there twice"),
        ("a: [1, 2", r"f\.yaml: .*expected ',' or '\]'"),
        ("a: 1\nb: x: y", r"f\.yaml:2: "),
        (f"a: {'9' * 5000}", r"f\.yaml: this is not valid YAML: .*5000 digits"),
        (f"a: {'[' * 3000}", r"f\.yaml: this is not valid YAML"),
        ("a: !!bool maybe", r"f\.yaml: this is not valid YAML: 'maybe'"),
        ("a: !!python/object:os.system x", "python/object"),
        ("a: &a [*a]", r"f\.yaml: .*stand for more than"),
        ("\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else 'x'] * 9)}]" for n in range(9)), "stand for more"),
        ("[a, b]", r"f\.yaml must hold a mapping"),
        ("", r"f\.yaml must hold a mapping"),
    ],
)
def test_what_is_no_yaml_is_refused_in_a_sentence_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_yaml(tmp_path / "f.yaml")


SAMPLES = [rsw.Sample("q1", rsw.Task.CHANGE_QA, reference={"answers": ["yes"]})]


def test_yes_and_no_are_words_in_a_rubric_a_run_and_a_setting(tmp_path: Path) -> None:
    rubric = tmp_path / "rubric.yaml"
    rubric.write_text("components:\n- {use: exact_match, config: {vocabulary: [yes, no], synonyms: {yeah: yes}}}\n")
    with rsw.Reward(rubric) as reward:
        assert reward.one("yeah", SAMPLES[0]).reward == 1.0
    run = tmp_path / "run.yaml"
    run.write_text(
        "method: grpo\npolicy: token_world_model\ntrain: {source: scene-world}\nrubric: rubric.yaml\n"
        "grpo: {scale_rewards: none, learning_rate: 1e-5, beta: 0}\nlog: [trackio]\n"
    )
    config: Any = load_config(run)
    assert (config.grpo.scale_rewards, config.grpo.learning_rate, config.log) == ("none", 1e-5, ("trackio",))
    assert config.rubric.components[0].config["vocabulary"] == ["yes", "no"]


@pytest.mark.parametrize(
    ("written", "message"),
    [("2020", '2020 is a number and no text; write "2020"'), ("true", 'true is a flag and no text; write "true"')],
)
def test_a_number_for_a_text_is_named_with_what_to_write(written: str, message: str, tmp_path: Path) -> None:
    rubric = tmp_path / "rubric.yaml"
    rubric.write_text(f"components:\n- {{use: exact_match, config: {{vocabulary: [{written}, no]}}}}\n")
    with pytest.raises(ConfigError, match=message), rsw.Reward(rubric):
        pass
    rubric.write_text(f"components:\n- {{use: exact_match, name: {written}}}\n")
    with pytest.raises(ConfigError, match=rf"rubric\.yaml: components\.0\.name: {message}"):
        rsw.Reward(rubric)


def test_a_word_is_no_flag_of_a_policy_or_an_adapter(tmp_path: Path) -> None:
    spec = {"use": "openai_endpoint", "base_url": "http://localhost:1", "model": "m", "send_images": "no"}
    with pytest.raises(ConfigError, match="'openai_endpoint': 'send_images' must be true or false, not 'no'"):
        build_policy(spec)

    def adapter(source: Path, out: Path, *, split: str | None = None, limit: int | None = None, shuffle: bool = True):  # type: ignore[no-untyped-def]
        raise AssertionError("the option was not looked at")

    with pytest.raises(ConfigError, match="'shuffle' must be true or false, not 'off'"):
        converted(adapter, tmp_path, tmp_path, {"shuffle": "off"})
