"""The public functions of ``rsw.metrics``: the numbers of established packages, and one sentence for what they cannot use."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import structural_similarity
from sklearn.metrics import cohen_kappa_score, f1_score, jaccard_score

import rsw_rewards as rsw

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (2, 32, 40, 3), dtype=np.uint8)
MASKS = GENERATOR.random((2, 3, 16, 16)) < 0.3


def test_ssim_is_that_of_skimage():
    known = structural_similarity(
        *IMAGES, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
    )
    assert rsw.metrics.ssim(*IMAGES) == pytest.approx(known, abs=1e-9)
    grey = IMAGES[..., 0]
    assert rsw.metrics.ssim(*grey) == pytest.approx(
        rsw.metrics.ssim(*np.repeat(grey[..., None], 3, -1))
    )  # a grey image is its three equal channels


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int64])
def test_numbers_of_masks_are_those_of_sklearn_over_a_stack(kind):
    predicted, truth = MASKS.astype(kind)
    flat = (truth.ravel(), predicted.ravel())
    assert rsw.metrics.f1(predicted, truth) == pytest.approx(f1_score(*flat))
    assert rsw.metrics.iou(predicted, truth) == pytest.approx(jaccard_score(*flat))
    assert rsw.metrics.kappa(predicted, truth) == pytest.approx(cohen_kappa_score(*flat))


def test_only_valid_pixels_count():
    predicted, truth = MASKS
    valid = predicted == truth
    assert rsw.metrics.f1(predicted, truth, valid) == 1.0
    assert rsw.metrics.confusion_matrix(predicted, truth, 2, valid).sum() == valid.sum()


def test_what_the_truth_leaves_undefined_is_none():
    empty = np.zeros((4, 4), bool)
    assert rsw.metrics.f1(empty, empty) is rsw.metrics.iou(empty, empty) is rsw.metrics.kappa(empty, empty) is None
    assert rsw.metrics.sek((empty * 1, empty * 1), (empty * 1, empty * 1)) is None


def test_one_caption_is_a_corpus_of_one():
    caption, references = "a road was built", ["a new road was built", "there is a road"]
    for score in (rsw.metrics.bleu, rsw.metrics.rouge_l):
        assert score(caption, references) == score([caption], [references])


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        ("ssim", (IMAGES[0] / 255.0, IMAGES[1]), "of uint8 in 0..255, not .* float64"),
        ("psnr", (IMAGES[0][:4], IMAGES[1]), "shapes"),
        ("ssim", (IMAGES[0][:8], IMAGES[1][:8]), "11 x 11"),
        ("f1", (np.full((2, 2), 255, np.uint8), np.zeros((2, 2), np.uint8)), "mask > 127"),
        ("f1", (np.zeros((2, 2)), np.zeros((2, 2), bool)), "float64, not of bool"),
        ("miou", ([[3]], [[0]], 3), "classes are 0 to 2"),
        ("bleu", (["a", "b"], ["a b"]), "2 captions need as many"),
        ("cider", ("a road", ["a road"]), "corpus"),
        ("box_iou", ([0, 0, 1], [0, 0, 1, 1]), "4 or 8 numbers"),
        ("box_iou", ([0, 0, 0, 1], [0, 0, 1, 1]), "no area"),
        ("frechet_distance", (np.zeros((1, 3)), np.zeros((4, 3))), "n >= 2"),
        ("kernel_distance", (np.zeros((4, 3)), np.zeros((4, 2))), "shape"),
        ("mean_absolute_error", ([1.0, np.nan], [1.0, 2.0]), "not finite"),
    ],
)
def test_what_cannot_be_compared_is_an_input_error(function, arguments, words):
    with pytest.raises(rsw.InputError, match=f"^{function}: .*{words}"):
        getattr(rsw.metrics, function)(*arguments)
