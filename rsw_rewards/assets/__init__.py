"""The small models that the package carries. ``make weights`` makes them again."""

from pathlib import Path

ASSETS = Path(__file__).parent
"""The folder that holds one folder for each of them."""
