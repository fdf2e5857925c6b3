"""Commands run in this process, and what is watched meanwhile: how they end, what they read, ask and cost. For ``benchmarks/fuzz.py``."""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import fuzz_inputs as inputs
import numpy as np
import pandas as pd
import yaml

import rsw_rewards as rsw
from rsw_rewards.cli import main
from rsw_rewards.core.rubric import VERIFIERS
from rsw_rewards.evaluation.protocols import PROTOCOLS
from rsw_rewards.io.records_io import load_samples

FINDINGS = (
    "exception", "refusal", "rows", "zero", "error by output", "read outside", "connection", "slow", "memory", "hung",
)  # fmt: skip
SECONDS, BYTES, HANGS = 5.0, 1 << 30, 60
KEYS = ["sample", "candidate", "verifier"]
SETTINGS = {
    "captions": {"meteor": False}, "soft_overlong": {"unit": "words"},
    "published_answer": {"reading": "mme-realworld"}, "published_box": {"reading": "vrsbench"},
}  # fmt: skip
"""METEOR starts Java, which takes seconds, and is left out; predictions of others hold no tokens; what has no default is named."""
NEEDY = ("open-qa", "txt2img-mhn-rsicd", "levir-cc-ids", "tfsf", "clip_rsicd", "lpips", "judge")
"""What works with a service, or with files that are not shipped."""
NO_METEOR = ["--set", "captions.meteor=false"]


def components(samples: list[dict[str, Any]], light: bool = False) -> list[dict[str, Any]]:
    """All verifiers that can score the samples one by one, as components of a rubric; ``light`` leaves those with networks out."""
    networks = {"encoder", "network", "detector"} if light else set()
    truth = set.intersection(*({f"reference.{key}" for key in record.get("reference") or {}} for record in samples))
    return [
        {"use": name, "required": False, "weight": float(known.rewarding), "config": SETTINGS.get(name, {})}
        for name, known in VERIFIERS.all().items()
        if samples[0]["task"] in known.tasks and known.scope == "sample" and name not in NEEDY and not known.needs & networks
        and {need for need in known.needs if need.startswith("reference.")} <= truth
    ]  # fmt: skip


def protocols(task: str | None = None) -> list[str]:
    """Protocols of a task, or of all."""
    return [name for name, one in PROTOCOLS.all().items() if task in (None, one.task) and name not in NEEDY]


class Hung(BaseException):
    """A command did not come back; no handler of the project's catches it."""


class Watch:
    """What the process opens and connects to: by Python's audit events, by the folder outside, and by a port that nobody may ask."""

    def __init__(self, work: Path) -> None:
        self.found: list[tuple[str, str]] = []
        self.on = False
        project = Path(rsw.__file__).resolve().parents[1]
        allowed = [*(work / name for name in ("images", "round", "tmp", "kept")), project, *map(Path, (sys.prefix, sys.base_prefix, "/proc", "/sys", "/usr", "/dev/null", "/dev/shm", "/etc"))]  # fmt: skip
        self._allowed = (*(str(path.resolve()) for path in allowed), "/dev/null")
        self._own = {"localhost", "127.0.0.1", "::1", socket.gethostname(), None, ""}
        with contextlib.suppress(OSError):
            self._own.update(socket.gethostbyname_ex(socket.gethostname())[2])
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.setblocking(False)
        sys.addaudithook(self._heard)

    def outside(self, folder: Path) -> None:
        """Count every opening of a file in the folder, also by libraries that are not Python (Linux alone)."""
        libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = libc.inotify_init1(os.O_NONBLOCK)
        libc.inotify_add_watch(self._inotify, os.fsencode(folder), 0x20)  # IN_OPEN

    def _heard(self, event: str, given: tuple[Any, ...]) -> None:
        if not self.on or event not in ("open", "socket.connect", "socket.getaddrinfo"):
            return
        if event == "open" and isinstance(given[0], str | bytes | os.PathLike):
            path = os.path.realpath(os.fsdecode(given[0]))
            if not path.startswith(self._allowed):
                self.found.append(("read outside", path[:200]))
        elif event != "open":
            host = given[1] if event == "socket.connect" else given[0]
            host = host[0] if isinstance(host, tuple) else None if event == "socket.connect" else host
            if host not in self._own:
                self.found.append(("connection", f"{event} {host!r:.100}"))

    def settle(self) -> list[tuple[str, str]]:
        """What was seen since the last call."""
        found, self.found = self.found, []
        with contextlib.suppress(BlockingIOError):
            if os.read(self._inotify, 1 << 16):
                found.append(("read outside", "a file in the folder that is outside"))
        with contextlib.suppress(BlockingIOError):
            connection, _ = self.server.accept()
            connection.close()
            found.append(("connection", "the port that a path or a tag named was asked"))
        return found


