"""What is counted of toy networks: breakpoints are where the network bends, shares are of the seeds."""

from __future__ import annotations

import numpy as np

from analyses import toys as analysis
from polytope_lm import toys


def test_breakpoints_are_where_the_slope_changes():
    goal = toys.task("sine", 100)
    (trained,) = toys.fit(goal, (6, 5), [0], steps=100)
    at = np.sort(analysis.breakpoints(trained, goal))
    assert len(at)
    x = np.linspace(*goal.window[:2], 20_001)
    y = trained.network.output(x[:, None])[:, 0]
    bent = x[1:-1][np.abs(np.diff(y, 2)) > 1e-9]
    assert all(np.abs(at - place).min() < 2 * (x[1] - x[0]) for place in bent)


def test_the_second_derivatives_are_the_functions():
    x = np.array([0.2, 0.5, 0.9])
    step = 1e-4
    for name, f in (("sine", np.sin), ("sine of 1/x", lambda x: np.sin(1 / x))):
        numeric = (f(x + step) - 2 * f(x) + f(x - step)) / step**2
        np.testing.assert_allclose(analysis.CURVES[name](x), np.abs(numeric), rtol=1e-3)


def test_shares_are_counted_over_seeds():
    found = analysis.closed((2,), 3)
    assert found["seeds"] == 3
    assert found["closed"] == 0
    assert found["on"] == "the whole plane"
    three = analysis.interval([1.0, 2.0, 3.0])
    assert three["mean"] == 2
    assert three["low"] < 1
    assert three["high"] > 3
