"""World 3: the labels know nothing of the codes. *Supported* is a false positive, and so is *ahead of 0*.

Planted. Tokens fall into 50 regions, each a random centre in `u`-space, under random hyperplanes, so that
code, cosine and SimHash all find real clusters. Regions are as likely as each other, or as the i-th `1/i`
(Zipf): a difference of scores whose spread is misjudged when clusters differ in size shows here. The labels
are drawn from nothing but the document, with an intraclass correlation.

Truth. Every representation's clusters have the same expected AMI with the labels, and its neighbours the same
expected agreement: every difference is 0, and a 95 % interval excludes 0 in 5 % of worlds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.worlds.planted import (
    Sizes,
    correlated,
    documents_of,
    planted_codes,
    random_hyperplanes,
    shares,
)

if TYPE_CHECKING:
    from polytope_lm.codes.codes import Codes

REGIONS = 50
LABELS = 2
STRENGTH = 1.0
"""Standard deviation of the centres, where the noise has 1."""


def null_world(
    sizes: Sizes = "equal",
    *,
    tokens: int = 2000,
    documents: int = 100,
    width: int = 256,
    d_model: int = 32,
    correlation: float = 0.1,
    seed: int = 0,
) -> Codes:
    """Draw codes with real clusters and labels that are independent of them.

    Args:
        sizes: `equal` or `zipf`: how likely the regions are.
        tokens: how many.
        documents: how many, of (nearly) equal lengths.
        width: N, the number of random hyperplanes.
        d_model: D, the width of `u`.
        correlation: intraclass correlation of the labels within documents; regions have none.
        seed: of everything.

    Returns:
        Codes of one site with labels `label` (independent) and `region` (planted), `u` and `h` kept.

    Raises:
        PolytopeError: another kind of sizes, or numbers that make no world.

    """
    rng = np.random.default_rng(seed)
    document = documents_of(tokens, documents)
    region = rng.choice(REGIONS, tokens, p=shares(REGIONS, sizes))
    label = correlated(rng, document, shares(LABELS, "equal"), correlation)
    centres = STRENGTH * rng.normal(size=(REGIONS, d_model))
    u = centres[region] + rng.normal(size=(tokens, d_model))
    h = random_hyperplanes(rng, u, width)
    columns = {"label": label, "region": region}
    return planted_codes(rng, f"null world, {sizes} sizes", document, columns, u, h)
