"""What a GRPO step on a vision-language model costs here and in TRL's own trainer, with the same model, data, group and optimizer.

    python benchmarks/group_price.py                                   # one JSON object, about two minutes
    python benchmarks/group_price.py --curve                           # groups of 4, 8 and 16, answers of 4 to 256 tokens
    python benchmarks/group_price.py --quickstart                      # the step of configs/quickstart.yaml, shared prefixes on and off
    python benchmarks/group_price.py --device cuda --size 2b           # Qwen2.5-VL-3B's shapes with fewer layers, random weights

A prompt shows two images. ``trl`` is TRL's GRPOTrainer as published, ``rsw`` this project's ``method: grpo`` with the policy in the
learner's process, ``rows`` the same with ``shared_prefix: false``. Sides take turns, so that load falls on all. Seconds are processor
time of the process with one thread (wall time on a card) per optimizer step: the median over all steps but the first of each turn.
The update is what remains of a step besides generation and scoring: weights, advantages, both passes, optimizer, log.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml

import rsw_rewards  # noqa: F401  (first: on a CPU it lets torchvision load)
from rsw_rewards.core.records import Sample
from rsw_rewards.data.scene_world import scene_world_samples
from rsw_rewards.engine.scorer import Scorer
from rsw_rewards.rollouts.replica import Replica
from rsw_rewards.rollouts.tiny_vlm import tiny_folder
from rsw_rewards.training.run import train

ROOT = Path(__file__).resolve().parents[1]
SIZES: Mapping[str, Mapping[str, Any]] = {
    "tiny": {"side": 56, "text": {}, "vision": {}},
    "small": {
        "side": 336,
        "text": {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 2, "sections": [4, 6, 6]},
        "vision": {"hidden_size": 256, "intermediate_size": 512, "out_hidden_size": 256},
    },
    # Shapes of Qwen/Qwen2.5-VL-3B-Instruct's config.json, with 24 of 36 layers and the tiny tokenizer: about 2 x 10^9 weights.
    "2b": {
        "side": 448,
        "text": {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 24, "num_attention_heads": 16, "num_key_value_heads": 2, "sections": [16, 24, 24]},
        "vision": {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 2048, "fullatt_block_indexes": [7, 15, 23, 31], "window_size": 112},
    },
}  # fmt: skip
"""Qwen2.5-VL in three sizes; ``side`` is that of images in pixels, ``sections`` those of the rotary embedding."""


class Clock:
    """Time by what it was spent on, per optimizer step."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.steps: list[dict[str, float]] = []
        self._spent: dict[str, float] = defaultdict(float)
        self._begun = 0.0

    def now(self) -> float:
        """Seconds: of the processor, or of the wall where a card is at work."""
        if self.device == "cpu":
            return time.process_time()
        import torch

        torch.cuda.synchronize()
        return time.perf_counter()

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """``call`` with the time of each call counted under ``name``."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = self.now()
            try:
                return call(*args, **kwargs)
            finally:
                self._spent[name] += self.now() - start

        return timed

    def callback(self) -> Any:
        """Closes a step at its end."""
        from transformers import TrainerCallback

        class Steps(TrainerCallback):
            def on_train_begin(callback, *args: Any, **kwargs: Any) -> None:
                self._begun, self._spent = self.now(), defaultdict(float)

            def on_step_end(callback, *args: Any, **kwargs: Any) -> None:
                end = self.now()
                spent = {name: self._spent[name] for name in ("generation", "scoring")}
                whole = end - self._begun
                self.steps.append({**spent, "update": whole - sum(spent.values()), "step": whole})
                self._begun, self._spent = end, defaultdict(float)

        return Steps()


def build(size: str, folder: Path) -> dict[str, Any]:
    """Write the model with random weights into ``folder``; returns what is to be said of it."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, GenerationConfig

    shape, source = SIZES[size], tiny_folder("qwen2_5_vl")
    config = AutoConfig.from_pretrained(source)
    text = {**shape["text"]}
    if sections := text.pop("sections", None):
        config.text_config.rope_parameters["mrope_section"] = sections
    for part, changes in ((config.text_config, text), (config.vision_config, shape["vision"])):
        for key, value in changes.items():
            setattr(part, key, value)
    config.text_config.layer_types = ["full_attention"] * config.text_config.num_hidden_layers
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16 if size == "2b" else torch.float32)
    model.generation_config = GenerationConfig.from_pretrained(source)
    model.save_pretrained(folder)
    processor = AutoProcessor.from_pretrained(source)
    processor.image_processor.size = {"shortest_edge": shape["side"] ** 2, "longest_edge": shape["side"] ** 2}
    processor.save_pretrained(folder)
    return {"size": size, "parameters": sum(weight.numel() for weight in model.parameters()), "side": shape["side"]}


