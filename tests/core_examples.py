"""What the core does by itself, run with nothing but an installed ``rsw_rewards``: ``python core_examples.py [FOLDER]``.

``make dist`` runs it beside the wheel, far from the checkout, and the test suite with every library of the extras out of reach.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import rsw_rewards as rsw
from rsw_rewards.extras import EXTRAS, has

YES_NO = {"answers": ["yes"], "vocabulary": ["yes", "no"]}


def command(*arguments: str) -> tuple[int, str]:
    """Exit code and text of ``rsw`` with these arguments."""
    from rsw_rewards.cli import main

    said = io.StringIO()
    before, sys.argv = sys.argv, ["rsw", *arguments]
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            main()
    except SystemExit as end:
        return int(end.code or 0), said.getvalue()
    finally:
        sys.argv = before
    return 0, said.getvalue()


def write_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def square(top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros((32, 32), np.uint8)
    mask[top : top + side, left : left + side] = 255
    return mask


def scores_a_text(folder: Path) -> None:
    assert rsw.score("exact_match", output="yes", reference=YES_NO).value == 1.0
    assert rsw.score("exact_match", output="no", reference=YES_NO).value == 0.0


def scores_a_mask(folder: Path) -> None:
    truth, half = square(0, 0, 16), square(0, 0, 16)
    half[:, 8:] = 0
    assert rsw.score("change_mask", output=half, reference={"mask": truth}).raw["iou"] == 0.5


def scores_a_box(folder: Path) -> None:
    truth = {"boxes": [[0.0, 0.0, 10.0, 10.0]]}
    assert rsw.score("box_iou", output=[[0.0, 0.0, 10.0, 5.0]], reference=truth).value == 0.5


def scores_an_image(folder: Path) -> None:
    before, after = (np.full((32, 32, 3), level, np.uint8) for level in (60, 160))
    truth, copy = (
        rsw.score("gain_over_copy", output=image, images=[before], reference={"images": [after]}).value
        for image in (after, before)
    )
    assert truth == 1.0 and copy is not None and copy < 0.6, (truth, copy)


def rewards_a_group(folder: Path) -> None:
    sample = rsw.Sample("q1", rsw.Task.CHANGE_QA, (), reference=YES_NO)
    with rsw.Reward({"exact_match": 0.9, "answer_format": 0.1}) as reward:
        assert [result.reward for result in reward.many(["yes", "no"], [sample, sample])] == [1.0, 0.1]


def computes_metrics(folder: Path) -> None:
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert rsw.metrics.ssim(image, image) == 1.0
    assert rsw.metrics.box_iou([0, 0, 10, 10], [0, 0, 10, 5]) == 0.5


def evaluates_masks_of_an_official_folder(folder: Path) -> None:
    source = folder / "LEVIR-CD"
    for number in range(4):
        grey = np.full((32, 32, 3), 40 + number, np.uint8)
        write_png(source / "A" / f"test_{number}.png", grey)
        write_png(source / "B" / f"test_{number}.png", grey)
        write_png(source / "label" / f"test_{number}.png", square(0, 0, 16))
        write_png(folder / "masks" / f"test_{number}.png", square(0, 0, 16) if number else square(0, 0, 8))
    assert command("data", "from", "levir-cd", str(source), "--out", str(folder / "levir"))[0] == 0
    samples = folder / "levir" / "samples.jsonl"
    ids = [json.loads(line)["id"] for line in samples.read_text().splitlines()]
    rows = [json.dumps({"id": name, "mask": f"masks/test_{number}.png"}) for number, name in enumerate(sorted(ids))]
    (folder / "masks.jsonl").write_text("\n".join(rows))
    out = folder / "evaluated"
    code, said = command(
        "evaluate", "change-mask", "--samples", str(samples), "--root", str(source),
        "--predictions", str(folder / "masks.jsonl"), "--out", str(out),
    )  # fmt: skip
    assert code == 0, said
    metrics = json.loads((out / "summary.json").read_text())["metrics"]
    wanted = 2 * 832 / (2 * 832 + 192)  # three masks of 256 pixels are right, of the fourth 64
    assert abs(metrics["f1"]["value"] - wanted) < 1e-6, metrics["f1"]
    assert (out / "report.html").stat().st_size > 10_000


def evaluates_answers_of_another_tool(folder: Path) -> None:
    write_png(folder / "grey.png", np.full((8, 8), 90, np.uint8))
    images = ["grey.png", "grey.png"]
    rows = [
        {"id": f"q{n}", "task": "change_qa", "images": images, "prompt": "?", "reference": YES_NO} for n in range(8)
    ]
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "answers.json").write_text(
        json.dumps([{"id": f"q{n}", "answer": "yes" if n < 6 else "no"} for n in range(8)])
    )
    samples, predictions = str(folder / "questions.jsonl"), str(folder / "answers.jsonl")
    code, said = command("predictions", "from", "json", str(folder / "answers.json"), "--samples", samples, "--out", predictions)  # fmt: skip
    assert code == 0, said
    out = folder / "answered"
    code, said = command("evaluate", "exact-qa", "--samples", samples, "--predictions", predictions, "--out", str(out))
    assert code == 0, said
    assert json.loads((out / "summary.json").read_text())["metrics"]["accuracy"]["value"] == 0.75


def evaluates_in_memory(folder: Path) -> None:
    samples = [{"id": f"q{n}", "task": "change_qa", "reference": YES_NO} for n in range(4)]
    assert rsw.evaluate("exact-qa", samples, ["yes", "yes", "yes", "no"]).metrics["accuracy"].value == 0.75


def says_how_to_install_what_is_missing(folder: Path) -> None:
    """Each request that needs an extra which is not installed ends with one sentence that names the command."""
    sample = rsw.Sample("q1", rsw.Task.CHANGE_QA, (), reference=YES_NO)
    tiff = folder / "scene.tif"
    Image.fromarray(square(0, 0, 8)).save(tiff)

    def refused(ask: object) -> str:
        try:
            ask()  # type: ignore[operator]
        except rsw.MissingExtra as error:
            return str(error)
        raise AssertionError("nothing was refused")

    def with_encoder() -> None:
        rsw.Reward({"clip_score": 1.0}).warm()

    def with_time_limit() -> None:
        component = rsw.Component(use="exact_match", weight=1.0, timeout_s=5.0)
        rsw.Reward([component]).one("yes", sample)

    def with_raster() -> None:
        rsw.ImageRef(path=tiff).pixels()

    for module, ask in (("torch", with_encoder), ("ray", with_time_limit), ("rasterio", with_raster)):
        if not has(module):
            assert f"pip install 'rsw_rewards[{EXTRAS[module]}]'" in refused(ask), module
    if not has("trl"):
        code, said = command("train", "quickstart.yaml")
        assert code == 2 and said.count("\n") == 1 and "pip install 'rsw_rewards[train]'" in said, said
    if not has("datasets"):
        columns = ("task=change_caption", "images=[before, after]", "captions=captions")
        options = [word for column in columns for word in ("--set", column)]
        code, said = command("data", "from", "hf:owner/name", "-", *options, "--out", str(folder / "hub"))
        assert code == 2 and said.count("\n") == 1 and "pip install 'rsw_rewards[hub]'" in said, said


def never_breaks_for_want_of_an_extra(folder: Path) -> None:
    """All that has a name can be made ready, or is refused as something that the user can mend."""
    from rsw_rewards.core.rubric import VERIFIERS, build
    from rsw_rewards.data.importers import IMPORTERS
    from rsw_rewards.data.registry import ADAPTERS
    from rsw_rewards.detectors import load_detector
    from rsw_rewards.encoders import load_encoder
    from rsw_rewards.evaluation.protocols import PROTOCOLS
    from rsw_rewards.features.bank import FeatureBank
    from rsw_rewards.rollouts.baselines import BASELINES
    from rsw_rewards.rollouts.policies import POLICIES

    for registry in (ADAPTERS, IMPORTERS, PROTOCOLS, BASELINES, POLICIES):
        for name in registry.names():
            with contextlib.suppress(rsw.MissingExtra):
                registry.find(name)

    context = rsw.Context(FeatureBank(), "cpu")
    for name in VERIFIERS.names():
        with contextlib.suppress(rsw.RswError):
            build(name).setup(context)
    for name in ("cva", "scene-detector", "torchscript:net.pt"):
        with contextlib.suppress(rsw.RswError):
            load_detector(name)
    for name in (
        "scene-clip", "open_clip:ViT-B-32:none.pt", "hf_clip:none", "dinov2:none", "timm:resnet18:none.pt", "clean-fid-inception",
        "rsicd-inception:none.pt", "sentence:minilm",
    ):  # fmt: skip
        with contextlib.suppress(rsw.RswError):
            load_encoder(name, "cpu")
    for name in ("token_world_model", "tokenizer_ceiling", "copy_before"):
        with contextlib.suppress(rsw.RswError):
            rsw.load_policy(name).setup()


def imports_nothing_of_the_extras(folder: Path) -> None:
    """After all of the above, and with all public names imported."""
    for name in rsw.__all__:
        getattr(rsw, name)
    loaded = [name for name in EXTRAS if sys.modules.get(name)]
    assert not loaded, f"the core imported {', '.join(loaded)}"


EXAMPLES = (
    scores_a_text,
    scores_a_mask,
    scores_a_box,
    scores_an_image,
    rewards_a_group,
    computes_metrics,
    evaluates_masks_of_an_official_folder,
    evaluates_answers_of_another_tool,
    evaluates_in_memory,
    imports_nothing_of_the_extras,
    says_how_to_install_what_is_missing,
    never_breaks_for_want_of_an_extra,
)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for example in EXAMPLES:
            folder = Path(scratch) / example.__name__
            folder.mkdir()
            example(folder)
            print(example.__name__.replace("_", " "))
    print(f"the core of {rsw.__version__} works on Python {sys.version.split()[0]}: {Path(rsw.__file__).parent}")


if __name__ == "__main__":
    main()
