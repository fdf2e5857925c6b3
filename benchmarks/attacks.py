"""The tables of docs/attacks.md: what the best attack earns by every verifier of texts and of forecasts, alone and in the composites.

    python benchmarks/attacks.py [--shared DIR] [--seeds 1] [--only captions] [--write docs/attacks.md]
    python benchmarks/attacks.py --only verifiers [--write docs/attacks.md]
    python benchmarks/attacks.py --only forecasts --seeds 801 802 803 804 [--scenes 64] [--full] [--write docs/attacks.md]

Captions are those of LEVIR-CC below the shared folder. Forecasts are the changed scenes among so many of each seed of the scene world, with
the shipped world model as the model; without --full, gradients and evolution are left out. Prints the tables as Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

import rsw_rewards as rsw
from rsw_rewards.core.records import Task
from rsw_rewards.core.rubric import load_rubric, parse_rubric
from rsw_rewards.data.scene_world import scene_world_samples
from rsw_rewards.evaluation.inputs import of_policy
from rsw_rewards.redteam.rows import Row
from rsw_rewards.redteam.run import run

GATE = {"component": "caption_gate"}
SCENE_WORLD = ("change_qa", "forecast", "change_mask", "semantic_change")
CLIP: Mapping[str, Any] = {"encoder": "scene-clip"}
ALONE: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("exact_match", "change_qa", {}), ("vqa_accuracy", "ten answers", {}), ("numeric_match", "numbers", {}),
    ("multiple_choice", "letters", {}), ("answer_format", "change_qa", {}), ("soft_overlong", "change_qa", {"unit": "words"}),
    ("scene_label", "classes", {}), ("label_set", "labels", {}), ("difference_list", "changes", {}),
    ("box_iou", "boxes", {}), ("referring_mask", "targets", {}), ("change_mask", "change_mask", {}), ("semantic_change", "semantic_change", {}),
    ("building_damage", "damage", {}),
    ("gain_over_copy", "forecast", {}), ("l1", "forecast", {}), ("mse", "forecast", {}), ("psnr", "forecast", {}), ("ssim", "forecast", {}),
    ("ms_ssim", "forecast of 192 pixels", {}), ("change_consistency", "forecast", {}), ("change_extent", "forecast", {}), ("detector_consistency", "forecast", {}),
    ("encoder_similarity", "forecast", CLIP), ("encoder_similarity", "forecast", {**CLIP, "gain": True}), ("clip_score", "forecast", CLIP),
    ("caption_contrast", "forecast", CLIP), ("directional_similarity", "forecast", CLIP),
    ("physical_range", "forecast", {}),
)  # fmt: skip
POLICY = {"use": "token_world_model", "path": "embedded"}
CONFIGS = Path(__file__).resolve().parents[1] / "configs/rubrics"
CAPTIONS: tuple[Mapping[str, Any], ...] = (
    {"use": "bleu"}, {"use": "rouge_l"}, {"use": "cider_d"}, {"use": "captions", "config": {"meteor": False}}, {"use": "sentence_similarity"},
)  # fmt: skip


def captions(shared: Path) -> list[rsw.Sample]:
    """The first 60 pairs of the LEVIR-CC test split with their reference captions."""
    lines = (shared / "golden/caption_levircc/items.jsonl").read_text(encoding="utf-8").splitlines()
    items = [json.loads(line) for line in lines]
    return [
        rsw.Sample(
            item["id"],
            "change_caption",
            reference={"captions": item["references"], "changed": bool(item["changeflag"])},
        )
        for item in items
    ]


def line(label: str, rubric: Any, samples: Sequence[rsw.Sample], seed: int, **options: Any) -> str:
    """One row of a table: what truth, mediocre output and the best attack earn, and how many attacks win."""
    found = rsw.attack(rubric, samples, seed=seed, **options).tasks[0]
    best = found.attacks[0]
    model = [f"{found.row('model').reward:.3f}"] if any(row.role == "model" for row in found.rows) else []
    cells = [f"{found.row('truth').reward:.3f}", *model, f"{best.mediocre:.3f}", f"{best.reward:.3f} ({best.name})", str(len(found.winners))]  # fmt: skip
    return f"| {label} | " + " | ".join(cells) + " |"


def caption_table(options: argparse.Namespace) -> list[str]:
    """Every verifier of captions alone, and behind the gate; the recommended composite last."""
    samples, seed = captions(options.shared), options.seeds[0]
    lines = [
        "| reward | pairs | truth | mediocre | best attack | attacks that win |",
        "|---|---|---|---|---|---|",
    ]
    for told, chosen in (("all", samples), ("changed", [one for one in samples if one.reference["changed"]])):
        for part in CAPTIONS:
            gated = {"components": [{"use": "caption_gate", "weight": 0.0}, {**part, "gate": GATE}]}
            lines.append(line(f"`{part['use']}` | {told}", {"components": [part]}, chosen, seed))
            lines.append(line(f"`{part['use']}` behind `caption_gate` | {told}", gated, chosen, seed))
        lines.append(line(f"`configs/rubrics/captions.yaml` | {told}", CONFIGS / "captions.yaml", chosen, seed))
    return lines


def changed_scenes(seed: int, scenes: int) -> list[rsw.Sample]:
    """The forecast samples of so many scenes in which at least a pixel changes."""
    made = scene_world_samples(scenes, seed, tasks=["forecast"])
    return [sample for sample in made if sample.reference["mask"].pixels().any()]


def forecast_table(options: argparse.Namespace) -> list[str]:
    """Mean rewards of the recommended composite by who made the forecast, and on how many scenes their order is right."""
    rubric = load_rubric(CONFIGS / "forecasts.yaml")
    found = []
    for seed in options.seeds:
        samples = changed_scenes(seed, options.scenes)
        outputs = of_policy(samples, POLICY, frozenset({Task.FORECAST}), None, seed=seed).outputs
        found.append(run(rubric, samples, outputs, seed=seed, short=not options.full).tasks[0])
    n = sum(task.n for task in found)
    rows: dict[str, list[Row]] = {}
    for row in (row for task in found for row in task.rows):
        rows.setdefault(row.name, []).append(row)

    def mean(own: Sequence[Row], component: str | None = None) -> float:
        pairs = [(row.n, row.components[component][0] if component else row.reward) for row in own]
        known = [(count, value) for count, value in pairs if value is not None]
        return sum(count * value for count, value in known) / max(1, sum(count for count, _ in known))

    parts = [label for label in found[0].labels if label != "change_extent"]
    lines = [
        "| | reward | " + " | ".join(f"`{label}`" for label in parts) + " |",
        "|---|---" + "|---" * len(parts) + "|",
    ]
    attacks = [name for name, own in rows.items() if own[0].role == "attack"]
    best = sorted(attacks, key=lambda name: -mean(rows[name]))[:3]
    for name in ("truth", "mediocre", "model", *best, "copy_before"):
        cells = [f"{mean(rows[name], label):.2f}" for label in (None, *parts)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append("")
    for told, key in (
        ("The truth gets more than the model", "truth first"),
        ("The model gets more than every attack", "attacks last"),
        ("Both", "both"),
    ):
        right = round(sum(task.n * (task.order[key] or 0.0) for task in found))
        low, high = binomtest(right, n).proportion_ci(method="wilson")
        lines.append(f"* {told}: {right} of {n} scenes ({right / n:.1%} [{low:.1%}, {high:.1%}]).")
    return lines


def _made(task: str, references: Sequence[Mapping[str, Any]], **more: Any) -> list[rsw.Sample]:
    return [rsw.Sample(f"{task}-{number}", task, reference=one, **more) for number, one in enumerate(references)]


def verifier_samples(scenes: int) -> dict[str, list[rsw.Sample]]:
    """What each verifier below is attacked on: questions and maps of the scene world, and answers of every other form."""
    world = {
        task: [one for one in scene_world_samples(scenes, 1, tasks=[task]) if task == "change_qa" or one.kind != "nothing"]
        for task in SCENE_WORLD
    }  # fmt: skip
    rng = np.random.default_rng(1)
    kinds = sorted({sample.kind for sample in world["forecast"]})
    cells = [f"{row} {column}" for row in ("top", "center", "bottom") for column in ("left", "center", "right")]
    corners, sides = rng.uniform(0, 40, (scenes, 2)).round(), rng.uniform(6, 24, (scenes, 2)).round()
    large = [one for one in scene_world_samples(scenes, 1, tasks=["forecast"], size=192) if one.kind != "nothing"]
    return world | {
        "ten answers": _made("change_qa", [{"answers": [str(rng.choice(["yes", "no"]))] * 8 + ["yes", "no"]} for _ in range(scenes)]),
        "numbers": _made("change_qa", [{"answers": [str(rng.integers(0, 12))]} for _ in range(scenes)]),
        "letters": _made("change_qa", [{"answers": [str(rng.choice(list("ABCD")))]} for _ in range(scenes)]),
        "labels": _made("classification", [{"labels": [str(one) for one in rng.choice(kinds, 2, replace=False)], "vocabulary": kinds} for _ in range(scenes)]),
        "classes": _made("classification", [{"label": str(rng.choice(kinds)), "vocabulary": kinds} for _ in range(scenes)]),
        "changes": _made("change_qa", [
            {"changes": [{"object": str(rng.choice(["house", "road", "trees"])), "change": str(rng.choice(["added", "removed"])), "where": str(rng.choice(cells))}]}
            for _ in range(scenes)
        ]),
        "boxes": _made(
            "grounding",
            [{"boxes": [[x, y, x + w, y + h]]} for (x, y), (w, h) in zip(corners.tolist(), sides.tolist(), strict=True)],
            images=world["change_mask"][0].images[:1],
        ),
        "forecast of 192 pixels": large,
        "targets": _made("grounding", [{"mask": sample.reference["mask"]} for sample in world["change_mask"]]),
        "damage": _made("damage", [damage_of(sample, rng) for sample in world["change_mask"]]),
    }  # fmt: skip


def damage_of(sample: rsw.Sample, rng: np.random.Generator) -> dict[str, Any]:
    """Building levels in the changed pixels: half of the columns of one level, the rest of another."""
    mask = sample.reference["mask"].pixels() > 0
    first, second = rng.choice([1, 2, 3, 4], 2, replace=False)
    levels = np.where(np.arange(mask.shape[1]) % 8 < 4, first, second)
    return {"buildings": mask.astype(np.uint8), "damage": (mask * levels).astype(np.uint8)}


def verifier_table(options: argparse.Namespace) -> list[str]:
    """Every verifier that pays single outputs and needs no downloaded weights, alone, as a reward."""
    samples = verifier_samples(options.scenes)
    lines = ["| verifier | on | truth | mediocre | best attack | attacks that win |", "|---|---|---|---|---|---|"]
    for name, where, config in ALONE:
        part = {"use": name, **({"config": config} if config else {})}
        found = run(parse_rubric({"components": [part]}, name), samples[where], seed=options.seeds[0]).tasks[0]
        best = max(found.attacks, key=lambda row: row.reward - row.mediocre)
        told = "".join(f", {key}: {value}" for key, value in config.items())
        cells = [
            f"{found.row('truth').reward:.3f}",
            f"{best.mediocre:.3f}",
            f"{best.reward:.3f} ({best.name})",
            str(len(found.winners)),
        ]
        lines.append(f"| `{name}{told}` | {where} | " + " | ".join(cells) + " |")
    return lines


TABLES: dict[str, Callable[[argparse.Namespace], list[str]]] = {
    "captions": caption_table,
    "verifiers": verifier_table,
    "forecasts": forecast_table,
}


def main() -> None:
    """Print the tables, and write them into a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    shared = Path(os.environ.get("RSW_SHARED") or Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--shared", type=Path, default=shared)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--scenes", type=int, default=64, help="scenes of each seed, changed or not")
    parser.add_argument("--full", action="store_true", help="forecasts: with gradients and evolution")
    parser.add_argument("--only", choices=list(TABLES))
    parser.add_argument(
        "--write", type=Path, help="a page whose parts between <!-- attacks:TABLE --> marks are replaced"
    )
    options = parser.parse_args()
    for name, make in TABLES.items():
        if options.only not in (None, name):
            continue
        start = time.perf_counter()
        text = "\n".join(make(options)) + "\n"
        print(f"{name}, {time.perf_counter() - start:.0f} s\n{text}")
        if options.write:
            page = options.write.read_text(encoding="utf-8")
            begin, end = f"<!-- attacks:{name} -->\n", f"<!-- end:{name} -->"
            head, rest = page.split(begin, 1)
            options.write.write_text(head + begin + text + end + rest.split(end, 1)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
