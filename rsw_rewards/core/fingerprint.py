"""What scores depend on beside samples and outputs, as a few digits: configuration, code, and the files that are named.

The rule, for a verifier of whatever origin:

* its name and its configuration;
* the content of every file that the configuration names: a ``Path``, a text, or a part of a text between ``:``, ``#``, ``=`` and
  ``&`` (as in ``open_clip:ViT-B-32:weights.pt``) that is an existing file, or the module of an encoder or a detector
  (``package.module:object`` or an entry point). Of a folder only the name counts;
* its code: of this package the version; of any other the text of the module that a class, a base of it, or a function comes from,
  of the modules of the same package that this imports, and the version of its distribution. What was defined in a notebook or a script counts alone, with the functions, classes and
  constants of the same notebook that it uses; of an object what pickle would write, and of one that cannot be pickled its ``repr``.
"""

from __future__ import annotations

import copyreg
import hashlib
import importlib.metadata
import importlib.util
import inspect
import re
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from os.path import isfile
from pathlib import Path
from typing import Any

from rsw_rewards.core.files import checksum, digest_of
from rsw_rewards.core.image_values import is_instance
from rsw_rewards.core.plugins import entry_points, loaded_source

_NAMED_IN_CONFIGURATIONS = ("rsw_rewards.encoders", "rsw_rewards.detectors")

LARGE = 1 << 24
"""Bytes from which a file is not read again while its size and its time of writing stay the same."""


def fingerprint(name: str, config: Mapping[str, Any], code: Any, files: Iterable[str | Path] = ()) -> str:
    """Twelve hexadecimal digits that change with the configuration, the code, or the content of a file that is named.

    Args:
        name: of the verifier.
        config: its configuration as plain data.
        code: the class or the function.
        files: further files whose contents count.

    >>> fingerprint("f", {"limit": 1}, fingerprint) == fingerprint("f", {"limit": 2}, fingerprint)
    False
    """
    named = {*_named_files(config), *(str(file) for file in files if Path(file).is_file())}
    parts = (name, config, {file: _content(file) for file in named}, _made_of(code))
    return checksum(_plain(parts))[:12]


def _plain(value: Any) -> str:
    """A value as a text that is the same in every process: without the order of a set or the address of an object.

    An object is what pickle would write of it; one that cannot be pickled is its ``repr``.
    """
    try:
        return _whole(value, ())
    except Exception:  # whatever an object says in place of its state
        return _shown(value)


def _whole(value: Any, around: tuple[int, ...]) -> str:
    """:func:`_plain` of a value that can be pickled, within the objects ``around`` it. Raises what its class raises."""
    if value is None or isinstance(value, (str, int, float, complex, Path)):
        return repr(value)
    if isinstance(value, (bytes, bytearray)):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
        return _shown(value)
    if id(value) in around:
        return "itself"
    around = (*around, id(value))
    if isinstance(value, Mapping):
        items = sorted(f"{_whole(key, around)}: {_whole(item, around)}" for key, item in value.items())
        return "{" + ", ".join(items) + "}"
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(_whole(item, around) for item in value)) + "}"
    if isinstance(value, (list, tuple, Iterator)):
        return f"[{', '.join(_whole(item, around) for item in value)}]"
    if is_instance(value, "torch", "Tensor"):  # pickle writes addresses with its numbers
        stored = value.detach().cpu().contiguous().flatten().view(sys.modules["torch"].uint8).numpy()
        return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(stored.tobytes()).hexdigest()}"
    reduced = copyreg.dispatch_table.get(type(value), lambda value: value.__reduce_ex__(4))(value)
    return _whole(reduced, around)


def _shown(value: Any) -> str:
    return re.sub(" at 0x[0-9a-f]+", "", repr(value))


