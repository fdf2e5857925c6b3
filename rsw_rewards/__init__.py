"""Rewards and evaluation for remote-sensing world models: one set of verifiers for training and for benchmarks."""

from importlib.metadata import PackageNotFoundError, version

from rsw_rewards import _torchvision

_torchvision.install()

try:
    __version__ = version("rsw_rewards")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
