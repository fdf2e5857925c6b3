"""Protocols of questions whose answer is checked strictly."""

from __future__ import annotations

from collections.abc import Iterable

from rsw_rewards.core.records import Task
from rsw_rewards.data.cdvqa import KINDS as CDVQA_KINDS
from rsw_rewards.evaluation.protocols.protocol import Protocol
from rsw_rewards.verifiers.counts import ERROR_KEYS
from rsw_rewards.verifiers.localization import GRID_KEYS

ANSWER_BASELINES = ("majority", "constant", "blind", "oracle")

CDVQA_MERGED = {"change_ratio_types": "change_ratio"}
CDVQA_KINDS_7 = tuple(kind for kind in CDVQA_KINDS if kind not in CDVQA_MERGED)
RSVQA_LR_KINDS = ("rural_urban", "presence", "count", "comp")
RSVQA_HR_KINDS = ("area", "presence", "count", "comp")

_CDVQA = "Yuan et al. 2022 (arXiv 2112.06343), github.com/YZHJessica/CDVQA"
_RSVQA = "Lobry et al. 2020 (arXiv 2003.07333), github.com/syvlo/RSVQA VQA_model/VocabEncoder.py"
_DELTAVLM = "Deng et al. 2025 (arXiv 2507.22346), github.com/hanlinwu/DeltaVLM"
_LEFT_OUT = "mae and rmse leave out answers that hold no number: compare them only at equal valid_rate."


def _of_kinds(kinds: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"oa/{kind}" for kind in kinds)


