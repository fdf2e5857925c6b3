"""Evaluations and trainings that are killed at random points, and what ``--resume`` makes of them.

    python benchmarks/kills.py [--evaluations 20] [--trainings 10] [--seed 0] [--json FILE]

Every command runs as a process of its own and gets SIGKILL after a random share of the time that a whole run takes, then goes on
with ``--resume``. The numbers, and of a training the weights and the log, must be those of the whole run, bit for bit; or the folder is
refused with one sentence because the kill came before there was a run. Exits with 1 for anything else.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from tamper import QUESTIONS, TRAINING, answers, policy_of, record_of

MAIN = "from rsw_rewards.cli import main; main()"


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", MAIN, *map(str, arguments)]


def prepared(work: Path) -> tuple[list[str], list[str]]:
    """The commands of an evaluation and of a training, without their folders."""
    asked = [{**QUESTIONS[n % 24], "id": f"q{n}", "scene": f"s{n // 4}"} for n in range(4800)]
    given = [{"id": record["id"], "text": text} for record, text in zip(asked, answers(False) * 200, strict=True)]
    for name, records in (("samples", asked), ("predictions", given)):
        (work / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (work / "train.yaml").write_text(yaml.safe_dump(TRAINING))
    evaluation = command(
        "evaluate", "exact-qa,cdvqa", "--samples", work / "samples.jsonl", "--predictions", work / "predictions.jsonl"
    )
    return evaluation, command("train", work / "train.yaml")


def numbers_of(folder: Path) -> Any:
    """The numbers of an evaluation's protocols."""
    found = {}
    for file in sorted(folder.glob("*/summary.json")):
        summary = json.loads(file.read_text())
        found[file.parent.name] = {key: value for key, value in summary.items() if key not in ("features", "sha256")}
    return found


def trained(folder: Path) -> Any:
    return policy_of(folder), record_of(folder)


def outcome(
    start: Sequence[str], resume: Sequence[str], wait: float, read: Callable[[], Any], known: Any
) -> dict[str, Any]:
    """What became of one run that was killed after ``wait`` seconds."""
    process = subprocess.Popen(start, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(wait)
    ended = process.poll() is not None
    process.kill()
    process.wait()
    again = subprocess.run(resume, capture_output=True, text=True, check=False)
    row = {"after_s": round(wait, 2), "ended_before": ended, "exit_code": again.returncode}
    if again.returncode == 0:
        same = json.dumps(read(), sort_keys=True, default=repr) == json.dumps(known, sort_keys=True, default=repr)
        return {**row, "outcome": "equal" if same else "different"}
    lines = again.stderr.strip().splitlines()
    refused = again.returncode == 2 and "Traceback" not in again.stderr and bool(lines)
    return {**row, "outcome": "refused" if refused else "traceback", "said": (lines or [""])[-1][:300]}


def killed(
    kind: str, begin: list[str], count: int, rng: random.Random, work: Path, read: Callable[[Path], Any]
) -> list[dict[str, Any]]:
    out = ["--set", "out={}"] if kind == "training" else ["--out", "{}"]

    def of(folder: Path, resume: bool = False) -> list[str]:
        more = ["--resume"] + ([str(folder)] if kind == "training" else []) if resume else []
        return [*begin, *(part.format(folder) for part in out), *more]

    whole = work / kind
    started = time.perf_counter()
    subprocess.run(of(whole), check=True, stdout=subprocess.DEVNULL)
    lasted, known = time.perf_counter() - started, read(whole)
    rows = []
    for number in range(count):
        folder = work / f"{kind}-{number}"
        wait = rng.uniform(0.2, 1.0) * lasted
        row = outcome(of(folder), of(folder, resume=True), wait, lambda at=folder: read(at), known)
        rows.append({"kind": kind, **row})
        print(rows[-1], file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluations", type=int, default=20)
    parser.add_argument("--trainings", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write every outcome to this file")
    given = parser.parse_args()
    rng, rows = random.Random(given.seed), []
    with tempfile.TemporaryDirectory(prefix="rsw_kills_") as temporary:
        evaluation, training = prepared(work := Path(temporary))
        if given.evaluations:
            rows += killed("evaluation", evaluation, given.evaluations, rng, work, numbers_of)
        if given.trainings:
            rows += killed("training", training, given.trainings, rng, work, trained)
    print("| command | kills | equal | refused | otherwise |\n|---|---|---|---|---|")
    for kind in ("evaluation", "training"):
        found = [row["outcome"] for row in rows if row["kind"] == kind]
        rest = len(found) - found.count("equal") - found.count("refused")
        print(f"| {kind} | {len(found)} | {found.count('equal')} | {found.count('refused')} | {rest} |")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))
    raise SystemExit(any(row["outcome"] not in ("equal", "refused") for row in rows))


if __name__ == "__main__":
    main()
