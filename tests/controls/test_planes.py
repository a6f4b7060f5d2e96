from __future__ import annotations

from itertools import pairwise

import numpy as np

from polytope_lm.controls.planes import rate_matched_planes

RNG = np.random.default_rng(0)
U = {2: RNG.standard_normal((40, 6)), 3: RNG.standard_normal((40, 6))}
BITS = {layer: RNG.random((40, 11)) < np.linspace(0, 1, 11) for layer in U}
BITS[2][:, 0], BITS[2][:, -1] = False, True  # a dead neuron and one that is always on


def test_each_plane_is_on_as_often_as_its_neuron() -> None:
    planes = rate_matched_planes(U, BITS, draws=3, seed=1)
    for layer, u in U.items():
        on = u.astype(np.float32) @ planes.normals[layer].T > planes.thresholds[layer]
        np.testing.assert_array_equal(on.sum(axis=0), np.tile(BITS[layer].sum(axis=0), 3))


def test_crossings_are_sign_changes_along_the_path() -> None:
    planes = rate_matched_planes(U, BITS, draws=2, seed=1)
    path = RNG.standard_normal((9, 6)).cumsum(axis=0)
    crossed, apart = planes.crossings(3, path)
    h = path.astype(np.float32) @ planes.normals[3].T - planes.thresholds[3]
    for draw in range(2):
        mine = h[:, draw * 11 : (draw + 1) * 11] > 0
        assert crossed[draw] == sum((a != b).sum() for a, b in pairwise(mine))
        assert apart[draw] == (mine[0] != mine[-1]).sum()
    assert (crossed >= apart).all()


def test_a_line_meets_each_plane_once() -> None:
    planes = rate_matched_planes(U, BITS, draws=2, seed=1)
    line = np.linspace(0, 1, 20)[:, None] * U[2][0] + np.linspace(1, 0, 20)[:, None] * U[2][1]
    crossed, apart = planes.crossings(2, line)
    np.testing.assert_array_equal(crossed, apart)


def test_draws_and_layers_differ_and_a_seed_decides() -> None:
    one, same, other = (rate_matched_planes(U, BITS, draws=2, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.normals[2], same.normals[2])
    assert not np.allclose(one.normals[2], other.normals[2])
    assert not np.allclose(one.normals[2], one.normals[3])
    assert not np.allclose(one.normals[2][:11], one.normals[2][11:])
