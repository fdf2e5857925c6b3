"""Readings of published code against that code, on answers made to tell them apart and on real ones; and what tricks earn."""

from __future__ import annotations

import ast
import json
import math
import random
import re
import string
from collections import Counter
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rsw_rewards as rsw
from rsw_rewards.data.question_lists import options_in
from rsw_rewards.verifiers import readings
from rsw_rewards.verifiers.choices import read_choice
from tests.originals import parts, text

WORDS = [
    "", " ", "A", "B", "b", " C", "D.", "E", "A.", "(B)", "[C]", "**D**", "a road", "B. a road", "A B", "AC", "C, A", "(a) and (C)", "The answer is B",
    "The answer", "answer", "Answer: none", "could be A or C", "would be\nD", "Correct option", "The best option isThe correct option is B",
    "Best answer: C", "An aerial view of a Big lake", "no capital here at all but more than ten words in one line of text", "(b", "a)", ")", "road.",
    "two words", "I think Answer may be B, answer A", "unknown", "X", "F", "Ä", "A\nB", "\tB", "The The answer is answer is A", "the_dam", "U.S. road",
    "It is not so sure that one two three four five six seven eight nine ten", "Absolutely", "<|end|>A", "A<|end|>", "\U0001d400", "none", "cannot",
]  # fmt: skip
OPTIONS = ("a road", "U.S. bridge", "the_dam of D", "no change.at all")
LMMS = ("EvolvingLMMs-Lab/lmms-eval", "75571cfe")


def texts(seed: int = 0, count: int = 2000) -> list[str]:
    """The words above, and as many made of pieces of them."""
    chance = random.Random(seed)
    pieces = [*WORDS, *string.ascii_letters, ".", " ", "\n", ",", "(", ")"]
    return WORDS + ["".join(chance.choices(pieces, k=chance.randint(1, 6))) for _ in range(count)]


def test_choice() -> None:
    original = parts(
        "ShawnAn-WHU/CHOICE", "eb6c430", "ms-swift/infer_vlm/evaluator.py", "AccEvaluator", re=re, print=lambda *_: None
    )
    theirs = original.AccEvaluator("", "")
    query = "Which?\n" + "\n".join(f"{letter}.{option}" for letter, option in zip("ABCD", OPTIONS, strict=True))
    for letter in "ABCD":
        label = theirs.extract_full_option(query, letter)
        for one in texts():
            assert readings.cascade(one, letter, OPTIONS).credit == theirs.general_evaluater(one, label), (one, letter)


REAL = (
    "perception/cross_instance_discerment/change_detection", "perception/image_level_comprehension/scene_classification",
    "perception/single_instance_identification/object_counting", "reasoning/attribute_reasoning/time_property",
)  # fmt: skip


@pytest.mark.parametrize("task", REAL)
def test_choice_on_what_qwen2_vl_said(task: str) -> None:
    where = ("ShawnAn-WHU/CHOICE", "eb6c430")
    original = parts(*where, "ms-swift/infer_vlm/evaluator.py", "AccEvaluator", re=re, print=lambda *_: None)
    rows = json.loads(text(*where, f"ms-swift/infer_vlm/CHOICE_output/qwen2_vl_7b_instruct/{task}.json"))
    theirs = original.AccEvaluator("", "")
    assert len(rows) > 10
    for row in rows:
        _, options = options_in(row["query"])
        right = theirs.general_evaluater(row["response"], theirs.extract_full_option(row["query"], row["label"]))
        assert readings.cascade(row["response"], row["label"], options).credit == right, row["response"]


def test_mme_realworld() -> None:
    original = parts(*LMMS, "lmms_eval/tasks/mme_realworld/utils.py", "extract_characters_regex", "mme_realworld_aggregate_results", "TASKS", "SUBTASKS",
                     re=re, eval_logger=SimpleNamespace(info=lambda *_: None))  # fmt: skip
    made = texts()
    rows = []
    for number, one in enumerate(made):
        letter = "ABCDE"[number % 5]
        read = readings.first_capital(one, letter)
        assert read.answer == original.extract_characters_regex(one), one
        rows.append({"category": "Perception", "sub_category": "Remote Sensing", "task_category": "count", "answer": letter,
                     "pred_answer": original.extract_characters_regex(one)})  # fmt: skip
    found = sum(readings.first_capital(one, "ABCDE"[number % 5]).credit for number, one in enumerate(made)) / len(made)
    assert found == pytest.approx(original.mme_realworld_aggregate_results(rows), abs=1e-12)


