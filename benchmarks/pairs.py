"""Seconds and memory of many pairs' paths, followed to the output and kept.

Run with `python -m benchmarks.pairs [--model smollm2-135m] [--layer 15] [--pairs 20] [--json]`. 1,000 pairs
are extrapolated from those that are run, none of which depends on another; the peer is one path after the
other by `plm.path(...).crossings(downstream=True)`, which finds the same crossings.
"""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path

import polytope_lm as plm
from benchmarks._machine import Figure, arguments, describe, report
from polytope_lm.pairs import pairs as builtin
from polytope_lm.paths.many import crossings_of_pairs

MANY = 1000


def main() -> None:
    """Run the pairs together and one by one, and print the figures."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--model", default="smollm2-135m", help="%(default)s")
    parser.add_argument("--layer", type=int, default=15, help="where the paths lie (%(default)s)")
    parser.add_argument("--pairs", type=int, default=20, help="built-in pairs that are run (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="paths at a time (%(default)s)")
    options = parser.parse_args()
    model = plm.load(options.model)
    pairs = [pair.prompts for pair in builtin()][: options.pairs]
    crossings_of_pairs(model, pairs[:2], options.layer)  # compiles and warms up
    with tempfile.TemporaryDirectory() as directory:
        kept = Path(directory) / "pairs.jsonl"
        begin, cpu = time.perf_counter(), time.process_time()
        found = crossings_of_pairs(model, pairs, options.layer, to=kept, workers=options.workers)
        seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
        size = kept.stat().st_size
    begin = time.perf_counter()
    alone = [plm.path(model, *pair, layer=options.layer).crossings(downstream=True) for pair in pairs]
    single = time.perf_counter() - begin
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    mine, theirs = sum(int(one.crossings.sum()) for _, one in found.good), sum(map(len, alone))
    scale = MANY / len(pairs)
    note = (
        f"{len(pairs)} pairs in {seconds:.1f} s ({cpu:.1f} s of processor), {mine} crossings (one by one "
        f"{theirs}), {size * scale / 1e6:.1f} MB kept for 1,000"
    )
    figures = [
        Figure("1,000 pairs, extrapolated", seconds * scale / 60, "min", must=15, bound="at most", note=note),
        Figure("the same", seconds * scale / 60, "min", peer=single * scale / 60,
               peer_name="one path after the other", ratio=single / seconds),
        Figure("memory", memory, "GB", must=4, bound="at most"),
    ]  # fmt: skip
    report(figures, options.json, describe())


if __name__ == "__main__":
    main()
