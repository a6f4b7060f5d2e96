from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from polytope_lm.errors import PolytopeError
from polytope_lm.statistics.similarity import js_divergences


def _distributions(n: int, width: int, spread: float, seed: int = 0) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=(n, width)) * spread
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p[:, ::7] = 0  # entries that none of them has
    return (p / p.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(("n", "width", "spread"), [(1, 10, 1), (2, 3, 1), (9, 5000, 3), (12, 4097, 12)])
def test_divergences_are_scipys_in_bits(n: int, width: int, spread: float) -> None:
    p = _distributions(n, width, spread)
    found = js_divergences(p)
    wide = p.astype(np.float64)
    expected = [[jensenshannon(a, b, base=2) ** 2 for b in wide] for a in wide]
    assert found == pytest.approx(np.nan_to_num(np.array(expected)), abs=2e-6)
    assert (found == found.T).all()
    assert (np.diag(found) == 0).all()


def test_disjoint_distributions_are_one_bit_apart() -> None:
    found = js_divergences(np.eye(4, dtype=np.float32))
    assert found == pytest.approx(1 - np.eye(4), abs=1e-6)


@pytest.mark.parametrize("bad", [np.nan, -0.5, 2.0])
def test_what_is_no_distribution_is_refused(bad: float) -> None:
    p = np.eye(3, dtype=np.float32)
    p[1, 1] = bad
    with pytest.raises(PolytopeError, match=r"row 1 .* no distribution"):
        js_divergences(p)
