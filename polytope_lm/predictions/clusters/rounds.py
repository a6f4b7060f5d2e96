"""How often a layer is measured: again, with other random choices, where these could turn its verdict.

First medoids, random hyperplanes, exchanges of labels, halves and the order of ties are drawn at random, and another
seed moves a cell by some tenths of its standard error. That matters near a bound alone. So each layer is measured once;
where a verdict names outcomes that other choices may give (see `statistics.verdict`), what it reads is measured again
with other choices, the same tokens and labels, until it names none or has been measured as often as is allowed. (To go
on drawing only where the answer is not clear is what sequential Monte Carlo tests do: Gandy, "Sequential implementation
of Monte Carlo tests with uniformly bounded resampling risk", JASA 2009.) A further measurement has half as many halves,
which are most of its time, and counts half in the squares of the standard errors. A verdict's cells are the means of
all measurements. Scores, differences and the verdicts against further comparators stay those of the first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polytope_lm.predictions.clusters.result import LayerComparison

MOST, AT_FULL, FULL = 16, 4, 6000
"""Measurements at most; at 6,000 tokens four, for their cost goes by squares."""
SPREAD = 0.5
"""Halves of a further measurement, of those of the first."""


def most_rounds(tokens: int) -> int:
    """Return how often a layer of so many tokens is measured at most: 16 up to 3,000, 4 at 6,000, 2 from 8,486."""
    return int(min(MOST, max(2, AT_FULL * (FULL / tokens) ** 2)))


def halves_again(resamples: int) -> int:
    """Return how many halves a further measurement has: at least the four that have a spread."""
    return max(4, round(SPREAD * resamples))


def unsteady(layers: Sequence[LayerComparison], most: int) -> dict[int, int]:
    """Return the layers, corrected for their number, that another seed may turn, measured less than so often.

    For each, how often it was measured: the number of its next measurement, which has random choices of its own.
    """
    found = {each.layer: each.verdict.rounds or most for each in layers if each.verdict.otherwise}
    return {layer: rounds for layer, rounds in found.items() if rounds < most}
