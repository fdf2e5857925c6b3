"""`rsw train` on a token world model of the shipped shape, untrained: the whole path from a configuration to `heldout.json`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from rsw_rewards.assets import ASSETS
from rsw_rewards.cli.options import assignments
from rsw_rewards.core.records import Task
from rsw_rewards.data.scene_world import scene_world_samples
from rsw_rewards.data.scene_world.questions import vocabulary as scene_words
from rsw_rewards.errors import ConfigError
from rsw_rewards.rollouts.policies import TokenWorldModelPolicy, build_policy
from rsw_rewards.rollouts.pool import RolloutPool
from rsw_rewards.rollouts.token_vocabulary import Vocabulary
from rsw_rewards.rollouts.token_world_model import TokenWorldModel, WorldModel, tiny_config
from rsw_rewards.rollouts.visual_tokenizer import VisualTokenizer
from rsw_rewards.training.run import train
from rsw_rewards.training.trl_trainer import score_through_forward

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a world model whose weights are random."""
    torch.manual_seed(0)
    tokenizer = VisualTokenizer.load(ASSETS / "tokenizer")
    vocabulary = Vocabulary(scene_words(), tokenizer.config.codes)
    folder = tmp_path_factory.mktemp("world")
    model = TokenWorldModel(tiny_config(vocabulary, num_hidden_layers=1))
    WorldModel(model.eval(), vocabulary, tokenizer).save(folder)
    return folder


def test_the_policy_answers_and_draws_and_knows_its_tokens(untrained: Path) -> None:
    samples = scene_world_samples(6, split="dev")
    with RolloutPool(TokenWorldModelPolicy(untrained), actors=0, chunk=2) as pool:
        groups = list(pool.generate(samples, 3, 1.0, run_seed=1))
    assert {group[0].sample_id for group in groups} == {sample.id for sample in samples}
    tasks = {sample.id: sample.task for sample in samples}
    for out in (out for group in groups for out in group):
        assert out.tokens is not None
        if tasks[out.sample_id] is Task.FORECAST:
            assert out.image is not None and out.image.pixels().shape == (64, 64, 3)
            assert len(out.tokens.completion_ids) == 65 and out.finish_reason == "stop"
        else:
            assert (out.answer is not None) == (out.finish_reason == "stop")
            assert (out.invalid is not None) == (out.finish_reason == "length")


def test_the_learner_scores_what_the_sampler_sampled(untrained: Path) -> None:
    """Log-probabilities of the trainer's forward pass, padded and with its prompts cut, against those of the rollouts."""
    policy = TokenWorldModelPolicy(untrained)
    policy.setup()
    with RolloutPool(TokenWorldModelPolicy(untrained), actors=0) as pool:
        outputs = [out for group in pool.generate(scene_world_samples(4, split="dev"), 2) for out in group]
    score_through_forward(policy.model, 1.0)
    traces = [out.tokens for out in outputs if out.tokens is not None]
    cut = min(len(trace.prompt_ids) for trace in traces)
    rows = [[*trace.prompt_ids, *trace.completion_ids] for trace in traces]
    width = max(map(len, rows))
    ids = torch.tensor([row + [policy.pad_id] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :cut] = -100
    scored = policy.model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True)
    logps = scored.log_probs[:, -(width - cut) :]
    for row, trace in enumerate(traces):
        start = len(trace.prompt_ids) - cut
        mine = logps[row, start : start + len(trace.completion_ids)]
        torch.testing.assert_close(mine, torch.tensor(trace.logprobs), atol=1e-4, rtol=1e-4)
    assert torch.isfinite(scored.log_probs).all() and torch.isfinite(scored.entropy).all()
    scored.log_probs.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in policy.model.parameters() if p.grad is not None)


@pytest.fixture(scope="module")
def run_directory(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "smoke"
    return train(QUICKSTART, {"policy.path": str(untrained), "out": str(out), "rollouts.actors": 0}, smoke=True)


def test_the_quickstart_leaves_everything_it_promises(run_directory: Path) -> None:
    for name in ("config.yaml", "log.jsonl", "heldout.json", "final/model.safetensors", "checkpoints/checkpoint-2"):
        assert (run_directory / name).exists(), name
    assert list((run_directory / "tensorboard").iterdir())
    assert len(list((run_directory / "dumps").iterdir())) == 2
    changes = json.loads((run_directory / "heldout.json").read_text())["changes"]
    for mode in ("greedy", "sampled"):
        assert {"accuracy", "gain_over_copy"} <= changes[mode].keys()
        assert changes[mode]["gain_over_copy"]["rewarded"] is True
        assert changes[mode]["gain_over_copy"]["difference"]["n_scenes"] > 1


def test_the_final_policy_can_be_loaded(run_directory: Path) -> None:
    policy = build_policy({"use": "token_world_model", "path": run_directory / "final"})
    policy.setup()


def test_resuming_needs_the_same_configuration(run_directory: Path, untrained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run_directory, copy)
    same = {"policy.path": str(untrained), "rollouts.actors": 0}
    with pytest.raises(ConfigError, match=r"'grpo\.learning_rate' \(0\.1 instead of 0\.0003\) differs"):
        train(QUICKSTART, {**same, "grpo.learning_rate": 0.1}, copy, smoke=True)
    with pytest.raises(ConfigError, match="not the directory of a run"):
        train(QUICKSTART, same, tmp_path / "nothing", smoke=True)
    with pytest.raises(ConfigError, match="holds a run already"):
        train(QUICKSTART, {**same, "out": str(copy)}, smoke=True)
    train(QUICKSTART, same, copy, smoke=True)  # finished already: measured again, nothing trained
    assert (copy / "log.jsonl").read_text() == (run_directory / "log.jsonl").read_text()


def test_the_resolved_configuration_is_one(run_directory: Path) -> None:
    stored = yaml.safe_load((run_directory / "config.yaml").read_text())
    assert stored["grpo"]["steps"] == 2 and stored["seed"] == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.source=nowhere", "no source is named 'nowhere'"),
        ("train.split=nowhere", "no split 'nowhere'"),
        ("train.colour=red", "train: unknown key 'colour'"),
        ("policy.use=nobody", "no policy is named 'nobody'"),
        ("policy.path=/nowhere", "/nowhere holds no token world model"),
        ("policy.colour=red", "cannot be made from"),
        ("measure.metrics=[acuracy]", "the metric 'acuracy'; did you mean 'accuracy'"),
        ("grpo.schedule=sometimes", "grpo: TRL does not take these settings: sometimes is not a valid SchedulerType"),
        ("grpo.trl.los_type=x", "GRPOConfig has no argument 'los_type'"),
        ("grpo.trl.num_generations=3", "'num_generations' follows from other keys"),
        ("rubric.components.0.use=nothing", "no verifier is named 'nothing'"),
        ("rubric.components=[{use: exact_match}]", "no component of the rubric rewards the task forecast"),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(
    untrained: Path, tmp_path: Path, override: str, message: str
) -> None:
    overrides = {
        "policy.path": str(untrained),
        "out": str(tmp_path / "run"),
        "rollouts.actors": 0,
        **assignments([override]),
    }
    with pytest.raises(ConfigError, match=message):
        train(QUICKSTART, overrides, smoke=True)
