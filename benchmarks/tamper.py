"""Damage to every kind of file in the folders of runs, and what each reader then says.

    python benchmarks/tamper.py [--flips 2] [--seed 0] [--only evaluation training] [--files REGEX] [--json FILE] [--work DIR]

Makes small runs: an evaluation of a predictions file, one of a policy with features of images, one that was cut off before its summary, a finished
training and one that was cut off after a checkpoint; and a twin of each with other answers or another seed. Of every kind of file in them
bits are flipped, the file is cut, emptied, deleted, or replaced by the twin's, and every reader runs on a copy of the folder:
``evaluate --resume``, ``compare``, ``train --resume``, ``load_policy``, ``rsw.Run``, ``reweight`` and ``score`` of a dump.
An outcome is *equal* (the same numbers, to twelve digits), *refused* (one sentence), *traceback* or *different*. Exits with 1 where one of
the last two was found.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import re
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

import rsw_rewards as rsw

Reader = Callable[[Path], Any]
"""What a command makes of a folder, as data that is compared."""

QUESTIONS = [
    {
        "id": f"q{n}",
        "scene": f"s{n // 2}",
        "task": "change_qa",
        "prompt": "Has it changed?",
        "reference": {"answers": [("yes", "no")[n % 2]], "vocabulary": ["yes", "no"]},
    }
    for n in range(24)
]
TRAINING: dict[str, Any] = {
    "method": "grpo",
    "seed": 1,
    "policy": {"use": "token_world_model", "path": "embedded"},
    "train": {"source": "scene-world", "split": "rl", "questions": 6, "forecasts": 2},
    "heldout": {"source": "scene-world", "split": "test", "seed": 0, "questions": 4, "forecasts": 0},
    "rubric": {"components": [{"use": "exact_match", "weight": 0.9}, {"use": "gain_over_copy", "weight": 1.0}]},
    "grpo": {"steps": 3, "prompts": 2, "group": 2, "threads": 1, "learning_rate": 3e-4},
    "rollouts": {"actors": 0},
    "checkpoints": {"every": 1, "keep": 2},
    "dump_every": 2,
    "measure": {"components": [{"use": "exact_match"}], "sampled": False, "every": 1},
    "log": [],
}
UNREAD = re.compile(r"report\.html|\.lock")
"""What no command reads."""
ONE_OF_MANY = re.compile(r"(?:.*/)?images/|.*step_00000[1-9]|checkpoints/checkpoint-1")
"""Files of which there are more of the same kind."""


def answers(other: bool) -> list[str]:
    return ["yes" if n % (5 if other else 3) else "no" for n in range(len(QUESTIONS))]


class Runs:
    """Folders of runs under ``work``, each with a twin of the same kind, and their readers."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.forecasts = work / "forecasts" / "samples.jsonl"
        self.live = rsw.protocol(
            "live", ["gain_over_copy", {"use": "frechet", "config": {"encoder": "scene-clip"}}], task="forecast"
        )

    def evaluations(self) -> dict[str, dict[str, Reader]]:
        rsw.data.make_scene_world(self.forecasts.parent, 12, 0, tasks=["forecast"])
        for twin in (False, True):
            self.evaluate(self.place("evaluation", twin), twin)
            self.run_policy(self.place("policy", twin), twin)
            cut = self.place("cut", twin)
            self.evaluate(cut, twin)
            (cut / "scores.parts").mkdir()
            (cut / "scores.parquet").rename(cut / "scores.parts" / "part-00000.parquet")
            (cut / "summary.json").unlink()
            (cut / "report.html").unlink()
        return {
            "evaluation": {"evaluate --resume": lambda folder: self.evaluate(folder, False), "compare": self.compare},
            "policy": {
                "evaluate --resume": lambda folder: self.run_policy(folder, False),
                "compare": self.compare_live,
            },
            "cut": {"evaluate --resume": lambda folder: self.evaluate(folder, False)},
        }

    def trainings(self) -> dict[str, dict[str, Reader]]:
        for twin in (False, True):
            config = {**TRAINING, "seed": 2 if twin else 1}
            self.config(twin).write_text(yaml.safe_dump(config))
            whole, cut = self.place("training", twin), self.place("half", twin)
            rsw.train(self.config(twin), settings={"out": str(whole)})
            shutil.copytree(whole, cut)
            for name in ("final", "checkpoints/checkpoint-3"):
                shutil.rmtree(cut / name)
            for name in ("heldout.json", "heldout/after_greedy.parquet"):
                (cut / name).unlink()
        dump = "dumps/step_000000"
        return {
            "training": {
                "load_policy": policy_of,
                "rsw.Run": record_of,
                "reweight": lambda folder: repr(rsw.reweight(folder, [{"exact_match": 1.0}])),
                "score of a dump": lambda folder: rewards_of(folder / dump),
            },
            "half": {"train --resume": self.resume, "load_policy": policy_of},
        }

    def place(self, kind: str, twin: bool) -> Path:
        return self.work / ("twins" if twin else "runs") / kind

    def config(self, twin: bool) -> Path:
        return self.work / f"train_{twin}.yaml"

    def evaluate(self, folder: Path, twin: bool) -> Any:
        return numbers(rsw.evaluate("exact-qa", QUESTIONS, answers(twin), folder, resume=folder.exists()))

    def run_policy(self, folder: Path, twin: bool) -> Any:
        policy = "blurred_copy" if twin else "copy_before"
        return numbers(rsw.evaluate(self.live, self.forecasts, policy=policy, out=folder, resume=folder.exists()))

    def compare(self, folder: Path) -> Any:
        return rsw.compare(folder, self.place("evaluation", True)).differences()

    def compare_live(self, folder: Path) -> Any:
        return rsw.compare(folder, self.place("policy", True), protocol=self.live).differences()

    def resume(self, folder: Path) -> Any:
        rsw.train(self.config(False), settings={"out": str(folder)}, resume=folder)
        return policy_of(folder), record_of(folder)


