"""A fuzzer of the commands: broken records, images, files, run directories, configurations and options, and what becomes of them.

    python benchmarks/fuzz.py [--records 10000] [--seed 0] [--minutes M] [--start ROUND] [--light] [--json] [--work DIR]

Work goes by rounds. A round makes some records or one file from its own seed, so ``--start ROUND --records 1`` does one of them again, and a
longer run is continued from the round that the table names. Every command runs in this process. Counted are: exceptions that leave
a command, refusals that are not one sentence on standard error with exit code 2, rows that are missing or double, zeros for a fault that is
not the policy's, errors that an output could cause, files that were read outside the folders that a user named, connections, and what
takes more than 5 s of processor time for a record or 1 GB of memory. Exits with 1 where any was found.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fuzz_inputs as inputs
import numpy as np
import yaml
from fuzz_commands import NO_METEOR, Commands, components, peak, place_of, protocols

import rsw_rewards as rsw
from rsw_rewards.io.records_io import load_outputs, load_samples

TASKS = [str(task) for task in rsw.Task]
TRUTHLESS = ("answer_format", "soft_overlong", "clip_score", "caption_contrast")
"""What looks at the form of an output, or holds a forecast against the text that asked for it: the truth's own answer may be invalid to these."""


class Fuzz(Commands):
    """One run by rounds."""

    def good(self, task: str, count: int) -> tuple[list[dict[str, Any]], tuple[object, ...]]:
        """Good samples of a task in a file, and the options that name it."""
        samples = [inputs.sample(self.rng, task, number, 0) for number in range(count)]
        return samples, ("--samples", self.lines("s.jsonl", samples), "--root", self.files.root)

    def warm(self) -> None:
        """Score good answers of every task, so that all libraries and weights are loaded; what a broken record costs comes on top."""
        self.folder.mkdir()
        for name in inputs.IMAGES:
            if name.split(".")[0] in ("rgb", "other", "mask", "index", "damage", "ones", "mask01", "float"):
                self.files.path(name)
        for task in TASKS:
            samples = [inputs.sample(self.rng, task, number, number) for number in range(10)]
            told, rows = self.scored(samples, [inputs.as_line(inputs.answer(record)) for record in samples], rubric=1)
            if rows is None:
                raise SystemExit(f"good answers of the task {task} were not scored: {told.err}{self.found}")
            self.check_rows(rows, {record["id"] for record in samples})
        self.memory = peak()

    # Rounds. Each gives the number of records or files that it made.

    def outputs(self) -> int:
        """Broken predictions for good samples: every sample keeps its rows, and none is an error."""
        rng, task, form, count = self.rng, self.rng.choice(TASKS), self.rng.randrange(10), 12 if self.light else 48
        samples = [inputs.sample(rng, task, number, form) for number in range(count)]
        lines = [inputs.as_line(inputs.answer(samples[0]))]
        for record in samples[1:]:
            line = inputs.as_line(inputs.mutated(rng, inputs.answer(record), self.files))
            lines.append(inputs.broken_line(rng, line) if rng.random() < 0.15 else line)
        told, rows = self.scored(samples, lines)
        if rows is None:
            if told.code != -1:
                self.find("rows", f"a broken prediction cost the others: {told.err[:300]}", task=task)
            return count
        self.check_rows(rows, {record["id"] for record in samples})
        good = rows[(rows["sample"] == "s0") & (rows["candidate"] == 0)].set_index("verifier")["status"]
        for _, row in rows.iterrows():
            usual = good.get(row["verifier"])
            other = {"error", "timeout", "not_applicable"}
            if row["status"] != usual and {row["status"], usual} & other:
                line = lines[int(row["sample"][1:])] if row["sample"][1:].isdigit() else b""
                self.find("error by output", row["reason"], verifier=row["verifier"], status=row["status"], usual=usual, line=line[:300])  # fmt: skip
        return count

    def truths(self) -> int:
        """Broken samples: what is refused is refused in words; else the truth's own answer is never invalid, nor a silent one's zero."""
        rng, task, form, count = self.rng, self.rng.choice(TASKS), self.rng.randrange(10), 8 if self.light else 32
        kept = [inputs.sample(rng, task, number, form) for number in (count, count + 1)]
        good = {record["id"] for record in kept}
        for number in range(count):
            record = inputs.sample(rng, task, number, form)
            part = rng.choice(
                ["reference"] * 6 + ["images"] * 2 + ["kind", "scene", "prompt", "id", "task", "metadata"]
            )
            record[part] = inputs.mutated(rng, record[part], self.files)
            if self.accepted(record, task) and record["id"] not in {one["id"] for one in kept}:
                kept.append(record)
        predictions: list[dict[str, Any]] = []
        for record in kept:
            try:
                predictions.append(inputs.answer(record, 0))
            except (TypeError, AttributeError, KeyError):
                predictions.append({"id": record["id"], "candidate": 0})
            predictions.append({"id": record["id"], "candidate": 1})
        _, rows = self.scored(kept, list(map(inputs.as_line, predictions)))
        if rows is None:
            return count
        roots = [self.files.root]
        made, _ = load_outputs(self.folder / "p.jsonl", load_samples(self.folder / "s.jsonl", roots), roots)
        formed = {output.sample_id for output in made if output.invalid is None}
        self.check_rows(rows, {record["id"] for record in kept})
        for (sample, verifier), pair in rows.groupby(["sample", "verifier"]):
            states = dict(zip(pair["candidate"], pair["status"], strict=True))
            record = next(one for one in kept if one["id"] == sample)
            told = {"verifier": verifier, "statuses": states, "reason": pair["reason"].iloc[0], "reference": json.dumps(record.get("reference"))}  # fmt: skip
            if states.get(0) == "invalid_output" and sample in formed and verifier not in TRUTHLESS:
                self.find("zero", "the truth's own answer is invalid", **told)
            elif "error" in states.values() and sample in good and repr(sample) not in told["reason"]:
                self.find("rows", "the broken truth of another sample cost a good one", **told)
            elif "error" in states.values() and set(states.values()) != {"error"}:
                self.find("zero", "an error for one output and not for the other", **told)
        return count

    def bytes_of_files(self) -> int:
        """Samples, predictions or rubric with broken bytes, or as a folder or a link: a refusal, or rows for all samples that were read."""
        rng, task, count = self.rng, self.rng.choice(TASKS), 4
        samples = [inputs.sample(rng, task, number, 0) for number in range(count)]
        parts = {
            "samples": b"".join(map(inputs.as_line, samples)),
            "predictions": b"".join(inputs.as_line(inputs.answer(record)) for record in samples),
            "rubric": yaml.safe_dump({"components": components(samples, self.light)[:3]}).encode(),
        }
        chosen = rng.choice(list(parts))
        if chosen == "rubric" and rng.random() < 0.7:
            parts[chosen] = _dumped(
                rng, inputs.mutated(rng, {"components": components(samples, self.light)[:3], "gate": 0.5}, self.files)
            )
        else:
            parts[chosen] = inputs.broken_bytes(rng, parts[chosen])
        paths = {name: self.write(f"{name}.jsonl", data) for name, data in parts.items()}
        if rng.random() < 0.1:
            paths[chosen] = rng.choice(
                [self.folder, self.folder / "absent", Path("/dev/null"), self.folder / ("x" * 300)]
            )
        limits = rng.choice([[], ["--limit", 1], ["--on-missing", "drop"]])
        self.command("score", paths["rubric"], "--samples", paths["samples"], "--predictions", paths["predictions"], "--root", self.files.root, "--out", self.folder / "out", *limits)  # fmt: skip
        return 1

    def imports(self) -> int:
        """Another tool's file of answers: what it holds is matched or counted; the file that is written can be read."""
        rng = self.rng
        kind = rng.choice(["json", "csv", "lmms-eval", "vlmevalkit", "inspect", "coco-captions"])
        task = "change_caption" if kind == "coco-captions" else "change_qa"
        samples, asked = self.good(task, 5)
        name, data = inputs.foreign(rng, kind, [record["id"] for record in samples], self.files)
        more = rng.choice([[], [], ["--json"], ["--set", "id=id"], ["--set", "text=a.b"], ["--set", "by=order"], ["--set", "id=[1]"], ["--set", "by=3"], ["--set", "x=1"]])  # fmt: skip
        file = self.folder if rng.random() < 0.05 else self.write(name, data)
        told = self.command("predictions", "from", kind, file, *asked, "--out", self.folder / "o.jsonl", *more)
        if told.code == 0:
            by = ["exact-qa"] if task == "change_qa" else ["coco-caption", *NO_METEOR]
            again = self.command("evaluate", *by, *asked, "--predictions", self.folder / "o.jsonl", "--out", self.folder / "out")  # fmt: skip
            if again.code == 2:
                self.find("rows", f"what was imported cannot be read: {again.err[:200]}", kind=kind)
        return 1

    def validate(self) -> int:
        rng, task = self.rng, self.rng.choice(TASKS)
        (samples, asked), place = self.good(task, 6), rng.randrange(6)
        samples[place] = inputs.mutated(rng, samples[place], self.files)
        self.lines("s.jsonl", samples)
        more = NO_METEOR if task == "change_caption" else []
        self.command("validate", rng.choice(protocols(task)), *more, *asked, *rng.choice([[], ["--json"]]))
        return 1

    def runs(self) -> int:
        """A run directory with one broken file: compared, weighed anew, gone on with."""
        rng, kept = self.rng, self.work / "kept"
        if not kept.exists():
            kept.mkdir()
            samples = [inputs.sample(random.Random(1), "change_qa", number, 0) for number in range(20)]
            answers = [{"id": record["id"], "text": "yes"} for record in samples]
            for name, records in (("s", samples), ("p", answers)):
                shutil.copy(self.lines(f"{name}.jsonl", records), kept)
            (kept / "r.yaml").write_text("components: [{use: exact_match}, {use: answer_format}]")
            shared = ("--samples", kept / "s.jsonl", "--predictions", kept / "p.jsonl", "--out")
            for name in ("a", "b"):
                self.command("evaluate", "exact-qa", *shared, kept / name)
            self.command("score", kept / "r.yaml", *shared, kept / "scored")
        way = rng.choice(["compare", "compare", "reweight", "resume"])
        broken = self.folder / "broken"
        shutil.copytree(kept / ("scored" if way == "reweight" else "a"), broken)
        file = rng.choice(sorted(path for path in broken.rglob("*") if path.suffix in (".json", ".jsonl", ".yaml", ".parquet")))  # fmt: skip
        data = file.read_bytes()
        if file.suffix in (".json", ".yaml") and rng.random() < 0.6:
            data = _dumped(rng, inputs.mutated(rng, yaml.safe_load(data), self.files))
        else:
            data = inputs.broken_bytes(rng, data)
        file.unlink()
        if rng.random() < 0.9:
            file.write_bytes(data)
        elif rng.random() < 0.5:
            file.mkdir()
        if way == "compare":
            form = rng.choice([[], ["--json"], ["--markdown"], ["--latex"], ["--metric", "x"], ["--name", "a"]])
            self.command("compare", kept / "b", broken, *form)
        elif way == "reweight":
            weights = rng.choice(["exact_match=1", "exact_match=1,answer_format=2", "x=1", "exact_match=nan", "=", "exact_match=-1", "exact_match=1e400"])  # fmt: skip
            self.command("reweight", broken, "--weights", weights)
        else:
            self.command("evaluate", "exact-qa", "--samples", kept / "s.jsonl", "--predictions", kept / "p.jsonl", "--out", broken, "--resume")  # fmt: skip
        return 1

    def configurations(self) -> int:
        """Training configurations, read and placed but not started."""
        rng = self.rng
        shipped = sorted((Path(rsw.__file__).parent / "configs").glob("*.yaml"))
        data = rng.choice(shipped).read_bytes()
        data = inputs.broken_bytes(rng, data) if rng.random() < 0.4 else _dumped(rng, inputs.mutated(rng, yaml.safe_load(data), self.files))  # fmt: skip
        more = [word for _ in range(rng.randrange(3)) for word in ("--set", self._setting())]
        self.command("train", self.write("c.yaml", data), "--dry-run", *more, *rng.choice([[], ["--smoke"]]))
        return 1

    def _setting(self) -> str:
        key = self.rng.choice(["grpo.steps", "exact_match.extract", "seed", "policy", "train.source", "", "x.y.z", "rubric.components", "grpo", ".", "exact_match.vocabulary"])  # fmt: skip
        value = self.rng.choice(["1", "-1", "nan", "1e400", "[", "{a: 1", "!!python/object:os.system {}", "&a [*a]", "y" * 10_000, "null", "'", "[1, 2]", "{}", "2020-01-01", "0x10", "\t"])  # fmt: skip
        return key + self.rng.choice(["=", "=", "=", ""]) + value

    def options(self) -> int:
        """Wrong values of options, on files that are good."""
        rng, task = self.rng, self.rng.choice(TASKS)
        samples, asked = self.good(task, 3)
        given = self.lines("p.jsonl", [inputs.answer(record) for record in samples])
        protocol = rng.choice([*protocols(), "", ",", "x", "exact-qa,exact-qa", "../x", "a.py:B", "os:system", "\u202e"])  # fmt: skip
        wrong = [
            ["--limit", rng.choice(["0", "-1", "x", "9" * 30])], ["--root", rng.choice(["", "absent", given, "/dev/null", "\udcff", "x" * 5000])], ["--on-missing", "x"],
            ["--workers", rng.choice(["-1", "x", "1.5"])], ["--device", rng.choice(["cuda", "x", "", "cuda:99"])], ["--set", self._setting()], ["--set", self._setting()],
            ["--samples", rng.choice(["", ".", "absent", "/dev/null", "x" * 5000])], ["--predictions", rng.choice(["", ".", "absent", "-"])], ["--candidates", "0"], ["--temperature", "-1"],
            ["--policy", rng.choice(["x", "", "os:system", given])], ["--out", rng.choice(["", given, "/dev/null/x", "/proc/x", "x" * 5000])], ["--unknown"], ["--resume"], ["--seed", "x"], ["--actors", "-1"],
        ]  # fmt: skip
        changes = [word for choice in rng.sample(wrong, rng.choice([1, 1, 2])) for word in choice]
        arguments = ["evaluate", protocol, *asked, "--predictions", given, "--out", self.folder / "out", *changes]
        other = rng.choice([arguments, arguments, ["compare", *rng.choice([[], ["a"], [self.folder, self.folder], [given, given]])], ["reweight", rng.choice([self.folder, given, "absent"]), *changes], ["validate", protocol, *asked, *changes]])  # fmt: skip
        self.command(*(str(word).replace("\0", "") for word in other))
        return 1

    def calls(self) -> int:
        """One output in Python: a score, or an error of the caller's in one sentence."""
        rng, task = self.rng, self.rng.choice(TASKS)
        record = inputs.sample(rng, task, 0, self.rng.randrange(10))
        given = {"reference": record["reference"], "output": {key: item for key, item in inputs.answer(record).items() if key != "id"}}  # fmt: skip
        part = rng.choice(["reference", "output", "output"])
        arrays = (inputs.RGB, inputs.MASK > 0, inputs.RGB / 255, np.full((64, 64), np.nan), np.zeros(0), np.array("x"), np.ma.masked_equal(inputs.MASK, 0), object(), b"", inputs.RGB.astype(object), {1, 2}, 1j)  # fmt: skip
        given[part] = rng.choice(arrays) if rng.random() < 0.3 else inputs.mutated(rng, given[part], self.files)
        images = [str(self.files.root / self.files.path(name)) for name in record["images"]]
        use = rng.choice(components([record], self.light))["use"]
        began, self.watch.on = time.process_time(), True
        try:
            with contextlib.chdir(self.files.root):
                found = rsw.score(use, images=images, task=task, **given)
            self.statuses[str(found.status)] += 1
        except rsw.RswError as error:
            self.statuses["refused"] += 1
            if "\n" in str(error) or len(str(error)) > 1500:
                self.find("refusal", str(error)[:300], length=len(str(error)), verifier=use)
        except Exception as error:
            self.find("exception", f"{type(error).__name__}: {error}", verifier=use, trace=place_of(error), given=repr(given[part]))  # fmt: skip
        finally:
            self.watch.on = False
        self.cost("score of one", time.process_time() - began)
        return 1

    def round(self, index: int) -> None:
        """Do one round, which follows from the seed and its number alone."""
        self.index, self.rng = index, random.Random(f"{self.seed} {index}")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        ways: list[Callable[[], int]] = [self.outputs] * 5 + [self.truths] * 5 + [self.bytes_of_files, self.imports, self.imports, self.validate, self.runs, self.runs, self.configurations, self.options] + [self.calls] * 3  # fmt: skip
        way = self.rng.choice(ways)
        self.records[way.__name__] += way()
        for kind, why in dict.fromkeys(self.watch.settle()):
            self.find(kind, why, command=" ".join(sys.argv[:3]))
        self.files.tidy()


