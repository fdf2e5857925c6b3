"""The page of a training, ``report.html``, made from what its folder holds."""
