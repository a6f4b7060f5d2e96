"""One group of tokens against another, bit by bit and document by document.

For each neuron, the 2 x 2 table (on or off) x (group a or b) gives the log-odds ratio, with the Haldane-Anscombe
correction that keeps it finite,

    log [ (a_on + 1/2)(b_off + 1/2) / ((a_off + 1/2)(b_on + 1/2)) ]

(natural log; positive: more often on in a). Tokens of one document depend on each other: documents are the units.

- *Interval*: with `p_g` the corrected rate of group g, `n_g` its tokens and `k_gd` of `n_gd` of them on in document d,

      psi_d = (k_ad - p_a n_ad) / (n_a p_a (1 - p_a)) - (k_bd - p_b n_bd) / (n_b p_b (1 - p_b)),

  variance `D/(D-1) sum_d psi_d^2` (the cluster-robust variance of a logistic regression: Liang & Zeger, Biometrika
  1986), at least that of independent tokens; Student's t with Kish's number of the group with fewer documents less one.
- *p*: exchange tests (`statistics.exchanges`). Groups that share documents (at least half of those that the group in
  fewer documents is in): over the shared documents, a bit's rates in the two groups of one document change places.
  Groups in different documents: documents that hold one group only exchange their groups. Both ignore how many tokens
  a document has.

Sources: Haldane, "The estimation and significance of the logarithm of a ratio of frequencies" (1956).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.codes.hamming import hamming
from polytope_lm.statistics.estimate import quantile
from polytope_lm.statistics.exchanges import exchanged, turned

if TYPE_CHECKING:
    from jaxtyping import Float, Int64, UInt8

_BLOCK = 64  # bytes of a code at one time: bounded memory for the counts in documents


@dataclass(frozen=True, eq=False)
class Contrast:
    """Every bit of one group against the other tokens.

    Attributes:
        log_odds: signed, nats, `[N]`.
        low: lower end of its 95 % interval over documents.
        high: upper end.
        rate: of the group's tokens, `[N]`.
        other: of the others, `[N]`.
        p: of the exchange test, two-sided, `[N]`.
        test: which test.
        units: documents that it has.

    """

    log_odds: Float[np.ndarray, " N"]
    low: Float[np.ndarray, " N"]
    high: Float[np.ndarray, " N"]
    rate: Float[np.ndarray, " N"]
    other: Float[np.ndarray, " N"]
    p: Float[np.ndarray, " N"]
    test: str
    units: int


@dataclass(frozen=True, eq=False)
class Cells:
    """Tokens counted by document and group: a cell holds one document's tokens of one group.

    Attributes:
        packed: packed codes, a row a token.
        width: N.
        group: each token's group, from 0.
        document: each token's document.

    """

    packed: UInt8[np.ndarray, "T B"]
    width: int
    group: Int64[np.ndarray, " T"]
    document: Int64[np.ndarray, " T"]

    @cached_property
    def _order(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.lexsort((self.group, self.document))
        keys = np.stack([self.document[order], self.group[order]])
        starts = np.flatnonzero(np.concatenate([[True], (keys[:, 1:] != keys[:, :-1]).any(axis=0)]))
        return order, starts

    @cached_property
    def documents(self) -> Int64[np.ndarray, " C"]:
        """Each cell's document, from 0."""
        order, starts = self._order
        return np.unique(self.document[order][starts], return_inverse=True)[1].astype(np.int64)

    @cached_property
    def groups(self) -> Int64[np.ndarray, " C"]:
        """Each cell's group."""
        order, starts = self._order
        return np.asarray(self.group[order][starts])

    @cached_property
    def sizes(self) -> Int64[np.ndarray, " C"]:
        """Each cell's tokens."""
        order, starts = self._order
        return np.diff(np.append(starts, len(order)))

    def on(self, columns: slice) -> Int64[np.ndarray, "C _"]:
        """Return how many of each cell's tokens have each of some bits on; `columns` are bytes of the codes."""
        order, starts = self._order
        width = min(8 * columns.stop, self.width) - 8 * columns.start
        bits = hamming.unpack(np.ascontiguousarray(self.packed[:, columns][order]), width)
        return np.add.reduceat(bits, starts, axis=0, dtype=np.int64)

    def rates(self) -> Float[np.ndarray, "V N"]:
        """Return each group's firing rates over its tokens."""
        count = int(self.groups.max()) + 1
        on = np.stack([hamming.counts(self.packed[self.group == g], self.width) for g in range(count)])
        return on / np.bincount(self.group, minlength=count)[:, None]

    def against_rest(self, group: int, *, seed: int) -> Contrast:
        """Compare one group with all the others."""
        mine = self.groups == group
        test = _Test(self, mine, seed)
        parts = []
        for first in range(0, self.packed.shape[1], _BLOCK):
            stop = min(first + _BLOCK, self.packed.shape[1])
            parts.append(test.block(self.on(slice(first, stop))))
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return Contrast(**found, test=test.name, units=test.units)


