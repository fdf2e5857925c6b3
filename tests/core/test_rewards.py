"""One algebra of rewards: a table and plain lists of scores give the same bits."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rsw_rewards.core.rewards import Column, combined, rewards
from rsw_rewards.core.rubric import Component, Gate, Rubric
from rsw_rewards.core.scores import Score, ScoreTable

LABELS = ("a", "b", "c")

score = st.one_of(
    st.floats(0, 1).map(Score),
    st.just(Score.invalid("unreadable")),
    st.just(Score.not_applicable("no such question")),
    st.sampled_from(["away", "full"]).map(Score.error),
    st.just(Score.timeout("too slow")),
)


@st.composite
def rubrics(draw: st.DrawFn) -> Rubric:
    def component(label: str) -> Component:
        opener = draw(st.sampled_from([None, *(other for other in LABELS if other != label)]))
        return Component(
            use=label,
            weight=draw(st.sampled_from([0.0, 0.1, 1.0, 3.0])),
            required=draw(st.booleans()),
            gate=None if opener is None else Gate(component=opener, at_least=draw(st.sampled_from([0.3, 1.0]))),
            min_std=draw(st.sampled_from([0.0, 0.2])),
        )

    return Rubric(
        components=tuple(component(label) for label in LABELS),
        combine=draw(st.sampled_from(["weighted_sum", "normalize_each"])),
        min_std=draw(st.sampled_from([0.0, 0.1])),
    )


@st.composite
def scored_groups(draw: st.DrawFn) -> tuple[list[int], dict[str, list[Score | None]]]:
    """The group of every output, and the scores of every component; every output is scored by one component at least."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    groups = [number for number, size in enumerate(sizes) for _ in range(size)]
    columns: dict[str, list[Score | None]] = {
        label: draw(st.lists(score if label == "a" else st.none() | score, min_size=len(groups), max_size=len(groups)))
        for label in LABELS
    }
    return groups, columns


@given(rubrics(), scored_groups(), st.randoms(use_true_random=False))
@settings(max_examples=200)
def test_a_table_and_plain_scores_give_the_same_rewards_to_the_last_bit(
    rubric: Rubric, scored: tuple[list[int], dict[str, list[Score | None]]], random: object
) -> None:
    groups, scores = scored
    rows = [
        (label, output, one) for label, column in scores.items() for output, one in enumerate(column) if one is not None
    ]
    random.shuffle(rows)  # type: ignore[attr-defined]
    table = ScoreTable.from_columns(
        {
            "verifier": [label for label, _, _ in rows],
            "group": [f"g{groups[output]}" for _, output, _ in rows],
            "sample": [f"g{groups[output]}" for _, output, _ in rows],
            "candidate": [output for _, output, _ in rows],
            "value": np.array([np.nan if one.value is None else one.value for _, _, one in rows]),
            "status": [one.status for _, _, one in rows],
            "reason": [one.reason for _, _, one in rows],
        }
    )
    frame = rewards(table, rubric).sort_values("candidate")
    columns = {label: Column.of(label, column) for label, column in scores.items()}
    values, reasons = combined(rubric, columns, np.array(groups))
    assert frame["reward"].to_numpy(np.float64).tobytes() == values.tobytes()
    assert frame["reason"].tolist() == reasons.tolist()


def test_a_score_without_a_value_is_a_failure_only_where_it_failed() -> None:
    column = Column.of("a", [None, Score.not_applicable("no question"), Score.error("away"), Score(0.25)])
    assert np.isnan(column.value).tolist() == [True, True, True, False]
    assert column.failed.tolist() == [False, False, True, False]
    assert column.why.tolist() == ["", "", "a: away", ""]
