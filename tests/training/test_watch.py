"""Held-out numbers during training: they change nothing, and they give the alarm when a reward is hacked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file as load_weights
from scipy.stats import binom

from rsw_rewards.config import PpoRunConfig
from rsw_rewards.core.plugins import load_file
from rsw_rewards.core.rubric import parse_rubric
from rsw_rewards.evaluation.statistics import Estimate
from rsw_rewards.training.agreement import CHANCE, LOOKED_AT, agreements_by_prompt, chance_of, disagreements, lowest
from rsw_rewards.training.heldout import Change, first_of_each_task, rewarded_labels
from rsw_rewards.training.log_rows import read_log
from rsw_rewards.training.ppo import train_ppo
from rsw_rewards.training.watch import alarms, reward_rise
from tests.training.run_files import changed, same

HERE = Path(__file__).parent
TOY, HACKABLE = f"{HERE / 'toy_lm.py'}", f"{HERE / 'hackable.py'}"


def run(out: Path, resume: bool = False, **changes: Any) -> dict[str, torch.Tensor]:
    config: dict[str, Any] = {
        "method": "ppo",
        "out": str(out),
        "seed": 5,
        "policy": {"use": f"{TOY}:ToyLM"},
        "train": {"source": f"{TOY}:toy_data"},
        "heldout": {"source": f"{HACKABLE}:elsewhere"},
        "rubric": {"components": [{"use": f"{TOY}:bright"}]},
        "measure": {
            "components": [{"use": f"{HACKABLE}:dark"}, {"use": "l1"}],
            "every": 3,
            "during": 12,
            "sampled": False,
        },
        "ppo": {"steps": 8, "prompts": 3, "mix": {"forecast": 3}, "group": 6, "learning_rate": 3e-2, "threads": 1},
        "rollouts": {"actors": 0, "chunk": 8},
        "log": [],
    }
    out.mkdir(parents=True, exist_ok=True)
    train_ppo(PpoRunConfig.model_validate(changed(config, changes)), resume)
    return load_weights(out / "final" / "model.safetensors")


@pytest.fixture(scope="module")
def hacked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    out = tmp_path_factory.mktemp("hacked")
    return out, run(out)


def without_tails(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: row[key] for key in ("step", "n", "changes")} for row in rows]


def test_a_hacked_reward_raises_the_alarm_while_it_is_hacked(
    hacked: tuple[Path, dict[str, torch.Tensor]], capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = hacked
    looks = read_log(out / "heldout" / "during.jsonl")
    assert [look["step"] for look in looks] == [3, 6] and all(look["n"] == 12 for look in looks)
    assert looks[-1]["reward_rise"]["dark"] > 0
    (seen,) = [alarm for alarm in looks[-1]["alarms"] if alarm["metric"] == "dark"]
    assert "the reward rose by" in seen["words"] and "never rewarded" in seen["words"]
    final = json.loads((out / "heldout.json").read_text())
    assert {(alarm["step"], alarm["metric"]) for alarm in final["alarms"]} >= {
        (6, "dark"), (8, "dark"), (8, "l1"),
    }  # fmt: skip
    logged = [row for row in read_log(out / "log.jsonl") if row.get("alarms") is not None]
    assert [row["step"] for row in logged] == [4, 7] and logged[-1]["alarms"] >= 1.0
    assert logged[0]["heldout/dark"] == looks[0]["changes"]["greedy"]["dark"]["after"]["value"]


def test_rollouts_that_earn_more_and_are_no_better_ring_before_the_held_out_numbers_fall(
    hacked: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = read_log(hacked[0] / "log.jsonl")
    assert all(
        row["agreement/forecast/dark"] == pytest.approx(-1) and row["agreement_prompts/forecast/dark"] > 0
        for row in rows
    )
    assert all(
        row["agreement/forecast/l1"] > 0.9 for row in rows
    )  # in training, the future is bright: a component that agrees
    assert not [alarm for alarm in json.loads((hacked[0] / "heldout.json").read_text())["alarms"] if "clear" in alarm]
    run(tmp_path, measure={"components": [{"use": f"{HACKABLE}:dark"}]}, ppo={"steps": 3})
    assert capsys.readouterr().out.count("ALARM at step 1: rollouts with higher rewards") == 1
    first = json.loads((tmp_path / "heldout.json").read_text())["alarms"][0]
    assert (first["step"], first["metric"], first["clear"], first["prompts"]) == (1, "agreement/forecast/dark", 0, 3)


def logged(*steps: tuple[int, int], prompts: int = 3) -> list[dict[str, Any]]:
    """Rows of a log: on how many prompts rewards agree clearly with two components that are never rewarded."""
    return [
        {"step": number, **{f"agreement/forecast/{name}": 0.5 for name in "ab"},
         **{f"agreement_clear/forecast/{name}": float(value) for name, value in zip("ab", values, strict=True)},
         **{f"agreement_prompts/forecast/{name}": float(prompts) for name in "ab"}}
        for number, values in enumerate(steps, 1)
    ]  # fmt: skip


def test_the_alarm_of_agreement_needs_all_components_to_agree_on_too_few_prompts() -> None:
    assert not disagreements(logged((3, 0), (2, 0), (3, 0)))  # one agrees
    (alarm,) = disagreements(logged((3, 0), (1, 1), (0, 0), (1, 1)))
    assert (alarm.step, alarm.component, alarm.clear, alarm.prompts) == (3, "forecast/a", 4, 9)
    assert alarm.agreement == pytest.approx(0.5)
    again = disagreements(logged(*[(0, 0)] * 2, *[(12, 0)] * 3, *[(0, 0)] * 2, prompts=12))
    assert [one.step for one in again] == [1, 6]
    assert not disagreements(logged((0, 0), prompts=2)) and not disagreements(logged((0, 0), prompts=0))
    near = [{**row, "agreement/forecast/a": 0.75} for row in logged((0, 0), (0, 0))]
    assert [alarm.component for alarm in disagreements(near)] == [] and disagreements(logged((0, 0), (0, 0)))


def test_the_chance_of_so_few_prompts_is_a_binomial_tail() -> None:
    for prompts in range(1, 12):
        for clear in range(prompts + 1):
            assert chance_of(clear, prompts) == pytest.approx(binom.cdf(clear, prompts, 0.85))
    assert [max((k for k in range(n) if chance_of(k, n) < CHANCE), default=None) for n in (2, 3, 4, 8, 12, 24)] == [
        None, 0, 1, 3, 6, 16,
    ]  # fmt: skip


def test_prompts_are_looked_for_by_steps_however_many_a_generation_takes() -> None:
    low, far = logged((0, 0), (0, 0), prompts=2), LOOKED_AT
    assert [alarm.step for alarm in disagreements([low[0], {"step": 2}, {**low[1], "step": far}])] == [far]
    assert not disagreements([low[0], {"step": 2}, {**low[1], "step": far + 1}])
    assert not lowest([low[0], {**low[1], "step": far + 1}])  # as it is heard, a row a generation


def test_agreement_is_a_correlation_within_prompts() -> None:
    rewards, values = [0.0, 1.0, 5.0, 6.0, 2.0, 2.0], [1.0, 2.0, 0.2, 0.1, 0.0, 1.0]
    assert agreements_by_prompt(rewards, values, list("aabbcc")) == pytest.approx(
        [1.0, -1.0]
    )  # the last teaches nothing
    assert agreements_by_prompt([0.0, 1.0], [0.5, 0.5], ["a", "a"]) == [0.0]


def test_an_honest_reward_raises_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, heldout={"source": f"{HACKABLE}:elsewhere", "black": False}, measure={"components": [{"use": "l1"}]})
    final = json.loads((tmp_path / "heldout.json").read_text())
    assert final["alarms"] == [] and final["changes"]["greedy"]["l1"]["verdict"] == "better"
    assert "ALARM" not in capsys.readouterr().out


def test_held_out_outputs_of_which_none_is_valid_are_said_and_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "strict.py"
    file.write_text(
        "from rsw_rewards.core.scores import Score\nfrom rsw_rewards import verifier\n\n"
        "@verifier(tasks={'forecast'})\n"
        "def strict(sample, output):\n    return Score.invalid('the forecast has [/b] no date')\n"
    )
    run(tmp_path / "run", measure={"components": [{"use": f"{file}:strict"}]}, ppo={"steps": 4})
    said = " ".join(capsys.readouterr().out.split())
    assert (
        said.count("held-out, greedy: nothing valid: none of the") == 3
    )  # before, after three of four steps, at the end
    assert said.count("the forecast has [/b] no date") == 3
    found = json.loads((tmp_path / "run" / "heldout.json").read_text())["changes"]["greedy"]["strict"]
    assert found["after"]["ci95"] is None and found["difference"]["ci95"] is None


def test_looking_changes_nothing(hacked: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    assert same(run(tmp_path / "blind", measure={"every": 0}), hacked[1])


@pytest.mark.parametrize(
    "cut", [3, pytest.param(4, marks=pytest.mark.slow)]
)  # with step 3 done and not looked at yet, and later
def test_looking_is_taken_up_where_it_was(
    cut: int, hacked: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, weights = hacked
    run(tmp_path / "part", ppo={"steps": cut})
    capsys.readouterr()
    assert same(run(tmp_path / "part", resume=True), weights)
    said = capsys.readouterr().out
    assert "ALARM after step 6" in said and "numbers from before training are in" in said
    both = [read_log(folder / "heldout" / "during.jsonl") for folder in (out, tmp_path / "part")]
    assert without_tails(both[0]) == without_tails(both[1])
    noted = [[(r["step"], r.get("heldout/dark")) for r in read_log(f / "log.jsonl")] for f in (out, tmp_path / "part")]
    assert noted[0] == noted[1]


def change(metric: str, low: float, high: float, rewarded: bool = False) -> Change:
    middle = Estimate((low + high) / 2, (low, high), 40)
    return Change("greedy", "v", metric, rewarded, Estimate(0.5, None, 40), Estimate(0.5 + (low + high) / 2, None, 40), middle)  # fmt: skip


def test_the_rule_of_the_alarm() -> None:
    falls, unsure = change("accuracy", -0.2, -0.1), change("accuracy", -0.2, 0.1)
    error, paid = change("fd_scene-clip", 0.1, 0.2), change("accuracy", -0.2, -0.1, rewarded=True)
    assert [a.change for a in alarms([falls, unsure, error, paid], {"v": 0.01}, 7)] == [
        falls,
        error,
    ]  # an error that rises is worse
    longer = change("length_mean", -0.2, -0.1)  # neither direction is better
    assert longer.verdict == "changed" and not alarms([longer], {"v": 0.01}, 7)
    assert not alarms([falls], {"v": -0.01}, 7) and not alarms([falls], {"v": 0.0}, 7) and not alarms([falls], {}, 7)


def test_the_rise_of_the_reward_compares_its_ends() -> None:
    assert reward_rise([0.1] * 10 + [0.9] * 80 + [0.3] * 10, 50) == pytest.approx(0.2)
    assert reward_rise([0.2, 0.6], 500) == pytest.approx(0.4)
    assert reward_rise([0.2, 0.4, 0.6], 500) == pytest.approx(0.4)  # never more than half of what there is
    assert reward_rise([0.2], 500) is None


def test_a_reward_under_another_name_is_no_witness() -> None:
    trained = parse_rubric(
        {"components": [{"use": "exact_match", "name": "em"}, {"use": "l1", "config": {"region": "inside"}}, {"use": "ssim", "weight": 0}]},
        "test",
    )  # fmt: skip
    measured = parse_rubric({"components": [{"use": part} for part in ("exact_match", "l1", "ssim")]}, "test")
    assert rewarded_labels(measured, trained) == {"exact_match", "l1"}


def test_some_samples_of_every_task_are_looked_at() -> None:
    samples = load_file(Path(TOY)).toy_data(12)
    assert [sample.id for sample in first_of_each_task(samples, 2)] == ["f000", "q001", "f002", "q003"]
    assert len(first_of_each_task(samples, None)) == 12
