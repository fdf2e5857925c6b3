"""Text2Earth's numbers: the real loading paths over random weights in the published formats, and what must not raise a number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import rsw_rewards  # noqa: F401  (first: on a CPU it lets torchvision load)
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rubric import build
from rsw_rewards.core.scores import ScoreTable, Status
from rsw_rewards.core.verifier import Batch, Context, Verifier
from rsw_rewards.data.mhn_rsicd import class_of, convert
from rsw_rewards.encoders import load_encoder
from rsw_rewards.encoders.rsicd_inception import squash
from rsw_rewards.errors import ConfigError, InputError
from rsw_rewards.features.bank import FeatureBank
from rsw_rewards.io.records_io import load_samples
from rsw_rewards.pixels import content_hash
from rsw_rewards.verifiers.fid_rsicd import listed_images
from rsw_rewards.verifiers.frechet import frechet_from_features

CLASSES = {"desert": (200, 170, 90), "forest": (30, 80, 40), "river": (40, 90, 160)}


def picture(seed: int, colour: tuple[int, int, int], size: int = 40) -> np.ndarray:
    chance = np.random.default_rng(seed)
    return np.clip(np.array(colour) + chance.normal(0, 12, (size, size, 3)), 0, 255).astype(np.uint8)


def ref(pixels: np.ndarray) -> ImageRef:
    return ImageRef(array=pixels, sha256=content_hash(pixels))


def asked(each: int = 4) -> list[Sample]:
    """Samples without input images, as a text-to-image benchmark has them."""
    return [
        Sample(f"{label}_{n}", Task.FORECAST, (), f"a {label}", {"images": [ref(picture(n, colour))], "label": label, "text": f"a {label}"})
        for label, colour in CLASSES.items()
        for n in range(each)
    ]  # fmt: skip


def drawn(samples: list[Sample], shift: int = 0) -> list[Output]:
    """Images of the right class, or, with a shift, of another one."""
    names = list(CLASSES)
    return [
        Output(s.id, image=ref(picture(100 + n, CLASSES[names[(names.index(str(s.reference["label"])) + shift) % 3]])))
        for n, s in enumerate(samples)
    ]


def numbers(verifier: Verifier, samples: list[Sample], outputs: list[Output], bank: FeatureBank) -> dict[str, Any]:
    verifier.prepare(samples)
    verifier.setup(Context(bank))
    scores = [
        verifier.invalid(sample, output.invalid) if output.invalid else None
        for sample, output in zip(samples, outputs, strict=True)
    ]
    rows = [row for row, score in enumerate(scores) if score is None]
    made = iter(verifier.score(Batch.of([samples[row] for row in rows], [outputs[row] for row in rows])))
    scores = [next(made) if score is None else score for score in scores]
    columns = {key: [getattr(score, key) for score in scores] for key in ("status", "raw", "stats", "content")}
    table = ScoreTable.from_columns({**columns, "sample": [sample.id for sample in samples]})
    found: dict[str, Any] = {"status": columns["status"], "raw": columns["raw"]}
    for metric in verifier.metrics():
        found |= metric.compute(table.frame, table.stats(), np.ones(len(scores)), bank)
    return found


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file as DataParallel saves it: 'module.' before every name."""
    import torch
    from torchvision.models import inception_v3

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network: Any = inception_v3(weights=None, aux_logits=False, init_weights=False, num_classes=30)
    file = tmp_path_factory.mktemp("weights") / "epoch_10_OA_8000.pth"
    torch.save({f"module.{key}": value for key, value in network.state_dict().items()}, file)
    return f"rsicd-inception:{file}"


