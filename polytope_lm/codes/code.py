"""One token's code at one site, how two of them differ, and the tokens nearest to one."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from polytope_lm.codes.hamming.hamming import unpack
from polytope_lm.errors import PolytopeError, visible

CHUNK = 4096  # rows in float64 at one time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

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

    def __getstate__(self) -> dict[str, Any]:
        """Leave the codes that it was taken from behind: another process gets this code alone."""
        return {**self.__dict__, "origin": None}

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
            raise PolytopeError(f"codes of different sites can't be compared: {self.site.key} and {other.site.key}")
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
    """Answer numpy's `__array__`: booleans that are always a copy, as codes are packed."""
    if copy is False:
        raise ValueError("codes are packed: as booleans they are always a copy")
    return np.asarray(bits(), dtype=dtype)


def visible_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose texts can be shown anywhere."""
    return frame.map(lambda cell: visible(cell) if isinstance(cell, str) else cell)


@dataclass(frozen=True, eq=False)
class Nearest:
    """One token's neighbourhoods.

    Attributes:
        query: the token that was asked for.
        by_code: columns `hamming`, `row`, `left`, `token`, `right`; nearest first.
        by_direction: columns `cosine`, `row`, `left`, `token`, `right`; None where no pre-activations were
            kept.
        note: what direction means here, or how to get it.

    """

    query: Code
    by_code: pd.DataFrame
    by_direction: pd.DataFrame | None
    note: str

    def to_frame(self) -> pd.DataFrame:
        """Return both neighbourhoods side by side, the columns prefixed `code` and `direction`."""
        import pandas as pd  # noqa: PLC0415 - memory: a capture needs no table

        sides = {"code": self.by_code}
        if self.by_direction is not None:
            sides["direction"] = self.by_direction
        return pd.concat(sides, axis=1)

    def __repr__(self) -> str:
        return f"{self.query!r}\n{visible_frame(self.to_frame()).to_string(index=False)}\n{self.note}"

    def _repr_html_(self) -> str:
        table = visible_frame(self.to_frame()).to_html(escape=True, index=False)
        return f"<p>{html.escape(repr(self.query))}</p>{table}<p>{html.escape(self.note)}</p>"


def cosines(query: Float[np.ndarray, " N"], blocks: Callable[[], Iterator[np.ndarray]]) -> Float[np.ndarray, " T"]:
    """Return the cosine of every row with the query, both less the rows' mean, in bounded memory."""
    total = sum(block.sum(0, dtype=np.float64) for block in blocks())
    mean = total / sum(len(block) for block in blocks())
    centred_query = query.astype(np.float64) - mean
    parts = []
    for block in blocks():
        for start in range(0, len(block), CHUNK):
            centred = block[start : start + CHUNK] - mean
            product = np.linalg.norm(centred, axis=1) * np.linalg.norm(centred_query)
            parts.append(np.divide(centred @ centred_query, product, out=np.zeros(len(centred)), where=product > 0))
    return np.concatenate(parts)
