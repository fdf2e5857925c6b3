"""The soft penalty on texts that come near the limit of their length, for every method that learns from rewards."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from rsw_rewards.core.metric import MeanValue
from rsw_rewards.core.records import Output
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card, NoConfig
from rsw_rewards.errors import Unreadable
from rsw_rewards.verifiers.texts import OfForm


def overlong_penalty(length: float, limit: float, cache: float) -> float:
    """The soft overlong punishment of DAPO (arXiv 2503.14476, equation 13), in [-1, 0].

    0 up to ``limit - cache``, then falling on a straight line to -1 at ``limit``, and -1 beyond it.

    >>> [overlong_penalty(length, limit=100, cache=20) for length in (80, 90, 100, 150)]
    [0.0, -0.5, -1.0, -1.0]
    """
    over = length - (limit - cache)
    if over <= 0:
        return 0.0
    return -1.0 if over >= cache else -over / cache


class SoftOverlongConfig(NoConfig):
    """Configuration of ``soft_overlong``."""

    limit: int = Field(20480, ge=1, description="L_max, the length at which nothing is left of the value")
    cache: int = Field(4096, ge=0, description="L_cache, the units before the limit over which the value falls")
    unit: Literal["tokens", "words", "characters"] = Field(
        "tokens", description="tokens: those that the policy sampled, its end among them; the others need no tokenizer"
    )

    @model_validator(mode="after")
    def _fits(self) -> SoftOverlongConfig:
        if self.cache > self.limit:
            raise ValueError(f"'cache' is {self.cache}, more than the 'limit' of {self.limit}")
        return self


class SoftOverlong(OfForm):
    """1 for a text of ordinary length, less the nearer it comes to a limit."""

    name = "soft_overlong"
    card = Card(
        summary="A penalty for texts close to or above a length limit. It does not check whether the text is right.",
        range="overlong_penalty: -1 to 0; length: tokens, words or characters, reasoning among them",
        transform="1 + penalty. Weight 1 beside weight 2 of a verifier that gives 0 or 1 is DAPO's sum, up to a constant",
        source="soft overlong punishment, DAPO (arXiv 2503.14476), equation 13",
        gaming="Every short text gets 1: give it less weight than the verifier of the answer.",
    )
    Config = SoftOverlongConfig
    worst_facts = {"raw": {"length": np.nan, "overlong_penalty": -1.0}}
    reported = (
        MeanValue("overlong_penalty", "overlong_penalty", invalid=-1.0, bounds=(-1.0, 0.0)),
        MeanValue("length", "length", invalid=np.nan, bounds=(0.0, np.inf)),
    )

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        if self.config.unit == "tokens":
            self.needs = self.needs | {"output.tokens"}  # type: ignore[misc]

    def compare(self, truth: None, output: Output) -> Score:
        limit, unit = self.config.limit, self.config.unit
        if not output.text:
            raise Unreadable("the output holds no text")
        if unit != "tokens":
            length = len(output.text.split() if unit == "words" else output.text)
        else:
            assert output.tokens is not None  # the scorer has refused outputs without, which only their caller can mend
            length = len(output.tokens.completion_ids)
        penalty = overlong_penalty(length, limit, self.config.cache)
        raw = {"length": float(length), "overlong_penalty": penalty}
        if length > limit:
            return Score.invalid(f"{length} {unit}, more than the limit of {limit}", raw=raw)
        return Score(1.0 + penalty, raw=raw)
