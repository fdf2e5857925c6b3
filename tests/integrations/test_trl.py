"""Our reward as one of TRL's reward functions, called by TRL's own trainer."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import rsw_rewards as rsw
from rsw_rewards.integrations.trl import RSWReward
from tests.foreign import package
from tests.integrations.shown import QUESTIONS, share
from tests.integrations.trl_step import step

END = 2
EXAMPLES = Path(__file__).parents[2] / "examples"


def question(name: str, answer: str) -> dict[str, object]:
    return {"id": name, "task": "change_qa", "reference": {"answers": [answer], "vocabulary": ["yes", "no"]}}


def test_rewards_are_those_of_the_evaluator() -> None:
    samples = [question("a", "yes"), question("b", "no")]
    texts = ["yes", "no", "perhaps", "yes", "no", "<think>so</think>no"]
    ids = ["a", "a", "a", "b", "b", "b"]
    rubric = {"exact_match": 0.9, "answer_format": 0.1}
    reward = RSWReward(rubric, samples, eos_token_id=END)
    given = reward(["?"] * 6, [[{"role": "assistant", "content": text}] for text in texts], [[5, END]] * 6, id=ids)
    by_id = {sample["id"]: sample for sample in samples}
    assert given == [result.reward for result in rsw.Reward(rubric).many(texts, [by_id[name] for name in ids])]
    columns = {field: [by_id[name][field] for name in ids] for field in ("id", "task", "reference")}
    assert RSWReward(rubric, eos_token_id=END)(["?"] * 6, texts, [[5, END]] * 6, **columns) == given


def test_components_are_logged() -> None:
    logged: dict[str, object] = {}
    reward = RSWReward({"exact_match": 1.0}, [question("a", "yes")], eos_token_id=END)
    reward(
        ["?"] * 2, ["yes", "no"], [[5, END]] * 2, id=["a", "a"],
        log_extra=logged.__setitem__, log_metric=logged.__setitem__,
    )  # fmt: skip
    assert logged == {"exact_match": [1.0, 0.0], "components/exact_match": 0.5}


def test_an_output_without_a_reward_is_none() -> None:
    reward = RSWReward(share, [question("a", "yes")], eos_token_id=END)
    texts, ids = ["1", "0", "broken", "1"], [[5, END], [5, END], [5, END], [5]]
    assert reward(["?"] * 4, texts, ids, id=["a"] * 4) == [1.0, 0.0, None, 0.0]


def test_a_data_set_without_ids_is_a_sentence() -> None:
    with pytest.raises(rsw.InputError, match="no column 'id' with the ids of samples; its columns are sample"):
        RSWReward(share, [question("a", "yes")], eos_token_id=END)(["?"], ["1"], [[END]], sample=["a"])


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_trls_own_trainer_leaves_an_output_without_a_reward_out(scale: str, tmp_path: Path) -> None:
    package("trl")
    texts, settings = ["1", "0", "broken", "0.5"], {"scale_rewards": scale}
    _, table = step(texts, share, tmp_path / "all", per_device_train_batch_size=4, **settings)
    known = table[table["completion"] != "broken"]
    others = [text for text in texts if text != "broken"]
    _, without = step(others, share, tmp_path / "without", per_device_train_batch_size=3, **settings)
    assert list(known["completion"]) == list(without["completion"]) and np.ptp(without["advantage"]) > 0.9
    np.testing.assert_allclose(known["advantage"], without["advantage"], rtol=0, atol=1e-6)
    failed = table[table["completion"] == "broken"]
    assert failed["rsw_reward"].isna().all() and list(failed["advantage"]) == [0.0]


def test_trl_logs_each_component_and_a_completion_that_was_cut_off_is_invalid(tmp_path: Path) -> None:
    package("trl")
    rubric = {"exact_match": 0.9, "answer_format": 0.1}
    logs, table = step(["yes", "no", "yes...", "perhaps"], rubric, tmp_path, per_device_train_batch_size=4)
    assert table[["rsw_reward", "exact_match", "answer_format"]].values.tolist() == pytest.approx(
        np.array([[1.0, 1.0, 1.0], [0.1, 0.0, 1.0], [0.0, 0.0, 0.0], [0.1, 0.0, 1.0]])
    )
    assert logs["completions/clipped_ratio"] == 0.25
    parts = {name: logs[f"components/{name}"] for name in rubric}
    assert parts == pytest.approx({"exact_match": 0.25, "answer_format": 0.75})


@pytest.mark.skipif("RSW_ENVIRONMENT" not in os.environ, reason="takes half a minute; run: make test-integrations")
def test_a_group_that_lies_over_two_processes_is_rewarded_as_a_whole(tmp_path: Path) -> None:
    package("trl")
    rubric = {"components": [{"use": "exact_match"}], "combine": "normalize_each"}
    texts = ["yes", "yes", "no", "no"]  # within each half all are equal
    asked = {"texts": texts, "rubric": rubric, "per_device_train_batch_size": 2, "scale_rewards": "none"}
    command = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(Path(__file__).with_name("trl_step.py")), str(tmp_path), json.dumps(asked)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[2])])},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    table = pd.read_parquet(tmp_path / "completions" / "completions_00001.parquet")
    whole = [result.reward for result in rsw.Reward(rubric).many(texts, [QUESTIONS[0]] * 4)]
    assert list(table["rsw_reward"]) == pytest.approx(whole) and whole[0] > 0.9


@pytest.mark.slow
def test_the_example_rewards_what_a_vision_language_model_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package("trl")
    from rsw_rewards.rollouts.tiny_vlm import build_tiny
    from rsw_rewards.rollouts.vision_language import VisionLanguageModel
    from tests.training.taught import fit

    monkeypatch.syspath_prepend(EXAMPLES)
    squares = runpy.run_path(str(EXAMPLES / "squares.py"))["squares"]
    policy = VisionLanguageModel(build_tiny("qwen2_5_vl", tmp_path / "start"))
    policy.setup()
    for _ in fit(policy, squares(16, blind=True), steps=60, batch=4, learning_rate=3e-3):
        pass
    policy.save(tmp_path / "start")
    asked = ["trl_grpo.py", str(tmp_path / "start"), "--rubric", str(EXAMPLES / "squares.yaml"), "--steps", "2"]
    monkeypatch.setattr(sys, "argv", [*asked, "--out", str(tmp_path)])
    runpy.run_path(str(EXAMPLES / "trl_grpo.py"), run_name="__main__")
    for row in map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines()):
        right, form = (row[f"components/{name}"] for name in ("exact_match", "answer_format"))
        assert 0 < right < 1 and row["reward"] == pytest.approx(0.9 * right + 0.1 * form)
    trained = VisionLanguageModel(tmp_path)
    trained.setup()
