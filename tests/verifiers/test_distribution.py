"""Frechet distances: golden numbers, agreement of the routes, and what they are called."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.scores import Score, ScoreTable, Status
from rsw_rewards.core.verifier import Batch, Context
from rsw_rewards.features.bank import FeatureBank
from rsw_rewards.verifiers.distribution import Frechet, FrechetConfig
from rsw_rewards.verifiers.frechet import Reference, frechet_from_features, frechet_to_reference
from rsw_rewards.verifiers.set_metrics import FrechetMetric
from tests.tiny_clip import write_tiny_clip

GOLDEN = Path(__file__).parents[1] / "golden" / "frechet_kernel_features"
CASES = json.loads((GOLDEN / "expected.json").read_text())["cases"]


@pytest.mark.parametrize("case", CASES)
def test_golden_distances(case: str) -> None:
    with np.load(GOLDEN / "features.npz") as features:
        a, b = features[f"{case}__a"], features[f"{case}__b"]
    for name in ("pytorch_fid_0.3.0", "clean_fid_0.1.35", "torch_fidelity_0.4.0", "symmetric_eig_reference"):
        assert frechet_from_features(a, b) == pytest.approx(CASES[case][name], rel=1e-6, abs=1e-8)
    assert frechet_to_reference(a.mean(0), np.cov(a.T), Reference(b.mean(0), np.cov(b.T))) == pytest.approx(
        CASES[case]["clean_fid_0.1.35"], rel=1e-6, abs=1e-8
    )


@pytest.mark.parametrize(
    ("n", "m", "d"), [(300, 200, 12), (10, 14, 40), (9, 300, 24), (300, 9, 24), (2, 2, 5), (24, 24, 24)]
)
def test_every_route_equals_clean_fid(n: int, m: int, d: int) -> None:
    from cleanfid.fid import frechet_distance as theirs

    rng = np.random.default_rng(n + m + d)
    scale = np.exp(rng.normal(size=d))
    a = rng.normal(size=(n, d)) * scale
    b = rng.normal(size=(m, d)) * scale[::-1] + 0.3
    expected = theirs(a.mean(0), np.cov(a.T), b.mean(0), np.cov(b.T))
    assert frechet_from_features(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_from_features(b, a) == pytest.approx(frechet_from_features(a, b), rel=1e-9)


def hard(case: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    a, b = rng.normal(size=(60, 8)), rng.normal(size=(50, 8)) * 1.4 + 0.3
    if case == "duplicates":
        a[10:30] = a[10]
    elif case == "a constant":
        a[:, 3] = b[:, 3] = 2.0
    elif case == "large means":
        a, b = a + 1e4, b + 1e4
    elif case == "float32":
        a, b = a.astype(np.float32), b.astype(np.float32)
    elif case == "float16":
        a, b = a.astype(np.float16), b.astype(np.float16)
    elif case == "one dimension":
        a, b = a[:, :1], b[:, :1]
    elif case == "n = d":
        a, b = a[:8], b[:8]
    elif case == "n < d":
        a, b = a[:5], b
    elif case == "a singular reference":
        b = np.concatenate([b[:4], b[:4]])
    return a, b


HARD = ("duplicates", "a constant", "large means", "float32", "float16", "one dimension", "n = d", "n < d", "a singular reference")  # fmt: skip


@pytest.mark.parametrize("case", HARD)
def test_hard_cases_equal_the_definition_in_exact_numbers(case: str) -> None:
    from mpmath import mp, mpf

    a, b = hard(case, np.random.default_rng(7))
    x, y = (part.astype(np.float64) for part in (a, b))
    with mp.workdps(60):
        # The eigenvalues of the product of two covariances, in sixty digits: no root of a matrix is taken.
        def moments(part: np.ndarray) -> tuple[object, object]:
            rows = mp.matrix(part.tolist())
            n = rows.rows
            mean = mp.matrix([sum(rows[i, j] for i in range(n)) / mpf(n) for j in range(rows.cols)])
            centred = mp.matrix(n, rows.cols)
            for i in range(n):
                for j in range(rows.cols):
                    centred[i, j] = rows[i, j] - mean[j]
            return mean, centred.T * centred / (n - 1)

        (mean_a, cov_a), (mean_b, cov_b) = moments(x), moments(y)
        values, vectors = mp.eigsy(cov_b)
        root = vectors * mp.diag([mp.sqrt(max(value, mpf(0))) for value in values]) * vectors.T
        cross = sum(mp.sqrt(max(value, mpf(0))) for value in mp.eigsy(root * cov_a * root, eigvals_only=True))
        gap = mean_a - mean_b
        traces = sum(cov_a[i, i] + cov_b[i, i] for i in range(cov_a.rows))
        expected = float((gap.T * gap)[0] + traces - 2 * cross)
    assert frechet_from_features(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_from_features(b, a) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("case", ["duplicates", "float32", "one dimension", "large means", "plain"])
def test_the_arithmetic_of_torchmetrics_gives_the_same(case: str) -> None:
    a, b = hard(case, np.random.default_rng(8))
    x, y = a.astype(np.float64), b.astype(np.float64)
    moments = x.mean(0), np.atleast_2d(np.cov(x.T)), y.mean(0), np.atleast_2d(np.cov(y.T))
    import torch

    torchmetrics_fid = pytest.importorskip("torchmetrics.image.fid", reason="torchmetrics is not installed")
    theirs = float(torchmetrics_fid._compute_fid(*map(torch.from_numpy, moments)))
    assert frechet_from_features(a, b) == pytest.approx(theirs, rel=1e-6)


def test_the_arithmetic_of_pytorch_fid_gives_the_same() -> None:
    pytorch_fid = pytest.importorskip("pytorch_fid.fid_score", reason="pytorch-fid is not installed")
    a, b = hard("plain", np.random.default_rng(9))
    theirs = pytorch_fid.calculate_frechet_distance(a.mean(0), np.cov(a.T), b.mean(0), np.cov(b.T))
    assert frechet_from_features(a, b) == pytest.approx(theirs, rel=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.integers(2, 30), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_distance_properties(seed: int, n: int, m: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, d)), rng.normal(size=(m, d)) * 2.0
    distance = frechet_from_features(a, b)
    assert distance >= 0.0
    assert frechet_from_features(a, a) == pytest.approx(0.0, abs=1e-7)
    assert frechet_from_features(rng.permutation(a), rng.permutation(b)) == pytest.approx(distance, rel=1e-9, abs=1e-9)
    rotation = np.linalg.qr(rng.normal(size=(d, d)))[0]
    assert frechet_from_features(a @ rotation, b @ rotation) == pytest.approx(distance, rel=1e-6, abs=1e-6)
    shift = rng.normal(size=d)
    assert frechet_from_features(a, a + shift) == pytest.approx(shift @ shift, rel=1e-6, abs=1e-6)


def test_what_has_no_distance_is_refused() -> None:
    good = np.zeros((3, 2))
    for a, b in ((np.zeros((1, 2)), good), (good, np.zeros((3, 4))), (np.full((3, 2), np.nan), good)):
        with pytest.raises(ValueError):
            frechet_from_features(a, b)


class Stored:
    """Features by content hash without a bank."""

    def __init__(self, table: dict[str, np.ndarray]) -> None:
        self.table = table

    def features(self, encoder: str, hashes: list[str]) -> np.ndarray:
        return np.stack([self.table[digest] for digest in hashes])


def rows(n: int, bad: int = 0, samples: list[str] | None = None) -> ScoreTable:
    scores = [Score(None, content={"output": f"o{i}", "reference": f"r{i}"}) for i in range(n)]
    scores += [Score.invalid("broken")] * bad
    return ScoreTable.from_columns(
        {
            "sample": samples or [f"s{i}" for i in range(len(scores))],
            "status": [score.status for score in scores],
            "content": [dict(score.content) for score in scores],
            "raw": [{}] * len(scores),
            "stats": [{}] * len(scores),
        }
    )


def stored(n: int) -> Stored:
    rng = np.random.default_rng(0)
    return Stored({f"{kind}{i}": rng.normal(size=4) for kind in "or" for i in range(n)})


def test_the_metric_reads_valid_rows_and_takes_no_duplicates() -> None:
    metric, features = FrechetMetric("scene-clip", 2048), stored(12)
    table = rows(12, bad=3)
    outputs = np.stack([features.table[f"o{i}"] for i in range(12)])
    truths = np.stack([features.table[f"r{i}"] for i in range(12)])
    everything = metric.compute(table.frame, {}, np.ones(15), features)
    assert everything == {"fd_scene-clip": frechet_from_features(outputs, truths)}
    half = np.array([1.0, 0.0] * 6 + [1.0] * 3)
    assert metric.compute(table.frame, {}, half, features) == {
        "fd_scene-clip": frechet_from_features(outputs[::2], truths[::2])
    }
    with pytest.raises(ValueError, match="0 and 1"):
        metric.compute(table.frame, {}, half * 2, features)
    one = np.eye(15)[0]
    assert metric.compute(table.frame, {}, one, features) == {"fd_scene-clip": None}
    assert metric.compute(rows(0, bad=2).frame, {}, np.ones(2), features) == {"fd_scene-clip": None}
    assert "12 images" in metric.notes(table.frame)["fd_scene-clip"]


def test_the_truth_of_several_candidates_counts_once() -> None:
    features = stored(6)
    for i in (1, 3, 5):
        features.table[f"r{i}"] = features.table[f"r{i - 1}"]
    table = rows(6, samples=["a", "a", "b", "b", "c", "c"])
    outputs = np.stack([features.table[f"o{i}"] for i in range(6)])
    truths = np.stack([features.table[f"r{i}"] for i in (0, 2, 4)])
    assert FrechetMetric("m:x", 2).compute(table.frame, {}, np.ones(6), features) == {
        "fd_x": frechet_from_features(outputs, truths)
    }


def test_only_clean_fids_inception_with_enough_images_is_called_fid() -> None:
    features, table = stored(12), rows(12, bad=1)
    enough = FrechetMetric("clean-fid-inception:/w/x.pt", 12).compute(table.frame, {}, np.ones(13), features)
    assert enough["fid"] is not None and enough["fid@n"] is None
    metric = FrechetMetric("clean-fid-inception", 13)
    few = metric.compute(table.frame, {}, np.ones(13), features)
    assert (few["fid"], few["fid@n"]) == (None, enough["fid"])
    left_out = metric.compute(table.frame, {}, np.array([0.0] + [1.0] * 12), features)
    assert left_out.keys() == few.keys() and left_out["fid"] is None
    assert "fid@n" in metric.notes(table.frame)["fid"] and "12 images" in metric.notes(table.frame)["fid@n"]


def test_the_verifier_measures_but_does_not_reward(tmp_path: Path) -> None:
    encoder = write_tiny_clip(tmp_path / "tiny")
    verifier = Frechet(FrechetConfig(encoder=encoder))
    bank = FeatureBank(directory=tmp_path / "features")
    verifier.setup(Context(bank))
    rng = np.random.default_rng(0)
    before, future, output = rng.integers(0, 256, (3, 20, 24, 24, 3), dtype=np.uint8)
    samples = [
        Sample(str(i), Task.FORECAST, (ImageRef(array=before[i]),), reference={"images": [ImageRef(array=future[i])]})
        for i in range(20)
    ]
    outputs = [Output(str(i), image=ImageRef(array=output[i])) for i in range(20)]
    outputs[3] = Output("3", image=ImageRef(path=tmp_path / "none.png"))
    samples[4] = Sample("4", Task.FORECAST, (), reference={"images": [ImageRef(path=tmp_path / "none.png")]})
    samples[5] = Sample("5", Task.FORECAST, ())
    scores = verifier.score(Batch.of(samples, outputs))
    assert [scores[i].status for i in (0, 3, 4, 5)] == [
        Status.OK,
        Status.INVALID_OUTPUT,
        Status.ERROR,
        Status.NOT_APPLICABLE,
    ]
    assert scores[0].value is None and scores[3].value == 0.0
    assert bank.encoded[encoder] == 2 * 17
    assert verifier.encoders() == (encoder,)
    single = [verifier.score(Batch.of([one], [out]))[0] for one, out in zip(samples, outputs, strict=True)]
    assert single == scores and bank.encoded[encoder] == 2 * 17
    table = ScoreTable.from_columns(
        {
            "sample": [one.id for one in samples],
            "status": [score.status for score in scores],
            "content": [dict(score.content) for score in scores],
        }
    )
    (metric,) = verifier.metrics()
    number = metric.compute(table.frame, {}, np.ones(20), bank)
    assert list(number) == ["fd_tiny"] and number["fd_tiny"] > 0.0  # type: ignore[operator]
    # Another process finds the features on disk and gets the same number.
    assert metric.compute(table.frame, {}, np.ones(20), FeatureBank(directory=tmp_path / "features")) == number
