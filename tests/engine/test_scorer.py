"""The scorer: every fault becomes a status of the outputs that caused it, and both paths give equal scores."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rewards import rewards
from rsw_rewards.core.rubric import Rubric
from rsw_rewards.core.scores import ScoreTable, Status
from rsw_rewards.core.verifier import Batch
from rsw_rewards.engine.scorer import Scorer
from rsw_rewards.errors import ConfigError

FAULTY = f"{Path(__file__).with_name('faulty.py')}"


def rubric(name: str = "Faulty", **more: object) -> Rubric:
    return Rubric.model_validate({"components": [{"use": f"{FAULTY}:{name}", "name": "x", **more}]})


def batch(*texts: str | None, **output: str) -> Batch:
    samples = [
        Sample(f"s{i}", Task.CHANGE_QA, (), reference={"answers": ["yes"]}, scene=f"s{i}") for i in range(len(texts))
    ]
    return Batch.of(samples, [Output(f"s{i}", text=text, **output) for i, text in enumerate(texts)])  # type: ignore[arg-type]


def statuses(table: ScoreTable) -> list[Status]:
    return table.frame["status"].tolist()


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("raise", "RuntimeError: the raster server is away"),
        ("nan", "needs a value in"),
        ("none", "None instead of a Score"),
        ("drop", "0 scores for 1 outputs"),
    ],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_fault_costs_the_outputs_at_fault_and_no_others(
    word: str, says: str, workers: int, ray_cluster: None
) -> None:
    with Scorer(rubric(), workers=workers) as scorer:
        table = scorer.score(batch("fine", word, "fine", "fine", word))
    assert statuses(table) == ["ok", "error", "ok", "ok", "error"]
    assert says in table.frame["reason"].iloc[1]
    assert table.frame["value"].isna().tolist() == [False, True, False, False, True]  # a failure is no number
    assert rewards(table, rubric())["reward"].isna().tolist() == [False, True, False, False, True]


def test_a_hung_verifier_is_killed_and_only_the_culprit_times_out(ray_cluster: None) -> None:
    with Scorer(rubric(timeout_s=1.0)) as scorer:
        scorer.score(batch("fine"))
        start = time.monotonic()
        table = scorer.score(batch("fine", "fine", "sleep", "fine"))
        assert time.monotonic() - start < 60
        assert statuses(table) == ["ok", "ok", "timeout", "ok"]
        assert "no answer within 1.0 s" in table.frame["reason"].iloc[2]
        assert statuses(scorer.score(batch("fine"))) == ["ok"]


def test_a_verifier_that_kills_its_process_costs_only_the_culprit(ray_cluster: None) -> None:
    with Scorer(rubric(), workers=1) as scorer:
        table = scorer.score(batch("fine", "die", "fine"))
    assert statuses(table) == ["ok", "error", "ok"]
    assert "process died" in table.frame["reason"].iloc[1]


def test_invalid_and_lost_outputs_never_reach_a_verifier() -> None:
    with Scorer(rubric()) as scorer:
        assert statuses(scorer.score(batch("raise", invalid="cut short"))) == ["invalid_output"]
        table = scorer.score(batch("raise", lost="its actor died"))
    assert statuses(table) == ["error"]
    assert "its actor died" in table.frame["reason"].iloc[0]


@pytest.mark.parametrize("name", ["length", "GroupSize"])
def test_both_paths_and_every_order_and_split_give_equal_scores(name: str, ray_cluster: None) -> None:
    samples = [Sample(f"s{i}", Task.CHANGE_QA, (), scene="s") for i in range(6)]
    outputs = [Output(f"s{i}", c, text="x" * (i + c)) for i in range(6) for c in range(4)]
    whole = Batch.of(samples, outputs)

    def values(table: ScoreTable) -> dict[tuple[str, int], float]:
        return {(row.sample, row.candidate): row.value for row in table.frame.itertuples()}

    with Scorer(rubric(name)) as here, Scorer(rubric(name), workers=2) as there:
        expected = values(here.score(whole))
        assert values(there.score(whole)) == expected
        assert values(here.score(whole.take(range(23, -1, -1)))) == expected
        halves = [here.score(whole.take(range(0, 12))), here.score(whole.take(range(12, 24)))]
        assert values(ScoreTable.concat(halves)) == expected


def test_a_component_leaves_other_tasks_alone() -> None:
    samples = [Sample("q", Task.CHANGE_QA, ()), Sample("f", Task.FORECAST, ())]
    with Scorer(rubric()) as scorer:
        table = scorer.score(Batch.of(samples, [Output("q", text="fine"), Output("f", text="x")]))
        assert table.frame["sample"].tolist() == ["q"]
        with pytest.raises(ConfigError, match="no component of the rubric rewards the task forecast"):
            scorer.check(samples)


def test_a_task_the_verifier_does_not_know_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not score forecast"):
        Scorer(rubric(tasks=["forecast"]))


def test_names_that_resolve_to_nothing_say_so() -> None:
    for use, says in (
        ("no_such_verifier", "no verifier is named 'no_such_verifier'; known are"),
        ("exact_mtach", "no verifier is named 'exact_mtach'; did you mean 'exact_match'"),
        ("absent.py:x", "does not exist"),
        ("json:x", "has no 'x'"),
    ):
        with pytest.raises(ConfigError, match=says):
            Scorer(Rubric.model_validate({"components": [{"use": use}]}))
