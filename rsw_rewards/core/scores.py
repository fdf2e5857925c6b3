"""Scores with a status, and the one table they are stored, resumed, re-weighted, summarised and compared in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rsw_rewards.core.files import read_table, write_table
from rsw_rewards.errors import InputError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


class Status(StrEnum):
    """Whether a score could be computed and, if not, why. A failure that is not the policy's never becomes a number.

    >>> rsw.Score.invalid("it is empty").status
    <Status.INVALID_OUTPUT: 'invalid_output'>
    """

    OK = "ok"
    INVALID_OUTPUT = "invalid_output"
    """The policy's fault: unparsable, undecodable, missing. Value 0.0."""
    NOT_APPLICABLE = "not_applicable"
    """The sample (never the output) makes the question meaningless. No value."""
    ERROR = "error"
    """Our fault. No value."""
    TIMEOUT = "timeout"
    """Our fault: the verifier did not answer in time. No value."""


@dataclass(frozen=True, slots=True)
class Score:
    """The score of one output by one verifier.

    >>> rsw.Score(0.5, raw={"iou": 0.5}).status == "ok", rsw.Score.error("it broke").value
    (True, None)
    """

    value: float | None
    """The reward in [0, 1], higher is better. None for a failed score, and for verifiers that only measure (``rewarding`` False)."""
    status: Status = Status.OK
    raw: Mapping[str, float] = field(default_factory=dict)
    """The metric in its natural units (IoU, dB, metres)."""
    stats: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False)
    """Additive sufficient statistics, each of a fixed shape, float64 or integer."""
    reason: str = ""
    """In words a person can act on."""
    content: Mapping[str, str] = field(default_factory=dict)
    """What a set-level metric needs beside numbers, e.g. ``output``, ``reference``: content hashes of images to look up in the
    feature bank, or the tokens of a text."""

    def __post_init__(self) -> None:
        if type(self.status) is not Status:
            if self.status not in tuple(Status):
                raise ValueError(
                    f"no status is named {self.status!r}; {did_you_mean(str(self.status), map(str, Status))}"
                )
            object.__setattr__(self, "status", Status(self.status))
        if not isinstance(self.reason, str):
            raise ValueError(f"the reason of a score is a text, not {self.reason!r:.80}")
        if self.status in (Status.OK, Status.INVALID_OUTPUT):
            if self.value is not None and not 0.0 <= self.value <= 1.0:  # NaN fails both comparisons
                raise ValueError(f"a score with status {self.status} needs a value in [0, 1], not {self.value!r}")
            if self.value is None and self.status is Status.INVALID_OUTPUT:
                raise ValueError("an invalid output has the value 0.0, not None")
        elif self.value is not None:
            raise ValueError(f"a score with status {self.status} has no value, not {self.value!r}")
        if self.value is not None and type(self.value) is not float:  # True, a number of NumPy's, a tensor of one
            object.__setattr__(self, "value", float(self.value))

    def flaw(self) -> str:
        """Why no table can hold it, as a clause; empty where one can.

        >>> rsw.Score(1.0, raw={"why": "it is short"}).flaw()
        "raw['why'] is no number: 'it is short'"
        """
        for name, kind, holds in (
            ("raw", "number", _is_number),
            ("stats", "array of numbers", _is_array),
            ("content", "text", _is_text),
        ):
            held = getattr(self, name)
            if not isinstance(held, Mapping):
                return f"{name} is no mapping: {held!r:.80}"
            for key, item in held.items():
                if not isinstance(key, str):
                    return f"{name} has a key that is no text: {key!r:.80}"
                if not holds(item):
                    return f"{name}[{key!r}] is no {kind}: {item!r:.80}"
        return ""

    @classmethod
    def invalid(cls, reason: str, **kwargs: Any) -> Score:
        """The output cannot be scored and that is the policy's fault."""
        return cls(0.0, Status.INVALID_OUTPUT, reason=reason, **kwargs)

    @classmethod
    def not_applicable(cls, reason: str) -> Score:
        """The sample does not ask this question."""
        return cls(None, Status.NOT_APPLICABLE, reason=reason)

    @classmethod
    def error(cls, reason: str) -> Score:
        """The verifier failed."""
        return cls(None, Status.ERROR, reason=reason)

    @classmethod
    def timeout(cls, reason: str) -> Score:
        """The verifier did not answer in time."""
        return cls(None, Status.TIMEOUT, reason=reason)


