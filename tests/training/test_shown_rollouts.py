"""What TensorBoard shows of the rollouts of a step, read back from its files."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.errors import ConfigError
from rsw_rewards.training.runlog import RunLog
from rsw_rewards.training.shown_rollouts import SIDE, texts
from rsw_rewards.training.trackers import Trackers, check_trackers


def picture(level: int) -> ImageRef:
    return ImageRef(array=np.full((16, 16, 3), level, np.uint8))


def test_texts_and_strips_of_a_step_are_in_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    question = Sample("q", Task.CHANGE_QA, prompt="a | b?", reference={"answers": ["yes"], "vocabulary": ["yes", "no"]})
    forecast = Sample("f", Task.FORECAST, (picture(10),), "grow", {"images": [picture(80)]})
    outputs = [
        Output("q", 0, text="no"),
        Output("q", 1, invalid="cut off"),
        Output("f", 0, image=picture(200)),
        Output("f", 1, invalid="none"),
    ]
    log = RunLog(tmp_path, ["change_qa"], 4, 1, ["tensorboard"])
    log.trackers.rollouts(3, [question, forecast], outputs, {("q", 0): 0.0, ("q", 1): None})
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"), {"tensors": 0, "images": 0})
    events.Reload()
    (told,) = events.Tensors("rollouts/change_qa/text_summary")
    table = told.tensor_proto.string_val[0].decode()
    assert told.step == 3 and "| a \\| b? | yes | no | 0.000 |" in table and "| cut off | - |" in table
    (strip,) = events.Images("rollouts/forecast/1")
    pixels = np.asarray(Image.open(io.BytesIO(strip.encoded_image_string)))
    assert pixels.shape == (SIDE, 4 * SIDE, 3)
    assert [int(pixels[5, SIDE * n + 5, 0]) for n in range(4)] == [10, 80, 200, 0]


def test_a_tracker_that_cannot_be_imported_is_named_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"log names 'wandb', whose package cannot be imported .*: pip install wandb"):
        check_trackers(["wandb"])


def test_a_run_that_goes_on_is_the_same_run_of_weights_and_biases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    (tmp_path / "run").mkdir()
    known = set()
    for _ in range(2):
        trackers = Trackers(["wandb"], tmp_path / "run")
        known.add((wandb.run.id, wandb.run.project, wandb.run.name))
        trackers.close()
    assert known == {((tmp_path / "run" / "wandb_id").read_text(), "mine", "run")}


def test_masks_are_in_no_table_of_texts() -> None:
    sample = Sample("m", Task.CHANGE_MASK, (picture(1), picture(2)), "mark", {"mask": picture(0)})
    outputs = [Output("m", 0, mask=picture(0)), Output("m", 1, invalid="no mask")]
    table = texts([sample], outputs, {("m", 0): 1.0, ("m", 1): None})
    assert table["change_mask"].splitlines()[2:] == ["| mark |  | no mask | - |"]
    assert texts([sample], outputs[:1], {}) == {}
