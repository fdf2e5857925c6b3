"""A reward that is learnt within a few steps."""

from __future__ import annotations

import rsw_rewards as rsw


@rsw.verifier(tasks="change_qa")
def says_no(sample: rsw.Sample, output: rsw.Output) -> float:
    return float((output.answer or "").strip() == "no")
