"""The configuration that ``rsw init`` writes: a training on samples of one's own, with a comment on every part."""

from __future__ import annotations

from typing import NamedTuple

from rsw_rewards.core.records import Task
from rsw_rewards.core.verifier import as_task


class _Start(NamedTuple):
    """What differs from task to task."""

    sample: str
    """A record, on one line."""
    rubric: str
    policy: str
    method: str = "grpo"
    smoke: str = ""
    """The policy of ``--smoke``; empty where a policy of the user's own is trained."""


_READER = """\
policy:
  use: vision_language
  path: Qwen/Qwen2.5-VL-3B-Instruct     # a folder, or a name of the Hugging Face hub, from which it is downloaded
  template: {template}
  max_new_tokens: {tokens}              # longer outputs are cut off, and invalid
  dtype: bfloat16
  lora: {{r: 16, alpha: 32}}              # trains LoRA adapters; without this line all weights are trained"""

_FORECASTER = """\
policy:
  use: diffusion_forecaster
  path: models/flux-kontext             # hf download black-forest-labs/FLUX.1-Kontext-dev --local-dir models/flux-kontext
  size: 512
  steps: 10
  guidance_scale: 2.5
  dtype: bfloat16
  lora: {r: 32, alpha: 64}              # trains LoRA adapters; without this line all weights are trained"""

_OWN = """\
# No policy of this package makes outputs of this task. "A policy of your own" in docs/training.md says what yours needs.
policy: {use: "policy.py:MyPolicy"}"""

_TINY = 'policy: {path: "tiny:qwen2_5_vl", max_new_tokens: 8, dtype: float32, lora: {r: 4}}'
_TINY_FORECASTER = 'policy: {path: "tiny:flux_kontext", size: 16, steps: 3, dtype: float32, lora: {r: 4, alpha: 8}}'

_STARTS = {
    Task.CHANGE_QA: _Start(
        '{"id": "q1", "task": "change_qa", "scene": "tile 17", "images": ["before/17.png", "after/17.png"],'
        ' "prompt": "has a road been built?", "reference": {"answers": ["yes"], "vocabulary": ["yes", "no"]}}',
        """\
    - {use: exact_match, weight: 0.9}     # the answer is a true one; for numbers: numeric_match
    - {use: answer_format, weight: 0.1}   # the answer is in the vocabulary""",
        _READER.format(template='"{prompt}\\nAnswer with one of: {vocabulary}."', tokens=16),
        smoke=_TINY,
    ),
    Task.CHANGE_CAPTION: _Start(
        '{"id": "c1", "task": "change_caption", "scene": "tile 17", "images": ["before/17.png", "after/17.png"],'
        ' "prompt": "What changed between the two images?", "reference": {"captions": ["a road has been built"], "changed": true}}',
        """\
    - {use: caption_gate, weight: 0.0}    # 1 where the caption says rightly whether anything changed; it opens the others
    - {use: rouge_l, weight: 0.5, gate: {component: caption_gate}}
    - {use: cider_d, weight: 0.5, gate: {component: caption_gate}}""",
        _READER.format(template='"{prompt}"', tokens=64),
        smoke=_TINY,
    ),
    Task.CLASSIFICATION: _Start(
        '{"id": "s1", "task": "classification", "scene": "tile 17", "images": ["17.png"], "prompt": "What is shown?",'
        ' "reference": {"label": "airport", "vocabulary": ["airport", "farmland", "harbour"]}}',
        "    - {use: scene_label, weight: 1.0}     # the answer is the true label; for several labels: label_set",
        _READER.format(template='"{prompt}\\nAnswer with one of: {vocabulary}."', tokens=16),
        smoke=_TINY,
    ),
    Task.FORECAST: _Start(
        '{"id": "f1", "task": "forecast", "scene": "tile 17", "images": ["before/17.png"], "prompt": "a road is built in the north",'
        ' "reference": {"images": ["after/17.png"], "mask": "change/17.png"}}',
        """\
    - {use: gain_over_copy, weight: 1.0}        # how much closer to the true future than the input is
    - {use: change_consistency, weight: 0.5}    # needs reference.mask, which is 255 where something changed""",
        _FORECASTER,
        "flow_grpo",
        _TINY_FORECASTER,
    ),
    Task.CHANGE_MASK: _Start(
        '{"id": "m1", "task": "change_mask", "scene": "tile 17", "images": ["before/17.png", "after/17.png"],'
        ' "reference": {"mask": "change/17.png"}}',
        "    - {use: change_mask, weight: 1.0}     # F1 of the changed pixels",
        _OWN,
    ),
    Task.SEMANTIC_CHANGE: _Start(
        '{"id": "m1", "task": "semantic_change", "scene": "tile 17", "images": ["before/17.png", "after/17.png"],'
        ' "reference": {"map_before": "classes/17_before.png", "map_after": "classes/17_after.png"}}',
        "    - {use: semantic_change, weight: 1.0, config: {classes: 7}}     # classes, with 0 for not changed",
        _OWN,
    ),
    Task.DAMAGE: _Start(
        '{"id": "d1", "task": "damage", "scene": "tile 17", "images": ["before/17.png", "after/17.png"],'
        ' "reference": {"buildings": "buildings/17.png", "damage": "damage/17.png"}}',
        "    - {use: building_damage, weight: 1.0}",
        _OWN,
    ),
    Task.GROUNDING: _Start(
        '{"id": "g1", "task": "grounding", "scene": "tile 17", "images": ["before/17.png", "after/17.png"],'
        ' "prompt": "the house that was built", "reference": {"boxes": [[12, 40, 60, 88]]}}',
        "    - {use: box_iou, weight: 1.0, config: {text: qwen2.5-vl}}     # how boxes stand in texts; for masks: referring_mask",
        _READER.format(template="'Where is this? {prompt}. Answer in JSON.'", tokens=64),
        smoke=_TINY,
    ),
}

