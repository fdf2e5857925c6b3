"""What a reader of an evaluation must be warned of. Each check looks for one thing; :data:`CHECKS` lists them.

Signs that predictions were made with the answers in sight are a warning in words, never a verdict. Their rates are compared through
their lower confidence bound, so that a few lucky samples warn of nothing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from rsw_rewards.core.answer import CUT_OFF, Part, read_reply
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import OUTPUT_FIELDS, Output, Sample, Task
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.core.verifier import ALL_TASKS, Verifier
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


@dataclass(frozen=True)
class Evidence:
    """What the checks look at: the inputs and results of one evaluation."""

    samples: Sequence[Sample]
    """Of one task, and with an output; one or more."""
    lacking: int = 0
    """How many others of the task have no output."""
    outputs: Sequence[Output] = ()
    problems: Sequence[Problem] = ()
    told: Sequence[str] = ()
    """Warnings that are known already."""
    verifiers: Mapping[str, Verifier] = field(default_factory=dict)
    table: ScoreTable = field(default_factory=ScoreTable)
    summary: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def pairs(self) -> list[tuple[Sample, Output]]:
        """Each sample with its first candidate, where that could be read."""
        first: dict[str, Output] = {}
        for output in self.outputs:
            known = first.setdefault(output.sample_id, output)
            if output.candidate < known.candidate:
                first[output.sample_id] = output
        samples = {sample.id: sample for sample in self.samples}
        return [(samples[name], output) for name, output in first.items() if not output.invalid and not output.lost]


Check = Callable[[Evidence], Iterator[str]]
"""Yields a sentence for each thing of its kind that it finds."""


def warnings_of(evidence: Evidence) -> list[str]:
    """All that the reader must be warned of, in the order of :data:`CHECKS`; empty for an honest and faultless file."""
    task = evidence.samples[0].task
    return [sentence for check, tasks in CHECKS if task in tasks for sentence in check(evidence)]


def missing_predictions(evidence: Evidence) -> Iterator[str]:
    """How many of the samples have a prediction, where predictions are missing or name no sample and it is not yet said."""
    if any(problem.kind in ("missing", "unknown_id") for problem in evidence.problems):
        sentence = coverage(evidence.problems, len(evidence.samples) + evidence.lacking)
        if sentence not in evidence.told:
            yield sentence


def missing_images(evidence: Evidence) -> Iterator[str]:
    """How many image files of samples are not there, and what to do; the report cannot show them."""
    images = (image for sample in evidence.samples for image in sample.every_image)
    files = dict.fromkeys(image.path for image in images if image.path is not None)
    gone = [file for file in files if not file.is_file()]
    if gone:
        yield (
            f"{len(gone)} of {len(files)} images of the samples are missing, such as {gone[0]}, and the report cannot show them: give the"
            " folder in which the samples' paths begin with --root (roots=[...])"
        )


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


def more_than_answers(evidence: Evidence) -> Iterator[str]:
    """How many texts hold more than an answer, by :func:`taken_off`."""
    counts = evidence.summary["taken_off"]
    held = [f"{counts[part]:,} hold {_NAMES[part]}" for part in _NAMES if counts[part]]
    if held:
        cut = f" ({counts['cut_off']:,} are cut off inside it and have no answer)" if counts["cut_off"] else ""
        yield (
            f"of {counts['texts']:,} texts, {', '.join(held)}{cut}: these are removed before an answer is scored, unless 'thinking:"
            " keep' is set for a verifier"
        )


def other_scale(evidence: Evidence) -> Iterator[str]:
    """Whether the boxes of outputs fit another scale and agree far better with the true ones when read on it.

    That is: all coordinates are within that scale, and the mean IoU is more than twice as high and at least 0.1 higher.
    """
    labels = [label for label, verifier in evidence.verifiers.items() if isinstance(verifier, BoxIoU)]
    by_id = {sample.id: sample for sample in evidence.samples}
    answered = ((by_id[output.sample_id], output.boxes) for output in evidence.outputs if output.boxes)
    rows = [(sample, boxes) for sample, boxes in answered if sample.reference.get("boxes")][:LOOKED_AT]
    if not labels or len(rows) < FEWEST:
        return
    declared = box_scale(evidence.verifiers)
    largest = max(abs(side) for _, boxes in rows for box in boxes for side in box)
    read = {scale: _mean_iou(rows, scale) for scale in SCALES if largest <= _WITHIN.get(scale, np.inf)}
    own = read.get(declared, 0.0)
    best = max(read, key=lambda scale: read[scale])
    if best != declared and read[best] > max(2 * own, own + 0.1):
        yield (
            f"the boxes look like {best}, and are read as {declared}: of the first {len(rows):,} outputs the mean IoU is {own:.2f}, and would be"
            f" {read[best]:.2f}; where the model writes {best}, say so by --set {labels[0]}.scale={best}"
        )


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


def own_ids(evidence: Evidence) -> Iterator[str]:
    """Texts that hold the id of their sample, where the prompt does not."""
    named = [
        sample.id
        for sample, output in evidence.pairs
        if len(sample.id) >= SHORTEST_ID and sample.id in (output.text or "") and sample.id not in sample.prompt
    ]
    if named:
        yield (
            f"{len(named):,} texts hold the id of their own sample (first: {named[0]!r}), which no model is given: check how the"
            " predictions were made"
        )


def lower_bound(hits: int, n: int, alpha: float = ALPHA) -> float:
    """One-sided Clopper-Pearson lower bound of a rate: what it exceeds with confidence ``1 - alpha``.

    Args:
        hits: in 0 .. n.
        n: number of trials; 0 gives 0.
    """
    from scipy.stats import beta

    return float(beta.ppf(alpha, hits, n - hits + 1)) if hits else 0.0


def change_flag(sample: Sample) -> bool | None:
    """Whether a captioned pair changed (:func:`is_changed`). None where nothing says so."""
    try:
        return is_changed(sample)
    except ValueError:  # a sample without a truth shows nothing
        return None


def _captions(sample: Sample) -> list[str]:
    return [normalise(str(caption)) for caption in sample.reference.get("captions") or ()]


def _no_change_sentences(samples: Iterable[Sample]) -> frozenset[str]:
    """The data set's sentences for no change and all others that only unchanged pairs of these samples have."""
    known: set[tuple[str, ...]] = set()
    said: dict[bool, set[str]] = {True: set(), False: set()}
    for sample in samples:
        if (flag := change_flag(sample)) is not None:
            known.add(no_change_sentences(sample))
            said[flag].update(_captions(sample))
    return frozenset(normalise(text) for sentences in known for text in sentences) | (said[False] - said[True])


