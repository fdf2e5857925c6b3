"""SSIM and MS-SSIM: parity with scikit-image and torchmetrics, regions, and images too small for the scales asked for."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rsw_rewards.core.scores import Status
from rsw_rewards.verifiers import structure
from tests.verifiers.paired_pictures import built, forecast, ground, image, near, ready, ref, sample, score_one


@pytest.mark.parametrize("noise", [0.0, 3.0, 40.0])
def test_ssim_equals_scikit_image_and_torchmetrics(noise: float) -> None:
    import torch
    from skimage.metrics import structural_similarity
    from torchmetrics.functional.image import structural_similarity_index_measure

    first = image(0, 40)
    second = near(first, 1, noise)
    mean, full = structural_similarity(
        first,
        second,
        data_range=255,
        channel_axis=-1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    ours = structure.ssim_map(first, second)
    np.testing.assert_allclose(ours, full.mean(axis=-1), rtol=0, atol=1e-10)
    score = score_one(ready("ssim"), sample(first, second), forecast(first))
    assert score.raw["ssim"] == pytest.approx(mean, abs=1e-10)
    tensors = [torch.from_numpy(part).permute(2, 0, 1)[None].double() for part in (first, second)]
    # torchmetrics counts the border as well and mirrors it otherwise, so only the inner windows are the same.
    _, theirs = structural_similarity_index_measure(*tensors, data_range=255.0, return_full_image=True)
    assert score.raw["ssim"] == pytest.approx(float(theirs[..., 5:-5, 5:-5].mean()), abs=1e-10)
    assert score.value == pytest.approx((mean + 1) / 2)


@pytest.mark.parametrize(("height", "width"), [(176, 176), (181, 203)])
@pytest.mark.parametrize("noise", [2.0, 30.0, 120.0])
def test_ms_ssim_equals_torchmetrics_but_for_the_border_of_the_coarsest_scale(
    height: int, width: int, noise: float
) -> None:
    import torch
    from torchmetrics.functional.image import (
        multiscale_structural_similarity_index_measure,
        structural_similarity_index_measure,
    )

    first = ground(0, 224)[:height, :width]
    second = near(first, 1, noise)
    score = score_one(ready("ms_ssim"), sample(first, second), forecast(first))
    x, y = (torch.from_numpy(part.copy()).permute(2, 0, 1)[None].double() for part in (first, second))
    theirs = float(multiscale_structural_similarity_index_measure(x, y, data_range=255.0, normalize="relu"))
    for _ in range(4):
        x, y = torch.nn.functional.avg_pool2d(x, 2), torch.nn.functional.avg_pool2d(y, 2)
    _, coarse = structural_similarity_index_measure(x, y, data_range=255.0, return_full_image=True)
    border = float(coarse.mean() / coarse[..., 5:-5, 5:-5].mean())
    # Their exponents are float32.
    assert score.raw["ms_ssim"] * border**0.1333 == pytest.approx(theirs, rel=1e-7)
    assert score.value == score.raw["ms_ssim"]


def test_fewer_scales_share_the_weights_and_one_scale_is_ssim() -> None:
    before, after, _ = built(1)
    plain = score_one(ready("ssim"), sample(before, after), forecast(before)).raw["ssim"]
    one = score_one(ready("ms_ssim", scales=1), sample(before, after), forecast(before)).raw["ms_ssim"]
    assert one == pytest.approx(plain, rel=1e-12)
    first, second = np.array(structure.SCALE_WEIGHTS[:2]) / sum(structure.SCALE_WEIGHTS[:2])
    x, y = (np.moveaxis(part, -1, 0).astype(float) for part in (before, after))
    inner = np.s_[:, 5:-5, 5:-5]
    fine = structure.ssim_terms(x, y)[1][inner].mean()
    luminance, contrast = structure.ssim_terms(structure.halved(x), structure.halved(y))
    expected = fine**first * (luminance * contrast)[inner].mean() ** second
    two = score_one(ready("ms_ssim", scales=2), sample(before, after), forecast(before)).raw["ms_ssim"]
    assert two == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("size", "fits"), [(64, 3), (175, 4), (11, 1)])
def test_a_small_image_is_refused_with_the_scales_that_fit_it(size: int, fits: int) -> None:
    future = image(0, size)
    score = score_one(ready("ms_ssim"), sample(future, future), forecast(future))
    assert score.status is Status.NOT_APPLICABLE and f"set scales: {fits}" in score.reason
    fitting, too_many = ready("ms_ssim", scales=fits), ready("ms_ssim", scales=min(5, fits + 1))
    assert score_one(fitting, sample(future, future), forecast(future)).value == 1.0
    assert score_one(too_many, sample(future, future), forecast(future)).status is Status.NOT_APPLICABLE
    assert fitting.key == f"ms_ssim_{fits}scales"  # type: ignore[attr-defined]


def test_an_image_of_ten_pixels_is_too_small_for_any_scale() -> None:
    tiny = image(0, 10)
    assert "too small for one" in score_one(ready("ms_ssim"), sample(tiny, tiny), forecast(tiny)).reason


def test_a_region_of_ms_ssim_sees_only_its_own_surroundings() -> None:
    """What is wrong far from the mask does not lower the number inside it, and the other way round."""
    before, after, mask = built(3, 128)
    one = sample(before, after, mask=ref(mask))
    outside_wrong, inside_wrong = after.copy(), after.copy()
    outside_wrong[100:, :30] = image(1, 128)[100:, :30]
    inside_wrong[mask] = 255 - inside_wrong[mask]
    inside, outside = (ready("ms_ssim", scales=2, region=region) for region in ("inside", "outside"))
    assert score_one(inside, one, forecast(outside_wrong)).value == pytest.approx(1.0, abs=1e-9)
    assert score_one(outside, one, forecast(outside_wrong)).value < 0.99  # type: ignore[operator]
    assert score_one(inside, one, forecast(inside_wrong)).value < 0.2  # type: ignore[operator]


def test_the_same_error_counts_the_same_in_a_large_frame() -> None:
    """A mean over the full frame of masked images would bring the number near 1 as the frame grows."""
    small_before, small_after, small_mask = built(3, 64)
    numbers = []
    for pad in (0, 64):
        wide = [np.pad(part, ((pad, pad), (pad, pad), (0, 0)), mode="reflect") for part in (small_before, small_after)]
        mask = np.pad(small_mask, pad)
        verifier = ready("ms_ssim", scales=2, region="inside")
        numbers.append(score_one(verifier, sample(wide[0], wide[1], mask=ref(mask)), forecast(wide[0])).raw["ms_ssim"])
    assert numbers[1] == pytest.approx(numbers[0], rel=1e-6) and numbers[0] < 0.5


def test_pixels_that_do_not_count_cannot_move_ms_ssim() -> None:
    before, after, _ = built(4)
    valid = np.ones((64, 64), bool)
    valid[9:30, 33:51] = False
    one = sample(before, after, valid=ref(valid))
    output = near(after, 5, 20.0)
    other = output.copy()
    other[~valid] = 255 - other[~valid]
    verifier = ready("ms_ssim", scales=3)
    first, second = (score_one(verifier, one, forecast(pixels)) for pixels in (output, other))
    assert first.status is Status.OK and first.raw["ms_ssim"] == pytest.approx(second.raw["ms_ssim"], abs=1e-12)
    assert first.raw["ms_ssim"] < 1.0


def test_a_negative_correlation_counts_as_none() -> None:
    future = image(0, 64)
    score = score_one(ready("ms_ssim", scales=3), sample(future, future), forecast(255 - future))
    assert score.value == 0.0 and score.status is Status.OK and math.isfinite(score.raw["ms_ssim"])
