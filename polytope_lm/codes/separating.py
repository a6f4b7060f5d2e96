"""Which bits tell two sets of tokens apart.

For each neuron the signed log-odds ratio of its being on in a against b, its interval, and a two-sided p value,
corrected over all N neurons by Benjamini and Hochberg to q values: among bits with `q <= alpha`, the expected share
of false ones is at most alpha.

**Tokens of one document are not independent**, and tests that take tokens as units call far too many bits
significant. Say which document each token is from, and documents become the units: `codes.contrast` has the formulas
and the exchange tests, for this and for `codes.selective`. Without documents the p value is Fisher's exact test over
tokens, and there is no interval.

Sources: Fisher, "The Design of Experiments" (1935); Benjamini & Hochberg, "Controlling the false discovery rate"
(1995).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import gammaln
from scipy.stats import false_discovery_control

from polytope_lm.codes.contrast import Cells
from polytope_lm.codes.hamming import hamming
from polytope_lm.errors import PolytopeError, escaped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jaxtyping import Bool, Float, Int, Int64, UInt8

Context = tuple[str, str, str]  # text on the left, the token, text on the right

_SHOWN = 20


@dataclass(frozen=True, eq=False)
class Separating:
    """Every bit's separation of two groups of tokens, in the order of the bits.

    Attributes:
        log_odds: signed log-odds ratio of each bit over tokens, `[N]`, nats; positive: more often on in a.
        rate_a: share of a's tokens with the bit on, `[N]`.
        rate_b: the same of b.
        p: two-sided exact p value, `[N]`.
        q: Benjamini-Hochberg q value over all N bits, `[N]`.
        alpha: the false discovery rate that `significant` keeps.
        test: the test and its units.
        units: how many units the test has.
        n_a: tokens in a.
        n_b: tokens in b.
        low: lower end of the log-odds' 95 % interval over documents, `[N]`; NaN where tokens are the units.
        high: its upper end.
        examples_a: rows of a in the bit's state that is the more common one in a, `[N, E]`; -1 fills up.
        examples_b: rows of b in the other state, `[N, E]`.
        contexts: texts of the examples of some bits, `{bit: (of a, of b)}`; from `with_contexts`.

    """

    log_odds: Float[np.ndarray, " N"]
    rate_a: Float[np.ndarray, " N"]
    rate_b: Float[np.ndarray, " N"]
    p: Float[np.ndarray, " N"]
    q: Float[np.ndarray, " N"]
    alpha: float
    test: str
    units: int
    n_a: int
    n_b: int
    low: Float[np.ndarray, " N"]
    high: Float[np.ndarray, " N"]
    examples_a: Int[np.ndarray, "N E"]
    examples_b: Int[np.ndarray, "N E"]
    contexts: Mapping[int, tuple[tuple[Context, ...], tuple[Context, ...]]] = field(default_factory=dict)

    @property
    def order(self) -> Int[np.ndarray, " N"]:
        """All bits, the most telling first: by q, then by the size of the log-odds, then by index."""
        return np.lexsort((np.arange(len(self.q)), -np.abs(self.log_odds), self.q))

    @property
    def significant(self) -> Int[np.ndarray, " S"]:
        """The bits with `q <= alpha`, the most telling first."""
        order = self.order
        return np.asarray(order[self.q[order] <= self.alpha])

    def to_frame(self) -> pd.DataFrame:
        """Return one row per bit, the most telling first, with `significant` for `q <= alpha`."""
        columns = {name: getattr(self, name) for name in ("log_odds", "low", "high", "rate_a", "rate_b", "p", "q")}
        frame = pd.DataFrame({"bit": np.arange(len(self.q)), **columns, "significant": self.q <= self.alpha})
        return frame.iloc[self.order].reset_index(drop=True)

    def with_contexts(self, context: Callable[[int], Context], top: int = _SHOWN) -> Separating:
        """Return a copy that shows the examples of the `top` most telling bits in context.

        Args:
            context: from a row to the text on its left, its token, and the text on its right.
            top: how many bits.

        """
        found = {
            int(bit): (
                tuple(context(int(row)) for row in self.examples_a[bit] if row >= 0),
                tuple(context(int(row)) for row in self.examples_b[bit] if row >= 0),
            )
            for bit in self.order[:top]
        }
        return replace(self, contexts=found)

    def __repr__(self) -> str:
        groups = f"a ({self.n_a:,} tokens) from b ({self.n_b:,} tokens)"
        found = f"{len(self.significant):,} of {len(self.q):,} bits separate {groups}"
        return f"{found} at a false discovery rate of {self.alpha:g}: {self.test}, n = {self.units:,}"

    def _repr_html_(self) -> str:
        frame = self.to_frame().head(_SHOWN)
        if self.contexts:
            for group, name in enumerate(("examples in a", "examples in b")):
                frame[name] = [self._examples(int(bit), group) for bit in frame["bit"]]
        for column in ("p", "q"):
            frame[column] = [f"{value:.2g}" for value in frame[column]]
        table = frame.to_html(index=False, escape=False, float_format=lambda value: f"{value:.3f}")
        return f"<p>{escape(repr(self))}</p>{table}"

    def _examples(self, bit: int, group: int) -> str:
        parts = self.contexts.get(bit, ((), ()))[group]
        return "<br>".join("{}<b>{}</b>{}".format(*(escaped(text) for text in context)) for context in parts)


def separating(
    packed: UInt8[np.ndarray, "T B"],
    width: int,
    rows_a: Any,
    rows_b: Any,
    *,
    alpha: float = 0.05,
    documents: Any = None,
    examples: int = 3,
    seed: int = 0,
) -> Separating:
    """Find the bits that tell the tokens `rows_a` from the tokens `rows_b`.

    Args:
        packed: packed codes of one site.
        width: N, its number of bits.
        rows_a: rows of one group, or a mask over all rows.
        rows_b: rows of the other; the groups may not overlap.
        alpha: false discovery rate.
        documents: the document of every row of `packed`. With it, documents are the units of the test;
            without it, tokens are, which are not independent where they share a document.
        examples: rows kept per bit and group.
        seed: of the exchanges.

    Raises:
        PolytopeError: an empty group, rows in both groups, twice in one or out of range, a wrong width, alpha
            outside (0, 1), or documents that do not fit the rows.

    """
    a, b = _rows(rows_a, len(packed), "a"), _rows(rows_b, len(packed), "b")
    _check(a, b, alpha)
    codes_a, codes_b = packed[a], packed[b]
    on_a, on_b = hamming.counts(codes_a, width), hamming.counts(codes_b, width)
    odds = np.log((on_a + 0.5) * (len(b) - on_b + 0.5) / ((len(a) - on_a + 0.5) * (on_b + 0.5)))
    low = high = np.full(width, np.nan)
    if documents is None:
        p, test = fisher(on_a, on_b, len(a), len(b)), "Fisher's exact test over tokens"
        units = len(a) + len(b)
    else:
        labels = _documents(documents, len(packed))
        group = np.repeat(np.array([0, 1], np.int64), [len(a), len(b)])
        cells = Cells(np.concatenate([codes_a, codes_b]), width, group, np.concatenate([labels[a], labels[b]]))
        found = cells.against_rest(0, seed=seed)
        p, test, units, low, high = found.p, found.test, found.units, found.low, found.high
    return Separating(
        log_odds=odds,
        rate_a=on_a / len(a),
        rate_b=on_b / len(b),
        p=p,
        q=np.asarray(false_discovery_control(p)),
        alpha=alpha,
        test=test,
        units=units,
        n_a=len(a),
        n_b=len(b),
        low=low,
        high=high,
        examples_a=_examples(codes_a, a, odds > 0, examples),
        examples_b=_examples(codes_b, b, odds <= 0, examples),
    )


def fisher(on_a: Int[np.ndarray, " N"], on_b: Int[np.ndarray, " N"], n_a: int, n_b: int) -> Float[np.ndarray, " N"]:
    """Return Fisher's two-sided exact p value of every table `[[on_a, n_a - on_a], [on_b, n_b - on_b]]`.

    The sum of the hypergeometric probabilities of all tables with the same margins that are no likelier
    than the one seen (within a relative 1e-7, as R's `fisher.test`). Tables that share their margins share
    the work.
    """
    logs = gammaln(np.arange(n_a + n_b + 1) + 1.0)
    total = on_a + on_b
    p = np.ones(len(on_a))
    for k in np.unique(total):
        here = total == k
        least, most = max(0, k - n_b), min(k, n_a)
        x = np.arange(least, most + 1)
        log_ways = -(logs[x] + logs[k - x] + logs[n_a - x] + logs[n_b - k + x])
        probability = np.exp(log_ways - log_ways.max())
        ranked = np.sort(probability)
        sums = np.cumsum(ranked) / ranked.sum()
        seen = probability[on_a[here] - least]
        p[here] = sums[np.searchsorted(ranked, seen * (1 + 1e-7), side="right") - 1]
    return np.minimum(p, 1.0)


def _examples(
    codes: UInt8[np.ndarray, "L B"], rows: Int64[np.ndarray, " L"], wanted: Bool[np.ndarray, " N"], n: int
) -> Int64[np.ndarray, "N E"]:
    """Return for each bit the first `n` rows in which it is as wanted; -1 where there are fewer."""
    found = np.full((len(wanted), n), -1, np.int64)
    filled = np.zeros(len(wanted), np.int64)
    for code, row in zip(codes, rows, strict=True):
        hits = np.flatnonzero((hamming.unpack(code, len(wanted)) == wanted) & (filled < n))
        found[hits, filled[hits]] = row
        filled[hits] += 1
        if (filled == n).all():
            break
    return found


def _rows(rows: Any, n: int, name: str) -> Int64[np.ndarray, " L"]:
    rows = np.asarray(rows)
    if rows.dtype == np.bool_ and rows.shape == (n,):
        return np.flatnonzero(rows)
    if rows.size == 0:
        return np.empty(0, np.int64)
    if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer):
        got = f"group {name} has type {rows.dtype} and shape {rows.shape}"
        raise PolytopeError(f"{got}; give row numbers or a mask of {n} rows")
    outside = rows[(rows < 0) | (rows >= n)]
    if outside.size:
        raise PolytopeError(
            f"group {name} has row {outside[0]}, but the rows go from 0 to {n - 1}; take rows of these codes"
        )
    values, times = np.unique(rows, return_counts=True)
    if len(values) < len(rows):
        raise PolytopeError(f"group {name} has row {values[times > 1][0]} more than once; give every token once")
    return np.asarray(rows, np.int64)


def _check(a: Int64[np.ndarray, " L"], b: Int64[np.ndarray, " M"], alpha: float) -> None:
    for name, rows in (("a", a), ("b", b)):
        if len(rows) == 0:
            raise PolytopeError(
                f"group {name} is empty; give at least one row (is the label spelled as in codes.tokens?)"
            )
    both = np.intersect1d(a, b)
    if len(both):
        raise PolytopeError(f"row {both[0]} and {len(both) - 1} more are in both groups; a token can be in one only")
    if not 0 < alpha < 1:
        raise PolytopeError(f"alpha is {alpha}; give a false discovery rate between 0 and 1, such as 0.05")


def _documents(documents: Any, n: int) -> Int64[np.ndarray, " T"]:
    labels = np.asarray(documents)
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        shape = f"type {labels.dtype} and shape {labels.shape}"
        raise PolytopeError(
            f"documents have {shape}; give the document's number for each of {n} rows (codes.tokens.document)"
        )
    return np.asarray(labels, np.int64)
