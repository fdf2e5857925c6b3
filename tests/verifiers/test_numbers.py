"""numeric_match: what is read as a number, what is within tolerance, and the published range and MRA definitions."""

from __future__ import annotations

import json
import math
import pickle
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Batch
from rsw_rewards.data.bins import RATIO_BINS, rsvqa_bin
from rsw_rewards.verifiers.numbers import (
    MRA_THRESHOLDS,
    RSVQA_CLASSES,
    NumericMatch,
    cdvqa_range,
    parse_quantities,
    parse_unit,
    read_number,
    relative_accuracy,
    rsvqa_class,
)

GOLDEN = Path(__file__).parents[1] / "golden"


def numeric(**config: object) -> NumericMatch:
    return NumericMatch(NumericMatch.Config.model_validate(config))


def score(text: str, target: object = "12", unit: str | None = None, **config: object) -> Score:
    reference = {"answers": [target], **({} if unit is None else {"unit": unit})}
    sample = Sample("q", Task.CHANGE_QA, (), reference=reference)
    return numeric(**config).score(Batch.of([sample], [Output("q", text=text)]))[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12", (12, "")), ("about 12 buildings.", (12, "buildings")), ("-3", (-3, "")), ("\u22123", (-3, "")), (".5", (0.5, "")),
        ("1,234.5 m\u00b2", (1234.5, "m2")), ("1'000 sq. m", (1000, "m2")), ("3 km^2", (3, "km2")), ("2.5ha", (2.5, "ha")),
        ("30 %", (30, "%")), ("thirty percent", (30, "%")), ("Seven", (7, "")), ("two hundred square metres", (200, "m2")),
        ("1e3", (1000, "")), ("the area in m2 is 5", (5, "")), ("4 meters", (4, "m")),
    ],
)  # fmt: skip
def test_what_is_read(text: str, expected: tuple[float, str]) -> None:
    assert parse_quantities(text) == [expected]


@pytest.mark.parametrize(
    "text",
    ["5.5.5", "1,23", "7-storey", "$7", "#7", "7+", "1.234,5", "10-20", "0_to_10", "3/4", "\u00bd", "10\u00b2", "12qx", "v2 5", "- 3", "minus 3", "5+5", "twenty-one",
     "3*4*5", "2**3", "**7", "a_7_b", "7*"],
)  # fmt: skip
def test_what_is_not_one_number(text: str) -> None:
    assert parse_quantities(text) is None
    assert read_number(text)[0] is None


@pytest.mark.parametrize(
    "text", ["", "many", "10 to 12", "twenty one", "12 or 13", "1e400", "12 m2", "12 %", "nan", "inf"]
)
def test_no_single_plain_number_is_invalid(text: str) -> None:
    found = score(text)
    assert (found.value, found.status, float(found.stats["valid"])) == (0.0, Status.INVALID_OUTPUT, 0.0)
    assert found.reason


@pytest.mark.parametrize("blank", [" ", "\u00a0", "\u2009", "\u202f", "\u2007"])
def test_blanks_between_thousands(blank: str) -> None:
    assert score(f"12{blank}345", "12345").value == 1.0
    assert score(f"1{blank}200{blank}345.5 m2", "1200345.5", unit="m2").value == 1.0
    for text in (f"12{blank}34", f"12{blank}3456", f"1234{blank}567", f"7{blank}8"):
        assert score(text, "7").status is Status.INVALID_OUTPUT


@pytest.mark.parametrize(
    "words",
    ["not {}", "less than {}", "more than {}", "no more than {}", "at least {}", "at most {}", "up to {}", "over {}", "under {}", "almost {}",
     "> {}", "<{}", "\u2265 {}", "!= {}", "\u00b1{}", "half of {}", "twice {}", "a maximum of {}", "{} dozen", "{} pairs", "{} times", "{} k", "{} $",
     "{} or more", "{} buildings or fewer", "{} and up", "{} and a half", "{} at least", "{} per year", "{}? no.", "there are no {} buildings",
     "there aren't {}", "it is wrong that there are {}", "n\u043et {}", "n\u03bft {}", "n\u00f8t {}", "\u0274\u1d0f\u1d1b {}", "n o t {}", "isnt {}",
     "it isn\u00b4t {}", "instead of {}", "far from {}", "{} is a lie", "{}? n\u043e", "{} \u043er more", "{} is too many", "maybe {}", "it could be {}",
     "{} or not", "{} square", "{}\u00b0", "{} m/s", "{} smoots/h", "{} acres", "{} pixels", "{} years"],
)  # fmt: skip
def test_words_that_change_a_number_make_it_invalid(words: str) -> None:
    for number in ("7", "seven"):
        found = score(words.format(number), "7")
        assert (found.value, found.status) == (0.0, Status.INVALID_OUTPUT), words
        assert found.reason


