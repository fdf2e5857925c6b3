"""The variations of a rubric, and the run that each of them becomes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsw_rewards.config import ExperimentConfig
from rsw_rewards.core.rubric import Rubric, component_tasks
from rsw_rewards.errors import ConfigError
from rsw_rewards.evaluation.reweighting import full_weights

FULL = "all rewards"
KINDS = ("leave-one-out", "single")


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to weigh the rewards."""

    name: str
    weights: Mapping[str, float] = field(hash=False)
    component: str = ""
    """The reward that it leaves out; empty for other variants."""

    @property
    def folder(self) -> str:
        """A name for its run directories."""
        return re.sub(r"[^\w.=-]+", "-", self.name).strip("-")


def variants(rubric: Rubric, kinds: Sequence[str], weightings: Sequence[Mapping[str, float]] = ()) -> list[Variant]:
    """The full rubric and its variations.

    Args:
        rubric: what is trained with.
        kinds: of :data:`KINDS`: each reward left out, each reward alone.
        weightings: component -> weight; what is not named weighs 0.

    Raises:
        ConfigError: an unknown kind, weights that do not fit, or a rubric of one reward where one is to be left out.
    """
    if unknown := set(kinds) - set(KINDS):
        raise ConfigError(f"no kind of ablation is named {min(unknown)!r}; known are {', '.join(KINDS)}")
    own = {component.label: component.weight for component in rubric.components}
    rewarding = [label for label, weight in own.items() if weight > 0]
    if len(rewarding) < 2 and kinds:
        raise ConfigError(
            "the rubric has one reward; there is nothing to leave out (give --weights to try other weights)"
        )
    found = [Variant(FULL, own)]
    if "leave-one-out" in kinds:
        found += [Variant(f"without {label}", {**own, label: 0.0}, label) for label in rewarding]
    if "single" in kinds:
        found += [Variant(f"only {label}", {**dict.fromkeys(own, 0.0), label: own[label]}) for label in rewarding]
    for given in weightings:
        weights = full_weights(given, rubric)
        found.append(Variant(", ".join(f"{label}={weight:g}" for label, weight in weights.items()), weights))
    return list({variant.folder: variant for variant in found}.values())


def configured(
    config: ExperimentConfig, variant: Variant, seed: int, out: Path, tasks: Sequence[str]
) -> dict[str, Any]:
    """The configuration of one run, as plain data.

    A task that the variant has no reward for is not trained on: its prompts go to the other tasks in equal shares.

    Args:
        config: the run as its file has it.
        tasks: those of the training samples.
    """
    parts = [part.model_copy(update={"weight": variant.weights[part.label]}) for part in config.rubric.components]
    content = config.model_dump(mode="json")
    content |= {
        "seed": seed,
        "out": str(out),
        "rubric": config.rubric.model_copy(update={"components": tuple(parts)}).dump(),
    }
    rewarded = {task for part in parts if part.weight > 0 for task in component_tasks(part, part.build())}
    kept = sorted(task for task in tasks if task in rewarded)
    if not kept:
        raise ConfigError(f"{variant.name!r} rewards none of the tasks {', '.join(tasks)}")
    if len(kept) < len(tasks):
        prompts, section = config.generation.prompts, method(config)
        mix = {task: prompts // len(kept) + (place < prompts % len(kept)) for place, task in enumerate(kept)}
        content[section] = {**content[section], "mix": mix}
    return content


def method(config: ExperimentConfig) -> str:
    """The method's name, which is also that of its section."""
    return str(getattr(config, "method"))  # noqa: B009  (every method's model has it)


@dataclass(frozen=True, slots=True)
class Job:
    """One run: a variant with a seed."""

    variant: Variant
    seed: int
    out: Path

    @property
    def finished(self) -> bool:
        """Whether its held-out numbers are written, which is the last thing a run does."""
        return (self.out / "heldout.json").is_file()