def _is_number(item: Any) -> bool:
    try:
        return isinstance(item, Real | np.bool_) and isinstance(float(item), float)
    except OverflowError:
        return False


def _is_array(item: Any) -> bool:
    try:
        return np.asarray(item).dtype.kind in "biuf"
    except (TypeError, ValueError):  # rows of several lengths
        return False


def _is_text(item: Any) -> bool:
    return isinstance(item, str)


COLUMNS: tuple[str, ...] = (
    "sample", "scene", "task", "kind", "candidate", "group", "verifier", "value", "status", "reason",
    "raw", "stats", "content", "seconds", "step", "policy_version", "config_hash",
)  # fmt: skip
"""Columns of a score table. ``raw`` and ``content`` hold dictionaries, ``stats`` a dictionary of arrays."""


class ScoreTable:
    """One row per output and verifier, in a pandas table with the columns :data:`COLUMNS`."""

    def __init__(self, frame: pd.DataFrame | None = None) -> None:
        import pandas as pd  # here and below, since a reward of one output makes scores but no table

        self.frame = pd.DataFrame(columns=list(COLUMNS)) if frame is None else frame

    def __len__(self) -> int:
        return len(self.frame)

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any]) -> ScoreTable:
        """A table from whole columns; scalars are repeated. Missing columns are filled with None."""
        import pandas as pd

        return cls(pd.DataFrame({name: columns.get(name) for name in COLUMNS}))

    @classmethod
    def concat(cls, tables: Iterable[ScoreTable]) -> ScoreTable:
        """All rows of several tables; this is what merging shards means."""
        import pandas as pd

        frames = [table.frame for table in tables if len(table)]
        return cls(pd.concat(frames, ignore_index=True)) if frames else cls()

    def where(self, rows: Any) -> ScoreTable:
        """The rows for which a mask, (rows,) bool, is true."""
        return ScoreTable(self.frame[rows].reset_index(drop=True))

    def verifier(self, name: str) -> ScoreTable:
        """The rows of one verifier."""
        return self.where(self.frame["verifier"] == name)

    @property
    def names(self) -> list[str]:
        """The verifiers in the table, in order of appearance."""
        return list(dict.fromkeys(self.frame["verifier"]))

    def stats(self) -> dict[str, np.ndarray]:
        """The sufficient statistics of the rows, stacked: name -> (rows, *shape) float64.

        Rows without a statistic (failed scores) contribute zeros. Only meaningful for the rows of one verifier.
        """
        unique, places = _distinct(self.frame["stats"].tolist())
        shapes = {name: np.shape(value) for row in unique for name, value in row.items()}
        stacked = {name: np.zeros((len(unique), *shape)) for name, shape in shapes.items()}
        for number, row in enumerate(unique):
            for name, value in row.items():
                stacked[name][number] = value
        return stacked if len(unique) == len(places) else {name: array[places] for name, array in stacked.items()}

    def raw(self, key: str) -> np.ndarray:
        """One raw metric of every row, (rows,) float64, NaN where a row does not have it."""
        return np.array([(row or {}).get(key, np.nan) for row in self.frame["raw"]], dtype=np.float64)

    def write(self, path: Path, of: str = "") -> None:
        """Write Parquet with checksums; the file appears whole or not at all. ``of`` says to which run it belongs."""
        import pyarrow as pa

        write_table(path, pa.table({name: to_arrow(name, self.frame[name]) for name in COLUMNS}), of)

    @classmethod
    def read(cls, path: Path, of: str = "") -> ScoreTable:
        """Read what :meth:`write` wrote. Raises :class:`InputError` for a file that is damaged, no score table or, with ``of``, of
        another run."""
        table = read_columns(path, COLUMNS, of)
        columns: dict[str, Any] = {name: table.column(name).to_pylist() for name in COLUMNS}
        try:
            columns["raw"] = [dict(row or ()) for row in columns["raw"]]
            columns["content"] = [dict(row or ()) for row in columns["content"]]
            columns["stats"] = [
                {key: np.array(item["data"], dtype=np.float64).reshape(item["shape"]) for key, item in row or ()}
                for row in columns["stats"]
            ]
        except (TypeError, ValueError) as error:
            raise InputError(f"{path} is not a score table: {error}") from error
        columns["status"] = [Status(item) for item in columns["status"]]
        return cls.from_columns(columns)


