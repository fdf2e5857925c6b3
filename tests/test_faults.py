"""Faults of the processes that score, and that none of them costs more than the outputs at fault."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsw_rewards import scoring_actors
from rsw_rewards.contracts import Batch
from rsw_rewards.errors import ConfigError, RunStopped
from rsw_rewards.rubric import Rubric
from rsw_rewards.samples import Output, Sample, Task
from rsw_rewards.scorer import Scorer
from rsw_rewards.scores import ScoreTable

FAULTY = f"{Path(__file__).with_name('faulty.py')}"


def rubric(name: str = "Faulty", **more: object) -> Rubric:
    return Rubric.model_validate({"components": [{"use": f"{FAULTY}:{name}", "name": "x", **more}]})


def batch(*texts: str) -> Batch:
    samples = [Sample(f"s{i}", Task.CHANGE_QA, ()) for i in range(len(texts))]
    return Batch.of(samples, [Output(f"s{i}", text=text) for i, text in enumerate(texts)])


def statuses(table: ScoreTable) -> list[str]:
    return table.frame["status"].tolist()


def test_scores_that_cannot_travel_are_errors_and_the_process_goes_on(ray_cluster: None) -> None:
    with Scorer(rubric(), workers=1) as scorer:
        table = scorer.score(batch("fine", "stuck", "fine"))
        assert statuses(table) == ["ok", "error", "ok"]
        assert "pickle" in table.frame["reason"].iloc[1]
        assert scorer._runners[0]._starting == {}


def test_a_verifier_that_cannot_be_set_up_in_an_actor_says_so_in_a_sentence(ray_cluster: None) -> None:
    with Scorer(rubric("NoWeights"), workers=1) as scorer, pytest.raises(ConfigError) as error:
        scorer.score(batch("fine"))
    assert str(error.value) == "the weights are not there"


def test_actors_that_die_while_they_start_stop_the_run(ray_cluster: None) -> None:
    with (
        Scorer(rubric("DiesInSetup"), workers=1) as scorer,
        pytest.raises(RunStopped, match="3 processes in a row died"),
    ):
        scorer.score(batch("fine"))


def test_a_verifier_that_cannot_be_sent_is_refused(ray_cluster: None) -> None:
    with Scorer(rubric(), workers=1) as scorer:
        scorer.verifiers[0].lock = threading.Lock()  # type: ignore[attr-defined]
        with pytest.raises(ConfigError, match="cannot be sent to another process"):
            scorer.score(batch("fine"))


def test_gpus_that_the_cluster_lacks_are_refused_at_once(ray_cluster: None) -> None:
    with Scorer(rubric(), workers=1, num_gpus=64) as scorer, pytest.raises(ConfigError, match="64 GPUs are asked for"):
        scorer.score(batch("fine"))


@pytest.fixture
def little_patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(scoring_actors, "PATIENCE", 3)
    yield


def test_a_verifier_that_hangs_on_everything_is_given_up(ray_cluster: None, little_patience: None) -> None:
    with Scorer(rubric(timeout_s=0.5)) as scorer:
        start = time.monotonic()
        table = scorer.score(batch(*["sleep"] * 64))
        assert time.monotonic() - start < 60
        assert statuses(table) == ["timeout"] * 64  # not one of them a zero
        assert table.frame["value"].isna().all()
        assert table.frame["reason"].str.contains("not tried|no answer").all()
        assert statuses(scorer.score(batch("fine"))) == ["ok"]


def test_a_slow_verifier_is_not_a_hung_one(ray_cluster: None) -> None:
    with Scorer(rubric("slow", timeout_s=2.0)) as scorer:
        scorer.score(batch("fine"))
        start = time.monotonic()
        assert statuses(scorer.score(batch(*["fine"] * 30))) == ["ok"] * 30  # 3 s in all, in calls of about 1 s
        assert time.monotonic() - start < 4.5  # without the time that killing and starting anew would take
