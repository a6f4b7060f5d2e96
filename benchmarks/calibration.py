"""How often the verdict is right where the answer is known: power and false-positive rates.

Run with `python -m benchmarks.calibration [--runs 1000] [--worlds ...] [--jobs 2] [--out DIR] [--json]`. Each
run draws a world anew, puts prediction 1 to the test as `plm.predictions.clusters` does (k = 50; code, cosine
of `h` raw and centred, 3 draws of rate-matched SimHash; 40 halves) and appends one line to `DIR/runs.jsonl`.
Interrupted, it goes on where it stopped; with all runs there, it only prints the rates.

Worlds: `code 0.04` and `code 0.02` (power), `direction`, `null equal`, `null zipf` (false positives), and
`smollm2 4`, `smollm2 15`, `smollm2 26`: SmolLM2's codes at these layers, labels exchanged between documents.
Their text is the beginnings of the built-in sample's documents; `--corpus FILE --label NAME` says otherwise.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import mean
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

from analyses._running import read_lines
from benchmarks._machine import Figure, arguments, describe, report
from polytope_lm.controls.labels import EXCHANGES
from polytope_lm.predictions.calibration.test import (
    CELLS,
    Bench,
    Trial,
    exchanged,
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
from polytope_lm.statistics.nulls import Rate
from polytope_lm.worlds import code_world, direction_world, null_world

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterable

    from polytope_lm.codes.codes import Codes
    from polytope_lm.documents.collection import Document

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
K, DRAWS, EFFECT = 50, 3, 0.01
WORLDS: dict[str, Callable[[int], Codes]] = {
    "code 0.04": lambda seed: code_world(0.04, seed=seed),
    "code 0.02": lambda seed: code_world(0.02, seed=seed),
    "direction": lambda seed: direction_world(seed=seed),
    "null equal": lambda seed: null_world("equal", seed=seed),
    "null zipf": lambda seed: null_world("zipf", seed=seed),
}
REAL = ("smollm2 4", "smollm2 15", "smollm2 26")
ALL = (*WORLDS, *REAL)
TOKENS, CHARACTERS = 2000, 1200
REAL_RUNS = 1000
"""At most so many exchanges of labels of a layer."""


def planted_run(world: str, seed: int) -> dict[str, Any]:
    """Put one fresh world to the test."""
    codes = WORLDS[world](seed)
    sample = choose(codes, "label", tokens=len(codes), seed=seed)
    bench = set_up(codes, codes.layers[0], make_task(sample, K, seed, HALVES), representations(DRAWS))
    pools = pooled(bench, bench.task.labelings)
    own = {name: several[0].drawn(sample.documents, 0, slice(1, None)) for name, several in pools.items()}
    scores = {
        f"{score}: {name}": float(found.value)
        for name in (code.CODE, *COSINES)
        for score, found in ((AMI, own[name].ami), (AGREEMENT, own[name].agreement))
    }
    return _line(world, seed, trial(bench, pools, 0, EFFECT), scores)


def real_run(world: str, seed: int, out: str, label: str) -> dict[str, Any]:
    """Exchange the labels of SmolLM2's codes once and put them to the test."""
    bench, pools = _bench(world, out, label)
    return _line(world, seed, trial(bench, pools, seed, EFFECT), {})


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


def one_run(job: tuple[str, int, str, str]) -> dict[str, Any]:
    """Do one run in a worker."""
    world, seed, out, label = job
    start = process_time()
    line = planted_run(world, seed) if world in WORLDS else real_run(world, seed, out, label)
    return line | {"seconds": process_time() - start}


def _line(world: str, seed: int, found: Trial, scores: dict[str, float]) -> dict[str, Any]:
    cells = [[each.value, each.low, each.high] for each in found.differences]
    return {"world": world, "seed": seed, "outcome": found.outcome, "cells": cells, "scores": scores}


def missing_jobs(path: Path, wanted: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Return the runs that are not in the file yet."""
    done = {(line["world"], line["seed"]) for line in read_lines(path)}
    return [each for each in wanted if each not in done]


def run_all(options: Namespace) -> list[dict[str, Any]]:
    """Do the runs that are not there yet and return all that were asked for."""
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "runs.jsonl"
    # Worlds take turns, so that an interrupted calibration has as many runs of each.
    wanted = [(world, seed) for seed in range(options.runs) for world in options.worlds]
    jobs = [(world, seed, str(out), options.label) for world, seed in missing_jobs(path, wanted)]
    if any(world in REAL for world, *_ in jobs):
        capture(out, options.corpus)
    # A file that was cut off in mid-line gets a line end, so that the next run does not continue it.
    cut = path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
    # Read by the workers when they import numpy.
    os.environ.update(dict.fromkeys(THREADS, "1"))
    context = multiprocessing.get_context("spawn")
    with path.open("a", encoding="utf-8") as file, context.Pool(options.jobs) as pool:
        file.write("\n" if cut else "")
        for line in pool.imap_unordered(one_run, jobs, chunksize=5):
            file.write(json.dumps(line) + "\n")
            file.flush()
    asked = set(wanted)
    return [line for line in read_lines(path) if (line["world"], line["seed"]) in asked]


def figures_of(world: str, lines: list[dict[str, Any]]) -> Iterable[Figure]:
    """Return one world's rates beside the bounds that they have to keep."""
    n = len(lines)
    supported = Rate.of(sum(line["outcome"] == "supported" for line in lines), n)
    power = world.startswith("code")
    yield Figure(
        f"{world}: supported",
        supported.value,
        "of runs",
        must=0.9 if power else 0.025,
        bound="at least" if power else "at most",
        note=f"{supported}; {mean(line['seconds'] for line in lines):.2f} s of CPU a run",
    )
    for i, (score, reference) in enumerate(CELLS):
        cells = [line["cells"][i] for line in lines]
        away = Rate.of(sum(not low <= 0 <= high for _, low, high in cells), n)
        null = world.startswith(("null", "smollm2"))
        note = f"{away}; mean difference {mean(value for value, *_ in cells):+.4f}"
        name = f"{world}: {score} against {reference}, interval excludes 0"
        yield Figure(name, away.value, "of runs", note=note + ("; should be at most .07" if null else ""))
    for name in lines[0]["scores"]:
        yield Figure(f"{world}: mean {name}", mean(line["scores"][name] for line in lines), "")


def main() -> None:
    """Run what is missing and print every rate beside its bound."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--runs", type=int, default=1000, help="runs of each world (1000)")
    parser.add_argument("--worlds", nargs="+", choices=ALL, default=list(ALL), help="some of them (all)")
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each (2)")
    parser.add_argument("--out", default="calibration", help="directory of the runs (calibration)")
    parser.add_argument("--corpus", help="labelled text for SmolLM2 (the built-in sample)")
    parser.add_argument("--label", default="class", help="its label (class)")
    options = parser.parse_args()
    machine = describe()
    start = perf_counter()
    # Ended from outside, it ends its workers, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    lines = run_all(options)
    figures = [
        figure
        for world in options.worlds
        for figure in figures_of(world, [line for line in lines if line["world"] == world])
    ]
    figures.append(Figure("this call", (perf_counter() - start) / 60, "minutes", must=60, bound="at most"))
    report(figures, options.json, machine)


if __name__ == "__main__":
    main()
