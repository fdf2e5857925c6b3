"""A run directory: configuration, digests of all inputs, scores written as they come, and summary. Survives a kill at any moment.

The digests are of every sample, its truth and its outputs, so that no run goes on over others.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from rsw_rewards.core.files import checksum, digest_of, read_table, write_json, write_table
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.scores import ScoreTable, Status
from rsw_rewards.core.yaml_text import read_yaml, write_run_yaml
from rsw_rewards.errors import InputError

IDENTITIES = "inputs.parquet"
FEATURES = "features"
"""Where a run directory keeps the encoder features that its numbers are computed from."""
FIELDS = {
    "scene": "another scene",
    "kind": "another kind",
    "prompt": "another prompt",
    "metadata": "other metadata",
    "reference": "another truth (its reference, or pixels of an image in it)",
    "images": "other images (which, how they are read, or their pixels)",
    "outputs": "other outputs",
}
"""What a sample is told by -> how it is said that this differs."""
DIGITS = 12
LOST = "lost"
"""In place of a digest of outputs of which one was lost through our fault: made again, they may be any."""

Identity = tuple[str, ...]
"""A digest for each of :data:`FIELDS`."""

_PACKAGES = ("rsw_rewards", "torch", "transformers", "open_clip_torch", "numpy", "scipy", "pandas", "scikit-image")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
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
        digests: what the scores belong to, kept in ``inputs.parquet``.
        resume: keep the scores that are there; otherwise the folder must not hold a run already.

    Raises:
        InputError: the folder holds scores of something else, a run and ``resume`` is off, or a run of another configuration or of other outputs; or it
            cannot be made.
    """

    def __init__(
        self, folder: Path, config: Mapping[str, Any], digests: Mapping[str, Identity], resume: bool = False
    ) -> None:
        self.folder = Path(folder)
        self.features = self.folder / FEATURES
        self.report = self.folder / "report.html"
        self.owner = owner_of(config)
        self.parts = self.folder / "scores.parts"
        known = self.folder / "config.yaml"
        self.resumed = known.exists()
        """Whether it may hold scores of an earlier attempt."""
        if self.resumed:
            old = read_config(known)
            if not resume:
                raise InputError(
                    f"{self.folder} holds a run already; go on with --resume (resume=True), or name another folder"
                )
            again = old.get("inputs_hash") != config.get("inputs_hash")
            if again and (other := self._first_other(digests, old.get("inputs_hash"))):
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
        write_identities(self.folder / IDENTITIES, digests)
        write_run_yaml(known, config)

    def _first_other(self, digests: Mapping[str, Identity], owner: Any) -> str:
        """The first sample that is another one than that of the run, as the end of a sentence; empty where none is."""
        try:
            known = read_identities(self.folder / IDENTITIES)
            found = difference(known, digests) or (
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
            for path in (self.folder / "scores.parquet", *sorted(self.parts.glob("part-*.parquet")))
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
        number = max((int(path.stem.split("-")[1]) for path in self.parts.glob("part-*.parquet")), default=-1) + 1
        table.write(self.parts / f"part-{number:05d}.parquet", self.owner)

    def finish(self, table: ScoreTable, summary: Mapping[str, Any]) -> None:
        """Write all rows as ``scores.parquet``, drop the parts, and write ``summary.json``."""
        table.write(self.folder / "scores.parquet", self.owner)
        shutil.rmtree(self.parts, ignore_errors=True)
        write_json(self.folder / "summary.json", summary)


def identities(samples: Sequence[Sample], outputs: Sequence[Output]) -> dict[str, Identity]:
    """Digests by sample. Image files count by their bytes, images in memory by their pixels."""
    known: dict[int, str] = {}  # many samples share an image, and its reference
    answered: dict[str, list[str]] = {}
    lost = {output.sample_id for output in outputs if output.lost is not None}

    def told(images: Iterable[ImageRef]) -> list[str]:
        return [known.get(id(image)) or known.setdefault(id(image), _told(image)) for image in images]

    for output in outputs:
        answer = (output.candidate, output.text, output.boxes, output.invalid, output.lost, told(output.every_image))
        answered.setdefault(output.sample_id, []).append(repr(answer))
    found = {}
    for sample in samples:
        truth = sample.every_image[len(sample.images) :]
        parts = (
            sample.scene, sample.kind, sample.prompt,
            repr(sorted(sample.metadata.items(), key=itemgetter(0)) if sample.metadata else ()),
            repr((sorted(sample.reference.items(), key=itemgetter(0)), told(truth))),
            repr(told(sample.images)),
            repr(answered.get(sample.id)),
        )  # fmt: skip
        digests = tuple(checksum(repr(part))[:DIGITS] for part in parts)
        found[sample.id] = (*digests[:-1], LOST) if sample.id in lost else digests
    return found


def _told(image: ImageRef) -> str:
    """How an image is read, and the bytes of its file, wherever it lies; its place where it is not there."""
    content = ""
    if image.path is not None:
        try:
            content = digest_of(image.path)
        except OSError:
            return repr((image, "not there"))
        image = replace(image, path=Path(image.path.suffix))
    return repr((image, content))


def hash_of(found: Mapping[str, Identity]) -> str:
    """Twelve hexadecimal digits that change with a sample, a truth or an output."""
    return checksum(repr(list(found.items())))[:DIGITS]


def difference(old: Mapping[str, Identity], new: Mapping[str, Identity], shared: bool = False) -> str:
    """The first sample in which two differ, as a clause; empty where none does, but for outputs that were lost before.

    Args:
        shared: look only at samples that both have.

    >>> from rsw_rewards.evaluation.run_directory import difference
    >>> difference({"q1": ("a",) * 7}, {"q1": ("a", "b", *"aaaaa")})
    "the sample 'q1' has another kind"
    """
    for name, parts in new.items():
        if name not in old:
            if not shared:
                return f"the sample {name!r} is not among them"
            continue
        for words, before, after in zip(FIELDS.values(), old[name], parts, strict=True):
            if before != after and before != LOST:
                return f"the sample {name!r} has {words}"
    if not shared and (gone := next((name for name in old if name not in new), None)) is not None:
        return f"the sample {gone!r} is missing"
    return "" if shared or list(old) == list(new) else "the samples stand in another order"


def write_identities(path: Path, found: Mapping[str, Identity]) -> None:
    """Write digests as Parquet: a column ``sample`` and one for each of :data:`FIELDS`."""
    import pyarrow as pa

    columns = zip(*found.values(), strict=True) if found else ((),) * len(FIELDS)
    table = {"sample": list(found), **dict(zip(FIELDS, map(list, columns), strict=True))}
    write_table(path, pa.table({name: pa.array(column, pa.string()) for name, column in table.items()}))


def read_identities(path: Path) -> dict[str, Identity]:
    """What :func:`write_identities` wrote. Raises :class:`InputError` for a file that is damaged or holds something else."""
    columns = [column.to_pylist() for column in read_table(path, ["sample", *FIELDS]).columns]
    return {name: tuple(parts) for name, *parts in zip(*columns, strict=True)}
