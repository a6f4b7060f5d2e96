from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.clusters.sampling import choose, clusters_for


def test_first_positions_are_left_out_unless_a_bos_was_read_before_them(world) -> None:
    codes = world()
    firsts = int((codes.tokens["position"] == 0).sum())
    sample = choose(codes, "upos", tokens=10_000, seed=0, per_document=None)
    assert sample.summary.first_position == firsts == 45
    assert sample.summary.tokens == len(codes) - firsts
    with_bos = choose(world(bos="<bos>"), "upos", tokens=10_000, seed=0, per_document=None)
    assert (with_bos.summary.first_position, with_bos.summary.tokens) == (0, len(codes))


def test_tokens_without_the_label_are_dropped_and_counted(world) -> None:
    codes = world(bos="x")
    codes.tokens.loc[:99, "upos"] = None
    sample = choose(codes, "upos", tokens=10_000, seed=0, per_document=None)
    assert sample.summary.without_label == 100
    assert sample.rows.min() == 100


def test_repeated_documents_count_once(world) -> None:
    codes = world(bos="x")
    texts = list(codes.texts)
    texts[7] = texts[2]
    sample = choose(replace(codes, texts=texts), "upos", tokens=10_000, seed=0)
    assert sample.summary.repeated_documents == 1
    assert 7 not in set(codes.tokens["document"].iloc[sample.rows])
    assert 2 in set(codes.tokens["document"].iloc[sample.rows])


def test_the_sample_goes_by_seed_and_says_what_it_left(world) -> None:
    codes = world(bos="x")
    first, again, other = (choose(codes, "upos", tokens=300, seed=seed) for seed in (0, 0, 1))
    assert len(first.rows) == len(set(first.rows)) == 300
    assert (np.diff(first.rows) > 0).all()
    assert (first.rows == again.rows).all()
    assert (first.rows != other.rows).any()
    assert first.summary.not_sampled == 600
    assert sum(first.summary.label_counts.values()) == 300


def test_forms_and_lemmas_come_from_labels_or_from_the_folded_surface(world) -> None:
    codes = world(bos="x")
    table = codes.tokens
    table.loc[3, "token"], table.loc[90, "token"] = " Bank", "bank"
    sample = choose(codes, "upos", tokens=10_000, seed=0, per_document=None)
    assert (sample.form, sample.lemma) == ("surface", "surface")
    assert (sample.groups[3, :2] == sample.groups[90, :2]).all()
    assert sample.groups[3, 2] == table["token_id"].iloc[3]

    table["lemma"] = [None if i == 5 else f"lemma {i % 7}" for i in range(len(table))]
    sample = choose(codes, "upos", tokens=10_000, seed=0, per_document=None)
    assert (sample.form, sample.lemma) == ("surface", "label lemma")
    assert sample.groups[8, 0] == sample.groups[1, 0] != sample.groups[2, 0]


def test_bad_labels_are_refused_by_name(world) -> None:
    codes = world()
    with pytest.raises(PolytopeError, match="no label 'genre'; these codes have 'word', 'upos'"):
        choose(codes, "genre", tokens=100, seed=0)
    codes.tokens["one"] = "same"
    with pytest.raises(PolytopeError, match="label 'one' has one value, 'same',"):
        choose(codes, "one", tokens=100, seed=0)
    codes.tokens["none"] = None
    with pytest.raises(PolytopeError, match="label 'none' has no value among 0 tokens"):
        choose(codes, "none", tokens=100, seed=0)


@pytest.mark.parametrize(("tokens", "k"), [(6000, 100), (50_000, 100), (3000, 50), (100, 2)])
def test_k_is_100_or_a_sixtieth(tokens: int, k: int) -> None:
    assert clusters_for(tokens) == k


def test_no_document_has_more_than_its_share_and_few_documents_count_for_fewer(world) -> None:
    codes = world(bos="x")
    for most in (1, 7, 20):
        sample = choose(codes, "upos", tokens=10_000, seed=0, per_document=most)
        counts = np.bincount(codes.tokens["document"].iloc[sample.rows])
        all_of_them = np.bincount(codes.tokens["document"])
        np.testing.assert_array_equal(counts, np.minimum(all_of_them, most))
        assert sample.summary.effective == pytest.approx(counts.sum() ** 2 / (counts**2).sum())
    others = choose(codes, "upos", tokens=10_000, seed=1, per_document=7)
    assert (others.rows != choose(codes, "upos", tokens=10_000, seed=0, per_document=7).rows).any()
    with pytest.raises(PolytopeError, match="per_document = 0 leaves no token"):
        choose(codes, "upos", tokens=100, seed=0, per_document=0)