def test_the_inception_gives_what_its_classifier_reads(inception: str) -> None:
    import torch
    from torchvision import transforms
    from torchvision.models import inception_v3

    encoder = load_encoder(inception, "cpu")
    pixels = picture(3, (90, 120, 60), 80)
    (features,) = encoder.encode_images([pixels], 2)
    network: Any = inception_v3(
        weights=None, aux_logits=False, transform_input=False, init_weights=False, num_classes=30
    )
    state = torch.load(inception.partition(":")[2], weights_only=True)
    network.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
    seen: list[Any] = []
    network.fc.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    prepared = transforms.Compose(
        [
            transforms.Resize((256, 256)),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )(Image.fromarray(pixels))
    np.testing.assert_allclose(squash(pixels, 256), prepared.numpy(), atol=1e-6)
    with torch.inference_mode():
        network.eval()(prepared[None])
    np.testing.assert_allclose(features, seen[0][0].numpy(), atol=1e-4, rtol=1e-4)
    assert features.shape == (2048,)


def test_the_frechet_distance_is_taken_to_the_listed_images(inception: str, tmp_path: Path) -> None:
    files = {f"forest_{n}.jpg": picture(50 + n, CLASSES["forest"]) for n in range(3)}
    (tmp_path / "images").mkdir()
    for name, pixels in files.items():
        Image.fromarray(pixels).save(tmp_path / "images" / name)
    listing = tmp_path / "RSICD_test.txt"
    listing.write_text("".join(f"forest/{name} 24\n" for name in files))
    samples = asked(1)
    outputs = drawn(samples)
    bank = FeatureBank()
    config = {"encoder": inception, "reference_list": listing, "reference_root": tmp_path / "images"}
    found = numbers(build("fid_rsicd", config), samples, outputs, bank)
    made = bank.image_features(inception, [output.image for output in outputs if output.image])
    real = bank.image_features(inception, [ImageRef(tmp_path / "images" / name) for name in files])
    assert found["fid_rsicd"] == pytest.approx(frechet_from_features(made, real), rel=1e-6)
    own = numbers(build("fid_rsicd", {"encoder": inception}), samples, outputs, bank)
    truths = bank.image_features(inception, [sample.reference["images"][0] for sample in samples])  # type: ignore[index]
    assert own["fid_rsicd/own-images"] == pytest.approx(frechet_from_features(made, truths), rel=1e-6)
    assert "fid_rsicd" not in own
    with pytest.raises(ConfigError, match="is not in"):
        listed_images(listing, tmp_path)


def test_weights_that_are_not_there_are_asked_for(tmp_path: Path) -> None:
    for name, config, words in (
        ("fid_rsicd", {}, "pretrain_inception.py"),
        ("fid_rsicd", {"encoder": f"rsicd-inception:{tmp_path / 'no.pth'}"}, "no weights at"),
        ("clip_rsicd", {"encoder": f"hf_clip:{tmp_path}"}, "config.json"),
        ("zero_shot_cls", {"weights": tmp_path / "resnet18.pth"}, "ImageNet's ResNet-18"),
    ):
        with pytest.raises(ConfigError, match=words):
            build(name, config).setup(Context(FeatureBank()))


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from torchvision.models import resnet18

    with torch.random.fork_rng():
        torch.manual_seed(0)
        file = tmp_path_factory.mktemp("weights") / "resnet18.pth"
        torch.save(resnet18(weights=None).state_dict(), file)
    return file


def test_a_classifier_taught_on_images_of_the_right_class_knows_the_real_ones(resnet: Path) -> None:
    samples = asked(6)
    config = {"weights": resnet, "side": 32, "epochs": 5, "batch_size": 6, "learning_rate": 1e-3}
    key = "zero_shot_cls_oa/5x32"
    image = samples[0].reference["images"][0]
    nameless = [*samples, Sample("x", Task.FORECAST, (), "a thing", {"images": [image]})]
    right = numbers(
        build("zero_shot_cls", config), nameless, [*drawn(samples), Output("x", image=image)], FeatureBank()
    )
    wrong = numbers(build("zero_shot_cls", config), samples, drawn(samples, 1), FeatureBank())
    assert right["status"][-1] is Status.NOT_APPLICABLE
    assert right[key] == 1.0 and wrong[key] == 0.0
    again = numbers(build("zero_shot_cls", config), samples, drawn(samples, 1), FeatureBank())
    assert again["raw"] == wrong["raw"]
    outputs = [
        Output(s.id, invalid="none") if n % 2 else o
        for n, (s, o) in enumerate(zip(samples, drawn(samples), strict=True))
    ]
    assert numbers(build("zero_shot_cls", config), samples, outputs, FeatureBank())[key] <= 0.5


class Unnormalised:
    """An encoder of two features whose length says how bright a picture is."""

    name, weights_sha256, dim, id = "unnormalised", "0", 2, "unnormalised@0"

    def encode_images(self, images: Any, micro_batch: int) -> np.ndarray:
        return np.stack([np.array([image.mean(), 0.0]) for image in images]).astype(np.float32)

    def encode_texts(self, texts: Any, micro_batch: int) -> np.ndarray:
        return np.stack([np.array([3.0, 4.0]) for _ in texts]).astype(np.float32)


unnormalised = Unnormalised()


def test_the_clip_number_is_a_dot_product_and_an_invalid_output_costs(tmp_path: Path) -> None:
    samples = asked(1)
    grey = [Output(sample.id, image=ref(np.full((8, 8, 3), 50, np.uint8))) for sample in samples]
    config = {"encoder": f"{__file__}:unnormalised"}
    found = numbers(build("clip_rsicd", config), samples, grey, FeatureBank())
    assert found["clip_rsicd"] == pytest.approx(1.5) and found["clip_rsicd_cos"] == pytest.approx(0.6)
    grey[0] = Output(samples[0].id, invalid="none")
    assert numbers(build("clip_rsicd", config), samples, grey, FeatureBank())["clip_rsicd"] == pytest.approx(1.0)


def test_the_adapter_asks_for_an_image_of_each_listed_caption(tmp_path: Path) -> None:
    source = tmp_path / "RSICD"
    (source / "RSICD_images").mkdir(parents=True)
    names = ["airport_348", "00594", "river_1"]
    for name in names:
        Image.fromarray(picture(1, CLASSES["river"], 8)).save(source / "RSICD_images" / f"{name}.jpg")
    records = [
        {"filename": f"{name}.jpg", "split": "train", "sentences": [{"raw": f"{name} one ."}, {"raw": "two"}]}
        for name in names
    ]
    (source / "dataset_rsicd.json").write_text(json.dumps({"images": records}))
    with pytest.raises(InputError, match=r"RSICD_test\.txt"):
        convert(source, tmp_path / "out")
    (source / "RSICD_test.txt").write_text("airport_348\n00594\n")
    done = convert(source, tmp_path / "out")
    samples = load_samples(done.file, done.roots)
    assert [(s.images, s.reference.get("label"), s.prompt) for s in samples] == [
        ((), "airport", "airport_348 one"),
        ((), None, "00594 one"),
    ]
    assert any("no class" in note for note in done.notes)
    assert class_of("denseresidential_1") == "denseresidential" and class_of("park") is None
