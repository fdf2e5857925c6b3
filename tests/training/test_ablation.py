from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from rsw_rewards.config import ExperimentConfig, RunConfig, load_config, validated
from rsw_rewards.core.rubric import parse_rubric
from rsw_rewards.errors import ConfigError
from rsw_rewards.evaluation.statistics import Estimate
from rsw_rewards.training.ablation.effects import Ablation, Effect, Trained, effect_of, over_seeds
from rsw_rewards.training.ablation.page import page, sentences, table
from rsw_rewards.training.ablation.run import ablate, fitting
from rsw_rewards.training.ablation.variants import FULL, Variant, configured, method, variants

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
RUBRIC = parse_rubric(
    {
        "components": [
            {"use": "exact_match", "weight": 0.9},
            {"use": "answer_format", "weight": 0.1},
            {"use": "gain_over_copy"},
        ]
    },
    "test",
)


def test_every_reward_is_left_out_once_and_tried_alone() -> None:
    found = variants(RUBRIC, ("leave-one-out", "single"), [{"exact_match": 1.0, "gain_over_copy": 3.0}])
    assert [variant.name for variant in found[:2]] == [FULL, "without exact_match"]
    assert len(found) == 1 + 3 + 3 + 1 and len({variant.folder for variant in found}) == len(found)
    assert found[1].weights == {"exact_match": 0.0, "answer_format": 0.1, "gain_over_copy": 1.0}
    assert found[-1].weights["answer_format"] == 0.0


def test_a_single_reward_cannot_be_left_out() -> None:
    alone = parse_rubric({"components": [{"use": "exact_match"}]}, "test")
    with pytest.raises(ConfigError, match="nothing to leave out"):
        variants(alone, ("leave-one-out",))
    with pytest.raises(ConfigError, match="known are leave-one-out"):
        variants(RUBRIC, ("one-by-one",))


def test_a_task_that_loses_its_reward_is_not_trained_on() -> None:
    config = load_config(QUICKSTART, {"out": "x"})
    assert isinstance(config, RunConfig)
    rubric = config.rubric
    without = next(variant for variant in variants(rubric, ("leave-one-out",)) if variant.component == "gain_over_copy")
    content = configured(config, without, 5, Path("y"), ["change_qa", "forecast"])
    assert content["grpo"]["mix"] == {"change_qa": config.grpo.prompts} and content["seed"] == 5
    full = configured(config, variants(rubric, ())[0], 5, Path("y"), ["change_qa", "forecast"])
    assert full["grpo"]["mix"] is None


@pytest.mark.parametrize("name", ["ppo_quickstart", "diffusion_forecast"])
def test_other_methods_are_varied_in_their_own_section(name: str) -> None:
    config = load_config(QUICKSTART.with_name(f"{name}.yaml"), {"out": "x"})
    assert isinstance(config, ExperimentConfig)
    rubric = config.rubric
    tasks = sorted({str(task) for part in rubric.components for task in part.build().tasks} & {"change_qa", "forecast"})
    for variant in variants(rubric, ("leave-one-out", "single")):
        content = configured(config, variant, 5, Path("y"), tasks)
        assert method(config) in content and "grpo" not in content
        again = validated(type(config), content, "test")
        left = [part for part in again.rubric.components if part.weight > 0]
        assert {part.label for part in left} == {label for label, weight in variant.weights.items() if weight}
        mix = again.generation.mix
        assert mix is None or sum(mix.values()) == config.generation.prompts


def test_runs_at_a_time_leave_every_run_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    for threads, actors, fits in ((1, 0, 16), (4, 2, 4), (1, 8, 2), (64, 0, 1)):
        config = load_config(QUICKSTART, {"out": "x", "grpo.threads": threads, "rollouts.actors": actors})
        assert isinstance(config, ExperimentConfig) and fitting(config) == fits


def test_seeds_widen_an_interval_beyond_that_of_the_scenes() -> None:
    scenes_only = Estimate(0.1, (0.06, 0.14), 100)
    alike = over_seeds([scenes_only] * 3)
    apart = over_seeds([Estimate(value, (value - 0.04, value + 0.04), 100) for value in (-0.1, 0.1, 0.3)])
    assert alike is not None and apart is not None
    assert alike == pytest.approx((0.06, 0.14), abs=1e-6)
    assert apart[1] - apart[0] > 0.5 and np.mean(apart) == pytest.approx(0.1)
    assert over_seeds([Estimate(0.1, None, 1)]) is None


def effect(
    variant: str, component: str, difference: float, ci95: tuple[float, float] | None, verdict: str = ""
) -> Effect:
    return Effect(
        variant, component, "greedy", "accuracy", True, 0.5, 0.6, difference, ci95, (difference,), difference, ci95, verdict
    )  # fmt: skip


