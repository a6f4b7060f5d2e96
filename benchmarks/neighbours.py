"""Exact k nearest neighbours on packed codes: ours, faiss, NumKong, and what the processor could do.

`python -m benchmarks.neighbours [--json]`. The runs take turns, and figures are medians. The roofline is the
rate of xor, popcount and add on 64-bit words, everything in registers but one read from the L1 cache in
eight: a method that takes one of each per word cannot be faster on the same threads. All pairs of one set
are half as many, by symmetry. NumKong gives distances and no neighbours: it is timed on all distances, and
once more with numpy's selection of the k least, rows divided among as many threads.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import faiss
import numkong
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils

from benchmarks._machine import Figure, arguments, describe, interleaved, median_ratio, report
from polytope_lm.codes.hamming import hamming, kernels

if TYPE_CHECKING:
    from collections.abc import Callable

_ROWS = 500  # whose distances NumKong gives at one time, a thread
_L1_WORDS = 2048  # 16 KB
_PASSES = 100_000
_MUST = 4.0
_MUST_OF_ROOFLINE = 0.85
_MUST_BY_SYMMETRY = 1.7


@dataclass(frozen=True)
class Work:
    """What is searched: random codes whose neurons have rates of their own, and four groupings."""

    codes: np.ndarray
    groups: np.ndarray
    k: int
    threads: int

    @classmethod
    def draw(cls, rows: int, width: int, k: int, threads: int, seed: int = 0) -> Work:
        """Draw rates from Beta(2, 4), then every bit; groups about as large as those of real text."""
        rng = np.random.default_rng(seed)
        rates = rng.beta(2, 4, width).astype(np.float32)
        chunks = [rng.random((min(1000, rows - s), width), np.float32) < rates for s in range(0, rows, 1000)]
        sizes = (200, 2000, 4000, 5000)
        groups = np.stack([rng.integers(0, size, rows) for size in sizes], axis=1)
        return cls(np.concatenate([hamming.pack(chunk) for chunk in chunks]), groups, k, threads)


@kernels.emitted
def _count_passes(_typing: Any, words: Any, queries: Any, passes: Any) -> Any:
    """Emit `passes` rounds over `words`, each vector compared with eight words that stay in registers."""
    signature = types.uint64(words, queries, passes)

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data, eight = (context.make_array(sig.args[i])(context, builder, args[i]) for i in (0, 1))
        scalars = [builder.load(builder.gep(eight.data, [kernels.I64(r)])) for r in range(kernels.LANES)]
        held = [kernels.splat(builder, scalar) for scalar in scalars]
        zero = ir.Constant(kernels.VECTOR, [0] * kernels.LANES)
        sums = [cgutils.alloca_once_value(builder, zero) for _ in held]
        steps = builder.udiv(cgutils.unpack_tuple(builder, data.shape)[0], kernels.I64(kernels.LANES))
        with cgutils.for_range(builder, args[2]), cgutils.for_range(builder, steps) as loop:
            offset = builder.mul(loop.index, kernels.I64(kernels.LANES))
            vector = builder.load(kernels.lanes_at(builder, data.data, offset), align=8)
            for query, total in zip(held, sums, strict=True):
                bits = kernels.count_bits(builder, builder.xor(vector, query))
                builder.store(builder.add(builder.load(total), bits), total)
        whole = builder.load(sums[0])
        for total in sums[1:]:
            whole = builder.add(whole, builder.load(total))
        return builder.extract_element(whole, ir.Constant(ir.IntType(32), 0))

    return signature, emit


@kernels.compiled
def _roofline_loop(words: Any, queries: Any, passes: int) -> int:
    return int(_count_passes(words, queries, passes))


def _roofline(threads: int) -> None:
    """Count bits in every thread at once, `_PASSES * _L1_WORDS * 8` words in each."""
    rng = np.random.default_rng(0)
    buffers = [rng.integers(0, 2**63, _L1_WORDS, dtype=np.uint64) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda words: _roofline_loop(words, words[:8].copy(), _PASSES), buffers))


def numkong_rows(work: Work, keep: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return what is kept of all distances from NumKong, some rows at a time."""
    packed = numkong.hammings_pack(work.codes)
    starts = range(0, len(work.codes), _ROWS)

    def distances(start: int) -> np.ndarray:
        return keep(np.asarray(numkong.hammings_packed(work.codes[start : start + _ROWS], packed)))

    with ThreadPoolExecutor(work.threads) as pool:
        return np.concatenate(list(pool.map(distances, starts)))


