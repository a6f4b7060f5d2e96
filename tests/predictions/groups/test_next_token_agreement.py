from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from small import SENTENCES
from transformers import BertConfig, BertModel

import polytope_lm as plm
from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.groups.coherence import (
    next_token_agreement,
    next_token_distributions,
    next_token_divergences,
)


@pytest.fixture(scope="module")
def codes(model) -> plm.codes.codes.Codes:
    return plm.encode(model, SENTENCES * 3, layers=[0])


def test_agreement_is_the_mean_divergence_inside_groups_by_brute_force(codes) -> None:
    rng = np.random.default_rng(0)
    rows = np.sort(rng.choice(len(codes), 40, replace=False))
    groups = rng.integers(-1, 4, 40)
    p = next_token_distributions(codes, rows).astype(np.float64)
    documents = codes.tokens["document"].to_numpy()[rows]
    means = []
    for i in np.flatnonzero(groups >= 0):
        others = (groups == groups[i]) & (documents != documents[i])
        if others.any():
            means.append(np.mean([jensenshannon(p[i], q, base=2) ** 2 for q in p[others]]))
    found = next_token_agreement(codes, groups, rows=rows, draws=20)
    assert found.value == pytest.approx(np.mean(means), abs=1e-5)
    assert (found.better, found.tokens, found.noise) == ("lower", len(means), int((groups == -1).sum()))


def test_groups_of_like_next_tokens_are_ahead_of_random_and_of_matched_groups(codes) -> None:
    """The same sentences come three times: a group of what stands at one place has no divergence at all."""
    text, position = codes.tokens["document"] % 4, codes.tokens["position"]
    groups = (text * 100 + position).to_numpy()
    found = next_token_agreement(codes, groups, draws=50)
    assert found.value == pytest.approx(0, abs=1e-4)
    assert found.random.mean > 0.005
    assert found.random.p == pytest.approx(1 / 51)
    assert found.matched is not None
    assert found.matched.p == pytest.approx(1 / 51)
    words = next_token_agreement(codes, codes.tokens["token_id"].to_numpy(), draws=50)
    assert words.matched is not None
    # Groups that are the words: no permutation within a word changes anything.
    assert (words.movable, words.matched.z, words.matched.p) == (0, None, 1)


def test_the_limit_takes_tokens_by_seed(codes) -> None:
    groups = np.arange(len(codes)) % 3
    one, same, other = (next_token_agreement(codes, groups, tokens=30, draws=5, seed=s).value for s in (0, 0, 1))
    assert one == same
    assert next_token_agreement(codes, groups, tokens=30, draws=5).beyond == len(codes) - 30
    assert one != other


def test_an_encoder_and_ids_that_do_not_fit_are_refused(codes, model) -> None:
    with pytest.raises(PolytopeError, match=r"3 group ids for \d+ tokens"):
        next_token_agreement(codes, np.zeros(3, int))
    with pytest.raises(PolytopeError, match="rows from 0 to 99999"):
        next_token_agreement(codes, np.zeros(2, int), rows=np.array([0, 99999]))
    config = BertConfig(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=400
    )
    encoder = plm.wrap(BertModel(config).eval(), model.tokenizer, name="small-bert")
    read = plm.encode(encoder, SENTENCES, layers=[0])
    with pytest.raises(PolytopeError, match="small-bert is an encoder, which reads both ways") as error:
        next_token_agreement(read, np.zeros(len(read), int))
    assert "\n" not in str(error.value)
    trunk = plm.wrap(model.hf.transformer, model.tokenizer, name="trunk")
    codes = plm.encode(trunk, SENTENCES, layers=[0])
    with pytest.raises(PolytopeError, match="has no next-token distribution"):
        next_token_divergences(codes, np.arange(4))
