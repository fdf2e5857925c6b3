"""What a run trained, as a policy: `--policy runs/x` has the trained weights, and no run gives those it started from."""

from __future__ import annotations

import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rsw_rewards.cli import main
from rsw_rewards.errors import ConfigError
from rsw_rewards.io.records_io import load_outputs, load_samples
from rsw_rewards.rollouts.policies import WithWeights, build_policy, load_policy
from rsw_rewards.rollouts.pool import RolloutPool
from rsw_rewards.rollouts.trained import FINAL, MARK, damage_of, find_trained, mark_complete, writing
from rsw_rewards.rollouts.weights import trained_weights
from rsw_rewards.training.run import train
from tests.training import test_grpo, test_ppo
from tests.training.run_files import same

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


def weights(policy: Any) -> dict[str, torch.Tensor]:
    policy.setup()
    return trained_weights(policy.model)


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["rsw", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of the quickstart, large enough that answers change."""
    out = tmp_path_factory.mktemp("runs") / "quick"
    few = {"heldout": None, "grpo.learning_rate": 0.006, "rollouts.actors": 0, "train.forecasts": 0, "grpo.group": 8}
    return train(QUICKSTART, {"out": str(out), **few}, smoke=True)


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions")
    with pytest.MonkeyPatch.context() as patch:
        asked = ("--n", 16, "--tasks", "change_qa", "--out", folder)
        assert command(patch, "data", "make", "scene-world", *asked) == 0
    return folder / "samples.jsonl"


def test_a_run_and_its_final_folder_are_the_trained_policy(run: Path) -> None:
    start, trained = weights(build_policy("token_world_model")), weights(load_policy(run))
    assert not same(start, trained)
    assert same(trained, weights(load_policy(run / FINAL)))
    assert same(trained, weights(build_policy(str(run))))
    assert load_policy(run).trainable


def test_an_unfinished_run_is_its_newest_complete_checkpoint(run: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(run, cut)
    (cut / FINAL / MARK).unlink()
    trained = weights(load_policy(run))
    assert find_trained(cut).step == 2 and same(trained, weights(load_policy(cut)))
    (cut / "checkpoints" / "checkpoint-2" / MARK).unlink()
    first = load_policy(cut)
    assert isinstance(first, WithWeights) and first.describe()["weights"].endswith("checkpoint-1")
    assert not same(trained, weights(pickle.loads(pickle.dumps(first))))  # actors get it pickled
    assert same(weights(first), weights(load_policy(run / "checkpoints" / "checkpoint-1")))
    shutil.rmtree(cut / "checkpoints")
    for place in (cut, cut / FINAL):
        with pytest.raises(ConfigError, match="no complete policy and no complete checkpoint"):
            load_policy(place)


def test_a_run_that_goes_on_is_newer_than_what_it_ended_with_before(run: Path, tmp_path: Path) -> None:
    longer = tmp_path / "longer"
    shutil.copytree(run, longer)
    shutil.copytree(longer / "checkpoints" / "checkpoint-2", longer / "checkpoints" / "checkpoint-3")
    (longer / "checkpoints" / "checkpoint-3" / MARK).write_text('{"step": 3}')
    found = find_trained(longer)
    assert (found.step, found.folder.name, found.is_checkpoint) == (3, "checkpoint-3", True)


def test_evaluate_runs_the_trained_policy(
    run: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = ("evaluate", "exact-qa", "--samples", questions)
    assert command(monkeypatch, *evaluate, "--policy", run, "--temperature", 1, "--out", tmp_path / "trained") == 0
    samples = load_samples(questions)
    outputs, _ = load_outputs(tmp_path / "trained" / "outputs" / "predictions.jsonl", samples, own=True)
    made = {}
    for name, policy in (
        ("start", "token_world_model"),
        ("trained", {"use": "token_world_model", "path": run / FINAL}),
    ):
        with RolloutPool(build_policy(policy), actors=0) as pool:
            made[name] = {group[0].sample_id: group[0].text for group in pool.generate(samples, 1, 1.0, 0)}
    assert {output.sample_id: output.text for output in outputs} == made["trained"] != made["start"]
    about = yaml.safe_load((tmp_path / "trained" / "config.yaml").read_text())["about"]
    assert (about["policy"], about["step"]) == (str(run), 2)


def test_a_checkpoint_is_named_in_the_warnings(
    run: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = run / "checkpoints" / "checkpoint-1"
    evaluate = ("evaluate", "exact-qa", "--samples", questions, "--policy", policy, "--out", tmp_path / "one")
    assert command(monkeypatch, *evaluate) == 0
    assert "the policy is a checkpoint" in capsys.readouterr().err


def test_a_training_configuration_is_no_policy(
    run: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate = ("evaluate", "exact-qa", "--samples", questions, "--out", tmp_path / "none")
    assert command(monkeypatch, *evaluate, "--policy", run / "config.yaml") == 2
    assert f"give the directory of the run, {run}, for the trained policy" in capsys.readouterr().err
    for given, words in ((QUICKSTART, "is a training configuration"), (run.parent / "nothing", "there is no folder")):
        with pytest.raises(ConfigError, match=words):
            build_policy(str(given))
    alone = tmp_path / "alone.yaml"
    for content in ({"policy": {"use": "token_world_model"}}, {"use": "token_world_model"}):
        alone.write_text(yaml.safe_dump(content))
        assert build_policy(str(alone)).name == "token_world_model"


def test_a_name_wins_over_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "constant").mkdir()
    assert build_policy("constant").name == "constant"


def test_a_run_can_start_from_another_run(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "second"
    few = {"policy": str(run), "heldout": None, "rollouts.actors": 0, "out": str(out)}
    train(QUICKSTART, few, smoke=True)
    first, second = weights(load_policy(run)), weights(load_policy(out))
    distance = max(float((first[key] - second[key]).abs().max()) for key in first)
    assert 0 < distance < 0.002  # two steps of 3e-4 from the first run; that one made two of 6e-3


@pytest.mark.parametrize("method", ["grpo", "ppo"])
def test_a_policy_without_a_path_takes_the_trained_weights(method: str, tmp_path: Path) -> None:
    make: Any = test_grpo.configuration if method == "grpo" else test_ppo.configuration
    file, out = tmp_path / "run.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump({**make(out), "method": method}))
    train(file)
    start = weights(build_policy(make(out)["policy"]))
    last = max((out / "checkpoints").iterdir(), key=lambda path: int(path.name.rpartition("-")[2]))
    assert not same(start, weights(load_policy(out)))
    assert same(weights(load_policy(out)), weights(load_policy(last)))


def test_a_trained_adapter_is_loaded_without_the_settings_it_was_made_by(tmp_path: Path) -> None:
    spec = {"use": "vision_language", "path": "tiny:qwen2_5_vl", "lora": {"r": 2}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"method": "grpo", "policy": spec}))
    made: Any = build_policy(spec)
    made.setup()
    with torch.no_grad():
        for weight in made.model.parameters():
            weight += weight.requires_grad
    with writing(tmp_path / FINAL, 2):
        made.save(tmp_path / FINAL)
    assert same(trained_weights(made.model), weights(load_policy(tmp_path)))


def test_a_folder_that_is_no_run_and_a_method_without_a_policy_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not the directory of a training run; .* path: "):
        load_policy(tmp_path)
    (tmp_path / "config.yaml").write_text("method: clip\n")
    with pytest.raises(ConfigError, match="the method 'clip' trains none"):
        load_policy(tmp_path)


@pytest.mark.parametrize("place", [MARK, "model.bin", "part/model.bin"])
def test_any_damage_to_a_policy_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "part").mkdir()
    for name in ("model.bin", "part/model.bin"):
        (tmp_path / name).write_bytes(b"weights")
    mark_complete(tmp_path, 7)
    assert not damage_of(tmp_path)
    (tmp_path / "log.jsonl").write_text("of the run, not of the policy")
    assert not damage_of(tmp_path)
    content = (tmp_path / place).read_bytes()
    for changed in (content[:-3], content.replace(b"7", b"8", 1).replace(b"w", b"v")):
        (tmp_path / place).write_bytes(changed)
        assert str(tmp_path / place) in damage_of(tmp_path)
    (tmp_path / place).write_bytes(content)
    assert not damage_of(tmp_path)
