"""Numbers per component that a run logs of its rewards."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rsw_rewards.core.rewards import FAILED, TIED
from rsw_rewards.core.rubric import Rubric
from rsw_rewards.core.scores import ScoreTable, Status


def component_stats(table: ScoreTable, rubric: Rubric) -> dict[str, float]:
    """What is logged of each component: ``reward/<name>/{mean,std,frac_zero_std,error_rate,invalid_rate}``.

    ``std`` is the mean over groups of the spread within the group, and ``frac_zero_std`` the share of groups without any, or with
    less than ``min_std``: in them the component says nothing of which candidate is better. Every key is always there; NaN where there is nothing to take the mean of.
    """
    out: dict[str, float] = {}
    frame = table.frame
    for component in rubric.components:
        rows = frame[frame["verifier"] == component.label]
        status = rows["status"].to_numpy().astype(str)
        asked = status != Status.NOT_APPLICABLE
        value = rows["value"].to_numpy().astype(np.float64)
        known = ~np.isnan(value)
        spread = pd.Series(value[known]).groupby(rows["group"].to_numpy()[known]).std(ddof=0).to_numpy()
        n = int(asked.sum())
        numbers = {
            "mean": value[known].mean() if known.any() else np.nan,
            "std": spread.mean() if len(spread) else np.nan,
            "frac_zero_std": (spread < max(component.min_std, TIED)).mean() if len(spread) else np.nan,
            "error_rate": np.isin(status, FAILED).sum() / n if n else np.nan,
            "invalid_rate": (status == Status.INVALID_OUTPUT).sum() / n if n else np.nan,
        }
        out.update({f"reward/{component.label}/{key}": float(number) for key, number in numbers.items()})
    return out
