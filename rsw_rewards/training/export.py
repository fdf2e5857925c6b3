"""A trained policy as a model folder for others: adapters merged, with a card that says how it was trained and measured."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rsw_rewards.core.files import open_as, write_text
from rsw_rewards.core.yaml_text import write_yaml
from rsw_rewards.errors import ConfigError, InputError
from rsw_rewards.evaluation.numbers import number
from rsw_rewards.rollouts.policies import WithWeights, load_policy
from rsw_rewards.rollouts.trained import find_trained
from rsw_rewards.rollouts.weights import adapter_in, has_adapters
from rsw_rewards.training.report.page import changes_table
from rsw_rewards.training.report.run_files import RunFiles, read_run

LOADERS = {
    "vision_language": "from transformers import AutoModelForImageTextToText, AutoProcessor\n\n"
    'model = AutoModelForImageTextToText.from_pretrained("{folder}")\nprocessor = AutoProcessor.from_pretrained("{folder}")',
    "token_world_model": "import rsw_rewards\nfrom rsw_rewards.rollouts.token_world_model import load_world_model\n\n"
    'world = load_world_model("{folder}")  # model, vocabulary and visual tokenizer; the class TokenWorldModel has the weights alone',
    "backbone_world_model": "from transformers import AutoModelForImageTextToText, AutoProcessor\n\n"
    'model = AutoModelForImageTextToText.from_pretrained("{folder}")  # texts; images are drawn by the policy backbone_world_model\n'
    'processor = AutoProcessor.from_pretrained("{folder}")',
    "diffusion_forecaster": 'import rsw_rewards\nfrom rsw_rewards.rollouts.policies import build_policy\n\npolicy = build_policy({{"use": "diffusion_forecaster", "path": "{folder}"}})',
}  # fmt: skip
"""Policy -> how its exported folder is loaded."""
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def export(run: Path, to: Path) -> Path:
    """Write the policy that a run trained as a model folder, and its card as ``README.md``.

    Adapters are merged into the model that they were trained on.

    Args:
        run: the folder of a training run.
        to: a folder that is empty or not there.

    Returns:
        ``to``.

    Raises:
        ConfigError: nothing complete has been trained, or the policy cannot be loaded or saved.
        InputError: ``to`` holds something already, or cannot be made.
    """
    files = read_run(run)
    to = Path(to)
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError(f"{to} holds something already; name a folder that is empty or not there")
    loaded: Any = load_policy(run)
    policy = loaded.start if isinstance(loaded, WithWeights) else loaded
    _check_has(policy, "save", "save(folder), by which it would be exported")
    if adapter_in(find_trained(Path(run)).folder):
        _check_can_merge(policy)
    loaded.setup("cpu")
    merged = has_adapters(policy.model)
    if merged:
        _check_can_merge(policy)
        policy.merge_adapters()
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {to} cannot be made: {error.strerror}; name another folder") from error
    policy.save(to)
    write_text(to / "README.md", model_card(files, to, policy.name, merged))
    open_as(to / "README.md", to)
    return to


def _check_can_merge(policy: Any) -> None:
    _check_has(policy, "merge_adapters", "merge_adapters(), by which its adapters would enter the weights")


def _check_has(policy: Any, method: str, what: str) -> None:
    if not callable(getattr(policy, method, None)):
        raise ConfigError(f"the policy {policy.name!r} has no {what}; give it one")


def model_card(run: RunFiles, to: Path, policy: str, merged: bool) -> str:
    """The card of an exported policy: how it is loaded, how it was trained and what was measured."""
    name = run.folder.resolve().name
    start = run.config.get("policy")
    began = start.get("path", start.get("use")) if isinstance(start, Mapping) else start
    path = str(start.get("path", "")) if isinstance(start, Mapping) else ""
    base = path if _HUB_NAME.fullmatch(path) and not Path(path).exists() else None
    front = {
        "library_name": "diffusers" if policy == "diffusion_forecaster" else "transformers",
        **({"base_model": base} if base else {}),
        "tags": ["remote-sensing", "reinforcement-learning" if "rubric" in run.config else "supervised", "rsw_rewards"],
    }
    loader = LOADERS.get(policy, 'import rsw_rewards as rsw\n\npolicy = rsw.load_policy("RUN")').format(folder=to.name)
    lines = [
        "---", write_yaml(front).rstrip(), "---", "", f"# {name}", "",
        f"A `{policy}` policy for remote-sensing images, trained with `rsw_rewards` by the method `{run.method}`."
        + (" Its adapters are merged into the weights." if merged else ""), "",
        "## Load", "", "```python", loader, "```", "",
        "## Training", "",
        f"* Started from `{began}`; {run.done} steps{f' of {run.steps}' if run.steps else ''}; seed {run.config.get('seed', 'not set')}.",
    ]  # fmt: skip
    for key, what in (("train", "Trained on"), ("heldout", "Held out")):
        if told := run.config.get(key):
            lines.append(f"* {what}: {_plain(told)}.")
    for component in (run.config.get("rubric") or {}).get("components", ()):
        lines.append(
            f"* Reward: `{component.get('name') or component.get('use')}`, weight {component.get('weight', 1.0):g}."
        )
    for begun in run.starts[-1:]:
        versions = ", ".join(f"{key} {value}" for key, value in (begun.get("versions") or {}).items())
        lines.append(f"* Command: `{begun.get('command', '')}`, {begun.get('time', '')}; {versions}.")
    lines += ["", "## Measured on held-out samples", ""]
    table = changes_table(run)
    if table:
        lines += [
            "| metric | decoding | rewarded | before | after | difference, 95 % | baselines |",
            "|---|---|---|---:|---:|---:|---|",
        ]
        for row in table:
            beside = ", ".join(f"{key} {number(value)}" for key, value in row["baselines"].items())
            cells = [row["metric"], row["mode"], "yes" if row["rewarded"] else "never", number(row["before"]["value"]), number(row["after"]["value"]), row["words"], beside]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
        lines += ["", "Intervals are over scenes; differences are paired. A metric that was never rewarded tells whether the policy only pleased its rewards."]  # fmt: skip
    else:
        lines.append("Nothing was measured: the run has no held-out samples, or did not end.")
    for alarm in run.alarms:
        lines.append(f"\nAlarm: {alarm['words']}")
    lines += ["", "## Configuration", "", "```yaml", write_yaml(dict(run.config)).rstrip(), "```", ""]
    return "\n".join(lines)


def _plain(settings: Any) -> str:
    if not isinstance(settings, Mapping):
        return str(settings)
    return ", ".join(f"{key} {value}" for key, value in settings.items() if value is not None)
