"""One token's code at one site, and how two of them differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from polytope_lm.codes.hamming import unpack
from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import Site


@dataclass(frozen=True, eq=False)
class Code:
    """One token's spline code: which neurons of a site are on.

    Attributes:
        packed: the bits, `uint8 [ceil(N/8)]`, little bit order.
        site: where the code was read.
        context: text left of the token, the token, text right of it.
        activations: what was kept beside the bits, such as `h`.
        origin: the codes that it was taken from, and its row there.

    """

    packed: UInt8[np.ndarray, " B"]
    site: Site
    context: tuple[str, str, str]
    activations: Mapping[str, Float[np.ndarray, " W"]] = field(default_factory=dict)
    origin: tuple[object, int] | None = None

    @property
    def bits(self) -> Bool[np.ndarray, " N"]:
        """The code as booleans."""
        return unpack(self.packed[None], self.site.width)[0]

    @property
    def n_on(self) -> int:
        """How many neurons are on."""
        return int(np.bitwise_count(self.packed).sum())

    def __xor__(self, other: Code) -> Difference:
        """Compare with another code of the same site.

        Raises:
            PolytopeError: the codes are of different sites.

        """
        if (self.site.key, self.site.width) != (other.site.key, other.site.width):
            raise PolytopeError(f"codes of different sites can't be compared: {self.site.key} and {other.site.key}")
        neurons = np.flatnonzero(self.bits ^ other.bits)
        return Difference(neurons, other.bits[neurons], self.site)

    def __repr__(self) -> str:
        left, token, right = self.context
        return f"Code of {token!r} in {left[-20:] + token + right[:20]!r}, {self.site.key}: {self.n_on} of {self.site.width} bits on"


@dataclass(frozen=True, eq=False)
class Difference:
    """The bits in which two codes differ.

    Attributes:
        neurons: indices of the neurons that differ, ascending.
        turned_on: for each, whether it is on in the second code (and off in the first).
        site: the codes' site.

    """

    neurons: Int[np.ndarray, " M"]
    turned_on: Bool[np.ndarray, " M"]
    site: Site

    def __len__(self) -> int:
        return len(self.neurons)

    @property
    def hamming(self) -> int:
        """The Hamming distance."""
        return len(self.neurons)

    def __repr__(self) -> str:
        return f"{len(self)} of {self.site.width} bits differ"
