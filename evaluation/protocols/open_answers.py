"""Protocols of answers in free words."""

from __future__ import annotations

from rsw_rewards.core.records import Task
from rsw_rewards.evaluation.protocols.protocol import Protocol

PROTOCOLS = (
    Protocol(
        name="open-qa",
        title="Questions answered in free words, judged by a language model",
        task=Task.CHANGE_QA,
        source="see the card of judge; the model, the prompt's hash and the judge's words stand in every row",
        components=({"use": "judge"},),
        headline=("judge_score",),
        diagnostic=("judge_agreement", "judge_agreement_kappa"),
        notes=(
            "Name the judge: --set judge.base_url=http://localhost:8000/v1 --set judge.model=NAME --set judge.cache=DIR.",
            "Metrics from different judges or prompts cannot be compared. judge_agreement is computed on samples with a vocabulary.",
            "No baselines are run, since each would cost as many calls again; evaluate --policy constant to buy one.",
        ),
    ),
)
