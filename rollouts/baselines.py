"""Policies that need no model: the rows a cheap trick or the truth would get, beside which every table is printed."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rsw_rewards.errors import ConfigError
from rsw_rewards.images import ImageError, ImageRef, content_hash, read_index, read_rgb
from rsw_rewards.rollouts.policy import Policy, Request
from rsw_rewards.samples import Output, Sample, Task

if TYPE_CHECKING:
    from rsw_rewards.rollouts.visual_tokenizer import VisualTokenizer

_ANSWERS = frozenset({Task.CHANGE_QA, Task.CLASSIFICATION})
_FORECAST = frozenset({Task.FORECAST})
_MASK = frozenset({Task.CHANGE_MASK})


def _image(pixels: np.ndarray) -> ImageRef:
    return ImageRef(array=pixels, sha256=content_hash(pixels))


class Baseline(Policy):
    """A policy of one rule per sample; it makes one candidate and knows no chance."""

    def generate(self, requests: Sequence[Request]) -> list[Output]:
        return [self._guarded(request.sample) for request in requests]

    def _guarded(self, sample: Sample) -> Output:
        try:
            return self.answer(sample)
        except ImageError as error:
            return Output(sample.id, lost=str(error))  # the sample's picture is the data's fault

    @abstractmethod
    def answer(self, sample: Sample) -> Output:
        """The one output for a sample."""


class Constant(Baseline):
    """One answer to every question: the commonest one of all samples, or the one given."""

    name = "constant"
    tasks = _ANSWERS

    def __init__(self, samples: Iterable[Sample] = (), text: str | None = None) -> None:
        counts = Counter(answer for sample in samples for answer in _answers(sample)[:1])
        self.text = text if text is not None else (counts.most_common(1)[0][0] if counts else "")

    def answer(self, sample: Sample) -> Output:
        return Output(sample.id, text=self.text)


class Majority(Baseline):
    """The commonest answer of every kind of question, counted on the samples themselves, which is generous to it."""

    name = "majority"
    tasks = _ANSWERS

    def __init__(self, samples: Iterable[Sample] = ()) -> None:
        counts: dict[str | None, Counter[str]] = {}
        for sample in samples:
            counts.setdefault(sample.kind, Counter()).update(_answers(sample)[:1])
        self.by_kind = {kind: counter.most_common(1)[0][0] for kind, counter in counts.items() if counter}

    def answer(self, sample: Sample) -> Output:
        return Output(sample.id, text=self.by_kind.get(sample.kind, ""))


def _answers(sample: Sample) -> list[str]:
    reference = sample.reference
    found = (
        reference.get("answers") or ([reference["label"]] if reference.get("label") else reference.get("labels")) or []
    )
    return [str(answer) for answer in found]


class CopyBefore(Baseline):
    """The newest input image as the forecast: nothing changes."""

    name = "copy_before"
    tasks = _FORECAST

    def answer(self, sample: Sample) -> Output:
        return Output(sample.id, image=_image(read_rgb(sample.images[-1])))


class BlurredCopy(Baseline):
    """The newest input image under a Gaussian blur of two pixels: what averaging over futures looks like."""

    name = "blurred_copy"
    tasks = _FORECAST

    def answer(self, sample: Sample) -> Output:
        from scipy.ndimage import gaussian_filter

        pixels = read_rgb(sample.images[-1]).astype(np.float64)
        return Output(sample.id, image=_image(np.rint(gaussian_filter(pixels, (2, 2, 0))).astype(np.uint8)))


class Filled(Baseline):
    """A change mask that is all changed or all unchanged."""

    tasks = _MASK

    def __init__(self, changed: bool) -> None:
        self.changed = changed
        self.name = "all_changed" if changed else "all_unchanged"

    def answer(self, sample: Sample) -> Output:
        shape = read_index(sample.reference["mask"]).shape
        return Output(sample.id, mask=_image(np.full(shape, 255 if self.changed else 0, np.uint8)))


class Oracle(Baseline):
    """The truth: what a perfect model would get, and a check of the verifiers on the way."""

    name = "oracle"
    tasks = _ANSWERS | _FORECAST | _MASK

    def answer(self, sample: Sample) -> Output:
        if sample.task in _ANSWERS:
            return Output(sample.id, text=(_answers(sample) or [""])[0])
        if sample.task is Task.FORECAST:
            return Output(sample.id, image=sample.reference["images"][-1])
        return Output(sample.id, mask=sample.reference["mask"])


class TokenizerCeiling(Policy):
    """The true future encoded and decoded by the visual tokenizer: the best that a token world model can draw.

    Args:
        path: of the world model whose tokenizer it is; ``embedded`` is the one shipped.
    """

    name = "tokenizer_ceiling"
    tasks = _FORECAST

    def __init__(self, path: str = "embedded") -> None:
        self.path = path
        self._tokenizer: VisualTokenizer | None = None

    def setup(self, device: str = "cpu", threads: int = 1) -> None:
        from rsw_rewards.rollouts.token_world_model import load_world_model

        try:
            self._tokenizer = load_world_model(self.path, device).tokenizer
        except FileNotFoundError as error:
            raise ConfigError(f"the tokenizer's ceiling cannot be had: {error}") from error

    def generate(self, requests: Sequence[Request]) -> list[Output]:
        if self._tokenizer is None:
            raise RuntimeError("call setup() first")
        outputs = []
        for request in requests:
            sample = request.sample
            try:
                before, future = (
                    read_rgb(image)[None] for image in (sample.images[-1], sample.reference["images"][-1])
                )
                drawn = self._tokenizer.decode_forecast(before, self._tokenizer.encode(future))[0]
                outputs.append(Output(sample.id, image=_image(drawn)))
            except (ImageError, ValueError) as error:  # of another size than the tokenizer takes
                outputs.append(Output(sample.id, lost=str(error)))
        return outputs


_MAKERS: Mapping[str, Callable[[Sequence[Sample]], Policy]] = {
    "constant": lambda samples: Constant(samples),
    "majority": lambda samples: Majority(samples),
    "copy_before": lambda samples: CopyBefore(),
    "blurred_copy": lambda samples: BlurredCopy(),
    "all_changed": lambda samples: Filled(True),
    "all_unchanged": lambda samples: Filled(False),
    "oracle": lambda samples: Oracle(),
    "tokenizer_ceiling": lambda samples: TokenizerCeiling(),
}


def make_baseline(name: str, samples: Sequence[Sample]) -> Policy:
    """The baseline of that name, fitted on ``samples`` where it counts answers. Raises ``KeyError`` for an unknown name."""
    return _MAKERS[name](samples)
