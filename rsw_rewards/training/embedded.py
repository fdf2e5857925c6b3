"""Makes all shipped weights again, in order: ``python -m rsw_rewards.training.embedded [NAME ...]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rsw_rewards import configs
from rsw_rewards.config import load_config
from rsw_rewards.core.plugins import resolve_object
from rsw_rewards.errors import RswError
from rsw_rewards.methods import METHODS

EMBEDDED = ("tokenizer", "detector", "clip", "supervised")
"""The methods that make them, in the order in which they build on each other."""

CONFIGS = Path(configs.__file__).parent / "embedded"


def main(names: Sequence[str]) -> int:
    """Runs the configurations of the given names, all of them where none is given."""
    for name in names or EMBEDDED:
        print(f"== {name}", flush=True)
        try:
            config = load_config(CONFIGS / f"{name}.yaml", {"method": name})
            resolve_object(METHODS[name].train, "trainer")(config)
        except RswError as error:
            print(error, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
