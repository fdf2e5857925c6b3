"""soft_overlong: how near a text comes to the limit of its length."""

from __future__ import annotations

import pytest

import rsw_rewards as rsw
from rsw_rewards.core.records import Output, Sample, Task, TokenTrace
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Batch
from rsw_rewards.engine.calls import scored
from rsw_rewards.errors import ConfigError
from rsw_rewards.verifiers.lengths import SoftOverlong, SoftOverlongConfig


def score(output: Output, **config: object) -> Score:
    verifier = SoftOverlong(SoftOverlongConfig.model_validate({"limit": 10, "cache": 4, **config}))
    return verifier.score(Batch.of([Sample("q", Task.CHANGE_QA, ())], [output]))[0]


def of_tokens(count: int) -> Output:
    return Output("q", text="yes", tokens=TokenTrace((1,), (2,) * count, (0.0,) * count))


def test_the_value_falls_over_the_last_units_before_the_limit() -> None:
    """Six tokens are free, and each of the four that follow takes a quarter."""
    assert [score(of_tokens(n)).value for n in (1, 6, 7, 9, 10)] == [1.0, 1.0, 0.75, 0.25, 0.0]
    beyond = score(of_tokens(11))
    assert (beyond.value, beyond.status) == (0.0, Status.INVALID_OUTPUT)
    assert beyond.raw["overlong_penalty"] == -1.0 and "11 tokens, more than the limit of 10" in beyond.reason


def test_words_and_characters_need_no_tokens() -> None:
    text = "a field became a road by then"
    assert score(Output("q", text=text), unit="words").raw["length"] == 7
    assert score(Output("q", text=text), unit="characters", limit=30).raw["length"] == len(text)


def test_outputs_without_tokens_are_refused_where_tokens_are_counted() -> None:
    """Else missing outputs would be 0 and the others errors."""
    sample = {"id": "q", "task": "change_qa"}
    rubric = {"components": [{"use": "soft_overlong"}]}
    with pytest.raises(ConfigError, match=r"counts tokens, and the output for 'q' holds none.* words or characters"):
        rsw.rewards(rubric, [sample, {**sample, "id": "p"}], [{"id": "q", "text": "yes"}])
    with rsw.Reward(rubric) as reward, pytest.raises(ConfigError, match="holds none"):
        reward.one("yes", sample)
    with rsw.Reward(rubric) as reward:
        assert [found.reward for found in reward.many([of_tokens(1), Output("q", invalid="cut")], [sample] * 2)] == [
            1.0,
            0.0,
        ]


def test_what_was_cut_off_has_the_whole_penalty() -> None:
    cut = Output("q", invalid="the answer was cut off", finish_reason="length")
    found = scored(SoftOverlong(), Batch.of([Sample("q", Task.CHANGE_QA, ())], [cut]))
    assert isinstance(found, list) and found[0].value == 0.0 and found[0].raw["overlong_penalty"] == -1.0


def test_a_cache_beyond_the_limit_is_refused() -> None:
    with pytest.raises(ConfigError, match="'cache' is 5, more than the 'limit' of 4"):
        rsw.score("soft_overlong", "yes", task="change_qa", limit=4, cache=5)
