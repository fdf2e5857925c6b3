"""The captions of mhn-rsicd, from an official-shaped file to what Txt2Img-MHN's data_preparation.py writes for an image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from rsw_rewards.data.mhn_rsicd import convert
from rsw_rewards.io.images import write_png
from rsw_rewards.io.records_io import load_samples

RAW = {
    "airport_348.jpg": " many planes are parked next to a long building . some are white .",
    "00594.jpg": "a river .a bridge over it .",
    "00744.jpg": "a bustling block with a football field marked with 'spartanas",  # the one without a full stop
}


def sentences(first: str) -> list[dict[str, Any]]:
    texts = [first, " four equal lines ."]
    return [{"tokens": text.split(), "raw": text, "imgid": 0, "sentid": n} for n, text in enumerate(texts)]


def test_captions_end_at_the_first_full_stop(tmp_path: Path) -> None:
    source = tmp_path / "RSICD"
    (source / "RSICD_images").mkdir(parents=True)
    for name in RAW:
        write_png(source / "RSICD_images" / name.replace("jpg", "png"), np.zeros((2, 2, 3), np.uint8))
    records = [
        {"filename": name, "imgid": n, "sentids": [0, 1], "split": ("val", "test")[n % 2], "sentences": sentences(raw)}
        for n, (name, raw) in enumerate(RAW.items())
    ]
    (source / "dataset_rsicd.json").write_text(json.dumps({"images": records, "dataset": "rsicd"}))
    (source / "RSICD_test.txt").write_text("".join(f"{Path(name).stem}\n" for name in RAW))
    done = convert(source, tmp_path / "out")
    samples = load_samples(done.file, done.roots)
    assert [sample.prompt for sample in samples] == [
        "many planes are parked next to a long building",
        "a river",
        "a bustling block includes a few buildings, many cars and a football field marked with 'spartanas'",
    ]
    assert [sample.reference["text"] for sample in samples] == [sample.prompt for sample in samples]
