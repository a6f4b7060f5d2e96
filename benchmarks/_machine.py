"""What every benchmark prints: the machine, the versions, and each figure beside its peer's.

A figure without its machine, versions and a peer from the same run says nothing; `report` prints all three.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PACKAGES = (
    "numpy",
    "scipy",
    "numba",
    "llvmlite",
    "torch",
    "transformers",
    "transformer-lens",
    "faiss-cpu",
    "numkong",
    "pandas",
    "pyarrow",
)


@dataclass(frozen=True)
class Machine:
    """The machine and the versions that a figure was measured with.

    Attributes:
        cpu: the processor's model.
        cores: cores this process may run on.
        memory_gb: the machine's memory, in 10^9 bytes.
        load: mean number of running processes over the last minute, before the run; above about 0.5 the
            figures are noisy.
        system: operating system and kernel.
        python: the interpreter's version.
        packages: version of each installed package that matters for speed.

    """

    cpu: str
    cores: int
    memory_gb: float
    load: float
    system: str
    python: str
    packages: Mapping[str, str]

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {v}" for name, v in self.packages.items())
        return (
            f"{self.cpu}, {self.cores} cores, {self.memory_gb:.1f} GB, load {self.load:.2f} before the run\n"
            f"{self.system}, Python {self.python}, {versions}"
        )


@dataclass(frozen=True)
class Figure:
    """One measured number beside its peer's, and what it must reach.

    Attributes:
        name: what was measured.
        value: our number.
        unit: its unit.
        peer: the peer's number in the same unit, from the same run.
        peer_name: who the peer is.
        ratio: how many times better or larger than the peer, as `must` is stated.
        must: the bound that `ratio` (or `value`, where there is no ratio) has to keep.
        bound: whether `must` is the least or the most allowed.
        note: one line on how it was measured.

    """

    name: str
    value: float
    unit: str
    peer: float | None = None
    peer_name: str = ""
    ratio: float | None = None
    must: float | None = None
    bound: Literal["at least", "at most"] = "at least"
    note: str = field(default="")

    @property
    def met(self) -> bool | None:
        """Whether the bound is kept; None for a figure without one."""
        if self.must is None:
            return None
        reached = self.value if self.ratio is None else self.ratio
        return reached >= self.must if self.bound == "at least" else reached <= self.must

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data, `met` included."""
        return {**asdict(self), "met": self.met}

    def __str__(self) -> str:
        parts = [f"{self.name}: {self.value:.4g} {self.unit}".rstrip()]
        if self.peer is not None:
            parts.append(f"{self.peer_name or 'peer'} {self.peer:.4g} {self.unit}".rstrip())
        if self.ratio is not None:
            parts.append(f"ratio {self.ratio:.3g}")
        if self.must is not None:
            parts.append(f"must be {self.bound} {self.must:g}: {'met' if self.met else 'NOT MET'}")
        return "; ".join(parts) + (f"  ({self.note})" if self.note else "")


def describe() -> Machine:
    """Describe this machine and the installed versions; imports none of the packages."""
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gb=_memory_gb(),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan"),
        system=platform.platform(),
        python=platform.python_version(),
        packages=_versions(),
    )


def report(figures: Sequence[Figure], as_json: bool = False, machine: Machine | None = None) -> None:
    """Print the machine, the versions and every figure; as one JSON object with `as_json`.

    Give `machine` as it was described before the run, so that its load is not the benchmark's own.
    """
    machine = describe() if machine is None else machine
    if as_json:
        sys.stdout.write(
            json.dumps({"machine": asdict(machine), "figures": [f.to_dict() for f in figures]}, indent=2) + "\n"
        )
        return
    sys.stdout.write(f"{machine}\n\n" + "".join(f"{figure}\n" for figure in figures))


def arguments(description: str) -> argparse.ArgumentParser:
    """Return a parser with the `--json` that every benchmark has; add the benchmark's own options to it."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    return parser


def interleaved(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of every run, `repeats` times each in turn, so that a busy moment hits all of them alike.

    Call each once beforehand where a first call compiles or warms a cache.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = perf_counter()
            run()
            seconds[name].append(perf_counter() - start)
    return seconds


def median_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """Median over the interleaved pairs of `numerator / denominator`."""
    return median(a / b for a, b in zip(numerator, denominator, strict=True))


def peak_memory() -> float:
    """Return this process's own peak memory in 10^6 bytes.

    The kernel's `ru_maxrss` starts a new program with its parent's peak; `VmHWM` does not.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(row for row in status.read_text(encoding="ascii").splitlines() if row.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    import resource  # noqa: PLC0415 - not on every system

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _memory_gb() -> float:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return float("nan")
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
