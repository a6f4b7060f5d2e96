"""World 1: the signs carry the meaning. A verdict other than *supported* is a miss.

Planted. 50 regions, each with a random prototype `s_r in {-1, 1}^N`. A token of region r has `h_i = s_i m_i`:
its signs are the prototype's, each flipped with probability `flip`; its magnitudes are lognormal with sigma
2, so heavy-tailed that a cosine sees only the few greatest of N coordinates. The weight is the identity, so
`u = h` and the boundaries are the coordinate planes.

A few regions are monosemantic: all of their tokens have one label, a or b in turn. The tokens of all others
take a or b at random. Labels have a document correlation (see `planted`), regions none.

Truth. With the default 256 neurons and 2,000 tokens in 100 documents, k-medoids at k = 50 finds clusters
whose AMI with the label is ahead of the better cosine's, which is about .001, by `effect`. The number
of monosemantic regions sets it roughly, the flip rate finely: `FLIPS` is where the mean over 200 worlds (20
draws of the labels each) crossed the effect, with a standard error of .0006.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.errors import PolytopeError
from polytope_lm.worlds.planted import correlated, documents_of, planted_codes, shares

if TYPE_CHECKING:
    from polytope_lm.codes.codes import Codes

MONOSEMANTIC = {0.02: 4, 0.04: 8}
"""Regions with one label, of `REGIONS`, for each true AMI difference."""

FLIPS = {0.02: 0.281, 0.04: 0.280}
"""Probability that a bit differs from its prototype's, for each true AMI difference."""

REGIONS = 50
SIGMA = 2.0


def code_world(
    effect: float = 0.04,
    *,
    tokens: int = 2000,
    documents: int = 100,
    width: int = 256,
    correlation: float = 0.1,
    seed: int = 0,
) -> Codes:
    """Draw codes whose clusters are ahead of the cosine's in AMI with `label` by a known effect.

    Args:
        effect: the true difference in AMI at k = 50, 0.04 or 0.02; it holds for the default sizes.
        tokens: how many.
        documents: how many, of (nearly) equal lengths.
        width: N, the number of neurons.
        correlation: intraclass correlation of the labels within documents.
        seed: of everything.

    Returns:
        Codes of one site with labels `label` (a, b) and `region` (the truth), `u` and `h` kept.

    Raises:
        PolytopeError: an effect that was not calibrated, or sizes that make no world.

    """
    if effect not in FLIPS:
        there = ", ".join(f"{each:g}" for each in FLIPS)
        raise PolytopeError(f"no code world with a true AMI difference of {effect}; choose among {there}")
    rng = np.random.default_rng(seed)
    document = documents_of(tokens, documents)
    region = rng.integers(0, REGIONS, tokens)
    mixed = 1 - MONOSEMANTIC[effect] / REGIONS
    label = correlated(rng, document, shares(2, "equal"), correlation, mixed)
    label = np.where(region < MONOSEMANTIC[effect], region % 2, label)
    prototypes = rng.random((REGIONS, width)) < 0.5
    on = prototypes[region] ^ (rng.random((tokens, width)) < FLIPS[effect])
    h = np.where(on, 1.0, -1.0) * rng.lognormal(sigma=SIGMA, size=on.shape)
    columns = {"label": label, "region": region}
    return planted_codes(rng, f"code world, AMI ahead by {effect:g}", document, columns, h, h)
