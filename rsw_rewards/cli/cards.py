"""``rsw verifiers`` and ``rsw protocols``: what there is, and what each of them means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rsw_rewards.cli.display import print_families, print_json, print_rows, words
from rsw_rewards.cli.options import Json

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


def verifiers(
    name: Annotated[str | None, typer.Argument(help="Show the card of this verifier.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """List all verifiers, or show the card of one: what it measures, its range, its source and its weaknesses."""
    import dataclasses

    from rsw_rewards.core.rubric import VERIFIERS

    if name is None:
        listed = dict(sorted(VERIFIERS.all().items()))
        if as_json:
            print_json(
                {known: {"tasks": sorted(cls.tasks), "summary": cls.card.summary} for known, cls in listed.items()}
            )
            return
        print_families({known: (sorted(cls.tasks), cls.card.summary) for known, cls in listed.items()})
        typer.echo("rsw verifiers NAME shows the card of one")
        return
    found = VERIFIERS.find(name)
    card = {
        **dataclasses.asdict(found.card),
        "tasks": sorted(found.tasks),
        "scope": found.scope,
        "reads": sorted(found.needs),
        "gives a reward": found.rewarding,
        "configuration": {key: _setting(field) for key, field in found.Config.model_fields.items()},
    }
    if as_json:
        print_json({found.name: card})
        return
    rows = [(key, words(value)) for key, value in card.items() if key != "configuration"]
    rows += [(f"config: {key}", value) for key, value in card["configuration"].items()]
    print_rows((found.name, ""), rows)
    if found.__module__.startswith("rsw_rewards."):
        typer.echo("docs/verifiers.md has what a card has no room for.")


def _setting(field: FieldInfo) -> str:
    """What a key of a configuration means, and what it is where it is left out."""
    known = "required" if field.is_required() else f"default: {words(field.get_default(call_default_factory=True))}"
    return f"{field.description or ''} ({known})".strip()


def protocols(
    name: Annotated[
        str | None, typer.Argument(help="Show the definition of this protocol.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """List all protocols, or show the definition of one."""
    import dataclasses

    from rsw_rewards.evaluation.protocols import PROTOCOLS

    if name is not None:
        protocol = PROTOCOLS.find(name)
        definition = {**dataclasses.asdict(protocol), "components": protocol.written()}
        if as_json:
            print_json(definition)
        else:
            print_rows(
                (name, ""),
                [(key.replace("_", " "), words(value)) for key, value in definition.items() if value not in ((), None)],
            )
    elif as_json:
        print_json(
            {known: {**dataclasses.asdict(p), "components": p.written()} for known, p in PROTOCOLS.all().items()}
        )
    else:
        print_rows(("protocol", "task", "title"), [(p.name, str(p.task), p.title) for p in PROTOCOLS.all().values()])