def configuration(model: Path, options: argparse.Namespace, shared: bool) -> dict[str, Any]:
    """A GRPO run on questions about two images."""
    return {
        "method": "grpo", "seed": 0, "log": [], "print_every": 1000, "dump_every": 0, "checkpoints": {"every": 0},
        "policy": {"use": "vision_language", "path": str(model), "max_new_tokens": options.length, "dtype": options.dtype},
        "train": {"source": "scene-world", "split": "rl", "questions": options.steps * options.prompts, "forecasts": 0},
        "rubric": {"components": [{"use": "exact_match"}]},
        "grpo": {
            "steps": options.steps, "prompts": options.prompts, "group": options.group, "threads": 1, "learning_rate": 1e-6,
            "device": "cpu" if options.device == "cpu" else "auto", "shared_prefix": shared,
        },
        "rollouts": {"actors": 0, "threads": 1},
    }  # fmt: skip


@contextmanager
def watched(clock: Clock) -> Iterator[None]:
    """Count what trainings here spend on generation, which includes taking weights, and on scoring."""
    from rsw_rewards.training.trl_trainer import Trainer

    with ExitStack() as stack:
        for owner, method, name in (
            (Replica, "made", "generation"), (Replica, "update", "generation"), (Scorer, "score", "scoring"),
        ):  # fmt: skip
            stack.enter_context(patch.object(owner, method, clock.timed(name, getattr(owner, method))))
        original = Trainer.__init__

        def begin(self: Any, *args: Any, **kwargs: Any) -> None:
            original(self, *args, **kwargs)
            self.add_callback(clock.callback())

        stack.enter_context(patch.object(Trainer, "__init__", begin))
        yield


def ours(config: Path | Mapping[str, Any], changes: Mapping[str, Any], clock: Clock) -> None:
    """A training as ``rsw train`` makes one."""
    with tempfile.TemporaryDirectory() as name, watched(clock):
        if not isinstance(config, Path):
            (Path(name) / "run.yaml").write_text(yaml.safe_dump(dict(config)))
            config = Path(name) / "run.yaml"
        train(config, {**changes, "out": f"{name}/run"})


def theirs(model: Path, samples: Sequence[Sample], options: argparse.Namespace, clock: Clock) -> int:
    """The same training by TRL's own trainer; returns the tokens of a prompt."""
    from datasets import Dataset
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from trl import GRPOConfig, GRPOTrainer

    from rsw_rewards.io.images import read_rgb

    processor = AutoProcessor.from_pretrained(model)
    processor.tokenizer.padding_side = "left"

    def rows(batch: Mapping[str, Sequence[int]]) -> dict[str, list[Any]]:
        asked = [samples[number] for number in batch["number"]]
        return {
            "prompt": [[{"role": "user", "content": sample.prompt}] for sample in asked],
            "images": [[Image.fromarray(read_rgb(image)) for image in sample.images] for sample in asked],
            "answers": [sample.reference["answers"] for sample in asked],
        }

    def exact(completions: Sequence[Any], answers: Sequence[Sequence[str]], **unused: Any) -> list[float]:
        return [float(one[0]["content"].strip() in true) for one, true in zip(completions, answers, strict=True)]

    prompts = rows({"number": range(len(samples))})
    first = processor.apply_chat_template(
        [[{"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": samples[0].prompt}]}]],
        add_generation_prompt=True,
    )  # fmt: skip
    tokens = processor(text=first, images=[prompts["images"][0]], return_tensors="pt")["input_ids"].shape[1]
    arguments = GRPOConfig(
        output_dir=str(model / "trl"), max_steps=options.steps, per_device_train_batch_size=options.prompts * options.group,
        gradient_accumulation_steps=1, num_generations=options.group, max_completion_length=options.length, learning_rate=1e-6,
        lr_scheduler_type="constant", adam_beta2=0.95, weight_decay=0.0, max_grad_norm=1.0, beta=0.0, loss_type="grpo", temperature=1.0,
        use_cpu=options.device == "cpu", bf16=False, gradient_checkpointing=False, shuffle_dataset=False, save_strategy="no",
        report_to="none", disable_tqdm=True, logging_steps=1, dataloader_pin_memory=options.device != "cpu",
    )  # fmt: skip
    with patch.object(GRPOTrainer, "_generate", clock.timed("generation", GRPOTrainer._generate)):
        trainer = GRPOTrainer(
            model=AutoModelForImageTextToText.from_pretrained(model, dtype=options.dtype),
            reward_funcs=clock.timed("scoring", exact),
            args=arguments,
            processing_class=processor,
            train_dataset=Dataset.from_dict({"number": list(range(len(samples)))}).with_transform(rows),
            callbacks=[clock.callback()],
        )
        trainer.train()
    return int(tokens)