@pytest.mark.parametrize(
    "words",
    ["{}", "about {}", "exactly {}.", "There are {} new buildings.", "({})", "count = {}", "=> {}", "{}, I think", "{} in total", "only {} buildings and more trees",
     "{} buildings over the whole image", "{} more buildings", "**{}**", "There are **{}** buildings.", "**Answer:** {}", "*{} buildings*", "`{}`",
     "{} houses far from the road", "{} houses instead of trees", "{} Geb\u00e4ude", "{} \u0434\u043e\u043c\u043e\u0432", "{}\u00a0b\u00e2timents"],
)  # fmt: skip
def test_words_that_leave_a_number_as_it_is(words: str) -> None:
    assert score(words.format(7), "7").value == score(words.format("seven"), "7").value == 1.0


@pytest.mark.parametrize(
    ("text", "target"),
    [("1200 feet", "1200 m2"), ("1200 pixels", "1200 m2"), ("12 smoots", "12 m"), ("3 roods", "3 ha"), ("12 buildings", "12 m"), ("5 m3", "5 m"),
     ("30 percentage points", "30 %"), ("7 months", "7 weeks"), ("12 km/h", "12 km")],
)  # fmt: skip
def test_a_unit_that_is_not_known_or_of_another_dimension_is_invalid(text: str, target: str) -> None:
    assert score(text, target, rel_tol=10).status is Status.INVALID_OUTPUT


@given(st.from_regex(r"[a-z]{2,12}( of the [a-z]{2,8})?", fullmatch=True))
def test_no_word_behind_a_number_is_taken_for_the_unit(words: str) -> None:
    found = score(f"12 {words}", "12 m2")
    ((_, unit),) = parse_quantities(f"12 {words}") or [(12, words)]
    assert (found.value == 1.0) == (unit in ("", "m2"))
    assert found.status is Status.OK or found.reason


@pytest.mark.parametrize(
    ("text", "target", "number"),
    [("3 cm", "3 m", 0.03), ("12 feet", "12 m", 3.6576), ("12 in", "12 m", 0.3048), ("5 miles", "5 km", 8.04672), ("3 acres", "3 ha", 1.21405692672),
     ("1200 square feet", "1200 m2", 111.483648), ("2 years", "24 months", 24.0), ("2 weeks", "14 days", 14.0)],
)  # fmt: skip
def test_other_units_are_converted(text: str, target: str, number: float) -> None:
    assert score(text, target).raw["predicted"] == pytest.approx(number, rel=1e-12)


def test_things_that_are_counted_keep_their_unit() -> None:
    assert score("7 years", "7 years").value == score("7", "7", unit="years").value == 1.0
    assert score("7 buildings", "7 houses").value == 1.0
    assert score("12", "at least 12").status is Status.ERROR


def test_units_convert() -> None:
    assert score("0.1 ha", "1000 m2").value == 1.0
    assert score("0.1 ha = 1000 m2", "1000", unit="m\u00b2").value == 1.0
    assert score("1000", "1000", unit="m2").value == 1.0
    assert score("1 ha", "1000 m2").raw["abs_error"] == pytest.approx(9000)
    assert score("12 buildings", "12", unit="buildings").value == 1.0
    assert parse_unit("m3") is None
    assert score("12", "12", unit="m3").status is Status.ERROR


def test_percent_is_a_ratio_only_if_declared() -> None:
    assert score("30 %", "0.3").status is Status.INVALID_OUTPUT
    assert score("30 %", "0.3", unit="ratio").value == 1.0
    assert score("0.3", "30", unit="%").value == 0.0


def test_tolerances() -> None:
    assert score("13", "12", abs_tol=1).value == 1.0
    assert score("13.01", "12", abs_tol=1).value == 0.0
    assert score("105", "100", rel_tol=0.05).value == 1.0
    assert score("-95", "-100", rel_tol=0.05).value == 1.0
    assert score("0.1", "0", rel_tol=0.5).value == 0.0  # a share of nothing is nothing
    assert score("0.1", "0", abs_tol=0.1).value == 1.0
    assert score("13", "12", abs_tol=1, reward="exact").value == 0.0


