"""Our reward as a scorer of Inspect, in evaluations of its own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import rsw_rewards as rsw
from rsw_rewards.integrations.inspect_ai import make_scorer, score_of
from tests.foreign import package
from tests.integrations.shown import QUESTIONS, RUBRIC, TEXTS, expected, share


def fields(text: str, rubric: Any) -> dict[str, Any]:
    with rsw.Reward(rubric) as reward:
        return score_of(reward.one(text, QUESTIONS[0]), [part.label for part in reward.rubric.components])


def test_a_score_holds_the_reward_the_components_and_their_status() -> None:
    assert fields("yes", RUBRIC)["value"] == {"reward": 1.0, "exact_match": 1.0, "answer_format": 1.0}
    invalid = fields("", RUBRIC)
    assert invalid["reason"] == "invalid_response_format" and invalid["value"]["reward"] == 0.0
    assert invalid["metadata"]["status"]["exact_match"] == "invalid_output"
    failed = fields("broken", share)
    assert "value" not in failed and failed["reason"] == "scoring_failed"
    assert failed["metadata"]["status"] == {"share": "error"} and "share: " in failed["explanation"]


def evaluated(tmp_path: Path, scorer: Any, outputs: list[Any], **sample: Any) -> Any:
    """The log of an evaluation of Inspect's own, in which a solver hands over the outputs."""
    inspect_ai = package("inspect_ai")
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.solver import solver

    @solver
    def handed_over() -> Any:
        async def solve(state: Any, generate: Any) -> Any:
            state.output = outputs[int(state.sample_id)]
            return state

        return solve

    rows = [Sample(input="Changed?", id=str(number), **sample) for number in range(len(outputs))]
    task = inspect_ai.Task(dataset=MemoryDataset(rows), solver=handed_over(), scorer=scorer)
    (log,) = inspect_ai.eval(task, model="mockllm/model", log_dir=str(tmp_path), display="none")
    assert log.status == "success", log.error
    return log


def test_inspect_gives_our_rewards_and_their_mean(tmp_path: Path) -> None:
    package("inspect_ai")
    from inspect_ai.model import ModelOutput

    scorer = make_scorer(RUBRIC, QUESTIONS, key="sample")
    stopped = [("max_tokens", "yes"), ("content_filter", "yes")]
    outputs = [
        ModelOutput.from_content("mockllm", text, stop_reason=stop)
        for stop, text in [*(("stop", text) for text in TEXTS), *stopped]
    ]
    log = evaluated(tmp_path, scorer, outputs, metadata={"sample": "a"})
    given = [sample.scores["rsw"].value["reward"] for sample in log.samples]
    assert given == pytest.approx([*expected(TEXTS), 0.0, 0.0])
    found = {score.name: score for score in log.results.scores}
    assert set(found) == {"reward", *RUBRIC}
    assert found["reward"].metrics["mean"].value == pytest.approx(sum(given) / len(given))
    assert "stderr" in found["reward"].metrics


def test_what_failed_enters_no_mean_and_is_counted(tmp_path: Path) -> None:
    package("inspect_ai")
    from inspect_ai.model import ModelOutput

    outputs = [ModelOutput.from_content("mockllm", text) for text in ("1", "broken", "nan", "0.5")]
    scorer = make_scorer(share, truth=("change_qa", "answers"))
    log = evaluated(tmp_path, scorer, [*outputs, ModelOutput(model="mockllm")], target=["yes", "no"])
    found = {score.name: score for score in log.results.scores}
    assert found["reward"].metrics["mean"].value == 0.75
    assert (found["reward"].scored_samples, found["reward"].unscored_samples) == (2, 3)
    failed = log.samples[1].scores["rsw"]
    assert math.isnan(failed.value) and failed.reason == "scoring_failed"
    assert failed.metadata["status"] == {"share": "error"}
    nothing = evaluated(tmp_path, scorer, outputs[1:3], target="yes")
    assert all(math.isnan(score.metrics["mean"].value) for score in nothing.results.scores)
