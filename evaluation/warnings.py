"""What a reader of an evaluation must be warned of, a sentence each; each function here looks for one thing.

Signs that predictions were made with the answers in sight are a warning in words, never a verdict. Their rates are compared through
their lower confidence bound, so that a few lucky samples warn of nothing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rsw_rewards.core.answer import CUT_OFF, Part, read_reply
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import OUTPUT_FIELDS, Output, Sample, Task
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.errors import ImageError
from rsw_rewards.io.pairing import Problem, coverage
from rsw_rewards.verifiers.answers import extract_answer, normalise, true_answers
from rsw_rewards.verifiers.box_texts import SCALES, Scale
from rsw_rewards.verifiers.boxes import BoxIoU, box_scale, iou_of_pairs, match_boxes, parse_box, scaled, unit_of
from rsw_rewards.verifiers.caption_base import is_changed, no_change_sentences

LOOKED_AT = 500
"""Outputs with boxes that are looked at, the first ones."""
FEWEST = 5
"""Outputs below which nothing is said."""
_WITHIN: Mapping[Scale, float] = {"thousandths": 1000.0, "shares": 1.0}
"""The largest coordinate of each scale that has one."""
ALPHA = 0.01
"""Level of the one-sided bounds: how often a rate at its threshold may warn by chance."""
CHANGE_AGREEMENT = 0.97
"""Share of pairs whose change flag a captioning model may tell. The best published classifier of LEVIR-CC pairs is right on 94.0 %
(DeltaVLM, arXiv 2507.22346: precision 96.3 %, recall 91.5 %, which makes 96.5 % on unchanged pairs)."""
ALL_RIGHT = 0.98
"""Accuracy that a faultless file must exceed with confidence to be suspicious, which takes 228 answers. The best row of the
published tables of questions in this project has 83.2 %."""
VERBATIM = 0.2
"""Share of changed pairs whose caption may be, word for word, one that only this pair has. Two people rarely write the same."""
SHORTEST_ID = 6
"""Characters of a sample's id from which a text that holds it is no chance."""
_NAMES: Mapping[Part, str] = {
    "reasoning": "reasoning",
    "chat_tokens": "chat tokens",
    "zero_width": "characters of no width",
}


def coverage_warnings(problems: Sequence[Problem], samples: int, said: Sequence[str]) -> list[str]:
    """How many of so many samples have a prediction, where predictions are missing or name no sample and it is not yet said."""
    if not any(problem.kind in ("missing", "unknown_id") for problem in problems):
        return []
    return [sentence for sentence in [coverage(problems, samples)] if sentence not in said]


def image_warnings(samples: Sequence[Sample]) -> list[str]:
    """How many image files of samples are not there, and what to do; the report cannot show them."""
    files = dict.fromkeys(image.path for sample in samples for image in sample.every_image if image.path is not None)
    gone = [file for file in files if not file.is_file()]
    if not gone:
        return []
    return [
        f"{len(gone)} of {len(files)} images of the samples are missing, such as {gone[0]}, and the report cannot show them: give the"
        " folder in which the samples' paths begin with --root (roots=[...])"
    ]


def taken_off(outputs: Iterable[Output]) -> dict[str, int]:
    """How many outputs have a text (``texts``), hold each part that is taken off, and were cut off inside their reasoning (``cut_off``).

    >>> taken_off([Output("q0", text="<think>two roofs</think> yes"), Output("q1", text="no")])
    {'texts': 2, 'reasoning': 1, 'chat_tokens': 0, 'zero_width': 0, 'cut_off': 0}
    """
    # Not from ``took_*`` of the scores, which verifiers that read no text, or keep reasoning, do not have.
    counts: Counter[str] = Counter(dict.fromkeys(("texts", *_NAMES, "cut_off"), 0))
    for output in outputs:
        if output.text is not None:
            reply = read_reply(output.text, output.finish_reason)
            counts.update(("texts", *reply.taken, *(("cut_off",) if reply.problem == CUT_OFF else ())))
    return dict(counts)


def taken_off_warnings(counts: Mapping[str, int]) -> list[str]:
    """A sentence on texts that hold more than an answer; none where no text does."""
    held = [f"{counts[part]:,} hold {_NAMES[part]}" for part in _NAMES if counts[part]]
    if not held:
        return []
    cut = f" ({counts['cut_off']:,} are cut off inside it and have no answer)" if counts["cut_off"] else ""
    return [
        f"of {counts['texts']:,} texts, {', '.join(held)}{cut}: these are removed before an answer is scored, unless 'thinking:"
        " keep' is set for a verifier"
    ]


