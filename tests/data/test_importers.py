"""Importers of predictions on small files in the formats that other tools write."""

from __future__ import annotations

import csv
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from rsw_rewards.core.answer import AT_LIMIT
from rsw_rewards.core.records import Sample, Task
from rsw_rewards.data.importers import IMPORTERS, Imported, inspect_logs, read_predictions
from rsw_rewards.data.importers.matching import Ids, key_of
from rsw_rewards.errors import ConfigError, InputError, MissingExtra
from rsw_rewards.io import text_files
from rsw_rewards.io.in_memory import pair_outputs
from rsw_rewards.io.records_io import load_outputs

SAMPLES = [
    Sample(f"levir_cc/test_{n:06d}", Task.CHANGE_CAPTION, (), reference={"captions": [f"caption {n}"]})
    for n in range(3)
]


def done(
    name: str, file: Path, samples: list[Sample] = SAMPLES, **options: Any
) -> tuple[Imported, dict[tuple[str, int], str | None]]:
    """What an import says, and the texts that the predictions file it wrote gives to the samples."""
    imported = read_predictions(name, file, samples, **options)
    outputs, _ = load_outputs(imported.save(file.parent / "out" / "predictions.jsonl"), samples, on_missing="drop")
    return imported, {(output.sample_id, output.candidate): output.text for output in outputs}


def write(file: Path, value: Any) -> Path:
    file.write_text(json.dumps(value) if not isinstance(value, str) else value, encoding="utf-8")
    return file


def lines(file: Path, records: list[Any]) -> Path:
    return write(file, "".join(json.dumps(record) + "\n" for record in records))


def kinds(imported: Imported) -> list[str]:
    return sorted(problem.kind for problem in imported.problems)


@pytest.mark.parametrize(
    "name",
    ["levir_cc/test_000001", "test_000001.png", "A\\test_000001.PNG", "images/test_000001", "levir_cc_test_000001.png"],
)
def test_an_id_is_matched_whole_or_by_its_last_part(name: str) -> None:
    assert Ids(SAMPLES).find(name) is SAMPLES[1]


def test_ids_are_never_guessed() -> None:
    ids = Ids([Sample(name, Task.CHANGE_QA, ()) for name in ("a/val/1", "a/test/1", "a/10")])
    assert "may mean 'a/val/1', 'a/test/1'" in str(ids.find("1"))
    assert "may mean" in str(ids.find("other/1.png"))
    assert getattr(ids.find("val/1"), "id", None) == "a/val/1"
    for unknown in ("0", "", "/", "10 ", "../10x"):
        assert isinstance(ids.find(unknown), str) == (unknown != "10 ")
    assert key_of("x.v2/run.1") == ("x.v2", "run.1")


def test_numbers_of_a_table_of_floats_are_whole(tmp_path: Path) -> None:
    ids = Ids([Sample(name, Task.CHANGE_QA, ()) for name in ("7", "12", "12.0", "a/b", "a_b")])
    assert [getattr(ids.find(name), "id", None) for name in ("7.0", "12.0", "12.00", "7.5", "a_b")] == [
        "7", "12.0", "12", None, "a_b",
    ]  # fmt: skip
    asked = [Sample("7", Task.CHANGE_QA, ())]
    assert done("json", lines(tmp_path / "a.jsonl", [{"id": 7.0, "text": "yes"}]), asked)[1] == {("7", 0): "yes"}


def test_an_id_that_is_a_list_of_images_and_an_answer_that_is_no_number(tmp_path: Path) -> None:
    """ms-swift writes the images of a question, and pandas NaN for a text that is missing."""
    names = [{"path": "A/test_000000.png"}, {"path": "B/test_000000.png"}]
    records = [{"images": names, "response": "yes"}, {"images": ["A/test_000001.png"], "response": float("nan")}]
    imported, texts = done("json", lines(tmp_path / "a.jsonl", records), id="images")
    assert texts == {(SAMPLES[0].id, 0): "yes"} and kinds(imported) == ["malformed", "missing", "missing"]


