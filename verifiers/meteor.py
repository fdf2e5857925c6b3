"""METEOR 1.5 by its own program: one Java process for many captions, and the corpus number from sums that it gives per caption."""

from __future__ import annotations

import contextlib
import logging
import shutil
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rsw_rewards.extras import installed_file
from rsw_rewards.verifiers.caption_tokens import pieces

SIZE = 23
"""Statistics of one caption: lengths and function words of candidate and reference; for each of the matchers exact, stem, synonym
and paraphrase the matched content and function words of both; chunks, of which a caption that equals its reference counts none;
matched words of both (MeteorStats and its addStats in METEOR 1.5)."""
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_MATCHERS = np.array([1.0, 0.6, 0.8, 0.6])
"""METEOR 1.5's parameters and matcher weights for English (Denkowski and Lavie 2014, table 1 and the program's defaults)."""

WINDOW = 64
"""Captions that are asked about before an answer is read: their answers fit into a pipe, so that neither side can block the other."""
START_S, ANSWER_S = 180.0, 60.0
"""How long the program may take to load its tables, and to answer for one window of short captions."""
PAIRS_PER_S = 5_000.0
"""Pairs of a caption's word and one of a reference that it gets through in a second at least, on a machine with other work. The longest
caption and references that are scored took it 5 seconds of processor time, 100,000 a second."""
_KEPT = 1 << 14

_log = logging.getLogger("rsw_rewards")


class MeteorError(Exception):
    """METEOR cannot be had; the text says why and what to do."""


def meteor(stats: np.ndarray) -> float:
    """METEOR from the statistics of one caption or their sum over captions.

    Args:
        stats: (23,) float64 as :data:`SIZE` lists them.

    Returns:
        The score in [0, 1]: weighted harmonic mean of precision and recall, less the penalty for scattered matches. 0 without a match.
    """
    lengths, function = stats[:2], stats[2:4]
    matched = stats[4:20].reshape(4, 2, 2)  # matcher, content or function, candidate or reference
    chunks, words = float(stats[20]), float(stats[21:].sum())
    weighted = _DELTA * (lengths - function) + (1 - _DELTA) * function
    hits = _MATCHERS @ (_DELTA * matched[:, 0] + (1 - _DELTA) * matched[:, 1])
    if not (weighted > 0).all() or not (hits > 0).all():
        return 0.0
    precision, recall = (float(share) for share in hits / weighted)
    mean = 1.0 / ((1 - _ALPHA) / precision + _ALPHA / recall)
    return mean * (1.0 - _GAMMA * (2.0 * chunks / words) ** _BETA)


def _additive(stats: np.ndarray) -> np.ndarray:
    """The statistics of a caption as they are summed: a perfect one, which is a single chunk, adds none."""
    if stats[20] == 1.0 and (stats[4:20].reshape(4, 2, 2).sum((0, 1)) == stats[:2]).all():
        stats[20] = 0.0
    return stats


def no_match(stats: np.ndarray) -> np.ndarray:
    """The statistics of a caption as long as the reference that ``stats`` speak of, in which no word matches."""
    worst = np.zeros(SIZE)
    worst[[0, 1]], worst[[2, 3]] = stats[1], stats[3]
    return worst


def jar() -> Path:
    """The program's file. Raises :class:`MeteorError` where it or Java is not installed."""
    found = installed_file("pycocoevalcap", "meteor", "meteor-1.5.jar")
    if found is None:
        raise MeteorError("METEOR needs the program of pycocoevalcap: pip install 'rsw_rewards[meteor]'")
    if shutil.which("java") is None:
        raise MeteorError("METEOR needs Java: install a Java runtime (8 or later) and put 'java' on the PATH")
    return found


