"""Running verifiers over batches, here or on actors."""
