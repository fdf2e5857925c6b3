"""Our reward in a task of lmms-eval: the task of the page, read and aggregated by its own classes."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

import rsw_rewards as rsw
from rsw_rewards.integrations.lmms_eval import make_process_results, mean, total
from tests.foreign import package
from tests.integrations.shown import QUESTIONS, RUBRIC, TEXTS, expected, share

PAGE = (Path(__file__).parents[2] / "docs/integrations/lmms_eval.md").read_text()
FILE = """
from rsw_rewards.integrations.lmms_eval import make_process_results
from tests.integrations.shown import QUESTIONS
from {module} import {rubric}
process_results = make_process_results({rubric}, QUESTIONS)
"""


def test_scores_with_their_status() -> None:
    process_results = make_process_results(RUBRIC, QUESTIONS)
    items = [process_results({"id": "a"}, [text]) for text in TEXTS]
    assert [item["rsw"]["score"] for item in items] == pytest.approx(expected(TEXTS))
    assert items[0]["rsw_exact_match"] == {"status": "ok", "reason": "", "score": 1.0}
    assert items[-1]["rsw_exact_match"]["status"] == "invalid_output"
    assert total([item["rsw_unscored"] for item in items]) == 0.0
    with pytest.raises(rsw.InputError, match="the document has no field 'id'"):
        process_results({"number": 1}, ["yes"])


def test_what_failed_has_no_score() -> None:
    process_results = make_process_results(share, QUESTIONS)
    items = [process_results({"id": "a"}, [text]) for text in ("1", "broken", "nan", "0")]
    assert [item["rsw"].get("score") for item in items] == [1.0, None, None, 0.0]
    assert items[1]["rsw"]["status"] == "error" and "share: " in items[1]["rsw"]["reason"]
    assert mean([item["rsw"] for item in items]) == 0.5
    assert total([item["rsw_unscored"] for item in items]) == 2.0
    assert math.isnan(mean([item["rsw"] for item in items[1:3]]))


def aggregated(folder: Path, texts: list[str], rubric: str, module: str = "tests.integrations.shown") -> dict[str, Any]:
    """What lmms-eval makes of the task of the page, with a rubric of a module, when a model answers with these texts."""
    package("lmms_eval.api.task")
    from lmms_eval.api.task import ConfigurableTask
    from lmms_eval.evaluator_utils import TaskOutput
    from lmms_eval.utils import load_yaml_config

    block = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert block
    (folder / "task.yaml").write_text(block[1])
    (folder / "utils.py").write_text(FILE.format(rubric=rubric, module=module))
    rows = [{"id": "a", "question": "Changed?", "answer": "yes"} for _ in texts]
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = ConfigurableTask(config=load_yaml_config(str(folder / "task.yaml")))
    output = TaskOutput.from_taskdict("my_change_qa", task)
    for doc, text in zip(task.test_docs(), texts, strict=True):
        for metric, value in task.process_results(doc, [text]).items():
            output.sample_metrics[metric, "none"].append(value)
    output.calculate_aggregate_metric(bootstrap_iters=100)
    output.calculate_clt_aggregate_metric()
    return dict(output.agg_metrics)


def test_lmms_eval_gives_the_mean_of_our_rewards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    found = aggregated(tmp_path, TEXTS, "RUBRIC")
    rewards = [reward for reward in expected(TEXTS) if reward is not None]
    assert found["rsw,none"] == pytest.approx(sum(rewards) / len(TEXTS))
    assert found["rsw_unscored,none"] == 0.0


def test_what_failed_enters_neither_mean_nor_error_of_lmms_eval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    found = aggregated(tmp_path, ["1", "broken", "nan", "0.5"], "share")
    assert found["rsw,none"] == 0.75 and found["rsw_unscored,none"] == 2.0
    assert found["rsw_stderr_clt,none"] == pytest.approx(0.25)
