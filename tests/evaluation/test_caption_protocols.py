"""The captioning protocols end to end: published numbers, slices, and what happens without Java or a word map."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rsw_rewards as rsw
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.evaluation.evaluation import Evaluation
from rsw_rewards.evaluation.protocols import PROTOCOLS
from rsw_rewards.io.records_io import write_jsonl
from rsw_rewards.verifiers import captions, meteor
from tests.shared_data import shared

TRICKY = json.loads((Path(__file__).parents[1] / "golden" / "caption_tricky.json").read_text())
KEYS = {
    "bleu1": "Bleu_1", "bleu2": "Bleu_2", "bleu3": "Bleu_3", "bleu4": "Bleu_4", "meteor": "METEOR", "rouge_l": "ROUGE_L",
    "cider": "CIDEr",
}  # fmt: skip
HEADLINE = (*KEYS, "s_star_m", "change_accuracy", "change_recall", "no_change_recall")


class Kept(meteor.Meteor):
    """A program that evaluations share: it takes long to start."""

    def close(self) -> None:
        """Stay."""


@pytest.fixture(scope="module")
def process() -> Iterator[Kept]:
    try:
        meteor.jar()
    except meteor.MeteorError as error:
        pytest.skip(str(error))
    found = Kept()
    yield found
    meteor.Meteor.close(found)


@pytest.fixture
def java(process: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions, "Meteor", lambda: process)


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meteor.shutil, "which", lambda name: None)


def values(entries: dict[str, Any]) -> dict[str, float | None]:
    return {key: entry["value"] for key, entry in entries.items()}


def check(found: Evaluation, expected: dict[str, Any]) -> None:
    numbers = values(found.summary["metrics"])
    assert set(numbers) == set(HEADLINE)
    for ours, theirs in KEYS.items():
        assert numbers[ours] == pytest.approx(expected["corpus"][theirs], rel=1e-9), ours
    parts = [expected["corpus"][key] for key in ("Bleu_4", "METEOR", "ROUGE_L", "CIDEr")]
    assert numbers["s_star_m"] == pytest.approx(sum(parts) / 4, rel=1e-9)
    for key in ("rouge_l", "meteor"):
        own = [raw[key] for raw in found.table.frame["raw"]]
        assert own == pytest.approx(expected["per_item"][KEYS[key]], rel=1e-9), key


def levir_cc(folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Sample and prediction files of the golden captions."""
    items = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    samples = [
        {"id": item["id"], "task": "change_caption", "reference": {"captions": item["references"]}} for item in items
    ]
    write_jsonl(tmp_path / "s.jsonl", samples)
    write_jsonl(tmp_path / "p.jsonl", [{"id": item["id"], "text": item["prediction"]} for item in items])
    return tmp_path / "s.jsonl", tmp_path / "p.jsonl"


@pytest.mark.slow
@pytest.mark.parametrize("tokens", ["ids", "words"])
def test_captions_of_levir_cc(tmp_path: Path, java: None, tokens: str) -> None:
    golden = shared("golden/caption_levircc")
    protocol = PROTOCOLS.find(f"levir-cc-{tokens}")
    if tokens == "ids":
        protocol = protocol.configured({"captions.word_map": str(golden / "wordmap_rsicc_minfreq5.json")})
    (found,) = rsw.evaluate([protocol], *levir_cc(golden, tmp_path), tmp_path / "out")
    check(found, json.loads((golden / "expected.json").read_text())["first_60"][tokens])
    changed, unchanged = found.summary["slices"]["changed"], found.summary["slices"]["unchanged"]
    assert (changed["cider"]["n"], unchanged["cider"]["n"]) == (18, 42)
    assert unchanged["cider"]["value"] == 0.0 and changed["cider"]["value"] > 0.3
    assert (changed["change_accuracy"]["value"], changed["no_change_recall"]["value"]) == (1.0, None)
    for key in HEADLINE:
        low, high = found.summary["metrics"][key]["ci95"]
        assert low <= found.summary["metrics"][key]["value"] <= high
    oracle, constant = (values(found.summary["baselines"][name]["metrics"]) for name in ("oracle", "no_change"))
    assert oracle["rouge_l"] == pytest.approx(1.0) and oracle["meteor"] == pytest.approx(1.0)
    assert constant["change_recall"] == 0.0 and constant["no_change_recall"] == 1.0


