"""Folders of models that lack something: each ends in a sentence at setup, before any rollout; what another file says is taken from there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file as load_weights
from safetensors.torch import save_file as save_weights

from rsw_rewards.core.plugins import load_file
from rsw_rewards.errors import ConfigError
from rsw_rewards.rollouts.backbone_builder import build_world_model
from rsw_rewards.rollouts.policies import build_policy
from rsw_rewards.rollouts.policy import Request
from rsw_rewards.rollouts.pool import RolloutPool
from rsw_rewards.rollouts.tiny_diffusion import tiny_folder
from rsw_rewards.rollouts.tiny_vlm import build_tiny
from rsw_rewards.rollouts.vision_language import VisionLanguageModel

SAMPLES = load_file(Path(__file__).parents[2] / "examples/squares.py").squares(1)
Change = Callable[[Path], Any]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny("qwen2_5_vl", tmp_path_factory.mktemp("whole"))


def without(*names: str) -> Change:
    return lambda folder: [(folder / name).unlink() for name in names]


def written(name: str, text: str) -> Change:
    return lambda folder: (folder / name).write_text(text)


def edited(name: str, change: Callable[[dict[str, Any]], Any]) -> Change:
    def edit(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return edit


def halved(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def deeper(config: dict[str, Any]) -> None:
    text = config["text_config"]
    text["num_hidden_layers"] += 1
    text["layer_types"] = [*text["layer_types"], text["layer_types"][-1]]


NO_IMAGE = (
    "{% for m in messages %}{% for p in m['content'] %}{{ p['text'] if p['type'] == 'text' }}{% endfor %}{% endfor %}"
)
NO_WORDS = "{% for m in messages %}{% for p in m['content'] %}{{ '<|image_pad|>' if p['type'] == 'image' }}{% endfor %}{% endfor %}"
BROKEN: list[tuple[Change, str]] = [
    (without("chat_template.jinja"), "it has no chat template; copy chat_template.jinja of the base model"),
    (written("chat_template.jinja", "{{ raise_exception('no system role') }}"), r"does not take a request with images \(TemplateError: no system role\); copy"),
    (written("chat_template.jinja", NO_IMAGE), "does not take a request with images"),
    (written("chat_template.jinja", NO_WORDS), "leaves the words of a request out"),
    (without("config.json"), "it has no configuration; copy config.json"),
    (without("tokenizer.json"), "it has no tokenizer; copy tokenizer.json"),
    (without("processor_config.json"), "it has no image processor; copy preprocessor_config.json"),
    (written("tokenizer_config.json", "{broken"), "its tokenizer_config.json is not valid JSON"),
    (without("model.safetensors"), "no file named model.safetensors"),
    (written("model.safetensors", "version https://git-lfs.github.com/spec/v1"), "damaged or was not downloaded whole"),
    (halved, "damaged or was not downloaded whole"),
    (edited("config.json", lambda config: config["text_config"].update(intermediate_size=64)), "other shapes than its config.json says"),
    (edited("config.json", deeper), "its weights lack .* of the tensors that its config.json asks for, such as model.language_model.layers.2"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), BROKEN, ids=[said[:40] for _, said in BROKEN])
def test_what_is_missing_or_wrong_is_said_before_any_rollout(
    whole: Path, tmp_path: Path, change: Change, said: str
) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    change(folder)
    with pytest.raises(ConfigError, match=said) as stopped:
        RolloutPool(build_policy({"use": "vision_language", "path": str(folder)}), actors=0)
    assert str(stopped.value).startswith(f"the policy 'vision_language' cannot be loaded from {str(folder)!r}: ")
    assert "\n" not in str(stopped.value)


def test_a_backbone_without_chat_template_makes_no_world_model(whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match=r"the backbone cannot be loaded from .*: it has no chat template"):
        build_world_model(str(folder), "tiny:movq", tmp_path / "world", side=32)


def one_layer_more(folder: Path) -> None:
    def add(config: dict[str, Any]) -> None:
        config["num_hidden_layers"] += 1
        config["layer_types"] = [*config["layer_types"], config["layer_types"][-1]]

    edited("config.json", add)(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (one_layer_more, "its weights lack .* of the tensors that its config.json asks for"),
        (without("model.safetensors"), "no file named model.safetensors"),
        (written("vocabulary.json", "{"), "Expecting"),
    ],
)
def test_a_token_world_model_that_is_not_whole_is_refused(tmp_path: Path, change: Change, said: str) -> None:
    embedded = build_policy("token_world_model")
    embedded.setup()
    embedded.save(tmp_path)  # type: ignore[attr-defined]
    change(tmp_path)
    with pytest.raises(ConfigError, match=f"the policy 'token_world_model' cannot be loaded from .*{said}"):
        build_policy({"use": "token_world_model", "path": str(tmp_path)}).setup()


def test_an_adapter_without_its_model_or_its_weights_is_refused(whole: Path, tmp_path: Path) -> None:
    policy = VisionLanguageModel(whole, lora={"r": 2})
    policy.setup()
    policy.save(tmp_path)
    edited("adapter_config.json", lambda config: config.update(base_model_name_or_path="/nowhere/base"))(tmp_path)
    with pytest.raises(ConfigError, match="its adapter is of the model '/nowhere/base', which is not there"):
        VisionLanguageModel(tmp_path).setup()
    edited("adapter_config.json", lambda config: config.update(base_model_name_or_path=str(whole)))(tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"it has no weights of its adapter; copy adapter_model\.safetensors"):
        VisionLanguageModel(tmp_path).setup()


def test_a_diffusion_pipeline_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder("instruct_pix2pix"), tmp_path / "model"))
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_weights(file)
    weights.pop("conv_norm_out.weight")
    save_weights(weights, file)
    with pytest.raises(ConfigError, match=r"lack 1 of the tensors .*, such as conv_norm_out\.weight"):
        build_policy({"use": "diffusion_forecaster", "path": str(folder), "size": 8, "steps": 3}).setup()


def bare(config: dict[str, Any]) -> None:
    for name in ("eos_token", "pad_token"):
        config.pop(name)


def no_end(folder: Path) -> None:
    edited("tokenizer_config.json", bare)(folder)
    edited("generation_config.json", lambda config: config.pop("eos_token_id"))(folder)


@pytest.mark.parametrize("change", [edited("tokenizer_config.json", bare), without("generation_config.json")])
def test_the_end_of_an_answer_is_taken_from_the_file_that_names_it(whole: Path, tmp_path: Path, change: Change) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    change(folder)
    complete, partial = (VisionLanguageModel(path, max_new_tokens=4) for path in (whole, folder))
    for policy in (complete, partial):
        policy.setup()
    assert partial.eos_id == complete.eos_id and None not in partial.ends
    found, expected = (policy.generate([Request(SAMPLES[0])])[0] for policy in (partial, complete))
    assert found == expected


def test_a_model_that_nothing_ends_is_refused(whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    no_end(folder)
    with pytest.raises(ConfigError, match="it has no token that ends an answer; give eos_token"):
        VisionLanguageModel(folder).setup()
