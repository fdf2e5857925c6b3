"""``rsw view``: the list of runs, and a server that gives their pages to this machine and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import rsw_rewards as rsw
from rsw_rewards.cli.viewing import server_of
from rsw_rewards.core.yaml_text import write_run_yaml
from rsw_rewards.evaluation.run_list import listed


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    samples = [{"task": "change_qa", "reference": {"answers": ["yes"], "vocabulary": ["yes", "no"]}}] * 4
    rsw.evaluate("exact-qa", samples, ["yes", "yes", "yes", "no"], root / "qa")
    (root / "trained").mkdir()
    write_run_yaml(root / "trained" / "config.yaml", {"method": "grpo"})
    (root / "trained" / "report.html").write_text("a training")
    (root / "broken").mkdir()
    (root / "broken" / "config.yaml").write_text("protocol: [")
    (root / "broken" / "report.html").write_text("broken")
    (tmp_path / "secret.html").write_text("secret")
    (root / "qa" / "out.html").symlink_to(tmp_path / "secret.html")
    (root / "qa" / "round.html").symlink_to("round.html")
    return root


@pytest.fixture
def address(runs: Path) -> Iterator[str]:
    with server_of(runs, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_runs_are_listed_with_what_they_are_and_their_numbers(runs: Path) -> None:
    found = {row["name"]: (row["what"], row["numbers"], row["page"]) for row in listed(runs)}
    assert found["qa"] == ("evaluation, exact-qa", "accuracy 0.750", "./qa/report.html")
    assert found["trained"][0] == "training, grpo" and found["broken"][0] == "damaged"


def test_pages_are_served(address: str) -> None:
    index = httpx.get(address)
    assert index.status_code == 200 and "./qa/report.html" in index.text and "accuracy 0.750" in index.text
    assert "exact-qa" in httpx.get(f"{address}/qa/report.html").text
    assert httpx.get(f"{address}/qa/report/samples-0001.html").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "qa/config.yaml",
        "qa/out.html",
        "..%2fsecret.html",
        "qa",
        "nowhere.html",
        "/etc/passwd",
        "%00.html",
        "a" * 300 + ".html",
        "qa/round.html",
    ],
)
def test_nothing_else_is_served(address: str, path: str) -> None:
    assert httpx.get(f"{address}/{path}").status_code == 404


def test_a_page_of_somewhere_else_learns_nothing(address: str) -> None:
    assert httpx.get(address, headers={"Host": "example.org"}).status_code == 403
    assert httpx.get(address, headers={"Host": "LocalHost"}).status_code == 200
