"""A planted neuron that is on in two meanings, taken apart by codes; and lists that nothing takes apart."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from polytope_lm.codes.codes import Codes
from polytope_lm.codes.hamming import hamming
from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import Premises, Site
from polytope_lm.predictions.clusters.test import clusters
from polytope_lm.predictions.neurons.result import NeuronRanking, NeuronRegions
from polytope_lm.predictions.neurons.test import neuron, rank_neurons
from polytope_lm.statistics.purity import label_purity, purity_against_chance

RELU = Premises("piecewise affine", "relu", True, "LayerNorm")
WIDTH, MEANINGS, TOKENS = 96, 4, 480
TWO_MEANINGS, NOISE = 0, 1


def _codes(seed: int = 0, keep: tuple[str, ...] = ("u", "h"), words: bool = True) -> Codes:
    """Neuron 0 is on in meanings 0 and 1; neuron 1 anywhere; the others say the meaning by their signs.

    The label is the meaning; with `words` all meanings share some words, else each is one word.
    """
    rng = np.random.default_rng(seed)
    meaning = rng.integers(0, MEANINGS, TOKENS)
    prototype = rng.random((MEANINGS, WIDTH)) < 0.5
    on = prototype[meaning] ^ (rng.random((TOKENS, WIDTH)) < 0.1)
    h = np.where(on, 1, -1) * rng.lognormal(sigma=0.5, size=(TOKENS, WIDTH))
    h[:, TWO_MEANINGS] = np.where(meaning < 2, 1, -1) * rng.lognormal(sigma=0.5, size=TOKENS)
    h[:, NOISE] = rng.normal(size=TOKENS)
    word = rng.integers(0, 12, TOKENS) if words else meaning
    document = np.sort(rng.integers(0, 40, TOKENS))
    table = pd.DataFrame(
        {
            "document": document,
            "position": np.arange(TOKENS) - np.searchsorted(document, document),
            "start": 0,
            "end": 1,
            "token_id": word,
            "token": [f"w{each}" for each in word],
            "sense": [f"<b>{each}</b>" for each in meaning],
        }
    )
    site = Site(0, "pre", "blocks.0.mlp.hook_pre", WIDTH, 8, RELU)
    u = rng.normal(size=(TOKENS, 8)).astype(np.float32)
    u[:, 3] = h[:, TWO_MEANINGS]
    arrays = {"u": u, "h": h.astype(np.float32), "post": np.maximum(h, 0).astype(np.float32)}
    return Codes(
        sites=(site,),
        table=table,
        arrays={site.key: hamming.pack(h > 0)},
        ids=[f"d{i}" for i in range(40)],
        texts=[f"<i>{i}</i>" for i in range(40)],
        kept=keep,
        provenance={"bos": 1},
        kept_arrays={f"{site.key}.{name}": arrays[name] for name in keep},
    )


@pytest.fixture(scope="module")
def codes() -> Codes:
    return _codes()


@pytest.fixture(scope="module")
def apart(codes: Codes) -> NeuronRegions:
    return neuron(codes, 0, TWO_MEANINGS, label="sense", top=100, k=4, draws=200)


def test_a_neuron_of_two_meanings_is_taken_apart_into_pure_regions(codes, apart) -> None:
    assert apart.of == "neuron 0 of h"
    assert 0.4 < apart.whole_purity < 0.65
    assert apart.whole_entropy == pytest.approx(1, abs=0.05)
    assert apart.purity.value > 0.95
    assert apart.purity.p < 0.01
    assert apart.lead > 0.3
    assert [r.majority for r in apart.regions[:2]] in ([f"<b>{a}</b>", f"<b>{b}</b>"] for a, b in ((0, 1), (1, 0)))
    assert apart.active == int((codes.activations("h", 0)[:, 0] > 0).sum())


def test_the_list_is_the_greatest_activations_grouped_by_cluster(codes, apart) -> None:
    values = codes.activations("h", 0)[:, TWO_MEANINGS]
    assert set(apart.tokens["row"]) == set(np.argsort(-values)[:100])
    np.testing.assert_array_equal(apart.tokens["activation"], values[apart.tokens["row"]])
    assert sum(region.size for region in apart.regions) == 100
    assert [region.size for region in apart.regions] == sorted((r.size for r in apart.regions), reverse=True)
    for region in apart.regions:
        inside = apart.tokens[apart.tokens["cluster"] == region.cluster]
        assert region.size == len(inside)
        assert region.purity.value == pytest.approx(inside["label"].value_counts().iloc[0] / len(inside))
        assert region.activation == pytest.approx(inside["activation"].mean())
        assert inside["activation"].is_monotonic_decreasing


def test_many_small_regions_of_noise_are_pure_and_chance_says_so(codes) -> None:
    shuffled = codes.select(np.arange(TOKENS))
    rng = np.random.default_rng(7)
    shuffled.tokens["sense"] = rng.permutation(shuffled.tokens["sense"].to_numpy())
    found = neuron(shuffled, 0, NOISE, label="sense", top=60, k=30, draws=400)
    assert found.purity.value > found.whole_purity + 0.1
    assert found.purity.p > 0.02
    assert abs(found.lead) < 0.1


def test_meanings_that_are_words_are_not_ahead_of_the_same_words() -> None:
    found = neuron(_codes(words=False), 0, TWO_MEANINGS, label="sense", k=4, draws=200)
    assert found.purity.p < 0.01
    assert found.same_words.p == 1
    assert found.same_words.mean == pytest.approx(found.purity.value)


def test_a_direction_is_read_by_projection_whatever_its_sign(codes) -> None:
    direction = np.zeros(8)
    direction[3] = 2.0
    found = neuron(codes, 0, direction=direction, label="sense", k=4, draws=50)
    same = neuron(codes, 0, TWO_MEANINGS, label="sense", k=4, draws=50)
    assert found.of == "direction in u"
    assert found.active == TOKENS
    assert set(found.tokens["row"]) == set(same.tokens["row"])
    np.testing.assert_allclose(found.tokens["activation"], 2 * same.tokens["activation"])
    below = neuron(codes, 0, direction=-direction, label="sense", k=4, draws=50)
    assert not set(below.tokens["row"]) & set(found.tokens["row"])
    wide = np.eye(WIDTH)[TWO_MEANINGS]
    assert neuron(codes, 0, direction=wide, space="h", label="sense", k=4, draws=50).purity == same.purity


def test_a_result_gives_its_own_clusters_and_label(codes) -> None:
    result = clusters(codes, 0, "sense", k=5, tokens=300, resamples=4, seed=3)
    found = neuron(codes, 0, TWO_MEANINGS, clusters=result, top=40, draws=50)
    column = result.tokens.set_index("row")[_column(result)]
    assert found.settings.label == "sense"
    assert found.settings.compared == 300
    np.testing.assert_array_equal(found.tokens["cluster"], column.loc[found.tokens["row"]])
    other = neuron(codes, 0, TWO_MEANINGS, clusters=result, by="cosine of h, raw", top=40, draws=50)
    assert set(other.tokens["row"]) == set(found.tokens["row"])
    with pytest.raises(PolytopeError, match="has no"):
        neuron(codes, 0, TWO_MEANINGS, clusters=result, by="nothing", draws=50)
    with pytest.raises(PolytopeError, match="not in these codes"):
        neuron(codes.select(np.arange(400)), 0, TWO_MEANINGS, clusters=result, draws=50)


def _column(result) -> str:
    return next(name for name in result.tokens.columns if name.endswith("/cluster/code"))


def test_post_is_read_where_it_was_kept() -> None:
    found = neuron(_codes(keep=("u", "h", "post")), 0, TWO_MEANINGS, label="sense", k=4, draws=50)
    assert found.of == "neuron 0 of post"


def test_the_ranking_puts_neurons_of_several_meanings_before_noise(codes) -> None:
    told: list[tuple[int, int]] = []
    ranking = rank_neurons(codes, 0, label="sense", top=60, k=4, draws=200, progress=lambda *at: told.append(at))
    table = ranking.to_frame()
    assert told[-1] == (WIDTH, WIDTH)
    assert table["lead"].is_monotonic_decreasing
    assert len(table) + ranking.left_out == WIDTH
    np.testing.assert_allclose(table["lead"], table["inside"] - table["by chance"])
    planted = table[table["neuron"] == TWO_MEANINGS].iloc[0]
    assert planted["fdr"] < 0.05
    assert planted["lead"] > 0.2
    one = neuron(codes, 0, TWO_MEANINGS, label="sense", top=60, k=4, draws=200)
    assert planted["inside"] == pytest.approx(one.purity.value)
    assert planted["by chance"] == pytest.approx(one.same_words.mean, abs=0.02)
    assert planted["purity"] == pytest.approx(one.whole_purity)


def test_no_neuron_is_ahead_where_labels_are_permuted(codes) -> None:
    shuffled = codes.select(np.arange(TOKENS))
    rng = np.random.default_rng(1)
    shuffled.tokens["sense"] = rng.permutation(shuffled.tokens["sense"].to_numpy())
    ranking = rank_neurons(shuffled, 0, label="sense", top=60, k=20, draws=200, within=None)
    table = ranking.to_frame()
    assert (table["inside"] > table["purity"]).mean() > 0.9
    assert abs(table["lead"].mean()) < 0.03
    assert "of 0 purer" in repr(ranking)


def test_purities_and_their_chance_are_those_of_group_scores() -> None:
    rng = np.random.default_rng(0)
    groups, labels, strata = rng.integers(0, 6, 80), rng.integers(0, 4, 80), rng.integers(0, 9, 80)
    keys = rng.random((2000, 80))
    for within in (None, strata):
        score = label_purity(groups, labels, within=within, draws=2000, seed=1).purity
        value, chance = purity_against_chance(groups, labels, np.zeros(80, int) if within is None else strata, keys)
        assert value == pytest.approx(score.value)
        assert chance.mean() == pytest.approx(score.mean, abs=0.005)
        assert chance.std() == pytest.approx(score.sd, rel=0.1)


def test_the_same_seed_gives_the_same_and_numbers_survive_json(codes, apart) -> None:
    again = neuron(codes, 0, TWO_MEANINGS, label="sense", top=100, k=4, draws=200)
    text = json.dumps(apart.to_dict(), sort_keys=True)
    assert text == json.dumps(again.to_dict(), sort_keys=True)
    assert "w1" not in text
    back = NeuronRegions.from_dict(json.loads(text))
    assert back == apart
    assert back.tokens is None
    pd.testing.assert_frame_equal(back.to_frame(), apart.to_frame())
    with pytest.raises(PolytopeError, match="no tokens to draw"):
        back.plot()
    ranking = rank_neurons(codes, 0, label="sense", top=20, k=4, draws=20)
    data = json.loads(json.dumps(ranking.to_dict()))
    pd.testing.assert_frame_equal(NeuronRanking.from_dict(data).to_frame(), ranking.to_frame())


def test_pictures_and_tables_escape_texts_and_show_every_token(codes, apart) -> None:
    page = apart._repr_html_()
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
    assert page.count("<h4>") == len(apart.regions)
    figure = apart.plot()
    assert sum(len(trace.x) for trace in figure.data) == 100
    assert not any(trace.name.startswith("<b>") for trace in figure.data)
    assert len(apart.to_frame()) == len(apart.regions)
    ranking = rank_neurons(codes, 0, label="sense", top=20, k=4, draws=20)
    assert sum(len(trace.x) for trace in ranking.plot().data) == len(ranking.neurons)
    assert "<table" in ranking._repr_html_()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"neuron": None}, "neither was given"),
        ({"direction": np.ones(8)}, "both were given"),
        ({"neuron": WIDTH}, f"neuron {WIDTH} is not in"),
        ({"neuron": -1}, "neuron -1 is not in"),
        ({"neuron": None, "direction": np.ones(7)}, "'u' needs 8 finite numbers"),
        ({"neuron": None, "direction": np.full(8, np.nan)}, "'u' needs 8 finite numbers"),
        ({"neuron": None, "direction": np.zeros(8)}, "not all 0"),
        ({"neuron": None, "direction": np.ones(8), "space": "z"}, "space = 'z'"),
        ({"neuron": None, "direction": np.ones(8), "space": "x"}, "capture again"),
        ({"label": "nothing"}, "no label 'nothing'"),
        ({"top": 1}, "top = 1"),
        ({"draws": 0}, "draws = 0"),
        ({"k": 1000}, "k = 1000"),
        ({"by": "nothing"}, "no representation 'nothing'"),
        ({"layer": 5}, "5"),
    ],
)
def test_mistakes_are_told_in_one_line(codes, change, says) -> None:
    arguments = {"layer": 0, "neuron": 0, "label": "sense", "k": 4, "draws": 10, **change}
    with pytest.raises(PolytopeError) as error:
        neuron(codes, **arguments)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_neuron_that_is_off_and_a_ranking_without_words_are_refused(codes) -> None:
    off = codes.select(np.arange(TOKENS))
    off.activations("h", 0)[:, 5] = -1
    with pytest.raises(PolytopeError, match="above 0 on 0 of"):
        neuron(off, 0, 5, label="sense", k=4, draws=10)
    with pytest.raises(PolytopeError, match="within = 'word'"):
        rank_neurons(codes, 0, label="sense", within="word")
