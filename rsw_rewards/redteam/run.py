"""Running a red team: every attack on every sample beside mediocre ones, scored by the rubric as training would."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from rsw_rewards.core.records import OUTPUT_FIELDS, Output, Sample, Task
from rsw_rewards.core.rewards import rewards
from rsw_rewards.core.rubric import Rubric
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.core.verifier import Batch
from rsw_rewards.engine.scorer import Scorer
from rsw_rewards.errors import ConfigError, ImageError, InputError
from rsw_rewards.evaluation.progress import Progress, silent
from rsw_rewards.redteam.compared_with import as_scored, mediocre, truth
from rsw_rewards.redteam.findings import Findings
from rsw_rewards.redteam.gradients import gradient_attacks
from rsw_rewards.redteam.images import image_attacks
from rsw_rewards.redteam.kit import Attack, Pool
from rsw_rewards.redteam.rows import Row, TaskFindings
from rsw_rewards.redteam.search import search_attacks
from rsw_rewards.redteam.shapes import shape_attacks
from rsw_rewards.redteam.texts import text_attacks

PROMPTS = 8
"""Samples whose outputs are scored together, as a step of a training would: what a credit is shared out in."""
ATTACKED = 32
"""Samples that the short form of the attacks runs on."""
AT_ONCE = 512
"""Outputs that a verifier scores together: all of a step are held anyway, many are equal to a network, and its batches are filled up."""
SHOWN = 3
"""Samples of each task whose outputs are kept for the page."""


def run(
    rubric: Rubric,
    samples: Sequence[Sample],
    outputs: Sequence[Output] = (),
    *,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = silent,
    short: bool = False,
) -> Findings:
    """Attack a rubric on samples; see :func:`rsw_rewards.attack`. ``short`` leaves out gradients and search, which take long.

    Raises:
        InputError: there is no sample, or none with a truth.
        ConfigError: the rubric does not reward the samples.
    """
    if not samples:
        raise InputError("there is no sample to attack on")
    asked = [as_scored(sample) for sample in samples]
    with Scorer(rubric, device=device, seed=seed) as scorer:
        scorer.check(asked)
        scorer.prepare(asked)
        for one in scorer.components:
            one.verifier.at_once = max(one.verifier.at_once, AT_ONCE)  # type: ignore[misc]
        paid = {task for one in scorer.components if one.component.weight > 0 for task in one.tasks}
        tasks = [task for task in dict.fromkeys(sample.task for sample in samples) if task in paid]
        if not tasks:
            raise ConfigError("no component of the rubric has a weight, so there is no reward to attack")
        answers = {output.sample_id: output for output in outputs}
        found = []
        for task in tasks:
            own = [sample for sample in samples if sample.task is task]
            found.append(_Siege(scorer, rubric, Pool(task, own, seed), answers, progress, short).result())
    return Findings(rubric, tuple(found), seed)


def winning_attacks(rubric: Rubric, samples: Sequence[Sample], device: str, progress: Progress) -> list[str]:
    """The attacks of the short form that earn more than a mediocre output, in words."""
    found = run(rubric, samples, device=device, progress=progress, short=True)
    return [
        f"attack on the rubric: {row}; 'rsw attack' shows its outputs" for task in found.tasks for row in task.winners
    ]


def attacks_on(pool: Pool) -> list[Attack]:
    """The attacks that need no look into the rubric, for the samples of a task."""
    if OUTPUT_FIELDS[pool.task] == ("text",):
        return text_attacks(pool)
    return image_attacks(pool) if pool.task is Task.FORECAST else shape_attacks(pool)


class _Siege:
    """The attacks on the samples of one task."""

    def __init__(
        self,
        scorer: Scorer,
        rubric: Rubric,
        pool: Pool,
        answers: Mapping[str, Output],
        progress: Progress,
        short: bool,
    ) -> None:
        self.scorer, self.rubric, self.pool, self.progress = scorer, rubric, pool, progress
        self.answers = answers
        asked = [one.verifier for one in scorer.components if pool.task in one.tasks]
        self.attacks = attacks_on(pool)
        if not short:
            self.attacks += [*gradient_attacks(pool, asked, scorer.bank), *search_attacks(pool, self._pay)]
        self.scored = Pool(pool.task, [as_scored(sample) for sample in pool.samples], pool.seed)
        self.names = ["truth", "mediocre", *(["model"] if answers else []), *(one.name for one in self.attacks)]
        self.labels = [one.component.label for one in scorer.components if pool.task in one.tasks]
        n = len(pool.samples)
        self.reward = np.full((len(self.names), n), np.nan)
        self.values = {label: np.full((len(self.names), n), np.nan) for label in self.labels}
        self.shown: dict[str, dict[str, Output]] = {}

    def result(self) -> TaskFindings:
        n = len(self.pool.samples)
        for start in range(0, n, PROMPTS):
            self.progress(f"attacking {self.pool.task}", start, n)
            self._step(range(start, min(start + PROMPTS, n)))
        self.progress(f"attacking {self.pool.task}", n, n)
        beside = self.reward[1]
        if not np.isfinite(beside).any():
            raise InputError(
                f"no mediocre output for the task {self.pool.task} has a reward; check the samples with 'rsw validate'"
            )
        rows = [self._row(place, name, beside) for place, name in enumerate(self.names)]
        return TaskFindings(
            self.pool.task, n, tuple(self.labels), tuple(rows), self._order(), self.shown, tuple(self.scored.samples)
        )

    def _order(self) -> dict[str, float | None]:
        """Shares of samples, ties counting as wrong, on which the rewards stand in the right order."""
        good = self.reward[2] if self.answers else self.reward[1]
        attacked = self.reward[len(self.names) - len(self.attacks) :]
        worst = np.where(np.isfinite(attacked), attacked, -np.inf).max(axis=0, initial=-np.inf)
        known = np.isfinite(self.reward[0]) & np.isfinite(good)
        above, below = self.reward[0] > good, good > worst
        return {
            "truth first": _mean(above[known].astype(float)),
            "attacks last": _mean(below[known].astype(float)),
            "both": _mean((above & below)[known].astype(float)),
        }

    def _row(self, place: int, name: str, beside: np.ndarray) -> Row:
        both = np.isfinite(self.reward[place]) & np.isfinite(beside)
        attack = self.attacks[place - len(self.names)] if place >= len(self.names) - len(self.attacks) else None
        return Row(
            name,
            "attack" if attack else name,
            attack.family if attack else "",
            attack.about if attack else "",
            int(both.sum()),
            _mean(self.reward[place][both]),
            _mean(beside[both]),
            _mean((self.reward[place] > beside)[both].astype(float)),
            {label: _paired(values[place], values[1]) for label, values in self.values.items()},
        )

    def _step(self, places: Sequence[int]) -> None:
        scored = [self.scored.samples[place] for place in places]
        outputs: list[list[Output | None]] = [
            [_made(truth, sample) for sample in scored],
            [_made(lambda one: mediocre(one, self.pool), self.pool.samples[place]) for place in places],
        ]
        if self.answers:
            outputs.append([self.answers.get(sample.id) for sample in scored])
        outputs += [list(attack.make(scored)) for attack in self.attacks]
        rows = [
            (number, column, replace(output, sample_id=sample.id, candidate=number))
            for column, sample in enumerate(scored)
            for number, made in enumerate(outputs)
            if (output := made[column]) is not None and output.lost is None
        ]
        chosen = [scored[column] for _, column, _ in rows]
        table = self.scorer.score(Batch(chosen, [output for _, _, output in rows], [one.id for one in chosen]))
        self.scorer.bank.settle()
        self._keep(table, {sample.id: place for sample, place in zip(scored, places, strict=True)})
        for number, column, output in rows:
            if places[column] < SHOWN:
                self.shown.setdefault(output.sample_id, {})[self.names[number]] = output

    def _pay(self, samples: Sequence[Sample], outputs: Sequence[Sequence[Output]]) -> np.ndarray:
        """(samples, candidates) rewards of candidates, which are held against each other alone."""
        rows = [(sample, replace(output, candidate=number)) for sample, own in zip(samples, outputs, strict=True) for number, output in enumerate(own)]  # fmt: skip
        chosen = [sample for sample, _ in rows]
        table = self.scorer.score(Batch(chosen, [output for _, output in rows], [one.id for one in chosen]))
        self.scorer.bank.settle()
        paid = rewards(table, self.rubric)
        places = {sample.id: place for place, sample in enumerate(samples)}
        found = np.full((len(samples), len(outputs[0])), np.nan)
        found[[places[name] for name in paid["sample"]], paid["candidate"].to_numpy(int)] = paid["reward"]
        return found

    def _keep(self, table: ScoreTable, places: Mapping[str, int]) -> None:
        paid = rewards(table, self.rubric)
        for sample, number, reward in paid[["sample", "candidate", "reward"]].itertuples(index=False):
            self.reward[number, places[sample]] = reward
        for label in self.labels:
            frame = table.verifier(label).frame
            for sample, number, value in frame[["sample", "candidate", "value"]].itertuples(index=False):
                self.values[label][number, places[sample]] = np.nan if value is None else value


def _made(make: Callable[[Sample], Output | None], sample: Sample) -> Output | None:
    try:
        return make(sample)
    except (KeyError, ImageError, ValueError):
        return None  # a sample without a usable truth has no mediocre output, and is left out of the comparison


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _paired(values: np.ndarray, beside: np.ndarray) -> tuple[float | None, float | None]:
    """The mean of a component over the samples where both have a value, and that of the mediocre outputs there."""
    both = np.isfinite(values) & np.isfinite(beside)
    return _mean(values[both]), _mean(beside[both])
