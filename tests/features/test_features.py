"""A bank that does nothing twice: not in a run, not in the next one, not for another rubric."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

import rsw_rewards as rsw
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rubric import Rubric
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.core.verifier import Batch
from rsw_rewards.engine.scorer import Scorer
from rsw_rewards.errors import ImageError
from rsw_rewards.features.bank import FeatureBank
from rsw_rewards.io.images import write_png
from rsw_rewards.pixels import content_hash


def pictures(n: int, size: int = 24) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8))


class Mean:
    """An encoder of a user's: the mean colour."""

    name, weights_sha256, dim, id = "mean", "0" * 64, 3, "mean@0"

    def __init__(self, device: str = "cpu") -> None:
        self.calls: list[int] = []

    def encode_images(self, images: list[np.ndarray], micro_batch: int) -> np.ndarray:
        assert len(images) <= micro_batch
        self.calls.append(len(images))
        return np.stack([image.reshape(-1, 3).mean(axis=0) for image in images]).astype(np.float32)

    def encode_texts(self, texts: list[str], micro_batch: int) -> np.ndarray:
        return np.array([[len(text)] * 3 for text in texts], np.float32)


def mean_bank(directory: Path | None = None, **kwargs: int) -> FeatureBank:
    bank = FeatureBank(directory=directory, **kwargs)
    bank.encoders["mean"] = Mean()
    return bank


def test_a_users_encoder_is_found_by_file(tmp_path: Path) -> None:
    code = tmp_path / "mine.py"
    code.write_text(
        "import numpy as np\n"
        "class Grey:\n"
        "    name, weights_sha256, dim, id = 'grey', '0', 1, 'grey@0'\n"
        "    def __init__(self, device): self.device = device\n"
        "    def encode_images(self, images, micro_batch):\n"
        "        return np.array([[image.mean()] for image in images], np.float32)\n"
        "    def encode_texts(self, texts, micro_batch): raise NotImplementedError\n"
    )
    bank = FeatureBank()
    images = pictures(3)
    features = bank.image_features(f"{code}:Grey", [ImageRef(array=image) for image in images])
    np.testing.assert_allclose(features[:, 0], [image.mean() for image in images], rtol=1e-6)


def test_nothing_is_decoded_or_encoded_twice(tmp_path: Path) -> None:
    files = []
    for number, image in enumerate(pictures(20)):
        write_png(tmp_path / f"{number}.png", image)
        files.append(ImageRef(path=tmp_path / f"{number}.png"))
    bank = mean_bank()
    first = bank.image_features("mean", [*files, files[0], ImageRef(array=pictures(20)[3])])
    assert first.shape == (22, 3)
    np.testing.assert_array_equal(first[[20, 21]], first[[0, 3]])
    assert (bank.decoded, bank.encoded) == (20, {"mean": 20})
    assert bank.encoder("mean").calls == [16, 4]  # type: ignore[attr-defined]
    np.testing.assert_array_equal(bank.image_features("mean", files), first[:20])
    np.testing.assert_array_equal(bank.features("mean", [bank.hash(file) for file in files]), first[:20])
    assert (bank.decoded, bank.encoded) == (20, {"mean": 20})
    assert bank.report()["encoders"]["mean"]["hits"] > 20
    with pytest.raises(KeyError, match="no mean features"):
        bank.features("mean", ["0" * 64])
    bank.text_features("mean", ["a", "bb", "a"])
    bank.text_features("mean", ["bb"])
    assert bank.encoded["mean text"] == 2


def test_the_bank_keeps_a_bounded_number_of_pixels(tmp_path: Path) -> None:
    files = []
    for number, image in enumerate(pictures(40)):
        write_png(tmp_path / f"{number}.png", image)
        files.append(ImageRef(path=tmp_path / f"{number}.png"))
    bank = mean_bank(pixel_budget=10 * 24 * 24 * 3)
    bank.image_features("mean", files)
    assert bank.decoded == 40 and bank.bytes == 10 * 24 * 24 * 3
    bank.image_features("mean", files)  # hashes and features outlive the pixels
    assert bank.decoded == 40


def test_a_changed_file_and_a_reused_array_are_seen_as_new(tmp_path: Path) -> None:
    import os

    one, two = pictures(2)
    path = tmp_path / "a.png"
    bank = FeatureBank()
    write_png(path, one)
    np.testing.assert_array_equal(bank.rgb(ImageRef(path=path)), one)
    write_png(path, two)
    os.utime(path, ns=(1, 1))
    np.testing.assert_array_equal(bank.rgb(ImageRef(path=path)), two)
    hashes = {
        bank.hash(ImageRef(array=image.copy())) for image in (one, two, one)
    }  # each copy may get the same address
    assert len(hashes) == 2
    with pytest.raises(ValueError, match="read-only"):
        bank.rgb(ImageRef(path=path))[0] = 0
    array = one.copy()
    bank.rgb(ImageRef(array=array))
    array[0] = 1  # the caller's own array stays writable
    with pytest.raises(ImageError, match="does not exist"):
        bank.rgb(ImageRef(path=tmp_path / "none.png"))


