"""What a page starts with is all that a user writes: at most five lines, which run as they stand."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.foreign import package

PAGES = Path(__file__).parents[2] / "docs/integrations"
FILES = dict(re.findall(r"^```(yaml|json)\n(.*?)^```$", (PAGES / "README.md").read_text(), re.MULTILINE | re.DOTALL))
"""The two files that all pages name."""
FIRST = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = {
    page.stem: block[2]
    for page in sorted(PAGES.glob("*.md"))
    if page.stem != "README" and (block := FIRST.search(page.read_text())) and block[1] == "python"
}


def in_environment(name: str, module: str) -> Any:
    """The module, which is there in one environment of ``make test-integrations``."""
    if os.environ.get("RSW_ENVIRONMENT") not in (None, name):
        pytest.skip(f"{module} is tested in the environment {name}")
    return package(module)


def of_areal(folder: Path) -> dict[str, Any]:
    in_environment("areal", "areal.workflow.rlvr")
    from areal.api.cli_args import GenerationHyperparameters
    from areal.workflow.rlvr import RLVRWorkflow

    tokenizer = SimpleNamespace(eos_token_id=0, pad_token_id=1)
    return {
        "tokenizer": tokenizer,
        "config": SimpleNamespace(gconfig=GenerationHyperparameters()),
        "RLVRWorkflow": RLVRWorkflow,
    }


def of_inspect_ai(folder: Path) -> dict[str, Any]:
    inspect_ai = in_environment("inspect_ai", "inspect_ai")
    from inspect_ai.dataset import MemoryDataset, Sample

    return {"Task": inspect_ai.Task, "dataset": MemoryDataset([Sample(input="Changed?", id="q1")])}


def of_nemo_gym(folder: Path) -> dict[str, Any]:
    return {"FastAPI": in_environment("verifiers", "fastapi").FastAPI}


def of_swift(folder: Path) -> dict[str, Any]:
    in_environment("swift", "swift.rewards")
    return {}


def of_trl(folder: Path) -> dict[str, Any]:
    in_environment("trl", "trl")
    from datasets import Dataset
    from transformers import Qwen2Config, Qwen2ForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    from rsw_rewards.rollouts.tiny_vlm import tiny_tokenizer

    tokenizer = tiny_tokenizer(["yes", "no"])
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=2, **size))
    return {
        "tokenizer": tokenizer,
        "model": model,
        "config": GRPOConfig(output_dir=str(folder), use_cpu=True, bf16=False, report_to="none"),
        "dataset": Dataset.from_list([{"prompt": "Changed?", "id": "q1"}]),
        "GRPOTrainer": GRPOTrainer,
    }


NAMES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "areal": of_areal,
    "flow_grpo": lambda folder: {"score_functions": {}},
    "inspect_ai": of_inspect_ai,
    "nemo_gym": of_nemo_gym,
    "swift": of_swift,
    "trl": of_trl,
}
"""What a page takes from its trainer, by its name there; the test is skipped where the trainer is absent."""


@pytest.mark.parametrize("name", BLOCKS)
def test_a_page_starts_with_lines_that_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len([line for line in BLOCKS[name].splitlines() if line.strip()]) <= 5
    names = NAMES[name](tmp_path) if name in NAMES else {}
    monkeypatch.chdir(tmp_path)
    Path("rubric.yaml").write_text(FILES["yaml"])
    Path("samples.jsonl").write_text(FILES["json"])
    exec(compile(BLOCKS[name], f"docs/integrations/{name}.md", "exec", dont_inherit=True), names)
    assert any(str(getattr(value, "__module__", "")).startswith("rsw_rewards.integrations") for value in names.values())
