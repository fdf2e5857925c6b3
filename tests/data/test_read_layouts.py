"""How adapters parse what is odd in the files of a benchmark; whole layouts are in test_official_layouts.py."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import rsw_rewards as rsw
from rsw_rewards.errors import InputError
from rsw_rewards.io.records_io import load_samples, write_jsonl


def png(height: int = 6, width: int = 8) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(stream, "png")
    return stream.getvalue()


def xlrs(folder: Path, **changed: Any) -> None:
    import datasets

    row = {
        "image": [{"bytes": png(), "path": None}], "question": "Which?", "multi-choice options": ["(A) a (big) pond", "(B) B. road", "(C) none"],
        "answer": "AC", "category": "Land use classification/Overall Land use classification", "l2-category": "attribute/x", "index": 7, **changed,
    }  # fmt: skip
    features = datasets.Features(
        {
            **dict.fromkeys(("question", "answer", "category", "l2-category"), datasets.Value("string")),
            "image": datasets.List(datasets.Image()),
            "multi-choice options": datasets.List(datasets.Value("string")),
            "index": datasets.Value("int64"),
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_list([row], features=features).to_parquet(folder / "train-0.parquet")


def test_options_and_letters_of_xlrs_bench(tmp_path: Path) -> None:
    xlrs(tmp_path / "copy")
    done = rsw.data.convert("xlrs-bench", tmp_path / "copy", tmp_path / "out")
    (one,) = load_samples(done.file, [tmp_path / "out"])
    assert one.reference == {"answers": ["A, C"], "choices": ["a (big) pond", "B. road", "none"]}
    assert one.images[0].path is not None and one.images[0].path.read_bytes() == png()
    for changed, words in (
        ({"answer": "D"}, "no letter of its 3 options"),
        ({"multi-choice options": ["(B) x", "(A) y"]}, r"should be '\(A\)"),
    ):
        xlrs(tmp_path / "copy", **changed)
        with pytest.raises(InputError, match=words):
            rsw.data.convert("xlrs-bench", tmp_path / "copy", tmp_path / "out")


def test_paths_of_the_authors_machine_and_pairs_without_an_answer(tmp_path: Path) -> None:
    (tmp_path / "data" / "LoveDA").mkdir(parents=True)
    (tmp_path / "data" / "LoveDA" / "7.a.png").write_bytes(png())
    pairs = [
        {"question_id": "q1", "question_type": "spatial", "question": "Where?", "answer": "Left."},
        {"question_id": "q1", "question_type": "caption", "question": "Describe.", "answer": "A road."},
        {"question_id": "q3", "question_type": "spatial", "question": "What?"},
    ]
    write_jsonl(tmp_path / "data" / "RSVL-VQA_test.jsonl", [{"image": "/mnt/d/LoveDA/7.a.png", "vqa_pairs": pairs}])
    done = rsw.data.convert("rsvlm-qa", tmp_path / "data", tmp_path / "out")
    first, second = load_samples(done.file, done.roots)
    assert (first.id, first.kind, first.reference) == ("rsvlm_qa/test/7/0", "spatial", {"answers": ["Left."]})
    assert (str(second.task), second.reference) == ("change_caption", {"captions": ["A road."]})
    assert first.images[0].path == tmp_path / "data" / "LoveDA" / "7.a.png"
    assert "1 pairs lack" in done.notes[0]
    (tmp_path / "data" / "RSVL-VQA_test.jsonl").write_text(json.dumps({"image": "../x.png", "vqa_pairs": []}))
    with pytest.raises(InputError, match="not a path of an image"):
        rsw.data.convert("rsvlm-qa", tmp_path / "data", tmp_path / "out")
