"""Encoders made of other libraries' models: tiny ones with random weights, saved in the formats that the real ones come in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsw_rewards.encoders import CMMD_ENCODER, PRESETS, Encoder, clip, describe, encoder_label, load_encoder, presets
from rsw_rewards.encoders.clip import quick_gelu_of_tag
from rsw_rewards.errors import ConfigError
from tests.tiny_clip import write_tiny_clip


def pictures(n: int, height: int = 40, width: int = 56) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (n, height, width, 3), dtype=np.uint8))


def check(encoder: Encoder, dim: int) -> np.ndarray:
    """What every encoder promises. Returns its features of three pictures."""
    assert isinstance(encoder, Encoder)
    images = pictures(3)
    features = encoder.encode_images(images, 4)
    assert features.shape == (3, dim) and features.dtype == np.float32 and encoder.dim == dim
    single = np.concatenate([encoder.encode_images([image], 4) for image in images])
    np.testing.assert_array_equal(single, features)
    assert len(np.unique(features.round(4), axis=0)) == 3
    about = json.loads(json.dumps(describe(encoder)))
    assert about["id"] == encoder.id and about["input_size"] and about["resize"] and len(about["weights_sha256"]) == 64
    with pytest.raises(ValueError, match="encoders read"):
        encoder.encode_images([images[0][..., 0]], 4)
    return features


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, Any]]:
    """open_clip with one tiny model more, called ``tiny``; a folder, and weights of that model."""
    import open_clip
    from safetensors.torch import load_file

    name = write_tiny_clip(tmp_path / "source")
    folder = Path(name.removeprefix("open_clip:local-dir:"))
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    (tmp_path / "tiny.json").write_text(json.dumps(config))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", list(open_clip.factory._MODEL_CONFIG_PATHS))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
    open_clip.add_model_config(tmp_path / "tiny.json")
    for label, quick in (("Tiny-Exact", False), ("Tiny-Quick", True)):
        monkeypatch.setitem(presets.PRESETS, label, presets.Preset("tiny", quick, "tiny.pt", "example.org"))
    monkeypatch.setitem(presets.PRESETS, "Tiny-Archive", presets.Preset("tiny", False, "tiny_top50pct", "example.org"))
    return tmp_path, load_file(folder / "open_clip_model.safetensors")


def test_a_preset_reads_the_formats_checkpoints_come_in(tiny: tuple[Path, dict[str, Any]]) -> None:
    import torch
    from safetensors.torch import save_file

    folder, state = tiny
    torch.save(state, folder / "tiny.pt")
    older = {**state, "attn_mask": torch.zeros(2, 2), "logit_scale": state["logit_scale"].reshape(1)}
    trained = {
        "epoch": 3,
        "state_dict": {f"module.{key}": value for key, value in older.items()},
        "optimizer": {"lr": 1.0},
    }
    (folder / "unpacked").mkdir()
    torch.save(trained, folder / "unpacked" / "epoch_3.pt")
    save_file(state, folder / "tiny.safetensors")
    made = [
        load_encoder(f"open_clip:Tiny-Exact:{folder}{name}", "cpu")
        for name in ("", "/tiny.pt", "/unpacked/epoch_3.pt", "/tiny.safetensors")
    ]
    made.append(load_encoder(f"open_clip:Tiny-Archive:{folder / 'unpacked'}", "cpu"))
    assert made.pop().weights_sha256 == made[0].weights_sha256
    features = check(made[0], 32)
    for other in made[1:]:
        np.testing.assert_array_equal(other.encode_images(pictures(3), 4), features)
        assert other.weights_sha256 == made[0].weights_sha256
    assert len({encoder.id for encoder in made}) == 1 and encoder_label(made[1].name) == "Tiny-Exact"
    np.testing.assert_array_equal(made[0].encode_texts(["a road"], 4), made[2].encode_texts(["a road"], 4))


def test_quick_gelu_is_another_encoder(tiny: tuple[Path, dict[str, Any]]) -> None:
    import torch

    folder, state = tiny
    torch.save(state, folder / "tiny.pt")
    exact, quick = (load_encoder(f"open_clip:{name}:{folder}", "cpu") for name in ("Tiny-Exact", "Tiny-Quick"))
    assert exact.weights_sha256 == quick.weights_sha256
    assert exact.id.partition("@")[2] != quick.id.partition("@")[2]
    gap = np.abs(exact.encode_images(pictures(3), 4) - quick.encode_images(pictures(3), 4))
    assert 0 < gap.max() < 0.5


def test_a_tag_brings_the_activation_it_was_trained_with(
    tiny: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """open_clip itself would only warn, and compute other features."""
    import open_clip
    import torch

    folder, state = tiny
    torch.save(state, folder / "tiny.pt")
    tags = {"openai": {"url": "-", "quick_gelu": True}, "laion": {"url": "-"}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny", tags)
    monkeypatch.setattr(open_clip.factory, "download_pretrained", lambda *args, **kwargs: str(folder / "tiny.pt"))
    for tag, preset in (("openai", "Tiny-Quick"), ("laion", "Tiny-Exact")):
        ours, same = load_encoder(f"open_clip:tiny:{tag}", "cpu"), load_encoder(f"open_clip:{preset}:{folder}", "cpu")
        np.testing.assert_array_equal(ours.encode_images(pictures(3), 4), same.encode_images(pictures(3), 4))
    assert quick_gelu_of_tag("ViT-L-14-336", "openai") and not quick_gelu_of_tag("ViT-H-14", "laion2b_s32b_b79k")


def test_presets_are_models_of_open_clip_and_say_what_to_fetch(tmp_path: Path) -> None:
    import open_clip

    assert {name.partition("-")[0] for name in PRESETS} == {"RemoteCLIP", "GeoRSCLIP", "SkyCLIP"}
    for name, preset in PRESETS.items():
        assert preset.model in open_clip.list_models()
        with pytest.raises(ConfigError) as caught:
            load_encoder(f"open_clip:{name}:{tmp_path}", "cpu")
        assert preset.file in str(caught.value) and preset.origin in str(caught.value)
    with pytest.raises(ConfigError, match="write hf_clip:/w"):
        load_encoder("open_clip:Git-RSCLIP:/w", "cpu")


def test_a_checkpoint_that_does_not_fit_is_named(tiny: tuple[Path, dict[str, Any]]) -> None:
    import torch

    folder, state = tiny
    file = folder / "tiny.pt"
    name = f"open_clip:Tiny-Exact:{file}"
    part = {key: value for key, value in state.items() if key != "visual.proj"}
    for content, said in (
        (part, r"lacks visual.proj \(1 in all\)"),
        ({**state, "head.weight": torch.zeros(2)}, "also holds head.weight"),
        ({**state, "visual.proj": torch.zeros(2, 2)}, "has another shape at visual.proj"),
        ({"state_dict": {"a": 1}}, "other than named tensors"),
        ([1, 2], "other than named tensors"),
        ({"visual.proj": Path("x")}, "cannot be read"),
    ):
        torch.save(content, file)
        with pytest.raises(ConfigError, match=said):
            load_encoder(name, "cpu")


def test_cmmd_cuts_the_square_out_before_it_resizes(tmp_path: Path) -> None:
    """As google-research/cmmd@io_util.py; for square images that is what open_clip does."""
    from PIL import Image

    name = write_tiny_clip(tmp_path / "tiny")
    plain, cropped = load_encoder(name, "cpu"), load_encoder(f"{name}#resize=crop-first", "cpu")
    square, wide = pictures(1, 50, 50), pictures(1, 41, 64)
    np.testing.assert_array_equal(plain.encode_images(square, 2), cropped.encode_images(square, 2))
    ours = cropped.encode_images(wide, 2)
    assert (ours != plain.encode_images(wide, 2)).any()
    by_hand = Image.fromarray(wide[0]).crop((11, 0, 52, 41)).resize((32, 32), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(plain.encode_images([np.asarray(by_hand)], 2), ours)
    assert plain.id != cropped.id
    assert describe(plain)["resize"] == "shorter side to 32, then the central square, Pillow bicubic"
    assert describe(cropped)["resize"] == "the central square, then to 32 x 32, Pillow bicubic"
    assert CMMD_ENCODER == "open_clip:ViT-L-14-336:openai#resize=crop-first"
    assert encoder_label(f"{name}#resize=crop-first") == "tiny-resize-crop-first"


def test_options_that_mean_nothing_are_refused() -> None:
    for name, said in (
        ("scene-clip#size=3", "not known"),
        ("scene-clip#bands=", "not known"),
        ("scene-clip#bands=1,2", "three numbers"),
        ("scene-clip#bands=a,b,c", "three numbers"),
        ("clean-fid-inception#resize=crop-first", "only open_clip"),
        ("scene-clip#resize=squash", "crop-first"),
    ):
        with pytest.raises(ConfigError, match=said):
            load_encoder(name, "cpu")


def write_dinov2(folder: Path) -> Any:
    import torch
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    model = Dinov2Model(Dinov2Config(**shape)).eval()
    model.save_pretrained(folder)
    return model


def test_dinov2_gives_the_class_token_of_squashed_images(tmp_path: Path) -> None:
    import torch
    from torchvision import transforms

    model = write_dinov2(tmp_path)
    encoder = load_encoder(f"dinov2:{tmp_path}", "cpu")
    features = check(encoder, 32)
    prepare = transforms.Compose(
        [
            transforms.ToPILImage(),
            transforms.Resize((224, 224), transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    with torch.inference_mode():
        tokens = model(torch.stack([prepare(image) for image in pictures(3)])).last_hidden_state
    np.testing.assert_allclose(features, tokens[:, 0].numpy(), atol=1e-4)
    with pytest.raises(ConfigError, match="reads no text"):
        encoder.encode_texts(["x"], 4)


def test_what_is_no_dinov2_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"put config.json and model.safetensors into /nowhere, or .*facebook/dinov2"):
        load_encoder("dinov2:/nowhere", "cpu")
    with pytest.raises(ConfigError, match=r"put config\.json"):
        load_encoder(f"dinov2:{tmp_path}", "cpu")
    write_dinov2(tmp_path)
    with pytest.raises(ConfigError, match="is a dinov2 model, not one of siglip, clip"):
        load_encoder(f"hf_clip:{tmp_path}", "cpu")
    config = json.loads((tmp_path / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Model", "AutoConfig": "evil.Config"}
    config["model_type"] = "unheard-of"
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_encoder(f"dinov2:{tmp_path}", "cpu")
    assert not (tmp_path / "ran").exists()


def test_timm_models_give_what_their_classifier_reads(tmp_path: Path) -> None:
    import timm
    import torch

    torch.manual_seed(0)
    model = timm.create_model("test_resnet", pretrained=False).eval()
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    name = f"timm:test_resnet:{tmp_path / 'mine.pth'}"
    encoder = load_encoder(name, "cpu")
    features = check(encoder, model.num_features)
    with torch.inference_mode():
        logits = model.get_classifier()(torch.from_numpy(features))
        batch = torch.stack([encoder.preprocess(_pil(image)) for image in pictures(3)])  # type: ignore[attr-defined]
        np.testing.assert_allclose(logits.numpy(), model(batch).numpy(), atol=1e-5)
    assert encoder_label(name) == "test_resnet-mine"
    with pytest.raises(ConfigError, match="no weights at"):
        load_encoder("timm:test_resnet:/nowhere.pth", "cpu")
    with pytest.raises(ConfigError, match="timm has no model 'nothing'"):
        load_encoder(f"timm:nothing:{tmp_path / 'mine.pth'}", "cpu")
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "mine.pth")
    with pytest.raises(ConfigError, match="do not fit"):
        load_encoder(name, "cpu")


def _pil(image: np.ndarray) -> Any:
    from PIL import Image

    return Image.fromarray(image)


def test_siglip_in_the_format_of_git_rsclip(tmp_path: Path) -> None:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipImageProcessor, SiglipModel

    torch.manual_seed(0)
    tower = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    text = {**tower, "vocab_size": 100, "max_position_embeddings": 16, "projection_size": 32}
    config = SiglipConfig(text_config=text, vision_config={**tower, "image_size": 32, "patch_size": 16})
    model = SiglipModel(config).eval()
    model.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"put preprocessor_config\.json and the tokenizer"):
        load_encoder(f"hf_clip:{tmp_path}", "cpu")
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1, "a": 2, "road": 3, "lake": 4}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>").save_pretrained(tmp_path)
    encoder = load_encoder(f"hf_clip:{tmp_path}", "cpu")
    features = check(encoder, 32)
    with torch.inference_mode():
        resized = [np.asarray(_pil(image).resize((32, 32), 3)) / 127.5 - 1.0 for image in pictures(3)]
        pixels = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float()
        wanted = model.vision_model(pixels).pooler_output.numpy()
        ids = torch.tensor([[2, 3] + [0] * 14])
        text_wanted = model.text_model(input_ids=ids).pooler_output.numpy()
    np.testing.assert_allclose(features, wanted, atol=1e-5)
    texts = encoder.encode_texts(["a road", "a lake"], 4)
    np.testing.assert_allclose(texts[:1], text_wanted, atol=1e-5)
    np.testing.assert_array_equal(encoder.encode_texts(["a lake"], 4)[0], texts[1])
    assert encoder.truncates(["a road", "a " * 17]) == [False, True]  # type: ignore[attr-defined]
    assert clip.SCENE_CLIP_FOLDER.is_dir()
