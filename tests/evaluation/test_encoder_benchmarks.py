"""Retrieval and zero-shot numbers of encoders, against RemoteCLIP's way of counting and against scikit-like counting by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rsw_rewards as rsw
from rsw_rewards.evaluation.encoder_benchmarks import class_features, normalised, retrieval, zero_shot_accuracy


def counted(scores: np.ndarray, right: np.ndarray, depth: int) -> float:
    """As clip_benchmark does for RemoteCLIP: one if a right one is among the first, by sorting."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
    return float(np.take_along_axis(right, order, axis=1).any(1).mean())


def test_recall_is_that_of_sorting_where_nothing_is_equal() -> None:
    rng = np.random.default_rng(0)
    images, owner = rng.normal(size=(40, 16)), np.repeat(np.arange(40), 5)
    texts = images[owner] + rng.normal(size=(200, 16)) * 1.5
    right = np.eye(40, dtype=bool)[owner]
    found = retrieval(images, texts, right)
    scores = normalised(texts) @ normalised(images).T
    for depth in (1, 5, 10):
        assert found[f"text_to_image_r@{depth}"] == counted(scores, right, depth)
        assert found[f"image_to_text_r@{depth}"] == counted(scores.T, right.T, depth)
    assert found["mean_recall"] == pytest.approx(
        np.mean([value for key, value in found.items() if key != "mean_recall"])
    )


def test_a_constant_encoder_finds_nothing() -> None:
    same = np.ones((20, 4))
    assert set(retrieval(same, same, np.eye(20, dtype=bool)).values()) == {0.0}
    assert zero_shot_accuracy(same, np.ones((5, 4)), np.zeros(20, int)) == 0.0


def test_a_class_is_the_mean_of_its_templates() -> None:
    words = {"a x": [1.0, 0], "the x": [0, 2.0], "a y": [-3.0, 0], "the y": [0, -1.0]}
    found = class_features(lambda texts: np.array([words[text] for text in texts]), ["x", "y"], ["a {}", "the {}"])
    assert found == pytest.approx(np.array([[1, 1], [-1, -1]]) / 2**0.5)


class Words:
    """An encoder that reads grey levels of images and numbers of texts."""

    name, weights_sha256, dim, id = "words", "0" * 64, 256, "words@1"

    def encode_images(self, images: Any, micro_batch: int) -> np.ndarray:
        return np.stack([np.eye(256)[image[0, 0, 0]] for image in images]).astype(np.float32)

    def encode_texts(self, texts: Any, micro_batch: int) -> np.ndarray:
        return np.stack([np.eye(256)[int(text.split()[-1])] for text in texts]).astype(np.float32)


def test_equal_captions_are_one_query_or_several(tmp_path: Path) -> None:
    image = [np.full((4, 4, 3), level, np.uint8) for level in (3, 3, 9)]
    samples = [
        {
            "id": str(n),
            "task": "change_caption",
            "images": [one],
            "reference": {"captions": [f"level {one[0, 0, 0]}"] * 2},
        }
        for n, one in enumerate(image)
    ]
    several = rsw.evaluate_encoder(Words(), samples, tmp_path / "out")
    merged = rsw.evaluate_encoder(Words(), samples, reading="skyscript")
    assert (several["n_texts"], merged["n_texts"]) == (6, 2)
    # Two images are equal: a caption of one finds the other first, unless both are right.
    assert (
        several["metrics"]["text_to_image_r@1"] == pytest.approx(1 / 3)
        and merged["metrics"]["text_to_image_r@1"] == 1.0
    )
    assert (tmp_path / "out" / "encoder.json").is_file()


@pytest.mark.parametrize(
    ("samples", "options", "said"),
    [
        ([{"task": "change_qa", "reference": {"answers": ["a"]}}], {}, "these are change_qa"),
        (
            [{"task": "change_caption", "images": [], "reference": {"captions": ["a 1"]}}],
            {},
            "must have exactly one image",
        ),
        (
            [
                {
                    "task": "classification",
                    "images": [np.zeros((4, 4, 3), np.uint8)],
                    "reference": {"label": "z", "vocabulary": ["a 1"]},
                }
            ],
            {},
            "is in no vocabulary",
        ),
        (
            [
                {
                    "task": "classification",
                    "images": [np.zeros((4, 4, 3), np.uint8)],
                    "reference": {"label": "a", "vocabulary": ["a"]},
                }
            ],
            {"templates": ["no place"]},
            "holds {} once",
        ),
        ([], {"reading": "clip"}, "no reading 'clip'"),
    ],
)
def test_what_cannot_be_measured_is_a_sentence(samples: Any, options: Any, said: str) -> None:
    with pytest.raises(rsw.RswError, match=said):
        rsw.evaluate_encoder(Words(), samples, **options)


def test_an_encoder_without_texts_is_refused_before_it_sees_an_image() -> None:
    class Blind:
        name, weights_sha256, dim, id = "blind", "0" * 64, 3, "blind@1"

        def encode_images(self, images: Any, micro_batch: int) -> np.ndarray:
            raise AssertionError("an image was encoded")

    one = {
        "task": "classification",
        "images": [np.zeros((4, 4, 3), np.uint8)],
        "reference": {"label": "a", "vocabulary": ["a"]},
    }
    with pytest.raises(rsw.ConfigError, match="'blind@1' reads no text"):
        rsw.evaluate_encoder(Blind(), [one])
