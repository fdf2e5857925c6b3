"""What holds for every adapter that a name stands for."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from rsw_rewards.data.registry import ADAPTERS, resolve_adapter
from rsw_rewards.errors import RswError


@pytest.mark.parametrize("name", sorted(ADAPTERS.built_in))
def test_every_adapter_can_be_called_as_the_command_does(name: str, tmp_path: Path) -> None:
    adapter = resolve_adapter(name)
    inspect.signature(adapter).bind(tmp_path, tmp_path / "out", split=None, limit=None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RswError):
        adapter(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(RswError):
        adapter(tmp_path / "none", tmp_path / "out")
    assert not (tmp_path / "out" / "samples.jsonl").exists()


def test_the_table_of_data_sets_names_every_adapter() -> None:
    table = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text()
    assert [name for name in ADAPTERS.built_in if f"| `{name}` |" not in table] == []
