"""An image is prepared once, for whatever looks at it, and as it would be by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, Qwen2VLImageProcessor

from rsw_rewards.io.images import read_rgb
from rsw_rewards.rollouts.images_once import prepare_once
from rsw_rewards.rollouts.policy import Request
from rsw_rewards.rollouts.tiny_vlm import MODELS, tiny_folder
from tests.training.test_shared_prefix import GROUP, Made, questions, vlm


def pictures(*sides: tuple[int, int]) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (*side, 3), dtype=np.uint8)) for side in sides]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of the library's image processor is given."""
    calls: list[int] = []
    original = Qwen2VLImageProcessor.preprocess

    def preprocess(self: Any, images: Any, *args: Any, **options: Any) -> Any:
        calls.append(len(images))
        return original(self, images, *args, **options)

    monkeypatch.setattr(Qwen2VLImageProcessor, "preprocess", preprocess)
    return calls


@pytest.mark.parametrize("name", sorted(MODELS))
def test_it_gives_what_the_library_gives(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = pictures((60, 80), (200, 90), (60, 80))
    plain, once = (AutoProcessor.from_pretrained(tiny_folder(name)) for _ in range(2))
    prepare_once(once.image_processor)
    asked = [[first, second], [third, first], [first.copy(), second.copy()]]
    expected = plain.image_processor(asked, return_tensors="pt")
    calls = counted(monkeypatch)
    found = once.image_processor(asked, return_tensors="pt")
    assert calls == [1, 1, 1], "an image is known by its pixels"
    assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)
    larger = {"size": {"shortest_edge": 128 * 128, "longest_edge": 128 * 128}, "return_tensors": "pt"}
    assert torch.equal(
        once.image_processor([first], **larger)["pixel_values"],
        plain.image_processor([first], **larger)["pixel_values"],
    ), "what was asked for counts as well"


def test_settings_and_palettes_count() -> None:
    plain, once = (AutoProcessor.from_pretrained(tiny_folder("qwen2_5_vl")).image_processor for _ in range(2))
    prepare_once(once)
    dark, light = (Image.new("P", (60, 80)) for _ in range(2))
    dark.putpalette([0, 0, 0])
    light.putpalette([200, 200, 200])
    shown = [once([image], return_tensors="pt")["pixel_values"] for image in (dark, light)]
    assert not torch.equal(*shown)
    plain.image_mean = once.image_mean = [0.0, 0.0, 0.0]
    assert torch.equal(*(one([dark], return_tensors="pt")["pixel_values"] for one in (plain, once)))


def test_a_processor_without_grids_is_left_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import CLIPImageProcessor

    processor = CLIPImageProcessor()
    expected = processor(pictures((60, 80), (90, 60)), return_tensors="pt")
    prepare_once(processor)
    calls: list[int] = []
    original = CLIPImageProcessor.preprocess

    def preprocess(self: Any, images: Any, *args: Any, **options: Any) -> Any:
        calls.append(len(images))
        return original(self, images, *args, **options)

    monkeypatch.setattr(CLIPImageProcessor, "preprocess", preprocess)
    for _ in range(2):
        found = processor(pictures((60, 80), (90, 60)), return_tensors="pt")
        assert torch.equal(found["pixel_values"], expected["pixel_values"])
    assert calls == [1, 2, 2]


def test_it_is_saved_as_before(tmp_path: Path) -> None:
    plain, once = (AutoProcessor.from_pretrained(tiny_folder("qwen2_5_vl")) for _ in range(2))
    prepare_once(once.image_processor)
    once.image_processor(pictures((60, 80)), return_tensors="pt")
    for name, processor in (("plain", plain), ("once", once)):
        processor.save_pretrained(tmp_path / name)
    files = sorted(file.name for file in (tmp_path / "plain").iterdir())
    for file in files:
        assert (tmp_path / "once" / file).read_bytes() == (tmp_path / "plain" / file).read_bytes(), file


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = AutoProcessor.from_pretrained(tiny_folder("qwen2_5_vl")).image_processor
    several = pictures((60, 60), (60, 60), (60, 60))
    one = processor([several[0]], return_tensors="pt")
    prepare_once(processor, kept_bytes=2 * sum(value.nbytes for value in one.values()))
    calls = counted(monkeypatch)
    for image in (*several, several[2], several[1], several[0]):
        processor([image], return_tensors="pt")
    assert calls == [1, 1, 1, 1]


def test_a_step_prepares_every_image_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch)
    made = Made(vlm("qwen2_5_vl"), questions(), tmp_path)
    shown = {read_rgb(image).tobytes() for sample in made.asked for image in sample.images}
    made.policy.generate([Request(one, number, number, 1.0) for one in made.asked for number in range(GROUP)])
    made.batch(made.trainer())
    assert len(calls) == len(shown) + 1, "one more for the request that setup makes up"
