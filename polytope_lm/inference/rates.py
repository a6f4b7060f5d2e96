"""How often something happened in repeated runs, with the exact binomial interval of that frequency.

Clopper & Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial"
(Biometrika 1934): it covers at least 95 %, also where nothing happened at all.
"""

from __future__ import annotations

from dataclasses import dataclass

from scipy.stats import binomtest

from polytope_lm.errors import PolytopeError


@dataclass(frozen=True)
class Rate:
    """A frequency and its 95 % interval.

    Attributes:
        events: runs in which it happened.
        runs: all runs.
        low: lower end of the interval of `value`.
        high: upper end.

    """

    events: int
    runs: int
    low: float
    high: float

    @classmethod
    def of(cls, events: int, runs: int) -> Rate:
        """Return the rate of `events` in `runs`.

        Raises:
            PolytopeError: no run, or more events than runs.

        """
        if not 0 <= events <= runs or runs < 1:
            raise PolytopeError(f"{events} events in {runs} runs are no rate; give at least one run")
        found = binomtest(events, runs).proportion_ci(0.95, method="exact")
        return cls(events, runs, float(found.low), float(found.high))

    @property
    def value(self) -> float:
        """The share of runs."""
        return self.events / self.runs

    def __str__(self) -> str:
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}] ({self.events} of {self.runs})"
