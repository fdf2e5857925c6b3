"""Which quantities of a run are plotted, each under the one name that log, TensorBoard and page have for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf
from typing import Any, NamedTuple

from rsw_rewards.training.report.curves import Drawn, Line, drawn
from rsw_rewards.training.report.run_files import RunFiles

HELDOUT_CHARTS = 12
"""Most held-out metrics that are plotted; the table has all."""


class Plot(NamedTuple):
    """Quantities of the log that share one plot."""

    title: str
    keys: tuple[str, ...]
    note: str = ""


PLOTS = (
    Plot("groups without spread", ("groups_zero_std",), "share of groups whose candidates all have one reward"),
    Plot("gradient norm", ("grad_norm",), "before clipping"),
    Plot("entropy", ("entropy",), "nats per token"),
    Plot("KL", ("kl",), "against the policy that training started from"),
    Plot("loss", ("loss", "loss_per_code", "loss_per_answer")),
    Plot("learning rate", ("learning_rate",)),
    Plot("length", ("length/mean", "length/min", "length/max"), "tokens of a rollout"),
    Plot("cut off", ("cut_off",), "share of rollouts that reached the length limit"),
    Plot("most common answer", ("commonest_answer",), "share of the text that is given most often"),
    Plot("without a reward", ("failed", "lost"), "rollouts that are left out, and those of them that were lost"),
    Plot("seconds a step", ("step_time", "time/generation", "time/exposed_scoring"), "of which waiting for rollouts and for rewards"),
    Plot("accuracy", ("accuracy_greedy", "accuracy_sampled")),
    Plot("gain over copy", ("gain_over_copy_greedy", "gain_over_copy_sampled")),
)  # fmt: skip
"""In the order of the page, behind rewards and held-out numbers. A quantity that is not logged has no line."""


def reward_charts(run: RunFiles) -> list[Drawn]:
    """Rewards by task, then every component with its mean spread within a group."""
    tasks = [Line(key.partition("/")[2], run.series(key)) for key in run.quantities() if key.startswith("reward_mean/")]
    lines = [_spread(run, "all", "reward", "reward_std"), *(tasks if len(tasks) > 1 else ())]
    found = [drawn("reward", lines, last=run.steps or 1)]
    for label in components(run):
        line = _spread(run, label, f"reward/{label}/mean", f"reward/{label}/std", (0.0, 1.0))
        found.append(drawn(label, [line], last=run.steps or 1))
    return [plot for plot in found if plot is not None]


def components(run: RunFiles) -> list[str]:
    """Labels of the components that the log has numbers of."""
    return [
        key.split("/", 1)[1].removesuffix("/mean")
        for key in run.quantities()
        if key.startswith("reward/") and key.endswith("/mean")
    ]


def _spread(run: RunFiles, name: str, mean: str, std: str, bounds: tuple[float, float] = (-inf, inf)) -> Line:
    spread = dict(run.series(std))
    points = run.series(mean)
    band = [
        (max(bounds[0], value - spread.get(step, 0.0)), min(bounds[1], value + spread.get(step, 0.0)))
        for step, value in points
    ]
    return Line(name, points, band if spread else None)


def heldout_charts(run: RunFiles) -> list[Drawn]:
    """Greedy held-out numbers over the steps with 95 % intervals, from before training to after it, and baselines as lines."""
    found = []
    for metric in shown_metrics(run)[:HELDOUT_CHARTS]:
        points, band = [], []
        for step, entry in measured(run, metric):
            points.append((step, entry["value"]))
            band.append(tuple(entry["ci95"] or (entry["value"],) * 2))
        marks = [(name, values[metric]) for name, values in run.baselines.items() if metric in values]
        line = Line("greedy", points, band, dots=True)
        found.append(drawn(metric, [line], marks, last=run.steps or 1))  # fmt: skip
    return [plot for plot in found if plot is not None]


def measured(run: RunFiles, metric: str) -> list[tuple[int, Any]]:
    """(step, number) of every greedy measurement of a metric that has a value, oldest first."""
    found: dict[int, Any] = {}
    for row in run.during:
        if entry := row["changes"].get("greedy", {}).get(metric):
            found.setdefault(0, entry["before"])
            found[int(row["step"])] = entry["after"]
    if entry := (run.heldout.get("changes") or {}).get("greedy", {}).get(metric):
        found[0], found[int(run.heldout.get("steps") or run.done)] = entry["before"], entry["after"]
    return [(step, entry) for step, entry in sorted(found.items()) if entry["value"] is not None]


def shown_metrics(run: RunFiles) -> list[str]:
    """The held-out metrics that the configuration wants to see; all where it names none."""
    sources = [row["changes"] for row in run.during] + [run.heldout.get("changes") or {}]
    there = list(dict.fromkeys(metric for modes in sources for metrics in modes.values() for metric in metrics))
    wanted: Sequence[str] | None = (run.config.get("measure") or {}).get("metrics")
    return there if wanted is None else [metric for metric in wanted if metric in there]


def other_charts(run: RunFiles) -> Iterator[Drawn]:
    """The plots of :data:`PLOTS` that have a point."""
    for plot in PLOTS:
        lines = [Line(key.rpartition("/")[2], _values(run, key)) for key in plot.keys]
        if (made := drawn(plot.title, lines, note=plot.note, last=run.steps or 1)) is not None:
            yield made


def _values(run: RunFiles, key: str) -> list[tuple[int, float]]:
    if key != "groups_zero_std":
        return run.series(key)
    groups = dict(run.series("groups"))
    return [(step, flat / groups[step]) for step, flat in run.series(key) if groups.get(step)]
