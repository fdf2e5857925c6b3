"""Rewards without a table: the scores and rewards of the table, from any thread, of one output, a group or a batch."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsw_rewards import verifier
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rewards import rewards
from rsw_rewards.core.rubric import Component, Rubric
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Batch
from rsw_rewards.engine.reward import Result, Reward
from rsw_rewards.engine.scorer import Scorer
from rsw_rewards.errors import ConfigError, InputError
from rsw_rewards.features.bank import FeatureBank
from tests.tiny_clip import write_tiny_clip

FAULTY = f"{Path(__file__).with_name('faulty.py')}"
WORDS = ("yes", "raise", "no", "nan", "none", "drop", "skip", "fine")


def faulty(name: str = "Faulty", **more: Any) -> dict[str, Any]:
    return {"use": f"{FAULTY}:{name}", "name": "x", **more}


def rubric(*components: dict[str, Any], **more: Any) -> Rubric:
    return Rubric.model_validate({"components": list(components), **more})


def question(name: str) -> Sample:
    return Sample(
        name, Task.CHANGE_QA, (), scene=name, reference={"answers": ["yes"], "vocabulary": ["yes", "no", "fine"]}
    )


def failing(samples: Sequence[Sample]) -> list[Output]:
    """An output for each sample; they fail in every way, an invalid and a lost one among them."""
    answers: list[dict[str, str]] = [{"text": word} for word in WORDS]
    answers += [{"invalid": "truncated"}, {"lost": "an actor died"}]
    numbers: dict[str, int] = {}
    outputs = []
    for place, sample in enumerate(samples):
        number = numbers[sample.id] = numbers.get(sample.id, -1) + 1
        outputs.append(Output(sample.id, number, **answers[place % len(answers)]))  # type: ignore[arg-type]
    return outputs


def said(score: Score) -> tuple[object, ...]:
    """What a score says; with whom it was scored is no part of it."""
    return score.value, score.status, score.reason, {key: value for key, value in score.raw.items() if key != "batch"}


def plain(results: Sequence[Result]) -> list[tuple[object, ...]]:
    return [(one.reward, one.reason, {label: said(score) for label, score in one.parts.items()}) for one in results]


def by_table(of: Rubric, outputs: Sequence[Output], samples: Sequence[Sample], **options: Any) -> list[Result]:
    """What the scorer's table and the rewards made of it say."""
    with Scorer(of, **options) as scorer:
        table = scorer.score(Batch.of(samples, outputs))
    results = []
    for row in rewards(table, of).to_dict("records"):
        own = table.frame[(table.frame["sample"] == row["sample"]) & (table.frame["candidate"] == row["candidate"])]
        parts = {
            one["verifier"]: Score(
                None if np.isnan(one["value"]) else one["value"], one["status"], one["raw"], {}, one["reason"]
            )
            for one in own.to_dict("records")
        }
        results.append(Result(None if np.isnan(row["reward"]) else row["reward"], parts, row["reason"]))
    return results


def at_once(n: int, call: Callable[[int], Any]) -> list[Any]:
    """What n threads get that call together."""
    together = threading.Barrier(n)

    def run(number: int) -> Any:
        together.wait()
        return call(number)

    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(run, range(n)))


@pytest.mark.parametrize("name", ["Faulty", "FaultyNetwork"])
def test_one_and_many_and_the_table_say_the_same_of_every_failure(name: str) -> None:
    of = rubric(faulty(name), {"use": "exact_match", "weight": 3.0})
    samples = [question(f"q{number}") for number in range(10)]
    outputs = failing(samples)
    expected = by_table(of, outputs, samples)
    met = {score.status for result in expected for score in result.parts.values()}
    assert met == {Status.OK, Status.ERROR, Status.NOT_APPLICABLE, Status.INVALID_OUTPUT}
    assert any(result.reward is None for result in expected)
    with Reward(of, window_ms=0) as reward:
        assert plain(reward.many(outputs, samples)) == plain(expected)
        assert plain([reward.one(*pair) for pair in zip(outputs, samples, strict=True)]) == plain(expected)
        assert plain(at_once(10, lambda number: reward.one(outputs[number], samples[number]))) == plain(expected)


