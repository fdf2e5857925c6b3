"""The answer in a text: what is taken off, that nothing else is, and that every verifier of what a text says reads the answer."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsw_rewards.core.answer import AT_LIMIT, CUT_OFF, NOTHING_SAID, closing_tag, opened_reasoning, read_reply
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rubric import build
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Batch
from rsw_rewards.evaluation.inputs import Inputs
from rsw_rewards.evaluation.protocols import PROTOCOLS
from rsw_rewards.evaluation.run import run_protocol
from rsw_rewards.evaluation.warnings import Evidence, more_than_answers, taken_off
from rsw_rewards.io.in_memory import pair_outputs
from rsw_rewards.io.records_io import load_outputs


@pytest.mark.parametrize(
    ("text", "answer", "taken"),
    [
        ("yes", "yes", ()), ("  a\tb \n", "  a\tb \n", ()), ("5 < 7 > 3", "5 < 7 > 3", ()), ("caf\u00e9 <unk>", "caf\u00e9 <unk>", ()),
        ("<think>no</think>\nyes", "yes", ("reasoning",)), ("no</think> yes", "yes", ("reasoning",)),
        ("<THINK>a<think>b</think>c</Think>yes", "yes", ("reasoning",)), ("a <think>b</think> c <think>d</think> yes", "yes", ("reasoning",)),
        ("<thinking>no</thinking>yes", "yes", ("reasoning",)), ("<think>no</think >yes", "yes", ("reasoning",)),
        ('<think lang="en">no< / think>yes', "yes", ("reasoning",)), ("\u25c1think\u25b7no\u25c1/think\u25b7yes", "yes", ("reasoning",)),
        ("<th\u200bink>no</think>yes", "yes", ("reasoning", "zero_width")),
        ("yes<|im_end|>", "yes", ("chat_tokens",)), ("<|im_start|>assistant\nyes<|im_end|>\n", "yes", ("chat_tokens",)),
        ("<start_of_turn>model yes<end_of_turn><eos>", "yes", ("chat_tokens",)), ("yes</s>", "yes", ("chat_tokens",)),
        ("yes<\uff5cend\u2581of\u2581sentence\uff5c>", "yes", ("chat_tokens",)), ("7<|im_end|>5", "7 5", ("chat_tokens",)),
        ("<|im_<|im_end|>end|>", "<|im_ end|>", ("chat_tokens",)),
        ("y\u200bes\ufeff", "yes", ("zero_width",)), ("<think>a</think>y\u2060es<|eot_id|>", "yes", ("reasoning", "chat_tokens", "zero_width")),
    ],
)  # fmt: skip
def test_what_is_taken_off(text: str, answer: str, taken: tuple[str, ...]) -> None:
    assert read_reply(text) == (answer, "", taken)
    output = Output("q", text=text)
    assert (output.answer, output.text) == (answer, text)


@pytest.mark.parametrize(
    "text", ["<think>", "<think>yes", "yes <think>no", "<think>a</think>yes<think>", "<think><think>a</think>b<think>"]
)
def test_a_text_cut_off_inside_its_reasoning_has_no_answer(text: str) -> None:
    assert read_reply(text)[:2] == ("", CUT_OFF)


@pytest.mark.parametrize("finish_reason", ["length", "max_tokens", "model_length"])
def test_a_text_cut_off_at_its_limit_has_the_answer_that_stands_after_its_reasoning(finish_reason: str) -> None:
    cut = [
        Output("q", text=text, finish_reason=finish_reason) for text in ("I compare the", "roofs</think>no", "<think>r")
    ]
    assert [output.answer for output in cut] == ["", "no", ""]
    assert [read_reply(str(output.text), finish_reason).problem for output in cut] == [AT_LIMIT, AT_LIMIT, CUT_OFF]
    assert Output("q", text="I compare the", finish_reason="stop").answer == "I compare the"


@pytest.mark.parametrize(
    ("prompt", "opened", "closing"),
    [
        ("assistant\n<think>\n", "<think>\n", "</think>"),
        ("assistant\n<think>\n\n</think>\n\n", "", ""),
        ("assistant\n", "", ""),
        ("\u25c1think\u25b7", "\u25c1think\u25b7", "\u25c1/think\u25b7"),
        ("<think lang='en'>", "<think lang='en'>", "</think>"),
    ],
)
def test_a_prompt_may_open_the_reasoning(prompt: str, opened: str, closing: str) -> None:
    assert (opened_reasoning(prompt), closing_tag(opened)) == (opened, closing)
    assert read_reply(f"{opened}a roof").problem == (CUT_OFF if opened else "")
    assert read_reply(f"{opened}a roof{closing}no").answer == ("no" if opened else "a roofno")


def test_predictions_that_say_they_were_cut_off_are_invalid_wherever_they_come_from(tmp_path: Path) -> None:
    asked = [replace(CASES[0][1], id=str(n), scene=str(n)) for n in range(4)]
    records: list[dict[str, Any]] = [{"id": "0", "text": "yes"}, {"id": "1", "text": "yes", "finish_reason": "stop"}]
    records += [
        {"id": "2", "text": "yes", "finish_reason": "length"},
        {"id": "3", "text": "<think>it is", "finish_reason": "length"},
    ]
    file = tmp_path / "predictions.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    from_file, problems = load_outputs(file, asked)
    in_memory, _ = pair_outputs(asked, records)
    assert not problems and from_file == in_memory
    assert [output.invalid for output in from_file] == [None, None, AT_LIMIT, AT_LIMIT]
    assert [output.text for output in from_file] == [record["text"] for record in records]
    found = run_protocol(PROTOCOLS.find("exact-qa"), Inputs(asked, from_file))
    assert found.summary["metrics"]["accuracy"]["value"] == 0.5
    assert found.summary["taken_off"]["cut_off"] == 1


def test_reasoning_with_nothing_behind_it_is_no_answer() -> None:
    assert read_reply("<think>yes</think> <|im_end|>")[:2] == ("", NOTHING_SAID)
    assert Output("q").answer is None


PARTS = st.sampled_from(
    ["<think>", "</think>", "<", "think", "/", ">", "<|", "|>", "im_end", "<|im_end|>", "<|im_start|>", "assistant", "</s>", "\u200b", "\u200d",
     " ", "yes", "<answer>", "</answer>", "\u25c1", "\u25b7", "\uff5c", "\n"]
)  # fmt: skip


@given(st.lists(PARTS, max_size=30).map("".join) | st.text())
def test_the_answer_of_an_answer_is_itself(text: str) -> None:
    answer = read_reply(text).answer
    assert read_reply(answer) == (answer, "", ())


@given(st.text(st.characters(exclude_characters="<\u25c1", exclude_categories=["Cf", "Cs"])))
def test_other_texts_are_unchanged(text: str) -> None:
    assert read_reply(text) == (text, "", ())


@given(st.text(), st.text(st.characters(codec="ascii", exclude_characters="<"), min_size=1))
def test_whatever_is_thought_the_answer_is_what_follows(thought: str, said: str) -> None:
    assert read_reply(f"<think>{thought}</think>{said}").answer == said.strip()


@pytest.mark.parametrize(
    "piece",
    [
        "<think>",
        "</think>",
        "<think></think>",
        "<|im_end|>",
        "<|",
        "<",
        "\u200b",
        "<|im_start|> ",
        "<think>\u200b<|a|>",
    ],
)
def test_a_megabyte_takes_linear_time(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    start = time.process_time()
    read_reply(text)
    assert time.process_time() - start < 2


def sample(task: Task, **reference: Any) -> Sample:
    return Sample("q", task, (), "What changed?", reference)


CASES: list[tuple[str, Sample, str, str]] = [
    ("exact_match", sample(Task.CHANGE_QA, answers=["yes"], vocabulary=["yes", "no"]), "yes", "no"),
    ("scene_label", sample(Task.CLASSIFICATION, label="forest", vocabulary=["forest", "water"]), "forest", "water"),
    ("label_set", sample(Task.CLASSIFICATION, labels=["forest", "water"]), "forest, water", "town"),
    ("numeric_match", sample(Task.CHANGE_QA, answers=["7"]), "7", "8"),
    ("change_counts", sample(Task.CHANGE_QA, answers=["2 new roads and 5 new buildings"]), "2 roads, 5 buildings", "no new roads or buildings"),
    ("grid_localization", sample(Task.CHANGE_QA, answers=["roads ['top-left'] buildings []"]), "roads [top-left] buildings []", "roads [] buildings []"),
    ("multiple_choice", sample(Task.CHANGE_QA, answers=["B"]), "B", "A"),
    ("vqa_accuracy", sample(Task.CHANGE_QA, answers=["yes"] * 10), "yes", "no"),
    ("difference_list", sample(Task.CHANGE_QA, changes=[{"object": "road", "change": "appeared"}]), "road | appeared", "none"),
    ("bleu", sample(Task.CHANGE_CAPTION, captions=["a road appears on the bareland"]), "a road appears on the bareland", "no change"),
    ("rouge_l", sample(Task.CHANGE_CAPTION, captions=["a road appears"]), "a road appears", "no change"),
    ("captions", sample(Task.CHANGE_CAPTION, captions=["a road appears"], changed=True), "a road appears", "no change"),
]  # fmt: skip


def score(name: str, asked: Sample, text: str, **config: Any) -> Score:
    extra = {"meteor": False} if name == "captions" else {}
    return build(name, {**extra, **config}).score(Batch.of([asked], [Output("q", text=text)]))[0]


@pytest.mark.parametrize(("name", "asked", "right", "wrong"), CASES, ids=[case[0] for case in CASES])
def test_verifiers_of_what_a_text_says_read_the_answer(name: str, asked: Sample, right: str, wrong: str) -> None:
    plain = score(name, asked, right)
    assert plain.value == pytest.approx(1.0)
    assert score(name, asked, right, thinking="keep") == plain
    thought = score(name, asked, f"<think>\nIt may be {wrong}.\n</think>\n\n{right}<|im_end|>")
    assert thought.value == plain.value
    assert thought.raw == {**plain.raw, "took_reasoning": 1.0, "took_chat_tokens": 1.0}
    assert score(name, asked, f"<think>{right}</think>{wrong}").value != plain.value
    if name != "grid_localization":  # whose original looks for the lists anywhere
        assert score(name, asked, f"<think>It may be {wrong}.</think> {right}", thinking="keep").value != plain.value
    cut = score(name, asked, f"<think>It is {right}")
    assert (cut.value, cut.status, cut.reason) == (0.0, Status.INVALID_OUTPUT, CUT_OFF)


def test_verifiers_of_form_read_the_whole_text() -> None:
    asked = sample(Task.CHANGE_QA, answers=["yes"])
    text = "<think>a b c</think> <answer>yes</answer>"
    assert score("answer_format", asked, text, mode="tag").value == 1.0
    assert score("answer_format", asked, text, mode="whole").status is Status.INVALID_OUTPUT
    assert score("rsw_rewards.verifiers.controls:AnswerLength", asked, text).raw["words"] == 4


def test_a_function_has_both_texts() -> None:
    def longer(sample: Sample, output: Output) -> float:
        assert output.text and output.answer
        return float(len(output.text) > len(output.answer) == 3)

    (found,) = build(longer).score(Batch.of([CASES[0][1]], [Output("q", text="<think>no</think>yes")]))
    assert found.value == 1.0


def test_what_was_taken_off_is_counted_and_said() -> None:
    texts = ["yes", "<think>a</think>yes<|im_end|>", "<think>yes", "y\u200bes", None]
    counts = taken_off([Output(str(n), text=text) for n, text in enumerate(texts)])
    assert counts == {"texts": 4, "reasoning": 2, "chat_tokens": 1, "zero_width": 1, "cut_off": 1}
    (said,) = more_than_answers(Evidence([], summary={"taken_off": counts}))
    assert "of 4 texts, 2 hold reasoning" in said and "1 are cut off" in said and "thinking: keep" in said
    plain = taken_off([Output("q", text="yes")])
    assert list(more_than_answers(Evidence([], summary={"taken_off": plain}))) == []


def test_an_evaluation_strips_counts_and_can_keep() -> None:
    asked = [replace(CASES[0][1], id=str(n), scene=str(n)) for n in range(4)]
    outputs = [Output(str(n), text=f"<think>no {n}</think>yes") for n in range(4)]
    protocol = PROTOCOLS.find("exact-qa")
    found = run_protocol(protocol, Inputs(asked, outputs))
    assert found.summary["metrics"]["accuracy"]["value"] == 1.0
    assert found.summary["taken_off"] == {"texts": 4, "reasoning": 4, "chat_tokens": 0, "zero_width": 0, "cut_off": 0}
    assert any("4 hold reasoning" in words for words in found.summary["warnings"])
    kept = run_protocol(protocol.configured({"exact_match.thinking": "keep"}), Inputs(asked, outputs))
    assert kept.summary["metrics"]["accuracy"]["value"] == 0.0
