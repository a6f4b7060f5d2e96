from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score

from polytope_lm.errors import PolytopeError
from polytope_lm.inference.intervals import estimate, half_samples


@pytest.mark.parametrize("documents", [10, 11, 60])
def test_a_half_holds_half_of_the_documents_once(documents: int) -> None:
    kept = half_samples(documents, 50, seed=0)
    assert (kept.sum(axis=1) == -(-documents // 2)).all()
    assert len(np.unique(kept, axis=0)) > 40
    assert (kept == half_samples(documents, 50, seed=0)).all()
    assert (kept != half_samples(documents, 50, seed=1)).any()


@pytest.mark.parametrize("documents", [11, 200])
def test_the_spread_over_halves_is_the_standard_error_of_a_mean(documents: int) -> None:
    values = np.random.default_rng(0).normal(size=documents)
    kept = half_samples(documents, 4000, seed=1)
    halves = np.array([values[keep].mean() for keep in kept])
    found = estimate(values.mean(), halves, documents)
    assert found.sd == pytest.approx(values.std(ddof=1) / np.sqrt(documents), rel=0.04)
    assert found.high - found.value == pytest.approx(1.96 * found.sd)
    assert found.value - found.low == pytest.approx(1.96 * found.sd)


def test_intervals_of_ami_cover_where_labels_go_by_document() -> None:
    """Two clusterings of unequal sizes that know nothing of the labels: the difference is 0 in truth."""
    rng = np.random.default_rng(0)
    inside = 0
    runs = 60
    for run in range(runs):
        document = np.repeat(np.arange(40), 10)
        label = (rng.integers(0, 4, 40)[document] + (rng.random(400) < 0.5) * rng.integers(0, 4, 400)) % 4
        few, many = rng.integers(0, 5, 400), np.minimum(rng.zipf(1.5, 400), 30)
        kept = half_samples(40, 100, seed=run)[:, document]

        def difference(keep: np.ndarray, few=few, many=many, label=label) -> float:
            return adjusted_mutual_info_score(label[keep], many[keep]) - adjusted_mutual_info_score(
                label[keep], few[keep]
            )

        found = estimate(
            difference(np.full(400, True)), np.array([difference(keep) for keep in kept[:40]]), 40
        )
        inside += found.low <= 0 <= found.high
    assert inside >= 0.85 * runs


def test_too_little_to_resample_is_said() -> None:
    with pytest.raises(PolytopeError, match="9 documents are too few to resample; at least 10"):
        half_samples(9, 200, seed=0)
    with pytest.raises(PolytopeError, match="resamples = 1"):
        half_samples(20, 1, seed=0)
    with pytest.raises(PolytopeError, match="does not exist on some halves of 12 documents"):
        estimate(0.5, np.array([0.1, np.nan]), 12)
