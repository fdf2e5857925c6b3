"""Whether a protocol can be trusted on a file of samples: the truth scores 1, baselines that do not look score low, and the data are whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import OUTPUT_FIELDS, Output, Sample
from rsw_rewards.core.rubric import Component, Rubric
from rsw_rewards.core.scores import ScoreTable, Status
from rsw_rewards.core.verifier import Batch, named_metrics
from rsw_rewards.engine.scorer import CHUNK, Scorer
from rsw_rewards.errors import ConfigError
from rsw_rewards.evaluation.ceilings import GOLD, ceiling, falls, perfect
from rsw_rewards.evaluation.progress import Progress, silent
from rsw_rewards.evaluation.protocols import Protocol
from rsw_rewards.evaluation.report import CEILINGS
from rsw_rewards.evaluation.run import BASELINE_SAMPLES, select
from rsw_rewards.evaluation.statistics import Estimate, Rows
from rsw_rewards.features.bank import FeatureBank
from rsw_rewards.rollouts.baselines import BASELINES, make_baseline
from rsw_rewards.rollouts.policy import Request, outputs_of, set_up

TOLERANCE = 1e-6
"""What the truth may lack to 1: the epsilon that published F1s carry in their denominators takes 6e-8."""


@dataclass(frozen=True, slots=True)
class Check:
    """One number of one policy and the bound it must keep."""

    policy: str
    what: str
    """``value of <component>`` or a key of the protocol's headline."""
    value: float | None
    bound: float | None
    relation: str
    """``=``: the value must be the bound; ``<=``: at most; ``<`` and ``>``: worse than the truth's number."""
    why: str = ""

    @property
    def ok(self) -> bool:
        if self.value is None or self.bound is None:
            return True  # without a number there is nothing a trick could have earned; that the truth has one is checked apart
        if self.relation == "=":
            return bool(abs(self.value - self.bound) <= TOLERANCE)
        if self.relation == "<=":
            return bool(self.value <= self.bound + TOLERANCE)
        return bool(self.value < self.bound if self.relation == "<" else self.value > self.bound)

    def __str__(self) -> str:
        value = "none" if self.value is None else f"{self.value:.4f}"
        bound = "none" if self.bound is None else f"{self.bound:.4f}"
        return f"{self.policy}: {self.what} is {value}, must be {self.relation} {bound} ({self.why})"


