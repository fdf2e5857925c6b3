"""What users plug in: functions and classes as verifiers, packages that are broken or take a name, and what a hash sees."""

from __future__ import annotations

import asyncio
import importlib
import logging
import pickle
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import rsw_rewards as rsw
from rsw_rewards.core.plugins import load_file, place_of
from rsw_rewards.core.rubric import VERIFIERS, build, parse_rubric
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.engine.scorer import Scorer
from rsw_rewards.errors import ConfigError
from tests.scoring import score_in_process


@rsw.verifier(tasks="change_qa")
def short_answer(sample: rsw.Sample, output: rsw.Output, *, limit: int = 1, weight: float = 1.0) -> float:
    """Whether an answer is short.

    More is not said.
    """
    return weight * (len((output.text or "").split()) <= limit)


def plain(sample: rsw.Sample, output: rsw.Output, *, word: str = "yes") -> float:
    return float(output.text == word)


def batch(*texts: str) -> rsw.Batch:
    samples = [rsw.Sample(f"s{i}", rsw.Task.CHANGE_QA, (), scene=f"s{i}") for i in range(len(texts))]
    return rsw.Batch.of(samples, [rsw.Output(f"s{i}", text=text) for i, text in enumerate(texts)])


def values(component: rsw.Component, *texts: str) -> list[float | None]:
    table = score_in_process(rsw.Rubric(components=(component,)), batch(*texts))
    return [None if value != value else value for value in table.frame["value"]]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Installs a package: its module's text, its entry points, its version."""

    def install(text: str, points: str = "", version: str = "1.0", name: str = "acme_rewards") -> Path:
        site = tmp_path / f"{name}-site-packages"
        known = site / f"{name}-1.dist-info"
        known.mkdir(parents=True, exist_ok=True)
        (site / f"{name}.py").write_text(textwrap.dedent(text))
        (known / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n")
        (known / "entry_points.txt").write_text(textwrap.dedent(points))
        sys.modules.pop(name, None)
        importlib.invalidate_caches()
        if str(site) not in sys.path:
            monkeypatch.syspath_prepend(str(site))
        return site

    monkeypatch.setattr(VERIFIERS, "warned", set())
    yield install
    sys.modules.pop("acme_rewards", None)


FUNCTION = "def tidy(sample, output, *, limit: int = 1):\n    return 1.0 if len(output.text) <= limit else 0.25\n"


def test_a_decorated_function_stays_a_function_and_is_pickled_by_its_name() -> None:
    one = batch("yes")
    assert short_answer(one.samples[0], one.outputs[0], limit=1) == 1.0
    assert pickle.loads(pickle.dumps(short_answer)) is short_answer
    verifier = pickle.loads(pickle.dumps(build(short_answer, {"limit": 2})))
    assert verifier.config.limit == 2 and verifier.score(batch("one two"))[0].value == 1.0
    assert (verifier.name, verifier.tasks, verifier.card.summary) == (
        "short_answer", {"change_qa"}, "Whether an answer is short.",
    )  # fmt: skip


@pytest.mark.parametrize("use", [short_answer, f"{Path(__file__)}:short_answer"])
def test_keyword_parameters_of_a_function_are_its_configuration(use: object) -> None:
    assert values(rsw.Component(use=use, config={"limit": 2}), "a b", "a b c") == [1.0, 0.0]
    assert values(rsw.Component(use=use), "a b", "a") == [0.0, 1.0]
    with pytest.raises(ConfigError, match=r"'short_answer' has no option 'limt'; did you mean 'limit'"):
        rsw.Component(use=use, config={"limt": 2}).build()
    with pytest.raises(ConfigError, match=r"'short_answer' is wrong at 'limit': .*integer"):
        rsw.Component(use=use, config={"limit": "many"}).build()


def test_a_function_that_is_not_decorated_scores_all_tasks() -> None:
    assert values(rsw.Component(use=plain, config={"word": "no"}), "yes", "no") == [0.0, 1.0]
    assert build(f"{Path(__file__)}:plain").tasks == frozenset(rsw.Task)


def test_asynchronous_verifiers_wait_for_a_whole_batch_at_once() -> None:
    meeting = asyncio.Event()
    seen: list[asyncio.AbstractEventLoop] = []

    @rsw.verifier(tasks="change_qa")
    async def asked(sample: rsw.Sample, output: rsw.Output) -> float | None:
        seen.append(asyncio.get_running_loop())
        if len(seen) % 3 == 0:
            meeting.set()
        await asyncio.wait_for(meeting.wait(), 10)  # the first is done when the last has begun
        if output.text == "boom":
            raise RuntimeError("the service is away")
        return None if output.text == "skip" else 0.5

    class Class(rsw.Verifier):
        name = "of_class"

        async def score(self, batch: rsw.Batch) -> list[rsw.Score]:  # type: ignore[override]
            await asyncio.sleep(0)
            return [rsw.Score(0.25)] * len(batch)

    rubric = rsw.Rubric(components=(rsw.Component(use=asked), rsw.Component(use=Class)))

    async def in_a_notebook() -> list[str]:
        frame = score_in_process(rubric, batch("fine", "boom", "skip")).frame
        return [f"{row.verifier} {row.status} {row.value}" for row in frame.itertuples()]

    told = asyncio.run(in_a_notebook())
    assert told[:3] == ["asked ok 0.5", "asked error nan", "asked not_applicable nan"]
    assert told[3:] == ["of_class ok 0.25"] * 3
    assert values(rsw.Component(use=asked), "a", "b", "c") == [0.5, 0.5, 0.5]
    assert len(set(map(id, seen))) == 1 and len(seen) == 6  # clients live from batch to batch


class Lean(rsw.Verifier):
    """The least that a class says."""

    name = "lean"
    tasks = "change_qa"  # type: ignore[assignment]
    needs = "output.text"  # type: ignore[assignment]

    class Config(rsw.core.verifier.NoConfig):  # type: ignore[name-defined, misc]
        worth: float = 0.5

    def __init__(self, config: object = None) -> None:
        self.calls = 0

    def score(self, batch: rsw.Batch) -> list[rsw.Score]:
        return [rsw.Score(self.config.worth)] * len(batch)


def test_a_class_may_leave_out_its_card_and_forget_super() -> None:
    assert (Lean.tasks, Lean.needs, Lean.card.summary) == (
        {"change_qa"},
        {"output.text"},
        "The least that a class says.",
    )
    assert values(rsw.Component(use=Lean, config={"worth": 0.75}), "x") == [0.75]
    assert Lean().config.worth == 0.5
    again = pickle.loads(pickle.dumps(build(Lean, {"worth": 0.25})))
    assert again.config.worth == 0.25


class Bare(rsw.Verifier):
    name = "bare"

    def __init__(self) -> None:
        self.worth = 0.5

    def score(self, batch: rsw.Batch) -> list[rsw.Score]:
        return [rsw.Score(self.worth)] * len(batch)


def test_a_class_without_settings_may_take_none() -> None:
    assert values(rsw.Component(use=Bare), "x") == [0.5]
    assert build(Bare).config.model_dump() == {} == pickle.loads(pickle.dumps(build(Bare))).config.model_dump()
    with pytest.raises(ConfigError, match="'bare' has no option 'worth'; it has no configuration"):
        build(Bare, {"worth": 1.0})


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (3, "not a verifier but an object of the class int"),
        (Lean(), "with its settings under 'config'"),
        (dict, "a class of another kind"),
        (lambda output: 1.0, "must take a sample and an output"),
        ("exact_mach", "no verifier is named 'exact_mach'; did you mean 'exact_match'"),
        (f"{Path(__file__)}:shortanswer", "did you mean 'short_answer'"),
        ("no_such_package.mod:x", "cannot be imported: ModuleNotFoundError"),
    ],
)
def test_what_is_no_verifier_is_refused_by_a_sentence(use: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        rsw.Component(use=use).build()


def test_a_declaration_that_means_nothing_is_refused_where_it_is_written() -> None:
    with pytest.raises(ConfigError, match="no task is named 'change_q'; did you mean 'change_qa'"):
        rsw.verifier(tasks="change_q")(plain)
    with pytest.raises(ConfigError, match="no scope is named 'groups'; did you mean 'group'"):
        type("Grouped", (rsw.Verifier,), {"name": "grouped", "scope": "groups"})
    for wrong in (Lean, "change_qa"):
        with pytest.raises(ConfigError, match=r"is no function; write @rsw\.verifier\(tasks="):
            rsw.verifier(wrong)  # type: ignore[call-overload]


def test_a_name_of_a_built_in_verifier_is_refused() -> None:
    @rsw.verifier(tasks="change_qa")
    def exact_match(sample: rsw.Sample, output: rsw.Output) -> float:
        return 1.0

    with pytest.raises(ConfigError, match="has the name of the built-in verifier 'exact_match'"):
        rsw.Component(use=exact_match)


def test_an_object_is_written_down_by_where_it_is_from() -> None:
    rubric = rsw.Rubric(components=(rsw.Component(use=short_answer), rsw.Component(use="exact_match")))
    assert [part["use"] for part in rubric.dump()["components"]] == [f"{__name__}:short_answer", "exact_match"]
    mine = load_file(Path(__file__)).short_answer
    (dumped,) = rsw.Rubric(components=(rsw.Component(use=mine),)).dump()["components"]
    assert dumped["use"] == f"{Path(__file__)}:short_answer" == place_of(mine)

    @rsw.verifier(tasks="change_qa")
    def local(sample: rsw.Sample, output: rsw.Output) -> float:
        return 1.0

    again = parse_rubric(rsw.Rubric(components=(rsw.Component(use=local),)).dump(), "config.yaml")
    with pytest.raises(ConfigError, match="was an object of a notebook or a script; give the object again"):
        again.components[0].build()


@rsw.verifier(tasks="change_qa", name="brevity")
def called_otherwise(sample: rsw.Sample, output: rsw.Output) -> float:
    return 1.0


def test_what_is_read_again_has_the_name_that_it_had() -> None:
    for use in (called_otherwise, Lean):
        label = rsw.Component(use=use).label
        gated = rsw.Component(use="exact_match", gate={"component": label})
        rubric = rsw.Rubric([use, gated])
        again = parse_rubric(rubric.dump(), "rubric.yaml")
        assert [component.label for component in again.components] == [label, "exact_match"]
        assert again.dump() == rubric.dump()
    dumped = rsw.Rubric([short_answer, "exact_match"]).dump()["components"]
    assert dumped == [{"use": f"{__name__}:short_answer"}, {"use": "exact_match"}]


def test_a_broken_package_costs_one_line_and_nothing_else(
    package: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    points = "[rsw_rewards.verifiers]\nbroken = acme_rewards:missing\ntidy = acme_rewards:tidy\n"
    package(FUNCTION, points)
    with caplog.at_level(logging.WARNING):
        listed = VERIFIERS.all()
    assert "tidy" in listed and "exact_match" in listed and "broken" not in listed
    (line,) = caplog.messages
    assert "'broken' of the package acme-rewards 1.0 cannot be imported: AttributeError" in line
    assert build("tidy", {"limit": 3}).score(batch("yes"))[0].value == 1.0
    with pytest.raises(ConfigError, match=r"'broken' of the package acme-rewards 1\.0 cannot be imported"):
        build("broken")


def test_a_package_cannot_take_the_name_of_a_built_in_verifier(
    package: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    package(FUNCTION, "[rsw_rewards.verifiers]\nexact_match = acme_rewards:tidy\n")
    for _ in range(2):
        assert type(build("exact_match")).__module__ == "rsw_rewards.verifiers.exact_match"
    (line,) = caplog.messages
    assert "'exact_match' of the package acme-rewards 1.0 is refused: there is a built-in verifier" in line


def test_a_protocol_has_the_name_of_its_own_entry_point(package: Callable[..., Path]) -> None:
    text = """
        import rsw_rewards as rsw

        PROTOCOL = rsw.protocol("short-qa", "exact_match", task="change_qa")
        """
    package(text, "[rsw_rewards.protocols]\nshort-qa = acme_rewards:PROTOCOL\n")
    assert "short-qa" in rsw.names("protocols")
    samples = [{"task": "change_qa", "reference": {"answers": ["yes"], "vocabulary": ["yes", "no"]}}]
    found = rsw.evaluate("short-qa", samples, ["yes"])
    assert found.protocol == importlib.import_module("acme_rewards").PROTOCOL
    assert found.metrics["accuracy"].value == 1.0


def test_a_hash_changes_with_the_code_and_the_version_of_an_installed_package(package: Callable[..., Path]) -> None:
    def hashed(text: str, version: str = "1.0") -> str:
        package(text, version=version)
        return build("acme_rewards:tidy").hash

    first = hashed(FUNCTION)
    assert hashed(FUNCTION) == first
    assert hashed(FUNCTION.replace("0.25", "0.5")) != first
    assert hashed(FUNCTION, "1.1") != first


def test_a_hash_changes_with_the_modules_of_the_same_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    hashes = []
    for worth in (0.5, 0.25, 0.25):
        (tmp_path / "acme").mkdir(exist_ok=True)
        (tmp_path / "acme" / "__init__.py").write_text("from acme.score import mine\n")
        (tmp_path / "acme" / "score.py").write_text("from . import worth\ndef mine(sample, output): return worth.W\n")
        (tmp_path / "acme" / "worth.py").write_text(f"W = {worth}\n")
        for name in ("acme", "acme.score", "acme.worth"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        hashes.append(build("acme:mine").hash)
    assert hashes[0] != hashes[1] == hashes[2]


def test_a_hash_changes_with_the_files_that_a_configuration_names(tmp_path: Path) -> None:
    weights = tmp_path / "weights.bin"
    hashes = []
    for content in (b"one", b"two"):
        weights.write_bytes(content)
        hashes += [
            build(plain, {"word": word}).hash for word in (str(weights), f"torchscript:{weights}#bands=0,1", "yes")
        ]
    assert len(set(hashes)) == 5 and hashes[2] == hashes[5]


NOTEBOOK = """
import rsw_rewards as rsw
from rsw_rewards.core.rubric import build

SHARE = {share}
WORDS = {{"yes", "no", "trees", "water"}}

def helper(text):
    return len(text) * SHARE

exec("def mine(sample, output): return helper(output.text) / {half} if output.text in WORDS else 0")
print(build(mine).hash)
"""


def test_a_function_of_a_notebook_is_hashed_by_its_code_and_by_what_it_uses() -> None:
    def hashed(share: float = 0.1, half: int = 2, more: str = "") -> str:
        text = NOTEBOOK.format(share=share, half=half) + more
        done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    first = hashed()
    assert hashed(more="other = 3") == first  # in another process, where sets have another order
    assert len({first, hashed(share=0.2), hashed(half=3)}) == 3


HOLDS = """
import numpy as np, torch
from rsw_rewards.core.rubric import build

class Table:
    def __init__(self, words, numbers):
        self.words, self.numbers, self.own = words, numbers, self

array = np.zeros((40, 50), np.float32)
array[20, 25] = {array}
tensor = torch.zeros(2000, dtype=torch.bfloat16)
tensor[1000] = {tensor}
layer = torch.nn.Linear(40, 40)
torch.nn.init.constant_(layer.weight, {layer})
torch.nn.init.zeros_(layer.bias)
table = Table({{"yes", "no", "trees", "water", "{word}"}}, [np.ones(2000) * {table}])

exec("def mine(sample, output): return array.mean() + tensor.mean() + layer.bias[0] + len(table.words)")
print(build(mine).hash)
"""


def test_a_hash_sees_all_of_an_array_a_network_and_an_object() -> None:
    def hashed(**changed: object) -> str:
        text = HOLDS.format(**{"array": 0, "tensor": 0, "layer": 0, "table": 0, "word": "road", **changed})
        done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    first = hashed()
    assert hashed() == first  # in another process
    changed = [hashed(array=1), hashed(tensor=1), hashed(layer=1), hashed(table=1), hashed(word="house")]
    assert len({first, *changed}) == 6


SCRIPT = """
import rsw_rewards as rsw
from rsw_rewards.engine.scorer import Scorer

HALF = 0.5

@rsw.verifier(tasks="change_qa")
def mine(sample, output, *, limit: int = 1):
    return HALF if len(output.text) > limit else 1.0

class Own(rsw.Verifier):
    name = "own"
    tasks = "change_qa"

    def setup(self, context):
        self.table = {"x": 0.25}

    def invalid(self, sample, reason):
        return rsw.Score.invalid(reason, raw={"x": self.table["x"]})

    def score(self, batch):
        return [rsw.Score(self.table.get(output.text, 0.75)) for output in batch.outputs]

if __name__ == "__main__":
    samples = [rsw.Sample(f"s{n}", rsw.Task.CHANGE_QA, (), scene=f"s{n}") for n in range(3)]
    outputs = [rsw.Output("s0", text="x"), rsw.Output("s1", text="long"), rsw.Output("s2", invalid="cut short")]
    rubric = rsw.Rubric(components=(rsw.Component(use=mine, config={"limit": 3}), rsw.Component(use=Own)))
    for workers in (0, 1):
        with Scorer(rubric, workers=workers) as scorer:
            table = scorer.score(rsw.Batch.of(samples, outputs)).frame
        print(table["status"].tolist(), table["value"].tolist())
"""


def test_what_a_script_defines_travels_to_actors(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    here, there = done.stdout.strip().splitlines()
    assert here == there
    assert here == "['ok', 'ok', 'invalid_output', 'ok', 'ok', 'invalid_output'] [1.0, 0.5, 0.0, 0.25, 0.75, 0.0]"


def test_names_are_listed_and_files_loaded_without_heavy_imports() -> None:
    code = (
        "import sys; from rsw_rewards.core.rubric import VERIFIERS, build;"
        f"build({f'{Path(__file__).parents[1]}/engine/faulty.py:length'!r});"
        "print(len(VERIFIERS.names()), [m for m in ('torch', 'ray', 'rasterio', 'rsw_rewards.verifiers.frechet') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{len(VERIFIERS.built_in)} []"


def test_a_file_that_was_edited_is_loaded_again(tmp_path: Path) -> None:
    file = tmp_path / "rewards.py"
    got = []
    for worth in (0.5, 0.25):
        file.write_text(f"def mine(sample, output):\n    return {worth}\n")
        got.append(build(f"{file}:mine").score(batch("x"))[0].value)
    assert got == [0.5, 0.25]


def test_coroutines_wait_beside_threads() -> None:
    async def slow(sample: rsw.Sample, output: rsw.Output) -> float:
        await asyncio.sleep(0.05)
        return 1.0

    got: list[list[float | None]] = []
    threads = [threading.Thread(target=lambda: got.append(values(rsw.Component(use=slow), "a", "b"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert got == [[1.0, 1.0]] * 3


def test_a_scorer_names_the_rows_of_an_object() -> None:
    with Scorer(rsw.Rubric(components=(rsw.Component(use=short_answer), rsw.Component(use=plain, name="word")))) as one:
        assert list(one.by_name) == ["short_answer", "word"]


@pytest.mark.parametrize("raised", [SystemExit(3), KeyboardInterrupt("by a library")])
def test_what_ends_a_program_is_an_error_of_one_output_and_async_verifiers_go_on(raised: BaseException) -> None:
    async def helper() -> None:
        raise raised

    async def asked(sample: rsw.Sample, output: rsw.Output) -> float:
        if output.text == "raise":
            raise raised
        if output.text == "task":  # a task of its own, which the loop runs beside the verifier
            await asyncio.create_task(helper())
        return 1.0

    class Class(rsw.Verifier):
        name = "of_class"

        async def score(self, batch: rsw.Batch) -> list[rsw.Score]:  # type: ignore[override]
            if "raise" in [output.text for output in batch.outputs]:
                raise raised
            return [rsw.Score(0.25)] * len(batch)

    assert values(rsw.Component(use=asked), "fine", "raise", "task", "fine") == [1.0, None, None, 1.0]
    assert values(rsw.Component(use=Class), "fine", "raise", "fine") == [0.25, None, 0.25]
    reason = rsw.score(asked, output="raise", task="change_qa").reason
    assert type(raised).__name__ in reason and str(raised) in reason
    assert values(rsw.Component(use=asked), "fine") == [1.0]


def test_an_async_verifier_that_waits_for_another_is_refused() -> None:
    async def inner(sample: rsw.Sample, output: rsw.Output) -> float:
        return 1.0

    async def outer(sample: rsw.Sample, output: rsw.Output) -> rsw.Score:
        return rsw.score(inner, output=output, task="change_qa")

    score = rsw.score(outer, output="yes", task="change_qa")
    assert score.status == "error" and "an async verifier cannot wait for another one" in score.reason


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: rsw.Score(1.0, raw={"why": "text"}), r"raw\['why'\] is no number: 'text'"),  # type: ignore[dict-item]
        (lambda: rsw.Score(1.0, raw={3: 1.0}), "raw has a key that is no text: 3"),  # type: ignore[dict-item]
        (lambda: rsw.Score(1.0, raw={"big": 10**400}), r"raw\['big'\] is no number"),
        (lambda: rsw.Score(1.0, raw=None), "raw is no mapping"),  # type: ignore[arg-type]
        (lambda: rsw.Score(1.0, content={"x": 3}), r"content\['x'\] is no text: 3"),  # type: ignore[dict-item]
        (lambda: rsw.Score(1.0, stats={"x": "abc"}), r"stats\['x'\] is no array of numbers"),  # type: ignore[dict-item]
        (lambda: rsw.Score(1.0, stats={"x": [[1], [1, 2]]}), r"stats\['x'\] is no array"),  # type: ignore[dict-item]
        (lambda: rsw.Score(1.0, stats={"n": np.ones(3)}), r"stats\['n'\] has the shape \(3,\) after \(2,\)"),
        (lambda: rsw.Score(1.0, reason=3), "the reason of a score is a text, not 3"),  # type: ignore[arg-type]
        (lambda: rsw.Score(None, "eror"), "no status is named 'eror'; did you mean 'error'"),  # type: ignore[arg-type]
    ],
)
def test_a_score_that_no_table_can_hold_is_an_error_of_its_output(
    make: Callable[[], rsw.Score], says: str, tmp_path: Path
) -> None:
    def odd(sample: rsw.Sample, output: rsw.Output) -> rsw.Score:
        fine = rsw.Score(
            True, "ok", raw={"whole": 1, "flag": np.True_, "half": np.float32(0.5)}, stats={"n": np.ones(2)}
        )  # type: ignore[arg-type]
        return make() if output.text == "odd" else fine

    class Odd(rsw.Verifier):
        name = "of_class"

        def invalid(self, sample: rsw.Sample, reason: str) -> rsw.Score:
            return make()

        def score(self, batch: rsw.Batch) -> list[rsw.Score]:
            return [rsw.Score(1.0, stats={"n": np.ones(2)})] * len(batch)

    asked = batch("fine", "odd", "fine")
    table = score_in_process(rsw.Rubric([odd]), asked)
    assert table.frame["status"].tolist() == ["ok", "error", "ok"]
    assert re.search(says, table.frame["reason"][1])
    table.write(tmp_path / "scores.parquet")
    assert ScoreTable.read(tmp_path / "scores.parquet").frame["value"].tolist()[::2] == [1.0, 1.0]
    outputs = [*asked.outputs[:1], rsw.Output("s1", invalid="cut short")]
    table = score_in_process(rsw.Rubric([Odd]), rsw.Batch.of(asked.samples, outputs))
    assert sorted(table.frame["status"]) == ["error", "ok"]  # of two shapes, the one that was met first is kept
