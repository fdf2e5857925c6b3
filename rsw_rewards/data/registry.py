"""The adapters by name, as ``rsw data from NAME`` finds them."""

from __future__ import annotations

from collections.abc import Mapping

from rsw_rewards.core.plugins import resolve_object
from rsw_rewards.data.adapter import Adapter
from rsw_rewards.errors import ConfigError

ADAPTERS: Mapping[str, str] = {
    name: f"rsw_rewards.data.{name.replace('-', '_')}:convert"
    for name in (
        "cdvqa", "changechat-105k", "disaster-m3", "era", "levir-cc", "levir-cd", "levir-mci", "qag-360k",
        "mhn-rsicd", "ndvi-series", "raster-pairs", "refsegrs", "rrsis-d", "rsicd", "rsvqa-hr", "rsvqa-lr", "s2looking", "second", "second-cc",
        "whu-cd", "xbd",
    )
}  # fmt: skip
"""Adapter name -> ``module:function``, imported only when asked for: the module is the name with underscores."""


def resolve_adapter(name: str) -> Adapter:
    """The ``convert`` function of a named adapter, or the one that ``module:function`` or ``file.py:function`` names.

    ``hf:NAME`` stands for a Hugging Face data set, whose columns its options name.

    Raises:
        ConfigError: no adapter of that name, or it cannot be imported.
    """
    if name.startswith("hf:"):
        from rsw_rewards.data import huggingface

        return huggingface.adapter(name.removeprefix("hf:"))
    if name not in ADAPTERS and ":" not in name:
        raise ConfigError(f"no adapter is named {name!r}; known are {', '.join(sorted(ADAPTERS))}, hf:NAME")
    adapter: Adapter = resolve_object(ADAPTERS.get(name, name), "adapter")
    return adapter
