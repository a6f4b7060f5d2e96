"""Where to evaluate: more places where it is hard, so that polynomials through them still behave.

Along most paths `h` turns fast in one region and slowly elsewhere. The map of Tee and Trefethen,

    x = d + e sinh((alpha + beta) (s - 1) / 2 + alpha),
    alpha = asinh((1 - d) / e),   beta = asinh((1 + d) / e),

of [-1, 1] onto itself (`x = 2 t - 1`) stretches a region of width e about d: in `s` functions are smoother
there, and Chebyshev's basis in `s` needs fewer places. New places are Leja's: each is where the product of
the distances in `s` from all others is largest, which keeps interpolation through old and new places together
well-conditioned. Sources: Tee & Trefethen, "A rational spectral collocation method with adaptively
transformed Chebyshev grid points" (SIAM J. Sci. Comput. 28, 2006); Leja (1957).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float


class Stretch(NamedTuple):
    """The map's `d` and `e`, in `x`; an infinite `e` maps every place to itself."""

    centre: float = 0.0
    width: float = math.inf

    def _slopes(self) -> tuple[float, float]:
        """Return alpha, and half of alpha + beta."""
        alpha, beta = (math.asinh((1 + side * self.centre) / self.width) for side in (-1, 1))
        return alpha, (alpha + beta) / 2

    def s(self, t: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Map places t to the variable that functions are interpolated in, both in [0, 1]."""
        if math.isinf(self.width):
            return t
        alpha, half = self._slopes()
        s = 1 + (np.arcsinh((2 * t - 1 - self.centre) / self.width) - alpha) / half
        found: np.ndarray = np.clip((s + 1) / 2, 0, 1)
        return found

    def t(self, s: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Map back."""
        if math.isinf(self.width):
            return s
        alpha, half = self._slopes()
        x = self.centre + self.width * np.sinh(half * (2 * s - 2) + alpha)
        found: np.ndarray = np.clip((x + 1) / 2, 0, 1)
        return found

    def rate(self, s: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Return `dt / ds`."""
        if math.isinf(self.width):
            return np.ones_like(s)
        alpha, half = self._slopes()
        found: np.ndarray = self.width * half * np.cosh(half * (2 * s - 2) + alpha)
        return found


def leja(s: Float[np.ndarray, " n"], count: int) -> Float[np.ndarray, " count"]:
    """Return so many further places in [0, 1], in the order in which they are chosen.

    Args:
        s: the places that there are, distinct.
        count: how many to add.

    """
    candidates = (1 - np.cos(np.pi * np.linspace(0, 1, 16 * (len(s) + count) + 1))) / 2
    with np.errstate(divide="ignore"):
        product = np.log(np.abs(candidates[:, None] - s)).sum(axis=1)
        added = np.empty(count)
        for number in range(count):
            added[number] = candidates[int(product.argmax())]
            product += np.log(np.abs(candidates - added[number]))
    return added
