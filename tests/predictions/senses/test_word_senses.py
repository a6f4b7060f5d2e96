"""Senses of one word, told apart by its nearest other use."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import polytope_lm as plm
from polytope_lm.codes.codes import Codes
from polytope_lm.documents import Document, Span
from polytope_lm.documents.senses import READING, SECOND, twice
from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import Premises, Site
from polytope_lm.predictions.clusters.result import SIMHASH
from polytope_lm.predictions.senses.result import ACCURACY, MAJORITY, SensesResult
from polytope_lm.predictions.senses.test import bootstrap_weights, senses
from polytope_lm.representations.binary import BOTH as TWO_BIT
from polytope_lm.representations.binary import THROUGH
from polytope_lm.representations.directions import BOTH, COSINES
from polytope_lm.seeds import Purpose, derived

RELU = Premises("piecewise affine", "relu", True, "LayerNorm")
WIDTH, D = 192, 24
FAST = {"resamples": 200}


def _world(kind: str, words: int = 12, each: int = 40, seed: int = 0) -> Codes:
    """Two senses a word, planted in signs, in directions, or nowhere; a document an occurrence."""
    rng = np.random.default_rng(seed)
    n = words * each
    word = np.repeat(np.arange(words), each)
    sense = (rng.random(n) < 0.4).astype(int)
    group = word * 2 + sense
    if kind == "signs":
        on = (rng.random((2 * words, WIDTH)) < 0.5)[group] ^ (rng.random((n, WIDTH)) < 0.38)
        h = np.where(on, 1, -1) * rng.lognormal(sigma=2, size=(n, WIDTH))
        u = h[:, :D]
    else:
        centre = rng.normal(size=(2 * words, D)) if kind == "directions" else np.zeros((2 * words, D))
        u = 0.7 * centre[group] + rng.normal(size=(n, D))
        h = u @ rng.normal(size=(D, WIDTH)) / np.sqrt(D) + 0.3 * rng.normal(size=WIDTH)
    site = Site(2, "pre", "blocks.2.mlp.hook_pre", WIDTH, D, RELU)
    table = pd.DataFrame(
        {
            "document": np.arange(n), "position": 1, "start": 0, "end": 3, "token_id": word, "token": " w",
            "word": [f"Word{w}" if i % 2 else f"word{w}" for i, w in enumerate(word)],
            "sense": [f"{w}/{s}" for w, s in zip(word, sense, strict=True)],
        }
    )  # fmt: skip
    packed = {site.key: np.packbits(h > 0, axis=1, bitorder="little")}
    kept = {f"{site.key}.u": u.astype(np.float32), f"{site.key}.h": h.astype(np.float32)}
    texts = [f"text {i}" for i in range(n)]
    return Codes((site,), table, packed, texts, texts, ("u", "h"), {"model": "planted"}, kept)


def test_accuracy_is_counted_by_hand() -> None:
    codes = _world("directions", words=3, each=15)
    result = senses(codes, 2, **FAST)
    bits, table = codes.bits(2), codes.tokens
    by_word = {}
    for word in range(3):
        places = np.flatnonzero(table["token_id"] == word)
        # Of uses at one distance the first in a random order is nearest.
        rank = np.argsort(np.random.default_rng(derived(0, Purpose.TIES)).permutation(len(places)))
        hits = []
        for i in places:
            away = [((bits[i] != bits[j]).sum(), rank[at], j) for at, j in enumerate(places) if j != i]
            hits.append(table["sense"][min(away)[2]] == table["sense"][i])
        by_word[f"word{word}"] = np.mean(hits)
    code = result.layers[0].score("code")
    assert dict(code.words) == pytest.approx(by_word)
    assert code.level == pytest.approx(np.mean(list(by_word.values())))
    # Two senses alike in number: exchanged ones agree in about half of the uses.
    assert code.null == pytest.approx(0.5, abs=0.08)
    assert code.estimate.value == pytest.approx(code.level - code.null)
    assert result.settings.resampled == "sentences"
    counts = [list(word.senses.values()) for word in result.words.values()]
    share = np.mean([max(n) / sum(n) for n in counts])
    assert result.layers[0].score(MAJORITY).estimate.value == pytest.approx(share, abs=1e-9)


def test_a_world_of_signs_is_supported_and_one_of_directions_is_not() -> None:
    found = senses(_world("signs"), **FAST)
    layer = found.layers[0]
    assert layer.verdict.outcome == "supported"
    assert found.verdict.startswith("Layer 2: supported. ")
    assert "480 sentences" in repr(found)
    assert "12 words, effectively 12" in layer.verdict.sentence
    assert layer.difference("code", MAJORITY).estimate.low > 0
    assert found.settings.resampled == "words and sentences"
    directions = senses(_world("directions"), **FAST).layers[0]
    assert directions.score("code").level > 0.8
    assert directions.verdict.outcome != "supported"


@pytest.mark.parametrize(("words", "unit", "effective"), [(12, "words", 12), (4, "sentences", 160)])
def test_what_would_settle_it_is_counted_in_what_is_resampled(words, unit, effective):
    """With ten words or more the words are the units: no number of sentences of these would do."""
    verdict = senses(_world("nothing", words=words), resamples=100, comparators=False, smallest_effect=1e-4).verdicts[0]
    assert (verdict.unit, verdict.documents, verdict.effective) == (unit, effective, effective)
    if verdict.documents_needed is not None:
        assert f"about {verdict.documents_needed:,} {unit} would settle it" in verdict.sentence


def gated(words: int = 3, each: int = 12) -> Codes:
    """Two layers of a gated MLP, everything kept."""
    one, rng = _world("directions", words, each), np.random.default_rng(3)
    n, kept, packed, sites = words * each, {}, {}, []
    for layer in (2, 3):
        gate, up = (rng.normal(size=(n, WIDTH)).astype(np.float32) for _ in range(2))
        premises = Premises("gated", "silu", False, "RMSNorm")
        site = Site(layer, "gate", f"blocks.{layer}.mlp.hook_pre", WIDTH, D, premises)
        sites.append(site)
        packed[site.key] = np.packbits(gate > 0, axis=1, bitorder="little")
        arrays = {"u": rng.normal(size=(n, D)).astype(np.float32), "h": gate, "up": up, "post": gate * up}
        kept |= {f"{site.key}.{name}": values for name, values in arrays.items()}
    table, texts = one.tokens, list(one.texts)
    return Codes(tuple(sites), table, packed, texts, texts, ("u", "h", "up", "post"), {"model": "planted"}, kept)


def by_hand(codes: Codes, bits: np.ndarray) -> float:
    """Macro accuracy of the nearest other use of a word by Hamming distance, ties to the first in a random order."""
    table, means = codes.tokens, []
    for word in sorted(set(table["token_id"])):
        places = np.flatnonzero(table["token_id"] == word)
        rank = np.argsort(np.random.default_rng(derived(0, Purpose.TIES)).permutation(len(places)))
        nearest = [
            min(((bits[i] != bits[j]).sum(), rank[at], j) for at, j in enumerate(places) if j != i)[2] for i in places
        ]
        means.append(np.mean(table["sense"].to_numpy()[nearest] == table["sense"].to_numpy()[places]))
    return float(np.mean(means))


def test_joined_codes_and_both_bits_of_a_gated_mlp_are_claims_of_their_own(tmp_path):
    codes = gated()
    result = senses(codes, **FAST)
    first, last = result.layers
    claims = [(each.claim, each.references) for each in first.comparators]
    assert claims[:4] == [("code", ("top neuron",)), ("code", ("NMF directions",)), ("code", ("k-means directions",)),
                          ("code", ("cosine of post, raw", "cosine of post, centred"))]  # fmt: skip
    assert claims[4:] == [(THROUGH, ("code",)), (THROUGH, (*COSINES, SIMHASH)), (TWO_BIT, BOTH)]
    gate = {layer: codes.rows(codes.site(layer), np.arange(len(codes)), "h") > 0 for layer in (2, 3)}
    up = codes.rows(codes.site(2), np.arange(len(codes)), "up") > 0
    assert first.score(THROUGH).level == pytest.approx(by_hand(codes, np.hstack([gate[2], gate[3]])))
    assert first.score(TWO_BIT).level == pytest.approx(by_hand(codes, np.hstack([gate[2], up])))
    for claim, references in claims:
        for name in references:
            lead = first.score(claim).estimate.value - first.score(name).estimate.value
            assert first.difference(claim, name).estimate.value == pytest.approx(lead)
    assert THROUGH not in {each.claim for each in last.comparators}
    assert "nothing to join" in last.left_out[THROUGH]
    assert SensesResult.load(result.save(tmp_path).parent) == result


@pytest.mark.parametrize("seed", range(3))
def test_without_senses_in_the_codes_nothing_is_supported(seed: int) -> None:
    layer = senses(_world("nothing", seed=seed), **FAST).layers[0]
    assert layer.verdict.outcome != "supported"
    estimate = layer.score("code").estimate
    assert estimate.low < 0 < estimate.high + 0.05


def test_references_and_draws(tmp_path) -> None:
    result = senses(_world("directions"), extra=("shuffled bits", "soft code", "up code"), **FAST)
    layer = result.layers[0]
    code = layer.score("code").estimate.value
    for name in COSINES:
        theirs = layer.score(name).estimate.value
        assert layer.difference("code", name).estimate.value == pytest.approx(code - theirs)
    from_majority = layer.score("code").level - layer.score(MAJORITY).level
    assert layer.difference("code", MAJORITY).estimate.value == pytest.approx(from_majority)
    assert {cell.reference for cell in layer.verdict.cells} == {*COSINES, SIMHASH}
    against = [each.references for each in layer.comparators]
    assert against == [("NMF directions",), ("k-means directions",)]  # post was not kept
    simhash = layer.score(SIMHASH)
    assert len(set(simhash.draws)) > 1
    assert simhash.estimate.value == pytest.approx(np.mean(simhash.draws))
    assert {d.score for d in layer.differences} == {ACCURACY}
    assert "not gated" in layer.left_out["up code"]
    shuffled = layer.score("shuffled bits").estimate
    assert shuffled.low < 0.03
    assert SensesResult.load(result.save(tmp_path).parent) == result
    frame = result.to_frame()
    assert len(frame) == len(layer.scores)
    assert frame["word word3"].notna().all()
    assert len(result.plot().data) == len(layer.scores)
    assert "<table" in result._repr_html_()
    assert eval(result.command, {"plm": plm, "codes": _world("directions")}) == result  # noqa: S307
    (tmp_path / "senses.json").write_text("[]")
    with pytest.raises(PolytopeError, match=r"senses\.json"):
        SensesResult.load(tmp_path)


def test_weights_are_a_macro_mean_over_words_and_resamples_draw_documents_whole() -> None:
    parts = [np.arange(4), np.arange(4, 14)]
    documents = np.array([0, 0, 1, 2, *range(3, 13)])
    weights = bootstrap_weights(parts, documents, 500, seed=0)
    np.testing.assert_allclose(weights[0, :4], 1 / 8)
    np.testing.assert_allclose(weights[0, 4:], 1 / 20)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    np.testing.assert_allclose(weights[:, :4].sum(axis=1), 0.5)  # few words: they stay
    np.testing.assert_array_equal(weights[:, 0], weights[:, 1])
    many = bootstrap_weights([np.array([i]) for i in range(12)], np.arange(12), 500, seed=0)
    assert (many[1:] == 0).mean() == pytest.approx((1 - 1 / 12) ** 12, abs=0.03)


def test_the_interval_covers_the_true_accuracy() -> None:
    """Hits of known rate: the percentile interval of the macro mean holds it about 19 times in 20."""
    rng = np.random.default_rng(0)
    parts = [np.arange(i * 60, (i + 1) * 60) for i in range(4)]
    weights = bootstrap_weights(parts, np.arange(240), 400, seed=1)
    inside = 0
    for _ in range(300):
        means = weights @ (rng.random(240) < 0.7)
        low, high = np.percentile(means[1:], [2.5, 97.5])
        inside += low <= 0.7 <= high
    assert 0.9 < inside / 300 < 0.985


def test_mistakes_are_one_line() -> None:
    codes = _world("nothing", words=2, each=12)
    with pytest.raises(PolytopeError, match="no label 'meaning'; these codes have 'word', 'sense'"):
        senses(codes, label="meaning")
    with pytest.raises(PolytopeError, match="no label 'lemma' to name the word"):
        senses(codes, word="lemma")
    with pytest.raises(PolytopeError, match="layer 7 is not in these codes"):
        senses(codes, 7)
    with pytest.raises(PolytopeError, match="no representation 'mine'"):
        senses(codes, extra="mine")
    codes.tokens["sense"] = ["one", *["other"] * 23]
    with pytest.raises(PolytopeError, match=r"no word by 'word' has 10 occurrences and two values of 'sense' with two"):
        senses(codes)
    one = _world("nothing", words=3, each=12)
    one.tokens.loc[one.tokens["token_id"] == 1, "sense"] = "same"
    assert senses(one, **FAST).words_left_out == {
        "word1": "12 occurrences, fewer than two senses with two sentences each"
    }
    one.kept_arrays["L02.pre.h"][3, 0] = np.nan
    with pytest.raises(PolytopeError, match="'h' of layer 2 holds NaN or infinity at token 3"):
        senses(one, **FAST)


def test_a_word_with_few_occurrences_is_left_out_and_the_rest_runs() -> None:
    codes = _world("nothing", words=3, each=12)
    rows = np.flatnonzero(codes.tokens["token_id"] == 1)
    codes.tokens.loc[rows[9:], "sense"] = None
    result = senses(codes, **FAST)
    assert set(result.words) == {"word0", "word2"}
    assert result.words_left_out == {"word1": "9 occurrences, fewer than 10"}


def test_tokens_that_no_word_is_known_of_are_left_out() -> None:
    codes = _world("nothing", words=3, each=12)
    codes.tokens.loc[codes.tokens["token_id"] == 1, "word"] = None
    result = senses(codes, **FAST)
    assert set(result.words) == {"word0", "word2"}
    assert not result.words_left_out


def test_a_sentence_given_twice_is_read_in_its_second_copy(model) -> None:
    document = Document("a", "the bank is wet", {"source": "x"}, (Span(4, 8, {"sense": "river"}),))
    double = twice(document)
    assert double.text == "the bank is wet the bank is wet"
    assert double.labels == {"source": "x", READING: SECOND}
    assert [(double.text[s.start : s.end], s.start) for s in double.spans] == [("bank", 20)]
    codes = plm.encode(model, [double], layers=[1], tokens="word-final")
    assert codes.tokens["start"].tolist()[0] >= 19
    once = plm.encode(model, [document], layers=[1], tokens="word-final")
    assert (codes.bits(1) != once.bits(1)).any()


def test_the_reading_is_said(model) -> None:
    places = ["river", "money", "pond", "boat"]
    documents = [
        Document(f"{i}", f"{places[i % 4]} {i} and bank", {}, (Span(len(f"{places[i % 4]} {i} and "),
                 len(f"{places[i % 4]} {i} and bank"), {"sense": "ab"[i % 2], "word": "bank"}),))
        for i in range(12)
    ]  # fmt: skip
    keep = ("u", "h")
    for given, said in ((documents, "once"), ([twice(each) for each in documents], SECOND)):
        codes = plm.encode(model, given, layers=[1], keep=keep, tokens="word-final")
        result = senses(codes, **FAST)
        assert result.settings.reading == said
        assert result.sentences == 12
