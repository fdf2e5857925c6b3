"""Whether a forecast changes what should change and keeps the rest."""