def test_exponential_reward() -> None:
    assert score("14", "12", abs_tol=2, reward="exponential").value == pytest.approx(math.exp(-1))
    assert score("12", "12", abs_tol=2, reward="exponential").value == 1.0
    with pytest.raises(ValidationError, match="exponential"):
        numeric(reward="exponential")


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.sampled_from(["exact", "tolerance", "exponential", "mra"]))
def test_a_larger_error_never_scores_more(target: float, error: float, reward: str) -> None:
    near = score(f"{target + error / 2:f}", f"{target:f}", abs_tol=1, rel_tol=0.1, reward=reward)
    far = score(f"{target + error:f}", f"{target:f}", abs_tol=1, rel_tol=0.1, reward=reward)
    assert near.value is not None
    assert far.value is not None
    assert 0.0 <= far.value <= near.value <= 1.0


@given(st.text(max_size=30))
def test_any_text_gets_a_score(text: str) -> None:
    found = score(text, abs_tol=1)
    assert found.status in (Status.OK, Status.INVALID_OUTPUT)
    assert (found.value == 1.0) == (found.status is Status.OK and found.raw["abs_error"] <= 1)


@given(st.lists(st.integers(0, 500), min_size=2, unique=True))
def test_a_list_of_guesses_scores_nothing(numbers: list[int]) -> None:
    assert score(", ".join(map(str, numbers)), "12", rel_tol=10).value == 0.0
    assert score(" or ".join(map(str, numbers)), "12", rel_tol=10).value == 0.0


@pytest.mark.parametrize("target", ["many", "", None, "1 or 2", "nan", True])
def test_a_broken_truth_is_our_error_even_for_a_broken_answer(target: object) -> None:
    for text in ("3", "", "many"):
        found = score(text, target)
        assert (found.value, found.status) == (None, Status.ERROR)


def test_several_accepted_numbers() -> None:
    sample = Sample("q", Task.CHANGE_QA, (), reference={"answers": ["3", 7]})
    found = numeric().score(Batch.of([sample], [Output("q", text="6")]))[0]
    assert (found.raw["abs_error"], found.raw["target"]) == (1.0, 7.0)


def test_tags() -> None:
    assert score("between 3 and 20 <answer>12</answer>").value == 1.0
    assert score("<answer>12</answer><answer>13</answer>").status is Status.INVALID_OUTPUT


def test_golden_rsvqa_bins() -> None:
    rows = json.loads((GOLDEN / "rsvqa_answer_bins.json").read_text())
    assert [[rsvqa_bin(row["answer"], row["range_numbers"])] for row in rows] == [row["tokens"] for row in rows]


def test_rsvqa_ranges() -> None:
    assert rsvqa_bin("0m2") == "0m2"
    assert rsvqa_class("between 0 and 10") == ("between 0 and 10", "")
    assert rsvqa_class("between 0 and 10", "m2")[0] is None
    assert score("15", "12m2", ranges="rsvqa").value == 1.0
    assert score("0.0015 ha", "12m2", ranges="rsvqa").value == 1.0
    assert score("between 10 and 100", "12", ranges="rsvqa").value == 1.0
    assert score("0", "5", ranges="rsvqa").value == 0.0  # zero is a class of its own
    assert score("-5", "5", ranges="rsvqa").value == 0.0
    assert score("13", "12", ranges="rsvqa", range_numbers=False).value == 0.0
    assert score(", ".join(sorted(RSVQA_CLASSES)), "12", ranges="rsvqa").status is Status.INVALID_OUTPUT


def test_cdvqa_ranges() -> None:
    assert [cdvqa_range(name)[0] for name in RATIO_BINS] == list(RATIO_BINS)
    assert score("12 %", "10_to_20", ranges="cdvqa").value == 1.0
    assert score("10", "10_to_20", ranges="cdvqa").value == 1.0
    assert score("10_to_20", "12", ranges="cdvqa").value == 1.0
    assert score("0.12", "10_to_20", unit="ratio", ranges="cdvqa").value == 1.0
    assert score("0", "0_to_10", ranges="cdvqa").value == 0.0
    assert score("110", "90_to_100", ranges="cdvqa").status is Status.INVALID_OUTPUT
    assert score(" ".join(RATIO_BINS), "0", ranges="cdvqa").status is Status.INVALID_OUTPUT
    assert score("0", "yes", ranges="cdvqa").status is Status.ERROR


