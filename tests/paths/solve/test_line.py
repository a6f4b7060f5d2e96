"""The closed form against dense grids, and the identities that any exact count of crossings obeys."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import Geometry
from polytope_lm.paths.solve.line import in_layer_crossings

NORMS = ("LayerNorm", "RMSNorm", "none")


def geometry(norm, *, biased, n=60, d=12, seed=0, eps=1e-5, spread=1.0):
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(n, d)).astype("float32")
    plain = norm == "none"
    return Geometry(
        weight=weight,
        bias=spread * rng.normal(size=n).astype("float32") if biased else np.zeros(n, "float32"),
        gain=np.ones(d, "float32") if plain else rng.uniform(0.5, 1.5, d).astype("float32"),
        shift=rng.normal(size=d).astype("float32") * 0.1 if biased and not plain else np.zeros(d, "float32"),
        eps=eps,
        norm=norm,
    )


def pre(site, x):
    """Compute `h` as a plain forward would, in float64: norm, gain, shift, weight, bias in turn."""
    x = np.asarray(x, dtype=np.float64)
    if site.norm == "LayerNorm":
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + site.eps)
    elif site.norm == "RMSNorm":
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + site.eps)
    return (x * site.gain + site.shift) @ site.weight.T.astype(np.float64) + site.bias


def line(a, b, t):
    return np.asarray(a, float) + np.multiply.outer(t, np.asarray(b, float) - np.asarray(a, float))


def past_origin(d, seed, nearness=0.3):
    """Return ends of a line that passes near the centre, where the norm turns the direction fast."""
    rng = np.random.default_rng(seed)
    near, along = rng.normal(size=d) * nearness, rng.normal(size=d)
    return near - 1.3 * along, near + 0.8 * along


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_closed_form_finds_what_a_dense_grid_finds(norm, biased, seed):
    site = geometry(norm, biased=biased, seed=seed)
    a, b = past_origin(12, seed)
    found = in_layer_crossings(site, a, b)
    grid = np.linspace(0, 1, 20001)
    on = pre(site, line(a, b, grid)) > 0
    step, neuron = np.nonzero(on[1:] != on[:-1])
    assert len(found.t) == len(step)
    assert (np.diff(found.t) >= 0).all()
    order, theirs = np.lexsort((found.t, found.neuron)), np.lexsort((step, neuron))
    np.testing.assert_array_equal(found.neuron[order], neuron[theirs])
    np.testing.assert_array_equal(found.on[order], on[step[theirs] + 1, neuron[theirs]])
    left = grid[step[theirs]]
    assert (found.t[order] >= left - 1e-12).all()
    assert (found.t[order] <= left + 5e-5 + 1e-12).all()


@pytest.mark.parametrize("norm", ["LayerNorm", "RMSNorm"])
def test_double_crossings_are_invisible_to_the_ends_codes(norm):
    site = geometry(norm, biased=True, n=2000, spread=3.0)
    a, b = past_origin(12, 3)
    found = in_layer_crossings(site, a, b)
    codes = pre(site, np.stack([a, b])) > 0
    hamming = int((codes[0] != codes[1]).sum())
    assert found.hamming.tolist() == [hamming]
    assert found.returns.sum() >= 20
    assert hamming < len(found.t) == hamming + found.returns.sum()
    twice = np.bincount(found.neuron, minlength=2000) == 2
    np.testing.assert_array_equal(twice[found.neuron], found.returns)
    np.testing.assert_array_equal(codes[0][twice], codes[1][twice])


@pytest.mark.parametrize("norm", NORMS)
def test_without_bias_no_neuron_returns(norm):
    site = geometry(norm, biased=False, n=400)
    found = in_layer_crossings(site, *past_origin(12, 3))
    assert not found.returns.any()
    assert len(found.t) == found.hamming[0] > 0


@pytest.mark.parametrize("norm", NORMS)
def test_a_line_in_the_mlps_input_crosses_as_many_boundaries_as_bits_differ(norm):
    site = geometry(norm, biased=True, n=500)
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 40, 12))
    found = in_layer_crossings(site, a, b, at="mlp_in")
    h = [u @ site.weight.T.astype(float) + site.bias for u in (a, b)]
    np.testing.assert_array_equal(found.counts, ((h[0] > 0) != (h[1] > 0)).sum(1))
    np.testing.assert_array_equal(found.counts, found.hamming)
    at_root = (line(a, b, 0)[found.pair] + found.t[:, None] * (b - a)[found.pair]) @ site.weight.T.astype(float)
    value = at_root[np.arange(len(found.t)), found.neuron] + site.bias[found.neuron]
    assert np.abs(value).max() < 1e-12


@st.composite
def cases(draw):
    seed = draw(st.integers(0, 2**32 - 1))
    norm = draw(st.sampled_from(NORMS))
    site = geometry(norm, biased=draw(st.booleans()), n=25, d=draw(st.integers(2, 6)), seed=seed)
    a, b = past_origin(site.weight.shape[1], seed + 1, draw(st.sampled_from([0.0, 1e-6, 1e-2, 1.0])))
    scale = draw(st.sampled_from([1e-3, 1.0, 1e4]))
    return site, a * scale, b * scale


@settings(max_examples=200, deadline=None)
@given(cases())
def test_parity_of_crossings_is_that_of_the_ends_and_h_is_zero_there(case):
    site, a, b = case
    found = in_layer_crossings(site, a, b)
    codes = pre(site, np.stack([a, b]))
    clear = (np.abs(codes) > 1e-9).all(axis=0)
    odd = np.bincount(found.neuron, minlength=25) % 2 == 1
    np.testing.assert_array_equal(odd[clear], ((codes[0] > 0) != (codes[1] > 0))[clear])
    assert ((found.t >= 0) & (found.t <= 1)).all()
    scale = np.abs(site.bias).max() + np.linalg.norm(site.weight, axis=1).max() * 4
    value = pre(site, line(a, b, found.t))[np.arange(len(found.t)), found.neuron]
    # Near the centre sigma is about sqrt(eps): rounding t by 1e-16 moves h by up to |c - a| 1e-16 / sigma.
    reach = 1e-12 * (1 + np.linalg.norm(b - a) / np.sqrt(site.eps))
    assert (np.abs(value) < scale * reach).all()


@settings(max_examples=100, deadline=None)
@given(cases())
def test_the_reversed_line_crosses_the_same_boundaries_mirrored(case):
    site, a, b = case
    ahead, back = in_layer_crossings(site, a, b), in_layer_crossings(site, b, a)
    left, right = np.lexsort((ahead.t, ahead.neuron)), np.lexsort((-back.t, back.neuron))
    np.testing.assert_array_equal(ahead.neuron[left], back.neuron[right])
    np.testing.assert_array_equal(ahead.on[left], ~back.on[right])
    np.testing.assert_allclose(ahead.t[left], 1 - back.t[right], atol=1e-7)


@settings(max_examples=100, deadline=None)
@given(cases(), st.floats(0.1, 0.9))
def test_splitting_a_line_gives_the_sum(case, cut):
    site, a, b = case
    middle = line(a, b, cut)
    if (np.abs(pre(site, middle)) < 1e-9).any():
        return
    parts = [in_layer_crossings(site, a, middle), in_layer_crossings(site, middle, b)]
    whole = in_layer_crossings(site, a, b)
    t = np.concatenate([parts[0].t * cut, cut + parts[1].t * (1 - cut)])
    neuron = np.concatenate([part.neuron for part in parts])
    order, theirs = np.lexsort((whole.t, whole.neuron)), np.lexsort((t, neuron))
    np.testing.assert_array_equal(whole.neuron[order], neuron[theirs])
    np.testing.assert_allclose(whole.t[order], t[theirs], atol=1e-7)


def test_batched_lines_equal_single_lines():
    site = geometry("LayerNorm", biased=True, n=3000)
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 400, 12))  # more than one block
    together = in_layer_crossings(site, a, b)
    assert together.counts.sum() == len(together.t)
    for row in (0, 173, 174, 399):
        alone, rows = in_layer_crossings(site, a[row], b[row]), together.pair == row
        np.testing.assert_array_equal(alone.neuron, together.neuron[rows])
        np.testing.assert_allclose(alone.t, together.t[rows], atol=1e-10)
        assert alone.hamming[0] == together.hamming[row]


def one_neuron(bias, *, eps=0.0):
    """`h = x_0 / |x| * sqrt(2) + bias` in two dimensions: an angle, whose crossings are known by hand."""
    return Geometry(
        weight=np.array([[1.0, 0.0]]),
        bias=np.array([bias]),
        gain=np.ones(2),
        shift=np.zeros(2),
        eps=eps,
        norm="RMSNorm",
    )


def test_a_touch_is_no_crossing_and_a_graze_is_two():
    # The line from (-1, 1) to (1, 1) ... turned: h is largest where the line is nearest to the x_0 axis.
    a, b = np.array([1.0, -1.0]), np.array([1.0, 1.0])
    top = np.sqrt(2)  # h + bias at (1, 0), the highest point of this line
    assert in_layer_crossings(one_neuron(-top), a, b).t.size == 0
    assert in_layer_crossings(one_neuron(-top * (1 + 1e-9)), a, b).t.size == 0
    grazed = in_layer_crossings(one_neuron(-top * (1 - 1e-9)), a, b)
    assert grazed.on.tolist() == [True, False]
    assert grazed.returns.all()
    np.testing.assert_allclose(grazed.t.mean(), 0.5, atol=1e-9)
    # cos(angle) = 1 - 1e-9, so the half opening is sqrt(2e-9) radians on a line of length 2.
    np.testing.assert_allclose(np.diff(grazed.t), np.sqrt(2e-9), rtol=1e-4)


def test_zero_is_off_at_an_end():
    flat = Geometry(np.array([[1.0]]), np.zeros(1), np.ones(1), np.zeros(1), 0.0, "none")
    up = in_layer_crossings(flat, np.array([0.0]), np.array([1.0]))
    assert (up.t.tolist(), up.on.tolist()) == ([0.0], [True])
    down = in_layer_crossings(flat, np.array([1.0]), np.array([0.0]))
    assert (down.t.tolist(), down.on.tolist()) == ([1.0], [False])
    assert in_layer_crossings(flat, np.array([0.0]), np.array([-1.0])).t.size == 0


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("at", ["resid_mid", "mlp_in"])
def test_equal_ends_cross_nothing(norm, at):
    site = geometry(norm, biased=True)
    x = np.random.default_rng(0).normal(size=(5, 12))
    with np.errstate(all="raise"):
        found = in_layer_crossings(site, x, x, at=at)
    assert found.t.size == 0
    assert found.counts.tolist() == found.hamming.tolist() == [0] * 5


def test_a_radial_line_crosses_almost_nothing_under_a_norm():
    site = geometry("RMSNorm", biased=True, eps=0.0)
    x = np.random.default_rng(0).normal(size=12)
    assert in_layer_crossings(site, x, 7 * x).t.size == 0


def test_crossings_of_lines_are_shown_in_a_line():
    rng = np.random.default_rng(0)
    found = in_layer_crossings(geometry("LayerNorm", biased=True), *rng.normal(size=(2, 50, 12)))
    crossed, again = len(found.t), int(found.returns.sum())
    line = f"LineCrossings: {crossed:,} on 50 lines, {again} of them of neurons that cross twice"
    assert repr(found) == line


def test_no_lines_no_crossings():
    found = in_layer_crossings(geometry("none", biased=True), np.zeros((0, 12)), np.zeros((0, 12)))
    assert found.t.size == 0
    assert found.counts.shape == (0,)


@pytest.mark.parametrize("norm", ["LayerNorm", "RMSNorm"])
@pytest.mark.parametrize("biased", [True, False])
def test_scaling_what_the_norm_reads_flips_no_clear_bit(norm, biased):
    site = geometry(norm, biased=biased, n=2000, d=48)
    x = np.random.default_rng(5).normal(size=(20, 48))
    h = pre(site, x)
    clear = np.abs(h) > 1e-4
    for s in range(1, 101):
        np.testing.assert_array_equal((pre(site, s * x) > 0)[clear], (h > 0)[clear])
    far = in_layer_crossings(site, x, 100 * x)
    assert not clear[far.pair, far.neuron].any()
    assert clear.mean() > 0.99


@pytest.mark.usefixtures("users_arrays")
@pytest.mark.parametrize(
    ("a", "b", "at", "match"),
    [
        (np.zeros(11), np.zeros(11), "resid_mid", r"shape \(11,\).*vectors of 12"),
        (np.full(12, np.nan), np.zeros(12), "resid_mid", r"a\[0\] has NaN"),
        (np.ones((2, 12)), np.array([[0.0] * 12, [np.inf] * 12]), "mlp_in", r"b\[1\] has NaN or infinite"),
        (np.ones((2, 12)), np.ones((3, 12)), "mlp_in", "2 points and b 3"),
        (np.ones(12), np.ones(12), "embed", "at='embed'.*'resid_mid'"),
    ],
)
def test_bad_input_is_one_clear_line(a, b, at, match):
    with pytest.raises(PolytopeError, match=match) as error:
        in_layer_crossings(geometry("LayerNorm", biased=True), a, b, at=at)
    assert "\n" not in str(error.value)


def test_an_end_without_direction_needs_an_epsilon():
    with pytest.raises(PolytopeError, match="no direction"):
        in_layer_crossings(geometry("LayerNorm", biased=True, eps=0.0), np.ones(12), np.arange(12.0))
    assert in_layer_crossings(geometry("LayerNorm", biased=True), np.ones(12), np.arange(12.0)).hamming[0] >= 0


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("at", ["resid_mid", "mlp_in"])
def test_products_on_a_device_lead_to_the_same_crossings(norm, biased, at):
    """Many lines past the origin, where neurons cross twice, and one that stands still."""
    site = geometry(norm, biased=biased, n=200, spread=0.7)
    a, b = (np.stack(ends) for ends in zip(*(past_origin(12, seed) for seed in range(30)), strict=True))
    b[3] = a[3]
    here, there = in_layer_crossings(site, a, b, at=at), in_layer_crossings(site, a, b, at=at, device="cpu")
    assert here.returns.any() == (biased and norm != "none" and at == "resid_mid")
    for name in ("pair", "neuron", "on", "returns", "hamming"):
        np.testing.assert_array_equal(getattr(there, name), getattr(here, name))
    np.testing.assert_allclose(there.t, here.t, rtol=0, atol=1e-13)


def test_a_device_sends_only_what_may_cross(monkeypatch):
    sent = []
    real = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda value: (sent.append(value.numel()), real(value))[1])
    site = geometry("LayerNorm", biased=True, n=500)
    a = np.random.default_rng(0).normal(size=(20, 12))
    found = in_layer_crossings(site, a, a + 1e-2 * np.random.default_rng(1).normal(size=a.shape), device="cpu")
    assert len(found.t) <= max(sent) <= 2 * len(found.t) + 5 < 20 * 500


def test_a_device_that_is_not_here_is_one_line():
    with pytest.raises(PolytopeError, match="device 'cuda:9' can't be used here"):
        in_layer_crossings(geometry("none", biased=True), np.ones(12), np.zeros(12), device="cuda:9")
