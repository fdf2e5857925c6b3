"""Scores and rewards: of one output by one verifier, of many by a rubric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsw_rewards.api.common import File, check_device, check_missing
from rsw_rewards.core.image_values import describe
from rsw_rewards.core.records import Sample, Task, as_task
from rsw_rewards.core.rubric import Component, Rubric, as_rubric
from rsw_rewards.core.scores import Score
from rsw_rewards.core.verifier import Batch, Verifier
from rsw_rewards.errors import ConfigError, InputError
from rsw_rewards.io.outputs import as_output

if TYPE_CHECKING:
    from rsw_rewards.evaluation.progress import Progress
    from rsw_rewards.evaluation.rewards import Rewards
    from rsw_rewards.evaluation.reweighting import Reweighted

_TRUTHS: Mapping[Task, tuple[frozenset[str], ...]] = {
    Task.CHANGE_QA: (frozenset({"answers"}),),
    Task.CHANGE_CAPTION: (frozenset({"captions"}),),
    Task.CHANGE_MASK: (frozenset({"mask"}),),
    Task.SEMANTIC_CHANGE: (frozenset({"map_before", "map_after"}),),
    Task.DAMAGE: (frozenset({"buildings", "damage"}),),
    Task.FORECAST: (frozenset({"images"}),),
    Task.GROUNDING: (frozenset({"boxes"}), frozenset({"mask"})),
    Task.CLASSIFICATION: (frozenset({"label"}), frozenset({"labels"})),
}
"""What a reference holds at least, by task."""


def score(
    verifier: Any,
    output: Any = None,
    *,
    reference: Mapping[str, Any] | None = None,
    images: Any = (),
    prompt: str = "",
    task: Task | str | None = None,
    device: str = "cpu",
    **config: Any,
) -> Score:
    """The score of one output by one verifier.

    It sets the verifier up anew: for many outputs use :func:`evaluate`, for rewards :class:`Reward`.

    Args:
        verifier: a name, ``package.module:object``, ``file.py:object``, a class or a function.
        output: the answer: a text, an image, a mask, boxes, a mapping with the fields of an output, or an :class:`Output`. An image is a
            path, a PIL image, an array, a tensor, bytes or a data URL; see :func:`image`. None is a missing output.
        reference: what is known to be true; see the table of tasks in docs/design.md.
        images: what the model was shown, in time order. May be left out where the verifier does not look at it.
        prompt: what the model was asked.
        task: needed where the verifier and the reference leave more than one.
        device: where encoders run.
        config: of the verifier.

    Raises:
        InputError: an argument is of another kind, or the reference lacks what the verifier reads.
        ConfigError: there is no such verifier or configuration, or it needs something that is not installed.

    >>> rsw.score("exact_match", output="yes", reference={"answers": ["yes"], "vocabulary": ["yes", "no"]}).value
    1.0
    >>> before, after = np.zeros((32, 32, 3), np.uint8), np.full((32, 32, 3), 90, np.uint8)
    >>> rsw.score("gain_over_copy", output=after, images=[before], reference={"images": [after]}).value
    1.0
    """
    from rsw_rewards.engine.scorer import Scorer

    component = Component(use=verifier, config=config, weight=0.0)
    with Scorer(Rubric(components=(component,)), device=device) as scorer:
        given = {} if reference is None else reference
        if not isinstance(given, Mapping):
            raise InputError(f"'reference' must be a mapping, not {describe(given)}")
        chosen = _task_of(scorer.verifiers[0], given) if task is None else as_task(task)
        sample = Sample(id="sample", task=chosen, images=images, prompt=prompt, reference=given)
        _check_task(scorer.verifiers[0], sample)
        answer = as_output(output, sample)
        scorer.prepare([sample])
        return scorer.components[0].scores(Batch.of([sample], [answer])).scores[0]


def _task_of(verifier: Verifier, reference: Mapping[str, Any]) -> Task:
    """The one task that a verifier knows and a reference is of. Raises :class:`InputError` where there are several."""
    known = sorted(verifier.tasks)
    fitting = [task for task in known if any(keys <= reference.keys() for keys in _TRUTHS[task])]
    left = fitting or known
    if len(left) > 1:
        raise InputError(f"{verifier.name!r} may score this as {' or '.join(left)}; say which by task=...")
    return left[0]


def _check_task(verifier: Verifier, sample: Sample) -> None:
    if sample.task not in verifier.tasks:
        raise InputError(
            f"{verifier.name!r} does not score {sample.task}; it scores {', '.join(sorted(verifier.tasks))}"
        )
    for need in sorted(verifier.needs):
        kind, _, key = need.partition(".")
        if kind == "reference" and sample.reference.get(key) is None:
            raise InputError(f"{verifier.name!r} reads reference.{key}; give it as reference={{{key!r}: ...}}")
        if need == "images" and not sample.images:
            raise InputError(f"{verifier.name!r} reads the images of the sample; give them as images=[...]")


def rewards(
    rubric: Any,
    samples: Any,
    outputs: Any,
    out: File | None = None,
    *,
    roots: Sequence[File] = (),
    limit: int | None = None,
    on_missing: str = "invalid",
    workers: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Rewards:
    """Compute the rewards of many outputs by a rubric, exactly as training does. In a trainer use :class:`Reward`.

    They stand in the order of the samples, the candidates of one in theirs, whatever their tasks.

    Args:
        rubric: a :class:`Rubric`, a YAML file, a mapping as in YAML, the weight of each verifier, or a list of Components.
        samples, outputs, roots, limit, on_missing: see :func:`evaluate`. A dump of rollouts is a predictions file.
        out: a folder for ``scores.parquet``, ``rewards.jsonl`` and ``rubric.yaml``.
        workers: Ray actors that share the scoring; 0 scores in this process.
        device: where encoders run.
        progress: see :func:`evaluate`.

    Raises:
        InputError: samples or outputs cannot be used.
        ConfigError: the rubric cannot be used, or does not reward these samples.

    >>> sample = {"task": "change_qa", "reference": {"answers": ["yes"], "vocabulary": ["yes", "no"]}}
    >>> found = rsw.rewards({"exact_match": 0.9, "answer_format": 0.1}, [sample, sample], ["yes", "no"])
    >>> found.to_frame()["reward"].tolist()
    [1.0, 0.1]
    """
    from rsw_rewards.evaluation.progress import silent
    from rsw_rewards.evaluation.rewards import rewards_of

    check_missing(on_missing)
    check_device(device)
    places = [Path(root) for root in roots]
    found = rewards_of(
        as_rubric(rubric), samples, outputs, roots=places, limit=limit, on_missing=on_missing, workers=workers,
        device=device, progress=progress or silent,
    )  # fmt: skip
    if out is not None:
        found.save(out)
    return found


def reweight(
    scored: File | Rewards, weights: Mapping[str, float] | Sequence[Mapping[str, float]] = (), rubric: Any = None
) -> list[Reweighted]:
    """Compute rewards, rankings within groups and advantages from stored scores, with other weights. Nothing is scored again.

    Args:
        scored: a result of :func:`rewards`, or a folder: of :func:`rewards`, of a dump of rollouts, or of a training run.
        weights: component -> weight, or several such mappings; components that are not named weigh 0.
        rubric: where the folder holds none.

    Returns:
        The rubric as it stands first, then one record for each mapping.

    Raises:
        InputError: the folder holds no scores.
        ConfigError: no rubric is known, or the weights do not fit it.

    >>> sample = {"task": "change_qa", "reference": {"answers": ["yes"], "vocabulary": ["yes", "no"]}}
    >>> found = rsw.rewards({"exact_match": 0.9, "answer_format": 0.1}, [sample, sample], ["yes", "no"])
    >>> [one.mean_reward for one in rsw.reweight(found, {"exact_match": 1.0})]
    [0.55, 0.5]
    """
    from rsw_rewards.evaluation.reweighting import load_table, reweight_scores

    table, known = (Path(scored), None) if isinstance(scored, (str, PathLike)) else (scored.table, scored.rubric)
    if isinstance(table, Path):
        table, known = load_table(table)
    known = known if rubric is None else as_rubric(rubric)
    if known is None:
        raise ConfigError(f"{scored} does not say by which rubric it was scored; name it (rubric=, --rubric FILE)")
    return reweight_scores(table, known, [weights] if isinstance(weights, Mapping) else list(weights))
