"""answer_format: the form of a text, whatever it says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Batch
from rsw_rewards.verifiers.formats import AnswerFormat, format_problem


def score(text: str | None, finish_reason: str | None = "stop", **config: object) -> Score:
    verifier = AnswerFormat(AnswerFormat.Config.model_validate(config))
    output = Output("q", text=text, finish_reason=finish_reason)
    return verifier.score(Batch.of([Sample("q", Task.CHANGE_QA, ())], [output]))[0]


@pytest.mark.parametrize(
    "text", ["<answer>yes</answer>", "I think so. <answer>yes</answer>\n", "<think>a</think> <ANSWER>\nyes </ANSWER>"]
)
def test_well_formed_tags(text: str) -> None:
    assert score(text, mode="tag") == Score(1.0, raw={"well_formed": 1.0}, stats={"well_formed": np.ones(())})


@pytest.mark.parametrize(
    "text",
    [
        "", "yes", "<answer></answer>", "<answer> </answer>", "<answer>yes", "yes</answer>", "<answer>yes</answer> indeed",
        "<answer>yes</answer><answer>yes</answer>", "<answer><answer>yes</answer></answer>", "</answer><answer>yes</answer>",
        "<think><answer>yes</answer></think>", "<think>a <answer>yes</answer>", "a</think><answer>yes</answer>",
        "<answer>yes <think>no</think></answer>",
    ],
)  # fmt: skip
def test_ill_formed_tags(text: str) -> None:
    found = score(text, mode="tag")
    assert (found.value, found.status, found.raw) == (0.0, Status.INVALID_OUTPUT, {"well_formed": 0.0})
    assert found.reason


def test_whole_texts() -> None:
    assert score("yes").value == 1.0
    assert score("a b c", max_words=3).value == 1.0
    assert "4 words" in score("a b c d", max_words=3).reason
    assert score("   ").reason == score(None).reason == "the answer is empty"
    assert "tags" in score("<answer>yes</answer>").reason
    assert "cut off" in score("yes", finish_reason="length").reason
    assert "cut off" in score("<answer>yes</answer>", finish_reason="length", mode="tag").reason


def test_rate_counts_rows_without_statistics_as_ill_formed() -> None:
    (metric,) = AnswerFormat().metrics()
    assert metric.keys == ("format_rate",)
    assert metric.compute(
        pd.DataFrame(index=range(4)), {"well_formed": np.array([1.0, 0.0, 1.0, 0.0])}, np.ones(4), None
    ) == {"format_rate": 0.5}


@given(st.text(alphabet="ab <>/", max_size=60), st.integers(1, 5))
def test_what_passes_has_between_one_word_and_the_limit(text: str, limit: int) -> None:
    if not format_problem(text, "whole", limit):
        assert 1 <= len(text.split()) <= limit
