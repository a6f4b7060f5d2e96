"""Paths along a direction, and random controls that have the data's mean and covariance."""

from __future__ import annotations

import numpy as np
import pytest

import polytope_lm as plm
from polytope_lm.errors import PolytopeError
from polytope_lm.paths import direction_path, random_path
from polytope_lm.paths import path as directions

A = "He sat on the bank"


@pytest.fixture(scope="module")
def sample():
    rng = np.random.default_rng(0)
    return rng.normal(size=(300, 24)) @ rng.normal(size=(24, 24)) + rng.normal(size=24)


@pytest.mark.parametrize("at", ["resid_mid", "mlp_in"])
def test_a_direction_is_gone_along_for_a_length(model, at):
    v = np.random.default_rng(0).normal(size=24)
    path = direction_path(model, A, v, length=3.0, at=at, layer=1)
    begin = plm.path(model, A, A, at=at, layer=1)
    np.testing.assert_array_equal(path.a, begin.a)
    np.testing.assert_allclose(path.b - path.a, 3 * v / np.linalg.norm(v), atol=1e-12)
    assert path.length == pytest.approx(3)
    assert "[along a direction]" in repr(path)
    found = path.crossings(downstream=True)
    assert found.prompts == (A, "[along a direction]")
    assert len(found) > 0
    opposite = direction_path(model, A, v, length=-3.0, at=at, layer=1)
    np.testing.assert_allclose(opposite.b - opposite.a, path.a - path.b)


def test_draws_have_the_samples_mean_and_covariance(sample):
    rng = np.random.default_rng(1)
    drawn = np.stack([directions.draw(sample, rng) for _ in range(6000)])
    covariance = np.cov(sample.T)
    spread = np.sqrt(np.diag(covariance))
    assert np.abs((drawn.mean(axis=0) - sample.mean(axis=0)) / spread).max() < 0.06
    np.testing.assert_allclose(
        np.cov(drawn.T) / np.outer(spread, spread), covariance / np.outer(spread, spread), atol=0.08
    )


def test_a_mixture_knows_nothing_of_the_prompt_and_a_difference_ends_at_a_draw(model, sample):
    more = {"layer": 1, "seed": 3}
    mixture = random_path(model, A, sample, **more)
    other = random_path(model, "A river", sample, **more)
    np.testing.assert_allclose(mixture.b - mixture.a, other.b - other.a, atol=1e-9)
    rng = np.random.default_rng(3)
    first, second = directions.draw(sample, rng), directions.draw(sample, rng)
    np.testing.assert_allclose(mixture.b - mixture.a, first - second, atol=1e-9)
    difference = random_path(model, A, sample, control="difference", **more)
    np.testing.assert_allclose(difference.b, first, atol=1e-9)
    assert mixture.prompts == (A, "[random mixture, seed 3]")


def test_seeds_choose_and_lengths_bind(model, sample):
    one, same, other = (random_path(model, A, sample, layer=0, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.b, same.b)
    assert not np.allclose(one.b, other.b)
    short = random_path(model, A, sample, layer=0, seed=1, length=0.5)
    assert short.length == pytest.approx(0.5)
    np.testing.assert_allclose((short.b - short.a) / 0.5, (one.b - one.a) / one.length, atol=1e-9)
    arc = random_path(model, A, sample, layer=0, seed=1, shape="arc")
    assert arc.length > one.length
    assert len(arc.crossings(downstream=True, steps=5).layers) == 3


def test_codes_that_keep_activations_are_a_sample(model):
    codes = plm.encode(model, [A, "The ducks on the pond were not impressed."], layers=[1], keep=["x", "u"])
    for at, name in (("resid_mid", "x"), ("mlp_in", "u")):
        rows = codes.activations(name, 1)
        one, other = (random_path(model, A, s, at=at, layer=1) for s in (codes, rows))
        np.testing.assert_array_equal(one.b, other.b)
    with pytest.raises(PolytopeError, match="activations 'x' were not kept"):
        random_path(model, A, plm.encode(model, [A], layers=[1]), layer=1)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda m, _: direction_path(m, A, np.ones(5), length=1.0, layer=0), r"shape \(5,\), but resid_mid"),
        (lambda m, _: direction_path(m, A, np.zeros(24), length=1.0, layer=0), "direction has the length 0"),
        (lambda m, _: direction_path(m, A, np.full(24, np.nan), length=1.0, layer=0), "has the length nan"),
        (lambda m, _: direction_path(m, A, np.ones(24), length=np.inf, layer=0), "length=inf"),
        (lambda m, _: direction_path(m, A, np.ones(24), length=1.0, layer=9), "no layer 9"),
        (lambda m, s: random_path(m, A, s[:1], layer=0), r"sample has shape \(1, 24\).*at least 2"),
        (lambda m, s: random_path(m, A, s[:, :5], layer=0), r"shape \(300, 5\), expected \[n, 24\]"),
        (lambda m, s: random_path(m, A, np.where(s == s[7], np.nan, s), layer=0), r"sample\[7\] has NaN"),
        (lambda m, s: random_path(m, A, s, layer=0, control="isotropic"), "control='isotropic'.*mixture"),
        (lambda m, s: random_path(m, A, s, layer=0, length=0.0), r"length=0\.0: give a positive"),
        (lambda m, s: random_path(m, A, s, at="embed", shape="arc"), "shape='arc' with at='embed'"),
        (lambda m, s: random_path(m, "", s, layer=0), "prompt A is empty"),
    ],
)
def test_bad_input_is_one_clear_line(model, sample, make, match):
    with pytest.raises(PolytopeError, match=match) as error:
        make(model, sample)
    assert "\n" not in str(error.value)
