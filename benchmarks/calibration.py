"""How often the verdict is right where the answer is known: power and false-positive rates.

Run with `python -m benchmarks.calibration [--runs 1000] [--worlds ...] [--jobs 2] [--out DIR] [--json]`. Each
run puts prediction 1 to the test as `plm.predictions.clusters` does (code, cosine of `h` raw and centred, 3 draws
of rate-matched SimHash; 40 halves) and appends one line to `DIR/runs.jsonl`. Interrupted, it goes on where it
stopped; with all runs there, it only prints the rates.

Nearly all of a run's time goes into clusters and neighbours, which know no label. So ten runs of a code world or
a null world share their codes, each with labels drawn anew (2,000 tokens, k = 50): a rate is then a mean over
worlds, and its standard error and interval over these are printed beside its binomial interval (`--table`: as the
docs' table, of the runs that are there). In the direction world the codes
follow from the labels: each run has a world of its own, of 1,000 tokens in 50 documents (k = n / 60).

Worlds: `code 0.04` and `code 0.02` (power), `direction`, `null equal`, `null zipf` (false positives), and
`smollm2 4`, `smollm2 15`, `smollm2 26`: SmolLM2's codes at these layers, labels exchanged between documents.
Their text is the beginnings of the built-in sample's documents; `--corpus FILE --label NAME` says otherwise.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from statistics import mean
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

import numpy as np

from analyses._running import read_lines
from benchmarks._machine import Figure, arguments, describe, report
from benchmarks._runs import over_worlds, rate_of, run_all
from polytope_lm.controls.labels import EXCHANGES
from polytope_lm.predictions.calibration.trials import (
    CELLS,
    Bench,
    Trial,
    exchanged,
    of_the_label,
    pooled,
    representations,
    set_up,
    trial,
)
from polytope_lm.predictions.clusters.result import AGREEMENT, AMI
from polytope_lm.predictions.clusters.sampling import choose
from polytope_lm.predictions.clusters.scoring import HALVES, Pool, make_task
from polytope_lm.representations import binary as code
from polytope_lm.representations.directions import COSINES
from polytope_lm.worlds import code_world, direction_world, null_world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from benchmarks._runs import Job
    from polytope_lm.codes.codes import Codes
    from polytope_lm.documents.collection import Document

K, DRAWS, EFFECT = 50, 3, 0.01
SHARED = 10
"""Runs that share their codes, where labels can be drawn anew for them."""
WORLDS: dict[str, Callable[[int], Codes]] = {
    "code 0.04": lambda seed: code_world(0.04, labelings=SHARED, seed=seed),
    "code 0.02": lambda seed: code_world(0.02, labelings=SHARED, seed=seed),
    "direction": lambda seed: direction_world(tokens=1000, documents=50, seed=seed),
    "null equal": lambda seed: null_world("equal", labelings=SHARED, seed=seed),
    "null zipf": lambda seed: null_world("zipf", labelings=SHARED, seed=seed),
}
REAL = ("smollm2 4", "smollm2 15", "smollm2 26")
ALL = (*WORLDS, *REAL)
TOKENS, CHARACTERS = 2000, 1200
TOGETHER = dict.fromkeys(WORLDS, SHARED) | {"direction": 1} | dict.fromkeys(REAL, 50)
REAL_RUNS = 1000
"""At most so many exchanges of labels of a layer."""


def planted_runs(world: str, seed: int, labelings: Iterable[int]) -> Iterator[dict[str, Any]]:
    """Put one fresh world to the test, with each of several labels of its codes."""
    codes = WORLDS[world](seed)
    bench: Bench | None = None
    for number in labelings:
        start = process_time()
        run = seed * TOGETHER[world] + number
        label = "label" if number == 0 else f"label {number + 1}"
        sample = choose(codes, label, tokens=len(codes), seed=seed)
        k = K if len(codes) == TOKENS else None
        task = make_task(sample, k, seed, HALVES)
        # Clusters and neighbours know no label: all labels of a world share them.
        bench = set_up(codes, 0, task, representations(DRAWS)) if bench is None else replace(bench, task=task)
        pools = of_the_label(bench)
        others = np.arange(1, len(task.labelings))
        own = {name: several[0].drawn(sample.documents, 0, others) for name, several in pools.items()}
        scores = {
            f"{score}: {name}": float(found.value)
            for name in (code.CODE, *COSINES)
            for score, found in ((AMI, own[name].ami), (AGREEMENT, own[name].agreement))
        }
        yield _line(world, run, trial(bench, pools, 0, EFFECT), scores) | {"seconds": process_time() - start}


def real_run(world: str, seed: int, out: str, label: str) -> dict[str, Any]:
    """Exchange the labels of SmolLM2's codes once and put them to the test."""
    start = process_time()
    bench, pools = _bench(world, out, label)
    return _line(world, seed, trial(bench, pools, seed, EFFECT), {}) | {"seconds": process_time() - start}


