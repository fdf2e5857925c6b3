"""The one way to a page: templates that share their head, style, script and parts, and need no network."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsw_rewards.evaluation.numbers import arrow, compact, number, signed
from rsw_rewards.evaluation.published import footnote
from rsw_rewards.evaluation.summary import in_words

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **values: Any) -> str:
    """A page from a template of ``evaluation/templates``. What comes from files is escaped.

    Args:
        template: its file name.
        **values: what it shows.
    """
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    loader = PackageLoader("rsw_rewards.evaluation")
    found = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    found.policies["json.dumps_kwargs"] = {"separators": (",", ":")}  # in the order of the values, not of their names
    folder = Path(__file__).parent / "templates"
    found.globals["file"] = cache(lambda name: Markup((folder / name).read_text(encoding="utf-8").removesuffix("\n")))
    found.filters |= {
        "number": number,
        "signed": signed,
        "compact": compact,
        "arrow": arrow,
        "footnote": footnote,
        "in_words": in_words,
    }
    return found
