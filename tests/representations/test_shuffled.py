from __future__ import annotations

import numpy as np

from polytope_lm.representations.controls import shuffled_bits
from polytope_lm.representations.registry import get


def _unpack(rows, width: int) -> np.ndarray:
    return np.unpackbits(rows.values, axis=1, count=width, bitorder="little").astype(bool)


def test_rates_stay_and_joint_structure_goes() -> None:
    rng = np.random.default_rng(0)
    group = rng.integers(0, 2, 400)
    bits = (rng.random((2, 300)) < 0.5)[group] ^ (rng.random((400, 300)) < 0.1)
    made = _unpack(shuffled_bits(bits, seed=0), 300)
    np.testing.assert_array_equal(made.sum(axis=0), bits.sum(axis=0))
    real, lost = (np.abs(np.corrcoef(each.T)[np.triu_indices(300, 1)]) for each in (bits, made))
    assert real.mean() > 0.15
    # Independent columns correlate by 1 / sqrt(T), 0.05 here, times sqrt(2 / pi).
    assert lost.mean() < 0.045
    assert (made != _unpack(shuffled_bits(bits, seed=1), 300)).any()


def test_registered_as_a_control_of_firing_rates() -> None:
    assert get("shuffled bits").role == "control"
    assert get("shuffled bits").isolates.startswith("firing rates alone")
