"""Answers in the files of two evaluation harnesses, lmms-eval and VLMEvalKit.

Sources: github.com/EvolvingLMMs-Lab/lmms-eval (``lmms_eval/loggers/evaluation_tracker.py``, ``save_results_samples``) and
github.com/open-compass/VLMEvalKit (``vlmeval/inference.py`` and ``vlmeval/smp/file.py``).
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rsw_rewards.data.importers.matching import Answer
from rsw_rewards.data.importers.plain import (
    MAX_FILE_BYTES,
    answer,
    as_text,
    check_size,
    choose,
    dig,
    rows_of,
)
from rsw_rewards.errors import InputError
from rsw_rewards.io.json_files import read_values

_DOC_KEYS = ("id", "question_id", "sample_id", "image_id", "index")


def _flat(value: Any) -> list[Any]:
    """Answers of a log entry: a text, a list of them, or a list with one such list for its only request."""
    while isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    return value if isinstance(value, list) else [value]


def read_lmms_eval(file: Path, id: str | None = None, text: str | None = None) -> Iterator[Answer]:
    """The sample log of a task, ``*_samples_<task>.jsonl``, as ``--log_samples`` writes it.

    ``filtered_resps`` is the answer (``resps`` where there are no filtered ones); several of them are candidates. ``doc_id`` is
    the document's place in its split, so it counts only for ``by=order``; an id comes from ``doc``, where the log has one.
    """
    for where, record in read_values(file):
        if not isinstance(record, Mapping) or not (
            text or isinstance(record.get("filtered_resps", record.get("resps")), (list, str))
        ):
            yield Answer(where, None, problem="it is no sample of lmms-eval: it has no 'filtered_resps' and no 'resps'")
            continue
        doc = record.get("doc")
        names = [as_text(doc.get(key)) for key in _DOC_KEYS] if isinstance(doc, Mapping) else []
        name = as_text(dig(record, id)) if id else next((known for known in names if known is not None), None)
        place = record.get("doc_id")
        said = dig(record, text) if text else record.get("filtered_resps", record.get("resps"))
        for candidate, one in enumerate(_flat(said)):
            yield answer(
                where, name, one, candidate=candidate, target=as_text(record.get("target")),
                position=place if isinstance(place, int) and not isinstance(place, bool) else None,
            )  # fmt: skip


def _sheet(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of the first sheet of an Excel file."""
    try:
        import openpyxl
    except ImportError as error:
        raise InputError(
            f"{file} is an Excel file, and openpyxl, which reads them, is not installed: pip install openpyxl, or let VLMEvalKit write tables of text (PRED_FORMAT=tsv)"
        ) from error
    try:
        with zipfile.ZipFile(file) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_FILE_BYTES:
                raise InputError(f"{file} unpacks to more than the {MAX_FILE_BYTES:,} bytes that are read; divide it")
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
        rows = book.worksheets[0].iter_rows(values_only=True)
        header = [str(name) for name in next(rows, ())]
        for number, row in enumerate(rows, start=2):
            yield f"{file}: row {number}", dict(zip(header, row, strict=False))
    except InputError:
        raise
    except Exception as error:  # whatever a broken file makes openpyxl raise
        raise InputError(f"{file} cannot be read as an Excel file: {error}") from error


def read_vlmevalkit(file: Path, id: str | None = None, text: str | None = None) -> Iterator[Answer]:
    """A prediction file ``<model>_<data set>``: columns ``index``, ``prediction`` and, where known, ``answer``.

    ``.tsv``, ``.csv`` and ``.json`` are read; ``.xlsx``, which it writes unless told otherwise, needs openpyxl; ``.pkl`` is refused.
    """
    suffix = file.suffix.lower()
    rows: Iterator[tuple[str, Any]]
    check_size(file)
    if suffix in (".tsv", ".csv"):
        rows = rows_of(file, "\t" if suffix == ".tsv" else ",")
    elif suffix == ".json":
        rows = read_values(file)
    elif suffix == ".xlsx":
        rows = _sheet(file)
    else:
        raise InputError(
            f"{file} is no .tsv, .csv, .json or .xlsx file; a pickle is never read, as it may run code: let VLMEvalKit write tables (PRED_FORMAT=tsv)"
        )
    columns: tuple[str, str] | None = None
    for number, (where, row) in enumerate(rows):
        if not isinstance(row, Mapping):
            yield Answer(where, None, problem="it is no row of a table")
            continue
        if columns is None:
            columns = (
                choose(list(row), id, ("index",), "id", str(file)),
                choose(list(row), text, ("prediction",), "text", str(file)),
            )
        yield answer(
            where, row.get(columns[0]), row.get(columns[1]), position=number, target=as_text(row.get("answer"))
        )
