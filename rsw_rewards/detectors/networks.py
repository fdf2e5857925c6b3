"""Somebody else's torch network as a detector: TorchScript, or a state dictionary for a network that a name makes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsw_rewards.detectors.base import LEVELS
from rsw_rewards.errors import ConfigError
from rsw_rewards.extras import need

Network = Callable[[Any, Any], Any]


def is_network(found: Any) -> bool:
    """Whether an object is a ``torch.nn.Module``."""
    need("a network as a detector", "torch")
    import torch

    return isinstance(found, torch.nn.Module)


class NetworkDetector:
    """A torch network behind the interface of detectors, in evaluation mode and float32.

    It is called as ``network(before, after)`` with two (16, c, h, w) float32 tensors, uint8 divided by 255 and other types as
    they are stored, and answers with one of

    * (n, h, w) or (n, 1, h, w): the logit of change,
    * (n, 2, h, w): logits of "unchanged" and "changed",
    * (n, 5, h, w): logits of the five levels of damage, for :meth:`predict_levels`;

    or, with ``#output=probabilities``, the probabilities. What needs other inputs (means and deviations of its training data,
    six channels at once) is wrapped in a module that makes them.
    """

    def __init__(self, network: Network, device: str, name: str, sha256: str, output: str = "logits") -> None:
        self.network = network
        self.device = device
        self.name = name
        self.weights_sha256 = sha256
        self.output = output

    @classmethod
    def from_torchscript(cls, path: Path, device: str, name: str, output: str = "logits") -> NetworkDetector:
        """A TorchScript file. Raises :class:`ConfigError` for anything else.

        ``torch.export`` archives are refused: torch reads some of their weights with an unrestricted unpickler.
        """
        need(f"the detector {name!r}", "torch")
        import torch

        if not path.is_file():
            raise ConfigError(f"the detector {name!r} has no TorchScript file at {path}")
        if path.suffix == ".pt2":
            raise ConfigError(
                f"{path} is a torch.export archive, which may hold pickles; save the state dictionary and name the network, "
                f"as in nets.py:make#weights=net.safetensors, or save it with torch.jit.trace(...).save(...)"
            )
        try:
            network = torch.jit.load(str(path), map_location=device).eval()
        except (RuntimeError, ValueError, OSError) as error:
            first_line = str(error).strip().partition("\n")[0]
            raise ConfigError(f"{path} cannot be read as TorchScript: {first_line}") from None
        return cls(network, device, name, hashlib.sha256(path.read_bytes()).hexdigest(), output)

    @classmethod
    def from_state(cls, network: Any, path: Path, device: str, name: str, output: str = "logits") -> NetworkDetector:
        """A ``torch.nn.Module`` and the safetensors or PyTorch file of its state dictionary, read without unpickling.

        Raises:
            ConfigError: the file is missing, holds anything but named tensors, or does not fit the network.
        """
        from rsw_rewards.encoders.base import load_exactly, read_state, state_hash

        state = read_state(path, f"the detector {name!r}")
        load_exactly(network, state, f"the detector {name!r}")
        return cls(network.float().to(device).eval().requires_grad_(False), device, name, state_hash(state), output)

    def predict(
        self, before: NDArray[Any], after: NDArray[Any], valid: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float32]:
        """See :class:`rsw_rewards.detectors.Detector`."""
        answer = self._answer(before, after)
        if answer.ndim == 3:
            answer = answer[:, None]
        if answer.shape[1] not in (1, 2):
            raise ValueError(f"the detector {self.name!r} answers with {answer.shape[1]} channels; change has 1 or 2")
        probability = answer if self.output == "probabilities" else _probability(answer, self.name)
        said: NDArray[np.float32] = probability[:, -1].cpu().numpy()
        return said

    def predict_levels(
        self, before: NDArray[Any], after: NDArray[Any], valid: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float32]:
        """See :class:`rsw_rewards.detectors.DamageDetector`."""
        answer = self._answer(before, after)
        if answer.ndim != 4 or answer.shape[1] != LEVELS:
            raise ValueError(
                f"the detector {self.name!r} answers with shape {tuple(answer.shape)}; damage is (n, {LEVELS}, h, w)"
            )
        probability = answer if self.output == "probabilities" else answer.softmax(1)
        said: NDArray[np.float32] = probability.permute(0, 2, 3, 1).cpu().numpy()
        return said

    def _answer(self, before: NDArray[Any], after: NDArray[Any]) -> Any:
        import torch

        with torch.inference_mode():
            answer = self.network(self._tensor(before), self._tensor(after))
        if not isinstance(answer, torch.Tensor) or answer.ndim not in (3, 4):
            raise ValueError(f"the detector {self.name!r} must answer with one tensor (n, k, h, w) or (n, h, w)")
        return answer.float()

    def _tensor(self, pictures: NDArray[Any]) -> Any:
        import torch

        scale = 255.0 if pictures.dtype == np.uint8 else 1.0
        values = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2), dtype=np.float32))
        return (values / scale).to(self.device)


def _probability(logits: Any, name: str) -> Any:
    """(n, 1 or 2, h, w) logits as probabilities. Raises ``ValueError`` for numbers that look like probabilities already."""
    if float(logits.min()) >= 0.0 and float(logits.max()) <= 1.0:
        raise ValueError(
            f"the detector {name!r} answers with numbers in [0, 1] only, which are hardly logits; "
            f"add #output=probabilities to its name if they are probabilities"
        )
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)
