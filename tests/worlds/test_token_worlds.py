"""The worlds hold what they say; the whole test's rates on them are in predictions/test_calibration.py."""

from __future__ import annotations

import numpy as np
import pytest

import polytope_lm as plm
from polytope_lm.errors import PolytopeError
from polytope_lm.representations.directions import centred
from polytope_lm.representations.distances import pairwise
from polytope_lm.representations.registry import Rows
from polytope_lm.statistics.agreement import adjusted_mutual_information
from polytope_lm.statistics.clustering import k_medoids
from polytope_lm.worlds.token_worlds import FLIPS, MONOSEMANTIC, REGIONS, shares

SEEDS = range(6)


def _ids(codes, label: str) -> np.ndarray:
    return codes.tokens[label].astype("category").cat.codes.to_numpy()


def _intraclass(codes, label: str) -> float:
    """(P[same | same document] - P[same]) / (1 - P[same]), over all pairs of different tokens."""
    ids, document = _ids(codes, label), codes.tokens["document"].to_numpy()
    same = ids[:, None] == ids[None, :]
    other = ~np.eye(len(ids), dtype=bool)
    together = (document[:, None] == document[None, :]) & other
    apart = document[:, None] != document[None, :]
    chance = same[apart].mean()
    return float((same[together].mean() - chance) / (1 - chance))


def _ami(rows: Rows, labels: np.ndarray) -> float:
    return adjusted_mutual_information(labels, k_medoids(pairwise(rows), 50, seed=0))


MAKERS = {
    "code": plm.worlds.code_world,
    "direction": plm.worlds.direction_world,
    "equal": lambda **options: plm.worlds.null_world("equal", **options),
    "zipf": lambda **options: plm.worlds.null_world("zipf", **options),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_clusters_runs_on_every_world_unchanged(kind: str) -> None:
    codes = MAKERS[kind](tokens=600, documents=30)
    result = plm.predictions.clusters(codes, label="label", k=20, resamples=20)
    assert (result.sample.tokens, result.sample.documents) == (600, 30)
    assert (result.sample.first_position, result.sample.repeated_documents) == (0, 0)
    assert codes.context(7)[1] == codes.tokens["token"][7]
    assert result.verdicts[0].premises_met


@pytest.mark.parametrize("kind", MAKERS)
def test_a_seed_gives_one_world(kind: str) -> None:
    a, b, other = (MAKERS[kind](seed=seed) for seed in (3, 3, 4))
    assert (a.packed() == b.packed()).all()
    assert a.tokens.equals(b.tokens)
    assert (a.packed() != other.packed()).any()
    assert (a.bits() == (a.activations("h") > 0)).all()


@pytest.mark.parametrize("kind", MAKERS)
def test_labels_of_a_document_are_alike_as_stated(kind: str) -> None:
    found = [_intraclass(MAKERS[kind](seed=seed), "label") for seed in SEEDS]
    assert np.mean(found) == pytest.approx(0.1, abs=0.03)
    assert np.mean([_intraclass(MAKERS[kind](seed=s, correlation=0.0), "label") for s in SEEDS]) < 0.02


@pytest.mark.parametrize("effect", [0.02, 0.04])
def test_the_code_world_is_ahead_by_the_stated_effect_and_the_cosine_sees_nothing(effect: float) -> None:
    ahead = []
    for seed in SEEDS:
        codes = plm.worlds.code_world(effect, seed=seed)
        h, labels = codes.activations("h"), _ids(codes, "label")
        cosines = [_ami(Rows(values), labels) for values in (h, centred(h))]
        assert max(cosines) < 0.02
        ahead.append(_ami(Rows(codes.packed(), "Hamming"), labels) - np.mean(cosines))
    # One world has a standard deviation of .005 around the effect.
    assert np.mean(ahead) == pytest.approx(effect, abs=0.006)


def test_the_code_world_is_made_of_flipped_prototypes_and_monosemantic_regions() -> None:
    codes = plm.worlds.code_world(0.02, tokens=6000)
    region, labels, bits = codes.tokens["region"], codes.tokens["label"], codes.bits()
    first = bits[(region == "region 0").to_numpy()]
    flip = FLIPS[0.02]
    differ = np.mean([(first[0] != row).mean() for row in first[1:]])
    assert differ == pytest.approx(2 * flip * (1 - flip), abs=0.03)
    pure = labels.groupby(region).nunique() == 1
    assert set(pure.index[pure]) == {f"region {i}" for i in range(MONOSEMANTIC[0.02])}
    assert len(pure) == REGIONS
    assert np.log(np.abs(codes.activations("h"))).std() == pytest.approx(2, abs=0.02)


def test_zipf_regions_differ_in_size_and_null_labels_know_none_of_them() -> None:
    assert shares(3, "zipf") == pytest.approx(np.array([6, 3, 2]) / 11)
    codes = [plm.worlds.null_world("zipf", seed=seed) for seed in SEEDS]
    assert np.mean([(each.tokens["region"] == "region 0").mean() for each in codes]) > 0.15
    scores = [adjusted_mutual_information(_ids(each, "region"), _ids(each, "label")) for each in codes]
    assert np.abs(scores).max() < 0.015
    seen = _ami(Rows(codes[0].packed(), "Hamming"), _ids(codes[0], "region"))
    assert seen > 0.5


def test_regions_and_labels_of_null_worlds_know_documents_and_not_each_other() -> None:
    codes = [plm.worlds.null_world("equal", seed=seed) for seed in SEEDS]
    assert np.mean([_intraclass(each, "region") for each in codes]) == pytest.approx(0.1, abs=0.03)
    found = [adjusted_mutual_information(_ids(each, "region"), each.tokens["document"].to_numpy()) for each in codes]
    assert np.mean(found) > 0.02


@pytest.mark.parametrize("make", [plm.worlds.null_world, plm.worlds.code_world])
def test_labels_can_be_drawn_several_times_for_one_set_of_codes(make) -> None:
    one, three = make(seed=3), make(seed=3, labelings=3)
    assert (one.packed() == three.packed()).all()
    assert one.tokens.equals(three.tokens[one.tokens.columns])
    drawn = [_ids(three, name) for name in ("label", "label 2", "label 3")]
    assert all((a != b).mean() > 0.3 for a, b in ((drawn[0], drawn[1]), (drawn[1], drawn[2])))
    assert _intraclass(three, "label 3") == pytest.approx(0.1, abs=0.06)


def test_impossible_worlds_are_refused_in_one_line() -> None:
    for bad, message in [
        (lambda: plm.worlds.code_world(0.03), "AMI difference of 0.03; choose among 0.02, 0.04"),
        (lambda: plm.worlds.null_world("even"), "sizes = 'even'.*choose 'equal' or 'zipf'"),
        (lambda: plm.worlds.direction_world(tokens=5, documents=9), "5 tokens in 9 documents"),
        (lambda: plm.worlds.null_world(correlation=1.5), "document correlation = 1.5"),
    ]:
        with pytest.raises(PolytopeError, match=message):
            bad()
