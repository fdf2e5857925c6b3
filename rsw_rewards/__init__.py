"""Rewards and evaluation for remote-sensing world models: one set of verifiers for training and for benchmarks.

``import rsw_rewards as rsw`` is the way in. Everything public is a name of this module; what is not reachable from here is private.
Names are imported when they are first used, so that importing the package loads neither torch, pandas nor ray.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rsw_rewards import _torchvision

if TYPE_CHECKING:
    from rsw_rewards import data as data
    from rsw_rewards import metrics as metrics
    from rsw_rewards import predictions as predictions
    from rsw_rewards.api.attacking import attack as attack
    from rsw_rewards.api.encoding import evaluate_encoder as evaluate_encoder
    from rsw_rewards.api.evaluating import compare as compare
    from rsw_rewards.api.evaluating import evaluate as evaluate
    from rsw_rewards.api.evaluating import protocol as protocol
    from rsw_rewards.api.evaluating import validate as validate
    from rsw_rewards.api.listing import names as names
    from rsw_rewards.api.scoring import rewards as rewards
    from rsw_rewards.api.scoring import reweight as reweight
    from rsw_rewards.api.scoring import score as score
    from rsw_rewards.api.suites import suite as suite
    from rsw_rewards.api.training import ablate as ablate
    from rsw_rewards.api.training import dry_run as dry_run
    from rsw_rewards.api.training import init as init
    from rsw_rewards.api.training import train as train
    from rsw_rewards.core.functions import verifier as verifier
    from rsw_rewards.core.image_ref import ImageRef as ImageRef
    from rsw_rewards.core.image_ref import image as image
    from rsw_rewards.core.metric import MeanValue as MeanValue
    from rsw_rewards.core.metric import SumMetric as SumMetric
    from rsw_rewards.core.per_sample import PerSample as PerSample
    from rsw_rewards.core.records import Output as Output
    from rsw_rewards.core.records import Sample as Sample
    from rsw_rewards.core.records import Task as Task
    from rsw_rewards.core.rubric import Component as Component
    from rsw_rewards.core.rubric import Rubric as Rubric
    from rsw_rewards.core.scores import Score as Score
    from rsw_rewards.core.scores import Status as Status
    from rsw_rewards.core.verifier import Batch as Batch
    from rsw_rewards.core.verifier import Card as Card
    from rsw_rewards.core.verifier import Context as Context
    from rsw_rewards.core.verifier import Verifier as Verifier
    from rsw_rewards.detectors.base import Detector as Detector
    from rsw_rewards.encoders.base import Encoder as Encoder
    from rsw_rewards.engine.reward import Result as Result
    from rsw_rewards.engine.reward import Reward as Reward
    from rsw_rewards.errors import ConfigError as ConfigError
    from rsw_rewards.errors import ImageError as ImageError
    from rsw_rewards.errors import InputError as InputError
    from rsw_rewards.errors import MissingExtra as MissingExtra
    from rsw_rewards.errors import RswError as RswError
    from rsw_rewards.errors import RunStopped as RunStopped
    from rsw_rewards.evaluation.evaluation import Evaluation as Evaluation
    from rsw_rewards.evaluation.leaderboard import Leaderboard as Leaderboard
    from rsw_rewards.evaluation.protocols import Protocol as Protocol
    from rsw_rewards.evaluation.rewards import Rewards as Rewards
    from rsw_rewards.evaluation.suite import Suite as Suite
    from rsw_rewards.rollouts.policies import load_policy as load_policy
    from rsw_rewards.rollouts.policy import Policy as Policy
    from rsw_rewards.rollouts.policy import Request as Request
    from rsw_rewards.serve.remote import RemoteReward as RemoteReward
    from rsw_rewards.training.finished import Run as Run

_EXPORTS = {
    "ablate": "rsw_rewards.api.training",
    "attack": "rsw_rewards.api.attacking",
    "compare": "rsw_rewards.api.evaluating",
    "dry_run": "rsw_rewards.api.training",
    "evaluate": "rsw_rewards.api.evaluating",
    "evaluate_encoder": "rsw_rewards.api.encoding",
    "init": "rsw_rewards.api.training",
    "names": "rsw_rewards.api.listing",
    "protocol": "rsw_rewards.api.evaluating",
    "rewards": "rsw_rewards.api.scoring",
    "reweight": "rsw_rewards.api.scoring",
    "score": "rsw_rewards.api.scoring",
    "suite": "rsw_rewards.api.suites",
    "train": "rsw_rewards.api.training",
    "validate": "rsw_rewards.api.evaluating",
    "verifier": "rsw_rewards.core.functions",
    "MeanValue": "rsw_rewards.core.metric",
    "SumMetric": "rsw_rewards.core.metric",
    "ImageRef": "rsw_rewards.core.image_ref",
    "Output": "rsw_rewards.core.records",
    "Sample": "rsw_rewards.core.records",
    "Task": "rsw_rewards.core.records",
    "image": "rsw_rewards.core.image_ref",
    "Component": "rsw_rewards.core.rubric",
    "Rubric": "rsw_rewards.core.rubric",
    "Score": "rsw_rewards.core.scores",
    "Status": "rsw_rewards.core.scores",
    "Batch": "rsw_rewards.core.verifier",
    "Card": "rsw_rewards.core.verifier",
    "Context": "rsw_rewards.core.verifier",
    "PerSample": "rsw_rewards.core.per_sample",
    "Verifier": "rsw_rewards.core.verifier",
    "Detector": "rsw_rewards.detectors.base",
    "Encoder": "rsw_rewards.encoders.base",
    "Result": "rsw_rewards.engine.reward",
    "Reward": "rsw_rewards.engine.reward",
    "ConfigError": "rsw_rewards.errors",
    "ImageError": "rsw_rewards.errors",
    "InputError": "rsw_rewards.errors",
    "MissingExtra": "rsw_rewards.errors",
    "RswError": "rsw_rewards.errors",
    "RunStopped": "rsw_rewards.errors",
    "Evaluation": "rsw_rewards.evaluation.evaluation",
    "Leaderboard": "rsw_rewards.evaluation.leaderboard",
    "Protocol": "rsw_rewards.evaluation.protocols",
    "Rewards": "rsw_rewards.evaluation.rewards",
    "Suite": "rsw_rewards.evaluation.suite",
    "load_policy": "rsw_rewards.rollouts.policies",
    "Policy": "rsw_rewards.rollouts.policy",
    "Request": "rsw_rewards.rollouts.policy",
    "RemoteReward": "rsw_rewards.serve.remote",
    "Run": "rsw_rewards.training.finished",
}
"""Public name -> the module that defines it. The imports above say the same to type checkers; a test holds the two equal."""

_MODULES = ("data", "metrics", "predictions")
"""Public names that are modules of this package."""

__all__ = sorted([*_EXPORTS, *_MODULES, "__version__"])

_torchvision.install()


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        value = getattr(import_module(_EXPORTS[name]), name)
    elif name in _MODULES:
        value = import_module(f"{__name__}.{name}")
    elif name == "__version__":
        value = _version()
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value  # so that the next look-up does not come here
    return value


def __dir__() -> list[str]:
    return __all__


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("rsw_rewards")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0+unknown"
