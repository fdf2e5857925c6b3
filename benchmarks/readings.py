"""What baselines get under each published reading and under the strict protocol beside it, as rows of docs/benchmarks.md.

Run: python benchmarks/readings.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import rsw_rewards as rsw
from rsw_rewards.evaluation.protocols import PROTOCOLS
from tests.evaluation.made_samples import MAKERS

NOT_SHOWN = ("oracle", "blind", "persistence", "climatology")


def earned(name: str) -> str:
    """The first headline metric of each baseline that the page shows, in the order of its column."""
    protocol, samples = PROTOCOLS.find(name), MAKERS[name]()
    rows = rsw.evaluate(name, samples, policy="oracle").summary["baselines"]
    values = {one: row["metrics"][protocol.headline[0]]["value"] for one, row in rows.items() if one not in NOT_SHOWN}
    return ", ".join(f"{one} {'-' if value is None else f'{value:.2f}'}" for one, value in values.items())


for name, protocol in PROTOCOLS.built_in.items():
    if protocol.lenient:
        print(f"| `{name}` | {protocol.headline[0]}: {earned(name)} |")
