"""Lets a CUDA-built torchvision be imported beside a CPU-only torch.

PyPI serves torchvision built against CUDA only. Beside a CPU torch its compiled operators cannot load, and importing the
package then stops at the registration of ``torchvision::nms``. Declaring the two operator schemas it looks for is enough
for everything used here (transforms, models). Where the builds match, nothing happens.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library: object | None = None  # operators vanish when their Library object is collected


def _operators_missing() -> bool:
    """Whether torchvision's compiled operators cannot be loaded beside the installed torch."""
    import torch

    if torch.version.cuda is not None or getattr(torch.version, "hip", None) is not None:
        return False
    spec = importlib.machinery.PathFinder.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return False
    extension = importlib.machinery.PathFinder.find_spec("torchvision._C", list(spec.submodule_search_locations))
    if extension is None or extension.origin is None:
        return False
    try:
        torch.ops.load_library(extension.origin)
    except OSError:
        return True
    return False


def _declare_operators() -> None:
    global _library
    if _library is not None or not _operators_missing():
        return
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        library.define(schema)
    _library = library


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    """Runs once, just before torchvision is first imported, and then gets out of the way."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            if (
                importlib.util.find_spec("torch") is not None
            ):  # libraries also ask for torchvision where there is neither
                _declare_operators()
        return None


def install() -> None:
    """Register the check for the first import of torchvision. Costs nothing until then and never imports torch itself."""
    if "torchvision" in sys.modules or any(isinstance(finder, _BeforeTorchvision) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _BeforeTorchvision())
