"""Distances between the set of forecasts and the set of true futures, in the features of a named encoder.

Such a distance exists for sets only: these verifiers score nothing by themselves, they see to it that every image is encoded
and leave its content hash in the row, where the metrics find its features. What one forecast contributed to a distance is a
reward of :mod:`rsw_rewards.verifiers.set_credit`.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.metric import Metric
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card
from rsw_rewards.encoders import CMMD_ENCODER
from rsw_rewards.verifiers.set_metrics import FrechetMetric, InfinityMetric, KernelMetric, NeighbourMetric
from rsw_rewards.verifiers.sets import EncodedSetVerifier, SetConfig, SetTruth


class SetMeasure(EncodedSetVerifier):
    """Base of what is measured between two sets: it has the images of every row encoded, and leaves their hashes in it."""

    rewarding = False

    def rate(self, truths: Sequence[SetTruth], compared: Sequence[ImageRef]) -> list[Score]:
        bank = self.context.bank
        bank.image_features(self.config.encoder, [*compared, *(truth.future for truth in truths)], as_is=True)
        return [
            Score(None, content={"output": bank.hash(forecast), "reference": bank.hash(truth.future)})
            for truth, forecast in zip(truths, compared, strict=True)
        ]


_GAMING = "Copying the input, or leaving out hard samples, improves it: compare at equal n and valid_rate"
_TRANSFORM = (
    "none: a set has no score per sample, so it measures and does not reward; see frechet_credit and mmd_credit"
)


class FrechetConfig(SetConfig):
    """Which features, and how many images a standard number needs."""

    min_images: int = Field(2048, ge=2, description="below this number of forecasts 'fid' is written as 'fid@n'")
    infinity: bool = Field(
        False, description="also extrapolate to infinitely many images (FID-infinity); 15 distances more"
    )


class Frechet(SetMeasure):
    """Frechet distance between forecasts and true futures in an encoder's features."""

    name = "frechet"
    Config = FrechetConfig
    card = Card(
        summary="Frechet distance between all forecasts and all true futures, in the features of a named encoder.",
        range="[0, inf), 0 = equal mean and covariance; unit of the encoder. Named 'fid' only with clean-fid's Inception "
        "('fid@n' below min_images), else fd_<encoder>",
        transform=_TRANSFORM,
        source=(
            "Heusel et al. 2017; Inception file, resize and n - 1 covariance as in clean-fid (Parmar, Zhang, "
            "Zhu 2022); exact for fewer images than dimensions"
        ),
        gaming=f"{_GAMING}. The bias from few images is large, and depends on the model",
        cost="one pass of the encoder per new image; the distance itself 0.1 s for 256 images of 2048 features, 4 s from 2048 images on"
        " (and 25 times that for its interval)",
    )

    def metrics(self) -> Sequence[Metric]:
        frechet = FrechetMetric(self.config.encoder, self.config.min_images)
        return (frechet, InfinityMetric(self.config.encoder)) if self.config.infinity else (frechet,)


class Kid(SetMeasure):
    """Kernel inception distance between forecasts and true futures in an encoder's features."""

    name = "kid"
    card = Card(
        summary="Unbiased squared MMD under the cubic kernel between all forecasts and all true futures.",
        range="about [0, inf), below 0 where forecasts are close to their own futures; 'kid' for clean-fid's Inception alone, kid_<encoder> otherwise",
        transform=_TRANSFORM,
        source="Binkowski et al. 2018; over the whole sets, of which the subset averages of clean-fid and torch-fidelity are estimates",
        gaming=f"{_GAMING}. The cubic kernel hardly notices blur and mode-seeking",
        cost="one pass of the encoder per new image; 0.3 s for 1,000 and 30 s for 10,000 images of 2048 features",
    )

    def metrics(self) -> Sequence[Metric]:
        return (KernelMetric(self.config.encoder, "kid"),)


class Cmmd(SetMeasure):
    """CLIP maximum mean discrepancy between forecasts and true futures."""

    name = "cmmd"

    class Config(SetConfig):
        """Which features; only CLIP ViT-L/14 at 336 pixels gives the published number."""

        encoder: str = Field(CMMD_ENCODER, description="encoder by name; the default alone gives 'cmmd'")

    card = Card(
        summary="1000 times the squared MMD of unit-length features under an RBF kernel of bandwidth 10.",
        range="[0, inf); 'cmmd' for CLIP ViT-L/14-336 alone, cmmd_<encoder> otherwise",
        transform=_TRANSFORM,
        source="Jayasumana et al. 2024 (arXiv 2401.09603); biased estimator and central square as in google-research/cmmd",
        gaming=f"{_GAMING}. On unit vectors the kernel is nearly linear: it measures little but the mean",
        cost="one pass of the encoder per new image; 0.3 s for 1,000 images of 768 features",
    )

    def metrics(self) -> Sequence[Metric]:
        return (KernelMetric(self.config.encoder, "cmmd"),)


class Neighbours(SetMeasure):
    """Precision, recall, density and coverage of forecasts among true futures."""

    name = "neighbours"

    class Config(SetConfig):
        """Which features, and how many neighbours."""

        k: int = Field(5, ge=1, description="neighbour that bounds a ball; 3 in Kynkaanniemi et al., 5 in Naeem et al.")

    card = Card(
        summary="Share of forecasts near a true future, and of true futures near a forecast, by nearest neighbours in an "
        "encoder's features.",
        range="precision, recall, coverage: [0, 1]; density: [0, inf); each with the encoder's name",
        transform=_TRANSFORM,
        source="Kynkaanniemi et al. 2019 (arXiv 1904.06991); Naeem et al. 2020 (arXiv 2002.09797)",
        gaming=f"{_GAMING}. Precision alone rewards mode-seeking; one outlier among forecasts raises recall",
        cost="one pass of the encoder per new image; n x m distances, twice",
    )

    def metrics(self) -> Sequence[Metric]:
        return (NeighbourMetric(self.config.encoder, self.config.k),)
