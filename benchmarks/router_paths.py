"""The path test of a mixture of experts: `polytope-lm test routers` as it is by default, on tiny-moe.

`python -m benchmarks.router_paths [--json]`. Codes of all routers of the built-in sample's documents (20 tokens of
each at most), all representations, controls and halves of a default run; capture and test together.
"""

from __future__ import annotations

from time import perf_counter

import polytope_lm as plm
from benchmarks._machine import Figure, arguments, describe, peak_memory, report
from polytope_lm.predictions.routers.test import routers


def main() -> None:
    """Capture, test, print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--model", default="tiny-moe", help="a mixture of experts (%(default)s)")
    parser.add_argument("--label", default="class", help="a label of the sample (%(default)s)")
    options = parser.parse_args()
    machine, model = describe(), plm.load(options.model)
    start = perf_counter()
    codes = plm.encode(model, plm.documents("sample"), kind="router", tokens="random:20", keep=("u", "h"))
    captured = perf_counter() - start
    result = routers(codes, label=options.label)
    seconds, sample = perf_counter() - start, result.sample
    routed = f"{len(codes.layers)} routers; k = {result.layers[0].k}"
    note = f"{sample.tokens:,} tokens of {sample.documents} documents, {routed}"
    figures = [
        Figure("path test", seconds, "s", must=300, bound="at most", note=note),
        Figure("  of which capture", captured, "s"),
        Figure("peak memory", peak_memory(), "MB"),
    ]
    report(figures, options.json, machine)


if __name__ == "__main__":
    main()
