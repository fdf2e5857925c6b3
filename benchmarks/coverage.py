"""How often the 95 % intervals of the evaluation hold the truth: worlds whose truth is known, at several numbers of scenes.

Beside this project's intervals stand two usual ones on the same draws: the percentile bootstrap over scenes and Student's t with
the jackknife's error. For paired differences, also how often the p-value falls below 0.05 where the runs do not differ.

Run: python benchmarks/coverage.py [--repeats 1000] [--only NAME ...]. Prints JSON, percentages.
With --counts: the intervals of all counts 0..n of right answers, one a scene, for n = 10, 30, 60 and 200.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from rsw_rewards.core.metric import Bounds
from rsw_rewards.evaluation.intervals import deal, sign_flip_p, spread, student_interval
from rsw_rewards.evaluation.statistics import SET_PARTS, SetLevel, Statistic, Summed, interval_estimates, mean_estimate

RESAMPLES = 1000
TRUTH_SCENES = 1_000_000
TRUTH_SETS = 3000
"""Draws whose mean is the truth of a set-level distance: what other scenes of the same number would give, bias included."""

Draw = Callable[[np.random.Generator, int], np.ndarray]
Value = Callable[[np.ndarray], np.ndarray]
"""(..., width) sums to (...) numbers."""


@dataclass(frozen=True)
class World:
    """Where samples come from."""

    draw: Draw
    """(generator, scenes) to (scenes, width) sums per scene; of a set-level world, to (scenes, images, features)."""
    value: Value
    """The number."""
    bounds: Bounds | None = None
    paired: bool = False
    whole: bool = False
    """A set-level number, of all images together."""


def rows_per_scene(generator: np.random.Generator, n: int) -> np.ndarray:
    """From 1 to 61 rows a scene, 10 on average."""
    return 1 + np.minimum(generator.negative_binomial(1, 0.1, n), 60)


def answers(generator: np.random.Generator, n: int, right: float, weight: float, tied: bool = False) -> np.ndarray:
    """Right answers and answers: a share per scene ~ Beta, and where ``tied`` three times the questions in hard scenes."""
    rows, share = rows_per_scene(generator, n), generator.beta(right * weight, (1 - right) * weight, n)
    rows = rows * np.where(share < 0.8, 3, 1) if tied else rows
    return np.stack([generator.binomial(rows, share), rows], axis=1).astype(np.float64)


def masks(generator: np.random.Generator, n: int, sigma: float) -> np.ndarray:
    """True positive, false positive and false negative pixels: log-normal areas, so that few scenes hold most of the change."""
    area, recall = generator.lognormal(5, sigma, n), generator.beta(4, 1.5, n)
    false = area * generator.beta(1.5, 6, n) * generator.lognormal(0, 0.5, n)
    return np.stack([area * recall, false, area * (1 - recall)], axis=1)


def two_answerers(generator: np.random.Generator, n: int, better: float) -> np.ndarray:
    """Right answers of two runs, and answers: both find the same scenes hard."""
    rows, ease = rows_per_scene(generator, n), 0.05 + 0.85 * generator.beta(5, 1, n)
    shares = [np.clip(ease + extra + generator.normal(0, 0.05, n), 0, 1) for extra in (0.0, better)]
    return np.stack([*(generator.binomial(rows, share) for share in shares), rows], axis=1).astype(np.float64)


def two_masks(generator: np.random.Generator, n: int, better: float) -> np.ndarray:
    """Pixels of two runs on the same changes."""
    truth = masks(generator, n, 1.0)
    positive = truth[:, 0] + truth[:, 2]
    sides = []
    for extra in (0.0, better):
        recall = np.clip(truth[:, 0] / positive + generator.normal(extra, 0.1, n), 0, 1)
        false = truth[:, 1] * generator.lognormal(0, 0.3, n)
        sides.append(np.stack([positive * recall, false, positive * (1 - recall)], axis=1))
    return np.concatenate(sides, axis=1)


def captions(generator: np.random.Generator, n: int) -> np.ndarray:
    """Matched and possible 1- to 4-grams, words and reference words of a scene's captions."""
    count, skill = generator.integers(1, 8, n)[:, None], generator.beta(3, 3, n)[:, None]
    words = count * generator.uniform(8, 14, (n, 1))
    possible = np.concatenate([words - order * count for order in range(4)], axis=1).round()
    found = np.concatenate(
        [0.3 + 0.6 * skill, 0.05 + 0.7 * skill, 0.02 + 0.4 * skill**1.5, 0.01 + 0.3 * skill**2], axis=1
    )
    matched = generator.binomial(possible.astype(np.int64), found)
    return np.concatenate([matched, possible, words, words * generator.normal(1.03, 0.1, (n, 1))], axis=1)