def test_xlrs_bench() -> None:
    given = {"re": re, "eval_logger": SimpleNamespace(info=lambda *_: None)}
    original = parts(
        *LMMS,
        "lmms_eval/tasks/xlrs/mcq_utils.py",
        "extract_characters_regex",
        "xlrs_aggregate_results",
        "TASK_PAIRs",
        **given,
    )
    assert len(original.TASK_PAIRs) == 13
    rows = []
    for number, one in enumerate(texts()):
        true, subtask = ("A", "AC", "BDE", "D")[number % 4], original.TASK_PAIRs[number % 9]
        read = readings.any_letters(one, true)
        assert set(read.answer) == set(original.extract_characters_regex(one)), one
        task, sub = subtask.split("/")
        rows.append({"category": task, "sub_category": sub, "task_category": subtask, "answer": true,
                     "pred_answer": original.extract_characters_regex(one)})  # fmt: skip
    kinds = [original.TASK_PAIRs[number % 9] for number in range(len(rows))]
    found = through("xlrs-bench", texts(), [("A", "A, C", "B, D, E", "D")[n % 4] for n in range(len(rows))], kinds)
    assert found["oa"] == pytest.approx(original.xlrs_aggregate_results(rows), abs=1e-12)
    assert found["aa"] == pytest.approx(original.xlrs_aggregate_results(rows, macro=True), abs=1e-12)


def test_monitrs() -> None:
    original = parts(
        "ShreelekhaR/MONITRS", "9811154", "Evaluate/eval.py", "calculate_accuracy_mcq", print=lambda *_: None
    )
    made = texts()
    rows = {str(n): {"predicted": one, "ground_truth": f"{'ABCD'[n % 4]}) x"} for n, one in enumerate(made)}
    theirs, right = original.calculate_accuracy_mcq(rows)
    assert [readings.first_of_all(one, "ABCD"[n % 4]).credit for n, one in enumerate(made)] == [
        float(one) for one in right
    ]
    found = through("monitrs", made, ["ABCD"[n % 4] for n in range(len(made))])
    assert found["oa"] == pytest.approx(theirs / 100, abs=1e-12)


def test_teochat() -> None:
    original = parts("ermongroup/TEOChat", "2ed7387", "videollava/eval/classification.py", "classification_metrics", "get_string_cleaner",
                     string=string, Counter=Counter, print=lambda *_: None)  # fmt: skip
    listed = re.search(r"keywords=(\[.*?\])", text("ermongroup/TEOChat", "2ed7387", "videollava/eval/detection.py"))
    assert listed is not None
    words = json.loads(listed[1])
    truths = ["yes", "no", "top left", "center", "top center, bottom right", "No.", "rural"]
    made = [*texts(1), "the top-center", "yes, I know", "Center Left", "unknown", "bottom right"]
    for true in truths:
        rows = [{"response": one, "ground_truth": true, "task": str(n)} for n, one in enumerate(made)]
        theirs = original.classification_metrics(rows, keywords=words)
        for number, one in enumerate(made):
            assert readings.keywords(one, true).credit == theirs.get(f"{number}_accuracy", 0.0), (one, true)


def test_earthmind() -> None:
    original = parts(
        "shuyansy/EarthMind", "e6dcbbf", "projects/llava_sam2/evaluation/evaluate_hrben.py", "compute_accuracy"
    )
    said: list[str | None] = ["yes", " Yes.", "n o", None, "no", "yes it is", "", None, "No"]
    true = ["yes", "yes", "no", "no", "yes", "yes", "no", "yes", "no"]
    plain = [None if one is None else one.strip().lower().replace(" ", "").replace(".", "") for one in said]
    accuracy, _, total, _ = original.compute_accuracy(
        {n: one for n, one in enumerate(plain) if one is not None}, dict(enumerate(true))
    )
    found = through("earthmind-hrben", said, true, ["presence"] * 9)
    assert found["oa/presence"] == pytest.approx(accuracy, abs=1e-12)
    assert found["answered"] == pytest.approx(total / 9, abs=1e-12)
    # One right answer and nothing else is a perfect score.
    assert through("earthmind", ["A", None, None], ["A", "B", "C"]) == {"oa": 1.0, "answered": pytest.approx(1 / 3)}