def scale_warnings(verifiers: Mapping[str, Any], samples: Sequence[Sample], outputs: Sequence[Output]) -> list[str]:
    """A sentence where the boxes of outputs fit another scale and agree far better with the true ones when read on it.

    That is: all coordinates are within that scale, and the mean IoU is more than twice as high and at least 0.1 higher.
    """
    labels = [label for label, verifier in verifiers.items() if isinstance(verifier, BoxIoU)]
    if not labels:
        return []
    by_id = {sample.id: sample for sample in samples}
    rows = [(by_id[o.sample_id], o.boxes) for o in outputs if o.boxes and by_id[o.sample_id].reference.get("boxes")]
    rows = rows[:LOOKED_AT]
    if len(rows) < FEWEST:
        return []
    declared = box_scale(verifiers)
    largest = max(abs(side) for _, boxes in rows for box in boxes for side in box)
    read = {scale: _mean_iou(rows, scale) for scale in SCALES if largest <= _WITHIN.get(scale, np.inf)}
    own = read.get(declared, 0.0)
    best = max(read, key=lambda scale: read[scale])
    if best == declared or read[best] <= max(2 * own, own + 0.1):
        return []
    return [
        f"the boxes look like {best}, and are read as {declared}: of the first {len(rows):,} outputs the mean IoU is {own:.2f}, and would be"
        f" {read[best]:.2f}; where the model writes {best}, say so by --set {labels[0]}.scale={best}"
    ]


def _mean_iou(rows: Sequence[tuple[Sample, Sequence[Sequence[float]]]], scale: Scale) -> float:
    """Mean IoU of boxes read on a scale; 0 for those that cannot be."""
    found = []
    for sample, boxes in rows:
        try:
            unit = unit_of(sample, scale)
            truth = [parse_box(box) for box in sample.reference["boxes"]]
            found.append(match_boxes(iou_of_pairs(truth, [parse_box(scaled(box, unit)) for box in boxes]))[0])
        except (ValueError, ImageError):
            found.append(0.0)
    return float(np.mean(found))


def contradiction_warnings(table: ScoreTable) -> list[str]:
    """How many predicted pairs of maps call pixels changed at one date only, which count as wrong; none where no pair does."""
    pixels = table.raw("contradictions")
    pairs = int((pixels > 0).sum())
    if not pairs:
        return []
    return [
        f"{pairs} of {int(np.isfinite(pixels).sum())} predicted pairs of maps contradict each other: {int(np.nansum(pixels)):,} pixels are changed"
        " at one date only, and count as wrong; give both maps 0 where nothing changed"
    ]


def failure_warnings(status: Mapping[str, Mapping[str, int]]) -> list[str]:
    """A sentence for every component whose scores failed for some outputs, which its numbers then leave out."""
    found = []
    for label, counts in status.items():
        failed, scored = counts["error"] + counts["timeout"], counts["ok"] + counts["invalid_output"]
        if failed and scored:
            found.append(
                f"{label} failed on {failed} of {failed + scored} outputs, which its metrics leave out: correct the cause and"
                f" continue with --resume before comparing them"
            )
    return found


def baseline_warnings(rows: Mapping[str, Any]) -> list[str]:
    """A sentence for every baseline that has no numbers at all."""
    return [f"no numbers of the baseline {name}: {row['reason']}" for name, row in rows.items() if not row["metrics"]]


def lower_bound(hits: int, n: int, alpha: float = ALPHA) -> float:
    """One-sided Clopper-Pearson lower bound of a rate: what it exceeds with confidence ``1 - alpha``.

    Args:
        hits: in 0 .. n.
        n: number of trials; 0 gives 0.
    """
    from scipy.stats import beta

    return float(beta.ppf(alpha, hits, n - hits + 1)) if hits else 0.0


def leakage_warnings(samples: Sequence[Sample], outputs: Iterable[Output]) -> list[str]:
    """What looks as if the truth had been known, one sentence each; empty for an honest file.

    Args:
        samples: of one task.
        outputs: of these samples; the first candidate of each is looked at.
    """
    known = {sample.id: sample for sample in samples}
    first: dict[str, Output] = {}
    for output in outputs:
        if output.sample_id in known and (
            output.sample_id not in first or output.candidate < first[output.sample_id].candidate
        ):
            first[output.sample_id] = output
    pairs = [(known[name], output) for name, output in first.items() if not output.invalid and not output.lost]
    if not pairs:
        return []
    found = [_names_itself(pairs)]
    if pairs[0][0].task is Task.CHANGE_CAPTION:
        found += [_knows_the_flag(pairs, samples), _verbatim(pairs, samples)]
    elif OUTPUT_FIELDS[pairs[0][0].task] == ("text",):
        found.append(_all_right(pairs))
    else:
        found.append(_is_the_truth(pairs))
    return [warning for warning in found if warning]


Pairs = Sequence[tuple[Sample, Output]]