def test_a_whole_id_wins_over_one_that_ends_alike(tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.json", [{"id": "other/test_000000", "text": "far"}, {"id": SAMPLES[0].id, "text": "near"}]
    )
    imported, texts = done("json", file)
    assert texts == {(SAMPLES[0].id, 0): "near"}
    assert kinds(imported) == ["duplicate", "missing", "missing"]
    assert imported.answered == 1


@pytest.mark.parametrize(
    "records",
    [
        [{"question_id": sample.id, "text": f"t{n}"} for n, sample in enumerate(SAMPLES)],
        [{"id": sample.id, "prediction": f"t{n}", "answer": "true one"} for n, sample in enumerate(SAMPLES)],
        [{"image_id": sample.id + ".png", "caption": f"t{n}"} for n, sample in enumerate(SAMPLES)],
        {sample.id: f"t{n}" for n, sample in enumerate(SAMPLES)},
        {"results": [{"id": sample.id, "response": f"t{n}"} for n, sample in enumerate(SAMPLES)]},
        {"model": "m", "seeds": [1, 2], "results": [{"id": s.id, "response": f"t{n}"} for n, s in enumerate(SAMPLES)]},
        {"predictions": {sample.id: f"t{n}" for n, sample in enumerate(SAMPLES)}},
    ],
)  # fmt: skip
def test_json(tmp_path: Path, records: Any) -> None:
    imported, texts = done("json", write(tmp_path / "a.json", records))
    assert texts == {(sample.id, 0): f"t{n}" for n, sample in enumerate(SAMPLES)}
    assert (len(imported), imported.problems) == (3, [])
    if isinstance(records, list):
        assert done("json", lines(tmp_path / "a.jsonl", records))[1] == texts


def test_json_candidates_numbers_and_nested_keys(tmp_path: Path) -> None:
    _, texts = done("json", write(tmp_path / "a.json", {SAMPLES[0].id: ["x", "y"], SAMPLES[1].id: 3}))
    assert texts == {(SAMPLES[0].id, 0): "x", (SAMPLES[0].id, 1): "y", (SAMPLES[1].id, 0): "3"}
    record = {"meta": {"uid": SAMPLES[2].id}, "out": {"say": "z"}}
    _, texts = done("json", lines(tmp_path / "b.jsonl", [record]), id="meta.uid", text="out.say")
    assert texts == {(SAMPLES[2].id, 0): "z"}


def test_a_bad_record_does_not_cost_the_others(tmp_path: Path) -> None:
    good = {"id": SAMPLES[0].id, "text": "x"}
    bad = [{"id": SAMPLES[1].id, "text": None}, {"text": "y"}, 7, {"id": "zzz", "text": "y"}, {**good, "candidate": -1}]
    imported, texts = done("json", write(tmp_path / "a.json", [good, *bad]))
    assert texts == {(SAMPLES[0].id, 0): "x"}
    assert kinds(imported) == [*["malformed"] * 4, "missing", "missing", "unknown_id"]
    assert "entry 1: its answer is 'None', which is not a text" in str(imported.problems[0])


