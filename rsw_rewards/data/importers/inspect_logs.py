"""Answers in the logs of inspect_ai: ``.json``, or ``.eval``, a zip archive with one JSON file per sample and epoch.

Source: github.com/UKGovernmentBEIS/inspect_ai, ``src/inspect_ai/log/_log.py`` (EvalSample) and ``log/_recorders/eval.py``.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rsw_rewards.core.answer import TRUNCATED
from rsw_rewards.data.importers.fields import answer as checked
from rsw_rewards.data.importers.fields import as_text, dig
from rsw_rewards.data.importers.matching import Answer
from rsw_rewards.errors import InputError
from rsw_rewards.io.text_files import load_json, parse_json

MAX_MEMBER_BYTES = 1 << 28
"""Largest sample of an archive that is unpacked (256 MiB)."""
MAX_MEMBERS = 1_000_000

_SAMPLE = re.compile(r"samples/.+_epoch_\d+(?:\.json|/sample\.json)")
_ATTACHMENT = "attachment://"


def _message(sample: Mapping[str, Any]) -> Any:
    """The text of the first choice: content parts of type text joined, attachments looked up; else the stored completion."""
    output = sample.get("output")
    choices = output.get("choices") if isinstance(output, Mapping) else None
    content = dig(choices[0], "message.content") if isinstance(choices, list) and choices else None
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
        content = "".join(part for part in parts if isinstance(part, str)) if parts else None
    if content is None:
        content = dig(output, "completion") or None
    if isinstance(content, str) and content.startswith(_ATTACHMENT):
        attachments = sample.get("attachments")
        content = attachments.get(content.removeprefix(_ATTACHMENT)) if isinstance(attachments, Mapping) else None
    return content


def _answer(where: str, sample: Any, id: str | None, text: str | None) -> Answer:
    if not isinstance(sample, Mapping) or "output" not in sample:
        return Answer(where, None, problem="it is no sample of inspect: it has no 'output'")
    name = as_text(dig(sample, id or "id"))
    said = dig(sample, text) if text else _message(sample)
    finish = as_text(dig(sample, "output.choices.0.stop_reason"))
    if said is None and finish not in TRUNCATED:
        error = dig(sample, "error.message")
        why = f"the sample failed: {str(error)[:120]}" if error else "its output has no text"
        return Answer(where, name, problem=why)
    epoch = sample.get("epoch", 1)
    candidate = epoch - 1 if isinstance(epoch, int) and not isinstance(epoch, bool) else 0
    # Logs are sorted by id, not as the data set was: there is no position to tell.
    return checked(where, name, said, candidate=candidate, target=as_text(sample.get("target")), finish_reason=finish)


def _members(file: Path) -> Iterator[tuple[str, Any]]:
    try:
        with zipfile.ZipFile(file) as archive:
            if len(archive.infolist()) > MAX_MEMBERS:
                raise InputError(f"{file} holds more than the {MAX_MEMBERS:,} entries that are read")
            for member in archive.infolist():
                if not _SAMPLE.fullmatch(member.filename):
                    continue
                where = f"{file}: {member.filename}"
                if member.file_size > MAX_MEMBER_BYTES:
                    raise InputError(
                        f"{where} declares {member.file_size:,} bytes, more than the {MAX_MEMBER_BYTES:,} that are read"
                    )
                with archive.open(member) as stream:
                    # The declared size may lie, so reading is bounded as well.
                    data = stream.read(MAX_MEMBER_BYTES + 1)
                if len(data) > MAX_MEMBER_BYTES:
                    raise InputError(f"{where} unpacks to more than the {MAX_MEMBER_BYTES:,} bytes that are read")
                yield where, parse_json(data, where)
    except NotImplementedError as error:
        raise InputError(
            f"{file} is compressed in a way that this Python cannot unpack; write it as JSON with: inspect log convert {file.name} --to json --output-dir DIR"
        ) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError) as error:
        raise InputError(f"{file} cannot be read as an .eval archive: {error}") from error


def read_inspect(file: Path, id: str | None = None, text: str | None = None) -> Iterator[Answer]:
    """A log of inspect_ai: the first choice's message of every sample; epochs are candidates."""
    if zipfile.is_zipfile(file):
        for where, sample in _members(file):
            yield _answer(where, sample, id, text)
        return
    loaded = load_json(file)
    samples = loaded.get("samples") if isinstance(loaded, dict) else None
    if not isinstance(samples, list):
        raise InputError(f"{file} should be a log of inspect, with a list 'samples'; or an .eval archive")
    for number, sample in enumerate(samples):
        yield _answer(f"{file}: sample {number}", sample, id, text)