def _named_files(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _named_files(item)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from _named_files(item)
    elif isinstance(value, (str, Path)):
        text = str(value)
        yield from (part for part in {text, *re.split("[:#=&]", text)} if isfile(part))
        yield from _named_module(text.partition("#")[0])


def _named_module(text: str) -> Iterator[str]:
    """The file of the module that an encoder or a detector comes from, where the text names one of a package's."""
    plugged = {entry.name: entry.value for group in _NAMED_IN_CONFIGURATIONS for entry in entry_points(group)}
    found = re.fullmatch(r"([A-Za-z_][\w.]*):[A-Za-z_][\w.]*", plugged.get(text, text))
    try:
        spec = importlib.util.find_spec(found[1]) if found else None
    except (ImportError, ValueError):  # no such package, or a name such as __main__
        return
    if spec is not None and spec.origin and isfile(spec.origin):
        yield spec.origin


def _content(file: str) -> str:
    known = Path(file).stat()
    if known.st_size < LARGE:
        return digest_of(Path(file))
    return _content_of_large(file, known.st_size, known.st_mtime_ns)


@cache
def _content_of_large(file: str, size: int, written: int) -> str:
    return digest_of(Path(file))


def _made_of(code: Any) -> set[str]:
    """What the code of a class or a function is, in words and digests."""
    found: set[str] = set()
    for part in inspect.getmro(code) if isinstance(code, type) else (code,):
        top = part.__module__.partition(".")[0]
        if top == "rsw_rewards":
            found.add(f"rsw_rewards {sys.modules[top].__version__}")
        elif top not in sys.stdlib_module_names or top == "__main__":
            found |= {_distribution(top), *_sources(part.__module__, part, set())}
    return found - {""}


def _sources(name: str, part: Any, seen: set[str]) -> Iterator[str]:
    """Digests of the module that a class or function is from, and of those of the same package that this imports; of the class or
    function itself, where the module is a notebook, a script or nowhere."""
    seen.add(name)
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if module is not None and (loaded := loaded_source(module)):
        yield loaded
    elif module is None or name == "__main__" or not file or not isfile(file):
        yield checksum("\n".join(_definition(part, set())))
    else:
        yield _content(file)
        top = name.partition(".")[0]
        for value in list(vars(module).values()):
            other = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
            if isinstance(other, str) and other.partition(".")[0] == top and other not in seen:
                yield from _sources(other, value, seen)


def _definition(part: Any, seen: set[int]) -> Iterator[str]:
    """The text of a class or function (its code, where there is no text), and of what it uses of its own module."""
    if id(part) in seen:
        return
    seen.add(id(part))
    try:
        yield inspect.getsource(part)
    except (OSError, TypeError):
        for code in _codes(part):
            constants = [value for value in code.co_consts if not isinstance(value, types.CodeType)]
            yield _plain((code.co_code, code.co_names, constants))
    for function in _functions(part):
        yield _plain((function.__defaults__, function.__kwdefaults__))
        inner = inspect.getclosurevars(function)
        for name, value in sorted({**inner.globals, **inner.nonlocals}.items()):
            if isinstance(value, (type, types.FunctionType)):
                if value.__module__ == part.__module__:
                    yield from _definition(value, seen)
            elif not isinstance(value, types.ModuleType):
                yield f"{name} = {_plain(value)}"


def _functions(part: Any) -> list[types.FunctionType]:
    listed = vars(part).values() if isinstance(part, type) else (part,)
    plain = (getattr(value, "__func__", getattr(value, "fget", value)) for value in listed)
    return [function for function in plain if isinstance(function, types.FunctionType)]


def _codes(part: Any) -> Iterator[types.CodeType]:
    found = [function.__code__ for function in _functions(part)]
    for code in found:  # grows while it is gone through: functions within functions
        yield code
        found += [value for value in code.co_consts if isinstance(value, types.CodeType)]


def _distribution(top: str) -> str:
    """Name and version of the installed distribution that holds a package; empty where there is none."""
    try:
        return f"{top} {importlib.metadata.version(top)}"
    except importlib.metadata.PackageNotFoundError:
        file = getattr(sys.modules.get(top), "__file__", None) or ""
        installed = {"site-packages", "dist-packages"} & set(Path(file).parts)
        return (
            " ".join(f"{name} {importlib.metadata.version(name)}" for name in _named_otherwise(top))
            if installed
            else ""
        )


@cache
def _named_otherwise(top: str) -> list[str]:
    """Distributions that hold a package of another name; all lists of installed files are read for it."""
    return sorted(set(importlib.metadata.packages_distributions().get(top, ())))
