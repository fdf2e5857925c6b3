"""Accuracy on real images of a classifier that is taught on generated ones, as Txt2Img-MHN prints it for RSICD.

The facts are those of the scripts in YonghaoXu/Txt2Img-MHN@8cff35a, whose numbers Text2Earth takes over (arXiv 2208.04441).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.metric import Metric
from rsw_rewards.core.records import Sample
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card, Context, NoConfig
from rsw_rewards.encoders.base import load_exactly, read_state
from rsw_rewards.encoders.rsicd_inception import squash
from rsw_rewards.extras import need
from rsw_rewards.verifiers.answer_metrics import quotients
from rsw_rewards.verifiers.forecast_case import read_case
from rsw_rewards.verifiers.sets import SetTruth, SetVerifier

if TYPE_CHECKING:
    from torch import Tensor

RESNET_FILE = "resnet18-f37072fd.pth"
"""torchvision's ImageNet weights of ResNet-18."""


@dataclass(frozen=True, slots=True, eq=False)
class Labelled(SetTruth):
    """A real image and the number of its class."""

    label: int


def _counted(right: bool) -> dict[str, Any]:
    """What a score holds beside its value."""
    return {"raw": {"right": float(right)}, "stats": {"right": np.float64(right), "tested": np.float64(1.0)}}


class ZeroShotAccuracy(SetVerifier[Labelled]):
    """Accuracy on real images of a classifier that has seen generated ones only."""

    name = "zero_shot_cls"
    needs = frozenset({"output.image", "reference.images", "reference.label"})

    class Config(NoConfig):
        """How the classifier is taught; the defaults are the authors'."""

        weights: Path | None = Field(
            None,
            description=f"ImageNet weights of ResNet-18; by default torchvision's {RESNET_FILE} in the cache of torch.hub",
        )
        epochs: int = Field(5, ge=1, le=1000, description="passes over the generated images")
        batch_size: int = Field(64, ge=2, le=4096, description="images per step")
        learning_rate: float = Field(1e-4, gt=0.0, description="of Adam")
        side: int = Field(256, ge=32, le=1024, description="pixels on a side that images are resized to")
        seed: int = Field(0, description="of the new head and of the order of images")

    worst_facts = _counted(False)
    card = Card(
        summary="Accuracy on real images of an ImageNet ResNet-18 that was trained on the generated images, with the class "
        "of each caption. Samples without a class are left out.",
        range="[0, 1]; an invalid output counts its sample's real image as wrong. With another recipe the key is"
        " zero_shot_cls_oa/<epochs>x<side>",
        transform="1 if the real image of the sample is recognised, else 0: this depends on all outputs together, so it is "
        "no reward for one",
        source=(
            "YonghaoXu/Txt2Img-MHN@8cff35a, zero_shot_classification: 5 epochs, Adam 1e-4, batches of 64, 256"
            " x 256 bilinear."
        ),
        gaming="One typical image per class is enough, and stylised images are easier to learn. Neither the rest of the "
        "caption nor variety counts",
        cost="5 passes of training over all images: minutes on a GPU, hours on a CPU",
    )

    _classes: tuple[str, ...] = ()

    def prepare(self, samples: Sequence[Sample]) -> None:
        self._classes = tuple(
            sorted({str(s.reference["label"]) for s in samples if s.reference.get("label") is not None})
        )

    def setup(self, context: Context) -> None:
        """Read the weights.

        Raises:
            ConfigError: they are missing or are not those of a ResNet-18.
        """
        super().setup(context)
        need(f"the verifier {self.name!r}", "torchvision")
        import torch

        place = self.config.weights or Path(torch.hub.get_dir()) / "checkpoints" / RESNET_FILE
        self._state = read_state(Path(place).expanduser(), "the classifier (ImageNet's ResNet-18, option 'weights')")
        load_exactly(self._network(1000), self._state, "a ResNet-18 of 1000 classes")

    @staticmethod
    def _network(classes: int) -> Any:
        from torchvision.models import resnet18

        return resnet18(weights=None, num_classes=classes)

    def truth(self, sample: Sample) -> Labelled | Score:
        label = sample.reference.get("label")
        if label is None:
            return Score.not_applicable("the sample has no class (reference.label)")
        if str(label) not in self._classes:
            return Score.error("the classes are not known; prepare() must see the samples of the run first")
        case = read_case(self.context.bank, sample, future=True)
        return Labelled(case, case.shown(case.future), self._classes.index(str(label)))

    def rate(self, truths: Sequence[Labelled], compared: Sequence[ImageRef]) -> list[Score]:
        network = self._taught(compared, [truth.label for truth in truths])
        places = list(dict.fromkeys(truths))
        said = dict(zip(places, self._said(network, [truth.future for truth in places]), strict=True))
        return [Score(float(said[truth] == truth.label), **_counted(said[truth] == truth.label)) for truth in truths]

    def _batches(self, images: Sequence[ImageRef], order: Sequence[int]) -> Iterator[tuple[list[int], Tensor]]:
        import torch

        size = self.config.batch_size
        for start in range(0, len(order), size):
            part = [int(place) for place in order[start : start + size]]
            pixels = [squash(self.context.bank.rgb(images[place]), self.config.side) for place in part]
            yield part, torch.from_numpy(np.stack(pixels)).to(self.context.device)

    def _taught(self, images: Sequence[ImageRef], labels: Sequence[int]) -> Any:
        import torch

        chance = torch.Generator().manual_seed(self.config.seed)
        with torch.random.fork_rng():
            torch.manual_seed(self.config.seed)
            network = self._network(1000)
            network.load_state_dict(self._state)
            network.fc = torch.nn.Linear(network.fc.in_features, len(self._classes))
        network.to(self.context.device).train()
        wanted = torch.tensor(labels, device=self.context.device)
        optimiser = torch.optim.Adam(network.parameters(), lr=self.config.learning_rate)
        for _ in range(self.config.epochs):
            for part, pixels in self._batches(images, torch.randperm(len(images), generator=chance).tolist()):
                loss = torch.nn.functional.cross_entropy(network(pixels), wanted[part])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        return network.eval()

    def _said(self, network: Any, images: Sequence[ImageRef]) -> list[int]:
        import torch

        with torch.inference_mode():
            batches = self._batches(images, range(len(images)))
            return [int(place) for _, pixels in batches for place in network(pixels).argmax(1).cpu()]

    def metrics(self) -> Sequence[Metric]:
        usual = {
            key: field.default for key, field in self.Config.model_fields.items() if key not in ("weights", "seed")
        }
        same = all(getattr(self.config, key) == value for key, value in usual.items())
        key = "zero_shot_cls_oa" + ("" if same else f"/{self.config.epochs}x{self.config.side}")

        return (quotients({key: ("right", "tested")}),)
