"""Rollouts: policies and baselines that make outputs, and the pool of actors that runs them."""

if __name__ != "rsw_rewards.rollouts":
    raise ImportError(
        "import this package as 'rsw_rewards.rollouts'; the folder 'rollouts' at the repository root is not a package of its own"
    )
