"""Several components of one verifier: each has numbers of its own, in an evaluation, in a comparison and on held-out samples."""

from __future__ import annotations

from pathlib import Path

import pytest

import rsw_rewards as rsw
from rsw_rewards.config import HeldoutConfig
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.rubric import Rubric
from rsw_rewards.core.verifier import Batch, named_metrics
from rsw_rewards.engine.scorer import Scorer
from rsw_rewards.training.heldout import Heldout, changes_record

PARTS = [
    rsw.Component(use="exact_match", name="any"),
    rsw.Component(use="exact_match", name="tagged", config={"extract": "tag"}),
    rsw.Component(use="answer_format"),
]
SAMPLES = [
    {"id": f"q{n}", "scene": f"s{n}", "kind": "ab"[n % 2], "task": "change_qa", "reference": {"answers": ["yes"]}}
    for n in range(4)
]
PLAIN = ["yes"] * 4
TAGGED = ["<answer>yes</answer>", "yes", "yes", "yes"]


def test_each_component_has_its_numbers_under_its_name(tmp_path: Path) -> None:
    protocol = rsw.protocol("two-readings", PARTS, task="change_qa")
    assert protocol.headline[:4] == ("accuracy/any", "oa/any", "aa/any", "accuracy/tagged")
    found = rsw.evaluate(protocol, SAMPLES, TAGGED, out=tmp_path / "tagged")
    numbers = {key: found.metrics[key].value for key in ("accuracy/any", "accuracy/tagged", "format_rate")}
    assert numbers == {"accuracy/any": 1.0, "accuracy/tagged": 0.25, "format_rate": 0.75}
    assert "accuracy" not in found.metrics
    assert found.summary["slices"]["a"]["accuracy/tagged"]["value"] == 0.5
    rsw.evaluate(protocol, SAMPLES, PLAIN, out=tmp_path / "plain")
    rows = rsw.compare(tmp_path / "plain", tmp_path / "tagged", protocol=protocol).differences()
    assert {row["metric"]: row["difference"] for row in rows}["accuracy/tagged"] == 0.25


def test_a_number_that_several_components_have_must_be_named_with_one_of_them() -> None:
    with pytest.raises(rsw.ConfigError, match="has no metric 'accuracy'; did you mean 'accuracy/"):
        rsw.protocol("two-readings", PARTS, task="change_qa", metrics=["accuracy"])
    assert rsw.protocol("two-readings", PARTS, task="change_qa", metrics=["accuracy/tagged"]).named == (
        "accuracy/tagged",
    )


def test_held_out_changes_of_both_components_are_kept() -> None:
    rubric = Rubric(components=tuple(PARTS))
    samples = [Sample(**sample) for sample in SAMPLES]
    heldout = Heldout(samples, HeldoutConfig(), rubric, 1.0)
    with Scorer(rubric) as scorer:
        before, after = (
            {
                "greedy": scorer.score(
                    Batch.of(samples, [Output(s.id, text=t) for s, t in zip(samples, texts, strict=True)])
                )
            }
            for texts in (PLAIN, TAGGED)
        )
    record = changes_record(heldout.compare(before, after))["greedy"]
    assert record["accuracy/any"]["difference"]["value"] == 0.0
    assert record["accuracy/tagged"]["difference"]["value"] == 0.25
    assert set(record) == {name for one in named_metrics(scorer.by_name) for name in one.names.values()}