@given(st.integers(0, 100), st.integers(0, 100))
def test_percent_and_ratio_agree_on_the_range(percent: int, other: int) -> None:
    assert cdvqa_range(f"{percent} %") == cdvqa_range(f"{percent / 100}", "ratio")
    assert (
        (percent // 10 == other // 10)
        or cdvqa_range(f"{percent}") != cdvqa_range(f"{other}")
        or {percent, other} > {100}
    )


def test_golden_mra() -> None:
    golden = json.loads((GOLDEN / "mra_vsibench.json").read_text())
    assert golden["thresholds"] == pytest.approx(MRA_THRESHOLDS.tolist(), rel=1e-12)
    for text, target, expected in golden["mra"]:
        found = score(text, target, reading="first_token", reward="mra")
        assert found.value == found.raw["mra"] == pytest.approx(expected, rel=1e-9)


def test_mra_of_a_zero_target() -> None:
    assert (relative_accuracy(0.0, 0.0), relative_accuracy(0.001, 0.0)) == (1.0, 0.0)


def test_metrics() -> None:
    verifier = numeric(abs_tol=1)
    samples = [Sample(str(n), Task.CHANGE_QA, (), reference={"answers": ["10"]}) for n in range(4)]
    batch = Batch.of(samples, [Output(str(n), text=text) for n, text in enumerate(["10", "11", "14", "10 or 11"])])
    scores = verifier.score(batch)
    rows = pd.DataFrame({"kind": ["count"] * 4, "status": [found.status for found in scores]})
    stats = {name: np.stack([found.stats[name] for found in scores]) for name in scores[0].stats}
    numbers: dict[str, float | None] = {}
    for metric in verifier.metrics():
        found = metric.compute(rows, stats, np.ones(4), None)
        assert tuple(found) == metric.keys
        numbers |= found
    mra = (1.0 + 0.9 + 0.3) / 4
    expected = {
        "accuracy": 0.5,
        "valid_rate": 0.75,
        "mae": 5 / 3,
        "rmse": math.sqrt(17 / 3),
        "mra": mra,
        "oa": 0.5,
        "aa": 0.5,
    }
    assert numbers == pytest.approx(expected)


def test_pickles_and_refuses_contradictions() -> None:
    assert pickle.loads(pickle.dumps(numeric(abs_tol=1))).config.abs_tol == 1
    for config in (
        {"ranges": "cdvqa", "abs_tol": 1},
        {"ranges": "rsvqa", "reading": "first_token"},
        {"unit": "m3"},
        {"abs_tol": -1},
    ):
        with pytest.raises(ValidationError):
            numeric(**config)


def test_rsvqa_questions_without_a_number_are_read_strictly() -> None:
    assert score("Yes.", "yes", ranges="rsvqa").value == 1.0
    assert score("urban", "rural", ranges="rsvqa").status is Status.OK
    for text in ("yes or no", "12", "", "urban"):
        assert score(text, "yes", ranges="rsvqa").status is Status.INVALID_OUTPUT
    assert score("twelve", "Twelve", ranges="rsvqa").value == 1.0
    assert score("12", "1.2.3", ranges="rsvqa").status is Status.ERROR


def test_an_invalid_output_is_counted_and_a_broken_truth_stays_our_error() -> None:
    sample = Sample("q", Task.CHANGE_QA, (), reference={"answers": ["12"]})
    found = numeric().invalid(sample, "truncated")
    assert (found.status, found.reason) == (Status.INVALID_OUTPUT, "truncated")
    assert {name: float(value) for name, value in found.stats.items()}["mra"] == 0.0
    broken = Sample("q", Task.CHANGE_QA, (), reference={"answers": ["many"]})
    assert numeric().invalid(broken, "truncated").status is Status.ERROR


def test_an_endless_answer_is_invalid_at_once() -> None:
    start = time.perf_counter()
    sample = Sample("s", Task.CHANGE_QA, (), "", {"answers": ["3"]})
    (score,) = NumericMatch().score(Batch.of([sample], [Output("s", text="1 " * 2_000_000)]))
    assert score.status is Status.INVALID_OUTPUT and "8192" in score.reason
    assert time.perf_counter() - start < 5
