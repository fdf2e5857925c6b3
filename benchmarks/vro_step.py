"""One step of reinforcement learning with verifiable rewards for a world model on a vision-language backbone: where the time goes.

    python benchmarks/vro_step.py --size tiny                                  # the same path on a CPU, in a minute or two
    python benchmarks/vro_step.py --size 2b --device cuda --actors 1           # Qwen3-VL-2B and MoVQGAN in full size, random weights

Prints JSON: seconds to generate, of scoring that the step had to wait for, and to update; tokens and pictures a second; peak memory;
and beside it TRL's own GRPOTrainer generating as many tokens with the same model from text prompts of the same length, as it does
without an inference server. Ours has pictures to encode and forecasts to decode on top of it, which weighs in the tiny size only.
Figures are medians of the steps; the first one, which starts actors and kernels, is left out.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rsw_rewards  # noqa: F401  (first: on a CPU it lets torchvision load)

SIZES: Mapping[str, Mapping[str, Any]] = {
    "tiny": {"side": 32, "codes": 64, "text": {}, "vision": {}, "blocks": (32, 32, 32, 32), "layers": 2},
    # Shapes of Qwen/Qwen3-VL-2B-Instruct's config.json, and of the folder movq of kandinsky-community/kandinsky-2-1.
    "2b": {
        "side": 256, "codes": 16384, "blocks": (128, 256, 256, 512), "layers": 2,
        "text": {
            "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16,
            "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 262144,
            "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20], "mrope_interleaved": True},
        },
        "vision": {
            "depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "out_hidden_size": 2048,
            "num_position_embeddings": 2304, "deepstack_visual_indexes": [5, 11, 17],
        },
    },
}  # fmt: skip


def world_model(size: str, folder: Path) -> dict[str, Any]:
    """Write a world model of that size with random weights; returns its numbers."""
    import torch
    from diffusers import VQModel
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, GenerationConfig

    from rsw_rewards.rollouts.backbone_builder import build_world_model
    from rsw_rewards.rollouts.tiny_vlm import tiny_folder

    shape = SIZES[size]
    source = tiny_folder("qwen3_vl")
    config = AutoConfig.from_pretrained(source)
    for part, changes in ((config.text_config, shape["text"]), (config.vision_config, shape["vision"])):
        for key, value in changes.items():
            setattr(part, key, value)
    torch.manual_seed(0)
    dtype = torch.float32 if size == "tiny" else torch.bfloat16
    model = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    model.generation_config = GenerationConfig.from_pretrained(source)
    model.save_pretrained(folder / "backbone")
    processor = AutoProcessor.from_pretrained(source)
    processor.image_processor.size = {"shortest_edge": 64 * 64, "longest_edge": shape["side"] ** 2}
    processor.save_pretrained(folder / "backbone")
    parameters = sum(weight.numel() for weight in model.parameters())
    del model
    codec: Any = VQModel(
        down_block_types=("DownEncoderBlock2D",) * 3 + ("AttnDownEncoderBlock2D",),
        up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 3,
        block_out_channels=shape["blocks"], layers_per_block=shape["layers"], norm_num_groups=32, latent_channels=4,
        vq_embed_dim=4, num_vq_embeddings=shape["codes"], norm_type="spatial",
    )  # fmt: skip
    codec.save_pretrained(folder / "movq", safe_serialization=True)
    built = build_world_model(str(folder / "backbone"), str(folder / "movq"), folder / "world", shape["side"])
    return {"parameters": parameters, "codes_per_picture": built.grid[0] * built.grid[1], "side": built.side}


def ours(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Medians over the steps of a training by ``rsw train``'s own path."""
    from rsw_rewards.training.run import train

    content = {
        "method": "grpo", "out": str(folder / "run"), "seed": 0, "log": [], "print_every": 1000,
        "policy": {"use": "backbone_world_model", "path": str(folder / "world"), "lora": {"r": 16, "alpha": 32, "target_modules": ["q_proj", "v_proj"]}}
        | ({} if options.size == "tiny" else {"dtype": "bfloat16"}),
        "train": {"source": "scene-world", "split": "rl", "questions": options.questions, "forecasts": 4 * options.prompts},
        "rubric": {"components": [{"use": "clip_score"}, {"use": "encoder_similarity", "config": {"gain": True}}, {"use": "exact_match"}]},
        "grpo": {
            "steps": options.steps, "prompts": options.prompts, "group": options.group, "micro_batch": options.micro_batch,
            "device": options.device, "trl": {"gradient_checkpointing": options.device != "cpu"},
        },
        "rollouts": {"actors": options.actors, "num_gpus": options.rollout_gpus, "chunk": options.chunk},
        "checkpoints": {"every": 0},
    }  # fmt: skip
    import yaml

    (folder / "run.yaml").write_text(yaml.safe_dump(content))
    train(folder / "run.yaml")
    rows = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()][1:]

    def median(key: str) -> float:
        return statistics.median(row[key] for row in rows)

    return {
        "generate_s": median("time/generation"),
        "exposed_scoring_s": median("time/exposed_scoring"),
        "step_s": median("step_time"),
    }


