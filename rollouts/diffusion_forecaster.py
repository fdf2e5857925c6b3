"""A diffusers pipeline that draws the future of a picture as a text describes it, as a policy that can be trained.

Outputs of a stochastic rollout carry the latents that the sampler went through. The learner needs those very latents: made again from
the seed, on another card or in another batch, small differences would grow over the steps to another picture than the one that was
scored. They travel beside the pixels, through the object store and not through the driver, as float16: the sampler itself rounds them
after every step, so that what the learner reads is exactly what was sampled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.settings import validated
from rsw_rewards.errors import ConfigError, ImageError
from rsw_rewards.extras import need
from rsw_rewards.io.images import read_rgb, read_size
from rsw_rewards.io.model_files import missing_model
from rsw_rewards.pixels import content_hash
from rsw_rewards.rollouts.diffusion_windows import Window
from rsw_rewards.rollouts.policy import Policy, Request, after_setup, in_runs
from rsw_rewards.rollouts.tiny import PREFIX
from rsw_rewards.rollouts.weights import adapter_in, base_model, has_adapters, load_trained

if TYPE_CHECKING:
    import torch

    from rsw_rewards.rollouts.diffusion_base import Conditions, DiffusionPipeline

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
"""Layers that get an adapter unless others are named: the projections of attention, as diffusers names them."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a sampler made."""

    pictures: np.ndarray
    """(n, size, size, 3) float32 in [0, 1]; not finite where the sampler diverged."""
    latents: torch.Tensor
    """(n, steps + 1, C, h, w) float32, from pure noise to the picture."""
    log_probs: torch.Tensor
    """(n, k) log-densities of the k steps that made a choice; (n, 0) without noise."""


