"""What the functions behind the methods of codes need of codes, so that neither file needs the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    import pandas as pd
    from jaxtyping import Int64

    from polytope_lm.codes.hamming.searching import Neighbours
    from polytope_lm.models.model import Model
    from polytope_lm.models.sites import Site


class Readable(Protocol):
    """Codes as `TokenCodes` describes them."""

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites, in layer order."""

    @property
    def tokens(self) -> pd.DataFrame:
        """The token table."""

    @property
    def ids(self) -> Sequence[str]:
        """The documents' identifiers."""

    @property
    def texts(self) -> Sequence[str]:
        """The documents' texts."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Model, revision, dtype, rules, versions."""

    @property
    def model(self) -> Model | None:
        """The model that made them, while it is at hand."""

    def __len__(self) -> int:
        """Return the number of tokens."""

    def site(self, layer: int | None = None, kind: str | None = None) -> Site:
        """Return the site of a layer."""

    def blocks(self, site: Site, name: str | None = None) -> Iterator[np.ndarray]:
        """Yield one array block by block."""

    def rows(self, site: Site, rows: Int64[np.ndarray, " R"], name: str | None = None) -> np.ndarray:
        """Return some rows of one array."""

    def can_give(self, name: str) -> bool:
        """Whether activations of that name are at hand."""

    def activations(self, name: str, layer: int | None = None, kind: str | None = None) -> np.ndarray:
        """Return activations that were kept."""

    def contexts(self, rows: Sequence[int] | np.ndarray, chars: int = 40) -> list[tuple[str, str, str]]:
        """Return some tokens in context."""

    def knn(
        self, k: int = 10, layer: int | None = None, *, device: str | None = None, engine: str = "here", seed: int = 0
    ) -> Neighbours:
        """Return every token's nearest tokens by Hamming distance."""
