"""Policies by name: ``build_policy`` turns a specification from a file or the command line into something that makes outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rsw_rewards.core.plugins import resolve_object
from rsw_rewards.core.records import ImageRef, Output, Sample, Task, TokenTrace
from rsw_rewards.errors import ConfigError, did_you_mean
from rsw_rewards.io.images import read_rgb
from rsw_rewards.pixels import content_hash
from rsw_rewards.rollouts.policy import Policy, Request

if TYPE_CHECKING:
    import torch

    from rsw_rewards.rollouts.token_world_model import TokenWorldModel, WorldModel

BUILT_IN: Mapping[str, str] = {
    "token_world_model": "rsw_rewards.rollouts.policies:TokenWorldModelPolicy",
    "copy_before": "rsw_rewards.rollouts.baselines:CopyBefore",
    "blurred_copy": "rsw_rewards.rollouts.baselines:BlurredCopy",
    "constant": "rsw_rewards.rollouts.baselines:Constant",
    "oracle": "rsw_rewards.rollouts.baselines:Oracle",
    "tokenizer_ceiling": "rsw_rewards.rollouts.baselines:TokenizerCeiling",
    "vision_language": "rsw_rewards.rollouts.vision_language:VisionLanguageModel",
    "backbone_world_model": "rsw_rewards.rollouts.backbone_world_model:BackboneWorldModel",
    "openai_endpoint": "rsw_rewards.rollouts.openai_endpoint:OpenAIEndpoint",
    "diffusion_forecaster": "rsw_rewards.rollouts.diffusion_forecaster:DiffusionForecaster",
}
"""Policies that can be named without their module."""


def build_policy(spec: Mapping[str, Any] | str | Path) -> Policy:
    """The policy that a specification describes.

    Args:
        spec: ``{use: NAME, ...arguments}`` or just ``NAME``. A name is one of :data:`BUILT_IN`, ``pkg.mod:object`` or
            ``file.py:object``; the object is a :class:`Policy` class, a function giving one, or one that is ready. The path of a
            ``.yaml`` file with such a mapping (alone or under the key ``policy``) will do as well.

    Raises:
        ConfigError: nothing of that name, arguments it does not take, or it is no policy.
    """
    if isinstance(spec, Path) or (isinstance(spec, str) and spec.endswith((".yaml", ".yml"))):
        from rsw_rewards.config import read_yaml

        content = read_yaml(Path(spec))
        return build_policy(content.get("policy", content))
    if isinstance(spec, str):
        spec = {"use": spec}
    arguments = {key: value for key, value in spec.items() if key != "use"}
    name = spec.get("use")
    if not isinstance(name, str):
        raise ConfigError(f"a policy needs 'use' (a name), not {dict(spec)!r}")
    if ":" not in name and name not in BUILT_IN:
        raise ConfigError(f"no policy is named {name!r}; {did_you_mean(name, [*BUILT_IN, 'pkg.mod:object'])}")
    found = resolve_object(BUILT_IN.get(name, name), "policy")
    if not isinstance(found, Policy):
        try:
            found = found(**arguments)
        except TypeError as error:
            raise ConfigError(f"the policy {name!r} cannot be made from {arguments!r}: {error}") from error
    elif arguments:
        raise ConfigError(f"the policy {name!r} is ready-made and takes no {', '.join(arguments)}")
    if not isinstance(found, Policy):
        raise ConfigError(f"{name!r} is not a policy; derive it from rsw_rewards.rollouts.policy.Policy")
    return found


class TokenWorldModelPolicy(Policy):
    """The token world model: answers change questions and draws the future, in one vocabulary.

    Args:
        path: a folder with model, vocabulary and visual tokenizer, or ``embedded`` for the small one that is shipped.
    """

    name = "token_world_model"
    tasks = frozenset({Task.CHANGE_QA, Task.FORECAST})
    trainable = True

    def __init__(self, path: str | Path = "embedded") -> None:
        self.path = path
        self._world: WorldModel | None = None

    def setup(self, device: str = "cpu", threads: int = 1) -> None:
        import torch
        from transformers.utils import logging

        from rsw_rewards.rollouts.token_world_model import load_world_model

        torch.set_num_threads(threads)
        logging.disable_progress_bar()  # a bar for half a second of loading
        try:
            self._world = load_world_model(self.path, device)
        except FileNotFoundError as error:
            raise ConfigError(f"the policy {self.name!r} cannot be loaded: {error}") from error

    @property
    def world(self) -> WorldModel:
        """Model, vocabulary and visual tokenizer, after :meth:`setup`."""
        if self._world is None:
            raise RuntimeError("call setup() first")
        return self._world

    @property
    def model(self) -> TokenWorldModel:
        """The network that a trainer trains."""
        return self.world.model

    @property
    def eos_id(self) -> int:
        """Token that ends a completion."""
        return self.world.vocabulary.eos

    @property
    def pad_id(self) -> int:
        """Token that fills rows up."""
        return self.world.vocabulary.pad

    def longest(self, sample: Sample) -> int:
        """Most tokens that a completion may have, its end among them."""
        from rsw_rewards.rollouts.token_world_model import MAX_ANSWER_TOKENS

        return self.model.config.grid_codes + 1 if sample.task is Task.FORECAST else MAX_ANSWER_TOKENS

    def load_weights(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        self.model.load_state_dict(weights)

    def save(self, folder: Path) -> None:
        """Write what ``path`` can name."""
        self.world.save(folder)

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "path": str(self.path)}

    def generate(self, requests: Sequence[Request]) -> list[Output]:
        """See :class:`Policy`. Requests for one sample are read once; all that are made together share the shape of a batch.

        Raises:
            ImageError: a picture of a sample cannot be read or has another size than the model takes.
        """
        outputs: list[Output | None] = [None] * len(requests)
        for (_, temperature), places in even_runs(requests).items():
            for place, output in zip(places, self._made([requests[p] for p in places], temperature), strict=True):
                outputs[place] = output
        return [output for output in outputs if output is not None]

    def _made(self, requests: Sequence[Request], temperature: float) -> list[Output]:
        """Outputs of requests that hold equally many candidates of each sample, those of a sample together."""
        from rsw_rewards.rollouts.token_world_model import sample

        samples = list({request.sample.id: request.sample for request in requests}.values())
        repeats = len(requests) // len(samples)
        prompts = self.world.prompts(samples)
        made = sample(self.model, prompts, repeats, temperature, [request.seed for request in requests])
        outputs: list[Output] = []
        drawn: list[tuple[int, np.ndarray]] = []
        for row, (request, completion) in enumerate(zip(requests, made, strict=True)):
            reading = self.world.read(completion.ids, request.sample.task)
            output = Output(
                request.sample.id,
                tokens=TokenTrace(tuple(prompts[row // repeats]), completion.ids, completion.logprobs),
                finish_reason=reading.finish_reason,
            )
            if reading.finish_reason == "length":
                output = replace(output, invalid=f"cut off after {len(completion.ids)} tokens, before its end")
            elif reading.codes is not None:
                drawn.append((row, reading.codes))
            else:
                output = replace(output, text=reading.text)
            outputs.append(output)
        for row, image in self._pictures(requests, drawn):
            outputs[row] = replace(outputs[row], image=image)
        return outputs

    def _pictures(
        self, requests: Sequence[Request], drawn: Sequence[tuple[int, np.ndarray]]
    ) -> Iterator[tuple[int, ImageRef]]:
        if not drawn:
            return
        before = np.stack([read_rgb(requests[row].sample.images[-1]) for row, _ in drawn])
        pictures = self.world.tokenizer.decode_forecast(before, np.stack([codes for _, codes in drawn]))
        for (row, _), pixels in zip(drawn, pictures, strict=True):
            yield row, ImageRef(array=pixels, sha256=content_hash(pixels))


def even_runs(requests: Sequence[Request]) -> dict[tuple[int, float], list[int]]:
    """Places of the requests that can be made in one go: equally many per sample, of one temperature, sample by sample."""
    by_sample: dict[tuple[str, float], list[int]] = {}
    for place, request in enumerate(requests):
        by_sample.setdefault((request.sample.id, request.temperature), []).append(place)
    runs: dict[tuple[int, float], list[int]] = {}
    for (_, temperature), places in by_sample.items():
        runs.setdefault((len(places), temperature), []).extend(places)
    return runs