@pytest.mark.slow
def test_tricky_captions(tmp_path: Path, java: None) -> None:
    pairs = list(zip(TRICKY["candidates"], TRICKY["references"], strict=True))
    samples = [
        Sample(str(n), Task.CHANGE_CAPTION, (), reference={"captions": texts}) for n, (_, texts) in enumerate(pairs)
    ]
    outputs = [Output(str(n), text=text) for n, (text, _) in enumerate(pairs)]
    found = rsw.evaluate(PROTOCOLS.find("coco-caption"), samples, outputs, tmp_path / "out")
    check(found, TRICKY)
    assert found.summary["status"]["captions"]["invalid_output"] == 1  # the empty one


def small(
    tmp_path: Path, name: str, texts: dict[str, str | None], settings: dict[str, Any] | None = None, **options: Any
) -> Evaluation:
    references: dict[str, tuple[str, dict[str, Any]]] = {
        "a": ("road", {"captions": ["a road is built", "a new road"]}),
        "b": ("trees", {"captions": ["trees are cut"], "changed": True}),
        "c": ("trees", {"captions": ["there is no difference"]}),
    }
    samples = [
        Sample(key, Task.CHANGE_CAPTION, (), reference=reference, kind=kind, scene=key)
        for key, (kind, reference) in references.items()
    ]
    outputs = [Output(key, text=text, invalid=None if text else "cut off") for key, text in texts.items()]
    protocol = PROTOCOLS.find(name).configured(settings or {})
    return rsw.evaluate(protocol, samples, outputs, tmp_path / name, **options)


TEXTS: dict[str, str | None] = {"a": "a road is built", "b": "some trees", "c": "there is no difference"}


def test_without_java_only_meteor_is_missing(tmp_path: Path, no_java: None) -> None:
    found = small(tmp_path, "coco-caption", TEXTS)
    for entries in (found.summary["metrics"], *found.summary["slices"].values()):
        for key in ("meteor", "s_star_m"):
            assert entries[key]["value"] is None
            assert "Java" in entries[key]["reason"] or "pip install" in entries[key]["reason"]
        assert entries["bleu1"]["value"] > 0.5 and entries["cider"]["value"] is not None
    assert "reason" not in found.summary["metrics"]["rouge_l"]
    assert found.summary["status"]["captions"] == {
        "ok": 3, "invalid_output": 0, "not_applicable": 0, "error": 0, "timeout": 0,
    }  # fmt: skip
    written = json.loads((tmp_path / "coco-caption" / "summary.json").read_text())
    assert written["metrics"]["meteor"]["value"] is None


def test_slices_by_kind_and_by_change(tmp_path: Path, no_java: None) -> None:
    slices = small(tmp_path, "coco-caption", TEXTS).summary["slices"]
    assert {name: entries["rouge_l"]["n"] for name, entries in slices.items()} == {
        "road": 1, "trees": 2, "changed": 2, "unchanged": 1,
    }  # fmt: skip


def test_outputs_that_are_none_count(tmp_path: Path, no_java: None) -> None:
    found = small(tmp_path, "coco-caption", {**TEXTS, "b": None}).summary
    whole = small(tmp_path / "whole", "coco-caption", TEXTS).summary
    for key in ("bleu1", "bleu4", "rouge_l", "cider", "change_accuracy"):
        assert found["metrics"][key]["n"] == 3 and found["metrics"][key]["valid_rate"] == pytest.approx(2 / 3)
        assert found["metrics"][key]["value"] < whole["metrics"][key]["value"]
    assert found["slices"]["changed"]["change_accuracy"]["value"] == 0.5


def test_ids_without_a_word_map_give_no_number_and_say_why(
    tmp_path: Path, no_java: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RSW_WORD_MAP", raising=False)
    found = small(tmp_path, "levir-cc-ids", TEXTS).summary
    for key in HEADLINE:
        assert found["metrics"][key]["value"] is None
        assert "RSW_WORD_MAP" in found["metrics"][key]["reason"]
    assert found["status"]["captions"]["error"] == 3


@pytest.mark.slow
def test_workers_and_this_process_agree(tmp_path: Path, ray_cluster: None) -> None:
    texts: dict[str, str | None] = {**TEXTS, "b": None}
    here, there = (
        small(tmp_path / str(n), "levir-cc-words", texts, {"captions.meteor": False}, workers=n).summary for n in (0, 1)
    )
    assert here["metrics"] == there["metrics"] and here["slices"] == there["slices"]
