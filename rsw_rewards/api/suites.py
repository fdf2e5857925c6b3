"""Suites: several protocols over several data sets in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsw_rewards.api.common import File, check_device
from rsw_rewards.api.evaluating import evaluate
from rsw_rewards.errors import ConfigError, InputError, RswError

if TYPE_CHECKING:
    from rsw_rewards.core.records import Sample
    from rsw_rewards.evaluation.evaluation import Evaluation
    from rsw_rewards.evaluation.progress import Progress
    from rsw_rewards.evaluation.suite import Suite, SuiteRow

OWN_KEYS = frozenset({"name", "protocol", "data", "settings", "limit", "candidates", "temperature"})


def suite(
    config: File | Mapping[str, Any],
    out: File,
    *,
    policy: Any = None,
    predictions: File | None = None,
    model: str = "",
    only: Sequence[str] = (),
    resume: bool = False,
    actors: int = 0,
    workers: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Suite:
    """Evaluate a model by a suite: one row of headline metrics, what failed and why, and one page.

    A part that fails costs itself alone. ``out`` holds ``suite.html``, ``suite.json``, ``row.md`` and a run directory a part and protocol.

    Args:
        config: a YAML file or a mapping with ``title`` and ``parts``. A part has ``name``, ``protocol`` (a name or a list), ``data`` (a
            ``source`` and its options, as a training configuration has them) and, if need be, ``settings``, ``limit``, ``candidates``,
            ``temperature``.
        out: a folder.
        policy: what makes the outputs, as for :func:`evaluate`; or
        predictions: a folder that holds a file ``<part>.jsonl`` or a folder ``<part>`` for every part.
        model: what the row is called; the policy or the folder of predictions where left out.
        only: names of the parts to run; all where none is named.
        resume: go on with what is in ``out``: only what is missing or failed is done. The rows of parts that are not run stay.
        actors, workers, device, progress: as for :func:`evaluate`.

    Raises:
        ConfigError: the suite cannot be read, or neither policy nor predictions are given.
        InputError: ``out`` holds another run, or a suite of another title, model or policy.

    >>> part = {"name": "roads", "protocol": "exact-qa", "data": {"source": "scene-world", "split": "test", "questions": 8, "forecasts": 0}}
    >>> found = rsw.suite({"title": "mine", "parts": [part]}, "runs/mine", policy="oracle")
    >>> [(row.part, row.headline, row.value) for row in found.rows]
    [('roads', 'accuracy', 1.0)]
    """
    from rsw_rewards.core.yaml_text import read_yaml
    from rsw_rewards.evaluation.suite import Suite, SuiteRow, row_of

    if (policy is None) == (predictions is None):
        raise ConfigError("give either a policy (--policy NAME) or a folder of predictions (--predictions FOLDER)")
    check_device(device)
    where = "the suite" if isinstance(config, Mapping) else str(config)
    content = dict(config) if isinstance(config, Mapping) else read_yaml(Path(config))
    parts = _parts(content, where)
    if unknown := [name for name in only if name not in [part["name"] for part in parts]]:
        raise ConfigError(f"{where} has no part {unknown[0]!r}; it has {', '.join(part['name'] for part in parts)}")
    asked = [part for part in parts if not only or part["name"] in only]
    folder = Path(out)
    named = str(policy) if isinstance(policy, str) else type(policy).__name__
    answers = f"the policy {named}" if predictions is None else f"the predictions in {Path(predictions).resolve()}"
    called = model or (named if predictions is None else str(predictions))
    title = str(content.get("title") or where)
    rows = {(row.part, row.protocol): row for row in _earlier(folder, Suite(title, called, answers=answers), resume)}
    samples: dict[str, list[Sample]] = {}
    for number, part in enumerate(asked):
        if progress is not None:
            progress("suite", number, len(asked))
        protocols = _protocols(part)
        for protocol in protocols:
            place = f"{part['name']}/{protocol}" if len(protocols) > 1 else part["name"]
            try:
                given = None if predictions is None else _predictions(Path(predictions), part["name"])
                found: Evaluation = evaluate(
                    protocol, _samples(part, samples), given, folder / place, policy=policy, settings=part.get("settings"),
                    limit=part.get("limit"), candidates=part.get("candidates", 1), temperature=part.get("temperature", 0.0), resume=resume,
                    actors=actors, workers=workers, device=device, progress=progress,
                )  # fmt: skip
                rows[part["name"], protocol] = row_of(part["name"], found, place)
            except RswError as error:
                rows[part["name"], protocol] = SuiteRow(part["name"], protocol, failed=str(error))
            made = Suite(title, called, _in_order(rows, parts), answers)
            made.save(folder)
    if progress is not None:
        progress("suite", len(asked), len(asked))
    return made


def _earlier(folder: Path, asked: Suite, resume: bool) -> Sequence[SuiteRow]:
    """The rows of the suite in a folder, none where there is none. Raises :class:`InputError` for a suite of something else."""
    from rsw_rewards.evaluation.suite import FILES, read_suite

    if not (folder / FILES[0]).exists():
        return ()
    if not resume:
        raise InputError(f"{folder} holds a suite already; go on with --resume (resume=True), or name another folder")
    there = read_suite(folder)
    for what, old, new in (
        ("the title", there.title, asked.title),
        ("the model", there.model, asked.model),
        ("answers of", there.answers or asked.answers, asked.answers),
    ):
        if old != new:
            raise InputError(
                f"{folder} holds a suite with {what} {old!r}, not {new!r}; name another folder for this one"
            )
    return there.rows


def _in_order(rows: Mapping[tuple[str, str], SuiteRow], parts: Sequence[Mapping[str, Any]]) -> list[SuiteRow]:
    """Rows in the order of the suite; those of parts that it does not name stand at the end."""
    places = ((part["name"], protocol) for part in parts for protocol in _protocols(part))
    return [rows[place] for place in dict.fromkeys((*places, *rows)) if place in rows]


def _protocols(part: Mapping[str, Any]) -> list[str]:
    return part["protocol"] if isinstance(part["protocol"], list) else [part["protocol"]]


def _parts(content: Mapping[str, Any], where: str) -> list[Mapping[str, Any]]:
    """The parts of a suite, checked. Raises :class:`ConfigError`."""
    from rsw_rewards.evaluation.suite import FILES

    parts = content.get("parts")
    if not isinstance(parts, list) or not parts or not all(isinstance(part, Mapping) for part in parts):
        raise ConfigError(f"{where}: 'parts' must be a list of mappings with name, protocol and data")
    for part in parts:
        name = part.get("name")
        if not isinstance(name, str) or not name or name in (".", "..") or any(sign in name for sign in "/\\\0"):
            raise ConfigError(f"{where}: a part needs a 'name' without slashes, not {name!r:.80}")
        if name.lower() in FILES:
            raise ConfigError(f"{where}: no part can be named {name!r}, which is a file of the suite")
        of = f"of the part {name!r}"
        if lacking := {"protocol", "data"} - part.keys():
            raise ConfigError(f"{where}: the part {name!r} lacks {' and '.join(sorted(lacking))}")
        if unknown := part.keys() - OWN_KEYS:
            raise ConfigError(
                f"{where}: the part {name!r} has no key {min(map(str, unknown))!r}; its keys are {', '.join(sorted(OWN_KEYS))}"
            )
        protocols = _protocols(part)
        if not protocols or not all(isinstance(one, str) for one in protocols) or len({*protocols}) < len(protocols):
            raise ConfigError(f"{where}: 'protocol' {of} must be a name, or a list of names that differ")
        data, settings = part["data"], part.get("settings")
        if not isinstance(data, Mapping) or not isinstance(data.get("source"), str):
            raise ConfigError(f"{where}: 'data' {of} must be a mapping with a 'source'")
        if settings is not None and not isinstance(settings, Mapping):
            raise ConfigError(f"{where}: 'settings' {of} must be a mapping, not {settings!r:.80}")
        if odd := [key for key in (*data, *(settings or ())) if not isinstance(key, str)]:
            raise ConfigError(f"{where}: the key {odd[0]!r} {of} must be a text; write it in quotes")
    names = [part["name"] for part in parts]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{where}: two parts are named {twice!r}; give each a name of its own")
    return parts


def _samples(part: Mapping[str, Any], known: dict[str, list[Sample]]) -> list[Sample]:
    """The samples of a part; those of an earlier part with the same data are taken again."""
    from rsw_rewards.config import DataSpec
    from rsw_rewards.training.sources import load_source

    key = repr(part["data"])
    if key not in known:
        known[key] = load_source(DataSpec(**part["data"]), 0, f"the part {part['name']!r}")
    return known[key]


def _predictions(folder: Path, part: str) -> Path:
    """The predictions for a part. Raises :class:`InputError` where there are none."""
    found = next(
        (place for place in (folder / f"{part}.jsonl", folder / f"{part}.jsonl.gz", folder / part) if place.exists()),
        None,
    )
    if found is None:
        raise InputError(f"{folder} holds neither {part}.jsonl nor a folder {part}")
    return found
