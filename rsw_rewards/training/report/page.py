"""``report.html`` of a training, from its folder alone, and pages of its dumped generations beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rsw_rewards.core.files import write_text
from rsw_rewards.core.yaml_text import write_yaml
from rsw_rewards.evaluation.numbers import signed
from rsw_rewards.evaluation.pages import PAGE_LIMIT, gathered, render
from rsw_rewards.rollouts.trained import REPORT, REPORT_PAGES
from rsw_rewards.training.report.charts import heldout_charts, other_charts, reward_charts, shown_metrics
from rsw_rewards.training.report.findings import findings
from rsw_rewards.training.report.heldout_outputs import before_and_after
from rsw_rewards.training.report.rollouts import groups, read_dump
from rsw_rewards.training.report.run_files import RunFiles, read_run

TILES = 6
"""Most held-out metrics at the top."""
FEW = 4
"""Groups of the first and of the last dump that the main page itself shows."""
FEW_LIMIT = 1_000_000
"""Characters of images of each of these two."""


def write_report(folder: Path) -> Path:
    """Write ``report.html`` of a run, while it goes on or after it; pages of dumps that are there already are kept.

    Raises:
        InputError: the folder holds no training run, or a file of it is damaged.
    """
    run = read_run(folder)
    dumps = [read_dump(path, run) for path in _ends(run.dumps)]
    rollouts = [{"step": _step(path) + 1, "pages": _dump_pages(path, run)} for path in run.dumps]
    table = changes_table(run)
    forecasts, answers = before_and_after(run.folder / "heldout")
    page = render(
        "training.html",
        run=run,
        name=run.folder.resolve().name,
        findings=findings(run, [dump.counts for dump in dumps]),
        tiles=[row for row in table if row["mode"] == "greedy"][:TILES],
        rewards=reward_charts(run),
        heldout=heldout_charts(run),
        others=list(other_charts(run)),
        table=table,
        few=[{"step": dump.step + 1, "groups": gathered(groups(dump, FEW), FEW_LIMIT)} for dump in dumps],
        rollouts=rollouts,
        forecasts=gathered(forecasts) if forecasts else None,
        answers=answers,
        configuration=write_yaml(run.config),
        written=time.strftime("%Y-%m-%d %H:%M"),
        refresh=not run.heldout and bool(run.steps) and run.done < (run.steps or 0),
    )  # fmt: skip
    write_text(run.folder / REPORT, page)
    return run.folder / REPORT


def _ends(dumps: Sequence[Path]) -> list[Path]:
    """The first dump and the last."""
    return [*dumps[:1], *(dumps[-1:] if len(dumps) > 1 else ())]


def _step(dump: Path) -> int:
    return int(dump.name.removeprefix("step_"))


def _dump_pages(dump: Path, run: RunFiles) -> list[str]:
    """Addresses of the pages of one dump, which are written where they are missing or older than the dump."""
    folder = run.folder / REPORT_PAGES
    made = sorted(folder.glob(f"{dump.name}-*.html"))
    if not made or min(path.stat().st_mtime for path in made) < dump.stat().st_mtime:
        for path in made:
            path.unlink()
        folder.mkdir(exist_ok=True)
        cards, pages = groups(read_dump(dump, run)), []
        while cards:
            pages.append(gathered(cards, PAGE_LIMIT))
            del cards[: len(pages[-1]["cards"])]
        made = [folder / f"{dump.name}-{place:03d}.html" for place in range(1, len(pages) + 1)]
        for path, found in zip(made, pages, strict=True):
            about = {"name": run.folder.resolve().name, "step": _step(dump) + 1, "pages": [one.name for one in made]}
            write_text(path, render("rollouts.html", groups=found, this=path.name, **about))
    return [f"{REPORT_PAGES}/{path.name}" for path in made]


def changes_table(run: RunFiles) -> list[dict[str, Any]]:
    """Held-out numbers before and after training, or at the newest measurement, with the baselines of each metric."""
    changes = run.heldout.get("changes") or (run.during[-1]["changes"] if run.during else {})
    shown = shown_metrics(run)
    rows = []
    for mode, metrics in changes.items():
        for metric in [key for key in shown if key in metrics]:
            marks = {name: values[metric] for name, values in run.baselines.items() if metric in values}
            rows.append(
                {
                    "metric": metric,
                    "mode": mode,
                    "baselines": marks,
                    "words": _in_words(metrics[metric]),
                    **metrics[metric],
                }
            )
    return rows


def _in_words(change: Mapping[str, Any]) -> str:
    """The difference with its interval."""
    difference = change["difference"]
    ends = difference["ci95"]
    return signed(difference["value"]) + (f" [{signed(ends[0])}, {signed(ends[1])}]" if ends else "")


class LivePage:
    """Rewrites the page of a run while it goes on, in at most a fiftieth of the time.

    Args:
        folder: of the run.
        say: is told, once, why the page could not be written, which stops no training.
    """

    def __init__(self, folder: Path, say: Callable[[str], None] = print) -> None:
        self.folder, self.say = Path(folder), say
        self._due = time.monotonic() + 10.0
        self._failed = False

    def refresh(self, now: bool = False) -> None:
        """Write the page if it is time, or ``now``."""
        start = time.monotonic()
        if not now and start < self._due:
            return
        try:
            write_report(self.folder)
        except Exception as error:  # a page is no reason to lose a training
            if not self._failed:
                self.say(f"{self.folder / REPORT} could not be written: {error}")
            self._failed = True
        end = time.monotonic()
        self._due = end + max(10.0, 50 * (end - start))
