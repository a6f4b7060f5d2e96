"""Several labels of the same tokens, and layers that were computed apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from polytope_lm.errors import PolytopeError
from polytope_lm.predictions import clusters
from polytope_lm.predictions.clusters.test import clusters_by_label, joined

FAST = {"k": 8, "resamples": 20, "comparators": False, "per_document": None}


def test_each_labels_result_is_its_own_comparison(world) -> None:
    codes = world("code", n=500)
    codes.tokens["topic"] = np.random.default_rng(1).choice(list("xyz"), len(codes))
    together = clusters_by_label(codes, 4, ("upos", "topic"), extra="shuffled bits", **FAST)
    assert list(together) == ["upos", "topic"]
    for label, result in together.items():
        alone = clusters(codes, 4, label, extra="shuffled bits", **FAST)
        assert replace(result, command="") == replace(alone, command="")
        assert result.tokens.equals(alone.tokens)


def test_tokens_without_one_of_the_labels_are_left_out_of_all(world) -> None:
    codes = world("code", n=600)
    codes.tokens["topic"] = codes.tokens["upos"].where(codes.tokens.index % 5 > 0)
    together = clusters_by_label(codes, 4, ("upos", "topic"), **FAST)
    upos, topic = together.values()
    assert upos.sample.tokens == topic.sample.tokens < 500
    assert upos.sample.without_label > 100
    with pytest.raises(PolytopeError, match="no label 'genre'; these codes have"):
        clusters_by_label(codes, 4, ("upos", "genre"), **FAST)
    with pytest.raises(PolytopeError, match="no label to score clusters against"):
        clusters_by_label(codes, 4, (), **FAST)


def test_layers_computed_apart_are_one_result(world) -> None:
    codes = world("code", layers=(1, 2, 4), n=500)
    whole = clusters(codes, **FAST)
    parts = [clusters(codes, 4, **FAST), clusters(codes, (1, 2), **FAST)]
    back = replace(joined(parts), command=whole.command)
    assert back == whole
    assert back.tokens is None
    assert [verdict.layers for verdict in back.verdicts] == [3, 3, 3]
    # A verdict that Holm took back among few layers is decided anew.
    demoted = [replace(x, verdict=replace(x.verdict, outcome="inconclusive")) for x in parts[1].layers]
    other = joined([parts[0], replace(parts[1], layers=tuple(demoted))])
    assert replace(other, command=whole.command) == whole
    with pytest.raises(PolytopeError, match="layer 2 was compared with other settings or tokens than layer 4"):
        joined([parts[0], clusters(codes, 2, k=9, resamples=20)])
    with pytest.raises(PolytopeError, match="layer 4 is there twice"):
        joined([parts[0], replace(parts[0])])
    with pytest.raises(PolytopeError, match="no results to join"):
        joined([])
