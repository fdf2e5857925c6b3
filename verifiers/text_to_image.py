"""Text-to-image numbers of RSICD as Txt2Img-MHN prints them and Text2Earth takes them over (arXiv 2208.04441).

Three numbers that carry the names of well-known ones and are none of them: a Frechet distance in an Inception tuned on RSICD, the
accuracy on real images of a classifier taught on generated ones, and a dot product of CLIP features that are not normalised. The
facts are those of the scripts in YonghaoXu/Txt2Img-MHN@8cff35a.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.metric import MeanValue, Metric, SumMetric
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Card, Context, NoConfig
from rsw_rewards.encoders import RSICD_INCEPTION, bands_of
from rsw_rewards.encoders.base import load_exactly, read_state
from rsw_rewards.encoders.rsicd_inception import squash
from rsw_rewards.errors import ConfigError, ImageError
from rsw_rewards.extras import need
from rsw_rewards.verifiers.alignment import MOST_CHARACTERS, cosine, forecast_text
from rsw_rewards.verifiers.distribution import FrechetMetric, SetMeasure
from rsw_rewards.verifiers.forecast_case import ForecastCase, read_case
from rsw_rewards.verifiers.frechet import Reference, frechet_of_features
from rsw_rewards.verifiers.sets import SetConfig, SetTruth, SetVerifier
from rsw_rewards.verifiers.together import Together

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

RESNET_FILE = "resnet18-f37072fd.pth"
"""torchvision's ImageNet weights of ResNet-18."""
SOURCE = "YonghaoXu/Txt2Img-MHN@8cff35a"


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


class FidRsicdConfig(SetConfig):
    """Which network, and which real images."""

    encoder: str = Field(f"{RSICD_INCEPTION}:", description=f"{RSICD_INCEPTION}:<file> of the fine-tuned Inception-v3")
    reference_list: Path | None = Field(
        None,
        description="text file naming the real images; the authors' is_fid_score/dataset/RSICD_test.txt names 1,000",
    )
    reference_root: Path | None = Field(None, description="folder of these images; by default the list's own")


