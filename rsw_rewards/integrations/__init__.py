"""Our rewards in other trainers and harnesses: one module each, which imports without them. Their pages are in docs/integrations."""
