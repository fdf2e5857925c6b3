"""An image processor that prepares an image once for all prompts that show it."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any, cast

from rsw_rewards.rollouts.model_class import become

KEPT_BYTES = 128 * 2**20
"""Prepared images that are kept, the latest; a generation of 56 images of 300 x 300 pixels at most."""


def prepare_once(processor: Any, kept_bytes: int = KEPT_BYTES) -> None:
    """Let an image processor remember what it gave for an image, by the image's colours and the settings of the processor.

    The rollouts of a prompt, a check before sampling and the passes of a learner then share what was computed. Only grids of
    patches are remembered, which models of the Qwen-VL family take: of several images they are those of each, one after another.

    Args:
        processor: of transformers; it gets a class of its own, and is saved as before.
        kept_bytes: the latest results of this size in all are kept.
    """
    import torch
    from PIL.Image import Image
    from transformers import BatchFeature
    from transformers.image_utils import make_flat_list_of_images

    parent = type(processor)
    kept: OrderedDict[bytes, dict[str, torch.Tensor]] = OrderedDict()
    grids = True

    def size(found: dict[str, torch.Tensor]) -> int:
        return sum(value.nbytes for value in found.values())

    def once(self: Any, image: Image, options: dict[str, Any], settings: str) -> dict[str, torch.Tensor]:
        colours = image.getpalette(), image.info.get("transparency")
        told = repr((image.mode, image.size, colours, sorted(options.items()), settings))
        key = hashlib.blake2b(image.tobytes(), key=hashlib.blake2b(told.encode()).digest()).digest()
        if key not in kept:
            kept[key] = dict(parent.__call__(self, [image], **options))
            while len(kept) > 1 and sum(map(size, kept.values())) > kept_bytes:
                kept.popitem(last=False)
        kept.move_to_end(key)
        return kept[key]

    def __call__(self: Any, images: Any, *args: Any, **options: Any) -> BatchFeature:
        nonlocal grids
        flat = cast(list[Any], make_flat_list_of_images(images))
        pictures = all(isinstance(image, Image) for image in flat)
        if not grids or args or not flat or not pictures or options.get("return_tensors") != "pt":
            found: BatchFeature = parent.__call__(self, images, *args, **options)
            return found
        settings = repr(self.to_dict())
        first = once(self, flat[0], options, settings)
        if set(first) != {"pixel_values", "image_grid_thw"}:
            grids = False
            kept.clear()
            return parent.__call__(self, images, **options)
        each = [first, *(once(self, image, options, settings) for image in flat[1:])]
        return BatchFeature({key: torch.cat([one[key] for one in each]) for key in first})

    become(processor, __call__=__call__)
