"""The demo as a user runs it, and a packaged model's second load: seconds, and memory of the process."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks._machine import Figure, arguments, describe, report

LOAD = """
import time, torch, transformers
import polytope_lm as plm
start = time.perf_counter()
plm.load({name!r})
print(time.perf_counter() - start)
"""
PEAK = """
import sys
from polytope_lm.cli import main
sys.argv = ["polytope-lm", *{arguments!r}]
try:
    main()
finally:
    from benchmarks._machine import peak_memory
    print("PEAK", peak_memory() / 1e3, file=sys.stderr)
"""


def demo(name: str) -> list[Figure]:
    """Run the whole demo in a new process and an empty directory; the model was converted before."""
    with tempfile.TemporaryDirectory() as directory:
        script = PEAK.format(arguments=["demo", "--model", name, "--out", str(Path(directory) / "demo")])
        start = perf_counter()
        done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
        seconds = perf_counter() - start
        peak = float(done.stderr.rsplit("PEAK", 1)[1])
    return [
        Figure(f"demo on {name}", seconds, "s", must=300, bound="at most"),
        Figure(f"demo on {name}, peak memory", peak, "GB", must=6, bound="at most"),
    ]


def second_load(name: str, repeats: int) -> Figure:
    """Load a model in new processes, its copy being in the cache and its libraries imported."""
    command = [sys.executable, "-c", LOAD.format(name=name)]
    subprocess.run(command, check=True, capture_output=True)
    runs = [subprocess.run(command, check=True, capture_output=True, text=True) for _ in range(repeats)]
    note = f"median of {repeats} new processes, after `import torch, transformers`"
    seconds = median(float(run.stdout) for run in runs)
    return Figure(f"second load of {name}", seconds, "s", must=3, bound="at most", note=note)


def main() -> None:
    """Read the options, measure, print."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    machine = describe()
    report([second_load(options.model, options.repeats), *demo(options.model)], options.json, machine)


if __name__ == "__main__":
    main()
