from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from polytope_lm.errors import PolytopeError
from polytope_lm.representations.binary import code, rate_standardised_code
from polytope_lm.representations.directions import cosine_centred, cosine_raw
from polytope_lm.representations.distances import pairwise
from polytope_lm.representations.registry import Rows

H = (np.random.default_rng(0).normal(size=(50, 37)) + 0.7).astype(np.float32)
BITS = H > 0


def test_code_distances_count_the_bits_that_differ() -> None:
    packed = np.packbits(BITS, axis=1, bitorder="little")
    found = pairwise(code(packed))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, cdist(BITS, BITS, "hamming") * BITS.shape[1])


@pytest.mark.parametrize("make", [cosine_raw, cosine_centred])
def test_cosine_distances(make) -> None:
    values = H if make is cosine_raw else H - H.mean(axis=0)
    found = pairwise(make(H))
    np.testing.assert_allclose(found, cdist(values, values, "cosine"), atol=2e-6)
    assert (np.diag(found) == 0).all()
    assert (found >= 0).all()


def test_centring_removes_a_mean_that_raw_cosine_reads_as_likeness() -> None:
    shifted = H + 100
    assert pairwise(cosine_raw(shifted)).max() < 0.01
    np.testing.assert_allclose(pairwise(cosine_centred(shifted)), pairwise(cosine_centred(H)), atol=1e-4)


def test_standardised_bits_have_unit_spread_and_constant_ones_are_dropped_and_counted() -> None:
    bits = BITS.copy()
    bits[:, 3], bits[:, 9], bits[:, 20] = True, False, False
    rows = rate_standardised_code(bits, bits.mean(axis=0))
    assert rows.dropped_bits == 3
    assert rows.values.shape == (50, 34)
    np.testing.assert_allclose(rows.values.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(rows.values.std(axis=0), 1, atol=1e-5)
    with pytest.raises(PolytopeError, match="none of 2 bits changes over these 5 tokens"):
        rate_standardised_code(np.ones((5, 2), dtype=bool), np.ones(2))


def test_a_zero_vector_has_no_cosine_and_is_named() -> None:
    values = np.ones((4, 3), dtype=np.float32)
    values[2] = 0
    with pytest.raises(PolytopeError, match="row 2 of cosine of h, raw is the zero vector"):
        pairwise(Rows(values), "cosine of h, raw")


def test_rows_near_the_ends_of_float32_keep_their_cosine() -> None:
    values = np.array([[1, 2], [2, 1], [3, -1]])
    for scale in (1e-30, 1e30):
        found = pairwise(Rows((values * scale).astype(np.float32)))
        np.testing.assert_allclose(found, cdist(values, values, "cosine"), atol=1e-6)
