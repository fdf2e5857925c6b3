"""The bases of the verifiers that rate the forecasts of a batch as a set, such as distances between sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from pydantic import Field

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.verifier import NoConfig
from rsw_rewards.encoders import SCENE_CLIP
from rsw_rewards.verifiers.encoded import Encoded
from rsw_rewards.verifiers.forecast_case import ForecastCase, PerForecast, read_case


@dataclass(frozen=True, slots=True, eq=False)
class SetTruth:
    """A sample whose true future is a member of the other set."""

    case: ForecastCase
    future: ImageRef
    """As it is looked at."""


T = TypeVar("T", bound=SetTruth)


class SetVerifier(PerForecast[T], Generic[T]):
    """Base of the verifiers that rate the usable forecasts of a batch together; the others are taken out first, as everywhere."""

    scope = "population"

    def compare(self, truth: T, output: Output) -> ImageRef:
        return truth.case.forecast(output)


class SetConfig(NoConfig):
    """Which features."""

    encoder: str = Field(
        SCENE_CLIP, description="encoder by name; clean-fid-inception[:<file>] gives the standard numbers"
    )


class EncodedSetVerifier(Encoded, SetVerifier[SetTruth]):
    """Base of what is told of two sets, the forecasts and the true futures, in the features of an encoder."""

    needs = frozenset({"output.image", "reference.images", "encoder"})
    Config: ClassVar[type[SetConfig]] = SetConfig

    def truth(self, sample: Sample) -> SetTruth:
        case = read_case(self.context.bank, sample, self.bands, future=True)
        return SetTruth(case, case.shown(case.future))
