"""``rsw init`` and ``rsw train --dry-run``: from an empty folder to a training on samples of one's own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import rsw_rewards as rsw
from rsw_rewards.cli import app
from rsw_rewards.config import DataSpec, load_config
from rsw_rewards.core.yaml_text import read_yaml
from rsw_rewards.errors import ConfigError
from rsw_rewards.io.images import write_png
from rsw_rewards.io.model_files import missing_model
from rsw_rewards.training.dry_run import DryRun
from rsw_rewards.training.new_config import new_config
from rsw_rewards.training.sources import glance, load_source

READERS = ("change_qa", "change_caption", "classification", "grounding", "forecast")
"""Tasks of which a policy of the package makes the outputs."""


def command(*arguments: object) -> str:
    """What ``rsw`` prints, and the error that it ends with, if any."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return done.output + (f"\n{done.exception}" if isinstance(done.exception, ConfigError) else "")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RSW_RUNS", str(tmp_path / "runs"))
    return tmp_path


def own_samples(task: str) -> None:
    """Files as the configuration of ``rsw init`` asks for them: the record in its comment, with ids and images of one's own."""
    line = next(line for line in new_config(task).splitlines() if line.startswith("#   {"))
    rng = np.random.default_rng(0)
    for name, first, count in (("train", 0, 12), ("heldout", 100, 6)):
        with Path(f"{name}.jsonl").open("w") as file:
            for number in range(first, first + count):
                file.write(line.removeprefix("#   ").replace("17", str(number)).replace('1"', f'{number}"', 1) + "\n")
                for image in ("before/{}.png", "after/{}.png", "{}.png"):
                    place = Path(image.format(number))
                    place.parent.mkdir(exist_ok=True)
                    write_png(place, rng.integers(0, 256, (16, 16, 3), np.uint8))
                for mask in ("change", "buildings", "damage"):
                    Path(mask).mkdir(exist_ok=True)
                    write_png(Path(f"{mask}/{number}.png"), np.full((16, 16), 255, np.uint8))


@pytest.mark.parametrize("task", [str(task) for task in rsw.Task])
def test_init_writes_a_configuration_of_every_task_that_can_be_read(task: str, folder: Path) -> None:
    assert "--dry-run" in command("init", task)
    file = folder / f"{task}.yaml"
    config = load_config(file)
    assert all(component.build() for component in config.rubric.components)
    load_config(file, smoke=True)
    sample = json.loads(next(line for line in file.read_text().splitlines() if line.startswith("#   {"))[4:])
    read = rsw.Sample(**{**sample, "images": (), "reference": {}})
    assert str(read.task) == task
    assert "exists; name another file with --out" in command("init", task)


