"""Signs that predictions were made with the answers in sight. Each is a warning in words, never a verdict.

Rates are compared through their lower confidence bound, so that a few lucky samples warn of nothing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import OUTPUT_FIELDS, Output, Sample, Task
from rsw_rewards.verifiers.answers import extract_answer, normalise, true_answers
from rsw_rewards.verifiers.caption_base import is_changed, no_change_sentences

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
        f"{len(named):,} texts hold the id of their own sample (first: {named[0]!r}), which no model is shown: look at how the"
        " predictions were put together"
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
