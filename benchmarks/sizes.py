"""Disk space of the core beyond numpy, scipy, pandas and pyarrow with what these need, and what each installed extra adds.

Run it in an environment that holds what is to be measured: ``make dist`` does for the core, ``.venv/bin/python benchmarks/sizes.py``
for the extras. Exits with 1 where the core is over its limit.
"""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import Distribution, distributions
from pathlib import Path

LIMIT_MB = 75.0
GIVEN = ["numpy", "scipy", "pandas", "pyarrow"]
"""What everybody in the field has: the limit counts neither them nor what they need."""
PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


INSTALLED = {plain(found.metadata["Name"]): found for found in distributions()}


def needed(requirement: str) -> tuple[str, frozenset[str], str | None]:
    """Name, extras, and the extra under which it is wanted: ``'a[b]>=1; extra == "c"'`` -> ``("a", {"b"}, "c")``."""
    match = re.match(r"([\w.-]+)\s*(?:\[([^\]]*)\])?", requirement)
    assert match is not None, requirement
    wanted = re.search(r"extra\s*==\s*['\"]([\w.-]+)['\"]", requirement)
    extras = frozenset(plain(extra.strip()) for extra in (match[2] or "").split(",") if extra.strip())
    return plain(match[1]), extras, plain(wanted[1]) if wanted else None


def closure(requirements: list[str]) -> tuple[set[str], set[str]]:
    """Installed distributions that the requirements lead to, and what they or their extras name that is not installed."""
    found: set[str] = set()
    absent: set[str] = set()
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = [(*needed(requirement)[:2], True) for requirement in requirements]
    while todo:
        name, extras, named = todo.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        if name == plain(PROJECT["name"]):
            todo += [(*needed(line)[:2], True) for extra in extras for line in PROJECT["optional-dependencies"][extra]]
        elif name in INSTALLED:  # what is not is for another platform or an older Python
            found.add(name)
            for line in INSTALLED[name].requires or []:
                needs, of_it, extra = needed(line)
                if extra is None or extra in extras:
                    todo.append((needs, of_it, extra is not None))
        elif named:
            absent.add(name)
    return found, absent


def megabytes(found: Distribution) -> float:
    """What a distribution takes on the disk, compiled modules included, in MB of 10^6 bytes."""
    places = {Path(str(found.locate_file(file))) for file in found.files or ()}
    return sum(place.lstat().st_blocks * 512 for place in places if place.is_file()) / 1e6


def main() -> None:
    core, absent = closure(PROJECT["dependencies"])
    assert not absent, absent
    sizes = {name: megabytes(INSTALLED[name]) for name in {*core, plain(PROJECT["name"])} - closure(GIVEN)[0]}
    total = sum(sizes.values())
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
        print(f"{name:20} {size:7.1f} MB")
    print(f"{'core':20} {total:7.1f} MB beyond {', '.join(GIVEN)} (limit {LIMIT_MB:g})")
    for extra, requirements in PROJECT["optional-dependencies"].items():
        more, absent = closure(requirements)
        if not absent:
            added = more - core
            print(
                f"[{extra}]".ljust(20),
                f"{sum(megabytes(INSTALLED[name]) for name in added):7.1f} MB more, {len(added)} packages",
            )
    sys.exit(total > LIMIT_MB)


if __name__ == "__main__":
    main()
