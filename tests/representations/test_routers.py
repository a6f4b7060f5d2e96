"""Random routers of equal load, what a router sees of `u`, one layer of a path."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import polytope_lm as plm
from polytope_lm.models.sites import Premises, Site, join
from polytope_lm.representations import get
from polytope_lm.representations.routers import (
    ON_ROWS,
    RANDOM_ROUTERS,
    on_rows_centred,
    on_rows_raw,
    one_layer,
    random_routers,
    with_loads,
)


def router(layer: int, experts: int, width: int = 6) -> Site:
    premises = Premises("routed", f"top 2 of {experts}", False, "RMSNorm")
    return Site(layer, "router", f"blocks.{layer}.mlp.gate.hook_out", experts, width, premises)


def k_hot(r: np.ndarray, k: int) -> np.ndarray:
    return r.argsort(1).argsort(1) >= r.shape[1] - k


def unpacked(rows: np.ndarray, width: int) -> np.ndarray:
    return np.unpackbits(rows, axis=1, count=width, bitorder="little").astype(bool)


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.integers(40, 200), experts=st.integers(2, 9), skew=st.floats(0, 1.5), seed=st.integers(0, 10**6),
    data=st.data(),
)  # fmt: skip
def test_loads_are_met_and_every_token_has_k(tokens, experts, skew, seed, data) -> None:
    k = data.draw(st.integers(1, experts))
    rng = np.random.default_rng(seed)
    loads = k_hot(rng.normal(size=(tokens, experts)) + skew * rng.normal(size=experts), k).sum(0)
    chosen = with_loads(rng.normal(size=(tokens, experts)), loads, k)
    assert (chosen.sum(1) == k).all()
    assert np.abs(chosen.sum(0) - loads).max() <= 1  # the descent may stall where few tokens are left to choose from


def test_loads_are_exact_where_there_are_tokens_enough() -> None:
    rng = np.random.default_rng(0)
    real = k_hot(rng.normal(size=(2000, 16)) + rng.normal(size=16), 4)
    chosen = with_loads(rng.normal(size=(2000, 16)) * rng.uniform(0.1, 3, 16), real.sum(0), 4)
    np.testing.assert_array_equal(chosen.sum(0), real.sum(0))


def test_the_chosen_are_the_largest_after_one_threshold_an_expert() -> None:
    """No exchange of experts between two tokens may raise the sum: the assignment by brute force."""
    rng = np.random.default_rng(1)
    r = rng.normal(size=(5, 3))
    loads = np.array([2, 2, 1])
    chosen = with_loads(r, loads, 1)

    def best(tokens: frozenset[int], expert: int) -> float:
        if expert == 3:
            return 0.0
        return max(
            sum(r[t, expert] for t in some) + best(tokens - set(some), expert + 1)
            for some in combinations(sorted(tokens), loads[expert])
        )

    assert r[chosen].sum() == pytest.approx(best(frozenset(range(5)), 0))


@pytest.mark.parametrize("count", [0, 30])
def test_an_expert_that_nobody_or_everybody_chooses(count: int) -> None:
    rng = np.random.default_rng(2)
    others = k_hot(rng.normal(size=(30, 3)), 1).sum(0)
    loads = np.array([count, *others])
    chosen = with_loads(rng.normal(size=(30, 4)), loads, 1 + count // 30)
    np.testing.assert_array_equal(chosen.sum(0), loads)


def test_random_routers_of_a_path_keep_each_layers_loads_and_read_its_own_u() -> None:
    rng = np.random.default_rng(3)
    site = join([router(1, 8), router(2, 5)])
    u = rng.normal(size=(300, 12)).astype(np.float32)
    bits = np.hstack([k_hot(rng.normal(size=(300, 8)) + np.arange(8) / 4, 2), k_hot(rng.normal(size=(300, 5)), 3)])
    drawn = unpacked(random_routers(u, bits, 0, site).values, 13)
    np.testing.assert_array_equal(drawn.sum(0), bits.sum(0))
    assert (drawn[:, :8].sum(1) == 2).all()
    assert (drawn[:, 8:].sum(1) == 3).all()
    assert not np.array_equal(drawn, unpacked(random_routers(u, bits, 1, site).values, 13))
    moved = u.copy()
    moved[:, 6:] = rng.normal(size=(300, 6))  # layer 2's input alone
    again = unpacked(random_routers(moved, bits, 0, site).values, 13)
    np.testing.assert_array_equal(again[:, :8], drawn[:, :8])
    assert (again[:, 8:] != drawn[:, 8:]).any()
    assert get(RANDOM_ROUTERS).draws == 5


def test_tokens_that_choose_different_numbers_are_refused() -> None:
    bits = np.array([[True, False, True], [True, False, False]])
    with pytest.raises(plm.PolytopeError, match=r"L01.router: tokens choose different numbers"):
        random_routers(np.ones((2, 6), np.float32), bits, 0, router(1, 3))


def test_the_projection_is_that_on_the_true_rows() -> None:
    rng = np.random.default_rng(4)
    weights = [rng.normal(size=(4, 9)), rng.normal(size=(3, 9))]
    u = (rng.normal(size=(80, 18)) * np.logspace(0, -3, 18) + 2).astype(np.float32)
    halves = u[:, :9], u[:, 9:]
    r = np.hstack([x.astype(float) @ w.T + 5 for x, w in zip(halves, weights, strict=True)]).astype(np.float32)
    site = join([router(0, 4, 9), router(3, 3, 9)])
    own = np.hstack([x @ (np.linalg.pinv(w) @ w) for x, w in zip(halves, weights, strict=True)])
    got = on_rows_raw(u, r, site).values
    np.testing.assert_allclose(got @ got.T, own @ own.T, rtol=2e-3)
    mean = own - own.mean(0)
    got = on_rows_centred(u, r, site).values
    np.testing.assert_allclose(got @ got.T, mean @ mean.T, atol=2e-3 * np.abs(mean @ mean.T).max())


def test_too_few_tokens_to_find_the_rows() -> None:
    with pytest.raises(plm.PolytopeError, match=r"there are 6 tokens and 6 coordinates"):
        on_rows_raw(np.ones((6, 6), np.float32), np.ones((6, 4), np.float32), router(0, 4))


@pytest.mark.parametrize("name", [RANDOM_ROUTERS, *ON_ROWS])
def test_other_sites_are_refused(name: str) -> None:
    site = plm.load("tiny-gpt2").site(1)
    arrays = {"u": np.ones((3, 128)), "bits": np.ones((3, 512), bool), "pre": np.ones((3, 512)), "site": site}
    needed = {key: value for key, value in arrays.items() if key in get(name).needs} | (
        {"seed": 0} if "seed" in get(name).needs else {}
    )
    with pytest.raises(plm.PolytopeError, match=r"is for routers, and L01.pre has kind 'pre'"):
        get(name).function(**needed)


def test_one_layer_of_a_path_is_that_layers_code() -> None:
    rng = np.random.default_rng(5)
    bits = rng.random((10, 13)) > 0.5
    site = join([router(1, 8), router(2, 5)])
    assert one_layer(2).name == "code of layer 2 alone"
    rows = one_layer(2).function(bits=bits, site=site)
    np.testing.assert_array_equal(unpacked(rows.values, 5), bits[:, 8:])
    with pytest.raises(plm.PolytopeError, match=r"L01\+02.router has no layer 7"):
        one_layer(7).function(bits=bits, site=site)
