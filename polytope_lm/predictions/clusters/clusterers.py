"""Ways to cluster tokens, the same for every representation: k-medoids, average linkage, HDBSCAN, your own.

A clusterer sees a `Space`: the tokens under one representation, as all distances, as blocks of them or as a
graph of nearest neighbours. It never sees bits, directions or labels, so that no representation is treated
otherwise than another. k-medoids at fixed k is the primary one: average linkage can put 94 % of the tokens in
one cluster, HDBSCAN calls 31 to 95 % of them noise. Both are offered, noise and sizes beside every score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

import polytope_lm.controls  # noqa: F401 -- registers the controls, which can be clustered too
from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.arguments import asked
from polytope_lm.representations.arrays import LayerArrays
from polytope_lm.representations.distances import in_blocks, nearest_rows, pairwise
from polytope_lm.representations.registry import get
from polytope_lm.seeds import Purpose, derived
from polytope_lm.statistics import clustering as linkage
from polytope_lm.statistics.agreement import Partition
from polytope_lm.statistics.clustering import MIN_CLUSTER_SIZE, NEIGHBOURS, check_k, hdbscan, k_medoids
from polytope_lm.statistics.one_batch import EXACT, one_batch_k_medoids

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float, Int

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.representations.registry import Rows
    from polytope_lm.statistics.clustering import Between

    T = TypeVar("T")

K_MEDOIDS, AVERAGE_LINKAGE, HDBSCAN = "k-medoids", "average linkage", "hdbscan"


class Space:
    """Tokens under one representation, for clusterers: each thing is computed once, when first asked for.

    Attributes:
        rows: one row a token.
        name: the representation's.

    """

    def __init__(self, rows: Rows, name: str = "these rows") -> None:
        self.rows = rows
        self.name = name
        self._made: dict[Any, Any] = {}

    def __len__(self) -> int:
        """Return n, the number of tokens."""
        return len(self.rows.values)

    def once(self, key: str, make: Callable[[], T]) -> T:
        """Return what was made under that key, so that several k share it."""
        if key not in self._made:
            self._made[key] = make()
        made: T = self._made[key]
        return made

    @property
    def distance(self) -> Float[np.ndarray, "n n"]:
        """All pairwise distances, float32.

        Raises:
            PolytopeError: more than 20,000 tokens, or a zero row under cosine.

        """
        if len(self) > EXACT:
            raise PolytopeError(
                f"all distances of {len(self)} tokens need {4e-9 * len(self) ** 2:.0f} GB; compare at most "
                f"{EXACT} tokens, or use k-medoids or hdbscan"
            )
        return self.once("distance", lambda: pairwise(self.rows, self.name))

    @property
    def between(self) -> Between:
        """A function of two lists of tokens: the distances between them, float32, in blocks of any size.

        Bits are compared anew, floats taken from all distances where these fit: clusterers share them.
        """
        if self.rows.metric == "Hamming" or len(self) > EXACT:
            return self.once("between", lambda: in_blocks(self.rows, self.name))
        return lambda a, b: self.distance[np.ix_(a, b)]

    def nearest(self, k: int) -> tuple[Int[np.ndarray, "n k"], Float[np.ndarray, "n k"]]:
        """Return each token's k nearest others and the distances to them."""
        return self.once(f"nearest {k}", lambda: nearest_rows(self.rows, k, self.name, self.between))


@dataclass(frozen=True)
class Clusterer:
    """A named way to part tokens into groups.

    Attributes:
        name: what results call it.
        warns: what to know before its numbers are read, one line.
        function: `(space, k, seed)` -> cluster ids (-1: noise), or a `Partition` with its settings.
        takes_k: whether it makes k clusters; one that does not is run once, with k = 0.

    """

    name: str
    warns: str
    function: Callable[[Space, int, int], Partition | Int[np.ndarray, " n"]]
    takes_k: bool = True

    def __call__(self, space: Space, k: int = 0, seed: int = 0) -> Partition:
        """Cluster the tokens of a space.

        Args:
            space: the tokens under one representation.
            k: clusters, for a clusterer that takes them.
            seed: of its random choices.

        Raises:
            PolytopeError: k is not between 2 and n - 1, or the function gave something else than one integer
                a token.

        """
        if self.takes_k:
            check_k(k, len(space))
        found = self.function(space, k, seed)
        if not isinstance(found, Partition):
            found = Partition(np.asarray(found), self.name, {"k": k} if self.takes_k else {})
        if len(found) != len(space):
            raise PolytopeError(
                f"clusterer {self.name!r} gave {len(found)} labels for {len(space)} tokens; give one a token"
            )
        return found


_REGISTRY: dict[str, Clusterer] = {}


