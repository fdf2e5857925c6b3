"""LPIPS: how differently a network of image classification sees a forecast and the true future, over a region."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import Field, field_validator

from rsw_rewards.core.files import digest_of
from rsw_rewards.core.verifier import Context
from rsw_rewards.encoders.lpips import FILES, SMALLEST, LpipsNetwork, Trunk, lpips_from_maps
from rsw_rewards.errors import ConfigError
from rsw_rewards.extras import installed_file, need
from rsw_rewards.verifiers.paired_base import Paired, PairedConfig, PairedTruth, paired_card

MICRO_BATCH = 8
"""Pairs per forward pass, always filled up to this number, so that a pair's distance does not depend on its neighbours."""

HEADS_SHA256 = {
    "alex": "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    "vgg": "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    "squeeze": "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76",
}
"""Of ``v0.1/<net>.pth`` of richzhang/PerceptualSimilarity, which the lpips package and torchmetrics ship unchanged."""


def default_backbone(net: str) -> Path:
    """Where torchvision keeps the weights of a network once it has downloaded them."""
    need("LPIPS", "torch")
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / FILES[net]


def default_heads(net: str) -> Path | None:
    """The linear heads in the installed torchmetrics, found without importing it; None where that has none."""
    return installed_file("torchmetrics", "functional", "image", "lpips_models", f"{net}.pth")


def unpublished(net: str, backbone: Path, heads: Path | None) -> str:
    """Which of two existing weights files is not the published one, in words; empty where both are."""
    name = FILES[net]
    if not digest_of(backbone).startswith(Path(name).stem.rpartition("-")[2]):
        return f"{backbone} is not torchvision's {name}"
    if heads is not None and digest_of(heads) != HEADS_SHA256[net]:
        return f"{heads} is not v0.1/{net}.pth of the lpips project"
    return ""


class Lpips(Paired):
    """Learned perceptual image patch similarity of the forecast and the true future."""

    name = "lpips"
    needs = Paired.needs | {"network"}

    class Config(PairedConfig):
        """Which network looks, and where its weights are."""

        net: Trunk = Field("alex", description="alex is what tables call LPIPS unless they say otherwise")
        backbone: Path | None = Field(
            None,
            description="torchvision's weights of the network (file or folder); default: where torchvision keeps its downloads",
        )
        heads: Path | None = Field(
            None, description="the linear heads, v0.1/<net>.pth of the lpips project; default: torchmetrics' copy"
        )
        name: str | None = Field(
            None, description="for other weights than the published ones: the key becomes lpips_<name>"
        )

        @field_validator("name")
        @classmethod
        def _fits_a_key(cls, name: str | None) -> str | None:
            if name is not None and not re.fullmatch(r"[\w.-]{1,40}", name):
                raise ValueError("a name is made of letters, digits, '_', '.' and '-', 40 at most")
            return name

    worst_number = 2.0
    bounds = (0.0, math.inf)
    floor = 0.05
    card = paired_card(
        summary=(
            "Distance of the forecast and the true future in the layers of AlexNet (key lpips), VGG-16 "
            "(lpips_vgg) or SqueezeNet 1.1 (lpips_squeeze) with the published linear heads 0.1"
        ),
        range="[0, inf), 0 = equal, seldom above 1; an invalid output counts as 2. min_change is 0.05",
        transform="1 / (1 + 2 lpips): 0.5 at 0.5",
        source=(
            "Zhang et al. 2018, arXiv 1801.03924. Over the whole image it is the published number; over a "
            "region it is the mean within each layer rather than of an enlarged map."
        ),
        gaming="Features depend on neighbouring pixels, so the value of a region also depends on what lies just outside "
        "of it.",
        cost="35 ms (alex), 60 ms (squeeze) or 850 ms (vgg) for 256 x 256 on a CPU",
    )

    def setup(self, context: Context) -> None:
        """Load the network.

        Raises:
            ConfigError: weights are missing, with what to put where, or are not the published ones and have no name.
        """
        super().setup(context)
        config = self.config
        net = config.net
        backbone = default_backbone(net) if config.backbone is None else config.backbone.expanduser()
        backbone = backbone / FILES[net] if backbone.is_dir() else backbone
        heads = default_heads(net) if config.heads is None else config.heads.expanduser()
        self.network = LpipsNetwork.from_files(net, backbone, heads, context.device)
        if config.name is None and (why := unpublished(net, backbone, heads)):
            raise ConfigError(
                f"{why}, so the number may not be called LPIPS; give it a 'name', which goes into its key"
            )

    def close(self) -> None:
        self.network = None

    @property
    def stem(self) -> str:
        if self.config.name is not None:
            return f"{self.name}_{self.config.name}"
        return self.name if self.config.net == "alex" else f"{self.name}_{self.config.net}"

    def refuse(self, truth: PairedTruth) -> str:
        height, width = truth.valid.shape
        least = SMALLEST[self.config.net]
        return (
            "" if min(height, width) >= least else f"{width} x {height} pixels are too few for LPIPS (at least {least})"
        )

    def numbers(self, truths: Sequence[PairedTruth], images: Sequence[np.ndarray]) -> list[float]:
        found = np.empty(len(images))
        by_size: dict[tuple[int, ...], list[int]] = {}
        for place, image in enumerate(images):
            by_size.setdefault(image.shape, []).append(place)
        for places in by_size.values():
            for start in range(0, len(places), MICRO_BATCH):
                part = places[start : start + MICRO_BATCH]
                pictures = [truths[place].filled(images[place]) for place in part]
                maps = self.network.maps(pictures, [truths[place].future for place in part], MICRO_BATCH)
                for row, place in enumerate(part):
                    weights = truths[place].weights
                    layers = [layer[row : row + 1] for layer in maps]
                    found[place] = lpips_from_maps(layers, None if weights.all() else weights)[0]
        return found.tolist()

    def worth(self, number: float) -> float:
        return 1.0 / (1.0 + 2.0 * number)
