"""Answers that other tools wrote, as outputs."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsw_rewards.data.importers.matching import Answer

if TYPE_CHECKING:
    from rsw_rewards.data.importers import Imported

__all__ = ["Answer", "read"]


def read(
    importer: Any,
    file: str | PathLike[str],
    samples: Any = None,
    *,
    by: str = "id",
    id: str | None = None,
    text: str | None = None,
) -> Imported:
    """The answers in a file that another tool wrote, with what could not be used; ``save(path)`` writes a predictions file.

    Args:
        importer: a name of ``rsw.names("importers")``, ``file.py:function``, or a function.
        file: what the other tool wrote.
        samples: what was asked. An answer then belongs to the sample whose id it has, or whose id ends as its own does, if there is
            one only; what may mean several is reported. Without samples, answers keep the ids that the file has.
        by: ``"order"`` where the file has no ids and its order is that of the samples.
        id, text: the column or key that holds the id and the answer, where it is not one of the usual.

    Raises:
        ConfigError: there is no such importer.
        InputError: the file is of another kind, or no answer in it can be used.

    >>> import json
    >>> _ = pathlib.Path("answers.json").write_text(json.dumps([{"id": "q1", "text": "yes"}]))
    >>> rsw.predictions.read("json", "answers.json").outputs[0].text
    'yes'
    """
    from rsw_rewards.data.importers import read_predictions
    from rsw_rewards.io.in_memory import as_samples

    asked = None if samples is None else as_samples(samples)
    return read_predictions(importer, Path(file), asked, by=by, id=id, text=text)
