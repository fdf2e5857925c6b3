"""KID, CMMD, neighbours and streaming moments: golden numbers, agreement with the originals, blocks, and intervals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rsw_rewards.core.scores import ScoreTable, Status
from rsw_rewards.encoders import CMMD_ENCODER
from rsw_rewards.evaluation.statistics import estimates
from rsw_rewards.verifiers import kernel_distances, neighbours, set_metrics
from rsw_rewards.verifiers.frechet import Moments, Reference, frechet_of_features
from rsw_rewards.verifiers.kernel_distances import cmmd, polynomial_mmd, rbf_kernel
from rsw_rewards.verifiers.neighbours import frechet_at_infinity, precision_recall_density_coverage
from rsw_rewards.verifiers.set_metrics import FrechetMetric, InfinityMetric, KernelMetric, NeighbourMetric

GOLDEN = Path(__file__).parents[1] / "golden" / "frechet_kernel_features"
CASES = json.loads((GOLDEN / "expected.json").read_text())["cases"]


def pair(case: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(GOLDEN / "features.npz") as features:
        return features[f"{case}__a"], features[f"{case}__b"]


def kid(
    made: np.ndarray, real: np.ndarray, subsets: int = 100, most: int = 1000, seed: int = 123, style: str = "clean-fid"
) -> tuple[float, float]:
    """Mean and standard deviation of the distance over random subsets, drawn as the two libraries draw them."""
    size = min(len(made), len(real), most)
    if style == "clean-fid" and size == len(made) == len(real):
        return polynomial_mmd(made, real), 0.0
    generator = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        drawn = {}
        for name in ("real", "made") if style == "clean-fid" else ("made", "real"):
            features = real if name == "real" else made
            drawn[name] = features[generator.choice(len(features), size, replace=False)]
        values.append(polynomial_mmd(drawn["made"], drawn["real"]))
    return float(np.mean(values)), float(np.std(values))


@pytest.mark.parametrize("case", CASES)
def test_kernel_distances_are_those_of_the_originals_in_their_modes(case: str) -> None:
    a, b = pair(case)
    expected = CASES[case]
    n = expected["firstN"]
    for estimator in ("biased", "unbiased", "u-statistic"):
        wanted = expected[f"torch_fidelity_mmd2_poly3_firstN_{estimator}"]
        assert polynomial_mmd(a[:n], b[:n], estimator) == pytest.approx(wanted, rel=1e-6, abs=1e-8)
    wanted = expected["clean_fid_kernel_distance_seed123_subsets100"]
    assert kid(a, b)[0] == pytest.approx(wanted, rel=1e-6, abs=1e-8)
    wanted = expected["torch_fidelity_kid_mean_std_subsets50_size16_seed2020"]
    assert kid(a, b, 50, 16, 2020, "torch-fidelity") == pytest.approx(wanted, rel=1e-6, abs=1e-8)


def test_kid_equals_torchmetrics_on_whole_sets() -> None:
    from torchmetrics.image.kid import poly_mmd

    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(60, 16)), rng.normal(size=(60, 16)) + 0.2
    theirs = float(poly_mmd(torch.from_numpy(a), torch.from_numpy(b)))
    assert polynomial_mmd(a, b) == pytest.approx(theirs, rel=1e-9)


def test_cmmd_equals_its_definition() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(30, 12)), rng.normal(size=(20, 12)) + 0.5
    x, y = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (a, b))
    expected = rbf_kernel(x, x, 10).mean() + rbf_kernel(y, y, 10).mean() - 2 * rbf_kernel(x, y, 10).mean()
    assert cmmd(a, b) == pytest.approx(1000 * expected, rel=1e-9)
    assert cmmd(a * 7.0, b) == pytest.approx(cmmd(a, b), rel=1e-9)


@given(st.integers(0, 1000), st.integers(2, 25), st.integers(2, 25), st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_blocks_change_nothing(seed: int, n: int, m: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n + 5, 4)), rng.normal(size=(m + 5, 4))
    whole = (polynomial_mmd(a, b), precision_recall_density_coverage(a, b, 3))
    before = kernel_distances.BLOCK, neighbours.BLOCK
    try:
        kernel_distances.BLOCK = neighbours.BLOCK = block
        parts = (polynomial_mmd(a, b), precision_recall_density_coverage(a, b, 3))
    finally:
        kernel_distances.BLOCK, neighbours.BLOCK = before
    assert parts[0] == pytest.approx(whole[0], rel=1e-9, abs=1e-12) and parts[1] == pytest.approx(whole[1])


def test_neighbours_tell_mode_seeking_from_inventing() -> None:
    rng = np.random.default_rng(3)
    real = rng.normal(size=(300, 8))
    narrow, wide = real[:100] * 0.2, rng.normal(size=(100, 8)) * 3.0
    first, second = (precision_recall_density_coverage(real, made, 5) for made in (narrow, wide))
    assert first["precision"] > 0.95 and first["recall"] < 0.2 and first["coverage"] < 0.4
    assert second["precision"] < 0.2 and second["recall"] > 0.9
    same = precision_recall_density_coverage(real, real, 5)
    assert same["precision"] == same["recall"] == same["coverage"] == 1.0 and same["density"] == pytest.approx(
        1.0, abs=0.3
    )


@given(st.integers(0, 1000), st.integers(1, 20), st.integers(1, 20), st.floats(-1e4, 1e4))
@settings(max_examples=40, deadline=None)
def test_moments_of_parts_merge_and_come_apart(seed: int, n: int, m: int, far: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n + 1, 5)) + far, rng.normal(size=(m + 1, 5)) - far
    both = np.concatenate([a, b])
    merged = Moments.of([a, b])
    np.testing.assert_allclose(merged.mean, both.mean(0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(merged.covariance, np.cov(both.T), rtol=1e-6, atol=1e-6)
    rest = merged.without(Moments.of([b]))
    scale = 1e-9 * max(1.0, far * far)
    np.testing.assert_allclose(rest.covariance, np.cov(a.T), rtol=1e-6, atol=1e-6 + scale)
    assert rest.count == len(a)


def test_a_large_offset_does_not_eat_the_spread() -> None:
    rng = np.random.default_rng(4)
    features = rng.normal(size=(500, 6)) + 1e6
    moments = Moments.of([features[:100], features[100:]])
    np.testing.assert_allclose(moments.covariance, np.cov(features.T), rtol=1e-6)


def test_infinity_takes_the_bias_of_few_images_off() -> None:
    rng = np.random.default_rng(5)
    reference = Reference(np.zeros(24), np.eye(24))
    made = rng.normal(size=(3000, 24))
    direct = frechet_of_features(made, reference)
    assert direct > 0.04 and abs(frechet_at_infinity(made, reference)) < direct / 2


class Lookup:
    def __init__(self, features: dict[str, np.ndarray]) -> None:
        self.known = features

    def features(self, encoder: str, hashes: list[str]) -> np.ndarray:
        return np.stack([self.known[name] for name in hashes]).astype(np.float32)


def scored(n: int, d: int = 6, shift: float = 0.3) -> tuple[ScoreTable, Lookup]:
    rng = np.random.default_rng(n)
    known = {f"r{row}": rng.normal(size=d) for row in range(n)} | {
        f"o{row}": rng.normal(size=d) + shift for row in range(n)
    }
    columns = {
        "sample": [str(row) for row in range(n)], "scene": [str(row % (n // 2)) for row in range(n)], "candidate": 0,
        "status": [Status.OK] * n, "verifier": "v", "raw": [{}] * n, "stats": [{}] * n,
        "content": [{"output": f"o{row}", "reference": f"r{row}"} for row in range(n)],
    }  # fmt: skip
    return ScoreTable.from_columns(columns), Lookup(known)


@pytest.mark.parametrize("metric", [KernelMetric("e", "kid"), KernelMetric("e", "cmmd"), FrechetMetric("e", 10)])
def test_what_leaves_parts_out_at_once_equals_computing_anew(
    metric: KernelMetric | FrechetMetric, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(set_metrics, "BLOCK", 7)
    monkeypatch.setattr(set_metrics, "WORTH_SUMMING", 20)
    table, lookup = scored(40)
    part = np.arange(40) % 8
    found = metric.left_out(table.frame, {}, part, lookup)
    assert found is not None
    for out, numbers in enumerate(found):
        anew = metric.compute(table.frame, {}, (part != out).astype(float), lookup)
        assert numbers[metric.keys[0]] == pytest.approx(anew[metric.keys[0]], rel=1e-6, abs=1e-9)


def test_set_numbers_have_intervals_and_the_extrapolation_says_why_not() -> None:
    table, lookup = scored(60)
    kid_number = estimates(KernelMetric("e", "kid"), table, lookup)["kid_e"]
    assert kid_number.ci95 is not None and kid_number.ci95[0] < kid_number.value < kid_number.ci95[1]  # type: ignore[operator]
    for number in estimates(NeighbourMetric("e", 3), table, lookup).values():
        assert number.value is not None
    extrapolated = estimates(InfinityMetric("e"), table, lookup)["fd_infinity_e"]
    assert extrapolated.value is not None and extrapolated.ci95 is None and extrapolated.reason


def test_standard_names_are_kept_for_the_standard_weights() -> None:
    assert KernelMetric("clean-fid-inception", "kid").keys == ("kid",)
    assert KernelMetric(CMMD_ENCODER, "cmmd").keys == ("cmmd",)
    assert KernelMetric("open_clip:ViT-L-14-336:/w/mine.pt", "cmmd").keys == ("cmmd_ViT-L-14-336-mine",)
