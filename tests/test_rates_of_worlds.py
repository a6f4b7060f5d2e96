"""Intervals of rates whose runs share worlds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from benchmarks._runs import over_worlds
from benchmarks.calibration import row_of

TOGETHER = 10


def lines(happened: np.ndarray) -> list[dict[str, object]]:
    return [{"seed": i, "happened": bool(each)} for i, each in enumerate(happened.ravel())]


def interval(happened: np.ndarray) -> tuple[float, float]:
    return over_worlds(lines(happened), lambda line: line["happened"], TOGETHER)


def test_runs_that_repeat_their_world_count_as_one():
    world = np.random.default_rng(0).random(100) < 0.3
    wilson = binomtest(int(world.sum()), 100).proportion_ci(method="wilson")
    assert interval(np.repeat(world[:, None], TOGETHER, axis=1)) == pytest.approx(wilson, abs=0.003)


def test_where_no_run_or_every_run_happened_each_world_counts_once():
    wilson = binomtest(0, 100).proportion_ci(method="wilson")
    assert interval(np.zeros((100, TOGETHER))) == pytest.approx(wilson, abs=1e-6)
    assert interval(np.ones((100, TOGETHER)))[0] == pytest.approx(1 - wilson.high, abs=1e-6)


@pytest.mark.parametrize("alike", [0.0, 0.3])
def test_it_covers_the_rate_in_95_of_100(alike):
    rng, rate, covered = np.random.default_rng(1), 0.6, 0
    for _ in range(400):
        a = (1 - alike) / alike if alike else 1e6  # intra-class correlation of a beta-binomial
        share = rng.beta(rate * a, (1 - rate) * a, 100)
        low, high = interval(rng.random((100, TOGETHER)) < share[:, None])
        covered += low <= rate <= high
    assert covered >= 0.92 * 400


def test_a_row_of_the_docs_table():
    made = [
        {"seed": i, "outcome": "supported" if i % 4 else "no lead", "cells": [[0.1, 0.05, 0.2], [0.1, -0.1, 0.2]]}
        for i in range(200)
    ]
    row = row_of("null equal", made)
    assert row.startswith("| null equal | 200 of 20 worlds | 75.0% [")
    assert row.endswith("at most 2.5 % | no lead 25.0% | 100.0%, 0.0% |")
