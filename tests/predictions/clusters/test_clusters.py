from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, t
from sklearn.metrics import adjusted_mutual_info_score, pairwise_distances

import polytope_lm as plm
from polytope_lm.controls.labels import exchanged_between_documents
from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import Premises
from polytope_lm.predictions import clusters
from polytope_lm.predictions.clusters.layers import MAKERS, NULLS, SHOWN, row_name
from polytope_lm.predictions.clusters.result import AGREEMENT, AMI, AMI_TOKEN, SIMHASH
from polytope_lm.predictions.clusters.sampling import choose
from polytope_lm.predictions.clusters.scoring import make_task
from polytope_lm.predictions.clusters.test import BUILT_IN
from polytope_lm.representations import registry
from polytope_lm.representations.arrays import LayerArrays
from polytope_lm.representations.directions import COSINES
from polytope_lm.seeds import Purpose, derived
from polytope_lm.statistics.clustering import k_medoids

FAST = {"k": 12, "resamples": 20, "comparators": False, "per_document": None}


def test_a_world_where_only_signs_carry_the_class_is_supported(world) -> None:
    result = clusters(world("code"), 4, **FAST)
    layer = result.layers[0]
    # The world is what it says: neither cosine nor random hyperplanes see the class.
    for name in ("cosine of h, raw", "cosine of h, centred", SIMHASH):
        assert layer.representation(name).score(AMI).estimate.value < 0.03
    assert layer.representation("code").score(AMI).estimate.value > 0.1
    assert layer.verdict.outcome == "supported"
    assert result.verdict.startswith("Layer 4: supported. ")
    assert layer.representation("code").score(AMI_TOKEN).estimate.value < 0.05


def test_outside_the_premises_is_said(world) -> None:
    smooth = Premises("smooth", "gelu_new", True, "LayerNorm")
    result = clusters(world("code", premises=smooth), **FAST)
    assert result.verdict.startswith("Layer 4: supported, outside the paper's premises. ")
    assert "Premises: smooth (gelu_new), with biases, LayerNorm before it." in result.verdict


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_world_of_directions_is_not_supported(world, seed: int) -> None:
    result = clusters(world("direction", seed=seed), 4, **FAST)
    assert result.layers[0].representation("code").score(AMI).estimate.value > 0.1
    assert result.layers[0].verdict.outcome != "supported"


@pytest.mark.parametrize("kind", ["code", "direction"])
def test_labels_that_know_documents_but_no_codes_are_not_supported(world, kind: str) -> None:
    outcomes = [clusters(world(kind, permuted=True, seed=s), 4, **FAST).layers[0].verdict.outcome for s in range(3)]
    assert "supported" not in outcomes


def test_each_reference_counts_on_its_own_and_no_maximum_is_taken(world) -> None:
    layer = clusters(world("direction"), 4, **FAST).layers[0]
    for score in (AMI, AGREEMENT, AMI_TOKEN):
        mine = layer.representation("code").score(score).estimate.value
        for name in COSINES:
            theirs = layer.representation(name).score(score).estimate.value
            assert layer.difference("code", name, score).estimate.value == pytest.approx(mine - theirs)
        simhash = layer.representation(SIMHASH).score(score)
        assert len(set(simhash.draws)) == 5
        assert simhash.estimate.value == pytest.approx(np.mean(simhash.draws))
        difference = layer.difference("code", SIMHASH, score).estimate
        assert difference.value == pytest.approx(mine - np.mean(simhash.draws))
        assert difference.low < difference.value < difference.high
    assert [(c.score, c.reference) for c in layer.verdict.cells] == [
        (score, reference) for reference in (*COSINES, SIMHASH) for score in (AMI, AGREEMENT)
    ]


