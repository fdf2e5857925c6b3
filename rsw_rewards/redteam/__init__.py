"""A red team for rubrics: outputs that please a reward without being good, beside honest ones; :func:`rsw_rewards.attack`."""