@dataclass(frozen=True)
class ListedFrechet(FrechetMetric):
    """Frechet distance of the forecasts to images that the rows name among them in ``content["listed"]``, each counted once."""

    name: str = "fid_rsicd"

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.name,)

    def written_key(self, rows: pd.DataFrame) -> str:
        return self.name

    def notes(self, rows: pd.DataFrame) -> dict[str, str]:
        found = super().notes(rows)
        if self.name != "fid_rsicd":
            other = "held against the samples' own real images, not the 1,000 of the authors' list (reference_list)"
            found[self.name] = "; ".join(part for part in (other, found.get(self.name, "")) if part)
        return found

    def numbers(self, sets: Any, features: Any, rows: pd.DataFrame) -> dict[str, float | None]:
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

    name: ClassVar[str] = "fid_rsicd"
    needs: ClassVar[frozenset[str]] = frozenset({"output.image", "reference.images", "encoder"})
    Config: ClassVar[type[NoConfig]] = FidRsicdConfig
    card: ClassVar[Card] = Card(
        summary="Frechet distance between all generated images and a list of real images of RSICD, in 2048 pooled features of an"
        " Inception-v3 fine-tuned on its 30 classes.",
        range="[0, inf); the key is fid_rsicd with a reference_list, fid_rsicd/own-images against the samples' own real images. Not"
        " comparable with FIDs in the Inception of ImageNet, nor between two fine-tuned networks",
        transform="none: a set has no score per sample",
        source=f"{SOURCE}, is_fid_score: 256 x 256 bilinear, ImageNet normalisation, transform_input off though it was on in fine-tuning;"
        " 21,870 generated images (ten per caption) against 1,000 of the authors' own random test part",
        gaming="looking like RSICD suffices, whatever the caption says: real images in any order are perfect. The reference list overlaps"
        " what many generators are trained on. Fine-tune the network once and name its hash (encoders in summary.json) beside the number",
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

    def rate(self, truths: Sequence[SetTruth], seen: Sequence[ImageRef]) -> list[Score]:
        first, *others = super().rate(truths, seen)
        if self._listed:
            # Once a batch, so that the rows alone say what the distance is taken to.
            first = Score(None, content={**first.content, "listed": self._digests})
        return [first, *others]

    def metrics(self) -> Sequence[Metric]:
        name = "fid_rsicd" if self.config.reference_list is not None else "fid_rsicd/own-images"
        return (ListedFrechet(self.config.encoder, 2048, name),)


@dataclass(frozen=True, slots=True, eq=False)
class AskedText:
    """What an image is asked for by."""

    case: ForecastCase
    text: str


class ClipRsicdConfig(NoConfig):
    """Which CLIP."""

    encoder: str = Field(
        "hf_clip:clip-rsicd-v2",
        description="hf_clip:<folder> of flax-community/clip-rsicd-v2 with its weights as safetensors",
    )


class ClipRsicd(Together[AskedText, ImageRef]):
    """Dot product of image and caption in a CLIP fine-tuned on RSICD, by a hundredth."""

    name: ClassVar[str] = "clip_rsicd"
    tasks: ClassVar[frozenset[Task]] = frozenset({Task.FORECAST})
    needs: ClassVar[frozenset[str]] = frozenset({"output.image", "encoder"})
    Config: ClassVar[type[ClipRsicdConfig]] = ClipRsicdConfig
    card: ClassVar[Card] = Card(
        summary="What Txt2Img-MHN calls the CLIP score: the dot product of features that are not normalised, divided by 100, averaged"
        " over all images. raw.cos has the cosine.",
        range="unbounded, about 0.2 for clip-rsicd-v2; not a CLIPScore and not a cosine. An invalid output counts as 0",
        transform="(cos + 1) / 2",
        source=f"{SOURCE}, clip_score.py, with flax-community/clip-rsicd-v2 and the first caption. The maximum that is taken there goes"
        " over one image and one caption",
        gaming="longer feature vectors raise it at equal cosine: an image need not fit better, only excite more. Read raw.cos beside it",
        cost="one pass of the encoder per new image and text",
    )

    def setup(self, context: Context) -> None:
        super().setup(context)
        context.bank.text_features(self.config.encoder, [""])

    def encoders(self) -> Sequence[str]:
        return (self.config.encoder,)

    def truth(self, sample: Sample) -> AskedText | Score:
        text = forecast_text(sample)[:MOST_CHARACTERS]
        if not text:
            return Score.not_applicable("the sample has no text to be true to (reference.text or prompt)")
        case = read_case(self.context.bank, sample, bands_of(self.config.encoder))
        return case if isinstance(case, Score) else AskedText(case, text)

    def see(self, truth: AskedText, output: Output) -> ImageRef:
        return truth.case.forecast(output)

    def rate(self, truths: Sequence[AskedText], seen: Sequence[ImageRef]) -> list[Score]:
        bank, name = self.context.bank, self.config.encoder
        drawn = bank.image_features(name, seen, as_is=True)
        told = bank.text_features(name, [truth.text for truth in truths])
        return [self._one(*pair) for pair in zip(drawn, told, strict=True)]

    @staticmethod
    def _one(image: np.ndarray, text: np.ndarray) -> Score:
        cos = cosine(image, text)
        dot = float(image.astype(np.float64) @ text.astype(np.float64)) / 100.0
        return Score((cos + 1.0) / 2.0, raw={"clip_rsicd": dot, "cos": cos})

    def metrics(self) -> Sequence[Metric]:
        return (MeanValue("clip_rsicd", "clip_rsicd"), MeanValue("clip_rsicd_cos", "cos", -1.0, (-1.0, 1.0)))


@dataclass(frozen=True, slots=True, eq=False)
class Labelled(SetTruth):
    """A real image and the number of its class."""

    label: int


class ZeroShotConfig(NoConfig):
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


class ZeroShotAccuracy(SetVerifier[Labelled]):
    """Accuracy on real images of a classifier that has seen generated ones only."""

    name: ClassVar[str] = "zero_shot_cls"
    needs: ClassVar[frozenset[str]] = frozenset({"output.image", "reference.images", "reference.label"})
    Config: ClassVar[type[ZeroShotConfig]] = ZeroShotConfig
    card: ClassVar[Card] = Card(
        summary="ResNet-18 from ImageNet is taught the class of each caption on the generated images, and asked for the class of the real"
        " ones. Samples without a class are left out.",
        range="[0, 1]; an invalid output counts its sample's real image as wrong. With another recipe the key is"
        " zero_shot_cls_oa/<epochs>x<side>",
        transform="1 where the real image of the sample is recognised, else 0: a property of all outputs together, no reward for one",
        source=f"{SOURCE}, zero_shot_classification: 5 epochs, Adam 1e-4, batches of 64, 256 x 256 bilinear, ImageNet normalisation; the"
        " authors' run is not seeded, nor is its spread known",
        gaming="One typical picture per class suffices, and stylised ones are easier to learn than varied ones: captions beyond the class"
        " do not count, and neither does variety",
        cost="5 passes of training over all images: minutes on a GPU, hours on a CPU",
    )

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._classes: tuple[str, ...] = ()

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
        if isinstance(case, Score):
            return case
        return Labelled(case, case.shown(case.future), self._classes.index(str(label)))

    def rate(self, truths: Sequence[Labelled], seen: Sequence[ImageRef]) -> list[Score]:
        network = self._taught(seen, [truth.label for truth in truths])
        places = list(dict.fromkeys(truths))
        said = dict(zip(places, self._said(network, [truth.future for truth in places]), strict=True))
        return [self._scored(said[truth] == truth.label) for truth in truths]

    @staticmethod
    def _scored(right: bool) -> Score:
        stats = {"right": np.float64(right), "tested": np.float64(1.0)}
        return Score(float(right), raw={"right": float(right)}, stats=stats)  # type: ignore[arg-type]

    def worst(self, truth: Labelled, reason: str) -> Score:
        stats = {"right": np.float64(0.0), "tested": np.float64(1.0)}
        return Score.invalid(reason, raw={"right": 0.0}, stats=stats)

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
            key: field.default for key, field in ZeroShotConfig.model_fields.items() if key not in ("weights", "seed")
        }
        same = all(getattr(self.config, key) == value for key, value in usual.items())
        key = "zero_shot_cls_oa" + ("" if same else f"/{self.config.epochs}x{self.config.side}")

        def oa(sums: Any) -> dict[str, float | None]:
            tested = float(sums.get("tested", 0.0))
            return {key: float(sums["right"]) / tested if tested else None}

        return (SumMetric((key,), oa, bounds=(0.0, 1.0)),)