@pytest.mark.parametrize("combine", ["weighted_sum", "normalize_each"])
def test_whole_groups_are_rewarded_as_the_table_rewards_them(combine: str) -> None:
    of = rubric(
        faulty("FaultyNetwork", required=False, min_std=0.1),
        {"use": "exact_match", "weight": 3.0},
        {"use": f"{FAULTY}:length", "weight": 0.5, "gate": {"component": "exact_match"}},
        {"use": f"{FAULTY}:GroupSize", "weight": 0.1},
        combine=combine,
        min_std=0.05,
    )
    samples = [question("a")] * 4 + [question("b")] * 6 + [question("c")] * 2
    outputs = failing(samples)
    expected = by_table(of, outputs, list({sample.id: sample for sample in samples}.values()))
    with Reward(of) as reward:
        assert plain(reward.many(outputs, samples)) == plain(expected)
        # Groups that other callers send at the same time stay apart.
        parts = (slice(0, 4), slice(4, 10), slice(10, 12))
        found = at_once(3, lambda number: reward.many(outputs[parts[number]], samples[parts[number]]))
        assert [one for part in found for one in plain(part)] == plain(expected)


def test_nothing_has_no_rewards() -> None:
    gated = {"use": "exact_match", "gate": {"component": "x"}}
    with Reward(rubric(faulty(), gated, combine="normalize_each", min_std=0.1)) as reward:
        assert reward.many([], []) == []


def test_what_a_program_holds_is_taken_as_it_is() -> None:
    record = {"task": "change_qa", "reference": {"answers": "yes", "vocabulary": ["yes", "no"]}}
    with Reward({"exact_match": 1.0}) as reward:
        outputs = ["yes", {"text": "no"}, Output(text="yes"), None]
        assert [one.reward for one in reward.many(outputs, [record] * 4)] == [1.0, 0.0, 1.0, 0.0]
        with pytest.raises(InputError, match="text"):
            reward.one(3, record)
    before, after = (np.full((16, 16, 3), grey, np.uint8) for grey in (0, 90))
    with Reward({"gain_over_copy": 1.0}) as reward:
        forecast = {"task": "forecast", "images": [before], "reference": {"images": [after]}}
        assert reward.one(after, forecast).reward == 1.0
        with pytest.raises(InputError, match="range"):  # a trainer must not learn from zeros for a type of its own
            reward.one(after.astype(np.float32) / 255, forecast)


def test_a_record_that_stands_for_several_outputs_is_one_group() -> None:
    record = {"task": "change_qa", "reference": {"answers": "yes"}}
    with Reward(rubric(faulty("GroupSize"))) as reward:
        assert [one.reward for one in reward.many(["a"] * 3, [record, record, dict(record)])] == [0.5, 0.5, 0.25]


def test_groups_may_be_named() -> None:
    of = rubric(faulty("GroupSize"))
    with Reward(of) as reward:
        found = reward.many(["a"] * 4, [question("q")] * 4, groups=[0, 1, 0, 0])
    assert [result.reward for result in found] == [0.75, 0.25, 0.75, 0.75]


def test_groups_are_named_by_arrays_and_tensors_as_by_lists() -> None:
    import torch

    of, outputs, samples = rubric(faulty("GroupSize")), ["a", "b", "c"], [question("q")] * 3
    with Reward(of) as reward:
        expected = plain(reward.many(outputs, samples, [0, 1, 0]))
        assert expected[0][0] == expected[2][0] != expected[1][0]
        for groups in (np.array([0, 1, 0]), torch.tensor([0, 1, 0]), list(torch.tensor([0, 1, 0])), (0, 1, 0)):
            assert plain(reward.many(outputs, samples, groups)) == expected
        for groups, says in (
            ([["a"], ["b"], ["a"]], r"keys such as .*, not \['a'\]"),
            ("aba", "groups must be a list"),
        ):
            with pytest.raises(InputError, match=says):
                reward.many(outputs, samples, groups)


def test_one_text_or_record_is_no_list() -> None:
    record = {"task": "change_qa", "reference": {"answers": ["yes"], "vocabulary": ["yes", "no"]}}
    with Reward({"exact_match": 1.0}) as reward:
        for outputs, samples, says in (
            ("yes", [record] * 3, "outputs must be a list of records.* not 'yes'"),
            ({"text": "yes"}, [record], "outputs must be a list"),
            (["a", "b"], record, "samples must be a list"),
            (["a"], question("q"), "samples must be a list"),
        ):
            with pytest.raises(InputError, match=says):
                reward.many(outputs, samples)


