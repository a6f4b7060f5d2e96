"""How many distinct codes there are: all subsets of few tokens, and products of rates for independent neurons."""

from __future__ import annotations

from itertools import combinations

import made
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import polytope_lm as plm
from polytope_lm import PolytopeError
from polytope_lm.codes.codes import Codes
from polytope_lm.geometry.distinct import DistinctCodes

MODEL = plm.load("tiny-gpt2")
SEED = plm.encode(MODEL, ["The duck"], layers=[0, 1], keep=("u",))


def by_hand(bits, ids=None, u=None):
    """Return codes of layer 1 that have these bits, `[T, few]`, the layer's first; u too."""
    site, total = SEED.sites[1], len(bits)
    whole = np.zeros((total, site.width), bool)
    whole[:, : bits.shape[1]] = bits
    table = SEED.tokens.iloc[np.zeros(total, int)].reset_index(drop=True)
    table = table.assign(token_id=np.arange(total) if ids is None else ids)
    packed = np.packbits(whole, axis=1, bitorder="little")
    kept = {} if u is None else {f"{site.key}.u": u.astype(np.float32)}
    return Codes((site,), table, {site.key: packed}, SEED.ids, SEED.texts, tuple("u" * bool(kept)), {}, kept, None)


def own(found, neurons):
    return next(one for one in found.growths if one.neurons == neurons)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=7), st.data())
def test_they_grow_as_all_subsets_say(values, data):
    n = data.draw(st.integers(1, len(values)))
    expected = np.mean([len(set(some)) for some in combinations(values, n)])
    bits = np.array(values)[:, None] >> np.arange(2) & 1 == 1
    found = plm.distinct_codes(by_hand(bits, values), at=[n])
    assert own(found, 512).codes[0] == own(found, 8).codes[0] == pytest.approx(expected)
    assert found.tokens[0] == pytest.approx(expected)


@pytest.mark.parametrize("neurons", [3, 8, 11])
def test_a_group_is_the_first_neurons_and_independent_ones_follow_from_rates(neurons):
    rng = np.random.default_rng(0)
    rates = rng.uniform(0.05, 0.95, 16)
    total = 4000
    twins = rng.random((total, 1)) < rates  # all neurons follow one number: at most 17 codes
    found = plm.distinct_codes(by_hand(twins), groups=[neurons], at=[50, total])
    some = own(found, neurons)
    assert some.codes[1] == len({tuple(row) for row in twins[:, :neurons].tolist()}) <= neurons + 1
    on = twins[:, :neurons].mean(0)
    patterns = np.arange(2**neurons)[:, None] >> np.arange(neurons) & 1
    chance = np.prod(np.where(patterns == 1, on, 1 - on), axis=1)
    for n, independent in zip((50, total), some.independent, strict=True):
        assert independent == pytest.approx((1 - (1 - chance) ** n).sum(), rel=0.04)
    assert some.planes == ()


def test_planes_have_the_rates_and_see_the_same_vectors():
    rng = np.random.default_rng(1)
    total = 3000
    line = rng.standard_normal((total, 1)) * np.ones((1, MODEL.d_model))  # vectors on a line: planes nest
    bits = rng.random((total, 8)) < 0.5
    found = plm.distinct_codes(by_hand(bits, u=line), groups=[8])
    some = own(found, 8)
    assert some.codes[-1] == some.independent[-1] == 256
    assert some.planes[-1] <= 9  # eight cuts of a line
    everywhere = plm.distinct_codes(by_hand(bits, u=rng.standard_normal((total, MODEL.d_model))), groups=[8])
    assert own(everywhere, 8).planes[-1] == 256


def test_all_layers_are_one_code(tmp_path):
    store = made.captured(tmp_path)
    found = plm.distinct_codes(store, groups=[4])
    bits = [store.bits(layer) for layer in store.layers]
    joined = {row.tobytes() for row in np.concatenate(bits, axis=1)}
    assert found.growths[-1].layer is None
    assert found.growths[-1].codes[-1] == pytest.approx(len(joined))
    assert found.growths[-1].neurons == sum(each.shape[1] for each in bits)
    for layer, each in zip(store.layers, bits, strict=True):
        mine = {one.neurons: one.codes[-1] for one in found.growths if one.layer == layer}
        assert mine == pytest.approx({w: len({r.tobytes() for r in each[:, :w]}) for w in (4, each.shape[1])})
    some = plm.distinct_codes(store, most=30)
    assert (some.at[-1], some.of) == (30, len(store))
    assert some.growths[0].codes == plm.distinct_codes(store, most=30).growths[0].codes


def test_it_is_saved_shown_and_drawn(tmp_path):
    found = plm.distinct_codes(SEED, groups=[8, 16])
    found.save(tmp_path)
    again = DistinctCodes.load(tmp_path)
    assert again == found
    assert again.to_frame()["layer"].isna().sum() == len(found.at)
    assert f"{len(SEED):,} tokens have" in found.headline
    assert len(found.rows()) == 1 + 2 * 3 + 1
    assert found.rows()[1][2] == "256"
    figure = found.plot()
    heights = [trace.y[-1] for trace in figure.data if trace.name == "codes"]
    assert heights == [one.codes[-1] for one in found.growths]
    assert any(trace.name == "random hyperplanes" for trace in figure.data)


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"at": [0]}, r"at=\[0\]"),
        ({"at": [len(SEED) + 1]}, f"1 to {len(SEED)}"),
        ({"groups": [0]}, r"groups=\[0\]"),
        ({"groups": [2.5]}, r"groups=\[2.5\]"),
        ({"most": 0}, r"most=\[0\]"),
        ({"layers": 7}, "layer 7"),
        ({"layers": []}, r"layers=\[\]"),
    ],
)
def test_what_cannot_be_counted_is_refused(given, place):
    with pytest.raises(PolytopeError, match=place):
        plm.distinct_codes(SEED, **given)
