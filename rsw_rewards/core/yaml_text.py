"""YAML as its version 1.2 has it (core schema): ``yes``, ``no``, ``on``, ``off`` and dates are texts, ``1e-5`` is a number.

PyYAML knows version 1.1 alone, which takes the two answers to most change questions for flags.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from rsw_rewards.core.files import checksum, write_text
from rsw_rewards.errors import ConfigError

_SCALARS = (
    ("null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
    ("bool", r"true|True|TRUE|false|False|FALSE", tuple("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", tuple("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        tuple("-+0123456789."),
    ),
    ("merge", "<<", ("<",)),  # of version 1.1, and in use
)
"""The scalars that are no texts: tag, pattern, and the characters that they can begin with. The first that fits counts."""


MAX_VALUES = 1_000_000
"""Most values of one text, aliases written out."""


class _Schema(yaml.resolver.BaseResolver):
    """Which texts without quotes stand for something else."""


for _tag, _pattern, _first in _SCALARS:
    _Schema.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})\\Z"), list(_first))


class _Loader(_Schema, yaml.SafeLoader):
    def get_single_node(self) -> Any:
        node = super().get_single_node()
        _check_size(node, {})
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
            if name in seen:
                raise yaml.composer.ComposerError(None, None, f"the key {key.value!r} is there twice", key.start_mark)
            seen.update([name] if name else [])
        return node

    def whole(self, node: yaml.ScalarNode) -> int:
        text = node.value
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _check_size(node: Any, known: dict[int, int]) -> int:
    """How many values a node has with its aliases written out. Ten lines of aliases of aliases can stand for a billion."""
    if id(node) not in known:
        known[id(node)] = MAX_VALUES  # a node inside itself has no end
        value = () if node is None or isinstance(node, yaml.ScalarNode) else node.value
        parts = [part for entry in value for part in (entry if isinstance(entry, tuple) else (entry,))]
        known[id(node)] = 1 + sum(_check_size(part, known) for part in parts)
    if known[id(node)] > MAX_VALUES:
        raise yaml.composer.ComposerError(
            None, None, f"its aliases stand for more than {MAX_VALUES} values", node.start_mark
        )
    return known[id(node)]


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.whole)


class _Dumper(_Schema, yaml.SafeDumper):
    pass


def parse_yaml(text: str, where: str) -> Any:
    """The value that a YAML text stands for. Raises :class:`ConfigError` naming ``where`` and the line.

    >>> parse_yaml("{answers: [yes, no], rate: 1e-5, day: 2019-01-30}", "this page")
    {'answers': ['yes', 'no'], 'rate': 1e-05, 'day': '2019-01-30'}
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark is not None and "\n" in text.rstrip() else ""
        raise ConfigError(f"{where}{line}: this is not valid YAML: {error.problem or error.context}") from error
    except (
        yaml.YAMLError,
        ValueError,
        KeyError,
        RecursionError,
    ) as error:  # a number of 5000 digits, !!bool x, lists in lists
        raise ConfigError(f"{where}: this is not valid YAML: {' '.join(str(error).split())}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises :class:`ConfigError`, also where it begins with a checksum that does not fit it."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the configuration {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: this is not valid YAML: it is no text in UTF-8 ({error})") from error
    head, _, rest = text.partition("\n")
    if (told := _CHECKSUM.fullmatch(head)) and told[1] != checksum(rest):
        raise ConfigError(
            f"{path} is damaged or was changed by hand: its content does not fit the checksum in its first line; bring it back from a"
            " copy, or delete that line if you changed it on purpose"
        )
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold a mapping of keys, not {type(content).__name__}")
    return content


def write_yaml(value: Any) -> str:
    """A value as YAML that :func:`parse_yaml` reads as the same value.

    >>> print(write_yaml({"answer": "yes", "text": "1e-5"}), end="")
    answer: yes
    text: '1e-5'
    """
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


_CHECKSUM = re.compile("# sha256 of what follows: ([0-9a-f]{64})")


def write_run_yaml(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping with its checksum, which :func:`read_yaml` checks; the file appears whole or not at all."""
    text = write_yaml(dict(content))
    write_text(path, f"# sha256 of what follows: {checksum(text)}\n{text}")
