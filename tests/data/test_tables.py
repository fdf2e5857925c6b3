"""Tables of answers as spreadsheets, scripts and other people write them."""

from __future__ import annotations

import csv
import datetime
import doctest
import gzip
from dataclasses import astuple
from pathlib import Path

import pytest

from rsw_rewards.core.records import Sample, Task
from rsw_rewards.data.importers import Imported, excel, fields, matching, read_predictions, tables
from rsw_rewards.errors import InputError
from rsw_rewards.io import pairing, text_files

SAMPLES = [Sample(name, Task.CHANGE_QA, (), reference={"answers": ["yes"]}) for name in ("q1", "q2", "q3")]


def imported(tmp_path: Path, data: str | bytes, name: str = "a.csv", samples: list[Sample] = SAMPLES, **options: str):
    (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_predictions("csv", tmp_path / name, samples, **options)


def texts(found: Imported) -> dict[str, str | None]:
    return {output.sample_id: output.text for output in found.outputs}


def reasons(found: Imported) -> list[str]:
    return [f"{Path(where).name}: {why}" for kind, where, why in map(astuple, found.problems) if kind != "missing"]


@pytest.mark.parametrize("module", [excel, fields, matching, pairing, tables, text_files])
def test_examples(module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import rsw_rewards

    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testmod(module, extraglobs={"rsw": rsw_rewards})
    assert tried and not failed


WRITTEN = {
    "semicolons": 'id;prediction\nq1;"yes; two"\nq2;no, none\n',
    "sep line": 'sep=;\r\nid;prediction\r\nq1;"yes; two"\r\nq2;no, none\r\n',
    "tabs in .csv": 'id\tprediction\nq1\t"yes; two"\nq2\tno, none\n',
    "bars": 'id|prediction\nq1|"yes; two"\nq2|no, none\n',
    "blanks after commas": 'id, prediction\nq1, "yes; two"\nq2, "no, none"\n',
    "Markdown": "| id | prediction |\n|---|:---|\n| q1 | yes; two |\n| q2 | no, none |\n",
    "old Mac": 'id;prediction\rq1;"yes; two"\rq2;no, none\r',
    "empty columns and rows": '\n;id;prediction;;\n1;q1;"yes; two";;\n;;;;\n2;q2;no, none;;\n',
    "other words": 'Question ID;Model-Response\nq1;"yes; two"\nq2;no, none\n',
}


@pytest.mark.parametrize("form", WRITTEN)
def test_separators_quotes_and_names(tmp_path: Path, form: str) -> None:
    for data in (
        WRITTEN[form].encode(),
        WRITTEN[form].encode("utf-16"),
        gzip.compress(WRITTEN[form].encode("utf-8-sig")),
    ):
        found = imported(tmp_path, data)
        assert texts(found) == {"q1": "yes; two", "q2": "no, none"} and reasons(found) == []


def test_a_cell_is_kept_as_it_is_however_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = ["=yes", "'no", "x" * 200_000, "a\rb", "", "-1", "_x000D_", "NA"]
    samples = [Sample(f"q{number}", Task.CHANGE_QA, ()) for number in range(len(cells))]
    before = csv.field_size_limit()
    data = "id,text\n" + "".join(f"q{number},{cell}\n" for number, cell in enumerate(cells))
    assert list(texts(imported(tmp_path, data, samples=samples)).values()) == cells
    assert csv.field_size_limit() == before
    monkeypatch.setattr(fields, "MAX_CHARACTERS", 1000)
    found = imported(tmp_path, data, samples=samples)
    assert len(found) == 7 and reasons(found) == [
        "a.csv:4: its answer has 200,000 characters, more than the 1,000 that are read"
    ]


@pytest.mark.parametrize(
    ("data", "kept", "says"),
    [
        ("id,text\nq1,yes, two\nq2,no\n", {"q2"}, "a.csv:2: it has 3 cells and the header 2"),
        ('id,text\nq1,"a "b" c"\nq2,"no"\n', {"q2"}, "a.csv:2: its quotation marks do not match"),
        ('id,text\nq1,"yes"\nq2,"no\nq3,maybe\n', {"q1", "q3"}, "a.csv:3: its quotation marks do not match"),
        ("id,text\nq1,yes\nand more\nq2,no\n", {"q2"}, "a.csv:2: its text may go on in line 3"),
        ("id,text\nq1,yes\nq2,no\nq3", {"q1", "q2"}, "a.csv:4: it has 1 cell"),
        (b"id,text\nq1,gr\xfcn\nq2,no\n", {"q2"}, "a.csv:2: its answer holds half of a surrogate pair, or bytes"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_read_costs_no_other(tmp_path: Path, data: str | bytes, kept: set[str], says: str) -> None:
    found = imported(tmp_path, data)
    assert set(texts(found)) == kept and reasons(found)[0].startswith(says)


def test_quotation_marks_are_text_where_no_cell_stands_in_them(tmp_path: Path) -> None:
    found = imported(tmp_path, 'id\ttext\nq1\t"Yes", it said\nq2\tit is 5" wide\n', "a.tsv")
    assert texts(found) == {"q1": '"Yes", it said', "q2": 'it is 5" wide'}


def test_no_order_is_taken_from_rows_that_may_be_two(tmp_path: Path) -> None:
    found = imported(tmp_path, "text,score\nyes,1\nno, but,1\nno,1\n", by="order")
    assert texts(found) == {"q1": "yes"} and "does not tell its place" in reasons(found)[1]
    assert texts(imported(tmp_path, "text\nyes\nno\nno\n", by="order")) == {"q1": "yes", "q2": "no", "q3": "no"}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("id,predictionz\nq1,yes\n", r"has no column 'prediction'; the file has 'id', 'predictionz': say --set text=predictionz"),
        ("ids,prediction\nq1,yes\n", r"names no ids of its own; .*the file has 'ids', 'prediction': say --set id=ids"),
        ("q1,yes\nq2,no\n", r"has no column 'prediction'; the file has 'q1', 'yes': say --set text=COLUMN"),
        ("id,text,answer\nq1,?,yes\n", r"has both answer and text, one of which may be the truth"),
        ("id,text,text\nq1,?,yes\n", r"names the column 'text' twice"),
        ('[{"id": "q1"}]', r"is JSON and no table; read it with the importer json"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", r"is an Excel file of the old kind \(.xls\)"),
        ('id,"text\nq1,"yes"\n', r"a.csv:1: the header cannot be read: its quotation marks"),
    ],
)  # fmt: skip
def test_what_is_no_table_of_answers_is_refused_by_one_sentence(tmp_path: Path, data: str | bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        imported(tmp_path, data)


def test_ids_are_matched_whole_or_by_their_end_and_it_is_said(tmp_path: Path) -> None:
    names = ["levir/test/000001", "levir/test_000002", "levir/test/A/000003.png", "s/1", "t/1"]
    samples = [Sample(name, Task.CHANGE_QA, ()) for name in names]
    rows = {
        "levir/test/000001": "yes",
        r".\images\000002.PNG": "no",
        "train_000003.png": "no",  # another split
        "1": "no",  # s/1 or t/1
        "9": "no",
    }
    data = "id,text\n" + "".join(f"{name},{text}\n" for name, text in rows.items())
    found = imported(tmp_path, data, samples=samples)
    assert texts(found) == {"levir/test/000001": "yes", "levir/test_000002": "no"}
    assert [reason.partition(": ")[2] for reason in reasons(found)] == [
        "the id 'train_000003.png' is of another split than 'levir/test/A/000003.png'",
        "the id '1' may mean 's/1', 't/1'",
        "the id '9' is not among the samples",
    ]
    assert found.notes == [
        r"1 of 2 answers were matched by the end of their id, such as '.\\images\\000002.PNG' for 'levir/test_000002', the others by the whole id",
        "2 of 5 samples have a prediction; 3 have none: 'levir/test/A/000003.png', 's/1', 't/1'; 3 predictions name no sample",
    ]


def test_an_id_without_its_zeros_is_not_guessed_but_told(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"'16' is not among the samples; a spreadsheet may have taken the zeros of '000016'"
    ):
        imported(tmp_path, "id,text\n16,yes\n", samples=[Sample("levir/test_000016", Task.CHANGE_QA, ())])


def test_different_ids_that_end_alike_are_refused(tmp_path: Path) -> None:
    samples = [Sample(name, Task.CHANGE_QA, ()) for name in ("levir/16", "levir/17")]
    found = imported(tmp_path, "id,text\nA/16.png,yes\nB/16.png,no\n17.png,yes\nlevir/17,no\n", samples=samples)
    assert texts(found) == {"levir/17": "no"}
    assert reasons(found)[0].endswith("16.png' both end as 'levir/16' does, so neither is taken for it")


def test_excel(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    day = datetime.date(2021, 3, 4)
    cells = ["no_x000D_\n", "_x0008_no", "_x005F_x000D_", "=yes", "'yes", 3, 2.50, True, day, "#N/A", None]
    book.create_sheet("notes", 0)
    book.active = 1
    book.active.append(["index", "prediction"])
    for number, cell in enumerate(cells):
        book.active.append([number, cell])
        book.active.cell(number + 2, 1).number_format = "000"
    book.active["B8"].number_format = "0.00"
    book.active["B9"].data_type = "b"
    book.save(tmp_path / "a.xlsx")
    samples = [Sample(f"{number:03d}", Task.CHANGE_QA, ()) for number in range(len(cells))]
    for importer in ("csv", "vlmevalkit"):
        found = read_predictions(importer, tmp_path / "a.xlsx", samples)
        shown = {"000": "no", "001": "no", "002": "_x000D_", "004": "'yes", "005": "3", "006": "2.50", "007": "TRUE"}
        assert texts(found) == {**shown, "008": "2021-03-04", "010": ""}
        assert reasons(found) == [
            "a.xlsx: row 5: its answer is the formula '=yes', which has no text of its own",
            "a.xlsx: row 11: its answer is the error #N/A of Excel",
        ]


def test_excel_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    openpyxl.Workbook().save(tmp_path / "a.xlsx")
    monkeypatch.setattr(text_files, "MAX_FILE_BYTES", 1000)
    with pytest.raises(InputError, match="unpacks to more than the 1,000 bytes"):
        read_predictions("csv", tmp_path / "a.xlsx", SAMPLES)
