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
    **declared: Any,
) -> Imported:
    """Read the answers in a file that another tool wrote, with what could not be used; ``save(path)`` writes a predictions file.

    Args:
        importer: a name of ``rsw.names("importers")``, ``file.py:function``, or a function.
        file: what the other tool wrote; for ``"folder"`` a folder of masks, maps or forecasts, one file each, named by the samples.
        samples: what was asked. An answer then belongs to the sample whose id it has, or whose id ends as its own does, if there is
            one only, of the same split; what may mean several is reported. Without samples, answers keep the ids that the file has.
        by: ``"order"`` where the file has no ids and its order is that of the samples.
        id, text: the column or key that holds the id and the answer, where it is not one of the usual.
        declared: of a folder, what the numbers in all its files mean: ``levels``, ``threshold``, ``palette``, ``nodata``, ``bands`` and
            ``stretch`` as :func:`rsw.image` takes them; ``files``, a pattern of those to read, such as ``"*_pred.png"``; and ``task``, where
            samples of several tasks have names alike.

    Raises:
        ConfigError: there is no such importer, or it has no such option.
        InputError: the file is of another kind, or no answer in it can be used; for images, with the setting that reads them.

    >>> import json
    >>> _ = pathlib.Path("answers.json").write_text(json.dumps([{"id": "q1", "text": "yes"}]))
    >>> rsw.predictions.read("json", "answers.json").outputs[0].text
    'yes'

    >>> from PIL import Image
    >>> pathlib.Path("masks").mkdir()
    >>> Image.new("L", (8, 8), 1).save("masks/pair_1_pred.png")
    >>> rsw.predictions.read("folder", "masks", [rsw.Sample("pair_1", "change_mask")], levels=[0, 1]).outputs[0].mask.levels
    (0, 1)
    """
    from rsw_rewards.data.importers import read_predictions
    from rsw_rewards.io.in_memory import as_samples

    asked = None if samples is None else as_samples(samples)
    return read_predictions(importer, Path(file), asked, by=by, id=id, text=text, **declared)