@cache
def _bench(world: str, out: str, label: str) -> tuple[Bench, dict[str, list[Pool]]]:
    """Find the clusters and neighbours of one layer and score its pool of labels; kept, as worlds take turns."""
    import polytope_lm as plm  # noqa: PLC0415 -- planted worlds need no model

    store = plm.open_store(Path(out) / "smollm2")
    sample = choose(store, label, tokens=TOKENS, seed=0)
    bench = set_up(store, int(world.split()[1]), make_task(sample, K, 0, HALVES), representations(DRAWS))
    return bench, pooled(bench, exchanged(bench.task, "between documents", REAL_RUNS + EXCHANGES))


def capture(out: Path, corpus: str | None) -> None:
    """Capture SmolLM2's codes of the text; a finished store is left as it is."""
    import polytope_lm as plm  # noqa: PLC0415

    layers = [int(world.split()[1]) for world in REAL]
    source = plm.documents("sample" if corpus is None else corpus)
    plm.capture(
        plm.load("smollm2-135m"),
        [beginning(document) for document in source],
        layers=layers,
        to=out / "smollm2",
        keep=("u", "h"),
        tokens="random:40",
    )


def beginning(document: Document) -> Document:
    """Return a document's first `CHARACTERS`, so that no document is most of the sample."""
    spans = tuple(replace(span, end=min(span.end, CHARACTERS)) for span in document.spans if span.start < CHARACTERS)
    return replace(document, text=document.text[:CHARACTERS], spans=spans)


