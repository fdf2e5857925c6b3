"""The first sheet of an Excel file, its cells as the texts that Excel shows.

Source: ECMA-376 part 1, 18.8.30 (number formats) and 22.9.2.19 (``ST_Xstring``, in which ``_x000D_`` is a carriage return).
"""

from __future__ import annotations

import datetime
import re
import zipfile
from pathlib import Path
from typing import Any

from rsw_rewards.data.importers.fields import Row, named_columns
from rsw_rewards.errors import InputError
from rsw_rewards.extras import need
from rsw_rewards.io import text_files

_ESCAPE = re.compile("_x([0-9A-Fa-f]{4})_")
_NOT_SHOWN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_NUMBER = re.compile(r"(#,##)?(0+)(?:\.(0+))?(%)?(?:_\))?")
_DATE = re.compile(r"y+|m+|d+|h+|s+(?:\.0+)?|am/pm|\"[^\"]*\"|\\.|.", re.IGNORECASE)


def read_sheet(file: Path) -> list[Row]:
    """The rows of the first sheet that holds any, under its header. Raises :class:`InputError`, or :class:`MissingExtra` without openpyxl."""
    need(f"{file}, an Excel file that can also be saved as CSV,", "openpyxl")
    import openpyxl

    try:
        with zipfile.ZipFile(file) as archive:
            if sum(member.file_size for member in archive.infolist()) > text_files.MAX_FILE_BYTES:
                raise InputError(
                    f"{file} unpacks to more than the {text_files.MAX_FILE_BYTES:,} bytes that are read; divide it"
                )
        book = openpyxl.load_workbook(file, read_only=True, data_only=False)
        rows = next(filter(None, map(_rows, book.worksheets)), [])
    except InputError:
        raise
    except Exception as error:  # whatever a broken file makes openpyxl raise
        raise InputError(f"{file} cannot be read as an Excel file: {error}") from error
    if not rows:
        return []
    columns = named_columns([str(name).strip() for name in rows[0][1]], file)
    return [
        (f"{file}: row {number}", dict(zip(columns, cells + [""] * (len(columns) - len(cells)), strict=False)))
        for number, cells in rows[1:]
    ]


def _rows(sheet: Any) -> list[tuple[int, list[str | ValueError]]]:
    """The rows of a sheet that hold anything, with their numbers."""
    sheet.reset_dimensions()  # those that a file declares may be wrong, and rows would be cut
    return [
        (number, [_text(cell) for cell in cells])
        for number, cells in enumerate(sheet.iter_rows(), start=1)
        if any(cell.value is not None for cell in cells)
    ]


def _text(cell: Any) -> str | ValueError:
    """The text of a cell; a ValueError for a formula and an error, which have none."""
    value = cell.value
    if value is None:
        return ""
    if cell.data_type == "f":
        return ValueError(f"the formula {str(getattr(value, 'text', value))[:40]!r}, which has no text of its own")
    if cell.data_type == "e":
        return ValueError(f"the error {value} of Excel")
    if isinstance(value, str):
        return _NOT_SHOWN.sub("", unescaped(value)).strip()
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, int | float):
        return number_shown(value, str(cell.number_format))
    return date_shown(value, str(cell.number_format))


def unescaped(text: str) -> str:
    """A text with its ``_xHHHH_`` as the characters that they stand for.

    >>> unescaped("a_x000D_b _x005F_x000D_")
    'a\\rb _x000D_'
    """
    if "_x" not in text:
        return text
    found = _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), text)
    return found.encode("utf-16-le", "surrogatepass").decode(
        "utf-16-le", "surrogatepass"
    )  # joins halves of surrogate pairs


def number_shown(value: float, number_format: str) -> str:
    """A number as a cell of a plain number format shows it; of another format, as one without a format does.

    >>> number_shown(16, "000000"), number_shown(0.456, "0.0%"), number_shown(3.0, "General")
    ('000016', '45.6%', '3')
    """
    found = _NUMBER.fullmatch(number_format.partition(";")[0])
    if found is None:
        return f"{value:.15G}" if isinstance(value, float) else str(value)
    grouped, whole, decimals, percent = found.groups()
    places = len(decimals or "")
    width = len(whole) + (places + 1 if places else 0)
    shown = f"{value * (100 if percent else 1):{',' if grouped else ''}.{places}f}"
    return shown.zfill(width) + (percent or "")


def date_shown(value: Any, number_format: str) -> str:
    """A date or time as a cell of its number format shows it; a duration in hours, minutes and seconds.

    >>> date_shown(datetime.datetime(2021, 3, 4), "d.m.yy"), date_shown(datetime.datetime(2021, 3, 4, 9, 5), "yyyy-mm-dd hh:mm")
    ('4.3.21', '2021-03-04 09:05')
    """
    if isinstance(value, datetime.time):
        value = datetime.datetime.combine(datetime.date(1900, 1, 1), value)
    if not isinstance(value, datetime.date):
        return str(value)
    moment = value if isinstance(value, datetime.datetime) else datetime.datetime.combine(value, datetime.time())
    form = re.sub(r"\[[^]]*\]", "", number_format.partition(";")[0])
    parts = _DATE.findall(form)
    has_half = any(part.lower() == "am/pm" for part in parts)
    shown, last = "", ""
    for place, part in enumerate(parts):
        kind = part[0].lower()
        if kind == "m" and len(part) < 3:
            after = next((later[0].lower() for later in parts[place + 1 :] if later[0].lower() in "ymdhs"), "")
            kind = "minute" if last == "h" or after == "s" else "m"
        shown += _part(kind, part, moment, has_half)
        last = kind if kind in ("y", "m", "d", "h", "s", "minute") else last
    return shown


def _part(kind: str, part: str, moment: datetime.datetime, has_half: bool) -> str:
    if part.lower() == "am/pm":
        return "AM" if moment.hour < 12 else "PM"
    if kind == "y":
        return f"{moment.year:04d}" if len(part) > 2 else f"{moment.year % 100:02d}"
    if kind in "md" and len(part) > 2:
        name = moment.strftime("%B" if kind == "m" else "%A")
        return name[:3] if len(part) == 3 else name
    hour = (moment.hour - 1) % 12 + 1 if has_half else moment.hour
    numbers = {"m": moment.month, "d": moment.day, "h": hour, "minute": moment.minute, "s": moment.second}
    if kind in numbers:
        return f"{numbers[kind]:02d}" if len(part) > 1 else str(numbers[kind])
    return part.strip('"') if part[0] == '"' else part[1:] if part[0] == "\\" else part
