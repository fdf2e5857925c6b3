"""Scores to rewards: what a failure does, what a gate does, and that nothing else depends on anything it should not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsw_rewards.core.records import Task
from rsw_rewards.core.rewards import rewards
from rsw_rewards.core.rubric import Component, Gate, Rubric, as_rubric, load_rubric
from rsw_rewards.core.scores import ScoreTable, Status
from rsw_rewards.engine.circuit_breaker import CircuitBreaker
from rsw_rewards.engine.monitor import component_stats
from rsw_rewards.errors import ConfigError, InputError, RunStopped
from rsw_rewards.verifiers.exact_match import ExactMatch

OK, INVALID, NA, ERROR, TIMEOUT = Status


def table(**columns: list[list[tuple[float | None, Status]]]) -> ScoreTable:
    """A table of verifier -> group -> candidate -> (value, status)."""
    rows = [
        (name, f"g{g}", c, value, status)
        for name, groups in columns.items()
        for g, group in enumerate(groups)
        for c, (value, status) in enumerate(group)
    ]
    return ScoreTable.from_columns(
        {
            "verifier": [row[0] for row in rows], "group": [row[1] for row in rows], "sample": [row[1] for row in rows],
            "candidate": [row[2] for row in rows], "value": np.array([np.nan if row[3] is None else row[3] for row in rows]),
            "status": [row[4] for row in rows], "reason": ["it broke" if row[4] in (ERROR, TIMEOUT) else "" for row in rows],
        }
    )  # fmt: skip


def rubric(*components: Component, combine: str = "weighted_sum", min_std: float = 0.0) -> Rubric:
    return Rubric.model_validate({"components": list(components), "combine": combine, "min_std": min_std})


def ok(*values: float) -> list[tuple[float | None, Status]]:
    return [(value, OK) for value in values]


A, B = Component(use="a"), Component(use="b", weight=3.0)


def reward(score_table: ScoreTable, of: Rubric) -> list[float]:
    return rewards(score_table, of)["reward"].tolist()


def test_the_weighted_mean() -> None:
    assert reward(table(a=[ok(1, 0)], b=[ok(0, 1)]), rubric(A, B)) == [0.25, 0.75]


def test_a_task_is_judged_by_the_components_that_know_it() -> None:
    mixed = table(a=[ok(1, 0), []], b=[[], ok(0.5, 0.25)])
    assert reward(mixed, rubric(A, B)) == [1, 0, 0.5, 0.25]


def test_a_failed_required_component_leaves_its_row_out_and_no_other() -> None:
    result = rewards(table(a=[[(1, OK), (None, ERROR)]], b=[ok(0, 1)]), rubric(A, B))
    assert result["reward"].iloc[0] == 0.25 and np.isnan(result["reward"].iloc[1])
    assert result["reason"].tolist() == ["", "a: it broke"]


def test_a_failed_optional_component_is_left_out_for_its_whole_group() -> None:
    optional = Component(use="a", required=False)
    scores = table(a=[[(1, OK), (None, TIMEOUT)], ok(1, 0)], b=[ok(0.2, 0.6), ok(0.5, 0.5)])
    assert reward(scores, rubric(optional, B)) == pytest.approx([0.2, 0.6, 0.625, 0.375])


def test_an_invalid_output_earns_nothing_but_stays_in() -> None:
    assert reward(table(a=[[(0.0, INVALID), (1.0, OK)]]), rubric(A)) == [0, 1]


def test_what_does_not_apply_is_left_out() -> None:
    scores = table(a=[[(None, NA), (None, NA)]], b=[ok(0.2, 0.6)])
    assert reward(scores, rubric(A, B)) == pytest.approx([0.2, 0.6])


def test_without_any_component_there_is_no_reward() -> None:
    result = rewards(table(a=[[(None, NA)]]), rubric(A))
    assert np.isnan(result["reward"]).all() and "no component" in result["reason"].iloc[0]


def test_a_gate_holds_an_easy_reward_back() -> None:
    gated = Component(use="b", gate=Gate(component="a", at_least=0.5))
    scores = table(a=[[(1, OK), (0.4, OK), (None, ERROR)]], b=[ok(1, 1, 1)])
    values = reward(scores, rubric(A, gated))
    assert values[:2] == [1.0, 0.2] and np.isnan(values[2])


def test_a_gate_whose_own_score_failed_fails_the_component() -> None:
    opener = Component(use="a", weight=0.0)
    gated = Component(use="b", gate=Gate(component="a"))
    scores = table(a=[[(1, OK), (None, ERROR)]], b=[ok(1, 1)])
    values = reward(scores, rubric(opener, gated))
    assert values[0] == 1.0 and np.isnan(values[1])


def test_normalising_each_gives_components_of_other_scales_equal_say() -> None:
    scores = table(a=[ok(0, 1, 0, 1)], b=[ok(0.40, 0.40, 0.60, 0.60)])
    equal = rubric(A, Component(use="b"), combine="normalize_each")
    root = 2**0.5
    assert reward(scores, equal) == pytest.approx([-root, 0, 0, root], abs=1e-3)
    floored = rubric(A, Component(use="b", min_std=0.2), combine="normalize_each")
    assert reward(scores, floored) == pytest.approx([-1 / root, 1 / root, -1 / root, 1 / root], abs=1e-3)


def test_a_near_tie_has_less_say_than_a_difference() -> None:
    """A spread of 3e-5, of 1e-4 and of 0.1 in a component that is normalised."""
    for half, say in ((3e-5, 0.23), (1e-4, 0.5), (0.1, 0.999)):
        scores = table(a=[ok(0.5 - half, 0.5 + half)])
        assert reward(scores, rubric(A, combine="normalize_each"))[1] == pytest.approx(say, abs=1e-3)


@pytest.mark.parametrize("value", [0.1, 0.7, 1 / 3, 1e6, -0.3])
def test_what_rounding_leaves_of_equal_values_is_nothing(value: float) -> None:
    for size in (2, 3, 7, 8):
        scores = table(a=[ok(*[value] * size)], b=[ok(*[value] * size)])
        assert reward(scores, rubric(A, B, combine="normalize_each")) == [0.0] * size


def test_near_ties_of_a_component_or_of_the_reward_are_ties() -> None:
    scores = table(a=[ok(0, 1), ok(1, 1)], b=[ok(0.50, 0.52), ok(0.50, 0.52)])
    assert reward(scores, rubric(A, B)) == pytest.approx([0.375, 0.64, 0.625, 0.64])
    floored = rubric(A, Component(use="b", min_std=0.02))
    assert reward(scores, floored) == pytest.approx([0.255, 0.755, 0.755, 0.755])
    assert reward(scores, rubric(A, B, min_std=0.02)) == pytest.approx([0.375, 0.64, 0.6325, 0.6325])
    assert component_stats(scores, floored)["reward/b/frac_zero_std"] == 1.0


def test_outputs_without_a_reward_have_no_say_in_near_ties() -> None:
    scores = table(a=[[(0.5, OK), (0.52, OK), (None, ERROR)]])
    values = reward(scores, rubric(A, min_std=0.1))
    assert values[:2] == [pytest.approx(0.51)] * 2 and values[0] == values[1] and np.isnan(values[2])


values_of_groups = st.lists(
    st.lists(
        st.one_of(
            st.tuples(st.floats(0, 1), st.just(OK)),
            st.tuples(st.just(0.0), st.just(INVALID)),
            st.tuples(st.none(), st.sampled_from([ERROR, TIMEOUT])),
        ),
        min_size=3,
        max_size=3,
    ),
    min_size=2,
    max_size=4,
)


@given(values_of_groups, st.booleans(), st.randoms(use_true_random=False))
def test_rewards_are_in_the_unit_interval_and_do_not_depend_on_the_order_of_rows(
    groups: list, required: bool, random: object
) -> None:
    scores = table(a=groups, b=[ok(0.1, 0.2, 0.3)] * len(groups))
    of = rubric(Component(use="a", required=required), B)
    result = rewards(scores, of).set_index(["group", "candidate"])["reward"]
    known = result.dropna()
    assert ((known >= 0) & (known <= 1)).all()
    failed = [(f"g{g}", c) for g, group in enumerate(groups) for c, row in enumerate(group) if row[0] is None]
    assert set(result[result.isna()].index) == (set(failed) if required else set())
    order = list(range(len(scores)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = rewards(ScoreTable(scores.frame.iloc[order]), of).set_index(["group", "candidate"])["reward"]
    assert shuffled.reindex(result.index).equals(result)


def test_every_key_is_logged_whatever_happened() -> None:
    of = rubric(A, B)
    full = component_stats(table(a=[ok(1, 0), ok(1, 1)], b=[ok(0, 0), [(None, ERROR), (0.0, INVALID)]]), of)
    assert full["reward/a/mean"] == 0.75 and full["reward/a/frac_zero_std"] == 0.5 and full["reward/a/std"] == 0.25
    assert full["reward/b/error_rate"] == 0.25 and full["reward/b/invalid_rate"] == 0.25
    assert set(component_stats(table(b=[ok(1)]), of)) == set(full)


def test_the_circuit_breaker_says_what_failed() -> None:
    breaker = CircuitBreaker(rubric(A, Component(use="b", required=False)))
    fine, bad = table(a=[ok(1, 1)]), table(a=[[(None, ERROR)] * 6], b=[[(None, ERROR)] * 6])
    breaker.check(fine)
    breaker.check(bad)
    with pytest.raises(RunStopped, match="a on g0: it broke"):
        breaker.check(bad)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("components: []", "components"),
        ("components: [{use: a, weight: -1}]", "components.0.weight"),
        ("components: [{use: a}, {use: a}]", "two components are named 'a'"),
        ("components: [{use: a, colour: red}]", "unknown key 'components.0.colour'; known are use, name"),
        ("components: [{use: a, wieght: 1}]", "unknown key 'components.0.wieght'; did you mean 'weight'"),
        ("components: [{use: a, gate: {component: b, atleast: 1}}]", "did you mean 'at_least'"),
        ("components: [{use: a}]\nminstd: 1", "did you mean 'min_std'"),
        ("components: [{use: a, gate: {component: zzz}}]", "which is no other component"),
        ("rubric: 3", "components"),
        ("{", "not valid YAML"),
    ],
)
def test_a_wrong_rubric_is_refused_by_file_and_key(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"r\.yaml") as error:
        load_rubric(tmp_path / "r.yaml")
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Component(use="a", weigth=1), "the component: unknown key 'weigth'; did you mean 'weight'?"),
        (lambda: Component(use="a", tasks="change_q"), "the component: tasks: .*did you mean 'change_qa'?"),
        (lambda: Component(use="a", tasks=3), "the component: tasks: "),
        (lambda: Component(use="a", gate={"component": "b", "atleast": 1}), "'gate.atleast'; did you mean 'at_least'"),
        (lambda: Component(weight=1), "the component: use: Field required"),
        (lambda: Gate(component="a", at_least=2), "the gate: at_least: "),
        (lambda: Rubric(components=[A], combin="x"), "the rubric: unknown key 'combin'; did you mean 'combine'?"),
        (lambda: Rubric([A], combine="x"), "the rubric: combine: "),
        (lambda: Rubric(components=[{"use": "a", "weigth": 1}]), "'components.0.weigth'; did you mean 'weight'"),
        (lambda: Rubric({"a": -1}), "the rubric: components.0.weight: "),
        (lambda: as_rubric(3), "3 is no rubric"),
        (lambda: as_rubric("nowhere.yaml"), "nowhere.yaml cannot be read"),
    ],
)
def test_what_is_wrong_in_a_program_is_said_as_in_a_file(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make()


def test_a_rubric_is_made_of_one_verifier_or_of_several() -> None:
    def short(sample: object, output: object) -> float:
        return 1.0

    assert Component(use="a", tasks="change_qa").tasks == {Task.CHANGE_QA}
    for value, labels in (
        ("exact_match", ["exact_match"]),
        (short, ["short"]),
        (ExactMatch, ["exact_match"]),
        (A, ["a"]),
        (["exact_match", short, B, {"use": "c"}], ["exact_match", "short", "b", "c"]),
    ):
        assert [component.label for component in as_rubric(value).components] == labels


def test_a_rubric_stands_alone_or_inside_a_run_configuration(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("components: [{use: a, weight: 2}]")
    (tmp_path / "b.yaml").write_text("method: grpo\nrubric: {components: [{use: a, weight: 2}]}")
    assert load_rubric(tmp_path / "a.yaml") == load_rubric(tmp_path / "b.yaml")


# --- properties -------------------------------------------------------------------------------------------------------

optional_groups = st.lists(
    st.lists(
        st.one_of(st.tuples(st.floats(0, 1), st.just(OK)), st.tuples(st.none(), st.sampled_from([ERROR, TIMEOUT]))),
        min_size=4,
        max_size=4,
    ),
    min_size=1,
    max_size=4,
)


@given(optional_groups, st.sampled_from(["weighted_sum", "normalize_each"]))
def test_an_optional_failure_ranks_a_group_as_if_the_component_were_not_there(groups: list, combine: str) -> None:
    others = [ok(0.1, 0.9, 0.4, 0.4)] * len(groups)
    scores = table(a=groups, b=others)
    with_it = rewards(scores, rubric(Component(use="a", required=False), B, combine=combine))["reward"].to_numpy()
    without = rewards(scores, rubric(B, combine=combine))["reward"].to_numpy()
    assert not np.isnan(with_it).any()
    for number, group in enumerate(groups):
        if any(status in (ERROR, TIMEOUT) for _, status in group):
            rows = slice(4 * number, 4 * number + 4)
            assert with_it[rows].tolist() == without[rows].tolist()


@given(optional_groups)
def test_a_failed_score_never_becomes_a_zero(groups: list) -> None:
    scores = table(a=groups)
    for required in (True, False):
        reward_of = rewards(scores, rubric(Component(use="a", required=required)))["reward"].to_numpy()
        failed = np.array([value is None for group in groups for value, _ in group])
        assert np.isnan(reward_of[failed]).all()
    stats = component_stats(scores, rubric(A))
    known = [value for group in groups for value, _ in group if value is not None]
    assert np.isnan(stats["reward/a/mean"]) if not known else stats["reward/a/mean"] == pytest.approx(np.mean(known))


@given(values_of_groups, st.randoms(use_true_random=False))
def test_normalised_rewards_do_not_depend_on_the_order_of_rows_to_the_last_bit(groups: list, random: object) -> None:
    scores = table(a=groups, b=[ok(0.1, 0.2, 0.7)] * len(groups))
    of = rubric(A, B, combine="normalize_each")
    order = list(range(len(scores)))
    random.shuffle(order)  # type: ignore[attr-defined]
    straight = rewards(scores, of).set_index(["group", "candidate"])["reward"]
    shuffled = rewards(ScoreTable(scores.frame.iloc[order]), of).set_index(["group", "candidate"])["reward"]
    assert shuffled.reindex(straight.index).equals(straight)


@pytest.mark.parametrize("required", [True, False])
def test_a_lost_output_changes_nothing_for_its_siblings(required: bool) -> None:
    lost = (None, ERROR)
    scores = table(a=[[(0.2, OK), (0.8, OK), lost]], b=[[(1.0, OK), (0.0, OK), lost]])
    both = [Component(use="a", required=required), Component(use="b", required=False)]
    alone = table(a=[ok(0.2, 0.8)], b=[ok(1.0, 0.0)])
    for combine in ("weighted_sum", "normalize_each"):
        of = rubric(*both, combine=combine)
        result = rewards(scores, of)
        assert result["reward"].tolist()[:2] == reward(alone, of)
        assert np.isnan(result["reward"].iloc[2]) and result["reason"].iloc[2] == "a: it broke"


def test_an_output_without_a_reward_has_no_say_in_the_spread_of_its_group() -> None:
    scores = table(a=[[(0.5, OK), (0.5, OK), (None, ERROR)]], b=[ok(0, 1, 1)])
    values = reward(scores, rubric(A, Component(use="b"), combine="normalize_each"))
    assert values[:2] == pytest.approx([-(0.5**0.5), 0.5**0.5], abs=1e-3) and np.isnan(values[2])


def test_a_gate_is_open_where_it_does_not_apply() -> None:
    gated = Component(use="b", gate=Gate(component="a"))
    scores = table(a=[ok(0, 1), [], [(None, NA), (None, NA)]], b=[ok(1, 1), ok(0.5, 1), ok(0.5, 1)])
    assert reward(scores, rubric(Component(use="a", weight=0), gated)) == [0, 1, 0.5, 1, 0.5, 1]


def test_a_score_that_stands_there_twice_is_refused() -> None:
    scores = table(a=[ok(0.5, 1.0)])
    with pytest.raises(InputError, match="candidate 0 of group 'g0' more than once"):
        rewards(ScoreTable.concat([scores, scores]), rubric(A))


def test_the_circuit_breaker_sees_every_component_of_a_large_batch() -> None:
    scores = table(
        a=[[(None, ERROR)] * 300], b=[ok(*[1.0] * 300)]
    )  # component after component, as the scorer gives them
    with pytest.raises(RunStopped, match="a on g0: it broke"):
        CircuitBreaker(rubric(A, B)).check(scores)


def test_the_circuit_breaker_sees_failures_in_the_middle_of_a_large_batch() -> None:
    scores = table(a=[ok(*[1.0] * 50), [(None, TIMEOUT)] * 11, ok(*[1.0] * 400)])
    with pytest.raises(RunStopped, match="11 of the last 61 required scores failed"):
        CircuitBreaker(rubric(A)).check(scores)
    allowed = table(a=[ok(*[1.0] * 50), [(None, TIMEOUT)] * 10, ok(*[1.0] * 400)])
    CircuitBreaker(rubric(A)).check(allowed)
