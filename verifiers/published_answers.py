"""Answers scored as the published code of a benchmark reads them: the ``published_answer`` verifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pydantic import Field, field_validator

from rsw_rewards.core.metric import Metric, Numbers, SumMetric, Sums
from rsw_rewards.core.records import Sample, Task
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card, Context
from rsw_rewards.errors import did_you_mean
from rsw_rewards.verifiers.answer_metrics import KindAccuracy, PromptVariants, quotients, share
from rsw_rewards.verifiers.answers import texts_of, true_answers
from rsw_rewards.verifiers.choices import true_letters
from rsw_rewards.verifiers.readings import READINGS, Reading, prepare
from rsw_rewards.verifiers.texts import PerText, TextConfig, Thinking

ERROR_GROUPS = {"rmse/basic": "Basic Counting", "rmse/reasoning": "Reasoning-based Counting"}
"""EarthVQA's kinds of count, of each of which there is a root mean squared error."""
REASONING_SCALE = 10 / 7
"""What EarthVQA multiplies classes of reasoning-based counts by, so that tenths of an area are as far apart as counts."""


class Asked(NamedTuple):
    """What an answer is read against."""

    answers: tuple[str, ...]
    """True answers as the reading wants them."""
    options: tuple[str, ...]
    kind: str | None


def _rmse(sums: Sums) -> Numbers:
    means = {key: share(sums, f"{key}_squares", f"{key}_count") for key in ("rmse", *ERROR_GROUPS)}
    return {key: None if mean is None else float(mean**0.5) for key, mean in means.items()}


class PublishedAnswer(PerText[Asked]):
    """Credit of an answer as published code gives it; it measures, and rewards nothing."""

    name = "published_answer"
    tasks = frozenset({Task.CHANGE_QA, Task.CLASSIFICATION})
    rewarding = False
    card = Card(
        summary="The value that the published code of a benchmark gives an answer, including where this code is lenient.",
        range="correct: 0 or 1, or a share of tokens (earthdial)",
        transform="none; it has no value, so it cannot be a reward",
        source="the functions in verifiers/readings.py, each tested against the original; docs/benchmarks.md lists "
        "repository and commit",
        gaming=(
            "The published code may give much for little, such as an empty text: compare with the baselines, and with "
            "the strict protocol."
        ),
        cost="microseconds on a CPU; WordNet about a millisecond for a pair of words",
    )

    class Config(TextConfig):
        """Configuration of ``published_answer``."""

        thinking: Thinking = Field(
            "keep", description="keep: the whole text is read, as published code does; strip: without reasoning"
        )
        reading: str = Field(description=f"how answers are read: {', '.join(READINGS)}")
        metric_kinds: tuple[str, ...] = Field((), description="kinds to report as oa/<kind>")
        only_kinds: tuple[str, ...] = Field((), description="kinds that count; all where none is named")
        aa_divisor: int | None = Field(None, ge=1, description="divide aa by this, not by the number of kinds seen")
        variants: bool = Field(
            False, description="numbers over the variants of a question, see the card of multiple_choice"
        )

        @field_validator("reading")
        @classmethod
        def _known(cls, value: str) -> str:
            if value not in READINGS:
                raise ValueError(f"there is no reading {value!r}; {did_you_mean(value, READINGS)}")
            return value

    @property
    def reading(self) -> Reading:
        return READINGS[self.config.reading]

    def setup(self, context: Context) -> None:
        super().setup(context)
        prepare(self.config.reading)

    def truth(self, sample: Sample) -> Asked:
        options, reading = texts_of(sample.reference, "choices"), self.reading
        if reading.options and not options:
            raise ValueError(f"the reading {self.config.reading!r} needs the options in 'reference.choices'")
        answers = true_answers(sample)
        if reading.truth == "letters":
            answers = tuple("".join(sorted(letters)) for letters in true_letters(answers, options))
            if reading.alone and (several := [one for one in answers if len(one) != 1]):
                raise ValueError(
                    f"the reading {self.config.reading!r} knows one right letter, and the truth is {several[0]!r}"
                )
        return Asked(answers, options, sample.kind)

    def compare_text(self, truth: Asked, text: str) -> Score:
        found = [self.reading.read(text, true, truth.options) for true in truth.answers]
        best = max(found, key=lambda one: one.credit)
        return Score(
            None,
            raw={"correct": best.credit},
            stats={"correct": np.asarray(best.credit), "seen": np.ones(()), **self._errors(truth, best.answer)},
            reason=""
            if best.credit == 1
            else f"read {best.answer[:60]!r}, not {' or '.join(map(repr, truth.answers))}",
            content={"answer": best.answer} if self.config.variants else {},
        )

    def worst(self, truth: Asked, reason: str) -> Score:
        seen = np.asarray(float(not self.reading.skips_missing))
        return Score.invalid(reason, raw={"correct": 0.0}, stats={"correct": np.zeros(()), "seen": seen})

    def _errors(self, truth: Asked, answer: str) -> dict[str, np.ndarray]:
        number = self.reading.number
        if number is None:
            return {}
        true, given = number(truth.answers[0]), number(answer)
        stats: dict[str, np.ndarray] = {}
        for key, kind in {"rmse": truth.kind, **ERROR_GROUPS}.items():
            counts = true is not None and given is not None and truth.kind == kind and kind in ERROR_GROUPS.values()
            scale = REASONING_SCALE if kind == ERROR_GROUPS["rmse/reasoning"] else 1.0
            error = (given - true) * scale if counts and true is not None and given is not None else 0.0
            stats |= {f"{key}_squares": np.asarray(error**2), f"{key}_count": np.asarray(float(counts))}
        return stats

    def metrics(self) -> Sequence[Metric]:
        config = self.config
        kinds = KindAccuracy(
            ("oa", "aa", *(f"oa/{kind}" for kind in config.metric_kinds)),
            kinds=config.only_kinds or None,
            divisor=config.aa_divisor,
        )
        found: list[Metric] = [kinds]
        if self.reading.skips_missing:
            found.append(quotients({"answered": ("seen", "n")}))
        if self.reading.number is not None:
            found.append(SumMetric(("rmse", *ERROR_GROUPS), _rmse))
        if config.variants:
            found.append(PromptVariants())
        return found
