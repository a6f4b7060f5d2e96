"""Does a store stay linear in its shards? Records of shards that hold no arrays, on disk: written, listed and read.

`python -m benchmarks.shards [--most N] [--out DIR]`. 10^9 tokens are some 30,500 shards of 32,768 tokens; 10^6 shards
are 3.3 x 10^10 tokens. What opening a store and resuming a capture do for each shard is timed: finding those that are
there, and reading and checking every record.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks._machine import Figure, arguments, describe, peak_memory, report
from polytope_lm.codes.store import layout

FILES = 14  # twelve layers' bits, two tables


def write(store: Path, first: int, stop: int) -> None:
    """Write shards' records, as a capture of GPT-2 small's shape would."""
    for number in range(first, stop):
        names = (f"{i:02d}.npy" for i in range(FILES))
        files = {name: layout.FileRecord(12_583_040, f"{number:064x}") for name in names}
        record = layout.Record(32_768, 32 * number, 32, f"{number:064x}", files, layout.digest({"format": 2}))
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


def main() -> None:
    """Read the options, measure, print."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=100_000)
    parser.add_argument("--out", help="where the records are written, and removed")
    options = parser.parse_args()
    machine, figures, written = describe(), [], 0
    with tempfile.TemporaryDirectory(dir=options.out) as directory:
        for shards in (10**3, 10**4, 10**5, 10**6):
            if shards <= options.most:
                write(Path(directory), written, shards)
                written = shards
                figures += measure(Path(directory), shards)
        report(figures, options.json, machine)  # before the records are removed, which may take longer than all else


if __name__ == "__main__":
    main()
