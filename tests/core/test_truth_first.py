"""The truth of a sample is read before any output for it is looked at, and in the process that scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import rsw_rewards as rsw
from rsw_rewards import verifier
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.per_sample import PerSample
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rubric import Component, Rubric
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Batch, Context, Scope, Verifier
from rsw_rewards.engine.calls import scored
from rsw_rewards.engine.scorer import Scorer
from rsw_rewards.errors import ConfigError, InputError, Unreadable
from rsw_rewards.io.images import read_mask, write_png


class Length(PerSample[int]):
    """Whether a text is as long as the number in the reference says."""

    name: ClassVar[str] = "length"
    tasks: ClassVar[frozenset[Task]] = frozenset({Task.CHANGE_QA})

    def truth(self, sample: Sample) -> int | Score:
        if "length" not in sample.reference:
            return Score.not_applicable("no length")
        return int(sample.reference["length"])

    def compare(self, truth: int, output: Output) -> Score:
        return Score(float(len(output.text or "") == truth), raw={"wanted": truth})

    def worst(self, truth: int, reason: str) -> Score:
        return Score.invalid(reason, raw={"wanted": truth})


class Rank(PerSample[float]):
    """The place of a number among those that are scored with it: numbers are read one by one and rated together."""

    name: ClassVar[str] = "rank"
    tasks: ClassVar[frozenset[Task]] = frozenset({Task.CHANGE_QA})
    scope: ClassVar[Scope] = "group"

    def truth(self, sample: Sample) -> float:
        return self.number(str(sample.reference.get("length")))

    def compare(self, truth: float, output: Output) -> float:
        return self.number(output.text or "")

    def rate(self, truths: Sequence[float], compared: Sequence[float]) -> list[Score]:
        return [Score(sum(other < one for other in compared) / len(compared)) for one in compared]

    def worst(self, truth: float, reason: str) -> Score:
        return Score.invalid(reason, raw={"wanted": truth})

    @staticmethod
    def number(text: str) -> float:
        if not text.isdigit():
            raise Unreadable(f"{text!r} is no number")
        return float(text)


class Loaded(Verifier):
    """Needs in ``invalid`` what ``setup`` loaded."""

    name: ClassVar[str] = "loaded"
    tasks: ClassVar[frozenset[Task]] = frozenset({Task.CHANGE_QA})

    def setup(self, context: Context) -> None:
        super().setup(context)
        self.lexicon = {"word": 3}

    def score(self, batch: Batch) -> list[Score]:
        return [Score(1.0)] * len(batch)

    def invalid(self, sample: Sample, reason: str) -> Score:
        return Score.invalid(reason, raw={"loaded": self.lexicon["word"]})


class MaskShare(Verifier):
    """Reads an image of the sample's and one of the output's in ``score``."""

    name: ClassVar[str] = "mask_share"
    tasks: ClassVar[frozenset[Task]] = frozenset({Task.CHANGE_MASK})

    def score(self, batch: Batch) -> list[Score]:
        pairs = zip(batch.samples, batch.outputs, strict=True)
        return [Score(float((read_mask(s.reference["mask"]) & read_mask(o.mask)).mean())) for s, o in pairs if o.mask]


def scores(
    cls: type[Verifier], batch: Batch, **where: object
) -> list[tuple[Status, float | None, str, dict[str, float]]]:
    rubric = Rubric(components=(Component(use=f"{__file__}:{cls.__name__}"),))
    with Scorer(rubric, **where) as scorer:  # type: ignore[arg-type]
        frame = scorer.score(batch).frame
    values = [None if value != value else value for value in frame["value"]]
    return list(zip(frame["status"], values, frame["reason"], frame["raw"], strict=True))


ASKED = [
    Sample("good", Task.CHANGE_QA, (), reference={"length": 2}, scene="a"),
    Sample("broken", Task.CHANGE_QA, (), reference={"length": "many"}, scene="b"),
    Sample("unasked", Task.CHANGE_QA, (), scene="c"),
]


@pytest.mark.parametrize("where", [{}, {"workers": 1}, {"workers": 2}])
def test_a_broken_truth_is_an_error_for_every_output_alike(where: dict[str, int]) -> None:
    outputs = [
        Output(sample.id, candidate, text=text, invalid=None if text is not None else "no prediction")
        for sample in ASKED
        for candidate, text in enumerate(["ab", "", None])
    ]
    found = scores(Length, Batch.of(ASKED, outputs), **where)
    assert [status for status, *_ in found] == (
        [Status.OK, Status.OK, Status.INVALID_OUTPUT] + [Status.ERROR] * 3 + [Status.NOT_APPLICABLE] * 3
    )
    assert [value for _, value, *_ in found] == [1.0, 0.0, 0.0] + [None] * 6
    assert found[2][3] == {"wanted": 2}
    assert {reason for _, _, reason, _ in found[3:6]} == {
        "the truth of sample 'broken' cannot be used: invalid literal for int() with base 10: 'many'"
    }


def test_a_text_that_cannot_be_read_is_the_fault_of_who_wrote_it_and_the_others_are_rated_together() -> None:
    texts = ["3", "1", "one", "2"]
    outputs = [Output(sample.id, n, text=text) for sample in ASKED[:2] for n, text in enumerate(texts)]
    found = scores(Rank, Batch.of(ASKED, outputs))
    assert [value for _, value, *_ in found[:4]] == [2 / 3, 0.0, 0.0, 1 / 3]
    assert found[2] == (Status.INVALID_OUTPUT, 0.0, "'one' is no number", {"wanted": 2.0})
    assert {found[4:][n][::2] for n in range(4)} == {
        (Status.ERROR, "the truth of sample 'broken' cannot be used: 'many' is no number")
    }


def test_a_comparison_that_gives_no_score_is_named() -> None:
    class Forgetful(Length):
        def compare(self, truth: int, output: Output) -> Any:
            return None

    (found,) = scored(Forgetful(), Batch.of(ASKED[:1], [Output("good", text="ab")]))
    assert (found.status, found.reason) == (
        Status.ERROR,
        "TypeError: Forgetful.compare gave None instead of a Score",
    )


@pytest.mark.parametrize("where", [{}, {"workers": 1}, {"workers": 2}])
def test_invalid_outputs_are_scored_where_the_others_are(where: dict[str, int]) -> None:
    outputs = [Output("good", 0, text="x"), Output("good", 1, invalid="truncated"), Output("broken", invalid="gone")]
    found = scores(Loaded, Batch.of(ASKED, outputs), **where)
    assert [status for status, *_ in found] == [Status.OK, Status.INVALID_OUTPUT, Status.INVALID_OUTPUT]
    assert [raw for *_, raw in found] == [{}, {"loaded": 3}, {"loaded": 3}]


def test_whose_image_cannot_be_read_decides_whose_fault_it_is(tmp_path: Path) -> None:
    write_png(tmp_path / "good.png", np.full((4, 4), 255, np.uint8))
    (tmp_path / "torn.png").write_bytes(b"\x89PNG torn")
    good, torn = ImageRef(path=tmp_path / "good.png"), ImageRef(path=tmp_path / "torn.png")
    coloured = ImageRef(
        array=np.dstack([np.arange(16, dtype=np.uint8).reshape(4, 4)] * 2 + [np.zeros((4, 4), np.uint8)])
    )
    samples = [
        Sample(name, Task.CHANGE_MASK, (), reference={"mask": mask}, scene=name)
        for name, mask in (("fine", good), ("ours", torn), ("colours", coloured))
    ]
    outputs = [
        Output("fine", 0, mask=good),
        Output("fine", 1, mask=torn),  # the policy's own file
        Output("fine", 2, mask=coloured),  # the policy's own array
        Output("ours", 0, mask=good),
        Output("ours", 1, mask=torn),  # names the file that is the sample's
        Output("colours", 0, mask=good),
    ]
    found = scores(MaskShare, Batch.of(samples, outputs))
    assert [status for status, *_ in found] == [
        Status.OK, Status.INVALID_OUTPUT, Status.INVALID_OUTPUT, Status.ERROR, Status.ERROR, Status.ERROR,
    ]  # fmt: skip


def test_a_truth_that_is_read_before_scoring_is_read_once_a_sample() -> None:
    read: list[str] = []

    class Counting(Length):
        name: ClassVar[str] = "counting"

        def truth(self, sample: Sample) -> int | Score:
            read.append(sample.id)
            return super().truth(sample)

    outputs = [Output("good", number, text="ab") for number in range(8)]
    found = scored(Counting(), Batch.of(ASKED, outputs))
    assert read == ["good"] and isinstance(found, list) and [score.value for score in found] == [1.0] * 8


@pytest.mark.parametrize("given", [None, 0.0, "bad", Score(None, Status.OK)])
def test_what_invalid_gives_is_checked_as_what_score_gives(given: object) -> None:
    class Odd(Loaded):
        name: ClassVar[str] = "odd"

        def invalid(self, sample: Sample, reason: str) -> Score:
            return given  # type: ignore[return-value]

    verifier = Odd()
    found = scored(verifier, Batch.of(ASKED, [Output("good", 0, invalid="gone"), Output("good", 1, text="x")]))
    assert isinstance(found, list) and [score.status for score in found] == [Status.ERROR, Status.OK]


def test_an_exit_inside_invalid_or_truth_ends_nothing() -> None:
    class Leaves(Loaded):
        name: ClassVar[str] = "leaves"

        def truth(self, sample: Sample) -> None:
            if sample.id == "broken":
                raise SystemExit("enough")

        def invalid(self, sample: Sample, reason: str) -> Score:
            raise SystemExit(3)

    found = scored(Leaves(), Batch.of(ASKED, [Output("good", invalid="gone"), Output("broken", text="x")]))
    assert isinstance(found, list) and [score.status for score in found] == [Status.ERROR] * 2


def test_a_truth_has_no_value_and_is_not_async() -> None:
    class Judges(Length):
        name: ClassVar[str] = "judges"

        def truth(self, sample: Sample) -> int | Score:
            return Score.invalid("before anything was seen")

    found = scored(Judges(), Batch.of(ASKED, [Output("good", text="ab")]))
    assert isinstance(found, list) and found[0].status is Status.ERROR
    with pytest.raises(ConfigError, match=r"Late\.truth is 'async def'"):

        class Late(Length):
            async def truth(self, sample: Sample) -> int:  # type: ignore[override]
                return 2


def test_a_function_reads_what_it_needs_before_any_output(tmp_path: Path) -> None:
    write_png(tmp_path / "good.png", np.full((4, 4, 3), 255, np.uint8))
    (tmp_path / "torn.png").write_bytes(b"\x89PNG torn")
    good, torn = tmp_path / "good.png", tmp_path / "torn.png"

    @verifier(tasks="change_qa", needs=("reference.images", "images"))
    def looks(sample: Sample, output: Output) -> float:
        if not output.text:  # a silent one, for which nothing is read
            return 0.0
        return float(sample.images[0].pixels().mean() > 0 and sample.reference["images"][0].pixels().mean() > 0)

    @verifier(tasks="change_qa")
    def talks(sample: Sample, output: Output) -> float:
        return float(bool(output.text))

    asked = {
        "fine": Sample("fine", "change_qa", [good], reference={"images": [good]}),  # type: ignore[arg-type]
        "torn": Sample("torn", "change_qa", [good], reference={"images": [torn]}),  # type: ignore[arg-type]
        "shown": Sample("shown", "change_qa", [torn], reference={"images": [good]}),  # type: ignore[arg-type]
        "none": Sample("none", "change_qa", reference={"images": [good]}),  # type: ignore[arg-type]
        "untold": Sample("untold", "change_qa", [good]),  # type: ignore[arg-type]
    }
    outputs = [Output(name, place, text) for name in asked for place, text in enumerate(["yes", ""])]
    outputs += [Output(name, 2, invalid="cut short") for name in asked]
    with Scorer(Rubric([looks, talks])) as scorer:
        assert type(scorer.verifiers[1]).truth is Verifier.truth  # nothing is read, and no time is lost
        frame = scorer.score(Batch.of(asked.values(), outputs)).verifier("looks").frame
        with pytest.raises(ConfigError, match="'looks' reads the images of samples, and the sample 'none' has none"):
            scorer.check([asked["none"]])
    told = {name: rows["status"].tolist() for name, rows in frame.groupby("sample")}
    assert told.pop("fine") == [Status.OK, Status.OK, Status.INVALID_OUTPUT]
    assert told == dict.fromkeys(("torn", "shown", "none", "untold"), [Status.ERROR] * 3)
    reasons = frame.groupby("sample")["reason"].unique()
    assert all(len(reasons[name]) == 1 for name in told) and "it has no images" in reasons["none"][0]
    with pytest.raises(InputError, match="give them as images="):
        rsw.score(looks, output="yes", reference={"images": [good]})