def test_a_score_counts_from_its_mean_over_exchanged_labels(world) -> None:
    """By scikit-learn and by counting, with the exchanges that the run says it takes."""
    codes = world("direction")
    result = clusters(codes, 4, **FAST)
    table = result.tokens
    documents, labels = (pd.factorize(table[name], sort=True)[0] for name in ("document", "upos"))
    first = pd.factorize(table["document"])[0]
    given = exchanged_between_documents(labels, first, 100, seed=derived(0, Purpose.EXCHANGES))
    for name in ("code", "cosine of h, raw"):
        ids = table[f"L04.pre/cluster/{name}"]
        found = result.layers[0].representation(name).score(AMI)
        null = np.mean([adjusted_mutual_info_score(each, ids) for each in given[:20]])
        assert found.null == pytest.approx(null, abs=1e-9)
        assert found.level == pytest.approx(adjusted_mutual_info_score(labels, ids))
        assert found.estimate.value == pytest.approx(found.level - null)
    near = np.stack(table["L04.pre/neighbours/code"])
    found = result.layers[0].representation("code").score(AGREEMENT)
    assert found.level == pytest.approx((labels[near] == labels[:, None]).mean())
    assert found.null == pytest.approx(np.mean([(each[near] == each[:, None]).mean() for each in given]))
    assert len(np.unique(documents)) == result.sample.documents


def test_tokens_are_clustered_anew_in_each_half(world) -> None:
    codes = world("direction")
    result = clusters(codes, 4, **FAST)
    sample = choose(codes, "upos", tokens=6000, seed=0, per_document=None)
    task = make_task(sample, 12, 0, 20)
    rows = registry.get("cosine of h, raw").rows(LayerArrays(codes, 4, sample.rows))
    away = pairwise_distances(rows.values, metric="cosine").astype(np.float32)
    by_half = []
    for half, kept in enumerate(task.inside):
        first = derived(0, Purpose.MEDOIDS, half + 1)
        ids = k_medoids(np.maximum(away[np.ix_(kept, kept)], 0), 12, seed=first)
        own, *others = (adjusted_mutual_info_score(each[kept], ids) for each in task.labelings[:21])
        by_half.append(own - np.mean(others))
    found = result.layers[0].representation("cosine of h, raw").score(AMI).estimate
    whole = k_medoids(np.maximum(away, 0), 12, seed=derived(0, Purpose.MEDOIDS))
    unrelated = np.var([adjusted_mutual_info_score(each, whole) for each in task.labelings[1:21]], ddof=1)
    across = np.var(by_half, ddof=1)
    assert 2 * unrelated > 0.05 * across
    assert found.sd == pytest.approx(np.sqrt(max(across - 2 * unrelated, across / 2)), rel=0.1)
    assert found.freedom == pytest.approx(result.sample.effective - 1)
    assert found.high == pytest.approx(found.value + t.isf(norm.sf(1.96), found.freedom) * found.sd)


def test_scores_are_those_of_scikit_learn_on_the_same_clusters(world) -> None:
    result = clusters(world("direction"), 4, **FAST)
    table = result.tokens
    for name in ("code", "cosine of h, raw"):
        ids = table[f"L04.pre/cluster/{name}"]
        each = result.layers[0].representation(name)
        assert each.score(AMI).level == pytest.approx(adjusted_mutual_info_score(table["upos"], ids))
        token = result.layers[0].representation(name).score(AMI_TOKEN).estimate.value
        words = table["word"]
        assert token == pytest.approx(adjusted_mutual_info_score(words, ids), abs=1e-9)
        assert each.cluster_sizes == tuple(np.bincount(ids, minlength=12))
        assert sum(each.cluster_sizes) == result.sample.tokens


def test_neighbours_shown_are_strict_and_their_distances_are_bits(world) -> None:
    codes = world("code")
    result = clusters(codes, 4, **FAST)
    table = result.tokens
    bits = codes.bits(4)[table["row"]]
    for i in (0, 100, 400):
        near = table["L04.pre/neighbours/code"][i]
        assert len(near) == 10
        assert (table["document"][near] != table["document"][i]).all()
        assert (table["word"][near] != table["word"][i]).all()
        away = (bits[near] != bits[i]).sum(axis=1)
        np.testing.assert_array_equal(table["L04.pre/distances/code"][i], away)
        assert (np.diff(away) >= 0).all()


def test_layers_are_corrected_together_and_summarised(world) -> None:
    codes = world("code", layers=(2, 5))
    both = clusters(codes, **FAST)
    assert [layer.layer for layer in both.layers] == [2, 5]
    alone = clusters(codes, 5, **FAST)
    assert both.layers[1].representations == alone.layers[0].representations
    assert both.verdicts[1].p == alone.verdicts[0].p
    assert both.verdicts[1].p_holm >= alone.verdicts[0].p_holm
    assert both.verdict.startswith("Supported in both layers, by ")
    assert "Premises: piecewise affine (relu), with biases, LayerNorm" in both.verdict
    for verdict in both.verdicts:
        assert f"{verdict.deciding_score} against {verdict.deciding_reference} (" in both.verdict
    worst = min(both.verdicts, key=lambda verdict: verdict.deciding.low).deciding
    assert f"{worst.value:+.3f} [{worst.low:+.3f}, {worst.high:+.3f}]" in both.verdict


