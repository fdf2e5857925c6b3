"""What to look at first in a run: causes of a reward that stands still, computed from its log and its dumps. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

from rsw_rewards.training.report.charts import components, measured, shown_metrics
from rsw_rewards.training.report.run_files import RunFiles

MOST = 0.9
"""A share from which something is said of nearly all groups, answers or outputs."""
FEW = 3
"""Prompts in a step below which equal answers say nothing: they may be answers to one question."""
SOME = 0.1
"""A share from which failures are worth a look."""

LITTLE_KL = 1e-3
"""A KL divergence to the start from which a policy has changed beyond rounding."""
TINY = 1e-9
"""A learning rate below which an update is lost in the rounding of weights of the usual size."""


@dataclass(frozen=True)
class Finding:
    """One thing to look at."""

    grade: str
    """``bad``: nothing, or not what was meant, can be learnt. ``note``: worth knowing."""
    words: str


@dataclass(frozen=True)
class Dumped:
    """What is counted of one dumped generation."""

    step: int
    answers: Mapping[str, int] = field(default_factory=dict)
    """How often each text was answered, cut-off ones left out."""
    reasons: Mapping[str, int] = field(default_factory=dict)
    """How often each reason made an output invalid."""
    outputs: int = 0
    invalid: int = 0
    prompts: int = FEW
    """Prompts that were answered."""


def findings(run: RunFiles, dumps: Sequence[Dumped] = ()) -> list[Finding]:
    """What there is to look at, worst first.

    >>> from pathlib import Path
    >>> log = [{"step": step, "grad_norm": 0.0, "learning_rate": 1e-5} for step in (1, 2)]
    >>> [found.words for found in findings(RunFiles(Path("runs/a"), {}, log))]
    ['The gradient norm is 0 in every step: the weights do not change.']
    """
    found = [finding for rule in _RULES for finding in rule(run)]
    found += [
        finding for dump in {one.step: one for one in (*dumps[:1], *dumps[-1:])}.values() for finding in of_dump(dump)
    ]
    found = list({finding.words: finding for finding in found}.values())
    return sorted(found, key=lambda finding: finding.grade != "bad")


def equal_rewards(run: RunFiles) -> Iterator[Finding]:
    """Groups without spread, and why: a reward of 0, a component that is always the same."""
    groups, flat = (sum(value for _, value in run.series(key)) for key in ("groups", "groups_zero_std"))
    rewards = [value for _, value in run.series("reward")]
    if not groups:
        return
    zero = bool(rewards) and not any(rewards)
    if flat / groups >= MOST:
        yield Finding(
            "bad", f"All rewards are equal in {flat / groups:.0%} of the groups: there is nothing to learn from."
        )
    elif flat / groups >= 0.5:
        yield Finding("note", f"All rewards are equal in {flat / groups:.0%} of the groups, which give no gradient.")
    if zero and run.config.get("rubric", {}).get("combine") != "normalize_each":
        yield Finding("bad", "The reward is 0 for every rollout of every step.")
    for label in components(run):
        means = [value for _, value in run.series(f"reward/{label}/mean")]
        flat_shares = [value for _, value in run.series(f"reward/{label}/frac_zero_std")]
        if not means or not flat_shares or fmean(flat_shares) < MOST:
            continue
        alone = len(components(run)) == 1 or flat / groups >= MOST
        grade = "bad" if fmean(flat_shares) == 1 and alone else "note"
        if max(means) - min(means) < 1e-9:
            yield Finding(
                grade, f"{label!r} gives {means[0]:.3g} to every rollout, so it does not distinguish the candidates."
            )
        else:
            yield Finding(grade, f"{label!r} is equal within {fmean(flat_shares):.0%} of the groups.")


def still_weights(run: RunFiles) -> Iterator[Finding]:
    """A gradient norm or a learning rate of 0, and losses that are no numbers."""
    for key, name in (("grad_norm", "The gradient norm"), ("learning_rate", "The learning rate")):
        values = [value for _, value in run.series(key)]
        zero = sum(value == 0 for value in values)
        if values and zero == len(values):
            yield Finding("bad", f"{name} is 0 in every step: the weights do not change.")
        elif zero >= MOST * len(values) and values:
            yield Finding("bad", f"{name} is 0 in {zero} of {len(values)} steps, in which the weights do not change.")
    rates = [value for _, value in run.series("learning_rate")]
    if rates and 0 < max(rates) < TINY:
        yield Finding(
            "bad", f"The learning rate is {max(rates):.3g} at most: a step is too small to change the weights."
        )
    lost = [row["step"] for row in run.log if "loss" in row and row["loss"] is None and row.get("rows") != 0]
    if lost:
        yield Finding(
            "bad", f"The loss is not a finite number in {len(lost)} of {len(run.log)} steps, first in step {lost[0]}."
        )


def unusable_rollouts(run: RunFiles) -> Iterator[Finding]:
    """Rollouts that are invalid, cut off or without a reward."""
    for label in components(run):
        shares = [value for _, value in run.series(f"reward/{label}/invalid_rate")]
        if shares and fmean(shares) >= SOME:
            grade = "bad" if fmean(shares) >= MOST else "note"
            yield Finding(grade, f"{fmean(shares):.0%} of the outputs are invalid for {label!r}, which counts as 0.")
        errors = [value for _, value in run.series(f"reward/{label}/error_rate")]
        if errors and fmean(errors) >= SOME:
            yield Finding("bad", f"{label!r} fails on {fmean(errors):.0%} of the outputs: our error, not the policy's.")
    cut = [value for _, value in run.series("cut_off")]
    if cut and fmean(cut) >= SOME:
        grade = "bad" if fmean(cut) >= MOST else "note"
        yield Finding(grade, f"{fmean(cut):.0%} of the rollouts are cut off at the length limit.")
    failed, groups = (sum(value for _, value in run.series(key)) for key in ("failed", "groups"))
    group = run.settings.get("group")
    if isinstance(group, int) and groups and failed / (groups * group) >= SOME:
        yield Finding("bad", f"{failed / (groups * group):.0%} of the rollouts have no reward and are left out.")


def same_answers(run: RunFiles) -> Iterator[Finding]:
    """One text that is nearly always given, or an entropy of nearly nothing."""
    shares = run.series("commonest_answer")
    if shares and shares[-1][1] >= MOST and run.settings.get("prompts", FEW) >= FEW:
        first, (step, last) = shares[0][1], shares[-1]
        yield Finding(
            "bad", f"{last:.0%} of the answers in step {step} are the same text ({first:.0%} in step {shares[0][0]})."
        )
    entropy = [value for _, value in run.series("entropy")]
    if len(entropy) > 1 and entropy[0] > 0 and entropy[-1] < 0.05 * entropy[0]:
        yield Finding(
            "note", f"The entropy fell from {entropy[0]:.3g} to {entropy[-1]:.3g}: candidates are hardly different."
        )
    elif entropy and max(entropy) < 1e-3:
        yield Finding("bad", f"The entropy is {max(entropy):.2g} at most: every candidate of a prompt is the same.")


def flat_reward(run: RunFiles) -> Iterator[Finding]:
    """A mean reward that is no higher at the end than at the start, by more than it goes up and down."""
    for key in run.quantities():
        if not key.startswith("reward_mean/"):
            continue
        values = [value for _, value in run.series(key)]
        window = len(values) // 5
        if window < 2:
            continue
        first, last = values[:window], values[-window:]
        error = ((stdev(first) ** 2 + stdev(last) ** 2) / window) ** 0.5
        rise = fmean(last) - fmean(first)
        name = key.partition("/")[2]
        words = f"{fmean(first):.3f} in the first {window} steps, {fmean(last):.3f} in the last {window}"
        if abs(rise) <= 2 * error or abs(rise) < 1e-9:
            yield Finding(
                "note",
                f"The mean reward of {name} does not change significantly ({words}, within twice the standard error).",
            )
        elif rise < 0:
            yield Finding("note", f"The mean reward of {name} falls ({words}).")


def against_baselines(run: RunFiles) -> Iterator[Finding]:
    """Held-out numbers that did not change, or equal those of a baseline; alarms."""
    for alarm in run.alarms:
        yield Finding("bad", str(alarm["words"]))
    changes = (run.heldout.get("changes") or {}).get("greedy") or {}
    shown = [changes[metric] for metric in shown_metrics(run) if metric in changes]
    moved = [change["difference"]["value"] for change in shown]
    if moved and all(value is not None and abs(value) < 1e-9 for value in moved):
        rates = [rate for _, rate in run.series("learning_rate") if rate]
        learnt = rates and any(norm for _, norm in run.series("grad_norm"))
        moved_by = max((value for _, value in run.series("kl")), default=0.0)
        hint = ""
        if moved_by >= LITTLE_KL:
            hint = f" The policy itself did change (KL up to {moved_by:.2g}): look at what it answers."
        elif learnt:
            hint = f" Gradients are not 0, so the learning rate of {max(rates):.3g} may be too small."
        yield Finding("bad", f"No held-out number of greedy outputs changed: they are as before training.{hint}")
    elif shown and all(change["verdict"] == "=" for change in shown):
        yield Finding("note", "No held-out number of greedy outputs changed by more than its 95 % interval.")
    for metric in shown_metrics(run):
        points = measured(run, metric)
        for name, values in run.baselines.items():
            if points and metric in values and abs(points[-1][1]["value"] - values[metric]) < 5e-4:
                yield Finding("note", f"Held-out {metric} is that of the baseline {name!r} ({values[metric]:.3f}).")


def waiting(run: RunFiles) -> Iterator[Finding]:
    """Time that the learner waits for rewards."""
    shares = run.series("time/exposed_share")
    if shares and shares[-1][1] > 0.25:
        yield Finding("note", f"{shares[-1][1]:.0%} of the time is waiting for rewards; more scoring actors may help.")


def controls(run: RunFiles) -> Iterator[Finding]:
    """A run that is not meant to learn as others do."""
    if control := run.config.get("control"):
        yield Finding("note", f"This run is a control: {control}.")


_RULES: Sequence[Callable[[RunFiles], Iterator[Finding]]] = (
    equal_rewards, still_weights, unusable_rollouts, same_answers, flat_reward, against_baselines, waiting, controls,
)  # fmt: skip


def of_dump(dump: Dumped) -> Iterator[Finding]:
    """What one dumped generation says: the answer that is always given, and why outputs are invalid."""
    total = sum(dump.answers.values())
    if total >= 4 and dump.prompts >= FEW:
        answer, count = max(dump.answers.items(), key=lambda item: item[1])
        if count / total >= MOST:
            said = f"{answer[:60]!r}" if answer else "empty"
            yield Finding("bad", f"{count / total:.0%} of the answers in step {dump.step + 1} are {said}.")
    if dump.outputs and dump.invalid / dump.outputs >= SOME:
        reason = max(dump.reasons.items(), key=lambda item: item[1])[0]
        grade = "bad" if dump.invalid / dump.outputs >= MOST else "note"
        yield Finding(grade, f"{dump.invalid / dump.outputs:.0%} of the outputs in step {dump.step + 1} are invalid, most often: {reason}")  # fmt: skip


def counted(step: int, outputs: Sequence[Any], reasons: Sequence[tuple[Any, str]]) -> Dumped:
    """The counts of a dumped generation.

    Args:
        step: of the dump, from 0.
        outputs: all of them.
        reasons: (output, reason) of every score whose status is ``invalid_output``.
    """
    answered = [output for output in outputs if output.text is not None and output.invalid is None]
    answers = Counter(output.text.strip() for output in answered)
    why = dict(reasons)  # one reason per output: a broken output fails in every component alike
    prompts = {output.sample_id for output in answered}
    return Dumped(step, answers, Counter(why.values()), len(outputs), len(why), len(prompts))
