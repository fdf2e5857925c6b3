"""Policies, baselines, adapters and importers of users whose code is wrong: each is one sentence, and never a score."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import rsw_rewards as rsw
from rsw_rewards.cli import main
from rsw_rewards.config import DataSpec, PpoRunConfig
from rsw_rewards.core.plugins import load_file
from rsw_rewards.data.adapter import Conversion
from rsw_rewards.data.importers.matching import Answer
from rsw_rewards.data.sources import load_from_adapter
from rsw_rewards.errors import ConfigError, InputError, RswError, RunStopped
from rsw_rewards.evaluation.evaluation import Evaluation
from rsw_rewards.io.records_io import write_jsonl
from rsw_rewards.training.sources import load_source

TOY = Path(__file__).parents[1] / "training" / "toy_lm.py"

POLICIES = """
import rsw_rewards as rsw


def yes(request, **more):
    return rsw.Output(**{"sample_id": request.sample.id, "text": "yes", **more})


def fails(error):
    raise error


WAYS = {
    "another sample": lambda requests: [yes(request, sample_id="zz") for request in requests],
    "reversed": lambda requests: [yes(request) for request in requests][::-1],
    "another candidate": lambda requests: [yes(request, candidate=4) for request in requests],
    "too few": lambda requests: [yes(request) for request in requests][1:],
    "numbers": lambda requests: [3 for request in requests],
    "nothing": lambda requests: None,
    "one at a time": lambda requests: (yes(request) for request in requests),
    "tokens": lambda requests: [yes(request, tokens=[1, 2]) for request in requests],
    "raises": lambda requests: fails(ValueError("no such layer\\nmore")),
    "texts": lambda requests: ["yes" for request in requests],
    "without ids": lambda requests: [rsw.Output(text="yes") for request in requests],
    "at q1": lambda requests: [yes(request) if request.sample.id != "q1" else fails(KeyError("q1")) for request in requests],
}


class Mine(rsw.Policy):
    name = "mine"

    def __init__(self, way="texts"):
        self.way = way

    def generate(self, requests):
        return WAYS[self.way](requests)


class Broken(Mine):
    name = "broken"

    def __init__(self):
        self.way = "too few"


class Nameless(rsw.Policy):
    def generate(self, requests):
        return []


class Unmade(Mine):
    def __init__(self):
        raise ValueError("no weights given")