def test_a_users_own_representation_is_shown_and_does_not_move_the_verdict(world) -> None:
    before = dict(registry._REGISTRY)
    try:

        @plm.representation("noise", isolates="chance", role="control", draws=2)
        def noise(pre, seed):
            return np.random.default_rng(seed).normal(size=pre.shape)

        codes = world("code")
        plain, more = clusters(codes, 4, **FAST), clusters(codes, 4, extra=("noise",), **FAST)
    finally:
        registry._REGISTRY.clear()
        registry._REGISTRY.update(before)
    assert more.verdicts == plain.verdicts
    assert abs(more.layers[0].representation("noise").score(AMI).estimate.value) < 0.05
    assert len(more.layers[0].representation("noise").score(AMI).draws) == 2
    assert "extra=['noise']" in more.command


def test_what_can_run_runs_and_what_can_not_says_why(world) -> None:
    codes = world("code", n=600)
    plain, more = (clusters(codes, 4, extra=extra, **{**FAST, "k": 5}) for extra in ((), "all"))
    layer = more.layers[0]
    assert more.verdicts == plain.verdicts
    assert layer.representations[: len(BUILT_IN)] == plain.layers[0].representations
    names = [each.name for each in layer.representations]
    weights = {row_name(name, control) for name in SHOWN for control in MAKERS}
    everything = {each.name for each in registry.registered()} | set(NULLS) | weights
    assert {*names, *layer.left_out} == everything
    assert len(names) + len(layer.left_out) == len(everything)
    assert all("need the model" in layer.left_out[name] for name in weights)
    assert set(NULLS) <= set(names)
    assert {"soft code", "NMF directions", "cosine of u, centred"} <= set(names)
    assert "not gated (relu)" in layer.left_out["up code"]
    assert "'post' of layer 4 was not kept" in layer.left_out["top neuron"]
    assert "and x as well" in layer.left_out["cosine of x, raw"]
    assert "extra='all'" in more.command
    again = type(more).from_dict(more.to_dict())
    assert again.layers[0].left_out == layer.left_out
    assert "top neuron left out: " in more._repr_html_()


def test_the_interval_of_a_random_control_holds_the_spread_of_its_draws(world) -> None:
    before = dict(registry._REGISTRY)
    try:

        @plm.representation("two-faced", isolates="draws that differ", draws=2)
        def two_faced(bits, seed):
            if seed == derived(0, Purpose.REPRESENTATION, 1):
                return bits - 0.5
            return np.random.default_rng(seed).normal(size=bits.shape)

        layer = clusters(world("code"), 4, extra=("two-faced",), **FAST).layers[0]
    finally:
        registry._REGISTRY.clear()
        registry._REGISTRY.update(before)
    score = layer.representation("two-faced").score(AMI)
    spread = abs(score.draws[0] - score.draws[1])
    assert spread > 0.1
    assert score.estimate.sd > 0.4 * spread


def test_neighbouring_seeds_share_no_draw_and_no_purpose_shares_a_stream(world) -> None:
    before = dict(registry._REGISTRY)
    seen: list[int] = []
    try:

        @plm.representation("spy", isolates="seeds", draws=5)
        def spy(bits, seed):
            seen.append(seed)
            return np.random.default_rng(seed).normal(size=bits.shape)

        codes = world("code", n=600)
        found = [clusters(codes, 4, extra="spy", k=5, resamples=10, seed=seed).layers[0] for seed in (0, 1)]
    finally:
        registry._REGISTRY.clear()
        registry._REGISTRY.update(before)
    assert len(seen) == len(set(seen)) == 10
    assert seen[:5] == [derived(0, Purpose.REPRESENTATION, number) for number in range(5)]
    draws = [layer.representation(SIMHASH).score(AGREEMENT).draws for layer in found]
    assert not set(draws[0]) & set(draws[1])
    every = [derived(seed, purpose, n) for seed in range(20) for purpose in range(8) for n in range(5)]
    assert len(set(every)) == len(every)
    with pytest.raises(PolytopeError, match="seed = -1 is no seed"):
        clusters(codes, 4, seed=-1)