def compare(model: Path, options: argparse.Namespace, sides: Sequence[str] = ("trl", "rows", "rsw")) -> dict[str, Any]:
    """Seconds of each side, and how many times as fast as TRL's trainer each is here."""
    samples = list(scene_world_samples(options.steps * options.prompts, 0, split="rl", tasks=("change_qa",)))
    clocks = {side: Clock(options.device) for side in sides}
    found: dict[str, Any] = {"prompts": options.prompts, "group": options.group, "length": options.length}
    for _ in range(options.turns):
        for side, clock in clocks.items():
            if side == "trl":
                found["prompt_tokens"] = theirs(model, samples, options, clock)
            else:
                ours(configuration(model, options, side == "rsw"), {}, clock)
    for side, clock in clocks.items():
        found[side] = medians([step for place, step in enumerate(clock.steps) if place % options.steps])
    for side in sides[1:]:
        found[f"{side}_times"] = {
            name: round(found["trl"][name] / found[side][name], 2) for name in ("generation", "update", "step")
        }
    return found


def medians(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of every number."""
    return {name: round(statistics.median(step[name] for step in steps), 4) for name in steps[0]}


def quickstart(options: argparse.Namespace) -> dict[str, Any]:
    """The step of the quickstart with shared prefixes and without, in one process, and what share of it they can save."""
    clocks = {"off": Clock("cpu"), "on": Clock("cpu")}
    changes = {
        "grpo.steps": options.steps, "grpo.threads": 1, "rollouts.actors": 0, "rollouts.threads": 1, "heldout": None,
        "log": [], "dump_every": 0, "checkpoints.every": 0, "print_every": 1000,
    }  # fmt: skip
    for _ in range(options.turns):
        for side, clock in clocks.items():
            ours(ROOT / "configs/quickstart.yaml", {**changes, "grpo.shared_prefix": side == "on"}, clock)
    found: dict[str, Any] = {
        side: medians([step for place, step in enumerate(clock.steps) if place % options.steps])
        for side, clock in clocks.items()
    }
    off, on = found["off"], found["on"]
    return found | {
        "saved_share": round(1 - on["step"] / off["step"], 3),
        "update_share": round(off["update"] / off["step"], 3),
    }


def measured(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What the options ask for."""
    if options.quickstart:
        return {"quickstart": quickstart(options)}
    about = build(options.size, folder)
    if not options.curve:
        return about | compare(folder, options)
    curve = []
    for options.group in (4, 8, 16):
        for options.length in (4, 16, 64, 256):
            curve.append(compare(folder, options, ("trl", "rsw")))
            print(json.dumps(curve[-1]), file=sys.stderr)
    return about | {"curve": curve}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(SIZES), default="small")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--length", type=int, default=16, help="tokens of an answer at most")
    parser.add_argument("--steps", type=int, default=3, help="steps of a turn, the first of which is left out")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument(
        "--curve", action="store_true", help="groups of 4, 8, 16 and answers of at most 4, 16, 64, 256 tokens"
    )
    parser.add_argument("--quickstart", action="store_true")
    options = parser.parse_args()
    options.dtype = "bfloat16" if options.size == "2b" else "float32"
    import torch

    torch.set_num_threads(1)
    card = torch.cuda.get_device_name() if options.device == "cuda" else platform.processor() or platform.machine()
    found: dict[str, Any] = {"hardware": card, "torch": torch.__version__, "threads": torch.get_num_threads()}
    with redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as name:
        found |= measured(Path(name), options)
    print(json.dumps({**found, "load": [round(one, 1) for one in os.getloadavg()]}, indent=2))


if __name__ == "__main__":
    main()