def errors(generator: np.random.Generator, n: int) -> np.ndarray:
    """Summed absolute errors and rows: scenes differ by a log-normal factor."""
    rows = rows_per_scene(generator, n)
    return np.stack([generator.gamma(rows, 1.0) * generator.lognormal(0, 0.6, n), rows], axis=1)


def gains(generator: np.random.Generator, n: int) -> np.ndarray:
    """Squared error of a forecast and of copying."""
    copy = generator.lognormal(-4, 1, n)
    return np.stack([copy * generator.lognormal(-0.7, 0.5, n), copy], axis=1)


MISSING, MISSING_SETS = (0.01, 0.05, 0.1, 0.33), 12
_FEATURES = 6
_MIX = np.eye(_FEATURES) + np.random.default_rng(0).normal(size=(_FEATURES, _FEATURES)) / 2


def pictures(generator: np.random.Generator, n: int, shift: float) -> np.ndarray:
    """(n, 4, 12): features of four true images of a scene, and of four forecasts with less and skewed spread."""
    scene = generator.gamma(2, 1, (n, 1, _FEATURES)) - 2
    true = scene + generator.normal(size=(n, 4, _FEATURES))
    made = 0.9 * scene + shift + 0.9 * generator.normal(size=true.shape) + 0.3 * generator.exponential(size=(n, 4, 1))
    return np.concatenate([true @ _MIX, made @ _MIX], axis=2)


def frechet(images: np.ndarray) -> np.ndarray:
    """Frechet distance of the two halves of the features."""
    return frechet_of(*np.split(images.reshape(-1, images.shape[-1]), 2, axis=1))


def frechet_of(true: np.ndarray, made: np.ndarray) -> np.ndarray:
    """Frechet distance of two sets of features."""
    apart = true.mean(0) - made.mean(0)
    first, second = np.cov(true.T), np.cov(made.T)
    root = np.sqrt(np.clip(np.linalg.eigvals(first @ second).real, 0, None)).sum()
    return np.asarray(apart @ apart + np.trace(first) + np.trace(second) - 2 * root)


def share(sums: np.ndarray) -> np.ndarray:
    return np.asarray(sums[..., 0] / sums[..., 1])


def f1(sums: np.ndarray) -> np.ndarray:
    return np.asarray(2 * sums[..., 0] / (2 * sums[..., 0] + sums[..., 1] + sums[..., 2]))


def iou(sums: np.ndarray) -> np.ndarray:
    return np.asarray(sums[..., 0] / sums.sum(-1))


