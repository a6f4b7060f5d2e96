"""Many runs of one experiment: each is a line of `runs.jsonl`; interrupted, they go on where they stopped."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from itertools import groupby
from statistics import mean, stdev, variance
from typing import TYPE_CHECKING, Any

from analyses._running import THREADS, read_lines
from polytope_lm.statistics.nulls import Rate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    Run = tuple[str, int]
    """A world's name and the run's number."""
    Job = tuple[str, list[int]]
    """A world's name and the runs that are done together."""


def missing_jobs(path: Path, wanted: Sequence[Run], together: Mapping[str, int]) -> list[Job]:
    """Return the runs that are not in the file yet, those of one world (`together` consecutive ones) as one job."""
    done = {(line["world"], line["seed"]) for line in read_lines(path)}
    left = [each for each in wanted if each not in done]
    groups: dict[tuple[str, int], list[int]] = {}
    for world, run in left:
        groups.setdefault((world, run // together[world]), []).append(run)
    return [(world, runs) for (world, _), runs in groups.items()]


def run_all(
    path: Path, wanted: Sequence[Run], together: Mapping[str, int], one: Callable[[Job], list[dict[str, Any]]],
    processes: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """Do the runs that are not there yet and return the lines of all that were asked for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    jobs = missing_jobs(path, wanted, together)
    # A file that was cut off in mid-line gets a line end, so that the next run does not continue it.
    cut = path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
    os.environ.update(dict.fromkeys(THREADS, "1"))  # read by the workers when they import numpy
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ended from outside, it ends its workers, too
    context = multiprocessing.get_context("spawn")
    with path.open("a", encoding="utf-8") as file, context.Pool(processes) as pool:
        file.write("\n" if cut else "")
        for lines in pool.imap_unordered(one, jobs):
            file.writelines(json.dumps(line) + "\n" for line in lines)
            file.flush()
    asked = set(wanted)
    return [line for line in read_lines(path) if (line["world"], line["seed"]) in asked]


def rate_of(lines: Sequence[Mapping[str, Any]], happened: Callable[[Mapping[str, Any]], bool], together: int) -> str:
    """Return a rate as text: over runs, and with its standard error over worlds where several runs share one."""
    found = Rate.of(sum(map(happened, lines)), len(lines))
    if together == 1:
        return str(found)
    worlds = _shares(lines, happened, together)
    if len(worlds) < 2:
        return str(found)
    low, high = over_worlds(lines, happened, together)
    error = stdev(worlds) / len(worlds) ** 0.5
    return f"{found}; {len(worlds)} worlds, standard error over these {error:.2%}, interval {low:.1%} to {high:.1%}"


def over_worlds(
    lines: Sequence[Mapping[str, Any]], happened: Callable[[Mapping[str, Any]], bool], together: int
) -> tuple[float, float]:
    """Return the 95 % interval of a rate whose runs share worlds: Wilson's, of as many runs as they count for.

    `together` runs of one world are alike by a design effect, the variance of the worlds' shares over what it would be
    if all runs were of different worlds (Kish; never below 1). Where all runs or none happened, no variance tells it,
    and each world counts once.
    """
    worlds = _shares(lines, happened, together)
    share, runs = mean(map(happened, lines)), len(lines)
    alone = share * (1 - share) / together
    effect = max(1.0, variance(worlds) / alone) if alone and len(worlds) > 1 else together
    n, z = runs / effect, 1.959964
    centre, spread = share + z**2 / (2 * n), z * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    return max(0.0, (centre - spread) / (1 + z**2 / n)), min(1.0, (centre + spread) / (1 + z**2 / n))


def _shares(
    lines: Sequence[Mapping[str, Any]], happened: Callable[[Mapping[str, Any]], bool], together: int
) -> list[float]:
    """Return each world's share of runs in which it happened."""
    ordered = sorted(lines, key=lambda line: line["seed"])
    return [mean(map(happened, each)) for _, each in groupby(ordered, key=lambda line: line["seed"] // together)]
