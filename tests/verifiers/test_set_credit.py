"""Credit of single forecasts for a set-level distance: exactness, the four failure modes, state and parity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rubric import Component, Rubric
from rsw_rewards.core.scores import Status
from rsw_rewards.core.verifier import Batch
from rsw_rewards.engine.scorer import Scorer
from rsw_rewards.pixels import content_hash
from rsw_rewards.verifiers.frechet import Influence, Moments, Reference, frechet_of_features, leave_one_out
from rsw_rewards.verifiers.kernel_distances import median_bandwidth, witness
from rsw_rewards.verifiers.set_credit import BANDWIDTH, squash

D = 128
MODES = ("shift", "blur", "collapse", "mode-seeking")


def auc(score: np.ndarray, bad: np.ndarray) -> float:
    good, poor = score[~bad][:, None], score[bad]
    return float((good > poor).mean() + 0.5 * (good == poor).mean())


def failing(mode: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """References, a history, a batch of 64 of which 16 are bad, and which: features with a power-law spectrum."""
    rng = np.random.default_rng(seed)
    scale = np.sqrt(1.0 / np.arange(1, D + 1))
    shift, one = 0.5 * scale * rng.choice([-1, 1], D), rng.normal(size=D) * scale

    def draw(n: int, bad: np.ndarray) -> np.ndarray:
        features = rng.normal(size=(n, D)) * scale
        if mode == "shift":
            features[bad] += shift
        elif mode == "blur":
            features[bad] *= 0.3
        elif mode == "collapse":
            features[bad] = one
        else:
            features[bad] = rng.normal(size=(int(bad.sum()), D)) * scale * 0.1
        return features

    bad = np.arange(64) >= 48
    references = rng.normal(size=(3000, D)) * scale
    return references, draw(1500, rng.random(1500) < 0.25), draw(64, bad), bad


@pytest.mark.parametrize("mode", MODES)
def test_the_witness_and_the_influence_find_the_bad_quarter_of_a_batch(mode: str) -> None:
    least = 0.75 if mode == "shift" else 0.95
    for seed in range(2):
        references, history, batch, bad = failing(mode, seed)
        reference = Reference.of(references)
        moments = Moments.of([history])
        influence = Influence(moments.mean, moments.covariance, moments.count, reference)
        assert auc(influence(batch), bad) >= least
        assert auc(witness(batch, references, BANDWIDTH * median_bandwidth(references)), bad) >= least
        if mode == "collapse":
            assert auc(leave_one_out(batch, reference), bad) >= 0.95


@pytest.mark.parametrize("mode", ["blur", "mode-seeking"])
def test_the_distance_to_the_references_alone_pays_for_the_failures_that_the_witness_finds(mode: str) -> None:
    references, _, batch, bad = failing(mode)
    distance = np.linalg.norm(batch - references.mean(0), axis=1)
    assert auc(-distance, bad) < 0.05


@pytest.mark.parametrize("mode", MODES)
def test_first_order_influence_ranks_as_exact_leave_one_out_does(mode: str) -> None:
    references, history, batch, _ = failing(mode)
    reference = Reference.of(references)
    everything = np.concatenate([batch[:40], history])
    moments = Moments.of([history])
    whole = frechet_of_features(everything, reference)
    exact = [frechet_of_features(np.delete(everything, row, 0), reference) - whole for row in range(40)]
    approximate = Influence(moments.mean, moments.covariance, moments.count, reference)(batch[:40])
    assert spearmanr(exact, approximate)[0] >= 0.95
    assert np.polyfit(exact, approximate, 1)[0] == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize(("n", "d"), [(3, 2), (8, 40), (20, 12)])
def test_leave_one_out_equals_computing_every_distance_again(n: int, d: int) -> None:
    rng = np.random.default_rng(n)
    features, reference = rng.normal(size=(n, d)), Reference.of(rng.normal(size=(50, d)) * 1.3 + 0.2)
    whole = frechet_of_features(features, reference)
    again = [frechet_of_features(np.delete(features, row, 0), reference) - whole for row in range(n)]
    np.testing.assert_allclose(leave_one_out(features, reference), again, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", ["duplicates", "a constant", "a flat reference", "far from zero", "all alike"])
@pytest.mark.parametrize(("n", "d"), [(30, 12), (12, 12), (13, 12), (12, 30)])
def test_leaving_out_is_exact_where_matrices_are_singular(kind: str, n: int, d: int) -> None:
    rng = np.random.default_rng(n * d)
    features = rng.normal(size=(n, d)) / np.arange(1, d + 1)
    real = rng.normal(size=(5 if kind == "a flat reference" else 60, d))
    if kind == "duplicates":
        features[2:6] = features[2]
    elif kind == "a constant":
        features[:, 0] = 3.0
    elif kind == "far from zero":
        features, real = features + 1e4, real + 1e4
    elif kind == "all alike":
        features[:] = features[0]
    reference = Reference.of(real)
    whole = frechet_of_features(features, reference)
    again = [frechet_of_features(np.delete(features, row, 0), reference) - whole for row in range(n)]
    np.testing.assert_allclose(leave_one_out(features, reference), again, rtol=1e-6, atol=1e-5)


def test_a_batch_of_hundreds_is_shared_out_at_once_and_exactly() -> None:
    references, history, batch, _ = failing("blur")
    reference, features = Reference.of(references), np.concatenate([batch, history[:636]])
    credit = leave_one_out(features, reference)
    whole = frechet_of_features(features, reference)
    for row in (0, 50, 699):
        assert credit[row] == pytest.approx(
            frechet_of_features(np.delete(features, row, 0), reference) - whole, rel=1e-4
        )


@given(st.integers(0, 10_000), st.integers(1, 4), st.floats(1e-6, 1e6))
@settings(max_examples=50, deadline=None)
def test_squashing_keeps_the_order_within_a_group_whatever_the_unit(seed: int, size: int, unit: float) -> None:
    rng = np.random.default_rng(seed)
    groups = [str(row // size) for row in range(12)]
    credit = rng.normal(size=12)
    values = squash(credit * unit, groups)
    assert ((values >= 0) & (values <= 1)).all()
    np.testing.assert_allclose(values, squash(credit, groups), atol=1e-9)
    for group in set(groups):
        rows = [row for row, name in enumerate(groups) if name == group]
        assert (np.argsort(values[rows]) == np.argsort(credit[rows])).all()


def forecasts(n: int = 12, size: int = 32) -> tuple[list[Sample], list[Output]]:
    rng = np.random.default_rng(5)

    def picture() -> ImageRef:
        pixels = np.repeat(np.repeat(rng.integers(0, 255, (4, 4, 3), np.uint8), size // 4, 0), size // 4, 1)
        return ImageRef(array=pixels, sha256=content_hash(pixels))

    samples = [Sample(str(row), Task.FORECAST, (picture(),), "", {"images": [picture()]}) for row in range(n)]
    return samples, [Output(sample.id, candidate, image=picture()) for sample in samples for candidate in range(2)]


@pytest.mark.parametrize("name", ["frechet_credit", "frechet_influence", "mmd_credit"])
def test_credits_are_rewards_of_real_pictures_in_any_order(name: str) -> None:
    samples, outputs = forecasts()
    rubric = Rubric(components=(Component(use=name),))
    found = []
    for order in (outputs, outputs[::-1]):
        with Scorer(rubric) as scorer:
            scorer.prepare(samples)
            frame = scorer.score(Batch.of(samples, order)).frame
        assert (frame["status"] == Status.OK).all()
        found.append(frame.set_index(["sample", "candidate"])["value"].sort_index())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
    assert found[0].std() > 0.05 and found[0].between(0, 1).all()


def test_the_history_is_state_that_a_resumed_run_restores() -> None:
    samples, outputs = forecasts()
    rubric = Rubric(components=(Component(use="frechet_influence"),))
    batch = Batch.of(samples, outputs)
    values = []
    with Scorer(rubric) as first:
        first.prepare(samples)
        first.score(batch)
        first.observe(batch)
        state = first.state_dict()
        values.append(first.score(batch).frame["value"].to_numpy())
    with Scorer(rubric) as second:
        second.prepare(samples)
        fresh = second.score(batch).frame["value"].to_numpy()
        second.load_state_dict(state)
        values.append(second.score(batch).frame["value"].to_numpy())
    np.testing.assert_array_equal(*values)
    assert not np.allclose(values[0], fresh)


def test_an_unreadable_forecast_is_invalid_and_a_tiny_batch_an_error_of_ours() -> None:
    samples, outputs = forecasts(3)
    outputs[0] = Output("0", 0)
    with Scorer(Rubric(components=(Component(use="mmd_credit"),))) as scorer:
        scorer.prepare(samples)
        statuses = list(scorer.score(Batch.of(samples, outputs)).frame["status"])
        few = scorer.score(Batch.of(samples[:1], outputs[1:2])).frame
    assert statuses == [Status.INVALID_OUTPUT, *[Status.OK] * 5]
    assert few["status"][0] == Status.ERROR and "3 are needed" in few["reason"][0]


def test_an_unreadable_forecast_does_not_enter_the_history_nor_stop_a_training(tmp_path: Path) -> None:
    samples, outputs = forecasts(4)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    states = []
    for broken in (ImageRef(path=tmp_path / "broken.png"), None):
        with Scorer(Rubric(components=(Component(use="frechet_influence"),))) as scorer:
            scorer.prepare(samples)
            batch = Batch.of(samples, [Output("0", 0, image=broken), *outputs[1:]])
            assert list(scorer.score(batch).frame["status"][:2]) == [Status.INVALID_OUTPUT, Status.OK]
            scorer.observe(batch)
            (state,) = scorer.state_dict().values()
            states.append(state["history"])
    assert states[0]["count"] == 7
    np.testing.assert_array_equal(states[0]["total"], states[1]["total"])


def test_a_bandwidth_is_no_rounding_where_true_futures_are_equal() -> None:
    rng = np.random.default_rng(0)
    for d in (3, 64, 300, 2048):
        blank = np.tile(3.0 * rng.normal(size=(1, d)), (60, 1))
        assert median_bandwidth(blank) == 1.0
        blank[-1] += 1e-3
        assert median_bandwidth(blank) == pytest.approx(1e-3 * d**0.5, rel=1e-3)
