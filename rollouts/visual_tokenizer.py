"""A small vector-quantising image tokenizer: pictures to a grid of codes and back.

Forecasts are decoded as a residual on the picture that the model was shown,
``before + decode(codes) - decode(codes of before)``: a code that is copied keeps the pixels of the input exactly, so that
the tokenizer's own reconstruction error never counts as change.

Inference runs in micro-batches of one fixed, padded size, so that a result does not depend on what else is in the batch.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from rsw_rewards.core.files import write_text

MICRO_BATCH = 16
_PATCH = 4  # pixels folded into channels before the first convolution


@dataclass(frozen=True)
class VisualTokenizerConfig:
    """Shape of the tokenizer.

    Attributes:
        codes: size of the codebook.
        dim: length of a code vector.
        width: channels of the first stage; the second has twice as many.
        materials: classes of the auxiliary land-cover head used in training (0: none).
    """

    codes: int = 256
    dim: int = 16
    width: int = 64
    materials: int = 7


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.spatial = nn.Conv2d(channels, channels, 3, padding=1)
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(F.gelu(self.spatial(self.norm(x))))


def to_tensor(images: NDArray[np.uint8]) -> Tensor:
    """(n, h, w, 3) uint8 -> (n, 3, h, w) float32 in [-0.5, 0.5]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255 - 0.5