def test_features_survive_on_disk_and_damage_is_mended(tmp_path: Path) -> None:
    images = [ImageRef(array=image) for image in pictures(4)]
    first = mean_bank(tmp_path).image_features("mean", images)
    second = mean_bank(tmp_path)
    np.testing.assert_array_equal(second.image_features("mean", images), first)
    assert second.encoded == {}
    (data,) = tmp_path.rglob("image-3.f32")
    content = bytearray(data.read_bytes())
    assert len(content) == 4 * 12
    content[13] ^= 1
    data.write_bytes(content[:40])  # the second row damaged, the fourth cut off
    third = mean_bank(tmp_path)
    np.testing.assert_array_equal(third.image_features("mean", images), first)
    assert third.encoded == {"mean": 2}
    fourth = mean_bank(tmp_path)
    np.testing.assert_array_equal(fourth.image_features("mean", images), first)
    assert fourth.encoded == {}


def test_a_bank_travels_as_its_settings(tmp_path: Path) -> None:
    bank = mean_bank(tmp_path)
    bank.image_features("mean", [ImageRef(array=pictures(1)[0])])
    copy = pickle.loads(pickle.dumps(bank))
    assert (copy.directory, copy.decoded, copy.encoded) == (tmp_path, 0, {})


CODE = (
    "import numpy as np\n"
    "class Patches:\n"
    "    name, weights_sha256, dim, id = 'patches', 'f' * 64, 4, 'patches@f'\n"
    "    def __init__(self, device): self.device = device\n"
    "    def encode_images(self, images, micro_batch):\n"
    "        return np.array([[p.mean() for p in np.array_split(image.ravel(), 4)] for image in images], np.float32)\n"
    "    def encode_texts(self, texts, micro_batch):\n"
    "        return np.array([[len(text), 1, 2, 3] for text in texts], np.float32)\n"
)


