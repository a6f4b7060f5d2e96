"""Codes as features of scikit-learn's."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator
from small import SENTENCES

import polytope_lm as plm

TEXTS = [*SENTENCES, "Two words"]


def test_features_are_bits_or_rates(model):
    codes = plm.encode(model, TEXTS, layers=[0, 1], keep=())
    last = plm.SplineCode(model, layers=[0, 1]).fit_transform(TEXTS)
    mean = plm.SplineCode(model, layers=[0, 1], pool="mean").fit_transform(np.array(TEXTS))
    assert last.dtype == mean.dtype == np.float32
    for row, prompt in enumerate(codes):
        both = np.hstack([prompt.bits(0), prompt.bits(1)])
        np.testing.assert_array_equal(last[row], both[-1])
        np.testing.assert_allclose(mean[row], both.mean(0), rtol=1e-6)


def test_a_declared_encoder_gives_features(model):
    weight = np.random.default_rng(0).standard_normal((24, 30))
    mine = model.with_encoder({"W_enc": weight}, "blocks.1.hook_resid_post")
    found = plm.SplineCode(mine, kind="blocks.1.hook_resid_post").fit_transform(TEXTS)
    wanted = plm.encode(mine, TEXTS, kind="blocks.1.hook_resid_post", keep=())
    np.testing.assert_array_equal(found[2], wanted[2].bits()[-1])


def test_scikit_learns_own_checks(model):
    with pytest.warns(match="Can't test estimator SplineCode which requires input"):
        check_estimator(plm.SplineCode(model, layers=[1]))  # those of numbers do not apply to texts
    made = plm.SplineCode(model, layers=[1])
    copied = clone(made)
    assert copied.model is model
    assert copied.get_params()["layers"] == [1]
    assert list(made.fit(TEXTS).get_feature_names_out()[:2]) == ["L01.pre.0", "L01.pre.1"]
    assert made.set_output(transform="pandas").fit_transform(TEXTS).shape == (5, 96)


def test_it_works_in_a_search_over_folds_and_is_pickled_by_name():
    named = plm.SplineCode("tiny-gpt2", layers=[1])
    texts = pd.Series(["The loop ends", "A list is empty", "The loop stops", "A list of lists"] * 3)
    search = GridSearchCV(
        make_pipeline(named, LogisticRegression()), {"splinecode__pool": ["last", "mean"]}, cv=3, error_score="raise"
    )
    search.fit(texts, [0, 1] * 6)
    assert search.best_score_ == 1
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    assert len(pickle.dumps(search.best_estimator_)) < 100_000
    np.testing.assert_array_equal(again.predict(texts), search.predict(texts))


def test_what_is_wrong_is_one_line(model):
    for change, texts, said in [
        ({"pool": "sum"}, TEXTS, "pool = 'sum': choose among last, mean"),
        ({"layers": [9]}, TEXTS, "no layer 9"),
        ({}, "one text", "give a list of texts"),
        ({}, [], "give a list of texts"),
    ]:
        with pytest.raises(plm.PolytopeError, match=said):
            plm.SplineCode(model, **change).fit(texts)
    with pytest.raises(plm.PolytopeError, match="text 1 is empty"):
        plm.SplineCode(model).fit(TEXTS).transform(["x", ""])
