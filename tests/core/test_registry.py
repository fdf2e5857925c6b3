"""One way to name everything that can be plugged in, through the commands and the functions that take such names."""

from __future__ import annotations

import importlib
import json
import logging
import pkgutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import rsw_rewards as rsw
from rsw_rewards.core.plugins import load_file
from rsw_rewards.core.registry import Registry
from rsw_rewards.core.rubric import VERIFIERS, build
from rsw_rewards.data.importers import IMPORTERS, read_predictions
from rsw_rewards.data.registry import ADAPTERS, resolve_adapter
from rsw_rewards.detectors import DETECTORS, load_detector
from rsw_rewards.encoders import ENCODERS, load_encoder
from rsw_rewards.errors import ConfigError, InputError
from rsw_rewards.evaluation.protocols import PROTOCOLS
from rsw_rewards.io.records_io import load_samples, write_jsonl
from rsw_rewards.rollouts.baselines import BASELINES, make_baseline
from rsw_rewards.rollouts.policies import POLICIES, build_policy
from rsw_rewards.training.run_folder import check_inputs, run_folder
from tests.cli.test_cli import rsw as command

MINE = '''
"""Everything of one's own, in one file."""

import numpy as np

import rsw_rewards as rsw
from rsw_rewards.data.adapter import write_samples, Conversion
from rsw_rewards.data.importers.matching import Answer
from rsw_rewards.evaluation.protocols import Protocol
from rsw_rewards.rollouts.policy import Policy


@rsw.verifier(tasks="change_qa")
def first_letter(sample, output, *, worth: float = 1.0):
    """Whether the first letter is right."""
    return worth * (output.text[:1] == sample.reference["answers"][0][:1])


PROTOCOL = Protocol(
    "letters", "First letters", "change_qa", "this file",
    ({"use": first_letter}, {"use": "exact_match"}), baselines=("oracle", "majority"),
)


class Yes(Policy):
    """Says yes."""

    name = "yes"

    def __init__(self, word="yes"):
        self.word = word

    def generate(self, requests):
        return [rsw.Output(request.sample.id, text=self.word) for request in requests]


def longest(samples):
    return Yes(max((sample.reference["answers"][0] for sample in samples), key=len))


class Means:
    """The mean colour of an image."""

    name, weights_sha256, dim, id = "means", "0" * 64, 3, "means@0"

    def __init__(self, device):
        self.device = device

    def encode_images(self, images, micro_batch):
        return np.stack([image.mean(axis=(0, 1)) for image in images]).astype(np.float32)

    def encode_texts(self, texts, micro_batch):
        raise rsw.ConfigError("no texts")


class Detector:
    name, weights_sha256 = "differ", "0" * 64

    def __init__(self, device):
        self.device = device

    def predict(self, before, after):
        return np.abs(before.astype(float) - after).mean(axis=-1) / 255


def convert(source, out, *, split=None, limit=None):
    """Reads text files, one question each."""
    records = [{"id": file.stem, "task": "change_qa", "reference": {"answers": [file.read_text()]}} for file in sorted(source.glob("*.txt"))]
    return Conversion(*write_samples(out, records, "text files"), [])


def read_lines(file, *, id=None, text=None):
    for line in file.read_text().splitlines():
        name, _, said = line.partition(" ")
        yield Answer(str(file), name, said)
'''

