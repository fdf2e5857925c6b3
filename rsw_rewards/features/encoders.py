"""LoadedEncoders: the encoders of a run by name."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rsw_rewards.encoders import Encoder


class LoadedEncoders(dict[str, "Encoder"]):
    """Encoders by name, each loaded once, when it is first asked for.

    Asking raises ``ConfigError`` where the weights cannot be had.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self._lock = threading.Lock()

    def __missing__(self, name: str) -> Encoder:
        from rsw_rewards.encoders import load_encoder

        with self._lock:
            if name not in self:
                self[name] = load_encoder(name, self.device)
            return super().__getitem__(name)
