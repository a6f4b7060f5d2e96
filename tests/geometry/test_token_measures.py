"""What `plm.measure` says of tokens and prompts, against plain arithmetic on plain activations."""

from __future__ import annotations

import math

import made
import numpy as np
import pytest
import torch

import polytope_lm as plm
from polytope_lm import PolytopeError
from polytope_lm.geometry.linear_mapping import linear_mapping_number, linearity_matrix
from polytope_lm.geometry.token_measures import SAMPLES, SMOOTH_OF_PROMPTS, Settings

TEXTS = ["He sat on the bank of the river.", "She owes the bank a lot", "A bank"]


@pytest.fixture(scope="module")
def codes(model):
    return plm.encode(model, TEXTS, layers=[0, 1], keep=("h", "u"))


def test_a_tokens_numbers_are_those_of_its_activations(codes, model):
    found = plm.measure(codes, settings=Settings(radius=0.2, directions=6))
    assert len(found) == 2 * len(codes)
    for layer, rows in found.groupby("layer"):
        h, u = codes.activations("h", layer), codes.activations("u", layer)
        weight = model.hf.transformer.h[layer].mlp.c_fc.weight.detach().numpy().T
        away = np.abs(h) / np.linalg.norm(weight, axis=1)
        np.testing.assert_allclose(rows["boundary distance"], away.min(1), rtol=1e-5)
        np.testing.assert_array_equal(rows["boundary neuron"], away.argmin(1))
        np.testing.assert_allclose(rows["share on"], (h > 0).mean(1))
        np.testing.assert_allclose(rows["norm of u"], np.linalg.norm(u, axis=1), rtol=1e-5)
        first = rows["position"].to_numpy() == 0
        crossed = ((h[1:] > 0) != (h[:-1] > 0)).sum(1)
        np.testing.assert_array_equal(rows["crossings from the token before"][~first], crossed[~first[1:]])
        apart = np.linalg.norm(h[1:] - h[:-1], axis=1)
        np.testing.assert_allclose(rows["distance of h from the token before"][~first], apart[~first[1:]], rtol=1e-4)
        for name in ("crossings", "variation of the Jacobian", "distance of h"):
            assert rows[f"{name} from the token before"].isna().tolist() == first.tolist()
        assert (rows["variation of the Jacobian from the token before"][~first] > 0).all()
    assert (found["local complexity"] > 0).any()
    assert found["radius"].gt(0).all()


