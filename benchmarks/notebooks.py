"""The six notebooks that ask a question, run one after the other on tiny models: seconds of each, and their sum.

`python -m benchmarks.notebooks [--json]`. Each runs in a fresh kernel, imports and models' loading included. Beside the
sum stands the processor's time, which other work on the machine changes little.
"""

from __future__ import annotations

import resource
from time import perf_counter

from analyses.executed_notebooks import SIX, executed
from benchmarks._machine import Figure, arguments, describe, report


def _processor() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__ or "").parse_args()
    machine = describe()
    figures, computing = [], _processor()
    for name in SIX:
        began = perf_counter()
        executed(name)
        figures.append(Figure(f"notebooks/{name}.py", perf_counter() - began, "s"))
    note = f"{_processor() - computing:.0f} s of one processor's time"
    total = sum(each.value for each in figures)
    figures.append(Figure("all six", total, "s", must=420, bound="at most", note=note))
    report(figures, options.json, machine)


if __name__ == "__main__":
    main()
