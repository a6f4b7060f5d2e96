"""Random streams: one list of purposes, and no two uses of one stream."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import polytope_lm as plm
from polytope_lm.errors import PolytopeError
from polytope_lm.seeds import Purpose, derived, tie_order
from polytope_lm.statistics.confounders import Adjuster, beyond_controls
from polytope_lm.worlds import code_world
from polytope_lm.worlds.pair_worlds import FLIP_BACKS, flipback_world

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(plm.__file__).parent


def _calls() -> Iterator[tuple[str, ast.Call]]:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "derived":
                yield str(path.relative_to(PACKAGE)), node


def test_every_derived_seed_names_its_purpose_and_every_purpose_is_used() -> None:
    named = {(where, ast.unparse(call.args[1])) for where, call in _calls()}
    assert {what for _, what in named} == {f"Purpose.{each.name}" for each in Purpose}
    assert len({each.value for each in Purpose}) == len(Purpose)


def test_no_two_seeds_purposes_or_numbers_share_a_stream() -> None:
    every = [derived(seed, purpose, n) for seed in range(30) for purpose in Purpose for n in range(6)]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize("seed", [-1, 0.5, True, None])
def test_what_is_no_seed_is_said(seed: Any) -> None:
    with pytest.raises(PolytopeError, match=f"seed = {seed} is no seed"):
        derived(seed, Purpose.TOKENS)


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> dict[int, set[str]]:
    """Which functions of the package begin a stream, by its seed."""
    found: dict[int, set[str]] = defaultdict(set)
    begin = np.random.default_rng

    def noted(seed: Any = None) -> np.random.Generator:
        caller = sys._getframe(1).f_code
        if isinstance(seed, int) and str(PACKAGE) in caller.co_filename:
            found[seed].add(f"{Path(caller.co_filename).stem}.{caller.co_name}")
        return begin(seed)

    monkeypatch.setattr(np.random, "default_rng", noted)
    return found


def _encoder(texts: list[str]) -> np.ndarray:
    return np.eye(8)[[len(text) % 8 for text in texts]]


def _shared(streams: dict[int, set[str]]) -> list[set[str]]:
    """Return the functions that share a stream, and begin anew."""
    # Controls of one draw are paired on purpose: the same hyperplanes, at other thresholds.
    paired = {f"controls.{name}" for name in ("simhash_rate_matched", "simhash_zero_bias", "rotated")}
    found = [uses for uses in streams.values() if len(uses) > 1 and not uses <= paired]
    assert len(streams) > 3
    streams.clear()
    return found


def test_in_one_run_each_stream_has_one_use(streams: dict[int, set[str]]) -> None:
    codes = code_world(tokens=200, documents=20, seed=1)
    streams.clear()
    extra = ("token identity", "code, labels permuted in word and document", "SimHash, zero bias")
    options = {"label": "label", "tokens": 150, "k": 4, "resamples": 8}
    found = plm.predictions.clusters(codes, extra=extra, **options)
    assert _shared(streams) == []
    plm.predictions.groups(codes, found, draws=5, repeats=2, tokens=100, encoder=_encoder)
    assert _shared(streams) == []
    plm.calibrate(codes, runs=2, draws=2, **options)
    assert _shared(streams) == []


def test_effects_pick_draws_and_match_pairs_by_streams_of_their_own(streams: dict[int, set[str]]) -> None:
    table = flipback_world(150, groups=12, seed=0)
    streams.clear()
    counts = table.outcomes[FLIP_BACKS]
    adjuster = Adjuster(table, seed=5, resamples=20)
    beyond_controls(adjuster, counts, [(adjuster, counts)] * 2)
    assert adjuster.matched.any()
    assert _shared(streams) == []


def test_ties_are_broken_by_one_permutation_a_seed() -> None:
    assert sorted(tie_order(1000)) == list(range(1000))
    np.testing.assert_array_equal(tie_order(1000, 4), tie_order(1000, 4))
    assert not np.array_equal(tie_order(1000, 4), tie_order(1000, 5))
    assert abs(np.corrcoef(tie_order(1000), np.arange(1000))[0, 1]) < 0.1
    with pytest.raises(PolytopeError, match="seed = -1"):
        tie_order(3, -1)
