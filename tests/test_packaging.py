"""What is installed: one top-level package, guarded folders, and imports that stay light."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from rsw_rewards.extras import EXTRAS

ROOT = Path(__file__).parents[1]


def run(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    source = tmp_path_factory.mktemp("source") / "tree"  # building in place would leave a build folder that goes stale
    unwanted = shutil.ignore_patterns(".venv", ".git", "build", "*.egg-info", "__pycache__", "runs", ".*_cache")
    shutil.copytree(ROOT, source, symlinks=True, ignore=unwanted)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(out), "."]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_the_wheel_has_one_top_level_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"rsw_rewards"}


def test_the_wheel_carries_the_linked_folders_and_the_assets(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for needed in (
        "rsw_rewards/py.typed",
        "rsw_rewards/verifiers/answers.py",
        "rsw_rewards/rollouts/policy.py",
        "rsw_rewards/evaluation/protocols/answers.py",
        "rsw_rewards/configs/quickstart.yaml",
        "rsw_rewards/integrations/trl.py",
    ):
        assert needed in names
    assert any(name.startswith("rsw_rewards/assets/") and name.endswith(".safetensors") for name in names)


@pytest.mark.parametrize("folder", ["verifiers", "rollouts", "evaluation", "configs"])
def test_a_root_folder_refuses_to_be_a_package_of_its_own(folder: str) -> None:
    result = run(f"import {folder}", ROOT)
    assert result.returncode != 0
    assert f"rsw_rewards.{folder}" in result.stderr


def test_a_foreign_verifiers_package_stays_importable_beside_ours(tmp_path: Path) -> None:
    (tmp_path / "verifiers").mkdir()
    (tmp_path / "verifiers" / "__init__.py").write_text("OWNER = 'someone else'\n")
    code = "import verifiers, rsw_rewards.verifiers; print(verifiers.OWNER, rsw_rewards.verifiers.__name__)"
    result = run(code, tmp_path)
    assert result.stdout.split() == ["someone", "else", "rsw_rewards.verifiers"], result.stderr


def test_importing_the_package_imports_nothing_heavy(tmp_path: Path) -> None:
    code = "import rsw_rewards, sys; print([m for m in ('torch', 'pandas', 'ray', 'transformers') if m in sys.modules])"
    assert run(code, tmp_path).stdout.strip() == "[]"


def test_torchvision_loads_whatever_torch_it_stands_beside(tmp_path: Path) -> None:
    result = run("import rsw_rewards, torchvision.transforms.v2, open_clip; print('fine')", tmp_path)
    assert result.stdout.strip().endswith("fine"), result.stderr


def test_the_core_does_its_work_without_the_libraries_of_the_extras(tmp_path: Path) -> None:
    # None in sys.modules makes Python say that there is no such module.
    code = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({sorted(EXTRAS)!r}))\n"
        f"runpy.run_path({str(ROOT / 'tests' / 'core_examples.py')!r}, run_name='__main__')"
    )
    result = run(code, tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_named_extra_installs_the_missing_module() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    distributions = packages_distributions()
    for module, extra in EXTRAS.items():
        names = {name.lower().replace("-", "_") for name in distributions.get(module, [module])}
        listed = {line.split(">")[0].lower().replace("-", "_") for line in project["optional-dependencies"][extra]}
        assert names & listed, f"{module} is not in the extra {extra}"
        assert not names & {line.split(">")[0].lower() for line in project["dependencies"]}
