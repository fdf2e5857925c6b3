"""A leaderboard: several runs of one protocol beside each other, as text, Markdown, LaTeX or records."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rsw_rewards.evaluation.numbers import number, sign
from rsw_rewards.evaluation.progress import WIDTH

if TYPE_CHECKING:
    import pandas as pd

NOT_IN_PERCENT = (
    "ssim", "ms_ssim", "l1", "mse", "gain_", "preservation", "encoder_similarity", "directional", "clip", "spectral_agreement",
    "nnse", "judge_agreement_kappa", "caption_contrast",
)  # fmt: skip
"""Beginnings of the keys of numbers within -1 and 1 that papers print as they are."""
IN_PERCENT = ("cider", "s_star_m")
"""Keys of other numbers that papers print times 100."""
SIGNIFICANT = 0.05


def percent_key(key: str, bounds: tuple[float, float] | None) -> bool:
    """Whether papers print a number times 100: shares, F1, IoU, kappa and caption metrics, but neither SSIM nor errors nor distances.

    >>> percent_key("f1", (0.0, 1.0)), percent_key("cider", (0.0, 10.0)), percent_key("ssim", (-1.0, 1.0)), percent_key("fid", None)
    (True, True, False, False)
    """
    within = bounds is not None and bounds[0] >= -1.0 and bounds[1] <= 1.0
    return key in IN_PERCENT or (within and not key.startswith(NOT_IN_PERCENT))


def too_few_scenes(n_scenes: int, tests: int) -> list[str]:
    """A sentence where no difference over so few scenes can be shown, whatever the runs are; none where one can.

    >>> too_few_scenes(5, 1)
    ['5 scenes cannot show that one run is better: the least p-value that they can give is 0.0625 (Holm, 1 test); 6 scenes can']
    """
    least = tests * 2.0 ** (1 - n_scenes)
    if not tests or least <= SIGNIFICANT:
        return []
    enough = 1 + math.ceil(math.log2(tests / SIGNIFICANT))
    return [
        f"{n_scenes} scenes cannot show that one run is better: the least p-value that they can give is {min(1.0, least):.3g}"
        f" (Holm, {tests} {'test' if tests == 1 else 'tests'}); {enough} scenes can"
    ]


@dataclass(frozen=True, slots=True)
class Cell:
    """One number of one run, and how it differs from the best run's."""

    value: float | None
    ci95: tuple[float, float] | None
    best: bool = False
    difference: float | None = None
    """This run less the best, over the outputs that count in both."""
    difference_ci95: tuple[float, float] | None = None
    p_value: float | None = None
    p_holm: float | None = None
    """Corrected for all differences of the leaderboard, whose columns are the headline where none are asked for."""
    reason: str = ""

    @property
    def tied(self) -> bool:
        """Not the best, but not shown to be worse either."""
        return not self.best and self.difference is not None and (self.p_holm is None or self.p_holm > SIGNIFICANT)


