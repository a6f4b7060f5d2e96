"""Other readings of a direction, the neuron lens, and directions found in the data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import adjusted_mutual_info_score

from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import Premises, Site
from polytope_lm.representations import directions
from polytope_lm.representations.directions import k_means_directions, nmf_directions, top_neuron
from polytope_lm.representations.distances import pairwise
from polytope_lm.representations.registry import get
from polytope_lm.statistics.clustering import k_medoids

RNG = np.random.default_rng(0)
A, B = ((RNG.normal(size=(50, 20)) + 0.7).astype(np.float32) for _ in range(2))
GATE = Site(4, "gate", "blocks.4.mlp.hook_pre", 20, 6, Premises("gated", "silu", False, "RMSNorm"))


@pytest.mark.parametrize("of", ["u", "post", "x"])
def test_each_direction_raw_and_centred(of: str) -> None:
    raw, centred = (getattr(directions, f"{of}_{how}")(A) for how in ("raw", "centred"))
    np.testing.assert_allclose(pairwise(raw), cdist(A, A, "cosine"), atol=2e-6)
    middle = A - A.mean(axis=0)
    np.testing.assert_allclose(pairwise(centred), cdist(middle, middle, "cosine"), atol=2e-6)
    assert get(f"cosine of {of}, centred").needs == (of,)
    assert get(f"cosine of {of}, raw").role == "other"


def test_both_branches_stand_side_by_side() -> None:
    both = np.concatenate([A, B], axis=1)
    found = pairwise(directions.gate_and_up_raw(A, B, GATE))
    np.testing.assert_allclose(found, cdist(both, both, "cosine"), atol=2e-6)
    found = pairwise(directions.gate_and_up_centred(A, B, GATE))
    both = both - both.mean(axis=0)
    np.testing.assert_allclose(found, cdist(both, both, "cosine"), atol=2e-6)
    for make in (directions.gate_and_up_raw, directions.gate_and_up_centred):
        with pytest.raises(PolytopeError, match=r"'cosine of \(g, up\), (raw|centred)' needs codes of kind 'gate'"):
            make(A, B, replace(GATE, kind="up"))


def test_two_tokens_are_alike_if_their_top_neuron_is_the_same() -> None:
    found = pairwise(top_neuron(A - 1.4))
    top = np.abs(A - 1.4).argmax(axis=1)
    np.testing.assert_array_equal(found, top[:, None] != top)
    assert 0 < (found == 0).mean() < 0.5


def _parts(sign: float) -> tuple[np.ndarray, np.ndarray]:
    """Six groups of tokens, each along a direction of its own at lengths from 1 to 10, with little noise."""
    rng = np.random.default_rng(1)
    group = rng.integers(0, 6, 300)
    axis = np.eye(6, 40)[group] * rng.uniform(1, 10, (300, 1))
    axis[:, 20:26] -= sign * axis[:, :6]
    return group, (axis + 0.05 * rng.normal(size=(300, 40))).astype(np.float32)


@pytest.mark.parametrize("make", [nmf_directions, k_means_directions])
def test_planted_directions_are_found_whatever_their_length(make) -> None:
    group, h = _parts(1.0)
    rows = make(h, seed=0)
    assert rows.values.shape == (300, 40 if make is nmf_directions else 50)
    assert adjusted_mutual_info_score(group, k_medoids(pairwise(rows), 6, seed=0)) > 0.95
    np.testing.assert_array_equal(make(h, seed=0).values, rows.values)


def test_nmf_sees_the_positive_part_alone_and_is_non_negative() -> None:
    _, h = _parts(0.0)
    _, other = _parts(1.0)
    rows = nmf_directions(h, seed=0).values
    assert (rows >= 0).all()
    np.testing.assert_array_equal(
        nmf_directions(np.maximum(other, 0), seed=0).values, nmf_directions(other, seed=0).values
    )


def test_k_means_directions_do_not_see_a_common_mean() -> None:
    _, h = _parts(1.0)
    moved = pairwise(k_means_directions(h + 64, seed=0))
    np.testing.assert_allclose(moved, pairwise(k_means_directions(h, seed=0)), atol=1e-3)
