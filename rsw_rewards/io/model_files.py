"""Whether the files of a model are on this machine, told without loading any of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rsw_rewards.extras import has

_HUB_NAME = re.compile(r"([\w.-]+/)?[\w.-]+")


def missing_model(path: str | Path, files: Sequence[str] = ("config.json",), hub: bool = True) -> str | None:
    """What is missing of a model in a folder or on the hub, as a clause; None where it can be loaded or fetched.

    Args:
        path: a folder, or a name of the Hugging Face hub.
        files: names of files, one of which a folder must hold.
        hub: whether ``path`` may be a name of the hub.

    >>> missing_model("models/nowhere/at-all")
    'there is no folder models/nowhere/at-all'
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return None if any((folder / name).is_file() for name in files) else f"{path} holds no {' or '.join(files)}"
    if not hub or not _HUB_NAME.fullmatch(str(path)):
        return f"there is no folder {path}"
    if has("huggingface_hub"):
        from huggingface_hub import constants, try_to_load_from_cache

        if any(isinstance(try_to_load_from_cache(str(path), name), str) for name in files):
            return None
        if constants.HF_HUB_OFFLINE:
            return (
                f"there is no folder {path}, the hub's cache does not hold it, and HF_HUB_OFFLINE forbids to fetch it"
            )
    if any((beside / name).is_file() for beside in _folders(folder.parent) for name in files):
        # Among models of this machine it is more likely one of them whose name is misspelt.
        return f"there is no folder {path}; if it is a name of the hub, fetch it first: hf download {path}"
    return None  # it is fetched when it is first loaded


def _folders(parent: Path) -> list[Path]:
    try:
        return [path for path in parent.iterdir() if path.is_dir()]
    except OSError:
        return []
