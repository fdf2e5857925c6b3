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
    """Run a suite: one row of headline numbers, what failed and why, and one page.

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
        resume: go on with what is in ``out``: only what is missing or failed is done.
        actors, workers, device, progress: as for :func:`evaluate`.

    Raises:
        ConfigError: the suite cannot be read, or neither policy nor predictions are given.
        InputError: ``out`` holds another run.

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
    parts = _parts(content, where, only)
    folder = Path(out)
    if (folder / "suite.json").exists() and not resume:
        raise InputError(f"{folder} holds a suite already; go on with --resume (resume=True), or name another folder")
    named = policy if isinstance(policy, str) else type(policy).__name__
    called = model or (str(predictions) if predictions is not None else str(named))
    title = str(content.get("title") or where)
    rows: list[SuiteRow] = []
    known: dict[str, list[Sample]] = {}
    for number, part in enumerate(parts):
        if progress is not None:
            progress("suite", number, len(parts))
        protocols = part["protocol"] if isinstance(part["protocol"], list) else [part["protocol"]]
        for protocol in protocols:
            place = f"{part['name']}/{protocol}" if len(protocols) > 1 else part["name"]
            try:
                samples = known.setdefault(repr(part["data"]), _samples(part, known))
                given = None if predictions is None else _predictions(Path(predictions), part["name"])
                found: Evaluation = evaluate(
                    protocol, samples, given, folder / place, policy=policy, settings=part.get("settings"), limit=part.get("limit"),
                    candidates=part.get("candidates", 1), temperature=part.get("temperature", 0.0), resume=resume, actors=actors,
                    workers=workers, device=device, progress=progress,
                )  # fmt: skip
                rows.append(row_of(part["name"], found, place))
            except RswError as error:
                rows.append(SuiteRow(part["name"], str(protocol), failed=str(error)))
            Suite(title, called, rows).save(folder)
    if progress is not None:
        progress("suite", len(parts), len(parts))
    return Suite(title, called, rows)


def _parts(content: Mapping[str, Any], where: str, only: Sequence[str]) -> list[Mapping[str, Any]]:
    """The parts of a suite, checked. Raises :class:`ConfigError`."""
    parts = content.get("parts")
    if not isinstance(parts, list) or not parts or not all(isinstance(part, Mapping) for part in parts):
        raise ConfigError(f"{where}: 'parts' must be a list of mappings with name, protocol and data")
    for part in parts:
        name = part.get("name")
        if not isinstance(name, str) or not name or name in (".", "..") or any(sign in name for sign in "/\\\0"):
            raise ConfigError(f"{where}: a part needs a 'name' without slashes, not {name!r:.80}")
        if lacking := {"protocol", "data"} - part.keys():
            raise ConfigError(f"{where}: the part {name!r} lacks {' and '.join(sorted(lacking))}")
        if unknown := part.keys() - OWN_KEYS:
            raise ConfigError(
                f"{where}: the part {name!r} has no key {min(unknown)!r}; its keys are {', '.join(sorted(OWN_KEYS))}"
            )
        if not isinstance(part["data"], Mapping) or not isinstance(part["data"].get("source"), str):
            raise ConfigError(f"{where}: 'data' of the part {name!r} must be a mapping with a 'source'")
    names = [part["name"] for part in parts]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{where}: two parts are named {twice!r}; give each a name of its own")
    for name in only:
        if name not in names:
            raise ConfigError(f"{where} has no part {name!r}; it has {', '.join(names)}")
    return [part for part in parts if not only or part["name"] in only]


def _samples(part: Mapping[str, Any], known: Mapping[str, list[Sample]]) -> list[Sample]:
    """The samples of a part; those of an earlier part with the same data are taken again."""
    from rsw_rewards.config import DataSpec
    from rsw_rewards.training.sources import load_source

    if (found := known.get(repr(part["data"]))) is not None:
        return found
    return load_source(DataSpec(**part["data"]), 0, f"the part {part['name']!r}")


def _predictions(folder: Path, part: str) -> Path:
    """The predictions for a part. Raises :class:`InputError` where there are none."""
    found = next(
        (place for place in (folder / f"{part}.jsonl", folder / f"{part}.jsonl.gz", folder / part) if place.exists()),
        None,
    )
    if found is None:
        raise InputError(f"{folder} holds neither {part}.jsonl nor a folder {part}")
    return found
