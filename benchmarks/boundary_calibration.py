"""The test of boundaries, tested: how often it finds what was planted, and what was not.

Run with `python -m benchmarks.boundary_calibration [--runs 1000] [--out DIR] [--table DIR ...] [--json]`. Each run
is a line of `DIR/runs.jsonl`; interrupted, it goes on where it stopped, and with all runs there it only prints.

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
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean
from time import process_time
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._machine import Figure, arguments, describe, report
from benchmarks._runs import run_all
from polytope_lm.errors import PolytopeError
from polytope_lm.paths.solve.line import in_layer_crossings
from polytope_lm.statistics.confounders import Adjuster, beyond_half
from polytope_lm.statistics.estimate import auc
from polytope_lm.statistics.nulls import Rate
from polytope_lm.statistics.verdict import OUTCOMES, Cell, decide
from polytope_lm.worlds.pair_worlds import FLIP_BACKS, boundary_world, distance_world, flipback_world, peak

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from benchmarks._runs import Job
    from polytope_lm.statistics.confounders import PairTable

BEYOND_COVARIATES, SCORE = "what covariates explain (0.5)", "AUC of flip-backs"
SMALLEST_EFFECT = 0.02
RESAMPLES = 400


WORLDS: dict[str, Callable[[int], PairTable]] = {
    "distance": lambda seed: distance_world(seed=seed),
    "distance, labels permuted": lambda seed: shuffled(distance_world(seed=seed), seed),
    "flip-backs": lambda seed: flipback_world(seed=seed),
}
MUST = {"distance": 0.025, "distance, labels permuted": 0.025, "flip-backs": 0.9}


def judged(made: PairTable, seed: int) -> dict[str, Any]:
    """Return the verdict on one table by the primary cell, which stands alone here: there are no hyperplanes."""
    counts = made.outcomes[FLIP_BACKS]
    found = beyond_half(Adjuster(made, seed=seed, resamples=RESAMPLES), counts)
    verdict = decide(
        [Cell(BEYOND_COVARIATES, SCORE, found)], place="world", documents=len(made), unit="pairs",
        smallest_effect=SMALLEST_EFFECT, premises="planted", premises_met=True,
    )  # fmt: skip
    scores = {"raw AUC": auc(counts, made.different), "AUC beyond covariates": found.value + 0.5}
    return {"outcome": verdict.outcome, "cells": [[found.value, found.low, found.high]], "scores": scores}


def one_job(tables: Mapping[str, PairTable], job: Job) -> list[dict[str, Any]]:
    """Do some runs of one world, or of one saved table with labels permuted, in a worker."""
    world, runs = job
    warnings.simplefilter("ignore")
    lines = []
    for seed in runs:
        start = process_time()
        made = WORLDS[world](seed) if world in WORLDS else shuffled(tables[world], seed)
        lines.append({"world": world, "seed": seed} | judged(made, seed) | {"seconds": process_time() - start})
    return lines


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


def rate_figures(world: str, lines: Sequence[Mapping[str, Any]]) -> Iterator[Figure]:
    """Print how often a world had each outcome, and how often its interval excludes no effect."""
    must = MUST.get(world, 0.025)
    outcomes = Counter(line["outcome"] for line in lines)
    said = ", ".join(f"{name} {outcomes[name] / len(lines):.1%}" for name in OUTCOMES if outcomes[name])
    seconds = mean(line["seconds"] for line in lines)
    yield Figure(
        f"{world}: supported", outcomes["supported"] / len(lines), "of runs", must=must,
        bound="at least" if must > 0.5 else "at most",
        note=f"{Rate.of(outcomes['supported'], len(lines))}; {said}; {seconds:.2f} s of CPU a run",
    )  # fmt: skip
    away = Rate.of(sum(not low <= 0 <= high for line in lines for _, low, high in line["cells"]), len(lines))
    means = ", ".join(f"mean {name} {mean(line['scores'][name] for line in lines):.3f}" for name in lines[0]["scores"])
    yield Figure(f"{world}: interval excludes .5", away.value, "of runs", note=f"{away}; {means}")


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
    """Do what is missing and print the figures."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--runs", type=int, default=1000, help="worlds of each kind (1000)")
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each (1)")
    parser.add_argument("--out", type=Path, default=Path("boundary-calibration"), help="directory of the runs")
    parser.add_argument("--table", type=Path, nargs="*", default=[], help="directories of saved tests")
    options = parser.parse_args()
    machine = describe()
    tables = {name: table for folder in options.table for name, table in saved_tables(folder)}
    worlds = (*WORLDS, *tables)
    wanted = [(world, seed) for seed in range(options.runs) for world in worlds]
    together = dict.fromkeys(worlds, 10)
    lines = run_all(options.out / "runs.jsonl", wanted, together, partial(one_job, tables), options.jobs)
    figures = list(boundary_figures(min(options.runs, 200)))
    for world in worlds:
        figures += rate_figures(world, [line for line in lines if line["world"] == world])
    report(figures, options.json, machine)


if __name__ == "__main__":
    main()
