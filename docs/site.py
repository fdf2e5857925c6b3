"""How docstrings become Markdown for the site; an extension of griffe that `mkdocs.yml` names."""

from __future__ import annotations

import re

import griffe

_EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)
_ROLE = re.compile(r":(?:class|func|meth|attr|data|mod|exc):`~?(?:rsw_rewards\.(?:\w+\.)*)?([^`]+)`")
_SHARED = re.compile(r"^    (\w+(?:, \w+)+)(: .*(?:\n {5,}.*)*)$", re.MULTILINE)


def markdown(text: str) -> str:
    """A docstring whose examples stand in code blocks, whose roles are code, and whose shared entries have one line for each name.

    >>> markdown("See :func:`score`.")
    'See `score`.'
    """
    text = _ROLE.sub(r"`\1`", text.replace("``", "`"))
    text = _EXAMPLE.sub(lambda found: f"```python\n{found[0]}\n```", text)
    return _SHARED.sub(lambda found: "\n".join(f"    {name}{found[2]}" for name in found[1].split(", ")), text)


class Docstrings(griffe.Extension):
    """Applies :func:`markdown` to every docstring."""

    def on_object(self, *, obj: griffe.Object, **unused: object) -> None:
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)