class DiffusionForecaster(Policy):
    """An image and text to image pipeline of diffusers: InstructPix2Pix (DDIM) or FLUX.1 Kontext (flow matching).

    The newest input picture and the text of what is to come (``reference.text``, else the prompt) go in. Temperature 0 takes the
    deterministic sampler, any other the stochastic one with ``noise``: there is no more and less of it. Both start from noise that
    follows from the request's seed.

    Args:
        path: a pipeline folder, the folder of a trained adapter, or ``tiny:instruct_pix2pix`` / ``tiny:flux_kontext`` for random weights.
        size: side of the square that pictures are brought to, in pixels; forecasts are brought back to the size of the input.
        steps: denoising steps.
        eval_steps: denoising steps at temperature 0, thus of evaluations and of greedy held-out measurements; ``steps`` where left out.
        noise: how noisy stochastic steps are, in the scale of the sampler: DDIM's eta (1 where left out), Flow-GRPO's noise level (0.7),
            DanceGRPO's eta (0.3), Flow-CPS's eta (0.8).
        sampler: the stochastic steps: ``sde`` (Flow-GRPO, arXiv 2505.05470), ``dance`` (DanceGRPO, arXiv 2505.07818) or ``cps``
            (Flow-CPS, arXiv 2509.05952) of FLUX.1 Kontext, ``ddim`` of InstructPix2Pix; the first of its kind where left out.
        window: the steps that are stochastic, where not all are: the keys of :class:`rsw_rewards.rollouts.diffusion_windows.Window`.
        guidance_scale: of classifier-free guidance for InstructPix2Pix (1 is none); what the distilled transformer of Kontext is told.
        image_guidance_scale: of InstructPix2Pix, only with ``guidance_scale`` above 1.
        dtype: in which the networks compute; adapters stay float32.
        lora: ``{r, alpha, target_modules}`` to train low-rank adapters (arXiv 2106.09685) of the denoiser alone.
    """

    name = "diffusion_forecaster"
    tasks = frozenset({Task.FORECAST})
    trainable = True

    def __init__(
        self,
        path: str,
        size: int = 512,
        steps: int = 20,
        eval_steps: int | None = None,
        noise: float | None = None,
        sampler: Literal["sde", "dance", "cps", "ddim"] | None = None,
        window: Mapping[str, Any] | None = None,
        guidance_scale: float = 1.0,
        image_guidance_scale: float = 1.5,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        lora: Mapping[str, Any] | None = None,
    ) -> None:
        if steps < 2:
            raise ConfigError(
                f"{self.name}: 'steps' is {steps}; it must be at least 2, because the last step is deterministic"
            )
        if eval_steps is not None and eval_steps < 1:
            raise ConfigError(f"{self.name}: 'eval_steps' is {eval_steps}; it must be at least 1")
        if noise is not None and not noise > 0:
            raise ConfigError(f"{self.name}: 'noise' is {noise}; it must be above 0 (temperature 0 samples without)")
        if sampler == "cps" and noise is not None and noise > 1:
            raise ConfigError(f"{self.name}: 'noise' is {noise}; with the sampler 'cps' it must be at most 1")
        if dtype not in ("float32", "bfloat16", "float16"):
            raise ConfigError(f"{self.name}: 'dtype' is {dtype!r}; it must be float32, bfloat16 or float16")
        if lora is not None and (extra := set(lora) - {"r", "alpha", "target_modules"}):
            raise ConfigError(f"{self.name}: unknown key lora.{min(extra)}; known are r, alpha, target_modules")
        self.path, self.size, self.steps, self.given_noise, self.dtype = str(path), size, steps, noise, dtype
        self.eval_steps = steps if eval_steps is None else eval_steps
        self.sampler = sampler
        self.window = None if window is None else validated(Window, window, f"{self.name}: window")
        if self.window is not None:
            try:
                self.window.places(steps)
            except ValueError as error:
                raise ConfigError(f"{self.name}: window: {error}") from None
        self.version = 0
        self.scales = {"guidance_scale": guidance_scale, "image_guidance_scale": image_guidance_scale}
        self.lora = None if lora is None else dict(lora)
        self._pipeline: DiffusionPipeline | None = None

    def missing(self) -> str | None:
        known = ("model_index.json", "adapter_config.json")
        return None if self.path.startswith(PREFIX) else missing_model(self.path, known, hub=False)

    def setup(self, device: str = "cpu", threads: int = 1) -> None:
        need(f"the policy {self.name!r}", "torch", "transformers", "diffusers")
        import torch

        from rsw_rewards.rollouts.diffusion_pipelines import load_pipeline
        from rsw_rewards.rollouts.tiny_diffusion import tiny_folder

        torch.set_num_threads(threads)
        path = str(tiny_folder(self.path.removeprefix(PREFIX))) if self.path.startswith(PREFIX) else self.path
        adapter = path if adapter_in(path, self.lora) else None
        if adapter:
            from peft import PeftConfig

            path = str(PeftConfig.from_pretrained(adapter).base_model_name_or_path)
        self._pipeline = load_pipeline(Path(path), self.dtype, sampler=self.sampler, **self.scales)
        if self.size % self._pipeline.multiple:
            raise ConfigError(f"{self.name}: 'size' is {self.size}; it must be a multiple of {self._pipeline.multiple}")
        if adapter or self.lora is not None:
            self._pipeline.denoiser = _with_adapters(self._pipeline.denoiser, path, adapter, self.lora)
        self._pipeline.denoiser.eval()
        self._pipeline.to(device)

    @property
    def pipeline(self) -> DiffusionPipeline:
        """Networks and noise schedule, after :meth:`setup`."""
        return after_setup(self._pipeline)

    @property
    def model(self) -> Any:
        """The denoiser, which is what is trained, with its adapters if it has any."""
        return self.pipeline.denoiser

    @property
    def noise(self) -> float:
        """How noisy stochastic steps are."""
        return self.given_noise or self.pipeline.samplers[self.pipeline.sampler]

    def noisy_steps(self, version: int) -> range:
        """The denoising steps of a stochastic rollout that make a choice, under weights of that version; the last never does."""
        return range(self.steps - 1) if self.window is None else self.window.at(version, self.steps)

    def load_weights(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        self.version = version
        load_trained(self.model, weights)

    def merge_adapters(self) -> None:
        """Put what adapters have learnt into the weights of the denoiser."""
        self.pipeline.denoiser = self.pipeline.denoiser.merge_and_unload()

    def save(self, folder: Path) -> None:
        """Write what ``path`` can name: the pipeline, or the adapter and the name of what it sits on."""
        if has_adapters(self.model):
            self.model.save_pretrained(folder)
            return
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.pipeline.parts[self.pipeline.denoiser_name] = base_model(self.model)
        self.pipeline.save(Path(folder))

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "path": self.path,
            "size": self.size,
            "steps": self.steps,
            **({"eval_steps": self.eval_steps} if self.eval_steps != self.steps else {}),
            "noise": self.given_noise,
            **({"sampler": self.sampler} if self.sampler is not None else {}),
            **({"window": self.window.model_dump(mode="json")} if self.window is not None else {}),
            **self.scales,
            "dtype": self.dtype,
            **({"lora": self.lora} if self.lora is not None else {}),
        }

    def conditions(self, samples: Sequence[Sample]) -> Conditions:
        """What the denoiser is told of samples, a row each. Raises :class:`ImageError`."""
        for sample in samples:
            if not sample.images:
                raise ImageError(f"{sample.id}: a forecast needs at least one input image")
        pictures = np.stack([self.resized(sample.images[-1]) for sample in samples])
        return self.pipeline.conditions(pictures, [text_of(sample) for sample in samples])

    def resized(self, image: ImageRef) -> np.ndarray:
        """(size, size, 3) uint8 of a picture. Raises :class:`ImageError`."""
        return resize(read_rgb(image), self.size, self.size)

    def draw(self, told: Conditions, seeds: Sequence[int], stochastic: bool) -> Drawn:
        """Sample a picture per row of ``told``; every row draws from a generator of its own."""
        import torch

        pipeline = self.pipeline
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        shape = pipeline.shape(self.size)
        kept = [torch.stack([torch.randn(shape, generator=one) for one in generators]).to(pipeline.device)]
        log_probs = []
        noisy = self.noisy_steps(self.version) if stochastic else range(0)
        steps = self.steps if stochastic else self.eval_steps
        with torch.no_grad():
            for number in range(steps):
                if stochastic:
                    kept[-1] = kept[-1].half().float()  # what is kept for the learner
                step = pipeline.step(kept[-1], told, number, steps, self.noise if number in noisy else 0.0)
                if number not in noisy:
                    kept.append(step.mean)
                    continue
                kept.append(step.sample(generators).half().float())
                log_probs.append(step.log_prob(kept[-1]).cpu())
        pictures = pipeline.decode(kept[-1])
        if stochastic:
            kept[-1] = kept[-1].half().float()
        found = torch.stack(log_probs, 1) if log_probs else torch.zeros(len(seeds), 0)
        return Drawn(pictures, torch.stack(kept, 1).cpu(), found)

    def generate(self, requests: Sequence[Request]) -> list[Output]:
        """See :class:`Policy`. A picture of a sample that cannot be read raises :class:`ImageError`."""
        return in_runs(requests, self._made, lambda request: request.temperature > 0)

    def _made(self, requests: Sequence[Request], count: int) -> list[Output]:
        stochastic = requests[0].temperature > 0
        conditions = self.conditions([request.sample for request in requests[::count]])
        told = {key: value.repeat_interleave(count, 0) for key, value in conditions.items()}
        drawn = self.draw(told, [request.seed for request in requests], stochastic)
        outputs = []
        for request, picture, latents in zip(requests, drawn.pictures, drawn.latents, strict=True):
            if not np.isfinite(picture).all() or not bool(latents.isfinite().all()):
                outputs.append(Output(request.sample.id, invalid="the sampler diverged: its picture is not finite"))
                continue
            height, width = read_size(request.sample.images[-1])
            pixels = resize(np.rint(picture * 255).astype(np.uint8), height, width)
            kept = latents.numpy().astype(np.float16) if stochastic else None
            outputs.append(
                Output(
                    request.sample.id,
                    image=ImageRef(array=pixels, sha256=content_hash(pixels)),
                    trajectory=None if kept is None else ImageRef(array=kept, sha256=content_hash(kept)),
                )
            )
        return outputs


