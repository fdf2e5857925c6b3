"""The smallest policy that GRPO can train: one layer, nine answers, right away learnable; for tests of the machinery."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rsw_rewards import verifier
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task, TokenTrace
from rsw_rewards.pixels import content_hash
from rsw_rewards.rollouts.policy import Policy, Request

PAD, EOS, FIRST, LAST = 0, 1, 10, 18


class ToyLM(Policy):
    """Prompts are the digits of a sample's id; an answer is one token in 10..18, a forecast eight of them as grey levels.

    ``die_at`` kills the process when that version of the weights arrives, once (``mark`` appears then).
    """

    name = "toy-lm"
    trainable = True
    eos_id, pad_id = EOS, PAD

    def __init__(self, seed: int = 0, die_at: int | None = None, mark: str | None = None) -> None:
        self.seed, self.die_at, self.mark = seed, die_at, mark
        self.model: Any = None

    def setup(self, device: str = "cpu", threads: int = 1) -> None:
        from transformers import Qwen3Config, Qwen3ForCausalLM

        torch.manual_seed(self.seed)
        config = Qwen3Config(
            vocab_size=20, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, head_dim=8, pad_token_id=PAD, eos_token_id=EOS, bos_token_id=None,
        )  # fmt: skip
        self.model = Qwen3ForCausalLM(config)

    def load_weights(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        if self.die_at == version and self.mark and not Path(self.mark).exists():
            Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        self.model.load_state_dict(weights)

    @torch.no_grad()
    def generate(self, requests: Sequence[Request]) -> list[Output]:
        return [self._one(request) for request in requests]

    def _one(self, request: Request) -> Output:
        rng = np.random.default_rng(request.seed)
        forecast = request.sample.task is Task.FORECAST
        prompt = [2 + forecast, *(4 + int(digit) % 6 for digit in request.sample.id if digit.isdecimal())]
        made: list[int] = []
        logprobs: list[float] = []
        for _ in range(8 if forecast else 1):
            logits = self.model(torch.tensor([prompt + made])).logits[0, -1, FIRST : LAST + 1].double()
            if request.temperature == 0:
                pick = int(logits.argmax())
            else:
                p = torch.softmax(logits / request.temperature, 0).numpy()
                pick = int(rng.choice(len(p), p=p / p.sum()))
            made.append(FIRST + pick)
            logprobs.append(float(torch.log_softmax(logits, 0)[pick]))
        tokens = TokenTrace(tuple(prompt), (*made, EOS), (*logprobs, 0.0))
        if not forecast:
            return Output(request.sample.id, text=str(made[0] - FIRST), tokens=tokens, finish_reason="stop")
        level = (np.array(made, dtype=np.uint8) - FIRST) * 30
        pixels = np.repeat(np.repeat(level.reshape(2, 4, 1), 4, 0), 3, 2)
        image = ImageRef(array=pixels, sha256=content_hash(pixels))
        return Output(request.sample.id, image=image, tokens=tokens, finish_reason="stop")

    def save(self, folder: Path) -> None:
        self.model.save_pretrained(folder)


def toy_data(count: int = 12) -> list[Sample]:
    """Questions whose answer is 3, and forecasts that should be bright."""
    before = ImageRef(array=np.zeros((8, 4, 3), dtype=np.uint8))
    after = ImageRef(array=np.full((8, 4, 3), 240, dtype=np.uint8))
    return [
        Sample(
            f"q{n:03d}", Task.CHANGE_QA, (before, after), "how many?", {"answers": ["3"]}, scene=f"s{n}", kind="count"
        )
        if n % 2
        else Sample(f"f{n:03d}", Task.FORECAST, (before,), "draw", {"images": [after]}, scene=f"s{n}")
        for n in range(count)
    ]


@verifier(tasks={"change_qa"})
def near_three(sample: Sample, output: Output) -> float:
    """1 for the answer 3, less the further away."""
    return 1.0 / (1 + abs(int(output.text or "99") - 3))


@verifier(tasks={"forecast"})
def bright(sample: Sample, output: Output) -> float:
    """Mean brightness of the forecast."""
    assert output.forecast is not None
    return float(output.forecast.pixels().mean() / 255)
