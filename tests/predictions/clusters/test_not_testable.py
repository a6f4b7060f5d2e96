"""Labels that nothing sees are not testable, and neither refuted nor supported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import polytope_lm as plm
from analyses._corpora import news
from polytope_lm.errors import PolytopeError
from polytope_lm.predictions import clusters, clusters_by_label

FAST = {"resamples": 8, "comparators": False}


@pytest.fixture(scope="module")
def codes():
    """5,000 tokens of as many short documents in 40 regions."""
    return plm.worlds.null_world(tokens=5000, documents=5000, seed=3)


def test_topics_drawn_at_random_are_not_testable(codes) -> None:
    codes.tokens["topic"] = np.random.default_rng(0).choice(list("abcd"), 5000)
    found = clusters(codes, label="topic", k=20, **FAST)
    assert found.verdicts[0].outcome == "not testable"
    assert found.verdict.startswith("Layer 0: not testable. No representation and no control sees the label")


def test_a_label_that_alternates_is_not_testable() -> None:
    codes = plm.worlds.null_world(tokens=4000, documents=200, seed=1)
    codes.tokens["turn"] = pd.Series(np.arange(4000) % 2).map({0: "a", 1: "b"}).to_numpy()
    assert clusters(codes, label="turn", k=20, **FAST).verdicts[0].outcome == "not testable"


def test_labels_that_nothing_sees_are_not_testable_on_real_codes() -> None:
    """A tiny model's codes of 2,400 short documents: lines of the built-in sample, two tokens of each."""
    lines = [line.strip() for text in plm.documents("sample") for line in text.text.splitlines()]
    lines = list(dict.fromkeys(line for line in lines if len(line.split()) > 5))[:2400]
    codes = plm.encode(plm.load("tiny-gpt2"), lines, layers=[1], tokens="random:2", keep=("u", "h"))
    document = codes.tokens["document"].to_numpy()
    codes.tokens["topic"] = np.random.default_rng(0).choice(list("abcd"), document.max() + 1)[document]
    codes.tokens["turn"] = np.where(np.arange(len(document)) % 2, "a", "b")
    found = clusters_by_label(codes, None, ["topic", "turn"], k=20, **{**FAST, "resamples": 4})
    assert [found[label].verdicts[0].outcome for label in ("topic", "turn")] == ["not testable"] * 2


DATA = Path(plm.__file__).parents[2] / "shared" / "data"


@pytest.mark.skipif(not (DATA / "news" / "ag_news.csv").is_file(), reason="needs AG News beside the checkout")
def test_topics_of_news_are_not_testable_on_a_tiny_model() -> None:
    items = news(DATA, 1500, 0)
    codes = plm.encode(plm.load("tiny-gpt2"), items, layers=[1], tokens="random:3", keep=("u", "h"))
    found = clusters(codes, label="topic", **FAST)
    assert found.sample.effective > 1000
    assert found.verdicts[0].outcome == "not testable"


def test_few_effective_documents_are_refused_in_one_line() -> None:
    codes = plm.worlds.null_world(tokens=300, documents=10, seed=1)
    rows = np.flatnonzero((codes.tokens["document"] == 0) | (np.arange(300) % 10 == 0))
    codes.tokens["some"] = None
    codes.tokens.loc[rows, "some"] = np.where(rows % 2, "a", "b")
    with pytest.raises(PolytopeError, match=r"10 documents count for \d\.\d, and at least 8 are needed"):
        clusters(codes, label="some", k=4, per_document=None, **FAST)
