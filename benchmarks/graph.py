"""Time, memory and recall of the approximate neighbour graph against the number of tokens.

`python -m benchmarks.graph [--rows 10000 100000 1000000] [--json] [--out DIRECTORY]`. The codes are planted:
every cluster's prototype is one shared background with a share of its bits flipped (`--apart`), cluster sizes
follow Zipf's law, and every token flips 20 % of its prototype's bits. Each size runs in a process of its own,
on a memory map, so that its peak memory is its own. With `--out`, `graph.html` shows time against n.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from benchmarks._machine import Figure, arguments, describe, peak_memory, report
from polytope_lm.codes.hamming import hamming
from polytope_lm.codes.hamming.approximate import approximate_neighbours

if TYPE_CHECKING:
    import argparse

    import plotly.graph_objects as go

CLUSTERS = 1000
NOISE = 0.2
FULL = 1_000_000
_MUST_SECONDS, _MUST_MB, _MUST_RECALL = 10 * 60, 3_000, 0.98
_CHUNK = 4096


@dataclass(frozen=True)
class Run:
    """What one size took."""

    rows: int
    seconds: float
    peak_mb: float
    recall: float
    low: float
    high: float
    bits: int
    counted: float


def planted(path: Path, rows: int, width: int, apart: float, seed: int) -> np.ndarray:
    """Write planted codes to `path`, in random order, and map them."""
    rng = np.random.default_rng(seed)
    background = rng.random(width) < rng.beta(2, 4, width)
    prototypes = background ^ (rng.random((CLUSTERS, width), np.float32) < apart)
    weights = 1 / np.arange(1, CLUSTERS + 1)
    cluster = rng.choice(CLUSTERS, size=rows, p=weights / weights.sum())
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(rows, -(-width // 8)))
    for start in range(0, rows, _CHUNK):
        chosen = prototypes[cluster[start : start + _CHUNK]]
        out[start : start + _CHUNK] = hamming.pack(chosen ^ (rng.random(chosen.shape, np.float32) < NOISE))
    out.flush()
    mapped: np.ndarray = np.load(path, mmap_mode="r")
    return mapped


def run(rows: int, options: argparse.Namespace) -> Run:
    """Plant, search, measure, in this process."""
    warm = np.random.default_rng(0).integers(0, 256, (20_000, 384), dtype=np.uint8)
    warm[:10_000, :300], warm[10_000:, :300] = warm[0, :300], warm[1, :300]
    approximate_neighbours(warm, 5, seed=0, recall_queries=100, threads=options.threads)
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        codes = planted(Path(folder) / "codes.npy", rows, options.width, options.apart, options.seed)
        start = perf_counter()

        def tell(done: int, total: int) -> None:
            seconds = perf_counter() - start
            sys.stderr.write(f"\r{rows:,} rows: {done / total:6.1%}, {seconds:6.0f} s")

        found = approximate_neighbours(codes, options.k, seed=0, threads=options.threads, progress=tell)
        seconds = perf_counter() - start
    sys.stderr.write(f"\n{found!r}\n")
    recall = found.recall
    return Run(rows, seconds, peak_memory(), recall.value, recall.low, recall.high, found.bits, found.counted)


def run_apart(rows: int, options: argparse.Namespace) -> Run:
    """Do `run` in a new process."""
    names = ("width", "k", "apart", "seed", "threads", "scratch")
    more = [f"--{name}={getattr(options, name)}" for name in names if getattr(options, name) is not None]
    command = [sys.executable, "-m", "benchmarks.graph", "--one", str(rows), *more]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Run(**json.loads(done.stdout))


def figures(runs: list[Run], options: argparse.Namespace) -> list[Figure]:
    """Each size's time, memory and recall; the musts are for 10^6 rows."""
    out = []
    for each in runs:
        what = f"{each.rows:,} codes of {options.width:,} bits, k = {options.k}, {options.threads} threads"
        note = f"{each.bits} bits of every pair, all of {each.counted:.2%}"
        seconds, memory = (_MUST_SECONDS, _MUST_MB) if each.rows >= FULL else (None, None)
        out += [
            Figure(f"neighbour graph, {what}", each.seconds, "s", must=seconds, bound="at most", note=note),
            Figure(f"peak memory, {each.rows:,} codes", each.peak_mb, "MB", must=memory, bound="at most"),
            Figure(
                f"recall@{options.k} by distance, {each.rows:,} codes",
                each.recall,
                "",
                must=_MUST_RECALL,
                note=f"95 % interval {each.low:.4f} to {each.high:.4f}",
            ),
        ]
    return out


def drawing(runs: list[Run], options: argparse.Namespace) -> go.Figure:
    """Draw time against n, both logarithmic, beside a line of slope 2."""
    import plotly.graph_objects as go  # noqa: PLC0415

    rows, seconds = [r.rows for r in runs], [r.seconds for r in runs]
    text = [f"{r.seconds:,.1f} s<br>recall {r.recall:.4f}<br>{r.peak_mb:,.0f} MB" for r in runs]
    figure = go.Figure(
        go.Scatter(x=rows, y=seconds, text=text, mode="lines+markers+text", textposition="top left", name="measured")
    )
    square = [seconds[-1] * (n / rows[-1]) ** 2 for n in rows]
    figure.add_scatter(x=rows, y=square, mode="lines", line_dash="dot", name="as n squared")
    figure.update_layout(
        title=f"Neighbour graph: {options.width:,} bits, k = {options.k}, {options.threads} threads",
        template="plotly_white",
    )
    figure.update_xaxes(type="log", title="tokens")
    figure.update_yaxes(type="log", title="seconds")
    return figure


def main() -> None:
    """Read the options, measure, print, draw."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, FULL])
    parser.add_argument("--width", type=int, default=3072, help="bits of a code")
    parser.add_argument("--k", type=int, default=15)
    parser.add_argument("--apart", type=float, default=0.2, help="share of bits flipped in a prototype")
    parser.add_argument("--seed", type=int, default=0, help="of the planted codes")
    parser.add_argument("--threads", type=int, default=describe().cores)
    parser.add_argument("--scratch", help="directory for the codes while they are searched")
    parser.add_argument("--out", type=Path, help="directory for graph.html")
    parser.add_argument("--one", type=int, help="measure one size in this process, print it as JSON")
    options = parser.parse_args()
    if options.one is not None:
        sys.stdout.write(json.dumps(asdict(run(options.one, options))))
        return
    machine = describe()
    runs = [run_apart(rows, options) for rows in options.rows]
    report(figures(runs, options), options.json, machine)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        drawing(runs, options).write_html(options.out / "graph.html", include_plotlyjs=True)


if __name__ == "__main__":
    main()
