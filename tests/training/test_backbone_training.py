"""Training of world models on vision-language backbones: what TRL scores is what was sampled, and the supervised stages teach."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from rsw_rewards.config import RunConfig, load_config
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.data.scene_world import scene_world_samples
from rsw_rewards.errors import ConfigError, InputError
from rsw_rewards.rollouts.backbone_world_model import BackboneWorldModel
from rsw_rewards.rollouts.policy import Request
from rsw_rewards.rollouts.pool import RolloutPool
from rsw_rewards.rollouts.weights import trained_weights
from rsw_rewards.training.run import train
from rsw_rewards.training.trainer_views import trainer_view
from rsw_rewards.training.trl_trainer import Trainer
from tests.training.taught import fit

CONFIGS = Path(__file__).parents[2] / "configs"
SAMPLES = [
    *scene_world_samples(2, 0, split="supervised", tasks=("change_qa",)),
    *scene_world_samples(3, 0, split="supervised", tasks=("forecast",)),
]


def ready(**changes: Any) -> BackboneWorldModel:
    policy = BackboneWorldModel("tiny:qwen3_vl", **{"max_new_tokens": 4, **changes})
    policy.setup()
    return policy


class FromPool:
    """Collects what a pool makes, and rewards outputs by their place."""

    def __init__(self, pool: RolloutPool, samples: list[Sample], config: RunConfig) -> None:
        self.pool, self.samples, self.config = pool, {sample.id: sample for sample in samples}, config
        self.outputs: list[Output] = []

    def collect(self, ids: list[str], step: int, weights: Any) -> tuple[list[Output], list[float | None]]:
        self.pool.load_weights(weights, step)
        grpo = self.config.grpo
        groups = self.pool.generate([self.samples[one] for one in ids], grpo.group, grpo.temperature)
        made = {group[0].sample_id: group for group in groups}
        self.outputs = [output for one in ids for output in made[one]]
        return self.outputs, [None if output.lost else float(n % 2) for n, output in enumerate(self.outputs)]


@pytest.mark.parametrize("lora", [None, {"r": 4}])
def test_trl_scores_what_was_sampled(lora: dict[str, Any] | None, tmp_path: Path) -> None:
    """Questions and forecasts in one batch, one of them lost: log-probabilities inside TRL's loss against those of the rollouts."""
    policy, sampler = ready(lora=lora), BackboneWorldModel("tiny:qwen3_vl", max_new_tokens=4, lora=lora)
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight += 0.05 * torch.randn_like(weight) * weight.requires_grad
    samples = [*SAMPLES[:4], replace(SAMPLES[4], images=(ImageRef(path=tmp_path / "absent.png"),))]
    view = trainer_view(policy, samples)
    config = RunConfig.model_validate(
        {
            "out": tmp_path,
            "policy": "unused",
            "train": {"source": "unused"},
            "rubric": {"components": [{"use": "exact_match"}]},
            "grpo": {"steps": 1, "prompts": 5, "group": 2, "temperature": 0.7, "device": "cpu", "threads": 1},
        }
    )
    rollouts: Any = FromPool(RolloutPool(sampler, actors=0), samples, config)
    trainer: Any = Trainer(config, view, [sample.id for sample in samples], rollouts)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    score = trainer._get_per_token_logps_and_entropies

    def spy(model: Any, ids: torch.Tensor, mask: torch.Tensor, keep: int, **kwargs: Any) -> Any:
        found = score(model, ids, mask, keep, **kwargs)
        seen.append((ids, found[0].detach()))
        return found

    trainer._get_per_token_logps_and_entropies = spy
    start = {name: weight.clone() for name, weight in trained_weights(policy.model).items()}
    trainer.train()
    ((ids, logps),) = seen
    made = [output for output in rollouts.outputs if not output.lost]
    assert len(made) == 8
    for output in made:
        assert output.tokens
        prompt, completion = output.tokens.prompt_ids, output.tokens.completion_ids
        whole = torch.tensor([*prompt, *completion])
        for row, scored in zip(ids, logps, strict=True):
            places = [k for k in range(len(row) - len(whole) + 1) if torch.equal(row[k : k + len(whole)], whole)]
            if places:
                last = places[0] + len(whole) - (len(row) - len(scored))
                mine = scored[last - len(completion) : last]
                torch.testing.assert_close(mine, torch.tensor(output.tokens.logprobs), atol=1e-5, rtol=0)
                break
        else:
            pytest.fail("the trainer was given other tokens than were sampled")
    assert np.isfinite(trainer.state.log_history[0]["loss"])
    after = trained_weights(policy.model)
    grown = "embed_tokens.token_adapter.trainable_tokens_delta" if lora else "embed_tokens.weight"
    moved = [name for name in start if not torch.equal(start[name], after[name])]
    assert any(grown in name for name in moved), "the embeddings of the new tokens are not trained"


