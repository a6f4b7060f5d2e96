"""The test of boundaries, tested: how often it finds what was planted, and what was not.

Run with `python -m benchmarks.boundary_calibration [--runs 1000] [--table DIR ...] [--json]`.

- boundary world: a constructed ReLU network with 7 times as many boundaries where the classes meet: the
  density measured along exact paths, and the share of paths that are densest there;
- distance world: classes that differ only by distance; the test may say *supported* in 2.5 % at most;
- the same with labels permuted within groups, in the distance world;
- flip-back world: 22 % more flip-backs in pairs of different meaning at equal distances, an AUC of .66;
- with `--table`, labels permuted within groups on real paths: `pairs.parquet` beside a saved `result.json`.

Each rate has its 95 % Clopper-Pearson interval. The same code judges these tables and a language model's.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks._machine import Figure, arguments, describe, report
from polytope_lm.errors import PolytopeError
from polytope_lm.paths.solve.line import in_layer_crossings
from polytope_lm.statistics.confounders import Adjuster, beyond_half
from polytope_lm.statistics.estimate import auc
from polytope_lm.statistics.nulls import Rate
from polytope_lm.worlds.pair_worlds import FLIP_BACKS, boundary_world, distance_world, flipback_world, peak

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from polytope_lm.statistics.confounders import PairTable

SMALLEST_EFFECT = 0.02
RESAMPLES = 400


@dataclass(frozen=True)
class Rates:
    """What became of many tables.

    Attributes:
        runs: how many.
        supported: those whose interval lies beyond the smallest effect.
        excluded: those whose interval excludes no effect.
        value: mean regressed AUC.
        raw: mean raw AUC.

    """

    runs: int
    supported: int
    excluded: int
    value: float
    raw: float


def rates(table: Callable[[int], PairTable], runs: int, outcome: str = FLIP_BACKS) -> Rates:
    """Judge `runs` tables, each made from its own seed, by the primary cell.

    Args:
        table: makes one from a seed.
        runs: how many.
        outcome: the primary outcome's column.

    """
    supported = excluded = 0
    values, raws = [], []
    for seed in range(runs):
        made = table(seed)
        counts = made.outcomes[outcome]
        found = beyond_half(Adjuster(made, seed=seed, resamples=RESAMPLES), counts)
        supported += found.low > SMALLEST_EFFECT
        excluded += found.low > 0 or found.high < 0
        values.append(found.value + 0.5)
        raws.append(auc(counts, made.different))
    return Rates(runs, supported, excluded, float(np.mean(values)), float(np.mean(raws)))


def shuffled(table: PairTable, seed: int) -> PairTable:
    """Return the same pairs with labels permuted within groups."""
    rng = np.random.default_rng(seed)
    labels = table.different.copy()
    for group in np.unique(table.group):
        rows = np.flatnonzero(table.group == group)
        labels[rows] = rng.permutation(labels[rows])
    return replace(table, different=labels)


def boundary_figures(runs: int) -> Iterator[Figure]:
    """Measure the constructed network's density."""
    peaks = []
    for seed in range(runs):
        world = boundary_world(seed=seed)
        found = in_layer_crossings(world.geometry, world.a, world.b, at="mlp_in")
        peaks.append(peak(world, found.pair, found.t))
    low, high = np.percentile([each.ratio for each in peaks], [2.5, 97.5])
    yield Figure(
        "boundary world: density ratio", float(np.mean([each.ratio for each in peaks])), "",
        peer=world.ratio, peer_name="constructed", note=f"95 % of {runs} worlds in {low:.2f} to {high:.2f}",
    )  # fmt: skip
    peaked = float(np.mean([each.peaked for each in peaks]))
    yield Figure("boundary world: paths densest at the class boundary", peaked, "", must=0.95)


def rate_figures(name: str, found: Rates, *, must: float, at_most: bool) -> Iterator[Figure]:
    """Print how often a world was called supported, and how often its interval excludes no effect."""
    parts = (("supported", found.supported, must), ("interval excludes 0.5", found.excluded, None))
    for what, count, bound in parts:
        rate = Rate.of(count, found.runs)
        note = f"{count} of {found.runs}, 95 % interval {rate.low:.4f} to {rate.high:.4f}; "
        note += f"mean AUC raw {found.raw:.3f}, beyond covariates {found.value:.3f}"
        yield Figure(
            f"{name}: {what}", rate.value, "", must=bound, bound="at most" if at_most else "at least",
            note=note,
        )  # fmt: skip


def saved_tables(folder: Path) -> Iterator[tuple[str, PairTable]]:
    """Read one table a layer of the real weights from a saved test."""
    # Only where asked for: they bring the models' libraries.
    from polytope_lm.predictions.boundaries.judging import from_numbers  # noqa: PLC0415
    from polytope_lm.predictions.boundaries.result import BoundariesResult  # noqa: PLC0415

    result = BoundariesResult.load(folder)
    if result.numbers is None:
        raise PolytopeError(f"no pairs.parquet in {str(folder)!r}; put it back beside result.json")
    for layer in result.layers:
        yield f"{folder.name}, layer {layer.layer}", from_numbers(result.numbers, layer.layer).table()


def main() -> None:
    """Run all worlds and print the figures."""
    warnings.simplefilter("ignore")
    parser = arguments(__doc__ or "")
    parser.add_argument("--runs", type=int, default=1000, help="worlds of each kind (1000)")
    parser.add_argument("--table", type=Path, nargs="*", default=[], help="directories of saved tests")
    options = parser.parse_args()
    machine, runs = describe(), options.runs
    figures = list(boundary_figures(min(runs, 200)))
    found = rates(lambda seed: distance_world(seed=seed), runs)
    figures += rate_figures("distance world", found, must=0.025, at_most=True)
    found = rates(lambda seed: shuffled(distance_world(seed=seed), seed), runs)
    figures += rate_figures("distance world, labels permuted", found, must=0.025, at_most=True)
    found = rates(lambda seed: flipback_world(seed=seed), runs)
    figures += rate_figures("flip-back world", found, must=0.9, at_most=False)
    for folder in options.table:
        for name, table in saved_tables(folder):
            found = rates(lambda seed, table=table: shuffled(table, seed), runs)  # type: ignore[misc]
            figures += rate_figures(f"{name}, labels permuted", found, must=0.025, at_most=True)
    report(figures, options.json, machine)


if __name__ == "__main__":
    main()
