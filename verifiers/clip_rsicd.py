"""Dot product of CLIP features that are not normalised, as Txt2Img-MHN prints it for RSICD; it is called a CLIP score and is none.

The facts are those of the scripts in YonghaoXu/Txt2Img-MHN@8cff35a, whose numbers Text2Earth takes over (arXiv 2208.04441).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.metric import MeanValue
from rsw_rewards.core.per_sample import PerSample
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card, NoConfig
from rsw_rewards.verifiers.alignment import MOST_CHARACTERS, asked_text, cosine
from rsw_rewards.verifiers.encoded import Encoded
from rsw_rewards.verifiers.forecast_case import ForecastCase, read_case


@dataclass(frozen=True, slots=True, eq=False)
class AskedText:
    """What an image is asked for by."""

    case: ForecastCase
    text: str


class ClipRsicd(Encoded, PerSample[AskedText]):
    """Dot product of image and caption in a CLIP fine-tuned on RSICD, by a hundredth."""

    reads_texts = True
    name = "clip_rsicd"
    tasks = frozenset({Task.FORECAST})
    needs = frozenset({"output.image", "encoder"})

    class Config(NoConfig):
        """Which CLIP."""

        encoder: str = Field(
            "hf_clip:clip-rsicd-v2",
            description="hf_clip:<folder> of flax-community/clip-rsicd-v2 with its weights as safetensors",
        )

    card = Card(
        summary="What Txt2Img-MHN calls the CLIP score: the dot product of features that are not normalised, divided by 100, averaged"
        " over all images. raw.cos has the cosine.",
        range="unbounded, about 0.2 for clip-rsicd-v2; not a CLIPScore and not a cosine. An invalid output counts as 0",
        transform="(cos + 1) / 2",
        source="YonghaoXu/Txt2Img-MHN@8cff35a, clip_score.py, with flax-community/clip-rsicd-v2 and the first caption. The maximum that is taken there goes"
        " over one image and one caption",
        gaming="Longer feature vectors raise it at the same cosine, so an image can gain without fitting better. Read "
        "raw.cos beside it",
        cost="one pass of the encoder per new image and text",
    )
    reported = (MeanValue("clip_rsicd", "clip_rsicd"), MeanValue("clip_rsicd_cos", "cos", -1.0, (-1.0, 1.0)))

    def truth(self, sample: Sample) -> AskedText:
        text = asked_text(sample)[:MOST_CHARACTERS]
        return AskedText(read_case(self.context.bank, sample, self.bands), text)

    def compare(self, truth: AskedText, output: Output) -> ImageRef:
        return truth.case.forecast(output)

    def rate(self, truths: Sequence[AskedText], compared: Sequence[ImageRef]) -> list[Score]:
        bank, name = self.context.bank, self.config.encoder
        drawn = bank.image_features(name, compared, as_is=True)
        told = bank.text_features(name, [truth.text for truth in truths])
        scores = []
        for image, text in zip(drawn, told, strict=True):
            cos, dot = cosine(image, text), float(image.astype(np.float64) @ text.astype(np.float64)) / 100.0
            scores.append(Score((cos + 1.0) / 2.0, raw={"clip_rsicd": dot, "cos": cos}))
        return scores
