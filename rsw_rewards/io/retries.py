"""How long a client waits before it asks a server again."""

from __future__ import annotations

import random


def wait_s(attempt: int, longest: float, retry_after: str | None = None) -> float:
    """Seconds before the next try: what the server asks for, or half a second doubled with every try, spread at random.

    Args:
        attempt: tries before this one.
        longest: the most that is waited, whatever the server asks for.
        retry_after: the header of that name; a date in it is not read.

    >>> wait_s(0, 30.0, "2"), wait_s(0, 30.0, "900"), 0.25 <= wait_s(0, 30.0) <= 0.5
    (2.0, 30.0, True)
    """
    if retry_after:
        try:
            return min(longest, max(0.0, float(retry_after)))
        except ValueError:
            pass
    return min(longest, 0.5 * 2**attempt) * (0.5 + random.random() / 2)
