"""Encoders: images (and texts) to feature vectors, behind one interface, by name, path or ``module:object``.

Nothing is downloaded unless a name asks for it by an open_clip tag, and no weights file is ever unpickled.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from rsw_rewards.contracts import resolve_object
from rsw_rewards.errors import ConfigError

if TYPE_CHECKING:
    import torch

SCENE_CLIP = "scene-clip"
INCEPTION = "clean-fid-inception"
INCEPTION_FILE = "inception-2015-12-05.pt"
INCEPTION_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
"""The one file whose distances may be called ``fid``."""
INCEPTION_VARIABLE = "RSW_INCEPTION"
"""Environment variable that holds the path of :data:`INCEPTION_FILE` (or of its folder) where the name gives none."""
SCENE_CLIP_FOLDER = Path(__file__).parent / "assets" / "clip"

NAMES_HELP = (
    f"write {SCENE_CLIP}, open_clip:<model>:<weights file or pretrained tag>, open_clip:local-dir:<folder>, "
    f"{INCEPTION}[:<file>], pkg.mod:object or file.py:object"
)


@runtime_checkable
class Encoder(Protocol):
    """A frozen feature extractor.

    The feature of an image may depend on nothing but the image: implementations run their network on exactly
    ``micro_batch`` images, the missing ones made up, inside :func:`repeatable`.
    """

    name: str
    weights_sha256: str
    """Hash (hex) of the weights, whatever file they came from."""
    dim: int

    @property
    def id(self) -> str:
        """Name and the first digits of the weights' hash: what stored features are kept under."""
        ...

    def encode_images(self, images: Sequence[np.ndarray], micro_batch: int) -> np.ndarray:
        """At most ``micro_batch`` (H, W, 3) uint8 images -> (n, d) float32, not normalised."""
        ...

    def encode_texts(self, texts: Sequence[str], micro_batch: int) -> np.ndarray:
        """At most ``micro_batch`` texts -> (n, d) float32, not normalised. Raises ``ConfigError`` without a text tower."""
        ...


def encoder_label(name: str) -> str:
    """A short form of an encoder's name for metric keys, such as ``fd_<label>``; needs no weights.

    ``open_clip:ViT-B-32:/w/RemoteCLIP.pt`` gives ``ViT-B-32-RemoteCLIP``, ``rewards.py:my_encoder`` gives ``my_encoder``.
    """
    kind, _, rest = name.partition(":")
    if kind == "open_clip":
        model, _, weights = rest.partition(":")
        label = Path(weights).name if model == "local-dir" else f"{model}-{_stem(weights)}"
    elif kind in (SCENE_CLIP, INCEPTION):
        label = kind
    else:
        label = name.rpartition(":")[2]
    return re.sub(r"[^\w.-]+", "-", label).strip("-")


def is_pretrained_clip(name: str) -> bool:
    """Whether the name means an open_clip model with published weights (a tag), so that ``clip_score`` is the known number."""
    kind, _, rest = name.partition(":")
    model, _, weights = rest.partition(":")
    return kind == "open_clip" and model != "local-dir" and bool(weights) and not _is_path(weights)


def is_standard_inception(name: str) -> bool:
    """Whether the name means clean-fid's Inception, the only encoder whose Frechet distance is called ``fid``."""
    return name.partition(":")[0] == INCEPTION


def _is_path(weights: str) -> bool:
    return any(mark in weights for mark in "/\\") or Path(weights).suffix in {".safetensors", ".pt", ".pth", ".bin"}


def _stem(weights: str) -> str:
    return Path(weights).stem if _is_path(weights) else weights


def load_encoder(name: str, device: str) -> Encoder:
    """The encoder of that name, its weights loaded onto ``device``.

    Raises:
        ConfigError: an unknown name, or weights that are not there, with what to put where.
    """
    kind, _, rest = name.partition(":")
    if name == SCENE_CLIP:
        return OpenClipEncoder.from_folder(SCENE_CLIP_FOLDER, device, name)
    if kind == "open_clip":
        model, _, weights = rest.partition(":")
        if not model or not weights:
            raise ConfigError(f"the encoder {name!r} is incomplete; {NAMES_HELP}")
        if model == "local-dir":
            return OpenClipEncoder.from_folder(Path(weights).expanduser(), device, name)
        return OpenClipEncoder.from_weights(model, weights, device, name)
    if kind == INCEPTION:
        return InceptionEncoder.from_file(rest or os.environ.get(INCEPTION_VARIABLE, ""), device)
    if ":" in name:
        return _user_encoder(name, device)
    raise ConfigError(f"no encoder is named {name!r}; {NAMES_HELP}")


