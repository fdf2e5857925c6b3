"""What one protocol's evaluation found, and how it is shown and written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.evaluation.numbers import number
from rsw_rewards.evaluation.protocols import Protocol
from rsw_rewards.evaluation.report import write_report
from rsw_rewards.evaluation.run_directory import Identity, RunDirectory
from rsw_rewards.features.bank import FeatureBank
from rsw_rewards.io.pairing import Problem

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Number:
    """One number of an evaluation."""

    value: float | None
    """In the unit of the metric; None where it is undefined."""
    ci95: tuple[float, float] | None
    """Its 95 % interval over scenes; None where there is none, and then ``reason`` says why."""
    n: int
    """Outputs that it is taken over."""
    n_scenes: int
    reason: str = ""
    valid_rate: float = 1.0
    """Share of these outputs that were valid."""
    value_of_valid: float | None = None
    """Over the valid outputs alone, where these are too few for ``value``."""
    diagnostic: bool = False
    """Whether it helps to read the headline of the protocol, and is no part of it."""
    chance_corrected: float | None = None
    """Of an accuracy: 0 for always giving the most common answer of a kind of question, 1 for a perfect model."""
    chance_corrected_ci95: tuple[float, float] | None = None

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Number:
        """From an entry of ``metrics`` in ``summary.json``."""
        intervals = {key: tuple(entry[key]) for key in ("ci95", "chance_corrected_ci95") if entry.get(key)}
        return cls(**{"ci95": None, **entry, **intervals})


@dataclass(repr=False)
class Evaluation:
    """The result of an evaluation by one protocol: metrics with intervals, all scores, and the report.

    >>> samples = [{"task": "change_qa", "reference": {"answers": ["yes"], "vocabulary": ["yes", "no"]}}] * 4
    >>> found = rsw.evaluate("exact-qa", samples, ["yes", "yes", "no", "yes"])
    >>> found.metrics["accuracy"].value
    0.75
    >>> found.scores["value"].tolist()
    [1.0, 1.0, 0.0, 1.0]
    """

    protocol: Protocol
    samples: list[Sample]
    """The samples of the protocol's task."""
    outputs: list[Output]
    """The outputs for them, with an invalid one for every sample that had none."""
    table: ScoreTable
    summary: dict[str, Any]
    """All that ``summary.json`` holds: numbers, slices, baselines, published rows, warnings."""
    problems: list[Problem] = field(default_factory=list)
    """Records among the outputs that could not be used as they were, and samples without an output."""
    config: dict[str, Any] = field(default_factory=dict)
    """What ``config.yaml`` holds: the protocol, its components, versions, hashes of configuration and inputs."""
    digests: Mapping[str, Identity] = field(default_factory=dict)
    """What the scores belong to: digests of every sample, its truth and its outputs."""
    bank: FeatureBank | None = None
    """Encoder features of the images, for numbers of sets."""

    @property
    def metrics(self) -> dict[str, Number]:
        """The numbers of the protocol by key, those of its headline first."""
        return {key: Number.of(entry) for key, entry in self.summary["metrics"].items()}

    @property
    def scores(self) -> pd.DataFrame:
        """One row per output and verifier: value, status, reason, raw numbers."""
        return self.table.frame

    def to_frame(self) -> pd.DataFrame:
        """The numbers as a table: one row per key with ``value``, ``low`` and ``high`` (the 95 % interval), ``n``, ``n_scenes``."""
        import pandas as pd

        rows = {}
        for key, one in self.metrics.items():
            low, high = one.ci95 or (None, None)
            rows[key] = {"value": one.value, "low": low, "high": high, "n": one.n, "n_scenes": one.n_scenes}
        frame = pd.DataFrame.from_dict(rows, orient="index")
        return frame.astype(dict.fromkeys(("value", "low", "high"), float) if rows else {})

    def report(self, path: str | PathLike[str]) -> Path:
        """Write the report and return its path; the pages of all samples lie beside it, in a folder of the same name. None needs a network."""
        return write_report(Path(path), self.protocol, self.summary, self.table, self.samples, self.outputs)

    def save(self, folder: str | PathLike[str]) -> Path:
        """Write ``config.yaml``, ``inputs.parquet``, ``scores.parquet``, ``summary.json``, ``report.html``, its pages and features, and return the folder.

        ``rsw compare`` and :func:`rsw_rewards.compare` read it.

        Raises:
            InputError: the folder holds another run, or cannot be made.
        """
        run = RunDirectory(Path(folder), self.config, self.digests, resume=True)
        if self.bank is not None:
            self.bank.copy_to(run.features)
        run.finish(self.table, self.summary)
        self.report(run.report)
        return run.folder

    def __repr__(self) -> str:
        shown = []
        for key, one in self.metrics.items():
            interval = f" ({number(one.ci95[0])} to {number(one.ci95[1])})" if one.ci95 else ""
            shown.append(f"{key} {number(one.value)}{interval}")
        return f"<{self.protocol.name}: {len(self.samples)} samples, {', '.join(shown)}>"