def _names_itself(pairs: Pairs) -> str:
    named = [
        sample.id
        for sample, output in pairs
        if len(sample.id) >= SHORTEST_ID and sample.id in (output.text or "") and sample.id not in sample.prompt
    ]
    if not named:
        return ""
    return (
        f"{len(named):,} texts hold the id of their own sample (first: {named[0]!r}), which no model is given: check how the"
        " predictions were made"
    )


def _captions(sample: Sample) -> list[str]:
    return [normalise(str(caption)) for caption in sample.reference.get("captions") or ()]


def change_flag(sample: Sample) -> bool | None:
    """Whether a captioned pair changed (:func:`is_changed`). None where nothing says so."""
    try:
        return is_changed(sample)
    except ValueError:  # a sample without a truth shows nothing
        return None


def _no_change_sentences(samples: Iterable[Sample]) -> frozenset[str]:
    """The data set's sentences for no change and all others that only unchanged pairs of these samples have."""
    known: set[tuple[str, ...]] = set()
    said: dict[bool, set[str]] = {True: set(), False: set()}
    for sample in samples:
        if (flag := change_flag(sample)) is not None:
            known.add(no_change_sentences(sample))
            said[flag].update(_captions(sample))
    return frozenset(normalise(text) for sentences in known for text in sentences) | (said[False] - said[True])


def _knows_the_flag(pairs: Pairs, samples: Sequence[Sample]) -> str:
    """Captions that say "no change" more truly than the best classifiers of change: on all pairs, or on one side without
    simply always saying it."""
    sentences = _no_change_sentences(samples)
    told: dict[bool, list[bool]] = {True: [], False: []}
    for sample, output in pairs:
        flag = change_flag(sample)
        if flag is not None:
            told[flag].append((normalise(output.answer or "") not in sentences) == flag)
    if not told[True] or not told[False]:
        return ""
    sides = {"all": told[True] + told[False], "changed": told[True], "unchanged": told[False]}
    rates = {name: sum(right) / len(right) for name, right in sides.items()}
    for name, right in sides.items():
        other = {"changed": "unchanged", "unchanged": "changed"}.get(name)
        trivial = other is not None and rates[other] < 0.5
        if not trivial and lower_bound(sum(right), len(right)) > CHANGE_AGREEMENT:
            which = "pairs" if name == "all" else f"{name} pairs"
            return (
                f"whether a caption says that nothing changed agrees with the change flag on {sum(right):,} of {len(right):,}"
                f" {which}; the best published classifier agrees on 94 %: were the captions made with the flag known?"
            )
    return ""


def _verbatim(pairs: Pairs, samples: Sequence[Sample]) -> str:
    owners = Counter(caption for sample in samples for caption in set(_captions(sample)))
    copied = asked = 0
    for sample, output in pairs:
        own = set(_captions(sample))
        # One caption a pair may be written by a rule, which a model can learn; several are written by people.
        if len(own) > 1 and change_flag(sample):
            asked += 1
            text = normalise(output.answer or "")
            copied += text in own and owners[text] == 1
    if lower_bound(copied, asked) <= VERBATIM:
        return ""
    return (
        f"{copied:,} of {asked:,} captions of changed pairs are, word for word, a reference that no other pair has: were the"
        " references copied?"
    )


def _all_right(pairs: Pairs) -> str:
    # Answers are read in one way for all protocols: a warning must not depend on how a protocol reads them.
    for sample, output in pairs:
        try:
            answers = true_answers(sample)
        except ValueError:  # a sample without a truth shows nothing
            return ""
        if extract_answer(output.answer or "").answer not in {normalise(answer) for answer in answers}:
            return ""
    right = len(pairs)
    if lower_bound(right, right) <= ALL_RIGHT:
        return ""
    return f"all {right:,} answers are the true ones: check that they were not made from the answers"


def _is_the_truth(pairs: Pairs) -> str:
    same = [sample.id for sample, output in pairs if _same_picture(sample, output)]
    if not same:
        return ""
    return (
        f"{len(same):,} predicted pictures are the very file that holds their truth (first: {same[0]!r}): check the paths of the"
        " predictions"
    )


def _same_picture(sample: Sample, output: Output) -> bool:
    future = sample.reference.get("images") or ()
    drawn = {
        **{field: getattr(output, field) for field in OUTPUT_FIELDS[sample.task] if field != "images"},
        "image": output.forecast,
    }
    truth = {**sample.reference, "image": future[-1] if future else None}
    return any(
        isinstance(image, ImageRef)
        and isinstance(true := truth.get(field), ImageRef)
        and image.path is not None
        and true.path is not None
        and os.path.realpath(image.path) == os.path.realpath(true.path)
        for field, image in drawn.items()
    )