def _user_encoder(name: str, device: str) -> Encoder:
    found = resolve_object(name, "encoder")
    try:
        made = found if hasattr(found, "encode_images") and not isinstance(found, type) else found(device)
    except Exception as error:  # a user's own code may raise anything
        raise ConfigError(f"{name!r} cannot be made for {device!r}: {type(error).__name__}: {error}") from error
    if not isinstance(made, Encoder):
        wanted = ("name", "weights_sha256", "dim", "id", "encode_images", "encode_texts")
        lacks = [part for part in wanted if not hasattr(made, part)]
        raise ConfigError(f"{name!r} is not an encoder: it lacks {', '.join(lacks)} (see rsw_rewards.encoders.Encoder)")
    return made


@contextmanager
def repeatable(device: str) -> Iterator[None]:
    """One thread, no autocast and no TF32 for what runs inside: equal inputs give equal features in every process.

    How a sum is split over threads changes its last digits, and a trainer may have switched on lower precision.
    """
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


def _state_hash(state: dict[str, torch.Tensor]) -> str:
    """SHA-256 of names, shapes and values of a state dictionary, independent of the file format it came in."""
    import torch

    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key].detach().cpu().contiguous()
        digest.update(f"{key}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _padded(batch: torch.Tensor, micro_batch: int) -> torch.Tensor:
    """``batch`` filled up with zeros to ``micro_batch`` rows."""
    if len(batch) > micro_batch:
        raise ValueError(f"{len(batch)} items for a micro-batch of {micro_batch}")
    return batch.new_zeros((micro_batch, *batch.shape[1:])).index_copy_(0, _rows(batch), batch)


def _rows(batch: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.arange(len(batch), device=batch.device)


class OpenClipEncoder:
    """A CLIP model of the open_clip library, with the library's own preprocessing and tokenizer."""

    def __init__(self, model: Any, preprocess: Any, tokenizer: Any, device: str, name: str) -> None:
        self.model = model.eval().requires_grad_(False)
        self.preprocess = preprocess
        self.tokenizer = tokenizer
        self.device = device
        self.name = name
        self.weights_sha256 = _state_hash(model.state_dict())
        self.dim = int(self.encode_images([np.zeros((8, 8, 3), np.uint8)], 1).shape[1])

    @property
    def id(self) -> str:
        """Short name and hash: the same weights under another path are the same encoder."""
        return f"{encoder_label(self.name)}@{self.weights_sha256[:12]}"

    @classmethod
    def from_folder(cls, folder: Path, device: str, name: str) -> OpenClipEncoder:
        """A model from a folder that holds ``open_clip_config.json`` and a safetensors file. Raises :class:`ConfigError`."""
        if not (folder / "open_clip_config.json").is_file() or not list(folder.glob("*.safetensors")):
            raise ConfigError(
                f"the encoder {name!r} has no weights: put open_clip_config.json and open_clip_model.safetensors into {folder}"
            )
        return cls._create(f"local-dir:{folder}", None, device, name)

    @classmethod
    def from_weights(cls, model: str, weights: str, device: str, name: str) -> OpenClipEncoder:
        """A model open_clip knows, with weights from a file or by pretrained tag. Raises :class:`ConfigError`."""
        import open_clip

        if model not in open_clip.list_models():
            raise ConfigError(
                f"open_clip has no model {model!r} (in the encoder {name!r}); see open_clip.list_models()"
            )
        if _is_path(weights):
            weights = str(Path(weights).expanduser())
            if not Path(weights).is_file():
                raise ConfigError(
                    f"the encoder {name!r} has no weights: put the {model} weights (safetensors) at {weights}"
                )
        elif weights not in open_clip.list_pretrained_tags_by_model(model):
            tags = ", ".join(open_clip.list_pretrained_tags_by_model(model))
            raise ConfigError(
                f"{model} has no pretrained tag {weights!r} and there is no such file; its tags are {tags}"
            )
        return cls._create(model, weights, device, name)

    @classmethod
    def _create(cls, model: str, weights: str | None, device: str, name: str) -> OpenClipEncoder:
        import open_clip

        try:
            network, _, preprocess = open_clip.create_model_and_transforms(
                model, pretrained=weights, device=device, weights_only=True
            )
            return cls(network, preprocess, open_clip.get_tokenizer(model), device, name)
        except Exception as error:  # whatever a foreign file makes a loader raise, the user must mend the file
            first_line = str(error).strip().partition("\n")[0]
            raise ConfigError(f"the encoder {name!r} cannot be loaded: {type(error).__name__}: {first_line}") from error

    def encode_images(self, images: Sequence[np.ndarray], micro_batch: int) -> np.ndarray:
        """See :class:`Encoder`."""
        import torch
        from PIL import Image

        with repeatable(self.device):
            batch = torch.stack([self.preprocess(Image.fromarray(image)) for image in images])
            features = self.model.encode_image(_padded(batch, micro_batch).to(self.device))
        return features[: len(images)].float().cpu().numpy()

    def encode_texts(self, texts: Sequence[str], micro_batch: int) -> np.ndarray:
        """See :class:`Encoder`."""
        with repeatable(self.device):
            tokens = self.tokenizer([*texts, *[""] * (micro_batch - len(texts))])
            features = self.model.encode_text(tokens.to(self.device))
        return features[: len(texts)].float().cpu().numpy()

    def truncates(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text has more tokens than the model reads (77 for most): the rest would be ignored silently."""
        length = self.tokenizer.context_length
        padding = getattr(getattr(self.tokenizer, "tokenizer", None), "pad_token_id", None) or 0
        tokens = self.tokenizer(list(texts), context_length=length + 1)
        return [bool(last) for last in (tokens[:, length] != padding).tolist()]


def clean_resize(image: np.ndarray, side: int = 299) -> np.ndarray:
    """clean-fid's resize: each channel as float32 by Pillow's antialiased bicubic filter, clipped, not rounded.

    (H, W, 3) uint8 -> (side, side, 3) float32 in [0, 255]. Parmar, Zhang and Zhu 2022.
    """
    from PIL import Image

    channels = [
        np.asarray(Image.fromarray(image[..., band].astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC))
        for band in range(3)
    ]
    return np.stack(channels, axis=-1).clip(0.0, 255.0).astype(np.float32)


class InceptionEncoder:
    """The Inception network of 2015 as clean-fid uses it: the encoder of the published FID. (n, 2048) features."""

    name = INCEPTION
    dim = 2048

    def __init__(self, network: Any, weights_sha256: str, device: str) -> None:
        self.network = network
        self.weights_sha256 = weights_sha256
        self.device = device

    @property
    def id(self) -> str:
        """Name and hash of the TorchScript file."""
        return f"{self.name}@{self.weights_sha256[:12]}"

    @classmethod
    def from_file(cls, path: str, device: str) -> InceptionEncoder:
        """Load the TorchScript file. Raises :class:`ConfigError` when it is not there or is another file."""
        import torch

        file = Path(path).expanduser() if path else Path(INCEPTION_FILE)
        file = file / INCEPTION_FILE if file.is_dir() else file
        if not file.is_file():
            raise ConfigError(
                f"the encoder {INCEPTION!r} has no weights at {file}: fetch {INCEPTION_FILE} (the TorchScript file that clean-fid "
                f"downloads) and name it as {INCEPTION}:<path> or in the environment variable {INCEPTION_VARIABLE}"
            )
        digest = hashlib.sha256()
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        if digest.hexdigest() != INCEPTION_SHA256:
            raise ConfigError(
                f"{file} is not the {INCEPTION_FILE} that published FIDs use: its SHA-256 is {digest.hexdigest()[:12]}..., "
                f"not {INCEPTION_SHA256[:12]}...; fetch it again, or name your own network as an encoder pkg.mod:object"
            )
        network = torch.jit.load(str(file), map_location=device).eval()
        return cls(network.layers, digest.hexdigest(), device)

    def encode_images(self, images: Sequence[np.ndarray], micro_batch: int) -> np.ndarray:
        """See :class:`Encoder`. Pixels enter as ``(x - 128) / 128`` at 299 x 299."""
        import torch

        with repeatable(self.device), torch.jit.optimized_execution(False):
            batch = torch.from_numpy(np.stack([clean_resize(image) for image in images])).permute(0, 3, 1, 2)
            pixels = _padded(batch.contiguous(), micro_batch).to(self.device)
            features = self.network.forward((pixels - 128.0) / 128.0).reshape(micro_batch, self.dim)
        return features[: len(images)].float().cpu().numpy()

    def encode_texts(self, texts: Sequence[str], micro_batch: int) -> np.ndarray:
        """Inception reads no text. Raises :class:`ConfigError`."""
        raise ConfigError(f"the encoder {self.name!r} reads no text; use an open_clip model")
