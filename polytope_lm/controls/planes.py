"""Isolates where training put the boundaries along a path: random hyperplanes on the same `u`, rate-matched.

Like `simhash`, bit i of layer l is `1[g_i . u_l > c_i]`, with `g_i` standard normal and `c_i` where the bit
is on for as many of the paths' ends as neuron i of that layer. A path that bends in `u` crosses such planes
more than once, too: only more flips and flips back than theirs are due to the network's own boundaries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from einops import reduce

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Bool, Float, Int

DRAWS = 5


@dataclass(frozen=True, eq=False, repr=False)
class Planes:
    """Random hyperplanes for some layers, several draws of as many as the layer has neurons.

    Attributes:
        draws: how many draws.
        normals: by layer, `[draws * N, D]`, float32.
        thresholds: by layer, `[draws * N]`.

    """

    draws: int
    normals: Mapping[int, Float[np.ndarray, "M D"]]
    thresholds: Mapping[int, Float[np.ndarray, " M"]]

    def __repr__(self) -> str:
        sizes = {len(normals) // max(1, self.draws) for normals in self.normals.values()}
        return f"Planes: {self.draws} draws of {sorted(sizes)} hyperplanes in {len(self.normals)} layers"

    def crossings(
        self, layer: int, u: Float[np.ndarray, "places D"]
    ) -> tuple[Int[np.ndarray, " draws"], Int[np.ndarray, " draws"]]:
        """Count each draw's sign changes between successive places, and the ends' Hamming distance.

        `u` is what the MLP reads at places of the path in order.
        """
        on = u.astype(np.float32) @ self.normals[layer].T > self.thresholds[layer]
        changes = (on[1:] != on[:-1]).sum(axis=0)
        ends = on[0] != on[-1]
        changes, ends = (
            reduce(n, "(draw plane) -> draw", "sum", draw=self.draws) for n in (changes, ends.astype(np.int64))
        )
        return changes, ends


def rate_matched_planes(
    u: Mapping[int, Float[np.ndarray, "T D"]],
    bits: Mapping[int, Bool[np.ndarray, "T N"]],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Planes:
    """Draw hyperplanes that are on as often as the neurons, given inputs and bits at the same ends, by layer."""
    normals, thresholds = {}, {}
    for layer, inputs in u.items():
        rng = np.random.default_rng([seed, layer])
        on = np.tile(bits[layer].sum(axis=0), draws)
        normals[layer] = rng.standard_normal((len(on), inputs.shape[1]), dtype=np.float32)
        heights = np.sort(inputs.astype(np.float32) @ normals[layer].T, axis=0)
        # Halfway between the last end that is off and the first that is on; beyond all of them for 0 and T.
        padded = np.concatenate([heights[:1] - 1, heights, heights[-1:] + 1])
        first_on, neuron = len(heights) - on + 1, np.arange(len(on))
        thresholds[layer] = (padded[first_on - 1, neuron] + padded[first_on, neuron]) / 2
    return Planes(draws, normals, thresholds)
