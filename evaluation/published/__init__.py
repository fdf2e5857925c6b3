"""Tables that authors printed, to stand beside a run of the same protocol on the same data set and split.

One JSON file per table: ``protocol``, ``dataset``, ``split``, ``n`` (samples, null where not stated), ``title``, ``source``,
``confidence``, an optional ``note``, ``also`` (data sets with the same samples), and ``rows`` of ``{method, metrics, year?, ...}``, where a row may override ``source``,
``confidence`` and ``note``. Values are fractions under the keys of ``summary.json`` (``key/<kind>`` for a slice); errors, counts
and Frechet distances keep their unit. Numbers are facts; each names the place it was read in.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Any, Literal

from rsw_rewards.core.records import Sample

Confidence = Literal["read", "secondary"]
"""``read``: in the authors' own table, figure or abstract; a table also quotes its rivals. ``secondary``: in somebody's copy."""

NOT_OURS: Mapping[str, str] = {
    "levir-cc-gpt2-ids": "captions scored on GPT-2 word pieces",
    "landsat-scd-stacked": "semantic change with the classes of Landsat-SCD",
}
"""Definitions that authors used and no protocol of this project computes. Their tables are kept to say what is not comparable."""


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One method in one printed table."""

    method: str
    metrics: Mapping[str, float]
    """Key of ``summary.json`` -> value."""
    protocol: str
    dataset: str
    split: str
    n: int | None
    """Samples the table was made on; None where it is not stated."""
    source: str
    confidence: Confidence = "read"
    year: int | None = None
    protocol_uncertain: bool = field(default=False)
    """Whether it could not be made sure that the numbers follow the protocol's definition."""
    note: str = ""
    also: tuple[str, ...] = ()
    """Other data sets with the very same samples in this split."""


def _rows(table: Mapping[str, Any]) -> Iterable[PublishedRow]:
    shared = {key: table[key] for key in ("protocol", "dataset", "split", "n", "source", "confidence")}
    shared["also"] = tuple(table.get("also", ()))
    for row in table["rows"]:
        notes = [note for note in (row.get("note"), table.get("note")) if note]
        yield PublishedRow(**{**shared, **row, "note": "; ".join(notes)})


@lru_cache(maxsize=1)
def all_rows() -> tuple[PublishedRow, ...]:
    """Every row of every table, tables in the order of their file names."""
    tables = sorted(
        (file for file in files(__package__).iterdir() if file.name.endswith(".json")), key=lambda f: f.name
    )
    return tuple(row for file in tables for row in _rows(json.loads(file.read_text(encoding="utf-8"))))


def plain_name(name: str) -> str:
    """A data set's or split's name without case and punctuation: ``LEVIR-CD`` and ``levir_cd`` are one, ``LEVIR-CD+`` is another."""
    return "".join(letter for letter in name.lower().replace("+", "plus") if letter.isalnum())


def published_rows(protocol: str, dataset: str | None = None, split: str | None = None) -> list[PublishedRow]:
    """The printed rows of a protocol, of one data set and one split where these are named.

    Args:
        protocol: the name of the protocol; rows of another definition are never returned.
        dataset: such as ``levir_cd``; None for those of all data sets, which are then not comparable with each other.
        split: such as ``test``.
    """
    return [
        row
        for row in all_rows()
        if row.protocol == protocol
        and (dataset is None or plain_name(dataset) in map(plain_name, (row.dataset, *row.also)))
        and (split is None or plain_name(row.split) == plain_name(split))
    ]


def comparable(protocol: str, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """``summary["published"]``: rows that a run on these samples may stand beside, with what must be said of each.

    Empty unless all samples name one data set and split that a table of this protocol was made on.
    """
    first = samples[0].metadata if samples else {}
    dataset, split = first.get("dataset"), first.get("split")
    if not isinstance(dataset, str) or not isinstance(split, str):
        return []
    if any((one.metadata.get("dataset"), one.metadata.get("split")) != (dataset, split) for one in samples):
        return []
    return [_entry(row, len(samples)) for row in published_rows(protocol, dataset, split)]


def _entry(row: PublishedRow, n: int) -> dict[str, Any]:
    said = []
    if row.n is None:
        said.append(f"the number of samples is not stated; this run has {n:,}")
    elif row.n != n:
        said.append(f"the table was made on {row.n:,} samples; this run has {n:,}")
    if row.protocol_uncertain:
        said.append("not certain to follow this protocol")
    if row.confidence == "secondary":
        said.append("copied from a secondary source")
    if row.note:
        said.append(row.note)
    return {
        "method": row.method,
        "year": row.year,
        "metrics": dict(row.metrics),
        "dataset": row.dataset,
        "split": row.split,
        "n": row.n,
        "source": row.source,
        "confidence": row.confidence,
        "protocol_uncertain": row.protocol_uncertain,
        "note": "; ".join(said),
    }


def footnote(row: Mapping[str, Any]) -> str:
    """Where a published row was read, and what must be known before it is compared."""
    parts = [row["source"], row.get("note") or ""]
    if row.get("confidence") != "read":
        parts.append("at second hand")
    return "; ".join(part for part in parts if part)
