"""Frechet distance in an Inception tuned on RSICD, as Txt2Img-MHN prints it; it has the name of a well-known number and is none.

The facts are those of the scripts in YonghaoXu/Txt2Img-MHN@8cff35a, whose numbers Text2Earth takes over (arXiv 2208.04441).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.metric import Frame, Metric
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card, Context
from rsw_rewards.encoders import RSICD_INCEPTION
from rsw_rewards.errors import ConfigError, ImageError
from rsw_rewards.verifiers.distribution import SetMeasure
from rsw_rewards.verifiers.frechet import Reference, frechet_of_features
from rsw_rewards.verifiers.set_metrics import FrechetMetric
from rsw_rewards.verifiers.sets import SetConfig, SetTruth


def listed_images(file: Path, root: Path) -> list[Path]:
    """The images that a list names, one a line, further words on a line left out; below ``root``, with their folder or without.

    Raises:
        ConfigError: the list cannot be read, is empty, or names an image that is not there.
    """
    try:
        lines = [line.split()[0] for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the list of reference images {file} cannot be read: {error}") from None
    found = []
    for line in lines:
        places = [root / line, root / Path(line).name]
        place = next((place for place in places if ".." not in place.parts and place.is_file()), None)
        if place is None:
            raise ConfigError(
                f"{file} names {line}, which is not in {root}; set the folder of the images by 'reference_root'"
            )
        found.append(place)
    if len(found) < 2:
        raise ConfigError(f"{file} names {len(found)} reference images; a Frechet distance needs 2 or more")
    return found


@dataclass(frozen=True)
class ListedFrechet(FrechetMetric):
    """Frechet distance of the forecasts to images that the rows name among them in ``content["listed"]``, each counted once."""

    name: str = "fid_rsicd"

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.name,)

    def written_key(self, rows: Frame) -> str:
        return self.name

    def notes(self, rows: Frame) -> dict[str, str]:
        found = super().notes(rows)
        if self.name != "fid_rsicd":
            other = "held against the samples' own real images, not the 1,000 of the authors' list (reference_list)"
            found[self.name] = "; ".join(part for part in (other, found.get(self.name, "")) if part)
        return found

    def numbers(self, sets: Any, features: Any, rows: Frame) -> dict[str, float | None]:
        if self.name != "fid_rsicd":
            return super().numbers(sets, features, rows)
        listed = {digest for row in rows["content"] for digest in (row or {}).get("listed", "").split()}
        if len(listed) < 2:
            return {}
        real = features.features(self.encoder, sorted(listed))
        return {self.name: frechet_of_features(features.features(self.encoder, list(sets.outputs)), Reference.of(real))}

    def left_out(self, *_: Any) -> list[dict[str, float | None]]:
        """Nothing: the reference is a fixed list, and 25 distances in 2048 dimensions would take minutes."""
        return []


class FidRsicd(SetMeasure):
    """Frechet distance of generated images to real ones in an Inception-v3 that was fine-tuned on RSICD."""

    name = "fid_rsicd"
    needs = frozenset({"output.image", "reference.images", "encoder"})

    class Config(SetConfig):
        """Which network, and which real images."""

        encoder: str = Field(
            f"{RSICD_INCEPTION}:", description=f"{RSICD_INCEPTION}:<file> of the fine-tuned Inception-v3"
        )
        reference_list: Path | None = Field(
            None,
            description="text file naming the real images; the authors' is_fid_score/dataset/RSICD_test.txt names 1,000",
        )
        reference_root: Path | None = Field(None, description="folder of these images; by default the list's own")

    card = Card(
        summary="Frechet distance between all generated images and a list of real images of RSICD, in 2048 pooled features of an"
        " Inception-v3 fine-tuned on its 30 classes.",
        range=(
            "[0, inf); the key is fid_rsicd with a reference_list, fid_rsicd/own-images against the samples' "
            "own real images."
        ),
        transform="none: a set has no score per sample",
        source=(
            "YonghaoXu/Txt2Img-MHN@8cff35a, is_fid_score: 256 x 256 bilinear, against 1,000 images of the "
            "authors' own test part."
        ),
        gaming=(
            "It ignores the captions: real images of RSICD in any order are perfect. Many generators were trained on "
            "images of the reference list."
        ),
        cost="one pass of Inception-v3 per image: about 0.1 s on a CPU core",
    )

    def setup(self, context: Context) -> None:
        super().setup(context)
        self._listed: list[ImageRef] = []
        if (file := self.config.reference_list) is not None:
            root = self.config.reference_root or Path(file).expanduser().parent
            self._listed = [ImageRef(path) for path in listed_images(Path(file).expanduser(), Path(root).expanduser())]
            try:
                context.bank.image_features(self.config.encoder, self._listed)
                self._digests = " ".join(context.bank.hash(image, self.config.encoder) for image in self._listed)
            except ImageError as error:
                raise ConfigError(f"a reference image cannot be used: {error}") from None

    def rate(self, truths: Sequence[SetTruth], compared: Sequence[ImageRef]) -> list[Score]:
        first, *others = super().rate(truths, compared)
        if self._listed:
            # Once a batch, so that the rows alone say what the distance is taken to.
            first = Score(None, content={**first.content, "listed": self._digests})
        return [first, *others]

    def metrics(self) -> Sequence[Metric]:
        name = "fid_rsicd" if self.config.reference_list is not None else "fid_rsicd/own-images"
        return (ListedFrechet(self.config.encoder, 2048, name),)