def test_half_a_surrogate_pair_costs_its_answer_alone(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(
        '[{"id": "a", "prediction": "\\ud800"}, {"id": "b", "prediction": "\\ud83d\\ude00"}]'
    )
    samples = [Sample(name, Task.CHANGE_QA, ()) for name in ("a", "b")]
    imported = read_predictions("json", tmp_path / "a.json", samples)
    assert len(imported) == 1 and [problem.kind for problem in imported.problems] == ["malformed", "missing"]


def test_an_answer_that_may_be_the_truth_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a.json", [{"id": SAMPLES[0].id, "text": "the question?", "answer": "yes"}])
    with pytest.raises(InputError, match="has both answer and text, one of which may be the truth"):
        done("json", file)
    assert done("json", file, text="answer")[1] == {(SAMPLES[0].id, 0): "yes"}


@pytest.mark.parametrize(("suffix", "delimiter"), [("csv", ","), ("tsv", "\t")])
def test_csv(tmp_path: Path, suffix: str, delimiter: str) -> None:
    file = tmp_path / f"a.{suffix}"
    with file.open("w", newline="", encoding="utf-8-sig") as stream:
        csv.writer(stream, delimiter=delimiter).writerows(
            [["id", "prediction", "candidate"], [SAMPLES[0].id, "two\nlines, really", ""], [SAMPLES[0].id, "", "1"]]
        )
    _, texts = done("csv", file)
    assert texts == {(SAMPLES[0].id, 0): "two\nlines, really", (SAMPLES[0].id, 1): ""}
    with pytest.raises(
        InputError, match="has no column 'say'; the file has 'id', 'prediction', 'candidate': say --set text=COLUMN"
    ):
        done("csv", file, text="say")


def test_coco_captions(tmp_path: Path) -> None:
    records = [{"image_id": "test_000002.png", "caption": "c"}, {"image_id": 4, "caption": "d"}]
    imported, texts = done("coco-captions", write(tmp_path / "a.json", records))
    assert texts == {(SAMPLES[2].id, 0): "c"}
    assert kinds(imported) == ["missing", "missing", "unknown_id"]  # 4 is not guessed to be test_000004
    with pytest.raises(InputError, match=r"should hold a list of {'image_id', 'caption'}"):
        done("coco-captions", write(tmp_path / "b.json", {"a": 1}))


def lmms(order: list[int], **more: Any) -> list[dict[str, Any]]:
    return [{"doc_id": n, "target": f"caption {n}", "filtered_resps": f"t{n}", "input": "?", **more} for n in order]


def test_lmms_eval_by_order_goes_by_the_document_not_the_line(tmp_path: Path) -> None:
    file = lines(tmp_path / "run_samples_task.jsonl", lmms([2, 0]))
    imported, texts = done("lmms-eval", file, by="order")
    assert texts == {(SAMPLES[0].id, 0): "t0", (SAMPLES[2].id, 0): "t2"}
    assert imported.notes[0] == "2 answers were matched by their order"
    with pytest.raises(InputError, match=r"names no ids of its own; .* use by=order"):
        done("lmms-eval", file)


def test_lmms_eval_warns_where_the_order_is_another(tmp_path: Path) -> None:
    imported, _ = done("lmms-eval", lines(tmp_path / "a.jsonl", lmms([0, 1])), list(reversed(SAMPLES)), by="order")
    assert "1 of 2 answers stand beside a truth that is not their sample's, such as 'caption 0'" in imported.notes[0]
    imported, _ = done("lmms-eval", lines(tmp_path / "b.jsonl", lmms([0, 3])), by="order")
    assert "there is no sample number 3 (from 0): there are 3" in str(imported.problems[0])


def test_lmms_eval_ids_and_candidates(tmp_path: Path) -> None:
    records = [
        {"doc_id": 0, "doc": {"question_id": SAMPLES[1].id}, "resps": [["a", "b"]]},
        {"doc_id": 1, "doc": {"question_id": SAMPLES[0].id}, "resps": [["long"]], "filtered_resps": ["short"]},
        {"doc_id": 2, "doc": {"question_id": SAMPLES[2].id}, "filtered_resps": [[-1.5, False], [-2.0, True]]},
        {"doc_id": 2},
    ]
    imported, texts = done("lmms-eval", lines(tmp_path / "a.jsonl", records))
    assert texts == {(SAMPLES[1].id, 0): "a", (SAMPLES[1].id, 1): "b", (SAMPLES[0].id, 0): "short"}
    assert kinds(imported) == ["malformed", "malformed", "malformed", "missing"]


@pytest.mark.parametrize("suffix", ["tsv", "csv", "json"])
def test_vlmevalkit(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"index": sample.id, "question": "?", "answer": "A", "prediction": f"t{n}"} for n, sample in enumerate(SAMPLES)
    ]
    file = tmp_path / f"model_set.{suffix}"
    if suffix == "json":
        write(file, rows)
    else:
        with file.open("w", newline="") as stream:
            writer = csv.DictWriter(
                stream, list(rows[0]), delimiter="\t" if suffix == "tsv" else ",", quoting=csv.QUOTE_ALL
            )
            writer.writeheader()
            writer.writerows(rows)
    imported, texts = done("vlmevalkit", file)
    assert texts == {(sample.id, 0): f"t{n}" for n, sample in enumerate(SAMPLES)}
    assert "3 of 3 answers stand beside a truth" in imported.notes[0]