def test_the_page_says_which_reward_did_what_and_which_runs_failed() -> None:
    found = Ablation(Path("x"), (1,))
    found.effects = [
        effect(FULL, "", 0.0, None),
        effect("without <b>a</b>", "<b>a</b>", -0.1, (-0.2, -0.05), "useful"),
        effect("without c", "c", 0.02, (-0.05, 0.09), "no effect seen"),
        effect("without d", "d", 0.2, (0.1, 0.3), "harmful"),
    ]
    found.effects.append(effect("only d", "", -0.2, (-0.3, -0.1)))
    found.failed = {"without d, seed 2": "exit code 1"}
    found.alarms = {FULL: ["seed 1: ALARM after step 9"]}
    said = sentences(found)
    assert "rang 1 alarm, the first seed 1: ALARM after step 9" in said[3]
    assert said[4] == "Under 'only d', accuracy (greedy, -0.200 [-0.300, -0.100]) got worse."
    assert "useful" in said[0] and "no effect" in said[1] and "harmful" in said[2]
    html = page(found)
    assert "<b>a</b>" not in html.replace("<b>without d, seed 2</b>", "") and "exit code 1" in html
    assert "| without c | +0.020 [-0.050, +0.090] |" in table(found)


def test_one_seed_gives_no_verdict() -> None:
    variant, run = Variant("without c", {}, "c"), Trained(0.5, Estimate(-0.1, (-0.2, -0.05), 40))
    clear = Estimate(-0.2, (-0.22, -0.18), 40)
    once, thrice = (effect_of(variant, "greedy", "accuracy", True, [clear] * n, [run] * n, [run] * n) for n in (1, 3))
    assert once.verdict == "one seed" and once.ci95 is not None and thrice.verdict == "useful"
    assert thrice.change == pytest.approx(-0.1) and thrice.change_ci95 is not None and thrice.change_ci95[1] < 0
    neutral = effect_of(variant, "greedy", "length_mean", False, [clear] * 3, [run] * 3, [run] * 3)
    assert neutral.verdict == ""  # neither direction is better
    found = Ablation(Path("x"), (1,), [once])
    assert sentences(found) == ["c was left out with one seed only, which says nothing of another training."]


@pytest.mark.slow
def test_an_ablation_runs_keeps_what_is_finished_and_shows_its_table(tmp_path: Path) -> None:
    said: list[str] = []
    options = {
        "out": tmp_path / "abl",
        "seeds": (1,),
        "kinds": (),
        "weightings": [{"exact_match": 1.0}],
        "smoke": True,
        "changes": {
            "rollouts.actors": 0,
            "measure.sampled": False,
            "measure.components": [{"use": "exact_match"}, {"use": "gain_over_copy"}],
            "measure.metrics": ["accuracy", "gain_over_copy"],
        },
        "say": said.append,
    }
    found = ablate(QUICKSTART, **options)  # type: ignore[arg-type]
    assert not found.failed, found.failed
    record = json.loads((tmp_path / "abl" / "ablation.json").read_text())
    other = "exact_match=1, answer_format=0, gain_over_copy=0"
    assert {one["variant"] for one in record["effects"]} == {FULL, other}
    assert any(one["metric"] == "accuracy" and one["ci95"] for one in record["effects"])
    assert "accuracy" in (tmp_path / "abl" / "ablation.md").read_text()
    mix = yaml.safe_load(
        (tmp_path / "abl" / "exact_match=1-answer_format=0-gain_over_copy=0" / "seed_1" / "config.yaml").read_text()
    )["grpo"]["mix"]
    assert list(mix) == ["change_qa"]
    assert (tmp_path / "abl" / other.replace(", ", "-") / "seed_1" / "heldout" / "before_greedy.parquet").is_file()
    assert "before training are in" in (tmp_path / "abl" / other.replace(", ", "-") / "seed_1.log").read_text()
    mark = tmp_path / "abl" / "ablation.yaml"
    older = yaml.safe_load(mark.read_text())
    del older["measure"]["every"]  # an ablation from before that key was there goes on
    mark.write_text(yaml.safe_dump(older))
    said.clear()
    ablate(QUICKSTART, **options)  # type: ignore[arg-type]
    assert said == ["2 runs (2 variants, 1 seeds), 2 of them finished already"]
    with pytest.raises(ConfigError, match="another configuration"):
        ablate(QUICKSTART, **{**options, "changes": {**options["changes"], "grpo.steps": 3}})  # type: ignore[arg-type]
