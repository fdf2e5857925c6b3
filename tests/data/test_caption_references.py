"""From the official caption file to the published numbers, as a user does it: ``rsw data from``, then ``rsw evaluate``."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rsw_rewards.cli import app
from rsw_rewards.data.levir_cc import convert as convert_levir_cc
from rsw_rewards.errors import ConfigError
from rsw_rewards.io.records_io import load_samples, write_jsonl
from rsw_rewards.verifiers import meteor
from tests.shared_data import shared

KEYS = {"bleu1": "Bleu_1", "bleu4": "Bleu_4", "rouge_l": "ROUGE_L", "cider": "CIDEr", "meteor": "METEOR"}


def rsw(*arguments: object) -> None:
    shown = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert shown.exit_code == 0, shown.output


def golden() -> tuple[Path, list[dict[str, Any]]]:
    folder = shared("golden/caption_levircc")
    return folder, [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]


def karpathy(name: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    """A caption file as the authors publish it: a blank before and a full stop behind every ``raw``, neither in ``tokens``."""
    images = [
        {
            "filename": item["id"], "filepath": "test", "split": "test", "changeflag": item["changeflag"],
            "sentences": [{"tokens": text.split(), "raw": f" {text} ."} for text in item["references"]],
        }
        for item in items
    ]  # fmt: skip
    return {name: {"images": images}}


def deltavlm(items: list[dict[str, Any]]) -> dict[str, Any]:
    rows = [
        {
            "image_A": f"test/A/{item['id']}", "image_B": f"test/B/{item['id']}", "changeflag": item["changeflag"],
            "captions": [f" {text} ." for text in item["references"]],
        }
        for item in items
    ]  # fmt: skip
    return {"changechat_105k_test.json": rows}


def levir(items: list[dict[str, Any]]) -> dict[str, Any]:
    return karpathy("LevirCCcaptions.json", items)


@pytest.mark.parametrize(
    ("adapter", "made", "options"),
    [
        ("levir-cc", levir, ()),
        ("levir-mci", levir, ("--set", "task=caption")),
        ("changechat-105k", deltavlm, ("--split", "test/caption")),
        ("rsicd", lambda items: karpathy("dataset_rsicd.json", items), ()),
        ("second-cc", lambda items: karpathy("SECOND-CC-AUG.json", items), ()),
    ],
)
def test_references_have_no_full_stop(
    tmp_path: Path, adapter: str, made: Callable[..., dict[str, Any]], options: tuple[str, ...]
) -> None:
    texts = ["a road appears on the lower-left", "there is no difference"]
    items = [{"id": f"test_{n:06}.png", "changeflag": 1, "references": texts} for n in range(2)]
    (tmp_path / "set").mkdir()
    for name, content in made(items).items():
        (tmp_path / "set" / name).write_text(json.dumps(content))
    rsw("data", "from", adapter, tmp_path / "set", "--out", tmp_path / "made", *options)
    samples = load_samples(tmp_path / "made" / "samples.jsonl", [tmp_path / "set"])
    assert [sample.reference["captions"] for sample in samples] == [texts] * 2


NONE, SOME = "there is no difference", "a road appears"
# Annotators differ: all five captions, the first, or all but the first say that nothing changed.
MIXED = [[NONE] * 5, [NONE, SOME, SOME, SOME, SOME], [SOME, NONE, NONE, NONE, NONE], [SOME, SOME, NONE, SOME, SOME]]


def as_rsicc_draws(images: list[dict[str, Any]]) -> dict[str, str]:
    """File name -> the second caption of five, by the lines of create_input_files in utils.py of Chen-Yang-Liu/RSICC."""
    train, val, test = [], [], []
    for image in images:
        captions = [sentence["tokens"] for sentence in image["sentences"] if len(sentence["tokens"]) <= 50]
        {"train": train, "restval": train, "val": val, "test": test}[image["split"]].append(
            (image["filename"], captions)
        )
    random.seed(123)
    second = {}
    for part in (train, val, test):
        for name, captions in part:
            if len(captions) < 5:
                five = captions + [random.choice(captions) for _ in range(5 - len(captions))]
            else:
                five = random.sample(captions, k=5)
            second[name] = " ".join(five[1])
    return second


def mixed(pairs: int = 24) -> list[dict[str, Any]]:
    images = karpathy("f", [
        {"id": f"{('test', 'train', 'val')[n % 3]}_{n:06}.png", "changeflag": n % 2, "references": MIXED[n % 4][: 5 - n % 5 // 4]}
        for n in range(pairs)
    ])["f"]["images"]  # fmt: skip
    long = {"tokens": ["word"] * 51, "raw": " word" * 51 + " ."}
    for image in images:
        image["split"] = image["filepath"] = image["filename"].split("_")[0]
    images[7]["sentences"].insert(1, long)  # is left out of the draw
    return images


@pytest.mark.parametrize(("adapter", "options"), [("levir-cc", ()), ("second-cc", ())])
def test_the_second_drawn_caption_says_whether_a_pair_changed(tmp_path: Path, adapter: str, options: tuple) -> None:
    images = mixed()
    file = {"levir-cc": "LevirCCcaptions.json", "second-cc": "SECOND-CC-AUG.json"}[adapter]
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / file).write_text(json.dumps({"images": images}))
    rsw("data", "from", adapter, tmp_path / "set", "--out", tmp_path / "made", *options)
    samples = load_samples(tmp_path / "made" / "samples.jsonl", [tmp_path / "set"])
    expected = {name.removesuffix(".png"): text != NONE for name, text in as_rsicc_draws(images).items()}
    found = {sample.id.rsplit("/", 1)[1]: sample.reference["changed"] for sample in samples}
    assert found == expected
    assert {sample.kind for sample in samples} == {"changed", "unchanged"}
    assert [sample.metadata["changeflag"] for sample in samples] == [bool(n % 2) for n in range(24)]
    rsw(
        "data",
        "from",
        adapter,
        tmp_path / "set",
        "--split",
        "test",
        "--limit",
        "3",
        "--out",
        tmp_path / "part",
        *options,
    )
    for sample in load_samples(tmp_path / "part" / "samples.jsonl", [tmp_path / "set"]):
        assert sample.reference["changed"] == expected[sample.id.rsplit("/", 1)[1]]  # the draws are over the whole file


@pytest.mark.parametrize(
    ("adapter", "options"), [("levir-mci", ("--set", "task=caption")), ("levir-cc", ("--set", "reading=change-agent"))]
)
def test_change_agent_takes_the_first_caption(tmp_path: Path, adapter: str, options: tuple[str, ...]) -> None:
    (tmp_path / "set").mkdir()
    images = mixed()
    images[0]["sentences"][0] = {"tokens": ["trees"], "raw": " trees , houses; on the lower-left . a road ."}
    (tmp_path / "set" / "LevirCCcaptions.json").write_text(json.dumps({"images": images}))
    rsw("data", "from", adapter, tmp_path / "set", "--out", tmp_path / "made", *options)
    samples = load_samples(tmp_path / "made" / "samples.jsonl", [tmp_path / "set"])
    assert samples[0].reference["captions"][0] == "trees , houses ; on the lower-left a road"
    first = [image["sentences"][0]["raw"] for image in images]
    assert [sample.reference["changed"] for sample in samples] == [raw != f" {NONE} ." for raw in first]


def test_readings_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="read as by rsicc or change-agent, not by 'coco'"):
        convert_levir_cc(tmp_path, tmp_path / "out", reading="coco")


def has_java() -> bool:
    try:
        meteor.jar()
    except meteor.MeteorError:
        return False
    return True


@pytest.mark.parametrize("tokens", [pytest.param("words", marks=pytest.mark.slow), "ids"])
def test_the_official_file_gives_the_published_numbers(tmp_path: Path, tokens: str) -> None:
    folder, items = golden()
    source = tmp_path / "LEVIR-CC"
    source.mkdir()
    for name, content in levir(items).items():
        (source / name).write_text(json.dumps(content))
    write_jsonl(
        tmp_path / "p.jsonl",
        [{"id": f"levir_cc/{Path(item['id']).stem}", "text": item["prediction"]} for item in items],
    )
    rsw("data", "from", "levir-cc", source, "--split", "test", "--out", tmp_path / "made")
    java = has_java() and tokens == "words"  # METEOR takes long to start, and both read the same references
    settings = [f"captions.meteor={str(java).lower()}"]
    settings += [f"captions.word_map={folder / 'wordmap_rsicc_minfreq5.json'}"] if tokens == "ids" else []
    rsw(
        "evaluate", f"levir-cc-{tokens}", "--samples", tmp_path / "made" / "samples.jsonl", "--root", source,
        "--predictions", tmp_path / "p.jsonl", "--out", tmp_path / "run", *(x for one in settings for x in ("--set", one)),
    )  # fmt: skip
    metrics = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    expected = json.loads((folder / "expected.json").read_text())["first_60"][tokens]["corpus"]
    for ours, theirs in KEYS.items():
        if ours != "meteor" or java:
            assert metrics[ours]["value"] == pytest.approx(expected[theirs], rel=1e-9), ours


def as_change_agent_encodes(images: list[dict[str, Any]]) -> tuple[dict[str, int], Callable[[str], str]]:
    """vocab.json and the text of numbers of a caption, by the lines of preprocess_data.py of Chen-Yang-Liu/Change-Agent."""

    def tokenize(text: str) -> list[str]:
        for sign in ";,":
            text = text.replace(sign, f" {sign}")
        for sign in "?.":
            text = text.replace(sign, "")
        return [token for token in text.split(" ") if token]

    count = Counter(token for image in images for one in image["sentences"] for token in tokenize(one["raw"]))
    vocab = {"<NULL>": 0, "<UNK>": 1, "<START>": 2, "<END>": 3}
    for token, number in sorted(count.items()):
        if number > 5:
            vocab[token] = len(vocab)
    return vocab, lambda text: " ".join(str(vocab.get(token, vocab["<UNK>"])) for token in tokenize(text))


def test_the_vocabulary_of_change_agent_gives_the_numbers_of_its_code(tmp_path: Path) -> None:
    """Its code hands the scorers texts of numbers, which are the words of those texts."""
    _, items = golden()
    source = tmp_path / "LEVIR-CC"
    source.mkdir()
    images = karpathy("f", items)["f"]["images"]
    for image in images[::3]:
        first = image["sentences"][0]
        first["raw"] = f" rare{len(first['tokens'])}, houses; near" + first["raw"].replace(" on ", " on . ")
    (source / "LevirCCcaptions.json").write_text(json.dumps({"images": images}))
    vocab, encode = as_change_agent_encodes(images)
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    predictions = {f"levir_cc/{Path(item['id']).stem}": item["prediction"] for item in items}
    write_jsonl(tmp_path / "p.jsonl", [{"id": key, "text": text} for key, text in predictions.items()])
    write_jsonl(tmp_path / "p2.jsonl", [{"id": key, "text": encode(text)} for key, text in predictions.items()])
    write_jsonl(
        tmp_path / "s2.jsonl",
        [
            {"id": key, "task": "change_caption", "reference": {"captions": [encode(one["raw"]) for one in image["sentences"]]}}
            for key, image in zip(predictions, images, strict=True)
        ],
    )  # fmt: skip
    rsw("data", "from", "levir-cc", source, "--set", "reading=change-agent", "--out", tmp_path / "made")
    quiet = ("--set", "captions.meteor=false")
    rsw(
        "evaluate", "levir-cc-ids", "--samples", tmp_path / "made" / "samples.jsonl", "--root", source, "--predictions",
        tmp_path / "p.jsonl", "--out", tmp_path / "a", *quiet, "--set", f"captions.word_map={tmp_path / 'vocab.json'}",
    )  # fmt: skip
    rsw(
        "evaluate", "levir-cc-words", "--samples", tmp_path / "s2.jsonl", "--predictions", tmp_path / "p2.jsonl",
        "--out", tmp_path / "b", *quiet,
    )  # fmt: skip
    ours, theirs = (json.loads((tmp_path / run / "summary.json").read_text())["metrics"] for run in "ab")
    for key in ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider"):
        assert ours[key]["value"] == pytest.approx(theirs[key]["value"], rel=1e-12), key
    assert ours["bleu4"]["value"] < 1