def test_vlmevalkit_excel_and_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="is a pickle, which is never read"):
        done("vlmevalkit", write(tmp_path / "a.pkl", ""))
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(MissingExtra, match=r"saved as CSV, needs openpyxl, which is not installed; run: pip install"):
        done("vlmevalkit", write(tmp_path / "a.xlsx", ""))


def test_vlmevalkit_excel_rows(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["index", "prediction"], [SAMPLES[0].id, "yes"], [SAMPLES[1].id, 3]):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    assert done("vlmevalkit", tmp_path / "a.xlsx")[1] == {(SAMPLES[0].id, 0): "yes", (SAMPLES[1].id, 0): "3"}
    with pytest.raises(InputError, match="cannot be read as an Excel file"):
        done("vlmevalkit", write(tmp_path / "b.xlsx", "no zip"))


def inspected(n: int, content: Any, epoch: int = 1, **more: Any) -> dict[str, Any]:
    output = {"choices": [{"message": {"role": "assistant", "content": content}}]}
    return {"id": SAMPLES[n].id, "epoch": epoch, "input": "?", "target": f"caption {n}", "output": output, **more}


LOGGED = [
    inspected(0, "a"),
    inspected(0, [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "b"}], epoch=2),
    inspected(1, "attachment://f00", attachments={"f00": "long"}),
    {**inspected(2, ""), "output": {"choices": []}, "error": {"message": "out of memory"}},
]


@pytest.mark.parametrize("archive", [False, True])
def test_inspect(tmp_path: Path, archive: bool) -> None:
    file = tmp_path / ("log.eval" if archive else "log.json")
    if archive:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as stream:
            stream.writestr("header.json", "{}")
            for sample in LOGGED:
                stream.writestr(f"samples/{sample['id']}_epoch_{sample['epoch']}.json", json.dumps(sample))
    else:
        write(file, {"version": 2, "samples": LOGGED})
    imported, texts = done("inspect", file)
    assert texts == {(SAMPLES[0].id, 0): "a", (SAMPLES[0].id, 1): "b", (SAMPLES[1].id, 0): "long"}
    assert "the sample failed: out of memory" in str(imported.problems[0])
    with pytest.raises(InputError, match="does not tell its place"):
        done("inspect", file, by="order")


def test_inspect_archives_are_read_within_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "log.eval"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as stream:
        stream.writestr("samples/a_epoch_1.json", json.dumps(inspected(0, "x" * 10_000)))
    monkeypatch.setattr(inspect_logs, "MAX_MEMBER_BYTES", 1000)
    with pytest.raises(InputError, match="more than the 1,000 that are read"):
        done("inspect", file)
    broken = bytearray(file.read_bytes())
    broken[60:80] = bytes(20)
    file.write_bytes(broken)
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"cannot be read as an .eval archive"):
        done("inspect", file)


def test_an_unknown_compression_says_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "log.eval"
    with zipfile.ZipFile(file, "w") as stream:
        stream.writestr("samples/a_epoch_1.json", json.dumps(inspected(0, "x")))
    data = file.read_bytes()
    zstandard = (93).to_bytes(2, "little")  # the method stands at byte 8 of the local header and 10 of the central one
    central = data.index(b"PK\x01\x02")
    file.write_bytes(data[:8] + zstandard + data[10 : central + 10] + zstandard + data[central + 12 :])
    with pytest.raises(InputError, match=r"inspect log convert log.eval --to json"):
        done("inspect", file)


