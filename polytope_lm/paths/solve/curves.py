"""Where a path runs: straight lines, and arcs that keep to the sphere (or go from one radius to another).

The arc from `a` to `b` is, with `y = C x` and `C` the centring (or the identity),

    x(t) = rho(t) (cos(Omega t) e1 + sin(Omega t) e2) + mean(t),

`rho` and `mean` linear in t, `e1` the direction of `C a`, `e2` orthogonal to it in the plane of both ends,
and `Omega` their angle, by atan2. An angle of 0 is the straight line. Source of slerp: Shoemake, "Animating
rotation with quaternion curves" (1985).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from jaxtyping import Float

Shape = Literal["line", "arc"]

_OPPOSITE = 1e-6  # radians from pi: beyond it rounding chooses the plane of the arc
_RULE = np.polynomial.legendre.leggauss(64)


@dataclass(frozen=True, eq=False)
class Arc:
    """Arcs between P pairs of points: `e1`; `e2`, zeros where the angle is 0; `Omega` in radians; `|C x|` at both ends.

    `means` are the mean coordinates at both ends, zeros without centring.
    """

    first: Float[np.ndarray, "P D"]
    second: Float[np.ndarray, "P D"]
    angle: Float[np.ndarray, " P"]
    norms: Float[np.ndarray, "2 P"]
    means: Float[np.ndarray, "2 P"]

    def points(self, t: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n P D"]:
        """Return the arcs' points at each t."""
        share = np.asarray(t, dtype=np.float64)[:, None]
        theta = (share * self.angle)[..., None]
        norm, mean = ((1 - share) * ends[0] + share * ends[1] for ends in (self.norms, self.means))
        turned = np.cos(theta) * self.first + np.sin(theta) * self.second
        return np.asarray(norm[..., None] * turned + mean[..., None])

    def lengths(self) -> float:
        """Return the Euclidean length of the path of all P points together.

        `integral of sqrt(sum over P of rho'^2 + (rho Omega)^2 + D mean'^2)`, by Gauss's rule.
        """
        t, weights = (_RULE[0][:, None] + 1) / 2, _RULE[1] / 2
        norm = (1 - t) * self.norms[0] + t * self.norms[1]
        width = self.first.shape[1]
        still = (self.norms[1] - self.norms[0]) ** 2 + width * (self.means[1] - self.means[0]) ** 2
        speed = np.sqrt((still + (norm * self.angle) ** 2).sum(axis=1))
        return float(weights @ speed)


def arc(a: Float[np.ndarray, "P D"], b: Float[np.ndarray, "P D"], *, centred: bool) -> Arc:
    """Draw the arcs between P pairs of points, or (`centred`) of points less their mean, as a LayerNorm sees them.

    Ends without direction are refused, and opposite ones, between which no arc is the shortest.
    """
    means = np.stack([x.mean(axis=1) if centred else np.zeros(len(x)) for x in (a, b)])
    starts, ends = (x - mean[:, None] for x, mean in zip((a, b), means, strict=True))
    norms = np.stack([np.linalg.norm(x, axis=1) for x in (starts, ends)])
    if not (norms > 0).all():
        row = int(np.flatnonzero(~(norms > 0).all(axis=0))[0])
        raise PolytopeError(f"{_which(row, a)}an end has no direction, so there is no arc: use shape='line'")
    first, other = starts / norms[0][:, None], ends / norms[1][:, None]
    along = (first * other).sum(axis=1)
    # Twice: what the first subtraction leaves of e1 by rounding would tilt e2 where the angle is small.
    rest = other - along[:, None] * first
    rest -= (first * rest).sum(axis=1)[:, None] * first
    away = np.where((starts == ends).all(axis=1), 0.0, np.linalg.norm(rest, axis=1))
    angle = np.arctan2(away, along)
    if (angle > np.pi - _OPPOSITE).any():
        row = int(angle.argmax())
        raise PolytopeError(
            f"{_which(row, a)}the ends are opposite, so no arc between them is the shortest: use shape='line'"
        )
    second = np.divide(rest, away[:, None], out=np.zeros_like(rest), where=away[:, None] > 0)
    return Arc(first, second, angle, norms, means)


def _which(row: int, arcs: np.ndarray) -> str:
    return f"arc {row}: " if len(arcs) > 1 else ""


def points(
    shape: Shape,
    a: Float[np.ndarray, "P D"],
    b: Float[np.ndarray, "P D"],
    t: Float[np.ndarray, " n"],
    *,
    centred: bool = False,
) -> Float[np.ndarray, "n P D"]:
    """Return P paths' points at each t; their ends exactly."""
    share = np.asarray(t, dtype=np.float64)[:, None, None]
    if shape == "line":
        return np.asarray((1 - share) * a + share * b)
    turned = arc(a, b, centred=centred).points(t)
    return np.where(share == 0, a, np.where(share == 1, b, turned))


def length(shape: Shape, a: Float[np.ndarray, "P D"], b: Float[np.ndarray, "P D"], *, centred: bool = False) -> float:
    """Return the Euclidean length of P paths that are gone together, in the space of all their coordinates."""
    if shape == "line":
        return float(np.linalg.norm(b - a))
    return arc(a, b, centred=centred).lengths()