def known_flag(evidence: Evidence) -> Iterator[str]:
    """Captions that say "no change" more truly than the best classifiers of change: on all pairs, or on one side without
    simply always saying it."""
    sentences = _no_change_sentences(evidence.samples)
    told: dict[bool, list[bool]] = {True: [], False: []}
    for sample, output in evidence.pairs:
        flag = change_flag(sample)
        if flag is not None:
            told[flag].append((normalise(output.answer or "") not in sentences) == flag)
    changed, unchanged = told[True], told[False]
    if not changed or not unchanged:
        return
    sides = [(changed + unchanged, "pairs")]
    for side, other, name in ((changed, unchanged, "changed"), (unchanged, changed, "unchanged")):
        if sum(other) / len(other) >= 0.5:
            sides.append((side, f"{name} pairs"))
    for right, name in sides:
        if lower_bound(sum(right), len(right)) > CHANGE_AGREEMENT:
            yield (
                f"whether a caption says that nothing changed agrees with the change flag on {sum(right):,} of {len(right):,}"
                f" {name}; the best published classifier agrees on 94 %: were the captions made with the flag known?"
            )
            return


def copied_captions(evidence: Evidence) -> Iterator[str]:
    """Captions that are, word for word, one that only their pair has."""
    owners = Counter(caption for sample in evidence.samples for caption in set(_captions(sample)))
    copied = asked = 0
    for sample, output in evidence.pairs:
        own = set(_captions(sample))
        # One caption a pair may be written by a rule, which a model can learn; several are written by people.
        if len(own) > 1 and change_flag(sample):
            asked += 1
            text = normalise(output.answer or "")
            copied += text in own and owners[text] == 1
    if lower_bound(copied, asked) > VERBATIM:
        yield (
            f"{copied:,} of {asked:,} captions of changed pairs are, word for word, a reference that no other pair has: were the"
            " references copied?"
        )


