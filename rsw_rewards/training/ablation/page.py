"""What an ablation found, for people: a Markdown table, and a page that says which reward did what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from rsw_rewards.evaluation.numbers import Mark, axis_around_zero, lane, number, sign
from rsw_rewards.evaluation.pages import render
from rsw_rewards.training.ablation.effects import Ablation, Effect


def _interval(effect: Effect) -> str:
    return _between(effect.difference, effect.ci95)


def _between(value: float | None, ci95: tuple[float, float] | None) -> str:
    if value is None:
        return "-"
    return f"{value:+.3f}" + ("" if ci95 is None else f" [{ci95[0]:+.3f}, {ci95[1]:+.3f}]")


def table(found: Ablation) -> str:
    """The effects as a Markdown table, decoding by decoding."""
    lines = []
    for mode, effects in groupby(_ordered(found.effects), key=lambda effect: effect.mode):
        listed = list(effects)
        lines += [
            f"**{mode}**, differences to all rewards with 95 % intervals over scenes and seeds {_seeds(found)}",
            "",
            *_rows(listed, lambda effect, full: number(effect.value) if full else _interval(effect)),
            "",
            f"**{mode}**, change by training, after less before",
            "",
            *_rows(listed, lambda effect, full: _between(effect.change, effect.change_ci95)),
            "",
        ]
    lines += [f"- {words}" for words in sentences(found)]
    lines += [f"- {run} has no numbers: {why}" for run, why in found.failed.items()]
    return "\n".join(lines) + "\n"


def _rows(effects: Sequence[Effect], cell: Callable[[Effect, bool], str]) -> Iterator[str]:
    """A table of variants by metrics. ``cell`` is also told whether a variant is the full rubric, with which others are compared."""
    metrics = list(dict.fromkeys(effect.metric for effect in effects))
    yield "| variant | " + " | ".join(metrics) + " |"
    yield "|---" * (len(metrics) + 1) + "|"
    for variant in dict.fromkeys(effect.variant for effect in effects):
        row = {effect.metric: effect for effect in effects if effect.variant == variant}
        full = all(not effect.component and effect.ci95 is None for effect in row.values())
        cells = [cell(row[metric], full) if metric in row else "-" for metric in metrics]
        yield f"| {variant} | " + " | ".join(cells) + " |"


def _ordered(effects: Iterable[Effect]) -> list[Effect]:
    return sorted(effects, key=lambda effect: effect.mode)


def _seeds(found: Ablation) -> str:
    return ", ".join(map(str, found.seeds))


def sentences(found: Ablation) -> list[str]:
    """Which reward did what, one sentence for each that was left out."""
    said = []
    for component in dict.fromkeys(effect.component for effect in found.effects if effect.component):
        own = [effect for effect in found.effects if effect.component == component]
        useful = _named(effect for effect in own if effect.verdict == "useful")
        harmful = _named(effect for effect in own if effect.verdict == "harmful")
        parts = []
        if all(effect.verdict == "one seed" for effect in own if effect.verdict):
            said.append(f"{component} was left out with one seed only, which says nothing of another training.")
            continue
        if useful:
            parts.append(f"is useful: without it {useful} would be worse")
        if harmful:
            parts.append(f"is harmful: without it {harmful} would be better")
        said.append(
            f"{component} {' and '.join(parts) if parts else 'has no effect that was seen on any held-out number'}."
        )
    for variant in dict.fromkeys(effect.variant for effect in found.effects):
        own = [effect for effect in found.effects if effect.variant == variant]
        if found.alarms.get(variant):
            rung = found.alarms[variant]
            said.append(f"'{variant}' rang {len(rung)} alarm{'s' if len(rung) > 1 else ''}, the first {rung[0]}.")
        if not variant.startswith("only "):
            continue
        rose, fell = (_changed(effect for effect in own if _direction(effect) == way) for way in (1, -1))
        parts = [f"{rose} got better" if rose else "", f"{fell} got worse" if fell else ""]
        said.append(
            f"Under '{variant}', {' and '.join(part for part in parts if part) or 'no held-out number changed clearly'}."
        )
    return said


def _direction(effect: Effect) -> int:
    """1 where training made the number better, -1 where worse, 0 where the interval, or the metric's name, says neither."""
    if effect.change_ci95 is None or effect.change_ci95[0] <= 0 <= effect.change_ci95[1]:
        return 0
    return sign(effect.metric) if effect.change_ci95[0] > 0 else -sign(effect.metric)


def _changed(effects: Iterable[Effect]) -> str:
    return ", ".join(
        f"{effect.metric} ({effect.mode}, {_between(effect.change, effect.change_ci95)})" for effect in effects
    )


def _named(effects: Iterable[Effect]) -> str:
    return ", ".join(f"{effect.metric} ({effect.mode}, {_interval(effect)})" for effect in effects)


def page(found: Ablation) -> str:
    """One self-contained HTML page."""
    return render(
        "ablation.html",
        seeds=_seeds(found),
        variants=len({effect.variant for effect in found.effects}),
        sentences=sentences(found),
        plots=plots(found.effects),
        failed=found.failed,
    )


def plots(effects: Sequence[Effect]) -> list[dict[str, Any]]:
    """One plot per decoding and metric: a line per variant, its difference to all rewards, on one axis with 0 in its middle."""
    drawn = []
    for mode, metric in dict.fromkeys((effect.mode, effect.metric) for effect in effects):
        own = [effect for effect in effects if (effect.mode, effect.metric) == (mode, metric)]
        others = [effect for effect in own if effect.difference is not None and effect.variant != own[0].variant]
        ends = [end for effect in others for end in (effect.difference, *(effect.ci95 or ()), *effect.per_seed)]
        axis = axis_around_zero(end for end in ends if end is not None)
        lanes = [
            lane(
                effect.variant,
                effect.difference,
                axis,
                effect.ci95,
                [Mark("seed", "one seed", one) for one in effect.per_seed if one is not None],
                note=effect.verdict,
                signed=True,
            )
            for effect in others
            if effect.difference is not None
        ]
        drawn.append(
            {"mode": mode, "metric": metric, "rewarded": own[0].rewarded, "full": own[0].full, "axis": axis, "lanes": lanes}
        )  # fmt: skip
    return drawn
