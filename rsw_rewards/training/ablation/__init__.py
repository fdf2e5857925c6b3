"""``rsw ablate``: the same training with each reward left out, alone, or weighted otherwise, and what that does to held-out numbers."""
