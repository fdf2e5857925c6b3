"""The directory of a run, and what is refused before anything is learnt in it."""

from __future__ import annotations

import fcntl
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file as load_weights

from rsw_rewards.cli import main
from rsw_rewards.core.files import read_json
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Sample, Task
from rsw_rewards.core.rubric import build
from rsw_rewards.errors import ConfigError
from rsw_rewards.rollouts.policies import build_policy
from rsw_rewards.rollouts.pool import RolloutPool
from rsw_rewards.training.run import train
from rsw_rewards.training.run_folder import LOCK, check_inputs, difference, samples_hash
from tests.training import test_grpo, test_ppo
from tests.training.run_files import log, same, without_times
from tests.training.toy_lm import toy_data

TOY = test_grpo.TOY


def started(file: Path, method: str, out: Path, resume: bool = False, **changes: Any) -> Path:
    """A run by a configuration file, as ``rsw train`` starts it."""
    make = test_grpo.configuration if method == "grpo" else test_ppo.configuration
    file.write_text(yaml.safe_dump(make(out, **changes) | {"method": method}))
    return train(file, resume=out if resume else None)


def test_a_run_goes_on_for_longer_and_on_other_actors(tmp_path: Path) -> None:
    whole, longer = tmp_path / "whole", tmp_path / "longer"
    started(tmp_path / "a.yaml", "grpo", whole, grpo={"steps": 4})
    started(tmp_path / "b.yaml", "grpo", longer, grpo={"steps": 2})
    started(tmp_path / "b.yaml", "grpo", longer, resume=True, grpo={"steps": 4}, rollouts={"chunk": 2})
    ends = [load_weights(out / "final" / "model.safetensors") for out in (whole, longer)]
    assert same(*ends)
    rows = [[{**row, "epoch": None} for row in without_times(log(out))] for out in (whole, longer)]
    assert rows[0] == rows[1]
    assert yaml.safe_load((longer / "config.yaml").read_text())["grpo"]["steps"] == 4
    with pytest.raises(ConfigError, match=r"'grpo.steps' \(3 instead of 4\) differs"):
        started(tmp_path / "b.yaml", "grpo", longer, resume=True, grpo={"steps": 3})
    with pytest.raises(ConfigError, match="'seed'"):
        started(tmp_path / "b.yaml", "grpo", longer, resume=True, grpo={"steps": 4}, seed=6)


@pytest.mark.parametrize(
    ("path", "changes", "may"),
    [
        (("flow_grpo",), {"steps": 20}, True),
        ((), {"steps": 20}, True),
        (("policy",), {"steps": 20}, False),
        (("grpo",), {"steps": 5}, False),
        (("rollouts",), {"actors": 4}, True),
        (("rollouts",), {"stale": 1}, False),
        (("checkpoints",), {"every": 3}, True),
    ],
)
def test_what_a_resumed_run_may_change(path: tuple[str, ...], changes: dict[str, Any], may: bool) -> None:
    def nested(values: dict[str, Any]) -> dict[str, Any]:
        for part in reversed(path):
            values = {part: values}
        return values

    before = {"steps": 10, "actors": 1, "stale": 0, "every": 1}
    assert (difference(nested(before), nested({**before, **changes})) is None) is may


def test_a_run_of_stale_rollouts_keeps_its_length() -> None:
    run = {"rollouts": {"stale": 1}, "grpo": {"steps": 10}}
    assert difference(run, {**run, "grpo": {"steps": 20}}) == "'grpo.steps' (20 instead of 10)"


def test_two_trainings_do_not_share_a_directory(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    with (out / LOCK).open("w") as held:
        held.write("123\n")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match=r"a training is going on in .*run \(process 123\)"):
            started(tmp_path / "run.yaml", "grpo", out, grpo={"steps": 1})
    started(tmp_path / "run.yaml", "grpo", out, grpo={"steps": 1})
    assert (out / "final").is_dir()


