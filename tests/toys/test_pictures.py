"""The figures show the regions: every boundary, every crease, every dual point."""

from __future__ import annotations

import numpy as np
import pytest

from polytope_lm import toys
from polytope_lm.errors import PolytopeError
from polytope_lm.toys.pictures import zeros


@pytest.fixture(scope="module")
def found():
    (trained,) = toys.fit(toys.task("xor", 100), (5, 4), [1], steps=80)
    return toys.regions(trained.network, (-1.0, 1.0, -1.0, 1.0))


def pairs(trace):
    """The segments of a trace of joined lines."""
    x, y = (np.array(trace[axis], float) for axis in "xy")
    return np.stack([np.stack([x[::3], y[::3]], axis=1), np.stack([x[1::3], y[1::3]], axis=1)], axis=1)


def test_boundaries_are_where_their_layer_is_zero(found):
    figure = toys.above(found, "a <b>title</b>")
    assert figure.layout.title.text == "a &lt;b&gt;title&lt;/b&gt;"
    for layer in range(2):
        (trace,) = [t for t in figure.data if t.name == f"boundaries of layer {layer + 1}"]
        middles = pairs(trace).mean(axis=1)
        assert len(middles)
        assert np.abs(found.network.pre(middles)[layer]).min(axis=1).max() < 1e-9


def test_the_thick_line_is_where_the_output_is_zero(found):
    segments = zeros(found)
    assert len(segments)
    np.testing.assert_allclose(found.network.output(segments.reshape(-1, 2)), 0, atol=1e-9)


def test_the_sheet_is_the_output(found):
    mesh = toys.origami(found).data[0]
    points = np.stack([mesh.x, mesh.y], axis=1)
    np.testing.assert_allclose(mesh.z, found.network.output(points)[:, 0], atol=1e-9)
    corners = points[np.stack([mesh.i, mesh.j, mesh.k], axis=1)]
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    assert np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / 2 == pytest.approx(4.0)
    middles = corners.mean(axis=1)  # flat: a triangle's middle lies on the sheet
    heights = np.asarray(mesh.z)[np.stack([mesh.i, mesh.j, mesh.k], axis=1)].mean(axis=1)
    np.testing.assert_allclose(heights, found.network.output(middles)[:, 0], atol=1e-9)


def test_dual_points_are_slopes(found):
    trace = toys.dual(found).data[0]
    step = 1e-6
    moved = found.network.output(found.centres + np.array([step, 0]))[:, 0]
    slope = (moved - found.network.output(found.centres)[:, 0]) / step
    large = found.areas > 1e-4
    np.testing.assert_allclose(np.asarray(trace.x)[large], slope[large], atol=1e-5)


def test_the_image_shows_the_regions_from_above_and_folded(found):
    pytest.importorskip("PIL", reason="needs Pillow (extra docs)")
    flat = np.asarray(toys.image(found, 100)).astype(int)
    assert flat.shape == (100, 100, 3)
    values = np.array([found.values[list(face), 0].mean() for face in found.faces])
    largest = int(np.argmax(found.areas))
    x, y = (found.centres[largest] + 1) / 2 * 100
    red, _, blue = flat[int(99 - y), int(x)]
    assert (blue > red) == (values[largest] > 0)
    sheet = np.asarray(toys.image(found, 100, folded=True))
    assert (sheet != flat).any()
    assert (np.asarray(toys.image(found, 100, folded=True, turn=2.0)) != sheet).any()
    np.testing.assert_array_equal(toys.image(found, 100, folded=True, turn=0.6 + 2 * np.pi), sheet)
    with pytest.raises(PolytopeError, match="side=0"):
        toys.image(found, 0)
