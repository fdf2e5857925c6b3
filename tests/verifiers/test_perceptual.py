"""LPIPS with random trunks: parity with torchmetrics, regions, and which weights may bear the name. No published weights needed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rsw_rewards as rsw
from rsw_rewards.core.records import Task
from rsw_rewards.core.rubric import build
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Batch
from rsw_rewards.encoders import lpips as networks
from rsw_rewards.errors import ConfigError
from rsw_rewards.evaluation.protocols import Protocol
from rsw_rewards.verifiers import perceptual
from tests.verifiers.paired_pictures import (
    blurred,
    built,
    forecast,
    image,
    jpeg,
    metric,
    near,
    ready,
    ref,
    sample,
    score_one,
)


@pytest.fixture(scope="module")
def theirs() -> Any:
    """torchmetrics' network, its published heads on a random trunk."""
    import torch
    from torchmetrics.functional.image.lpips import _LPIPS

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return _LPIPS(net="alex", pnet_rand=True).eval()


@pytest.fixture(scope="module")
def trunk(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same trunk as a file of torchvision's form."""
    import torch

    state = {f"features.{key.split('.', 1)[1]}": value for key, value in theirs.net.state_dict().items()}
    file = tmp_path_factory.mktemp("lpips") / "alexnet-random.pth"
    torch.save(state, file)
    return file


@pytest.fixture(scope="module")
def config(trunk: Path) -> dict[str, object]:
    return {"backbone": str(trunk), "name": "random"}


def test_it_equals_torchmetrics_over_the_whole_image(theirs: Any, config: dict[str, object]) -> None:
    import torch

    before, after, _ = built(1)
    x, y = (torch.from_numpy(part).permute(2, 0, 1)[None].float() / 255 for part in (before, after))
    with torch.inference_mode():
        expected = float(theirs(x, y, normalize=True))
    score = score_one(ready("lpips", **config), sample(before, after), forecast(before))
    assert expected > 0.01
    assert score.raw == {"lpips": pytest.approx(expected, rel=1e-4)}
    assert score.value == pytest.approx(1 / (1 + 2 * expected), rel=1e-4)


def test_the_truth_is_perfect_and_a_gain_is_over_the_copy(config: dict[str, object]) -> None:
    before, after, _ = built(1)
    one = sample(before, after)
    plain, verifier = ready("lpips", **config), ready("lpips", gain=True, min_change=1e-6, **config)
    output = forecast(near(after, 1, 8.0))
    distance, copied = (score_one(plain, one, made).raw["lpips"] for made in (output, forecast(before)))
    assert score_one(plain, one, forecast(after)).value == 1.0
    score = score_one(verifier, one, output)
    assert score.raw["gain"] == pytest.approx(1 - distance / copied, abs=1e-6)
    assert score_one(verifier, one, forecast(before)).value == pytest.approx(0.5)
    assert metric(verifier, [score]) == {"gain_lpips_random": pytest.approx(1 - distance / copied, abs=1e-6)}
    assert metric(plain, [Score.invalid("x")]) == {"lpips_random": 2.0}


def test_a_region_counts_what_is_wrong_in_it(config: dict[str, object]) -> None:
    before, after, mask = built(2, 128)
    one = sample(before, after, mask=ref(mask))
    wrong = after.copy()
    wrong[100:, :28] = image(1, 128)[100:, :28]
    inside, outside, whole = (
        score_one(ready("lpips", region=region, **config), one, forecast(wrong)).raw["lpips"]
        for region in ("inside", "outside", "all")
    )
    assert inside < 0.1 * whole < whole < outside
    copied_in, copied_out = (
        score_one(ready("lpips", region=region, **config), one, forecast(before)).raw["lpips"]
        for region in ("inside", "outside")
    )
    assert copied_in > 3 * copied_out
    assert score_one(ready("lpips", region="inside", **config), sample(before, after), forecast(after)).status is (
        Status.NOT_APPLICABLE
    )


def test_pixels_that_do_not_count_cannot_move_it_nor_shrink_it(config: dict[str, object]) -> None:
    """A hole's pixels are equal in both images; a mean over the whole frame would count them as perfect."""
    before, after, _ = built(3, 128)
    valid = np.zeros((128, 128), bool)
    valid[:64, :64] = True
    output = near(after, 2, 25.0)
    other = output.copy()
    other[~valid] = 255
    holed = sample(before, after, valid=ref(valid))
    verifier = ready("lpips", **config)
    first, second = (score_one(verifier, holed, forecast(pixels)) for pixels in (output, other))
    assert first == second
    full = score_one(verifier, sample(before, after), forecast(output)).raw["lpips"]
    assert first.raw["lpips"] == pytest.approx(full, rel=0.35)  # not a quarter of it


def test_an_honest_forecast_gains_more_than_any_trick(config: dict[str, object]) -> None:
    verifier = ready("lpips", gain=True, min_change=1e-6, **config)
    totals: dict[str, list[float]] = {}
    for seed in (1, 2):
        before, after, _ = built(seed)
        half = near(after, seed + 3, 1.0)
        half[:, :32] = before[:, :32]
        made = {
            "honest": half,
            "copy": before,
            "blurred copy": blurred(before, 2.0),
            "mean": np.broadcast_to(after.mean((0, 1)).astype(np.uint8), after.shape),
            "noise": image(seed, 64),
            "other future": built(seed + 1000)[1][::-1, ::-1],
            "jpeg of a copy": jpeg(before, 20),
        }
        outputs = [forecast(np.ascontiguousarray(pixels)) for pixels in made.values()]
        one = sample(before, after)
        for policy, score in zip(made, verifier.score(Batch([one] * 7, outputs, ["s"] * 7)), strict=True):
            assert score.value is not None
            totals.setdefault(policy, []).append(score.value)
    worth = {policy: sum(values) / 2 for policy, values in totals.items()}
    assert worth.pop("honest") > max(worth.values()) + 0.01
    assert max(worth.values()) == worth["copy"] == pytest.approx(0.5)


def test_scores_are_the_same_bits_in_every_batch(config: dict[str, object]) -> None:
    places = [sample(*built(seed, 64 if seed % 2 else 48)[:2], name=f"s{seed}") for seed in range(5)]
    outputs = [forecast(near(built(seed, 64 if seed % 2 else 48)[1], 1, 9.0), f"s{seed}") for seed in range(5)]
    verifier = ready("lpips", gain=True, **config)
    whole = verifier.score(Batch.of(places, outputs))
    back = verifier.score(Batch.of(places, outputs[::-1]))[::-1]
    assert whole == back == [score_one(verifier, *pair) for pair in zip(places, outputs, strict=True)]


def test_an_image_smaller_than_the_network_sees_is_not_applicable(config: dict[str, object]) -> None:
    tiny = image(0, 24)
    score = score_one(ready("lpips", **config), sample(tiny, tiny), forecast(tiny))
    assert score.status is Status.NOT_APPLICABLE and "24 x 24" in score.reason


def test_leaving_a_hard_sample_out_never_raises_a_number(config: dict[str, object]) -> None:
    before, after, _ = built(1)
    one = sample(before, after)
    for gain in (False, True):
        verifier = ready("lpips", gain=gain, **config)
        rest = [score_one(verifier, one, forecast(near(after, 1, 8.0)))]
        worst = score_one(verifier, one, forecast(255 - after))
        (drawn,), (left_out,) = (
            metric(verifier, [*rest, last]).values() for last in (worst, verifier.invalid(one, "x"))
        )
        assert drawn is not None and left_out is not None and (left_out < drawn if gain else left_out > drawn)


def test_other_weights_than_the_published_ones_need_a_name(trunk: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not torchvision's alexnet-owt-7be5be79\.pth.*'name'"):
        ready("lpips", backbone=str(trunk))
    keys = {
        "lpips": {},
        "lpips_vgg": {"net": "vgg"},
        "gain_lpips_mine_inside": {"name": "mine", "gain": True, "region": "inside"},
    }
    for key, config in keys.items():
        assert [found for one in build("lpips", config).metrics() for found in one.keys] == [key]
    with pytest.raises(ConfigError, match="name"):
        build("lpips", {"name": "a/b"})


def test_missing_weights_say_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"download torchvision's alexnet-owt-7be5be79\.pth"):
        ready("lpips", backbone=str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(ConfigError, match=str(tmp_path / "torch")):
        ready("lpips", net="vgg")


def test_an_evaluation_without_weights_goes_on_and_says_why(tmp_path: Path) -> None:
    components = ({"use": "lpips", "config": {"backbone": str(tmp_path)}}, {"use": "l1"})
    protocol = Protocol(
        name="made", title="made", task=Task.FORECAST, source="made", components=components, headline=("lpips", "l1")
    )
    before, after, _ = built(1)
    found = rsw.evaluate(protocol, [sample(before, after)], [forecast(after)], tmp_path / "run").summary["metrics"]
    assert found["l1"]["value"] == 0.0
    assert found["lpips"]["value"] is None and "alexnet-owt-7be5be79.pth" in found["lpips"]["reason"]


@pytest.mark.parametrize("net", networks.MODELS)
def test_the_heads_that_torchmetrics_ships_are_the_published_ones(net: str) -> None:
    heads = perceptual.default_heads(net)
    assert heads is not None and hashlib.sha256(heads.read_bytes()).hexdigest() == perceptual.HEADS_SHA256[net]
    assert set(perceptual.HEADS_SHA256) == set(networks.FILES)