def _dumped(rng: random.Random, value: Any) -> bytes:
    """YAML or JSON of a value; what cannot be written as YAML is written as JSON, which YAML reads as well."""
    if rng.random() < 0.5:
        with contextlib.suppress(Exception):
            return yaml.safe_dump(value).encode()
    return json.dumps(value).encode()


@contextlib.contextmanager
def workplace(named: Path | None) -> Iterator[Path]:
    """A new folder to work in, of the user's or a temporary one that is removed."""
    with tempfile.TemporaryDirectory(prefix="rsw_fuzz_") as folder:
        yield Path(folder).resolve() if named is None else named.resolve()


def run(
    work: Path, records: int, seed: int, minutes: float, start: int, memory_gb: float, light: bool
) -> dict[str, Any]:
    """Rounds from ``start`` until so many records and files were made, or the time is over; the counts and what was found."""
    warnings.simplefilter("ignore")
    os.environ["HF_HUB_OFFLINE"] = "1"
    fuzz, began, index = Fuzz(work, seed, light), time.monotonic(), start
    signal.signal(signal.SIGALRM, fuzz.tick)
    fuzz.warm()
    held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    resource.setrlimit(resource.RLIMIT_AS, (held + int(memory_gb * 2**30), resource.RLIM_INFINITY))
    while fuzz.records.total() < records and time.monotonic() - began < 60 * minutes:
        fuzz.round(index)
        index += 1
        if index % 50 == 0:
            print(f"round {index}: {fuzz.records.total():,} records, {sum(map(len, fuzz.found.values()))} found", file=sys.stderr, flush=True)  # fmt: skip
    return {
        "seed": seed, "rounds": [start, index], "seconds": round(time.monotonic() - began, 1), "records": dict(fuzz.records), "total": fuzz.records.total(),
        "exit_codes": dict(sorted(fuzz.codes.items())), "statuses": dict(fuzz.statuses), "worst_seconds": round(fuzz.worst["seconds"], 2),
        "worst_gb": round(fuzz.worst["bytes"] / 1e9, 2), "counts": {kind: len(found) for kind, found in fuzz.found.items()}, "found": fuzz.found,
    }  # fmt: skip


