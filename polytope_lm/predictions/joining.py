"""One result out of several that were computed layer by layer."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.comparison import decided, with_holm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polytope_lm.predictions.results import ClustersResult


def joined(results: Sequence[ClustersResult], command: str = "") -> ClustersResult:
    """Return the layers of several comparisons as one comparison, corrected over all of its layers.

    Holm's correction starts anew from each layer's own p, so that it does not matter how the layers were
    divided. The tokens' table is left behind.

    Args:
        results: comparisons of other layers, the same tokens and settings.
        command: what reproduces the whole; by default the first one's.

    Raises:
        PolytopeError: none, other settings or tokens, or a layer twice.

    """
    if not results:
        raise PolytopeError("no results to join; give at least one")
    first = results[0]
    for other in results[1:]:
        if (other.settings, other.sample) != (first.settings, first.sample):
            msg = (
                f"layer {other.layers[0].layer} was compared with other settings or tokens than layer "
                f"{first.layers[0].layer}; run both alike"
            )
            raise PolytopeError(msg)
    layers = sorted((layer for result in results for layer in result.layers), key=lambda each: each.layer)
    for a, b in pairwise(layers):
        if a.layer == b.layer:
            raise PolytopeError(f"layer {a.layer} is there twice; leave one result out")
    documents, effect = first.sample.documents, first.settings.smallest_effect
    alone = [
        replace(each, verdict=decided(each.site, each.differences, documents, effect)) for each in layers
    ]
    return replace(
        first,
        layers=with_holm(alone),
        command=command or first.command,
        tokens=None,
        timings={step: seconds for result in results for step, seconds in result.timings.items()},
    )
