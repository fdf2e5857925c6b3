"""The degenerate-policy suite: on every protocol the truth scores 1 and no trick earns more than its ceiling; faults of data are named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rsw_rewards import verifier
from rsw_rewards.cli.display import print_validation
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rubric import build
from rsw_rewards.data.scene_world import write_scene_world
from rsw_rewards.errors import ConfigError, InputError
from rsw_rewards.evaluation.protocols import PROTOCOLS, Protocol
from rsw_rewards.evaluation.validation import Check, Validation, validate
from rsw_rewards.io.records_io import load_samples
from rsw_rewards.rollouts.baselines import BASELINES, Constant
from tests.evaluation.made_samples import MAKERS, answers, captions, masks, sample

NEEDS_MORE = {"open-qa": "a served judge", "txt2img-mhn-rsicd": "the networks that its authors trained"}
"""Protocols that cannot be run here, and what they need."""
LIBRARIES = {"detection": "pycocotools", "earthdial-labels": "nltk", "earthdial-vqa": "nltk", "lrs-vqa": "nltk"}
"""Protocols that need a library of an extra."""


def quick(protocol: Protocol) -> Protocol:
    """The protocol without what takes seconds to start and has tests of its own: components with weights, and METEOR's program."""
    light = [
        part
        for part in protocol.components
        if part["use"] != "lpips" and not {"encoder", "detector"} & build(part["use"], part.get("config")).needs
    ]
    has_captions = any(part["use"] == "captions" for part in light)
    return replace(protocol, components=tuple(light)).configured({"captions.meteor": False} if has_captions else {})


def test_every_protocol_is_tried() -> None:
    lacking = set(PROTOCOLS.built_in) - set(MAKERS) - set(NEEDS_MORE)
    assert not lacking, f"add samples for {', '.join(sorted(lacking))} to made_samples.py"


