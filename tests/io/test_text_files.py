"""Files of samples and predictions in the forms and encodings that people have."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from rsw_rewards.errors import InputError
from rsw_rewards.io import text_files
from rsw_rewards.io.records_io import load_outputs, load_samples
from rsw_rewards.io.text_files import read_records

SAMPLES = [
    {"id": name, "task": "change_qa", "prompt": "Größe?", "reference": {"answers": ["yes"]}} for name in ("a", "b")
]
ANSWERS = [{"id": "a", "text": "yes, größer"}, {"id": "b", "text": "no"}]

FORMS = {
    "lines": lambda records: "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records),
    "list": lambda records: json.dumps(records, ensure_ascii=False),
    "pretty list": lambda records: json.dumps(records, ensure_ascii=False, indent=2),
    "pretty objects": lambda records: "\n".join(json.dumps(record, ensure_ascii=False, indent=4) for record in records),
}
WRAPS = {
    "utf-8": lambda text: text.encode(),
    "mark": lambda text: text.encode("utf-8-sig"),
    "utf-16": lambda text: text.encode("utf-16"),
    "utf-16 without a mark": lambda text: text.encode("utf-16-le"),
    "gzip": lambda text: gzip.compress(text.encode()),
    "gzip of utf-16": lambda text: gzip.compress(text.replace("\n", "\r\n").encode("utf-16")),
}


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_and_encoding_gives_the_same_records(tmp_path: Path, form: str, wrap: str) -> None:
    (tmp_path / "s").write_bytes(WRAPS[wrap](FORMS[form](SAMPLES)))
    (tmp_path / "p").write_bytes(WRAPS[wrap](FORMS[form](ANSWERS)))
    samples = load_samples(tmp_path / "s")
    outputs, problems = load_outputs(tmp_path / "p", samples)
    assert [sample.prompt for sample in samples] == ["Größe?"] * 2
    assert [output.text for output in outputs] == ["yes, größer", "no"] and problems == []


@pytest.mark.parametrize(
    ("text", "ids", "says"),
    [
        ('{"id": "a", "te\n{"id": "b"}\n', {"b"}, "p:1"),  # lines, the first one cut
        ('[{"id": "a"},\n {"id": "b"},\n', {"a", "b"}, "p:2: the list has no end"),
        ('[{"id": "a"}\n {"id": "b"}]', {"a"}, "p:2: there is no comma after an entry"),
        ('{\n "id": "a"\n}\n{\n "id": "b"\n', {"a"}, "p:4"),
        ('[\n{"id": "a"},\n{"id": "b"},\n]', {"a", "b"}, ""),
        ('{"id": "a"}\n[1]\n{"id": "b"}', {"a", "b"}, ""),
        ("[]", set(), ""),
    ],
)
def test_a_broken_record_is_named_and_costs_no_record_before_it(
    tmp_path: Path, text: str, ids: set[str], says: str
) -> None:
    (tmp_path / "p").write_text(text)
    found = list(read_records(tmp_path / "p"))
    assert {value["id"] for _, value in found if isinstance(value, dict)} == ids
    said = [f"{where}: {value}" for where, value in found if isinstance(value, ValueError)]
    assert bool(said) == bool(says) and all(says in words for words in said)


def test_a_record_that_answers_under_another_name_says_which(tmp_path: Path) -> None:
    (tmp_path / "s").write_text(FORMS["lines"](SAMPLES))
    (tmp_path / "p").write_text('{"id": "a", "response": "yes"}\n{"id": "b", "text": "no", "response": "yes"}')
    outputs, problems = load_outputs(tmp_path / "p", load_samples(tmp_path / "s"))
    assert outputs[1].text == "no"
    assert [problem.reason for problem in problems] == [
        "a change_qa prediction needs text, and the record has 'response'"
    ]


def test_bytes_that_are_no_utf_8_cost_their_record_alone(tmp_path: Path) -> None:
    for text in (b'[{"id": "a", "text": "gr\xfcn"},\n{"id": "b", "text": "no"}]', b'{"id": "a\xfc"}\n{"id": "b"}'):
        (tmp_path / "p").write_bytes(text)
        values = [value for _, value in read_records(tmp_path / "p")]
        assert isinstance(values[0], ValueError) and values[1]["id"] == "b"


@pytest.mark.parametrize("records", [1, 100_000])
def test_a_gzip_bomb_is_refused_by_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: int) -> None:
    monkeypatch.setattr(text_files, "MAX_FILE_BYTES", 1 << 20)
    (tmp_path / "p.gz").write_bytes(gzip.compress(b'{"id": "a"}\n' * records + b" " * (1 << 21)))
    with pytest.raises(InputError, match=r"p.gz unpacks to more than the 1,048,576 bytes"):
        list(read_records(tmp_path / "p.gz"))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"BZh91AY", "is compressed with bzip2; unpack it"),
        (b"PK\x03\x04....", "is a zip archive or an Excel file"),
        (b"PAR1....", "is a Parquet file"),
        (b"\x80\x04\x95", "is a pickle, which is never read"),
        (gzip.compress(b'{"id": "a"}' * 99, mtime=0)[:-9], "cannot be unpacked, it is cut off or broken"),
        (b"\xff\xfe{\x00\x00\xd8", "begins as UTF-16 but is not in it"),
    ],
)
def test_what_is_no_text_is_refused_by_what_it_is(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "p").write_bytes(data)
    with pytest.raises(InputError, match=says):
        list(read_records(tmp_path / "p"))