def one_job(out: str, label: str, job: Job) -> list[dict[str, Any]]:
    """Do one world's runs in a worker."""
    world, runs = job
    if world in WORLDS:
        together = TOGETHER[world]
        return list(planted_runs(world, runs[0] // together, [run % together for run in runs]))
    return [real_run(world, run, out, label) for run in runs]


def _line(world: str, seed: int, found: Trial, scores: dict[str, float]) -> dict[str, Any]:
    cells = [[each.value, each.low, each.high] for each in found.differences]
    return {"world": world, "seed": seed, "outcome": found.outcome, "cells": cells, "scores": scores}


def figures_of(world: str, lines: list[dict[str, Any]]) -> Iterable[Figure]:
    """Return one world's rates beside the bounds that they have to keep."""
    together = TOGETHER[world] if world in WORLDS else len(lines)
    power, seconds = world.startswith("code"), mean(line["seconds"] for line in lines)
    said = rate_of(lines, lambda line: line["outcome"] == "supported", together)
    if world == "code 0.02":
        factor = enough(lines)
        said += "; no n would reach 90 %" if factor is None else f"; 90 % need {factor * TOKENS:,.0f} tokens"
    yield Figure(
        f"{world}: supported", mean(line["outcome"] == "supported" for line in lines), "of runs",
        must=None if world == "code 0.02" else 0.9 if power else 0.025,
        bound="at least" if power else "at most", note=f"{said}; {seconds:.2f} s of CPU a run",
    )  # fmt: skip
    for outcome, count in Counter(line["outcome"] for line in lines if line["outcome"] != "supported").most_common():
        yield Figure(f"{world}: {outcome}", count / len(lines), "of runs")
    for i, (score, reference) in enumerate(CELLS):
        away = rate_of(lines, lambda line, i=i: not line["cells"][i][1] <= 0 <= line["cells"][i][2], together)  # type: ignore[misc]
        null = world.startswith(("null", "smollm2"))
        share = mean(not line["cells"][i][1] <= 0 <= line["cells"][i][2] for line in lines)
        note = f"{away}; mean difference {mean(line['cells'][i][0] for line in lines):+.4f}"
        name = f"{world}: {score} against {reference}, interval excludes 0"
        yield Figure(name, share, "of runs", note=note + ("; should be .03 to .07" if null else ""))
    for name in lines[0]["scores"]:
        yield Figure(f"{world}: mean {name}", mean(line["scores"][name] for line in lines), "")


def row_of(world: str, lines: list[dict[str, Any]]) -> str:
    """Return one world's row of the table that the docs show; intervals count worlds, not runs that share one."""
    together = TOGETHER[world]
    share = mean(line["outcome"] == "supported" for line in lines)
    low, high = over_worlds(lines, lambda line: line["outcome"] == "supported", together)
    outcomes = Counter(line["outcome"] for line in lines if line["outcome"] != "supported").most_common(3)
    others = ", ".join(f"{name} {count / len(lines):.1%}" for name, count in outcomes)
    cells = zip(*(line["cells"] for line in lines), strict=True)
    away = ", ".join(f"{mean(not each[1] <= 0 <= each[2] for each in cell):.1%}" for cell in cells)
    must = {"code 0.04": "at least 90 %", "code 0.02": ""}.get(world, "at most 2.5 %")
    runs = f"{len(lines):,} of {len({line['seed'] // together for line in lines}):,} worlds"
    return f"| {world} | {runs} | {share:.1%} [{low:.1%}, {high:.1%}] | {must} | {others} | {away} |"


def enough(lines: Sequence[Mapping[str, Any]], power: float = 0.9) -> float | None:
    """Return how many times as many documents would be called supported in `power` of runs; None: no number.

    Each cell keeps its mean over the runs; its distance from it, and its interval's reach, go as 1 / sqrt(n).
    """
    cells = np.array([line["cells"] for line in lines])
    means = cells[:, :, 0].mean(axis=0)
    away, reach = cells[:, :, 0] - means, cells[:, :, 0] - cells[:, :, 1]

    def reached(factor: float) -> float:
        return float((means + (away - reach) / factor**0.5 > EFFECT).all(axis=1).mean()) - power

    if (means <= EFFECT).any():
        return None
    factors = np.geomspace(1 / 64, 4096, 1000)
    return next((float(each) for each in factors if reached(each) >= 0), None)


def main() -> None:
    """Run what is missing and print every rate beside its bound."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--runs", type=int, default=1000, help="runs of each world (1000)")
    parser.add_argument("--worlds", nargs="+", choices=ALL, default=list(ALL), help="some of them (all)")
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each (2)")
    parser.add_argument("--out", default="calibration", help="directory of the runs (calibration)")
    parser.add_argument("--table", action="store_true", help="only print the table of the runs that are there")
    parser.add_argument("--corpus", help="labelled text for SmolLM2 (the built-in sample)")
    parser.add_argument("--label", default="class", help="its label (class)")
    options = parser.parse_args()
    machine = describe()
    start = perf_counter()
    out = Path(options.out)
    if options.table:
        there = read_lines(out / "runs.jsonl")
        print("| world | runs | supported | must | else | intervals that exclude 0 |\n|---|---|---|---|---|---|")
        for world in options.worlds:
            if lines := [line for line in there if line["world"] == world]:
                print(row_of(world, lines))
        return
    if any(world in REAL for world in options.worlds):
        capture(out, options.corpus)
    # Worlds take turns, so that an interrupted calibration has as many runs of each.
    wanted = [(world, run) for run in range(options.runs) for world in options.worlds]
    lines = run_all(
        out / "runs.jsonl", wanted, TOGETHER, partial(one_job, options.out, options.label), options.jobs
    )  # fmt: skip
    figures = [
        figure
        for world in options.worlds
        for figure in figures_of(world, [line for line in lines if line["world"] == world])
    ]
    figures.append(Figure("this call", (perf_counter() - start) / 60, "minutes", must=60, bound="at most"))
    report(figures, options.json, machine)


if __name__ == "__main__":
    main()
