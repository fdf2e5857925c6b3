"""Where tiny models that are built from configuration are kept between processes."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Container
from pathlib import Path

PREFIX = "tiny:"
"""What the ``path`` of a policy starts with where it names a tiny model instead of a folder."""


def kept_folder(
    name: str, known: Container[str], source: str, version: str, build: Callable[[str, Path], object]
) -> Path:
    """The folder of a tiny model in the temporary directory, built when it is first asked for.

    Several processes may ask at once: the folder appears whole.

    Args:
        name: of the model.
        known: names that ``build`` can build; it raises for others.
        source: file of the builder: another text of it builds another folder.
        version: of the library that reads the folder.
        build: writes the model of that name into a folder.
    """
    recipe = hashlib.sha256(Path(source).read_bytes() + version.encode()).hexdigest()[:12]
    home = Path(tempfile.gettempdir()) / f"rsw_rewards-{os.getuid()}"
    folder = home / f"tiny-{name}-{recipe}"
    if name in known and folder.is_dir():
        return folder
    home.mkdir(mode=0o700, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=home))
    try:
        build(name, partial)
        if not folder.is_dir():
            partial.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder
