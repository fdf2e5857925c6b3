"""GRPO on vision-language policies: one distribution for sampler and learner, TRL's variants, faults, and learning to see."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rsw_rewards.config import DataSpec, RunConfig
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.plugins import load_file
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.rollouts.pool import RolloutPool
from rsw_rewards.rollouts.tiny_vlm import build_tiny
from rsw_rewards.rollouts.vision_language import VisionLanguageModel
from rsw_rewards.rollouts.weights import trained_weights
from rsw_rewards.training.grpo import train_grpo
from rsw_rewards.training.trainer_views import trainer_view
from rsw_rewards.training.trl_trainer import Trainer
from tests.training.taught import fit

SQUARES = str(Path(__file__).parents[2] / "examples/squares.py")
SAMPLES = load_file(Path(SQUARES)).squares(4)


def configuration(out: Path, model: Path, **changes: Any) -> RunConfig:
    config: dict[str, Any] = {
        "out": str(out),
        "policy": {"use": "vision_language", "path": str(model), "max_new_tokens": 4},
        "train": {"source": f"{SQUARES}:squares", "count": 8},
        "rubric": {"components": [{"use": "exact_match"}]},
        "grpo": {"steps": 2, "prompts": 2, "group": 2, "threads": 1, "learning_rate": 1e-3},
        "rollouts": {"actors": 0},
        "log": [],
    }
    for key, value in changes.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) and key in config else value
    return RunConfig.model_validate(config)


class FromPool:
    """Collects what a pool makes, and rewards answers by their place."""

    def __init__(self, pool: RolloutPool, samples: Sequence[Sample], config: RunConfig) -> None:
        self.pool, self.samples, self.config = pool, {sample.id: sample for sample in samples}, config
        self.outputs: list[Output] = []

    def collect(self, ids: Sequence[str], step: int, weights: Any) -> tuple[list[Output], list[float | None]]:
        self.pool.load_weights(weights, step)
        asked = self.config.grpo
        groups = self.pool.generate([self.samples[one] for one in ids], asked.group, asked.temperature)
        made = {group[0].sample_id: group for group in groups}
        self.outputs = [output for one in ids for output in made[one]]
        return self.outputs, [None if output.lost else float(n % 2) for n, output in enumerate(self.outputs)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that has learnt to say yes or no, without having learnt when."""
    folder = tmp_path_factory.mktemp("model")
    policy = VisionLanguageModel(build_tiny("qwen2_5_vl", folder))
    policy.setup()
    for _ in fit(policy, load_file(Path(SQUARES)).squares(16, blind=True), steps=60, batch=4, learning_rate=3e-3):
        pass
    policy.save(folder)
    return folder


def log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("lora", [None, {"r": 4}])
def test_the_learner_scores_what_the_sampler_sampled(name: str, lora: dict[str, Any] | None, tmp_path: Path) -> None:
    """Log-probabilities inside TRL's loss, from pixels that TRL rebuilt, against those of the rollouts."""
    model = build_tiny(name, tmp_path / "model")
    policy, sampler = (VisionLanguageModel(model, max_new_tokens=4, lora=lora) for _ in range(2))
    policy.setup()
    if lora:
        with torch.no_grad():
            for weight in policy.model.parameters():
                weight += 0.1 * torch.randn_like(weight) * weight.requires_grad
    broken = replace(SAMPLES[3], images=(SAMPLES[3].images[0], ImageRef(path=tmp_path / "absent.png")))
    placed = (
        "<|vision_start|><|image_pad|><|vision_end|>did a bright square appear?<|im_end|>"  # words, not a third image
    )
    longer = replace(SAMPLES[2], prompt=placed)
    samples = [*SAMPLES[:2], longer, broken]
    view = trainer_view(policy, samples)
    config = configuration(tmp_path, Path("unused"), grpo={"prompts": 4, "temperature": 0.7, "steps": 1})
    rollouts: Any = FromPool(RolloutPool(sampler, actors=0), samples, config)
    trainer: Any = Trainer(config, view, [sample.id for sample in samples], rollouts)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    score = trainer._get_per_token_logps_and_entropies

    def spy(model: Any, ids: torch.Tensor, mask: torch.Tensor, keep: int, **kwargs: Any) -> Any:
        found = score(model, ids, mask, keep, **kwargs)
        seen.append((ids[:, -keep:], found[0].detach()))
        return found

    trainer._get_per_token_logps_and_entropies = spy
    trainer.train()
    assert [bool(output.lost) for output in rollouts.outputs] == [False] * 6 + [True] * 2
    ((ids, logps),) = seen
    rows = {tuple(row.tolist()): place for place, row in enumerate(ids)}  # the trainer shuffles them
    for output in rollouts.outputs[:6]:
        assert output.tokens and len(output.tokens.completion_ids) == 4
        mine = logps[rows[output.tokens.completion_ids]]
        torch.testing.assert_close(mine, torch.tensor(output.tokens.logprobs), atol=1e-4, rtol=1e-4)
    assert np.isfinite(trainer.state.log_history[0]["loss"])


@pytest.mark.parametrize(
    "variant",
    [
        {"loss_type": "grpo"},
        {"loss_type": "dr_grpo", "scale_rewards": "none"},
        {"loss_type": "dapo", "trl": {"epsilon_high": 0.28}},
        {"trl": {"importance_sampling_level": "sequence"}, "epsilon": 3e-4, "updates": 2},
        {"loss_type": "bnpo", "micro_batch": 2, "iterations": 2},
        {"beta": 0.1, "iterations": 2},
    ],
    ids=["grpo", "dr_grpo", "dapo", "gspo", "bnpo", "kl"],
)
def test_variants_are_a_matter_of_configuration(variant: dict[str, Any], model: Path, tmp_path: Path) -> None:
    train_grpo(configuration(tmp_path, model, grpo={"prompts": 4, "group": 4, **variant}))
    rows = log(tmp_path)
    assert [row["step"] for row in rows] == [1, 2]
    assert all(np.isfinite(row[key]) for row in rows for key in ("loss", "grad_norm"))
    assert rows[0]["grad_norm"] > 0 and 0 < rows[0]["reward"] < 1
    assert ("kl" in rows[0]) == ("beta" in variant)


def test_adapters_are_trained_alone_and_a_broken_image_costs_only_its_own_rollouts(model: Path, tmp_path: Path) -> None:
    (tmp_path / "source.py").write_text(
        "from dataclasses import replace\nfrom pathlib import Path\n"
        "from rsw_rewards.core.plugins import load_file\nfrom rsw_rewards.core.image_ref import ImageRef\n"
        f"squares = load_file(Path({SQUARES!r})).squares\n"
        "def some():\n"
        "    made = squares(4)\n"
        "    lost = replace(made[0], images=(made[0].images[0], ImageRef(path=Path('/nowhere.png'))))\n"
        "    return [lost, *made[1:]]\n",
        encoding="utf-8",
    )
    policy = {"lora": {"r": 4}}
    config = configuration(
        tmp_path / "run",
        model,
        policy=policy,
        grpo={"prompts": 4, "group": 4, "beta": 0.05},
        checkpoints={"every": 1},
    )
    config = config.model_copy(update={"train": DataSpec(source=f"{tmp_path / 'source.py'}:some")})
    train_grpo(config)
    assert [row["lost"] for row in log(tmp_path / "run")] == [4.0, 4.0]
    final = VisionLanguageModel(tmp_path / "run" / "final")
    assert not list((tmp_path / "run" / "final").glob("model*"))
    final.setup()
    start = VisionLanguageModel(model, **policy)
    start.setup()
    before, after = (trained_weights(each.model) for each in (start, final))
    assert before.keys() == after.keys() and any(not torch.equal(before[name], after[name]) for name in before)
    # Taken up again from its first step, the run ends where it ended.
    for mark in (tmp_path / "run" / "checkpoints" / "checkpoint-2").glob("complete.json"):
        mark.unlink()
    train_grpo(config, resume=True)
    again = VisionLanguageModel(tmp_path / "run" / "final")
    again.setup()
    assert all(torch.equal(weight, after[name]) for name, weight in trained_weights(again.model).items())


@pytest.mark.slow
def test_rewards_teach_it(tmp_path: Path) -> None:
    """After a short supervised start, rewards alone raise the share of right answers by far."""
    policy = VisionLanguageModel(build_tiny("qwen2_5_vl", tmp_path / "tiny"))
    policy.setup()
    for _ in fit(policy, load_file(Path(SQUARES)).squares(400, seed=9), steps=60, batch=16, learning_rate=1e-3):
        pass
    policy.save(tmp_path / "start")
    settings = {"steps": 30, "prompts": 8, "group": 4, "learning_rate": 1e-3}
    train_grpo(configuration(tmp_path / "run", tmp_path / "start", grpo=settings, train={"count": 240}))
    rewards = [row["reward"] for row in log(tmp_path / "run")]
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5]) + 0.15


@pytest.mark.parametrize("lora", [None, {"r": 4}])
def test_a_checkpoint_gives_all_weights_back(lora: dict[str, Any] | None, tmp_path: Path) -> None:
    """The names in its files are not those of the model."""
    policy = VisionLanguageModel(build_tiny("qwen2_5_vl", tmp_path / "model"), lora=lora)
    policy.setup()
    config = configuration(tmp_path, Path("unused"))
    trainer = Trainer(config, trainer_view(policy, SAMPLES), [sample.id for sample in SAMPLES], None)
    before = {name: weight.clone() for name, weight in trained_weights(policy.model).items()}
    trainer.save_model(str(tmp_path / "checkpoint"))
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight += weight.requires_grad
    assert not torch.equal(before[min(before)], trained_weights(policy.model)[min(before)])
    trainer._load_from_checkpoint(str(tmp_path / "checkpoint"))
    assert all(torch.equal(weight, before[name]) for name, weight in trained_weights(policy.model).items())
