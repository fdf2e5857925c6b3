"""Supervised training of the token world model on true labels: forecasts, and several questions per pair of pictures.

The questions of a pair stand behind a block mask: each sees the pictures and itself, not its neighbours.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import Tensor

from rsw_rewards.core.files import write_text
from rsw_rewards.core.records import Task
from rsw_rewards.core.settings import Strict
from rsw_rewards.data.scene_world.questions import vocabulary as scene_words
from rsw_rewards.errors import ConfigError
from rsw_rewards.rollouts.token_vocabulary import Vocabulary
from rsw_rewards.rollouts.token_world_model import (
    IMPOSSIBLE,
    TokenWorldModel,
    WorldModel,
    load_world_model,
    sample,
    start_from_codebook,
    tiny_config,
)
from rsw_rewards.rollouts.trained import mark_complete
from rsw_rewards.rollouts.visual_tokenizer import VisualTokenizer
from rsw_rewards.training.report.page import LivePage
from rsw_rewards.training.small import Pairs, SmallConfig, make_pairs, steps
from rsw_rewards.training.tokenizer import gain_over_copy


class Ship(Strict):
    """The step whose weights are shipped. The run goes on behind it, so that its curve shows what more supervision gives."""

    step: PositiveInt
    folder: Path
    figure: Path | None = None
    """PNG of the curve."""


class SupervisedConfig(SmallConfig):
    """Configuration of ``method: supervised``."""

    method: Literal["supervised"] = "supervised"
    tokenizer: Path
    start: str | None = None
    """A world model to go on from: a folder or ``embedded``; a new one where left out."""
    scenes: PositiveInt = 24000
    steps: PositiveInt = 3000
    batch: PositiveInt = 24
    """Forecasts a step."""
    question_pairs: PositiveInt = 8
    """Pairs of pictures that are asked about in a step."""
    questions: PositiveInt = 4
    """Questions per pair of pictures."""
    changed_weight: float = Field(5.0, ge=1)
    """Weight in the loss of the codes of cells that change, of which there are few; other codes have weight 1."""
    learning_rate: float = 3e-3
    cool_share: float = Field(0.0, ge=0, le=1)
    """Share of the steps, at the end, over which the learning rate falls to zero."""
    evaluate_every: PositiveInt = 250
    held_out: PositiveInt = 250
    keep: tuple[int, ...] = ()
    """Steps whose weights are also written, to ``out/step-N``."""
    ship: Ship | None = None
    """Where the weights go that reinforcement learning starts from, and the curve that shows which ones they are."""
    model: dict[str, Any] = {}
    """Values that replace those of the tiny configuration."""


@dataclass(frozen=True)
class _Coded:
    """Scenes as codes and token ids."""

    pairs: Pairs
    before: NDArray[np.int64]
    after: NDArray[np.int64]
    changed_cells: NDArray[np.bool_]
    """(n, codes): whether anything in a code's cell changed."""

    def forecast(self, v: Vocabulary, k: int) -> list[int]:
        s = self.pairs.scenes[k]
        return v.forecast_prompt(s.forecast_prompt, [self.before[k]], [s.dates[0]], s.dates[1], s.metadata)

    def context(self, v: Vocabulary, k: int) -> list[int]:
        s = self.pairs.scenes[k]
        return v.question_context([self.before[k], self.after[k]], s.dates, s.metadata)


