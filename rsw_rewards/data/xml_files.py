"""Annotation files in XML, read within bounds."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from rsw_rewards.data.layout import inside
from rsw_rewards.errors import InputError

MAX_XML_BYTES = 1 << 20
"""Largest annotation file that is read (1 MiB)."""


def read_xml(file: Path, source: Path) -> ElementTree.Element:
    """The root of an annotation file.

    Raises:
        InputError: unreadable, too large, out of ``source``, with a document type (entities could grow without bounds), or not XML.
    """
    inside(file, source)
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_XML_BYTES + 1)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    if len(data) > MAX_XML_BYTES or any(mark in data for mark in (b"<!DOCTYPE", b"<!ENTITY", b"\0")):
        raise InputError(
            f"{file} has a document type, zero bytes or more than {MAX_XML_BYTES:,} bytes; annotations have none of these"
        )
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{file} is not valid XML: {error}") from error
