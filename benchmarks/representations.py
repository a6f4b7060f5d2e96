"""One layer, five representations, 6,000 tokens: the comparison that a verdict reads, as it is by default.

`python -m benchmarks.representations [--json]`. Strict neighbours and k-medoids of the code, the rate-standardised
code, both cosines of `h` and five draws of rate-matched SimHash, k = 100, on all tokens and anew in each of 40 halves
of the documents. `--all` measures every registered representation besides. The layer is planted: a gated MLP of
SmolLM2's widths (576 and 1,536) with random weights, whose inputs are labelled directions with noise in 300
documents of 20 tokens; `--store` measures a layer of captured codes instead.
"""

from __future__ import annotations

import os
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from benchmarks._machine import Figure, arguments, describe, peak_memory, report
from polytope_lm.codes.codes import Codes
from polytope_lm.codes.hamming import hamming
from polytope_lm.models.sites import Premises, Site
from polytope_lm.predictions.clusters.layers import NULLS
from polytope_lm.predictions.clusters.scoring import HALVES
from polytope_lm.predictions.clusters.test import clusters
from polytope_lm.representations.registry import get

if TYPE_CHECKING:
    import argparse

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.predictions.clusters.result import ClustersResult

WIDTHS = (576, 1536)
LABELS, DOCUMENTS = 17, 300
_MUST_SECONDS, _MUST_MB = 360, 4000


def planted(tokens: int, seed: int) -> Codes:
    """Draw a gated layer: inputs of some 300 meanings, each of one label, in documents with offsets."""
    rng = np.random.default_rng(seed)
    d, n = WIDTHS
    meaning = rng.integers(0, 300, tokens)
    document = np.arange(tokens) * DOCUMENTS // tokens  # 20 tokens each of 6,000: what the cap leaves
    spread = 1 / np.sqrt(1 + np.arange(d))  # a spectrum that falls as that of real activations
    x = rng.normal(size=(300, d))[meaning] + 0.3 * rng.normal(size=(DOCUMENTS, d))[document]
    x = ((x + rng.normal(size=(tokens, d))) * spread).astype(np.float32)
    u = x / np.sqrt((x**2).mean(axis=1, keepdims=True))
    gate, up = (u @ rng.normal(size=(d, n)).astype(np.float32) / np.float32(np.sqrt(d)) for _ in range(2))
    post = gate / (1 + np.exp(-gate)) * up
    site = Site(0, "gate", "blocks.0.mlp.hook_pre", n, d, Premises("gated", "silu", False, "RMSNorm"))
    kept = {"u": u, "h": gate, "x": x, "up": up, "post": post}
    return Codes(
        sites=(site,),
        table=_table(rng, document, meaning),
        arrays={site.key: hamming.pack(gate > 0)},
        ids=[f"d{i}" for i in range(DOCUMENTS)],
        texts=[f"{i} " + "x " * 400 for i in range(DOCUMENTS)],
        kept=tuple(kept),
        provenance={"model": "planted", "bos": 1},
        kept_arrays={f"{site.key}.{name}": values for name, values in kept.items()},
    )


def _table(rng: np.random.Generator, document: np.ndarray, meaning: np.ndarray) -> pd.DataFrame:
    position = np.arange(len(document)) - np.searchsorted(document, document)
    word = meaning // 2 * 2 + rng.integers(0, 2, len(document))  # a word has two meanings
    return pd.DataFrame(
        {
            "document": document,
            "position": position,
            "start": position * 2,
            "end": position * 2 + 1,
            "token_id": word,
            "token": [f"w{each}" for each in word],
            "upos": [f"label {each % LABELS}" for each in meaning],
        }
    )


def measure(codes: TokenCodes, options: argparse.Namespace) -> tuple[ClustersResult, float, float]:
    """Compile on a part, then run the whole; return the result, seconds and seconds of all cores."""
    part = codes.select(np.arange(min(700, len(codes))))
    chosen = {"comparators": False, "extra": "all" if options.all else ()}
    clusters(part, options.layer, options.label, k=5, resamples=4, **chosen)
    wall, cpu = perf_counter(), process_time()
    result = clusters(codes, options.layer, options.label, k=options.k, resamples=options.resamples, **chosen)
    return result, perf_counter() - wall, process_time() - cpu


def figures(result: ClustersResult, wall: float, cpu: float, options: argparse.Namespace) -> list[Figure]:
    """Time and memory beside what they must be, and each step's time."""
    found = result.layers[0]
    own = [each.name for each in found.representations if each.name not in NULLS]
    what = f"one layer, {len(own)} representations, {result.sample.tokens:,} tokens"
    reasons = " / ".join(sorted(set(found.left_out.values())))
    missing = f"; {len(found.left_out)} left out: {reasons}" if reasons else ""
    draws = sum(get(name).draws for name in own)
    note = f"k = {found.k}, {options.resamples} halves, {draws} draws in all{missing}"
    steps = [Figure(f"  {step}", seconds, "s") for step, seconds in result.timings.items()]
    return [
        Figure(what, wall, "s", must=None if options.all else _MUST_SECONDS, bound="at most", note=note),
        Figure("seconds of all cores", cpu, "s"),
        Figure("peak memory", peak_memory(), "MB", must=_MUST_MB, bound="at most"),
        *steps,
    ]


def main() -> None:
    """Read the options, measure, print."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=6000)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--resamples", type=int, default=HALVES, help="halves of the documents (%(default)s)")
    parser.add_argument("--all", action="store_true", help="every registered representation besides")
    parser.add_argument("--seed", type=int, default=0, help="of the planted layer")
    parser.add_argument("--store", type=Path, help="captured codes in place of the planted layer")
    parser.add_argument("--layer", type=int, default=0)
    parser.add_argument("--label", default="upos")
    options = parser.parse_args()
    machine = describe()
    os.environ.setdefault("NUMBA_NUM_THREADS", str(machine.cores))
    if options.store is None:
        codes: TokenCodes = planted(options.tokens, options.seed)
    else:
        from polytope_lm.codes.store.reader import open_store  # noqa: PLC0415 -- only for captured codes

        codes = open_store(options.store)
    report(figures(*measure(codes, options), options), options.json, machine)


if __name__ == "__main__":
    main()
