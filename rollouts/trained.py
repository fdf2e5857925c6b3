"""What a training leaves behind: which folder of a run holds its policy, whole or as a checkpoint, and from which step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, NonNegativeInt

from rsw_rewards.core.files import damage_among, digest_of, open_as, read_json, write_json
from rsw_rewards.core.yaml_text import read_yaml
from rsw_rewards.errors import ConfigError, InputError
from rsw_rewards.methods import METHODS

CONFIG = "config.yaml"
FINAL = "final"
INPUTS = "inputs.json"
CHECKPOINTS = "checkpoints"
MARK = "complete.json"
"""Written last: a policy or a checkpoint without it was interrupted."""
LEARNER = "learner_state.pt"
"""What a learner of ours keeps in a checkpoint, where TRL's trainer has files of its own."""

DAMAGED = "damaged.json"
"""What the mark of a checkpoint is renamed to that was found to be damaged."""

STARTS = "starts.jsonl"
"""One line per start of a run: the command, the versions and the time."""
REPORT = "report.html"
"""The page of a run."""
REPORT_PAGES = "report"
"""The folder of its further pages."""

_OF_THE_RUN = frozenset(
    {
        MARK,
        CONFIG,
        CHECKPOINTS,
        FINAL,
        INPUTS,
        "heldout.json",
        "log.jsonl",
        "curve.json",
        STARTS,
        REPORT,
        REPORT_PAGES,
        "dumps",
        "heldout",
        "tensorboard",
    }
)


@dataclass(frozen=True, slots=True)
class Trained:
    """The policy of a run, as it lies on disk."""

    start: Mapping[str, Any] | str
    """Specification of the policy that training started from."""
    folder: Path
    """What the policy wrote, or a checkpoint."""
    step: int
    """Steps done."""

    @property
    def is_checkpoint(self) -> bool:
        """Whether the folder holds weights alone, for the policy of ``start`` to take."""
        return self.folder.absolute().parent.name == CHECKPOINTS


def find_trained(folder: Path) -> Trained:
    """The trained policy of a run: the one with the most steps among the policy it ended with and its checkpoints.

    Args:
        folder: the directory of a training run, or one policy in it (``runs/x/final``, ``runs/x/checkpoints/checkpoint-50``).

    Raises:
        ConfigError: it is no training run, the method trains no policy, or nothing whole has been written yet.
    """
    run = next((place for place in (folder, *list(folder.absolute().parents)[:2]) if (place / CONFIG).is_file()), None)
    content = {} if run is None else read_yaml(run / CONFIG)
    method = content.get("method")
    if run is None or method is None:
        raise ConfigError(
            f"{folder} is not the directory of a training run; to run a model from a folder, write a YAML file with"
            f" {{use: NAME, path: {folder}}}"
        )
    start = content.get("policy", METHODS[method].makes if method in METHODS else None)
    if start is None:
        raise ConfigError(f"{folder} holds no policy: the method {method!r} trains none")
    chosen = [run, run / FINAL, *complete_checkpoints(run / CHECKPOINTS).values()] if run == folder else [folder]
    steps = {place: step for place in chosen if (step := complete_step(place)) is not None}
    if not steps:
        raise ConfigError(f"{folder} holds no complete policy and no complete checkpoint; finish the training first")
    newest = max(steps, key=lambda place: steps[place])  # of equal steps the first, the whole policy
    if damage := damage_of(newest):
        raise ConfigError(
            f"the policy in {newest} is damaged: {damage}; bring the file back, or name another checkpoint of the run"
        )
    return Trained(start, newest, steps[newest])


@contextmanager
def writing(folder: Path, step: int) -> Iterator[None]:
    """While a policy is written over another one, ``folder`` counts as incomplete."""
    (folder / MARK).unlink(missing_ok=True)
    yield
    mark_complete(folder, step)


def mark_complete(folder: Path, step: int) -> None:
    """Say that everything in ``folder`` is written, after ``step`` steps, with the SHA-256 of every file."""
    write_json(folder / MARK, {"step": step, "files": {name: digest_of(folder / name) for name in _files(folder)}})
    open_as(folder / MARK, folder)


class _Mark(BaseModel):
    step: NonNegativeInt
    files: dict[str, str] = {}


def _files(folder: Path) -> list[str]:
    """The files of a policy or a checkpoint; where a run's own folder is the policy's, without what else the run keeps there."""
    found = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return [
        str(path) for path in found if not path.parts[0].startswith((".", "step-")) and path.parts[0] not in _OF_THE_RUN
    ]


def damage_of(folder: Path) -> str:
    """What is wrong with a policy or checkpoint that :func:`mark_complete` marked, as a clause; empty where it is as it was written.

    A mark without digests, by an earlier version, says nothing of the files.
    """
    try:
        files = _Mark.model_validate(read_json(folder / MARK, _Mark)).files
    except InputError as error:
        return str(error)
    return damage_among(folder, files)


def complete_step(folder: Path) -> int | None:
    """The steps that :func:`mark_complete` noted; None where it did not. Raises :class:`InputError` for a damaged mark."""
    mark = folder / MARK
    return int(read_json(mark, _Mark)["step"]) if mark.is_file() else None


def complete_checkpoints(folder: Path) -> dict[int, Path]:
    """The complete checkpoints under ``folder`` by their step."""
    return {
        int(path.parent.name.rpartition("-")[2]): path.parent
        for path in folder.glob(f"checkpoint-*/{MARK}")
        if path.parent.name.rpartition("-")[2].isdecimal()
    }


def read_state(path: Path) -> dict[str, Any]:
    """What ``torch.save`` wrote of a checkpoint, on the CPU. Raises :class:`ConfigError` when it cannot be read."""
    import torch

    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise ConfigError(f"the checkpoint {path.parent} cannot be read: {error}") from error


def checkpoint_weights(folder: Path, model: Any) -> dict[str, Any]:
    """The weights that a checkpoint keeps, as a policy's ``load_weights`` takes them.

    Args:
        folder: a checkpoint of ours, one of TRL's trainer, or a folder that ``model.save_pretrained`` wrote.
        model: the policy's model, of the same kind.
    """
    if (folder / LEARNER).is_file():
        return dict(read_state(folder / LEARNER)["policy"])
    if (adapter := folder / "adapter_model.safetensors").is_file():
        from safetensors.torch import load_file

        return load_file(adapter)
    # Files may be split, names in them others than the model's, and tied weights left out: its class knows.
    # A model that is divided among processes has a class of FSDP before its own.
    kind: Any = next(one for one in type(model).__mro__ if not one.__name__.startswith("FSDP"))
    return dict(kind.from_pretrained(folder, dtype=model.dtype).state_dict())
