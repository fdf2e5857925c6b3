"""A training run read back from its folder."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsw_rewards.core.files import read_json
from rsw_rewards.core.yaml_text import read_yaml
from rsw_rewards.errors import InputError
from rsw_rewards.training.heldout_record import HeldoutRecord
from rsw_rewards.training.log_rows import read_log

if TYPE_CHECKING:
    import pandas as pd

    from rsw_rewards.rollouts.policy import Policy


class Run:
    """A training run in its folder: what it was told, what it logged, and the policy that it trained.

    Args:
        folder: of a run that :func:`rsw_rewards.train` or ``rsw train`` has begun.

    Raises:
        InputError: the folder holds no training run.

    >>> run = rsw.Run("runs/quickstart")  # doctest: +SKIP
    >>> run.log[["reward", "entropy"]].tail()  # doctest: +SKIP
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.folder = Path(folder)
        if not (self.folder / "config.yaml").is_file():
            raise InputError(f"{self.folder} is not the folder of a training run: it holds no config.yaml")

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration."""
        return read_yaml(self.folder / "config.yaml")

    @property
    def log(self) -> pd.DataFrame:
        """The numbers of every step, indexed by step; empty where the method logs none."""
        import pandas as pd

        rows = read_log(self.folder / "log.jsonl")
        return pd.DataFrame(rows).set_index("step") if rows else pd.DataFrame()

    @property
    def heldout(self) -> dict[str, Any]:
        """What ``heldout.json`` holds: held-out numbers before and after, under ``changes`` by decoding and metric; empty before
        training has ended."""
        file = self.folder / "heldout.json"
        return read_json(file, HeldoutRecord) if file.is_file() else {}

    @property
    def policy(self) -> Policy:
        """The policy that it trained, see :func:`rsw_rewards.load_policy`."""
        from rsw_rewards.rollouts.policies import load_policy

        return load_policy(self.folder)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"
