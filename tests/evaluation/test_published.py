"""Published tables: what they say, that they agree with themselves, and that a row never stands beside another data set's run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import rsw_rewards as rsw
from rsw_rewards.core.records import Sample, Task
from rsw_rewards.evaluation.protocols import PROTOCOLS
from rsw_rewards.evaluation.published import NOT_OURS, PublishedRow, all_rows, comparable, published_rows
from rsw_rewards.io.records_io import write_jsonl
from tests.shared_data import shared

ROWS = all_rows()
UNBOUNDED = {"cider", "s_star_m", "mae", "rmse", "bias", "fid", "fid_rsicd", "clip_rsicd"}


def samples(count: int, **metadata: Any) -> list[Sample]:
    return [Sample(f"s{i}", Task.CHANGE_QA, (), metadata=metadata) for i in range(count)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.protocol}/{row.dataset}/{row.method}")
def test_every_row_has_its_source_and_values_in_fractions(row: PublishedRow) -> None:
    assert row.source and row.metrics and row.dataset == row.dataset.lower()
    assert row.confidence in ("read", "secondary")
    for key, value in row.metrics.items():
        assert 0 <= value <= 1 or key.partition("/")[0] in UNBOUNDED, key


def test_no_method_stands_twice_in_a_table() -> None:
    keys = [(row.protocol, row.dataset, row.split, row.method) for row in ROWS]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("name", sorted({row.protocol for row in ROWS} - set(NOT_OURS)))
def test_keys_are_those_of_the_protocol(name: str) -> None:
    if name not in PROTOCOLS.built_in:
        pytest.skip(f"no protocol {name} yet")
    if not PROTOCOLS.find(name).only_named:
        return  # its keys carry names of encoders
    headline = set(PROTOCOLS.find(name).named)
    for row in published_rows(name):
        assert {key.partition("/")[0] for key in row.metrics} & headline, row.method


def test_tables_of_definitions_that_are_not_ours_belong_to_no_protocol() -> None:
    assert not set(NOT_OURS) & set(PROTOCOLS.built_in)


def test_f1_and_iou_of_one_row_agree_or_the_row_says_that_they_do_not() -> None:
    for row in (row for row in ROWS if {"f1", "iou"} <= set(row.metrics)):
        implied = 2 * row.metrics["iou"] / (1 + row.metrics["iou"])
        assert (abs(row.metrics["f1"] - implied) > 2e-4) == ("do not agree" in row.note), (row.dataset, row.method)


def test_caption_and_damage_scores_follow_from_their_parts() -> None:
    for row in ROWS:
        m = row.metrics
        if "s_star_m" in m:
            assert m["s_star_m"] == pytest.approx(
                (m["bleu4"] + m["meteor"] + m["rouge_l"] + m["cider"]) / 4, abs=1.1e-4
            )
        if "damage_f1" in m:
            assert m["score"] == pytest.approx(0.3 * m["localization_f1"] + 0.7 * m["damage_f1"], abs=1.5e-4), (
                row.method
            )


def test_a_row_stands_only_beside_its_own_data_set_and_split() -> None:
    assert [row["method"] for row in comparable("cdvqa", samples(3, dataset="CDVQA", split="Test2"))][-1] == "VisTA"
    assert comparable("cdvqa", samples(3, dataset="cdvqa", split="val")) == []
    assert comparable("cdvqa", samples(3, dataset="cdvqa")) == []
    assert comparable("exact-qa", samples(3, dataset="cdvqa", split="test")) == []
    mixed = samples(2, dataset="cdvqa", split="test") + samples(1, dataset="cdvqa", split="test2")
    assert comparable("cdvqa", mixed) == []
    assert comparable("change-mask", samples(1, dataset="levir_cd", split="test")) != comparable(
        "change-mask", samples(1, dataset="levir_cd_plus", split="test")
    )


def test_a_data_set_that_is_no_name_has_no_rows() -> None:
    assert comparable("cdvqa", samples(2, dataset={"name": "cdvqa"}, split=["test"])) == []


def test_a_data_set_with_the_same_samples_has_the_same_rows() -> None:
    rows = [comparable("levir-cc-ids", samples(2, dataset=name, split="test")) for name in ("levir_cc", "levir_mci")]
    assert rows[0] == rows[1] != []


def test_another_number_of_samples_is_said() -> None:
    (row, *_) = comparable("cdvqa", samples(60, dataset="cdvqa", split="test"))
    assert "the table was made on 39,686 samples; this run has 60" in row["note"]
    (row, *_) = comparable("clcd", []) or [None]
    assert row is None
    json.dumps(comparable("change-mask", samples(2, dataset="levir_cd", split="test")))


def test_other_definitions_of_captions_never_stand_beside_ours() -> None:
    ids = {row.method: row for row in published_rows("levir-cc-ids", "levir_cc", "test")}
    pieces = {row.method: row for row in published_rows("levir-cc-gpt2-ids")}
    assert "PromptCC" not in ids and "DeltaVLM" not in ids
    assert not published_rows("levir-cc-words")  # no table reads words
    assert all("its own vocabulary" in row.note for row in ids.values())
    assert "reading=change-agent, vocab.json of RSCaMa" in ids["RSCaMa"].note
    # the same model under two definitions
    assert ids["RSICCFormer"].metrics["s_star_m"] - pieces["RSICCFormer"].metrics["s_star_m"] == pytest.approx(0.0151)


def test_tables_are_those_that_were_printed() -> None:
    printed = json.loads(shared("golden/published_tables.json").read_text())
    for split, methods in printed["cdvqa"]["rows"].items():
        ours = {row.method: row for row in published_rows("cdvqa", "cdvqa", split)}
        assert ours.keys() == methods.keys()
        for method, row in methods.items():
            assert ours[method].n == sum(printed["cdvqa"]["question_counts"][split].values())
            assert ours[method].metrics["oa"] == pytest.approx(row["published_OA"] / 100)
            for kind, value in row["per_type"].items():
                assert ours[method].metrics[f"oa/{kind}"] == pytest.approx(value / 100)
    captions = {row.method: row.metrics for row in published_rows("levir-cc-ids")}
    for method, row in printed["levir_cc_test"]["rows"].items():
        if method != "PromptCC":
            assert captions[method]["cider"] == pytest.approx(row["CIDEr-D"] / 100)
            assert captions[method]["bleu1"] == pytest.approx(row["BLEU-1"] / 100)


def test_a_run_writes_the_rows_and_the_warnings_beside_its_numbers(tmp_path: Path) -> None:
    records = [
        {
            "id": f"q{i}",
            "task": "change_qa",
            "kind": "change_or_not",
            "reference": {"answers": [("yes", "no")[i % 2]], "vocabulary": ["yes", "no"]},
            "metadata": {"dataset": "cdvqa", "split": "test"},
        }
        for i in range(240)
    ]
    write_jsonl(tmp_path / "s.jsonl", records)
    write_jsonl(tmp_path / "p.jsonl", [{"id": r["id"], "text": r["reference"]["answers"][0]} for r in records])
    rsw.evaluate([PROTOCOLS.find("cdvqa")], tmp_path / "s.jsonl", tmp_path / "p.jsonl", tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [row["method"] for row in summary["published"]] == ["RSVQA", "CDVQA", "SOBA", "VisTA"]
    assert summary["published"][3]["metrics"]["oa"] == 0.731
    (warning,) = summary["warnings"]
    assert "all 240 answers" in warning
    page = (tmp_path / "out" / "report.html").read_text()
    assert "VisTA" in page and "this run has 240" in page and "all 240 answers" in page


def test_damage_that_buildings_do_not_mask_never_stands_beside_xview2() -> None:
    assert published_rows("xview2-damage") == []
    kept = {row.method for row in all_rows() if row.protocol == "xbd-unmasked-damage"}
    assert "MambaBDA-Base" in kept and "xbd-unmasked-damage" not in NOT_OURS
