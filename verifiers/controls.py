"""Rewards that ought not to be used: controls for an ablation, of which it is known beforehand what it must find.

An experiment that is to say which reward helped must be able to say of a reward that it did not. These are planted beside real
ones: one that knows nothing of the truth, two that pay for what is easy and wrong. They have no short names, lest somebody picks
one by accident: a configuration says ``use: rsw_rewards.verifiers.controls:OutputHash``.
"""

from __future__ import annotations

import hashlib
import math
from typing import Literal

import numpy as np
from pydantic import Field

from rsw_rewards.core.metric import MeanValue
from rsw_rewards.core.per_sample import PerSample
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card, NoConfig
from rsw_rewards.errors import ImageError
from rsw_rewards.verifiers.forecast_case import NO_INPUT, forecast_of
from rsw_rewards.verifiers.texts import OfForm


def hash_value(*parts: str) -> float:
    """A number in [0, 1) that is fixed for these texts and tells nothing of what they say: 52 bits of their SHA-256."""
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
    return int(digest[:13], 16) / 16.0**13


class OutputHash(PerSample[Sample]):
    """A number drawn from a hash of sample and output. No output is better than another, so nothing can be learnt from it."""

    name = "output_hash"
    tasks = OfForm.tasks | {Task.FORECAST}
    card = Card(
        summary="A control: a number drawn from a hash of sample and output, which knows nothing of the truth.",
        range="[0, 1), uniform",
        transform="none",
        source="this project's; the useless reward of an ablation",
        gaming=(
            "there is nothing to game: which output of a sample has a high number does not carry over to the "
            "next sample."
        ),
    )

    def truth(self, sample: Sample) -> Sample:
        return sample

    def compare(self, truth: Sample, output: Output) -> Score:
        if truth.task is not Task.FORECAST:
            value = hash_value(truth.id, output.text or "")
        else:
            value = hash_value(truth.id, self.context.bank.hash(forecast_of(output)))
        return Score(value, raw={"value": value})


class LikenessToInput(PerSample[np.ndarray]):
    """How like the newest input image a forecast is, whatever the future holds: pays for standing still, or for change at any price."""

    name = "likeness_to_input"
    tasks = frozenset({Task.FORECAST})
    needs = frozenset({"output.image"})

    class Config(NoConfig):
        """What is paid for."""

        wanted: Literal["copy", "change"] = Field(
            "copy",
            description="copy: a forecast that is like the input; change: one that is unlike it, wherever that may be",
        )
        scale: float = Field(
            0.003, gt=0.0, description="mean squared error, pixels in [0, 1], at which the value is 0.5"
        )

    card = Card(
        summary="A control: how like (or unlike) its input a forecast is, without a look at the true future.",
        range="mean squared error to the newest input image, pixels in [0, 1]",
        transform="1 / (1 + mse / scale), so that a copy gives 1; wanted change: 1 less that",
        source="this project's; the harmful reward of an ablation. A preservation that is measured over the whole picture is this",
        gaming="copy: copying the input is all that it asks for. change: any noise will do. Measure preservation outside the reference "
        "change mask, and change inside it, instead",
        cost="1 ms for 256 x 256 on a CPU",
    )
    reported = (MeanValue("mse_to_input", "mse", invalid=1.0, bounds=(0.0, 1.0)),)

    def truth(self, sample: Sample) -> np.ndarray | Score:
        if not sample.images:
            return NO_INPUT
        return self.context.bank.rgb(sample.images[-1])

    def compare(self, truth: np.ndarray, output: Output) -> Score:
        forecast = self.context.bank.rgb(forecast_of(output))
        if forecast.shape != truth.shape:
            raise ImageError(f"the forecast's height and width are {forecast.shape[:2]}, the input's {truth.shape[:2]}")
        mse = float(np.mean((forecast.astype(np.float64) - truth) ** 2)) / 255.0**2
        like = 1.0 / (1.0 + mse / self.config.scale)
        return Score(like if self.config.wanted == "copy" else 1.0 - like, raw={"mse": mse})


class AnswerLength(OfForm):
    """The length of a text, right or wrong: pays for going on talking."""

    name = "answer_length"

    class Config(NoConfig):
        """What counts as long."""

        max_words: int = Field(32, ge=1, description="words from which on the value is 1")

    card = Card(
        summary="A control: the length of a text, whatever it says.",
        range="words between blanks, 0 and more",
        transform="words / max_words, at most 1",
        source="this project's; the harmful reward of an ablation on texts",
        gaming="any words will do",
    )
    reported = (MeanValue("answer_words", "words", bounds=(0.0, math.inf)),)

    def compare(self, truth: None, output: Output) -> Score:
        words = len((output.text or "").split())
        return Score(min(1.0, words / self.config.max_words), raw={"words": float(words)})
