"""What words alone score."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score

from polytope_lm.predictions import clusters
from polytope_lm.predictions.clusters.layers import LABELS_PERMUTED, NULLS, TOKEN_IDENTITY, majority_elsewhere
from polytope_lm.predictions.clusters.result import AGREEMENT, AMI
from polytope_lm.predictions.clusters.sampling import choose

FAST = {"k": 8, "resamples": 40, "comparators": False, "per_document": None}


def test_the_commonest_label_elsewhere_is_counted_by_hand(world) -> None:
    codes = world("direction", n=600)
    codes.tokens["token_id"] %= 40
    sample = choose(codes, "upos", tokens=500, seed=0)
    guesses = majority_elsewhere(sample)
    common = Counter(sample.labels.tolist())
    for i in range(0, len(guesses), 7):
        there = (sample.token == sample.token[i]) & (sample.documents != sample.documents[i])
        votes = Counter(sample.labels[there].tolist())
        best = max(votes.values(), default=0)
        allowed = {label for label, n in votes.items() if n == best} or {max(common, key=common.__getitem__)}
        assert guesses[i] in allowed
        assert all(common[int(guesses[i])] >= common[label] for label in allowed)


def test_a_label_that_is_the_words_is_reached_by_the_lexicon_and_one_that_is_not_is_not(world) -> None:
    codes = world("direction")
    codes.tokens["token_id"] %= 40
    codes.tokens["lexical"] = (codes.tokens["token_id"] % 4).astype(str)
    lexical = clusters(codes, 4, "lexical", extra=NULLS, **FAST).layers[0].representation(TOKEN_IDENTITY)
    assert lexical.score(AMI).level == pytest.approx(1)
    result = clusters(codes, 4, extra=NULLS, **FAST)
    row = result.layers[0].representation(TOKEN_IDENTITY)
    assert abs(row.score(AMI).estimate.value) < 0.05
    ids = result.tokens[f"L04.pre/cluster/{TOKEN_IDENTITY}"]
    expected = adjusted_mutual_info_score(result.tokens["upos"], ids)
    assert row.score(AMI).level == pytest.approx(expected, abs=1e-9)
    assert result.verdicts == clusters(codes, 4, **FAST).verdicts


def test_random_neighbours_agree_by_chance(world) -> None:
    result = clusters(world("direction"), 4, extra=TOKEN_IDENTITY, **FAST)
    labels, words = result.tokens["upos"].to_numpy(), result.tokens["word"].to_numpy()
    documents = result.tokens["document"].to_numpy()
    allowed = (words[:, None] != words) & (documents[:, None] != documents)
    same = labels[:, None] == labels
    chance = ((same & allowed).sum(axis=1) / allowed.sum(axis=1)).mean()
    layer = result.layers[0]
    found = layer.representation(TOKEN_IDENTITY).score(AGREEMENT)
    assert found.level == pytest.approx(chance, abs=0.015)
    assert found.estimate.low < 0 < found.estimate.high
    shuffled = clusters(world("direction"), 4, extra="shuffled bits", **FAST).layers[0]
    estimate = shuffled.representation("shuffled bits").score(AGREEMENT).estimate
    assert estimate.low < 0 < estimate.high


def test_permuted_labels_take_away_what_is_not_the_words_and_documents(world) -> None:
    codes = world("code", documents=12)
    codes.tokens["token_id"] %= 6
    codes.tokens["word"] = codes.tokens["form"] = [f"w{i}" for i in codes.tokens["token_id"]]
    layer = clusters(codes, 4, extra=LABELS_PERMUTED, **FAST).layers[0]
    row, code = layer.representation(LABELS_PERMUTED), layer.representation("code")
    assert code.score(AMI).estimate.value > 0.1
    assert row.score(AMI).estimate.value < 0.06
    assert len(set(row.score(AMI).draws)) == 5
    assert "labels could move" in row.isolates
    assert row.cluster_sizes == code.cluster_sizes
    assert layer.difference("code", LABELS_PERMUTED, AMI).estimate.low > 0.05


def test_labels_that_can_not_move_are_left_out_with_the_reason(world) -> None:
    codes = world("code")
    rng = np.random.default_rng(0)
    codes.tokens["genre"] = rng.choice(list("abc"), 45)[codes.tokens["document"]]
    layer = clusters(codes, 4, "genre", extra=NULLS, **FAST).layers[0]
    assert "no label can move" in layer.left_out[LABELS_PERMUTED]
    assert layer.representation(TOKEN_IDENTITY)
