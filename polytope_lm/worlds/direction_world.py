"""World 2: directions carry the meaning. *Supported* is a false positive.

Planted. Each label is a random centre in `u`-space, a token is its label's centre and Gaussian noise, and the
hyperplanes of the neurons are random. The code is then a noisy reading of the direction, with as much of the
meaning as any random hyperplanes have.

Truth. The code's clusters agree with the label (AMI some .3 at the defaults), the cosine's agree better or as
well, rate-matched SimHash as well: the code is ahead of neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.worlds.planted import correlated, documents_of, planted_codes, random_hyperplanes, shares

if TYPE_CHECKING:
    from polytope_lm.codes.codes import Codes

LABELS = 8
STRENGTH = 0.7
"""Standard deviation of the centres, where the noise has 1."""


def direction_world(
    *,
    tokens: int = 2000,
    documents: int = 100,
    width: int = 256,
    d_model: int = 24,
    correlation: float = 0.1,
    seed: int = 0,
) -> Codes:
    """Draw codes of random hyperplanes on inputs whose directions carry `label`.

    Args:
        tokens: how many.
        documents: how many, of (nearly) equal lengths.
        width: N, the number of random hyperplanes.
        d_model: D, the width of `u`.
        correlation: intraclass correlation of the labels within documents.
        seed: of everything.

    Returns:
        Codes of one site with the label `label`, `u` and `h` kept.

    Raises:
        PolytopeError: sizes that make no world.

    """
    rng = np.random.default_rng(seed)
    document = documents_of(tokens, documents)
    label = correlated(rng, document, shares(LABELS, "equal"), correlation)
    centres = STRENGTH * rng.normal(size=(LABELS, d_model))
    u = centres[label] + rng.normal(size=(tokens, d_model))
    h = random_hyperplanes(rng, u, width)
    return planted_codes(rng, "direction world", document, {"label": label}, u, h)
