"""Arcs: points, lengths, and crossings against dense grids and the identities of any exact count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths.solve.test_line import geometry, line, pre

from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import Geometry
from polytope_lm.paths.solve import curves
from polytope_lm.paths.solve.arc import arc_crossings
from polytope_lm.paths.solve.line import in_layer_crossings

NORMS = ("LayerNorm", "RMSNorm", "none")


def along(site, a, b, t, at):
    """Slerp of `C x` written down plainly, with norm and mean interpolated linearly."""
    centred = at == "resid_mid" and site.norm == "LayerNorm"
    means = (a.mean(), b.mean()) if centred else (0.0, 0.0)
    y, z = a - means[0], b - means[1]
    m, n = np.linalg.norm(y), np.linalg.norm(z)
    angle = np.arccos(np.clip(y @ z / m / n, -1, 1))
    t = np.asarray(t)[:, None]
    unit = (np.sin((1 - t) * angle) * y / m + np.sin(t * angle) * z / n) / np.sin(angle)
    return ((1 - t) * m + t * n) * unit + (1 - t) * means[0] + t * means[1]


def h_along(site, a, b, t, at):
    x = along(site, a, b, t, at)
    return pre(site, x) if at == "resid_mid" else x @ site.weight.T.astype(float) + site.bias


def check_grid(site, a, b, at, steps=20_000):
    found = arc_crossings(site, a, b, at=at)
    t = np.linspace(0, 1, steps + 1)
    on = h_along(site, a, b, t, at) > 0
    step, neuron = np.nonzero(on[1:] != on[:-1])
    order, theirs = np.lexsort((found.t, found.neuron)), np.lexsort((step, neuron))
    assert (np.diff(found.t) >= 0).all()
    np.testing.assert_array_equal(found.neuron[order], neuron[theirs])
    np.testing.assert_array_equal(found.on[order], on[step[theirs] + 1, neuron[theirs]])
    assert (found.t[order] >= t[step[theirs]] - 1e-9).all()
    assert (found.t[order] <= t[step[theirs] + 1] + 1e-9).all()
    assert found.hamming[0] == (on[0] != on[-1]).sum()
    return found


@pytest.mark.parametrize("at", ["resid_mid", "mlp_in"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_closed_form_finds_what_a_dense_grid_finds(norm, biased, at, seed):
    rng = np.random.default_rng(seed)
    site = geometry(norm, biased=biased, seed=seed, n=200, spread=2.0)
    a, b = rng.normal(size=(2, 12)) * np.array([[0.3], [2.0]])
    check_grid(site, a, b - (seed % 2) * a, at)


@pytest.mark.parametrize("at", ["resid_mid", "mlp_in"])
def test_ends_of_equal_length_flip_back_at_most_once(at):
    rng = np.random.default_rng(3)
    site = geometry("RMSNorm", biased=True, n=1000, spread=5.0, eps=0.0)
    a, b = rng.normal(size=(2, 12))
    b -= a  # a wide angle
    b *= np.linalg.norm(a) / np.linalg.norm(b)
    found = check_grid(site, a, b, at, steps=8000)
    times = np.bincount(found.neuron)
    assert times.max() == 2
    np.testing.assert_array_equal(times[found.neuron] == 2, found.returns)
    # A sinusoid plus b: by hand from arccos.
    u, v = (x / np.linalg.norm(x) * (np.sqrt(12) if at == "resid_mid" else np.linalg.norm(a)) for x in (a, b))
    weight = site.weight.astype(float) * (site.gain if at == "resid_mid" else 1)
    bias = site.bias + (site.weight.astype(float) @ site.shift if at == "resid_mid" else 0)
    angle = np.arccos(u @ v / (u @ u))
    cosine, end = weight @ u, weight @ v
    sine = (end - cosine * np.cos(angle)) / np.sin(angle)
    i = found.neuron
    value = cosine[i] * np.cos(angle * found.t) + sine[i] * np.sin(angle * found.t) + bias[i]
    assert np.abs(value).max() < 1e-11


@pytest.mark.parametrize("seed", range(5))
def test_two_stationary_points_and_yet_two_crossings_at_most(seed):
    """Nearly half a circle on which the length grows fast: `h` rises, falls and rises again."""
    rng = np.random.default_rng(seed)
    site = geometry("none", biased=True, n=4000, d=4, spread=0.5)
    a = rng.normal(size=4) * 0.3
    b = -6 * a + rng.normal(size=4) * 0.1
    found = check_grid(site, a, b, "mlp_in", steps=5000)
    h = h_along(site, a, b, np.linspace(0, 1, 2001), "mlp_in")
    turns = ((np.diff(h, axis=0)[1:] > 0) != (np.diff(h, axis=0)[:-1] > 0)).sum(axis=0)
    assert turns.max() == 2
    assert np.bincount(found.neuron).max() == 2


@st.composite
def cases(draw):
    seed = draw(st.integers(0, 2**32 - 1))
    site = geometry(
        draw(st.sampled_from(NORMS)), biased=draw(st.booleans()), n=25, d=draw(st.integers(3, 6)), seed=seed
    )
    rng = np.random.default_rng(seed + 1)
    a, b = rng.normal(size=(2, site.weight.shape[1]))
    toward = draw(st.sampled_from([0.0, 0.9, -0.9, 1 - 1e-6]))
    b = toward * a + (1 - abs(toward)) * b
    scales = draw(st.tuples(*[st.sampled_from([1e-3, 1.0, 1e4])] * 2))
    return site, a * scales[0], b * scales[1], draw(st.sampled_from(["resid_mid", "mlp_in"]))


@settings(max_examples=150)
@given(cases())
def test_parity_is_that_of_the_ends_codes_and_h_is_zero_there(case):
    site, a, b, at = case
    found = arc_crossings(site, a, b, at=at)
    t = np.concatenate([[0.0, 1.0], found.t])
    x = curves.points("arc", a[None], b[None], t, centred=at == "resid_mid" and site.norm == "LayerNorm")[:, 0]
    h = pre(site, x) if at == "resid_mid" else x @ site.weight.T.astype(float) + site.bias
    clear = (np.abs(h[:2]) > 1e-9).all(axis=0)
    odd = np.bincount(found.neuron, minlength=25) % 2 == 1
    np.testing.assert_array_equal(odd[clear], ((h[0] > 0) != (h[1] > 0))[clear])
    assert ((found.t >= 0) & (found.t <= 1)).all()
    value = h[2:][np.arange(len(found.t)), found.neuron]
    assert (np.abs(value) < 1e-9 * (1 + np.abs(h).max())).all()


@settings(max_examples=80)
@given(cases())
def test_the_reversed_arc_crosses_the_same_boundaries_mirrored(case):
    site, a, b, at = case
    ahead, back = arc_crossings(site, a, b, at=at), arc_crossings(site, b, a, at=at)
    left, right = np.lexsort((ahead.t, ahead.neuron)), np.lexsort((-back.t, back.neuron))
    np.testing.assert_array_equal(ahead.neuron[left], back.neuron[right])
    np.testing.assert_array_equal(ahead.on[left], ~back.on[right])
    np.testing.assert_allclose(ahead.t[left], 1 - back.t[right], atol=1e-6)


@settings(max_examples=80)
@given(cases(), st.floats(0.1, 0.9))
def test_splitting_an_arc_gives_the_sum(case, cut):
    """A part of an arc is the arc between the part's ends."""
    site, a, b, at = case
    centred = at == "resid_mid" and site.norm == "LayerNorm"
    middle = curves.points("arc", a[None], b[None], np.array([cut]), centred=centred)[0, 0]
    h = pre(site, middle) if at == "resid_mid" else site.weight.astype(float) @ middle + site.bias
    if (np.abs(h) < 1e-8 * (1 + np.abs(h).max())).any():
        return
    whole = arc_crossings(site, a, b, at=at)
    parts = arc_crossings(site, a, middle, at=at), arc_crossings(site, middle, b, at=at)
    t = np.concatenate([parts[0].t * cut, cut + parts[1].t * (1 - cut)])
    neuron = np.concatenate([part.neuron for part in parts])
    order, theirs = np.lexsort((whole.t, whole.neuron)), np.lexsort((t, neuron))
    np.testing.assert_array_equal(whole.neuron[order], neuron[theirs])
    np.testing.assert_allclose(whole.t[order], t[theirs], atol=1e-6)


