"""Protocols of answers, through files: the published numbers come out, and what each definition says about odd answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import rsw_rewards as rsw
from rsw_rewards.data.cdvqa import KINDS, VOCABULARY
from rsw_rewards.evaluation.evaluation import Evaluation
from rsw_rewards.evaluation.protocols import PROTOCOLS
from rsw_rewards.evaluation.protocols import answers as family
from rsw_rewards.io.records_io import write_jsonl
from rsw_rewards.io.text_files import read_records
from tests.shared_data import shared

GOLDEN = Path(__file__).parents[1] / "golden"
Question = tuple[str, list[str], str]
"""Kind, true answers, and the answer given."""


def run(folder: Path, protocol: str, questions: list[Question], **reference: Any) -> Evaluation:
    samples = [
        {
            "id": f"q{number}", "task": "change_qa", "kind": kind, "scene": f"s{number // 2}",
            "reference": {"answers": answers, **reference},
        }
        for number, (kind, answers, _) in enumerate(questions)
    ]  # fmt: skip
    write_jsonl(folder / "s.jsonl", samples)
    write_jsonl(folder / "p.jsonl", [{"id": f"q{n}", "text": given} for n, (_, _, given) in enumerate(questions)])
    (result,) = rsw.evaluate([PROTOCOLS.find(protocol)], folder / "s.jsonl", folder / "p.jsonl", folder / protocol)
    return result


def values(result: Evaluation) -> dict[str, float | None]:
    return {key: entry["value"] for key, entry in result.summary["metrics"].items()}


def statuses(result: Evaluation) -> list[str]:
    return [str(status) for status in result.table.frame["status"]]


@pytest.mark.parametrize("predictor", ["pred_majority", "pred_noisy"])
def test_cdvqa_in_three_definitions(tmp_path: Path, predictor: str) -> None:
    golden = shared("golden/cdvqa_accuracy")
    expected = json.loads((golden / "expected.json").read_text())[predictor]
    items = [item for _, item in read_records(golden / "items.jsonl")]
    questions = [(item["type"], [item["answer"]], item[predictor]) for item in items]
    for protocol, name in (("cdvqa", "types8"), ("cdvqa-7", "types7_change_ratio_merged")):
        found, wanted = values(run(tmp_path, protocol, questions, vocabulary=list(VOCABULARY))), expected[name]
        kinds = {f"oa/{kind}": value for kind, value in wanted["per_type"].items()}
        assert found == pytest.approx({"oa": wanted["OA"], "aa": wanted["AA"], **kinds}, rel=1e-9)
    found, wanted = values(run(tmp_path, "cdvqa-vista", questions)), expected["vista_style"]
    assert found == pytest.approx(
        {"oa": wanted["OA"], "aa": wanted["AA_sum_over_fixed_8"], "kappa": wanted["kappa"]}, rel=1e-9
    )


def test_cdvqa_slices_do_not_repeat_other_kinds(tmp_path: Path) -> None:
    result = run(tmp_path, "cdvqa", [(kind, ["yes"], "yes" if n % 3 else "no") for n, kind in enumerate(KINDS * 4)])
    assert set(result.summary["slices"]) == set(KINDS)
    for kind, numbers in result.summary["slices"].items():
        assert set(numbers) == {"oa", "aa"}
        assert numbers["oa"]["value"] == result.summary["metrics"][f"oa/{kind}"]["value"]
        assert numbers["oa"]["n"] == 4


def test_kappa_counts_an_invalid_or_missing_answer_as_wrong(tmp_path: Path) -> None:
    truth = ["yes", "no"] * 10
    right = run(tmp_path, "cdvqa-vista", [("change_or_not", [t], t) for t in truth])
    assert values(right)["kappa"] == pytest.approx(1.0)
    (tmp_path / "b").mkdir()
    hedged = run(tmp_path / "b", "cdvqa-vista", [("change_or_not", [t], t if n else "") for n, t in enumerate(truth)])
    # po = 19 / 20; pe = (10 * 9 + 10 * 10) / 400, the empty answer being in no truth's category
    assert values(hedged)["kappa"] == pytest.approx((0.95 - 0.475) / 0.525)


RSVQA: list[Question] = [
    ("count", ["12"], "12"), ("count", ["12"], "99"), ("count", ["12"], "between 10 and 100"), ("count", ["0"], "0"),
    ("count", ["0"], "5"), ("count", ["5"], "0"), ("count", ["2000"], "more than 1000"), ("count", ["10"], "about 3 buildings"),
    ("presence", ["yes"], "Yes."), ("presence", ["no"], "yes"), ("presence", ["no"], "yes or no"),
    ("comp", ["no"], "no"), ("rural_urban", ["urban"], "urban"), ("rural_urban", ["rural"], "12"),
]  # fmt: skip


def test_rsvqa_low_resolution(tmp_path: Path) -> None:
    result = run(tmp_path, "rsvqa-lr", RSVQA)
    expected = {
        "oa": 9 / 14, "aa": (6 / 8 + 1 / 3 + 1 + 1 / 2) / 4, "oa/rural_urban": 1 / 2, "oa/presence": 1 / 3, "oa/count": 6 / 8,
        "oa/comp": 1.0, "valid_rate": 12 / 14,
    }  # fmt: skip
    assert values(result) == pytest.approx(expected)
    assert result.summary["baselines"]["oracle"]["metrics"]["oa"]["value"] == 1.0
    assert result.summary["slices"]["count"]["oa"]["value"] == 6 / 8


def test_rsvqa_high_resolution_bins_areas_and_keeps_counts(tmp_path: Path) -> None:
    questions: list[Question] = [
        ("count", ["12"], "12"), ("count", ["12"], "13"), ("count", ["12"], "between 10 and 100"), ("count", ["0"], "0"),
        ("area", ["12m2"], "between 10m2 and 100m2"), ("area", ["12m2"], "40 m2"), ("area", ["12m2"], "0.005 ha"),
        ("area", ["0m2"], "5m2"), ("area", ["5000m2"], "more than 1000m2"), ("area", ["5000m2"], "more than 1000"),
        ("presence", ["yes"], "yes"), ("comp", ["no"], "yes"),
    ]  # fmt: skip
    expected = {"oa/count": 2 / 4, "oa/area": 4 / 6, "oa/presence": 1.0, "oa/comp": 0.0}
    found = values(run(tmp_path, "rsvqa-hr", questions))
    assert {key: found[key] for key in expected} == pytest.approx(expected)
    assert found["aa"] == pytest.approx(sum(expected.values()) / 4)


@pytest.mark.parametrize("protocol", ["rsvqa-lr", "rsvqa-hr"])
def test_golden_rsvqa_bins_through_the_protocols(tmp_path: Path, protocol: str) -> None:
    rows = json.loads((GOLDEN / "rsvqa_answer_bins.json").read_text())
    rows = [row for row in rows if row["range_numbers"] == (protocol == "rsvqa-lr")]
    assert rows
    result = run(tmp_path, protocol, [("any", [row["answer"]], row["tokens"][0]) for row in rows])
    assert values(result)["oa"] == 1.0, result.table.frame[["status", "reason"]][result.table.frame["value"] != 1.0]


def test_vqa_accuracy_over_ten_annotators(tmp_path: Path) -> None:
    cases = json.loads((GOLDEN / "vqa_normaliser" / "vqa_accuracy.json").read_text())["questions"].values()
    result = run(tmp_path, "vqa-v2", [(case["answer_type"], case["answers"], case["prediction"]) for case in cases])
    expected = [case["expected"] / 100 for case in cases]
    assert values(result) == pytest.approx({"accuracy": sum(expected) / len(expected)}, rel=1e-9)
    assert set(result.summary["slices"]) == {"yes/no", "number", "other"}


def test_golden_mra_through_the_protocol(tmp_path: Path) -> None:
    rows = json.loads((GOLDEN / "mra_vsibench.json").read_text())["mra"]
    result = run(tmp_path, "vsi-mra", [("count", [target], text) for text, target, _ in rows])
    assert values(result)["mra"] == pytest.approx(sum(mra for *_, mra in rows) / len(rows), rel=1e-9)
    found = {
        name: raw["mra"] for name, raw in zip(result.table.frame["sample"], result.table.frame["raw"], strict=True)
    }
    assert [found[f"q{number}"] for number in range(len(rows))] == pytest.approx([mra for *_, mra in rows], rel=1e-9)


def test_multiple_choice(tmp_path: Path) -> None:
    questions: list[Question] = [
        ("one", ["B"], "(B)"), ("one", ["B"], "B) water"), ("one", ["water"], "b"), ("one", ["B"], "A, B"),
        ("several", ["A C"], "C, A"), ("several", ["A C"], "A"),
    ]  # fmt: skip
    result = run(tmp_path, "multiple-choice", questions, choices=["land", "water", "ice"])
    assert values(result) == pytest.approx({"accuracy": 4 / 6, "aa": (3 / 4 + 1 / 2) / 2})
    assert statuses(result) == ["ok", "ok", "ok", "invalid_output", "ok", "ok"]
    assert result.summary["baselines"]["oracle"]["metrics"]["accuracy"]["value"] == 1.0


def test_teochat_strips_punctuation_and_case_only(tmp_path: Path) -> None:
    questions: list[Question] = [
        ("x", ["Single-Unit Residential"], "singleunit residential!"), ("x", ["yes"], "Yes."), ("x", ["0_to_10"], "0to10"),
        ("x", ["yes"], "yes "), ("x", ["yes"], "yes it is"), ("x", ["yes"], ""),
    ]  # fmt: skip
    assert values(run(tmp_path, "teochat-exact", questions))["accuracy"] == 3 / 6


def test_changechat_binary(tmp_path: Path) -> None:
    answers = (
        [("yes", "yes")] * 3 + [("yes", "no")] + [("no", "no")] * 4 + [("no", "yes"), ("no", "perhaps"), ("yes", "")]
    )
    result = run(tmp_path, "changechat-binary", [("binary", [truth], given) for truth, given in answers])
    # tp 3, fp 2 (one of them unreadable), fn 2 (one of them empty)
    assert values(result) == pytest.approx({"accuracy": 7 / 11, "precision": 0.6, "recall": 0.6, "f1": 0.6})
    (tmp_path / "no").mkdir()
    none = run(tmp_path / "no", "changechat-binary", [("binary", ["no"], "no")] * 4)
    assert values(none) == {"accuracy": 1.0, "precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_changechat_count(tmp_path: Path) -> None:
    truth = "2 new roads and 5 new buildings"
    given = [truth, "no new roads and 6 new buildings", "no new roads or buildings", "several"]
    found = values(run(tmp_path, "changechat-count", [("count", [truth], text) for text in given]))
    expected = {
        "mae/roads": 4 / 3, "rmse/roads": (8 / 3) ** 0.5, "mae/buildings": 2.0, "rmse/buildings": (26 / 3) ** 0.5,
        "mae": 10 / 6, "rmse": (34 / 6) ** 0.5, "accuracy": 1 / 4, "valid_rate": 3 / 4,
    }  # fmt: skip
    assert found == pytest.approx(expected)


def test_changechat_localization(tmp_path: Path) -> None:
    none, some = "roads [] buildings []", "roads: ['top-left']. buildings: ['top-left', 'center-center']."
    result = run(tmp_path, "changechat-localization", [("l", [none], none), ("l", [some], some), ("l", [some], none)])
    found = values(result)
    assert found["jaccard"] == pytest.approx(1 / 3)  # two empty lists count 0
    assert found["jaccard_empty1"] == found["subset_accuracy"] == pytest.approx(2 / 3)
    assert (found["micro_precision"], found["micro_recall"]) == (1.0, 0.5)
    assert found["hamming"] == pytest.approx(3 / 54)
    assert found["hamming/buildings"] == pytest.approx(2 / 27)
    oracle = result.summary["baselines"]["oracle"]["metrics"]
    assert (oracle["jaccard"]["value"], oracle["jaccard_empty1"]["value"]) == (pytest.approx(2 / 3), 1.0)


@pytest.mark.parametrize("protocol", [protocol.name for protocol in family.PROTOCOLS])
def test_every_key_of_a_headline_is_reported_and_a_missing_prediction_is_counted(tmp_path: Path, protocol: str) -> None:
    truth = {
        "vqa-v2": ["yes"] * 10, "multiple-choice": ["B"], "changechat-count": ["1 new road and 2 new buildings"],
        "changechat-localization": ["roads ['top-left'] buildings []"], "numeric-qa": ["4"], "vsi-mra": ["4"],
    }.get(protocol, ["yes"])  # fmt: skip
    write_jsonl(
        tmp_path / "s.jsonl",
        [{"id": f"q{n}", "task": "change_qa", "kind": "k", "reference": {"answers": truth}} for n in range(4)],
    )
    write_jsonl(tmp_path / "p.jsonl", [{"id": f"q{n}", "text": truth[0]} for n in range(3)])
    found = PROTOCOLS.find(protocol)
    (result,) = rsw.evaluate([found], tmp_path / "s.jsonl", tmp_path / "p.jsonl", tmp_path / "out")
    assert tuple(result.summary["metrics"]) == found.named
    assert sorted(statuses(result)) == ["invalid_output", "ok", "ok", "ok"]
    assert result.summary["metrics"][found.headline[0]]["valid_rate"] == 0.75
    first = {"changechat-count": 0.0}.get(protocol, 0.75)
    assert result.summary["metrics"][found.headline[0]]["value"] == first