def text_of(sample: Sample) -> str:
    """What is to come, in words: the text of the reference, else the prompt."""
    return str(sample.reference.get("text") or sample.prompt)


def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8, bicubic; the same array where nothing changes."""
    if pixels.shape[:2] == (height, width):
        return pixels
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


def read_trajectory(output: Output, shape: tuple[int, ...]) -> torch.Tensor | None:
    """The (steps + 1, C, h, w) float32 latents of a rollout, or None where there are none or they are not of ``shape``."""
    import torch

    if output.trajectory is None:
        return None
    try:
        kept = output.trajectory.pixels()
    except ImageError:
        return None
    return torch.from_numpy(kept.astype(np.float32)) if kept.shape == shape else None


def _with_adapters(denoiser: Any, path: str, adapter: str | None, lora: Mapping[str, Any] | None) -> Any:
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model

    if adapter:
        return PeftModel.from_pretrained(denoiser, adapter, is_trainable=True)
    given = {"r": 16, "alpha": 32, "target_modules": ATTENTION, **(lora or {})}
    config = LoraConfig(r=given["r"], lora_alpha=given["alpha"], target_modules=list(given["target_modules"]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the same start in every process and run
        found = get_peft_model(denoiser, config)
    config.base_model_name_or_path = found.peft_config["default"].base_model_name_or_path = path
    return found
