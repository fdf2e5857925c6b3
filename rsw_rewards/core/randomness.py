"""The random states of a process, which belong to whoever asks for scores."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


@contextmanager
def same_randomness() -> Iterator[None]:
    """Restores the global generators of Python, NumPy and PyTorch afterwards.

    A network draws weights before it loads its own. A training that is resumed loads it at another step, and would
    shuffle otherwise from there on.

    >>> before = np.random.get_state()[1].tolist()
    >>> with same_randomness():
    ...     _ = np.random.rand()
    >>> np.random.get_state()[1].tolist() == before
    True
    """
    torch: Any = sys.modules.get("torch")  # where nobody has loaded it, nobody relies on its generators
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  (what others draw from)
    of_torch = None if torch is None else torch.get_rng_state()
    of_cuda = torch.cuda.get_rng_state_all() if torch is not None and torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002
        if of_torch is not None:
            torch.set_rng_state(of_torch)
        if of_cuda:
            torch.cuda.set_rng_state_all(of_cuda)
