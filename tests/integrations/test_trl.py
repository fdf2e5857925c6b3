"""Our reward as one of TRL's reward functions, called by TRL's own trainer."""

from __future__ import annotations

import pytest

import rsw_rewards as rsw
from rsw_rewards.core.records import Sample
from rsw_rewards.integrations.trl import RSWReward

END = 2


def question(name: str, answer: str) -> dict[str, object]:
    return {"id": name, "task": "change_qa", "reference": {"answers": [answer], "vocabulary": ["yes", "no"]}}


@rsw.verifier(tasks="change_qa")
def share(sample: Sample, output: rsw.Output) -> float:
    """The number that the output is; a text is a fault of the verifier's."""
    return float(output.text or "")


def test_rewards_are_those_of_the_evaluator() -> None:
    samples = [question("a", "yes"), question("b", "no")]
    texts = ["yes", "no", "perhaps", "yes", "no", "<think>so</think>no"]
    ids = ["a", "a", "a", "b", "b", "b"]
    rubric = {"exact_match": 0.9, "answer_format": 0.1}
    reward = RSWReward(rubric, samples, eos_token_id=END)
    given = reward(["?"] * 6, [[{"role": "assistant", "content": text}] for text in texts], [[5, END]] * 6, id=ids)
    by_id = {sample["id"]: sample for sample in samples}
    assert given == [result.reward for result in rsw.Reward(rubric).many(texts, [by_id[name] for name in ids])]
    columns = {field: [by_id[name][field] for name in ids] for field in ("id", "task", "reference")}
    assert RSWReward(rubric, eos_token_id=END)(["?"] * 6, texts, [[5, END]] * 6, **columns) == given


def test_components_are_logged() -> None:
    logged: dict[str, object] = {}
    reward = RSWReward({"exact_match": 1.0}, [question("a", "yes")], eos_token_id=END)
    reward(
        ["?"] * 2, ["yes", "no"], [[5, END]] * 2, id=["a", "a"],
        log_extra=logged.__setitem__, log_metric=logged.__setitem__,
    )  # fmt: skip
    assert logged == {"exact_match": [1.0, 0.0], "components/exact_match": 0.5}


def test_an_output_without_a_reward_is_none() -> None:
    reward = RSWReward(share, [question("a", "yes")], eos_token_id=END)
    texts, ids = ["1", "0", "broken", "1"], [[5, END], [5, END], [5, END], [5]]
    assert reward(["?"] * 4, texts, ids, id=["a"] * 4) == [1.0, 0.0, None, 0.0]


def test_a_data_set_without_ids_is_a_sentence() -> None:
    with pytest.raises(rsw.InputError, match="no column 'id' with the ids of samples; its columns are sample"):
        RSWReward(share, [question("a", "yes")], eos_token_id=END)(["?"], ["1"], [[END]], sample=["a"])