def test_different_samples_of_one_id_are_refused_unless_groups_are_named() -> None:
    other = Sample("q", Task.CHANGE_QA, reference={"answers": ["no"], "vocabulary": ["yes", "no", "fine"]})
    with Reward({"exact_match": 1.0}) as reward:
        with pytest.raises(InputError, match="two different samples have the id 'q'"):
            reward.many(["yes", "yes"], [question("q"), other])
        assert [one.reward for one in reward.many(["yes", "yes"], [question("q"), other], [0, 1])] == [1.0, 0.0]
        assert [one.reward for one in reward.many(["yes", "no"], [question("q"), question("q")])] == [1.0, 0.0]


def test_a_time_limit_costs_the_output_at_fault(ray_cluster: None) -> None:
    of = rubric(faulty(timeout_s=1.0))
    with Reward(of) as reward:
        reward.warm()
        fine, hung = at_once(2, lambda number: reward.one(("fine", "sleep")[number], question("q")))
    assert fine.reward == 0.5
    assert hung.reward is None and hung.parts["x"].status is Status.TIMEOUT


def test_callers_of_a_network_are_answered_together_and_each_gets_its_own() -> None:
    with Reward(rubric(faulty("FaultyNetwork")), window_ms=200) as reward:
        found = at_once(16, lambda number: reward.one("a" * (number + 1), question(f"q{number}")))
    assert [result.reward for result in found] == [1 / (number + 1) for number in range(16)]
    assert max(result.parts["x"].raw["batch"] for result in found) > 8


def test_sixteen_callers_of_an_encoder_cost_two_passes_at_most_and_get_the_scores_of_the_table(tmp_path: Path) -> None:
    encoder = write_tiny_clip(tmp_path / "tiny", seed=1)
    of = rubric({"use": "clip_score", "config": {"encoder": encoder}})
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 24, 3), dtype=np.uint8)
    samples = [
        Sample(f"f{number}", Task.FORECAST, (ImageRef(array=image),), prompt="a new road", scene="s")
        for number, image in enumerate(pixels)
    ]
    outputs = [Output(sample.id, image=ImageRef(array=pixels[-place])) for place, sample in enumerate(samples)]
    expected = by_table(of, outputs, samples)
    bank = FeatureBank()
    with Reward(of, bank=bank, window_ms=500, batch_size=16) as reward:
        reward.warm()
        model, passes = bank.encoder(encoder), []
        encode = model.encode_images
        model.encode_images = lambda *given: passes.append(1) or encode(*given)  # type: ignore[func-returns-value,method-assign]
        found = at_once(16, lambda number: reward.one(outputs[number], samples[number]))
    assert plain(found) == plain(expected)
    assert len(passes) <= 2


def test_verifiers_of_texts_run_in_the_callers_thread() -> None:
    with Reward(rubric(faulty("Thread"))) as reward:
        assert reward.one("a", question("q")).parts["x"].raw["thread"] == threading.get_ident()


def test_coroutines_are_answered_together() -> None:
    async def ask(reward: Reward) -> list[Result]:
        calls = (reward.aone("a" * (number + 1), question(f"q{number}")) for number in range(16))
        return await asyncio.gather(*calls)

    with Reward(rubric(faulty("FaultyNetwork"), {"use": "exact_match", "weight": 0.0}), window_ms=100) as reward:
        found = asyncio.run(ask(reward))
    assert [result.reward for result in found] == [1 / (number + 1) for number in range(16)]
    assert {result.parts["x"].raw["batch"] for result in found} == {16.0}


def test_a_caller_that_gives_up_costs_the_others_nothing() -> None:
    async def ask(reward: Reward) -> Result:
        hasty = asyncio.create_task(reward.aone("a", question("q")))
        patient = asyncio.create_task(reward.aone("aa", question("r")))
        await asyncio.sleep(0.02)
        hasty.cancel()
        return await patient

    with Reward(rubric(faulty("FaultyNetwork")), window_ms=50) as reward:
        assert asyncio.run(ask(reward)).reward == 0.5
        assert reward.one("aaaa", question("q")).reward == 0.25


@pytest.mark.parametrize(
    ("of", "says"),
    [
        (rubric(faulty(), combine="normalize_each"), "normalises each component within a group"),
        (rubric(faulty(), min_std=0.1), "the rubric has a 'min_std'"),
        (rubric(faulty(min_std=0.1)), "'x' has a 'min_std'"),
        (rubric(faulty(required=False)), "'x' is optional"),
        (rubric(faulty("GroupSize")), "'x' compares the outputs of a group"),
        (rubric(faulty("BatchSize")), "'x' compares the outputs of a population"),
    ],
)
def test_what_needs_a_group_is_refused_alone_and_taken_whole(of: Rubric, says: str) -> None:
    with Reward(of) as reward:
        with pytest.raises(ConfigError, match=f"{says}.*call many"):
            reward.one("yes", question("q"))
        with pytest.raises(ConfigError, match=says):
            asyncio.run(reward.aone("yes", question("q")))
        assert len(reward.many(["yes", "no"], [question("q")] * 2)) == 2


