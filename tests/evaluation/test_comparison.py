"""Comparing runs: what is paired, what is refused, and what a leaderboard says of the runs behind the best."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

import rsw_rewards as rsw
from rsw_rewards.core.files import read_json, write_json
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.errors import InputError
from rsw_rewards.evaluation.comparison import run_names
from rsw_rewards.evaluation.leaderboard import Cell, Leaderboard, percent_key, too_few_scenes
from rsw_rewards.evaluation.protocols import PROTOCOLS, Protocol
from rsw_rewards.io.records_io import write_jsonl

SAMPLES = 60
"""Questions, two for each of 30 scenes; the right answer is "yes" to every third and "no" to the others."""


WITH_FORMAT = Protocol(
    name="with-format",
    title="Accuracy, and the form of answers",
    task=Task.CHANGE_QA,
    source="here",
    components=({"use": "exact_match"}, {"use": "answer_format"}),
    headline=("accuracy",),
    diagnostic=("format_rate",),
)


def truth(question: int) -> str:
    return "no" if question % 3 else "yes"


def run(
    folder: Path,
    name: str,
    wrong: Any = (),
    *,
    asked: Any = range(SAMPLES),
    protocol: str | Protocol = "exact-qa",
    missing: Any = (),
    candidates: int = 1,
) -> Path:
    """A run directory whose answers are right but for those of the questions ``wrong``."""
    samples = folder / f"{name}.samples.jsonl"
    predictions = folder / f"{name}.jsonl"
    write_jsonl(
        samples,
        [
            {"id": f"q{i}", "task": "change_qa", "scene": f"s{i // 2}", "reference": {"answers": [truth(i)]}}
            for i in asked
        ],
    )
    write_jsonl(
        predictions,
        [
            {"id": f"q{i}", "candidate": c, "text": "maybe" if i in wrong else truth(i)}
            for i in asked
            if i not in missing
            for c in range(candidates)
        ],
    )
    rsw.evaluate([PROTOCOLS.find(protocol)], samples, predictions, folder / name)
    return folder / name


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A good run, one that is almost as good, and one that is clearly worse."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        "good": run(folder, "good", {0, 7}),
        "near": run(folder, "near", {1, 8, 30}),
        "bad": run(folder, "bad", range(0, SAMPLES, 2)),
    }


def edited(run: Path, to: Path, **summary: Any) -> Path:
    """A copy of a run with other entries in its summary."""
    shutil.copytree(run, to)
    path = to / "summary.json"
    write_json(path, {**read_json(path, dict), **summary})
    return to


def test_differences_are_to_the_first_run_and_corrected_together(runs: dict[str, Path]) -> None:
    rows = rsw.compare(runs["good"], runs["near"], runs["bad"]).differences()
    assert [(Path(row["run"]).name, row["metric"]) for row in rows] == [("near", "accuracy"), ("bad", "accuracy")]
    near, bad = rows
    assert bad["base"] == pytest.approx(58 / 60) and bad["value"] == pytest.approx(0.5)
    assert bad["difference"] == pytest.approx(0.5 - 58 / 60) and bad["ci95"][1] < 0
    assert near["p_value"] > 0.5 > 0.001 > bad["p_value"]
    assert bad["p_holm"] == pytest.approx(2 * bad["p_value"]) and near["p_holm"] == near["p_value"]


def test_a_leaderboard_marks_the_best_and_what_is_not_shown_to_be_worse(runs: dict[str, Path]) -> None:
    board = rsw.compare(runs["bad"], runs["near"], runs["good"])
    assert board.names == ("good", "near", "bad") and board.keys == ("accuracy",)
    good, near, bad = (board.cells[name, "accuracy"] for name in board.names)
    assert good.best and not good.tied and good.difference is None
    assert near.tied and near.difference == pytest.approx(-1 / 60)
    assert not bad.tied and not bad.best and bad.p_holm is not None and bad.p_holm < 0.01
    assert board.n == 60 and board.n_scenes == 30 and board.warnings == ()
    assert board.baselines["majority"]["accuracy"].value == pytest.approx(40 / 60)
    record = board.records()[1]
    assert record["run"] == "near" and record["tied"] and json.dumps(record)


def test_holm_corrects_the_headline_alone_or_the_numbers_asked_for(tmp_path: Path) -> None:
    found = [run(tmp_path, name, wrong, protocol=WITH_FORMAT) for name, wrong in (("a", ()), ("b", {1, 5}))]
    rows = {row["metric"]: row for row in rsw.compare(*found, protocol=WITH_FORMAT).differences()}
    diagnostic = {key for key, row in rows.items() if row["diagnostic"]}
    assert diagnostic == {"format_rate"} == {key for key, row in rows.items() if row["p_holm"] is None}
    assert {(row["base_run"], row["run"]) for row in rows.values()} == {("a", "b")}
    board = rsw.compare(*found, protocol=WITH_FORMAT)
    assert "format_rate" not in board.keys and board.keys == WITH_FORMAT.headline
    asked = rsw.compare(*found, protocol=WITH_FORMAT, metrics=["format_rate"])
    assert asked.keys == ("format_rate",) and asked.differences()[0]["p_holm"] is not None


def test_so_few_scenes_that_nothing_can_be_shown_is_said(tmp_path: Path) -> None:
    few = [run(tmp_path, name, wrong, asked=range(10)) for name, wrong in (("right", ()), ("wrong", range(10)))]
    board = rsw.compare(*few)
    assert board.cells["wrong", "accuracy"].p_holm == 0.0625 and board.cells["wrong", "accuracy"].tied
    assert "5 scenes cannot show that one run is better" in board.warnings[-1] and "6 scenes can" in board.warnings[-1]
    assert too_few_scenes(6, 1) == [] and too_few_scenes(12, 0) == []
    assert "7 scenes can" in too_few_scenes(6, 3)[0] and too_few_scenes(7, 6) != [] and too_few_scenes(7, 3) == []


def test_equal_runs_are_both_the_best(runs: dict[str, Path], tmp_path: Path) -> None:
    same = edited(runs["good"], tmp_path / "same")
    board = rsw.compare(runs["good"], same, runs["bad"])
    assert board.cells["good", "accuracy"].best and board.cells["same", "accuracy"].best
    (row,) = rsw.compare(runs["good"], same).differences()
    assert row["difference"] == 0 and row["p_value"] == 1.0 and row["ci95"][0] < 0 < row["ci95"][1]


def test_runs_of_other_samples_are_compared_over_those_they_share(runs: dict[str, Path], tmp_path: Path) -> None:
    part = run(tmp_path, "part", {22}, asked=range(20, SAMPLES))
    board = rsw.compare(runs["good"], part, names=["all", "part"])
    assert "40 samples (20 scenes)" in board.warnings[0] and board.n == 40 and board.n_scenes == 20
    assert board.cells["all", "accuracy"].value == 1.0  # its two errors are among the questions that are not shared
    assert board.cells["part", "accuracy"].difference == pytest.approx(-1 / 40)
    assert not board.baselines  # they are of other samples
    (row,) = rsw.compare(runs["good"], part).differences()
    assert row["base"] == 1.0 and row["difference"] == pytest.approx(row["value"] - row["base"])


def test_only_shared_candidates_are_compared(runs: dict[str, Path], tmp_path: Path) -> None:
    board = rsw.compare(runs["good"], run(tmp_path, "three", {3}, candidates=3))
    assert board.n == 60 and len(board.warnings) == 1 and "good 1, three 3" in board.warnings[0]


def test_what_cannot_be_compared_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    other = run(tmp_path, "other", asked=range(100, 110))
    with pytest.raises(InputError, match="no sample in common"):
        rsw.compare(runs["good"], other)
    counted = run(tmp_path, "counted", protocol="cdvqa")
    with pytest.raises(InputError, match="of the protocol cdvqa"):
        rsw.compare(runs["good"], counted)
    board = rsw.compare(counted, run(tmp_path, "counted2", {1}, protocol="cdvqa"))
    assert board.keys == ("oa",)  # these questions have no kinds
    with pytest.raises(InputError, match="given twice"):
        rsw.compare(runs["good"], runs["good"] / ".." / "good")
    with pytest.raises(InputError, match="two or more"):
        rsw.compare(runs["good"]).differences()
    with pytest.raises(InputError, match="no metric 'bleu'; they have accuracy"):
        rsw.compare(runs["good"], runs["near"], metrics=["bleu"])
    with pytest.raises(InputError, match="not a finished run"):
        rsw.compare(runs["good"], tmp_path / "nowhere")


def test_unequal_shares_of_valid_outputs_are_warned_of(runs: dict[str, Path], tmp_path: Path) -> None:
    silent = run(tmp_path, "silent", missing=range(6))
    (words,) = rsw.compare(runs["good"], silent).warnings
    assert "share of valid outputs differs (exact_match: good 1.000, silent 0.900)" in words


def test_scores_that_failed_are_warned_of_by_run(tmp_path: Path) -> None:
    faulty = Protocol(
        name="with-faults",
        title="Accuracy, and a verifier that fails",
        task=Task.CHANGE_QA,
        source="here",
        components=({"use": "exact_match"}, {"use": f"{Path(__file__).parents[1]}/engine/faulty.py:Faulty"}),
        headline=("accuracy",),
    )
    whole = run(tmp_path, "whole", protocol=faulty)
    broken = run(tmp_path, "broken", protocol=faulty)
    answers = (tmp_path / "broken.jsonl").read_text().replace('"yes"', '"raise"')
    (tmp_path / "broken.jsonl").write_text(answers)
    shutil.rmtree(broken)
    rsw.evaluate([faulty], tmp_path / "broken.samples.jsonl", tmp_path / "broken.jsonl", broken)
    (words,) = (one for one in rsw.compare(whole, broken, protocol=faulty).warnings if "failed" in one)
    assert words.startswith("Faulty failed on 20 of 60 outputs of broken, which its numbers leave out")


def test_other_configurations_and_weights_are_warned_of(runs: dict[str, Path], tmp_path: Path) -> None:
    other = edited(runs["near"], tmp_path / "other", encoders={"clip": "b"})
    first = edited(runs["good"], tmp_path / "first", encoders={"clip": "a"})
    config = yaml.safe_load((other / "config.yaml").read_text())
    config["components"][0]["config"] = {"extract": "whole"}
    config["config_hash"] = "0" * 12
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    warnings = " ".join(rsw.compare(first, other).warnings)
    assert "different configurations" in warnings and "weights of the encoder clip differ" in warnings


def test_a_hash_that_is_a_list_is_a_difference_and_no_crash(runs: dict[str, Path], tmp_path: Path) -> None:
    other = edited(runs["good"], tmp_path / "other")
    config = yaml.safe_load((other / "config.yaml").read_text())
    (other / "config.yaml").write_text(yaml.safe_dump({**config, "config_hash": ["x"]}))
    assert "configuration hashes" in " ".join(rsw.compare(runs["good"], other).warnings)


def test_a_run_directory_cannot_name_code(runs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    other = edited(runs["near"], tmp_path / "other")
    config = yaml.safe_load((other / "config.yaml").read_text())
    config["components"] = [{"use": f"{tmp_path / 'evil.py'}:thing"}]
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    rsw.compare(other, runs["good"])
    assert not (tmp_path / "ran").exists()


def test_names_are_made_different_or_refused() -> None:
    def at(*folders: str) -> list[Any]:
        return [SimpleNamespace(folder=Path(folder)) for folder in folders]

    assert run_names(at("/a/x/out", "/a/y/out")) == ("x/out", "y/out")
    assert run_names(at("/a/x", "/a/y"), ["A", "B"]) == ("A", "B")
    with pytest.raises(InputError, match="1 names for 2 runs"):
        run_names(at("/a/x", "/a/y"), ["A"])
    with pytest.raises(InputError, match="named 'A'"):
        run_names(at("/a/x", "/a/y"), ["A", "A"])


BOARD = Leaderboard(
    protocol="demo_1",
    names=("100% & more", "a|b*"),
    keys=("accuracy", "rmse"),
    cells={
        ("100% & more", "accuracy"): Cell(0.9, (0.85, 0.93), best=True),
        ("100% & more", "rmse"): Cell(-12.5, None),
        ("a|b*", "accuracy"): Cell(0.88, (0.8, 0.92), difference=-0.02, p_value=0.2, p_holm=0.4),
    },
    n=10,
    n_scenes=5,
    baselines={"majority": {"accuracy": Cell(0.5, None)}},
    fractions=frozenset({"accuracy"}),
    warnings=("they differ",),
)


def test_text_and_markdown_show_values_intervals_and_marks() -> None:
    text = BOARD.to_text().splitlines()
    assert text[0].split() == ["run", "accuracy", "rmse", "(lower", "is", "better)"]
    assert text[2].startswith("100% & more  0.900* [0.850, 0.930]") and "0.880~ [0.800, 0.920]" in text[3]
    assert text[4].startswith("(majority)") and text[-1] == "Warning: they differ"
    markdown = BOARD.to_markdown().splitlines()
    assert markdown[2] == "| 100% & more | **0.900** [0.850, 0.930] | -12.5 |"
    assert markdown[3] == r"| a\|b\* | 0.880 \~ [0.800, 0.920] | - |"
    assert len({line.replace(r"\|", "").count("|") for line in markdown[:5]}) == 1


def test_latex_is_escaped_and_may_be_in_percent() -> None:
    latex = BOARD.to_latex(percent=True)
    assert r"100\% \& more & \textbf{90.0} {\scriptsize [85.0, 93.0]} & $-$12.5 \\" in latex
    assert r"Run & accuracy (\%) & rmse $\downarrow$ \\" in latex and r"88.0$^{\sim}$" in latex
    assert latex.splitlines()[0] == "% Warning: they differ" and r"demo\_1" in latex
    assert r"\textbf{0.900}" in BOARD.to_latex()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
def test_latex_compiles(tmp_path: Path) -> None:
    page = r"\documentclass{article}\usepackage{booktabs}\begin{document}" + BOARD.to_latex(True) + r"\end{document}"
    (tmp_path / "page.tex").write_text(page)
    made = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"], cwd=tmp_path, capture_output=True
    )
    assert made.returncode == 0, made.stdout.decode()[-2000:]


def test_percent_scales_what_papers_scale_and_nothing_else() -> None:
    samples = [
        {"task": "change_qa", "scene": f"s{n}", "reference": {"answers": ["yes"], "vocabulary": ["yes", "no"]}}
        for n in range(8)
    ]
    right, half = (rsw.evaluate("exact-qa", samples, answers) for answers in (["yes"] * 8, ["yes", "no"] * 4))
    board = rsw.compare(right, half, names=["right", "half"])
    assert r"accuracy (\%)" in board.to_latex(percent=True) and "50.0" in board.to_latex(percent=True)
    assert r"(\%)" not in board.to_latex() and "0.500" in board.to_latex()


@pytest.mark.parametrize(
    ("key", "bounds", "scaled"),
    [
        ("f1", (0.0, 1.0), True), ("kappa", (-1.0, 1.0), True), ("bleu4", (0.0, 1.0), True), ("cider", (0.0, math.inf), True),
        ("ssim", (-1.0, 1.0), False), ("lpips", (0.0, math.inf), False), ("psnr", (0.0, math.inf), False), ("fid", None, False),
        ("gain_over_copy", (-math.inf, 1.0), False), ("rmse", (0.0, math.inf), False),
    ],
)  # fmt: skip
def test_which_numbers_papers_print_times_a_hundred(key: str, bounds: tuple[float, float] | None, scaled: bool) -> None:
    assert percent_key(key, bounds) is scaled


def forecast_runs(folder: Path) -> list[Path]:
    """Two finished runs: one gives the truth but for the last sample, one a copy of the input."""
    rng = np.random.default_rng(0)
    images = [tuple(ImageRef(array=rng.integers(0, 255, (16, 16, 3), np.uint8)) for _ in range(2)) for _ in range(8)]
    samples = [
        Sample(f"s/{k}", Task.FORECAST, (before,), "grow", {"images": [after]}) for k, (before, after) in enumerate(images)
    ]  # fmt: skip
    protocol = rsw.protocol("gains", ["gain_over_copy"], task="forecast", baselines=["copy_before", "oracle"])
    for name, place in (("good", 1), ("copied", 0)):
        outputs = [Output(f"s/{k}", image=pair[place if k < 7 else 0]) for k, pair in enumerate(images)]
        rsw.evaluate(protocol, samples, outputs, folder / name)
    return [folder / "good", folder / "copied"]


def test_a_page_shows_runs_of_folders_side_by_side_disagreements_first(tmp_path: Path) -> None:
    runs = forecast_runs(tmp_path)
    protocol = rsw.protocol("gains", ["gain_over_copy"], task="forecast")
    rsw.compare(*runs, protocol=protocol, html=tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    cards, table = (
        json.loads(part.split("</script>")[0]) for part in text.split('<script type="application/json">')[1:]
    )
    assert [card["why"] for card in cards["cards"]] == ["disputed"] * 7 + ["random"]
    first = cards["cards"][0]
    assert [side["name"] for side in first["sides"]] == ["good", "copied"]
    assert [picture["part"] for picture in first["pictures"]] == ["input", "truth"]
    made = [side["pictures"][0]["image"] for side in first["sides"]]
    assert made == [first["pictures"][1]["image"], first["pictures"][0]["image"]]  # the truth, and a copy of the input
    assert len(table["rows"]) == 8 and table["rows"][-1][-1] == 0.0
    assert "Paired differences to good" in text and "oracle" in text


def test_a_run_without_pages_is_named_and_one_in_memory_has_its_samples(tmp_path: Path) -> None:
    runs = forecast_runs(tmp_path)
    shutil.rmtree(runs[1] / "report")
    protocol = rsw.protocol("gains", ["gain_over_copy"], task="forecast")
    rsw.compare(*runs, protocol=protocol, html=tmp_path / "page.html")
    assert "copied holds no pages of samples" in (tmp_path / "page.html").read_text()
    samples = [{"task": "change_qa", "reference": {"answers": ["yes"], "vocabulary": ["yes", "no"]}}] * 4
    mine, theirs = (rsw.evaluate("exact-qa", samples, [answer] * 4) for answer in ("yes", "no"))
    rsw.compare(mine, theirs, names=["mine", "theirs"], html=tmp_path / "memory.html")
    assert '"answer":"yes"' in (tmp_path / "memory.html").read_text()


def test_figures_are_written_for_papers(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra figures")
    runs = forecast_runs(tmp_path)
    protocol = rsw.protocol("gains", ["gain_over_copy"], task="forecast")
    rsw.compare(*runs, protocol=protocol, figures=tmp_path / "figures")
    files = sorted(file.name for file in (tmp_path / "figures").iterdir())
    assert files == ["differences.pdf", "differences.svg", "numbers.pdf", "numbers.svg"]
    assert (tmp_path / "figures" / "numbers.pdf").read_bytes().startswith(b"%PDF")


def test_a_plain_table_is_at_most_110_columns_wide() -> None:
    keys = tuple(f"a_metric_of_some_length_{n}" for n in range(6))
    cells = {(run, key): Cell(0.5, (0.4, 0.6)) for run in ("one", "two") for key in keys}
    text = Leaderboard("p", ("one", "two"), keys, cells, 4, 4).to_text()
    assert max(map(len, text.splitlines()[:12])) <= 110 and all(key in text for key in keys)
