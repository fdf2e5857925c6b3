"""Protocols: named definitions of what a benchmark measures. Two definitions that share a name in the literature are two protocols."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rsw_rewards.errors import ConfigError
from rsw_rewards.rubric import Component, Rubric
from rsw_rewards.samples import Task


@dataclass(frozen=True, slots=True)
class Protocol:
    """What is measured, on which samples, and how it is reported."""

    name: str
    title: str
    task: Task
    source: str
    """Where the definition comes from."""
    components: tuple[Mapping[str, Any], ...]
    """Verifiers to run, as the components of a rubric."""
    headline: tuple[str, ...] = ()
    """Keys of ``summary.json`` in their order; those not named here follow."""
    only_headline: bool = True
    """Whether keys that are not in the headline are left out. False where keys carry the name of an encoder."""
    slices: bool = True
    """Whether every number is also given per ``kind`` of sample."""
    baselines: tuple[str, ...] = ()
    """Policies of :mod:`rsw_rewards.rollouts.baselines` whose rows every table is printed beside."""
    notes: tuple[str, ...] = field(default=())
    """What a reader must know before comparing the numbers."""

    @property
    def rubric(self) -> Rubric:
        """The verifiers as a rubric; a protocol rewards nothing, so all weights are 0."""
        return Rubric(components=tuple(Component(**{"weight": 0.0, **component}) for component in self.components))


_ANSWER_BASELINES = ("majority", "constant", "oracle")

_PROTOCOLS = (
    Protocol(
        name="exact-qa",
        title="Questions with one right answer",
        task=Task.CHANGE_QA,
        source="strict equality with a true answer; see the card of exact_match",
        components=({"use": "exact_match"},),
        headline=("accuracy",),
        baselines=_ANSWER_BASELINES,
    ),
    Protocol(
        name="numeric-qa",
        title="Questions with a number as answer",
        task=Task.CHANGE_QA,
        source="see the card of numeric_match; mra as in VSI-Bench (arXiv 2412.14171)",
        components=({"use": "numeric_match"},),
        headline=("accuracy", "mae", "rmse", "mra", "valid_rate"),
        baselines=_ANSWER_BASELINES,
        notes=("mae and rmse leave out answers that hold no number: compare them only at equal valid_rate.",),
    ),
    Protocol(
        name="cdvqa",
        title="CDVQA: change detection visual question answering",
        task=Task.CHANGE_QA,
        source="Yuan et al. 2022 (arXiv 2112.06343), github.com/YZHJessica/CDVQA; accuracy over all questions and mean over types",
        components=({"use": "exact_match"},),
        headline=("oa", "aa"),
        baselines=_ANSWER_BASELINES,
    ),
    Protocol(
        name="change-mask",
        title="Binary change masks",
        task=Task.CHANGE_MASK,
        source="one confusion matrix over all pixels that count, as in github.com/wgcban/ChangeFormer misc/metric_tool.py",
        components=({"use": "change_mask"},),
        headline=("f1", "iou", "precision", "recall", "oa", "kappa", "mf1", "miou"),
        baselines=("all_unchanged", "all_changed", "oracle"),
        notes=("Pixels outside reference.valid, where a sample has it, are not counted.",),
    ),
    Protocol(
        name="tfsf",
        title="Text-guided future scene forecasting",
        task=Task.FORECAST,
        source="the task of RS-WorldModel (arXiv 2603.14941); metrics as their cards define them",
        components=(
            {"use": "gain_over_copy"},
            {"use": "ssim"},
            {"use": "psnr"},
            {"use": "change_consistency"},
            {"use": "detector_consistency"},
            {"use": "clip_alignment"},
            {"use": "frechet"},
        ),
        headline=("gain_over_copy", "ssim", "psnr", "fulfilment", "preservation", "change_f1", "change_iou"),
        only_headline=False,
        baselines=("copy_before", "blurred_copy", "tokenizer_ceiling", "oracle"),
        notes=(
            "Numbers of an encoder or detector carry its name; only the standard Inception weights give 'fid'.",
            "gain_over_copy, psnr and distances are taken over valid outputs: compare them only at equal valid_rate.",
        ),
    ),
)

PROTOCOLS: Mapping[str, Protocol] = {protocol.name: protocol for protocol in _PROTOCOLS}


def get_protocol(name: str) -> Protocol:
    """The protocol of that name. Raises :class:`ConfigError` naming the nearest one."""
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    near = difflib.get_close_matches(name, PROTOCOLS, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"no protocol is named {name!r}{hint} (known: {', '.join(PROTOCOLS)})")
