"""The model with other weights, beside the real one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import polytope_lm as plm
from polytope_lm.controls.weights import permuted, recaptured, untrained
from polytope_lm.documents import Document, Span
from polytope_lm.errors import PolytopeError
from polytope_lm.predictions import clusters
from polytope_lm.predictions.clusters import layers as learned
from polytope_lm.predictions.clusters.layers import LABELS_PERMUTED, MAKERS, SHOWN, TOKEN_IDENTITY, row_name
from polytope_lm.predictions.clusters.result import AMI, REFERENCES, SCORES
from polytope_lm.representations import registered
from polytope_lm.seeds import Purpose, derived

FAST = {"k": 5, "resamples": 12, "comparators": False, "per_document": None}

FIRST_TABLE = (
    "code", "rate-standardised code", "median-threshold code", "up code", "gate+up code", "soft code",
    "expected Hamming", "margin-weighted code", "large-margin code", "cosine of h, raw",
    "cosine of h, centred", "cosine of u, raw", "cosine of u, centred", "cosine of post, raw",
    "cosine of post, centred", "cosine of x, raw", "cosine of x, centred", "cosine of (g, up), raw",
    "cosine of (g, up), centred", "top neuron", "NMF directions", "k-means directions",
)  # fmt: skip
SECOND_TABLE = (
    "SimHash, rate-matched", "SimHash, zero bias", "rotation, threshold 0", "rotation, rate-matched",
    "code, weights permuted", "code, untrained", "shuffled bits", LABELS_PERMUTED, TOKEN_IDENTITY,
)  # fmt: skip


def _documents(count: int = 16, words: int = 12) -> list[Document]:
    """Words drawn from a few, each with a label that its neighbour to the left decides."""
    rng = np.random.default_rng(0)
    known = ["river", "bank", "money", "boat", "water", "ducks", "pond", "wet", "dry", "new", "lot", "lake"]
    out = []
    for i in range(count):
        drawn = [known[j] for j in rng.integers(0, len(known), words)]
        ends = np.cumsum([len(word) + 1 for word in drawn])
        spans = tuple(
            Span(int(end) - len(word) - 1, int(end) - 1, {"upos": "AB"[len(before) % 2], "form": word})
            for word, before, end in zip(drawn, ["", *drawn], ends, strict=False)
        )
        out.append(Document(f"d{i}", " ".join(drawn), {}, spans))
    return out


@pytest.fixture(scope="module")
def codes(gated):
    keep = ("u", "h", "x", "up", "post")
    return plm.encode(gated, _documents(), layers=[0, 1], keep=keep, tokens="word-final")


def test_every_row_of_both_tables_is_there(codes) -> None:
    """And what a user registers, too: nothing is left out of a gated model with all activations."""
    found = clusters(codes, 0, extra="all", **FAST)
    layer = found.layers[0]
    names = [each.name for each in layer.representations]
    assert all("is for routers" in why for why in layer.left_out.values())
    assert set(FIRST_TABLE) <= set(names)
    assert set(SECOND_TABLE) <= set(names)
    assert {each.name for each in registered()} - set(layer.left_out) <= set(names)
    assert {row_name(name, control) for name in SHOWN for control in MAKERS} <= set(names)
    assert len(set(names)) == len(names)
    for each in layer.representations:  # hubs, sizes and scores of every row
        assert sum(each.cluster_sizes) == found.sample.tokens
        assert [score.name for score in each.scores] == list(SCORES)
    roles = {each.name: each.role for each in layer.representations}
    assert {roles[name] for name in SECOND_TABLE} == {"control"}
    plain = clusters(codes, 0, **FAST)
    assert found.verdicts == plain.verdicts
    assert [each.name for each in clusters(codes, 0, extra="all", weights=(), **FAST).layers[0].representations] == [
        name for name in names if not name.endswith((", weights permuted", ", untrained"))
    ]


@pytest.mark.parametrize(("control", "make"), [("permuted", permuted), ("untrained", untrained)])
def test_a_controls_rows_are_those_of_its_own_comparison(codes, gated, control, make) -> None:
    layer = clusters(codes, 1, weights=control, **FAST).layers[0]
    number = list(MAKERS).index(control)
    again = recaptured(codes, make(gated, derived(0, Purpose.WEIGHTS, number)), keep=("u", "h"))
    alone = clusters(again, 1, **FAST).layers[0]
    for name in SHOWN:
        mine, theirs = layer.representation(row_name(name, control)), alone.representation(name)
        assert mine.scores == theirs.scores
        assert mine.cluster_sizes == theirs.cluster_sizes
    code = layer.representation("code").score(AMI).estimate.value
    other = layer.representation(row_name("code", control)).score(AMI).estimate.value
    assert other != code
    lead = layer.difference("code", row_name("code", control), AMI).estimate
    assert lead.value == pytest.approx(code - other)
    assert lead.low < lead.value < lead.high
    assert layer.verdict.deciding_reference in REFERENCES
    assert layer.verdict == clusters(codes, 1, **FAST).verdicts[0]


def test_layers_are_read_in_blocks_that_fit(codes, monkeypatch) -> None:
    whole = clusters(codes, weights=("permuted",), **FAST)
    made: list[int] = []

    def counted(model, seed):
        made.append(seed)
        return permuted(model, seed)

    monkeypatch.setitem(learned.MAKERS, "permuted", (counted, *MAKERS["permuted"][1:]))
    assert clusters(codes, weights=("permuted",), **FAST).layers == whole.layers
    assert len(made) == 1
    monkeypatch.setattr(learned, "BYTES_AT_ONCE", 1)
    assert clusters(codes, weights=("permuted",), **FAST).layers == whole.layers
    assert len(made) == 3


def test_a_store_needs_its_model_and_only_its_own(codes, gated, model, tmp_path) -> None:
    plm.capture(gated, _documents(), to=tmp_path / "s", keep=("u", "h"), tokens="word-final", progress=False)
    store = plm.open_store(tmp_path / "s")
    assert store.model is None
    with pytest.raises(PolytopeError, match=r"need the model, which these codes do not have.*--model NAME"):
        clusters(store, 1, weights="permuted", **FAST)
    with pytest.raises(PolytopeError, match=r"no control of the weights 'shuffled'; there are 'permuted', 'u"):
        clusters(codes, 1, weights="shuffled", **FAST)
    with pytest.raises(PolytopeError, match=r"these codes are by small-llama, revision .* small-gpt2 has another"):
        clusters(store, 1, weights="permuted", model=model, **FAST)
    left_out = clusters(store, 1, extra="all", **FAST).layers[0].left_out
    assert "give model=plm.load(...)" in left_out["code, weights permuted"]
    given = clusters(store, 1, weights="permuted", model=gated, **FAST).layers[0]
    memory = clusters(codes, 1, weights="permuted", **FAST).layers[0]
    assert given.representations == memory.representations


def test_codes_know_their_model_and_leave_it_behind_when_they_are_sent(codes, gated) -> None:
    import pickle

    assert codes.model is gated
    assert codes[0].model is gated
    assert pickle.loads(pickle.dumps(replace(codes, model=None))).model is None
    assert codes.__getstate__()["model"] is None
