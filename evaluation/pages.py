"""What pages share: templates that need no network, cards of outputs, and the pages of all samples beside a report."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from rsw_rewards.core.files import write_text
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.scores import Status
from rsw_rewards.errors import InputError
from rsw_rewards.evaluation.numbers import arrow, compact, number, signed
from rsw_rewards.evaluation.pictures import drawn, pictures
from rsw_rewards.evaluation.progress import Progress
from rsw_rewards.evaluation.published import footnote
from rsw_rewards.evaluation.summary import in_words

if TYPE_CHECKING:
    import pandas as pd
    from jinja2 import Environment

LONGEST_TEXT = 600
"""Characters of a text that are shown."""
CARDS = 60
"""Most samples of a page."""
PAGE_LIMIT = 3_500_000
"""Characters of images on a page of samples, which keeps it below 5 MB."""
KEPT = 512
"""Pictures that are kept for the next cards of the same images."""
NOT_OK = (Status.INVALID_OUTPUT, Status.ERROR, Status.TIMEOUT)
SCORE_COLUMNS = ("sample", "candidate", "verifier", "value", "status", "reason", "raw")
"""What a card shows of a score table."""
_BEGIN, _END = '<script type="application/json">', "</script>"

Key = tuple[str, int]
"""Sample and candidate."""


class Card(NamedTuple):
    """One output as a page shows it."""

    key: Key
    sample: Sample
    output: Output
    content: dict[str, Any]
    """What the page says of it, as JSON. ``pictures`` is empty until its page is written."""


def render(template: str, **values: Any) -> str:
    """A page from a template of ``evaluation/templates``. What comes from files is escaped.

    Args:
        template: its file name.
        **values: what it shows.
    """
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    loader = PackageLoader("rsw_rewards.evaluation")
    found = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    found.policies["json.dumps_kwargs"] = {"separators": (",", ":")}  # in the order of the values, not of their names
    folder = Path(__file__).parent / "templates"
    found.globals["file"] = cache(lambda name: Markup((folder / name).read_text(encoding="utf-8").removesuffix("\n")))
    found.filters |= {
        "number": number,
        "signed": signed,
        "compact": compact,
        "arrow": arrow,
        "footnote": footnote,
        "in_words": in_words,
    }
    return found


def cards_of(frame: pd.DataFrame, samples: Iterable[Sample], outputs: Iterable[Output]) -> list[Card]:
    """A card for every output, in their order, without pictures.

    Args:
        frame: a score table.
        samples: what was asked.
        outputs: the answers.
    """
    rows, asked = score_rows(frame[list(SCORE_COLUMNS)]), {sample.id: sample for sample in samples}
    cards = []
    for output in outputs:
        key, sample = (output.sample_id, output.candidate), asked[output.sample_id]
        # A verifier of sets has a row without a value for every output.
        scores = [
            one for one in map(score, rows.get(key, ()))
            if one["status"] != Status.OK or one["value"] is not None or one["raw"]
        ]  # fmt: skip
        statuses = {one["status"] for one in scores}
        said = output.text if output.text is not None else output.invalid or output.lost or ""
        truth = truth_of(sample)
        content = {
            "why": "",
            "id": sample.id,
            "candidate": output.candidate,
            "kind": sample.kind or "",
            "status": next((status for status in map(str, NOT_OK) if status in statuses), str(Status.OK)),
            "prompt": shortened(sample.prompt),
            "pictures": [],
            "answer": shortened(said),
            "truth": "" if truth == sample.prompt else shortened(truth),
            "scores": scores,
        }
        cards.append(Card(key, sample, output, content))
    return cards


def score_rows(frame: pd.DataFrame) -> dict[Key, list[dict[Any, Any]]]:
    """The rows of a score table by output."""
    found: dict[Key, list[dict[Any, Any]]] = {}
    for row in frame.to_dict("records"):
        found.setdefault((row["sample"], row["candidate"]), []).append(row)
    return found


def score(row: Mapping[Any, Any]) -> dict[str, Any]:
    """What a page shows of one score, a record of a score table."""
    return {
        "verifier": row["verifier"],
        "status": str(row["status"]),
        "value": None if row["value"] is None or row["value"] != row["value"] else float(row["value"]),
        "raw": {key: None if value != value else value for key, value in (row.get("raw") or {}).items()},
        "reason": shortened(row["reason"] or ""),
    }


def shortened(text: str, most: int = LONGEST_TEXT) -> str:
    """At most ``most`` characters of a text."""
    return text if len(text) <= most else text[: most - 1] + "…"


def truth_of(sample: Sample) -> str:
    """What is known to be true, as a text: all answers, captions or labels."""
    reference = sample.reference
    for key in ("answers", "captions", "labels"):
        if reference.get(key):
            return " / ".join(str(item) for item in reference[key])
    return str(reference.get("label") or reference.get("text") or "")


def gathered(cards: Iterable[Mapping[str, Any]], limit: float = math.inf) -> dict[str, Any]:
    """Cards as one page holds them: ``images``, every picture once, and ``cards``, which name pictures by their number.

    Args:
        cards: what the page shows, and beyond: those that do not fit are left out.
        limit: most characters of pictures on the page; a larger card has a page of its own.

    >>> one = {"pictures": [{"label": "input 1", "src": "data:a"}], "sides": [{"pictures": [{"label": "again", "src": "data:a"}]}]}
    >>> gathered([one])["images"], gathered([one])["cards"][0]["sides"][0]["pictures"]
    (['data:a'], [{'label': 'again', 'image': 0}])
    """
    images: dict[str, int] = {}
    listed: list[dict[str, Any]] = []
    used = 0
    for card in cards:
        parts = [dict(part) for part in (card, *card.get("sides", ()))]
        sources = dict.fromkeys(
            one["src"]
            for part in parts
            for one in part.get("pictures", ())
            if "src" in one and one["src"] not in images
        )
        used += sum(map(len, sources))
        if listed and used > limit:
            break
        for source in sources:
            images[source] = len(images)
        for part in parts:
            part["pictures"] = [
                {**{key: value for key, value in one.items() if key != "src"}, "image": images[one["src"]]}
                if "src" in one else one
                for one in part.get("pictures", ())
            ]  # fmt: skip
        shown, *sides = parts
        listed.append({**shown, "sides": sides} if "sides" in card else shown)
    return {"images": list(images), "cards": listed}


def folder_of(report: Path) -> Path:
    """Where the pages of a report lie: ``report/`` beside ``report.html``. Raises :class:`InputError` for a report of another name."""
    if report.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"the report {report} must end in .html; its pages lie in a folder of that name")
    return report.with_suffix("")


def write_pages(
    report: Path, name: str, cards: Sequence[Card], kept: Collection[Key], progress: Progress
) -> tuple[list[str], dict[Key, dict[str, Any]]]:
    """Write the pages of all samples, in place of those that are there.

    Args:
        report: the page beside which they lie.
        name: of the run.
        cards: of all outputs.
        kept: the outputs whose cards are returned with their pictures.
        progress: told how far the work is.

    Returns:
        The address of every card from the report, and the cards of ``kept``.
    """
    folder = folder_of(report)
    for old in folder.glob("samples-*.html"):
        old.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    links: list[str] = []
    whole: dict[Key, dict[str, Any]] = {}
    # Drawn cards that have no page yet: at most CARDS, since the pictures of all samples would fill the memory.
    waiting: list[dict[str, Any]] = []
    page_number, known = 0, lru_cache(KEPT)(drawn)
    while len(links) < len(cards):
        start = len(links) + len(waiting)
        for place, card in enumerate(cards[start : len(links) + CARDS], start):
            progress("pages of samples", place, len(cards))
            content = {**card.content, "pictures": pictures(card.sample, card.output, known=known)}
            if card.key in kept:
                whole[card.key] = content
            waiting.append({**content, "anchor": f"s{place}"})
        page = gathered(waiting, PAGE_LIMIT)
        del waiting[: len(page["cards"])]
        page_number += 1
        file = f"samples-{page_number:04d}.html"
        links += [f"{quote(folder.name)}/{file}#{one['anchor']}" for one in page["cards"]]
        before = f"samples-{page_number - 1:04d}.html" if page_number > 1 else ""
        after = f"samples-{page_number + 1:04d}.html" if len(links) < len(cards) else ""
        around = {"report": f"../{report.name}", "before": before, "after": after}
        write_text(folder / file, render("samples.html", name=name, number=page_number, cards=page, **around))
    progress("pages of samples", len(cards), len(cards))
    return links, whole


def read_cards(report: Path, keys: Collection[Key]) -> dict[Key, dict[str, Any]]:
    """Cards of some outputs, read back from the pages beside a report; those that are not there are left out.

    Raises:
        InputError: a page is damaged.
    """
    wanted = set(keys)
    found: dict[Key, dict[str, Any]] = {}
    for file in sorted(folder_of(report).glob("samples-*.html")):
        if len(found) == len(wanted):
            break
        try:
            held = json.loads(file.read_text(encoding="utf-8").split(_BEGIN, 1)[1].split(_END, 1)[0])
            images = held["images"]
            if not all(image.startswith("data:image/") for image in images):
                raise ValueError("a picture is no image")
            for card in held["cards"]:
                if (key := (card["id"], card["candidate"])) in wanted:
                    shown = [
                        {**one, "src": images[one["image"]]} if "image" in one else one for one in card["pictures"]
                    ]
                    found[key] = {**card, "pictures": shown}
        except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
            raise InputError(f"{file} is damaged: {error!r}; evaluate again with --resume, which writes it") from error
    return found


def short_names(keys: Sequence[Key]) -> tuple[str, list[str]]:
    """The heading of a column of outputs, and their names in it: without the folder that all share, with the candidate where there are several.

    >>> short_names([("world/7/a/q1", 0), ("world/7/b/q1", 0)])
    ('sample in world/7', ['a/q1', 'b/q1'])
    """
    levels = zip(*(sample.split("/")[:-1] for sample, _ in keys), strict=False)
    shared = "/".join(level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels))
    start = len(shared) + 1 if shared else 0
    several = any(candidate for _, candidate in keys)
    names = [sample[start:] + (f" #{candidate}" if several else "") for sample, candidate in keys]
    return f"sample in {shared}" if shared else "sample", names
