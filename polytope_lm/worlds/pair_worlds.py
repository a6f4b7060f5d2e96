"""World 4: a ReLU network constructed to have its boundaries where the classes meet. Density must peak there.

One hidden layer, `y = sum_i 1/N max(0, e.u - c_i)`, whose N hyperplanes are all orthogonal to one direction
`e`. Along `e` the classes meet at 0. Of the offsets `c_i`, `near` lie within `width` of 0 and `far` elsewhere
in [-reach, reach], evenly, so that the density of boundaries per unit length near 0 is a stated multiple of
that elsewhere:

    ratio = (near / 2 width) / (far / 2 (reach - width)).

Networks that are trained need not do this: that is the claim, and this world shows that it would be seen.

World 5: the classes differ only by distance. After adjusting for it, no effect may remain.

Pairs of different meaning lie further apart; how many boundaries a path crosses, and how many neurons flip
and flip back, follows from the distance alone, through a curve and with overdispersed, skewed counts. The raw
AUC is large and carries no meaning: what cosine distance alone did to a real model's crossings.

World 6: equal distances, and more flip-backs where the meaning differs. The test must find it.

The pairs of world 5 without the shift, so that every covariate has one distribution in both classes; neurons
that flip and flip back, which no endpoint distance sees, are more frequent by a stated factor in pairs of
different meaning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import Geometry
from polytope_lm.statistics.confounders import PairTable

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, eq=False, repr=False)
class BoundaryWorld:
    """A constructed network and pairs of points.

    Attributes:
        geometry: the hidden layer: `h = W u + b`, no norm.
        direction: `e`, `[D]`.
        width: half the width of the zone where the classes meet.
        reach: how far boundaries go along `e`.
        ratio: density of boundaries inside the zone over that outside.
        a: where each path begins, `[P, D]`.
        b: where it ends, all paths of one length along `e`.
        different: whether a path goes from one class to the other, `[P]`.

    """

    geometry: Geometry
    direction: Float[np.ndarray, " D"]
    width: float
    reach: float
    ratio: float
    a: Float[np.ndarray, "P D"]
    b: Float[np.ndarray, "P D"]
    different: Bool[np.ndarray, " P"]

    def __repr__(self) -> str:
        return (
            f"BoundaryWorld: {len(self.a):,} pairs, {int(self.different.sum()):,} different; "
            f"{len(self.geometry.bias):,} neurons, boundaries {self.ratio:.3g} times as dense at the zone"
        )

    def output(self, u: Float[np.ndarray, "n D"]) -> Float[np.ndarray, " n"]:
        """Run the network."""
        h = u @ self.geometry.weight.T + self.geometry.bias
        found: np.ndarray = np.clip(h, 0, None).mean(axis=1)
        return found


def boundary_world(
    pairs: int = 200, *, near: int = 60, far: int = 60, width: float = 0.5, dimensions: int = 16, seed: int = 0
) -> BoundaryWorld:
    """Construct a network and draw pairs: half cross the zone, half stay in one class, all equally long.

    Args:
        pairs: paths.
        near: boundaries inside the zone.
        far: boundaries elsewhere.
        width: half the width of the zone; the classes reach from it to 4.
        dimensions: D.
        seed: of direction, offsets and points.

    Raises:
        PolytopeError: no boundary inside or outside, or a zone that is not inside the classes' reach.

    """
    reach, long = 4.0, 3.0
    if near < 1 or far < 1 or not 0 < width < long / 2:
        msg = f"near={near}, far={far}, width={width}: give at least 1 boundary of each, and a width below 1.5"
        raise PolytopeError(msg)
    rng = np.random.default_rng(seed)
    direction = rng.standard_normal(dimensions)
    direction /= np.linalg.norm(direction)
    zone = 2 * width * _spread(near, rng) - width
    beyond = 2 * (reach - width) * _spread(far, rng) - (reach - width)
    offsets = np.concatenate([zone, beyond + np.copysign(width, beyond)])
    different = np.arange(pairs) % 2 == 1
    side = rng.choice([-1, 1], pairs)
    # Within a class: from the zone's edge or beyond, outwards; across: the zone anywhere on the path.
    starts = np.where(different, rng.uniform(width - long, -width, pairs), rng.uniform(width, reach - long, pairs))
    aside = rng.standard_normal((pairs, dimensions))
    aside -= (aside @ direction)[:, None] * direction
    a, b = (aside + (side * (starts + shift))[:, None] * direction for shift in (0.0, long))
    ratio = (near / (2 * width)) / (far / (2 * (reach - width)))
    return BoundaryWorld(_layer(direction, offsets), direction, width, reach, ratio, a, b, different)


def _layer(direction: np.ndarray, offsets: np.ndarray) -> Geometry:
    """Return the hidden layer: one neuron an offset, all orthogonal to the direction, no norm."""
    ones = np.ones(len(direction))
    return Geometry(
        weight=np.tile(direction, (len(offsets), 1)), bias=-offsets, gain=ones, shift=0 * ones, eps=0.0, norm="none"
    )


def _spread(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return one place at random in each of n equal parts of [0, 1]."""
    return np.asarray((np.arange(n) + rng.random(n)) / n)


