"""Configurations that are shipped: trainings, rubrics and suites."""

if __name__ != "rsw_rewards.configs":
    raise ImportError(
        "import this package as 'rsw_rewards.configs'; the folder 'configs' at the repository root is not a package of its own"
    )
