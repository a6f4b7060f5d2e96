from __future__ import annotations

import numpy as np
import pytest

from benchmarks.boundary_calibration import judged, shuffled
from polytope_lm.errors import PolytopeError
from polytope_lm.paths.solve.line import in_layer_crossings
from polytope_lm.worlds import boundary_world, distance_world, flipback_world
from polytope_lm.worlds.pair_worlds import FLIP_BACKS, peak


def _peak(world):
    found = in_layer_crossings(world.geometry, world.a, world.b, at="mlp_in")
    return found, peak(world, found.pair, found.t)


def test_density_peaks_where_the_network_was_built_to() -> None:
    world = boundary_world(seed=1)
    found, seen = _peak(world)
    assert world.ratio == pytest.approx(7)
    assert seen.ratio == pytest.approx(world.ratio, rel=0.15)
    assert seen.peaked > 0.95
    assert found.counts[world.different].mean() > 2 * found.counts[~world.different].mean()


def test_a_world_says_what_it_is_in_a_line() -> None:
    said = repr(boundary_world(seed=0))
    assert said.startswith("BoundaryWorld: 200 pairs, 100 different; 120 neurons, boundaries ")
    assert said.endswith(" times as dense at the zone")


def test_an_even_network_has_no_peak() -> None:
    world = boundary_world(near=20, far=140, seed=1)
    _, seen = _peak(world)
    assert world.ratio == pytest.approx(1)
    assert seen.ratio == pytest.approx(1, abs=0.15)
    assert seen.peaked < 0.5


def test_paths_are_of_one_length_and_only_different_ones_cross_the_zone() -> None:
    world = boundary_world(seed=2)
    lengths = np.linalg.norm(world.b - world.a, axis=1)
    np.testing.assert_allclose(lengths, lengths[0])
    sides = [np.sign(end @ world.direction) for end in (world.a, world.b)]
    np.testing.assert_array_equal(sides[0] != sides[1], world.different)
    assert (np.abs(world.a @ world.direction) >= world.width - 1e-9).all()


def test_its_output_is_piecewise_linear_with_those_boundaries() -> None:
    world = boundary_world(4, near=3, far=3, seed=0)
    found = in_layer_crossings(world.geometry, world.a, world.b, at="mlp_in")
    t = np.linspace(0, 1, 4001)[:, None]
    for row in range(4):
        bends = np.abs(np.diff(world.output((1 - t) * world.a[row] + t * world.b[row]), 2)) > 1e-8
        runs = np.flatnonzero(bends)
        assert (np.diff(runs) > 2).sum() + (len(runs) > 0) == found.counts[row]


def test_an_impossible_world_is_an_error() -> None:
    with pytest.raises(PolytopeError, match="width=2"):
        boundary_world(width=2)


def _found(make, runs: int) -> tuple[int, int, float, float]:
    """Return how many tables are supported, how many intervals exclude no effect, and the mean AUCs."""
    found = [judged(make(seed), seed) for seed in range(runs)]
    away = sum(not low <= 0 <= high for each in found for _, low, high in each["cells"])
    raw, beyond = (np.mean([each["scores"][name] for each in found]) for name in ("raw AUC", "AUC beyond covariates"))
    return sum(each["outcome"] == "supported" for each in found), away, raw, beyond


def test_distance_alone_is_not_supported_and_flip_backs_are() -> None:
    supported, away, raw, beyond = _found(lambda seed: distance_world(seed=seed), 25)
    assert raw > 0.65
    assert supported <= 2
    assert away <= 6
    assert abs(beyond - 0.5) < 0.02
    supported, _, _, beyond = _found(lambda seed: flipback_world(seed=seed), 10)
    assert supported >= 9
    assert beyond == pytest.approx(0.66, abs=0.03)


def test_permuted_labels_keep_their_groups_and_mean_nothing() -> None:
    table = flipback_world(seed=0)
    made = shuffled(table, 1)
    assert (made.different != table.different).any()
    for group in np.unique(table.group):
        rows = table.group == group
        assert made.different[rows].sum() == table.different[rows].sum()
    assert _found(lambda seed: shuffled(flipback_world(seed=seed), seed), 12)[0] <= 1


def test_classes_of_the_flip_back_world_have_one_distance() -> None:
    table = flipback_world(20_000, groups=60, seed=0)
    for name, values in table.covariates.items():
        gap = values[table.different].mean() - values[~table.different].mean()
        assert abs(gap) < 0.05 * values.std(), name
    flips = table.outcomes[FLIP_BACKS]
    assert flips[table.different].mean() / flips[~table.different].mean() == pytest.approx(np.exp(0.2), rel=0.05)