def test_loss_and_entropy_are_the_plain_models(codes, model):
    found = plm.measure(codes, which="output", layers=0)
    start = 0
    for text in TEXTS:
        ids = torch.tensor([model.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            logs = torch.log_softmax(model.hf(ids).logits[0].double(), -1)
        own = found.iloc[start : start + ids.shape[1]]
        np.testing.assert_allclose(own["entropy"], -(logs.exp() * logs).sum(-1), rtol=1e-4)
        surprise = -logs[:-1].gather(1, ids[0, 1:, None])[:, 0]
        np.testing.assert_allclose(own["loss"].iloc[:-1], surprise, rtol=1e-4)
        assert math.isnan(own["loss"].iloc[-1])
        start += ids.shape[1]


def test_a_prompts_numbers_are_those_of_its_tokens(codes, model):
    tokens = plm.measure(codes, layers=1, which=("boundary", "jacobian"))
    found = plm.measure(codes, layers=1, per="prompt", which="jacobian")
    for (document, own), row in zip(tokens.groupby("document"), found.to_dict("records"), strict=True):
        assert row["document"] == document
        s, c = own["share on"], own["boundary distance"]
        seven = [s.mean(), s.min(), s.max(), s.std(ddof=0), c.min(), c.mean(), c.std(ddof=0)]
        np.testing.assert_allclose([row[name] for name in plm.geometry.spline_features.FEATURES], seven, rtol=1e-6)
        for count, twin in SMOOTH_OF_PROMPTS.items():
            if "share on" in count or "distance" in count:
                token = own["norm of the Jacobian" if "share on" in count else "norm of u"].to_numpy()
                assert token.std() > 0
                of = {"mean": np.mean, "least": np.min, "greatest": np.max, "sd": np.std}[count.split()[0]]
                assert row[twin] == pytest.approx(of(token)), twin
        bits = codes.bits(1)[codes.tokens["document"] == document]
        assert row["distinct codes"] == len({one.tobytes() for one in bits})
        assert row["tokens"] == len(own)
        u = codes.activations("u", 1)[codes.tokens["document"] == document]
        if len(u) <= SAMPLES:
            mlp = model.hf.transformer.h[1].mlp

            def run(x, mlp=mlp):
                with torch.no_grad():
                    return mlp(torch.as_tensor(x[None], dtype=torch.float32))[0].numpy()

            matrix = linearity_matrix(run, u)
            assert row["linear mapping number"] == pytest.approx(linear_mapping_number(matrix), rel=1e-3)
            assert row["mean linearity"] == pytest.approx(matrix[~np.eye(len(u), dtype=bool)].mean(), rel=1e-3)


def test_a_model_and_texts_are_enough(model, codes):
    direct = plm.measure(model, TEXTS, layers=[0, 1], which="boundary")
    again = plm.measure(codes, which="boundary")
    np.testing.assert_allclose(direct["boundary distance"], again["boundary distance"])


def test_a_store_and_a_gated_model_of_both_branches_are_measured(gated):
    codes = plm.encode(gated, TEXTS, layers=[1], kind="gate+up", keep=("h", "up"))
    found = plm.measure(codes)
    h = codes.activations("h")  # both branches side by side
    weight = np.concatenate(
        [
            m.weight.detach().numpy()
            for m in (gated.hf.model.layers[1].mlp.gate_proj, gated.hf.model.layers[1].mlp.up_proj)
        ]
    )
    away = np.abs(h) / np.linalg.norm(weight, axis=1)
    np.testing.assert_allclose(found["boundary distance"], away.min(1), rtol=1e-4)
    np.testing.assert_array_equal(found["boundary neuron"], away.argmin(1))
    np.testing.assert_allclose(found["share on"], (h > 0).mean(1))
    before = ((h[1:] > 0) != (h[:-1] > 0)).sum(1)
    inside = found["position"].to_numpy()[1:] > 0
    np.testing.assert_array_equal(found["crossings from the token before"].to_numpy()[1:][inside], before[inside])
    assert "local complexity, next layer" in found


def test_labels_and_a_draw(tmp_path):
    store = made.captured(tmp_path)
    found = plm.measure(store, layers=1, which="boundary", most=20)
    assert len(found) == 20
    assert "upos" in found
    assert found.equals(plm.measure(store, layers=1, which="boundary", most=20))
    other = plm.measure(store, layers=1, which="boundary", most=20, settings=Settings(seed=1))
    assert not found.equals(other)
    assert len(plm.measure(store, layers=1, per="prompt", which="boundary", most=3)) == 3


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"layers": 7}, "layer 7"),
        ({"which": "shape"}, "'shape'"),
        ({"per": "word"}, "per='word'"),
        ({"most": 0}, "most=0"),
        ({"texts": ["a"]}, "texts"),
    ],
)
def test_what_cannot_be_measured_is_refused(codes, given, place):
    with pytest.raises(PolytopeError, match=place):
        plm.measure(codes, **given)


def test_other_mistakes_are_one_line(model, codes):
    for call, place in (
        (lambda: plm.measure(3), "of=3"),
        (lambda: plm.measure(model), r"measure\(model, texts\)"),
        (lambda: plm.measure(plm.load("tiny-moe"), ["A duck"]), "'router'"),
        (lambda: Settings(radius=0), "radius=0"),
        (lambda: Settings(nodes=1), "nodes=1"),
        (lambda: Settings(directions=2.5), "directions=2.5"),
    ):
        with pytest.raises(PolytopeError, match=place):
            call()
