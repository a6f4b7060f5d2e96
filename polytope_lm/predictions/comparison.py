"""One layer's differences from both references, and its verdict.

The better of raw and centred cosine is taken inside each half, score by score: chosen once on the whole
sample, the maximum would favour the code. The other reference, rate-matched SimHash, is the mean of its draws
on the whole sample and on each half, moved there as a draw picked at random is, so that the interval holds
their spread too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.inference.intervals import estimate
from polytope_lm.inference.verdict import Cell, decide, one_sided_p, over_layers
from polytope_lm.predictions.names import (
    AGREEMENT,
    AMI,
    BEST_COSINE,
    REFERENCES,
    SCORES,
    SECOND_ORDER,
    SIMHASH,
)
from polytope_lm.predictions.results import Difference, LayerComparison
from polytope_lm.representations import code
from polytope_lm.representations.cosine import COSINES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Float

    from polytope_lm.inference.verdict import Verdict
    from polytope_lm.models.sites import Site
    from polytope_lm.predictions.scoring import Measured


def compare(
    site: Site,
    k: int,
    measured: Mapping[str, Measured],
    documents: int,
    smallest_effect: float,
    beside: Sequence[str] = (),
) -> LayerComparison:
    """Take all differences of one layer and decide it, before any correction over layers.

    Args:
        site: where the codes live.
        k: clusters.
        measured: what was measured, by name; the built-in representations must be among them.
        documents: documents compared.
        smallest_effect: the smallest difference of interest.
        beside: controls that the code's difference from is shown too; the verdict does not read it.

    """
    cosines = [measured[name] for name in COSINES]
    points = np.stack([each.points for each in cosines])
    best = points.max(axis=0), np.stack([each.halves for each in cosines]).max(axis=0)
    random = measured[SIMHASH].points, measured[SIMHASH].halves
    differences: list[Difference] = []
    for name, each in measured.items():
        if name not in COSINES:
            differences += _differences(each, BEST_COSINE, best, documents, smallest_effect)
        if name != SIMHASH:
            differences += _differences(each, SIMHASH, random, documents, smallest_effect)
    for name in beside:
        values = measured[name].points, measured[name].halves
        differences += _differences(measured[code.NAME], name, values, documents, smallest_effect)
    verdict = decided(site, differences, documents, smallest_effect)
    better = {name: COSINES[int(points[:, i].argmax())] for i, name in enumerate(SCORES)}
    results = tuple(each.result for each in measured.values())
    return LayerComparison(site, k, results, tuple(differences), better, verdict)


def decided(site: Site, differences: Sequence[Difference], documents: int, smallest_effect: float) -> Verdict:
    """Decide one layer from its differences, of which the verdict reads four.

    Args:
        site: where the codes live.
        differences: all of the layer's.
        documents: documents compared.
        smallest_effect: the smallest difference of interest.

    """
    cells = [
        Cell(d.reference, d.score, d.estimate)
        for d in differences
        if d.representation == code.NAME and d.reference in REFERENCES and d.score in (AMI, AGREEMENT)
    ]
    return decide(
        cells,
        place=site.place,
        documents=documents,
        smallest_effect=smallest_effect,
        premises=str(site.premises),
        premises_met=site.premises.met,
    )


def with_holm(compared: Sequence[LayerComparison]) -> tuple[LayerComparison, ...]:
    """Return the layers with their verdicts corrected for the number of layers."""
    verdicts = over_layers([comparison.verdict for comparison in compared])
    return tuple(replace(c, verdict=v) for c, v in zip(compared, verdicts, strict=True))


def _differences(
    each: Measured,
    reference: str,
    values: tuple[Float[np.ndarray, " scores"], Float[np.ndarray, "resamples scores"]],
    documents: int,
    smallest_effect: float,
) -> list[Difference]:
    out = []
    for i, score in enumerate(SCORES):
        halves = each.halves[:, i] - values[1][:, i]
        value = float(each.points[i] - values[0][i])
        ahead = estimate(value, halves, documents, second_order=score in SECOND_ORDER)
        p = one_sided_p(ahead, smallest_effect)
        out.append(Difference(each.result.name, reference, score, ahead, p))
    return out
