"""Trainings: each is a configuration, and a function that runs it. All of them need the extra ``[train]``."""

from rsw_rewards.extras import need

need("training", "trl")
