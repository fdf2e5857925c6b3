"""Controls of an ablation: what is useless knows nothing, what is harmful pays for the wrong thing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from rsw_rewards.config import load_config
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rubric import VERIFIERS, build, parse_rubric
from rsw_rewards.core.scores import Status
from rsw_rewards.core.verifier import Batch
from rsw_rewards.verifiers.controls import hash_value
from tests.scoring import score_in_process

CONTROLS = "rsw_rewards.verifiers.controls:"
INPUT = np.full((8, 8, 3), 100, dtype=np.uint8)


def forecasts(pictures: Sequence[np.ndarray | None], **config: object) -> list[tuple[float | None, Status]]:
    sample = Sample("f", Task.FORECAST, (ImageRef(array=INPUT),), "", {}, scene="s")
    outputs = [
        Output("f", number, image=None if picture is None else ImageRef(array=picture))
        for number, picture in enumerate(pictures)
    ]
    components = [{"use": f"{CONTROLS}LikenessToInput", "name": "likeness", "config": config}]
    table = score_in_process(parse_rubric({"components": components}, "test"), Batch.of([sample], outputs))
    return list(zip(table.frame["value"], table.frame["status"], strict=True))


def test_the_hash_is_uniform_fixed_and_knows_nothing_of_the_answer() -> None:
    values = np.array([hash_value(f"sample-{number}", "yes") for number in range(2000)])
    assert (
        values.min() >= 0 and values.max() < 1 and abs(values.mean() - 0.5) < 0.03 and abs(values.std() - 0.289) < 0.02
    )
    other = np.array([hash_value(f"sample-{number}", "no") for number in range(2000)])
    assert abs(np.corrcoef(values, other)[0, 1]) < 0.1
    assert hash_value("a", "bc") != hash_value("ab", "c")


def test_the_hash_of_a_picture_is_that_of_its_pixels() -> None:
    sample = Sample("f", Task.FORECAST, (), "", {}, scene="s")
    pictures = [INPUT, INPUT.copy(), INPUT + 1]
    outputs = [Output("f", number, image=ImageRef(array=picture)) for number, picture in enumerate(pictures)]
    rubric = parse_rubric({"components": [{"use": f"{CONTROLS}OutputHash"}]}, "test")
    same, again, other = score_in_process(rubric, Batch.of([sample], [*outputs])).frame["value"]
    assert same == again != other


def test_likeness_pays_for_copies_or_for_change_and_never_looks_at_the_future() -> None:
    near, far = INPUT + 5, INPUT + 60
    copied = [value for value, _ in forecasts([INPUT, near, far])]
    changed = [value for value, _ in forecasts([INPUT, near, far], wanted="change")]
    assert copied[0] == 1.0 and copied == sorted(copied, reverse=True)  # type: ignore[type-var]
    assert changed == pytest.approx([1 - value for value in copied if value is not None])
    half = INPUT + np.uint8(round(255 * 0.003**0.5))
    assert forecasts([half])[0][0] == pytest.approx(0.5, abs=0.01)


def test_a_picture_that_cannot_be_compared_is_the_policys_fault() -> None:
    found = forecasts([None, INPUT[:4]], wanted="change")
    assert found == [(0.0, Status.INVALID_OUTPUT)] * 2


def test_long_answers_earn_more_up_to_a_bound() -> None:
    verifier = build(f"{CONTROLS}AnswerLength", {"max_words": 4})
    sample = Sample("q", Task.CHANGE_QA, (), "", {"answers": ["yes"]}, scene="s")
    outputs = [Output("q", n, text=text) for n, text in enumerate(["", "yes", "yes it did", "so many words in here"])]
    assert [score.value for score in verifier.score(Batch.of([sample], outputs))] == [0.0, 0.25, 0.75, 1.0]


def test_controls_are_no_rewards_that_one_finds_in_the_list() -> None:
    assert not {"output_hash", "likeness_to_input", "answer_length"} & set(VERIFIERS.names())


def test_the_ablation_recipe_plants_them_among_the_rewards_of_the_quickstart() -> None:
    configs = Path(__file__).parents[2] / "configs"
    planted, plain = (
        getattr(load_config(configs / f"{name}.yaml", {"out": "x"}), "rubric")  # noqa: B009
        for name in ("ablation", "quickstart")
    )
    assert planted.components[: len(plain.components)] == plain.components
    assert [part.build().name for part in planted.components[len(plain.components) :]] == [
        "output_hash",
        "likeness_to_input",
    ]