class PictureCodec(ABC):
    """What turns pictures into a grid of codes and back."""

    codebook: Tensor
    """(codes, length of a code vector) float32."""
    stride: int
    """Pixels on a side of the square that one code stands for."""

    @property
    def codes(self) -> int:
        """Size of the codebook."""
        return len(self.codebook)

    @abstractmethod
    def coded(self, x: Tensor) -> Tensor:
        """Codes, row by row and picture by picture, of (n, 3, h, w) float32 pictures in [-0.5, 0.5]."""

    @abstractmethod
    def drawn(self, vectors: Tensor) -> Tensor:
        """(n, 3, h, w) pictures, around 0, of (n, length of a code vector, rows, columns)."""

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of codes of a picture. Raises ValueError for sides that are no multiples of :attr:`stride`."""
        if height % self.stride or width % self.stride:
            raise ValueError(f"picture sides must be multiples of {self.stride}, got {height} x {width}")
        return height // self.stride, width // self.stride

    @torch.no_grad()
    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Codes of pictures.

        Args:
            images: (n, h, w, 3) uint8 RGB, sides multiples of :attr:`stride`.

        Returns:
            (n, rows * columns) int64 codes in [0, codes), row by row.
        """
        rows, columns = self.grid(*images.shape[1:3])
        out = np.empty((len(images), rows * columns), np.int64)
        for start in range(0, len(images), MICRO_BATCH):
            part = images[start : start + MICRO_BATCH]
            found = self.coded(to_tensor(padded(part)).to(self.codebook.device))
            out[start : start + len(part)] = found.view(MICRO_BATCH, -1)[: len(part)].cpu().numpy()
        return out

    @torch.no_grad()
    def decode(self, codes: NDArray[np.int64], grid: tuple[int, int] | None = None) -> NDArray[np.float32]:
        """Pictures of codes.

        Args:
            codes: (n, rows * columns) integers in [0, codes).
            grid: rows and columns; a square grid where left out.

        Returns:
            (n, h, w, 3) float32, about [0, 1] but not clipped.

        Raises:
            ValueError: codes outside the codebook, or not a full grid.
        """
        codes = np.asarray(codes, np.int64)
        side = round(codes.shape[1] ** 0.5)
        rows, columns = grid or (side, side)
        if rows * columns != codes.shape[1]:
            raise ValueError(f"{codes.shape[1]} codes do not fill a grid of {rows} x {columns}")
        if codes.size and (codes.min() < 0 or codes.max() >= self.codes):
            raise ValueError(f"codes must lie in [0, {self.codes})")
        out = np.empty((len(codes), rows * self.stride, columns * self.stride, 3), np.float32)
        for start in range(0, len(codes), MICRO_BATCH):
            part = codes[start : start + MICRO_BATCH]
            index = torch.from_numpy(padded(part)).to(self.codebook.device)
            vectors = self.codebook[index].view(MICRO_BATCH, rows, columns, -1).permute(0, 3, 1, 2).contiguous()
            pictures = self.drawn(vectors).permute(0, 2, 3, 1) + 0.5
            out[start : start + len(part)] = pictures[: len(part)].cpu().numpy()
        return out

    def decode_forecast(self, before: NDArray[np.uint8], codes: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Forecast pictures from their codes and the pictures they continue.

        Args:
            before: (n, h, w, 3) uint8 RGB, what the model was shown last.
            codes: (n, rows * columns) codes of the forecast.

        Returns:
            (n, h, w, 3) uint8 RGB. Equal codes give ``before`` back, bit for bit.
        """
        grid = self.grid(*before.shape[1:3])
        change = self.decode(codes, grid) - self.decode(self.encode(before), grid)
        return np.clip(before.astype(np.float32) + 255 * change + 0.5, 0, 255).astype(np.uint8)


class VisualTokenizer(nn.Module, PictureCodec):
    """Encoder, codebook and decoder. One code stands for 8 x 8 pixels, so 64 x 64 pixels are 8 x 8 codes."""

    stride = 8

    def __init__(self, config: VisualTokenizerConfig | None = None) -> None:
        super().__init__()
        self.config = config or VisualTokenizerConfig()
        width, dim = self.config.width, self.config.dim
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(_PATCH),
            nn.Conv2d(3 * _PATCH**2, width, 3, padding=1),
            _Residual(width),
            nn.Conv2d(width, 2 * width, 2, stride=2),
            _Residual(2 * width),
            nn.Conv2d(2 * width, dim, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(dim, 2 * width, 3, padding=1),
            _Residual(2 * width),
            _Residual(2 * width),
            nn.ConvTranspose2d(2 * width, width, 2, stride=2),
            _Residual(width),
            nn.Conv2d(width, (3 + self.config.materials) * _PATCH**2, 1),
        )
        self.register_buffer("codebook", torch.randn(self.config.codes, dim))

    # Pure parts, shared by training and inference

    def features(self, x: Tensor) -> Tensor:
        """(n, 3, h, w) in [-0.5, 0.5] -> (n, dim, h / 8, w / 8), before quantisation."""
        return self.encoder(x)

    def nearest(self, vectors: Tensor) -> Tensor:
        """Index of the nearest code of each of (m, dim) vectors, int64 (m,)."""
        distance = vectors.square().sum(1, keepdim=True) - 2 * vectors @ self.codebook.T
        return (distance + self.codebook.square().sum(1)).argmin(1)

    def render(self, quantised: Tensor) -> tuple[Tensor, Tensor]:
        """(n, dim, g, g) -> pictures (n, 3, 8g, 8g) around 0 and land-cover logits (n, materials, 8g, 8g)."""
        pixels = F.pixel_shuffle(self.decoder(quantised), _PATCH)
        return pixels[:, :3], pixels[:, 3:]

    # Inference

    def coded(self, x: Tensor) -> Tensor:
        return self.nearest(self.features(x).permute(0, 2, 3, 1).reshape(-1, self.config.dim))

    def drawn(self, vectors: Tensor) -> Tensor:
        return self.render(vectors)[0]

    # Files

    def save(self, folder: Path | str, dtype: torch.dtype = torch.float16) -> None:
        """Writes ``config.json`` and ``model.safetensors`` (weights in ``dtype``) into a folder."""
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "config.json", json.dumps(asdict(self.config), indent=2) + "\n")
        state = {name: value.detach().to("cpu", dtype).contiguous() for name, value in self.state_dict().items()}
        save_file(state, folder / "model.safetensors")

    @classmethod
    def load(cls, folder: Path | str, device: str | torch.device = "cpu") -> VisualTokenizer:
        """Reads what ``save`` wrote; always float32 in memory, in evaluation mode.

        Raises:
            FileNotFoundError: a file is missing.
        """
        from safetensors.torch import load_file

        folder = Path(folder)
        config = VisualTokenizerConfig(**json.loads((folder / "config.json").read_text(encoding="utf-8")))
        tokenizer = cls(config)
        tokenizer.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
        return tokenizer.to(device).eval()


def padded(part: NDArray) -> NDArray:
    """Repeats the last row until the micro-batch is full."""
    missing = MICRO_BATCH - len(part)
    return part if not missing else np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
