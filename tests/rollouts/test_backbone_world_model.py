"""World models on vision-language backbones: what is built, one distribution for sampler and learner, whole pictures, and faults."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Sample, Task
from rsw_rewards.data.scene_world import scene_world_samples
from rsw_rewards.errors import ConfigError
from rsw_rewards.io.images import read_rgb
from rsw_rewards.rollouts.backbone_builder import CODEC, build_world_model, start_rows
from rsw_rewards.rollouts.backbone_vocabulary import FILE, PICTURE, BackboneVocabulary
from rsw_rewards.rollouts.backbone_world_model import BackboneWorldModel, at_size_of
from rsw_rewards.rollouts.movq import WEIGHTS, load_movq, tiny_movq
from rsw_rewards.rollouts.policies import build_policy
from rsw_rewards.rollouts.policy import Request
from rsw_rewards.rollouts.tiny_vlm import MODELS, tiny_tokenizer
from rsw_rewards.rollouts.vision_language import VisionLanguageModel
from rsw_rewards.rollouts.weights import merged_weights, trained_weights
from rsw_rewards.training.critic import Rows, score_rows

QUESTIONS = scene_world_samples(3, 0, split="dev", tasks=("change_qa",))
FORECASTS = scene_world_samples(3, 0, split="dev", tasks=("forecast",))
SAMPLES = [*QUESTIONS, *FORECASTS]


def ready(path: str | Path, **changes: Any) -> BackboneWorldModel:
    policy = BackboneWorldModel(path, **{"max_new_tokens": 4, **changes})
    policy.setup()
    return policy


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world")
    build_world_model("tiny:qwen3_vl", "tiny:movq", out, side=32)
    return out


@pytest.fixture(scope="module")
def policy(folder: Path) -> BackboneWorldModel:
    return ready(folder)


def requests(samples: list[Sample], each: int = 2) -> list[Request]:
    return [Request(sample, k, seed=100 * n + k) for n, sample in enumerate(samples) for k in range(each)]


# What is built


def test_the_backbone_is_kept_and_answers_as_before(policy: BackboneWorldModel) -> None:
    backbone = VisionLanguageModel("tiny:qwen3_vl")
    backbone.setup()
    v = policy.vocabulary
    old, new = (model.model.get_input_embeddings().weight for model in (backbone, policy))
    assert torch.equal(new[: v.first], old[: v.first])
    inputs = backbone.encode(QUESTIONS, [backbone.pictures(sample) for sample in QUESTIONS])
    with torch.no_grad():
        before, after = (
            torch.log_softmax(model.model(**inputs).logits[:, -1, : v.first], -1) for model in (backbone, policy)
        )
    possible = before > -1e3
    torch.testing.assert_close(after[possible], before[possible], atol=1e-5, rtol=1e-5)
    assert (after[~possible] < -1e3).all()


def test_new_rows_look_like_old_ones_and_similar_codes_start_alike() -> None:
    rng = torch.Generator().manual_seed(3)
    shape = torch.randn(16, 16, generator=rng)
    weight = torch.cat([torch.randn(4000, 16, generator=rng) @ shape + 5.0, torch.zeros(2000, 16)])
    codebook = torch.rand(1500, 4, generator=rng)
    vocabulary = BackboneVocabulary(4000, 1500, 8, (1, 1), {}, {})
    start_rows(weight, vocabulary, codebook, seed=0)
    old, codes = weight[:4000], weight[vocabulary.visual_start : vocabulary.last]
    assert torch.allclose(codes.mean(0), old.mean(0), atol=0.5)
    assert 0.6 < codes.var(0).sum() / old.var(0).sum() < 1.6
    names = weight[4000 : vocabulary.visual_start]
    assert (names - old.mean(0)).norm(dim=1).max() < 0.5 * (old - old.mean(0)).norm(dim=1).mean()
    assert len(names.unique(dim=0)) == len(names)
    apart = np.corrcoef(torch.pdist(codebook[:300]).numpy(), torch.pdist(codes[:300]).numpy())[0, 1]
    assert apart > 0.3


@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_and_head_grow_whether_tied_or_not(tied: bool, tmp_path: Path) -> None:
    model, processor = MODELS["qwen2_5_vl"](tiny_tokenizer())
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = tied
    own = type(model)(model.config)
    own.save_pretrained(tmp_path / "backbone")
    processor.save_pretrained(tmp_path / "backbone")
    build_world_model(str(tmp_path / "backbone"), "tiny:movq", tmp_path / "world", side=32)
    world = ready(tmp_path / "world", lora={"r": 2})
    v = world.vocabulary
    base = world.model.get_base_model()
    inputs, outputs = (base.get_input_embeddings().weight, base.get_output_embeddings().weight)
    assert inputs.shape == outputs.shape and len(outputs) >= v.last
    assert torch.equal(inputs, outputs) == tied
    spread = outputs.detach()[v.visual_start : v.last].std(0).mean() / outputs.detach()[: v.first].std(0).mean()
    assert 0.5 < spread < 2
    deltas = [weight for name, weight in trained_weights(world.model).items() if "trainable_tokens" in name]
    assert [weight.shape[0] for weight in deltas] == [v.last - v.first] * (1 if tied else 2)


def test_metadata_are_tokens_of_their_own(policy: BackboneWorldModel) -> None:
    known = {
        "lat": 31.7,
        "lon": -97.2,
        "gsd_m": 0.5,
        "sensor": "WV02",
        "target_sun_elevation_deg": 43.0,
        "cloud_cover": 100,
    }
    sample = replace(FORECASTS[0], metadata=known, images=(replace(FORECASTS[0].images[0], date="2016-07-01"),))
    text = policy.text(sample)
    named = "<lat:30><lon:-120><gsd:0.5><sensor:worldview><year:2016><month:7><sun:40><off_nadir:?><cloud:90>"
    assert text == named + sample.prompt
    ids = policy.processor.tokenizer.encode(named, add_special_tokens=False)
    assert ids == [policy.vocabulary.ids[f"<{name}>"] for name in named[1:-1].split("><")]
    blind = ready(policy.path, forecast_template="")
    assert blind.text(sample) == named


def test_words_cannot_open_a_picture(policy: BackboneWorldModel) -> None:
    sample = replace(QUESTIONS[0], prompt=f"{PICTURE[0]}<|visual_3|><|image_pad|> has water increased?")
    found = policy.encode([sample], [policy.pictures(sample)])["input_ids"][0].tolist()
    assert not {policy.vocabulary.ids[PICTURE[0]], policy.vocabulary.ids["<|visual_3|>"]} & set(found)
    assert policy.generate([Request(sample)])[0].lost is None


# One distribution


@pytest.mark.parametrize("name", ["qwen3_vl", "qwen2_5_vl"])
@pytest.mark.parametrize("lora", [None, {"r": 4}])
def test_sampled_log_probabilities_are_those_of_the_learner(name: str, lora: dict[str, Any] | None) -> None:
    policy = ready(f"tiny:{name}", lora=lora)
    if lora:
        with torch.no_grad():
            for weight in policy.model.parameters():
                weight += 0.1 * torch.randn_like(weight) * weight.requires_grad
    asked = [replace(request, temperature=0.8) for request in requests(SAMPLES)]
    outputs = policy.generate(asked)
    rows = Rows([output.tokens for output in outputs if output.tokens], [r.sample for r in asked], policy.pad_id)
    assert len({len(trace.prompt_ids) for trace in rows.traces}) > 2  # so both sides pad
    with torch.no_grad():
        found = score_rows(policy.model, rows, 0.8, policy.learner_inputs).log_probs
    sampled = rows.aligned([trace.logprobs for trace in rows.traces])
    torch.testing.assert_close(found, sampled, atol=1e-5, rtol=0)


def test_a_rollout_follows_from_its_seed_alone(policy: BackboneWorldModel) -> None:
    asked = requests(SAMPLES)
    together = policy.generate(asked)
    for place in (1, 4, 7, 10):
        alone, mine = policy.generate([asked[place]])[0], together[place].tokens
        assert alone.tokens and mine
        assert alone.tokens.completion_ids == mine.completion_ids
        np.testing.assert_allclose(alone.tokens.logprobs, mine.logprobs, atol=1e-5)
        if alone.image is not None:
            assert alone.image == together[place].image


def test_pictures_are_whole_and_words_hold_none_of_them(policy: BackboneWorldModel) -> None:
    v = policy.vocabulary
    for sample, output in zip(SAMPLES, policy.generate(requests(SAMPLES, 1)), strict=True):
        assert output.tokens
        ids = output.tokens.completion_ids
        if sample.task is Task.FORECAST:
            assert len(ids) == 4 * 5 + 2 and output.finish_reason == "stop" and output.text is None
            codes = v.read_drawing(ids, policy.ends)
            assert codes is not None and codes.shape == (16,)
            assert [*v.drawing(codes), policy.eos_id] == list(ids)
            assert output.image is not None and output.image.pixels().shape == (64, 64, 3)
            forced = [k for k, token in enumerate(ids) if not v.visual_start <= token < v.last]
            assert [output.tokens.logprobs[k] for k in forced] == [0.0] * 6
        else:
            assert max(ids) < v.first and output.image is None


def test_broken_pictures_are_not_read(policy: BackboneWorldModel) -> None:
    v, end = policy.vocabulary, policy.eos_id
    whole = [*v.drawing(np.arange(16)), end]
    assert v.read_drawing(whole, policy.ends) is not None
    swapped = [whole[4], *whole[1:4], whole[0], *whole[5:]]
    for broken in (whole[:-1], whole[1:], swapped, [*whole[:-2], end, end], [7, *whole[1:]], [end], []):
        assert v.read_drawing(broken, policy.ends) is None


def test_copied_codes_keep_every_pixel(policy: BackboneWorldModel) -> None:
    before = read_rgb(FORECASTS[0].images[0])
    shown = policy.pixels(FORECASTS[0].images[0])
    assert shown.shape == (32, 32, 3)
    codes = policy.codec.encode(shown[None])
    assert np.array_equal(at_size_of(before, shown, policy.codec.decode_forecast(shown[None], codes)[0]), before)
    other = at_size_of(before, shown, np.clip(shown.astype(int) + 40, 0, 255).astype(np.uint8))
    assert 20 < (other.astype(int) - before).mean() <= 40


def test_the_ceiling_is_what_drawing_the_true_codes_gives(policy: BackboneWorldModel) -> None:
    ceiling = build_policy({"use": "tokenizer_ceiling", "path": str(policy.path)})
    ceiling.setup()
    sample = FORECASTS[0]
    [output] = ceiling.generate([Request(sample)])
    shown, coming = (policy.pixels(image) for image in (sample.images[-1], sample.reference["images"][-1]))
    drawn = policy.codec.decode_forecast(shown[None], policy.codec.encode(coming[None]))[0]
    assert output.image is not None
    assert np.array_equal(output.image.pixels(), at_size_of(read_rgb(sample.images[-1]), shown, drawn))


def test_a_visual_tokenizer_gives_a_picture_the_same_codes_in_any_batch() -> None:
    codec = tiny_movq()
    pictures = np.stack([read_rgb(sample.images[0]) for sample in scene_world_samples(17, 0, split="dev")])
    codes = codec.encode(pictures)
    assert len(np.unique(codes)) > 20
    assert np.array_equal(codec.encode(pictures[16:]), codes[16:])
    assert np.array_equal(codec.decode(codes[16:]), codec.decode(codes)[16:])
    for wrong in (codes[:, :63], codes + 64):
        with pytest.raises(ValueError, match=r"grid|must lie in"):
            codec.decode(wrong)


# Files


@pytest.mark.parametrize("lora", [None, {"r": 2}])
def test_what_is_saved_is_loaded_and_sent_to_replicas(
    lora: dict[str, Any] | None, folder: Path, tmp_path: Path
) -> None:
    learner, replica = ready(folder, lora=lora), ready(folder, lora=lora)
    with torch.no_grad():
        for weight in learner.model.parameters():
            weight += 0.1 * torch.randn_like(weight) * weight.requires_grad
    replica.load_weights(trained_weights(learner.model), 1)
    learner.save(tmp_path / "final")
    asked = requests(SAMPLES[2:4], 1)
    made, *others = (one.generate(asked) for one in (learner, replica, ready(tmp_path / "final"), ready(folder)))
    assert others[0] == others[1] == made
    assert others[2] != made
    assert (tmp_path / "final" / "adapter_model.safetensors").is_file() == bool(lora)
    if lora:
        with pytest.raises(ConfigError, match="holds a LoRA adapter, which is trained further as it is; remove 'lora'"):
            ready(tmp_path / "final", lora=lora)


def test_half_precision_keeps_adapters_and_new_rows_fine(folder: Path) -> None:
    policy = ready(folder, dtype="bfloat16", lora={"r": 2})
    trained = [weight for weight in policy.model.parameters() if weight.requires_grad]
    assert {weight.dtype for weight in trained} == {torch.float32}
    assert all(output.finish_reason for output in policy.generate(requests(SAMPLES[2:4], 1)))


def edited(folder: Path, out: Path, **changes: Any) -> Path:
    """A copy of a world model with another ``world_model.json``."""
    shutil.copytree(folder, out)
    content = json.loads((out / FILE).read_text())
    (out / FILE).write_text(json.dumps(content | changes))
    return out


def test_damaged_or_foreign_files_are_named(folder: Path, tmp_path: Path) -> None:
    for path, wanted in (
        (tmp_path / "nothing", r"world_model.json is missing\); build one"),
        (
            edited(folder, tmp_path / "grid", grid=[8, 8]),
            r"64 codes in a grid of \(4, 4\), but the model was built for 64 in \(8, 8\)",
        ),
        (edited(folder, tmp_path / "first", first=7), "the files are of different world models, build it again"),
        (edited(folder, tmp_path / "key", unheard=1), "world_model.json cannot be read: .*unheard"),
    ):
        with pytest.raises(ConfigError, match=wanted):
            ready(path)
    swapped = edited(folder, tmp_path / "swapped")
    tiny_movq(codes=32).save(swapped / CODEC)
    with pytest.raises(ConfigError, match=r"damaged or another file .* copy it again"):
        ready(swapped)
    with pytest.raises(ConfigError, match="32 codes in a grid"):
        ready(edited(swapped, tmp_path / "unchecked", sha256={}))
    weights = swapped / CODEC / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ConfigError, match="cannot be read; copy it again"):
        load_movq(swapped / CODEC)
    weights.unlink()
    with pytest.raises(ConfigError, match="must be safetensors"):
        load_movq(swapped / CODEC)


def test_what_cannot_be_built_is_refused(folder: Path, tmp_path: Path) -> None:
    for arguments, wanted in (
        ((str(folder), "tiny:movq"), "so it is a world model; give one that is none"),
        (("tiny:qwen9", "tiny:movq"), "no tiny model 'qwen9'"),
        ((str(tmp_path / "nothing"), "tiny:movq"), "the backbone cannot be loaded from"),
        (("tiny:qwen3_vl", str(tmp_path / "nothing")), "holds no visual tokenizer"),
    ):
        with pytest.raises(ConfigError, match=wanted):
            build_world_model(*arguments, tmp_path / "out", side=32)
    with pytest.raises(ConfigError, match=r"side: .* multiples of 8, got 30 x 30"):
        build_world_model("tiny:qwen3_vl", "tiny:movq", tmp_path / "out", side=30)
    with pytest.raises(ConfigError, match="takes no 'send_images'"):
        BackboneWorldModel(folder, send_images=False)


def test_a_sample_whose_picture_is_absent_is_lost_alone(policy: BackboneWorldModel, tmp_path: Path) -> None:
    broken = replace(FORECASTS[1], images=(ImageRef(path=tmp_path / "absent.png"),))
    outputs = policy.generate(requests([FORECASTS[0], broken], 1))
    assert outputs[0].image is not None and outputs[1].lost is not None


def test_a_position_goes_on_token_by_token_as_in_whole_sequences(policy: BackboneWorldModel) -> None:
    v = policy.vocabulary
    begin, row, end = (v.ids[name] for name in PICTURE)
    segments = v.segments(v.last, (), policy.ends)
    kinds = torch.tensor([begin, row, end, v.visual_start, v.visual_start, v.last - 1, 5, v.first + 3, policy.eos_id])
    ids = kinds[torch.randint(len(kinds), (50, 40), generator=torch.Generator().manual_seed(0))]
    whole = segments.positions(ids).tolist()
    for sequence, wanted in zip(ids.tolist(), whole, strict=True):
        position, found = -1, []
        for token in sequence:
            position = segments.after(position, token)
            found.append(position)
        assert found == wanted


def test_merged_weights_hold_what_adapters_and_embeddings_have_learnt(folder: Path) -> None:
    adapted = ready(folder, lora={"r": 4, "alpha": 32})
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in adapted.model.parameters():
            weight += 0.02 * torch.randn_like(weight) * weight.requires_grad
    merged = merged_weights(adapted.model)
    adapted.merge_adapters()
    wanted = adapted.model.state_dict()
    assert merged.keys() == wanted.keys()
    for name, weight in wanted.items():
        torch.testing.assert_close(merged[name], weight)
