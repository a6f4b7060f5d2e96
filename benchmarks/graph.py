"""Time, memory and recall of the approximate neighbour graph against the number of tokens, beside faiss's HNSW.

`python -m benchmarks.graph [--rows 10000 100000 1000000] [--json] [--out DIRECTORY]`. The codes are planted: every
cluster's prototype is one shared background with a share of its bits flipped (`--apart`), cluster sizes follow Zipf's
law, and every token flips 20 % of its prototype's bits. They are a store, in shards of 32,768 tokens. Each size runs
in a process of its own, which opens the store, so that its peak memory is its own. So does faiss's `IndexBinaryHNSW`,
whose `efSearch` grows by half until its recall on 1,000 queries is ours or no larger one is tried (`--no-peer`: without
it). HNSW's search is timed on at most 2,000 queries, and stands for all rows in proportion. With `--out`,
`graph.html` shows time against n.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._machine import Figure, arguments, describe, peak_memory, report
from polytope_lm.codes.hamming import hamming
from polytope_lm.codes.hamming.approximate import approximate_neighbours
from polytope_lm.codes.store.reader import CodeStore

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    import plotly.graph_objects as go

CLUSTERS = 1000
NOISE = 0.2
FULL = 1_000_000
LINKS = 32  # of a node of HNSW: M
MOST = 4096  # efSearch
QUERIES, TIMED = 1000, 2000
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


@dataclass(frozen=True)
class Peer:
    """What HNSW took; `search` of all rows, `ef` the `efSearch` that reached the recall, or the last one tried."""

    build: float
    search: float
    peak_mb: float
    recall: float
    ef: int


def planted(width: int, rows: int, apart: float, seed: int) -> Callable[[int, int], np.ndarray]:
    """Return what draws the planted codes of one shard after the other, in random order."""
    rng = np.random.default_rng(seed)
    background = rng.random(width) < rng.beta(2, 4, width)
    prototypes = background ^ (rng.random((CLUSTERS, width), np.float32) < apart)
    weights = 1 / np.arange(1, CLUSTERS + 1)
    cluster = iter(rng.choice(CLUSTERS, size=rows, p=weights / weights.sum()).tolist())

    def draw(_number: int, count: int) -> np.ndarray:
        out = np.empty((count, -(-width // 8)), np.uint8)
        for start in range(0, count, _CHUNK):
            chosen = prototypes[[next(cluster) for _ in range(start, min(start + _CHUNK, count))]]
            out[start : start + _CHUNK] = hamming.pack(chosen ^ (rng.random(chosen.shape, np.float32) < NOISE))
        return out

    return draw


def plant(place: Path, rows: int, options: argparse.Namespace) -> Path:
    """Write planted codes as a store; return its directory."""
    from benchmarks.growth import fill, manifest  # noqa: PLC0415 - transformers: not in the processes that are measured

    about = manifest(place)
    about["sites"][0]["width"] = options.width
    fill(place / "codes", about, rows, planted(options.width, rows, options.apart, options.seed))
    return place / "codes"


def run(place: Path, options: argparse.Namespace) -> Run:
    """Search and measure, in this process."""
    warm = np.random.default_rng(0).integers(0, 256, (20_000, 384), dtype=np.uint8)
    warm[:10_000, :300], warm[10_000:, :300] = warm[0, :300], warm[1, :300]
    approximate_neighbours(warm, 5, seed=0, recall_queries=100, threads=options.threads)
    del warm
    store = CodeStore(place)
    start, rows = perf_counter(), store.counts()[0]

    def tell(done: int, total: int) -> None:
        seconds = perf_counter() - start
        sys.stderr.write(f"\r{rows:,} rows: {done / total:6.1%}, {seconds:6.0f} s")

    source = store.searchable(store.sites[0])
    found = approximate_neighbours(
        source, options.k, seed=0, recall_queries=QUERIES, threads=options.threads, progress=tell
    )
    seconds = perf_counter() - start
    sys.stderr.write(f"\n{found!r}\n")
    recall = found.recall
    return Run(rows, seconds, peak_memory(), recall.value, recall.low, recall.high, found.bits, found.counted)


def run_peer(place: Path, options: argparse.Namespace) -> Peer:
    """Build faiss's HNSW, search it ever wider until the recall is `--reach`, in this process."""
    import faiss  # noqa: PLC0415 - not installed everywhere

    faiss.omp_set_num_threads(options.threads)
    store = CodeStore(place)
    (site,), rows, k = store.sites, store.counts()[0], options.k
    rng = np.random.default_rng(0)
    timed = np.sort(rng.choice(rows, size=min(TIMED, rows), replace=False))
    asked = np.sort(rng.choice(len(timed), size=min(QUERIES, len(timed)), replace=False))
    codes = store.rows(site, timed)
    exact = hamming.nearest(codes[asked], store.searchable(site), k + 1, threads=options.threads).distances[:, -1:]
    index, start = faiss.IndexBinaryHNSW(8 * codes.shape[1], LINKS), perf_counter()
    for block in store.blocks(site):
        index.add(np.ascontiguousarray(block))
        sys.stderr.write(f"\rHNSW: {index.ntotal:,} rows, {perf_counter() - start:6.0f} s")
    build, ef, recall = perf_counter() - start, k + 1, 0.0
    while recall < options.reach and ef < MOST:
        ef = min(3 * ef // 2, MOST)
        index.hnsw.efSearch = ef
        near, found = index.search(codes[asked], k + 1)
        others = found != timed[asked][:, None]
        recall = float(((near <= exact) & others).sum(axis=1).clip(max=k).mean() / k)
        sys.stderr.write(f"\nHNSW: efSearch {ef}, recall@{k} {recall:.4f}")
    start = perf_counter()
    index.search(codes, k + 1)
    search = (perf_counter() - start) * rows / len(timed)
    sys.stderr.write(f"\nHNSW: build {build:.1f} s, search of all rows {search:.1f} s\n")
    return Peer(build, search, peak_memory(), recall, ef)


def apart(which: str, place: Path, options: argparse.Namespace, reach: float = 0.0) -> dict[str, Any]:
    """Do `run` or `run_peer` in a new process."""
    names = ("width", "k", "threads")
    more = [f"--{name}={getattr(options, name)}" for name in names]
    command = [sys.executable, "-m", "benchmarks.graph", f"--{which}", str(place), f"--reach={reach}", *more]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measured(rows: int, options: argparse.Namespace) -> tuple[Run, Peer | None]:
    """Plant one size, and measure it and the peer."""
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        place = plant(Path(folder), rows, options)
        ours = Run(**apart("one", place, options))
        if options.no_peer or importlib.util.find_spec("faiss") is None:
            sys.stderr.write("without faiss's IndexBinaryHNSW\n")
            return ours, None
        return ours, Peer(**apart("peer", place, options, ours.recall))


def figures(found: list[tuple[Run, Peer | None]], options: argparse.Namespace) -> list[Figure]:
    """Each size's time, memory and recall; the musts are for 10^6 rows."""
    out = []
    for each, peer in found:
        what = f"{each.rows:,} codes of {options.width:,} bits, k = {options.k}, {options.threads} threads"
        note = f"{each.bits} bits of every pair, all of {each.counted:.2%}"
        full = each.rows >= FULL
        out += [
            Figure(f"neighbour graph, {what}", each.seconds, "s", must=_MUST_SECONDS if full else None, bound="at most",
                   note=note),
            Figure(f"peak memory, {each.rows:,} codes", each.peak_mb, "MB", must=_MUST_MB if full else None,
                   bound="at most"),
            Figure(f"recall@{options.k} by distance, {each.rows:,} codes", each.recall, "", must=_MUST_RECALL,
                   note=f"95 % interval {each.low:.4f} to {each.high:.4f}"),
        ]  # fmt: skip
        if peer is not None:
            reached = "equal recall" if peer.recall >= each.recall else "the highest recall that it reached"
            name = f"faiss IndexBinaryHNSW, M = {LINKS}, efSearch = {peer.ef}"
            seconds = peer.build + peer.search
            out += [
                Figure(f"the same beside HNSW at {reached}", each.seconds, "s", seconds, name, seconds / each.seconds,
                       note=f"build {peer.build:.1f} s, search {peer.search:.1f} s"),
                Figure("peak memory beside HNSW", each.peak_mb, "MB", peer.peak_mb, name, peer.peak_mb / each.peak_mb),
                Figure("recall beside HNSW", each.recall, "", peer.recall, name),
            ]  # fmt: skip
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
    parser.add_argument("--scratch", help="directory for the stores while they are searched")
    parser.add_argument("--no-peer", action="store_true", help="without faiss's HNSW")
    parser.add_argument("--out", type=Path, help="directory for graph.html")
    parser.add_argument("--one", type=Path, help="measure a store in this process, print it as JSON")
    parser.add_argument("--peer", type=Path, help="measure HNSW on a store in this process, print it as JSON")
    parser.add_argument("--reach", type=float, default=1.0, help="recall that HNSW is to reach")
    options = parser.parse_args()
    if options.one is not None or options.peer is not None:
        found = run(options.one, options) if options.one is not None else run_peer(options.peer, options)
        sys.stdout.write(json.dumps(asdict(found)))
        return
    machine = describe()
    runs = [measured(rows, options) for rows in options.rows]
    report(figures(runs, options), options.json, machine)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        drawing([ours for ours, _ in runs], options).write_html(options.out / "graph.html", include_plotlyjs=True)


if __name__ == "__main__":
    main()
