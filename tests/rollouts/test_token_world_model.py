"""The token world model: one distribution for sampler and learner, prompts, and the shipped weights."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from rsw_rewards.assets import ASSETS
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Task
from rsw_rewards.data.scene_world import scene_world_samples
from rsw_rewards.data.scene_world.questions import vocabulary as scene_words
from rsw_rewards.errors import ImageError
from rsw_rewards.rollouts.token_vocabulary import Vocabulary
from rsw_rewards.rollouts.token_world_model import (
    IMPOSSIBLE,
    TokenWorldModel,
    WorldModel,
    load_world_model,
    sample,
    tiny_config,
)
from rsw_rewards.rollouts.visual_tokenizer import VisualTokenizer


@pytest.fixture(scope="module")
def world():
    """A model of random weights: its choices are spread over everything that the masks allow."""
    torch.manual_seed(0)
    vocabulary = Vocabulary(scene_words(), 256)
    model = TokenWorldModel(tiny_config(vocabulary, num_hidden_layers=2)).eval()
    return WorldModel(model, vocabulary, VisualTokenizer.load(ASSETS / "tokenizer"))


@pytest.fixture(scope="module")
def samples():
    return scene_world_samples(8, seed=902, split="dev")


@pytest.fixture(scope="module")
def prompts(world, samples):
    return world.prompts(samples)


def score_completions(
    model: TokenWorldModel,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    temperature: float = 1.0,
) -> list[list[float]]:
    """Log-probabilities of given completions in one pass (teacher forcing), one list per row; gradients are not kept."""
    with torch.no_grad():
        width = max(len(p) + len(c) for p, c in zip(prompts, completions, strict=True))
        pad = model.config.pad_token_id
        rows = [[*p, *c] for p, c in zip(prompts, completions, strict=True)]
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=model.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
        chosen = torch.log_softmax(logits / temperature, -1).gather(-1, ids[:, 1:, None])[..., 0]
    return [chosen[k, chosen.shape[1] - len(c) :].tolist() for k, c in enumerate(completions)]


def test_sampled_log_probabilities_are_those_of_the_forward_pass(world, prompts):
    repeats = 2
    done = sample(world.model, prompts, repeats, 1.0, range(len(prompts) * repeats))
    repeated = [p for p in prompts for _ in range(repeats)]
    # Prompts differ in length, so both sides pad on the left.
    assert len({len(p) for p in prompts}) > 1
    scored = score_completions(world.model, repeated, [c.ids for c in done])
    for completion, logprobs in zip(done, scored, strict=True):
        np.testing.assert_allclose(completion.logprobs, logprobs, atol=2e-5)


def test_temperature_divides_logits_in_sampler_and_score_alike(world, prompts):
    done = sample(world.model, prompts[:3], 1, 0.7, range(3))
    scored = score_completions(world.model, prompts[:3], [c.ids for c in done], temperature=0.7)
    for completion, logprobs in zip(done, scored, strict=True):
        np.testing.assert_allclose(completion.logprobs, logprobs, atol=2e-5)


def test_forward_lets_nothing_but_the_segment_through(world, prompts):
    v, model = world.vocabulary, world.model
    full = [prompts[1], [*prompts[1], *range(v.visual_start, v.visual_start + 64)], prompts[0]]
    for ids, allowed in zip(
        full,
        (
            set(range(v.visual_start, len(v))),
            {v.eos},
            {v.eos, *range(v.text_start, v.visual_start)},
        ),
        strict=True,
    ):
        logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        assert set(torch.nonzero(logits > IMPOSSIBLE)[:, 0].tolist()) == allowed
        assert torch.isfinite(logits).all()
        assert torch.allclose(model(input_ids=torch.tensor([ids]), logits_to_keep=1).logits[0, -1], logits, atol=1e-5)


def test_left_padding_does_not_change_the_distribution(world, prompts):
    ids = torch.tensor([prompts[0]])
    padded = torch.cat([torch.full((1, 9), world.vocabulary.pad), ids], 1)
    mask = (torch.arange(padded.shape[1]) >= 9).long()[None]
    a = world.model(input_ids=ids).logits[:, -1]
    b = world.model(input_ids=padded, attention_mask=mask, logits_to_keep=1).logits[:, -1]
    assert torch.allclose(a, b, atol=2e-5)


def test_forecasts_fill_the_grid_and_end(world, prompts, samples):
    for completion, s in zip(sample(world.model, prompts, 1, 1.0, range(8)), samples, strict=True):
        reading = world.read(completion.ids, s.task)
        if s.task == Task.FORECAST:
            assert len(completion.ids) == 65
            assert completion.ids[-1] == world.vocabulary.eos
            assert completion.logprobs[-1] == 0.0
            assert reading.finish_reason == "stop"
            assert reading.codes is not None
            assert reading.codes.shape == (64,)


def test_cut_or_overlong_grids_are_truncated_outputs(world):
    v = world.vocabulary
    codes = [v.visual_start + k for k in range(64)]
    assert world.read([*codes, v.eos], Task.FORECAST).finish_reason == "stop"
    for ids in (codes, [*codes[:-1], v.eos], [*codes, codes[0], v.eos], [v.eos], []):
        reading = world.read(ids, Task.FORECAST)
        assert (reading.finish_reason, reading.codes) == ("length", None)
    assert world.read([v.ids["yes"], v.eos], Task.CHANGE_QA).text == "yes"
    assert world.read([v.ids["yes"]] * 8, Task.CHANGE_QA).finish_reason == "length"


def test_a_row_follows_from_its_seed_alone(world, prompts):
    many = sample(world.model, prompts, 2, 1.0, range(16))
    again = sample(world.model, [prompts[3]], 1, 1.0, [7])
    assert again[0].ids == many[7].ids
    assert many[6].ids != many[7].ids


def test_greedy_equals_generate_of_the_library(world, prompts):
    greedy = sample(world.model, prompts[:2], 1, 0.0)
    for prompt, completion in zip(prompts[:2], greedy, strict=True):
        whole = world.model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            max_new_tokens=len(completion.ids),
            do_sample=False,
        )
        assert tuple(whole[0, len(prompt) :].tolist()) == completion.ids


def test_a_cache_without_segments_is_refused(world, prompts):
    out = world.model(input_ids=torch.tensor([prompts[0]]), use_cache=True)
    with pytest.raises(ValueError, match="picture_positions"):
        world.model(input_ids=torch.tensor([[1]]), past_key_values=out.past_key_values)


def test_seeds_are_required_to_sample(world, prompts):
    with pytest.raises(ValueError, match="seeds"):
        sample(world.model, prompts[:1], 2, 1.0, [1])


def test_prompts_hold_place_dates_and_aligned_pictures(world, samples, prompts):
    v = world.vocabulary
    for s, prompt in zip(samples, prompts, strict=True):
        words = [v.tokens[k] for k in prompt]
        opened = [k for k, token in enumerate(prompt) if token == v.boi]
        assert [b - a for a, b in itertools.pairwise(opened)] == [64 + 4]
        year, month = s.images[0].date.split("-")[:2]
        assert words[opened[0] - 2 : opened[0]] == [f"<year:{year}>", f"<month:{int(month)}>"]
        assert words[1].startswith("<lat:")
        assert words[3] == f"<gsd:{s.metadata['gsd_m']}>"
        assert v.unk not in prompt
    bare = replace(samples[0], metadata={}, prompt="Has the zeppelin changed?")
    prompt = world.prompts([bare])[0]
    assert v.unk in prompt
    assert [v.tokens[k] for k in prompt[1:4]] == ["<lat:?>", "<lon:?>", "<gsd:?>"]


def test_samples_that_do_not_fit_are_refused(world, samples):
    with pytest.raises(ValueError, match="change_mask"):
        world.prompts([replace(samples[0], task=Task.CHANGE_MASK)])
    with pytest.raises(ImageError, match="64 x 64"):
        world.prompts([replace(samples[0], images=(ImageRef(array=np.zeros((32, 32, 3), np.uint8)),))])


def test_saved_and_read_back_with_another_size(world, prompts, tmp_path):
    large = TokenWorldModel(
        tiny_config(world.vocabulary, hidden_size=128, num_hidden_layers=3, tie_word_embeddings=False)
    )
    WorldModel(large.eval(), world.vocabulary, world.tokenizer).save(tmp_path)
    assert list(tmp_path.glob("*.safetensors"))
    again = load_world_model(tmp_path)
    assert again.vocabulary.tokens == world.vocabulary.tokens
    assert sample(again.model, prompts[:2], 1, 0.0) == sample(large, prompts[:2], 1, 0.0)
    with pytest.raises(FileNotFoundError, match="no token world model"):
        load_world_model(tmp_path / "nothing")


def test_shipped_model_beats_majority_and_leaves_room_to_learn():
    world = load_world_model("embedded")
    samples = scene_world_samples(240, seed=903, split="dev")
    done = sample(world.model, world.prompts(samples), 1, 1.0, range(len(samples)))
    right = [
        world.read(c.ids, s.task).text == s.reference["answers"][0]
        for s, c in zip(samples, done, strict=True)
        if s.task == Task.CHANGE_QA
    ]
    assert 0.6 < np.mean(right) < 0.9
    curve = json.loads((ASSETS / "world_model" / "curve.json").read_text(encoding="utf-8"))
    assert curve["rl_start_step"] in [point["step"] for point in curve["points"]]


def test_shipped_weights_stay_small():
    files = list(ASSETS.rglob("*.safetensors"))
    assert {f.parent.name for f in files} >= {"tokenizer", "world_model", "clip", "detector"}
    assert sum(f.stat().st_size for f in files) < 12_000_000
