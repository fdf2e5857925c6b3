"""What every encoder is, and what the built-in ones share: the interface, repeatable sums, and weights read without unpickling."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import pickle
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from rsw_rewards.core.plugins import raised
from rsw_rewards.encoders.names import bands_of, encoder_label
from rsw_rewards.errors import ConfigError
from rsw_rewards.extras import has, need

if TYPE_CHECKING:
    import torch


@runtime_checkable
class Encoder(Protocol):
    """A frozen feature extractor.

    The feature of an image may depend on nothing but the image: implementations run their network on exactly
    ``micro_batch`` images, the missing ones made up, inside :func:`repeatable`.

    An encoder may also say how it looks at an image, in the attributes ``input_size`` (pixels on a side) and ``resize`` (in
    words), which :func:`describe` shows.

    >>> class MeanColour:
    ...     name, weights_sha256, dim, id = "mean-colour", "0" * 64, 3, "mean-colour@1"
    ...
    ...     def encode_images(self, images, micro_batch):
    ...         return np.stack([image.mean(axis=(0, 1)) for image in images]).astype(np.float32)
    ...
    ...     def encode_texts(self, texts, micro_batch):
    ...         raise rsw.ConfigError("mean-colour reads no text")
    >>> isinstance(MeanColour(), rsw.Encoder)
    True
    """

    name: str
    weights_sha256: str
    """Hash (hex) of the weights, whatever file they came from."""
    dim: int

    @property
    def id(self) -> str:
        """A name that changes with the weights and with how images are prepared: what stored features are kept under."""
        ...

    def encode_images(self, images: Sequence[np.ndarray], micro_batch: int) -> np.ndarray:
        """At most ``micro_batch`` (H, W, 3) uint8 images -> (n, d) float32, not normalised."""
        ...

    def encode_texts(self, texts: Sequence[str], micro_batch: int) -> np.ndarray:
        """At most ``micro_batch`` texts -> (n, d) float32, not normalised. Raises ``ConfigError`` without a text tower."""
        ...


def describe(encoder: Encoder) -> dict[str, Any]:
    """How an encoder looks at images, as JSON: id, weights, dim, input size, resize rule, and the bands that it reads."""
    bands = bands_of(encoder.name)
    return {
        "id": encoder.id,
        "weights_sha256": encoder.weights_sha256,
        "dim": encoder.dim,
        "input_size": getattr(encoder, "input_size", None),
        "resize": getattr(encoder, "resize", "as its author's code does"),
        "bands": "red, green, blue" if bands is None else list(bands),
    }


class BuiltIn:
    """Base of the encoders that come with the package."""

    name: str
    weights_sha256: str
    dim: int
    input_size: int
    """Pixels on a side of what the network sees."""
    resize: str
    """How an image gets there, in words."""
    network: str = ""
    """What tells two networks with the same weights apart, such as their activation."""

    def __init__(self, model: Any, device: str, name: str) -> None:
        self.model = model.eval().requires_grad_(False).to(device)
        self.device = device
        self.name = name
        self.weights_sha256 = state_hash(model.state_dict())

    @property
    def id(self) -> str:
        """Label and hash. The same weights under another path are the same encoder; with another resize they are not."""
        made_of = [self.weights_sha256, self.input_size, self.resize, self.network, bands_of(self.name)]
        return f"{encoder_label(self.name)}@{hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:12]}"

    def prepared(self, images: Sequence[np.ndarray]) -> Any:
        """(n, 3, h, w) of images, as the network takes them."""
        raise NotImplementedError

    def features(self, pixels: Any) -> Any:
        """(n, d) of what :meth:`prepared` gives, on the network's device."""
        return self.model(pixels)

    def encode_images(self, images: Sequence[np.ndarray], micro_batch: int) -> np.ndarray:
        """See :class:`Encoder`."""
        check_images(images)
        with repeatable(self.device):
            features = self.features(padded(self.prepared(images), micro_batch).to(self.device))
        return features[: len(images)].float().cpu().numpy()

    def encode_texts(self, texts: Sequence[str], micro_batch: int) -> np.ndarray:
        """Without a text tower. Raises :class:`ConfigError`."""
        raise ConfigError(f"the encoder {self.name!r} reads no text; use an open_clip model")


