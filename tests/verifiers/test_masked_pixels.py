"""What lies under a mask, in the input, the true future or the forecast, moves no bit of any score of a forecast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.per_sample import Unscored
from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rubric import VERIFIERS, build
from rsw_rewards.core.scores import Score, Status
from rsw_rewards.core.verifier import Batch, Context, Verifier
from rsw_rewards.errors import ImageError
from rsw_rewards.features.bank import FeatureBank
from rsw_rewards.verifiers.forecast_case import as_future, read_case
from tests.verifiers.paired_pictures import built, near, ref

SIDE = 48
NODATA = 7
RED_GREEN_BLUE = (2, 1, 0)
LIMITS = ((500.0, 6000.0),) * 6
CASES: list[tuple[str, dict[str, Any]]] = [
    ("gain_over_copy", {}),
    ("gain_over_copy", {"distance": "l1", "region": "inside"}),
    ("psnr", {"shift": 2, "match": "histogram"}),
    ("l1", {"region": "outside"}),
    ("mse", {"shift": 1, "gain": True}),
    ("ssim", {"match": "moments"}),
    ("ms_ssim", {"scales": 2}),  # at three, the largest block leaves no pixel in some scenes
    ("encoder_similarity", {"shift": 1}),
    ("encoder_similarity", {"gain": True}),
    ("change_consistency", {"shift": 1}),
    ("change_extent", {}),
    ("detector_consistency", {}),
    ("detector_consistency", {"detector": "cva", "against": "detector"}),
    ("clip_score", {}),
    ("caption_contrast", {"distractors": ["a lake", "a road"]}),
    ("directional_similarity", {}),
    ("frechet", {}),
    ("kid", {}),
    ("cmmd", {"encoder": "scene-clip"}),
    ("neighbours", {"k": 1}),
    ("frechet_credit", {}),
    ("frechet_influence", {}),
    ("mmd_credit", {}),
]
BANDED: list[tuple[str, dict[str, Any]]] = [
    ("spectral_direction", {}),
    ("spectral_direction", {"region": "all"}),
    ("physical_range", {}),
    ("encoder_similarity", {"encoder": "scene-clip#bands=5,4,3"}),
    ("encoder_similarity", {"encoder": "scene-clip#bands=5,4,3", "gain": True, "match": "moments", "shift": 1}),
    ("frechet", {"encoder": "scene-clip#bands=5,4,3"}),
    ("clip_score", {"encoder": "scene-clip#bands=3,2,1"}),
    ("detector_consistency", {"detector": "cva#bands=5,4,3"}),
]
ELSEWHERE = {
    "index_series": "a series of one band: tests/verifiers/test_index_series.py",
    "lpips": "needs weights: tests/verifiers/test_perceptual.py",
    "damage_consistency": "reads pictures as detector_consistency does: tests/verifiers/test_damage_consistency.py",
    "fid_rsicd": "needs weights; a frechet of images without a mask",
    "zero_shot_cls": "needs weights; images without a mask",
    "clip_rsicd": "needs weights; images without a mask",
}


BANK = FeatureBank()
"""The encoders, loaded once."""


def ready(name: str, config: dict[str, Any]) -> Verifier:
    """A new one, since credits remember the references of a run."""
    made = build(name, config)
    made.setup(Context(BANK))
    return made


def scene(
    number: int, hidden: np.ndarray, mess: np.random.Generator | None, by: str, bands: bool
) -> tuple[Sample, Output]:
    """A sample and a forecast, ``mess`` under ``hidden``."""
    before, after, mask = built(number, SIDE)
    pictures = [before, after, near(after, number + 9, 6.0)]
    pictures = [np.where(picture == NODATA, np.uint8(NODATA + 1), picture) for picture in pictures]
    nodata, more = None, {}
    if bands:
        numbers = np.random.default_rng(number).uniform(0.8, 1.2, 3)
        pictures = [
            np.concatenate([picture, 255 - picture * factor.clip(0, 1)], -1).astype(np.float32) * 20 + 600
            for picture, factor in zip(pictures, numbers, strict=True)
        ]
    if mess is not None:
        pictures = [
            np.where(hidden[..., None], mess.integers(0, 256, picture.shape) * (40 if bands else 1), picture).astype(
                picture.dtype
            )
            for picture in pictures
        ]
    if by in ("valid", "clouds"):
        more[by] = ref(hidden if by == "clouds" else ~hidden)
    else:
        nodata = NODATA
        pictures[0] = np.where(
            hidden[..., None], np.asarray(np.nan if by == "nan" else NODATA, pictures[0].dtype), pictures[0]
        )
    shown: dict[str, Any] = {"bands": RED_GREEN_BLUE, "stretch": LIMITS} if bands else {}
    named = {"bands": ["blue", "green", "red", "nir", "swir1", "swir2"], "valid_range": [0, 9000], "scale_factor": 1e-4}
    first, true = (ImageRef(array=picture, nodata=nodata, **shown) for picture in pictures[:2])
    reference = {"images": [true], "mask": ref(mask), "text": "a building appears", **more}
    one = Sample(str(number), Task.FORECAST, (first,), reference=reference, metadata=named if bands else {})
    return one, Output(one.id, image=ImageRef(array=pictures[2]))


def bits(scores: list[Score]) -> list[Any]:
    return [
        (
            one.status,
            one.value,
            dict(one.raw),
            {key: np.asarray(item).tolist() for key, item in one.stats.items()},
            dict(one.content),
        )
        for one in scores
    ]


def scores(name: str, config: dict[str, Any], pairs: list[tuple[Sample, Output]]) -> list[Score]:
    verifier = ready(name, config)
    samples, outputs = zip(*pairs, strict=True)
    verifier.prepare(samples)
    return verifier.score(Batch(samples, outputs, [one.id for one in samples]))


@pytest.mark.parametrize(("name", "config"), CASES + BANDED, ids=lambda item: item if isinstance(item, str) else "")
@given(seed=st.integers(0, 2**31), by=st.sampled_from(["valid", "clouds", "nodata", "nan"]))
@settings(max_examples=3)
def test_what_is_masked_moves_no_bit(name: str, config: dict[str, Any], seed: int, by: str) -> None:
    bands = (name, config) in BANDED
    by = "nodata" if by == "nan" and not bands else by
    chance = np.random.default_rng(seed)
    hidden = np.zeros((SIDE, SIDE), bool)
    top, left = chance.integers(0, SIDE // 2, 2)
    hidden[top : top + chance.integers(1, 20), left : left + chance.integers(1, 20)] = True
    clean, spoilt = ([scene(k, hidden, mess, by, bands) for k in range(3)] for mess in (None, chance))
    first, second = scores(name, config, clean), scores(name, config, spoilt)
    assert all(one.status is Status.OK for one in first), first[0].reason
    assert bits(first) == bits(second)


def test_every_verifier_of_forecasts_is_looked_at() -> None:
    known = {name for name, _ in CASES + BANDED} | ELSEWHERE.keys()
    forecasts = {
        name for name, cls in VERIFIERS.all().items() if Task.FORECAST in cls.tasks and "output.image" in cls.needs
    }
    assert forecasts <= known, forecasts - known


def test_an_encoder_reads_the_bands_that_its_name_maps() -> None:
    """Only the infrared of a forecast is wrong: pictures are equal, and an encoder of other bands sees it."""
    one = scene(1, np.zeros((SIDE, SIDE), bool), None, "valid", bands=True)[0]
    true = one.reference["images"][0].pixels()
    wrong = true.copy()
    wrong[..., 3:] = wrong[..., 3:][::-1]
    drawn = Output(one.id, image=ImageRef(array=wrong))
    plain, mapped = ({"encoder": f"scene-clip{bands}"} for bands in ("", "#bands=5,4,3"))
    assert scores("encoder_similarity", plain, [(one, drawn)])[0].value == pytest.approx(1.0, abs=1e-6)
    assert scores("encoder_similarity", mapped, [(one, drawn)])[0].value < 0.999
    best = scores("encoder_similarity", mapped, [(one, Output(one.id, image=ImageRef(array=true)))])[0]
    assert best.value == pytest.approx(1.0, abs=1e-6)
    before, after, _ = built(1, SIDE)
    flat = Sample("p", Task.FORECAST, (ref(before),), reference={"images": [ref(after)]})
    for name in ("encoder_similarity", "frechet", "clip_score"):
        score = scores(name, mapped, [(flat, Output("p", image=ref(after)))])[0]
        words = "band 5" if name != "clip_score" else ""
        assert score.status is Status.NOT_APPLICABLE and words in score.reason


@pytest.mark.parametrize(
    ("name", "config"), [*CASES, ("physical_range", {})], ids=lambda item: item if isinstance(item, str) else ""
)
def test_numbers_without_a_declared_brightness_are_never_guessed(name: str, config: dict[str, Any]) -> None:
    """uint16 without a stretch: one sentence and no number; the verifiers of bands read it."""
    pairs = []
    for number in range(4):
        one, output = scene(number, np.zeros((SIDE, SIDE), bool), None, "valid", bands=True)
        images = [ImageRef(array=image.pixels().astype(np.uint16)) for image in (*one.images, *one.reference["images"])]
        bare = Sample(
            one.id, Task.FORECAST, images[:1], reference={**one.reference, "images": images[1:]}, metadata=one.metadata
        )
        pairs.append((bare, output))
    if name.endswith(("credit", "influence")):
        return  # they need references, which are refused below
    found = scores(name, config, pairs)
    if name == "physical_range":
        assert found[0].status is Status.OK
        return
    assert all(one.value is None and one.status is Status.ERROR and "stretch" in one.reason for one in found), found[0]


def test_a_picture_stands_beside_a_raster_as_it_is() -> None:
    future = ImageRef(array=np.zeros((4, 4, 6), np.uint16), bands=RED_GREEN_BLUE, stretch=LIMITS)
    picture = ImageRef(array=np.zeros((4, 4, 3), np.uint8))
    assert as_future(picture, future) == picture and as_future(picture, None) is picture
    assert as_future(ImageRef(array=np.ones((4, 4, 6), np.uint16)), future).stretch == LIMITS
    small = ImageRef(array=np.zeros((4, 4, 3), np.uint8), bands=RED_GREEN_BLUE)
    assert as_future(picture, small).bands == RED_GREEN_BLUE


@pytest.mark.parametrize(("name", "config"), CASES, ids=lambda item: item if isinstance(item, str) else "")
def test_a_forecast_of_another_size_is_invalid_to_all(name: str, config: dict[str, Any]) -> None:
    pairs = [scene(k, np.zeros((SIDE, SIDE), bool), None, "valid", bands=False) for k in range(4)]
    one, output = pairs[0]
    assert output.image is not None
    pairs[0] = (one, Output(one.id, image=ImageRef(array=output.image.pixels()[1:])))
    found = scores(name, config, pairs)
    assert found[0].status is Status.INVALID_OUTPUT and f"{SIDE} x {SIDE - 1}" in found[0].reason
    assert all(score.status is Status.OK for score in found[1:])


def test_a_picture_made_from_a_text_alone_has_any_size() -> None:
    _, after, _ = built(1, SIDE)
    one = Sample("s", Task.FORECAST, (), reference={"images": [ref(after)], "text": "a playground"})
    case = read_case(FeatureBank(), one)
    small = ref(after[: SIDE // 2])
    assert case.forecast(Output("s", image=small)) == small


def test_masks_that_do_not_fit_are_errors_of_the_data() -> None:
    before, after, _ = built(1, SIDE)
    for key in ("valid", "clouds"):
        reference = {"images": [ref(after)], key: ref(np.ones((8, 8), bool))}
        with pytest.raises(ImageError, match="8 x 8"):
            read_case(FeatureBank(), Sample("s", Task.FORECAST, (ref(before),), reference=reference))
    reference = {"images": [ref(after)], "clouds": ref(np.ones((SIDE, SIDE), bool))}
    with pytest.raises(Unscored) as instead:
        read_case(FeatureBank(), Sample("s", Task.FORECAST, (ref(before),), reference=reference))
    assert instead.value.score.status is Status.NOT_APPLICABLE


def test_nodata_of_a_raster_is_looked_for_in_its_own_numbers(tmp_path: Path) -> None:
    """One band is enough, and a stretched grey level of the same value is not nodata."""
    stored = np.full((2, 2, 6), 3000.0, np.float32)
    stored[0, 0, 5] = NODATA
    stored[0, 1, 0] = np.nan
    image = ImageRef(array=stored, bands=RED_GREEN_BLUE, stretch=LIMITS, nodata=NODATA)
    case = read_case(FeatureBank(), Sample("s", Task.FORECAST, (image,), reference={"images": [image]}))
    assert case.valid is not None
    assert case.valid.tolist() == [[False, False], [True, True]]