@pytest.fixture
def encoder(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(CODE)
    return f"{tmp_path / 'mine.py'}:Patches"


def forecasts(folder: Path, n: int) -> tuple[list[Sample], list[Output]]:
    """Samples whose input, true future and forecast are files."""
    samples, outputs = [], []
    for number, images in enumerate(np.array(pictures(3 * n)).reshape(n, 3, 24, 24, 3)):
        paths = [folder / f"{number}_{name}.png" for name in ("before", "after", "drawn")]
        for path, image in zip(paths, images, strict=True):
            write_png(path, image)
        reference = {"images": [ImageRef(path=paths[1])], "text": f"draw number {number}"}
        samples.append(Sample(f"s{number}", Task.FORECAST, (ImageRef(path=paths[0]),), reference=reference))
        outputs.append(Output(f"s{number}", image=ImageRef(path=paths[2])))
    return samples, outputs


def scored(
    bank: FeatureBank, encoder: str, names: list[str], samples: list[Sample], outputs: list[Output]
) -> ScoreTable:
    parts = [{"use": name, "config": {"encoder": encoder}, "weight": float(name == "clip_score")} for name in names]
    with Scorer(Rubric.model_validate({"components": parts}), bank=bank) as scorer:
        return scorer.score(Batch.of(samples, outputs))


def test_another_rubric_over_the_same_images_runs_no_encoder(tmp_path: Path, encoder: str) -> None:
    samples, outputs = forecasts(tmp_path, 20)
    first = FeatureBank(directory=tmp_path / "features")
    table = scored(first, encoder, ["frechet", "clip_score"], samples, outputs)
    assert set(table.frame["status"]) == {"ok"}
    assert first.encoded[encoder] == 40 and first.encoded[f"{encoder} text"] == 20 + 1
    second = FeatureBank(directory=tmp_path / "features")
    other = scored(second, encoder, ["kid", "neighbours", "clip_score"], samples, outputs)
    assert set(other.frame["status"]) == {"ok"}
    assert second.encoded == {}
    clip = [frame[frame["verifier"] == "clip_score"]["value"].tolist() for frame in (table.frame, other.frame)]
    assert clip[0] == clip[1]
    report = second.report()
    assert {row["added"] for row in report["encoders"].values()} == {0}
    assert report["encoders"][encoder]["hit_rate"] == 1.0 and report["encoders"][encoder]["stored"] == 40
    assert report["encoders"][f"{encoder} text"]["hit_rate"] == 1.0
    assert report["decoded"] == 40


def test_a_report_counts_what_was_done(tmp_path: Path) -> None:
    bank = mean_bank(tmp_path)
    images = [ImageRef(path=tmp_path / f"{number}.png") for number in range(4)]
    for file, image in zip(images, pictures(4), strict=True):
        write_png(file.path, image)  # type: ignore[arg-type]
    assert bank.report()["encoders"]["mean"]["hit_rate"] is None
    bank.image_features("mean", [*images, images[0]])
    bank.image_features("mean", images[:3])
    found = json.loads(json.dumps(bank.report()))
    assert found == {
        "decoded": 4,
        "pixel_hits": 4,
        "encoders": {
            "mean": {
                "id": "mean@0",
                "weights_sha256": "0" * 64,
                "dim": 3,
                "input_size": None,
                "resize": "as its author's code does",
                "bands": "red, green, blue",
                "encoded": 4,
                "hits": 4,
                "hit_rate": 0.5,
                "stored": 4,
                "added": 4,
            }
        },
    }


def test_runs_may_share_a_folder_and_stay_whole_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [ImageRef(array=image) for image in pictures(5)]
    monkeypatch.setenv("RSW_FEATURES", str(tmp_path / "shared"))
    one, two = mean_bank(tmp_path / "one"), mean_bank(tmp_path / "two")
    assert pickle.loads(pickle.dumps(two)).shared == tmp_path / "shared"
    first = one.image_features("mean", images[:3])
    np.testing.assert_array_equal(two.image_features("mean", images)[:3], first)
    assert (one.encoded, two.encoded) == ({"mean": 3}, {"mean": 2})
    monkeypatch.delenv("RSW_FEATURES")
    alone = mean_bank(tmp_path / "two")
    np.testing.assert_array_equal(alone.features("mean", [alone.hash(image) for image in images])[:3], first)


def test_without_a_folder_memory_is_bounded(tmp_path: Path) -> None:
    bank = mean_bank(feature_budget=5 * 3 * 4)
    images = [ImageRef(array=image) for image in pictures(40)]
    features = bank.image_features("mean", images)
    np.testing.assert_array_equal(bank.features("mean", [bank.hash(image) for image in images]), features)
    assert bank.encoded == {"mean": 40}
    assert bank.report()["encoders"]["mean"]["stored"] == 40


def test_a_new_version_of_an_encoder_has_features_of_its_own(tmp_path: Path) -> None:
    images = [ImageRef(array=image) for image in pictures(2)]
    mean_bank(tmp_path).image_features("mean", images)
    newer = mean_bank(tmp_path)
    newer.encoder("mean").weights_sha256 = "1" * 64
    newer.image_features("mean", images)
    assert newer.encoded == {"mean": 2}


def test_numbers_that_are_none_are_not_kept(tmp_path: Path) -> None:
    bank = mean_bank(tmp_path)
    model = bank.encoder("mean")
    honest = model.encode_images
    good, bad = (ImageRef(array=image) for image in pictures(2))
    model.encode_images = lambda images, size: honest(images, size) * [[1.0], [np.nan]][: len(images)]  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="'mean' gave features that are not finite for 1 images"):
        bank.image_features("mean", [good, bad])
    assert bank.features("mean", [bank.hash(good)]).shape == (1, 3)
    with pytest.raises(KeyError):
        bank.features("mean", [bank.hash(bad)])
    model.encode_images = lambda images, size: np.zeros((len(images), 2))  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"an array of \(1, 2\) for 1 images of 3 features"):
        bank.image_features("mean", [bad])
    with pytest.raises(KeyError):
        bank.features("mean", ["no hash"])


def test_an_encoder_reads_the_bands_that_its_name_carries(tmp_path: Path, encoder: str) -> None:
    raster = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 5), dtype=np.uint8)
    raster[1, ..., :3] = raster[0, ..., :3]  # the same in red, green and blue
    files = [ImageRef(path=tmp_path / f"{number}.npy", bands=(0, 1, 2)) for number in range(2)]
    for file, pixels in zip(files, raster, strict=True):
        np.save(str(file.path), pixels)
    bank = FeatureBank(directory=tmp_path / "features")
    infrared = f"{encoder}#bands=4,3,2"
    shown, other = bank.image_features(encoder, files), bank.image_features(infrared, files)
    np.testing.assert_array_equal(shown[0], shown[1])
    assert (other[0] != other[1]).any()
    swapped = [ImageRef(array=np.ascontiguousarray(pixels[..., [4, 3, 2]])) for pixels in raster]
    np.testing.assert_array_equal(other, FeatureBank().image_features(encoder, swapped))
    assert bank.hash(files[0]) == bank.hash(files[1])
    hashes = [bank.hash(file, infrared) for file in files]
    np.testing.assert_array_equal(bank.features(infrared, hashes), other)
    with pytest.raises(ImageError, match="does not fit"):
        bank.image_features(f"{encoder}#bands=9,3,2", files)


