"""Faults of the processes that score, and that none of them costs more than the outputs at fault."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rsw_rewards as rsw
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rubric import Rubric
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.core.verifier import Batch
from rsw_rewards.engine import scoring_actors
from rsw_rewards.engine.scorer import Scorer
from rsw_rewards.errors import ConfigError, RunStopped

FAULTY = f"{Path(__file__).with_name('faulty.py')}"


def rubric(name: str = "Faulty", **more: object) -> Rubric:
    return Rubric.model_validate({"components": [{"use": f"{FAULTY}:{name}", "name": "x", **more}]})


def batch(*texts: str) -> Batch:
    samples = [Sample(f"s{i}", Task.CHANGE_QA, ()) for i in range(len(texts))]
    return Batch.of(samples, [Output(f"s{i}", text=text) for i, text in enumerate(texts)])


def statuses(table: ScoreTable) -> list[str]:
    return table.frame["status"].tolist()


def test_scores_that_cannot_travel_are_errors_and_the_process_goes_on(ray_cluster: None) -> None:
    with Scorer(rubric("Process"), workers=1) as scorer:
        table = scorer.score(batch("fine", "stuck", "fine"))
        assert statuses(table) == ["ok", "error", "ok"]
        assert "pickle" in table.frame["reason"].iloc[1]
        processes = [raw["process"] for raw in table.frame["raw"] if raw]
        again = scorer.score(batch("fine")).frame["raw"].iloc[0]["process"]
        assert [*processes, again] == [again] * 3


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


# --- faults the scorer itself guards against --------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
def test_a_library_that_exits_does_not_end_the_run(workers: int, ray_cluster: None) -> None:
    with Scorer(rubric(), workers=workers) as scorer:
        table = scorer.score(batch("fine", "exit", "fine"))
    assert statuses(table) == ["ok", "error", "ok"]
    assert table.frame["reason"].iloc[1] == "SystemExit: 3"


@pytest.mark.parametrize("workers", [0, 1])
def test_where_nothing_is_strict_a_missing_weight_is_a_status(workers: int, ray_cluster: None) -> None:
    with Scorer(rubric("NoWeights"), workers=workers, strict=False) as scorer:
        for _ in range(2):
            table = scorer.score(batch("fine", "fine"))
            assert statuses(table) == ["error", "error"]
            assert set(table.frame["reason"]) == {"the weights are not there"}


def test_state_is_seen_by_every_later_score_with_actors_too(ray_cluster: None) -> None:
    with Scorer(rubric("Remembers"), workers=2) as scorer:
        for seen in range(3):
            assert set(scorer.score(batch("a", "b")).frame["value"]) == {seen / 10}
            scorer.observe(batch("a", "b"))
    with Scorer(rubric("Remembers", timeout_s=1.0)) as scorer, pytest.raises(ConfigError, match="keeps state"):
        scorer.score(batch("a"))


def test_a_fault_on_an_invalid_output_is_a_status() -> None:
    with Scorer(rubric("BadInvalid")) as scorer:
        table = scorer.score(
            Batch.of([Sample("s", Task.CHANGE_QA, ())], [Output("s", invalid="cut short")]),
        )
    assert statuses(table) == ["error"] and "no such statistic" in table.frame["reason"].iloc[0]


def test_a_broken_picture_is_the_outputs_fault_and_a_broken_sample_is_not(tmp_path: Path) -> None:
    broken, shared = tmp_path / "broken.png", tmp_path / "shared.png"
    broken.write_bytes(b"no picture")
    samples = [Sample(name, Task.CHANGE_MASK, (ImageRef(path=shared),)) for name in ("a", "b", "c")]
    mask = ImageRef(array=np.full((2, 2), 255, np.uint8))
    outputs = [
        Output("a", mask=mask),
        Output("b", mask=ImageRef(path=broken)),
        Output("c", mask=ImageRef(path=shared)),  # an answer that names the file it was shown
    ]
    with Scorer(rubric("changed_share")) as scorer:
        table = scorer.score(Batch.of(samples, outputs))
    assert statuses(table) == ["ok", "invalid_output", "error"]
    assert "broken.png" in table.frame["reason"].iloc[1]


def test_a_verifier_that_cannot_be_prepared_says_so_in_a_sentence() -> None:
    class Fitted(rsw.Verifier):
        name, tasks = "fitted", "change_qa"

        def prepare(self, samples: Any) -> None:
            raise ValueError("no such file")

        def score(self, batch: rsw.Batch) -> list[rsw.Score]:
            return [rsw.Score(1.0)] * len(batch)

    with pytest.raises(ConfigError, match="'prepare' of the verifier 'fitted' raised ValueError: no such file"):
        rsw.evaluate(rsw.protocol("mine", Fitted), [{"task": "change_qa", "reference": {"answers": ["yes"]}}], ["yes"])


def test_networks_that_are_loaded_leave_the_random_numbers_of_the_trainer_alone() -> None:
    import torch

    class Drawn(rsw.Verifier):
        name, tasks = "drawn", "change_qa"

        def setup(self, context: Any) -> None:
            super().setup(context)
            self.drawn = random.random(), np.random.random(), torch.nn.Linear(2, 2)  # noqa: NPY002

        def score(self, batch: rsw.Batch) -> list[rsw.Score]:
            self.context.bank.encoder("scene-clip")
            return [rsw.Score(1.0)] * len(batch)

    def draws() -> tuple[float, float, float]:
        return random.random(), np.random.random(), float(torch.rand(()))  # noqa: NPY002

    def seed() -> None:
        random.seed(0), np.random.seed(0), torch.manual_seed(0)  # noqa: NPY002

    seed()
    expected = draws()
    seed()
    with rsw.Reward(Drawn) as reward:
        assert reward.one("yes", {"task": "change_qa", "reference": {"answers": ["yes"]}}).reward == 1.0
    assert draws() == expected
