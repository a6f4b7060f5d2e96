"""Prediction 1 on 200,000 tokens: time and memory of one layer, one label, the verdict's representations, 10 halves.

`python -m benchmarks.many_tokens [--tokens 200000] [--json]`. A model of one layer (D = 384, N = 1,536) with random
weights reads documents of 20 words, whose kind decides which words they have; their first tokens are left out. Clusters
come from distances to a batch, and neighbours of 20,000 tokens are sought among all. The capture has a process of its
own; the figures are the comparison's.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import polytope_lm as plm
from benchmarks._machine import Figure, arguments, describe, peak_memory, report
from benchmarks.capture import WORDS, small_gpt2
from polytope_lm.documents import Document

LENGTH, KINDS = 20, 10


def documents(tokens: int) -> list[Document]:
    """Return documents of 20 words, half of them of their kind's tenth of the words."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(tokens // (LENGTH - 1) + 1):
        kind = int(rng.integers(KINDS))
        own, other = rng.integers(0, WORDS // KINDS, LENGTH) * KINDS + kind, rng.integers(0, WORDS, LENGTH)
        words = np.where(rng.random(LENGTH) < 0.5, own, other)
        found.append(Document(str(number), " ".join(f"w{w}" for w in words), labels={"kind": f"kind {kind}"}))
    return found


def capture(tokens: int, place: Path) -> None:
    """Write the store."""
    model = small_gpt2(n_layer=1, n_embd=384, n_head=6, n_inner=1536)
    plm.capture(model, documents(tokens), to=place, keep=("u", "h"), progress=False)


def main() -> None:
    """Capture, compare, print."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=200_000)
    options = parser.parse_args()
    machine = describe()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "store"
        writer = multiprocessing.get_context("spawn").Process(target=capture, args=(options.tokens, place))
        writer.start()
        writer.join()
        began = time.perf_counter()

        def tell(done: int, total: int, what: str) -> None:
            sys.stderr.write(f"\r{done} of {total}, {what}, {time.perf_counter() - began:.0f} s   ")

        found = plm.predictions.clusters(
            plm.open_store(place),
            0,
            label="kind",
            tokens=options.tokens,
            resamples=10,
            comparators=False,
            progress=tell,
        )
        seconds = time.perf_counter() - began
    layer = found.layers[0]
    code = layer.representation("code")
    what = f"{options.tokens:,} tokens, {len(layer.representations)} representations, k = {found.settings.k}, 10 halves"
    whole = options.tokens >= 200_000
    figures = [
        Figure(what, seconds, "s", must=1800 if whole else None, bound="at most", note=layer.verdict.outcome),
        Figure("peak memory", peak_memory(), "MB", must=6000 if whole else None, bound="at most"),
        *(Figure(f"code, {score.name}", score.estimate.value, "", note=f"{score.n:,} tokens") for score in code.scores),
    ]
    report(figures, options.json, machine)


if __name__ == "__main__":
    main()
