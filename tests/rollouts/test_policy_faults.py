"""The same faults for every trained policy: each ends in a status and a sentence, never in a zero, and costs no other rollout."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rsw_rewards.config import PpoRunConfig
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.plugins import load_file
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.rewards import rewards
from rsw_rewards.core.rubric import load_rubric, parse_rubric
from rsw_rewards.core.scores import Status
from rsw_rewards.core.verifier import Batch
from rsw_rewards.data.scene_world import scene_world_samples
from rsw_rewards.engine.scorer import Scorer
from rsw_rewards.errors import RunStopped
from rsw_rewards.io.records_io import load_outputs, load_samples
from rsw_rewards.rollouts.policies import TokenWorldModelPolicy, build_policy
from rsw_rewards.rollouts.policy import Policy, Request
from rsw_rewards.rollouts.pool import RolloutPool
from rsw_rewards.rollouts.weights import trained_weights
from rsw_rewards.training.diffusion import FlowGrpoRunConfig
from rsw_rewards.training.diffusion import train as train_diffusion
from rsw_rewards.training.log_rows import read_log
from rsw_rewards.training.ppo import train_ppo
from tests.training.run_files import dumped_rewards

MADE = Path(__file__).parents[1] / "training"


@dataclass(frozen=True)
class Kind:
    """A policy, samples for it, and a rubric that scores what it makes."""

    policy: Mapping[str, Any]
    samples: tuple[Sample, ...]
    source: Mapping[str, Any]
    component: str
    makes: str
    """The field of its outputs."""

    @property
    def rubric(self) -> dict[str, Any]:
        return {"components": [{"use": self.component}]}


KINDS = {
    "token_world_model": Kind(
        {"use": "token_world_model", "path": "embedded"},
        tuple(scene_world_samples(4, seed=5, split="dev", tasks=("forecast",))),
        {"source": "scene-world", "split": "dev", "questions": 0, "forecasts": 4},
        "gain_over_copy",
        "image",
    ),
    "vision_language": Kind(
        {"use": "vision_language", "path": "tiny:qwen2_5_vl", "max_new_tokens": 4},
        tuple(load_file(MADE.parents[1] / "examples/squares.py").squares(4)),
        {"source": f"{MADE.parents[1] / 'examples/squares.py'}:squares", "count": 4},
        "exact_match",
        "text",
    ),
    "diffusion_forecaster": Kind(
        {"use": "diffusion_forecaster", "path": "tiny:instruct_pix2pix", "size": 8, "steps": 3},
        tuple(load_file(MADE / "brightness.py").brightness(4, side=8)),
        {"source": f"{MADE / 'brightness.py'}:brightness", "count": 4, "side": 8},
        "gain_over_copy",
        "image",
    ),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


def made(kind: Kind, samples: Sequence[Sample], chunk: int = 4, **load: Any) -> dict[str, list[Output]]:
    with RolloutPool(build_policy(kind.policy), actors=0, chunk=chunk) as pool:
        if load:
            pool.load_weights(**load)
        return {group[0].sample_id: group for group in pool.generate(samples, 2, 1.0, run_seed=1)}


def content(outputs: Mapping[str, list[Output]]) -> dict[str, list[Any]]:
    """What the outputs are, without where it is kept."""
    return {
        key: [(one.text, one.image and one.image.sha256, one.tokens and one.tokens.completion_ids) for one in group]
        for key, group in outputs.items()
    }


def test_nothing_asked_is_nothing_made(kind: Kind) -> None:
    assert made(kind, []) == {}
    policy = build_policy(kind.policy)
    policy.setup()
    assert policy.generate([]) == []


def test_any_split_of_a_batch_gives_the_same_rollouts(kind: Kind) -> None:
    expected = content(made(kind, kind.samples))
    assert len({str(one) for group in expected.values() for one in group}) > 2
    assert content(made(kind, kind.samples, chunk=1)) == expected
    assert content(made(kind, kind.samples[::-1], chunk=3)) == expected


def no_picture(sample: Sample) -> Sample:
    return replace(sample, images=())


def no_file(sample: Sample) -> Sample:
    return replace(sample, images=(ImageRef(path=Path("/nowhere/absent.png")),) * len(sample.images))


def one_row(sample: Sample) -> Sample:
    """Pictures of a shape that no policy takes: a band of one pixel by a thousand."""
    return replace(sample, images=(ImageRef(array=np.zeros((1, 1000, 3), np.uint8)),) * len(sample.images))


@pytest.mark.parametrize(
    ("broken", "why"),
    [(no_picture, "one image|no image|one input image"), (no_file, "absent.png"), (one_row, "1000|images")],
)
def test_a_broken_sample_costs_its_own_rollouts_alone(kind: Kind, broken: Callable[[Sample], Sample], why: str) -> None:
    if broken is one_row and kind.makes == "image" and "size" in kind.policy:
        pytest.skip("pictures of every size are brought to the size of the pipeline")
    bad, *good = kind.samples
    found = made(kind, [broken(bad), *good])
    for output in found[bad.id]:
        assert output.lost and any(word in output.lost for word in why.split("|")), output.lost
    rest = {sample.id: found[sample.id] for sample in good}
    assert content(rest) == content(made(kind, good))
    with Scorer(parse_rubric(kind.rubric, "rubric")) as scorer:
        table = scorer.score(Batch.of([bad, bad], found[bad.id]))
    assert set(table.frame["status"]) == {Status.ERROR} and table.frame["value"].isna().all()
    assert all("image" in reason or "absent" in reason for reason in table.frame["reason"])


def test_weights_that_are_no_numbers_are_said_and_never_scored_as_answers(kind: Kind) -> None:
    policy: Any = build_policy(kind.policy)
    policy.setup()
    weights = {
        name: torch.full_like(tensor, torch.nan) if tensor.is_floating_point() else tensor
        for name, tensor in trained_weights(policy.model).items()
    }
    if "size" not in kind.policy:
        with pytest.raises(RunStopped, match=r"no rollout could be made: .* weights or logits are not finite"):
            made(kind, kind.samples, weights=weights, version=1)
        return
    outputs = [one for group in made(kind, kind.samples, weights=weights, version=1).values() for one in group]
    assert {one.invalid for one in outputs} == {"the sampler diverged: its picture is not finite"}
    with Scorer(parse_rubric(kind.rubric, "rubric")) as scorer:
        table = scorer.score(Batch.of([sample for sample in kind.samples for _ in range(2)], outputs))
    assert set(table.frame["status"]) == {Status.INVALID_OUTPUT}
    assert set(table.frame["reason"]) == {"the sampler diverged: its picture is not finite"}


@pytest.mark.slow
def test_a_dump_gives_the_rewards_that_the_trainer_saw(kind: Kind, tmp_path: Path) -> None:
    config = {
        "out": str(tmp_path),
        "policy": kind.policy,
        "train": kind.source,
        "rubric": kind.rubric,
        "rollouts": {"actors": 0},
        "dump_every": 1,
        "log": [],
    }
    asked = {"steps": 1, "prompts": 2, "group": 2, "threads": 1}
    if "size" in kind.policy:
        train_diffusion(FlowGrpoRunConfig.model_validate({**config, "flow_grpo": asked}))
    else:
        train_ppo(PpoRunConfig.model_validate({**config, "ppo": asked}))
    dump = tmp_path / "dumps" / "step_000000"
    samples, rubric = load_samples(dump / "samples.jsonl"), load_rubric(dump / "rubric.yaml")
    outputs, problems = load_outputs(dump / "predictions.jsonl", samples)
    assert not problems
    with Scorer(rubric) as scorer:
        frame = rewards(scorer.score(Batch.of(samples, outputs)), rubric)
    again = dict(zip(zip(frame["sample"], frame["candidate"], strict=True), frame["reward"], strict=True))
    assert again == dumped_rewards(dump) and len(again) == 4
    (row,) = read_log(tmp_path / "log.jsonl")
    assert row["reward"] == pytest.approx(np.mean(list(again.values())))


class Mortal(TokenWorldModelPolicy):
    """Kills its process at the second call, once (``mark`` appears then)."""

    def __init__(self, mark: Path) -> None:
        super().__init__()
        self.mark, self.calls = mark, 0

    def generate(self, requests: Sequence[Request]) -> list[Output]:
        self.calls += 1
        if self.calls == 2 and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().generate(requests)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_killed_actor_costs_the_world_model_no_rollout_and_changes_none(tmp_path: Path) -> None:
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    groups = []
    policies: tuple[tuple[Policy, int], ...] = ((TokenWorldModelPolicy(), 0), (Mortal(tmp_path / "mark"), 1))
    for policy, actors in policies:
        with RolloutPool(policy, actors=actors, chunk=2) as pool:
            found = pool.generate(KINDS["token_world_model"].samples, 2, 1.0, run_seed=1)
            groups.append(content({group[0].sample_id: group for group in found}))
    assert (tmp_path / "mark").exists() and groups[0] == groups[1]