def theirs(folder: Path, options: argparse.Namespace, tokens: int, prompt_tokens: int) -> float:
    """Seconds in which TRL's GRPOTrainer generates ``prompts`` x ``group`` completions of ``tokens`` tokens: median without the first."""
    from datasets import Dataset
    from transformers import AutoModelForImageTextToText, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    taken: list[float] = []

    class Timed(GRPOTrainer):
        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            made = super()._generate(*args, **kwargs)
            taken.append(time.perf_counter() - start)
            return made

    model = AutoModelForImageTextToText.from_pretrained(folder / "backbone", dtype="auto")
    words = AutoTokenizer.from_pretrained(folder / "backbone")
    prompt = words.decode(words("0 1 " * prompt_tokens)["input_ids"][:prompt_tokens])
    rows = options.prompts * options.group
    arguments = GRPOConfig(
        output_dir=str(folder / "trl"), per_device_train_batch_size=rows, num_generations=options.group, max_steps=options.steps,
        max_completion_length=tokens, generation_kwargs={"min_new_tokens": tokens}, report_to=[], save_strategy="no",
        logging_strategy="no", use_cpu=options.device == "cpu", bf16=options.size != "tiny", disable_tqdm=True, beta=0.0,
        gradient_accumulation_steps=1, learning_rate=0.0, gradient_checkpointing=options.device != "cpu",
    )  # fmt: skip
    trainer = Timed(
        model=model, args=arguments, processing_class=words, train_dataset=Dataset.from_list([{"prompt": prompt}] * max(8, options.prompts)),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
    )  # fmt: skip
    trainer.train()
    return statistics.median(taken[1:])


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(SIZES), default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--group", type=int, default=4)
    parser.add_argument("--questions", type=int, default=0)
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--actors", type=int, default=0, help="0 generates in the learner's process")
    parser.add_argument("--rollout-gpus", type=float, default=0.0)
    parser.add_argument("--chunk", type=int, default=8)
    parser.add_argument("--no-peer", action="store_true")
    options = parser.parse_args()
    import torch

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        about = world_model(options.size, folder)
        found: dict[str, Any] = {"size": options.size, "device": options.device, **about, "ours": ours(folder, options)}
        rows, tokens = options.prompts * options.group, about["codes_per_picture"] + 1
        step = found["ours"]
        step["update_s"] = step["step_s"] - step["generate_s"] - step["exposed_scoring_s"]
        if not options.questions:
            step |= {"tokens_per_s": rows * tokens / step["generate_s"], "pictures_per_s": rows / step["generate_s"]}
        if options.device == "cuda":
            step["learner_peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        step["driver_peak_rss_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        if not options.no_peer:
            # A forecast's prompt holds the input's codes, its features (a quarter of the codes or less) and some words.
            seconds = theirs(folder, options, tokens, int(1.3 * tokens))
            found["trl"] = {"generate_s": seconds, "tokens_per_s": rows * tokens / seconds}
    card = torch.cuda.get_device_name() if options.device == "cuda" else platform.processor() or platform.machine()
    print(
        json.dumps(
            {"hardware": card, "torch": torch.__version__, "threads": torch.get_num_threads(), **found}, indent=2
        )
    )


if __name__ == "__main__":
    main()
