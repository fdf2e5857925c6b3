"""Decoded pixels and encoder features, kept by content."""
