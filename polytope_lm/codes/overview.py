"""What the codes look like before any claim: firing rates, constant neurons, ambiguous bits.

A claim about codes is read beside these: a layer whose bits are mostly ambiguous (`|h| < 0.5`, where GELU and
SiLU are far from a gate) or mostly constant says little about polytopes (Balestriero & Baraniuk, "From Hard
to Soft", ICLR 2019, on what a smooth activation does to a region).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from polytope_lm.codes.hamming.hamming import counts
from polytope_lm.models.sites import Site
from polytope_lm.result import Result

if TYPE_CHECKING:
    from jaxtyping import Bool

    from polytope_lm.codes.codes import TokenCodes

AMBIGUOUS_BELOW = 0.5
RATE_BINS = 20
BLOCK = 4096


@dataclass(frozen=True)
class LayerOverview:
    """One layer's codes in numbers.

    Attributes:
        site: where the codes live.
        tokens: tokens counted.
        rate_histogram: neurons in each of 20 equal bins of firing rate from 0 to 1 (the last one closed).
        dead: neurons that are off for every token.
        always_on: neurons that are on for every token.
        mean_bits_on: bits on in a token's code, on average.
        distinct_codes: different codes among the tokens.
        ambiguous: share of bits with `|h| < 0.5`; None where `h` was not kept, and of routers, whose bits are no signs.

    """

    site: Site
    tokens: int
    rate_histogram: tuple[int, ...]
    dead: int
    always_on: int
    mean_bits_on: float
    distinct_codes: int
    ambiguous: float | None

    @property
    def layer(self) -> int:
        """The block's index, from 0."""
        return self.site.layer


@dataclass(frozen=True, repr=False)
class CodeOverview(Result):
    """All layers' codes in numbers.

    Attributes:
        layers: one overview a layer.
        documents: documents that the tokens come from.
        first_position: tokens at a document's first position read without BOS (attention sinks), left out of
            headline scores.
        provenance: model, revision, dtype, sample rule, ... as the codes state them.

    """

    layers: tuple[LayerOverview, ...]
    documents: int
    first_position: int
    provenance: Mapping[str, Any]

    kind = "overview"
    file = "overview.json"
    tab = "Codes"

    def to_frame(self) -> pd.DataFrame:
        """Return one row a layer."""
        own = ("tokens", "dead", "always_on", "mean_bits_on", "distinct_codes", "ambiguous")
        rows = [[o.layer, o.site.key, o.site.width, *(getattr(o, name) for name in own)] for o in self.layers]
        return pd.DataFrame(rows, columns=["layer", "site", "bits", *(name.replace("_", " ") for name in own)])

    def __repr__(self) -> str:
        layers = len(self.layers)
        return f"<CodeOverview: {layers} layer{'s' * (layers != 1)}, {self.documents:,} documents>"


def overview(codes: TokenCodes) -> CodeOverview:
    """Count what the codes of every layer look like, over all tokens.

    Args:
        codes: codes in memory or a store; the share of ambiguous bits is None where `h` was not kept.

    """
    return CodeOverview(
        layers=tuple(_layer(codes, layer) for layer in codes.layers),
        documents=int(codes.tokens["document"].nunique()),
        first_position=int(first_positions(codes).sum()),
        provenance=dict(codes.provenance),
    )


def first_positions(codes: TokenCodes) -> Bool[np.ndarray, " T"]:
    """Return which tokens are their document's first and were read without a BOS before them."""
    if codes.provenance.get("bos"):
        return np.zeros(len(codes.tokens), dtype=bool)
    return np.asarray(codes.tokens["position"].to_numpy() == 0)


def _layer(codes: TokenCodes, layer: int) -> LayerOverview:
    site = codes.site(layer)
    on, tokens, ambiguous = np.zeros(site.width, dtype=np.int64), 0, 0
    distinct: set[bytes] = set()
    kept = "h" in codes.kept and site.kind != "router"
    for packed in codes.blocks(site):
        tokens += len(packed)
        on += counts(np.asarray(packed), site.width)
        # Digests, so that a large store's codes are not all held at once.
        distinct.update(hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in packed)
    for h in codes.blocks(site, "h") if kept else ():
        for start in range(0, len(h), BLOCK):
            ambiguous += int((np.abs(h[start : start + BLOCK]) < AMBIGUOUS_BELOW).sum())
    rates = on / max(tokens, 1)
    return LayerOverview(
        site=site,
        tokens=tokens,
        rate_histogram=tuple(int(n) for n in np.histogram(rates, bins=RATE_BINS, range=(0, 1))[0]),
        dead=int((on == 0).sum()),
        always_on=int((on == tokens).sum()),
        mean_bits_on=float(on.sum() / max(tokens, 1)),
        distinct_codes=len(distinct),
        ambiguous=ambiguous / max(tokens * site.width, 1) if kept else None,
    )
