from __future__ import annotations

import json
from pathlib import Path

import pytest

from rsw_rewards.cli import main
from rsw_rewards.errors import ConfigError
from rsw_rewards.evaluation.protocols import PROTOCOLS
from tests.chat_server import chat_server, completion


@pytest.mark.parametrize("name", PROTOCOLS.built_in)
def test_every_protocol_builds_its_verifiers_and_cites_a_source(name: str) -> None:
    protocol = PROTOCOLS.find(name)
    keys = {
        key for component in protocol.rubric.components for metric in component.build().metrics() for key in metric.keys
    }
    assert protocol.source and protocol.title
    assert not protocol.only_named or set(protocol.named) <= keys
    assert 1 <= len(protocol.headline) <= 6 and len(set(protocol.named)) == len(protocol.named)


def test_a_setting_reaches_the_verifier_it_names_and_no_other() -> None:
    protocol = PROTOCOLS.find("numeric-qa").configured({"numeric_match.rel_tol": 0.1})
    assert protocol.rubric.components[0].build().config.rel_tol == 0.1
    assert PROTOCOLS.find("numeric-qa").rubric.components[0].build().config.rel_tol == 0.0


@pytest.mark.parametrize("name", ["exact_match.x", "rel_tol", "judge.model"])
def test_a_setting_that_fits_nothing_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        PROTOCOLS.find("exact-qa").configured({name: 1}).rubric.components[0].build()


def test_an_unknown_protocol_names_its_neighbour() -> None:
    with pytest.raises(ConfigError, match="'cdvqa'"):
        PROTOCOLS.find("cd-vqa")


def test_open_answers_are_judged_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [
        {"id": str(n), "task": "change_qa", "prompt": "What changed?", "reference": {"answers": ["a road was built"]}}
        for n in range(2)
    ]
    outputs = [{"id": "0", "text": "they built a road"}, {"id": "1", "text": "nothing"}]
    for name, records in (("samples", samples), ("answers", outputs)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    right = "Says so.\nVERDICT: CORRECT"
    with chat_server(
        lambda body, number: completion(
            right if "they built" in body["messages"][0]["content"] else "No.\nVERDICT: WRONG"
        )
    ) as server:
        files = ["--samples", f"{tmp_path}/samples.jsonl", "--predictions", f"{tmp_path}/answers.jsonl"]
        settings = ["--set", f"judge.base_url={server.url}", "--set", "judge.model=m", "--out", f"{tmp_path}/out"]
        monkeypatch.setattr("sys.argv", ["rsw", "evaluate", "open-qa", *files, *settings])
        with pytest.raises(SystemExit) as stopped:
            main()
    assert stopped.value.code == 0
    metrics = json.loads((tmp_path / "out" / "summary.json").read_text())["metrics"]
    assert metrics["judge_score"]["value"] == 0.5
    assert metrics["judge_agreement"]["value"] is None and metrics["judge_agreement"]["reason"]
