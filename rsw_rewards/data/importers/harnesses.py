"""Answers in the files of two evaluation harnesses, lmms-eval and VLMEvalKit.

Sources: github.com/EvolvingLMMs-Lab/lmms-eval (``lmms_eval/loggers/evaluation_tracker.py``, ``save_results_samples``) and
github.com/open-compass/VLMEvalKit (``vlmeval/inference.py`` and ``vlmeval/smp/file.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rsw_rewards.data.importers.fields import answer, answers_of, as_text, dig
from rsw_rewards.data.importers.matching import Answer
from rsw_rewards.data.importers.tables import read_table
from rsw_rewards.errors import InputError
from rsw_rewards.io.text_files import read_records, suffix_of

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
    for where, record in read_records(file, writable=False):
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


def read_vlmevalkit(file: Path, id: str | None = None, text: str | None = None) -> Iterator[Answer]:
    """A prediction file ``<model>_<data set>``: columns ``index``, ``prediction`` and, where known, ``answer``.

    ``.tsv``, ``.csv`` and ``.json`` are read; ``.xlsx``, which it writes unless told otherwise, needs openpyxl; ``.pkl`` is refused.
    """
    if suffix_of(file) == ".pkl":
        raise InputError(
            f"{file} is a pickle, which is never read, as it may run code: let VLMEvalKit write tables (PRED_FORMAT=tsv)"
        )
    rows = read_records(file, writable=False) if suffix_of(file) in (".json", ".jsonl") else read_table(file)
    yield from answers_of(rows, file, id, text, id_names=("index",), text_names=("prediction",), target="answer")
