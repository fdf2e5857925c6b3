"""What attacks are made with: the samples they may look at, chance that repeats, and the shape of an attack."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.rollouts.baselines import make_baseline, true_text
from rsw_rewards.rollouts.policy import Policy, Request, outputs_of
from rsw_rewards.verifiers.caption_base import is_changed, no_change_sentences

Make = Callable[[Sequence[Sample]], Sequence[Output | None]]
"""One output for every sample; None, or an output that is lost, where the attack does not fit the sample."""


@dataclass(frozen=True)
class Attack:
    """A way to please a reward without a good output."""

    name: str
    family: str
    """``text``, ``image``, ``gradient``, ``search``, ``mask`` or ``boxes``."""
    make: Make
    about: str = ""


@dataclass(frozen=True)
class Pool:
    """All samples of one task that a red team works on, and its seed."""

    task: Task
    samples: Sequence[Sample]
    seed: int = 0

    def number(self, sample: Sample, what: str) -> int:
        """A number of 32 bits that depends on the seed, the sample and what it is for."""
        return zlib.crc32(f"{self.seed}/{what}/{sample.id}".encode())

    def chance(self, sample: Sample, what: str) -> random.Random:
        """Chance for texts."""
        return random.Random(self.number(sample, what))

    def noise(self, sample: Sample, what: str) -> np.random.Generator:
        """Chance for pixels."""
        return np.random.default_rng(self.number(sample, what))

    @cached_property
    def _places(self) -> dict[str, int]:
        return {sample.id: place for place, sample in enumerate(self.samples)}

    def other(self, sample: Sample, fits: Callable[[Sample], bool] = lambda _: True) -> Sample | None:
        """The next sample of another scene that fits; None where there is none."""
        start = self._places.get(sample.id, 0)
        turned = (self.samples[(start + step) % len(self.samples)] for step in range(1, len(self.samples)))
        return next((one for one in turned if one.scene != sample.scene and fits(one)), None)

    def wrong_text(self, sample: Sample) -> str | None:
        """A text that answers a sample wrongly: the opposite claim of a caption, another answer, another number."""
        if self.task is Task.CHANGE_CAPTION:
            if is_changed(sample):
                return no_change_sentences(sample)[0]
            other = self.other(sample, is_changed)
            return "a road was built" if other is None else true_text(other)
        true = true_text(sample)
        vocabulary = [str(word) for word in sample.reference.get("vocabulary") or ()]
        known = {
            true,
            *map(str, sample.reference.get("answers") or ()),
            *map(str, sample.reference.get("labels") or ()),
        }
        if wrong := [word for word in vocabulary if word not in known]:
            return self.chance(sample, "wrong").choice(wrong)
        if (number := as_number(true)) is not None:
            return f"{number + max(1, round(abs(number) / 4))}"
        other = self.other(sample, lambda one: true_text(one) not in known)
        return None if other is None else true_text(other)


def as_number(text: str | None) -> int | None:
    """The whole number that a text is; None where it is none."""
    return int(text) if text is not None and text.strip().lstrip("-").isdecimal() else None


def from_baseline(name: str, pool: Pool) -> Make:
    """What a baseline gives, counted on the samples of the pool."""

    made: list[Policy] = []  # once, since some look at all samples

    def make(samples: Sequence[Sample]) -> Sequence[Output | None]:
        if not made:
            made.append(make_baseline(name, pool.samples))
            made[0].setup()
        return outputs_of(made[0], [Request(sample) for sample in samples])

    return make


def baseline_attacks(names: Sequence[str], pool: Pool, family: str, about: str) -> list[Attack]:
    """The baselines of these names that answer the task of a pool, as attacks."""
    known = [name for name in names if pool.task in make_baseline(name, pool.samples[:1]).tasks]
    return [Attack(name, family, from_baseline(name, pool), about) for name in known]


def each(one: Callable[[Sample], Output | None]) -> Make:
    """An attack that looks at one sample after another."""
    return lambda samples: [one(sample) for sample in samples]


def texts(one: Callable[[Sample], str | None]) -> Make:
    """An attack that writes one text for a sample."""

    def output(sample: Sample) -> Output | None:
        text = one(sample)
        return None if text is None else Output(sample.id, text=text)

    return each(output)
