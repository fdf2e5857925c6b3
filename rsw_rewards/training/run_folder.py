"""The directory of a run: one training at a time writes in it, with the configuration and from the samples it was started with."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from rsw_rewards.core.files import read_json, write_json
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.plugins import place_of
from rsw_rewards.core.records import Sample
from rsw_rewards.core.settings import validated
from rsw_rewards.core.verifier import Verifier
from rsw_rewards.core.yaml_text import read_yaml, write_run_yaml
from rsw_rewards.errors import ConfigError, InputError
from rsw_rewards.evaluation.run_directory import versions
from rsw_rewards.methods import METHODS
from rsw_rewards.pixels import content_hash
from rsw_rewards.rollouts.trained import CONFIG, INPUTS, REPORT, STARTS

LOCK = ".lock"

MAY_CHANGE = frozenset({"out", "print_every", "log", "dump_every", "checkpoints", "scoring"}) | {
    f"rollouts.{key}" for key in ("actors", "num_gpus", "num_cpus", "threads", "chunk", "timeout_s")
}
"""What a resumed run may do differently without becoming another run: where work is done does not change what is learnt."""

LENGTHS = frozenset({"", *(name for name, method in METHODS.items() if method.rewarded)})
"""Sections whose ``steps`` are the length of the run; those of a diffusion policy are not."""


@contextmanager
def run_folder(out: Path, run: BaseModel, resume: bool) -> Iterator[None]:
    """Hold the directory of a run: made with the resolved configuration in it, or found to be of the run to go on with.

    Raises:
        ConfigError: it holds another run, another configuration, or a training that is going on.
    """
    if resume and not (out / CONFIG).exists():
        raise ConfigError(f"--resume: {out} is not the directory of a run (it has no {CONFIG})")
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOCK).open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise ConfigError(
                f"a training is going on in {out} (process {lock.read().strip() or 'unknown'}); wait for it, stop it, or give"
                " another directory"
            ) from None
        except OSError:  # a file system without locks
            pass
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        _configure(out, run, resume)
        yield


def _resolved(run: BaseModel) -> dict[str, Any]:
    """A configuration as it is written."""
    plain: dict[str, Any] = json.loads(json.dumps(run.model_dump(), default=_written))
    return plain


def _written(value: Any) -> str:
    """What stands in a file for something that is no plain data: for a class or a function, where it is from."""
    return place_of(value) if hasattr(value, "__qualname__") else str(value)


def _configure(out: Path, run: BaseModel, resume: bool) -> None:
    stored, resolved = out / CONFIG, _resolved(run)
    if resume:
        # Through the model, so that what is left out and what is written as its default are the same.
        known = _resolved(validated(type(run), read_yaml(stored), str(stored)))
        if changed := difference(known, resolved):
            raise ConfigError(
                f"--resume: {changed} differs from {stored}; a run can only go on with the configuration it was started with"
                f" (but for {', '.join(sorted(MAY_CHANGE))}, and more steps)"
            )
    else:
        check_free(out)
        (out / INPUTS).unlink(missing_ok=True)
    write_run_yaml(stored, resolved)


def check_free(out: Path) -> None:
    """Raise :class:`ConfigError` where a folder holds a run; one that failed at its start leaves nothing to lose."""
    if (out / CONFIG).exists() and {path.name for path in out.iterdir()} - {LOCK, CONFIG, INPUTS, STARTS, REPORT}:
        raise ConfigError(
            f"{out} holds a run already; give another directory (--set out=DIR) or go on with --resume {out}"
        )


def difference(old: Any, new: Any, key: str = "", lengths: Collection[str] = LENGTHS) -> str | None:
    """The first key in which two configurations differ, leaving aside what may change."""
    if not key and isinstance(old, dict) and (old.get("rollouts") or {}).get("stale"):
        lengths = ()  # the last generation of a run is followed by none that is made ahead
    if key in MAY_CHANGE or old == new:
        return None
    if isinstance(old, dict) and isinstance(new, dict):
        for part in {**old, **new}:
            if part == "steps" and key in lengths and _longer(old, new):
                continue
            if found := difference(old.get(part), new.get(part), f"{key}.{part}".lstrip("."), lengths):
                return found
        return None
    return f"{key!r} ({new!r} instead of {old!r})"


def _longer(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a method's section asks for more steps of a run that begins alike, as it does under a constant learning rate."""
    before, after = old.get("steps"), new.get("steps")
    if not isinstance(before, int) or not isinstance(after, int):
        return False
    return after >= before and old.get("schedule", "constant") == "constant"


def check_inputs(
    out: Path, samples: Mapping[str, Sequence[Sample]], verifiers: Mapping[str, Verifier], seed: int | None = None
) -> None:
    """Note what a run learns from in ``inputs.json``, or hold it against what is noted there.

    Of samples counts what they ask and what is known to be true of them, of pictures the files' names; of verifiers what
    :attr:`rsw_rewards.core.verifier.Verifier.hash` covers, such as the text of a user's file.

    Raises:
        ConfigError: something is not what the run was started with.
    """
    found = {where: samples_hash(some) for where, some in samples.items()}
    found |= {} if seed is None else {"seed": str(seed)}
    found |= {f"rubric: {label}": verifier.hash for label, verifier in verifiers.items()}
    file = out / INPUTS
    try:
        known = read_json(file, dict[str, str]) if file.is_file() else {}
    except InputError as error:
        raise ConfigError(f"--resume: {error}") from error
    for what, digest in found.items():
        if known.get(what, digest) != digest:
            raise ConfigError(
                f"--resume: {what!r} is not what {out} was started with (its samples or its code have changed); bring them back, or"
                " start another run"
            )
    out.mkdir(parents=True, exist_ok=True)
    write_json(file, found)


_READ_BY = [one.name for one in fields(ImageRef) if one.name not in ("path", "array", "ref", "index", "sha256")]
"""What is declared of an image, by which its pixels are read."""


def samples_hash(samples: Sequence[Sample]) -> str:
    """Twelve hexadecimal digits that change with the order, the questions and the truth of samples."""
    digest = hashlib.sha256()
    for sample in samples:
        known = [_plain(part) for part in (sample.images, sample.reference, sample.metadata)]
        digest.update(repr((sample.id, str(sample.task), sample.prompt, known)).encode())
    return digest.hexdigest()[:12]


def _plain(value: Any) -> Any:
    """A value as something whose ``repr`` is the same everywhere; pictures as the names of their files, wherever these lie, or as the
    hash of their pixels, with how they are shown."""
    if isinstance(value, ImageRef):
        pixels = value.sha256 if value.array is None or value.sha256 else content_hash(value.array)
        return (value.path.name if value.path is not None else pixels, *(getattr(value, name) for name in _READ_BY))
    if isinstance(value, Mapping):
        return sorted((str(key), repr(_plain(item))) for key, item in value.items())
    if isinstance(value, (set, frozenset)):
        return sorted(repr(_plain(item)) for item in value)
    if isinstance(value, np.ndarray):
        return content_hash(value)
    if isinstance(value, np.generic):
        return value.item()
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def note_start(folder: Path) -> None:
    """Add the command, the versions and the time to the starts of a run."""
    row = {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
        "versions": versions(),
    }
    with (folder / STARTS).open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(row) + "\n")
