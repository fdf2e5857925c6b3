"""Numbers for people: how many digits are shown, and which direction of a metric is better."""

from __future__ import annotations

LOWER_IS_BETTER = ("fid", "fd_", "kid", "cmmd", "lpips", "l1", "mae", "mse", "rmse", "hamming")
"""Beginnings of the keys of metrics that should fall."""
NEITHER = ("bias", "length")
"""Beginnings of the keys of numbers that are best somewhere in between: no run is marked as the best."""


def sign(key: str) -> int:
    """1 for a metric that should rise, -1 for one that should fall, 0 where neither is better."""
    return 0 if key.startswith(NEITHER) else -1 if key.startswith(LOWER_IS_BETTER) else 1


def arrow(key: str) -> str:
    """The direction in which a metric gets better: ``↑``, ``↓``, or nothing.

    >>> arrow("accuracy"), arrow("fid"), arrow("bias")
    ('↑', '↓', '')
    """
    return {1: "↑", -1: "↓", 0: ""}[sign(key)]


def number(value: float | None) -> str:
    """A number for people: three to four digits that say something. Below 1e-12 there is nothing but rounding."""
    if value is None:
        return "-"
    if abs(value) < 1e-12:
        return "0.000"
    if abs(value) < 0.001:
        return f"{value:.2e}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def signed(value: float | None) -> str:
    """A difference, with its sign.

    >>> signed(0.25), signed(-0.5), signed(0.0)
    ('+0.250', '-0.500', '0.000')
    """
    return "+" * (value is not None and value > 0) + number(value)


def compact(value: float | None) -> str:
    """A number for the legend of a plot: three digits, and no zeros behind them.

    >>> compact(0.5), compact(65.0), compact(12345.0), compact(3e-4)
    ('0.5', '65', '12,345', '0.0003')
    """
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
