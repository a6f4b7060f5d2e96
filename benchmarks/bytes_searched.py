"""Neighbours at equal bytes a token: Hamming on codes beside faiss's product quantisation and RaBitQ.

`python -m benchmarks.bytes_searched [--tokens 20000] [--json]`. What the bytes are worth is told by
`python -m analyses.bytes_against_use`; here is what a search of them costs: queries a second for the 10 nearest of all
tokens, exact, one thread each, random vectors of 1,536 coordinates. The peers search what they store, by float
queries.
"""

from __future__ import annotations

from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._machine import Figure, arguments, describe, report
from polytope_lm.codes.hamming import hamming

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH, QUERIES, K, REPEATS = 1536, 200, 10, 3


def queries_a_second(search: Callable[[], Any]) -> float:
    """Return the median rate of some runs, after a first one."""
    search()
    seconds = []
    for _ in range(REPEATS):
        start = perf_counter()
        search()
        seconds.append(perf_counter() - start)
    return QUERIES / median(seconds)


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--tokens", type=int, default=20_000, help="(%(default)s)")
    asked = parser.parse_args()
    machine = describe()
    import faiss  # noqa: PLC0415 - an extra's

    faiss.omp_set_num_threads(1)
    vectors = np.random.default_rng(0).standard_normal((asked.tokens, WIDTH), dtype=np.float32)
    queries, figures = vectors[:QUERIES], []
    for budget in (48, 96, 192):
        packed = hamming.pack(vectors[:, : 8 * budget] > 0)
        ours = queries_a_second(lambda packed=packed: hamming.nearest(packed[:QUERIES], packed, K, threads=1))
        quantised = faiss.IndexPQ(WIDTH, budget, 8)
        quantised.pq.cp.niter = 2
        quantised.train(vectors[:1000])
        rabitq = faiss.IndexRaBitQ(8 * (budget - 8))
        rabitq.train(vectors[:1000, : 8 * (budget - 8)].copy())
        for name, index, width in (("faiss PQ", quantised, WIDTH), ("faiss RaBitQ", rabitq, 8 * (budget - 8))):
            index.add(np.ascontiguousarray(vectors[:, :width]))
            given = np.ascontiguousarray(queries[:, :width])
            theirs = queries_a_second(lambda index=index, given=given: index.search(given, K))
            figures.append(Figure(f"{budget} bytes", ours, "queries/s", theirs, name, ratio=ours / theirs))
    report(figures, asked.json, machine)


if __name__ == "__main__":
    main()
