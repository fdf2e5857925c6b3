"""Warnings of leaks: files that know the flag, the truth or their own ids are named, honest and small ones are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.evaluation.warnings import (
    CHECKS,
    Evidence,
    all_right,
    change_flag,
    copied_captions,
    known_flag,
    lower_bound,
    own_ids,
    own_truths,
)
from rsw_rewards.verifiers import caption_base
from tests.shared_data import shared

NO_CHANGE = caption_base.NO_CHANGE[0]


def leakage_warnings(samples: list[Sample], outputs: list[Output]) -> list[str]:
    """What the checks for leaks find."""
    leaks = (own_ids, known_flag, copied_captions, all_right, own_truths)
    checks = [check for check, tasks in CHECKS if check in leaks and samples[0].task in tasks]
    return [sentence for check in checks for sentence in check(Evidence(samples, outputs=outputs))]


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n))))
def test_the_bound_is_the_rate_that_gives_as_many_hits_once_in_a_hundred(case: tuple[int, int]) -> None:
    hits, n = case
    bound = lower_bound(hits, n)
    assert bound <= hits / n
    assert binom.sf(hits - 1, n, bound) == pytest.approx(0.01)


def test_no_hits_bound_nothing() -> None:
    assert lower_bound(0, 0) == lower_bound(0, 50) == 0.0


def pairs(changed: int, unchanged: int, flagged: bool = True) -> list[Sample]:
    made = []
    for i in range(changed + unchanged):
        captions = [f"a house number {i} is built", f"building {i} has appeared"]
        flag = i < changed
        reference: dict[str, Any] = {"captions": captions if flag else list(caption_base.NO_CHANGE)}
        made.append(
            Sample(
                f"pair_{i:05}",
                Task.CHANGE_CAPTION,
                (),
                reference={**reference, **({"changed": flag} if flagged else {})},
            )
        )
    return made


def said(samples: list[Sample], wrong: int = 0) -> list[Output]:
    """Captions that tell the flag of all samples but the first and last ``wrong`` ones."""
    texts = [("houses are built" if change_flag(sample) else NO_CHANGE) for sample in samples]
    for i in range(wrong):
        texts[i], texts[-1 - i] = NO_CHANGE, "houses are built"
    return [Output(sample.id, text=text) for sample, text in zip(samples, texts, strict=True)]


@pytest.mark.parametrize("flagged", [True, False])
def test_captions_that_know_the_flag_are_named(flagged: bool) -> None:
    samples = pairs(964, 965, flagged)
    (warning,) = leakage_warnings(samples, said(samples))
    assert "1,929 of 1,929 pairs" in warning and "94 %" in warning


def test_the_sentences_are_those_of_the_data_set() -> None:
    own = ["rien n'a change", "tout est pareil"]
    samples = pairs(300, 0) + [
        Sample(f"same_{i:05}", Task.CHANGE_CAPTION, (), reference={"captions": own, "no_change": own})
        for i in range(300)
    ]
    outputs = [Output(sample.id, text="houses are built" if change_flag(sample) else own[0]) for sample in samples]
    (warning,) = leakage_warnings(samples, outputs)
    assert "600 of 600 pairs" in warning


def test_one_side_known_is_enough() -> None:
    samples = pairs(964, 965)
    outputs = said(samples)
    outputs[-150:] = [Output(sample.id, text="houses are built") for sample in samples[-150:]]
    (warning,) = leakage_warnings(samples, outputs)
    assert "964 of 964 changed pairs" in warning


def test_published_rates_and_small_files_warn_of_nothing() -> None:
    samples = pairs(964, 965)
    assert leakage_warnings(samples, said(samples, wrong=58)) == []  # 94 %
    small = pairs(30, 30)
    assert leakage_warnings(small, said(small)) == []


@pytest.mark.parametrize("text", [NO_CHANGE, "houses are built"])
def test_saying_always_the_same_knows_nothing(text: str) -> None:
    samples = pairs(964, 965)
    assert leakage_warnings(samples, [Output(sample.id, text=text) for sample in samples]) == []


def test_references_given_back_are_named() -> None:
    samples = pairs(60, 60)
    copied = [Output(sample.id, text=sample.reference["captions"][1] + " .") for sample in samples]
    (warning,) = leakage_warnings(samples, copied)
    assert "60 of 60 captions of changed pairs" in warning


def test_real_captions_of_a_few_pairs_warn_of_nothing() -> None:
    items = [json.loads(line) for line in shared("golden/caption_levircc/items.jsonl").read_text().splitlines()]
    samples = [
        Sample(item["id"], Task.CHANGE_CAPTION, (), reference={"captions": item["references"]}) for item in items
    ]
    assert [change_flag(sample) for sample in samples] == [bool(item["changeflag"]) for item in items]
    assert leakage_warnings(samples, [Output(item["id"], text=item["prediction"]) for item in items]) == []


def questions(count: int) -> list[Sample]:
    return [
        Sample(f"q{i}", Task.CHANGE_QA, (), reference={"answers": ["yes" if i % 2 else "No"]}) for i in range(count)
    ]


def answered(samples: list[Sample], wrong: int = 0) -> list[Output]:
    return [
        Output(sample.id, text="?" if i < wrong else f"<answer>{sample.reference['answers'][0]}</answer>")
        for i, sample in enumerate(samples)
    ]


def test_only_a_large_file_without_a_fault_is_too_good() -> None:
    samples = questions(300)
    (warning,) = leakage_warnings(samples, answered(samples))
    assert "all 300 answers" in warning
    assert leakage_warnings(samples, answered(samples, wrong=1)) == []
    assert leakage_warnings(samples[:200], answered(samples[:200])) == []


def test_texts_with_their_own_id_are_named_unless_the_prompt_held_it() -> None:
    samples = [
        Sample("levir/test_7", Task.CHANGE_QA, (), prompt, {"answers": ["yes"]}) for prompt in ("?", "of levir/test_7?")
    ]
    for sample, count in zip(samples, (1, 0), strict=True):
        assert len(leakage_warnings([sample], [Output(sample.id, text="levir/test_7: yes")])) == count


def test_a_prediction_that_is_the_file_of_its_truth_is_named(tmp_path: Path) -> None:
    truth, own = ImageRef(path=tmp_path / "label" / ".." / "a.png"), ImageRef(path=tmp_path / "b.png")
    sample = Sample("a", Task.CHANGE_MASK, (), reference={"mask": truth})
    (warning,) = leakage_warnings([sample], [Output("a", mask=ImageRef(path=tmp_path / "a.png"))])
    assert "1 predicted pictures are the very file" in warning
    assert leakage_warnings([sample], [Output("a", mask=own)]) == []
    future = Sample("f", Task.FORECAST, (own,), reference={"images": [truth]})
    assert leakage_warnings([future], [Output("f", image=truth)])
    assert leakage_warnings([future], [Output("f", image=own)]) == []


def test_only_first_candidates_that_could_be_read_count() -> None:
    samples = questions(300)
    outputs = [*answered(samples), *(Output(sample.id, 1, text="?") for sample in samples)]
    assert len(leakage_warnings(samples, outputs)) == 1
    assert leakage_warnings(samples, [Output(sample.id, invalid="missing") for sample in samples]) == []
