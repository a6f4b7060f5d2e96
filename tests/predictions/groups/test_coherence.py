from __future__ import annotations

import numpy as np
import pytest
from small import SENTENCES

import polytope_lm as plm
from polytope_lm.errors import PolytopeError
from polytope_lm.models.packaged import PACKAGED
from polytope_lm.predictions.groups.coherence import context_coherence, context_similarity, context_text, encoder_of


@pytest.fixture(scope="module")
def codes(model) -> plm.codes.codes.Codes:
    return plm.encode(model, [*SENTENCES, " ".join(SENTENCES)], layers=[0], tokens="word-final")


def _letters(texts) -> np.ndarray:
    """Count letters: an encoder that can be checked by hand."""
    return np.array([[text.count(letter) for letter in "aeioubk "] for text in texts], dtype=float) + 0.1


def test_coherence_is_the_mean_cosine_of_the_contexts_by_hand(codes) -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(-1, 3, len(codes))
    vectors = _letters([context_text(codes, row, 20) for row in range(len(codes))])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    documents = codes.tokens["document"].to_numpy()
    means = []
    for i in np.flatnonzero(groups >= 0):
        others = (groups == groups[i]) & (documents != documents[i])
        means += [float((unit[others] @ unit[i]).mean())] if others.any() else []
    found = context_coherence(codes, groups, encoder=_letters, characters=20, draws=10)
    assert found.value == pytest.approx(np.mean(means), abs=1e-5)
    assert (found.better, found.tokens) == ("higher", len(means))


def test_groups_of_like_contexts_are_ahead_of_random_ones(codes) -> None:
    seen = {}

    def planted(texts) -> np.ndarray:
        for i, text in enumerate(texts):
            seen[i] = "money" in text
        rng = np.random.default_rng(0)
        noise = 0.1 * rng.normal(size=(len(texts), 4))
        return noise + np.array([[1, 0, 0, 0] if seen[i] else [0, 1, 0, 0] for i in range(len(texts))])

    groups = np.array([int("money" in context_text(codes, row)) for row in range(len(codes))])
    found = context_coherence(codes, groups, encoder=planted, draws=50)
    assert found.value > 0.9
    assert found.random.p == pytest.approx(1 / 51)


def test_a_context_keeps_the_token_and_whole_words(codes) -> None:
    row = int(np.flatnonzero(codes.tokens["token"].str.strip() == "river")[0])
    assert context_text(codes, row, 12) == "bank of the river and watched"
    assert context_text(codes, row, 500) == SENTENCES[0]
    first = int(np.flatnonzero(codes.tokens["document"] == 0)[0])
    assert context_text(codes, first, 4).startswith("He sat")


def test_the_model_under_test_is_no_judge(codes, model, gpt2, tokenizer) -> None:
    for same in (model, plm.wrap(gpt2(), tokenizer, name="its double")):
        with pytest.raises(PolytopeError, match="is the model under test") as error:
            context_coherence(codes, np.zeros(len(codes), int), encoder=same)
        assert "\n" not in str(error.value)
    other = plm.wrap(gpt2(seed=3), tokenizer, name="another")
    assert context_similarity(codes, np.arange(3), other).shape == (3, 3)


@pytest.mark.minilm
def test_minilm_does_not_judge_itself() -> None:
    if not PACKAGED["minilm-l6"].installed:
        pytest.skip("needs the extra minilm")
    own = plm.encode(plm.load("minilm-l6"), SENTENCES[:2], layers=[0])
    with pytest.raises(PolytopeError, match="the encoder 'minilm-l6' is the model under test"):
        encoder_of(own)


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        (lambda texts: np.zeros((len(texts), 3)), "zero or non-finite vector for text 0"),
        (lambda texts: np.ones((len(texts) - 1, 3)), "must give one row a text"),
        (lambda texts: np.full((len(texts), 3), np.nan), "zero or non-finite"),
    ],
)
def test_an_encoder_that_gives_no_vectors_is_refused(codes, encoder, said) -> None:
    with pytest.raises(PolytopeError, match=said):
        context_coherence(codes, np.zeros(len(codes), int), encoder=encoder)
