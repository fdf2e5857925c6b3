"""A small open_clip model with random weights, written as a folder that open_clip opens as ``local-dir:``."""

from __future__ import annotations

import json
from pathlib import Path

import rsw_rewards  # noqa: F401  (first: on a CPU it lets torchvision load)


def write_tiny_clip(folder: Path, seed: int = 0) -> str:
    """Write the model into ``folder`` and return the name of its encoder."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    model = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
        "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": model, "preprocess_cfg": {"mean": [0.4] * 3, "std": [0.2] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / "open_clip_model.safetensors")
    return f"open_clip:local-dir:{folder}"
