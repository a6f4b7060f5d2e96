"""Capture over Ray's workers beside one process: tokens per second, memory of a worker, and what kills do.

python -m benchmarks.workers --kills 20
"""

from __future__ import annotations

import argparse
import filecmp
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

import polytope_lm as plm
from benchmarks._machine import describe
from benchmarks.capture import small_gpt2, texts

MEGABYTE = 2**20


def memory(process: int) -> float:
    """Return the memory that is a process's own plus its share of what is shared, in MiB."""
    try:
        rollup = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1024


def workers() -> list[int]:
    """Return the processes in which Ray runs a capture."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if place.read_bytes().startswith(b"ray::_Worker"):
                found.append(int(place.parent.name))
        except OSError:
            continue
    return found


class Peaks(threading.Thread):
    """Watches the memory of processes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()
        self.most = 0.0

    def run(self) -> None:
        """Look five times a second."""
        while not self.over.wait(0.2):
            self.most = max(self.most, *(memory(p) for p in (workers() or [os.getpid()])))


def captured(out: Path, lengths: np.ndarray, threads: int, engine: str) -> tuple[float, float]:
    """Capture all layers of GPT-2 small's shape; return tokens a second and the peak of one process, in MiB."""
    torch.set_num_threads(threads)
    model, documents = small_gpt2(), plm.documents(texts(lengths))
    peaks = Peaks()
    peaks.start()
    began = time.perf_counter()
    plm.capture(
        model, documents, to=out, shard_documents=max(1, len(lengths) // 12), engine=engine,
        workers=2 if engine == "ray" else None, progress=False,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    peaks.over.set()
    peaks.join()
    return int(lengths.sum()) / seconds, peaks.most


def _alone(out: Path, lengths: np.ndarray, threads: int, answer: multiprocessing.Queue) -> None:
    answer.put(captured(out, lengths, threads, "here"))


def alone(out: Path, lengths: np.ndarray, threads: int) -> tuple[float, float]:
    """Capture in a process of its own, so that its memory is its own."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=_alone, args=(out, lengths, threads, answer))
    process.start()
    found: tuple[float, float] = answer.get()
    process.join()
    return found


def same(a: Path, b: Path) -> bool:
    """Whether two stores are equal, byte for byte."""
    names = sorted(str(p.relative_to(a)) for p in a.rglob("*") if p.is_file())
    others = sorted(str(p.relative_to(b)) for p in b.rglob("*") if p.is_file())
    return names == others and filecmp.cmpfiles(a, b, names, shallow=False)[0] == names


def kill_one(after: float) -> None:
    """Kill a worker so many seconds after the first one is there."""
    before = set(workers())
    while not (new := set(workers()) - before):
        time.sleep(0.02)
    time.sleep(after)
    alive = sorted(set(workers()) & (new | (set(workers()) - before)))
    if alive:
        os.kill(alive[int(after * 1e6) % len(alive)], signal.SIGKILL)


def main() -> None:
    """Print both engines' speed and memory, then how many stores of killed runs are whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=60_000, help="of each capture (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kills", type=int, default=20)
    asked = parser.parse_args()
    import ray  # noqa: PLC0415 - an extra, and the other functions here do without

    print(describe())
    os.environ |= {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    lengths = np.full(asked.tokens // 512, 512)
    ratios, more = [], []
    with tempfile.TemporaryDirectory() as place:
        for i in range(asked.repeats):
            one, _ = alone(Path(place) / f"two-threads-{i}", lengths, 2)
            _, single = alone(Path(place) / f"one-thread-{i}", lengths, 1)
            both, each = captured(Path(place) / f"ray-{i}", lengths, 1, "ray")
            ratios.append(both / one)
            more.append(each - single)
            print(f"one process, 2 threads: {one:,.0f} tokens/s; 2 workers: {both:,.0f} ({both / one:.2f}); a worker's "
                  f"memory {each:,.0f} MiB, one process of as many threads {single:,.0f}", flush=True)  # fmt: skip
            print(f"byte-identical: {same(Path(place) / f'one-thread-{i}', Path(place) / f'ray-{i}')}", flush=True)
        print(f"ratio {median(ratios):.2f} (must 0.9), a worker's memory {median(more):+,.0f} MiB (must +300)")
        few = np.full(24, 256)
        reference = Path(place) / "reference"
        alone(reference, few, 1)
        chance, whole = np.random.default_rng(0), 0
        for i in range(asked.kills):
            killer = threading.Thread(target=kill_one, args=(chance.uniform(0, 12),), daemon=True)
            killer.start()
            captured(Path(place) / f"killed-{i}", few, 1, "ray")
            whole += same(reference, Path(place) / f"killed-{i}")
            print(f"kill {i + 1}: {whole} whole", flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main()