def test_joint_tuning_teaches_answers_and_pictures() -> None:
    policy = ready()
    some = [SAMPLES[0], SAMPLES[2]]
    losses = list(fit(policy, some, 30, 4, 1e-2, mix={"change_qa": 2, "forecast": 2}, micro_batch=2))
    assert losses[-1] < 0.1 * losses[0]
    answer, picture = policy.generate([Request(sample, temperature=0.0) for sample in some])
    assert answer.text == some[0].reference["answers"][0]
    true = policy.drawings([some[1].reference["images"][-1]])[0]
    assert picture.tokens and np.mean(np.array(true) == picture.tokens.completion_ids) > 0.9


def test_a_short_answer_keeps_its_share_beside_a_picture() -> None:
    """The gradient of a mixed batch is the mean of the tasks' gradients, however many tokens a picture has."""

    def gradient(samples: list[Sample], **changes: Any) -> torch.Tensor:
        policy = ready()
        embedding = policy.model.get_input_embeddings().weight
        found: list[torch.Tensor] = []
        embedding.register_hook(lambda grad: found.append(grad.clone()))
        next(fit(policy, samples, 1, 2, 1e-9, **changes))
        return torch.stack(found).sum(0)

    question, forecast = SAMPLES[0], SAMPLES[2]
    both = gradient([question, forecast], mix={"change_qa": 1, "forecast": 1})
    torch.testing.assert_close(both, (gradient([question]) + gradient([forecast])) / 2, atol=1e-5, rtol=1e-3)


def test_stages_that_cannot_run_say_why(tmp_path: Path) -> None:
    sit = CONFIGS / "rs_worldmodel_sit.yaml"
    with pytest.raises(ConfigError, match="'mix' add up to 3, but 'batch' is 4"):
        load_config(sit, {"mix.forecast": 1}, smoke=True)
    with pytest.raises(ConfigError, match="'mix' asks for change_qa, of which there is none"):
        train(sit, {"out": str(tmp_path / "a"), "train.questions": 0}, smoke=True)
    futureless = replace(SAMPLES[2], reference={})
    assert futureless.task is Task.FORECAST
    with pytest.raises(InputError, match="has no true future to learn from"):
        next(fit(ready(), [futureless], 1, 1, 1e-3))


@pytest.mark.parametrize("method", ["grpo", "ppo"])
def test_a_resumed_run_with_adapters_ends_where_it_would_have(method: str, tmp_path: Path) -> None:
    config = {
        "method": method,
        "policy": {"use": "backbone_world_model", "path": "tiny:qwen3_vl", "max_new_tokens": 4, "lora": {"r": 4}},
        "train": {"source": "scene-world", "questions": 4, "forecasts": 4},
        "rubric": {"components": [{"use": "gain_over_copy"}, {"use": "exact_match", "config": {"answers": "closed"}}]},
        method: {
            "steps": 2,
            "prompts": 2,
            "group": 2,
            "beta": 0.01,
            "device": "cpu",
            "threads": 1,
            "learning_rate": 1e-3,
        },
        "rollouts": {"actors": 0},
        "checkpoints": {"every": 1},
        "log": [],
    }
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    out = train(file, {"out": str(tmp_path / "run")})
    steps = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert all(0 < step["reward_task/forecast"] < 1 and step["failed"] == 0 for step in steps)
    if method == "ppo":
        assert max(step["sampler_gap"] for step in steps) < 1e-5
    ended = load_file(out / "final" / "adapter_model.safetensors")
    (out / "checkpoints" / "checkpoint-2" / "complete.json").unlink()
    train(file, {}, resume=out)
    resumed = load_file(out / "final" / "adapter_model.safetensors")
    assert ended.keys() == resumed.keys() and any("trainable_tokens" in name for name in ended)
    assert all(torch.equal(ended[name], resumed[name]) for name in ended)
