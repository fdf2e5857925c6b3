"""Figures of a comparison for papers, as SVG and PDF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rsw_rewards.errors import InputError
from rsw_rewards.evaluation.leaderboard import NOTHING, Leaderboard
from rsw_rewards.evaluation.numbers import arrow
from rsw_rewards.extras import need

Point = tuple[str, float, Sequence[float] | None]
"""Name, value and interval."""
KINDS = ("svg", "pdf")
COLUMNS = 3
"""Metrics beside each other."""


def write_figures(folder: Path, board: Leaderboard) -> list[Path]:
    """Write ``numbers`` (every run by metric, with 95 % intervals) and ``differences`` (each run less the first, paired), each as SVG and PDF.

    Args:
        folder: made where it does not exist.
        board: of the comparison.

    Returns:
        The files.

    Raises:
        MissingExtra: matplotlib is not installed.
        InputError: the folder cannot be made.
    """
    need("figures", "matplotlib")
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be made: {error.strerror}; name another folder") from error
    numbers: dict[str, list[Point]] = {}
    for key in board.keys:
        cells = [(name, board.cells.get((name, key), NOTHING)) for name in board.names]
        numbers[key] = [(name, cell.value, cell.ci95) for name, cell in cells if cell.value is not None]
    paired: dict[str, list[Point]] = {}
    for row in board.differences():
        if row["metric"] in board.keys and row["difference"] is not None:
            paired.setdefault(row["metric"], []).append(
                (f"{row['run']} less {row['base_run']}", row["difference"], row["ci95"])
            )
    return [*_drawn(folder / "numbers", numbers), *_drawn(folder / "differences", paired, zero=True)]


def _drawn(path: Path, plots: Mapping[str, Sequence[Point]], zero: bool = False) -> list[Path]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = {key: points for key, points in plots.items() if points}
    if not shown:
        return []
    across = min(COLUMNS, len(shown))
    down = -(-len(shown) // across)
    height = 0.7 + 0.28 * max(len(points) for points in shown.values())
    figure = Figure(figsize=(2.6 * across + 0.6, height * down), layout="constrained")
    FigureCanvasAgg(figure)
    grid: Any = figure.subplots(down, across, squeeze=False)
    for place, (key, points) in enumerate(shown.items()):
        axes = grid[place // across][place % across]
        for row, (_, value, ci95) in enumerate(reversed(points)):
            if ci95 is not None:
                axes.plot(ci95, [row, row], color="0.55", linewidth=2, solid_capstyle="round")
            axes.plot([value], [row], "o", color="#1f5f99", markersize=5)
        axes.set_yticks(range(len(points)), [name for name, *_ in reversed(points)], fontsize=8)
        axes.set_ylim(-0.6, len(points) - 0.4)
        axes.tick_params(axis="x", labelsize=8)
        axes.set_title(f"{key} {arrow(key)}", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        if zero:
            axes.axvline(0.0, color="0.3", linewidth=0.8)
    for place in range(len(shown), down * across):
        grid[place // across][place % across].set_axis_off()
    files = [path.with_suffix(f".{kind}") for kind in KINDS]
    for file in files:
        figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else {"CreationDate": None})
    return files