@dataclass
class Validation:
    """What :func:`validate` found."""

    protocol: str
    n: int
    rows: list[Check] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What is wrong with the samples, in words, with the first ids."""
    notes: list[str] = field(default_factory=list)
    """What could not be checked, and what is missing without making scores wrong."""

    @property
    def failed(self) -> list[Check]:
        """The rows that do not keep their bound."""
        return [row for row in self.rows if not row.ok]

    @property
    def ok(self) -> bool:
        """Whether all rows keep their bounds and the data have no problem; the exit status of ``rsw validate``."""
        return not self.failed and not self.problems

    def to_json(self) -> dict[str, Any]:
        """The result as plain values."""
        rows = [
            {"policy": row.policy, "what": row.what, "value": row.value, "relation": row.relation, "bound": row.bound,
             "ok": row.ok, "why": row.why}
            for row in self.rows
        ]  # fmt: skip
        return {"protocol": self.protocol, "n": self.n, "ok": self.ok, "rows": rows, "problems": self.problems,
                "notes": self.notes}  # fmt: skip


def validate(
    protocol: Protocol, samples: Sequence[Sample], *, device: str = "cpu", progress: Progress = silent
) -> Validation:
    """Run the truth and every degenerate policy of the protocol's task through its verifiers.

    Args:
        protocol: what to check.
        samples: those it would be run on; samples of other tasks are left out. Pictures of tricks are drawn for the first
            ``BASELINE_SAMPLES`` of them.
        device: where encoders run.
        progress: told how far the work is.

    Raises:
        InputError: no sample fits the protocol.
    """
    chosen = select(samples, protocol)
    result = Validation(protocol.name, len(chosen))
    result.problems += duplicates(chosen)
    missing = missing_files(chosen)
    drawing = OUTPUT_FIELDS[protocol.task] != ("text",)
    (result.problems if drawing else result.notes).extend(missing)
    bench = _Bench(protocol, chosen, device, result)
    gold = bench.run("oracle", chosen)
    if gold is None:
        result.problems.append(f"no component of {protocol.name!r} could be set up, so nothing was checked")
        return result
    table, outputs = gold
    _check_data(result, table, outputs)
    numbers = _numbers(protocol, bench, table)
    _check_gold(result, bench, table, numbers)
    part = chosen[:BASELINE_SAMPLES] if drawing else chosen
    names = [name for name in BASELINES.built_in if name not in CEILINGS]
    names = [name for name in names if protocol.task in make_baseline(name, part[:1]).tasks]
    part_numbers = numbers
    if len(part) < len(chosen):
        wanted = {sample.id for sample in part}
        part_numbers = _numbers(protocol, bench, ScoreTable(table.frame[table.frame["sample"].isin(wanted)]))
    for done, name in enumerate(names):
        progress("tricks", done, len(names))
        found = bench.run(name, part)
        if found is not None:
            _check_trick(result, bench, name, found, part, part_numbers)
    progress("tricks", len(names), len(names))
    bench.close()
    return result


class _Bench:
    """The protocol's components, each set up apart, so that one without its weights does not keep the others from being checked."""

    def __init__(self, protocol: Protocol, samples: Sequence[Sample], device: str, result: Validation) -> None:
        self.protocol, self.samples, self.result = protocol, samples, result
        self.bank = FeatureBank(device)
        self.scorers: dict[str, Scorer] = {}
        for component in protocol.rubric.components:
            scorer = Scorer(Rubric(components=(component,)), device=device, bank=self.bank)
            scorer.prepare(samples)
            self.scorers[component.label] = scorer
        self.uses = {component.label: component.use for component in self.components}

    @property
    def components(self) -> tuple[Component, ...]:
        return self.protocol.rubric.components

    @property
    def verifiers(self) -> dict[str, Any]:
        """Component -> verifier, of those that could be set up."""
        return {label: scorer.by_name[label] for label, scorer in self.scorers.items()}

    def run(self, name: str, samples: Sequence[Sample]) -> tuple[ScoreTable, list[Output]] | None:
        """Scores and outputs of a baseline; None where no component is left to score it."""
        policy = make_baseline(name, self.samples)
        set_up(policy)
        outputs: list[Output] = []
        for start in range(0, len(samples), CHUNK):
            outputs += outputs_of(policy, [Request(sample) for sample in samples[start : start + CHUNK]])
        groups = [f"{number}" for number in range(len(outputs))]  # ids may repeat, which is reported apart
        tables = []
        for label in list(self.scorers):
            try:
                for start in range(0, len(outputs), CHUNK):
                    piece = slice(start, start + CHUNK)
                    tables.append(self.scorers[label].score(Batch(samples[piece], outputs[piece], groups[piece])))
            except ConfigError as error:
                self.result.notes.append(f"{label} was not checked: {error}")
                self.scorers.pop(label).close()
        return (ScoreTable.concat(tables), outputs) if self.scorers else None

    def close(self) -> None:
        for scorer in self.scorers.values():
            scorer.close()


def _numbers(protocol: Protocol, bench: _Bench, table: ScoreTable) -> dict[str, Estimate]:
    """The numbers of the headline over a table, in its order, without the intervals that a report would need."""
    found: dict[str, Estimate] = {}
    counted = {label: Rows.of(table.verifier(label)) for label in bench.verifiers}
    for label, metric, names in named_metrics(bench.verifiers):
        rows = counted[label]
        if not len(rows.frame) or not set(names.values()) & set(protocol.headline):
            continue
        numbers = metric.compute(rows.frame, rows.stats, np.ones(len(rows.frame)), bench.bank)
        notes = metric.notes(rows.frame)
        found.update(
            {names[key]: Estimate(value, None, 0, notes.get(key, "")) for key, value in numbers.items() if key in names}
        )
    return {key: found[key] for key in protocol.headline if key in found}


def _some(ids: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in ids[:3]) + (", ..." if len(ids) > 3 else "")


def duplicates(samples: Sequence[Sample]) -> list[str]:
    """Ids that stand more than once, in one sentence."""
    twice = [name for name, count in Counter(sample.id for sample in samples).items() if count > 1]
    return [f"{len(twice):,} ids stand more than once: {_some(twice)}"] if twice else []


def missing_files(samples: Sequence[Sample]) -> list[str]:
    """Pictures that the samples name and that are not there, one sentence for those shown and one for those of the truth."""
    said = []
    for what, pictures in (("input images", _inputs), ("pictures of the truth", _truths)):
        gone = [sample.id for sample in samples if any(_is_gone(image) for image in pictures(sample))]
        if gone:
            said.append(f"{len(gone):,} samples name {what} that do not exist: {_some(gone)}")
    return said


def _inputs(sample: Sample) -> Iterator[ImageRef]:
    yield from sample.images


