if __name__ != "rsw_rewards.verifiers":
    raise ImportError(
        "import this package as 'rsw_rewards.verifiers'; the folder 'verifiers' at the repository root is not a package of its own"
    )