def _code(tokenizer: VisualTokenizer, pairs: Pairs) -> _Coded:
    n, height, width = pairs.mask.shape
    rows, columns = tokenizer.grid(height, width)
    cells = pairs.mask.reshape(n, rows, height // rows, columns, width // columns).any((2, 4)).reshape(n, -1)
    return _Coded(pairs, tokenizer.encode(pairs.before), tokenizer.encode(pairs.after), cells)


def forecast_loss(
    model: TokenWorldModel, v: Vocabulary, data: _Coded, rows: NDArray[np.int64], changed_weight: float
) -> tuple[Tensor, float]:
    """Cross-entropy per code (nats) of the true futures: the weighted mean to train on, and the plain one to report.

    The end token is certain and left out.
    """
    prompts = [data.forecast(v, int(k)) for k in rows]
    width = max(len(p) for p in prompts)
    ids = torch.tensor([[v.pad] * (width - len(p)) + p for p in prompts])
    seen = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    target = torch.from_numpy(data.after[rows])
    n = target.shape[1]
    ids = torch.cat([ids, target[:, :-1] + v.visual_start], 1)
    seen = torch.cat([seen, torch.ones(len(rows), n - 1, dtype=seen.dtype)], 1)
    hidden = model.model(
        inputs_embeds=model.embed(ids, model.picture_positions(ids)), attention_mask=seen, use_cache=False
    ).last_hidden_state[:, -n:]
    # Only codes are possible here, so only their rows of the output matrix are needed: the same as the masked softmax.
    logits = hidden @ model.lm_head.weight[v.visual_start : v.visual_start + v.codes].T
    loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none")
    weight = torch.where(torch.from_numpy(data.changed_cells[rows]).flatten(), changed_weight, 1.0)
    return (loss * weight).sum() / weight.sum(), loss.mean().item()


def question_loss(
    model: TokenWorldModel, v: Vocabulary, data: _Coded, rows: NDArray[np.int64], count: int, rng: np.random.Generator
) -> Tensor:
    """Mean cross-entropy (nats) of the answers, word and end token summed, of ``count`` questions per pair."""
    contexts = [data.context(v, int(k)) for k in rows]
    lines = []
    for k in rows:
        questions = data.pairs.scenes[int(k)].questions
        chosen = rng.permutation(len(questions))[:count]
        chosen = np.concatenate([chosen, rng.integers(0, len(questions), count - len(chosen))])
        lines.append([([*v.encode_text(questions[q].prompt), v.answer], v.ids[questions[q].answer]) for q in chosen])
    start = len(contexts[0])
    block = max(len(words) for line in lines for words, _ in line) + 1
    width = start + block * count
    ids = torch.full((len(rows), width), v.pad)
    ids[:, :start] = torch.tensor(contexts)
    where, answers = [], []
    for r, line in enumerate(lines):
        for b, (words, answer) in enumerate(line):
            at = start + b * block
            ids[r, at : at + len(words) + 1] = torch.tensor([*words, answer])
            where.append((r, at + len(words) - 1))
            answers.append(answer)
    # Block 0 is the pictures; a position sees what precedes it in the pictures and in its own block.
    member = torch.cat([torch.zeros(start, dtype=torch.long), 1 + torch.arange(block * count) // block])
    visible = torch.ones(width, width).tril().bool() & ((member[None] == 0) | (member[:, None] == member[None]))
    mask = torch.where(visible, 0.0, -torch.inf)[None, None].expand(len(rows), -1, -1, -1)
    position = torch.cat([torch.arange(start), (start + torch.arange(block)).repeat(count)])[None]
    hidden = model.model(
        inputs_embeds=model.embed(ids, model.picture_positions(ids)),
        attention_mask=mask,
        position_ids=position,
        use_cache=False,
    ).last_hidden_state
    row, place = (torch.tensor(x) for x in zip(*where, strict=True))
    logits = model.lm_head(torch.cat([hidden[row, place], hidden[row, place + 1]]))
    possible = model.segments.mask(torch.tensor(-1))
    target = torch.cat([torch.tensor(answers), torch.full((len(answers),), v.eos)])
    return 2 * F.cross_entropy(logits.masked_fill(~possible, IMPOSSIBLE), target)


@dataclass(frozen=True)
class HeldOut:
    """One forecast and one question for each of some unseen scenes, their kinds in turn."""

    data: _Coded
    prompts: list[list[int]]
    answers: list[str]
    kinds: list[str]

    @classmethod
    def make(cls, world: WorldModel, n: int, seed: int = 1) -> HeldOut:
        """Draws ``n`` scenes of the split ``dev``."""
        data, v = _code(world.tokenizer, make_pairs("dev", n, seed)), world.vocabulary
        asked = [s.questions[k % len(s.questions)] for k, s in enumerate(data.pairs.scenes)]
        prompts = [data.forecast(v, k) for k in range(n)]
        prompts += [[*data.context(v, k), *v.encode_text(q.prompt), v.answer] for k, q in enumerate(asked)]
        return cls(data, prompts, [q.answer for q in asked], [q.kind for q in asked])

    def evaluate(self, world: WorldModel, temperature: float) -> dict[str, Any]:
        """``accuracy`` (exact answers), ``gain_over_copy`` over all scenes, and ``per_kind`` accuracies."""
        n = len(self.answers)
        done = sample(world.model, self.prompts, 1, temperature, range(len(self.prompts)))
        drawn = [world.read(c.ids, Task.FORECAST).codes for c in done[:n]]
        before = self.data.pairs.before
        codes = np.stack([self.data.before[k] if c is None else c for k, c in enumerate(drawn)])
        made = world.tokenizer.decode_forecast(before, codes)
        said = [world.read(c.ids, Task.CHANGE_QA).text for c in done[n:]]
        right = np.array([a == b for a, b in zip(said, self.answers, strict=True)])
        kinds = np.array(self.kinds)
        return {
            "accuracy": float(right.mean()),
            "gain_over_copy": gain_over_copy(made, before, self.data.pairs.after),
            "per_kind": {str(kind): round(float(right[kinds == kind].mean()), 4) for kind in np.unique(kinds)},
        }


def _world(config: SupervisedConfig) -> WorldModel:
    if config.start is not None:
        try:
            return load_world_model(config.start)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"start: the token world model cannot be loaded from {str(config.start)!r}: {error}"
            ) from error
    tokenizer = VisualTokenizer.load(config.tokenizer)
    vocabulary = Vocabulary(scene_words(), tokenizer.config.codes)
    model = TokenWorldModel(tiny_config(vocabulary, **config.model))
    start_from_codebook(model, tokenizer.codebook, config.seed)
    return WorldModel(model, vocabulary, tokenizer)


def write_curve(points: list[dict[str, Any]], ship: Ship) -> None:
    """Writes ``curve.json`` (the points and the step where reinforcement learning starts) and the figure."""
    content = {"rl_start_step": ship.step, "points": points}
    write_text(ship.folder / "curve.json", json.dumps(content, indent=1) + "\n")
    if ship.figure is None:
        return
    from matplotlib.figure import Figure

    steps = [point["step"] for point in points]
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for axis, key, title in (
        (left, "accuracy", "question accuracy"),
        (middle, "gain_over_copy", "forecast gain over copy"),
    ):
        axis.plot(steps, [p[f"{key}_greedy"] for p in points], label="greedy")
        axis.plot(steps, [p[f"{key}_sampled"] for p in points], label="sampled, T = 1")
        axis.set_title(title)
    middle.axhline(0, color="grey", linewidth=0.8)
    middle.set_ylim(bottom=max(-0.6, middle.get_ylim()[0]))
    right.plot(steps, [p["loss_per_code"] for p in points], label="per code")
    right.plot(steps, [p["loss_per_answer"] for p in points], label="per answer")
    right.set_title("training loss (nats)")
    for axis in (left, middle, right):
        axis.axvline(ship.step, color="black", linestyle=":", label="RL starts here")
        axis.set_xlabel("supervised steps")
        axis.legend(fontsize="small")
    ship.figure.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(ship.figure, dpi=120)


def train(config: SupervisedConfig) -> None:
    """Trains and writes ``config.out`` and its ``curve.json``. Deterministic for a number of steps and threads."""
    torch.manual_seed(config.seed)
    world = _world(config)
    model, v = world.model, world.vocabulary
    data = _code(world.tokenizer, make_pairs("supervised", config.scenes, config.seed))
    held_out = HeldOut.make(world, config.held_out)
    optimiser = torch.optim.AdamW(model.parameters(), config.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    curve: list[dict[str, Any]] = []
    losses: list[tuple[float, float]] = []
    page = LivePage(config.out)
    model.train()

    def rate(step: int) -> float:
        left = (config.steps - step + 1) / config.steps
        return min(1.0, step / 50) * (min(1.0, left / config.cool_share) if config.cool_share else 1.0)

    for step in steps(config, optimiser, rate, first=1):
        rng = np.random.default_rng([config.seed, step])
        rows = rng.integers(0, config.scenes, config.batch)
        drawing, per_code = forecast_loss(model, v, data, rows, config.changed_weight)
        drawing.backward()
        answering = question_loss(
            model, v, data, rng.integers(0, config.scenes, config.question_pairs), config.questions, rng
        )
        answering.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        losses.append((per_code, answering.item()))
        if step % config.log_every == 0:
            forecast, question = np.mean(losses[-config.log_every :], axis=0)
            print(f"step {step}: loss per code {forecast:.3f}, per answer {question:.3f}", flush=True)
        if step % config.evaluate_every == 0 or step == config.steps:
            forecast, question = (float(x) for x in np.mean(losses[-config.evaluate_every :], axis=0))
            point: dict[str, Any] = {"step": step, "loss_per_code": forecast, "loss_per_answer": question}
            for name, temperature in (("greedy", 0.0), ("sampled", 1.0)):
                point |= {f"{key}_{name}": value for key, value in held_out.evaluate(world, temperature).items()}
            curve.append(point)
            print(json.dumps(point), flush=True)
            config.out.mkdir(parents=True, exist_ok=True)
            write_text(config.out / "curve.json", json.dumps(curve, indent=1) + "\n")
            page.refresh()
        if step in config.keep:
            world.save(config.out / f"step-{step}")
            mark_complete(config.out / f"step-{step}", step)
        if config.ship is not None and step == config.ship.step:
            config.ship.folder.mkdir(parents=True, exist_ok=True)
            world.model.save_pretrained(config.ship.folder)
            world.vocabulary.save(config.ship.folder)
    world.save(config.out)
    mark_complete(config.out, config.steps)
    if config.ship is not None:
        write_curve(curve, config.ship)
