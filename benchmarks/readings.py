"""What outputs that know nothing earn under each published reading and under the strict protocol beside it, as rows of docs/benchmarks.md.

Run: python benchmarks/readings.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import rsw_rewards as rsw
from rsw_rewards.evaluation.protocols import PROTOCOLS
from tests.evaluation.made_samples import MAKERS


def earned(name: str) -> str:
    """The first headline number of each baseline of a protocol."""
    protocol, samples = PROTOCOLS.find(name), MAKERS[name]()
    rows = rsw.evaluate(name, samples, policy="oracle").summary["baselines"]
    values = {trick: row["metrics"][protocol.headline[0]]["value"] for trick, row in rows.items() if trick != "oracle"}
    return ", ".join(f"{trick} {'-' if value is None else f'{value:.2f}'}" for trick, value in values.items())


for name, protocol in PROTOCOLS.built_in.items():
    if protocol.lenient:
        print(f"| `{name}` | {protocol.headline[0]}: {earned(name)} |")