def test_a_run_says_what_was_encoded_and_a_second_one_with_another_rubric_encodes_nothing(
    tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RSW_FEATURES", str(tmp_path / "shared"))
    samples, outputs = forecasts(tmp_path, 6)
    found = []
    for number, names in enumerate((["clip_score", "frechet"], ["clip_score", "kid", "neighbours"])):
        parts = tuple({"use": name, "config": {"encoder": encoder}} for name in names)
        protocol = rsw.protocol("features", parts, baselines=())
        result = rsw.evaluate(protocol, samples, outputs, tmp_path / f"run{number}")
        found.append(result.summary["features"]["encoders"])
        assert (
            result.summary["features"]
            == json.loads((tmp_path / f"run{number}" / "summary.json").read_text())["features"]
        )
        assert result.summary["status"]["clip_score"]["ok"] == 6
    assert [row["encoded"] for row in found[0].values()] == [12, 7]
    assert [row["encoded"] for row in found[1].values()] == [0, 0]
    assert found[1][encoder]["hit_rate"] == 1.0
    made = (tmp_path / "run1" / "report.html").read_text().partition("How it was made")[2]
    assert "0 encoded" in made and "(100.0 %)" in made and "bands red, green, blue" in made


def test_a_large_set_settles_between_its_parts() -> None:
    bank = mean_bank()
    pictures = [ImageRef(array=pixels, sha256=content_hash(pixels)) for pixels in np.random.default_rng(0).integers(0, 255, (20, 8, 8, 3), np.uint8)]  # fmt: skip
    hashes = [bank.hash(picture) for picture in pictures]
    bank.settle(keep=4 * 8 * 8 * 3)
    assert bank.bytes == 4 * 8 * 8 * 3
    assert [bank.hash(picture) for picture in pictures] == hashes


def test_detectors_and_other_networks_stand_in_the_summary_by_their_hash() -> None:
    from types import SimpleNamespace

    from rsw_rewards.core.functions import verifier_class
    from rsw_rewards.core.verifier import Verifier
    from rsw_rewards.engine.calls import weights_of

    def perfect(sample: Sample, output: Output) -> float:
        return 1.0

    def with_networks(**networks: object) -> Verifier:
        made = verifier_class(perfect)()
        vars(made).update(networks)
        return made

    encoder = mean_bank().weights()
    one = with_networks(detector=SimpleNamespace(name="mine", weights_sha256="ab" * 32))
    assert weights_of(one, mean_bank()) == encoder | {f"mine@{'ab' * 6}": "ab" * 32}
    two = with_networks(network=SimpleNamespace(id="lpips-alex@x", weights_sha256="cd" * 32))
    assert weights_of(two, mean_bank()) == encoder | {"lpips-alex@x": "cd" * 32}
    assert weights_of(with_networks(network=object()), mean_bank()) == encoder  # a network without a hash has no say


def test_a_scoring_process_settles_after_every_batch() -> None:
    from rsw_rewards.core.functions import verifier_class
    from rsw_rewards.core.records import Output, Sample, Task
    from rsw_rewards.core.verifier import Batch, Context
    from rsw_rewards.engine.scoring_actors import ScoringProcess

    def perfect(sample: Sample, output: Output) -> float:
        return 1.0

    bank = mean_bank()
    process = ScoringProcess()
    process.setup(verifier_class(perfect)(), Context(bank))
    for number in range(3):  # 36 MB, of which 32 may stay
        bank.rgb(ImageRef(array=np.zeros((2000, 2000, 3), np.uint8), sha256=str(number)))
    assert bank.bytes == 36_000_000
    sample = Sample(id="a", task=Task.FORECAST, scene="a", images=(), prompt="")
    scores = process.work(Batch([sample], [Output("a")], ["a"]))
    assert scores[0].value == 1.0
    assert bank.bytes == 24_000_000


def test_rewards_of_many_outputs_do_not_keep_their_images() -> None:
    banks: list[FeatureBank] = []

    class Looked(rsw.PerSample):
        """1 for every output; it looks at the images that its sample was asked with."""

        name = "looked"
        tasks = frozenset({Task.CHANGE_QA})

        def setup(self, context: rsw.Context) -> None:
            banks.append(context.bank)

        def truth(self, sample: Sample) -> list[np.ndarray]:
            return [banks[0].rgb(image) for image in sample.images]

        def compare(self, truth: list[np.ndarray], output: Output) -> rsw.Score:
            return rsw.Score(1.0)

    images = [np.full((2000, 2000, 3), shade, np.uint8) for shade in range(4)]  # 48 MB, of which 32 MiB may stay
    samples = [{"id": f"{row}", "task": "change_qa", "images": images[2 * row : 2 * row + 2]} for row in range(2)]
    assert rsw.rewards({Looked: 1.0}, samples, ["yes", "no"]).mean == 1.0
    assert banks[0].bytes == 24_000_000
