"""Paths in files: relative to a root, the file's own folder or one that the user names, which they may not leave."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rsw_rewards.core.image_ref import ImageRef, image
from rsw_rewards.core.image_values import DECLARED, check_keywords, describe
from rsw_rewards.errors import InputError


def image_from_json(entry: Any, resolve: Callable[[str], Path]) -> ImageRef:
    """The image of an entry of a record, a path or an object with ``path`` and any of :data:`DECLARED`.

    Args:
        entry: from the file.
        resolve: makes its path safe.

    Raises:
        InputError: the entry is of another form, or its path leaves the roots.
    """
    if isinstance(entry, str):
        return ImageRef(path=resolve(entry))
    if isinstance(entry, Mapping) and isinstance(entry.get("path"), str):
        check_keywords(entry)
        return image(resolve(entry["path"]), **{key: entry[key] for key in DECLARED if entry.get(key) is not None})
    raise InputError(f"an image must be a path or an object with 'path', not {describe(entry)}")


class Roots:
    """The folders that paths in a file may point into.

    A file can never name a root itself: the first root is the file's own folder, further ones come from the user.
    """

    def __init__(self, own: Path, extra: Sequence[Path] = ()) -> None:
        self.folders = [os.path.realpath(folder) for folder in (*extra, own)]
        # Many questions are about one picture, and many pictures lie in one folder: each is looked at once.
        self._known: dict[str, Path] = {}
        self._parents: dict[str, str] = {}
        self._images: dict[str, ImageRef] = {}

    def resolve(self, path: str) -> Path:
        """The file that a relative ``path`` names, looked up in the user's roots first.

        Raises:
            InputError: an absolute path, or one that leaves every root through ``..`` or a link.
        """
        if path in self._known:
            return self._known[path]
        if not path:
            raise InputError("the path '' names no file")
        if "\0" in path or Path(path).is_absolute():
            raise InputError(f"the path {path!r} is absolute; give it relative to a root (--root DIR)")
        inside = ""
        for folder in self.folders:
            real, exists = self._real(os.path.join(folder, path))  # noqa: PTH118  (as text: this is run for every record)
            if real == folder or real.startswith(folder.rstrip(os.sep) + os.sep):
                inside = real
                if exists:
                    break
        if not inside:
            raise InputError(f"the path {path!r} leaves every root; name the folder it lies in with --root DIR")
        self._known[path] = Path(inside)
        return self._known[path]

    def image(self, entry: Any) -> ImageRef:
        """The image of an entry of a record; entries that are the same path share it."""
        if not isinstance(entry, str):
            return image_from_json(entry, self.resolve)
        if entry not in self._images:
            self._images[entry] = image_from_json(entry, self.resolve)
        return self._images[entry]

    def _real(self, path: str) -> tuple[str, bool]:
        """The path without links and ``..``, and whether there is something. The folder's part of it is resolved once."""
        parent, name = os.path.split(path)
        if name in ("", ".", ".."):
            real = os.path.realpath(path)
            return real, os.path.exists(real)  # noqa: PTH110
        if parent not in self._parents:
            self._parents[parent] = os.path.realpath(parent)
        real = os.path.join(self._parents[parent], name)  # noqa: PTH118
        try:
            link = stat.S_ISLNK(os.lstat(real).st_mode)
        except OSError:
            return real, False
        if link:
            real = os.path.realpath(real)
            return real, os.path.exists(real)  # noqa: PTH110
        return real, True
