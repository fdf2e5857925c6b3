"""A red team for rubrics: outputs that please a reward without being good, beside mediocre ones; :func:`rsw_rewards.attack`."""