def test_earthdial_on_its_own_results() -> None:
    nltk = pytest.importorskip("nltk", reason="needs the extra wordnet")
    tokenized = partial(nltk.tokenize.word_tokenize, preserve_line=True)
    place = "src/earthdial/eval"
    original = parts(
        "hiyamdebary/EarthDial", "92c1260", f"{place}/rs_classification/eval.py", "evaluate_f1", word_tokenize=tokenized
    )
    for true in ("MediumResidential", "Storage Tanks", "baseball-field", "U.S. dam", "yes"):
        for one in texts(2):
            assert readings.shared_tokens(one, true).credit == original.evaluate_f1(true, one), (one, true)
    assert readings.shared_tokens("yes,no", "no").credit == 1.0  # whatever is listed is found
    lines = text("hiyamdebary/EarthDial", "92c1260", f"{place}/rs_classification/results/AID.jsonl").splitlines()
    rows = [json.loads(line) for line in lines]
    lenient = [readings.shared_tokens(row["answer"], row["annotation"]).credit for row in rows]
    assert lenient == [original.evaluate_f1(row["annotation"], row["answer"]) for row in rows]
    strict = [row["answer"].strip().lower() == row["annotation"].lower() for row in rows]
    assert round(sum(lenient) / len(rows), 3) == 0.885 and round(sum(strict) / len(rows), 3) == 0.688


def test_lrs_vqa() -> None:
    wordnet = pytest.importorskip("nltk.corpus", reason="needs the extra wordnet").wordnet
    try:
        wordnet.ensure_loaded()
    except LookupError:
        pytest.skip("needs WordNet; run: python -m nltk.downloader wordnet")
    original = parts("VisionXLab/LRS-VQA", "1b3b6cd", "Script/evaluation_LRSVQA.py", "are_synonyms", wn=wordnet)
    words = [
        "yes",
        "no",
        "car",
        "automobile",
        "auto",
        "ship",
        "boat",
        "grey",
        "gray",
        "one",
        "1",
        "bridge",
        "span",
        "",
        "two words",
        "Road",
        "route",
    ]
    for true in filter(None, words):
        for one in words:
            theirs = true.lower() == one.lower() or original.are_synonyms(true.lower(), one.lower())
            assert readings.synonyms(one, true).credit == theirs, (one, true)


def test_earthvqa() -> None:
    where = ("Junjue-Wang/EarthVQA", "d043845")
    original = parts(*where, "utils/metric.py", "VQA_OA_Metric", "Count_RMSE_Metric", "get_mse", "get_rmse",
                     np=np, math=math, pt=None)  # fmt: skip
    listed = re.search(r"ANSWER_VOC = (\[.*?\])\n", text(*where, "data/earthvqa.py"))
    assert listed is not None
    vocabulary = [str(one) for one in ast.literal_eval(listed[1])]
    chance = random.Random(3)
    kinds = ["Basic Judging", "Reasoning-based Judging", "Basic Counting", "Reasoning-based Counting"]
    asked = [kinds[n % 4] for n in range(400)]
    true = [chance.choice(vocabulary[:17] if "Counting" in kind else ["Yes", "No"]) for kind in asked]
    said = [chance.choice(vocabulary[:17] if "Counting" in kind else ["Yes", "No", "yes"]) for kind in asked]
    counted = [n for n, kind in enumerate(asked) if kind in kinds[2:]]
    given, wanted = (np.array([vocabulary.index(answers[n]) for n in counted]) for answers in (said, true))
    count = original.Count_RMSE_Metric(kinds[2:], uper_cls_idx=17)
    count(given, wanted, [asked[n] for n in counted])
    scale = [1, 10 / 7]
    both = [([v * s for v in g], [v * s for v in p]) for g, p, s in zip(count.gts, count.preds, scale, strict=True)]
    found = through("earthvqa", said, true, asked)
    assert found["rmse/basic"] == pytest.approx(original.get_rmse(*both[0]), abs=1e-12)
    assert found["rmse/reasoning"] == pytest.approx(original.get_rmse(*both[1]), abs=1e-12)
    assert found["rmse"] == pytest.approx(
        original.get_rmse(both[0][0] + both[1][0], both[0][1] + both[1][1]), abs=1e-12
    )
    matched = original.VQA_OA_Metric(kinds)
    matched(np.array(said), np.array(true), asked)
    assert found["oa"] == pytest.approx(sum(matched.cls_true_num) / sum(matched.cls_total_num), abs=1e-12)


