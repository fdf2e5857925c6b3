"""Libraries that the core does without, and the sentence that says how to install one that is asked for."""

from __future__ import annotations

import importlib.util

from rsw_rewards.errors import MissingExtra

EXTRAS = {
    "torch": "torch",
    "torchvision": "torch",
    "transformers": "torch",
    "open_clip": "torch",
    "timm": "torch",
    "sentence_transformers": "torch",
    "ray": "ray",
    "datasets": "hub",
    "rasterio": "rasters",
    "matplotlib": "figures",
    "openpyxl": "excel",
    "nltk": "wordnet",
    "pycocotools": "detection",
    "starlette": "serve",
    "uvicorn": "serve",
    "trl": "train",
    "diffusers": "train",
    "accelerate": "train",
    "peft": "train",
    "vllm": "vllm",
}
"""Module -> the extra of this package that installs it."""


def has(module: str) -> bool:
    """Whether a module is installed; it is not imported.

    >>> has("numpy")
    True
    """
    return importlib.util.find_spec(module) is not None


def need(what: str, *modules: str) -> None:
    """None where all ``modules``, keys of :data:`EXTRAS`, are installed. Call it before importing them.

    Args:
        what: what needs them, as the subject of a sentence.
        modules: what is imported next.

    Raises:
        MissingExtra: one of them is not installed; the message has the command that installs it.
    """
    for module in modules:
        if not has(module):
            raise missing(what, module)


def missing(what: str, module: str) -> MissingExtra:
    """The error that says that ``what`` needs ``module``, a key of :data:`EXTRAS`."""
    return MissingExtra(
        f"{what} needs {module}, which is not installed; run: pip install 'rsw_rewards[{EXTRAS[module]}]'"
    )