def table(found: dict[str, Any]) -> str:
    """What a run found, as a table and the first three of each kind."""
    lines = [f"{found['total']:,} records and files in rounds {found['rounds'][0]} to {found['rounds'][1] - 1} of seed {found['seed']}, {found['seconds']:g} s"]  # fmt: skip
    lines += [f"  {name:<18}{count:>8,}" for name, count in found["records"].items()]
    lines += ["what became of them: " + ", ".join(f"{name} {count:,}" for name, count in found["statuses"].items())]
    lines += ["exit codes: " + ", ".join(f"{name}: {count:,}" for name, count in found["exit_codes"].items())]
    lines += [f"worst over the usual: {found['worst_seconds']} s for a record, {found['worst_gb']} GB over the start", "", "found"]  # fmt: skip
    for kind, count in found["counts"].items():
        lines.append(f"  {kind:<18}{count:>8,}")
        lines += [f"      {json.dumps(one, ensure_ascii=True)}" for one in found["found"][kind][:3]]
    return "\n".join(lines)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--records", type=int, default=10_000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--minutes", type=float, default=float("inf"))
    options.add_argument("--start", type=int, default=0, help="The first round.")
    options.add_argument(
        "--memory", type=float, default=4.0, help="GiB of address space beyond what is used at the start."
    )
    options.add_argument("--work", type=Path, help="A folder that is not there yet, to be kept.")
    options.add_argument("--light", action="store_true", help="Smaller rounds, without verifiers that have networks.")
    options.add_argument("--json", action="store_true")
    asked = options.parse_args()
    with workplace(asked.work) as work:
        found = run(work, asked.records, asked.seed, asked.minutes, asked.start, asked.memory, asked.light)
    print(json.dumps(found) if asked.json else table(found))
    sys.exit(any(found["counts"].values()))