@contextmanager
def repeatable(device: str) -> Iterator[None]:
    """One thread, no autocast and no TF32 for what runs inside: equal inputs give equal features in every process.

    How a sum is split over threads changes its last digits, and a trainer may have switched on lower precision.
    Without torch there is nothing to hold still.
    """
    if not has("torch"):
        yield
        return
    import torch

    threads = torch.get_num_threads()
    tf32 = torch.backends.cuda.matmul.allow_tf32
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        stack.enter_context(torch.autocast(torch.device(device).type, enabled=False))
        if torch.device(device).type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = False
            stack.callback(setattr, torch.backends.cuda.matmul, "allow_tf32", tf32)
            stack.enter_context(torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False))
        torch.set_num_threads(1)
        stack.callback(torch.set_num_threads, threads)
        yield


@contextmanager
def loading(name: str) -> Iterator[None]:
    """Turns what loading an encoder raises into a sentence that names it. Raises :class:`ConfigError`."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # whatever a foreign file makes a loader raise, the user must mend the file
        raise ConfigError(f"the encoder {name!r} cannot be loaded: {raised(error)}") from error


def in_package(package: str, place: str) -> Path | None:
    """A file or folder of an installed package, found without importing it; None where it is absent."""
    spec = importlib.util.find_spec(package)
    folders = (spec.submodule_search_locations or ()) if spec is not None else ()
    return next((path for folder in folders if (path := Path(folder) / place).exists()), None)


def state_hash(state: dict[str, torch.Tensor]) -> str:
    """SHA-256 of names, shapes and values of a state dictionary, independent of the file format it came in."""
    import torch

    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key].detach().cpu().contiguous()
        digest.update(f"{key}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def padded(batch: torch.Tensor, micro_batch: int) -> torch.Tensor:
    """``batch`` filled up with zeros to ``micro_batch`` rows."""
    if len(batch) > micro_batch:
        raise ValueError(f"{len(batch)} items for a micro-batch of {micro_batch}")
    whole = batch.new_zeros((micro_batch, *batch.shape[1:]))
    whole[: len(batch)] = batch
    return whole


def read_state(path: Path, what: str) -> dict[str, torch.Tensor]:
    """The state dictionary in a safetensors or PyTorch file; one that lies under ``state_dict`` or ``model`` is taken out, and
    the prefix ``module.`` of distributed training off.

    Raises:
        ConfigError: the file is missing, or holds anything but named tensors. Nothing in it is executed.
    """
    need(what, "torch")
    import torch

    state: Any
    if not path.is_file():
        raise ConfigError(f"{what} has no weights at {path}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ConfigError(
            f"{path}, the weights of {what}, cannot be read: it is damaged, or holds pickled objects, which are never loaded; save the"
            " network's state_dict()"
        ) from None
    except Exception as error:  # whatever a foreign file makes a loader raise, the user must mend the file
        raise ConfigError(f"{path}, the weights of {what}, cannot be read: {raised(error)}") from None
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ConfigError(f"{path}, the weights of {what}, holds something other than named tensors")
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def load_exactly(network: torch.nn.Module, state: dict[str, torch.Tensor], what: str) -> None:
    """Load a state dictionary that must fit. Raises :class:`ConfigError` naming what is missing, left over or of another shape."""
    own = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    missing = sorted(own.keys() - state.keys())
    extra = sorted(state.keys() - own.keys())
    shapes = sorted(key for key in own.keys() & state.keys() if tuple(state[key].shape) != own[key])
    for problem, keys in (("lacks", missing), ("also holds", extra), ("has another shape at", shapes)):
        if keys:
            raise ConfigError(
                f"the weights do not fit {what}: the file {problem} {', '.join(keys[:3])} ({len(keys)} in all)"
            )
    network.load_state_dict(state)


def check_images(images: Sequence[np.ndarray]) -> None:
    """Raise ``ValueError`` for what no encoder reads: anything but (H, W, 3) uint8."""
    for image in images:
        if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
            raise ValueError(f"an image of shape {image.shape} and type {image.dtype}; encoders read (H, W, 3) uint8")