KINDS: dict[str, tuple[Registry[Any], str, str]] = {
    "verifier": (VERIFIERS, "verifiers", "first_letter"),
    "protocol": (PROTOCOLS, "protocols", "PROTOCOL"),
    "policy": (POLICIES, "policies", "Yes"),
    "baseline": (BASELINES, "baselines", "longest"),
    "encoder": (ENCODERS, "encoders", "Means"),
    "detector": (DETECTORS, "detectors", "Detector"),
    "adapter": (ADAPTERS, "adapters", "convert"),
    "importer": (IMPORTERS, "importers", "read_lines"),
}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    return file


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    answers = ["yes", "no", "yellow", "nothing"]
    records = [
        {"id": f"q{n}", "task": "change_qa", "scene": f"s{n}", "reference": {"answers": [answers[n % 4]]}}
        for n in range(40)
    ]
    write_jsonl(tmp_path / "s.jsonl", records)
    write_jsonl(tmp_path / "p.jsonl", [{"id": f"q{n}", "text": "yes" if n < 30 else "no"} for n in range(40)])
    return tmp_path


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Installs the file as the package ``acme_rewards``, with entry points of every kind."""

    def install(text: str = MINE, points: str | None = None) -> Path:
        site = tmp_path / "site-packages"
        known = site / "acme_rewards-1.0.dist-info"
        known.mkdir(parents=True, exist_ok=True)
        (site / "acme_rewards.py").write_text(text)
        (known / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-rewards\nVersion: 1.0\n")
        every = "".join(f"[rsw_rewards.{group}]\nacme = acme_rewards:{name}\n" for _, group, name in KINDS.values())
        (known / "entry_points.txt").write_text(points or every)
        if str(site) not in sys.path:
            monkeypatch.syspath_prepend(str(site))
        sys.modules.pop("acme_rewards", None)
        importlib.invalidate_caches()
        return site

    yield install
    sys.modules.pop("acme_rewards", None)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_found_in_every_way(kind: str, mine: Path, installed: Callable[..., Path]) -> None:
    registry, _, name = KINDS[kind]
    installed()
    thing = getattr(load_file(mine), name)
    for use in (f"{mine}:{name}", thing):
        found: Any = registry.find(use)
        assert found is thing or found is thing.verifier
    for use in ("acme", f"acme_rewards:{name}"):
        assert getattr(registry.find(use), "__module__", "acme_rewards") in (
            "acme_rewards",
            "rsw_rewards.evaluation.protocols.protocol",
        )
    assert registry.names()[-1] == "acme" and "acme" in registry and "acme" in registry.all()
    known = next(iter(registry.built_in))
    with pytest.raises(ConfigError, match=rf"is named '{known}x'; did you mean '{known}'\?"):
        registry.find(f"{known}x")
    with pytest.raises(ConfigError, match=r"mine\.py has no 'nobody'"):
        registry.find(f"{mine}:nobody")


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_installed_package_gets_wrong_is_one_line(
    kind: str, installed: Callable[..., Path], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, group, name = KINDS[kind]
    monkeypatch.setattr(registry, "warned", set())
    taken = next(iter(registry.built_in))
    installed(points=f"[rsw_rewards.{group}]\nbroken = acme_rewards.away:x\n{taken} = acme_rewards:{name}\n")
    with caplog.at_level(logging.WARNING):
        found = registry.all()
    assert set(found) == set(registry.built_in)
    assert len(caplog.messages) == 2 and all("the package acme-rewards 1.0" in line for line in caplog.messages)
    assert f"{taken!r} of the package acme-rewards 1.0 is refused" in caplog.text
    assert "cannot be imported: ModuleNotFoundError" in caplog.text


def test_commands_take_a_protocol_and_a_policy_of_ones_own(
    mine: Path, questions: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    protocol, files = f"{mine}:PROTOCOL", ("--samples", questions / "s.jsonl")
    assert command("protocols", protocol, "--json", monkeypatch=monkeypatch) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["components"] == [{"use": f"{mine}:first_letter"}, {"use": "exact_match"}]
    assert command("validate", protocol, *files, monkeypatch=monkeypatch) in (0, 1)
    assert "letters: policy" in capsys.readouterr().out
    told = ("--predictions", questions / "p.jsonl", "--out", questions / "first")
    assert command("evaluate", protocol, *files, *told, "--set", "first_letter.worth=0.5", monkeypatch=monkeypatch) == 0
    summary = json.loads((questions / "first" / "summary.json").read_text())
    assert summary["metrics"]["first_letter"]["value"] == 0.25
    assert (
        yaml.safe_load((questions / "first" / "config.yaml").read_text())["components"][0]["use"]
        == f"{mine}:first_letter"
    )
    policy = ("--policy", f"{mine}:Yes", "--out", questions / "second")
    assert (
        command("evaluate", protocol, *files, *policy, "--set", "first_letter.worth=0.5", monkeypatch=monkeypatch) == 0
    )
    runs = (questions / "first", questions / "second", "--json")
    assert command("compare", *runs, monkeypatch=monkeypatch) == 2
    assert "is of the protocol 'letters'; say where that is defined" in capsys.readouterr().err
    assert command("compare", *runs, "--protocol", protocol, monkeypatch=monkeypatch) == 0
    rows = {row["metric"]: row["difference"] for row in json.loads(capsys.readouterr().out)}
    assert rows["first_letter"] == 0.0


def test_a_broken_package_leaves_the_list_of_verifiers_as_it_was(installed: Callable[..., Path]) -> None:
    site = installed(points="[rsw_rewards.verifiers]\nbroken = acme_rewards:away\nacme = acme_rewards:first_letter\n")
    code = f"import sys; sys.path.insert(0, {str(site)!r}); sys.argv = ['rsw', 'verifiers', '--json']; from rsw_rewards.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    listed = json.loads(done.stdout)
    assert (
        listed.keys() == {*VERIFIERS.built_in, "acme"}
        and listed["acme"]["summary"] == "Whether the first letter is right."
    )
    (line,) = done.stderr.strip().splitlines()
    assert "'broken' of the package acme-rewards 1.0 cannot be imported" in line


def test_the_table_of_built_in_verifiers_is_complete() -> None:
    package = importlib.import_module("rsw_rewards.verifiers")
    modules = [
        importlib.import_module(f"{package.__name__}.{item.name}") for item in pkgutil.iter_modules(package.__path__)
    ]
    named = {
        value.name: f"{value.__module__}:{value.__name__}"
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, rsw.Verifier) and isinstance(vars(value).get("name"), str)
        if not value.__module__.endswith(".controls")  # only ablations plant these
    }
    assert named == VERIFIERS.built_in
    assert {name: cls.name for name, cls in VERIFIERS.all().items() if name in named} == {name: name for name in named}


def test_a_protocol_that_has_the_name_of_a_built_in_one_is_refused(mine: Path) -> None:
    mine.write_text(MINE.replace('"letters"', '"exact-qa"'))
    with pytest.raises(ConfigError, match="has the name of the built-in protocol 'exact-qa'"):
        PROTOCOLS.find(f"{mine}:PROTOCOL")


def test_things_of_ones_own_do_their_work(mine: Path, questions: Path, tmp_path: Path) -> None:
    own = load_file(mine)
    for use in (own.Yes, own.Yes("no"), f"{mine}:Yes", {"use": own.Yes, "word": "no"}):
        assert build_policy(use).name == "yes"
    with pytest.raises(ConfigError, match="is ready-made and takes no word"):
        build_policy({"use": own.Yes(), "word": "no"})
    samples = load_samples(questions / "s.jsonl")
    assert make_baseline(own.longest, samples).word == "nothing"  # type: ignore[attr-defined]
    image = np.full((4, 4, 3), 7, np.uint8)
    for encoder in (own.Means, f"{mine}:Means", own.Means("cpu")):
        assert load_encoder(encoder, "cpu").encode_images([image], 1).tolist() == [[7, 7, 7]]
    for detector in (own.Detector, f"{mine}:Detector"):
        assert load_detector(detector).predict(image[None], image[None]).max() == 0
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "one.txt").write_text("yes")
    for adapter in (own.convert, f"{mine}:convert"):
        done = resolve_adapter(adapter)(tmp_path / "texts", tmp_path / "out")
        assert load_samples(done.file)[0].reference == {"answers": ["yes"]}
    (tmp_path / "answers.txt").write_text("q0 yes\nq1 no\n")
    found = read_predictions(f"{mine}:read_lines", tmp_path / "answers.txt", samples)
    assert len(found) == 2


def test_an_evaluation_is_not_resumed_with_an_edited_package(installed: Callable[..., Path], questions: Path) -> None:
    def run(**options: Any) -> float:
        found = rsw.evaluate("acme", questions / "s.jsonl", questions / "p.jsonl", questions / "out", **options)
        return float(found.summary["metrics"]["first_letter"]["value"])

    installed()
    assert run() == run(resume=True) == 0.5
    installed(MINE.replace("return worth *", "return 0.5 * worth *"))
    with pytest.raises(InputError, match="other code or files of a verifier"):
        run(resume=True)


def test_a_training_is_not_resumed_with_an_edited_package(installed: Callable[..., Path], tmp_path: Path) -> None:
    def start() -> None:
        check_inputs(tmp_path / "run", {}, {"acme": rsw.Component(use="acme").build()})

    installed()
    start()
    start()
    installed(MINE.replace("return worth *", "return 0.5 * worth *"))
    with pytest.raises(ConfigError, match=r"'rubric: acme' is not what .* was started with"):
        start()


@pytest.mark.parametrize("encoder", ["acme", "acme_rewards:Means", "acme_rewards:Means#bands=2,1,0", "mine.py:Means"])
def test_a_hash_changes_with_the_code_of_an_encoder(
    encoder: str, installed: Callable[..., Path], mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(mine.parent)
    installed()
    first = build("encoder_similarity", {"encoder": encoder}).hash
    assert build("encoder_similarity", {"encoder": encoder}).hash == first
    edited = MINE.replace("astype(np.float32)", "astype(np.float32) / 255")
    installed(edited)
    mine.write_text(edited)
    assert build("encoder_similarity", {"encoder": encoder}).hash != first


def test_the_configuration_of_a_run_names_the_objects_it_was_given(mine: Path, tmp_path: Path) -> None:
    from rsw_rewards.config import RunConfig

    own = load_file(mine)
    parts = {"policy": {"use": own.Yes}, "rubric": {"components": [{"use": own.first_letter}]}}
    config = RunConfig.model_validate({"out": tmp_path / "run", "train": {"source": "scene-world"}, **parts})
    with run_folder(tmp_path / "run", config, False):
        stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert stored["policy"] == {"use": f"{mine}:Yes"}
    assert stored["rubric"] == {"components": [{"use": f"{mine}:first_letter"}]}