@pytest.mark.parametrize("at", ["resid_mid", "mlp_in"])
@pytest.mark.parametrize("norm", NORMS)
def test_an_angle_of_zero_is_the_line(norm, at):
    site = geometry(norm, biased=True, n=2000, eps=1e-2)
    a = np.random.default_rng(0).normal(size=12)
    a -= a.mean()
    found, straight = (f(site, a, 4 * a, at=at) for f in (arc_crossings, in_layer_crossings))
    assert at == "resid_mid" or norm != "none" or len(straight.t) > 100
    np.testing.assert_array_equal(found.neuron, straight.neuron)
    np.testing.assert_allclose(found.t, straight.t, atol=1e-9)


@pytest.mark.parametrize("at", ["resid_mid", "mlp_in"])
def test_equal_ends_cross_nothing(at):
    x = np.random.default_rng(0).normal(size=(5, 12))
    with np.errstate(all="raise"):
        found = arc_crossings(geometry("LayerNorm", biased=True), x, x, at=at)
    assert len(found.t) == 0
    assert found.hamming.tolist() == [0] * 5
    assert curves.length("arc", x, x) == 0


def test_batched_arcs_equal_single_arcs():
    site = geometry("LayerNorm", biased=True, n=3000)
    a, b = np.random.default_rng(2).normal(size=(2, 400, 12))  # more than one block
    together = arc_crossings(site, a, b)
    for row in (0, 173, 174, 399):
        alone, rows = arc_crossings(site, a[row], b[row]), together.pair == row
        np.testing.assert_array_equal(alone.neuron, together.neuron[rows])
        np.testing.assert_allclose(alone.t, together.t[rows], atol=1e-10)
        assert alone.hamming[0] == together.hamming[row]


