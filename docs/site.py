"""How pages and docstrings become the Markdown of the site: the hook and the extension of griffe that `mkdocs.yml` names."""

from __future__ import annotations

import re

import griffe

_EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)
_ROLE = re.compile(r":(?:class|func|meth|attr|data|mod|exc):`~?(?:rsw_rewards\.(?:\w+\.)*)?([^`]+)`")
_SHARED = re.compile(r"^    (\w+(?:, \w+)+)(: .*(?:\n {5,}.*)*)$", re.MULTILINE)


def as_markdown(text: str) -> str:
    """A docstring whose examples stand in code blocks, whose roles are code, and whose shared entries have one line for each name.

    >>> as_markdown("See :func:`score`.")
    'See `score`.'
    """
    text = _ROLE.sub(r"`\1`", text.replace("``", "`"))
    text = _EXAMPLE.sub(lambda found: f"```python\n{found[0]}\n```", text)
    return _SHARED.sub(lambda found: "\n".join(f"    {name}{found[2]}" for name in found[1].split(", ")), text)


def on_page_markdown(markdown: str, **unused: object) -> str:
    """A page without the mark of the Python blocks that tests leave out, with which a block would be no code to the site."""
    return markdown.replace("```python notest", "```python")


class Docstrings(griffe.Extension):
    """Applies :func:`as_markdown` to every docstring."""

    def on_object(self, *, obj: griffe.Object, **unused: object) -> None:
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)