def _line(candidate: Sequence[str], references: Sequence[Sequence[str]]) -> str:
    """A question to the program. Its separator is taken out of the texts, as pycocoevalcap's wrapper does with candidates."""
    texts = [" ".join(" ".join(tokens).replace("|||", "").split()) for tokens in (*references, candidate)]
    return " ||| ".join(["SCORE", *texts])


def _pairs(line: str) -> int:
    """How many pairs of a word of the caption and one of a reference a question holds."""
    *references, candidate = (pieces([text]) for text in line.split("|||")[1:])
    return candidate * sum(references)


class Meteor:
    """The running program. It is started by the first question and stopped by :meth:`close`, or with this process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: Any = None
        self._known: dict[str, np.ndarray] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_process": None, "_errors": None, "_known": {}}

    def stats(self, candidates: Sequence[tuple[Sequence[str], Sequence[Sequence[str]]]]) -> list[np.ndarray]:
        """The statistics of captions, (23,) float64 each, against the reference that suits each best.

        Args:
            candidates: tokens of a caption, perhaps none, and those of its references.

        Raises:
            MeteorError: the program is not installed, cannot be started, or does not answer.
        """
        lines = [_line(*candidate) for candidate in candidates]
        answers: dict[str, np.ndarray] = {line: self._known[line] for line in lines if line in self._known}
        todo = [line for line in dict.fromkeys(lines) if line not in answers]
        for start in range(0, len(todo), WINDOW):
            part = todo[start : start + WINDOW]
            answers.update(zip(part, self._ask(part), strict=True))
        if len(self._known) + len(todo) > _KEPT:
            self._known.clear()
        self._known.update(answers)
        return [answers[line] for line in lines]

    def _ask(self, lines: Sequence[str]) -> list[np.ndarray]:
        started = self._process is not None
        work = sum(map(_pairs, lines)) / PAIRS_PER_S
        try:
            return self._exchange(lines, work + (ANSWER_S if started else START_S))
        except MeteorError:
            if not started:
                raise
        return self._exchange(lines, work + START_S)  # restarted once after a crash

    def _exchange(self, lines: Sequence[str], limit: float) -> list[np.ndarray]:
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        watch = threading.Timer(limit, process.kill)
        watch.start()
        try:
            process.stdin.write("".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))
            process.stdin.flush()
            answers = [process.stdout.readline() for _ in lines]
        except OSError:
            answers = [b""]
        finally:
            watch.cancel()
        try:
            found = [
                np.array(answer.split(), dtype=np.float64) for answer in answers
            ]  # a text that is no number raises
        except ValueError:
            found = []
        if not found or any(len(one) != SIZE for one in found):
            said = next((answer for answer in answers if len(answer.split()) != SIZE), b"").decode("utf-8", "replace")
            raise MeteorError(f"METEOR's program gave no answer{self._last_words(said)}")
        return [_additive(one) for one in found]

    def _last_words(self, said: str) -> str:
        """What the program that failed has said, which is then stopped."""
        self._errors.seek(0)
        lines = [said.strip(), *self._errors.read().decode("utf-8", "replace").strip().splitlines()]
        self.close()
        reason = next((line for line in lines if line), "")
        return f": {reason[:200]}" if reason else "; it was too slow, or was killed"

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            program = jar()
            _log.warning("METEOR starts its Java program; the first score takes some seconds")
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
            command = ["java", "-Xmx2G", "-jar", program.name, "-", "-", "-stdio", "-l", "en", "-norm"]
            try:
                self._process = subprocess.Popen(
                    command, cwd=program.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
                )
            except OSError as error:
                raise MeteorError(f"METEOR's program cannot be started: {error}") from error
            self._stop = weakref.finalize(self, _stop, self._process)
        return self._process

    def close(self) -> None:
        """Stop the program; a later question starts it again."""
        if self._process is not None:
            self._stop()
            self._errors.close()
            self._process = None


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in filter(None, (process.stdin, process.stdout)):
        with contextlib.suppress(OSError):  # what was not yet written to a program that died
            pipe.close()
