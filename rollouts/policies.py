"""Policies by name, and from the directory of a training run: what a file or the command line says becomes something that makes outputs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rsw_rewards.config import PolicySpec
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.plugins import check_flags, named, user_code
from rsw_rewards.core.records import Output, Sample, Task, TokenTrace
from rsw_rewards.core.registry import Registry
from rsw_rewards.core.yaml_text import read_yaml
from rsw_rewards.errors import ConfigError
from rsw_rewards.extras import need
from rsw_rewards.io.images import read_rgb
from rsw_rewards.io.model_files import missing_model
from rsw_rewards.pixels import content_hash
from rsw_rewards.rollouts.policy import Policy, Request, after_setup, in_runs
from rsw_rewards.rollouts.trained import CONFIG, checkpoint_weights, find_trained
from rsw_rewards.rollouts.weights import adapter_in

if TYPE_CHECKING:
    import torch

    from rsw_rewards.rollouts.token_world_model import TokenWorldModel, WorldModel

_BUILT_IN = {
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


def _policy(found: Any, use: str) -> Any:
    if not callable(found) and not isinstance(found, Policy):
        raise ConfigError(
            f"{use!r} is not a policy; give its name, a class derived from rsw_rewards.Policy, or an object of one"
        )
    return found


POLICIES: Registry[Any] = Registry(
    "policy", "policies", _BUILT_IN, _policy, others="a run's directory, package.module:object or file.py:object"
)
"""What makes a policy: a :class:`Policy` class, a function giving one, or one that is ready."""


def build_policy(spec: Mapping[str, Any] | str | Path | Any) -> Policy:
    """The policy that a specification describes.

    Args:
        spec: a :class:`PolicySpec`, ``{use: NAME, ...arguments}`` or just ``NAME``, which is a name or an object of :data:`POLICIES`. The path of a
            ``.yaml`` file with such a mapping (alone or under the key ``policy``) will do as well, and so will the directory of a
            training run, see :func:`load_policy`.

    Raises:
        ConfigError: nothing of that name, arguments it does not take, or it is no policy; or a training configuration, whose policy
            is not the trained one.
    """
    spec = _by_name(spec)
    if isinstance(spec, (str, Path)) and is_folder(spec):
        return load_policy(spec)
    spec = _mapping(spec)
    arguments = {key: value for key, value in spec.items() if key != "use"}
    name = spec.get("use")
    if name is None:
        raise ConfigError(f"a policy needs 'use' (a name), not {dict(spec)!r}")
    if isinstance(name, str) and ":" not in name and "/" in name:
        raise ConfigError(f"there is no folder {name}; a policy is the directory of a run, a name or a YAML file")
    found = POLICIES.find(name)
    if not isinstance(found, Policy):
        if callable(found):
            check_flags(found, arguments, f"the policy {named(name)!r}")
        with user_code(f"the policy {named(name)!r} cannot be made from {arguments!r}:"):
            found = found(**arguments)
    elif arguments:
        raise ConfigError(f"the policy {named(name)!r} is ready-made and takes no {', '.join(arguments)}")
    if not isinstance(found, Policy):
        raise ConfigError(f"{named(name)!r} is not a policy; derive its class from rsw_rewards.Policy")
    if not isinstance(getattr(found, "name", None), str):
        raise ConfigError(f'the policy {named(name)!r} has no name; write name = "..." in its class')
    return found


def is_folder(spec: str | Path) -> bool:
    """Whether what a user gives for a policy is a directory, and not a name."""
    return str(spec) not in POLICIES and Path(spec).is_dir()


def _by_name(spec: Any) -> Any:
    """A specification as plain data; what is named without arguments is the name alone."""
    if isinstance(spec, PolicySpec):
        spec = spec.model_dump()
    return spec["use"] if isinstance(spec, Mapping) and set(spec) == {"use"} else spec


def _mapping(spec: Mapping[str, Any] | str | Path | Any) -> dict[str, Any]:
    """The specification of a policy as a mapping with ``use``; of a run, that of the policy before training.

    Raises:
        ConfigError: it names a training configuration, or a file that cannot be read.
    """
    spec = _by_name(spec)
    if isinstance(spec, Mapping):
        return dict(spec)
    if not isinstance(spec, (str, Path)):
        return {"use": spec}
    path = Path(spec)
    if is_folder(spec):
        return _mapping(find_trained(path).start)
    if path.suffix not in (".yaml", ".yml"):
        return {"use": str(spec)}
    content = read_yaml(path)
    if "method" in content or ("policy" in content and len(content) > 1):
        run = path.parent if path.name == CONFIG else "runs/NAME"
        raise ConfigError(
            f"{path} is a training configuration, and its policy is the one before training; give the directory of the run,"
            f" {run}, for the trained policy"
        )
    return _mapping(content.get("policy", content))


def load_policy(run: str | Path) -> Policy:
    """The trained policy of a training run, before ``setup``.

    It has the settings of the run's configuration and the weights of the most steps: those that training ended with, or of the
    newest complete checkpoint where the run is unfinished or goes on.

    Args:
        run: the directory of the run, such as ``runs/quickstart``, or one policy in it: ``runs/quickstart/final``,
            ``runs/quickstart/checkpoints/checkpoint-50``.

    Raises:
        ConfigError: it is not the directory of a run that trains a policy, or there is nothing complete in it yet.

    Example:
        >>> import rsw_rewards as rsw
        >>> policy = rsw.load_policy("runs/quickstart")  # doctest: +SKIP
        >>> policy.setup("cpu")  # doctest: +SKIP
    """
    trained = find_trained(Path(run))
    start = _mapping(trained.start)
    if not trained.is_checkpoint and _takes_path(start):
        fresh = {"lora"} if adapter_in(trained.folder) else set()  # settings of what was trained into the folder
        kept = {key: value for key, value in start.items() if key not in fresh}
        return build_policy({**kept, "path": str(trained.folder)})
    return WithWeights(build_policy(start), trained.folder, trained.step)


def _takes_path(spec: Mapping[str, Any]) -> bool:
    """Whether the policy of a specification can be told from which folder to load."""
    made = POLICIES.find(spec.get("use"))
    return "path" in spec or (callable(made) and "path" in inspect.signature(made).parameters)


class WithWeights(Policy):
    """A policy that takes the weights of a checkpoint as soon as it is set up.

    Args:
        start: the policy that training started from, with a ``model`` once it is set up.
        folder: a checkpoint, or the model of a policy that takes no ``path``.
        step: training steps of the checkpoint.
    """

    def __init__(self, start: Any, folder: Path, step: int) -> None:
        self.start, self.folder, self.step = start, folder, step
        self.name, self.tasks = start.name, start.tasks

    def setup(self, device: str = "cpu", threads: int = 1) -> None:
        self.start.setup(device, threads)
        self.start.load_weights(checkpoint_weights(self.folder, self.model), self.step)

    @property
    def model(self) -> Any:
        """The network, after :meth:`setup`."""
        return self.start.model

    def generate(self, requests: Sequence[Request]) -> list[Output]:
        outputs: list[Output] = self.start.generate(requests)
        return outputs

    def describe(self) -> dict[str, Any]:
        return {**self.start.describe(), "weights": str(self.folder)}


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

    def missing(self) -> str | None:
        return None if str(self.path) == "embedded" else missing_model(self.path, hub=False)

    def setup(self, device: str = "cpu", threads: int = 1) -> None:
        need(f"the policy {self.name!r}", "torch", "transformers")
        import torch
        from transformers.utils import logging

        from rsw_rewards.rollouts.token_world_model import load_world_model

        torch.set_num_threads(threads)
        logging.disable_progress_bar()  # a bar for half a second of loading
        try:
            self._world = load_world_model(self.path, device)
        except (OSError, ValueError) as error:
            raise ConfigError(f"the policy {self.name!r} cannot be loaded from {str(self.path)!r}: {error}") from error

    @property
    def world(self) -> WorldModel:
        """Model, vocabulary and visual tokenizer, after :meth:`setup`."""
        return after_setup(self._world)

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
        return in_runs(requests, self._made)

    def _made(self, requests: Sequence[Request], repeats: int) -> list[Output]:
        from rsw_rewards.rollouts.token_world_model import sample

        prompts = self.world.prompts([request.sample for request in requests[::repeats]])
        seeds = [request.seed for request in requests]
        made = sample(self.model, prompts, repeats, requests[0].temperature, seeds)
        outputs: list[Output] = []
        drawn: dict[int, np.ndarray] = {}
        for row, (request, completion) in enumerate(zip(requests, made, strict=True)):
            reading = self.world.read(completion.ids, request.sample.task)
            cut = f"cut off after {len(completion.ids)} tokens, before its end"
            outputs.append(
                Output(
                    request.sample.id,
                    text=reading.text,
                    invalid=cut if reading.finish_reason == "length" else None,
                    tokens=TokenTrace(tuple(prompts[row // repeats]), completion.ids, completion.logprobs),
                    finish_reason=reading.finish_reason,
                )
            )
            if reading.codes is not None:
                drawn[row] = reading.codes
        if drawn:
            before = np.stack([read_rgb(requests[row].sample.images[-1]) for row in drawn])
            pictures = self.world.tokenizer.decode_forecast(before, np.stack(list(drawn.values())))
            for row, pixels in zip(drawn, pictures, strict=True):
                outputs[row] = replace(outputs[row], image=ImageRef(array=pixels, sha256=content_hash(pixels)))
        return outputs
