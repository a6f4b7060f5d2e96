"""Spline features against the formula written out, and as scikit-learn wants a transformer to be."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

import polytope_lm as plm
from polytope_lm import PolytopeError, SplineFeatures
from polytope_lm.geometry import spline_features
from polytope_lm.geometry.spline_features import FEATURES, features

TEXTS = ["He sat on the bank of the river.", "A bank", "The ducks on the pond were not impressed by the new boat."]


def written_out(hf, maps, tokenizer, text):
    """Run one text alone through the plain model; seven numbers of each map."""
    seen = []
    hooks = [one.register_forward_hook(lambda _m, _a, out: seen.append(out[0].double())) for one in maps]
    with torch.no_grad():
        hf(torch.tensor([tokenizer(text)["input_ids"]]))
    for hook in hooks:
        hook.remove()
    found = []
    for h, one in zip(seen, maps, strict=True):
        weight = one.weight.detach().double()
        norms = (weight.T if type(one).__name__ == "Conv1D" else weight).norm(dim=1)
        s = [float(sum(v > 0 for v in row)) / len(row) for row in h.tolist()]
        c = [min(abs(v) / n for v, n in zip(row, norms.tolist(), strict=True)) for row in h.tolist()]
        mean_s, mean_c = sum(s) / len(s), sum(c) / len(c)
        found += [
            mean_s, min(s), max(s), (sum((v - mean_s) ** 2 for v in s) / len(s)) ** 0.5,
            min(c), mean_c, (sum((v - mean_c) ** 2 for v in c) / len(c)) ** 0.5,
        ]  # fmt: skip
    return found


@pytest.mark.parametrize("family", ["model", "gated"])
def test_they_are_the_formula_written_out(family, request):
    model = request.getfixturevalue(family)
    blocks = model.hf.transformer.h if family == "model" else model.hf.model.layers
    maps = [b.mlp.c_fc if family == "model" else b.mlp.gate_proj for b in blocks]
    found = SplineFeatures(model).fit_transform(TEXTS)
    for row, text in zip(found, TEXTS, strict=True):
        np.testing.assert_allclose(row, written_out(model.hf, maps, model.tokenizer, text), atol=1e-5)


def test_special_tokens_are_left_out(gpt2, tokenizer):
    model = replace(plm.wrap(gpt2(), tokenizer, name="small"), bos=True)
    found = SplineFeatures(model, layers=[1]).fit_transform(TEXTS[:1])[0]
    codes = plm.encode(model, TEXTS[:1], layers=[1], keep=("h",), bos=True)
    share = (codes.activations("h") > 0).mean(1)
    assert codes.provenance["special_tokens"]["before"]
    assert found[0] == pytest.approx(share.mean())


def test_scikit_learns_own_checks():
    for check in check_estimator(SplineFeatures(), on_skip=None, on_fail=None):
        assert check["status"] != "failed", (check["check_name"], check["exception"])


def test_names_and_frames():
    transformer = SplineFeatures("tiny-gpt2", layers=[1, 2]).set_output(transform="pandas")
    frame = transformer.fit_transform(TEXTS)
    assert frame.columns.tolist() == transformer.get_feature_names_out().tolist()
    assert frame.columns[0] == "L01.pre mean share on"
    assert frame.shape == (3, 2 * len(FEATURES))


def test_clones_share_the_model_and_a_name_is_not_pickled(model):
    fitted = SplineFeatures(model, layers=[0]).fit(TEXTS)
    assert clone(fitted).model is model
    assert not hasattr(clone(fitted), "sites_")
    named = SplineFeatures("tiny-gpt2", layers=[1]).fit(TEXTS)
    data = pickle.dumps(named)
    assert len(data) < 10_000
    np.testing.assert_array_equal(pickle.loads(data).transform(TEXTS), named.transform(TEXTS))


def test_a_pipeline_is_cross_validated(model):
    texts = [f"The duck {i} swims" for i in range(12)] + [f"A bank of money {i}" for i in range(12)]
    pipeline = make_pipeline(SplineFeatures(model, layers=[1]), LogisticRegression())
    scores = cross_val_score(pipeline, texts, [0] * 12 + [1] * 12, cv=3)
    assert scores.shape == (3,)
    assert scores.mean() > 0.8
    assert pipeline.set_params(splinefeatures__layers=[0, 2]).fit(texts, [0, 1] * 12)[0].n_features_out_ == 14


def test_a_memory_is_shared_by_clones_and_each_text_is_read_once(model, monkeypatch):
    read, known = [], {}
    plain = spline_features.read_batch
    monkeypatch.setattr(spline_features, "read_batch", lambda *a: (read.append(len(a[1].windows)), plain(*a))[1])
    texts = [f"The duck {i} swims" for i in range(6)] + [f"A bank of money {i}" for i in range(6)]
    remembering = SplineFeatures(model, layers=[1], memory=known)
    assert clone(remembering).memory is known
    scores = cross_val_score(make_pipeline(remembering, LogisticRegression()), texts, [0] * 6 + [1] * 6, cv=3)
    assert sum(read) == len(texts) == len(known)
    without = SplineFeatures(model, layers=[1])
    np.testing.assert_allclose(
        remembering.fit(texts).transform(texts[::-1]), without.fit_transform(texts[::-1]), atol=1e-6
    )
    plainly = cross_val_score(make_pipeline(without, LogisticRegression()), texts, [0] * 6 + [1] * 6, cv=3)
    np.testing.assert_array_equal(scores, plainly)
    with pytest.raises(PolytopeError, match=r"\(7,\) features of text 0, not 14"):
        SplineFeatures(model, layers=[0, 1], memory=known).fit_transform(texts)


def test_what_gives_no_features_is_refused(model):
    with pytest.raises(NotFittedError):
        SplineFeatures(model).transform(TEXTS)
    with pytest.raises(NotFittedError):
        SplineFeatures(model).get_feature_names_out()
    for call, place in (
        (lambda: SplineFeatures(model).fit("one text"), "one text"),
        (lambda: SplineFeatures(model).fit([]), "no texts"),
        (lambda: SplineFeatures(model).fit([3]), "text 0 is a int"),
        (lambda: SplineFeatures(model).fit(["a", ""]), "text 1 is empty"),
        (lambda: SplineFeatures(model, layers=[9]).fit(TEXTS), "9"),
        (lambda: SplineFeatures(3).fit(TEXTS), "model=3"),
        (lambda: SplineFeatures(plm.load("tiny-moe")).fit(TEXTS).transform(TEXTS), "'router'"),
        (lambda: features(np.zeros((0, 2)), np.zeros((0, 2))), "no tokens"),
    ):
        with pytest.raises(PolytopeError, match=place):
            call()
