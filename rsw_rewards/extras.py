"""Libraries that the core does without, and the sentence that says how to install one that is asked for."""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings
from pathlib import Path

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
    "xarray": "cubes",
    "h5py": "cubes",
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


def quiet() -> None:
    """Keep notices of libraries that a user can do nothing about out of a run, here and in its workers: progress bars of loaded weights,
    FutureWarnings, and advice of transformers. A variable that is set already (``TRANSFORMERS_VERBOSITY=info``) is kept."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if os.environ["PYTHONWARNINGS"] == _QUIET["PYTHONWARNINGS"]:
        warnings.filterwarnings("ignore", category=FutureWarning)
    if sys.modules.get("transformers"):  # which has read the variables when it was imported
        from transformers.utils import logging

        logging.disable_progress_bar()
        if os.environ["TRANSFORMERS_VERBOSITY"] == "error":
            logging.set_verbosity_error()


_QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "PYTHONWARNINGS": "ignore::FutureWarning",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}


def installed_file(package: str, *parts: str) -> Path | None:
    """A file in the folder of an installed package, found without importing it; None where there is none."""
    spec = importlib.util.find_spec(package)
    places = (spec.submodule_search_locations if spec is not None else None) or ()
    return next((file for place in places if (file := Path(place, *parts)).is_file()), None)