def test_a_verifier_that_is_fitted_on_references_wants_the_samples() -> None:
    of = rubric({"use": "cider_d", "config": {"tokens": "words"}})
    samples = [
        Sample(name, Task.CHANGE_CAPTION, (), scene=name, reference={"captions": [f"a {name} is built here"]})
        for name in ("road", "house", "bridge")
    ]
    with pytest.raises(ConfigError, match="'cider_d' is fitted on all samples"):
        Reward(of)
    outputs = [Output("road", text="a road is built here"), Output("house", text="a bridge is built here")]
    with Scorer(of) as scorer:
        scorer.prepare(samples)
        expected = scorer.score(Batch.of(samples, outputs)).frame["value"].tolist()
    with Reward(of, samples=samples) as reward:
        assert [result.reward for result in reward.many(outputs, samples[:2])] == expected


def test_what_cannot_be_rewarded_is_said_at_once() -> None:
    with pytest.raises(ConfigError, match="no rubric"):
        Reward(3)  # type: ignore[arg-type]
    with Reward({"exact_match": 1.0}) as reward:
        with pytest.raises(ConfigError, match="rewards the task forecast"):
            reward.one(None, Sample("f", Task.FORECAST, ()))
        with pytest.raises(InputError, match="2 outputs for 1 samples"):
            reward.many(["a", "b"], [question("q")])
        with pytest.raises(InputError, match="of the sample 'r', not of 'q'"):
            reward.one(Output("r", text="a"), question("q"))
    for call in (lambda: reward.one("a", question("q")), reward.warm, lambda: reward.observe(["a"], [question("q")])):
        with pytest.raises(ConfigError, match="is closed"):
            call()


def test_what_cannot_be_set_up_is_told_to_every_caller() -> None:
    with Reward(rubric(faulty("NoWeights"), {"use": "exact_match", "weight": 0.5})) as reward:
        with pytest.raises(ConfigError, match="the weights are not there"):
            reward.warm()
        for _ in range(2):
            with pytest.raises(ConfigError, match="the weights are not there"):
                reward.one("a", question("q"))


def test_one_reward_loads_no_pandas_and_starts_no_thread() -> None:
    program = """if True:
        import sys, threading
        from rsw_rewards.core.records import Sample, Task
        from rsw_rewards.engine.reward import Reward
        with Reward({"exact_match": 0.9, "answer_format": 0.1}) as reward:
            sample = Sample("q", Task.CHANGE_QA, (), reference={"answers": ["yes"], "vocabulary": ["yes", "no"]})
            print(reward.one("yes", sample).reward, threading.active_count())
        print(sorted({"pandas", "pyarrow", "torch", "ray", "transformers", "matplotlib"} & set(sys.modules)))
    """
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert told.split("\n")[:2] == ["1.0 1", "[]"]


@verifier(tasks="change_qa")
def short_answer(sample: Sample, output: Output, *, limit: int = 1) -> float:
    """One for an answer of few words."""
    return float(len((output.text or "").split()) <= limit)


@verifier(tasks="change_qa")
async def answered_elsewhere(sample: Sample, output: Output) -> Score:
    """Says with how many others it is waited for."""
    waited_for.append(output.candidate)
    await asyncio.sleep(0.05)
    return Score(1.0, raw={"batch": float(len(waited_for))})


waited_for: list[int] = []


def test_a_population_is_one_call_and_never_joined_with_another() -> None:
    with Reward(rubric(faulty("BatchSize")), window_ms=100) as reward:
        found = at_once(4, lambda number: reward.many(["a"] * (number + 1), [question("q")] * (number + 1)))
    assert [[result.reward for result in results] for results in found] == [[n / 100] * n for n in range(1, 5)]


def test_state_is_what_was_observed() -> None:
    with Reward(rubric(faulty("Remembers"))) as reward:
        reward.observe(["a", "b"], [question("q")] * 2)
        assert reward.one("a", question("q")).reward == 0.1


