from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score

from polytope_lm.errors import PolytopeError
from polytope_lm.statistics.agreement import Partition

LABELS = np.array([4, 4, -1, 9, 9, 9, -5, 4, 9, 9])


def test_noise_is_counted_and_never_a_cluster() -> None:
    made = Partition(LABELS, "a test", {"k": 2})
    np.testing.assert_array_equal(made.labels, [0, 0, -1, 1, 1, 1, -1, 0, 1, 1])
    assert (made.noise, made.noise_share, made.clusters, made.sizes) == (2, 0.2, 2, (3, 5))
    assert made.largest_share == 0.5
    frame = made.to_frame()
    assert list(frame["cluster"]) == [0, 1, -1]
    assert list(frame["tokens"]) == [3, 5, 2]
    assert frame["share"].sum() == pytest.approx(1)
    assert "noise 2 (20%)" in repr(made)


def test_ami_is_that_of_the_clustered_tokens_beside_the_share_thrown_away() -> None:
    rng = np.random.default_rng(0)
    labels, gold = rng.integers(-1, 5, 300), rng.integers(0, 4, 300)
    labels[gold == 2] = 3
    found = Partition(labels, "a test").ami(gold)
    inside = labels >= 0
    assert found.ami == pytest.approx(adjusted_mutual_info_score(gold[inside], labels[inside]))
    assert (found.clustered, found.noise_share) == (inside.sum(), (~inside).mean())
    assert f"{found.noise_share:.0%} noise left out" in str(found)


def test_where_every_token_is_noise_there_is_no_score() -> None:
    made = Partition(np.full(8, -1), "a test")
    found = made.ami(np.arange(8))
    assert (found.ami, found.clustered, found.noise_share) == (None, 0, 1.0)
    assert str(found) == "no AMI: every token is noise"
    assert (made.clusters, made.largest_share) == (0, 0)


@pytest.mark.usefixtures("users_arrays")
@pytest.mark.parametrize("labels", [np.zeros((3, 2), int), np.zeros(4), np.zeros(0, int)])
def test_what_is_no_partition_is_refused(labels: np.ndarray) -> None:
    with pytest.raises(PolytopeError, match="it must give one integer a token, -1 for noise"):
        Partition(labels, "mine")


def test_other_numbers_of_labels_are_refused() -> None:
    with pytest.raises(PolytopeError, match="9 labels for a partition of 10 tokens"):
        Partition(LABELS, "a test").ami(np.zeros(9, int))