@pytest.mark.parametrize("task", READERS)
def test_with_samples_as_the_comment_shows_nothing_is_missing(task: str, folder: Path) -> None:
    command("init", task)
    own_samples(task)
    assert "nothing is missing" in command("train", f"{task}.yaml", "--dry-run", "--smoke")
    assert not (folder / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("task", READERS)
def test_a_configuration_of_init_trains(task: str, folder: Path) -> None:
    command("init", task)
    own_samples(task)
    run = rsw.train(f"{task}.yaml", smoke=True)
    assert len(run.log) == 2


def test_all_that_is_missing_is_said_at_once(folder: Path) -> None:
    command("init", "change_qa")
    own_samples("change_qa")
    Path("after/3.png").unlink()
    Path("heldout.jsonl").unlink()
    changes = {
        "policy.path": "models/mine", "rollouts.num_gpus": 0,
        "rubric.components": [{"use": "exact_match"}, {"use": "rewards.py:mine"}, {"use": "exact_mach"}],
        "measure.components": [{"use": "sentence_similarity", "config": {"encoder": "sentence:models/minilm/none"}}],
    }  # fmt: skip
    Path("models").mkdir()
    looked = {line.what: line.missing for line in DryRun(load_config(Path("change_qa.yaml"), changes)).missing}
    assert looked.keys() == {
        "train",
        "heldout",
        "policy",
        "reward mine",
        "reward exact_mach",
        "measure sentence_similarity",
    }
    assert "1 of 24 images do not exist" in looked["train"] and "after/3.png" in looked["train"]
    assert "heldout.jsonl cannot be read" in looked["heldout"]
    assert looked["policy"].startswith("there is no folder models/mine, the hub's cache does not hold it")
    assert "rewards.py does not exist" in looked["reward mine"]
    assert "did you mean 'exact_match'" in looked["reward exact_mach"]


@pytest.mark.parametrize(
    ("spoil", "what", "said"),
    [
        (lambda rows: [rows[0] | {"task": "forecast"}, *rows[1:]], "rubric", "no component of the rubric rewards the task forecast"),
        (lambda rows: rows[:3], "train", "asks for 8 samples of the task 'change_qa', but the training data holds 3"),
        (lambda rows: [row | {"scene": "tile 101"} for row in rows], "heldout", "are in both 'train' and 'heldout'"),
        (lambda rows: [row | {"reference": {}} for row in rows], "train", "exact_match cannot read the truth of the sample 'q0'"),
    ],
)  # fmt: skip
def test_samples_that_do_not_fit_are_named(
    spoil: Callable[[list[dict[str, object]]], list[dict[str, object]]], what: str, said: str, folder: Path
) -> None:
    command("init", "change_qa")
    own_samples("change_qa")
    rows = [json.loads(line) for line in Path("train.jsonl").read_text().splitlines()]
    Path("train.jsonl").write_text("\n".join(json.dumps(row) for row in spoil(rows)))
    looked = {line.what: line.missing for line in DryRun(load_config(Path("change_qa.yaml"))).missing}
    assert said in looked[what]


def test_a_dry_run_loads_no_torch(folder: Path) -> None:
    command("init", "change_qa")
    own_samples("change_qa")
    code = (
        "import sys; from pathlib import Path; from rsw_rewards.config import DataSpec, load_config\n"
        "from rsw_rewards.training.dry_run import DryRun\n"
        "assert not DryRun(load_config(Path('change_qa.yaml'), smoke=True)).missing\n"
        "print([name for name in ('torch', 'ray', 'transformers', 'trl') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    if not Path("/dev/nvidiactl").exists():
        assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"path": "x.jsonl"}, "it needs 'source'"),
        ("x.jsonl", "it needs 'source'"),
        ({"source": "samples"}, "the source 'samples' takes path, roots, limit"),
        ({"source": "samples", "pth": "x"}, "takes path, roots, limit"),
        ({"source": "scene-world", "n": 3}, "takes split, seed, questions, forecasts"),
        ({"source": "levir-cc", "path": ".", "splitt": "test"}, "its keys are path, split, limit, reading"),
        ({"source": "levir_cc"}, "known are samples, scene-world, "),
        ({"source": "hf:owner/name"}, "needs 'path'"),
    ],
)
def test_errors_of_a_source_name_its_keys(section: object, said: str, folder: Path) -> None:
    command("init", "change_qa")
    content = read_yaml(Path("change_qa.yaml")) | {"train": section}
    Path("change_qa.yaml").write_text(json.dumps(content))
    with pytest.raises(ConfigError) as refused:
        load_source(load_config(Path("change_qa.yaml")).train, 0)
    assert said in str(refused.value)


def test_the_command_that_starts_repeats_what_was_set(folder: Path) -> None:
    command("init", "change_qa", "--out", "new/mine.yaml")
    assert Path("new/mine.yaml").is_file()
    command("init", "change_qa")
    own_samples("change_qa")
    said = command("train", "change_qa.yaml", "--dry-run", "--smoke", "--set", "grpo.steps=7", "--set", "out=runs/a b")
    assert "rsw train change_qa.yaml --smoke --set grpo.steps=7 --set 'out=runs/a b'" in " ".join(said.split())
    assert "leave --resume or --dry-run out" in command("train", "change_qa.yaml", "--dry-run", "--resume", "runs/a")


def test_a_limit_that_is_no_number_is_a_sentence(tmp_path: Path) -> None:
    spec = DataSpec(source="levir-cc", path=str(tmp_path), limit="ten")
    with pytest.raises(rsw.InputError, match="'limit' must be a whole number"):
        glance(spec, 0)


def test_a_name_of_the_hub_is_not_missing_beside_a_folder_of_its_owner(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    Path("Qwen").mkdir()
    assert missing_model("Qwen/nothing-so-named") is None and missing_model("nothing-so-named") is None
    Path("Qwen/one").mkdir()
    Path("Qwen/one/config.json").write_text("{}")
    assert "hf download Qwen/nothing-so-named" in (missing_model("Qwen/nothing-so-named") or "")
    assert missing_model("Qwen/one") is None
