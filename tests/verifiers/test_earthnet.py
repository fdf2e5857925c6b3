"""EarthNetScore against the package that defines it, on cubes with clouds, odd pixels and several candidates."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rsw_rewards as rsw
from rsw_rewards.verifiers.earthnet import cube_scores, harmonic


def cube(seed: int, dates: int = 20, clouds: float = 0.3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(H, W, 4, T) forecast and truth in float32, and (H, W, T) mask with 1 where a pixel is bad."""
    rng = np.random.default_rng(seed)
    true = np.clip(
        0.3 + 0.2 * np.sin(np.arange(dates) / 4) + rng.normal(0, 0.05, (24, 24, 4, dates)), -0.05, 1.2
    ).astype(np.float32)
    said = np.clip(true + rng.normal(0, 0.08, true.shape), -0.2, 1.3).astype(np.float32)
    bad = (rng.random((24, 24, dates)) < clouds).astype(np.float32)
    bad[:2] = 1  # never seen
    bad[2, :, 1:] = 1  # seen once
    bad[..., 3] = 1
    said[5] = true[5]
    return said, true, bad


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Any:
    module = pytest.importorskip("earthnet.parallel_score", reason="earthnet is not installed")
    similarity = partial(
        module.metrics.structural_similarity, data_range=2.0
    )  # as it was for floats when the tables were made
    monkeypatch.setattr(module.metrics, "structural_similarity", similarity)
    return module


@pytest.mark.parametrize(
    ("seed", "dates", "clouds"), [(0, 20, 0.2), (1, 20, 0.6), (2, 40, 0.3), (3, 60, 0.3), (4, 20, 1.0), (5, 20, 0.0)]
)
def test_the_four_scores_of_a_cube(package: Any, tmp_path: Path, seed: int, dates: int, clouds: float) -> None:
    said, true, bad = cube(seed, dates, clouds)
    np.savez(tmp_path / "p.npz", highresdynamic=said)
    np.savez(tmp_path / "t.npz", highresdynamic=np.concatenate([true, bad[:, :, None]], axis=2))
    theirs = package.CubeCalculator.get_scores(
        {"pred_filepath": tmp_path / "p.npz", "targ_filepath": tmp_path / "t.npz"}
    )
    ours = cube_scores(said.astype(np.float64), true.astype(np.float64), bad == 0)
    for key, value in ours.items():
        expected = theirs[key.upper()]
        assert value == (None if expected is None else pytest.approx(expected, abs=2e-5 if key == "ols" else 1e-6)), key


def test_a_data_set_with_several_candidates(package: Any, tmp_path: Path) -> None:
    samples, outputs = [], []
    for number in range(3):
        said, true, bad = cube(10 + number, clouds=0.05)
        name = f"29SND_2018-09-0{number}_x.npz"
        (tmp_path / "targets" / "29SND").mkdir(parents=True, exist_ok=True)
        (tmp_path / "said" / "29SND").mkdir(parents=True, exist_ok=True)
        np.savez(tmp_path / "targets" / "29SND" / name, highresdynamic=np.concatenate([true, bad[:, :, None]], axis=2))
        hidden = np.where(bad[:, :, None] == 1, np.nan, true).astype(np.float32)
        samples.append({"id": name, "task": "forecast", "reference": {"images": frames(hidden)}})
        for candidate in range(2):
            worse = np.clip(said + 0.2 * candidate * (number - 1), 0, 1).astype(np.float32)
            np.savez(tmp_path / "said" / "29SND" / f"m{candidate}_{name}", highresdynamic=worse)
            outputs.append({"id": name, "candidate": candidate, "images": frames(worse)})
    score = package.EarthNetScore(tmp_path / "said", tmp_path / "targets")
    score.compute_scores(n_workers=0)
    expected = dict(zip(("ens", "mad", "ols", "emd", "ssim"), score.summarize(), strict=True))
    found = rsw.evaluate("earthnet2021", samples, outputs).metrics
    assert {key: found[key].value for key in expected} == pytest.approx(expected, abs=2e-5)


def frames(stack: np.ndarray) -> list[Any]:
    return [rsw.image(np.ascontiguousarray(stack[..., place]), bands=(2, 1, 0)) for place in range(stack.shape[-1])]


def test_zeros_are_left_out_of_the_mean_and_a_missing_forecast_is_the_worst() -> None:
    assert harmonic([0.0, None, 0.5, 0.5]) == pytest.approx(0.5) and harmonic([0.0, None]) is None
    _, true, _ = cube(0)
    found = rsw.evaluate(
        "earthnet2021",
        [{"id": "a", "task": "forecast", "reference": {"images": frames(true)}}],
        [{"id": "a", "images": frames(true)[:3]}],
    )
    assert found.metrics["ens"].value is None and found.metrics["mad"].value == 0.0
