"""Suites: several protocols over several data sets, one row, one page; a part that fails costs itself alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import rsw_rewards as rsw
from rsw_rewards.core.yaml_text import read_yaml
from rsw_rewards.evaluation.suite import Suite, SuiteRow
from rsw_rewards.io.records_io import write_jsonl
from tests.chat_server import chat_server, completion

WORLD = {"source": "scene-world", "split": "test", "questions": 12, "forecasts": 0}


def questions(folder: Path, count: int = 6) -> dict[str, Any]:
    rows = [
        {
            "id": f"q{n}",
            "task": "change_qa",
            "prompt": f"Is {n} so?",
            "reference": {"answers": [("yes", "no")[n % 2]], "vocabulary": ["yes", "no"]},
        }
        for n in range(count)
    ]
    write_jsonl(folder / "samples.jsonl", rows)
    return {"source": "samples", "path": str(folder / "samples.jsonl")}


def parts(folder: Path) -> dict[str, Any]:
    mine = questions(folder)
    return {
        "title": "Mine",
        "parts": [
            {"name": "world", "protocol": "exact-qa", "data": WORLD},
            {"name": "mine", "protocol": ["exact-qa", "teochat-exact"], "data": mine},
            {"name": "gone", "protocol": "exact-qa", "data": {"source": "samples", "path": str(folder / "gone.jsonl")}},
            {"name": "masks", "protocol": "change-mask", "data": mine},
        ],
    }


def test_every_part_has_a_row_and_what_fails_says_why(tmp_path: Path) -> None:
    found = rsw.suite(parts(tmp_path), tmp_path / "out", policy="oracle")
    assert [(row.part, row.protocol, row.value) for row in found.rows[:3]] == [
        ("world", "exact-qa", 1.0), ("mine", "exact-qa", 1.0), ("mine", "teochat-exact", 1.0),
    ]  # fmt: skip
    assert (
        found.failed == ["gone", "masks"]
        and "gone.jsonl" in found.rows[3].failed
        and "change_mask" in found.rows[4].failed
    )
    assert found.rows[1].baseline_value == 0.5
    page = (tmp_path / "out" / "suite.html").read_text()
    assert 'href="mine/exact-qa/report.html"' in page and "gone.jsonl" in page
    assert (tmp_path / "out" / "mine" / "exact-qa" / "report.html").is_file()
    assert json.loads((tmp_path / "out" / "suite.json").read_text())["rows"] == [
        json.loads(json.dumps(row)) for row in found.to_json()["rows"]
    ]
    assert found.to_markdown().splitlines()[-1] == "| oracle | 1.000 | 1.000 | 1.000 | failed | failed |"


def test_predictions_of_a_folder_and_a_part_without_any(tmp_path: Path) -> None:
    config = parts(tmp_path)
    (tmp_path / "said").mkdir()
    write_jsonl(tmp_path / "said" / "mine.jsonl", [{"id": f"q{n}", "text": "yes"} for n in range(6)])
    found = rsw.suite(
        {**config, "parts": config["parts"][:2]}, tmp_path / "out", predictions=tmp_path / "said", model="always yes"
    )
    assert [row.value for row in found.rows] == [None, 0.5, 0.5]
    assert "holds neither world.jsonl nor a folder world" in found.rows[0].failed
    assert found.rows[1].baseline_value == 0.5 and "always yes" in found.to_text()


def test_a_suite_through_a_server_asks_only_what_is_missing_when_it_goes_on(tmp_path: Path) -> None:
    config = {"parts": [{"name": "mine", "protocol": "exact-qa", "data": questions(tmp_path, 12)}]}
    asked: list[str] = []
    broken = [True]

    def answer(body: Any, number: int) -> Any:
        asked.append(json.dumps(body))
        if broken[0] and len(asked) > 5:
            return 500, {"error": "out of memory"}, {}
        return completion("yes")

    with chat_server(answer) as server:
        policy = tmp_path / "served.yaml"
        policy.write_text(f"{{use: openai_endpoint, base_url: '{server.url}', model: m, concurrency: 4, retries: 0}}")
        first = rsw.suite(config, tmp_path / "out", policy=str(policy))
        done, broken[0] = len(asked), False
        with pytest.raises(rsw.InputError, match="--resume"):
            rsw.suite(config, tmp_path / "out", policy=str(policy))
        again = rsw.suite(config, tmp_path / "out", policy=str(policy), resume=True)
        assert again.rows[0].value == 0.5 and len(asked) == done + 12 - 5
        assert first.rows[0].n == 12
        rsw.suite(config, tmp_path / "out", policy=str(policy), resume=True)
        assert len(asked) == done + 12 - 5  # nothing was missing


def test_going_on_with_one_part_keeps_the_rows_of_the_others(tmp_path: Path) -> None:
    config, out = parts(tmp_path), tmp_path / "out"
    whole = rsw.suite(config, out, policy="oracle")
    assert rsw.suite(config, out, policy="oracle", only=["mine"], resume=True) == whole
    page = (out / "suite.html").read_text()
    assert json.loads((out / "suite.json").read_text())["rows"] == json.loads(json.dumps(whole.to_json()["rows"]))
    assert 'href="world/report.html"' in page and (out / "row.md").read_text() == whole.to_markdown()
    for others, said in (
        ({"policy": "majority"}, "the model 'oracle', not 'majority'"),
        ({"policy": "majority", "model": "oracle"}, "answers of 'the policy oracle'"),
    ):
        with pytest.raises(rsw.InputError, match=said):
            rsw.suite(config, out, resume=True, **others)
    with pytest.raises(rsw.InputError, match="the title 'Mine'"):
        rsw.suite({**config, "title": "Other"}, out, policy="oracle", resume=True)


def test_a_bar_in_a_name_is_no_column_of_the_row() -> None:
    found = Suite("t", "mine | tuned", [SuiteRow("a|b", "exact-qa", "accuracy", 0.5)])
    assert found.to_markdown().splitlines()[0] == r"| model | a\|b accuracy |"
    assert found.to_markdown().splitlines()[2] == r"| mine \| tuned | 0.500 |"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "'parts' must be a list"),
        ({"parts": [{"name": "a/b", "protocol": "exact-qa", "data": WORLD}]}, "without slashes"),
        ({"parts": [{"name": "a", "protocol": "exact-qa"}]}, "lacks data"),
        ({"parts": [{"name": "a", "protocol": "exact-qa", "data": WORLD, "samples": 3}]}, "no key 'samples'"),
        ({"parts": [{"name": "row.md", "protocol": "exact-qa", "data": WORLD}]}, "is a file of the suite"),
        ({"parts": [{"name": "a", "protocol": [], "data": WORLD}]}, "'protocol' of the part 'a' must be a name"),
        (
            {"parts": [{"name": "a", "protocol": "exact-qa", "data": WORLD, "settings": 3}]},
            "'settings' of the part 'a' must be",
        ),
        (
            {"parts": [{"name": "a", "protocol": "exact-qa", "data": {**WORLD, 3: 4}}]},
            "the key 3 of the part 'a' must be a text",
        ),
        ({"parts": [{"name": "a", "protocol": "exact-qa", "data": WORLD}] * 2}, "two parts are named 'a'"),
    ],
)
def test_what_a_suite_may_not_say_is_a_sentence(tmp_path: Path, config: dict[str, Any], said: str) -> None:
    with pytest.raises(rsw.ConfigError, match=said):
        rsw.suite(config, tmp_path / "out", policy="oracle")


def test_the_suite_that_is_shipped_names_protocols_and_sources_that_there_are() -> None:
    from rsw_rewards.evaluation.protocols import PROTOCOLS
    from rsw_rewards.training.sources import ADAPTERS, OWN

    for file in sorted((Path(__file__).parents[2] / "configs" / "suites").glob("*.yaml")):
        for part in read_yaml(file)["parts"]:
            assert part["protocol"] in PROTOCOLS
            assert part["data"]["source"] in OWN or part["data"]["source"] in ADAPTERS
