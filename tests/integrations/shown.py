"""What the tests of all adapters share: questions, rubrics, and a tokenizer whose tokens are words."""

from __future__ import annotations

from typing import Any

import rsw_rewards as rsw
from rsw_rewards.core.records import Sample

QUESTIONS: list[dict[str, Any]] = [
    {"id": name, "task": "change_qa", "reference": {"answers": [answer], "vocabulary": ["yes", "no"]}}
    for name, answer in (("a", "yes"), ("b", "no"))
]
RUBRIC = {"exact_match": 0.9, "answer_format": 0.1}
TEXTS = ["yes", "no", "nothing that is known", "<think>so</think>yes", ""]


def expected(texts: list[str], name: str = "a", rubric: Any = None) -> list[float | None]:
    """What the reward gives outside of any trainer."""
    sample = next(sample for sample in QUESTIONS if sample["id"] == name)
    given = rsw.Reward(rubric or RUBRIC).many(texts, [sample] * len(texts))
    return [result.reward for result in given]


@rsw.verifier(tasks="change_qa")
def share(sample: Sample, output: rsw.Output) -> float:
    """The number that the output is; a text is a fault of the verifier's."""
    return float(output.text or "")


class Words:
    """A tokenizer whose tokens are words; the first is the end."""

    def __init__(self) -> None:
        self.words = ["</s>"]

    def encode(self, text: str) -> list[int]:
        self.words += text.split()
        return list(range(len(self.words) - len(text.split()), len(self.words)))

    def decode(self, ids: Any, skip_special_tokens: bool = True) -> str:
        return " ".join(self.words[int(token)] for token in ids if int(token) or not skip_special_tokens)