def bleu(sums: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        precision = np.exp(np.log(sums[..., :4] / sums[..., 4:8]).mean(-1))
    return np.asarray(precision * np.exp(np.minimum(0, 1 - sums[..., 9] / sums[..., 8])))


UNIT = (0.0, 1.0)
WORLDS: dict[str, World] = {
    "accuracy 0.9": World(lambda g, n: answers(g, n, 0.9, 3), share, UNIT),
    "accuracy 0.9, one row a scene": World(
        lambda g, n: np.stack([g.binomial(1, 0.9, n), np.ones(n)], 1).astype(float), share, UNIT
    ),
    "accuracy, hard scenes have more rows": World(lambda g, n: answers(g, n, 0.9, 3, True), share, UNIT),
    "accuracy 0.97": World(lambda g, n: answers(g, n, 0.97, 5), share, UNIT),
    "accuracy 0.6": World(lambda g, n: answers(g, n, 0.6, 3), share, UNIT),
    "F1 of summed pixels": World(lambda g, n: masks(g, n, 1.0), f1, UNIT),
    "IoU, few scenes hold most pixels": World(lambda g, n: masks(g, n, 1.5), iou, UNIT),
    "BLEU-4": World(captions, bleu, UNIT),
    "mean absolute error": World(errors, share, (0.0, np.inf)),
    "mean absolute error, no bounds given": World(errors, share),
    "gain over copy": World(gains, lambda sums: 1 - share(sums), (-np.inf, 1.0)),
    "gain over copy, no bounds given": World(gains, lambda sums: 1 - share(sums)),
    "difference of accuracies": World(
        lambda g, n: two_answerers(g, n, 0.03), lambda s: (s[..., 1] - s[..., 0]) / s[..., 2], (-1.0, 1.0), paired=True
    ),
    "difference of F1": World(
        lambda g, n: two_masks(g, n, 0.03), lambda s: f1(s[..., 3:]) - f1(s[..., :3]), (-1.0, 1.0), paired=True
    ),
    "Frechet distance, close": World(lambda g, n: pictures(g, n, 0.0), frechet, (0.0, np.inf), whole=True),
    "Frechet distance, far": World(lambda g, n: pictures(g, n, 0.5), frechet, (0.0, np.inf), whole=True),
}

NO_DIFFERENCE: dict[str, tuple[Draw, Value]] = {
    "accuracies": (lambda g, n: two_answerers(g, n, 0.0)[:, [0, 2, 1, 2]], share),
    "F1": (lambda g, n: two_masks(g, n, 0.0), f1),
}
"""Worlds of two equally good runs: sums of the first, then of the second; and the number that is compared."""


def statistic(world: World, drawn: np.ndarray) -> Statistic:
    """One draw as the evaluation sees it."""
    if world.whole:
        return SetLevel(lambda weight: {"number": float(world.value(drawn[weight > 0]))})
    return Summed(drawn, lambda sums: {"number": float(world.value(sums))})


def truth(world: World, n: int) -> float:
    """What the intervals should hold."""
    generator = np.random.default_rng(1)
    if world.whole:
        return float(np.mean([world.value(world.draw(generator, n)) for _ in range(TRUTH_SETS)]))
    return float(world.value(world.draw(generator, TRUTH_SCENES).sum(axis=0)))


def usual(world: World, drawn: np.ndarray, generator: np.random.Generator) -> dict[str, tuple[float, float]]:
    """Intervals of the usual methods on the same draw."""
    n = len(drawn)
    of = statistic(world, drawn)
    value = of(np.ones(n))["number"]
    assert value is not None
    left = np.array(
        [numbers["number"] for numbers in of.left_out(deal(n, SET_PARTS if world.whole else n))], dtype=float
    )
    error, _ = spread(left)
    found = {"student": student_interval(value, error, len(left) - 1) if error else (value, value)}
    if not world.whole:
        weights = generator.multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(np.float64)
        low, high = np.percentile(world.value(weights @ drawn), (2.5, 97.5))
        found["percentile"] = (float(low), float(high))
    return found


def coverage(world: World, n: int, repeats: int, seed: int) -> dict[str, object]:
    """Per method: percent of draws whose interval holds the truth, lies above it, lies below it; and the mean width."""
    generator = np.random.default_rng(seed)
    true = truth(world, n)
    bounds = {"number": world.bounds} if world.bounds else {}
    counts: dict[str, np.ndarray] = {}
    none = 0
    for _ in range(repeats):
        drawn = world.draw(generator, n)
        estimate = interval_estimates(statistic(world, drawn), ("number",), n, bounds, world.paired)["number"]
        none += estimate.ci95 is None
        ours = {"ours": estimate.ci95} if estimate.ci95 else {}
        for name, (low, high) in (ours | usual(world, drawn, generator)).items():
            counts.setdefault(name, np.zeros(4))
            counts[name] += (low <= true <= high, low > true, high < true, high - low)
    columns = ("covered", "too_high", "too_low")
    return {
        "truth": round(true, 4),
        **{
            name: {column: round(100 * part / repeats, 1) for column, part in zip(columns, count, strict=False)}
            | {"width": round(count[3] / repeats, 4)}
            for name, count in counts.items()
        },
        **({"no_interval": none} if none else {}),
    }


def false_alarms(draw: Draw, value: Value, n: int, repeats: int, seed: int) -> float:
    """Percent of draws with a p-value of at most 0.05, where the runs are equally good."""
    generator = np.random.default_rng(seed)
    alarms = 0
    for _ in range(repeats):
        first, second = np.split(draw(generator, n), 2, axis=1)
        (p,) = sign_flip_p(first, second, lambda a, b: [float(value(b) - value(a))])
        alarms += p is not None and p <= 0.05
    return round(100 * alarms / repeats, 1)


def counts(n: int) -> str:
    """One row of a table: whether one right answer more always raises both ends, the range, and exact coverage over true shares."""
    scenes = [str(scene) for scene in range(n)]
    ends = [mean_estimate((np.arange(n) < right).astype(float), scenes, (0.0, 1.0)).ci95 for right in range(n + 1)]
    low, high = np.array(ends, dtype=float).T
    shares = np.arange(0.01, 0.995, 0.01)
    held = [binom.pmf(np.arange(n + 1), n, share)[(low <= share) & (share <= high)].sum() for share in shares]
    rises = bool((np.diff(low) > 0).all() and (np.diff(high) > 0).all())
    mistakes = ", ".join(f"[{low[n - k]:.3f}, {high[n - k]:.3f}]" for k in (0, 1, 3))
    return (
        f"| {n} | {'yes' if rises else 'no'} | [{low.min():.3f}, {high.max():.3f}] | {mistakes} |"
        f" {100 * np.mean(held):.1f} ({100 * min(held):.1f} to {100 * max(held):.1f}) |"
    )


def missing(name: str, images: int) -> str:
    """How far a Frechet distance falls where the forecasts farthest from their true images are left out, in halves of its interval.

    The mean of :data:`MISSING_SETS` draws, as a row of docs/statistics.md.
    """
    generator = np.random.default_rng(0)
    world, n = WORLDS[name], images // 4
    falls = []
    for _ in range(MISSING_SETS):
        drawn = world.draw(generator, n)
        low, high = interval_estimates(statistic(world, drawn), ("number",), n, {"number": (0.0, np.inf)})[
            "number"
        ].ci95  # type: ignore[misc]
        true, made = np.split(drawn.reshape(-1, drawn.shape[-1]), 2, axis=1)
        order = np.linalg.norm(made - true, axis=1).argsort()
        kept = [made[order[: round(len(made) * (1 - left))]] for left in MISSING]
        falls.append([(frechet_of(true, made) - frechet_of(true, part)) / ((high - low) / 2) for part in kept])
    return f"| {name} | {images} | " + " | ".join(f"{fall:.2f}" for fall in np.mean(falls, axis=0)) + " |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--scenes", type=int, nargs="+", default=[10, 30, 50, 200])
    parser.add_argument("--only", nargs="+", choices=[*WORLDS, "p-values"], default=[*WORLDS, "p-values"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--counts", action="store_true")
    parser.add_argument("--missing", action="store_true")
    given = parser.parse_args(arguments)
    if given.counts:
        print(
            "| n | one more right answer raises both ends | all ends lie in | 0, 1 and 3 mistakes | coverage in percent, mean and range |"
        )
        print("|---|---|---|---|---|")
        print("\n".join(counts(n) for n in (10, 30, 60, 200)))
        return
    if given.missing:
        print("| world | images | " + " | ".join(f"{left:.0%} left out" for left in MISSING) + " |")
        print("|---|---|" + "---|" * len(MISSING))
        print(
            "\n".join(missing(name, images) for name in WORLDS if name.startswith("Frechet") for images in (400, 1000))
        )
        return
    out: dict[str, object] = {"repeats": given.repeats}
    for name in given.only:
        print(name, file=sys.stderr, flush=True)
        if name == "p-values":
            out[name] = {
                kind: {n: false_alarms(draw, value, n, given.repeats, given.seed) for n in given.scenes}
                for kind, (draw, value) in NO_DIFFERENCE.items()
            }
        else:
            out[name] = {n: coverage(WORLDS[name], n, given.repeats, given.seed) for n in given.scenes}
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
