"""Dumps: one generation as the trainer saw it, as plain files that ``rsw score`` reads.

A dump needs nothing but itself: pictures are copied into it, so the rubric beside them gives the trainer's rewards again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from rsw_rewards.core.files import damage_among, digest_of, read_json, write_json
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.core.scores import ScoreTable
from rsw_rewards.core.yaml_text import write_run_yaml
from rsw_rewards.errors import InputError
from rsw_rewards.io.images import write_png
from rsw_rewards.io.records_io import output_to_json, sample_to_json, write_jsonl
from rsw_rewards.pixels import content_hash
from rsw_rewards.rollouts.replica import map_images

DIGESTS = "digests.json"
"""SHA-256 of every other file of a dump."""


def write_dump(
    folder: Path,
    samples: Sequence[Sample],
    outputs: Sequence[Output],
    table: ScoreTable,
    rewards: Sequence[float | None],
    rubric: Mapping[str, Any],
) -> None:
    """Write one generation.

    Args:
        folder: becomes the dump; what was there before is replaced. It appears whole or not at all.
        samples: what was asked, each sample once.
        outputs: all candidates.
        table: their scores.
        rewards: what the trainer was given, one per output; None for a row that it left out.
        rubric: the rubric's configuration.
    """
    with _outputs_in(folder, samples, outputs) as partial:
        write_jsonl(
            partial / "rewards.jsonl",
            (
                {"id": output.sample_id, "candidate": output.candidate, "reward": reward}
                for output, reward in zip(outputs, rewards, strict=True)
            ),
        )
        table.write(partial / "scores.parquet")
        write_run_yaml(partial / "rubric.yaml", rubric)


def write_outputs(folder: Path, samples: Sequence[Sample], outputs: Sequence[Output]) -> None:
    """Write samples and outputs with their images, without scores, as :func:`write_dump` does."""
    with _outputs_in(folder, samples, outputs):
        pass


@contextmanager
def _outputs_in(folder: Path, samples: Sequence[Sample], outputs: Sequence[Output]) -> Iterator[Path]:
    """A folder with samples, outputs and images, to be added to; it takes the place of ``folder`` at the end."""
    folder = Path(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "images").mkdir(parents=True)
    store = ImageStore(partial / "images")
    write_jsonl(partial / "samples.jsonl", (sample_to_json(store.sample(sample), partial) for sample in samples))
    write_jsonl(partial / "predictions.jsonl", (output_to_json(store.output(output), partial) for output in outputs))
    yield partial
    files = (str(file.relative_to(partial)) for file in sorted(partial.rglob("*")) if file.is_file())
    write_json(partial / DIGESTS, {"files": {name: digest_of(partial / name) for name in files}})
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


class _Digests(BaseModel):
    files: dict[str, str]


def check_dump(folder: Path) -> None:
    """Hold the files of a dump against their digests; a folder without them is taken as it is.

    Raises:
        InputError: a file is damaged, was changed or is gone.
    """
    if not (folder / DIGESTS).is_file():
        return
    if damage := damage_among(folder, read_json(folder / DIGESTS, _Digests)["files"]):
        raise InputError(
            f"the dump is damaged or was changed by hand: {damage}; bring the file back, or delete {folder / DIGESTS} if you changed it"
            " on purpose"
        )


def is_ours(predictions: Path) -> bool:
    """Whether a predictions file was written by this project: that of a dump, or of a policy that was run to be evaluated."""
    if predictions.name != "predictions.jsonl":
        return False
    of_dump, of_policy = ("samples.jsonl", "rewards.jsonl", "scores.parquet", "rubric.yaml"), ("policy.yaml", "images")
    return any(all((predictions.parent / name).exists() for name in names) for names in (of_dump, of_policy))


class ImageStore:
    """Puts every picture into one folder, once per content."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def image(self, image: ImageRef) -> ImageRef:
        if image.path is not None:
            # The file itself: a raster's type and bands need not survive a PNG.
            try:
                name = content_hash(np.frombuffer(image.path.read_bytes(), dtype=np.uint8)) + image.path.suffix
            except OSError:  # the sample has failed by it already; the dump lacks the file as the data does
                return replace(image, path=self.folder / image.path.name)
            if not (self.folder / name).exists():
                shutil.copyfile(image.path, self.folder / name)
            return replace(image, path=self.folder / name)
        pixels = image.pixels()
        picture = pixels.dtype == np.uint8 and (pixels.ndim == 2 or pixels.shape[-1] == 3)
        target = self.folder / f"{content_hash(pixels)}.{'png' if picture else 'npy'}"
        if not target.exists():
            if picture:
                write_png(target, pixels)
            else:
                np.save(target, pixels, allow_pickle=False)
        return replace(image, path=target, array=None, ref=None, index=0)

    def sample(self, sample: Sample) -> Sample:
        return replace(
            sample,
            images=tuple(self.image(image) for image in sample.images),
            reference={key: self._value(value) for key, value in sample.reference.items()},
        )

    def _value(self, value: Any) -> Any:
        if isinstance(value, ImageRef):
            return self.image(value)
        if isinstance(value, (list, tuple)):
            return [self._value(item) for item in value]
        return value

    def output(self, output: Output) -> Output:
        return map_images(output, self.image, but="trajectory")