@pytest.fixture
def word_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vocabulary with the words of the made captions, for the protocol that scores their numbers."""
    words = {word for one in captions() for text in one.reference["captions"] for word in text.split()}
    numbers = {word: number for number, word in enumerate(sorted(words), start=1)} | {"<unk>": len(words) + 1}
    (tmp_path / "words.json").write_text(json.dumps(numbers))
    monkeypatch.setenv("RSW_WORD_MAP", str(tmp_path / "words.json"))


@pytest.mark.usefixtures("word_map")
@pytest.mark.parametrize("name", sorted(set(PROTOCOLS.built_in) & set(MAKERS)))
def test_the_truth_scores_one_and_tricks_stay_under_their_ceilings(name: str) -> None:
    if needs := LIBRARIES.get(name):
        pytest.importorskip(needs, reason=f"needs {needs}, which is not installed")
    if name == "lrs-vqa":
        try:
            pytest.importorskip("nltk.corpus").wordnet.ensure_loaded()
        except LookupError:
            pytest.skip("needs WordNet; run: python -m nltk.downloader wordnet")
    result = validate(quick(PROTOCOLS.find(name)), MAKERS[name]())
    assert [str(row) for row in result.failed] == []
    assert result.problems == []
    policies = {row.policy for row in result.rows}
    if name == "detection":  # its tricks would write labelled boxes
        return
    lenient = PROTOCOLS.find(name).lenient  # tricks are told, not refused
    if lenient:
        policies |= {note.split()[0] for note in result.notes if "under this published reading" in note}
        policies |= {"oracle" for note in result.notes if "of the truth is" in note}
    assert "oracle" in policies and len(policies) >= 4 - lenient
    assert json.loads(json.dumps(result.to_json()))["ok"]


def protocol_of(function: Any, task: str = "change_qa") -> Protocol:
    """A protocol of one verifier, which is a function of this file."""
    module = f"{Path(__file__)}:{function}"
    return Protocol("made", "Made", Task(task), "this test", ({"use": module},))


@verifier(tasks={"change_qa"}, name="substring")
def substring(sample: Sample, output: Output) -> float:
    truth = sample.reference["answers"][0]
    return float(truth in (output.text or "") or (output.text or "") in truth)


@verifier(tasks={"change_qa"}, name="recall")
def recall(sample: Sample, output: Output) -> float:
    return float(sample.reference["answers"][0] in (output.text or ""))


@verifier(tasks={"change_mask"}, name="pixel_accuracy")
def pixel_accuracy(sample: Sample, output: Output) -> float:
    assert output.mask is not None
    return float((sample.reference["mask"].pixels() == output.mask.pixels()).mean())


@verifier(tasks={"change_caption"}, name="overlap")
def overlap(sample: Sample, output: Output) -> float:
    said = set((output.text or "").split())
    return float(any(said & set(caption.split()) for caption in sample.reference["captions"]))


@verifier(tasks={"change_qa"}, name="half")
def half(sample: Sample, output: Output) -> float:
    return 0.5 * (output.text == sample.reference["answers"][0])


@pytest.mark.parametrize(
    ("function", "task", "samples", "caught"),
    [
        ("substring", "change_qa", answers(["yes", "no", "trees"], "yes", "no", "trees"), {"empty", "letter"}),
        (
            "recall",
            "change_qa",
            answers(["yes", "no", "trees"], "yes", "no", "trees"),
            {"all_labels", "hedge", "every_tag"},
        ),
        ("pixel_accuracy", "change_mask", masks(), {"all_unchanged", "empty"}),
        ("overlap", "change_caption", captions(), {"constant", "no_change"}),
        ("half", "change_qa", answers(["yes", "no"], "yes", "no"), {"oracle"}),
    ],
)
def test_verifiers_that_a_trick_pleases_fail(function: str, task: str, samples: list[Sample], caught: set[str]) -> None:
    result = validate(protocol_of(function, task), samples)
    assert not result.ok
    assert caught <= {row.policy for row in result.failed}


def test_faults_of_the_data_are_named_with_ids(tmp_path: Path) -> None:
    made = answers(["yes", "no"], "yes", "no")
    broken = [
        *made,
        replace(made[0], reference={"answers": ["maybe"], "vocabulary": ["yes", "no"]}, id="odd"),
        replace(made[1], reference={}, id="bare"),
        made[2],
        replace(made[3], id="gone", images=(ImageRef(path=tmp_path / "gone.png"),)),
    ]
    result = validate(PROTOCOLS.find("exact-qa"), broken)
    assert not result.ok
    told = " | ".join(result.problems)
    assert "1 ids stand more than once: 'made_002'" in told
    assert "'odd'" in told and "'maybe' is not in the vocabulary" in told
    assert "'bare'" in told
    assert any("'gone'" in note for note in result.notes)  # answers can be scored without the images


def test_missing_pictures_of_the_truth_are_a_problem(tmp_path: Path) -> None:
    lacking = sample(99, Task.CHANGE_MASK, {"mask": ImageRef(path=tmp_path / "mask.png")})
    result = validate(PROTOCOLS.find("change-mask"), [*masks(), lacking])
    assert any("pictures of the truth that do not exist: 'made_099'" in problem for problem in result.problems)


def test_data_with_one_answer_alone_are_no_fault_of_the_protocol() -> None:
    assert validate(PROTOCOLS.find("exact-qa"), answers(["yes", "no"], "yes")).ok


def test_a_component_without_its_weights_is_said_and_the_others_are_checked() -> None:
    protocol = replace(
        PROTOCOLS.find("tfsf"),
        components=({"use": "ssim"}, {"use": "detector_consistency", "config": {"detector": "/nowhere"}}),
        headline=("ssim",),
    )
    result = validate(protocol, MAKERS["tfsf"]())
    assert result.ok and any(row.what == "value of ssim" for row in result.rows)
    assert any(note.startswith("detector_consistency was not checked") for note in result.notes)


def test_a_baseline_that_cannot_be_set_up_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class WithoutWeights(Constant):
        def setup(self, device: str = "cpu", threads: int = 1) -> None:
            raise KeyError("layer.0.weight")

    monkeypatch.setitem(BASELINES.built_in, "constant", WithoutWeights)
    with pytest.raises(ConfigError, match="'constant' cannot be set up on 'cpu': KeyError"):
        validate(PROTOCOLS.find("exact-qa"), answers(["yes", "no"], "yes"))


def test_the_scene_world_is_sound_with_scenes_in_which_nothing_changes(tmp_path: Path) -> None:
    write_scene_world(tmp_path, 16, 3, tasks=("forecast", "change_qa"))
    made = load_samples(tmp_path / "samples.jsonl")
    for name in ("tfsf", "exact-qa"):
        assert validate(quick(PROTOCOLS.find(name)), made).ok


def test_samples_of_another_task_are_refused() -> None:
    with pytest.raises(InputError, match="needs samples of the task change_mask"):
        validate(PROTOCOLS.find("change-mask"), answers(None, "yes"))


def test_a_check_says_what_is_wrong() -> None:
    row = Check("letter", "value of substring", 0.436, 0.1, "<=", "one letter is no answer")
    assert not row.ok
    assert str(row) == "letter: value of substring is 0.4360, must be <= 0.1000 (one letter is no answer)"
    assert not Check("copy", "mae", 0.0, 0.0, ">").ok and Check("copy", "mae", 0.1, 0.0, ">").ok


def test_a_number_that_is_not_there_is_not_called_right(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        Check("oracle", "value", None, 1.0, "="),
        Check("oracle", "value", 1.0, 1.0, "="),
        Check("empty", "value", 1.0, 0.5, "<="),
    ]
    print_validation(Validation("change-mask", 1, rows))
    said = [
        line.split()[-1] for line in capsys.readouterr().out.splitlines() if line.split()[:1] in (["oracle"], ["empty"])
    ]
    assert said == ["-", "yes", "NO"]
