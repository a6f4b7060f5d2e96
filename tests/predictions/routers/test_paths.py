"""Paths through routers against planted truth: what single layers, random routers and words do not know."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

import polytope_lm as plm
from polytope_lm.codes.codes import Codes
from polytope_lm.models.sites import Premises, Site
from polytope_lm.representations.directions import CENTRED, RAW
from polytope_lm.representations.routers import ON_ROWS, RANDOM_ROUTERS

EXPERTS, K, CLASSES, D = 8, 4, 6, 12
FEW = {"k": 36, "resamples": 20}


def site(layer: int) -> Site:
    premises = Premises("routed", f"top {K} of {EXPERTS}", False, "RMSNorm")
    return Site(layer, "router", f"blocks.{layer}.mlp.gate.hook_out", EXPERTS, D, premises)


def codes_of(labels: np.ndarray, layers: list[tuple[np.ndarray, np.ndarray]]) -> Codes:
    """Codes of routers from their inputs and logits; 20 tokens a document, each token a word of its own."""
    n = len(labels)
    document, words = np.arange(n) // 20, np.arange(n)
    table = pd.DataFrame(
        {
            "document": document, "position": words % 20, "start": words % 20 * 2, "end": words % 20 * 2 + 1,
            "token_id": words, "token": [f" w{word}" for word in words],
            "upos": pd.Series([f"class {label}" for label in labels], dtype="object"),
        }
    )  # fmt: skip
    arrays, kept = {}, {}
    for layer, (u, r) in enumerate(layers):
        top = r.argsort(1).argsort(1) >= EXPERTS - K
        arrays[site(layer).key] = np.packbits(top, axis=1, bitorder="little")
        kept |= {f"{site(layer).key}.u": u.astype(np.float32), f"{site(layer).key}.h": r.astype(np.float32)}
    sites = tuple(site(layer) for layer in range(len(layers)))
    letters = np.random.default_rng(9).choice(list("abcdefghijklmnopqrstuvwxyz"), (document[-1] + 1, 20))
    texts = [" ".join(row) for row in letters]
    return Codes(sites, table, arrays, [f"doc-{i}" for i in range(len(texts))], texts, ("u", "h"), {}, kept)


def path_world(seed: int = 0, n: int = 1000) -> Codes:
    """The class is that of both layers' choices together: alone, neither knows anything of it."""
    rng = np.random.default_rng(seed)
    labels, first = rng.integers(0, CLASSES, n), rng.integers(0, CLASSES, n)
    sets = np.array([[i in each for i in range(EXPERTS)] for each in combinations(range(EXPERTS), K)])[::12]
    layers = []
    for choice in (first, (labels - first) % CLASSES):
        r = np.where(sets[choice], 1, -1) * rng.lognormal(sigma=2, size=(n, EXPERTS))
        layers.append((rng.normal(size=(n, D)), r))
    return codes_of(labels, layers)


@pytest.fixture(scope="module")
def planted() -> plm.predictions.clusters:
    return plm.predictions.routers(path_world(), label="upos", **FEW)


def test_a_path_that_knows_more_than_each_layer_is_supported_against_each(planted) -> None:
    (path,) = planted.layers
    assert path.site.key == "L00+01.router"
    assert path.references == (RAW, CENTRED, RANDOM_ROUTERS)
    verdicts = {each.references: each.verdict.outcome for each in path.comparators if each.claim == "code"}
    alone = [(f"code of layer {layer} alone",) for layer in (0, 1)]
    assert set(verdicts) == {tuple(f"cosine of u, {how}" for how in ("raw", "centred")), ON_ROWS, *alone}
    assert [verdicts[one] for one in alone] == ["supported", "supported"]
    assert path.representation("code").score("AMI").estimate.value > 0.5
    for name in (*alone[0], *alone[1], RANDOM_ROUTERS, "token identity"):
        assert path.representation(name).score("AMI").estimate.value < 0.05
    assert path.difference("code", RANDOM_ROUTERS).estimate.low > 0.3
    assert path.verdict.outcome == "supported"


def test_the_path_is_saved_loaded_and_told_by_its_layers(planted, tmp_path) -> None:
    planted.save(tmp_path)
    assert plm.load_result(tmp_path) == planted
    assert planted.verdict.startswith("Layers 0 + 1: supported")
    assert planted.command == "plm.predictions.routers(codes, k=36, resamples=20)"


def test_random_routers_are_equalled_where_the_routers_are_random() -> None:
    """The class is a direction of u, and the real routers are drawn as the control's are."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, CLASSES, 1000)
    centres = 1.5 * rng.normal(size=(CLASSES, D))
    layers = []
    for _ in range(2):
        u = centres[labels] + rng.normal(size=(1000, D))
        layers.append((u, u @ rng.normal(size=(D, EXPERTS))))
    (path,) = plm.predictions.routers(codes_of(labels, layers), label="upos", **FEW).layers
    assert path.representation("code").score("AMI").estimate.value > 0.1
    assert path.difference("code", RANDOM_ROUTERS).estimate.low < 0.01
    assert path.verdict.outcome != "supported"


def test_one_router_is_compared_with_random_routers_too() -> None:
    found = plm.predictions.clusters(path_world(n=600), 0, label="upos", k=20, resamples=10)
    (layer,) = found.layers
    assert layer.references == (RAW, CENTRED, RANDOM_ROUTERS)
    assert "SimHash, rate-matched" not in {each.name for each in layer.representations}
    through = [each for each in layer.comparators if each.claim == "code, through to the output"]
    assert [each.references for each in through] == [("code",), layer.references]


def test_what_is_no_path_is_refused_in_one_line() -> None:
    codes = path_world(n=100)
    for given, message in (
        ({"layer": 1}, "a path needs two layers or more, and there is layer 1 alone"),
        ({"layer": [0, 7]}, "7"),
    ):
        with pytest.raises(plm.PolytopeError, match=message) as error:
            plm.predictions.routers(codes, label="upos", **given)
        assert "\n" not in str(error.value)
    dense = plm.encode(plm.load("tiny-gpt2"), ["a text of some words"], layers=[1], keep=("u", "h"))
    with pytest.raises(plm.PolytopeError, match=r"these have no codes of a router .L01.pre.; capture a mixture"):
        plm.predictions.routers(dense, label="upos")
    with pytest.raises(plm.PolytopeError, match=r"layer 1 has no codes of a router .L01.pre."):
        plm.predictions.routers(dense, 1, label="upos")
