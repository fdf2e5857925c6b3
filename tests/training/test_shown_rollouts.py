"""What TensorBoard shows of the rollouts of a step, read back from its files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.training.runlog import RunLog
from rsw_rewards.training.shown_rollouts import SIDE


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