def _truths(sample: Sample) -> Iterator[ImageRef]:
    for value in sample.reference.values():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, ImageRef):
                yield item


def _is_gone(image: ImageRef) -> bool:
    return image.path is not None and not image.path.is_file()


def _check_data(result: Validation, table: ScoreTable, outputs: Sequence[Output]) -> None:
    """Truths that are missing, that a verifier cannot read, or that it does not accept."""
    lost = {output.sample_id: output.lost for output in outputs if output.lost}
    if lost:
        first = next(iter(lost.values()))
        result.problems.append(f"{len(lost):,} samples have no truth that can be used: {_some(list(lost))} ({first})")
    said = {Status.ERROR: "cannot be scored", Status.TIMEOUT: "took too long", Status.INVALID_OUTPUT: "is not accepted"}
    for label in table.names:
        rows = table.verifier(label).frame
        rows = rows[~rows["sample"].isin(lost)]
        for status, words in said.items():
            found = rows[rows["status"] == status]
            if len(found):
                ids, reason = _some(found["sample"].tolist()), found["reason"].iloc[0]
                result.problems.append(f"{label}: the truth of {len(found):,} samples {words}: {ids} ({reason})")
        absent = rows[rows["status"] == Status.NOT_APPLICABLE]
        if len(absent):
            words = f"{label} does not apply to {len(absent):,} of {len(rows):,} samples ({absent['reason'].iloc[0]})"
            (result.problems if len(absent) == len(rows) and len(table.names) == 1 else result.notes).append(words)


def _values(table: ScoreTable, label: str) -> np.ndarray:
    """(rows,) values of one component, NaN where there is none."""
    return table.verifier(label).frame["value"].to_numpy(dtype=np.float64)


def _mean(values: np.ndarray) -> float | None:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None


def _check_gold(result: Validation, bench: _Bench, table: ScoreTable, numbers: dict[str, Estimate]) -> None:
    for label, verifier in bench.verifiers.items():
        if verifier.rewarding:
            if (why := GOLD.get(bench.uses[label])) is None:
                check = Check(
                    "oracle", f"value of {label}", _mean(_values(table, label)), 1.0, "=", "the truth is worth 1"
                )
            else:
                check = Check("oracle", f"value of {label}", _mean(_values(table, label)), 1.0, "<=", why)
            result.rows.append(check)
    for key, entry in numbers.items():
        best = perfect(key, result.protocol)
        if entry.value is None:
            result.notes.append(f"the truth has no {key}" + (f": {entry.reason}" if entry.reason else ""))
        elif best is not None:
            result.rows.append(Check("oracle", key, entry.value, best, "=", "what faultless outputs have"))
        else:
            result.notes.append(f"{key} of the truth is {entry.value:.4f}; it has no fixed best value")


def _check_trick(
    result: Validation,
    bench: _Bench,
    name: str,
    found: tuple[ScoreTable, list[Output]],
    samples: Sequence[Sample],
    gold: dict[str, Estimate],
) -> None:
    table, outputs = found
    if lost := [output.lost for output in outputs if output.lost]:
        fits = len(lost) < len(outputs)
        if fits or name in bench.protocol.baselines:  # a trick of other protocols may fit none
            result.notes.append(f"{name} does not fit {len(lost):,} of {len(outputs):,} samples: {lost[0]}")
        if not fits:
            return
    for label, verifier in bench.verifiers.items():
        if not verifier.rewarding:
            continue
        values, limit = _values(table, label), ceiling(result.protocol, bench.uses[label], name, samples[0])
        counted = [row for row in range(len(values)) if np.isfinite(values[row])]
        most = [limit.of(samples[row], outputs[row]) for row in counted]
        bound = float(np.mean(most)) if most else None
        result.rows.append(Check(name, f"value of {label}", _mean(values), bound, "<=", limit.why))
    numbers = _numbers(bench.protocol, bench, table)
    key = next((key for key in numbers if numbers[key].value is not None and key in gold), None)
    if key is not None and gold[key].value is not None:
        value, best = numbers[key].value, gold[key].value
        # Where every answer of the data is the same, a constant is the truth, and says nothing against the protocol.
        knows = all(float(v) == 1.0 for label in bench.verifiers for v in _values(table, label))
        if bench.protocol.lenient:
            result.notes.append(f"{name} earns {key} {value:.4f} under this published reading, the truth {best:.4f}")
        elif not knows:
            result.rows.append(Check(name, key, value, best, ">" if falls(key) else "<", "worse than the truth"))
