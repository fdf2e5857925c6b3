"""The pool: same rollouts with and without actors, with and without faults, and pixels that stay out of the driver."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rsw_rewards.core.plugins import load_file
from rsw_rewards.core.records import Output
from rsw_rewards.errors import ConfigError, RunStopped
from rsw_rewards.rollouts.policy import Policy
from rsw_rewards.rollouts.pool import RolloutPool
from rsw_rewards.rollouts.weights import pack_weights, unpack_weights

toy = load_file(Path(__file__).parent / "toy_policy.py")
SAMPLES = toy.toy_samples()
pytestmark = pytest.mark.usefixtures("ray_cluster")


def run(policy: Policy, candidates: int = 3, weight: float | None = None, **options: object) -> dict[str, list[Output]]:
    with RolloutPool(policy, chunk=2, **options) as pool:
        if weight is not None:
            pool.load_weights({"w": torch.tensor(weight)}, 7)
        return {group[0].sample_id: group for group in pool.generate(SAMPLES, candidates, run_seed=3, step=5)}


def plain(groups: dict[str, list[Output]]) -> dict[str, list[Output]]:
    """Outputs with images as references by hash only, so that those of the store and those in memory compare equal."""
    return {
        key: [
            replace(out, image=out.image and replace(out.image, array=None, ref=None, index=0)) for out in groups[key]
        ]
        for key in sorted(groups)
    }


@pytest.fixture(scope="module")
def expected() -> dict[str, list[Output]]:
    return run(toy.ToyPolicy(), actors=0)


def test_groups_are_whole_seeded_and_stamped(expected: dict[str, list[Output]]) -> None:
    assert set(expected) == {sample.id for sample in SAMPLES}
    for group in expected.values():
        assert [out.candidate for out in group] == [0, 1, 2]
        assert len({out.seed for out in group}) == 3
        assert {out.policy_version for out in group} == {0}
    text = {out.text for group in expected.values() for out in group if out.text}
    assert len(text) > 3


@pytest.mark.parametrize("actors", [1, 2])
def test_actors_give_what_this_process_gives(expected: dict[str, list[Output]], actors: int) -> None:
    groups = run(toy.ToyPolicy(), actors=actors)
    assert plain(groups) == plain(expected)
    image, twin = groups["s1"][0].image, expected["s1"][0].image
    assert image is not None and twin is not None
    assert image.array is None and image.ref is not None
    np.testing.assert_array_equal(image.pixels(), twin.pixels())  # although the pool and its actors are gone


def test_a_killed_actor_is_replaced_and_nothing_changes(expected: dict[str, list[Output]], tmp_path: Path) -> None:
    groups = run(toy.ToyPolicy("kill", tmp_path, times=1), actors=1)
    assert len(list(tmp_path.iterdir())) == 1
    assert plain(groups) == plain(expected)


def test_a_replacement_has_the_weights_of_the_others(tmp_path: Path) -> None:
    groups = run(toy.ToyPolicy("kill", tmp_path, times=1), weight=2.5, actors=1)
    assert plain(groups) == plain(run(toy.ToyPolicy(), weight=2.5, actors=0))
    assert {out.policy_version for group in groups.values() for out in group} == {7}
    assert all(out.text is None or out.text.endswith(" 2.5") for group in groups.values() for out in group)


def test_a_hanging_actor_is_replaced(expected: dict[str, list[Output]], tmp_path: Path) -> None:
    groups = run(toy.ToyPolicy("hang", tmp_path, times=1), actors=1, timeout_s=5)
    assert plain(groups) == plain(expected)


def test_work_that_cannot_be_done_comes_back_as_lost(expected: dict[str, list[Output]], tmp_path: Path) -> None:
    groups = run(toy.ToyPolicy("raise", tmp_path, times=3), actors=1, retries=2)
    lost = {key for key, group in groups.items() if group[0].lost}
    assert lost == {"s1", "s3"}  # the first chunk: two forecasts
    assert all("told to fail" in str(out.lost) for key in lost for out in groups[key])
    assert [out.candidate for out in groups["s1"]] == [0, 1, 2]
    rest = set(groups) - lost
    assert plain({key: groups[key] for key in rest}) == plain({key: expected[key] for key in rest})


def test_a_run_that_loses_everything_stops(tmp_path: Path) -> None:
    with pytest.raises(RunStopped, match=r"no rollout could be made.*told to fail"):
        run(toy.ToyPolicy("raise", tmp_path, times=1000), actors=1, retries=0)


class NoWeights(Policy):
    name = "no-weights"

    def setup(self, device: str = "cpu", threads: int = 1) -> None:
        raise ConfigError("the weights in /nowhere are missing")

    def generate(self, requests: object) -> list[Output]:
        return []


@pytest.mark.parametrize("actors", [0, 1])
def test_a_policy_that_cannot_load_says_so(actors: int) -> None:
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with pytest.raises(ConfigError, match="/nowhere"):
        run(NoWeights(), actors=actors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_weights_survive_the_store(dtype: torch.dtype) -> None:
    weights = {"a": torch.arange(6).reshape(2, 3).to(dtype), "b": torch.tensor(3).to(dtype), "c": torch.zeros(0, 4)}
    back = unpack_weights(pack_weights(weights))
    assert all(torch.equal(back[name], tensor) and back[name].dtype == tensor.dtype for name, tensor in weights.items())
