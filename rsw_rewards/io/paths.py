"""Paths in files: relative to a root, the file's own folder or one that the user names, which they may not leave."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from rsw_rewards.core.image_ref import DECLARED, ImageRef, check_keywords, image
from rsw_rewards.core.image_values import describe
from rsw_rewards.errors import InputError


class Roots:
    """The folders that paths in a file may point into.

    A file can never name a root itself: the first root is the file's own folder, further ones come from the user.
    """

    def __init__(self, own: Path, extra: Sequence[Path] = ()) -> None:
        self.folders = [os.path.realpath(folder) for folder in (*extra, own)]
        # Many questions are about one picture, and many pictures lie in one folder: each is looked at once.
        self._images: dict[str, ImageRef] = {}
        self._real_folder = cache(os.path.realpath)

    def image(self, entry: Any) -> ImageRef:
        """The image of an entry of a record; entries that are the same path share it.

        Args:
            entry: from the file, a path or an object with ``path`` and any of :data:`DECLARED`.

        Raises:
            InputError: the entry is of another form, or its path leaves the roots.
        """
        if isinstance(entry, str):
            if entry not in self._images:
                self._images[entry] = ImageRef(path=self.resolve(entry))
            return self._images[entry]
        if isinstance(entry, Mapping) and isinstance(entry.get("path"), str):
            check_keywords(entry)
            declared = {key: entry[key] for key in DECLARED if entry.get(key) is not None}
            return image(self.resolve(entry["path"]), **declared)
        raise InputError(f"an image must be a path or an object with 'path', not {describe(entry)}")

    def resolve(self, path: str) -> Path:
        """The file that a relative ``path`` names, looked up in the user's roots first.

        Raises:
            InputError: an absolute path, or one that leaves every root through ``..`` or a link.
        """
        if not path:
            raise InputError("the path '' names no file")
        if "\0" in path or os.path.isabs(path):  # noqa: PTH117  (as text: this is run for every record)
            raise InputError(f"the path {path!r} is absolute; give it relative to a root (--root DIR)")
        inside = ""
        for folder in self.folders:
            parent, name = os.path.split(os.path.join(folder, path))  # noqa: PTH118
            real = os.path.join(self._real_folder(parent), name)  # noqa: PTH118
            if name in ("", ".", "..") or os.path.islink(real):  # noqa: PTH114
                real = os.path.realpath(real)
            if real == folder or real.startswith(folder.rstrip(os.sep) + os.sep):
                inside = real
                if os.path.exists(real):  # noqa: PTH110
                    break
        if not inside:
            raise InputError(f"the path {path!r} leaves every root; name the folder it lies in with --root DIR")
        return Path(inside)
