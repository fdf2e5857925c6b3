"""Evaluation: from scores to the numbers of a protocol, with intervals, baselines and a report."""

if __name__ != "rsw_rewards.evaluation":
    raise ImportError(
        "import this package as 'rsw_rewards.evaluation'; the folder 'evaluation' at the repository root is not a package of its own"
    )
