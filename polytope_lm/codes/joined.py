"""Multi-layer codes: several layers' codes side by side, in layer order, as the code of one site.

Two tokens have the same joined code if they lie in the same polytope of *every* layer; the Hamming distance
is the sum of the layers' distances. Activations `h`, `u`, `x`, `up` and `post` are concatenated alike, so
every representation and control takes joined codes as it takes a layer's.

What is fair between layers: random controls keep the network's own structure. Each layer's hyperplanes (or
rotation) act on that layer's `u` (or `h`) alone and match that layer's firing rates: hyperplanes across
layers would see what no neuron sees. The cosines are of the joined vector that was binarised, in which a
layer with longer `h` counts more, while its bits do not; compare with the layers on their own before a joined
lead is read as one of codes.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.codes.codes import TokenCodes
from polytope_lm.codes.hamming.hamming import pack, unpack
from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import join

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    import pandas as pd
    from jaxtyping import Int64, UInt8

    from polytope_lm.models.sites import Site

_BLOCK = 4096


class JoinedCodes(TokenCodes):
    """Codes whose only site is several layers' side by side; nothing is copied before it is read.

    Attributes:
        source: the codes that they are made of.

    """

    def __init__(self, source: TokenCodes, sites: Sequence[Site]) -> None:
        self.source = source
        self.sites = (join(sites),)
        self.kept = source.kept
        self.model = source.model

    @property
    def tokens(self) -> pd.DataFrame:
        """The token table."""
        return self.source.tokens

    @cached_property
    def ids(self) -> Sequence[str]:  # type: ignore[override]
        """The documents' identifiers."""
        return self.source.ids

    @cached_property
    def texts(self) -> Sequence[str]:  # type: ignore[override]
        """The documents' texts, by the document's index."""
        return self.source.texts

    @cached_property
    def provenance(self) -> Mapping[str, Any]:  # type: ignore[override]
        """Model, revision, dtype, rules, versions."""
        return self.source.provenance

    def can_give(self, name: str) -> bool:
        """Whether `activations(name)` has something to give."""
        return self.source.can_give(name)

    def blocks(self, site: Site, name: str | None = None) -> Iterator[np.ndarray]:
        """Yield one array block by block, the layers side by side."""
        parts = site.components
        for blocks in zip(*(self.source.blocks(part, name) for part in parts), strict=True):
            yield _beside(blocks, parts, name)

    def rows(self, site: Site, rows: Int64[np.ndarray, " R"], name: str | None = None) -> np.ndarray:
        """Return some rows of one array, reading no others."""
        parts = site.components
        return _beside([self.source.rows(part, rows, name) for part in parts], parts, name)


def joined(codes: TokenCodes, layers: Sequence[int] | None = None, kind: str | None = None) -> TokenCodes:
    """Return codes whose single site has the codes of several layers side by side.

    Args:
        codes: codes in memory or a store.
        layers: which layers, by default all; the order is theirs in the network.
        kind: which code of each, where a layer has several.

    Raises:
        PolytopeError: no layer, one twice, one that is not there, or sites of different kinds or norms.

    """
    wanted = codes.layers if layers is None else tuple(layers)
    if not wanted:
        raise PolytopeError("no layers to join; give two or more, such as joined([4, 8])")
    return JoinedCodes(codes, [codes.site(layer, kind) for layer in wanted])


def beside(packed: Sequence[UInt8[np.ndarray, "T _"]], widths: Sequence[int]) -> UInt8[np.ndarray, "T B"]:
    """Return packed codes side by side, packed anew: bit i of the second follows the first one's last.

    Args:
        packed: codes of the same tokens, `[T, ceil(N/8)]` each.
        widths: N of each.

    """
    if all(width % 8 == 0 for width in widths[:-1]):
        return np.concatenate(packed, axis=1)
    out = np.empty((len(packed[0]), -(-sum(widths) // 8)), np.uint8)
    for start in range(0, len(out), _BLOCK):
        rows = slice(start, start + _BLOCK)
        bits = [unpack(np.asarray(part[rows]), width) for part, width in zip(packed, widths, strict=True)]
        out[rows] = pack(np.concatenate(bits, axis=1))
    return out


def _beside(arrays: Sequence[np.ndarray], parts: Sequence[Site], name: str | None) -> np.ndarray:
    if len(arrays) == 1:
        return arrays[0]
    if name is None:
        return beside(arrays, [part.width for part in parts])
    return np.concatenate(arrays, axis=1)