@pytest.mark.parametrize(
    ("label", "excluded"),
    [("lemma", "lemma"), ("form", "form"), ("finer", "lemma"), ("word", "lemma"), ("title", "document")],
)
def test_a_label_that_strict_neighbours_exclude_is_refused(world, label: str, excluded: str) -> None:
    codes = world("code")
    table = codes.tokens
    if label != "word":  # without these columns the surface stands for both
        table["form"] = table["word"]
        table["lemma"] = [f"lemma {int(word[1:]) // 3}" for word in table["word"]]
        table["finer"] = table["word"] + table["upos"]
        table["title"] = [f"title {document}" for document in table["document"]]
    message = f"strict neighbours exclude tokens of the same {excluded}, so agreement with '{label}' cannot"
    if label == "form":
        table["lemma"] = [f"{word} {i % 2}" for i, word in enumerate(table["word"])]
    with pytest.raises(PolytopeError, match=message):
        clusters(codes, 4, label, **FAST)


def test_a_label_that_nearly_says_the_word_is_refused(world) -> None:
    codes = world("code")
    codes.tokens["nearly"] = codes.tokens["word"].where(codes.tokens.index > 4, "several")
    with pytest.raises(PolytopeError, match=r"only \d of 855 tokens have a strict neighbour .* same 'nearly'"):
        clusters(codes, 4, "nearly", **FAST)


def test_tokens_of_one_word_have_no_strict_neighbours(world) -> None:
    codes = world("code")
    codes.tokens["sense"] = codes.tokens["upos"]
    codes.tokens["form"] = "bank"
    with pytest.raises(PolytopeError, match="every labelled token is the word 'bank', so no neighbour"):
        clusters(codes, 4, "sense", **FAST)
    codes.tokens["form"] = ["banks" if i == 100 else "bank" for i in range(len(codes))]
    # One token of another word is everyone's only neighbour: agreement with it is no score.
    with pytest.raises(PolytopeError, match=r"only 1 of 855 tokens have 10 strict neighbours .* other words"):
        clusters(codes, 4, "sense", **FAST)


def test_progress_is_told_before_each_representation(world) -> None:
    seen: list[tuple[int, int, str]] = []
    clusters(world(layers=(1, 2), n=600), progress=lambda *step: seen.append(step), **{**FAST, "k": 5})
    assert [step[:2] for step in seen] == [(i, 10) for i in range(10)]
    assert seen[5][2] == "layer 2: code"


def test_mistakes_are_one_line(world) -> None:
    codes = world()
    with pytest.raises(PolytopeError, match="no label 'genre'; these codes have 'word', 'upos'"):
        clusters(codes, 4, "genre")
    with pytest.raises(PolytopeError, match="layer 9 is not in these codes; captured layers: 4"):
        clusters(codes, 9)
    with pytest.raises(PolytopeError, match=r'h not kept.*keep=\("u", "h"\) or --keep u,h'):
        clusters(world(kept=("u",)))
    with pytest.raises(PolytopeError, match="u and h not kept"):
        clusters(world(kept=()))
    with pytest.raises(PolytopeError, match="k = 855 clusters of 855 tokens"):
        clusters(codes, 4, k=855, per_document=None)
    with pytest.raises(PolytopeError, match=r"5 documents count for 5\.0, and at least 8"):
        clusters(world(documents=5), 4)
    with pytest.raises(PolytopeError, match="no representation 'mine'"):
        clusters(codes, 4, extra=["mine"])
    codes.kept_arrays["L04.pre.h"][300, 0] = np.nan
    with pytest.raises(PolytopeError, match="'h' of layer 4 holds NaN or infinity at token 300"):
        clusters(codes, 4, **FAST)


def test_shuffled_bits_are_at_chance_and_a_rotation_hides_what_only_signs_carry(world) -> None:
    extra = ("shuffled bits", "rotation, threshold 0", "rotation, rate-matched", "SimHash, zero bias")
    layer = clusters(world("code"), 4, extra=extra, **FAST).layers[0]
    assert layer.representation("code").score(AMI).estimate.low > 0.05
    for name in extra:
        estimate = layer.representation(name).score(AMI).estimate
        assert estimate.value < 0.03
    chance = layer.representation("shuffled bits").score(AMI).estimate
    assert chance.low < 0 < chance.high
