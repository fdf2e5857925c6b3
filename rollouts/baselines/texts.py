"""Baselines that write: guesses from the answers alone, everything at once, and other samples' answers."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.rollouts.baselines.base import Baseline, listed, true_text
from rsw_rewards.verifiers.answers import normalise
from rsw_rewards.verifiers.caption_base import no_change_sentences
from rsw_rewards.verifiers.counts import CLASSES
from rsw_rewards.verifiers.localization import CELLS, read_cells

ANSWERS = frozenset({Task.CHANGE_QA, Task.CLASSIFICATION})
CAPTIONS = frozenset({Task.CHANGE_CAPTION})


def _texts(sample: Sample) -> list[str]:
    """The texts of a sample that are counted: all its captions, or its one answer."""
    if sample.task is Task.CHANGE_CAPTION:
        return [str(caption) for caption in sample.reference.get("captions") or ()]
    text = true_text(sample)
    return [] if text is None else [text]


class Constant(Baseline):
    """One text for every sample: the most common answer or caption of all samples, or the one given."""

    name = "constant"
    tasks = ANSWERS | CAPTIONS

    def __init__(self, samples: Iterable[Sample] = (), text: str | None = None) -> None:
        counts = Counter(answer for sample in samples for answer in _texts(sample))
        self.text = text if text is not None else (counts.most_common(1)[0][0] if counts else "")

    def answer(self, sample: Sample) -> Output:
        return Output(sample.id, text=self.text)


class NoChange(Baseline):
    """The sentence that nothing has changed, of every pair: the first one of its data set."""

    name = "no_change"
    tasks = CAPTIONS

    def answer(self, sample: Sample) -> Output:
        try:
            return Output(sample.id, text=no_change_sentences(sample)[0])
        except ValueError as error:
            return Output(sample.id, lost=str(error))  # the data's fault


class Empty(Constant):
    """A text without a letter."""

    name = "empty"

    def __init__(self) -> None:
        super().__init__(text="")


class Majority(Baseline):
    """The most common answer of every kind of question, counted on the samples themselves, which is generous to it."""

    name = "majority"
    tasks = ANSWERS

    def __init__(self, samples: Iterable[Sample] = ()) -> None:
        counts: dict[str | None, Counter[str]] = {}
        for sample in samples:
            of_kind = counts.get(sample.kind)
            if of_kind is None:  # a Counter for every sample would take longer than the counting
                of_kind = counts[sample.kind] = Counter()
            for text in _texts(sample):
                of_kind[text] += 1
        self.by_kind = {kind: counter.most_common(1)[0][0] for kind, counter in counts.items() if counter}

    def answer(self, sample: Sample) -> Output:
        return Output(sample.id, text=self.by_kind.get(sample.kind, ""))


class _Counts:
    """How often each answer was given, in total and in each scene."""

    def __init__(self) -> None:
        self.total: Counter[str] = Counter()
        self.of_scene: dict[str, Counter[str]] = {}
        self._ranked: list[tuple[str, int]] | None = None

    def add(self, scene: str, texts: Iterable[str]) -> None:
        own = self.of_scene.get(scene)
        if own is None:
            own = self.of_scene[scene] = Counter()
        for text in texts:
            self.total[text] += 1
            own[text] += 1

    def commonest_elsewhere(self, scene: str) -> str | None:
        """The most common answer in all scenes but one, of equals the first by alphabet; None where no other scene has any."""
        if self._ranked is None:
            self._ranked = self.total.most_common()
        own: Mapping[str, int] = self.of_scene.get(scene, {})
        best, most = None, 0
        for answer, count in self._ranked:
            if count < most:  # all that follow are rarer still
                break
            elsewhere = count - own.get(answer, 0)
            # The order of equals must not follow the totals: these hold the scene's own truth.
            if elsewhere > most or (elsewhere == most > 0 and best is not None and answer < best):
                best, most = answer, elsewhere
        return best


class Blind(Baseline):
    """Reads the question and no image: the most common answer to the same wording, else to the same kind, else to any question.

    Answers of the sample's own scene are not counted (leave one scene out), so that it never knows its own truth; on balanced
    answers this costs it a little. What it reaches is what language alone is worth.
    """

    name = "blind"
    tasks = ANSWERS

    def __init__(self, samples: Iterable[Sample] = ()) -> None:
        self.counts: dict[tuple[str | None, ...], _Counts] = {}
        for sample in samples:
            texts = _texts(sample)
            for key in self._keys(sample):
                counts = self.counts.get(key)
                if counts is None:
                    counts = self.counts[key] = _Counts()
                counts.add(sample.scene, texts)

    @staticmethod
    def _keys(sample: Sample) -> tuple[tuple[str | None, ...], ...]:
        return (sample.kind, sample.prompt.strip()), (sample.kind,), ()

    def answer(self, sample: Sample) -> Output:
        for key in self._keys(sample):
            found = self.counts[key].commonest_elsewhere(sample.scene) if key in self.counts else None
            if found is not None:
                return Output(sample.id, text=found)
        return Output(sample.id, text="")


class Shuffled(Baseline):
    """The truth of another sample, of another scene where there is one: the right style, the wrong content.

    Answers are drawn from questions of the same kind; captions from all, since their kind tells whether anything changed.
    """

    name = "shuffled"
    tasks = ANSWERS | CAPTIONS

    def __init__(self, samples: Iterable[Sample] = (), seed: int = 0) -> None:
        self.seed = seed
        self.by_kind: dict[str | None, list[Sample]] = {}
        for sample in samples:
            if _texts(sample):
                self.by_kind.setdefault(self._kind(sample), []).append(sample)

    @staticmethod
    def _kind(sample: Sample) -> str | None:
        return None if sample.task is Task.CHANGE_CAPTION else sample.kind

    def answer(self, sample: Sample) -> Output:
        chance = random.Random(f"{self.seed}/{sample.id}")
        pool = self.by_kind.get(self._kind(sample), [])
        drawn = [chance.choice(pool) for _ in range(20)] if pool else []
        # Few draws meet the own scene again and again; then the whole pool is looked through.
        other = next((found for found in drawn if found.scene != sample.scene), None)
        if other is None:
            far = [found for found in pool if found.scene != sample.scene]
            near = far or [found for found in pool if found.id != sample.id]
            other = chance.choice(near) if near else None
        return Output(sample.id, text=chance.choice(_texts(other)) if other is not None else "")


class AllLabels(Baseline):
    """Every label of the vocabulary at once, the sample's own or that of all samples: what pleases recall alone."""

    name = "all_labels"
    tasks = ANSWERS

    def __init__(self, samples: Sequence[Sample] = (), separator: str = ", ") -> None:
        self.separator = separator
        seen: dict[str, None] = {}
        for sample in samples:
            seen.update(dict.fromkeys(self._labels(sample.reference)))
        self.vocabulary = tuple(seen)

    @staticmethod
    def _labels(reference: Mapping[str, object]) -> list[str]:
        for key in ("vocabulary", "labels", "answers"):
            found = reference.get(key)
            if isinstance(found, (list, tuple)) and found:
                return [str(entry) for entry in found]
        return [str(reference["label"])] if reference.get("label") is not None else []

    def answer(self, sample: Sample) -> Output:
        if _lists_cells(true_text(sample)):
            cells = self.separator.join(CELLS)
            return Output(sample.id, text=" ".join(f"{name} [{cells}]" for name in CLASSES))
        labels = sample.reference.get("vocabulary") or self.vocabulary
        if sample.reference.get("labels") is not None:
            return Output(sample.id, text=listed(labels, self.separator))
        return Output(sample.id, text=self.separator.join(map(str, labels)))


def _lists_cells(text: str | None) -> bool:
    """Whether an answer is ChangeChat's list of the changed cells of a 3 x 3 grid."""
    return text is not None and "[" in text and read_cells(normalise(text))[0] is not None
