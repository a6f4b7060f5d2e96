"""Capture over Ray's workers beside one process: tokens per second, memory of a worker, and what kills do.

python -m benchmarks.workers --kills 0
python -m benchmarks.workers --repeats 0 --kills 20 --out DIR

A killed worker is stopped first, so that what is told is what it was doing. The moments are spread over the whole of a
run, at random within each twentieth of it, loading included; `--at-the-end` more kills are aimed at the moment when the
last shard is there and the store is not complete. Only a kill that Ray answered by a new worker counts: one that came
after its worker had finished is drawn anew. Each is a line of DIR/kills.jsonl as it comes, and a run that was
interrupted goes on from there.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import multiprocessing
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import polytope_lm as plm
from analyses._running import read_lines
from benchmarks._machine import describe
from benchmarks.capture import small_gpt2, texts
from polytope_lm.codes.store import layout

if TYPE_CHECKING:
    from collections.abc import Callable

    Work = Callable[[], tuple[plm.Model, plm.Documents, dict[str, Any]]]
    """Returns a model, documents and the options of their capture."""


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


def gpt2_work(lengths: np.ndarray) -> tuple[plm.Model, plm.Documents, dict[str, Any]]:
    """Return GPT-2 small's shape, all layers, documents of these lengths."""
    return small_gpt2(), plm.documents(texts(lengths)), {"shard_documents": max(1, len(lengths) // 12)}


def tiny_work(documents: int) -> tuple[plm.Model, plm.Documents, dict[str, Any]]:
    """Return a tiny model, and so many shards that they take as long as the model's loading."""
    source = plm.documents("sample", max_documents=documents)
    return plm.load("tiny-gpt2"), source, {"shard_documents": 1, "keep": ("u", "h")}


def captured(out: Path, work: Work, threads: int, engine: str) -> tuple[float, float]:
    """Capture; return the seconds and the peak of one process, in MiB."""
    torch.set_num_threads(threads)
    model, documents, options = work()
    peaks = Peaks()
    peaks.start()
    began = time.perf_counter()
    plm.capture(
        model, documents, to=out, engine=engine, workers=2 if engine == "ray" else None, progress=False, **options
    )
    seconds = time.perf_counter() - began
    peaks.over.set()
    peaks.join()
    return seconds, peaks.most


def _alone(out: Path, work: Work, threads: int, answer: multiprocessing.Queue) -> None:
    answer.put(captured(out, work, threads, "here"))


def alone(out: Path, work: Work, threads: int) -> tuple[float, float]:
    """Capture in a process of its own, so that its memory is its own."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=_alone, args=(out, work, threads, answer))
    process.start()
    found: tuple[float, float] = answer.get()
    process.join()
    return found


def same(a: Path, b: Path) -> bool:
    """Whether two stores are equal, byte for byte."""
    names = sorted(str(p.relative_to(a)) for p in a.rglob("*") if p.is_file())
    others = sorted(str(p.relative_to(b)) for p in b.rglob("*") if p.is_file())
    return names == others and filecmp.cmpfiles(a, b, names, shallow=False)[0] == names


def doing(process: int, store: Path) -> tuple[int | None, str]:
    """Return the part that a worker holds, None before it has one, and what it does."""
    for link in Path(f"/proc/{process}/fd").glob("*"):
        try:
            found = re.search(r"\.lock\.([0-9]+)\.([0-9]+)$", str(link.readlink()))
        except OSError:
            continue
        if found is None:
            continue
        part, parts = map(int, found.groups())
        for shard in (store / layout.SHARDS).glob(".*.tmp"):
            number = int(shard.name[1:-4])
            if number % parts == part - 1:
                filled = (shard / layout.DOCUMENTS).exists() or (shard / layout.TOKENS).exists()
                return part, f"{'committing' if filled else 'filling'} shard {number}"
        return part, "between shards"
    return None, "loading the model"


def written(store: Path) -> list[int]:
    """Return the rows of each finished shard."""
    shards = sorted((store / layout.SHARDS).glob(f"[0-9]*/{layout.SHARD}"))
    return [json.loads(shard.read_bytes())["rows"] for shard in shards]


class Killer(threading.Thread):
    """Kills one worker of a capture: at a moment, or (None) when all shards are there and the store is not complete."""

    def __init__(self, store: Path, moment: float | None, which: int, shards: int) -> None:
        super().__init__(daemon=True)
        self.store, self.moment, self.which, self.shards = store, moment, which, shards
        self.over = threading.Event()
        self.killed: dict[str, Any] = {}
        self.replaced = False

    def _due(self, seconds: float) -> bool:
        if self.moment is not None:
            return seconds >= self.moment and bool(workers())
        try:
            return sum(p.name.isdecimal() for p in (self.store / layout.SHARDS).iterdir()) == self.shards
        except OSError:
            return False

    def run(self) -> None:
        """Wait for the moment, kill, wait for another worker."""
        began = time.monotonic()
        while not self._due(time.monotonic() - began):
            if self.over.wait(0.01 if self.moment is not None else 0.001):
                return
        alive = sorted(workers())
        at_work = [p for p in alive if doing(p, self.store)[0] is not None] if self.moment is None else alive
        if not at_work:
            return
        victim = at_work[self.which % len(at_work)]
        os.kill(victim, signal.SIGSTOP)
        seconds = time.monotonic() - began
        part, what = doing(victim, self.store)
        rows = written(self.store)
        if len(rows) == self.shards:
            what = "completing the store" if part is not None else "idle"
        if self.moment is None and (self.store / layout.COMPLETE).exists():
            os.kill(victim, signal.SIGCONT)  # too late
            return
        self.killed = {
            "moment": self.moment, "seconds": seconds, "process": victim, "part": part, "doing": what,
            "tokens": sum(rows), "shards": len(rows), "of": self.shards,
        }  # fmt: skip
        os.kill(victim, signal.SIGKILL)
        while not self.replaced and not self.over.wait(0.05):
            self.replaced = bool(set(workers()) - set(alive))


def kill(out: Path, reference: Path, work: Work, moment: float | None, number: int) -> dict[str, Any] | None:
    """Capture while a worker is killed; return what was killed and whether the store is whole, None if it was late."""
    shards = len(layout.committed(reference))
    shutil.rmtree(out, ignore_errors=True)
    killer = Killer(out, moment, number, shards)
    killer.start()
    captured(out, work, 1, "ray")
    killer.over.set()
    killer.join()
    if not killer.killed or not killer.replaced:
        return None
    found = {"number": number, **killer.killed, "identical": same(reference, out)}
    if found["identical"]:
        shutil.rmtree(out)  # another one is kept, to be looked at
    return found


def kills(place: Path, work: Work, about: dict[str, Any], number: int, ends: int) -> list[dict[str, Any]]:
    """Kill so many times at random moments, and `ends` times at the end; go on where an earlier run stopped."""
    place.mkdir(parents=True, exist_ok=True)
    file, reference = place / "kills.jsonl", place / "reference"
    lines = read_lines(file) if file.exists() else []
    if not lines:
        alone(reference, work, 1)
        shutil.rmtree(place / "first", ignore_errors=True)
        captured(place / "first", work, 1, "ray")  # the session's first run imports
        shutil.rmtree(place / "first")
        seconds = captured(place / "first", work, 1, "ray")[0]
        assert same(reference, place / "first")
        shutil.rmtree(place / "first")
        lines = [{"about": about, "seconds": seconds}]
    if lines[0]["about"] != about:
        raise SystemExit(f"{file}: was begun with {lines[0]['about']}, this run has {about}: another --out")
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")  # none cut off
    seconds, done = lines[0]["seconds"], lines[1:]
    print(f"a run without kills takes {seconds:.1f} s", flush=True)
    order = np.random.default_rng(0).permutation(number)
    for i in range(number + ends):
        if any(each["number"] == i for each in done):
            continue
        chance = np.random.default_rng((1, i))
        for attempt in range(10):
            share = (order[i] + chance.uniform()) / number if i < number else None
            moment = None if share is None else float(seconds * share * 0.95**attempt)
            if (found := kill(place / f"killed-{i}", reference, work, moment, i)) is not None:
                break
            print(f"kill {i + 1}: too late, drawn anew", flush=True)
        else:
            print(f"kill {i + 1}: ten times too late", flush=True)
            continue
        done.append(found)
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(found) + "\n")
        verdict = "identical" if found["identical"] else "DIFFERENT"
        print(f"kill {i + 1}: after {found['seconds']:.1f} s and {found['tokens']:,} tokens, part "
              f"{found['part'] or '-'}, {found['doing']}: {verdict}", flush=True)  # fmt: skip
    return sorted((each for each in done if each["number"] < number + ends), key=lambda each: each["number"])


def told(done: list[dict[str, Any]], number: int) -> str:
    """Return how many stores are whole, of kills at random moments and at the end, and what was killed."""
    drawn, ends = [k for k in done if k["number"] < number], [k for k in done if k["number"] >= number]
    what = Counter(re.sub(r" shard [0-9]+", " a shard", k["doing"]) for k in drawn)
    times = [k["seconds"] for k in drawn]
    moments = f", {min(times):.1f} to {max(times):.1f} s after the start" if times else ""
    return (
        f"{sum(k['identical'] for k in drawn)} of {number} stores byte-identical, killed at random moments{moments}: "
        + ", ".join(f"{n} while {doing}" for doing, n in what.most_common())
        + f"; {sum(k['identical'] for k in ends)} of {len(ends)} killed when the last shard was there"
    )


def compare_speed(place: Path, tokens: int, repeats: int) -> None:
    """Print both engines' speed and memory."""
    lengths = np.full(tokens // 512, 512)
    work, ratios, more = partial(gpt2_work, lengths), [], []
    for i in range(repeats):
        one = int(lengths.sum()) / alone(place / f"two-threads-{i}", work, 2)[0]
        _, single = alone(place / f"one-thread-{i}", work, 1)
        seconds, each = captured(place / f"ray-{i}", work, 1, "ray")
        both = int(lengths.sum()) / seconds
        ratios.append(both / one)
        more.append(each - single)
        print(f"one process, 2 threads: {one:,.0f} tokens/s; 2 workers: {both:,.0f} ({both / one:.2f}); a worker's "
              f"memory {each:,.0f} MiB, one process of as many threads {single:,.0f}", flush=True)  # fmt: skip
        print(f"byte-identical: {same(place / f'one-thread-{i}', place / f'ray-{i}')}", flush=True)
    print(f"ratio {median(ratios):.2f} (must 0.9), a worker's memory {median(more):+,.0f} MiB (must +300)")


def main() -> None:
    """Print both engines' speed and memory, then how many stores of killed runs are whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=60_000, help="of each capture (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--at-the-end", type=int, default=2, help="kills more, when the last shard is there")
    parser.add_argument("--kill-shape", choices=("tiny", "gpt2"), default="tiny", help="what is killed (%(default)s)")
    parser.add_argument("--kill-documents", type=int, default=60, help="of each killed capture (%(default)s)")
    parser.add_argument("--out", type=Path, help="where kills.jsonl is kept, and gone on with")
    asked = parser.parse_args()
    import ray  # noqa: PLC0415 - an extra, and the other functions here do without

    print(describe())
    os.environ |= {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    with tempfile.TemporaryDirectory() as place:
        if asked.repeats:
            compare_speed(Path(place), asked.tokens, asked.repeats)
        if asked.kills:
            tiny, documents = asked.kill_shape == "tiny", asked.kill_documents
            work = partial(tiny_work, documents) if tiny else partial(gpt2_work, np.full(documents, 256))
            about = {"shape": asked.kill_shape, "documents": documents, "kills": asked.kills}
            done = kills(asked.out or Path(place) / "kills", work, about, asked.kills, asked.at_the_end)
            print(told(done, asked.kills))
    ray.shutdown()


if __name__ == "__main__":
    main()