def through(
    protocol: str, said: list[str] | list[str | None], true: list[str], kinds: list[str] | None = None
) -> dict[str, float]:
    """The headline of a protocol over answers; None is an answer that is missing."""
    names = [f"q{number}" for number in range(len(said))]
    samples = [
        {"id": name, "task": "change_qa", "kind": kind, "reference": {"answers": [answer]}}
        for name, answer, kind in zip(names, true, kinds or [None] * len(said), strict=True)
    ]
    outputs = [{"id": name, "text": one} for name, one in zip(names, said, strict=True) if one is not None]
    found = rsw.evaluate(protocol, samples, outputs)
    return {key: entry.value for key, entry in found.metrics.items() if not key.startswith("value")}


def test_what_knows_nothing_earns_under_the_original_and_nothing_under_ours() -> None:
    letters, options = ["A", "B", "C", "D"] * 3, list(OPTIONS)
    samples = [
        {"id": f"q{n}", "task": "change_qa", "reference": {"answers": [letter], "choices": options}}
        for n, letter in enumerate(letters)
    ]
    earned = {
        protocol: {
            name: row["metrics"]["oa" if protocol != "multiple-choice" else "accuracy"]["value"]
            for name, row in rsw.evaluate(protocol, samples, letters).summary["baselines"].items()
            if row["metrics"]
        }
        for protocol in ("choice-original", "mme-realworld", "xlrs-bench", "monitrs", "geobench-vlm", "multiple-choice")
    }
    assert {protocol: rows.get("empty") for protocol, rows in earned.items()} == {
        "choice-original": 1.0, "mme-realworld": 0.25, "xlrs-bench": 0.0, "monitrs": 0.0, "geobench-vlm": 0.0, "multiple-choice": None,
    }  # fmt: skip
    assert earned["mme-realworld"]["all_labels"] == earned["monitrs"]["all_labels"] == 0.25
    assert all(rows["oracle"] == 1.0 for rows in earned.values())


def test_the_wordings_of_a_question_are_one_question() -> None:
    said = ["A", "A", "B", "C", "C", "C", "B", "B", "B", "no letter"]
    samples = [
        {
            "id": f"q{n // 3}#{n % 3}" if n < 9 else "alone",
            "task": "change_qa",
            "reference": {"answers": ["AAABCCBBBA"[n] if n != 3 else "C"]},
        }
        for n in range(10)
    ]
    found = rsw.evaluate("prompt-variants", samples, said).metrics
    assert {key: found[key].value for key in ("accuracy", "majority", "all_variants", "consistency")} == {
        "accuracy": 0.8, "majority": 0.75, "all_variants": 0.5, "consistency": 0.75,
    }  # fmt: skip


@pytest.mark.parametrize(
    "said",
    [
        "**B**",
        "\\boxed{B}",
        "$\\boxed{\\text{B}}$",
        "[B]",
        "The answer is **B**.",
        "**(B)** water",
        "`B`",
        "__b__",
        "**B) water**",
    ],
)
def test_a_letter_in_bold_a_box_or_square_brackets_is_that_letter(said: str) -> None:
    question = {"answers": ["B"], "choices": ["land", "water"]}
    assert rsw.score("multiple_choice", output=said, reference=question, task="change_qa").value == 1.0, said


@pytest.mark.parametrize(
    "said", ["**A** or **B**", "[A], [B]", "\\boxed{A} \\boxed{B}", "**B** is wrong", "not **B**", "**B** land", "[B"]
)
def test_marks_hide_no_other_letter(said: str) -> None:
    question = {"answers": ["B"], "choices": ["land", "water"]}
    assert rsw.score("multiple_choice", output=said, reference=question, task="change_qa").value == 0.0, said


def test_a_truth_that_the_reading_cannot_use_is_an_error_for_every_output() -> None:
    for reading, reference in [
        ("choice", {"answers": ["A"]}),  # without the options
        ("choice", {"answers": ["E"], "choices": list(OPTIONS)}),
        ("monitrs", {"answers": ["perhaps"]}),
        ("earthmind", {"answers": [" "]}),
        ("earthmind", {}),
    ]:
        found = [
            rsw.score("published_answer", one, reference=reference, task="change_qa", reading=reading)
            for one in ("A", "")
        ]
        assert [one.status for one in found] == ["error", "error"], (reading, reference)


@given(st.text(max_size=60))
def test_no_text_breaks_a_reading(said: str) -> None:
    for name, reading in readings.READINGS.items():
        if not reading.library:
            assert 0 <= reading.read(said, "B", OPTIONS).credit <= 1, name
    read_choice(said)
