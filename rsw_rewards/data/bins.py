"""Percentage bins of the CDVQA answers: the one function that label makers and verifiers share."""

from __future__ import annotations

import math
from itertools import pairwise

RATIO_BINS: tuple[str, ...] = ("0", *(f"{10 * k}_to_{10 * (k + 1)}" for k in range(10)))


def ratio_bin(ratio: float) -> str:
    """Name of the CDVQA bin that holds an area ratio.

    Args:
        ratio: share of an area, in [0, 1] (not in percent).

    Returns:
        ``"0"`` for exactly 0. Otherwise the bin whose lower edge is included and whose upper edge is not
        (``0.10`` is ``10_to_20``); the lowest bin leaves 0 out and the highest one includes 1:
        ``(0, 0.1)``, ``[0.1, 0.2)``, ..., ``[0.9, 1.0]``.

    Raises:
        ValueError: the ratio is not a number or lies outside [0, 1].
    """
    if not math.isfinite(ratio) or not 0.0 <= ratio <= 1.0:
        raise ValueError(f"an area ratio must lie in [0, 1], got {ratio!r}")
    if ratio == 0.0:
        return RATIO_BINS[0]
    # A ratio such as 3/10 times ten may land a hair below the edge it stands for.
    tenth = math.floor(ratio * 10 + 1e-9)
    return RATIO_BINS[1 + min(tenth, 9)]


_RSVQA_EDGES = (0, 10, 100, 1000)


def rsvqa_bin(answer: str, range_numbers: bool = True) -> str:
    """The RSVQA class of an answer, as the vocabulary of syvlo/RSVQA (VQA_model/VocabEncoder.py) has it.

    Args:
        answer: a raw answer such as ``"12"``, ``"12m2"`` or ``"Yes"``.
        range_numbers: whether counts become ranges (the high-resolution variant keeps them); areas always do.

    Returns:
        ``"between 10 and 100"`` and so on: lower edges excluded, upper edges included, above 1000 ``"more than 1000"``; areas
        in m2 likewise. Zero is a class of its own, ``"0"`` and ``"0m2"``. Whatever is no whole count and no area comes
        back in lower case without its last ``?`` or ``.``. Areas may have decimals, where the original would stop.
    """
    text = answer.strip()
    text = (text[:-1] if text[-1:] in ("?", ".") else text).strip().lower()
    unit = "m2" if text.endswith("m2") else ""
    digits = text.removesuffix(unit)
    if unit:
        try:
            number = float(digits)
        except ValueError:
            return text
    elif range_numbers and digits.isdecimal() and digits.isascii():
        number = float(digits)
    else:
        return text
    if number == 0:
        return f"0{unit}"
    if not 0 < number < math.inf:
        return text
    for low, high in pairwise(_RSVQA_EDGES):
        if number <= high:
            return f"between {low}{unit} and {high}{unit}"
    return f"more than {_RSVQA_EDGES[-1]}{unit}"