def test_what_cannot_be_imported_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "a.json", [{"id": "zzz", "text": "x"}])
    with pytest.raises(InputError, match=r"no answer in .* belongs to a sample .*'zzz' is not among the samples"):
        done("json", file)
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match=r"these samples \(change_mask\) are not answered by texts"):
        done("json", file, [Sample("zzz", Task.CHANGE_MASK, ())])
    with pytest.raises(InputError, match="it holds no answers"):
        done("json", write(tmp_path / "b.json", []))
    with pytest.raises(InputError, match="is not valid JSON"):
        done("json", write(tmp_path / "c.json", "[" * 100_000))
    with pytest.raises(InputError, match=r"none\.json does not exist"):
        done("json", tmp_path / "none.json")
    with pytest.raises(InputError, match=r"is not a file; .* the importer .folder."):
        done("json", tmp_path)
    with pytest.raises(ConfigError, match="no importer of predictions is named 'xml'; known are lmms-eval, vlmevalkit"):
        done("xml", file)
    with pytest.raises(ConfigError, match="'by' must be id or order"):
        done("json", file, by="luck")
    monkeypatch.setattr(text_files, "MAX_FILE_BYTES", 10)
    for name in sorted(set(IMPORTERS.built_in) - {"vlmevalkit", "csv", "folder", "cubes"}):
        with pytest.raises(InputError, match="more than the 10 bytes that are read"):
            done(name, file)


def test_an_answer_that_was_cut_off_stays_so_in_the_predictions(tmp_path: Path) -> None:
    def choice(content: str | None, finish: str) -> dict[str, Any]:
        return {"choices": [{"message": {"content": content}, "finish_reason": finish}]}

    said = [("t", "stop"), ("I compare", "length"), (None, "length")]
    batch = [{"custom_id": s.id, "response": {"body": choice(*one)}} for s, one in zip(SAMPLES, said, strict=True)]
    log = [
        {"id": s.id, "output": {"choices": [{"message": {"content": text}, "stop_reason": stop}]}}
        for s, (text, stop) in zip(
            SAMPLES, [("t", "stop"), ("I compare", "max_tokens"), (None, "model_length")], strict=True
        )
    ]
    flat = [
        {"id": s.id, "text": text or "", "finish_reason": stop} for s, (text, stop) in zip(SAMPLES, said, strict=True)
    ]
    files = {"json": lines(tmp_path / "batch.jsonl", batch), "inspect": write(tmp_path / "log.json", {"samples": log})}
    for name, file in [*files.items(), ("json", write(tmp_path / "flat.json", flat))]:
        imported = read_predictions(name, file, SAMPLES)
        outputs, problems = load_outputs(imported.save(tmp_path / "p.jsonl"), SAMPLES)
        assert [output.invalid for output in outputs] == [None, AT_LIMIT, AT_LIMIT] and not problems
        assert outputs == pair_outputs(SAMPLES, imported.outputs)[0]


def test_results_of_a_batch_and_lists_of_texts(tmp_path: Path) -> None:
    batch = [
        {"id": "b", "custom_id": sample.id, "response": {"body": {"choices": [{"message": {"content": f"t{n}"}}]}}}
        for n, sample in enumerate(SAMPLES)
    ]
    assert done("json", lines(tmp_path / "a.jsonl", batch))[1] == {(s.id, 0): f"t{n}" for n, s in enumerate(SAMPLES)}
    _, texts = done("json", lines(tmp_path / "b.jsonl", [{"id": SAMPLES[0].id, "output": ["x", "y"]}]))
    assert texts == {(SAMPLES[0].id, 0): "x", (SAMPLES[0].id, 1): "y"}