@dataclass(frozen=True)
class Peak:
    """What the paths between the classes of a boundary world show.

    Attributes:
        ratio: crossings per unit length inside the zone over those outside.
        peaked: share of those paths whose densest tenth lies (by its middle) inside the zone.

    """

    ratio: float
    peaked: float


def peak(world: BoundaryWorld, pair: Int[np.ndarray, " n"], t: Float[np.ndarray, " n"], *, bins: int = 10) -> Peak:
    """Find where along the paths between the classes boundaries are densest.

    Each crossing is on path `pair`, at `t` in [0, 1]; a path has `bins` equal stretches.
    """
    along = [ends @ world.direction for ends in (world.a, world.b)]
    place = along[0][pair] + t * (along[1] - along[0])[pair]
    inside, crosses = np.abs(place) < world.width, world.different[pair]
    length = float(np.abs(along[1] - along[0])[world.different].sum())
    zone = 2 * world.width * int(world.different.sum())
    density = int((inside & crosses).sum()) / zone, int((~inside & crosses).sum()) / (length - zone)
    found = []
    for row in np.flatnonzero(world.different):
        counts, edges = np.histogram(t[pair == row], bins, (0, 1))
        middle = (edges[counts.argmax()] + edges[counts.argmax() + 1]) / 2
        found.append(abs(along[0][row] + middle * (along[1] - along[0])[row]) < world.width + 1e-9)
    return Peak(density[0] / density[1], float(np.mean(found)))


FLIP_BACKS = "flip-backs"
HAMMING = "endpoint Hamming"
_WIDTH = 3000  # bits


def distance_world(
    pairs: int = 480, *, groups: int = 60, shift: float = 1.0, effect: float = 0.0, seed: int = 0
) -> PairTable:
    """Draw one world's pairs.

    Args:
        pairs: half of them different in meaning, alternating within each group.
        groups: items or words; each has its own rate of flip-backs.
        shift: how much further apart different pairs are, in sd of log distance.
        effect: log of the factor by which different meaning multiplies flip-backs; 0 for world 5.
        seed: of everything.

    Returns:
        Flip-backs as the outcome; Euclidean and cosine distance and endpoint Hamming as covariates.

    """
    rng = np.random.default_rng(seed)
    different = np.arange(pairs) % 2 == 1
    group = (np.arange(pairs) // 2) % groups
    log_distance = rng.normal(0, 1, pairs) + shift * different
    distance = np.exp(0.3 * log_distance)
    cosine = np.clip(0.15 * distance + rng.normal(0, 0.02, pairs), 1e-3, 1)
    angle = np.arccos(1 - cosine) / np.pi
    hamming = rng.binomial(_WIDTH, np.clip(angle, 0, 1))
    word = rng.normal(0, 0.1, groups)[group]
    expected = 40 * np.log1p(distance**2) * np.exp(word + effect * different)
    flips = rng.poisson(expected * rng.gamma(16, 1 / 16, pairs))
    return PairTable(
        different=different,
        group=group,
        outcomes={FLIP_BACKS: flips.astype(np.float64)},
        covariates={"Euclidean distance": distance, "cosine distance": cosine, HAMMING: hamming.astype(np.float64)},
    )


EFFECT = 0.2
"""Log of the factor by which different meaning multiplies flip-backs: 22 % more, an AUC of about 0.66."""


def flipback_world(pairs: int = 480, *, groups: int = 60, effect: float = EFFECT, seed: int = 0) -> PairTable:
    """Draw one world's pairs.

    Args:
        pairs: half of them different in meaning.
        groups: items or words.
        effect: log of the factor on flip-backs.
        seed: of everything.

    """
    return distance_world(pairs, groups=groups, shift=0.0, effect=effect, seed=seed)
