"""The public functions that :mod:`rsw_rewards` exports. The command line is a thin layer over them."""