_TEXT = """\
# A training on samples of your own of the task {task}. In this order:
#   rsw train FILE --dry-run      says what is missing, and starts nothing
#   rsw train FILE --smoke        two steps with the changes under 'smoke', on a CPU
#   rsw train FILE                the training
# 'Train' in the documentation explains every part.
method: {method}
seed: 1

# What is trained.
{policy}

# What it is trained on, and what it is measured on before and after. One sample a line, as JSON; paths count from the file's folder.
#   {sample}
# 'scene' is the place. A place may not be in both files. Other sources are listed in 'Train', under 'Where samples come from'.
train: {{source: samples, path: train.jsonl}}
heldout: {{source: samples, path: heldout.jsonl}}

# The reward of an output: the weighted mean of these components. 'rsw verifiers' lists all, 'rsw verifiers NAME' explains one.
rubric:
  components:
{rubric}
    # - {{use: "rewards.py:my_reward", weight: 0.5}}    # a function of yours

{method}:
  steps: 200
  prompts: 8                # samples in a step
  group: 8                  # outputs of each, which are compared with each other
  micro_batch: 8            # outputs in a pass of the learner; lower it where memory is short
  learning_rate: 1.0e-5     # for LoRA adapters; a tenth of that for all weights

# Where outputs are made: processes beside the learner, and the share of a GPU of each. Without a GPU: num_gpus: 0.
rollouts: {{actors: 1, num_gpus: 0.4}}
checkpoints: {{every: 50}}    # steps; a run that was cut off goes on with --resume

# What --smoke changes.
smoke:
{smoke}  train: {{limit: 16}}
  heldout: {{limit: 8}}
  {method}: {{steps: 2, prompts: 2, group: 2, micro_batch: 4, threads: 1, device: cpu}}
  rollouts: {{actors: 0, num_gpus: 0}}
  checkpoints: {{every: 1}}
"""


def new_config(task: str) -> str:
    """A configuration (YAML) for a training on samples of one's own.

    Args:
        task: such as ``change_qa``.

    Raises:
        ConfigError: there is no such task.

    >>> new_config("change_qa").splitlines()[0]
    '# A training on samples of your own of the task change_qa. In this order:'
    """
    start = _STARTS[as_task(task, "rsw init")]
    smoke = f"  {start.smoke}\n" if start.smoke else ""
    return _TEXT.format(**start._asdict() | {"task": task, "smoke": smoke})