def clusterer(
    name: str, *, warns: str = "", takes_k: bool = True, replace: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function `(space, k, seed)` as a clusterer; it is returned unchanged.

    It returns one cluster id a token, -1 for noise, or a `Partition` that also names its settings.

    Args:
        name: what results call it.
        warns: what to know before its numbers are read, one line.
        takes_k: whether it makes k clusters.
        replace: allow a name that another function has; the same function defined again needs no leave.

    Raises:
        PolytopeError: a name that another function has.

    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        old = _REGISTRY.get(name)
        place = (function.__module__, function.__qualname__)
        if old is not None and not replace and (old.function.__module__, old.function.__qualname__) != place:
            raise PolytopeError(f"a clusterer {name!r} is already registered; choose another name or pass replace=True")
        _REGISTRY[name] = Clusterer(name, warns, function, takes_k)
        return function

    return register


def get_clusterer(name: str) -> Clusterer:
    """Return the clusterer registered under that name."""
    if name not in _REGISTRY:
        raise PolytopeError(f"no clusterer {name!r}; registered are {', '.join(map(repr, _REGISTRY))}")
    return _REGISTRY[name]


def clusterers() -> tuple[Clusterer, ...]:
    """Return all registered clusterers, the primary one first."""
    return tuple(_REGISTRY.values())


@clusterer(K_MEDOIDS, warns="the primary one; from distances to one batch beyond 20,000 tokens")
def _medoids(space: Space, k: int, seed: int) -> Partition:
    if len(space) <= EXACT:
        return Partition(k_medoids(space.distance, k, seed=seed), K_MEDOIDS, {"k": k, "seed": seed})
    found = one_batch_k_medoids(len(space), k, space.between, seed=seed)
    settings = {"k": k, "seed": seed, "batch": found.size}
    return Partition(found.labels, K_MEDOIDS, settings)


@clusterer(AVERAGE_LINKAGE, warns="can leave nearly all tokens in one cluster: read the largest one's share")
def _linkage(space: Space, k: int, seed: int) -> Partition:  # noqa: ARG001 -- nothing here is random
    tree = space.once("average tree", lambda: linkage.average_tree(space.distance))
    return Partition(linkage.cut(tree, k), AVERAGE_LINKAGE, {"k": k})


@clusterer(HDBSCAN, warns="may call most tokens noise: read the share thrown away", takes_k=False)
def _density(space: Space, k: int, seed: int) -> Partition:  # noqa: ARG001 -- density has neither
    return density(space)


def density(space: Space, min_cluster_size: int = MIN_CLUSTER_SIZE, neighbours: int = NEIGHBOURS) -> Partition:
    """Return HDBSCAN's partition with other settings than `hdbscan`'s own.

    Args:
        space: the tokens under one representation.
        min_cluster_size: tokens that make a cluster, and neighbours that make a token dense.
        neighbours: of each token in the graph.

    """
    if len(space) <= min_cluster_size:
        raise PolytopeError(
            f"{len(space)} tokens for hdbscan with min_cluster_size = {min_cluster_size}; give more tokens"
        )
    width = min(max(neighbours, min_cluster_size), len(space) - 1)
    indices, distances = space.nearest(width)
    labels = hdbscan(indices, distances, space.between, min_cluster_size=min_cluster_size)
    settings = {"min_cluster_size": min_cluster_size, "min_samples": min_cluster_size, "neighbours": width}
    return Partition(labels, HDBSCAN, settings)


@asked
def partition(
    codes: TokenCodes,
    layer: int | None = None,
    *,
    representation: str = "code",
    clusterer: str = K_MEDOIDS,
    k: int = 100,
    rows: Int[np.ndarray, " n"] | None = None,
    seed: int = 0,
) -> Partition:
    """Cluster some tokens of one layer by any representation and any clusterer.

    Args:
        codes: codes in memory or a store.
        layer: the layer, where there are several.
        representation: a registered one, such as `code` or `cosine of h, centred`.
        clusterer: `k-medoids`, `average linkage`, `hdbscan` or a registered one of yours.
        k: clusters, for a clusterer that takes them.
        rows: which tokens, by default all.
        seed: of every random choice.

    Raises:
        PolytopeError: no such layer, representation or clusterer, activations that were not kept, or a k that
            does not fit.

    """
    found = get_clusterer(clusterer)
    site = codes.site(layer)
    arrays = LayerArrays(codes, site.layer, np.arange(len(codes)) if rows is None else np.asarray(rows))
    made = get(representation).rows(arrays, seed=derived(seed, Purpose.REPRESENTATION))
    return found(Space(made, representation), k, derived(seed, Purpose.MEDOIDS))
