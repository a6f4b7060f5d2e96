from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from polytope_lm.statistics.confounders import Adjuster, added, beyond_controls, beyond_half
from polytope_lm.worlds import distance_world, flipback_world
from polytope_lm.worlds.pair_worlds import FLIP_BACKS


def _effect(table, adjustment: str, **options):
    return Adjuster(table, resamples=200, **options).effect(FLIP_BACKS, table.outcomes[FLIP_BACKS], adjustment)


def test_raw_is_the_plain_auc() -> None:
    table = distance_world(seed=1)
    found = _effect(table, "raw")
    assert found.by_group.value == pytest.approx(roc_auc_score(table.different, table.outcomes[FLIP_BACKS]))
    assert found.pairs == len(table)


def test_distance_alone_is_a_large_raw_effect_and_none_after_adjusting() -> None:
    table = distance_world(seed=1)
    assert _effect(table, "raw").by_group.low > 0.6
    for adjustment in ("matched", "regressed"):
        found = _effect(table, adjustment)
        assert found.by_group.low < 0.52, adjustment
        assert abs(found.by_group.value - 0.5) < 0.08, adjustment


def test_planted_flip_backs_are_found() -> None:
    table = flipback_world(seed=1)
    for adjustment in ("matched", "regressed"):
        assert _effect(table, adjustment).by_group.value > 0.55, adjustment
    assert beyond_half(Adjuster(table, resamples=200), table.outcomes[FLIP_BACKS]).low > 0.02


def test_an_outcome_that_is_its_covariates_has_no_effect() -> None:
    table = distance_world(seed=2)
    hamming = table.covariates["endpoint Hamming"]
    found = beyond_half(Adjuster(table, resamples=200), hamming - hamming)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_controls_with_the_same_counts_leave_no_lead() -> None:
    table = flipback_world(seed=3)
    counts = table.outcomes[FLIP_BACKS]
    one, same, blank = (Adjuster(table, seed=5, resamples=200) for _ in range(3))
    equal = beyond_controls(one, counts, [(same, counts)])
    assert (equal.value, equal.low, equal.high) == (0.0, 0.0, 0.0)
    noise = np.random.default_rng(0).poisson(40, (3, len(counts))).astype(float)
    lead = beyond_controls(one, counts, [(blank, row) for row in noise])
    mean = np.mean([blank.regressed(row).value for row in noise])
    assert lead.value == pytest.approx(one.regressed(counts).value - mean)
    assert lead.low > 0.02
    # The spread of the draws is in the interval.
    assert lead.sd > beyond_half(one, counts).sd


def test_groups_are_the_unit_unless_there_are_too_few() -> None:
    many, few = distance_world(groups=60, seed=0), distance_world(groups=9, seed=0)
    assert Adjuster(many, resamples=50).unit == "groups"
    assert Adjuster(few, resamples=50).unit == "pairs"


def test_rows_that_repeat_in_a_group_widen_the_groups_interval_only() -> None:
    table = flipback_world(120, groups=60, seed=0)
    four = np.tile(np.arange(120), 4)
    repeated = replace(
        table,
        different=table.different[four],
        group=table.group[four],
        outcomes={k: v[four] for k, v in table.outcomes.items()},
        covariates={k: v[four] for k, v in table.covariates.items()},
    )
    once, often = (_effect(t, "raw") for t in (table, repeated))
    assert often.by_pair.sd < 0.7 * once.by_pair.sd
    assert often.by_group.sd == pytest.approx(once.by_group.sd, rel=0.2)


def test_what_crossings_add() -> None:
    table = flipback_world(effect=0.5, seed=0)
    adjuster = Adjuster(table, resamples=200)
    assert added(adjuster, table.outcomes[FLIP_BACKS]).low > 0.1
    noise = np.random.default_rng(0).poisson(40, len(table)).astype(float)
    assert added(adjuster, noise).low < 0.01


def test_a_seed_decides() -> None:
    table = distance_world(seed=4)
    assert _effect(table, "regressed", seed=1) == _effect(table, "regressed", seed=1)
    assert _effect(table, "regressed", seed=1) != _effect(table, "regressed", seed=2)
