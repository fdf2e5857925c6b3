"""GRPO's machinery on a toy policy: learning, parity with `rsw score`, faults, and runs that are killed and taken up again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file as load_weights

from rsw_rewards.config import RunConfig
from rsw_rewards.core.plugins import load_file
from rsw_rewards.core.rewards import rewards
from rsw_rewards.core.rubric import load_rubric
from rsw_rewards.core.scores import ScoreTable, Status
from rsw_rewards.core.verifier import Batch
from rsw_rewards.engine.scorer import Scorer
from rsw_rewards.errors import ConfigError, RunStopped
from rsw_rewards.io.records_io import load_outputs, load_samples
from rsw_rewards.rollouts.trained import MARK
from rsw_rewards.training.checkpoints import last_complete
from rsw_rewards.training.grpo import train_grpo
from tests.training.run_files import changed, dumped_rewards, log, same, without_times

TOY = str(Path(__file__).parent / "toy_lm.py")
load_file(Path(TOY))
pytestmark = pytest.mark.usefixtures("ray_cluster")


def configuration(out: Path, policy: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    config: dict[str, Any] = {
        "out": str(out),
        "seed": 5,
        "policy": {"use": f"{TOY}:ToyLM", **(policy or {})},
        "train": {"source": f"{TOY}:toy_data"},
        "rubric": {"components": [{"use": f"{TOY}:near_three"}, {"use": f"{TOY}:bright"}]},
        "grpo": {"steps": 6, "prompts": 4, "group": 4, "learning_rate": 5e-3, "threads": 1},
        "rollouts": {"actors": 0, "chunk": 1},
        "checkpoints": {"every": 2},
        "log": [],
    }
    return changed(config, changes)


def run(out: Path, resume: bool = False, **changes: Any) -> dict[str, torch.Tensor]:
    out.mkdir(parents=True, exist_ok=True)
    train_grpo(RunConfig.model_validate(configuration(out, **changes)), resume)
    return load_weights(out / "final" / "model.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    out = tmp_path_factory.mktemp("whole")
    return out, run(out)


def test_a_run_leaves_its_log_and_its_policy(whole: tuple[Path, dict[str, torch.Tensor]]) -> None:
    out, weights = whole
    rows = log(out)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    for name in ("near_three", "bright"):
        for key in ("mean", "std", "frac_zero_std", "error_rate", "invalid_rate"):
            assert f"reward/{name}/{key}" in rows[0]
    assert {"reward_task/change_qa", "reward_task/forecast", "time/exposed_scoring"} <= rows[0].keys()
    assert rows[0]["reward/bright/error_rate"] == 0.0
    assert weights


def test_a_killed_run_resumes_and_ends_where_the_whole_one_ends(
    whole: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    policy = {"die_at": 5, "mark": str(tmp_path / "died")}
    program = (
        "import json, sys\nfrom rsw_rewards.config import RunConfig\n"
        "from rsw_rewards.training.grpo import train_grpo\n"
        "train_grpo(RunConfig.model_validate(json.loads(sys.argv[1])))\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, json.dumps(configuration(tmp_path, policy))], check=False)
    assert killed.returncode == -signal.SIGKILL
    found = last_complete(tmp_path / "checkpoints")
    assert found is not None and found.name == "checkpoint-4"
    assert same(run(tmp_path, resume=True, policy=policy), whole[1])
    assert without_times(log(tmp_path)) == without_times(log(whole[0]))


def test_a_checkpoint_without_its_mark_is_ignored(whole: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    run(tmp_path, grpo={"steps": 4})
    (tmp_path / "checkpoints" / "checkpoint-4" / MARK).unlink()
    (tmp_path / "checkpoints" / "checkpoint-4" / "model.safetensors").write_bytes(b"cut off")
    found = last_complete(tmp_path / "checkpoints")
    assert found is not None and found.name == "checkpoint-2"
    assert same(run(tmp_path, resume=True), whole[1])


def test_a_damaged_checkpoint_is_warned_of_and_left_for_the_one_before(
    whole: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path, grpo={"steps": 4})
    file = tmp_path / "checkpoints" / "checkpoint-4" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 64  # a bit of a weight
    file.write_bytes(content)
    assert same(run(tmp_path, resume=True), whole[1])
    assert [row["reward"] for row in log(tmp_path)] == [row["reward"] for row in log(whole[0])]
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "rsw_rewards"]
    assert "checkpoint-4 is damaged" in warning and "model.safetensors is not as it was written" in warning


def test_actors_train_what_this_process_trains(whole: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    policy = {"die_at": 3, "mark": str(tmp_path / "died")}  # and one of them is killed on the way
    weights = run(tmp_path, policy=policy, rollouts={"actors": 2})
    assert (tmp_path / "died").exists()
    assert same(weights, whole[1])


def test_micro_batches_and_reused_generations_resume_exactly(tmp_path: Path) -> None:
    changes = {"grpo": {"steps": 8, "updates": 2, "iterations": 2, "micro_batch": 4}, "checkpoints": {"every": 4}}
    whole = run(tmp_path / "whole", **changes)
    run(tmp_path / "part", **{**changes, "grpo": {**changes["grpo"], "steps": 4}})
    assert same(run(tmp_path / "part", resume=True, **changes), whole)


def test_micro_batches_add_up_to_the_whole_update(whole: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    parts = run(tmp_path, grpo={"micro_batch": 4})
    for name, tensor in whole[1].items():
        torch.testing.assert_close(parts[name], tensor, rtol=1e-5, atol=1e-5)


def test_the_kl_term_holds_on_to_the_start(whole: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    held = run(tmp_path, grpo={"beta": 5.0})
    kl = [row["kl"] for row in log(tmp_path)]
    assert kl[0] == 0.0 and kl[-1] > 0.0
    assert not same(held, whole[1])


def rescored(dump: Path) -> tuple[dict[tuple[str, int], float], ScoreTable]:
    samples = load_samples(dump / "samples.jsonl")
    outputs, problems = load_outputs(dump / "predictions.jsonl", samples)
    assert not problems
    rubric = load_rubric(dump / "rubric.yaml")
    with Scorer(rubric) as scorer:
        table = scorer.score(Batch.of(samples, outputs))
    frame = rewards(table, rubric)
    return {
        (sample, candidate): reward
        for sample, candidate, reward in zip(frame["sample"], frame["candidate"], frame["reward"], strict=True)
    }, table


@pytest.mark.parametrize("actors", [0, 1])
def test_a_dump_scores_what_the_trainer_saw(tmp_path: Path, actors: int) -> None:
    run(tmp_path, grpo={"steps": 2}, dump_every=1, rollouts={"actors": actors})
    for step in (0, 1):
        dump = tmp_path / "dumps" / f"step_{step:06d}"
        seen = dumped_rewards(dump)
        assert len(seen) == 16
        again, table = rescored(dump)
        assert again == seen  # bit for bit
        stored = ScoreTable.read(dump / "scores.parquet").frame.sort_values(["verifier", "sample", "candidate"])
        fresh = table.frame.sort_values(["verifier", "sample", "candidate"])
        assert stored["value"].tolist() == fresh["value"].tolist()


def test_permuted_rewards_are_the_same_rewards_elsewhere(tmp_path: Path) -> None:
    run(tmp_path, grpo={"steps": 1}, control="permute_rewards", dump_every=1)
    seen = dumped_rewards(tmp_path / "dumps" / "step_000000")
    true, _ = rescored(tmp_path / "dumps" / "step_000000")
    assert seen != true
    for task in ("q", "f"):  # dealt out again within each task
        assert sorted(v for k, v in seen.items() if k[0][0] == task) == sorted(
            v for k, v in true.items() if k[0][0] == task
        )


def test_a_failing_verifier_stops_the_run_and_is_never_a_zero(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "from rsw_rewards import verifier\n"
        "@verifier(tasks={'change_qa'})\n"
        "def broken(sample, output):\n"
        "    raise RuntimeError('no disk left')\n",
        encoding="utf-8",
    )
    components = [{"use": f"{TOY}:bright"}, {"use": f"{tmp_path / 'broken.py'}:broken"}]
    with pytest.raises(RunStopped, match=r"broken .*no disk left"):
        run(tmp_path, rubric={"components": components})
    dump = max((tmp_path / "dumps").iterdir())
    table = ScoreTable.read(dump / "scores.parquet").verifier("broken").frame
    assert set(table["status"]) == {Status.ERROR}
    assert table["value"].isna().all()
    assert all(reward is None for (sample, _), reward in dumped_rewards(dump).items() if sample[0] == "q")


def test_an_output_without_a_reward_is_left_out_and_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shaky.py").write_text(
        "from rsw_rewards import verifier\n"
        "@verifier(tasks={'change_qa'})\n"
        "def shaky(sample, output):\n"
        "    if output.candidate == 1:\n"
        "        return float('nan')\n"
        "    return int(output.text) / 8\n",
        encoding="utf-8",
    )
    components = [{"use": f"{TOY}:bright"}, {"use": f"{tmp_path / 'shaky.py'}:shaky"}]
    weights = run(tmp_path, rubric={"components": components, "max_error_rate": 0.9}, dump_every=1)
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    for dump in (tmp_path / "dumps").iterdir():
        for (sample, candidate), reward in dumped_rewards(dump).items():
            assert (reward is None) == (sample[0] == "q" and candidate == 1)
    assert {row["failed"] for row in log(tmp_path)} == {2.0}
    (why,) = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("without a reward, and left out")
    ]
    assert "candidate 1 of q" in why and "shaky: " in why  # once a run, whatever TRL says besides


def test_rewards_that_normalise_each_component_refuse_another_normalisation(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"scale_rewards is 'group'"):
        run(tmp_path, rubric={"combine": "normalize_each"}, grpo={"scale_rewards": "group"})


def test_too_few_samples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"asks for 7 samples of the task 'change_qa', but .* holds 6"):
        run(tmp_path, grpo={"prompts": 14})


MORTAL = """
import os, signal
from pathlib import Path
from rsw_rewards import verifier

@verifier(tasks={"change_qa"})
def near_three(sample, output, *, mark: str):
    if not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 1.0 / (1 + abs(int(output.text or "99") - 3))
"""


@pytest.mark.slow
def test_a_scoring_actor_that_is_killed_changes_no_number(
    whole: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    (tmp_path / "mortal.py").write_text(MORTAL)
    parts = [
        {"use": f"{tmp_path / 'mortal.py'}:near_three", "config": {"mark": str(tmp_path / "died")}},
        {"use": f"{TOY}:bright"},
    ]
    weights = run(tmp_path / "run", rubric={"components": parts}, scoring={"actors": 1})
    assert (tmp_path / "died").exists()
    assert same(weights, whole[1])
