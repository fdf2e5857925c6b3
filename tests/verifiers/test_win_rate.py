"""win_rate: how many of its siblings an output beats, by the score of another verifier."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rsw_rewards as rsw
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rubric import build
from rsw_rewards.core.scores import Status
from rsw_rewards.errors import ConfigError
from rsw_rewards.verifiers.win_rate import win_rates


@given(st.lists(st.integers(0, 5), min_size=2, max_size=8), st.integers(0, 3), st.sampled_from([0.0, 1.0]))
def test_rates_are_those_of_all_pairs(values: list[int], beaten: int, margin: float) -> None:
    won = [float(beaten)] * len(values)
    for one, other in combinations(range(len(values)), 2):
        difference = values[one] - values[other]
        won[one] += 0.5 if abs(difference) <= margin else float(difference > 0)
        won[other] += 0.5 if abs(difference) <= margin else float(difference < 0)
    siblings = len(values) - 1 + beaten
    found = win_rates(np.array(values, float), beaten, margin)
    assert found.tolist() == pytest.approx([one / siblings for one in won])


def closeness(sample: Sample, output: Output) -> float:
    """1 less a tenth of the distance of a number to 7."""
    return 1 - abs(float(output.text or "") - 7) / 10


SAMPLES = [Sample(name, Task.CHANGE_QA, reference={"answers": ["7"]}) for name in ("a", "b")]


def test_outputs_are_compared_with_those_of_their_own_sample() -> None:
    """The group of b has one output that is invalid, which the other one beats; whatever else stands in the batch."""
    outputs = [Output("a", number, text=text) for number, text in enumerate(("7", "5", "6", "6"))]
    outputs += [Output("b", 0, text="1"), Output("b", 1, invalid="cut off")]
    rubric = {"components": [{"use": "win_rate", "config": {"use": f"{__file__}:closeness"}}]}
    with rsw.Reward(rubric) as reward:
        results = reward.many(outputs, [SAMPLES[output.sample_id == "b"] for output in outputs])
    assert [result.reward for result in results] == pytest.approx([1.0, 0.0, 0.5, 0.5, 1.0, 0.0])
    part = results[2].parts["win_rate"]
    assert part.raw["score"] == pytest.approx(0.9) and part.raw["win_rate"] == 0.5
    assert results[5].parts["win_rate"].status is Status.INVALID_OUTPUT


def test_a_failure_of_the_other_verifier_stays_one_and_is_no_sibling() -> None:
    outputs = [Output("a", number, text=text) for number, text in enumerate(("7", "none", "5"))]
    with rsw.Reward({"components": [{"use": "win_rate", "config": {"use": f"{__file__}:closeness"}}]}) as reward:
        scores = [result.parts["win_rate"] for result in reward.many(outputs, [SAMPLES[0]] * 3)]
    assert [score.value for score in scores] == [1.0, None, 0.0] and scores[1].status is Status.ERROR


def test_settings_of_the_other_verifier_are_part_of_the_hash_and_wrong_ones_are_refused() -> None:
    one, other = (build("win_rate", {"use": "soft_overlong", "config": {"limit": n, "cache": 1}}) for n in (5, 6))
    assert one.hash != other.hash and one.tasks == build("soft_overlong").tasks
    for use, what in (("frechet", "only measures"), ("win_rate", "compares the outputs of a group")):
        with pytest.raises(ConfigError, match=f"'{use}' {what}; name another under 'use'"):
            build("win_rate", {"use": use, **({"config": {"use": "exact_match"}} if use == "win_rate" else {})})
    with pytest.raises(ConfigError, match=r"wrong at 'use'|no option"):
        build("win_rate", {})
