"""A run directory: resolved configuration, scores written as they come, and summary. Survives a kill at any moment."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from rsw_rewards.core.files import write_json
from rsw_rewards.core.scores import ScoreTable, Status
from rsw_rewards.core.yaml_text import read_yaml, write_run_yaml
from rsw_rewards.errors import InputError
from rsw_rewards.evaluation.identity import Identity, difference, hash_of, read_identities, write_identities

IDENTITIES = "inputs.parquet"
FEATURES = "features"
"""Where a run directory keeps the encoder features that its numbers are computed from."""

_PACKAGES = ("rsw_rewards", "torch", "transformers", "open_clip_torch", "numpy", "scipy", "pandas", "scikit-image")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def owner_of(config: Mapping[str, Any]) -> str:
    """What the scores of a run say that they belong to: its protocol and its inputs."""
    return f"{config.get('protocol')} of {config.get('inputs_hash')}"


_Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class StoredNumber(BaseModel):
    """A number as files of a run hold it."""

    value: _Finite | None
    ci95: tuple[_Finite, _Finite] | None
    n_scenes: int = 0
    reason: str = ""


def read_config(path: Path) -> dict[str, Any]:
    """The ``config.yaml`` of an evaluation. Raises :class:`RswError` for one that is damaged or of something else."""
    content = read_yaml(path)
    if not isinstance(content.get("protocol"), str):
        raise InputError(f"{path} is not of an evaluation: it names no protocol")
    components = content.get("components") or []
    if not isinstance(components, list) or not all(isinstance(part, Mapping) for part in components):
        raise InputError(f"{path}: components: it must be a list of mappings, not {components!r:.80}")
    return content


class RunDirectory:
    """The files of one evaluation.

    Args:
        folder: made where it does not exist.
        config: the resolved configuration; ``config_hash`` and ``inputs_hash`` in it must not change between a run and its
            resumption.
        asked: what the scores belong to, kept in ``inputs.parquet``.
        resume: keep the scores that are there; otherwise the folder must not hold a run already.

    Raises:
        InputError: the folder holds scores of something else, a run and ``resume`` is off, or a run of another configuration or of other outputs; or it
            cannot be made.
    """

    def __init__(
        self, folder: Path, config: Mapping[str, Any], asked: Mapping[str, Identity], resume: bool = False
    ) -> None:
        self.folder = Path(folder)
        self.features = self.folder / FEATURES
        self.report = self.folder / "report.html"
        self.owner = owner_of(config)
        self.parts = self.folder / "scores.parts"
        known = self.folder / "config.yaml"
        if known.exists():
            old = read_config(known)
            if not resume:
                raise InputError(
                    f"{self.folder} holds a run already; go on with --resume (resume=True), or name another folder"
                )
            again = old.get("inputs_hash") != config.get("inputs_hash")
            if again and (other := self._first_other(asked, old.get("inputs_hash"))):
                raise InputError(
                    f"{self.folder} holds scores of other samples, truths or outputs than those given now{other}; name another folder"
                )
            if old.get("config_hash") != config.get("config_hash"):
                raise InputError(
                    f"{self.folder} was made with another configuration, other code or files of a verifier, or other samples"
                    f" ({old.get('config_hash')}, now {config.get('config_hash')}); name another folder"
                )
            if again:  # outputs that were lost have been made since: everything is scored again, features are kept
                (self.folder / "scores.parquet").unlink(missing_ok=True)
                shutil.rmtree(self.parts, ignore_errors=True)
        elif (self.folder / "scores.parquet").exists() or self.parts.exists():
            raise InputError(
                f"{self.folder} holds scores that no evaluation wrote (no config.yaml); name another folder"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"the folder {self.folder} cannot be made: {error.strerror}; name another folder"
            ) from error
        write_identities(self.folder / IDENTITIES, asked)
        write_run_yaml(known, config)

    def _first_other(self, asked: Mapping[str, Identity], owner: Any) -> str:
        """The first sample that is another one than that of the run, as the end of a sentence; empty where none is."""
        try:
            known = read_identities(self.folder / IDENTITIES)
            found = difference(known, asked) or (
                "" if hash_of(known) == owner else f"{IDENTITIES} belongs to another run"
            )
        except InputError as error:  # the hashes differ all the same
            found = str(error)
        return f": {found}" if found else ""

    def done(self, hashes: Mapping[str, str]) -> ScoreTable:
        """Rows of earlier attempts that need not be done again: errors and time-outs of ours are left out.

        Args:
            hashes: component -> hash of its verifier.

        Raises:
            InputError: rows are damaged, or of other settings or code of a verifier.
        """
        tables = [
            ScoreTable.read(path, self.owner)
            for path in (self.folder / "scores.parquet", *self._part_files())
            if path.exists()
        ]
        table = ScoreTable.concat(tables)
        if not len(table):
            return table
        of = table.frame["verifier"].map(hashes)
        if (other := of.notna() & (of != table.frame["config_hash"])).any():
            raise InputError(
                f"{self.folder} holds scores by other settings or code of {table.frame['verifier'][other].iloc[0]!r} than those of now;"
                " name another folder"
            )
        fine = ~table.frame["status"].isin((Status.ERROR, Status.TIMEOUT))
        rows = table.frame[fine].drop_duplicates(["sample", "candidate", "verifier"], keep="last")
        return ScoreTable(rows.reset_index(drop=True))

    def append(self, table: ScoreTable) -> None:
        """Write the rows of one chunk as a part of their own; it appears whole or not at all."""
        number = max((int(path.stem.split("-")[1]) for path in self._part_files()), default=-1) + 1
        table.write(self.parts / f"part-{number:05d}.parquet", self.owner)

    def finish(self, table: ScoreTable, summary: Mapping[str, Any]) -> None:
        """Write all rows as ``scores.parquet``, drop the parts, and write ``summary.json``."""
        table.write(self.folder / "scores.parquet", self.owner)
        shutil.rmtree(self.parts, ignore_errors=True)
        write_json(self.folder / "summary.json", summary)

    def _part_files(self) -> list[Path]:
        return sorted(self.parts.glob("part-*.parquet"))