def all_right(evidence: Evidence) -> Iterator[str]:
    """Answers without a fault, where there are many."""
    # Answers are read in one way for all protocols: a warning must not depend on how a protocol reads them.
    for sample, output in evidence.pairs:
        try:
            answers = true_answers(sample)
        except ValueError:  # a sample without a truth shows nothing
            return
        if extract_answer(output.answer or "").answer not in {normalise(answer) for answer in answers}:
            return
    right = len(evidence.pairs)
    if lower_bound(right, right) > ALL_RIGHT:
        yield f"all {right:,} answers are the true ones: check that they were not made from the answers"


def own_truths(evidence: Evidence) -> Iterator[str]:
    """Predicted pictures that are the file of their truth."""
    same = [sample.id for sample, output in evidence.pairs if _same_picture(sample, output)]
    if same:
        yield (
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


def contradictory_maps(evidence: Evidence) -> Iterator[str]:
    """How many predicted pairs of maps call pixels changed at one date only, which count as wrong."""
    pixels = evidence.table.raw("contradictions")
    pairs = int((pixels > 0).sum())
    if pairs:
        yield (
            f"{pairs} of {int(np.isfinite(pixels).sum())} predicted pairs of maps contradict each other: {int(np.nansum(pixels)):,} pixels are changed"
            " at one date only, and count as wrong; give both maps 0 where nothing changed"
        )


def failed_scores(evidence: Evidence) -> Iterator[str]:
    """Components whose scores failed for some outputs, which their numbers then leave out."""
    for label, counts in evidence.summary["status"].items():
        failed, scored = counts["error"] + counts["timeout"], counts["ok"] + counts["invalid_output"]
        if failed and scored:
            yield (
                f"{label} failed on {failed} of {failed + scored} outputs, which its metrics leave out: correct the cause and"
                f" continue with --resume before comparing them"
            )


def failed_baselines(evidence: Evidence) -> Iterator[str]:
    """Baselines that have no numbers at all."""
    for name, row in evidence.summary["baselines"].items():
        if not row["metrics"]:
            yield f"no numbers of the baseline {name}: {row['reason']}"


_CAPTIONS = frozenset({Task.CHANGE_CAPTION})
_ANSWERS = frozenset(task for task, fields in OUTPUT_FIELDS.items() if fields == ("text",)) - _CAPTIONS

CHECKS: Sequence[tuple[Check, frozenset[Task]]] = (
    (missing_predictions, ALL_TASKS),
    (missing_images, ALL_TASKS),
    (more_than_answers, ALL_TASKS),
    (other_scale, frozenset({Task.GROUNDING})),
    (own_ids, ALL_TASKS),
    (known_flag, _CAPTIONS),
    (copied_captions, _CAPTIONS),
    (all_right, _ANSWERS),
    (own_truths, ALL_TASKS - _ANSWERS - _CAPTIONS),
    (contradictory_maps, frozenset({Task.SEMANTIC_CHANGE})),
    (failed_scores, ALL_TASKS),
    (failed_baselines, ALL_TASKS),
)
"""The checks in the order of their warnings, each with the tasks that it is for."""
