"""What can't be compared is refused in one clear line; what can run, runs."""

from __future__ import annotations

import numpy as np
import pytest

import polytope_lm as plm
from polytope_lm.errors import PolytopeError
from polytope_lm.predictions import clusters
from polytope_lm.predictions.clusters.test import clusters_by_label
from polytope_lm.representations import registry

FAST = {"k": 5, "resamples": 10, "comparators": False, "per_document": None}


def _line(message: str, codes, *arguments: object, **options: object) -> None:
    with pytest.raises(PolytopeError, match=message) as caught:
        clusters(codes, *arguments, **{**FAST, **options})
    assert "\n" not in str(caught.value)


def test_labels(world) -> None:
    codes = world(n=500)
    _line("no label 'genre'; these codes have 'word', 'upos'", codes, 4, "genre")
    codes.tokens["one"] = "same"
    _line("label 'one' has one value, 'same', among 455 tokens; a grouping needs two values", codes, 4, "one")
    codes.tokens["none"] = None
    _line("label 'none' has no value among 0 tokens; a grouping needs two values", codes, 4, "none")
    first = codes.tokens["document"].duplicated()
    codes.tokens["rare"] = np.where(first, "a", "b")
    table = codes.tokens
    table.loc[(table["document"] > 0) & (table["rare"] == "b"), "rare"] = "a"
    table.loc[1, "rare"] = "b"
    _line(
        r"label 'rare' has one value, 'a', among \d+ tokens; .* take more of each document \(now 1\) or more in all",
        codes, 4, "rare", per_document=1, seed=1,
    )  # fmt: skip


def test_a_label_that_can_not_be_compared_is_left_out_and_the_others_run(world) -> None:
    codes = world(n=500)
    codes.tokens["one"] = "same"
    found = clusters_by_label(codes, 4, ("upos", "one"), **FAST)
    assert list(found) == ["upos"]
    assert "label 'one' has one value" in found["upos"].layers[0].left_out["label 'one'"]
    with pytest.raises(PolytopeError, match="label 'one' has one value"):
        clusters_by_label(codes, 4, ("one",), **FAST)
    with pytest.raises(PolytopeError, match="no label 'mood'"):
        clusters_by_label(codes, 4, ("upos", "mood"), **FAST)


def test_documents_and_k(world) -> None:
    _line(r"7 documents count for 7\.0, and at least 8 are needed", world(documents=7), 4)
    for k in (855, 5000, 1):
        _line(f"k = {k} clusters of 855 tokens; k must be at least 2 and below", world(), 4, k=k)
    _line("seed = -3 is no seed", world(), 4, seed=-3)
    _line(r"resamples = 1 gives no spread; at least \d", world(), 4, resamples=1)


def test_activations_that_were_not_kept_name_the_capture_option(world) -> None:
    _line(r'u and h not kept.*capture again with keep=\("u", "h"\) or --keep u,h', world(kept=()), 4)
    _line(r'u not kept .*keep=\("u", "h"\) or --keep u,h', world(kept=("h",)), 4)
    layer = clusters(world(n=500), 4, extra=("top neuron", "cosine of x, raw", "soft code"), **FAST).layers[0]
    for name, array in (("top neuron", "post"), ("cosine of x, raw", "x")):
        assert f"'{array}' of layer 4 was not kept (kept: u, h)" in layer.left_out[name]
        assert f"--keep u,h`, and {array} as well" in layer.left_out[name]
    assert layer.representation("soft code")


@pytest.mark.parametrize("array", ["u", "h"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_activations_that_are_no_numbers(world, array: str, value: float) -> None:
    codes = world(n=500)
    codes.kept_arrays[f"L04.pre.{array}"][300, 0] = value
    _line(f"'{array}' of layer 4 holds NaN or infinity at token 300; capture that document again", codes, 4)


def test_a_representation_that_fails_is_left_out_and_the_rest_runs(world) -> None:
    before = dict(registry._REGISTRY)
    try:

        @plm.representation("not a number", isolates="errors")
        def nan(pre):
            return np.where(np.arange(len(pre))[:, None] == 7, np.nan, pre)

        @plm.representation("too short", isolates="errors")
        def short(pre):
            return pre[:-1]

        @plm.representation("nothing", isolates="errors")
        def zero(pre):
            return pre * 0

        names = ("not a number", "too short", "nothing", "shuffled bits")
        layer = clusters(world(n=500), 4, extra=names, **FAST).layers[0]
    finally:
        registry._REGISTRY.clear()
        registry._REGISTRY.update(before)
    assert "gave NaN or infinity for token 7; mend its function" in layer.left_out["not a number"]
    assert "must give one row for each of 455 tokens" in layer.left_out["too short"]
    assert "is the zero vector, which has no cosine" in layer.left_out["nothing"]
    assert set(layer.left_out) == set(names) - {"shuffled bits"}
    assert layer.verdict.outcome


def test_unknown_names_list_what_there_is(world) -> None:
    _line("layer 9 is not in these codes; captured layers: 4", world(n=500), 9)
    _line("no representation 'mine'; registered are 'code', ", world(n=500), 4, extra=["mine"])
    _line("no control of the weights 'mine'; there are 'permuted', 'untrained'", world(n=500), 4, weights="mine")
