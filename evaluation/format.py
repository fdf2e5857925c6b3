"""How numbers are written in tables."""

from __future__ import annotations


def number(value: float | None) -> str:
    """A number for people: three to four digits that say something. Below 1e-12 there is nothing but rounding."""
    if value is None:
        return "-"
    if abs(value) < 1e-12:
        return "0.000"
    if abs(value) < 0.001:
        return f"{value:.2e}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
