"""Does a store stay linear in its shards? Records of shards that hold no arrays, on disk: written, listed and read.

`python -m benchmarks.shards [--most N] [--simulate N] [--out DIR]`. 10^9 tokens are some 30,500 shards of 32,768
tokens; 10^6 shards are 3.3 x 10^10 tokens. What opening a store and resuming a capture do for each shard is timed:
finding those that are there, and reading and checking every record.

`--simulate` does the rest for so many shards without writing them, whose removal may take hours: the plan and the
estimate over as many documents, the manifest, and one record, read and checked so many times, held and summed up.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks._machine import Figure, arguments, describe, peak_memory, report
from benchmarks.capture import small_gpt2
from polytope_lm.codes.plan import estimate, make_plan
from polytope_lm.codes.store import layout
from polytope_lm.codes.store.writer import StoreWriter
from polytope_lm.documents import Document, Documents

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES = 14  # twelve layers' bits, two tables


def record_of(number: int, manifest: str) -> layout.Record:
    """Return a shard's record, as a capture of GPT-2 small's shape makes it."""
    names = (f"{i:02d}.npy" for i in range(FILES))
    files = {name: layout.FileRecord(12_583_040, f"{number:064x}") for name in names}
    return layout.Record(32_768, 32 * number, 32, f"{number:064x}", files, manifest)


def write(store: Path, first: int, stop: int) -> None:
    """Write shards' records, as a capture of GPT-2 small's shape would."""
    for number in range(first, stop):
        record = record_of(number, layout.digest({"format": 2}))
        directory = layout.shard_path(store, number)
        directory.mkdir(parents=True)
        (directory / layout.SHARD).write_bytes(record.to_bytes())


def measure(store: Path, shards: int) -> list[Figure]:
    """Time what is done for every shard; `us a shard` stays if it is linear."""
    start = time.perf_counter()
    there = layout.committed(store)
    listing = time.perf_counter() - start
    assert there == list(range(shards))
    start = time.perf_counter()
    records = [layout.read_record(layout.shard_path(store, number), {"format": 2}) for number in there]
    reading = time.perf_counter() - start
    assert sum(record.rows for record in records) == 32_768 * shards
    return [
        Figure(f"{shards:,} shards, listed", listing / shards * 1e6, "us a shard"),
        Figure(f"{shards:,} shards, records read and checked", reading / shards * 1e6, "us a shard"),
        Figure(f"{shards:,} shards, peak memory with all records", peak_memory(), "MB"),
    ]


class Short:
    """So many documents of ten words, made as they are read."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self) -> Iterator[Document]:
        """Yield them."""
        for i in range(self.number):
            yield Document(id=f"d{i}", text=f"w{i % 997} w{i % 991} w{i} " + "w1 w2 w3 w4 w5 w6 w7")


def simulate(store: Path, shards: int) -> list[Figure]:
    """Do what a capture and a reader do for so many shards besides filling them, without their files."""
    began = time.perf_counter()
    plan = make_plan(small_gpt2(), layers="all", kind=None, keep=(), tokens="all")
    planned, before = time.perf_counter() - began, resident()
    began = time.perf_counter()
    cost = estimate(plan, Documents("synthetic", Short(shards)), timed=False)
    estimated, held = time.perf_counter() - began, max(0.0, peak_memory() - before)
    assert cost.documents == shards
    manifest = {"format": layout.FORMAT, **plan.provenance(), "documents": "synthetic", "shard_documents": 1}
    manifest["documents_sha256"] = dict(cost.source)
    began = time.perf_counter()
    with StoreWriter(store, manifest):
        settled = time.perf_counter() - began
    began = time.perf_counter()
    assert layout.read_manifest(store) == manifest
    read = time.perf_counter() - began
    directory = layout.shard_path(store, 0)
    directory.mkdir()
    (directory / layout.SHARD).write_bytes(record_of(0, layout.digest(manifest)).to_bytes())
    before, began = resident(), time.perf_counter()
    records = [layout.read_record(directory, manifest) for _ in range(shards)]
    checked, records_held = time.perf_counter() - began, resident() - before
    before, began = resident(), time.perf_counter()
    layout.write(store / layout.COMPLETE, layout.completion(records))
    completed, completing = time.perf_counter() - began, resident() - before
    began = time.perf_counter()
    assert layout.completed_shards(store) == shards
    noted = time.perf_counter() - began
    sizes = {name: (store / name).stat().st_size for name in (layout.MANIFEST, layout.COMPLETE)}
    what = f"{shards:,} shards"
    return [
        Figure(f"{what}: plan of GPT-2 small's shape, its model made", planned, "s"),
        Figure(f"{what}: estimate, as many documents of ten words", estimated, "s"),
        Figure(f"{what}: estimate, memory at most", held, "MB"),
        Figure(f"{what}: manifest", sizes[layout.MANIFEST], "bytes"),
        Figure(f"{what}: manifest, locks taken and written", settled, "s"),
        Figure(f"{what}: manifest, read and checked", read, "s"),
        Figure(f"{what}: one shard's record", (directory / layout.SHARD).stat().st_size, "bytes"),
        Figure(f"{what}: records read and checked", checked, "s"),
        Figure(f"{what}: records, memory", records_held, "MB"),
        Figure(f"{what}: complete.json", sizes[layout.COMPLETE], "bytes"),
        Figure(f"{what}: complete.json, made of the records and written", completed, "s"),
        Figure(f"{what}: complete.json, memory", completing, "MB"),
        Figure(f"{what}: complete.json, read", noted, "s"),
    ]


def resident() -> float:
    """Return this process's memory now, in 10^6 bytes."""
    rows = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith("VmRSS")) * 1024 / 1e6


def main() -> None:
    """Read the options, measure, print."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=10_000, help="shards whose records are written (%(default)s)")
    parser.add_argument("--simulate", type=int, default=1_000_000, help="shards without files (%(default)s; 0: none)")
    parser.add_argument("--out", type=Path, help="where the records are written, and removed")
    options = parser.parse_args()
    machine, figures, written = describe(), [], 0
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    if options.simulate:  # first: memory is read off the process
        with tempfile.TemporaryDirectory(dir=options.out) as directory:
            figures += simulate(Path(directory) / "store", options.simulate)
    with tempfile.TemporaryDirectory(dir=options.out) as directory:
        for shards in (10**3, 10**4, 10**5, 10**6):
            if shards <= options.most:
                write(Path(directory), written, shards)
                written = shards
                figures += measure(Path(directory), shards)
        report(figures, options.json, machine)  # before the records are removed, which may take longer than all else


if __name__ == "__main__":
    main()
