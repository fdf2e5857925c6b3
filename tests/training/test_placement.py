"""The planner: what fits is let through, what would wait for ever is refused in one sentence before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from rsw_rewards.cli import app
from rsw_rewards.config import RunConfig
from rsw_rewards.errors import ConfigError
from rsw_rewards.training.placement import Demand, Node, check_placement, demands, place, placement

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


def config(components: list[dict[str, Any]] | None = None, **changes: Any) -> RunConfig:
    rubric = {"components": components or [{"use": "exact_match"}, {"use": "gain_over_copy"}]}
    values = {"out": "unused", "policy": "token_world_model", "train": {"source": "scene-world"}, "rubric": rubric}
    return RunConfig.model_validate({**values, **changes})


def planned(run: RunConfig, *nodes: Node) -> str | None:
    return placement(run, run.rubric, nodes).problem


def test_every_kind_of_actor_is_counted() -> None:
    run = config(
        [{"use": "exact_match", "timeout_s": 5.0}, {"use": "gain_over_copy"}],
        rollouts={"actors": 3, "num_gpus": 1},
        scoring={"actors": 2, "num_gpus": 0.25, "num_cpus": 1},
    )
    found = {d.what: (d.actors, d.num_cpus, d.num_gpus) for d in demands(run, run.rubric)}
    assert found == {
        "rollouts": (3, 0.5, 1.0),
        "scoring exact_match": (2, 1.0, 0.25),
        "scoring gain_over_copy": (2, 1.0, 0.25),
    }


def test_a_share_of_a_gpu_that_no_actor_would_have_is_refused() -> None:
    run = config(scoring={"num_gpus": 0.5})
    with pytest.raises(ConfigError, match=r"'scoring\.num_gpus'.*set 'scoring\.actors' too"):
        demands(run, run.rubric)


def test_fractions_share_a_card_but_never_span_two() -> None:
    def problem(share: float, actors: int) -> str | None:
        return place([Demand("rollouts", actors, 0.1, share, "")], [Node("one", 8, 2)]).problem

    assert problem(0.5, 4) is None
    assert problem(0.1, 20) is None  # ten tenths are one card, whatever floating point says
    assert problem(0.6, 2) is None
    assert "2 find room" in str(problem(0.6, 3))  # 1.8 of 2 GPUs, but no card has 0.6 left
    assert problem(2, 1) is None
    assert problem(2, 2) is not None


def test_an_actor_lies_on_one_node() -> None:
    run = config(rollouts={"actors": 1, "num_cpus": 3})
    assert planned(run, Node("a", 4, 0)) is None
    assert "0 find room" in str(planned(run, Node("a", 2, 0), Node("b", 2, 0)))


def test_no_room_is_said_in_one_sentence_with_what_to_change() -> None:
    run = config(rollouts={"actors": 4, "num_gpus": 1})
    said = str(planned(run, Node("a", 16, 2)))
    assert "rollouts asks for 4 actors" in said and "2 find room" in said and "'rollouts.actors'" in said
    assert "\n" not in said and said.count(". ") == 0


def test_shares_above_one_are_whole() -> None:
    run = config(rollouts={"actors": 1, "num_gpus": 1.5})
    with pytest.raises(ConfigError, match=r"1\.5 GPUs per actor"):
        check_placement(run, run.rubric)


@given(
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from([0.1, 0.5, 1.0]), st.sampled_from([0, 0.25, 0.5, 1, 2]))),
    st.lists(st.tuples(st.integers(1, 8), st.integers(0, 4)), min_size=1, max_size=3),
)
def test_no_node_is_given_more_than_it_has(asked: list[Any], machines: list[Any]) -> None:
    nodes = [Node(str(number), *machine) for number, machine in enumerate(machines)]
    plan = place([Demand(str(n), *one, "") for n, one in enumerate(asked)], nodes)
    for node, (cpus, gpus) in zip(nodes, machines, strict=True):
        shares = [(where.get(node.name, 0), demand) for where, demand in zip(plan.places, plan.demands, strict=True)]
        assert sum(n * d.num_cpus for n, d in shares) <= cpus + 1e-5
        assert sum(n * d.num_gpus for n, d in shares) <= gpus + 1e-5
    placed = all(sum(w.values()) == d.actors for w, d in zip(plan.places, plan.demands, strict=True))
    assert placed == (plan.problem is None)


def test_a_dry_run_shows_the_placement_and_starts_nothing(tmp_path: Path) -> None:
    arguments = ["train", str(QUICKSTART), "--dry-run", "--set", f"out={tmp_path / 'run'}"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    said = " ".join(shown.output.split())
    assert "actors: 2, each 0.5 CPUs and 0 GPUs; 2 on " in said and "nothing is missing" in said
    refused = CliRunner().invoke(app, [*arguments, "--set", "rollouts.num_gpus=64"])
    assert isinstance(refused.exception, ConfigError) and "'rollouts.num_gpus'" in refused.output
    assert not (tmp_path / "run").exists()