PROTOCOLS = (
    Protocol(
        name="exact-qa",
        title="Questions with one right answer",
        task=Task.CHANGE_QA,
        source="strict equality with a true answer; see the card of exact_match",
        components=({"use": "exact_match"},),
        headline=("accuracy",),
        baselines=ANSWER_BASELINES,
    ),
    Protocol(
        name="numeric-qa",
        title="Questions with a number as answer",
        task=Task.CHANGE_QA,
        source="see the card of numeric_match; mra as in VSI-Bench (arXiv 2412.14171)",
        components=({"use": "numeric_match"},),
        headline=("accuracy", "mae", "rmse", "mra"),
        diagnostic=("valid_rate",),
        baselines=ANSWER_BASELINES,
        notes=(_LEFT_OUT,),
    ),
    Protocol(
        name="cdvqa",
        title="CDVQA: change detection visual question answering",
        task=Task.CHANGE_QA,
        source=f"{_CDVQA}; accuracy over all questions and mean over the eight types",
        components=({"use": "exact_match", "config": {"metric_kinds": CDVQA_KINDS}},),
        headline=("oa", "aa"),
        diagnostic=_of_kinds(CDVQA_KINDS),
        baselines=ANSWER_BASELINES,
        notes=("aa is the mean over the types that the samples have; papers that fold two types are under cdvqa-7.",),
    ),
    Protocol(
        name="cdvqa-7",
        title="CDVQA with seven types: change_ratio_types counts as change_ratio",
        task=Task.CHANGE_QA,
        source=f"{_CDVQA}, tables of seven types",
        components=({"use": "exact_match", "config": {"merge_kinds": CDVQA_MERGED, "metric_kinds": CDVQA_KINDS_7}},),
        headline=("oa", "aa"),
        diagnostic=_of_kinds(CDVQA_KINDS_7),
        baselines=ANSWER_BASELINES,
        notes=("oa is that of cdvqa; aa is not, since two types are one. Slices are by the eight types.",),
    ),
    Protocol(
        name="cdvqa-vista",
        title="CDVQA as VisTA's script prints it",
        task=Task.CHANGE_QA,
        source="github.com/like413/VisTA VisTA/test.py (arXiv 2410.23828)",
        components=(
            {
                "use": "exact_match",
                "config": {"merge_kinds": CDVQA_MERGED, "aa_divisor": 8, "aa_epsilon": 1e-4, "kappa": True},
            },
        ),
        headline=("oa", "aa", "kappa"),
        slices=False,
        baselines=ANSWER_BASELINES,
        notes=(
            "aa sums the accuracies of seven types and divides by 8, so that a perfect model has 0.875; use cdvqa-7 for more.",
            "kappa is Cohen's, between given and true answers; an invalid answer is a category of its own.",
        ),
    ),
    Protocol(
        name="rsvqa-lr",
        title="RSVQA, low resolution: counts in the official ranges",
        task=Task.CHANGE_QA,
        source=_RSVQA,
        components=({"use": "numeric_match", "config": {"ranges": "rsvqa", "metric_kinds": RSVQA_LR_KINDS}},),
        headline=("oa", "aa"),
        diagnostic=(*_of_kinds(RSVQA_LR_KINDS), "valid_rate"),
        baselines=ANSWER_BASELINES,
        notes=(
            "A count is right in its range: 0, 1 to 10, 11 to 100, 101 to 1000, more. Zero is a range of its own.",
            "Papers after GeoChat leave out counts: their means are over fewer kinds and stand beside no oa or aa here.",
        ),
    ),
    Protocol(
        name="rsvqa-hr",
        title="RSVQA, high resolution: counts as they are, areas in the official ranges",
        task=Task.CHANGE_QA,
        source=_RSVQA,
        components=(
            {
                "use": "numeric_match",
                "config": {"ranges": "rsvqa", "range_numbers": False, "metric_kinds": RSVQA_HR_KINDS},
            },
        ),
        headline=("oa", "aa"),
        diagnostic=(*_of_kinds(RSVQA_HR_KINDS), "valid_rate"),
        baselines=ANSWER_BASELINES,
        notes=(
            "An area is right in its range: 0m2, up to 10m2, up to 100m2, up to 1000m2, more. Counts must be exact.",
            "Papers after GeoChat leave out counts and areas: their means stand beside no oa or aa here.",
        ),
    ),
    Protocol(
        name="vqa-v2",
        title="VQA accuracy over ten annotators",
        task=Task.CHANGE_QA,
        source="Goyal et al. 2017 (arXiv 1612.00837), github.com/GT-Vision-Lab/VQA vqaEval.py",
        components=({"use": "vqa_accuracy"},),
        headline=("accuracy",),
        baselines=ANSWER_BASELINES,
        notes=(
            "Answers are normalised only where annotators disagree: 'Yes!' is wrong beside ten times 'yes'.",
            "The oracle gives the annotators' most common answer; where they are divided, that is below 1.",
            "An empty text is invalid, also where an annotator's answer normalises to nothing.",
        ),
    ),
    Protocol(
        name="vsi-mra",
        title="Mean relative accuracy, as VSI-Bench reads and counts it",
        task=Task.CHANGE_QA,
        source="VSI-Bench (arXiv 2412.14171), github.com/vision-x-nyu/thinking-in-space",
        components=({"use": "numeric_match", "config": {"reading": "first_token", "reward": "mra"}},),
        headline=("mra",),
        diagnostic=("valid_rate",),
        baselines=ANSWER_BASELINES,
        notes=(
            "Only what precedes the first blank is read: 'about 10' and '4,' count 0, as an answer without a number does.",
            "A true zero, by which VSI-Bench would divide, gives 1 to a predicted zero and 0 to anything else.",
        ),
    ),
    Protocol(
        name="multiple-choice",
        title="Multiple choice by letter, set of letters or option",
        task=Task.CHANGE_QA,
        source="exact match of letters as in XLRS-Bench (arXiv 2503.23771); see the card of multiple_choice",
        components=({"use": "multiple_choice"},),
        headline=("accuracy", "aa"),
        baselines=ANSWER_BASELINES,
        notes=(
            "aa is the mean over kinds of question.",
            "Answers are read strictly: scripts that pick letters out of sentences print higher numbers for the same texts.",
        ),
    ),
    Protocol(
        name="teochat-exact",
        title="Exact answers as TEOChat compares them",
        task=Task.CHANGE_QA,
        source="Irvin et al. 2024 (arXiv 2410.06234), github.com/ermongroup/TEOChat videollava/eval/classification.py",
        components=(
            {"use": "exact_match", "config": {"reading": "unpunctuated", "extract": "whole", "vocabulary": ()}},
        ),
        headline=("accuracy", "aa"),
        baselines=ANSWER_BASELINES,
        notes=(
            "Lower case without ASCII punctuation, then equality: hyphens and underscores go, blanks stay as they are.",
        ),
    ),
    Protocol(
        name="changechat-binary",
        title="ChangeChat: has anything changed?",
        task=Task.CHANGE_QA,
        source=f"{_DELTAVLM} scripts/test-cls.ipynb",
        components=({"use": "exact_match", "config": {"positive": "yes", "vocabulary": ("yes", "no")}},),
        headline=("accuracy", "precision", "recall", "f1"),
        slices=False,
        baselines=ANSWER_BASELINES,
        notes=(
            "precision, recall and f1 are of 'yes, changed', and 0 where nothing is divided by.",
            "An answer that is neither yes nor no counts as the wrong one of the two.",
        ),
    ),
    Protocol(
        name="changechat-count",
        title="ChangeChat: how many roads and buildings are new?",
        task=Task.CHANGE_QA,
        source=f"{_DELTAVLM} scripts/test-count.ipynb",
        components=({"use": "change_counts"},),
        headline=("mae", "rmse", "accuracy"),
        diagnostic=(*(key for key in ERROR_KEYS if key not in ("mae", "rmse")), "valid_rate"),
        slices=False,
        baselines=ANSWER_BASELINES,
        notes=(
            _LEFT_OUT,
            "mae and rmse without a class are over the counts of both; DeltaVLM prints them per class.",
            "A sentence that cannot be read is invalid, where DeltaVLM's script stops.",
        ),
    ),
    Protocol(
        name="changechat-localization",
        title="ChangeChat: which cells of a 3 x 3 grid have changed?",
        task=Task.CHANGE_QA,
        source=f"{_DELTAVLM} scripts/test-loc.ipynb",
        components=({"use": "grid_localization"},),
        headline=("jaccard", "micro_f1", "subset_accuracy"),
        diagnostic=(*(key for key in GRID_KEYS if key not in ("jaccard", "micro_f1", "subset_accuracy")), "valid_rate"),
        slices=False,
        baselines=ANSWER_BASELINES,
        notes=(
            "jaccard is DeltaVLM's, where two empty lists count 0: even the truth stays below 1. jaccard_empty1 counts them 1.",
            "hamming is a loss. Numbers without a class are over the 18 labels of both; DeltaVLM prints them per class.",
            "An answer that cannot be read counts as the opposite of the truth.",
        ),
    ),
)
