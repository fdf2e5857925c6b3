"""Run configurations: what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsw_rewards.cli.options import assignments
from rsw_rewards.config import RunConfig, load_config
from rsw_rewards.errors import ConfigError

GOOD = """
method: grpo
policy: token_world_model
train: {source: scene-world, scenes: 20}
rubric: {components: [{use: exact_match, weight: 1.0}]}
grpo: {steps: 4, prompts: 4}
smoke:
  grpo: {steps: 2}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def load(path: Path, *overrides: str, smoke: bool = False) -> RunConfig:
    config = load_config(path, assignments(overrides), smoke)
    assert isinstance(config, RunConfig)
    return config


def test_overrides_win_over_the_smoke_section_which_wins_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    assert load(path).grpo.steps == 4
    assert load(path, smoke=True).grpo.steps == 2
    assert load(path, "grpo.steps=3", "seed=9", smoke=True).grpo.steps == 3
    assert load(path, "grpo.steps=3").grpo.prompts == 4


def test_overrides_reach_into_lists_and_new_sections(tmp_path: Path) -> None:
    config = load(write(tmp_path, GOOD), "rubric.components.0.weight=0.5", "rollouts.actors=0", "out=x/y")
    assert config.rubric.components[0].weight == 0.5
    assert config.rollouts.actors == 0
    assert config.out == Path("x/y")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("grpo.setps=3", r"run\.yaml: unknown key 'grpo\.setps'; did you mean 'steps'"),
        ("colour=red", r"run\.yaml: unknown key 'colour'; known are seed, out, policy"),
        ("grpo.steps=many", r"run\.yaml: grpo\.steps: .*\(it is 'many'\)"),
        ("grpo.group=1", r"grpo\.group"),
        ("grpo.loss_type=grop", r"grpo\.loss_type: .*\(it is 'grop'\)"),
        ("method=alchemy", r"'method' is 'alchemy'; it must be one of grpo"),
        ("grpo.mix.forecast=1", r"add up to 1, but 'prompts' is 4"),
        ("checkpoints.keep=1", r"checkpoints\.keep"),
        ("seed", r"--set seed: write key=value"),
        ("rubric.components.7.weight=1", r"'7' leads into a list of 1"),
        ("seed.deeper=1", r"'deeper' leads into"),
        ("seed=[1", r"not valid YAML"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path: Path, override: str, message: str) -> None:
    text = GOOD.replace("method: grpo", "method: grpo\nseed: 0")
    with pytest.raises(ConfigError, match=message):
        load(write(tmp_path, text), override)


def test_checkpoints_lie_on_generation_boundaries(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    with pytest.raises(ConfigError, match=r"a generation lasts 4 optimizer steps"):
        load(path, "grpo.updates=2", "grpo.iterations=2", "checkpoints.every=6")
    assert load(path, "grpo.updates=2", "grpo.iterations=2", "checkpoints.every=8").grpo.boundary == 4


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "\0"])
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        load(write(tmp_path, text))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.yaml")


def test_a_rubric_in_a_file_is_found_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "rewards.yaml").write_text("components: [{use: exact_match}]", encoding="utf-8")
    path = write(
        tmp_path, GOOD.replace("rubric: {components: [{use: exact_match, weight: 1.0}]}", "rubric: rewards.yaml")
    )
    assert load(path).rubric.dump() == {"components": [{"use": "exact_match"}]}


def test_runs_get_a_directory_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSW_RUNS", str(tmp_path))
    path = write(tmp_path, GOOD)
    first = load(path).out
    assert first == tmp_path / "run"
    first.mkdir()
    assert load(path).out.name.startswith("run-")