"""

MISTAKES = {
    "another sample": "the policy 'mine', asked for the sample 'q0': the output is of the sample 'zz', not of 'q0'",
    "reversed": "the policy 'mine', asked for the sample 'q0': the output is of the sample 'q3', not of 'q0'",
    "another candidate": "the policy 'mine', asked for the sample 'q0': the output is candidate 4, not 0",
    "too few": "the policy 'mine' gave 3 outputs for 4 requests",
    "numbers": "the policy 'mine', asked for the sample 'q0': 'text' must be a string, not 3",
    "nothing": "the policy 'mine' must give a list with one output per request, not None",
    "one at a time": "the policy 'mine' must give a list with one output per request, not a value of the type generator",
    "tokens": "the policy 'mine', asked for the sample 'q0': 'tokens' must be a TokenTrace, not [1, 2]",
}
SAMPLES = [
    {"id": f"q{n}", "task": "change_qa", "reference": {"answers": ["yes" if n else "no"], "vocabulary": ["yes", "no"]}}
    for n in range(4)
]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(POLICIES)
    return file


def evaluated(mine: Path, way: str, **more: Any) -> Evaluation:
    return rsw.evaluate("exact-qa", SAMPLES, policy=load_file(mine).Mine(way), **more)


@pytest.mark.parametrize("way", MISTAKES)
def test_a_mistake_in_a_policy_is_one_sentence_and_no_score(mine: Path, way: str) -> None:
    with pytest.raises(ConfigError) as caught:
        evaluated(mine, way)
    assert str(caught.value) == MISTAKES[way]


@pytest.mark.usefixtures("ray_cluster")
def test_actors_say_of_a_policy_what_this_process_says(mine: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        evaluated(mine, "reversed", actors=1)
    assert str(caught.value) == MISTAKES["reversed"]
    with pytest.raises(RunStopped, match=r"the policy 'mine' raised ValueError: no such layer$"):
        evaluated(mine, "raises", actors=1)
    assert evaluated(mine, "at q1", actors=1).summary["status"]["exact_match"]["error"] == 1


def test_a_policy_that_always_raises_stops_the_run_by_a_sentence(mine: Path) -> None:
    with pytest.raises(RunStopped) as caught:
        evaluated(mine, "raises")
    assert str(caught.value) == "no rollout could be made: the policy 'mine' raised ValueError: no such layer"


@pytest.mark.parametrize("candidates", [1, 2])
def test_a_sample_at_which_a_policy_raises_costs_its_own_outputs(mine: Path, candidates: int) -> None:
    found = evaluated(mine, "at q1", candidates=candidates)
    frame = found.scores
    lost = frame[frame["sample"] == "q1"]
    assert set(lost["status"]) == {"error"} and len(lost) == candidates
    assert lost["reason"].str.contains("the policy 'mine' raised KeyError: 'q1'").all()
    assert set(frame[frame["sample"] != "q1"]["status"]) == {"ok"}
    assert found.metrics["accuracy"].value == pytest.approx(2 / 3)


@pytest.mark.parametrize("way", ["texts", "without ids"])
def test_a_policy_may_give_the_answers_alone(mine: Path, way: str) -> None:
    found = evaluated(mine, way, candidates=2)
    assert found.metrics["accuracy"].value == 0.75
    assert [(one.sample_id, one.candidate) for one in found.outputs[:3]] == [("q0", 0), ("q0", 1), ("q1", 0)]


@pytest.mark.parametrize("candidates", [0, -1, 1.5])
def test_less_than_one_candidate_is_refused(mine: Path, candidates: Any) -> None:
    with pytest.raises(ConfigError, match=f"'candidates' must be a whole number from 1 on, not {candidates}"):
        evaluated(mine, "texts", candidates=candidates)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Nameless", 'has no name; write name = "..." in its class'),
        ("Unmade", "cannot be made from {}: ValueError: no weights"),
    ],
)
def test_a_policy_that_cannot_be_made_is_one_sentence(mine: Path, name: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rsw.evaluate("exact-qa", SAMPLES, policy=f"{mine}:{name}")
    assert f"the policy '{mine}:{name}' {why}" in str(caught.value)


def test_the_command_prints_the_sentence_and_exits_with_2(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "s.jsonl", SAMPLES)
    asked = ("--policy", f"{mine}:Broken", "--samples", tmp_path / "s.jsonl", "--out", tmp_path / "out")
    monkeypatch.setattr(sys, "argv", ["rsw", "evaluate", "exact-qa", *map(str, asked)])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert "the policy 'broken' gave 3 outputs for 4 requests" in " ".join(said.split())
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("made", "error", "why"),
    [
        (
            "super().generate(requests)[::-1]",
            ConfigError,
            "asked for the sample .*: the output is (of the sample|candidate)",
        ),
        ("super().generate(requests)[1:]", ConfigError, r"gave \d outputs for \d requests"),
        (
            "[output.text for output in [None]]",
            RunStopped,
            "no rollout could be made: the policy .* raised AttributeError",
        ),
    ],
)
def test_training_says_what_is_wrong_with_a_policy(tmp_path: Path, made: str, error: type[RswError], why: str) -> None:
    from rsw_rewards.training.ppo import train_ppo

    file = tmp_path / "wrong.py"
    file.write_text(
        f"from rsw_rewards.core.plugins import load_file\n\n\nclass Wrong(load_file({str(TOY)!r}).ToyLM):\n"
        f"    def generate(self, requests):\n        return {made}\n"
    )
    config = {
        "out": str(tmp_path / "run"),
        "policy": {"use": f"{file}:Wrong"},
        "train": {"source": f"{TOY}:toy_data"},
        "rubric": {"components": [{"use": f"{TOY}:near_three"}, {"use": f"{TOY}:bright"}]},
        "ppo": {"steps": 1, "prompts": 4, "group": 2, "threads": 1},
        "rollouts": {"actors": 0, "chunk": 4},
        "log": [],
    }
    with pytest.raises(error, match=why):
        train_ppo(PpoRunConfig.model_validate(config))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("return None", "raised TypeError: "),
        ("raise OSError('no disk')", "raised OSError: no disk"),
        ("return ['yes']", "must give a list of samples"),
    ],
)
def test_a_mistake_in_a_source_of_samples_is_one_sentence(tmp_path: Path, body: str, why: str) -> None:
    file = tmp_path / "source.py"
    file.write_text(f"def samples():\n    {body}\n")
    with pytest.raises(ConfigError, match=f"train: .*samples.* {why}"):
        load_source(DataSpec.model_validate({"source": f"{file}:samples"}), seed=0)


def protocol(baseline: Any) -> Any:
    made = rsw.protocol("mine-qa", ["exact_match"], task="change_qa")
    return replace(made, baselines=("constant", baseline))  # as a package may make one, unchecked


@pytest.mark.parametrize(
    ("baseline", "why"),
    [
        ("noize", "no baseline is named 'noize'; did you mean 'noise'"),
        (5, "cannot be called; give a name, a function or a class"),
    ],
)
def test_a_baseline_that_is_none_is_said_before_the_work(mine: Path, tmp_path: Path, baseline: Any, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        rsw.evaluate(protocol(baseline), SAMPLES, policy=load_file(mine).Mine("raises"), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("5", "makes an object of the type int, and must make a Policy"),
        ("1 / 0", "raised ZeroDivisionError: division by zero"),
        ("Mine('too few')", "the policy 'mine' gave 3 outputs for 4 requests"),
    ],
)
def test_a_baseline_that_fails_costs_its_own_row_and_is_said(mine: Path, code: str, why: str) -> None:
    mine.write_text(f"{POLICIES}\n\ndef baseline(samples):\n    return {code}\n")
    found = rsw.evaluate(protocol(load_file(mine).baseline), SAMPLES, ["yes"] * 4)
    assert found.metrics["accuracy"].value == 0.75
    assert found.summary["baselines"]["constant"]["metrics"]["accuracy"]["value"] == 0.75
    (said,) = [line for line in found.summary["warnings"] if "baseline" in line]
    assert said.startswith(f"no numbers of the baseline {mine}:baseline: ") and why in said


def test_a_baseline_given_as_an_object_has_a_row_that_is_saved(mine: Path, tmp_path: Path) -> None:
    mine.write_text(f"{POLICIES}\n\ndef baseline(samples):\n    return Mine()\n")
    found = rsw.evaluate(protocol(load_file(mine).baseline), SAMPLES, ["no"] * 4, out=tmp_path / "out")
    assert found.summary["baselines"][f"{mine}:baseline"]["metrics"]["accuracy"]["value"] == 0.75
    assert f"{mine}:baseline" in (tmp_path / "out" / "summary.json").read_text()


def gives_none(source: Path, out: Path, *, split: Any = None, limit: Any = None) -> Any:
    return None


def divides(source: Path, out: Path, *, split: Any = None, limit: Any = None) -> Conversion:
    return Conversion(1 // 0, out, [])


def takes_too_little(source: Path) -> Any:
    return None


@pytest.mark.parametrize(
    ("adapter", "why"),
    [
        (gives_none, "gives_none' must give a Conversion, not None"),
        (divides, "divides' raised ZeroDivisionError: "),
        (takes_too_little, "takes_too_little' does not take these options: too many positional arguments"),
        (5, "'int object' cannot be called; give a name, a function or a class"),
    ],
)
@pytest.mark.parametrize("use", [rsw.data.convert, rsw.data.read])
def test_a_mistake_in_an_adapter_is_one_sentence(
    tmp_path: Path, adapter: Any, why: str, use: Callable[..., Any]
) -> None:
    more = {"out": tmp_path / "out"} if use is rsw.data.convert else {}
    with pytest.raises(ConfigError) as caught:
        use(adapter, tmp_path, **more)
    assert why in str(caught.value)


def test_a_mistake_in_an_adapter_of_a_training_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def convert(source, out, *, limit=None):\n    return None\n")
    with pytest.raises(ConfigError, match="must give a Conversion, not None"):
        load_from_adapter(f"{file}:convert", {"path": str(tmp_path)}, "train")


@pytest.mark.parametrize(
    ("importer", "why"),
    [
        (lambda file, **more: ["yes"], "must give Answers, not 'yes'"),
        (lambda file, **more: None, "raised TypeError: "),
        (lambda file, **more: (1 // 0 for _ in "a"), "raised ZeroDivisionError: "),
        (lambda file: [], "raised TypeError: "),
        (5, "cannot be called; give a name, a function or a class"),
        (lambda file, **more: [Answer("line 1", "q0", 3)], "line 1: the text is 3"),  # type: ignore[arg-type]
        (lambda file, **more: [Answer("line 1", "q0", "yes", "a")], "line 1: there is no candidate a"),  # type: ignore[arg-type]
    ],
)
@pytest.mark.parametrize("samples", [None, SAMPLES], ids=["alone", "matched"])
def test_a_mistake_in_an_importer_is_one_sentence(tmp_path: Path, importer: Any, why: str, samples: Any) -> None:
    file = tmp_path / "answers.txt"
    file.write_text("yes")
    with pytest.raises((ConfigError, InputError)) as caught:
        rsw.predictions.read(importer, file, samples)
    assert why in str(caught.value)