def test_functions_are_components() -> None:
    of = Rubric({"exact_match": 0.9, short_answer: 0.1})
    with Reward(of) as reward:
        assert reward.one("yes or no", question("q")).reward == 0.0
        assert reward.one("no", question("q")).reward == 0.1
    with Reward([Component(use=short_answer, config={"limit": 3})]) as reward:
        assert reward.one("yes or no", question("q")).reward == 1.0


def test_callers_of_an_async_function_wait_together() -> None:
    with Reward({answered_elsewhere: 1.0}, window_ms=200) as reward:
        found = at_once(8, lambda number: reward.one("yes", question(f"q{number}")))
    assert [result.parts["answered_elsewhere"].raw["batch"] for result in found] == [8.0] * 8


HOLDING, GO_ON = threading.Event(), threading.Event()


def held(sample: Sample, output: Output) -> float:
    """1.0, but for the text "hold" only when it is told to go on."""
    if output.text == "hold":
        HOLDING.set()
        assert GO_ON.wait(20)
    return 1.0


def in_a_fork(call: Callable[[], str]) -> str:
    """What a call gives in a forked process, or the error that it raises there."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            said = call()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    ready, _, _ = select.select([reading], [], [], 20)
    if not ready:
        os.kill(child, signal.SIGKILL)
    said = os.read(reading, 4096).decode() if ready else "it hangs"
    os.close(reading)
    os.waitpid(child, 0)
    return said


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_scores_in_its_thread_or_is_told_to_make_its_own() -> None:
    with Reward({held: 1.0}) as texts, Reward({answered_elsewhere: 1.0}) as waiting:
        assert texts.one("yes", question("q")).reward == waiting.one("yes", question("q")).reward == 1.0
        with ThreadPoolExecutor(1) as other:
            scoring = other.submit(texts.one, "hold", question("q"))
            assert HOLDING.wait(20)
            try:
                assert in_a_fork(lambda: str(texts.one("yes", question("q")).reward)) == "1.0"
            finally:
                GO_ON.set()
            assert scoring.result().reward == 1.0
        told = in_a_fork(lambda: str(waiting.one("yes", question("q")).reward))
        assert told.startswith("ConfigError") and told.endswith("make a Reward in each process")
        assert in_a_fork(lambda: str(waiting.close())) == "None"
        assert waiting.one("yes", question("q")).reward == 1.0


def test_a_reward_is_copied_and_pickled_by_its_settings_and_state() -> None:
    of = rubric(faulty("Remembers"), {"use": f"{FAULTY}:length", "weight": 2.0})
    with Reward(of, window_ms=1) as reward:
        reward.observe(["a", "b"], [question("q")] * 2)
        expected = reward.one("yes", question("q"))
        for again in (pickle.loads(pickle.dumps(reward)), copy.deepcopy(reward)):
            with again:
                assert plain([again.one("yes", question("q"))]) == plain([expected])
    captions = [
        Sample(name, Task.CHANGE_CAPTION, reference={"captions": [f"a {name} is built"]}) for name in ("road", "house")
    ]
    with Reward(rubric({"use": "cider_d", "config": {"tokens": "words"}}), samples=captions) as fitted:
        again = pickle.loads(pickle.dumps(fitted))
        assert again.one("a road is built", captions[0]) == fitted.one("a road is built", captions[0])


def test_a_verifier_that_asks_its_own_reward_is_refused() -> None:
    made: list[Reward] = []

    def asks(sample: Sample, output: Output) -> float | None:
        return made[0].one(output, sample).reward

    async def asks_later(sample: Sample, output: Output) -> float | None:
        return (await made[0].aone(output, sample)).reward

    async def asks_and_waits(sample: Sample, output: Output) -> float | None:
        with Reward({answered_elsewhere: 1.0}) as other:
            return other.one(output, sample).reward

    async def asks_another(sample: Sample, output: Output) -> float | None:
        with Reward({"exact_match": 1.0}) as other:
            return (await other.aone(output, sample)).reward

    for use, says in (
        (asks, "cannot ask the Reward that asks it"),
        (asks_later, "cannot ask the Reward that asks it"),
        (asks_and_waits, "an async verifier cannot wait for other verifiers"),
    ):
        with Reward({use: 1.0}) as reward:
            made[:] = [reward]
            (score,) = reward.one("yes", question("q")).parts.values()
            assert score.status == "error" and says in score.reason
    with Reward({asks_another: 1.0}) as reward:
        assert reward.one("yes", question("q")).reward == 1.0
