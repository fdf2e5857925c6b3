"""An exported policy is a model folder that others load, with what adapters have learnt, and a card of how it came about."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import rsw_rewards as rsw
from rsw_rewards.core.files import write_json
from rsw_rewards.core.yaml_text import parse_yaml, write_run_yaml
from rsw_rewards.errors import ConfigError, InputError
from rsw_rewards.rollouts.policies import build_policy
from rsw_rewards.rollouts.trained import mark_complete
from rsw_rewards.training.export import model_card
from rsw_rewards.training.log_rows import append_row
from rsw_rewards.training.report.run_files import RunFiles


def trained(folder: Path, policy: dict[str, object]) -> Path:
    """A run whose policy has adapters that are not 0, with its numbers."""
    built = build_policy(policy)
    built.setup("cpu")
    with torch.no_grad():
        for name, weight in built.model.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.05)
    built.save(folder / "final")
    mark_complete(folder / "final", 4)
    rubric = {"components": [{"use": "exact_match", "weight": 0.9}]}
    write_run_yaml(
        folder / "config.yaml", {"method": "grpo", "seed": 3, "policy": policy, "rubric": rubric, "grpo": {"steps": 4}}
    )
    append_row(folder / "log.jsonl", {"step": 4, "loss": 0.1})
    entry = {"value": 0.7, "ci95": [0.6, 0.8], "n_scenes": 9}
    change = {
        "verifier": "exact_match", "rewarded": True, "before": {**entry, "value": 0.667}, "after": entry,
        "difference": {**entry, "value": 0.033, "ci95": [-0.1, 0.1]}, "verdict": "=",
    }  # fmt: skip
    write_json(folder / "heldout.json", {"steps": 4, "changes": {"greedy": {"accuracy": change}}, "alarms": []})
    return folder


def test_adapters_are_merged_into_a_model_that_transformers_loads(tmp_path: Path) -> None:
    from transformers import AutoModel, AutoModelForImageTextToText, AutoProcessor

    lora = {"r": 2, "target_modules": ["q_proj"]}
    run = trained(
        tmp_path / "run", {"use": "vision_language", "path": "tiny:qwen2_5_vl", "dtype": "float32", "lora": lora}
    )
    folder = rsw.Run(run).export(tmp_path / "model")
    loaded = AutoModelForImageTextToText.from_pretrained(folder)
    AutoModel.from_pretrained(folder)
    AutoProcessor.from_pretrained(folder)
    adapted = rsw.load_policy(run)
    adapted.setup("cpu")
    tokens = torch.arange(5, 12)[None]
    with torch.no_grad():
        theirs, ours = loaded(input_ids=tokens).logits, adapted.model(input_ids=tokens).logits
    assert not list(folder.glob("adapter*"))
    # safetensors writes files that only their owner can read
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {(folder / "README.md").stat().st_mode & 0o777}
    kept = ours > -1e30  # the policy never samples the tokens of images
    assert (theirs - ours)[kept].abs().max() < 1e-4
    with adapted.model.disable_adapter(), torch.no_grad():
        assert (theirs - adapted.model(input_ids=tokens).logits)[kept].abs().max() > 1e-3
    card = (folder / "README.md").read_text()
    for words in (
        "AutoModelForImageTextToText",
        "`exact_match`, weight 0.9",
        "| accuracy | greedy | yes | 0.667 | 0.700 | +0.033 [-0.100, +0.100] |",
        "4 steps of 4",
        "seed 3",
    ):
        assert words in card
    with pytest.raises(InputError, match="holds something already"):
        rsw.Run(run).export(folder)


def test_a_world_model_says_which_class_loads_it(tmp_path: Path) -> None:
    from rsw_rewards.rollouts.token_world_model import load_world_model

    run = trained(tmp_path / "run", {"use": "token_world_model", "path": "embedded"})
    folder = rsw.Run(run).export(tmp_path / "model")
    assert "load_world_model" in (folder / "README.md").read_text()
    assert load_world_model(folder).model.config.model_type


@pytest.mark.parametrize(
    ("policy", "base"),
    [
        ({"use": "vision_language", "path": "Qwen/Qwen2.5-VL-3B-Instruct"}, "Qwen/Qwen2.5-VL-3B-Instruct"),
        ({"use": "vision_language", "path": "models/mine"}, None),
        ({"use": "vision_language", "path": "./mine"}, None),
        ({"use": "my/policy.py:Mine"}, None),
    ],
)
def test_the_base_model_of_a_card_is_one_of_the_hub(
    policy: dict[str, str], base: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("models/mine").mkdir(parents=True)
    card = model_card(RunFiles(tmp_path, {"policy": policy}), tmp_path / "out", "vision_language", False)
    front = parse_yaml(card.split("---")[1], "card")
    assert front.get("base_model") == base


def test_a_policy_that_cannot_be_exported_is_told_before_it_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import rsw_rewards as rsw\n"
        "class Mine(rsw.Policy):\n"
        "    name, tasks, trainable = 'mine', frozenset({'change_qa'}), True\n"
        "    def __init__(self, path='x'): pass\n"
        "    def setup(self, device='cpu', threads=1): raise AssertionError('it was loaded')\n"
        "    def generate(self, requests): return []\n"
    )
    run = tmp_path / "run"
    (run / "final").mkdir(parents=True)
    write_json(run / "final" / "adapter_config.json", {})
    mark_complete(run / "final", 4)
    policy = f"{tmp_path / 'mine.py'}:Mine"
    write_run_yaml(run / "config.yaml", {"method": "grpo", "policy": {"use": policy}, "grpo": {"steps": 4}})
    with pytest.raises(ConfigError, match="has no save"):
        rsw.Run(run).export(tmp_path / "model")
    with (tmp_path / "mine.py").open("a") as file:
        file.write("    def save(self, folder): pass\n")
    sys.modules.pop("mine", None)
    with pytest.raises(ConfigError, match="has no merge_adapters"):
        rsw.Run(run).export(tmp_path / "model")
