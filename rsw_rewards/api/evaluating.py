"""Evaluating outputs by protocols, comparing results, and checking samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from rsw_rewards.api.common import File, check_device, check_missing
from rsw_rewards.core.fields import limit_of
from rsw_rewards.core.records import Task, as_task
from rsw_rewards.core.rubric import Component, as_rubric
from rsw_rewards.core.verifier import named_metrics
from rsw_rewards.errors import ConfigError, did_you_mean
from rsw_rewards.io.in_memory import as_samples

if TYPE_CHECKING:
    from rsw_rewards.evaluation.evaluation import Evaluation
    from rsw_rewards.evaluation.leaderboard import Leaderboard
    from rsw_rewards.evaluation.progress import Progress
    from rsw_rewards.evaluation.protocols import Protocol
    from rsw_rewards.evaluation.validation import Validation


def protocol(
    name: str,
    components: Any,
    *,
    task: Task | str | None = None,
    metrics: Sequence[str] = (),
    title: str = "",
    source: str = "",
    baselines: Sequence[Any] | None = None,
    slices: bool = True,
    notes: Sequence[str] = (),
) -> Protocol:
    """Make a protocol of your own, from verifiers and the metrics that are reported.

    Args:
        name: what its runs are called; not that of a built-in protocol.
        components: verifiers: names, functions, classes, mappings with ``use`` and ``config``, or Components; one or a list of them.
        task: of the samples; may be left out where the verifiers leave one.
        metrics: keys to report, in this order; all that the verifiers give where left out. The first six are the headline, by which
            runs are compared, the others diagnostic.
        title: a few words for tables and reports.
        source: where the definition comes from.
        baselines: names of baselines or objects that make one; where left out, those that built-in protocols of the task have.
        slices: whether every number is also given per ``kind`` of sample.
        notes: what a reader must know before comparing the numbers.

    Raises:
        ConfigError: a component is no verifier, the verifiers share no task or several, they do not give a number of ``metrics``, or
            there is no such baseline.

    >>> mine = rsw.protocol("short-qa", ["exact_match", "answer_format"], task="change_qa")
    >>> [component["use"] for component in mine.components], str(mine.task)
    (['exact_match', 'answer_format'], 'change_qa')
    """
    from rsw_rewards.evaluation.protocols import PROTOCOLS, Protocol
    from rsw_rewards.evaluation.protocols.protocol import MOST_HEADLINE
    from rsw_rewards.rollouts.baselines import BASELINES

    listed = components if isinstance(components, (list, tuple)) else [components]
    parts = tuple(_component(part) for part in listed)
    if name in PROTOCOLS.built_in:
        raise ConfigError(f"there is a built-in protocol named {name!r}; give yours another name")
    if not parts:
        raise ConfigError(f"the protocol {name!r} has no component; name a verifier")
    verifiers = {component.label: component.build() for component in (Component(**part) for part in parts)}
    known = frozenset.intersection(*(verifier.tasks for verifier in verifiers.values()))
    if task is None and len(known) != 1:
        have = ", ".join(sorted(known)) or "none"
        raise ConfigError(f"say the task of the protocol {name!r}: its verifiers have these in common: {have}")
    chosen = as_task(task) if task is not None else next(iter(known))
    if chosen not in known:
        raise ConfigError(f"the verifiers of the protocol {name!r} do not all score {chosen}")
    numbers = [name for named in named_metrics(verifiers) for name in named.names.values()]
    for key in metrics:
        if (
            key not in numbers and key.partition("/")[0] not in numbers
        ):  # oa/<class> may not be known before the samples are
            raise ConfigError(f"the protocol {name!r} has no metric {key!r}; {did_you_mean(key, numbers)}")
    for baseline in baselines or ():
        BASELINES.find(baseline)
    if baselines is None:
        alike = [other for other in PROTOCOLS.built_in.values() if other.task is chosen]
        baselines = alike[0].baselines if alike else ()
    named = list(metrics or dict.fromkeys(numbers))
    return Protocol(
        name,
        title or name,
        chosen,
        source,
        parts,
        tuple(named[:MOST_HEADLINE]),
        tuple(named[MOST_HEADLINE:]),
        bool(metrics),
        slices,
        None,
        tuple(baselines),
        tuple(notes),
    )


def _component(part: Any) -> dict[str, Any]:
    """A component of a protocol as the mapping that it is kept as."""
    if isinstance(part, Component):
        return {key: getattr(part, key) for key in sorted(part.model_fields_set)}
    return dict(part) if isinstance(part, Mapping) else {"use": part}


@overload
def evaluate(
    protocol: str | Protocol, samples: Any, outputs: Any = None, out: File | None = None, **options: Any
) -> Evaluation: ...
@overload
def evaluate(
    protocol: Sequence[str | Protocol], samples: Any, outputs: Any = None, out: File | None = None, **options: Any
) -> list[Evaluation]: ...
def evaluate(  # type: ignore[misc]  # options are named here alone
    protocol: Any,
    samples: Any,
    outputs: Any = None,
    out: File | None = None,
    *,
    policy: Any = None,
    candidates: int = 1,
    temperature: float = 0.0,
    seed: int = 0,
    actors: int = 0,
    settings: Mapping[str, Any] | None = None,
    roots: Sequence[File] = (),
    limit: int | None = None,
    on_missing: str = "invalid",
    resume: bool = False,
    workers: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Evaluation | list[Evaluation]:
    """Evaluate outputs by a protocol: metrics with 95 % intervals, all scores, and a report.

    Args:
        protocol: a name, an object (see :func:`protocol`), ``file.py:OBJECT`` or ``package.module:OBJECT``; or a list of them, which gives a
            list of results.
        samples: what was asked: a list of mappings or :class:`Sample`, a DataFrame, a datasets.Dataset, or the path of a samples file.
        outputs: what was answered: likewise, or the answers alone, one for each sample, or a folder of masks or forecasts that are named
            by the samples. Outputs that are missing, unknown, double or malformed are counted as in a file: see ``problems`` of the
            result. Nothing where a ``policy`` is given.
        out: a folder in which scores are kept as they come, and then the whole result, as :meth:`Evaluation.save` writes it. Of several
            protocols each has a folder of its own in it. Without it nothing is written.
        policy: makes the outputs: its name, a mapping, a YAML file, the folder of a training run, or a policy.
        candidates, temperature, seed: of the policy's outputs: how many per sample, 0 for greedy decoding, of its random numbers.
        actors: Ray actors that run the policy; 0 runs it in this process.
        settings: configures verifiers of the protocol: ``{"component.key": value}``.
        roots: folders that paths in files may point into, beside those of the files.
        limit: only the first samples.
        on_missing: a sample without an output is ``"invalid"``, which counts as wrong, or ``"drop"``, which leaves it out.
        resume: go on with what is in ``out``: only what is missing or failed is scored.
        workers: Ray actors that share the scoring; 0 scores in this process.
        device: where encoders and policies run.
        progress: called with what is being done, how much is done and how much there is.

    Raises:
        InputError: samples or outputs cannot be used, or ``out`` holds another run.
        ConfigError: there is no such protocol, policy or setting.

    >>> samples = [
    ...     {"id": f"q{number}", "task": "change_qa", "reference": {"answers": [answer], "vocabulary": ["yes", "no"]}}
    ...     for number, answer in enumerate(["yes", "no", "no", "yes"])
    ... ]
    >>> found = rsw.evaluate("exact-qa", samples, [{"id": "q0", "text": "yes"}, {"id": "q1", "text": "no"}, {"id": "q9", "text": "no"}])
    >>> found.metrics["accuracy"].value, [problem.kind for problem in found.problems]
    (0.5, ['unknown_id', 'missing', 'missing'])
    """
    from rsw_rewards.evaluation.inputs import of_policy, read_pair
    from rsw_rewards.evaluation.progress import silent
    from rsw_rewards.evaluation.run import run_protocol

    if (outputs is None) == (policy is None):
        raise ConfigError("give either outputs (--predictions FILE) or a policy (--policy NAME)")
    check_missing(on_missing)
    check_device(device)
    chosen = _protocols(protocol, settings)
    folder = None if out is None else Path(out)
    told = progress or silent
    places = [Path(root) for root in roots]
    tasks = frozenset(one.task for one in chosen)
    if policy is None:
        given = read_pair(samples, outputs, places, limit, on_missing, tasks)
        if on_missing == "invalid":
            given = given.levelled()
    else:
        given = of_policy(
            samples, policy, tasks, folder, candidates=candidates, temperature=temperature, actors=actors, seed=seed,
            device=device, roots=places, limit=limit, resume=resume, progress=told,
        )  # fmt: skip
    results = []
    for one in chosen:
        own = folder / one.name if folder is not None and len(chosen) > 1 else folder
        results.append(run_protocol(one, given, out=own, resume=resume, workers=workers, device=device, progress=told))
    return results if isinstance(protocol, (list, tuple)) else results[0]


def _protocols(named: Any, settings: Mapping[str, Any] | None) -> list[Protocol]:
    """The protocols that a name, an object or a list of them stands for, with their settings."""
    from rsw_rewards.evaluation.protocols import PROTOCOLS
    from rsw_rewards.rollouts.baselines import BASELINES

    found = []
    for one in named if isinstance(named, (list, tuple)) else [named]:
        # A built-in one with other settings is refused by find(), since an object may not bear the name of a built-in one.
        known = PROTOCOLS.built_in.get(getattr(one, "name", ""))
        chosen = one if known is not None and known.configures(one) else PROTOCOLS.find(one)
        for baseline in chosen.baselines:
            BASELINES.find(baseline)  # a wrong name is said before the work, not after it
        found.append(chosen.configured(settings) if settings else chosen)
    return found


def compare(
    *runs: File | Evaluation,
    metrics: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    protocol: str | Protocol | None = None,
    html: File | None = None,
    figures: File | None = None,
) -> Leaderboard:
    """Compare runs of one protocol on their common outputs.

    Every run is compared with the best by a paired difference; p-values are corrected by Holm's method.

    Args:
        runs: two or more results of :func:`evaluate`, or folders that they were saved to.
        metrics: keys of the numbers to compare; all where left out.
        names: what the runs are called; their folders' names where left out.
        protocol: of folders, where it is one of your own.
        html: a page to write: numbers, paired differences, and the same samples side by side.
        figures: a folder to write figures to, as SVG and PDF; needs the extra ``figures``.

    Raises:
        InputError: a folder holds no run, or the runs cannot be compared.

    >>> samples = [{"task": "change_qa", "reference": {"answers": ["yes"], "vocabulary": ["yes", "no"]}}] * 8
    >>> mine, theirs = (rsw.evaluate("exact-qa", samples, answers) for answers in (["yes"] * 8, ["no"] * 8))
    >>> board = rsw.compare(mine, theirs, names=["mine", "theirs"])
    >>> board.names, board.cells["theirs", "accuracy"].difference
    (('mine', 'theirs'), -1.0)
    """
    from rsw_rewards.evaluation.comparison import leaderboard
    from rsw_rewards.evaluation.finished_runs import read_runs

    found = read_runs([Path(run) if isinstance(run, PathLike) else run for run in runs], protocol)
    board = leaderboard(found, metrics, names)
    if html is not None:
        from rsw_rewards.evaluation.comparison_page import write_comparison

        write_comparison(Path(html), board, found, names)
    if figures is not None:
        from rsw_rewards.evaluation.figures import write_figures

        write_figures(Path(figures), board)
    return board


@overload
def validate(protocol: str | Protocol, samples: Any, **options: Any) -> Validation: ...
@overload
def validate(protocol: Sequence[str | Protocol], samples: Any, **options: Any) -> list[Validation]: ...
def validate(  # type: ignore[misc]
    protocol: Any,
    samples: Any,
    *,
    settings: Mapping[str, Any] | None = None,
    roots: Sequence[File] = (),
    limit: int | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    rubric: Any = None,
) -> Validation | list[Validation]:
    """Check samples: the reference must get 1, and baselines that ignore the images must score low.

    Args:
        protocol, samples, settings, roots, limit, device, progress: see :func:`evaluate`.
        rubric: a reward that is attacked on the first of the samples, without gradients and search; see :func:`attack`. An attack that
            wins is a problem.

    Raises:
        InputError: the samples cannot be used, or none is of the protocol's task.
        ConfigError: the rubric cannot be used, or does not reward the protocol's task.

    >>> samples = [
    ...     {"task": "change_qa", "reference": {"answers": [answer], "vocabulary": ["yes", "no"]}} for answer in ["yes", "no"] * 4
    ... ]
    >>> found = rsw.validate("exact-qa", samples)
    >>> found.ok, found.problems
    (True, [])
    """
    from rsw_rewards.evaluation.progress import silent
    from rsw_rewards.evaluation.run import select
    from rsw_rewards.evaluation.validation import validate as check
    from rsw_rewards.redteam.run import ATTACKED, winning_attacks

    check_device(device)
    chosen = _protocols(protocol, settings)
    limit = limit_of(limit)
    asked = as_samples(samples, [Path(root) for root in roots])[:limit]
    found = [check(one, asked, device=device, progress=progress or silent) for one in chosen]
    if rubric is not None:
        paid = as_rubric(rubric)
        for one, checked in zip(chosen, found, strict=True):
            checked.problems += winning_attacks(paid, select(asked, one)[:ATTACKED], device, progress or silent)
    return found if isinstance(protocol, (list, tuple)) else found[0]
