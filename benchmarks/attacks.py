"""The tables of docs/attacks.md: what the best attack earns by every verifier of texts and of forecasts, alone and in the composites.

    python benchmarks/attacks.py [--shared DIR] [--n 100] [--seed 1] [--only captions] [--write docs/attacks.md]

Captions are those of LEVIR-CC below the shared folder, questions are made here, forecasts are scenes of the scene world with the
shipped world model as the model. Prints the tables as Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import rsw_rewards as rsw

GATE = {"component": "caption_gate"}
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


def caption_table(shared: Path, seed: int) -> list[str]:
    """Every verifier of captions alone, and behind the gate; the recommended composite last."""
    samples = captions(shared)
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


TABLES: dict[str, Callable[..., list[str]]] = {"captions": caption_table}


def main() -> None:
    """Print the tables, and write them into a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    shared = Path(os.environ.get("RSW_SHARED") or Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--shared", type=Path, default=shared)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=list(TABLES))
    parser.add_argument(
        "--write", type=Path, help="a page whose parts between <!-- attacks:TABLE --> marks are replaced"
    )
    options = parser.parse_args()
    for name, make in TABLES.items():
        if options.only not in (None, name):
            continue
        start = time.perf_counter()
        text = "\n".join(make(options.shared, options.seed)) + "\n"
        print(f"{name}, {time.perf_counter() - start:.0f} s\n{text}")
        if options.write:
            page = options.write.read_text(encoding="utf-8")
            begin, end = f"<!-- attacks:{name} -->\n", f"<!-- end:{name} -->"
            head, rest = page.split(begin, 1)
            options.write.write_text(head + begin + text + end + rest.split(end, 1)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
