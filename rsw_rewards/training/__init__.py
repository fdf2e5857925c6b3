"""Training: from a configuration to the folder of a run, by GRPO, PPO or Flow-GRPO, and the supervised stages before."""
