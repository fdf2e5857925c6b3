"""What an evaluation is made on: samples, and the outputs for them, from a predictions file or from a policy."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, groupby, islice
from operator import attrgetter
from os import PathLike
from pathlib import Path
from typing import Any

from rsw_rewards.core.fields import MAX_CANDIDATES, limit_of
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.data.importers.folders import read_folder
from rsw_rewards.data.importers.imported import Imported
from rsw_rewards.errors import ConfigError, InputError
from rsw_rewards.evaluation.generate import generate_file, generate_outputs
from rsw_rewards.evaluation.progress import Progress, silent
from rsw_rewards.io.in_memory import as_samples, pair_outputs
from rsw_rewards.io.pairing import Problem
from rsw_rewards.io.records_io import load_outputs
from rsw_rewards.rollouts.dumps import check_dump, is_ours


@dataclass(frozen=True, slots=True)
class Inputs:
    """Samples, the outputs for them, and what is known of where the outputs come from."""

    samples: list[Sample]
    outputs: list[Output]
    problems: list[Problem] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    """What the report says of them."""
    warnings: list[str] = field(default_factory=list)
    """What a reader must know of the outputs, a sentence each."""

    def only(self, samples: Sequence[Sample]) -> Inputs:
        """The same for some of the samples. That another one has no prediction is then no problem."""
        known = {sample.id for sample in samples}
        others = {sample.id for sample in self.samples} - known
        return replace(
            self,
            samples=list(samples),
            outputs=[output for output in self.outputs if output.sample_id in known],
            problems=[one for one in self.problems if not (one.kind == "missing" and one.where in others)],
        )

    def levelled(self) -> Inputs:
        """The same with as many outputs for every sample of a task, the lacking ones being invalid; see :func:`level`."""
        task_of = {sample.id: sample.task for sample in self.samples}
        outputs, problems = [], list(self.problems)
        for task in dict.fromkeys(task_of.values()):
            own, left_out = level([output for output in self.outputs if task_of[output.sample_id] is task])
            outputs += own
            problems += left_out
        return replace(self, outputs=outputs, problems=problems)


@contextmanager
def seldom_collecting() -> Iterator[None]:
    """Let the collector of cycles run seldom: records and scores hold none, and it would go through all of them again and again."""
    usual = gc.get_threshold()
    gc.set_threshold(100_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*usual)


@seldom_collecting()
def read_pair(
    samples: Any,
    outputs: Any,
    roots: Sequence[Path] = (),
    limit: int | None = None,
    on_missing: str = "invalid",
    tasks: Collection[Task] = frozenset(Task),
) -> Inputs:
    """The first ``limit`` samples, the outputs for them, and the problems of the outputs.

    Outputs for the samples after the limit are no problem, so all samples are read.

    Args:
        samples: a file, or what :func:`rsw_rewards.io.in_memory.as_samples` reads.
        outputs: a predictions file, a folder of images, or what :func:`rsw_rewards.io.in_memory.pair_outputs` reads. A file that this
            project wrote may say of outputs that they were lost.
        tasks: of the samples that the images of a folder may be for.
    """
    limit = limit_of(limit)
    every = as_samples(samples, roots)
    about = {"samples": _named(samples), "predictions": _named(outputs)}
    is_file = isinstance(outputs, (str, PathLike))
    if is_file and Path(outputs).is_dir():
        outputs = read_folder(Path(outputs), [sample for sample in every if sample.task in tasks] or every)
    if is_file and not isinstance(outputs, Imported):
        if own := is_ours(Path(outputs)):
            check_dump(Path(outputs).parent)
        answers, problems = load_outputs(Path(outputs), every, roots, on_missing, own=own)
    else:
        answers, problems = pair_outputs(every, outputs, roots, on_missing)
    warnings: list[str] = []
    if isinstance(outputs, Imported):
        problems = [*(problem for problem in outputs.problems if problem.kind != "missing"), *problems]
        warnings = outputs.notes
    return Inputs(every, answers, problems, about, warnings).only(every[:limit])


LEVELLED = 8
"""How many times as many outputs as there are may be made up at most, so that all samples have equally many."""


def level(outputs: Sequence[Output]) -> tuple[list[Output], list[Problem]]:
    """The outputs with as many for every sample: those that a sample lacks are invalid, or it would count for little.

    All samples get as many as any has. Where that would be more than :data:`LEVELLED` times as many outputs as there are, since a few
    samples have far more than the others, they get the next lower number that some sample has, and a problem names what is left out.

    Args:
        outputs: those of a sample stand together, in the order of their candidates.
    """
    counts = Counter(output.sample_id for output in outputs)
    every = 0
    for every in sorted(set(counts.values()), reverse=True):
        if every * len(counts) <= LEVELLED * sum(min(count, every) for count in counts.values()):
            break
    levelled: list[Output] = []
    problems: list[Problem] = []
    for name, group in groupby(outputs, key=attrgetter("sample_id")):
        kept = list(islice(group, every))
        if surplus := counts[name] - len(kept):
            reason = (
                f"{surplus} of its {counts[name]} candidates are left out, since other samples have {every} or fewer"
            )
            problems.append(Problem("surplus", name, reason))
        why = f"no prediction for this candidate; other samples have {every}"
        taken = {output.candidate for output in kept}
        numbers = (n for n in chain(range(kept[-1].candidate + 1, MAX_CANDIDATES), range(every)) if n not in taken)
        levelled += [*kept, *(Output(name, n, invalid=why) for n in islice(numbers, every - len(kept)))]
    return levelled, problems


def _named(source: Any) -> str:
    """What the report says of where records come from."""
    return str(source) if isinstance(source, (str, PathLike)) else "given in Python"


def of_policy(
    samples: Any,
    policy: Any,
    tasks: frozenset[Task],
    out: Path | None,
    *,
    candidates: int = 1,
    temperature: float = 0.0,
    actors: int = 0,
    seed: int = 0,
    device: str = "cpu",
    roots: Sequence[Path] = (),
    limit: int | None = None,
    resume: bool = False,
    progress: Progress = silent,
) -> Inputs:
    """Samples and the outputs that a policy makes for those of the ``tasks``.

    Args:
        policy: what :func:`rsw_rewards.rollouts.policies.build_policy` takes: a name, a YAML file, or the directory of a run.
        out: the outputs are kept in ``out/outputs`` as a predictions file; None keeps them in memory.
        resume: make only outputs that are missing or were lost.

    Raises:
        ConfigError: there is no such policy, it does not do the tasks, or less than one candidate is asked for.
    """
    if not isinstance(candidates, int) or candidates < 1:
        raise ConfigError(f"'candidates' must be a whole number from 1 on, not {candidates!r}")
    from rsw_rewards.rollouts.policies import build_policy, is_folder
    from rsw_rewards.rollouts.trained import find_trained

    limit = limit_of(limit)
    asked = as_samples(samples, roots)[:limit]
    chosen = [sample for sample in asked if sample.task in tasks]
    if not chosen:
        have = ", ".join(sorted({str(sample.task) for sample in asked})) or "none"
        raise InputError(
            f"there is no sample of the task {' or '.join(sorted(tasks))}; the tasks of the samples are: {have}"
        )
    if out is not None and not resume and (out / "config.yaml").exists():
        raise InputError(f"{out} holds a run already; go on with --resume (resume=True), or name another folder")
    is_named = isinstance(policy, (str, Path))
    trained = find_trained(Path(policy)) if is_named and is_folder(policy) else None
    built = build_policy(policy if trained is None else trained.folder)  # of a run that goes on, this one
    if unknown := tasks - built.tasks:
        raise ConfigError(f"the policy {policy!r} does not do the task {', '.join(sorted(unknown))}")
    shown = str(policy) if is_named else built.describe()
    about = {"policy": shown, "candidates": candidates, "temperature": temperature, "seed": seed}
    warnings = []
    if trained is not None:
        about["step"] = trained.step
        if trained.is_checkpoint:
            warnings = [f"the policy is a checkpoint, {trained.folder}, and not the one that a training ended with"]
    problems: list[Problem] = []
    if out is None:
        outputs = generate_outputs(built, chosen, about, actors=actors, device=device, progress=progress)
    else:
        made = generate_file(
            built, chosen, out / "outputs", about, actors=actors, device=device, resume=resume, progress=progress
        )
        outputs, problems = load_outputs(made, chosen, own=True)
    return Inputs(asked, outputs, problems, {"samples": _named(samples), **about}, warnings)
