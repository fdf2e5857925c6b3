"""Image models of the timm library with weights from a local file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rsw_rewards.encoders.base import BuiltIn, load_exactly, read_state
from rsw_rewards.encoders.names import NAMES_HELP
from rsw_rewards.errors import ConfigError
from rsw_rewards.extras import need


class TimmEncoder(BuiltIn):
    """What a timm model gives before its classifier, pooled as the model does. Images are prepared by the model's own rule."""

    def __init__(self, model: Any, device: str, name: str) -> None:
        from timm.data import create_transform, resolve_model_data_config

        super().__init__(model, device, name)
        rule = resolve_model_data_config(model)
        self.preprocess = create_transform(**rule, is_training=False)
        self.input_size = int(rule["input_size"][-1])
        shorter = int(self.input_size / rule["crop_pct"])
        self.resize = (
            f"shorter side to {shorter}, then the central {self.input_size} x {self.input_size}, Pillow {rule['interpolation']}"
            if rule["crop_mode"] == "center"
            else f"crop mode {rule['crop_mode']}, share {rule['crop_pct']}, Pillow {rule['interpolation']}"
        )
        self.dim = int(self.encode_images([np.zeros((8, 8, 3), np.uint8)], 1).shape[1])

    @classmethod
    def load(cls, place: str, device: str, name: str) -> TimmEncoder:
        """The model that ``<model>:<weights file>`` names.

        Raises:
            ConfigError: timm knows no such model, or the file is missing or does not fit.
        """
        need(f"the encoder {name!r}", "timm")
        import timm

        model, _, weights = place.partition(":")
        if not model or not weights:
            raise ConfigError(f"the encoder {name!r} is incomplete; {NAMES_HELP}")
        if not timm.is_model(model):
            raise ConfigError(f"timm has no model {model!r} (in the encoder {name!r}); see timm.list_models()")
        network: Any = timm.create_model(model, pretrained=False, num_classes=0)
        state = read_state(Path(weights).expanduser(), f"the encoder {name!r}")
        # A file of a whole classifier holds its last layer too, which features do not pass.
        classifier = network.default_cfg.get("classifier") or ()
        heads = tuple(f"{head}." for head in ([classifier] if isinstance(classifier, str) else classifier))
        own = network.state_dict().keys()
        kept = {key: value for key, value in state.items() if key in own or not key.startswith(heads)}
        load_exactly(network, kept, f"the encoder {name!r}")
        return cls(network, device, name)

    def prepared(self, images: Sequence[np.ndarray]) -> Any:
        import torch
        from PIL import Image

        return torch.stack([self.preprocess(Image.fromarray(image)) for image in images])
