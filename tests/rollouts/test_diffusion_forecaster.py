"""The diffusion policy on tiny pipelines: diffusers' own sampler, seeds, batches, folders, adapters, faults."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.errors import ConfigError
from rsw_rewards.rollouts.diffusion_forecaster import DiffusionForecaster, read_trajectory
from rsw_rewards.rollouts.diffusion_pipelines import load_pipeline, pack, unpack
from rsw_rewards.rollouts.policies import build_policy
from rsw_rewards.rollouts.policy import Request
from rsw_rewards.rollouts.pool import RolloutPool
from rsw_rewards.rollouts.tiny_diffusion import tiny_folder

KINDS = ("instruct_pix2pix", "flux_kontext")
SIDE, STEPS = 16, 4


def sample(number: int, side: int = SIDE) -> Sample:
    pixels = np.random.default_rng(number).integers(60, 190, (side, side, 3), dtype=np.uint8)
    text = ("the picture gets brighter", "nothing changes")[number % 2]
    return Sample(f"s{number}", Task.FORECAST, (ImageRef(array=pixels),), "what will it be?", {"text": text})


def policy(kind: str, **changes: Any) -> DiffusionForecaster:
    made = build_policy(
        {"use": "diffusion_forecaster", "path": f"tiny:{kind}", "size": SIDE, "steps": STEPS, **changes}
    )
    assert isinstance(made, DiffusionForecaster)
    made.setup()
    return made


def pixels(output: Output) -> np.ndarray:
    assert output.image is not None
    return output.image.pixels()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_without_noise_the_latents_are_those_of_diffusers(kind: str, guidance: float) -> None:
    import diffusers

    made = policy(kind, guidance_scale=guidance)
    theirs = getattr(diffusers, made.pipeline.kind).from_pretrained(tiny_folder(kind))
    theirs.set_progress_bar_config(disable=True)
    samples = [sample(0), sample(1)]
    drawn = made.draw(made.conditions(samples), [1, 2], stochastic=False)
    start = drawn.latents[:, 0]
    given: dict[str, Any] = {
        "prompt": [str(s.reference["text"]) for s in samples],
        "num_inference_steps": STEPS,
        "guidance_scale": guidance,
        "output_type": "latent",
    }
    images = [Image.fromarray(s.images[0].pixels()) for s in samples]
    if kind == "instruct_pix2pix":
        expected = theirs(image=images, latents=start, image_guidance_scale=1.5, **given).images
    else:
        size = {"height": SIDE, "width": SIDE, "max_area": SIDE * SIDE, "max_sequence_length": 48}
        batch = torch.stack([torch.from_numpy(np.asarray(im)).permute(2, 0, 1) / 127.5 - 1 for im in images])
        found = theirs(image=batch, latents=pack(start), _auto_resize=False, **size, **given).images
        expected = unpack(found, SIDE, SIDE)
    torch.testing.assert_close(drawn.latents[:, -1], expected, rtol=1e-3, atol=1e-4)


def test_evaluations_may_take_other_steps_than_training(kind: str) -> None:
    """At temperature 0 as a policy of six steps, above it as one of four."""
    both, four, six = policy(kind, eval_steps=6), policy(kind), policy(kind, steps=6)
    calm, noisy = Request(sample(0), 0, 7, 0.0), Request(sample(0), 0, 7, 1.0)
    found = [pixels(output) for output in both.generate([calm, noisy])]
    assert np.array_equal(found[0], pixels(six.generate([calm])[0]))
    assert np.array_equal(found[1], pixels(four.generate([noisy])[0]))
    assert not np.array_equal(found[0], pixels(four.generate([calm])[0]))
    assert both.describe()["eval_steps"] == 6


def test_the_codec_gives_back_what_it_was_given() -> None:
    made = policy("flux_kontext")
    before = sample(3).images[0].pixels()[None]
    after = made.pipeline.decode(made.pipeline.encode(before))
    assert np.abs(after * 255 - before).max() < 1.0


def test_the_same_seed_gives_the_same_picture_and_temperature_decides_about_noise(kind: str) -> None:
    made = policy(kind)
    first, again, other, calm = made.generate(
        [
            Request(sample(0), 0, 7, 1.0),
            Request(sample(0), 1, 7, 1.0),
            Request(sample(0), 2, 8, 1.0),
            Request(sample(0), 3, 7, 0.0),
        ]
    )
    assert np.array_equal(pixels(first), pixels(again)) and first.image == again.image
    assert not np.array_equal(pixels(first), pixels(other)) and not np.array_equal(pixels(first), pixels(calm))
    assert first.trajectory is not None and calm.trajectory is None
    assert first.trajectory.pixels().dtype == np.float16
    again_calm = policy(kind).generate([Request(sample(0), 0, 7, 0.0)])[0]
    assert np.array_equal(pixels(calm), pixels(again_calm))


def test_a_row_does_not_depend_on_the_batch_around_it(kind: str) -> None:
    made = policy(kind)
    requests = [Request(sample(number), 0, number, float(number % 3)) for number in range(6)]
    together = made.generate(requests)
    for request, output in zip(requests, together, strict=True):
        (alone,) = made.generate([request])
        assert output.sample_id == request.sample.id
        assert np.abs(pixels(alone).astype(int) - pixels(output)).max() <= 1


def test_text_and_picture_matter(kind: str) -> None:
    made = policy(kind)
    one = sample(0)
    requests = [
        Request(one, 0, 1, 0.0),
        Request(replace(one, id="text", reference={"text": "nothing changes"}), 0, 1, 0.0),
        Request(replace(one, id="picture", images=sample(9).images), 0, 1, 0.0),
    ]
    base, text, picture = (pixels(output).astype(float) for output in made.generate(requests))
    assert np.abs(base - text).max() > 0 and np.abs(base - picture).max() > 0


def test_the_true_picture_is_never_looked_at() -> None:
    made = policy("instruct_pix2pix")
    poisoned = replace(
        sample(0), reference={"text": "the picture gets brighter", "images": [ImageRef(path=Path("/nowhere"))]}
    )
    found = made.generate([Request(sample(0), 0, 1), Request(replace(poisoned, id="p"), 0, 1)])
    assert np.array_equal(pixels(found[0]), pixels(found[1]))


def test_forecasts_have_the_size_of_the_input(kind: str) -> None:
    (output,) = policy(kind).generate([Request(sample(0, side=20), 0, 1)])
    assert pixels(output).shape == (20, 20, 3)


def test_a_saved_policy_is_the_same_policy(kind: str, tmp_path: Path) -> None:
    made = policy(kind)
    with torch.no_grad():
        next(made.model.parameters()).add_(0.05)
    made.save(tmp_path)
    asked = [Request(sample(1), 0, 5)]
    assert np.array_equal(pixels(made.generate(asked)[0]), pixels(policy(kind, path=str(tmp_path)).generate(asked)[0]))


def test_adapters_start_as_nothing_and_are_saved_alone(kind: str, tmp_path: Path) -> None:
    made = policy(kind, lora={"r": 4, "alpha": 8})
    asked = [Request(sample(1), 0, 5)]
    assert np.array_equal(pixels(made.generate(asked)[0]), pixels(policy(kind).generate(asked)[0]))
    with torch.no_grad():
        for name, weight in made.model.named_parameters():
            if "lora_B" in name:
                weight.add_(0.5)
    made.save(tmp_path)
    assert not (tmp_path / "model_index.json").exists()
    changed = made.generate(asked)[0]
    assert np.array_equal(pixels(changed), pixels(policy(kind, path=str(tmp_path)).generate(asked)[0]))
    with pytest.raises(ConfigError, match="holds a LoRA adapter"):
        policy(kind, path=str(tmp_path), lora={"r": 4})
    assert not np.array_equal(pixels(changed), pixels(policy(kind).generate(asked)[0]))


def test_a_sampler_that_diverges_gives_invalid_outputs() -> None:
    made = policy("instruct_pix2pix")
    with torch.no_grad():
        next(made.model.parameters()).fill_(float("nan"))
    (output,) = made.generate([Request(sample(0), 0, 1)])
    assert output.invalid and "not finite" in output.invalid and output.image is None


@pytest.mark.usefixtures("ray_cluster")
def test_actors_make_the_same_rollouts_and_keep_pixels_and_latents_out_of_the_driver() -> None:
    spec = {
        "use": "diffusion_forecaster",
        "path": "tiny:instruct_pix2pix",
        "size": SIDE,
        "steps": STEPS,
    }
    samples = [sample(number) for number in range(3)]
    with RolloutPool(build_policy(spec), actors=0, chunk=2) as here:
        expected = {group[0].sample_id: group for group in here.generate(samples, 2)}
    with RolloutPool(build_policy(spec), actors=1, chunk=2) as there:
        for group in there.generate(samples, 2):
            for output, same in zip(group, expected[group[0].sample_id], strict=True):
                assert output.image is not None and output.image.array is None
                assert output.trajectory is not None and output.trajectory.array is None
                assert np.array_equal(pixels(output), pixels(same))
                kept = [read_trajectory(one, (STEPS + 1, 4, SIDE, SIDE)) for one in (output, same)]
                assert kept[0] is not None and kept[1] is not None and torch.equal(kept[0], kept[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 1}, "at least 2"),
        ({"noise": 0.0}, "above 0"),
        ({"dtype": "int8"}, "float32, bfloat16 or float16"),
        ({"lora": {"rank": 4}}, "lora.rank"),
        ({"size": 15, "path": "tiny:flux_kontext"}, "multiple of 2"),
        ({"path": "tiny:nothing"}, "no tiny pipeline"),
        ({"path": "/nowhere"}, "not the folder of a diffusers pipeline"),
    ],
)
def test_what_cannot_be_is_said(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        policy("instruct_pix2pix", **changes)


def test_other_pipelines_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(ConfigError, match="StableDiffusionInstructPix2PixPipeline, FluxKontextPipeline"):
        load_pipeline(tmp_path)
