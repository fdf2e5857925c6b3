"""What the public functions share: types of arguments, and checks of them."""

from __future__ import annotations

from os import PathLike

from rsw_rewards.errors import ConfigError

File = str | PathLike[str]


def check_device(name: str) -> None:
    """Refuse a device that is not there before anything is scored. Raises :class:`ConfigError`."""
    from rsw_rewards.extras import need

    if name == "cpu":
        return
    need(f"the device {name}", "torch")
    import torch

    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"the device {name!r} cannot be used: {str(error).splitlines()[0]}") from error


def check_missing(on_missing: str) -> None:
    if on_missing not in ("invalid", "drop"):
        raise ConfigError(f"on_missing (--on-missing) must be invalid or drop, not {on_missing!r}")
