"""How alike an encoder finds a forecast and the true future: the cosine of their features, of DINOv2 or CLIP for instance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.encoders import SCENE_CLIP, encoder_label
from rsw_rewards.verifiers.alignment import cosine
from rsw_rewards.verifiers.encoded import Encoded
from rsw_rewards.verifiers.paired_base import Likeness, PairedConfig, PairedTruth, paired_card
from rsw_rewards.verifiers.regions import ignore_levels, steadied


class EncoderSimilarity(Encoded, Likeness):
    """Cosine of the forecast's and the true future's features."""

    name = "encoder_similarity"
    needs = frozenset({"output.image", "reference.images", "encoder"})

    class Config(PairedConfig):
        """Whose features are compared."""

        encoder: str = Field(
            SCENE_CLIP, description="an encoder by name, such as dinov2:<folder> or open_clip:<model>:<weights>"
        )
        region: Literal["all"] = Field("all", description="a feature is of the whole image")
        ignore_levels: int = ignore_levels("encoder", "; needs gain")

        @model_validator(mode="after")
        def _knows_the_input(self) -> Self:
            if self.ignore_levels and not self.gain:
                raise ValueError("ignore_levels needs gain: true, by which the input is read")
            return self

    bounds = (-1.0, 1.0)
    worst_number = -1.0
    floor = 0.05
    card = paired_card(
        summary="Cosine of an encoder's features of the forecast and of the true future. The key is cos_<encoder>, and "
        "gain_cos_<encoder> with gain.",
        range="[-1, 1], 1 = the same direction; an invalid output counts as -1. Its distance is 1 - cos; min_change is 0.05",
        transform="(cos + 1) / 2",
        source=(
            "the cosine by which DINO and CLIP image scores are reported for edited images (Ruiz et al. 2023,"
            " arXiv 2208.12242)"
        ),
        gaming=("All cosines are close to 1, and a copy is nearly perfect if little changes: use gain."),
        cost="one pass of the encoder per new image",
    )

    @property
    def unit(self) -> str:
        return "cos"

    @property
    def stem(self) -> str:
        levels = self.config.ignore_levels
        return f"cos_{encoder_label(self.config.encoder)}{f'_over{levels}' if levels else ''}"

    def numbers(self, truths: Sequence[PairedTruth], images: Sequence[np.ndarray]) -> list[float]:
        places = {truth: place for place, truth in enumerate(dict.fromkeys(truths))}
        futures = [self._seen(truth, truth.future) for truth in places]
        pictures = [*futures, *(self._seen(*pair) for pair in zip(truths, images, strict=True))]
        named = [ImageRef(array=picture) for picture in pictures]
        features = self.context.bank.image_features(self.config.encoder, named, as_is=True)
        seen = features[len(places) :]
        return [cosine(feature, features[places[truth]]) for feature, truth in zip(seen, truths, strict=True)]

    def _seen(self, truth: PairedTruth, image: np.ndarray) -> np.ndarray:
        seen = truth.filled(image)
        levels = self.config.ignore_levels
        return steadied(seen, truth.filled(self.copy(truth)), levels) if levels else seen
