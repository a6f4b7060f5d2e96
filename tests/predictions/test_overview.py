from __future__ import annotations

import json

import numpy as np

from polytope_lm.codes.overview import CodeOverview
from polytope_lm.predictions import overview


def test_counts_equal_those_of_the_unpacked_bits(world) -> None:
    codes = world("direction", layers=(2, 4))
    codes.arrays["L04.pre"][:, 0] |= 1
    codes.arrays["L04.pre"][:, 1] &= 0b11111110
    codes.arrays["L04.pre"][5] = codes.arrays["L04.pre"][6]
    found = overview(codes)
    assert [layer.layer for layer in found.layers] == [2, 4]
    bits, last = codes.bits(4), found.layers[1]
    rates = bits.mean(axis=0)
    assert (last.dead, last.always_on) == ((rates == 0).sum(), (rates == 1).sum())
    assert last.dead >= 1
    assert last.always_on >= 1
    assert last.mean_bits_on == bits.sum() / len(bits)
    assert last.distinct_codes == len(np.unique(bits, axis=0)) < len(bits)
    assert sum(last.rate_histogram) == 256
    assert list(last.rate_histogram) == np.histogram(rates, bins=20, range=(0, 1))[0].tolist()
    assert last.ambiguous == (np.abs(codes.activations("h", 4)) < 0.5).mean()
    assert (found.documents, found.first_position) == (45, 45)


def test_without_h_the_ambiguous_share_is_unknown(world) -> None:
    assert overview(world(kept=())).layers[0].ambiguous is None


def test_the_overview_goes_through_json(world) -> None:
    found = overview(world())
    assert CodeOverview.from_dict(json.loads(json.dumps(found.to_dict()))) == found
