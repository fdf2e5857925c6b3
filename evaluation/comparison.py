"""Comparing runs: paired differences over the scenes that they share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from rsw_rewards.contracts import Verifier
from rsw_rewards.errors import InputError
from rsw_rewards.evaluation.protocols import Protocol, get_protocol
from rsw_rewards.evaluation.summary import compare
from rsw_rewards.features import FeatureBank
from rsw_rewards.scores import ScoreTable


class Run:
    """A finished run directory, read back."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        try:
            config = yaml.safe_load((self.folder / "config.yaml").read_text(encoding="utf-8"))
            self.summary: dict[str, Any] = json.loads((self.folder / "summary.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise InputError(f"{folder} is not a finished run directory: {error}") from error
        self.protocol: Protocol = get_protocol(config["protocol"])
        self.table = ScoreTable.read(self.folder / "scores.parquet")

    def verifiers(self) -> dict[str, Verifier]:
        """The verifiers of the protocol, by component."""
        return {component.label: component.build() for component in self.protocol.rubric.components}


class _Features:
    """Stored features of two runs."""

    def __init__(self, *folders: Path) -> None:
        self.banks = [FeatureBank(directory=folder / "features") for folder in folders]

    def features(self, encoder: str, hashes: Sequence[str]) -> Any:
        import numpy as np

        rows = []
        for digest in hashes:
            for bank in self.banks:
                try:
                    rows.append(bank.features(encoder, [digest])[0])
                    break
                except KeyError:
                    continue
            else:
                raise KeyError(f"no {encoder} features are stored for the image {digest[:12]}")
        return np.stack(rows)


def compare_runs(folders: Sequence[Path], keys: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Differences of every run to the first, for every number of their protocol.

    Returns:
        Records ``run``, ``metric``, ``base``, ``value``, ``difference``, ``ci95``, ``n_scenes``.

    Raises:
        InputError: fewer than two runs, a folder that holds none, or runs of different protocols.
    """
    if len(folders) < 2:
        raise InputError("give two or more run directories to compare")
    runs = [Run(folder) for folder in folders]
    base = runs[0]
    rows: list[dict[str, Any]] = []
    for run in runs[1:]:
        if run.protocol.name != base.protocol.name:
            raise InputError(
                f"{run.folder} is of the protocol {run.protocol.name}, {base.folder} of {base.protocol.name}: "
                "numbers of two protocols are not compared"
            )
        features = _Features(base.folder, run.folder)
        found = compare(base.protocol, base.verifiers(), base.table, run.table, features, keys)
        for key, estimate in found.items():
            rows.append(
                {
                    "run": str(run.folder),
                    "metric": key,
                    "base": base.summary["metrics"].get(key, {}).get("value"),
                    "value": run.summary["metrics"].get(key, {}).get("value"),
                    "difference": estimate.value,
                    "ci95": list(estimate.ci95) if estimate.ci95 else None,
                    "n_scenes": estimate.n_scenes,
                }
            )
    return rows
