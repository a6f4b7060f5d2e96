"""What chance gives: random groups of the same sizes, permutation p-values, the interval of a frequency.

Random groups of the same sizes are a permutation of the group ids among the tokens, freely or within strata.
Freely, they say what sizes alone give. Within a document they keep what the document brings, within a token
identity they keep what the word brings, so that only the rest can be ahead of them.

`p = (1 + #{draws at least as good}) / (1 + draws)`, one-sided: a permutation test that counts the observed
grouping among its own permutations never gives 0 (Phipson & Smyth, "Permutation p-values should never be
zero", 2010).

A frequency in repeated runs has the exact binomial interval (Clopper & Pearson, "The use of confidence or
fiducial limits illustrated in the case of the binomial", Biometrika 1934): it covers at least 95 %, also
where nothing happened at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.stats import binomtest

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaxtyping import Bool, Float, Int, Shaped

Better = Literal["higher", "lower"]
NOISE = -1
_TIES = 1e-9
"""Draws that equal the score but for rounding are ties, which count as at least as good."""


@dataclass(frozen=True)
class AgainstNull:
    """A score, and what random groups of the same sizes score.

    Attributes:
        value: the score.
        mean: mean over the random groupings.
        sd: their standard deviation.
        z: `(value - mean) / sd`; None where random groupings do not differ (sd 0).
        p: one-sided: how often a random grouping is at least as good.
        draws: random groupings.

    """

    value: float
    mean: float
    sd: float
    z: float | None
    p: float
    draws: int

    def __str__(self) -> str:
        z = "no spread" if self.z is None else f"z = {self.z:.1f}"
        return f"{self.value:.3f} (chance {self.mean:.3f}, {z}, p = {self.p:.2g})"


def against(value: float, null: Float[np.ndarray, " draws"], better: Better) -> AgainstNull:
    """Put a score beside the same score of random groupings; `better` says which way is more monosemantic."""
    slack = _TIES * max(1.0, abs(value))
    as_good = null >= value - slack if better == "higher" else null <= value + slack
    sd = float(null.std(ddof=1)) if len(null) > 1 else 0.0
    mean = float(null.mean())
    z = None if sd <= slack else float((value - mean) / sd)
    return AgainstNull(float(value), mean, sd, z, float((1 + as_good.sum()) / (1 + len(null))), len(null))


def random_groups(
    groups: Int[np.ndarray, " n"], *, draws: int, seed: int, within: Int[np.ndarray, " n"] | None = None
) -> Iterator[Int[np.ndarray, " n"]]:
    """Yield groupings with the same sizes, the group ids permuted among all tokens or within strata."""
    if draws < 1:
        raise PolytopeError(f"draws = {draws} random groupings; at least 1 is needed, 200 is the default")
    rng = np.random.default_rng(seed)
    if within is None:
        for _ in range(draws):
            yield rng.permutation(groups)
        return
    place = np.argsort(within, kind="stable")
    for _ in range(draws):
        # Sorted by stratum and, inside it, by a random key: a uniform permutation of each stratum.
        source = np.lexsort((rng.random(len(groups)), within))
        out = np.empty_like(groups)
        out[place] = groups[source]
        yield out


def counted(groups: Shaped[np.ndarray, " n"], *columns: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Return which tokens are in a group (not `NOISE`), checking that all columns speak of the same tokens."""
    for column in columns:
        if len(column) != len(groups):
            raise PolytopeError(f"{len(groups)} group ids for {len(column)} tokens; give one a token, -1 for noise")
    if not np.issubdtype(groups.dtype, np.integer):
        raise PolytopeError(f"group ids are {groups.dtype}; give whole numbers, -1 for noise")
    if len(groups) and int(groups.min()) < NOISE:
        raise PolytopeError(f"group id {int(groups.min())}; ids are 0 and up, and -1 is noise")
    inside = groups != NOISE
    if not inside.any():
        raise PolytopeError(f"none of {len(groups)} tokens is in a group (all -1); cluster with other settings")
    return np.asarray(inside)


def strata(*columns: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Return one id for each combination of the columns' values that occurs, 0 and up."""
    out = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        ids = np.unique(column, return_inverse=True)[1]
        # Renumbered each time, so that ids of pairs stay below the square of the number of tokens.
        out = np.unique(out * (int(ids.max(initial=0)) + 1) + ids, return_inverse=True)[1]
    return out


@dataclass(frozen=True)
class Rate:
    """A frequency and its 95 % interval.

    Attributes:
        events: runs in which it happened.
        runs: all runs.
        low: lower end of the interval of `value`.
        high: upper end.

    """

    events: int
    runs: int
    low: float
    high: float

    @classmethod
    def of(cls, events: int, runs: int) -> Rate:
        """Return the rate of `events` in `runs`."""
        if not 0 <= events <= runs or runs < 1:
            raise PolytopeError(f"{events} events in {runs} runs are no rate; give at least one run")
        found = binomtest(events, runs).proportion_ci(0.95, method="exact")
        return cls(events, runs, float(found.low), float(found.high))

    @property
    def value(self) -> float:
        """The share of runs."""
        return self.events / self.runs

    def __str__(self) -> str:
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}] ({self.events} of {self.runs})"
