"""Protocols of answers as the published code of benchmarks reads them: one row a benchmark, lenient or odd as the original is.

Each stands beside a strict protocol, and its table shows what outputs that know nothing earn under it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from rsw_rewards.core.records import Task
from rsw_rewards.evaluation.protocols.protocol import Protocol

_LETTERS = ("empty", "majority", "all_labels", "oracle")
_WORDS = ("empty", "majority", "blind", "all_labels", "oracle")
_VARIANTS = ("majority", "all_variants", "consistency")
THREE_TYPES = ("presence", "comp", "rural_urban")
XLRS_SUBTASKS = 13


class Row(NamedTuple):
    """One published reading."""

    name: str
    title: str
    source: str
    strict: str
    """The strict protocol of the same answers."""
    notes: tuple[str, ...]
    config: dict[str, Any]
    """Of ``published_answer``; the reading is the name of the protocol where none is named."""
    headline: tuple[str, ...] = ("oa", "aa")
    baselines: tuple[str, ...] = _WORDS
    task: Task = Task.CHANGE_QA


ROWS = (
    Row(
        "geobench-vlm", "GEOBench-VLM: the first character, over five prompts",
        "The-AI-Alliance/GEO-Bench-VLM@bd07b00 eval_geobenchvlm/qwen_cls_single.py asks every prompt and keeps all answers; it has no scorer",
        "multiple-choice",
        (
            "oa is the mean over prompts, majority takes the most common letter of each question: the repository does not say which is printed.",
            "The prompts of a question are samples whose ids differ behind their last '#'.",
        ),
        {"variants": True}, ("oa", "aa", *_VARIANTS), _LETTERS,
    ),
    Row(
        "choice-original", "CHOICE: a cascade that ends in words of the true option",
        "ShawnAn-WHU/CHOICE@eb6c430 ms-swift/infer_vlm/evaluator.py general_evaluater",
        "multiple-choice",
        ("An empty text is part of every option and counts as right. The paper's other reading asks a language model.",),
        {"reading": "choice"}, baselines=_LETTERS,
    ),
    Row(
        "mme-realworld", "MME-RealWorld: the first capital from A to E",
        "EvolvingLMMs-Lab/lmms-eval@75571cf lmms_eval/tasks/mme_realworld/utils.py extract_characters_regex",
        "multiple-choice",
        ("An empty text reads A, as does 'An aerial view'. The remote sensing part is the subtask of that name.",),
        {}, ("oa",), _LETTERS,
    ),
    Row(
        "xlrs-bench", "XLRS-Bench: the set of all letters",
        "EvolvingLMMs-Lab/lmms-eval@75571cf lmms_eval/tasks/xlrs/mcq_utils.py",
        "multiple-choice",
        (
            "oa is its micro and aa its macro score; the latter divides by 13 subtasks, so that subtasks without a sample count 0.",
            "Letters inside words count where no letter stands in brackets.",
        ),
        {"reading": "xlrs", "aa_divisor": XLRS_SUBTASKS}, baselines=_LETTERS,
    ),
    Row(
        "monitrs", "MONITRS-QA: the first character",
        "ShreelekhaR/MONITRS@9811154 Evaluate/eval.py calculate_accuracy_mcq",
        "multiple-choice",
        ("'Absolutely not' reads A. McNemar's test between two runs: rsw compare.",),
        {}, ("oa",), _LETTERS,
    ),
    Row(
        "earthmind", "EarthMind-Bench, multiple choice: equal texts, samples without an output left out",
        "shuyansy/EarthMind@e6dcbbf projects/llava_sam2/evaluation/evaluate_earthmindbench_mcq.py",
        "multiple-choice",
        ("Samples without an output are left out, so that answering few can only help: read it beside answered.",),
        {}, ("oa", "answered"), _LETTERS,
    ),
    Row(
        "earthmind-hrben", "RSVQA-HR as EarthMind scores it: presence and comp",
        "shuyansy/EarthMind@e6dcbbf projects/llava_sam2/evaluation/evaluate_hrben.py",
        "rsvqa-hr",
        ("Samples without an output are left out: read it beside answered. The questions are those of the split test_phili.",),
        {"only_kinds": ("presence", "comp"), "metric_kinds": ("presence", "comp")},
        ("oa/presence", "oa/comp", "answered"),
    ),
    Row(
        "teochat-keywords", "TEOChat's questions on xBD: a keyword in both texts",
        "ermongroup/TEOChat@2ed7387 videollava/eval/classification.py with the keywords of detection.py",
        "exact-qa",
        ("'no' is part of 'unknown', and 'center' of 'top center'. A task without any hit is absent from TEOChat's output, here it is 0.",),
        {}, ("oa", "aa"),
    ),
    Row(
        "earthdial-labels", "EarthDial's labels: shared tokens, without blanks",
        "hiyamdebary/EarthDial@92c1260 src/earthdial/eval/rs_classification/eval.py evaluate_f1",
        "scene-classification",
        ("Credit is the share of the label's tokens that the answer has: more words never cost anything.",),
        {"reading": "earthdial"}, ("oa",), ("empty", "majority", "all_labels", "oracle"), Task.CLASSIFICATION,
    ),
    Row(
        "earthdial-vqa", "RSVQA as EarthDial scores it: three types, shared tokens",
        "hiyamdebary/EarthDial@92c1260 src/earthdial/eval/rs_vqa/eval.py",
        "rsvqa-three-types",
        ("Counts and areas are left out. Saying 'yes,no' is right for every such question.",),
        {"reading": "earthdial", "only_kinds": THREE_TYPES, "metric_kinds": THREE_TYPES},
        ("aa", *(f"oa/{kind}" for kind in THREE_TYPES)),
    ),
    Row(
        "lrs-vqa", "LRS-VQA: equal words or near ones of WordNet",
        "VisionXLab/LRS-VQA@1b3b6cd Script/evaluation_LRSVQA.py",
        "exact-qa",
        (
            "Tables are per source (FAIR, Bridge, STAR): convert one with --split. aa is the mean over categories.",
            "It needs pip install 'rsw_rewards[wordnet]' and WordNet itself; --set published_answer.reading=lower does without synonyms.",
        ),
        {},
    ),
    Row(
        "earthvqa", "EarthVQA: overall accuracy, and the error of counts",
        "Junjue-Wang/EarthVQA@d043845 utils/metric.py, called by train_earthvqa.py with counts and tenths as classes 0 to 16",
        "exact-qa",
        (
            "rmse is over classes of answers, those of reasoning-based counts times 10/7. A perfect rmse is 0, where the original prints None.",
            "Answers that are no count are left out of rmse; the original takes the place of any other answer in its own list.",
        ),
        {}, ("oa", "aa", "rmse", "rmse/basic", "rmse/reasoning"), ("empty", "majority", "blind", "all_labels", "oracle"),
    ),
)  # fmt: skip
"""The published readings."""


def _protocol(row: Row) -> Protocol:
    return Protocol(
        name=row.name,
        title=row.title,
        task=row.task,
        source=row.source,
        components=({"use": "published_answer", "config": {"reading": row.name, **row.config}},),
        headline=row.headline[:6],
        diagnostic=row.headline[6:],
        baselines=row.baselines,
        notes=(*row.notes, f"A published reading beside the strict protocol {row.strict}; it rewards nothing."),
        lenient=True,
    )


PROTOCOLS = (
    *map(_protocol, ROWS),
    Protocol(
        name="rsvqa-three-types",
        title="RSVQA, low resolution, mean over presence, comparison and rural or urban",
        task=Task.CHANGE_QA,
        source="the mean that tables after GeoChat print (UniRS, arXiv 2412.20742, and others); no code of it was found",
        components=({"use": "exact_match", "config": {"only_kinds": THREE_TYPES, "metric_kinds": THREE_TYPES}},),
        headline=("aa", *(f"oa/{kind}" for kind in THREE_TYPES)),
        diagnostic=("oa",),
        baselines=("majority", "constant", "blind", "oracle"),
        notes=("aa is the mean of three accuracies. Counts are left out, so it stands beside no aa of rsvqa-lr.",),
    ),
    Protocol(
        name="prompt-variants",
        title="Multiple choice asked in several wordings: accuracy and consistency",
        task=Task.CHANGE_QA,
        source="consistency over paraphrases as in OmniEarth (no code of it was found); see the card of multiple_choice",
        components=({"use": "multiple_choice", "config": {"variants": True}},),
        headline=("accuracy", *_VARIANTS),
        baselines=("majority", "constant", "blind", "oracle"),
        notes=(
            "The wordings of a question are samples whose ids differ behind their last '#'.",
            "consistency alone is pleased by a constant answer: read it beside accuracy and the constant row.",
            "A policy with send_images: false is shown no image: its run tells what the questions give away.",
        ),
    ),
)
