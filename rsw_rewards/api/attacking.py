"""Attacks on a rubric."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsw_rewards.api.common import File, check_device
from rsw_rewards.core.fields import limit_of
from rsw_rewards.core.rubric import as_rubric
from rsw_rewards.errors import ConfigError
from rsw_rewards.io.in_memory import as_samples

if TYPE_CHECKING:
    from rsw_rewards.evaluation.progress import Progress
    from rsw_rewards.redteam.findings import Findings


def attack(
    rubric: Any,
    samples: Any,
    outputs: Any = None,
    out: File | None = None,
    *,
    policy: Any = None,
    roots: Sequence[File] = (),
    limit: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Findings:
    """Attack a rubric: compare the rewards of poor outputs with those of a mediocre output, a model and the reference.

    Attacks and what counts as mediocre are described in docs/attacks.md. An attack wins where it earns more than the
    mediocre output in the mean over the samples of a task.

    Args:
        rubric: a :class:`Rubric`, a YAML file, a mapping as in YAML, the weight of each verifier, or a list of Components.
        samples, roots, limit: see :func:`evaluate`.
        outputs: of a model, which get a row of their own; see :func:`evaluate`.
        out: a folder for ``attack.html`` and ``attack.json``.
        policy: makes the model's outputs, instead of ``outputs``.
        seed: of attacks that draw numbers.
        device: where encoders and policies run.
        progress: see :func:`evaluate`.

    Raises:
        InputError: samples or outputs cannot be used.
        ConfigError: the rubric cannot be used, or does not reward these samples.

    >>> samples = [{"task": "change_qa", "reference": {"answers": [a], "vocabulary": ["yes", "no"]}} for a in ["yes", "no"] * 4]
    >>> found = rsw.attack({"answer_format": 1.0}, samples)
    >>> row = found.tasks[0].row("constant")
    >>> row.reward, row.mediocre, rsw.attack({"exact_match": 1.0}, samples).ok
    (1.0, 1.0, True)
    """
    from rsw_rewards.evaluation.inputs import of_policy, read_pair
    from rsw_rewards.evaluation.progress import silent
    from rsw_rewards.redteam.run import run

    if outputs is not None and policy is not None:
        raise ConfigError("give either outputs (--predictions FILE) or a policy (--policy NAME), not both")
    check_device(device)
    chosen = as_rubric(rubric)
    told, places = progress or silent, [Path(root) for root in roots]
    if outputs is not None:
        pair = read_pair(samples, outputs, places, limit)
        asked, answers = pair.samples, [output for output in pair.outputs if output.candidate == 0]
    else:
        asked, answers = as_samples(samples, places)[: limit_of(limit)], []
    if policy is not None:
        tasks = frozenset(sample.task for sample in asked)
        given = of_policy(asked, policy, tasks, None, seed=seed, device=device, progress=told)
        answers = given.outputs
    found = run(chosen, asked, answers, seed=seed, device=device, progress=told)
    if out is not None:
        found.save(out)
    return found