def test_a_run_goes_on_with_the_data_and_the_code_it_was_started_with(tmp_path: Path) -> None:
    samples = toy_data()
    file = tmp_path / "rewards.py"
    text = (
        "from rsw_rewards import verifier\n\n@verifier(tasks={'change_qa'})\ndef own(sample, output):\n    return 1.0\n"
    )
    file.write_text(text)
    own = build(f"{file}:own")
    check_inputs(tmp_path, {"train": samples}, {"own": own})
    check_inputs(tmp_path, {"train": samples}, {"own": own})
    other = [replace(sample, reference={**sample.reference, "answers": ["4"]}) for sample in samples]
    for changed in (other, samples[1:], samples[::-1], [replace(samples[0], prompt="x"), *samples[1:]]):
        with pytest.raises(ConfigError, match="'train' is not what"):
            check_inputs(tmp_path, {"train": changed}, {"own": own})
    file.write_text(text.replace("1.0", "0.5"))
    with pytest.raises(ConfigError, match="'rubric: own' is not what"):
        check_inputs(tmp_path, {"train": samples}, {"own": build(f"{file}:own")})
    assert set(read_json(tmp_path / "inputs.json", dict)) == {"train", "rubric: own"}
    (tmp_path / "inputs.json").write_text('{"trai')
    with pytest.raises(ConfigError, match=r"inputs\.json is no valid JSON"):
        check_inputs(tmp_path, {"train": samples}, {"own": own})


POLICIES = f"""
from dataclasses import replace
from rsw_rewards.core.plugins import load_file
from rsw_rewards.rollouts.policy import Policy
from rsw_rewards.core.records import Output
Toy = load_file({TOY!r}).ToyLM


class Questions(Toy):
    tasks = frozenset({{"change_qa"}})


class Mute(Toy):
    def generate(self, requests):
        return [replace(output, tokens=None) for output in super().generate(requests)]


class Bare(Policy):
    name, trainable = "bare", True

    def generate(self, requests):
        return [Output(request.sample.id, text="3") for request in requests]
"""


