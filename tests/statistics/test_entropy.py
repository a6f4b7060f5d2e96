from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import entropy as scipy_entropy
from sklearn.metrics import homogeneity_score, v_measure_score
from sklearn.metrics.cluster import contingency_matrix

from polytope_lm.errors import PolytopeError
from polytope_lm.statistics.nulls import against, random_groups, strata
from polytope_lm.statistics.purity import label_purity, resampled_purity

GROUPS = np.array([0, 0, 0, 0, 1, 1, 1, 1, -1, -1])
LABELS = np.array([3, 3, 3, 3, 5, 5, 7, 7, 3, 5])


def test_planted_groups_have_the_entropy_and_purity_that_were_planted() -> None:
    found = label_purity(GROUPS, LABELS, draws=50)
    pure, mixed = found.groups
    assert (pure.entropy.value, pure.purity.value, pure.majority, pure.size) == (0, 1, 3, 4)
    assert (mixed.entropy.value, mixed.purity.value, mixed.majority, mixed.size) == (1, 0.5, 5, 4)
    assert found.entropy.value == pytest.approx(0.5)
    assert found.purity.value == pytest.approx(0.75)
    # Noise is in no number but its own.
    assert (found.tokens, found.noise) == (8, 2)
    assert found.label_entropy == pytest.approx(1.5)
    assert found.majority == pytest.approx(0.5)


def _random(n: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    groups = rng.choice(12, n, p=np.arange(1, 13) / 78)
    labels = np.where(rng.random(n) < 0.4, groups % 5, rng.integers(0, 5, n))
    return groups, labels


def test_agrees_with_scikit_learn_and_scipy_on_the_same_partition() -> None:
    groups, labels = _random()
    found = label_purity(groups, labels, draws=20)
    table = contingency_matrix(labels, groups)
    by_group = scipy_entropy(table, base=2, axis=0)
    assert [g.entropy.value for g in found.groups] == pytest.approx(list(by_group))
    assert found.entropy.value == pytest.approx((by_group * table.sum(axis=0)).sum() / len(groups))
    assert found.purity.value == pytest.approx(table.max(axis=0).sum() / len(groups))
    assert found.homogeneity == pytest.approx(homogeneity_score(labels, groups))
    assert found.homogeneity == pytest.approx(1 - found.entropy.value / found.label_entropy)
    assert found.v_measure == pytest.approx(v_measure_score(labels, groups))


def test_the_null_knows_that_small_groups_are_pure_by_themselves() -> None:
    labels = np.random.default_rng(0).integers(0, 5, 400)
    groups = np.arange(400) // 2
    found = label_purity(groups, labels, draws=200)
    assert found.purity.value > 0.5  # far above the majority's share ...
    assert found.majority < 0.3
    assert abs(found.purity.z or 0) < 3  # ... and no better than pairs drawn at random
    assert found.purity.p > 0.01
    single = label_purity(np.arange(9), np.arange(9) % 2, draws=10)
    assert single.purity.z is None
    assert single.purity.p == 1


def test_a_real_grouping_is_far_from_its_null_and_p_is_never_0() -> None:
    groups, labels = _random()
    found = label_purity(groups, labels, draws=99)
    assert found.entropy.z is not None
    assert found.entropy.z < -5
    assert found.purity.z is not None
    assert found.purity.z > 5
    assert found.entropy.p == found.purity.p == 0.01
    assert found == label_purity(groups, labels, draws=99)
    assert found.entropy.mean != label_purity(groups, labels, draws=99, seed=1).entropy.mean


def test_p_of_unrelated_groups_is_uniform() -> None:
    rng = np.random.default_rng(5)
    ps = [label_purity(rng.integers(0, 6, 80), rng.integers(0, 3, 80), draws=39, seed=s).entropy.p for s in range(200)]
    assert 0.02 < np.mean(np.array(ps) <= 0.1) < 0.2
    assert 0.4 < np.mean(ps) < 0.62


def test_a_null_within_documents_leaves_nothing_of_what_the_document_brings() -> None:
    """Groups and labels that both follow the document, and nothing else, are at chance within documents."""
    rng = np.random.default_rng(1)
    documents = np.repeat(np.arange(40), 20)
    groups = np.where(rng.random(800) < 0.7, (documents % 8), rng.integers(0, 8, 800))
    labels = np.where(rng.random(800) < 0.7, (documents % 4), rng.integers(0, 4, 800))
    free, within = (label_purity(groups, labels, within=w, draws=100) for w in (None, documents))
    assert free.entropy.z is not None
    assert free.entropy.z < -10
    assert within.entropy.z is not None
    assert abs(within.entropy.z) < 3.5


def test_permuted_groups_keep_sizes_and_strata() -> None:
    rng = np.random.default_rng(0)
    groups, within = rng.integers(0, 5, 300), rng.integers(0, 7, 300)
    for other in random_groups(groups, draws=5, seed=3, within=within):
        assert (other != groups).any()
        for stratum in range(7):
            here = within == stratum
            assert (np.sort(other[here]) == np.sort(groups[here])).all()


def test_permutations_within_strata_are_uniform() -> None:
    groups, within = np.array([0, 1, 2, 3, 9]), np.array([0, 0, 0, 1, 1])
    seen = [tuple(o) for o in random_groups(groups, draws=6000, seed=0, within=within)]
    counts = np.unique(seen, axis=0, return_counts=True)[1]
    assert len(counts) == 12
    assert counts.min() > 400


def test_halves_are_scored_by_the_same_formula() -> None:
    groups, labels = _random()
    groups[::10] = -1
    inside = np.random.default_rng(0).random((4, 600)) < 0.5
    found = resampled_purity(groups, labels, inside)
    for draw, kept in enumerate(inside):
        alone = label_purity(groups[kept], labels[kept], draws=1)
        assert found[draw] == pytest.approx([alone.entropy.value, alone.purity.value])


def test_the_frame_has_a_row_a_group() -> None:
    frame = label_purity(*_random(), draws=50).to_frame()
    assert len(frame) == 12
    assert {"group", "size", "entropy", "entropy by chance", "purity z", "fdr"} <= set(frame.columns)
    assert (frame["fdr"] >= frame["entropy p"] - 1e-12).all()


def test_strata_number_the_combinations_that_occur() -> None:
    assert strata(np.array([5, 5, 2, 5]), np.array([0, 1, 0, 0])).tolist() == [1, 2, 0, 1]


def test_p_counts_ties_and_the_observed_one() -> None:
    assert against(1.0, np.array([1.0, 0.5, 2.0]), "higher").p == 0.75
    assert against(1.0, np.array([1.0, 0.5, 2.0]), "lower").p == 0.75
    assert against(1.0, np.array([1.0, 1.0]), "higher").z is None


@pytest.mark.usefixtures("users_arrays")
@pytest.mark.parametrize(
    ("groups", "labels", "said"),
    [
        (np.array([0, 1]), np.array([0, 1, 2]), "2 group ids for 3 tokens"),
        (np.array([-1, -1]), np.array([0, 1]), "none of 2 tokens"),
        (np.array([-2, 0]), np.array([0, 1]), "group id -2"),
    ],
)
def test_what_is_no_grouping_is_refused(groups: np.ndarray, labels: np.ndarray, said: str) -> None:
    with pytest.raises(PolytopeError, match=said) as error:
        label_purity(groups, labels)
    assert "\n" not in str(error.value)