def measure(work: Work, repeats: int) -> list[Figure]:
    """Time everything in turn and check that the distances are equal."""

    def least(distances: np.ndarray) -> np.ndarray:
        return np.sort(np.partition(distances, work.k - 1, axis=1)[:, : work.k], axis=1)

    faiss.omp_set_num_threads(work.threads)
    index = faiss.IndexBinaryFlat(work.codes.shape[1] * 8)
    index.add(work.codes)
    groups = {"groups_queries": work.groups, "groups_base": work.groups}

    def ours(**extra: Any) -> hamming.Neighbours:
        return hamming.nearest(work.codes, work.codes, work.k, threads=work.threads, **extra)

    expected, _ = index.search(work.codes, work.k)
    found = ours()
    assert (found.distances == expected).all(), "distances differ from faiss's"
    assert (found.distances == numkong_rows(work, least)).all(), "distances differ from NumKong's"
    own = {"exclude_self": True}
    apart = hamming.nearest(work.codes, work.codes, work.k + 1, threads=work.threads).indices[:, 1:]
    assert (ours(**own).indices == apart).all(), "by symmetry, other neighbours are found"
    ours(**groups)
    _roofline(work.threads)
    seconds = interleaved(
        {
            "ours": ours,
            "faiss": lambda: index.search(work.codes, work.k),
            "numkong": lambda: numkong_rows(work, lambda distances: distances[:, 0]),
            "numkong, least": lambda: numkong_rows(work, least),
            "grouped": lambda: ours(**groups),
            "one set": lambda: ours(**own),
            "roofline": lambda: _roofline(work.threads),
        },
        repeats,
    )
    return _figures(work, seconds)


def _figures(work: Work, seconds: dict[str, list[float]]) -> list[Figure]:
    rows, width = len(work.codes), work.codes.shape[1] * 8
    what = f"{rows:,} x {rows:,} codes of {width:,} bits, k = {work.k}, {work.threads} threads"
    ours, peer = median(seconds["ours"]), median(seconds["faiss"])
    words = rows * rows * -(-width // 64)
    counted = _PASSES * _L1_WORDS * 8 * work.threads
    roofline = counted / median(seconds["roofline"])
    return [
        Figure(
            f"exact neighbours, {what}",
            ours,
            "s",
            peer=peer,
            peer_name="faiss IndexBinaryFlat",
            ratio=median_ratio(seconds["faiss"], seconds["ours"]),
            must=_MUST,
            note=f"median of {len(seconds['ours'])} pairs; all distances equal",
        ),
        Figure("pairs per second", rows * rows / ours, "pairs/s", rows * rows / peer, "faiss"),
        *(
            Figure(
                f"the same beside NumKong, {what}",
                ours,
                "s",
                median(seconds[name]),
                "NumKong hammings_packed",
                median_ratio(seconds[name], seconds["ours"]),
            )
            for name, what in (("numkong", "distances alone"), ("numkong, least", "the k least by numpy"))
        ),
        Figure(
            "xor and popcount of 64-bit words",
            words / ours,
            "words/s",
            peer=roofline,
            peer_name="roofline, from L1",
            ratio=median_ratio(seconds["roofline"], seconds["ours"]) * words / counted,
            must=_MUST_OF_ROOFLINE,
            note="ratio: share of the roofline that a whole search reaches",
        ),
        Figure(
            "all pairs of one set, each counted once",
            median(seconds["one set"]),
            "s",
            peer=ours,
            peer_name="queries against a base",
            ratio=median_ratio(seconds["ours"], seconds["one set"]),
            must=_MUST_BY_SYMMETRY,
            note=f"{words / median(seconds['one set']) / roofline:.2f} of the roofline of all pairs",
        ),
        Figure(
            "the same search without neighbours of the same group, four groupings",
            median(seconds["grouped"]),
            "s",
            peer=ours,
            peer_name="without groups",
            ratio=median_ratio(seconds["grouped"], seconds["ours"]),
        ),
    ]


def main() -> None:
    """Read the options, measure, print."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=3072, help="bits of a code, a multiple of 8")
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--threads", type=int, default=describe().cores)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    machine = describe()
    work = Work.draw(options.rows, options.width, options.k, options.threads)
    report(measure(work, options.repeats), options.json, machine)


if __name__ == "__main__":
    main()
