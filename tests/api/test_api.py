"""The public face: what a notebook calls, end to end, and that it is as strict as files."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import rsw_rewards as rsw

GENERATOR = np.random.default_rng(3)
BEFORE, AFTER = GENERATOR.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
QUESTIONS = [
    {
        "id": f"q{number}",
        "task": "change_qa",
        "scene": f"place {number // 2}",
        "images": [BEFORE, AFTER],
        "reference": {"answers": [answer], "vocabulary": ["yes", "no"]},
    }
    for number, answer in enumerate(["yes", "no", "no", "yes", "no", "yes"])
]
ANSWERS = ["yes", "no", "yes", "yes", "dunno", "yes"]


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


# One score


def test_a_text_is_scored():
    reference = {"answers": ["yes"], "vocabulary": ["yes", "no"]}
    found = rsw.score("exact_match", output="yes", reference=reference)
    assert (found.value, found.status) == (1.0, rsw.Status.OK)
    assert rsw.score("exact_match", output="no", reference=reference).value == 0.0
    assert rsw.score("exact_match", output=None, reference=reference).status == rsw.Status.INVALID_OUTPUT


def test_an_image_is_scored_in_whatever_form_it_comes(tmp_path):
    torch = pytest.importorskip("torch")
    (tmp_path / "after.png").write_bytes(png(AFTER))
    forms = [
        AFTER,
        Image.fromarray(AFTER),
        torch.from_numpy(AFTER.copy()),
        png(AFTER),
        tmp_path / "after.png",
        str(tmp_path / "after.png"),
        "data:image/png;base64," + base64.b64encode(png(AFTER)).decode(),
        rsw.image(AFTER.astype(np.float32) / 255, range=(0, 1)),
    ]
    values = [
        rsw.score("gain_over_copy", output=form, images=[BEFORE], reference={"images": [AFTER]}).value for form in forms
    ]
    assert values == [1.0] * len(forms)


def test_the_configuration_of_a_verifier_is_given_by_name():
    reference = {"answers": ["12"]}
    assert rsw.score("numeric_match", output="13", reference=reference).value == 0.0
    assert rsw.score("numeric_match", output="13", reference=reference, abs_tol=1.0).value == 1.0
    with pytest.raises(rsw.ConfigError, match="no option 'abs_toll'"):
        rsw.score("numeric_match", output="13", reference=reference, abs_toll=1.0)


def test_the_task_is_asked_for_where_it_could_be_several():
    mask = np.zeros((8, 8), bool)

    @rsw.verifier(tasks=["change_mask", "grounding"])
    def any_mask(sample, output):
        return 1.0

    with pytest.raises(rsw.InputError, match="change_mask or grounding; say which by task"):
        rsw.score(any_mask, output=mask, reference={"mask": mask})
    assert rsw.score(any_mask, output=mask, reference={"mask": mask}, task="change_mask").value == 1.0
    with pytest.raises(rsw.InputError, match="does not score forecast"):
        rsw.score(any_mask, output=mask, reference={"mask": mask}, task="forecast")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"verifier": "bleu", "output": "a road"}, "reads reference.captions"),
        ({"verifier": "exact_match", "output": 3, "reference": {"answers": ["3"]}}, "text"),
        (
            {
                "verifier": "gain_over_copy",
                "output": AFTER / 255.0,
                "images": [BEFORE],
                "reference": {"images": [AFTER]},
            },
            "range",
        ),
        ({"verifier": "exact_match", "output": "yes", "reference": "yes"}, "'reference' must be a mapping, not 'yes'"),
        (
            {"verifier": "gain_over_copy", "output": AFTER, "images": [BEFORE], "reference": AFTER},
            "'reference' must be a mapping, not",
        ),
    ],
)
def test_what_is_the_callers_fault_raises(arguments, words):
    with pytest.raises(rsw.InputError, match=words):
        rsw.score(**arguments)


def test_the_first_score_is_quick_and_loads_nothing_heavy():
    """In processor time, interpreter and imports included, since other processes may keep the machine busy."""
    code = (
        "import sys, time\n"
        "import rsw_rewards as rsw\n"
        "rsw.score('exact_match', output='yes', reference={'answers': ['yes'], 'vocabulary': ['yes', 'no']})\n"
        "print(time.process_time(), [m for m in ('torch', 'ray', 'pandas', 'transformers') if m in sys.modules])"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split(" ", 1)
        for _ in range(3)
    ]
    assert {heavy.strip() for _, heavy in runs} == {"[]"}
    assert min(float(seconds) for seconds, _ in runs) < 1.0


# Evaluating


def files(folder: Path, records: list[dict]) -> tuple[Path, Path]:
    samples = [{key: value for key, value in record.items() if key != "images"} for record in QUESTIONS]
    for name, lines in (("samples.jsonl", samples), ("predictions.jsonl", records)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "samples.jsonl", folder / "predictions.jsonl"


RECORDS = [{"id": f"q{number}", "text": text} for number, text in enumerate(ANSWERS)]
STATES = {
    "whole": RECORDS,
    "half missing": RECORDS[::2],
    "unknown and double": [*RECORDS, {"id": "q99", "text": "yes"}, {"id": "q0", "text": "no"}],
    "of another kind": [*RECORDS[:3], {"id": "q3", "text": 5}, {"id": "q4"}, {"id": "q5", "boxes": [[0, 0, 1, 1]]}],
    "misplaced": [*RECORDS[:4], {"id": "q4", "text": "no", "candidate": -1}, {"text": "yes"}],
}


@pytest.mark.parametrize("state", STATES)
def test_memory_is_as_strict_as_files(state, tmp_path):
    from_files = rsw.evaluate("exact-qa", *files(tmp_path, STATES[state]))
    for outputs in (STATES[state], pd.DataFrame(STATES[state])):
        found = rsw.evaluate("exact-qa", QUESTIONS, outputs)
        assert found.metrics == from_files.metrics
        assert found.summary["problems"]["counts"] == from_files.summary["problems"]["counts"]
        assert found.summary["status"] == from_files.summary["status"]


def test_collections_of_every_kind_give_one_result():
    datasets = pytest.importorskip("datasets")
    plain = [{key: value for key, value in record.items() if key != "images"} for record in QUESTIONS]
    samples = [
        plain,
        pd.DataFrame(plain),
        datasets.Dataset.from_list(plain),
        [rsw.Sample(**record) for record in plain],
    ]
    outputs = [RECORDS, ANSWERS, pd.DataFrame(RECORDS), [rsw.Output(r["id"], text=r["text"]) for r in RECORDS]]
    accuracies = {rsw.evaluate("exact-qa", asked, ANSWERS).metrics["accuracy"] for asked in samples}
    accuracies |= {rsw.evaluate("exact-qa", plain, answered).metrics["accuracy"] for answered in outputs}
    (accuracy,) = accuracies
    assert accuracy.value == pytest.approx(4 / 6)
    assert accuracy.n == 6
    assert accuracy.n_scenes == 3
    assert accuracy.ci95[0] < accuracy.value < accuracy.ci95[1]


def test_a_result_is_looked_at_and_saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = rsw.evaluate("exact-qa", QUESTIONS, ANSWERS)
    assert not list(tmp_path.iterdir()), "without out nothing is written"
    frame = found.to_frame()
    assert frame.loc["accuracy", "value"] == found.metrics["accuracy"].value
    assert (frame["low"] <= frame["value"]).all()
    assert found.scores["value"].tolist() == [1.0, 1.0, 0.0, 1.0, 0.0, 1.0]
    assert "accuracy 0.667" in repr(found)
    assert "exact-qa" in found.report("page.html").read_text()
    saved = found.save("runs/mine")
    assert sorted(file.name for file in saved.iterdir()) == [
        "config.yaml", "inputs.parquet", "report", "report.html", "scores.parquet", "summary.json",
    ]  # fmt: skip
    found.save("runs/mine")
    with pytest.raises(rsw.InputError, match="holds scores of other samples, truths or outputs"):
        rsw.evaluate("exact-qa", QUESTIONS, ["yes"] * 6).save("runs/mine")


def test_out_holds_what_save_writes_and_is_resumed(tmp_path):
    found = rsw.evaluate("exact-qa", QUESTIONS, ANSWERS, out=tmp_path / "out")
    found.save(tmp_path / "saved")
    written, saved = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("out", "saved"))
    assert written == saved
    with pytest.raises(rsw.InputError, match="holds a run already"):
        rsw.evaluate("exact-qa", QUESTIONS, ANSWERS, out=tmp_path / "out")
    again = rsw.evaluate("exact-qa", QUESTIONS, ANSWERS, out=tmp_path / "out", resume=True)
    assert again.metrics == found.metrics


def test_several_protocols_give_a_list():
    exact, numeric = rsw.evaluate(["exact-qa", "cdvqa-vista"], QUESTIONS, ANSWERS)
    assert exact.metrics["accuracy"].value == numeric.metrics["oa"].value


def test_a_policy_is_evaluated_in_memory_as_in_a_folder(tmp_path):
    samples = rsw.data.make_scene_world(tmp_path / "world", n=6, tasks=["forecast"])
    mine = rsw.protocol("gain", "gain_over_copy", baselines=[])
    here = rsw.evaluate(mine, samples, policy="copy_before")
    there = rsw.evaluate(mine, samples, policy="copy_before", out=tmp_path / "out")
    assert here.metrics == there.metrics
    assert here.metrics["gain_over_copy"].value == pytest.approx(0.0, abs=0.05)


def test_features_of_a_result_in_memory_are_saved_with_it(tmp_path):
    samples = rsw.data.make_scene_world(tmp_path / "world", n=6, tasks=["forecast"])
    mine = rsw.protocol("set", {"use": "frechet", "config": {"encoder": "scene-clip"}}, baselines=[])
    runs = [rsw.evaluate(mine, samples, policy=policy) for policy in ("copy_before", "blurred_copy")]
    folders = [run.save(tmp_path / str(place)) for place, run in enumerate(runs)]
    boards = [rsw.compare(*given, names=["copy", "blurred"], protocol=mine) for given in (runs, folders)]
    assert boards[0].cells == boards[1].cells
    assert boards[0].cells["blurred", "fd_scene-clip"].difference is not None


# Protocols, verifiers and rewards of one's own


@rsw.verifier(tasks="change_qa")
def short_answer(sample, output, *, limit: int = 1):
    """1 for an answer of few words, else 0."""
    return float(len(output.text.split()) <= limit)


def test_a_protocol_of_functions():
    mine = rsw.protocol("mine", ["exact_match", short_answer], metrics=["accuracy", "short_answer"])
    found = rsw.evaluate(mine, QUESTIONS, ["yes", "no", "no", "yes it is", "no", "yes"])
    assert list(found.metrics) == ["accuracy", "short_answer"]
    assert found.metrics["short_answer"].value == pytest.approx(5 / 6)
    wider = rsw.evaluate(mine, QUESTIONS, ANSWERS, settings={"short_answer.limit": 3})
    assert wider.metrics["short_answer"].value == 1.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("exact-qa", "exact_match"), "built-in protocol named 'exact-qa'"),
        (("mine", []), "no component"),
        (("mine", "no_such"), "no verifier is named 'no_such'"),
        (("mine", ["exact_match", "gain_over_copy"]), "in common: none"),
    ],
)
def test_a_protocol_that_cannot_be(arguments, words):
    with pytest.raises(rsw.ConfigError, match=words):
        rsw.protocol(*arguments)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"metrics": ["acuracy"]}, "'mine' has no metric 'acuracy'; did you mean 'accuracy'"),
        ({"baselines": ["orakle"]}, "no baseline is named 'orakle'; did you mean 'oracle'"),
        ({"baselines": [5]}, "cannot be called"),
    ],
)
def test_an_unknown_number_or_baseline_of_a_protocol_is_named(options, words):
    with pytest.raises(rsw.ConfigError, match=words):
        rsw.protocol("mine", "exact_match", task="change_qa", **options)


def test_a_verifier_that_names_no_numbers_gives_the_mean_of_its_values():
    class Length(rsw.Verifier):
        name = "length"
        tasks = "change_qa"

        def score(self, batch):
            return [rsw.Score(len(output.text) / 10) for output in batch.outputs]

    class Watched(Length):
        name = "watched"
        rewarding = False

        def score(self, batch):
            return [rsw.Score(None, raw={"words": len(output.text.split())}) for output in batch.outputs]

        def metrics(self):
            return (rsw.MeanValue("words", "words", bounds=(0.0, float("inf"))),)

    @rsw.verifier(tasks="change_qa")
    def sure(sample, output):
        return rsw.Score(float(sample.id != "q0"))

    mine = rsw.protocol("mine", [Length, Watched, sure], metrics=["sure", "length", "words"])
    found = rsw.evaluate(mine, QUESTIONS, ["yes", "no", "no no", "yes", None, "yes"]).metrics
    assert list(found) == ["sure", "length", "words"]
    assert found["length"].value == pytest.approx((0.3 + 0.2 + 0.5 + 0.3 + 0.0 + 0.3) / 6)
    assert found["words"].value == pytest.approx((1 + 1 + 2 + 1 + 0 + 1) / 6)
    assert found["sure"].value == pytest.approx(4 / 6)
    low, high = found["sure"].ci95
    assert low >= 0.0 and high <= 1.0


def test_outputs_that_are_all_missing_are_all_wrong():
    found = rsw.evaluate("exact-qa", QUESTIONS, [None] * 6)
    assert (found.metrics["accuracy"].value, found.metrics["accuracy"].valid_rate) == (0.0, 0.0)
    assert [problem.kind for problem in found.problems] == ["missing"] * 6
    assert rsw.rewards({"exact_match": 1.0}, QUESTIONS, [None] * 6).mean == 0.0
    with pytest.raises(rsw.InputError, match="all outputs are missing"):
        rsw.evaluate("exact-qa", QUESTIONS, [None] * 6, on_missing="drop")
    with pytest.raises(rsw.InputError, match="it is empty"):
        rsw.evaluate("exact-qa", QUESTIONS, [])


def test_what_is_no_policy_is_refused():
    with pytest.raises(rsw.ConfigError, match="is not a policy; give its name"):
        rsw.evaluate("exact-qa", QUESTIONS, policy=5)


def test_a_protocol_in_a_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        'import rsw_rewards as rsw\nPROTOCOL = rsw.protocol("of-a-file", "exact_match", task="change_qa")\n'
    )
    assert rsw.evaluate(f"{file}:PROTOCOL", QUESTIONS, ANSWERS).metrics["accuracy"].value == pytest.approx(4 / 6)


def test_rewards_of_mixed_tasks_stand_in_the_order_of_the_outputs(tmp_path):
    caption = {"task": "change_caption", "reference": {"captions": ["a road is built"]}}
    samples = [{**caption, "id": "c0"}, QUESTIONS[0], {**caption, "id": "c1"}, QUESTIONS[1]]
    answers = ["a road is built", "yes", "trees", "yes"]
    found = rsw.rewards({"exact_match": 1.0, "rouge_l": 1.0}, samples, answers, out=tmp_path)
    assert [record["id"] for record in found.records] == ["c0", "q0", "c1", "q1"]
    assert found.to_frame()["reward"].tolist() == [1.0, 1.0, 0.0, 0.0]
    assert [json.loads(line) for line in (tmp_path / "rewards.jsonl").read_text().splitlines()] == found.records
    named = [
        {"id": sample["id"], "candidate": n, "text": text}
        for n in (1, 0)
        for sample, text in zip(samples, answers, strict=True)
    ]
    several = rsw.rewards({"exact_match": 1.0, "rouge_l": 1.0}, samples, named)
    assert [(record["id"], record["candidate"]) for record in several.records] == [
        (sample["id"], n) for sample in samples for n in (0, 1)
    ]
    unknown = rsw.rewards({"exact_match": 0.0}, samples, answers).records  # nothing measures the captions
    assert [(record["id"], record["reward"]) for record in unknown] == [
        (record["id"], None) for record in found.records
    ]


def test_rewards_are_weighed_again(tmp_path):
    found = rsw.rewards({"exact_match": 0.9, short_answer: 0.1}, QUESTIONS, ANSWERS, out=tmp_path)
    assert found.mean == pytest.approx((0.9 * 4 + 0.1 * 6) / 6)
    assert found.to_frame()["id"].tolist() == [sample["id"] for sample in QUESTIONS]
    own, flat = rsw.reweight(found, {"short_answer": 1.0})
    assert (own.mean_reward, flat.mean_reward) == (pytest.approx(found.mean), 1.0)
    with pytest.raises(rsw.ConfigError, match="did you mean 'exact_match'"):
        rsw.reweight(found, {"exact_mach": 1.0})
    with rsw.Reward({"exact_match": 0.9, short_answer: 0.1}) as reward:
        single = reward.many(ANSWERS, [rsw.Sample(**sample) for sample in QUESTIONS])
    assert [one.reward for one in single] == found.to_frame()["reward"].tolist()


# The rest of the command line


def test_compare_results_and_folders(tmp_path):
    mine, theirs = (rsw.evaluate("exact-qa", QUESTIONS, answers) for answers in (ANSWERS, ["no"] * 6))
    board = rsw.compare(mine, theirs, names=["mine", "theirs"])
    folders = rsw.compare(mine.save(tmp_path / "mine"), theirs.save(tmp_path / "theirs"))
    assert board.names == folders.names == ("mine", "theirs")
    assert board.cells == folders.cells
    (row,) = (row for row in board.differences() if row["metric"] == "accuracy")
    assert row["difference"] == pytest.approx(-1 / 6)
    assert {"run", "metric", "value"} <= set(board.to_frame().columns)


def test_validate_and_read(tmp_path):
    samples = rsw.data.make_scene_world(tmp_path / "world", n=8, tasks=["change_qa"])
    assert rsw.validate("exact-qa", samples).ok
    (tmp_path / "answers.json").write_text(json.dumps([{"id": sample.id, "text": "yes"} for sample in samples[:5]]))
    answers = rsw.predictions.read("json", tmp_path / "answers.json", samples)
    assert len(answers.outputs) == 5
    assert {problem.kind for problem in answers.problems} == {"missing"}
    found = rsw.evaluate("exact-qa", samples, answers)
    assert found.summary["problems"]["counts"] == {"missing": 3}
    bare = rsw.evaluate("exact-qa", samples, rsw.predictions.read("json", tmp_path / "answers.json"))
    assert bare.metrics == found.metrics


def test_everything_that_has_names():
    assert {"exact_match", "gain_over_copy"} <= set(rsw.names("verifiers"))
    assert all(rsw.names(kind) for kind in ("protocols", "policies", "baselines", "adapters", "importers"))
    assert "scene-clip" in rsw.names("encoders")
    with pytest.raises(rsw.ConfigError, match="no 'metrics'"):
        rsw.names("metrics")


@pytest.mark.slow
def test_train_and_load(tmp_path):
    out = tmp_path / "quick"
    run = rsw.train(Path(__file__).parents[2] / "configs/quickstart.yaml", steps=2, smoke=True, out=out)
    assert run.folder == out
    assert list(run.log.index) == [1, 2]
    assert run.log["reward"].between(0, 1).all()
    assert "accuracy" in json.dumps(run.heldout["changes"])
    samples = rsw.data.make_scene_world(tmp_path / "world", n=2, tasks=["change_qa"])
    found = rsw.evaluate("exact-qa", samples, policy=rsw.load_policy(out))
    assert found.metrics["accuracy"].n == 2
    with pytest.raises(rsw.InputError, match="not the folder of a training run"):
        rsw.Run(tmp_path)


@pytest.mark.parametrize("limit", [0, -1, True, 1.5])
def test_a_limit_is_at_least_one_sample(limit: object, tmp_path: Path) -> None:
    for call in (
        lambda: rsw.evaluate("exact-qa", QUESTIONS, ANSWERS, limit=limit),
        lambda: rsw.evaluate("exact-qa", QUESTIONS, policy="oracle", limit=limit),
        lambda: rsw.rewards({"exact_match": 1.0}, QUESTIONS, ANSWERS, limit=limit),
        lambda: rsw.validate("exact-qa", QUESTIONS, limit=limit),
        lambda: rsw.data.convert("levir-cd", tmp_path, tmp_path / "out", limit=limit),
        lambda: rsw.data.read("levir-cd", tmp_path, limit=limit),
    ):
        with pytest.raises(rsw.InputError, match="'limit'"):
            call()