def test_a_graze_is_two_crossings_and_a_touch_none():
    def site(bias):
        return Geometry(np.array([[1.0, 0.0]]), np.array([bias]), np.ones(2), np.zeros(2), 0.0, "none")

    a, b = np.array([1.0, -1.0]) / np.sqrt(2), np.array([1.0, 1.0]) / np.sqrt(2)
    assert len(arc_crossings(site(-1 - 1e-12), a, b, at="mlp_in").t) == 0
    grazed = arc_crossings(site(-1 + 1e-9), a, b, at="mlp_in")
    assert grazed.on.tolist() == [True, False]
    np.testing.assert_allclose(np.diff(grazed.t), 2 * np.sqrt(2e-9) / (np.pi / 2), rtol=1e-4)


@pytest.mark.parametrize("centred", [True, False])
def test_points_keep_norm_mean_and_angle_even(centred):
    a, b = np.random.default_rng(1).normal(size=(2, 3, 12)) + 1
    t = np.linspace(0, 1, 9)
    x = curves.points("arc", a, b, t, centred=centred)
    np.testing.assert_array_equal(x[[0, -1]], [a, b])
    y = x - x.mean(axis=2, keepdims=True) if centred else x
    norms = np.linalg.norm(y, axis=2)
    np.testing.assert_allclose(np.diff(norms, 2, axis=0), 0, atol=1e-12)
    unit = y / norms[..., None]
    angles = np.arccos((unit[1:] * unit[:-1]).sum(axis=2))
    np.testing.assert_allclose(angles, np.broadcast_to(angles[0], angles.shape), atol=1e-7)
    if centred:
        np.testing.assert_allclose(np.diff(x.mean(axis=2), 2, axis=0), 0, atol=1e-12)
    fine = curves.points("arc", a, b, np.linspace(0, 1, 20_001), centred=centred)
    steps = np.sqrt((np.diff(fine, axis=0) ** 2).sum(axis=(1, 2)))
    np.testing.assert_allclose(curves.length("arc", a, b, centred=centred), steps.sum(), rtol=1e-7)


@pytest.mark.parametrize(
    ("a", "b", "match"),
    [
        (np.ones(12), -np.ones(12), "^the ends are opposite"),
        (np.arange(12.0) - 5.5, np.zeros(12), "^an end has no direction, so there is no arc"),
        (np.eye(2, 12), -np.eye(2, 12) * [[-1], [1]], "^arc 1: the ends are opposite"),
        (np.ones(11), np.ones(11), r"shape \(11,\)"),
    ],
)
def test_what_is_no_arc_is_one_clear_line(a, b, match):
    with pytest.raises(PolytopeError, match=match) as error:
        arc_crossings(geometry("RMSNorm", biased=True), a, b)
    assert "\n" not in str(error.value)


def test_a_line_of_points_is_straight():
    a, b = np.random.default_rng(0).normal(size=(2, 1, 12))
    np.testing.assert_allclose(curves.points("line", a, b, np.array([0.25]))[0, 0], line(a[0], b[0], 0.25))
