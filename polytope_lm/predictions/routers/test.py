"""Prediction 1 for mixtures of experts: are paths through the routers monosemantic.

Claim. A router's code is the k-hot vector of the experts that it chose: the region of `u`-space in which this set
wins. A *path* is the codes of all layers. Tokens with nearby paths mean alike (2604.17837: paths are monosemantic
where single experts are not), more than their directions explain (2604.09780: routing reflects geometry).

Comparators. The cosine of the router logits `r`, raw and centred, of all layers side by side. With verdicts of
their own: the cosine of `u` and that of its projection on the rows of `W_r`, all that a router can see of it; and
the code of each layer alone.

Control. Random routers, each expert as often chosen as the real one: only a lead over these is due to what the
routers have learned. Beside them the labels that the token alone says, and labels permuted within word and document.

Scores, sample, intervals and verdict are those of `predictions.clusters`, whose engine this is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.arguments import asked
from polytope_lm.predictions.clusters.layers import NULLS, comparators_of
from polytope_lm.predictions.clusters.sampling import PER_DOCUMENT, layers_of
from polytope_lm.predictions.clusters.scoring import HALVES
from polytope_lm.predictions.clusters.test import Choices, compared
from polytope_lm.representations.binary import CODE
from polytope_lm.representations.registry import get
from polytope_lm.representations.routers import one_layer
from polytope_lm.result import reproducible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.models.model import Model
    from polytope_lm.models.sites import Site
    from polytope_lm.predictions.clusters.result import ClustersResult
    from polytope_lm.representations.registry import Representation


@dataclass(frozen=True, kw_only=True)
class _Path(Choices):
    """The choices of a comparison of paths; `alone` are the single layers' codes, by name."""

    alone: Mapping[str, Representation] = field(default_factory=dict)

    def further(self, site: Site) -> Mapping[str, Sequence[Sequence[str]]]:
        """Return the references that get verdicts of their own: directions of `u`, each layer alone."""
        return {CODE: (*comparators_of(site)[CODE], *((name,) for name in self.alone))} if self.comparators else {}

    def representation(self, name: str) -> Representation:
        """Return the representation of that name, which may be one layer's."""
        return self.alone[name] if name in self.alone else get(name)


@reproducible("plm.predictions.routers")
@asked
def routers(  # noqa: PLR0913 -- each is a choice that moves a number
    codes: TokenCodes,
    layer: int | Sequence[int] | None = None,
    label: str = "upos",
    *,
    k: int | None = None,
    tokens: int = 6000,
    per_document: int | None = PER_DOCUMENT,
    seed: int = 0,
    resamples: int = HALVES,
    smallest_effect: float = 0.01,
    comparators: bool = True,
    extra: Sequence[str] | str = NULLS,
    weights: Sequence[str] | str | None = None,
    model: Model | None = None,
    rounds: int | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> ClustersResult:
    """Put prediction 1 to the test on paths through the routers of a mixture of experts.

    Args:
        codes: codes in memory or a store of routers, captured with `kind="router", keep=("u", "h")`.
        layer: the layers that make the path, by default (None) all that have codes of a router.
        label: as for `clusters`, and so are the others; `comparators` are the two directions of `u` and each layer
            of the path alone.
        k: clusters.
        tokens: compare at most this many.
        per_document: at most this many of one document.
        seed: of every random choice.
        resamples: halves of the documents behind each interval.
        smallest_effect: the smallest difference of interest.
        comparators: whether the further comparators are measured.
        extra: other rows to show; by default what words alone would score.
        weights: controls with other weights.
        model: the real model, for `weights`.
        rounds: how often a layer that other random choices could turn is measured at most.
        progress: told `(done, total, what)` before each row.

    Returns:
        What `clusters` returns, of one site: the path, such as `L00-03.router`.

    Raises:
        PolytopeError: no codes of routers, or of one layer alone; and as `clusters` does.

    """
    routed = [site.layer for site in codes.sites if site.kind == "router"]
    asked_for = routed if layer is None or isinstance(layer, str) else layers_of(codes, layer)
    dense = [n for n in asked_for if n not in routed]
    if not routed or dense:
        what = f"layer {dense[0]} has" if dense else "these have"
        raise PolytopeError(
            f"{what} no codes of a router ({', '.join(site.key for site in codes.sites)}); capture a mixture of "
            'experts, such as tiny-moe, with kind="router"'
        )
    if len(asked_for) < 2:
        raise PolytopeError(f"a path needs two layers or more, and there is layer {asked_for[0]} alone; use clusters")
    alone = {each.name: each for each in map(one_layer, asked_for)}
    choices = _Path(
        k=k, tokens=tokens, per_document=per_document, seed=seed, resamples=resamples,
        smallest_effect=smallest_effect, comparators=comparators, extra=extra, weights=weights, model=model,
        rounds=rounds, alone=alone,
    )  # fmt: skip
    path = codes.joined(asked_for, "router")
    return compared(path, None, (label,), choices, progress)[label]
