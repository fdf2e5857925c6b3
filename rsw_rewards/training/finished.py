"""A training run read back from its folder."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsw_rewards.core.files import read_json
from rsw_rewards.core.yaml_text import read_yaml
from rsw_rewards.errors import InputError
from rsw_rewards.rollouts.trained import CONFIG, FINAL, INPUTS, complete_step
from rsw_rewards.training.log_rows import read_log
from rsw_rewards.training.report.run_files import check_run, read_heldout

if TYPE_CHECKING:
    import pandas as pd

    from rsw_rewards.rollouts.policy import Policy


class Run:
    """A training run in its folder: its configuration, its log, and the policy that it trained.

    Args:
        folder: of a run that :func:`rsw_rewards.train` or ``rsw train`` has begun.

    Raises:
        InputError: the folder holds no training run. What is read of it raises it as well, where a file is damaged or of another run.

    >>> run = rsw.Run("runs/quickstart")  # doctest: +SKIP
    >>> run.log[["reward", "entropy"]].tail()  # doctest: +SKIP
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.folder = Path(folder)
        check_run(self.folder)

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration."""
        config = read_yaml(self.folder / CONFIG)
        self._check_seed(CONFIG, config.get("seed"))
        return config

    def _check_seed(self, name: str, seed: Any) -> None:
        """Raise :class:`InputError` where a file is that of a run with another seed."""
        inputs = self.folder / INPUTS
        known = read_json(inputs, dict[str, str]).get("seed") if inputs.is_file() else None
        if known is not None and known != str(seed):
            raise InputError(
                f"{self.folder / name} is of a run with the seed {seed}, {inputs} of one with {known}; bring back the one that is"
                " of another run"
            )

    @property
    def _ended_at(self) -> int:
        """The steps of the policy that the training ended with; 0 where it has not ended."""
        return complete_step(self.folder / FINAL) or 0

    @property
    def log(self) -> pd.DataFrame:
        """The numbers of every step, indexed by step; empty where the method logs none."""
        import pandas as pd

        rows = read_log(self.folder / "log.jsonl")
        # Methods that log nothing have no log.
        inputs = (self.folder / INPUTS).is_file()
        if inputs and [row["step"] for row in rows][: self._ended_at] != list(range(1, self._ended_at + 1)):
            raise InputError(
                f"{self.folder / 'log.jsonl'} lacks some of the {self._ended_at} steps that were done; bring the file back from a copy"
            )
        return pd.DataFrame(rows).set_index("step") if rows else pd.DataFrame()

    @property
    def heldout(self) -> dict[str, Any]:
        """What ``heldout.json`` holds: held-out numbers before and after, under ``changes`` by decoding and metric; empty before
        training has ended."""
        record = read_heldout(self.folder)
        if record:
            self._check_seed("heldout.json", record.get("seed"))
        elif self._ended_at and (self.folder / "heldout").is_dir():
            raise InputError(
                f"{self.folder} has no heldout.json though its policy is trained; go on with --resume, which measures it"
            )
        return record

    @property
    def policy(self) -> Policy:
        """The policy that it trained, see :func:`rsw_rewards.load_policy`."""
        from rsw_rewards.rollouts.policies import load_policy

        return load_policy(self.folder)

    def export(self, to: str | PathLike[str]) -> Path:
        """Write the trained policy as a model folder, adapters merged, with a card that says how it was trained and measured.

        Args:
            to: a folder that is empty or not there.

        Raises:
            ConfigError: nothing complete has been trained.
            InputError: ``to`` holds something already.

        >>> rsw.Run("runs/quickstart").export("my-world-model")  # doctest: +SKIP
        """
        from rsw_rewards.training.export import export

        return export(self.folder, Path(to))

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"