@pytest.mark.parametrize(
    ("method", "changes", "words"),
    [
        ("ppo", {"rubric": {"combine": "normalize_each"}, "ppo": {"group": 1}}, "with a group of 1 every reward is 0"),
        ("grpo", {"rubric": {"components": [{"use": "exact_match", "weight": 0}]}}, "no reward to learn from"),
        ("grpo", {"policy": "Questions"}, "samples of forecast, which the policy 'toy-lm' cannot do"),
        ("grpo", {"policy": "Mute"}, "outputs have no 'tokens'"),
        ("ppo", {"policy": "Mute"}, "outputs have no 'tokens'"),
        ("grpo", {"policy": "Bare"}, "cannot be trained by tokens, it has no 'model'"),
        ("grpo", {"grpo": {"loss_type": "dr_grpo"}}, r"longest\(sample\)"),
        ("grpo", {"grpo": {"trl": {"epsilon_high": "abc"}}}, "'epsilon_high' is 'abc'"),
        ("grpo", {"grpo": {"trl": {"importance_sampling_level": "seq"}}}, "Input should be 'token' or 'sequence'"),
        ("grpo", {"grpo": {"trl": {"reward_weights": [1, 2]}}}, "follows from other keys"),
        ("grpo", {"grpo": {"trl": {"epsilon_hgh": 0.3}}}, "epsilon_high"),
    ],
)
def test_a_run_that_could_not_learn_is_refused(
    tmp_path: Path, method: str, changes: dict[str, Any], words: str
) -> None:
    file = tmp_path / "policies.py"
    file.write_text(POLICIES)
    if isinstance(name := changes.get("policy"), str):
        changes = {"policy": {"use": f"{file}:{name}"}}
    with pytest.raises(ConfigError, match=words):
        started(tmp_path / "run.yaml", method, tmp_path / "run", **changes)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"template": "{promt}?"}, r"'template' names \{promt\}"),
        ({"dtype": "float8"}, "'dtype' is 'float8'"),
        ({"max_pixels": "abc"}, "'max_pixels' must be a whole number"),
    ],
)
def test_a_setting_that_no_model_has_is_refused(policy: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_policy({"use": "vision_language", "path": "unused", **policy})


def test_a_device_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be set up on 'nowhere'"):
        RolloutPool(build_policy("token_world_model"), actors=0, device="nowhere").generate([])


def test_a_full_disk_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    full = (
        OSError(28, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos"),
    )
    for error in full:

        def fail(*unused: Any, error: Exception = error, **kwargs: Any) -> None:
            raise error

        monkeypatch.setattr("rsw_rewards.cli.app", fail)
        with pytest.raises(SystemExit):
            main()
        assert "the disk is full; free space" in capsys.readouterr().err


def test_a_run_that_failed_at_its_start_is_mended_in_its_directory(tmp_path: Path) -> None:
    out = tmp_path / "run"
    for wrong in ({"grpo": {"trl": {"epsilon_high": "abc"}}}, {"grpo": {"loss_type": "dr_grpo"}}):
        with pytest.raises(ConfigError):
            started(tmp_path / "run.yaml", "grpo", out, **wrong)
    # YAML reads 4e-4 as a text, and null stands for TRL's own.
    settings = {"steps": 1, "trl": {"epsilon_high": "4e-4", "max_completion_length": None}}
    started(tmp_path / "run.yaml", "grpo", out, grpo=settings, seed=7)
    assert (out / "final").is_dir()


def test_the_hash_of_samples_is_the_same_everywhere_and_sees_what_counts() -> None:
    one = Sample(
        "s", Task.FORECAST, (ImageRef(array=np.zeros((2, 2, 3), np.uint8)),), "grow",
        {"tags": {"b", "a"}, "images": [ImageRef(path=Path("/here/a.png"))]}, metadata={"scale_factor": np.float64(0.5)},
    )  # fmt: skip
    elsewhere = replace(
        one,
        reference={"images": [ImageRef(path=Path("/there/a.png"))], "tags": {"a", "b"}},
        metadata={"scale_factor": 0.5},
    )
    assert samples_hash([one]) == samples_hash([elsewhere])
    others = [
        replace(one, images=(ImageRef(array=np.ones((2, 2, 3), np.uint8)),)),
        replace(one, metadata={"scale_factor": 0.1}),
        replace(one, reference={**one.reference, "images": [ImageRef(path=Path("/here/a.png"), bands=(2, 1, 0))]}),
        replace(one, reference={**one.reference, "images": [ImageRef(path=Path("/here/a.png"), levels=(0, 3))]}),
        replace(one, reference={**one.reference, "images": [ImageRef(path=Path("/here/a.png"), threshold=0.5)]}),
    ]
    assert len({samples_hash([other]) for other in [one, *others]}) == 6


def test_dr_grpo_divides_by_the_length_that_a_completion_may_have(tmp_path: Path) -> None:
    norms = []
    for length in (2, 20):
        out = tmp_path / str(length)
        settings = {"steps": 1, "loss_type": "dr_grpo", "trl": {"max_completion_length": length}}
        started(tmp_path / "run.yaml", "grpo", out, grpo=settings)
        norms.append(log(out)[0]["grad_norm"])
    assert norms[0] == pytest.approx(10 * norms[1], rel=1e-3)


def test_an_optional_reward_that_fails_is_named_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rewards.py"
    file.write_text(
        "from rsw_rewards import verifier\n\n@verifier(tasks={'change_qa', 'forecast'})\n"
        "def boom(sample, output):\n    raise RuntimeError('the raster server is away')\n"
    )
    parts = [*test_grpo.configuration(tmp_path)["rubric"]["components"], {"use": f"{file}:boom", "required": False}]
    started(tmp_path / "run.yaml", "grpo", tmp_path / "run", grpo={"steps": 2}, rubric={"components": parts})
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("the raster server is away") == 1 and "which is optional, is out where it fails" in said
