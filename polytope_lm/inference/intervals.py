"""Intervals from delete-half resampling of documents.

Tokens of one document depend on each other, so the document is the unit. The ordinary bootstrap repeats
documents, and repeated rows raise AMI, neighbour agreement and purity by themselves (it gave 40 false
positives in 40 nulls where cluster sizes differed). So each draw keeps half of the documents, each once.

Why the spread over halves needs no scale factor: for a statistic whose variance goes as 1/n, the delete-d
jackknife estimates `var(theta_n) = (n - d)/d * mean((theta_S - theta)^2)` over subsets S of n - d documents
(Shao & Wu, "A general theory for jackknife variance estimation", Annals of Statistics 1989). Of two causes, a
half has twice the variance of the whole, and two halves out of one sample share documents, which takes it
back: at d = n/2 the factor (n - d)/d is 1. With an odd number the larger half is kept and the factor, just
above 1, is applied.

The interval is `point on all documents +/- 1.96 sd`: a percentile interval of the halves would be centred on
the statistic of *half* the documents, which for AMI and for neighbours is another number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

Z = 1.96
MIN_DOCUMENTS = 10
"""Ten documents have 252 halves, the first number that 200 draws do not exhaust."""


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval, `value +/- 1.96 sd` over delete-half resamples of documents."""

    value: float
    sd: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def half_samples(documents: int, draws: int, *, seed: int) -> Bool[np.ndarray, "draws documents"]:
    """Return which documents each draw keeps: ceil(documents/2) of them, each at most once.

    Raises:
        PolytopeError: fewer than 10 documents, or fewer than 2 draws.

    """
    if documents < MIN_DOCUMENTS:
        msg = (
            f"{documents} documents are too few to resample; at least {MIN_DOCUMENTS} are needed, add "
            "documents"
        )
        raise PolytopeError(msg)
    if draws < 2:
        msg = f"resamples = {draws} gives no spread; at least 2 are needed, 200 is the default"
        raise PolytopeError(msg)
    rng = np.random.default_rng(seed)
    order = rng.permuted(np.tile(np.arange(documents), (draws, 1)), axis=1)
    kept = np.zeros((draws, documents), dtype=bool)
    np.put_along_axis(kept, order[:, : -(-documents // 2)], values=True, axis=1)
    return kept


def estimate(value: float, draws: Float[np.ndarray, " draws"], documents: int) -> Estimate:
    """Return the statistic on all documents with its interval from the same statistic on halves.

    Args:
        value: the statistic on all documents.
        draws: the statistic on each of `half_samples`.
        documents: how many documents there are.

    Raises:
        PolytopeError: the statistic does not exist on some half.

    """
    if not (np.isfinite(draws).all() and np.isfinite(value)):
        msg = (
            f"a score does not exist on some halves of {documents} documents, where it has no token left to "
            "count; add documents or choose another label"
        )
        raise PolytopeError(msg)
    kept = -(-documents // 2)
    sd = float(np.sqrt(kept / (documents - kept)) * np.std(draws, ddof=1))
    return Estimate(value=float(value), sd=sd, low=float(value - Z * sd), high=float(value + Z * sd))
