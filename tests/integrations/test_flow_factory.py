"""Our reward in Flow-Factory: its own processor calls it, and its own arithmetic says what an advantage is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import rsw_rewards as rsw
from rsw_rewards.integrations.flow_factory import Rewards
from tests.foreign import checkout, package

LEVELS = np.random.default_rng(0)
BEFORE, AFTER, OTHER = (LEVELS.integers(0, 256, (16, 16, 3)).astype(np.uint8) for _ in range(3))
IMAGES = [AFTER, BEFORE, OTHER, (AFTER // 2 + BEFORE // 2).astype(np.uint8)]
RUBRIC = {"gain_over_copy": 0.7, "ssim": 0.3}
PAGE = Path(__file__).parents[2] / "docs/integrations/flow_factory.md"


def sample(name: str = "a", prompt: str = "a road") -> dict[str, Any]:
    return {"id": name, "task": "forecast", "prompt": prompt, "images": [BEFORE], "reference": {"images": [AFTER]}}


def expected() -> list[float | None]:
    return [result.reward for result in rsw.Reward(RUBRIC).many(IMAGES, [sample()] * len(IMAGES))]


def pil(images: list[np.ndarray]) -> list[list[Image.Image]]:
    return [[Image.fromarray(image)] for image in images]


@rsw.verifier(tasks="forecast")
def first_level(sample: rsw.Sample, output: rsw.Output) -> float:
    """The share of red in the first pixel; black is a fault of the verifier's."""
    if not (level := output.image.pixels()[0, 0, 0]):
        raise ValueError("black")
    return level / 255


def reds(*levels: int) -> list[np.ndarray]:
    return [np.full((4, 4, 3), level, np.uint8) for level in levels]


@pytest.mark.parametrize("groups", [False, True])
def test_a_prompt_an_id_or_the_row_names_the_sample(groups: bool) -> None:
    prompts, images = ["a road"] * len(IMAGES), pil(IMAGES)
    samples = [sample(), sample("b", "a field")]
    rewards, parts = Rewards({"rubric": RUBRIC, "samples": samples}, groups).of_batch(prompts, images)
    assert rewards == expected() and set(parts) == set(RUBRIC)
    named = Rewards({"rubric": RUBRIC, "samples": samples}, groups).of_batch(prompts, images, names=["a"] * len(IMAGES))
    assert named[0] == expected()
    whole = {key: value for key, value in sample().items() if key != "images"}
    shown = pil([BEFORE] * len(IMAGES))
    held = Rewards({"rubric": RUBRIC}, groups).of_batch(prompts, images, shown, [whole] * len(IMAGES))
    assert held[0] == expected()


def test_a_prompt_that_names_no_sample_or_two_is_refused() -> None:
    rewards = Rewards({"rubric": RUBRIC, "samples": [sample(), sample("b")]}, groups=False)
    for prompt, count in (("a road", 2), ("a lake", 0)):
        with pytest.raises(rsw.InputError, match=f"{count} samples have the prompt '{prompt}'; give each"):
            rewards.of_batch([prompt], pil([AFTER]))


def test_a_failure_raises_alone_and_is_its_groups_mean() -> None:
    prompts, images = ["a road"] * 3, pil(reds(255, 0, 51))
    given = {"rubric": first_level, "samples": [sample()]}
    assert Rewards(given, groups=True).of_batch(prompts, images)[0] == pytest.approx([1.0, 0.6, 0.2])
    for groups, more in ((False, {}), (True, {"on_failure": "raise"})):
        with pytest.raises(rsw.RunStopped, match="an output has no reward: first_level"):
            Rewards({**given, **more}, groups).of_batch(prompts, images)


def test_a_rubric_that_compares_a_group_needs_the_groupwise_model() -> None:
    normalized = {"combine": "normalize_each", "components": [{"use": "ssim"}]}
    with pytest.raises(rsw.ConfigError, match=r"normalises each .* it needs RSWGroupwiseReward"):
        Rewards({"rubric": normalized, "samples": [sample()]}, groups=False)
    rewards, _ = Rewards({"rubric": normalized, "samples": [sample()]}, groups=True).of_batch(
        ["a road"] * 4, pil(IMAGES)
    )
    whole = rsw.Reward(normalized).many(IMAGES, [sample()] * 4)
    assert rewards == [result.reward for result in whole]


def flow_factory() -> Any:
    """Its rewards package, from the checkout."""
    sys.path.insert(0, str(checkout("Flow-Factory", "a0b2bc5") / "src"))
    return package("flow_factory.rewards")


def processor(given: dict[str, Any], **more: Any) -> Any:
    foreign = flow_factory()
    from accelerate import Accelerator
    from flow_factory.hparams import RewardArguments

    accelerator = Accelerator(cpu=True)
    arguments = RewardArguments.from_dict({"device": "cpu", **given})
    model = foreign.load_reward_model(arguments, accelerator)
    return foreign.RewardProcessor(accelerator, {"rsw": model}, {"rsw": arguments}, verbose=False, **more)


def rollouts(images: list[np.ndarray]) -> list[Any]:
    from flow_factory.samples import I2ISample

    return [I2ISample(image=Image.fromarray(image), prompt="a road", condition_images=[Image.fromarray(BEFORE)]) for image in images]  # fmt: skip


@pytest.mark.parametrize("same_rank", [True, False])
@pytest.mark.parametrize("name", ["RSWPointwiseReward", "RSWGroupwiseReward"])
def test_flow_factorys_own_processor_gives_our_rewards(
    name: str, same_rank: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for file, image in (("before.png", BEFORE), ("after.png", AFTER)):
        Image.fromarray(image).save(file)
    row = {**sample(), "images": ["before.png"], "reference": {"images": ["after.png"]}}
    Path("samples.jsonl").write_text(json.dumps(row))
    Path("rubric.yaml").write_text(yaml.safe_dump({"components": [{"use": use, "weight": weight} for use, weight in RUBRIC.items()]}))  # fmt: skip
    (given,) = yaml.safe_load(PAGE.read_text().split("```yaml\n")[1].split("```")[0])["rewards"]
    given["reward_model"] = given["reward_model"].replace("RSWPointwiseReward", name)
    found = processor(given, group_on_same_rank=same_rank).compute_rewards(rollouts(IMAGES))["rsw"]
    assert found.tolist() == pytest.approx(expected(), abs=1e-7)


def test_a_failure_moves_no_siblings_advantage() -> None:
    flow_factory()
    from flow_factory.advantage.advantage_processor import AdvantageProcessor

    def advantages(images: list[np.ndarray]) -> list[float]:
        given = {"rubric": {f"{__name__}:first_level": 1.0}, "samples": [sample()]}
        path = "rsw_rewards.integrations.flow_factory.RSWGroupwiseReward"
        rewards = processor({"reward_model": path, **given})
        samples = rollouts(images)
        found = rewards.compute_rewards(samples)
        own = AdvantageProcessor(rewards.accelerator, {"rsw": 1.0}, len(images), global_std=False, verbose=False)
        return own.compute_advantages(samples, found, aggregation_func="sum").tolist()

    failed = advantages(reds(255, 51, 0, 255))
    reference = advantages(reds(255, 51, 255))
    assert failed[2] == pytest.approx(0, abs=1e-6)
    assert [failed[place] for place in (0, 1, 3)] == pytest.approx(np.multiply(reference, np.sqrt(4 / 3)), abs=1e-5)
