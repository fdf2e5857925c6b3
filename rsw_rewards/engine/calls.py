"""One call of a verifier, guarded: what it raises or makes up is a failure, and a failure is traced to the outputs that caused it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Batch, Verifier
from rsw_rewards.errors import ImageError
from rsw_rewards.features.bank import FeatureBank

Rows = list[int]
Runner = Callable[[Batch], "list[Score] | Failure"]


class Failure:
    """A call of a verifier that gave no scores."""

    def __init__(self, reason: str, status: Status = Status.ERROR) -> None:
        self.reason = reason
        self.status = status


def weights_of(verifier: Verifier, bank: FeatureBank) -> dict[str, str]:
    """Networks that a verifier works with in this process, once it is set up: id -> SHA-256 of their weights.

    Encoders are the bank's; detectors and LPIPS belong to the verifier itself.
    """
    found = dict(bank.weights())
    for name in ("detector", "network"):
        network = getattr(verifier, name, None)
        if isinstance(digest := getattr(network, "weights_sha256", None), str):
            found[str(getattr(network, "id", None) or f"{getattr(network, 'name', 'network')}@{digest[:12]}")] = digest
    return found


def guarded(verifier: Verifier, batch: Batch) -> list[Score] | Failure:
    """Call a verifier and check what it gives back; nothing it does gets past this but a kill of the process."""
    try:
        scores = verifier.score(batch)
    except (Exception, SystemExit) as error:  # a library that gives up must not end the run
        if (
            len(batch) == 1
            and isinstance(error, ImageError)
            and blames_output(error, batch.samples[0], batch.outputs[0])
        ):
            return [verifier.invalid(batch.samples[0], str(error))]
        return Failure(f"{type(error).__name__}: {error}")
    if not isinstance(scores, Sequence):
        return Failure(f"it gave {type(scores).__name__} instead of a list of scores")
    if len(scores) != len(batch):
        return Failure(f"it gave {len(scores)} scores for {len(batch)} outputs")
    checked: list[Score] = []
    for score in scores:
        if not isinstance(score, Score):
            score = Score.error(f"it gave {score!r:.80} instead of a Score")
        elif score.value is None and score.status is Status.OK and verifier.rewarding:
            score = Score.error("it gave a score without a value")
        checked.append(score)
    return checked


def blames_output(error: ImageError, sample: Sample, output: Output) -> bool:
    """Whether an image that cannot be used is a file of the output's, and not one that the sample names too."""
    drawn = [
        output.image,
        *(output.images or ()),
        output.mask,
        output.map_before,
        output.map_after,
        output.buildings,
        output.damage,
    ]
    paths = {image.path for image in drawn if image is not None and image.path is not None}
    given = {image.path for image in sample.images} | {
        getattr(item, "path", None) for item in sample.reference.values()
    }
    return any(str(path) in str(error) for path in paths - given)


def parts(batch: Batch, verifier: Verifier) -> list[Rows]:
    """How a batch whose call failed is divided to find the culprit; empty when it cannot be divided further."""
    if verifier.scope == "population":
        return []
    units: dict[Any, Rows] = {}
    for row in range(len(batch)):
        units.setdefault(batch.groups[row] if verifier.scope == "group" else row, []).append(row)
    listed = list(units.values())
    if len(listed) < 2:
        return []
    half = len(listed) // 2
    return [[row for unit in side for row in unit] for side in (listed[:half], listed[half:])]


def bisect(run: Runner, batch: Batch, verifier: Verifier) -> list[Score]:
    """Scores of a batch by ``run``; where it fails, the batch is halved until only the outputs at fault are left."""
    result = run(batch)
    if not isinstance(result, Failure):
        return result
    halves = parts(batch, verifier)
    if not halves:
        return [Score(None, result.status, reason=result.reason)] * len(batch)
    scores: list[Score | None] = [None] * len(batch)
    for rows in halves:
        for row, score in zip(rows, bisect(run, batch.take(rows), verifier), strict=True):
            scores[row] = score
    return [score for score in scores if score is not None]