class Told(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


class Commands:
    """A folder to work in, the commands that ran there, what was counted and what was found."""

    def __init__(self, work: Path, seed: int, light: bool = False) -> None:
        self.work, self.seed, self.light = work, seed, light
        self.folder, temporary = work / "round", work / "tmp"
        temporary.mkdir(parents=True)
        tempfile.tempdir = str(temporary)
        self.watch = Watch(work)
        self.files = inputs.Files(work, self.watch.server.getsockname()[1])
        self.watch.outside(self.files.outside)
        self.records: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.found: dict[str, list[dict[str, Any]]] = {name: [] for name in FINDINGS}
        self.usual: dict[str, list[float]] = defaultdict(list)
        self.worst = {"seconds": 0.0, "bytes": 0}
        self.index, self.rng = 0, random.Random(seed)
        self.memory, self.began, self.ticked = 0, 0.0, 0.0

    def find(self, kind: str, why: object, **more: object) -> None:
        self.found[kind].append({"round": self.index, "why": str(why)[:600], **{key: str(item)[:400] for key, item in more.items()}})  # fmt: skip

    def tick(self, *_: object) -> None:
        """Stop a command that waits, or works without end; one on a busy machine goes on."""
        now = time.process_time()
        if now - self.ticked < 1 or now - self.began > HANGS:
            raise Hung
        self.ticked = now

    def command(self, *arguments: object) -> Told:
        """Run a command here, and judge how it ended and what it cost."""
        out, err, name = io.StringIO(), io.StringIO(), str(arguments[0])
        sys.argv = ["rsw", *map(str, arguments)]
        began, code = time.process_time(), 0
        self.began = self.ticked = began
        signal.setitimer(signal.ITIMER_REAL, HANGS, HANGS)
        self.watch.on = True
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        except Hung as stopped:
            self.find("hung", "no end", command=" ".join(sys.argv[:3]), trace=place_of(stopped))
            code = -1
        except BaseException as error:
            self.find(
                "exception", f"{type(error).__name__}: {error}", command=" ".join(sys.argv[:3]), trace=place_of(error)
            )
            code = -1
        finally:
            self.watch.on = False
            signal.setitimer(signal.ITIMER_REAL, 0)
        self.cost(name, time.process_time() - began)
        self.codes[f"{name} {code}"] += 1
        told = Told(code, out.getvalue(), err.getvalue())
        said = [line for line in told.err.splitlines() if line.startswith("rsw: ")]
        if code not in (0, 1, 2, -1):
            self.find("refusal", f"the exit code is {code}")
        if "Traceback" in told.err:
            self.find("exception", told.err[-500:])
        if code == 2 and "Usage:" not in told.err and (len(said) != 1 or told.err.strip().count("\n") or len(said[0]) > 1500):  # fmt: skip
            self.find(
                "refusal", f"not one sentence of at most 1,500 characters: {told.err[:300]!r}", length=len(told.err)
            )
        return told

    def cost(self, name: str, seconds: float) -> None:
        """Seconds over what the command usually takes are laid to one record; so is memory beyond the most there was."""
        usual = self.usual[name]
        over = max(0.0, seconds - float(np.median(usual))) if len(usual) > 5 else 0.0
        usual.append(seconds)
        self.worst["seconds"] = max(self.worst["seconds"], over)
        if over > SECONDS:
            self.find("slow", f"{over:.1f} s of processor time more than usual", command=" ".join(sys.argv[:3]))
        most = peak()
        if self.memory and most > self.memory + BYTES and most > self.worst["bytes"] + self.memory:
            self.find("memory", f"{(most - self.memory) / 1e9:.2f} GB over the start", command=" ".join(sys.argv[:3]))
        self.worst["bytes"] = max(self.worst["bytes"], most - self.memory)

    def write(self, name: str, data: bytes) -> Path:
        file = self.folder / name
        file.write_bytes(data)
        return file

    def lines(self, name: str, records: list[dict[str, Any]]) -> Path:
        return self.write(name, b"".join(map(inputs.as_line, records)))

    def scored(
        self, samples: list[dict[str, Any]], predictions: list[bytes], rubric: float = 0.6
    ) -> tuple[Told, pd.DataFrame | None]:
        """Score predictions by all verifiers of the task, or evaluate them by a protocol of it; the scores, where there are any."""
        asked, given = self.lines("s.jsonl", samples), self.write("p.jsonl", b"".join(predictions))
        files = ("--samples", asked, "--predictions", given, "--root", self.files.root)
        out = self.folder / "out"
        more = self.rng.choice([[], ["--json"]])
        if self.rng.random() < (max(rubric, 0.85) if self.light else rubric):
            written = self.write("r.yaml", yaml.safe_dump({"components": components(samples, self.light)}).encode())
            told = self.command("score", written, *files, "--out", out, *more)
        else:
            more = [*more, *(NO_METEOR if samples[0]["task"] == "change_caption" else [])]
            told = self.command("evaluate", self.rng.choice(protocols(samples[0]["task"])), *files, "--out", out, *more)
        table = out / "scores.parquet"
        return told, pd.read_parquet(table, columns=[*KEYS, "status", "value", "reason"]) if table.exists() else None

    def check_rows(self, rows: pd.DataFrame, ids: set[str]) -> None:
        """Every sample has a row of every verifier, once for a candidate; only what was scored has a value."""
        verifiers = rows["verifier"].nunique()
        if set(rows["sample"]) != ids or rows.duplicated(KEYS).any() or (rows.groupby(KEYS[:2]).size() != verifiers).any():  # fmt: skip
            self.find("rows", f"{len(ids)} samples and {verifiers} verifiers gave {len(rows)} rows of {rows['sample'].nunique()} samples")  # fmt: skip
        fault = rows["status"].isin(["error", "timeout", "not_applicable"]) & rows["value"].notna()
        if fault.any():
            self.find("zero", rows[fault].iloc[0].to_dict())
        self.statuses.update(rows["status"])

    def accepted(self, record: dict[str, Any], task: str) -> bool:
        """Whether a record is a sample of the task."""
        try:
            (found,) = load_samples(self.write("one.jsonl", inputs.as_line(record)), [self.files.root])
        except rsw.InputError as error:
            if "\n" in str(error) or len(str(error)) > 1500:
                self.find("refusal", str(error)[:300], length=len(str(error)))
            return False
        except Exception as error:
            self.find("exception", f"{type(error).__name__}: {error}", trace=place_of(error), record=json.dumps(record))
            return False
        return str(found.task) == task


def place_of(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))


def peak() -> int:
    """The most bytes of memory that this program held; those of the process that started it do not count, unlike in ``ru_maxrss``."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
