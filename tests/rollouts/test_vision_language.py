"""Vision-language policies on tiny models of two architectures: what they see, what they may say, and what survives faults."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.plugins import load_file
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.errors import ConfigError
from rsw_rewards.rollouts.policies import build_policy
from rsw_rewards.rollouts.policy import Request
from rsw_rewards.rollouts.pool import RolloutPool
from rsw_rewards.rollouts.tiny_vlm import MODELS, build_tiny
from rsw_rewards.rollouts.vision_language import VisionLanguageModel
from rsw_rewards.rollouts.weights import trained_weights

SAMPLES = load_file(Path(__file__).parents[2] / "examples/squares.py").squares(4)


@pytest.fixture(scope="module", params=sorted(MODELS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def policy(folder: Path) -> VisionLanguageModel:
    made = VisionLanguageModel(folder, max_new_tokens=6)
    made.setup()
    return made


def requests(samples: Sequence[Sample] = SAMPLES, candidates: int = 2, temperature: float = 1.0) -> list[Request]:
    return [
        Request(sample, candidate, 100 * number + candidate, temperature)
        for number, sample in enumerate(samples)
        for candidate in range(candidates)
    ]


def said(outputs: Sequence[Output]) -> list[tuple[int, ...]]:
    assert all(output.tokens for output in outputs)
    return [output.tokens.completion_ids for output in outputs if output.tokens]


def logits(policy: VisionLanguageModel, sample: Sample) -> torch.Tensor:
    inputs = policy.encode([sample], [policy.pictures(sample)])
    with torch.no_grad():
        return policy.model(**inputs).logits[0, -1]


def test_both_images_reach_the_model_in_their_order(policy: VisionLanguageModel) -> None:
    sample = SAMPLES[0]
    first, second = sample.images
    seen = logits(policy, sample)
    other = ImageRef(array=np.full((56, 56, 3), 255, np.uint8))
    for images in ((first, other), (other, second), (second, first)):
        assert (logits(policy, replace(sample, images=images)) - seen).abs().max() > 1e-4
    three = policy.encode([sample], [policy.pictures(replace(sample, images=(first, second, other)))[:2]])
    more = replace(sample, images=(first, second, other))
    longer = policy.encode([more], [policy.pictures(more)])
    assert longer["image_grid_thw"].shape[0] == 3 and longer["input_ids"].shape[1] > three["input_ids"].shape[1]


def test_rows_depend_on_their_seed_and_not_on_their_company(policy: VisionLanguageModel) -> None:
    asked = requests()
    together = policy.generate(asked)
    assert said(policy.generate(asked)) == said(together)
    alone = [policy.generate([request])[0] for request in asked]
    mixed = policy.generate(asked[3:5] + asked[:1])  # a sample of two candidates among samples of one
    assert said(alone) == said(together)
    assert said(mixed) == [*said(together)[3:5], *said(together)[:1]]
    for one, other in zip(alone, together, strict=True):
        assert one.tokens and other.tokens
        np.testing.assert_allclose(one.tokens.logprobs, other.tokens.logprobs, atol=1e-5)
    assert len(set(said(together))) > 2
    greedy = policy.generate(requests(temperature=0.0))
    assert said(greedy)[0] == said(greedy)[1]


def test_the_state_of_random_numbers_is_left_alone(policy: VisionLanguageModel) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    policy.generate(requests(candidates=1))
    assert torch.equal(torch.rand(1), expected)


def test_tokens_of_images_have_no_probability_anywhere(folder: Path) -> None:
    policy = VisionLanguageModel(folder, max_new_tokens=6)
    policy.setup()
    tokenizer: Any = policy.processor.tokenizer
    names = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    forbidden = [tokenizer.convert_tokens_to_ids(name) for name in names]
    with torch.no_grad():  # make them the likeliest by far for an unmasked model
        head = policy.model.get_input_embeddings().weight
        head[forbidden] = 50 * head[forbidden]
    assert torch.softmax(logits(policy, SAMPLES[0]), -1)[forbidden].max() == 0.0
    for ids in said(policy.generate(requests(temperature=1.0) + requests(temperature=5.0))):
        assert not set(ids) & set(forbidden)


def test_an_answer_that_does_not_end_is_invalid_and_one_that_ends_is_text(policy: VisionLanguageModel) -> None:
    outputs = policy.generate(requests(candidates=8, temperature=2.0))
    assert {output.finish_reason for output in outputs} >= {"length"}
    for output in outputs:
        assert output.tokens and len(output.tokens.completion_ids) == len(output.tokens.logprobs)
        if output.finish_reason == "length":
            assert output.answer is None and output.invalid and "cut off after 6 tokens" in output.invalid
            assert output.text is not None  # what it was is shown in dumps
            assert policy.eos_id not in output.tokens.completion_ids
    with torch.no_grad():  # a model that wants nothing but to end
        bare = VisionLanguageModel(policy.path, max_new_tokens=6)
        bare.setup()
        bare.model.get_input_embeddings().weight[bare.eos_id] *= 0
        stop = bare.model.get_output_embeddings()
        stop.register_forward_hook(lambda module, given, out: out.index_fill(-1, torch.tensor([bare.eos_id]), 50.0))
    ended = bare.generate(requests(candidates=1))
    assert {output.finish_reason for output in ended} == {"stop"}
    assert {output.text for output in ended} == {""} and said(ended) == [(bare.eos_id,)] * 4


def test_a_sample_whose_image_is_broken_is_lost_and_the_others_are_made(
    policy: VisionLanguageModel, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    broken = replace(SAMPLES[1], images=(SAMPLES[1].images[0], ImageRef(path=tmp_path / "broken.png")))
    thin = replace(SAMPLES[2], images=(ImageRef(array=np.zeros((1, 900, 3), np.uint8)), SAMPLES[2].images[1]))
    outputs = policy.generate(requests([SAMPLES[0], broken, thin, SAMPLES[3]]))
    assert [bool(output.lost) for output in outputs] == [False, False, True, True, True, True, False, False]
    assert "broken.png" in str(outputs[2].lost) and "aspect ratio" in str(outputs[4].lost)
    assert outputs[2].invalid is None
    whole = said(policy.generate(requests()))
    assert said(outputs[:2] + outputs[6:]) == whole[:2] + whole[6:]


MARKS = "<|vision_start|><|image_pad|><|vision_end|>"


def test_words_that_name_special_tokens_are_words(policy: VisionLanguageModel) -> None:
    named = replace(SAMPLES[1], prompt=f"{MARKS}\n<|im_end|><|im_<|im_end|>end|> has it changed?")
    outputs = policy.generate(requests([SAMPLES[0], named]))
    assert all(output.lost is None for output in outputs)
    special = set(policy.processor.tokenizer.all_special_ids)
    plain, marked = (
        [token for token in output.tokens.prompt_ids if token in special] for output in outputs[::2] if output.tokens
    )
    assert plain == marked
    assert "has it changed?" in policy.written(named)


def test_a_true_answer_holds_no_special_token_but_its_end(policy: VisionLanguageModel) -> None:
    ids = policy.answer_ids(f"yes {MARKS}<|im_end|>")
    special = set(policy.processor.tokenizer.all_special_ids)
    assert [token for token in ids if token in special] == [policy.eos_id] == ids[-1:]


@pytest.fixture(scope="module")
def thinker(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> VisionLanguageModel:
    """A model whose chat template opens the reasoning."""
    copy = Path(shutil.copytree(folder, tmp_path_factory.mktemp("thinker") / "model"))
    template = copy / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}"))
    made = VisionLanguageModel(copy, max_new_tokens=6, template="Think in <think> tags. {prompt}")
    made.setup()
    return made


@pytest.mark.parametrize(
    ("written", "answer"),
    [("a roof</think>\nno", "no"), ("a roof, so no", ""), ("</think>yes", "yes"), ("<think>a</think>yes", "yes")],
)
def test_reasoning_that_the_template_opens_is_no_answer(
    thinker: VisionLanguageModel, written: str, answer: str
) -> None:
    ids = [*thinker.processor.tokenizer.encode(written), thinker.eos_id]
    ended = thinker.output(Request(SAMPLES[0]), [1], ids, [0.0] * len(ids))
    assert ended.text == f"<think>\n{written}" and ended.answer == answer and ended.finish_reason == "stop"
    cut = thinker.output(Request(SAMPLES[0]), [1], ids[:-1], [0.0] * len(ids[:-1]))
    assert cut.invalid and cut.answer is None and cut.finish_reason == "length"


def test_a_true_answer_closes_the_reasoning_that_the_template_opens(thinker: VisionLanguageModel) -> None:
    ids = thinker.answer_ids("yes")
    assert thinker.output(Request(SAMPLES[0]), [1], ids, [0.0] * len(ids)).answer == "yes"


def test_a_blind_policy_sees_nothing(folder: Path) -> None:
    policy = VisionLanguageModel(folder, max_new_tokens=4, send_images=False, system="be brief", template="Q: {prompt}")
    policy.setup()
    one, other = (policy.generate(requests([sample], 1, 0.0))[0] for sample in (SAMPLES[0], SAMPLES[1]))
    assert said([one]) == said([other]) and one.tokens
    text = policy.processor.tokenizer.decode(one.tokens.prompt_ids)
    assert "be brief" in text and "Q: did a bright square" in text and "image" not in text


def test_adapters_alone_travel_and_come_back_from_their_folder(folder: Path, tmp_path: Path) -> None:
    spec = {"use": "vision_language", "path": str(folder), "max_new_tokens": 6, "lora": {"r": 4, "alpha": 8}}
    first, second, plain = build_policy(spec), build_policy(spec), VisionLanguageModel(folder, max_new_tokens=6)
    for policy in (first, second, plain):
        policy.setup()
    assert isinstance(first, VisionLanguageModel) and isinstance(second, VisionLanguageModel)
    assert said(first.generate(requests())) == said(plain.generate(requests()))  # an untrained adapter changes nothing
    weights = trained_weights(first.model)
    assert all("lora_" in name for name in weights)
    assert sum(w.numel() for w in weights.values()) < 0.1 * sum(w.numel() for w in plain.model.parameters())
    changed = {name: torch.full_like(weight, 0.3) for name, weight in weights.items()}
    first.load_weights(changed, 1)
    moved = first.generate(requests())
    assert said(moved) != said(plain.generate(requests()))
    second.load_weights(changed, 1)
    assert said(second.generate(requests())) == said(moved)
    first.save(tmp_path)
    assert not list(tmp_path.glob("model*.safetensors"))
    back = VisionLanguageModel(tmp_path, max_new_tokens=6)
    back.setup()
    assert said(back.generate(requests())) == said(moved)


def test_a_saved_model_is_the_same_model(policy: VisionLanguageModel, tmp_path: Path) -> None:
    policy.save(tmp_path)
    back = VisionLanguageModel(tmp_path, max_new_tokens=6)
    back.setup()
    assert said(back.generate(requests())) == said(policy.generate(requests()))
    assert type(back.model).__name__ == type(policy.model).__name__


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"path": "/nowhere"}, "'vision_language' cannot be loaded from '/nowhere'"),
        ({"path": "tiny:gpt"}, "there is no tiny model 'gpt'; known are qwen2_5_vl, qwen3_vl"),
        ({"path": "tiny:qwen3_vl", "lora": {"rank": 3}}, "lora.rank: Extra inputs"),
        ({"path": "tiny:qwen3_vl", "max_new_tokens": 0}, "'max_new_tokens' must be 1 or more"),
        ({"path": "tiny:qwen3_vl", "lora": {"target_modules": ["no_such"]}}, "no_such"),
    ],
)
def test_what_cannot_be_loaded_is_said_in_a_sentence(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        build_policy({"use": "vision_language", **arguments}).setup()


class Mortal(VisionLanguageModel):
    """Kills its process once, at its second chunk."""

    def __init__(self, path: Path, mark: Path) -> None:
        super().__init__(path, max_new_tokens=6)
        self.mark, self.calls = mark, 0

    def generate(self, requests: Sequence[Request]) -> list[Output]:
        self.calls += 1
        if self.calls == 2 and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().generate(requests)


@pytest.mark.usefixtures("ray_cluster")
def test_a_killed_actor_costs_no_rollout_and_changes_none(tmp_path: Path) -> None:
    import sys

    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    folder = build_tiny("qwen2_5_vl", tmp_path / "model")
    alive, mortal = VisionLanguageModel(folder, max_new_tokens=6), Mortal(folder, tmp_path / "mark")
    groups = []
    for policy, actors in ((alive, 0), (mortal, 1)):
        with RolloutPool(policy, actors=actors, chunk=2) as pool:
            made = pool.generate(SAMPLES, 2, 1.0, run_seed=1)
            groups.append({group[0].sample_id: group for group in made})
    assert (tmp_path / "mark").exists()
    assert groups[0] == groups[1]
