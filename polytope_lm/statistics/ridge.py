"""Ridge regression with the penalty chosen on rows that were held out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import solve

if TYPE_CHECKING:
    from jaxtyping import Float

PENALTIES = (1.0, 10.0, 100.0, 1000.0, 10000.0)
HELD_OUT = 5
"""One row in so many chooses the penalty, unless the caller says which."""


def ridge(
    X: Float[np.ndarray, "T F"], Y: Float[np.ndarray, "T D"], held: np.ndarray
) -> tuple[Float[np.ndarray, "F D"], Float[np.ndarray, " D"], float]:
    """Return weight, intercept and penalty of a ridge regression, the penalty chosen on held-out rows.

    `min |Y - X W - b|^2 + penalty |W|^2`, as scikit-learn's `Ridge`; one Gram matrix serves all penalties.
    """
    if not 0 < held.sum() < len(X):
        held = np.arange(len(X)) % HELD_OUT == 0
    best: tuple[float, float] | None = None
    x_mean, y_mean = X[~held].mean(0), Y[~held].mean(0)
    A, B = X[~held] - x_mean, Y[~held] - y_mean
    gram, moments = A.T @ A, A.T @ B
    for penalty in PENALTIES:
        W = _solved(gram, moments, penalty)
        error = float(np.square((X[held] - x_mean) @ W - (Y[held] - y_mean)).sum(dtype=np.float64))
        best = min(best or (error, penalty), (error, penalty))
    assert best is not None  # noqa: S101 - there are penalties
    x_mean, y_mean = X.mean(0), Y.mean(0)
    A, B = X - x_mean, Y - y_mean
    W = _solved(A.T @ A, A.T @ B, best[1])
    return W.astype(np.float32), (y_mean - x_mean @ W).astype(np.float32), best[1]


def _solved(gram: np.ndarray, moments: np.ndarray, penalty: float) -> np.ndarray:
    found: np.ndarray = solve(gram + penalty * np.eye(len(gram), dtype=gram.dtype), moments, assume_a="pos")
    return found
