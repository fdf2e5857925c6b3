"""The base of the verifiers that work in the features of an encoder: it is loaded before the first batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rsw_rewards.core.verifier import Context, Verifier
from rsw_rewards.encoders import bands_of


class Encoded(Verifier):
    """Base of the verifiers whose configuration names an ``encoder``.

    Weights that are not there, or an encoder without a text tower where texts are read, are mistakes of the configuration: they
    show in :meth:`setup`, not in every row.
    """

    reads_texts: ClassVar[bool] = False

    def setup(self, context: Context) -> None:
        super().setup(context)
        context.bank.encoder(self.config.encoder)
        if self.reads_texts:
            context.bank.text_features(self.config.encoder, [""])

    def encoders(self) -> Sequence[str]:
        return (self.config.encoder,)

    @property
    def bands(self) -> tuple[int, ...] | None:
        """The bands of a raster that the encoder reads, where they are not those shown as red, green and blue."""
        return bands_of(self.config.encoder)

    def cut(self, texts: Sequence[str]) -> dict[str, bool] | None:
        """Which texts have more tokens than the encoder reads; None for an encoder that cannot tell."""
        truncates = getattr(self.context.bank.encoder(self.config.encoder), "truncates", None)
        return None if truncates is None else dict(zip(texts, truncates(texts), strict=True))
