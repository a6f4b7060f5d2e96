"""A wrong argument of any prediction is one line that names it, said before any work."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import polytope_lm as plm
from polytope_lm import predictions
from polytope_lm.errors import PolytopeError

WRONG: dict[str, tuple[Any, ...]] = {
    "k": (2.5, "x", True),
    "tokens": (0, -1, 1.5, "x", None),
    "resamples": ("x", None, 2.5),
    "smallest_effect": (float("nan"), -1, "x", None),
    "seed": (-1, "x", None, 1.5),
    "layer": ("a", 99, [], True, 4.0, [4, "b"]),
    "label": (None, 3, ["upos"]),
    "extra": (3, None),
    "weights": (3,),
    "model": ("x",),
    "runs": (0, "x", None, 1.5),
    "exchange": ("x", None),
    "progress": (3,),
    "nonsense": (1,),
}
OF = {"clusters": set(WRONG) - {"runs", "exchange"}, "calibrate": set(WRONG) - {"extra", "weights", "model"}}
CASES = [(what, name, value) for what, names in OF.items() for name in sorted(names) for value in WRONG[name]]


@pytest.mark.parametrize(("what", "name", "value"), CASES)
def test_a_wrong_argument_is_named(world, what: str, name: str, value: Any) -> None:
    function = plm.calibrate if what == "calibrate" else predictions.clusters
    with pytest.raises(PolytopeError, match=name.rstrip("s")) as caught:
        function(world(n=300, documents=20), **{"layer": 4, "k": 4, "resamples": 8, name: value})
    assert "\n" not in str(caught.value)


def test_groups_multiverse_and_the_rest_say_it_too(world) -> None:
    codes = world(n=300, documents=20)
    ids, away = np.arange(len(codes)) % 5, np.zeros((60, 60))
    calls = {
        "result": lambda: predictions.groups(codes, 3, 4),
        "group ids are float64": lambda: predictions.groups(codes, {"a": ids * np.nan}, 4, label="upos"),
        "items": lambda: predictions.intruder_items(codes, ids, items="x"),
        "draws": lambda: predictions.context_coherence(codes, ids, draws="x"),
        "encoder": lambda: predictions.context_coherence(codes, ids, encoder=3),
        "ks": lambda: predictions.multiverse(codes, 4, ks=()),
        "sample_seeds": lambda: predictions.multiverse(codes, 4, sample_seeds=3),
        "layers": lambda: predictions.multiverse(codes, []),
        "token 0 is not finite": lambda: predictions.stability(away * np.nan, np.arange(60) // 6, 3),
        "codes = 3": lambda: predictions.clusters(3),
        "'codes'": predictions.clusters,
    }
    for name, call in calls.items():
        with pytest.raises(PolytopeError, match=name) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_senses_say_it_and_all_is_every_layer(world) -> None:
    codes = world(n=300, documents=20)
    for name, value in (("layer", "x"), ("layer", True), ("resamples", "x"), ("word", 3), ("label", 3)):
        with pytest.raises(PolytopeError, match=f"{name} = "):
            predictions.senses(codes, **{name: value})
    options = {"k": 4, "resamples": 8}
    assert predictions.clusters(codes, "all", **options).layers == predictions.clusters(codes, **options).layers


def test_a_layer_named_twice_counts_once_and_numpy_numbers_are_numbers(world) -> None:
    codes = world(n=300, documents=20)
    options = {"k": np.int64(4), "resamples": 8}
    twice = predictions.clusters(codes, (4, np.int64(4)), **options)
    assert twice.layers == predictions.clusters(codes, 4, **options).layers