def read_columns(path: Path, names: Sequence[str], of: str = "") -> pa.Table:
    """Some columns of a stored score table, with the types of :func:`to_arrow`.

    Raises:
        InputError: the file is damaged, lacks a column, holds something that no score table holds, or belongs to another run than ``of``.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    table = read_table(path, names, of)
    try:
        table = pa.table({name: table.column(name).cast(_arrow_type(name)) for name in names})
    except pa.ArrowException as error:
        raise InputError(f"{path} is not a score table: {error}") from error
    for name in _ALWAYS.intersection(names):
        if table.column(name).null_count:
            raise InputError(f"{path} is not a score table: a row has no {name}")
    if "status" in names:
        for status in pc.unique(table.column("status")).to_pylist():
            if status not in tuple(Status):
                raise InputError(f"{path} is not a score table: no status is named {status!r}")
    if "value" in names:
        value = table.column("value")
        if not pc.all(pc.and_(pc.greater_equal(value, 0.0), pc.less_equal(value, 1.0)), min_count=0).as_py():
            raise InputError(f"{path} is not a score table: a value is not in [0, 1]")
    return table


_FLOATS = frozenset({"value", "seconds"})
_WHOLE = frozenset({"candidate", "step", "policy_version"})
_MAPS = frozenset({"raw", "stats", "content"})
_ALWAYS = frozenset({"sample", "verifier", "status"})


def _arrow_type(name: str) -> pa.DataType:
    """How a column is stored."""
    import pyarrow as pa

    if name not in _MAPS:
        return pa.float64() if name in _FLOATS else pa.int64() if name in _WHOLE else pa.string()
    packed = pa.struct([("shape", pa.list_(pa.int32())), ("data", pa.list_(pa.float64()))])
    return pa.map_(pa.string(), {"raw": pa.float64(), "content": pa.string(), "stats": packed}[name])


def to_arrow(name: str, column: pd.Series) -> pa.Array:
    """A column of a score table as it is stored; NaN and None are null.

    Texts, float64 and int64; ``raw`` a map of float64, ``content`` of texts, ``stats`` of {shape: int32, data: float64} lists.
    """
    import pyarrow as pa

    if name in _FLOATS:
        return pa.array(column.to_numpy(dtype=np.float64, na_value=np.nan), pa.float64(), from_pandas=True)
    rows = column.tolist()
    if name in _WHOLE:
        try:
            return pa.array(rows, pa.int64(), from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError):  # pandas made floats of them, for the sake of a missing one
            return pa.array(column.to_numpy(dtype=np.float64, na_value=np.nan), from_pandas=True).cast(pa.int64())
    if name not in _MAPS:
        try:
            return pa.array(rows, pa.string(), from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            return pa.array(
                [None if empty else str(row) for row, empty in zip(rows, column.isna(), strict=True)], pa.string()
            )
    unique, places = _distinct(rows)
    items: Any = [item for row in unique for item in row.values()]
    if name == "raw":
        items = np.array(items, dtype=np.float64)
    elif name == "stats":
        arrays = [np.asarray(item, dtype=np.float64) for item in items]
        items = [{"shape": array.shape, "data": array.ravel()} for array in arrays]
    ends = pa.array(np.cumsum([0, *map(len, unique)]), pa.int32())
    keys = pa.array([key for row in unique for key in row], pa.string())
    maps = pa.MapArray.from_arrays(ends, keys, pa.array(items, _arrow_type(name).item_type))
    return maps if len(unique) == len(rows) else maps.take(pa.array(places))


def _distinct(rows: Sequence[Mapping[str, Any] | None]) -> tuple[list[Mapping[str, Any]], np.ndarray]:
    """The different dictionaries of a column, and the place of each row's among them, (rows,) int64.

    Scores that say the same share their dictionaries, so that each needs to be looked at once.
    """
    ids = np.fromiter(map(id, rows), dtype=np.int64, count=len(rows))
    _, first, places = np.unique(ids, return_index=True, return_inverse=True)
    if len(first) == len(rows):
        return [row or {} for row in rows], np.arange(len(rows))
    return [rows[row] or {} for row in first], places