NOTHING = Cell(None, None, reason="the run does not have this number")


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """A table of runs and their metrics. Values are fractions, as in ``summary.json``; errors and distances have their own unit.

    >>> samples = [{"task": "change_qa", "reference": {"answers": ["yes"], "vocabulary": ["yes", "no"]}}] * 4
    >>> runs = [rsw.evaluate("exact-qa", samples, answers) for answers in (["yes"] * 4, ["no"] * 4)]
    >>> print(rsw.compare(*runs, names=["mine", "theirs"]).to_markdown().splitlines()[0])
    | run | accuracy |
    """

    protocol: str
    names: tuple[str, ...]
    """Runs, in the order of the first metric: the best first."""
    keys: tuple[str, ...]
    cells: Mapping[tuple[str, str], Cell]
    """By run and key."""
    n: int
    """Samples that all runs share."""
    n_scenes: int
    baselines: Mapping[str, Mapping[str, Cell]] = field(default_factory=dict)
    """Rows that the table is printed beside: name -> key -> number."""
    fractions: frozenset[str] = frozenset()
    """Keys of numbers that papers print in percent."""
    warnings: tuple[str, ...] = ()
    """What forbids or weakens the comparison, in words."""
    differences: Callable[[], list[dict[str, Any]]] = field(default=list, compare=False, repr=False)
    """Gives the paired difference of every run to the first one, for every key: ``run``, ``base_run``, ``metric``, ``diagnostic``,
    ``base``, ``value``, ``difference``, ``ci95``, ``n_scenes``, ``p_value``, ``p_mcnemar``, ``p_holm`` (of the headline or of the keys asked for), ``reason``."""

    def to_frame(self) -> pd.DataFrame:
        """The cells as a table: one row per run and key."""
        import pandas as pd

        return pd.DataFrame(self.records())

    def __str__(self) -> str:
        return self.to_text()

    def caption(self) -> str:
        """What the numbers and marks mean."""
        parts = [f"{self.protocol}: {self.n} samples of {self.n_scenes} scenes; 95 % intervals over scenes in brackets"]
        if any(cell.best for cell in self.cells.values()):
            parts.append("* the best run of a column")
        if any(cell.tied for cell in self.cells.values()):
            parts.append("~ not significantly different from it (paired p > 0.05 after Holm's correction)")
        return "; ".join(parts) + "."

    def records(self) -> list[dict[str, Any]]:
        """One dictionary per run and metric, for JSON."""
        rows = []
        for name in self.names:
            for key in self.keys:
                cell = self.cells.get((name, key), NOTHING)
                rows.append({"run": name, "metric": key, **asdict(cell), "tied": cell.tied})
        return rows

    def to_text(self) -> str:
        """Plain tables of at most :data:`WIDTH` columns, with their caption and warnings; metrics that find no room stand in a further table."""
        table = [["run", *(self._head(key, " (lower is better)") for key in self.keys)], *self._rows(_text)]
        widths = [max(len(row[place]) for row in table) for place in range(len(table[0]))]
        parts: list[list[int]] = [[]]
        for place in range(1, len(widths)):
            if parts[-1] and sum(widths[one] + 2 for one in (0, *parts[-1], place)) - 2 > WIDTH:
                parts.append([])
            parts[-1].append(place)
        lines: list[str] = []
        for part in parts:
            shown = [[row[place].ljust(widths[place]) for place in (0, *part)] for row in table]
            shown.insert(1, ["-" * widths[place] for place in (0, *part)])
            lines += [*("  ".join(row).rstrip() for row in shown), ""]
        return "\n".join([*lines, self.caption(), *(f"Warning: {words}" for words in self.warnings)]) + "\n"

    def to_markdown(self) -> str:
        """A GitHub table with its caption and warnings; the best run of a column is bold."""
        head = ["run", *(_markdown(self._head(key, " ↓")) for key in self.keys)]
        lines = [_pipes(head), _pipes(["---", *["---:"] * len(self.keys)])]
        lines += [_pipes(row) for row in self._rows(_bold_markdown, _markdown)]
        notes = [_markdown(self.caption().replace("* the best run", "bold: the best run"))]
        notes += [f"> {_markdown(words)}" for words in self.warnings]
        return "\n".join(lines) + "\n\n" + "\n\n".join(notes) + "\n"

    def to_latex(self, percent: bool = False) -> str:
        """A ``table`` environment for the package booktabs; warnings stand in comments.

        Args:
            percent: write the numbers of ``fractions`` times 100.
        """
        heads = []
        for key in self.keys:
            unit = " (%)" if percent and key in self.fractions else ""
            heads.append(_latex(key + unit) + (r" $\downarrow$" if sign(key) < 0 else ""))
        shown = self.fractions if percent else frozenset()
        rows = self._rows(lambda cell, key: _bold_latex(cell, 100.0 if key in shown else 1.0), _latex)
        of_runs, others = rows[: len(self.names)], rows[len(self.names) :]
        caption = self.caption().replace("* the best run", "bold: the best run").replace("~ not", "TILDE not")
        lines = [
            *(f"% Warning: {' '.join(words.split())}" for words in self.warnings),
            r"\begin{table}",
            r"\centering",
            r"\caption{" + _latex(caption).replace("TILDE", r"$\sim$") + "}",
            r"\begin{tabular}{l" + "r" * len(self.keys) + "}",
            r"\toprule",
            " & ".join(["Run", *heads]) + r" \\",
            r"\midrule",
            *(" & ".join(row) + r" \\" for row in of_runs),
            *([r"\midrule"] if others else []),
            *(" & ".join(row) + r" \\" for row in others),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"

    def _head(self, key: str, falls: str) -> str:
        return key + (falls if sign(key) < 0 else "")

    def _rows(self, show: Any, escape: Any = str) -> list[list[str]]:
        """The runs, then the baselines, as words."""
        rows = [
            [escape(name), *(show(self.cells.get((name, key), NOTHING), key) for key in self.keys)]
            for name in self.names
        ]
        rows += [
            [escape(f"({name})"), *(show(found.get(key, NOTHING), key) for key in self.keys)]
            for name, found in self.baselines.items()
        ]
        return rows


def _interval(cell: Cell, scale: float = 1.0) -> str:
    return "" if cell.ci95 is None else f" [{_digits(cell.ci95[0], scale)}, {_digits(cell.ci95[1], scale)}]"


def _digits(value: float | None, scale: float) -> str:
    if value is None or scale == 1.0:
        return number(value)
    return f"{scale * value:.1f}"


def _text(cell: Cell, key: str) -> str:
    return number(cell.value) + ("*" if cell.best else "~" if cell.tied else "") + _interval(cell)


def _bold_markdown(cell: Cell, key: str) -> str:
    value = f"**{number(cell.value)}**" if cell.best else number(cell.value) + (r" \~" if cell.tied else "")
    return value + _interval(cell)


def _bold_latex(cell: Cell, scale: float) -> str:
    value = "--" if cell.value is None else _minus(_digits(cell.value, scale))
    value = rf"\textbf{{{value}}}" if cell.best else value + (r"$^{\sim}$" if cell.tied else "")
    interval = _minus(_interval(cell, scale).strip())
    return value + (rf" {{\scriptsize {interval}}}" if interval else "")


def _minus(words: str) -> str:
    return re.sub(r"(?<![e\d])-", "$-$", words)


def _pipes(row: Sequence[str]) -> str:
    return "| " + " | ".join(row) + " |"


def _markdown(words: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>|~#])", r"\\\1", " ".join(words.split()))


_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "[": "{[}", "]": "{]}", **{mark: "\\" + mark for mark in "&%$#_{}"},
}  # fmt: skip


def _latex(words: str) -> str:
    """Text that LaTeX shows as it is."""
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(words.split()))
