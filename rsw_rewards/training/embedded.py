"""Makes all shipped weights again, in order: ``python -m rsw_rewards.training.embedded [NAME ...]``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rsw_rewards import configs
from rsw_rewards.config import validated
from rsw_rewards.core.yaml_text import read_yaml
from rsw_rewards.errors import ConfigError, RswError
from rsw_rewards.training import encoders, supervised, tokenizer

TRAINERS: dict[str, tuple[type[Any], Callable[[Any], None]]] = {
    "tokenizer": (tokenizer.TokenizerConfig, tokenizer.train),
    "detector": (encoders.DetectorConfig, encoders.train_detector),
    "clip": (encoders.ClipConfig, encoders.train_clip),
    "supervised": (supervised.SupervisedConfig, supervised.train),
}
"""Configuration and function of each ``method:``, in the order in which they build on each other."""

CONFIGS = Path(configs.__file__).parent / "embedded"


def run(path: Path) -> None:
    """Runs one configuration file. Raises ``ConfigError`` for a method that is not among ``TRAINERS``."""
    content = dict(read_yaml(path))
    content.pop("smoke", None)
    method = content.get("method")
    if method not in TRAINERS:
        raise ConfigError(f"{path}: 'method' is {method!r}; it must be one of {', '.join(TRAINERS)}")
    config, train = TRAINERS[method]
    train(validated(config, content, str(path)))


def main(names: Sequence[str]) -> int:
    """Runs the configurations of the given names, all of them where none is given."""
    for name in names or tuple(TRAINERS):
        print(f"== {name}", flush=True)
        try:
            run(CONFIGS / f"{name}.yaml")
        except RswError as error:
            print(error, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
