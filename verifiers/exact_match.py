"""The strict ``exact_match`` verifier of answers and labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from rsw_rewards.core.metric import Metric
from rsw_rewards.core.records import Sample, Task
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card
from rsw_rewards.verifiers.answer_metrics import ACCURACY, DETECTION, AnswerKappa, KindAccuracy, PromptVariants
from rsw_rewards.verifiers.answers import (
    AnswerConfig,
    AnswerVerifier,
    Truth,
    answer_truth,
    rules_of,
    texts_of,
    true_answers,
)


class ExactMatch(AnswerVerifier):
    """1 for the right answer and nothing else beside it, otherwise 0."""

    name = "exact_match"
    tasks = frozenset({Task.CHANGE_QA, Task.CLASSIFICATION})
    card = Card(
        summary="1 if the normalised answer equals a true answer. If there is a vocabulary, the answer must be one of its "
        "entries.",
        range="correct: 0 or 1",
        transform="none",
        source="accuracy as in RSVQA (arXiv 2003.07333) and CDVQA (arXiv 2112.06343); the reading rules are this project's",
        gaming=(
            "Lists of answers, hedging, an empty text, or the answer inside a sentence get 0, because the whole answer "
            "must equal one entry of the vocabulary."
        ),
    )

    class Config(AnswerConfig):
        """Configuration of ``exact_match``."""

        reading: Literal["strict", "unpunctuated"] = Field(
            "strict",
            description="strict: see the card; unpunctuated: lower case without punctuation, as TEOChat compares",
        )
        vocabulary: tuple[str, ...] | None = Field(None, description="closed set of answers; default: the sample's own")
        synonyms: dict[str, str] = Field(default_factory=dict, description="variant -> the answer that it stands for")
        positive: str | None = Field(None, description="the answer that precision, recall and f1 are of")
        kappa: bool = Field(False, description="keep answers and report Cohen's kappa between them and the true ones")
        merge_kinds: dict[str, str] = Field(
            default_factory=dict,
            description="kind -> the kind that it counts as in overall (oa) and average accuracy (aa)",
        )
        metric_kinds: tuple[str, ...] = Field((), description="kinds to report as oa/<kind>")
        only_kinds: tuple[str, ...] = Field((), description="kinds that count in oa and aa; all where none is named")
        variants: bool = Field(
            False,
            description="also report majority, all_variants and consistency over the wordings of a question: samples whose ids are equal up to their last '#'",
        )
        answers: Literal["all", "closed"] = Field(
            "all", description="closed: only samples that have a vocabulary, where a judge has the others"
        )
        aa_divisor: int | None = Field(None, ge=1, description="divide aa by this, not by the number of kinds seen")
        aa_epsilon: float = Field(0.0, ge=0, allow_inf_nan=False, description="added to the count of each kind in aa")

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._rules = rules_of(self.config, self.config.positive or "", self.config.kappa or self.config.variants)

    def truth(self, sample: Sample) -> Truth | Score:
        answers, vocabulary = true_answers(sample), texts_of(sample.reference, "vocabulary")
        if self.config.answers == "closed" and not vocabulary:
            return Score.not_applicable("the sample has no vocabulary, so its answer is open")
        if sample.task is Task.CLASSIFICATION and len(answers) > 1:
            return Score.not_applicable("the sample has several labels; this verifier reads one")
        fixed = self.config.vocabulary
        return answer_truth(answers, vocabulary if fixed is None else fixed, self._rules)

    def metrics(self) -> Sequence[Metric]:
        config = self.config
        keys = ("oa", "aa", *(f"oa/{kind}" for kind in config.metric_kinds))
        kinds = KindAccuracy(
            keys, config.only_kinds or None, config.merge_kinds, divisor=config.aa_divisor, epsilon=config.aa_epsilon
        )
        found: list[Metric] = [ACCURACY, kinds]
        if config.positive:
            found.append(DETECTION)
        if config.kappa:
            found.append(AnswerKappa())
        if config.variants:
            found.append(PromptVariants())
        return found