class _Test:
    """Which documents are units, and what is computed of a block of bits."""

    def __init__(self, cells: Cells, mine: np.ndarray, seed: int) -> None:
        self.seed, count = seed, int(cells.documents.max()) + 1
        self.documents, self.mine, self.count = cells.documents, mine, count
        self.tokens_a = np.bincount(cells.documents[mine], cells.sizes[mine], count)
        self.tokens_b = np.bincount(cells.documents[~mine], cells.sizes[~mine], count)
        in_a, in_b = self.tokens_a > 0, self.tokens_b > 0
        shared = in_a & in_b
        self.paired = 2 * int(shared.sum()) >= min(int(in_a.sum()), int(in_b.sum()))
        self.of_a, self.of_b = (shared, shared) if self.paired else (in_a & ~shared, in_b & ~shared)
        self.units = int(shared.sum()) if self.paired else int(self.of_a.sum() + self.of_b.sum())
        kind = "both groups" if self.paired else "one group"
        self.name = f"exchange test over documents that have {kind}"
        self.freedom = max(1.0, min(_kish(self.tokens_a), _kish(self.tokens_b)) - 1)

    def block(self, on: Int64[np.ndarray, "C b"]) -> dict[str, Float[np.ndarray, " b"]]:
        """Return log-odds, interval, rates and p of some bits."""
        on_a, on_b = (self._by_document(on, group) for group in (self.mine, ~self.mine))
        n_a, n_b = self.tokens_a.sum(), self.tokens_b.sum()
        sum_a, sum_b = on_a.sum(axis=0), on_b.sum(axis=0)
        p_a, p_b = (sum_a + 0.5) / (n_a + 1), (sum_b + 0.5) / (n_b + 1)
        odds = np.log(p_a * (1 - p_b) / ((1 - p_a) * p_b))
        psi = (on_a - self.tokens_a[:, None] * sum_a / n_a) / (n_a * p_a * (1 - p_a))
        psi -= (on_b - self.tokens_b[:, None] * sum_b / n_b) / (n_b * p_b * (1 - p_b))
        least = sum(1 / (n * p) + 1 / (n * (1 - p)) for n, p in ((n_a + 1, p_a), (n_b + 1, p_b)))
        reach = quantile(self.freedom) * np.sqrt(
            np.maximum((psi**2).sum(axis=0) * self.count / max(self.count - 1, 1), least)
        )
        rates_a, rates_b = (
            part[of] / tokens[of, None]
            for part, of, tokens in ((on_a, self.of_a, self.tokens_a), (on_b, self.of_b, self.tokens_b))
        )
        if self.paired:
            p = turned(rates_a - rates_b, seed=self.seed)
        else:
            group = np.arange(len(rates_a) + len(rates_b)) < len(rates_a)
            p = exchanged(np.concatenate([rates_a, rates_b]), group, seed=self.seed)
        return {
            "log_odds": odds, "low": odds - reach, "high": odds + reach, "rate": sum_a / n_a, "other": sum_b / n_b,
            "p": p,
        }  # fmt: skip

    def _by_document(self, on: np.ndarray, group: np.ndarray) -> Float[np.ndarray, "D b"]:
        out = np.zeros((self.count, on.shape[1]))
        np.add.at(out, self.documents[group], on[group])
        return out


def _kish(tokens: Float[np.ndarray, " D"]) -> float:
    return float(tokens.sum() ** 2 / max((tokens**2).sum(), 1))


def examples(
    packed: UInt8[np.ndarray, "L B"], rows: Int64[np.ndarray, " L"], bit: int, *, on: bool, count: int
) -> list[int]:
    """Return the first `count` rows in which a bit is on, or off."""
    states = (packed[:, bit // 8] >> (bit % 8)) & 1
    return [int(row) for row in rows[np.flatnonzero(states == on)[:count]]]
