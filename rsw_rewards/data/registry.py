"""How adapters are found by name and run."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rsw_rewards.core.image_values import describe
from rsw_rewards.core.plugins import check_flags, named, user_code
from rsw_rewards.core.registry import Registry, a_function
from rsw_rewards.data.adapter import Adapter, Conversion
from rsw_rewards.errors import ConfigError

ADAPTERS: Registry[Adapter] = Registry(
    "adapter",
    "adapters",
    {
        name: f"rsw_rewards.data.{name.replace('-', '_')}:convert"
        for name in (
            "cdvqa", "changechat-105k", "disaster-m3", "era", "levir-cc", "levir-cd", "levir-mci", "qag-360k",
            "mhn-rsicd", "ndvi-series", "raster-pairs", "refsegrs", "rrsis-d", "rsicd", "second", "second-cc",
            "vrsbench", "xbd", "xlrs-bench",
        )
    }
    | {
        name.replace("_", "-"): f"rsw_rewards.data.{module}:{name}"
        for module, names in {
            "rsvg": ("dior_rsvg", "opt_rsvg"),
            "question_lists": ("choice", "geobench_vlm", "lrs_vqa", "earthvqa", "rsvlm_qa"),
            "scene_folders": ("aid", "ucm", "resisc45", "whu_rs19", "firerisk"),
            "earthnet": ("earthnet2021", "greenearthnet"),
            "second": ("landsat_scd",),
            "levir_cd": ("levir_cd_plus",),
            "caption_sets": ("cdchat_sysu", "forest_change"),
            "land_cover": ("landcover_ai", "gamus", "reben", "so2sat"),
            "fmow": ("fmow",),
            "rsvqa": ("rsvqa_hr", "rsvqa_lr"),
            "change_sets": ("s2looking", "whu_cd", "clcd", "sysu_cd", "dsifn", "bright"),
        }.items()
        for name in names
    },
    a_function,
    others="hf:NAME, package.module:function or file.py:function",
)  # fmt: skip
"""The adapters by name, as ``rsw data from NAME`` finds them: the module is the name with underscores, or holds several data sets of one form."""


def resolve_adapter(use: str | Any) -> Adapter:
    """The adapter that a name or an object of :data:`ADAPTERS` stands for.

    ``hf:NAME`` stands for a Hugging Face data set, whose columns its options name.

    Raises:
        ConfigError: no adapter of that name, or it cannot be imported.
    """
    if isinstance(use, str) and use.startswith("hf:"):
        from rsw_rewards.data import huggingface

        return huggingface.adapter(use.removeprefix("hf:"))
    return ADAPTERS.find(use)


def converted(use: str | Any, source: Path, out: Path, options: Mapping[str, Any]) -> Conversion:
    """What the adapter that a name or an object stands for wrote to ``out``.

    Raises:
        InputError: the folder ``source`` has another layout.
        ConfigError: there is no such adapter, it takes no such option, or its code raises or gives no :class:`Conversion`.
    """
    adapter = resolve_adapter(use)
    signature = inspect.signature(adapter)
    try:
        signature.bind(source, out, **options)
    except TypeError as error:
        known = [one for one in signature.parameters if one not in ("source", "out", "name")]
        raise ConfigError(
            f"the adapter {named(use)!r} does not take these options: {error}; known are {', '.join(known)}"
        ) from None
    check_flags(adapter, options, f"the adapter {named(use)!r}")
    with user_code(f"the adapter {named(use)!r} raised"):
        done = adapter(source, out, **options)
    if not isinstance(done, Conversion):
        raise ConfigError(f"the adapter {named(use)!r} must give a Conversion, not {describe(done)}")
    return done
