"""Data sets as samples: those on disk in a layout of their own, and the procedural scene world."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsw_rewards.core.fields import limit_of
from rsw_rewards.data.adapter import Conversion, write_samples
from rsw_rewards.data.registry import converted
from rsw_rewards.errors import ConfigError

if TYPE_CHECKING:
    from rsw_rewards.core.records import Sample

__all__ = ["Conversion", "convert", "make_scene_world", "read", "write_samples"]

log = logging.getLogger("rsw_rewards")


def convert(
    adapter: Any,
    folder: str | PathLike[str],
    out: str | PathLike[str],
    *,
    split: str | None = None,
    limit: int | None = None,
    **options: Any,
) -> Conversion:
    """Write ``samples.jsonl`` from a data set in the files of its authors; images stay where they are.

    Args:
        adapter: a name of ``rsw.names("adapters")``, ``hf:NAME`` for a data set of Hugging Face, ``file.py:function``, or a function.
        folder: the data set's own folder.
        out: the folder to write to.
        split: the part of the data set.
        limit: only the first samples.
        options: of the adapter.

    Returns:
        How many samples there are, their file, the folders that its paths point into (``roots``), and notes of what was left out.

    Raises:
        InputError: the folder has another layout.
        ConfigError: there is no such adapter, or it takes no such option.

    >>> from PIL import Image
    >>> for folder in ("A", "B", "label"):
    ...     pathlib.Path("LEVIR-CD/test", folder).mkdir(parents=True)
    ...     Image.new("L", (8, 8)).save(f"LEVIR-CD/test/{folder}/test_1.png")
    >>> found = rsw.data.convert("levir-cd", "LEVIR-CD", "levir", split="test")
    >>> found.samples, found.file.name
    (1, 'samples.jsonl')
    >>> rsw.evaluate("change-mask", found.file, policy="oracle", roots=found.roots).metrics["oa"].value
    1.0
    """
    return converted(adapter, Path(folder), Path(out), {"split": split, "limit": limit_of(limit), **options})


def read(
    adapter: Any,
    folder: str | PathLike[str],
    *,
    split: str | None = None,
    limit: int | None = None,
    out: str | PathLike[str] | None = None,
    **options: Any,
) -> list[Sample]:
    """Read the samples of a data set in the files of its authors; what was left out is logged.

    Args:
        adapter, folder, split, limit, options: see :func:`convert`.
        out: where to keep ``samples.jsonl``. Needed for adapters that write images, such as tiles of a raster.

    Raises:
        InputError: the folder has another layout.
        ConfigError: there is no such adapter, it takes no such option, or it needs ``out``.

    >>> from PIL import Image
    >>> for folder in ("A", "B", "label"):
    ...     pathlib.Path("LEVIR-CD/test", folder).mkdir(parents=True)
    ...     Image.new("L", (8, 8)).save(f"LEVIR-CD/test/{folder}/test_1.png")
    >>> [sample.task.value for sample in rsw.data.read("levir-cd", "LEVIR-CD", split="test")]
    ['change_mask']
    """
    from rsw_rewards.core.plugins import named
    from rsw_rewards.io.records_io import load_samples

    with tempfile.TemporaryDirectory(prefix="rsw_data_") as temporary:
        place = Path(temporary if out is None else out)
        found = convert(adapter, folder, place, split=split, limit=limit, **options)
        for note in found.notes:
            log.info("%s: %s", named(adapter), note)
        samples = load_samples(found.file, found.roots)
        if out is None and any(file != found.file for file in place.iterdir()):
            raise ConfigError(f"the adapter {named(adapter)!r} writes images; say where to keep them by out=...")
    return samples


def make_scene_world(
    out: str | PathLike[str],
    n: int = 1000,
    seed: int = 0,
    *,
    split: str = "test",
    tasks: Sequence[str] = ("change_qa", "forecast"),
) -> list[Sample]:
    """Write samples of the scene world, synthetic image pairs with exact references, to a folder.

    Args:
        out: the folder for ``samples.jsonl`` and the images.
        n: how many samples; each task has an equal share.
        seed: number of the data set within its split.
        split: the part of the world that scenes are taken from.
        tasks: of the samples.

    Raises:
        ConfigError: there is no such split or task.

    >>> samples = rsw.data.make_scene_world("questions", n=4, tasks=["change_qa"])
    >>> len(samples), samples[0].task.value
    (4, 'change_qa')
    """
    from rsw_rewards.data.scene_world.write import write_scene_world
    from rsw_rewards.io.records_io import load_samples

    try:
        return load_samples(write_scene_world(Path(out), n, seed, split=split, tasks=list(tasks)))
    except ValueError as error:
        raise ConfigError(str(error)) from error
