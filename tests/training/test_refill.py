"""Groups without spread are replaced: within the bound, task by task, and the same again when a run is taken up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file as load_weights

from rsw_rewards.config import PpoRunConfig, RunConfig
from rsw_rewards.core.plugins import load_file
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rubric import VERIFIERS
from rsw_rewards.core.scores import ScoreTable, Status
from rsw_rewards.errors import ConfigError
from rsw_rewards.io.records_io import load_samples
from rsw_rewards.training.generation import Generation, Refilled, refill, reserve, without_spread
from rsw_rewards.training.grpo import train_grpo
from tests.training.run_files import changed, dumped_rewards, log, same, without_times

TOY = str(Path(__file__).parent / "toy_lm.py")
toy = load_file(Path(TOY))


def prompt(name: str) -> Sample:
    return Sample(name, Task.CHANGE_QA if name[0] == "q" else Task.FORECAST, (), "", {}, scene=name)


def made(samples: Sequence[Sample], flat: set[str]) -> Generation:
    outputs = [Output(sample.id, candidate) for sample in samples for candidate in (0, 1)]
    columns = {"sample": [output.sample_id for output in outputs], "status": Status.OK, "verifier": "v"}
    rewards = pd.DataFrame({
        "sample": columns["sample"],
        "candidate": [output.candidate for output in outputs],
        "reward": [0.5 if output.sample_id in flat else float(output.candidate) for output in outputs],
    })  # fmt: skip
    return Generation(list(samples), outputs, ScoreTable.from_columns(columns), rewards)


def refilled(asked: Sequence[str], others: Sequence[str], flat: set[str], bound: int) -> Refilled:
    return refill(
        made([prompt(name) for name in asked], flat),
        bound=bound,
        make=lambda fresh: made(fresh, flat),
        more=reserve(map(prompt, [*asked, *others]), asked, seed=0, step=0),
    )


@given(st.data())
def test_flat_groups_give_way_to_others_of_their_task_and_nothing_else_moves(data: st.DataObject) -> None:
    names = [f"{kind}{number}" for kind in "qf" for number in range(8)]
    asked = data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=8, unique=True))
    others = [name for name in names if name not in asked]
    flat, bound = data.draw(st.sets(st.sampled_from(names))), data.draw(st.integers(0, 12))
    found = refilled(asked, others, flat, bound)
    final = [sample.id for sample in found.generation.samples]
    assert len(set(final)) == len(asked) and [name[0] for name in final] == [name[0] for name in asked]
    assert all(new == old or (old in flat and new not in flat) for old, new in zip(asked, final, strict=True))
    assert [output.sample_id for output in found.generation.outputs] == [name for name in final for _ in (0, 1)]
    assert sorted(found.generation.table.frame["sample"]) == sorted(name for name in final for _ in (0, 1))
    expected = [0.5 if name in flat else candidate for name in final for candidate in (0.0, 1.0)]
    assert found.generation.given == expected
    drawn = found.numbers()["refill/prompts"]
    assert drawn is not None and drawn <= bound and len(found.everything) == 2 * (len(asked) + drawn)
    for task in "qf":  # what could be replaced within the bound was
        left = [name for name in final if name in flat and name[0] == task]
        unused = {name for name in others if name[0] == task} - set(found.everything.frame["sample"])
        assert not left or not unused or drawn == bound


def test_prompts_are_drawn_by_seed_and_step() -> None:
    samples = [prompt(f"q{number}") for number in range(20)]
    orders = [[s.id for s in reserve(samples, ["q3"], *key)["change_qa"]] for key in ((0, 4), (0, 4), (0, 5), (1, 4))]
    assert orders[0] == orders[1] and len({*map(tuple, orders)}) == 3 and "q3" not in orders[0] and len(orders[0]) == 19


def test_one_reward_or_none_is_no_spread() -> None:
    frame = pd.DataFrame({"sample": [*"aabbccdd"], "reward": [0.5, 0.5 + 1e-12, 0.1, 0.2, np.nan, 0.7, np.nan, np.nan]})
    assert without_spread(frame) == {"a", "c", "d"}


def configuration(out: Path, policy: dict[str, Any] | None = None, **changes: Any) -> RunConfig:
    config: dict[str, Any] = {
        "out": str(out),
        "seed": 5,
        "policy": {"use": f"{TOY}:ToyLM", **(policy or {})},
        "train": {"source": f"{TOY}:toy_data", "count": 24},
        "rubric": {"components": [{"use": "exact_match"}, {"use": f"{TOY}:bright"}]},
        "grpo": {"steps": 4, "prompts": 4, "group": 2, "learning_rate": 5e-3, "threads": 1, "refill": 3},
        "rollouts": {"actors": 0, "chunk": 1},
        "checkpoints": {"every": 2},
        "log": [],
        "dump_every": 1,
    }
    return RunConfig.model_validate(changed(config, changes))


def run(out: Path, resume: bool = False, **changes: Any) -> dict[str, torch.Tensor]:
    out.mkdir(parents=True, exist_ok=True)
    train_grpo(configuration(out, **changes), resume)
    return load_weights(out / "final" / "model.safetensors")


def test_a_run_learns_from_groups_with_spread_and_resumes_exactly(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    rows = log(tmp_path / "whole")
    replaced = [row["refill/replaced"] for row in rows]
    assert sum(replaced) > 0 and all(row["refill/prompts"] <= 3 for row in rows)
    for step, row in enumerate(rows):
        seen = dumped_rewards(tmp_path / "whole" / "dumps" / f"step_{step:06d}")
        names = {name for name, _ in seen}
        ties = sum(seen[name, 0] == seen[name, 1] for name in names)
        assert len(names) == 4 and sum(name[0] == "q" for name in names) == 2
        assert ties == row["groups_zero_std"] - row["refill/replaced"]
        assert row["refill/tokens"] >= row["refill/rollouts"] == 2 * row["refill/prompts"]
        assert row["tokens"] > 0 and row["groups"] == 4
    run(tmp_path / "part", grpo={"steps": 2})
    assert same(run(tmp_path / "part", resume=True), whole)
    again = without_times(log(tmp_path / "part"))
    assert [{**row, "epoch": 0} for row in again] == [{**row, "epoch": 0} for row in without_times(rows)]
    samples = load_samples(tmp_path / "whole" / "dumps" / "step_000000" / "samples.jsonl")
    assert len(samples) == 4  # a dump holds what was learnt from


def test_where_replacing_makes_no_sense_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="critic"):
        PpoRunConfig.model_validate(
            {
                "out": "x",
                "policy": "y",
                "train": {"source": "z"},
                "rubric": {"components": [{"use": "l1"}]},
                "ppo": {"refill": 2},
            }
        )
    assert VERIFIERS.find("frechet_credit").scope == "population"
    components = [{"use": "exact_match"}, {"use": "frechet_credit", "config": {"encoder": "scene-clip"}}]
    with pytest.raises(ConfigError, match="'frechet_credit' scores a generation as a whole"):
        run(tmp_path, rubric={"components": components})