def numbers(found: Any) -> Any:
    """What an evaluation found, without what its caches had to decode."""
    return {key: value for key, value in found.summary.items() if key not in ("features", "versions")}


def policy_of(folder: Path) -> str:
    """The step and the weights of a training's policy; the newest whole one, with its step, where one before it is taken."""
    from rsw_rewards.rollouts.trained import find_trained
    from rsw_rewards.rollouts.weights import trained_weights

    policy: Any = rsw.load_policy(folder)
    policy.setup()
    digest = hashlib.sha256()
    for name, weight in sorted(trained_weights(policy.model).items()):
        digest.update(name.encode() + weight.numpy().tobytes())
    return f"{find_trained(folder).step} {digest.hexdigest()}"


def record_of(folder: Path) -> Any:
    """What a training noted: configuration, log without times, held-out numbers."""
    run = rsw.Run(folder)
    log = run.log
    config = {key: value for key, value in run.config.items() if key != "out"}
    return config, log[[name for name in log if "time" not in name]].to_json(), run.heldout


def rewards_of(dump: Path) -> Any:
    found = rsw.rewards(dump / "rubric.yaml", dump / "samples.jsonl", dump / "predictions.jsonl")
    return found.records


def damages(rng: random.Random, flips: int) -> Iterator[tuple[str, Callable[[Path, Path], None]]]:
    """Names of damages, and what does them to a file, given the twin's."""

    def flip(file: Path, _: Path) -> None:
        content = bytearray(file.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        file.write_bytes(content)

    def cut(file: Path, _: Path) -> None:
        os.truncate(file, rng.randrange(1, max(file.stat().st_size, 2)))

    for number in range(flips):
        yield f"flip {number + 1}", flip
    yield "cut", cut
    yield "empty", lambda file, _: os.truncate(file, 0)
    yield "deleted", lambda file, _: file.unlink()
    yield "swapped", lambda file, twin: shutil.copy(twin, file)


def files_of(folder: Path) -> list[str]:
    """One file of every kind in a folder."""
    found = [str(file.relative_to(folder)) for file in sorted(folder.rglob("*")) if file.is_file()]
    many: set[str] = set()
    kept = []
    for name in found:
        if UNREAD.search(name) or (
            ONE_OF_MANY.match(name)
            and (re.search(r"step_00000[1-9]|checkpoint-1", name) or str(Path(name).parent) in many)
        ):
            continue
        if "images/" in name:
            many.add(str(Path(name).parent))
        kept.append(name)
    return kept


def told(reader: Reader, folder: Path) -> tuple[str, str]:
    """What a reader makes of a folder: ``found`` and its digest, or how it failed and what it said."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            found = json.dumps(reader(folder), sort_keys=True, default=repr)
            # The last digits of a sum of floats depend on where in memory its terms lie.
            return "found", json.dumps(json.loads(found, parse_float=lambda text: f"{float(text):.12g}"))
    except rsw.RswError as error:
        return "refused", str(error)
    except Exception:
        return "traceback", traceback.format_exc()


def tamper(
    name: str, runs: Runs, readers: dict[str, Reader], rng: random.Random, flips: int, scratch: Path, only: str
) -> Iterator[dict[str, str]]:
    """An outcome for every file, damage and reader of one kind of run."""
    whole, other, copy = runs.place(name, False), runs.place(name, True), scratch / name

    def fresh() -> None:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(whole, copy)

    known = {}
    for label, reader in readers.items():
        fresh()
        known[label] = told(reader, copy)
        if known[label][0] != "found":
            raise SystemExit(f"{name}: {label} fails on a whole folder: {known[label][1]}")
    for file in (file for file in files_of(whole) if re.search(only, f"{name}/{file}")):
        for damage, do in damages(rng, flips):
            if damage == "swapped" and not (other / file).exists():
                continue
            state = rng.getstate()
            for label, reader in readers.items():
                fresh()
                rng.setstate(state)  # the same damage for every reader
                do(copy / file, other / file)
                kind, said = told(reader, copy)
                outcome = kind if kind != "found" else "equal" if said == known[label][1] else "different"
                yield {
                    "run": name,
                    "file": file,
                    "damage": damage,
                    "reader": label,
                    "outcome": outcome,
                    "said": said if outcome != "equal" else "",
                }


ORDER = ("equal", "refused", "different", "traceback")


def table(rows: list[dict[str, str]]) -> str:
    """A line for each run and kind of file; a damage's cell counts the outcomes of its readers."""
    kinds = ["flip", "cut", "empty", "deleted", "swapped"]
    lines = ["| run | file | " + " | ".join(kinds) + " |", "|---|---|" + "---|" * len(kinds)]
    places: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in rows:
        name = re.sub(r"[0-9a-f]{64}", "*", row["file"])
        places.setdefault((row["run"], name), []).append(row)
    for (run, file), group in places.items():
        cells = []
        for kind in kinds:
            found = [row["outcome"] for row in group if row["damage"].split()[0] == kind]
            cells.append(", ".join(f"{found.count(outcome)} {outcome}" for outcome in ORDER if outcome in found) or "-")
        lines.append(f"| {run} | `{file}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=2, help="bits flipped per file, one at a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=["evaluation", "training"], default=["evaluation", "training"])
    parser.add_argument(
        "--files", default="", help="only files of which this regular expression finds a part, as RUN/FILE"
    )
    parser.add_argument("--json", type=Path, help="write every outcome to this file")
    parser.add_argument("--work", type=Path, help="a folder that does not exist, to keep the runs in")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rsw_tamper_") as temporary:
        work = (given.work or Path(temporary) / "work").absolute()
        work.mkdir(parents=True)
        runs, rows = Runs(work), []
        made = {}
        with contextlib.redirect_stdout(io.StringIO()):
            if "evaluation" in given.only:
                made |= runs.evaluations()
            if "training" in given.only:
                made |= runs.trainings()
        for name, readers in made.items():
            for row in tamper(
                name, runs, readers, random.Random(f"{given.seed} {name}"), given.flips, Path(temporary), given.files
            ):
                rows.append(row)
                if row["outcome"] in ORDER[2:]:
                    print(
                        f"{row['outcome']}: {name}, {row['file']}, {row['damage']}, {row['reader']}: {row['said'][-600:]}",
                        file=sys.stderr,
                        flush=True,
                    )
    print(table(rows))
    bad = sum(row["outcome"] in ORDER[2:] for row in rows)
    print(
        f"\n{len(rows)} readings, {sum(row['outcome'] == 'equal' for row in rows)} equal, "
        f"{sum(row['outcome'] == 'refused' for row in rows)} refused, {bad} otherwise"
    )
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
