"""One token's code at one site, and how two of them differ."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from polytope_lm.codes.hamming.hamming import unpack
from polytope_lm.errors import PolytopeError, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd
    from jaxtyping import Bool, Float, Int, Int32, UInt8

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
        return np.asarray(unpack(self.packed[None], self.site.width)[0])

    @property
    def n_on(self) -> int:
        """How many neurons are on."""
        return int(np.bitwise_count(self.packed).sum())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return the code as booleans, for `np.asarray`."""
        return as_array(lambda: self.bits, dtype, copy)

    def __xor__(self, other: object) -> Difference:
        """Compare with another code of the same site.

        Raises:
            PolytopeError: the codes are of different sites.

        """
        if not isinstance(other, Code):
            return NotImplemented
        if (self.site.key, self.site.width) != (other.site.key, other.site.width):
            raise PolytopeError(
                f"codes of different sites can't be compared: {self.site.key} and {other.site.key}"
            )
        neurons = np.flatnonzero(self.bits ^ other.bits)
        return Difference(neurons, other.bits[neurons], self.site)

    def __repr__(self) -> str:
        left, token, right = self.context
        where = f"{token!r} in {left[-20:] + token + right[:20]!r}"
        return f"Code of {where}, {self.site.key}: {self.n_on} of {self.site.width} bits on"


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


@dataclass(frozen=True, eq=False)
class Differences:
    """In how many bits the codes of two lists of tokens differ, row by row.

    Attributes:
        counts: site's key to Hamming distances, `[T]`.
        sites: the sites.

    """

    counts: Mapping[str, Int32[np.ndarray, " T"]]
    sites: tuple[Site, ...]

    def to_frame(self) -> pd.DataFrame:
        """Return one row a pair of tokens, one column a site."""
        import pandas as pd  # noqa: PLC0415 - memory: a capture needs no table

        return pd.DataFrame(dict(self.counts))

    def __repr__(self) -> str:
        pairs = len(next(iter(self.counts.values()), ()))
        means = (f"{s.key}: {self.counts[s.key].mean():.1f} of {s.width}" for s in self.sites if pairs)
        return f"bits that differ, mean of {pairs} pairs of tokens: {'; '.join(means)}"


def as_array(bits: Callable[[], np.ndarray], dtype: Any, copy: bool | None) -> np.ndarray:
    """Answer numpy's `__array__`: booleans that are always a copy, as codes are packed.

    Raises:
        ValueError: `copy=False`, as numpy's protocol wants.

    """
    if copy is False:
        raise ValueError("codes are packed: as booleans they are always a copy")
    return np.asarray(bits(), dtype=dtype)


def visible_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose texts can be shown anywhere."""
    return frame.map(lambda cell: visible(cell) if isinstance(cell, str) else cell)
