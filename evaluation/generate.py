"""Running a policy for an evaluation: its outputs as a predictions file that a kill does not lose and another policy cannot inherit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rsw_rewards.core.files import atomic, digest_of
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.yaml_text import read_yaml, write_run_yaml
from rsw_rewards.errors import InputError
from rsw_rewards.evaluation.progress import Progress
from rsw_rewards.evaluation.run_directory import (
    IDENTITIES,
    Identity,
    difference,
    identities,
    read_identities,
    write_identities,
)
from rsw_rewards.io.records_io import output_to_json, write_jsonl
from rsw_rewards.io.text_files import read_records
from rsw_rewards.rollouts.policy import Policy

SAVE_EVERY = 256
"""Samples between two writings of the predictions file: what a kill can cost."""
DIGESTS = "sha256 of predictions.jsonl"
"""Key of ``policy.yaml``: the digests that the predictions file may have."""
GROUPS_PER_CALL = 32
"""Samples that a policy is given at once."""


def generate_file(
    policy: Policy,
    samples: Sequence[Sample],
    folder: Path,
    about: Mapping[str, Any],
    *,
    actors: int,
    device: str,
    resume: bool,
    progress: Progress,
) -> Path:
    """Run a policy and keep its outputs in ``folder``: ``predictions.jsonl``, pictures in ``images``, ``policy.yaml``.

    Args:
        policy: what to run.
        samples: what to run it on.
        folder: made where it does not exist.
        about: what the outputs follow from: the policy, ``candidates``, ``temperature``, ``seed``. Kept in ``policy.yaml``.
        actors: Ray actors that run the policy; 0 runs it here.
        device: where it runs.
        resume: make only outputs that are missing, or that were lost through our fault.
        progress: told how far the work is.

    Returns:
        The predictions file.

    Raises:
        InputError: there are outputs in ``folder`` and ``resume`` is off, or they were made by something else.
    """
    from rsw_rewards.rollouts.dumps import ImageStore
    from rsw_rewards.rollouts.pool import RolloutPool

    path = folder / "predictions.jsonl"
    asked = identities(samples, ())
    groups = _made_before(folder, path, about, asked, resume)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    described = folder / "policy.yaml"
    write_run_yaml(described, {**about, DIGESTS: [digest_of(path)] if path.exists() else []})
    write_identities(folder / IDENTITIES, asked)
    todo = [sample for sample in samples if len(groups.get(sample.id, ())) < about["candidates"]]
    store = ImageStore(folder / "images")

    def save() -> None:
        with atomic(path) as partial:
            write_jsonl(partial, [record for sample in samples for record in groups.get(sample.id, ())])
            # Both digests, as a kill may leave the old file or the new one.
            digests = [digest_of(file) for file in (path, partial) if file.exists()]
            write_run_yaml(described, {**about, DIGESTS: digests})

    if not todo:
        return path
    with RolloutPool(policy, actors=actors, device=device, chunk=GROUPS_PER_CALL) as pool:
        for number, group in enumerate(pool.generate(todo, about["candidates"], about["temperature"], about["seed"])):
            groups[group[0].sample_id] = [output_to_json(store.output(output), folder) for output in group]
            progress("generating", number + 1, len(todo))
            if (number + 1) % SAVE_EVERY == 0:
                save()
    save()
    return path


def generate_outputs(
    policy: Policy, samples: Sequence[Sample], about: Mapping[str, Any], *, actors: int, device: str, progress: Progress
) -> list[Output]:
    """The outputs of a policy, in memory; the arguments are those of :func:`generate_file`."""
    from rsw_rewards.rollouts.pool import RolloutPool

    groups: dict[str, list[Output]] = {}
    with RolloutPool(policy, actors=actors, device=device, chunk=GROUPS_PER_CALL) as pool:
        made = pool.generate(samples, about["candidates"], about["temperature"], about["seed"])
        for number, group in enumerate(made):
            groups[group[0].sample_id] = group
            progress("generating", number + 1, len(samples))
    return [output for sample in samples for output in groups[sample.id]]


def _made_before(
    folder: Path, path: Path, about: Mapping[str, Any], asked: Mapping[str, Identity], resume: bool
) -> dict[str, list[dict[str, Any]]]:
    """Whole groups of an earlier attempt, by sample."""
    if not path.exists():
        return {}
    if not resume:
        raise InputError(f"{folder} holds outputs already; go on with --resume (resume=True), or name another folder")
    described = folder / "policy.yaml"
    known = read_yaml(described) if described.exists() else None
    digests = known.pop(DIGESTS, None) if known else None
    if known != dict(about):
        raise InputError(f"the outputs in {folder} were made by {known}, not by {dict(about)}; name another folder")
    if (folder / IDENTITIES).is_file() and (
        other := difference(read_identities(folder / IDENTITIES), asked, shared=True)
    ):
        raise InputError(f"the outputs in {folder} answer other samples: {other}; name another folder")
    if digests is not None and digest_of(path) not in digests:
        raise InputError(
            f"{path} is damaged or was changed by hand: it does not fit its digest in {described}; bring it back from a copy, or delete"
            " it and make it again"
        )
    groups: dict[str, list[dict[str, Any]]] = {}
    for _, record in read_records(path):
        if isinstance(record, dict):
            groups.setdefault(record["id"], []).append(record)
    return {name: group for name, group in groups.items() if all("lost" not in record for record in group)}
