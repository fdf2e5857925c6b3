"""Finished evaluations to compare: those in memory, and run directories that are read back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rsw_rewards.core.files import read_json
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.core.verifier import Verifier
from rsw_rewards.errors import InputError, RswError
from rsw_rewards.evaluation.evaluation import Evaluation
from rsw_rewards.evaluation.protocols import PROTOCOLS, Protocol
from rsw_rewards.evaluation.run_directory import FEATURES, StoredNumber, owner_of, read_config
from rsw_rewards.features.bank import FeatureBank


class _Baseline(BaseModel):
    metrics: dict[str, StoredNumber] | None = None


class _Summary(BaseModel):
    """What a comparison reads of ``summary.json``."""

    metrics: dict[str, StoredNumber]
    encoders: dict[str, str] | None = None
    baselines: dict[str, _Baseline] | None = None


class FinishedRun:
    """A finished evaluation to compare with others: one in memory, or a run directory that is read back.

    Args:
        source: the evaluation, or the run directory.
        protocol: by which a directory was made; needed where that is not one that has a name. No code is ever run because a run
            directory, which may be somebody else's, names it.

    Raises:
        InputError: the folder holds no finished run, or one of another protocol.
    """

    def __init__(self, source: Path | str | Evaluation, protocol: str | Protocol | None = None) -> None:
        self.folder: Path | None = None
        self.evaluation = source if isinstance(source, Evaluation) else None
        if isinstance(source, Evaluation):
            self.config, self.summary, self.protocol = source.config, source.summary, source.protocol
            self.table, self.bank = source.table, source.bank or FeatureBank()
        else:
            self.folder = Path(source)
            self._read(self.folder, PROTOCOLS.find(protocol) if isinstance(protocol, str) else protocol)
        frame = self.table.frame
        self.outputs = frozenset(zip(frame["scene"], frame["sample"], frame["candidate"], strict=True))
        """Scene, sample and candidate of every row."""

    def _read(self, folder: Path, protocol: Protocol | None) -> None:
        try:
            self.config = read_config(folder / "config.yaml")
            self.summary = read_json(folder / "summary.json", _Summary)
        except RswError as error:
            raise InputError(f"{folder} is not a finished run directory: {error}") from error
        name = self.config["protocol"]
        named = protocol or (PROTOCOLS.find(name) if name in PROTOCOLS else None)
        if named is None or named.name != name:
            raise InputError(
                f"{folder} is of the protocol {name!r}; say where that is defined (protocol=..., --protocol file.py:NAME)"
            )
        self.protocol = _as_run(named, self.config.get("components") or ())
        owner = owner_of(self.config)
        if (told := owner_of({**self.config, **self.summary})) != owner:
            raise InputError(
                f"{folder / 'summary.json'} belongs to another run ({told}, not {owner}); bring back its own"
            )
        self.table = ScoreTable.read(folder / "scores.parquet", owner)
        self.bank = FeatureBank(directory=folder / FEATURES)

    def __str__(self) -> str:
        return "the run in memory" if self.folder is None else str(self.folder)

    def verifiers(self) -> dict[str, Verifier]:
        """The verifiers of the protocol, by component."""
        return {component.label: component.build() for component in self.protocol.rubric.components}

    def only(self, outputs: frozenset[tuple[Any, ...]]) -> ScoreTable:
        """The rows of some outputs."""
        if outputs >= self.outputs:
            return self.table
        frame = self.table.frame
        keys = zip(frame["scene"], frame["sample"], frame["candidate"], strict=True)
        return self.table.where([key in outputs for key in keys])


def _as_run(protocol: Protocol, components: Sequence[Mapping[str, Any]]) -> Protocol:
    """The protocol with its verifiers configured as they were. Which verifiers there are is never read from a run directory,
    which may be somebody else's."""
    then = {(part.get("name"), part.get("use")): part.get("config") for part in components}
    parts = []
    for part, written in zip(protocol.components, protocol.written(), strict=True):
        config = then.get((written.get("name"), written["use"]))
        parts.append({**part, "config": config} if config else part)
    return replace(protocol, components=tuple(parts))


def read_runs(
    sources: Sequence[Path | str | Evaluation | FinishedRun], protocol: str | Protocol | None = None
) -> list[FinishedRun]:
    """Runs that may be compared; those that are read already stay as they are.

    Raises:
        InputError: fewer than two runs, a folder that holds none, the same run twice, runs of different protocols, or runs
            without a sample in common.
    """
    if len(sources) < 2:
        raise InputError("give two or more runs to compare")
    runs = [source if isinstance(source, FinishedRun) else FinishedRun(source, protocol) for source in sources]
    places = Counter(id(run.table) if run.folder is None else run.folder.resolve() for run in runs)
    if twice := [place for place, count in places.items() if count > 1]:
        raise InputError(f"{twice[0] if isinstance(twice[0], Path) else 'a run'} is given twice; give different runs")
    base = runs[0]
    for run in runs[1:]:
        if run.protocol.name != base.protocol.name:
            raise InputError(
                f"{run} is of the protocol {run.protocol.name}, {base} of {base.protocol.name}: "
                "metrics of different protocols cannot be compared"
            )
    if not shared_outputs(runs):
        raise InputError(
            f"the runs {', '.join(map(str, runs))} have no sample in common: evaluate all of them on one file"
        )
    return runs


def shared_outputs(runs: Sequence[FinishedRun]) -> frozenset[tuple[Any, ...]]:
    """Scene, sample and candidate of the rows that all runs have."""
    return frozenset.intersection(*(run.outputs for run in runs))
