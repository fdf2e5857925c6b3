"""Trains the visual tokenizer on scene-world pictures: a plain autoencoder first, then a codebook kept by moving averages."""

from __future__ import annotations

import json
import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import PositiveInt
from torch import Tensor

from rsw_rewards.core.files import write_text
from rsw_rewards.rollouts.visual_tokenizer import VisualTokenizer, VisualTokenizerConfig, to_tensor
from rsw_rewards.training.small import SmallConfig, make_pairs, steps, update


class TokenizerConfig(SmallConfig):
    """Configuration of ``method: tokenizer``."""

    method: Literal["tokenizer"] = "tokenizer"
    scenes: PositiveInt = 8000
    held_out: PositiveInt = 400
    steps: PositiveInt = 2500
    batch: PositiveInt = 48
    learning_rate: float = 2e-3
    codes: PositiveInt = 256
    continuous_share: float = 0.15
    """Share of the steps before the codebook is put in, initialised by k-means."""
    cover_weight: float = 0.15
    """Weight of the land-cover loss, which makes codes carry what is on the ground."""


class _CodebookAverages:
    """Moving averages of how many and which vectors fall to each code (van den Oord et al. 2017, appendix A.1)."""

    decay = 0.97
    dead = 0.03  # a code that holds less than this many vectors a batch is put where a vector is

    def __init__(self, model: VisualTokenizer, vectors: Tensor, generator: torch.Generator) -> None:
        self.model, self.generator = model, generator
        codes = model.config.codes
        book = vectors[torch.randperm(len(vectors), generator=generator)[:codes]].clone()
        for _ in range(15):
            model.codebook.copy_(book)
            count, total = self._assigned(vectors, model.nearest(vectors))
            spare = vectors[torch.randint(len(vectors), (codes,), generator=generator)]
            book = torch.where(count[:, None] > 0, total / count.clamp(min=1)[:, None], spare)
        model.codebook.copy_(book)
        self.count = torch.full((codes,), len(vectors) / codes / 4)
        self.total = book * self.count[:, None]

    def _assigned(self, vectors: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        book = self.model.codebook
        count = torch.bincount(index, minlength=len(book)).float()
        return count, torch.zeros_like(book).index_add_(0, index, vectors)

    def update(self, vectors: Tensor, index: Tensor) -> None:
        count, total = self._assigned(vectors, index)
        self.count.mul_(self.decay).add_(count, alpha=1 - self.decay)
        self.total.mul_(self.decay).add_(total, alpha=1 - self.decay)
        gone = self.count < self.dead
        if gone.any():
            fresh = vectors[torch.randint(len(vectors), (int(gone.sum()),), generator=self.generator)]
            self.total[gone], self.count[gone] = fresh, 1.0
        self.model.codebook.copy_(self.total / self.count.clamp(min=1e-4)[:, None])


def gain_over_copy(forecast: NDArray[np.uint8], before: NDArray[np.uint8], future: NDArray[np.uint8]) -> float:
    """``1 - sum d(forecast, future) / sum d(before, future)`` with d the mean squared error of pixels in [0, 1]: 1 perfect, 0 like
    copying the input, below 0 worse.

    Args:
        forecast, before, future: (n, h, w, 3) uint8.
    """

    def error(images: NDArray[np.uint8]) -> float:
        return float(np.square((images.astype(np.float64) - future) / 255).mean((1, 2, 3)).sum())

    return 1 - error(forecast) / error(before)


def ceiling(model: VisualTokenizer, n: int, seed: int = 0) -> dict[str, float]:
    """What a forecaster that knew the true codes would reach on ``n`` unseen scenes, over those with change and over all."""
    pairs = make_pairs("dev", n, seed)
    made = model.decode_forecast(pairs.before, model.encode(pairs.after))
    changed = np.array([scene.changed for scene in pairs.scenes])
    return {
        "gain_over_copy_changed": gain_over_copy(made[changed], pairs.before[changed], pairs.after[changed]),
        "gain_over_copy": gain_over_copy(made, pairs.before, pairs.after),
        "codes_used": float(len(np.unique(model.encode(pairs.after)))),
    }


def train(config: TokenizerConfig) -> None:
    """Trains and writes ``config.out`` (weights, config, ``metrics.json``). Deterministic for a number of threads."""
    torch.manual_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    pairs = make_pairs("tokenizer", config.scenes, config.seed)
    images = np.concatenate([pairs.before, pairs.after])
    cover = np.concatenate([pairs.material_before, pairs.material_after])
    model = VisualTokenizer(VisualTokenizerConfig(codes=config.codes))
    optimiser = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=1e-4)
    quantise_from = round(config.continuous_share * config.steps)
    averages: _CodebookAverages | None = None
    dim = model.config.dim

    def rate(step: int) -> float:
        return min(1.0, (step + 1) / 30) * (1 - 0.95 * max(0.0, step / config.steps - 0.3) / 0.7)

    for step in steps(config, optimiser, rate):
        if step == quantise_from:
            with torch.no_grad():
                sample = model.features(to_tensor(images[:: max(1, len(images) // 400)]))
                averages = _CodebookAverages(model, sample.permute(0, 2, 3, 1).reshape(-1, dim), generator)
        rows = np.random.default_rng([config.seed, step]).integers(0, len(images), config.batch)
        x = to_tensor(images[rows])
        z = model.features(x)
        commitment = z.new_zeros(())
        if averages is not None:
            flat = z.detach().permute(0, 2, 3, 1).reshape(-1, dim)
            index = model.nearest(flat)
            q = model.codebook[index].view(len(x), *z.shape[2:], dim).permute(0, 3, 1, 2)
            averages.update(flat, index)
            commitment = F.mse_loss(z, q)
            z = z + (q - z).detach()  # straight-through: the decoder's gradient reaches the encoder
        picture, logits = model.render(z)
        truth = torch.from_numpy(cover[rows].astype(np.int64))
        squared = F.mse_loss(picture, x)
        loss = (
            20 * squared
            + (picture - x).abs().mean()
            + 0.25 * commitment
            + config.cover_weight * F.cross_entropy(logits, truth)
        )
        update(model, optimiser, loss)
        if (step + 1) % config.log_every == 0:
            print(
                f"step {step + 1}: loss {loss.item():.4f}, PSNR {-10 * math.log10(squared.item()):.2f} dB", flush=True
            )
    config.out.mkdir(parents=True, exist_ok=True)
    model.save(config.out)
    metrics = ceiling(VisualTokenizer.load(config.out), config.held_out)
    write_text(config.out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    print(f"tokenizer ceiling on unseen scenes: {metrics}", flush=True)
