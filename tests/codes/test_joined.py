from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import polytope_lm as plm
from polytope_lm.codes.codes import JoinedCodes
from polytope_lm.codes.hamming import hamming
from polytope_lm.codes.hamming.hamming import beside
from polytope_lm.controls import weights
from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import Premises, Site, columns_of, join, width_of
from polytope_lm.representations import get
from polytope_lm.representations.arrays import LayerArrays
from polytope_lm.representations.controls import rotated, simhash_rate_matched, simhash_zero_bias

if TYPE_CHECKING:
    from pathlib import Path

RELU = Premises("piecewise affine", "relu", True, "LayerNorm")


def _site(layer: int = 0, premises: Premises = RELU, width: int = 13, kind: str = "pre", d: int = 5) -> Site:
    return Site(layer, kind, f"blocks.{layer}.mlp.hook_pre", width, d, premises)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.integers(0, 20), st.integers(0, 2**32 - 1))
def test_bits_are_side_by_side_at_any_widths(widths: list[int], tokens: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bits = [rng.random((tokens, width)) < 0.5 for width in widths]
    packed = [np.packbits(part, axis=1, bitorder="little") for part in bits]
    expected = np.packbits(np.concatenate(bits, axis=1), axis=1, bitorder="little")
    np.testing.assert_array_equal(beside(packed, widths), expected)


@pytest.fixture(scope="module")
def two(gated: plm.models.model.Model) -> plm.codes.codes.Codes:
    """Two layers of 51 neurons, so that bits do not fill bytes."""
    texts = ["He sat on the bank of the river.", "She owes the bank a lot of money.", "A wet bank is wet."]
    return plm.encode(gated, texts, layers=[0, 1], keep=("u", "h", "x", "up", "post"))


def test_bits_and_activations_are_the_layers_side_by_side(two: plm.codes.codes.Codes) -> None:
    joined = two.joined([1, 0])
    assert isinstance(joined, JoinedCodes)
    assert [site.key for site in joined.sites] == ["L00+01.gate"]
    assert (joined.site().width, joined.site().d_model, joined.layers) == (102, 48, (1,))
    np.testing.assert_array_equal(joined.bits(), np.concatenate([two.bits(0), two.bits(1)], axis=1))
    for name in ("u", "h", "x", "up", "post"):
        expected = np.concatenate([two.activations(name, 0), two.activations(name, 1)], axis=1)
        np.testing.assert_array_equal(joined.activations(name), expected)
        assert width_of(joined.site(), name) == expected.shape[1]
    layers = [two.hamming(range(9), range(9), layer) for layer in (0, 1)]
    np.testing.assert_array_equal(joined.hamming(range(9), range(9)), sum(layers))


def test_joined_codes_are_codes_like_any_other(two: plm.codes.codes.Codes) -> None:
    joined = two.joined()
    assert len(joined) == len(two)
    assert joined.kept == two.kept
    chosen = joined.select(np.arange(3, 8))
    np.testing.assert_array_equal(chosen.bits(), joined.bits()[3:8])
    np.testing.assert_array_equal(chosen.activations("h"), joined.activations("h")[3:8])
    one = joined.code(4)
    np.testing.assert_array_equal(one.bits, joined.bits()[4])
    assert joined.nearest(4, k=3).by_code["hamming"].is_monotonic_increasing
    assert joined.knn(3).indices.shape == (len(joined), 3)


def test_a_store_joins_its_shards(gated: plm.models.model.Model, tmp_path: Path) -> None:
    documents = plm.documents([f"The bank number {i} is by the river." for i in range(5)])
    store = plm.capture(
        gated, documents, layers=[0, 1], to=tmp_path / "s", keep=("u", "h"), shard_documents=2, progress=False
    )
    joined = store.joined([0, 1])
    expected = np.concatenate([store.bits(0), store.bits(1)], axis=1)
    np.testing.assert_array_equal(joined.bits(), expected)
    packed = hamming.pack(expected)
    near = hamming.nearest(packed, packed, 4, exclude_self=True, seed=2)
    np.testing.assert_array_equal(joined.knn(4, seed=2).indices, near.indices)
    rows = np.array([7, 1, 12])
    np.testing.assert_array_equal(joined.select(rows).bits(), expected[rows])
    both = [store.activations("u", layer)[rows] for layer in (0, 1)]
    np.testing.assert_array_equal(joined.rows(joined.site(), rows, "u"), np.concatenate(both, axis=1))
    with pytest.raises(PolytopeError, match="'x' were not kept"):
        plm.open_store(store.path).joined().activations("x")


def test_every_representation_takes_them(two: plm.codes.codes.Codes) -> None:
    arrays = LayerArrays(two.joined(), 1, np.arange(len(two)))
    soft = get("soft code").rows(arrays).values
    each = [get("soft code").rows(LayerArrays(two, layer, np.arange(len(two)))).values for layer in (0, 1)]
    np.testing.assert_array_equal(soft, np.concatenate(each, axis=1))
    for name in ("code", "cosine of h, centred", "gate+up code", "cosine of (g, up), raw", "top neuron"):
        assert len(get(name).rows(arrays).values) == len(two)


def _layers(n: int = 90) -> tuple[np.ndarray, np.ndarray, Site]:
    rng = np.random.default_rng(0)
    site = join([_site(4), _site(8, width=21, d=7)])
    u = rng.normal(size=(n, 12)).astype(np.float32)
    return u, rng.random((n, 34)) < rng.random(34), site


def _unpacked(rows: object) -> np.ndarray:
    return np.unpackbits(rows.values, axis=1, count=34, bitorder="little").astype(bool)


@pytest.mark.parametrize("moved", [0, 1])
def test_each_layers_random_bits_come_from_its_own_u(moved: int) -> None:
    """Another u of one layer moves that layer's bits, and no other's."""
    u, bits, site = _layers()
    other = u.copy()
    inputs, neurons = columns_of(site, "u")[moved], columns_of(site, "h")[moved]
    other[:, inputs] = other[::-1, inputs]
    for control in (
        lambda u: simhash_rate_matched(u, bits, seed=3, site=site),
        lambda u: simhash_zero_bias(u, site, seed=3),
    ):
        differ = (_unpacked(control(u)) != _unpacked(control(other))).any(axis=0)
        assert differ[neurons].all()
        assert not np.delete(differ, np.r_[neurons]).any()


def test_random_bits_have_each_neurons_rate_and_one_layers_are_as_before() -> None:
    u, bits, site = _layers()
    made = _unpacked(simhash_rate_matched(u, bits, seed=3, site=site))
    np.testing.assert_array_equal(made.sum(axis=0), bits.sum(axis=0))
    alone = simhash_rate_matched(u[:, :5], bits[:, :13], seed=3, site=_site(4)).values
    first = np.unpackbits(alone, axis=1, count=13, bitorder="little").astype(bool)
    np.testing.assert_array_equal(made[:, :13], first)
    np.testing.assert_array_equal(alone, simhash_rate_matched(u[:, :5], bits[:, :13], seed=3).values)


def test_a_rotation_stays_inside_its_layer() -> None:
    h = np.random.default_rng(0).normal(size=(60, 34)).astype(np.float32)
    site = _layers()[2]
    turned = rotated(h, 1, site)
    for columns in columns_of(site, "h"):
        np.testing.assert_allclose(
            turned[:, columns] @ turned[:, columns].T, h[:, columns] @ h[:, columns].T, atol=1e-3
        )
    assert np.abs(turned - h).max() > 0.5


@pytest.mark.parametrize(
    ("other", "met", "linearity"),
    [
        (RELU, True, "piecewise affine"),
        (Premises("smooth", "gelu", True, "LayerNorm"), False, "smooth"),
        (Premises("piecewise affine", "relu", False, "LayerNorm"), False, "piecewise affine"),
    ],
)
def test_premises_are_met_where_every_part_meets_them(other: Premises, met: bool, linearity: str) -> None:
    for sites in ([_site(4), _site(8, other)], [_site(8, RELU), _site(4, other)]):
        joined = join(sites)
        assert joined.premises.met is met
        assert joined.premises.linearity == linearity
        assert Site.from_dict(joined.to_dict()) == joined


def test_a_joined_site_names_its_layers() -> None:
    layers = (0, 1, 2, 3, 8, 10, 11)
    joined = join([_site(layer) for layer in layers])
    assert (joined.key, joined.place) == ("L00-03+08+10+11.pre", "Layers 0-3 + 8 + 10 + 11")
    assert [part.layer for part in joined.components] == list(layers)
    assert join([_site(4)]) == _site(4)
    assert _site(4).place == "Layer 4"
    assert "parts" not in _site(4).to_dict()


def test_what_can_not_be_joined_is_refused(two: plm.codes.codes.Codes) -> None:
    with pytest.raises(PolytopeError, match="no layers to join"):
        two.joined([])
    with pytest.raises(PolytopeError, match=r"layers \[0, 0\] can't be joined: give one or more, each once"):
        two.joined([0, 0])
    with pytest.raises(PolytopeError, match=r"no codes of layer 7 here; there are L00\.gate, L01\.gate"):
        two.joined([0, 7])
    with pytest.raises(PolytopeError, match=r"different kinds \(gate, pre\); join equal ones"):
        join([_site(1), _site(2, kind="gate")])
    with pytest.raises(PolytopeError, match=r"different norms \(LayerNorm, none\)"):
        join([_site(1), _site(2, Premises("smooth", "gelu", True, "none"))])
    with pytest.raises(PolytopeError, match="can't be joined"):
        Site.from_dict({"parts": []})


def test_controls_of_the_weights_are_captured_layer_by_layer_and_joined(
    model: plm.models.model.Model, sentences: list[str]
) -> None:
    joined = plm.encode(model, sentences, layers=[0, 2], keep=("u", "h")).joined()
    same = weights.recaptured(joined, model)
    assert same.sites == joined.sites
    np.testing.assert_array_equal(same.bits(), joined.bits())
    other = weights.recaptured(joined, weights.permuted(model))
    assert (other.bits() != joined.bits()).mean() > 0.1
