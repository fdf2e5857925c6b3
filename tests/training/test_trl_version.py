"""The subclass of TRL's trainer leans on what TRL keeps to itself: here it is said what to read again where that has changed."""

from __future__ import annotations

import hashlib
import inspect
import tomllib
from functools import reduce
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from rsw_rewards.training.trl_trainer import LEANS_ON, READ_AGAINST

ROOT = Path(__file__).parents[2]
READ = {
    "trl.trainer.grpo_trainer:GRPOTrainer.__init__": "18f01b7a46c9544b",
    "trl.trainer.grpo_trainer:GRPOTrainer._prepare_inputs": "f824e7fb07147956",
    "trl.trainer.grpo_trainer:GRPOTrainer._generate": "2a27fdf8f5e6f356",
    "trl.trainer.grpo_trainer:GRPOTrainer._generate_single_turn": "e0f02e4fc094cefd",
    "trl.trainer.grpo_trainer:GRPOTrainer._generate_and_score_completions": "1fa48922792dcd5c",
    "trl.trainer.grpo_trainer:GRPOTrainer._calculate_rewards": "736ae29b083840b5",
    "trl.trainer.grpo_trainer:GRPOTrainer._get_per_token_logps_and_entropies": "ea73c3909275851d",
    "trl.trainer.grpo_trainer:GRPOTrainer._compute_loss": "80295546bbdbf6f7",
    "trl.trainer.grpo_trainer:add_fused_lm_head": "422d009f04b66659",
    "trl.trainer.grpo_trainer:shuffle_sequence_dict": "bab038755e57ed2b",
    "transformers.training_args:TrainingArguments._setup_devices.func": "27905a47c35fdc82",
    "transformers.trainer:Trainer._prepare_for_training": "f55950593d7e10c0",
    "transformers.trainer:Trainer._save_checkpoint": "a9111e30faa99339",
    "transformers.trainer:Trainer._save_optimizer_and_scheduler": "c5ef974db69ab993",
    "transformers.trainer:Trainer._load_from_checkpoint": "a2804e8d93a297e3",
    "transformers.trainer:Trainer._load_optimizer_and_scheduler": "741032f57d6fb802",
    "transformers.trainer:Trainer.save_model": "705727ee10c8f24f",
}
"""Digest of the source of each, as it was when ``trl_trainer.py`` was written."""


def source(place: str) -> str:
    module, _, path = place.partition(":")
    found: Any = reduce(getattr, path.split("."), import_module(module))
    return inspect.getsource(found)


def changed(place: str) -> str:
    """What to do about a function that is not what was read; empty where it is."""
    try:
        digest = hashlib.sha256(source(place).encode()).hexdigest()[:16]
    except (ImportError, AttributeError, TypeError):
        digest = "gone"
    if digest == READ[place]:
        return ""
    return (
        f"{place} is not what rsw_rewards/training/trl_trainer.py was written beside (TRL {READ_AGAINST}, installed is"
        f" {version('trl')}): read it again, adapt Trainer, then renew READ_AGAINST, the pin and this digest ({digest})"
    )


@pytest.mark.parametrize("place", LEANS_ON)
def test_what_the_trainer_leans_on_is_what_was_read(place: str) -> None:
    assert not (sentence := changed(place)), sentence


@pytest.mark.parametrize("gone", [True, False])
def test_a_change_is_told_in_a_sentence(gone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from trl import GRPOTrainer

    place = "trl.trainer.grpo_trainer:GRPOTrainer._compute_loss"
    if gone:
        monkeypatch.delattr(GRPOTrainer, "_compute_loss")
        monkeypatch.delattr(GRPOTrainer.__mro__[1], "_compute_loss", raising=False)
    else:
        monkeypatch.setattr(GRPOTrainer, "_compute_loss", lambda self, model, inputs: 0.0)
    assert "_compute_loss is not what" in changed(place) and READ_AGAINST in changed(place)


def test_the_pin_is_the_version_that_was_read_and_the_extra_has_a_bound() -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert pins["trl"] == READ_AGAINST
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["train"]
    (trl,) = (one for one in map(Requirement, asked) if one.name == "trl")
    assert trl.specifier.contains(READ_AGAINST)
    assert any(part.operator.startswith("<") for part in trl.specifier) and not trl.specifier.contains("2.0")
