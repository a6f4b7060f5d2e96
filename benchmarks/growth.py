"""Whether the writer and the opened store grow linearly from 10^4 to 10^7 tokens, in flat memory; and 10,000 shards.

python -m benchmarks.growth --out DIR [--most 10000000] [--shards 10000] [--disk]

Synthetic codes of one layer, 3,072 bits, in shards of 32,768 tokens, go through the writer alone: arrays, tables, sums,
records. Then the store is opened, and 6,000 random rows are read. Each size has a process of its own, whose memory is
the figure. `--shards`: a store of so many shards, made by `capture` from as many documents. `--disk`: twelve layers'
codes through the writer, as `capture` does it, beside writing and hashing as many bytes, interleaved.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

import polytope_lm as plm
from benchmarks._machine import Figure, arguments, describe, peak_memory, report
from polytope_lm.codes.overview import overview
from polytope_lm.codes.store import tables
from polytope_lm.codes.store.reader import CodeStore
from polytope_lm.codes.store.writer import StoreWriter
from polytope_lm.documents import Document

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SHARD, DOCUMENT, SAMPLE = 32_768, 256, 6_000
SIZES = (10**4, 10**5, 10**6, 10**7)


def manifest(place: Path, layers: int = 1) -> dict[str, Any]:
    """Return the manifest of a small real store, whose sites and settings the synthetic one takes."""
    from benchmarks.capture import small_gpt2, texts  # noqa: PLC0415 - transformers: only this process needs it

    store = plm.capture(small_gpt2(n_layer=layers), texts(np.array([8])), to=place / "small", progress=False)
    return {**store.manifest, "shard_documents": SHARD // DOCUMENT}


def random_codes(n_bytes: int) -> Callable[[int, int], np.ndarray]:
    """Return what gives the codes of a shard, by its number and rows."""
    pool = np.random.default_rng(0).integers(0, 256, (SHARD, n_bytes), dtype=np.uint8)  # drawn once: it takes longer
    return lambda number, rows: np.roll(pool, number, axis=0)[:rows]


def fill(
    place: Path, about: dict[str, Any], tokens: int, codes: Callable[[int, int], np.ndarray] | None = None
) -> None:
    """Write so many tokens, a shard at a time."""
    key, n_bytes = f"L{about['sites'][0]['layer']:02d}.pre", -(-about["sites"][0]["width"] // 8)
    codes = codes or random_codes(n_bytes)
    with StoreWriter(place, about) as writer:
        for number in range(-(-tokens // SHARD)):
            rows = min(SHARD, tokens - number * SHARD)
            first = number * (SHARD // DOCUMENT)
            documents = [Document(f"{first + i}", "a b c d" * 8) for i in range(-(-rows // DOCUMENT))]
            places = np.arange(rows)
            columns = dict.fromkeys(tables.NUMBERS, places % DOCUMENT) | {"document": first + places // DOCUMENT}
            with writer.shard(number, rows, {key: (n_bytes, "uint8")}, documents) as shard:
                shard.arrays[key][:] = codes(number, rows)
            writer.commit(number, rows, tables.token_table(columns, {}), documents, first)
        writer.finish(-(-tokens // SHARD))


def measured(place: Path, about: dict[str, Any], tokens: int, answer: Any) -> None:
    """Write and read one size; answer seconds and MB."""
    before = peak_memory()
    began = time.perf_counter()
    fill(place, about, tokens)
    written, most = time.perf_counter() - began, peak_memory()
    began = time.perf_counter()
    store = CodeStore(place)
    opened = time.perf_counter() - began
    began = time.perf_counter()
    store.rows(store.sites[0], np.sort(np.random.default_rng(1).choice(tokens, SAMPLE, replace=False)))
    answer.put({"tokens": tokens, "write_s": written, "open_s": opened, "rows_s": time.perf_counter() - began,
                "write_mb": most - before})  # fmt: skip


def picture(found: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw time and memory against tokens."""
    from matplotlib.figure import Figure as Drawing  # noqa: PLC0415 - only where it is asked for

    drawing = Drawing(figsize=(8, 3.2), layout="constrained")
    time_axis, memory_axis = drawing.subplots(1, 2)
    tokens = [row["tokens"] for row in found]
    for name, marker, label in (("write_s", "o", "write"), ("open_s", "s", "open"), ("rows_s", "^", "read 6,000 rows")):
        time_axis.plot(tokens, [row[name] for row in found], marker=marker, label=label)
    time_axis.plot(tokens, [found[-1]["write_s"] * t / tokens[-1] for t in tokens], ":", color="grey", label="linear")
    time_axis.set(xscale="log", yscale="log", xlabel="tokens", ylabel="seconds")
    time_axis.legend(frameon=False)
    memory_axis.plot(tokens, [row["write_mb"] for row in found], marker="o")
    memory_axis.set(xscale="log", ylim=(0, None), xlabel="tokens", ylabel="MB above the start, while writing")
    drawing.savefig(path)


class Descriptors(threading.Thread):
    """Counts this process's open files."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.over, self.most = threading.Event(), 0

    def run(self) -> None:
        """Look a hundred times a second."""
        while not self.over.wait(0.01):
            self.most = max(self.most, sum(1 for _ in Path("/proc/self/fd").iterdir()))


def many_shards(place: Path, shards: int) -> list[Figure]:
    """Capture as many documents as shards, and read the store in each way that touches all of them."""
    documents = [Document(str(i), f"document {i} ends here") for i in range(shards)]
    began = time.perf_counter()
    store = plm.capture(
        plm.load("tiny-gpt2"), documents, to=place, layers=[1], tokens="random:2", shard_documents=1, progress=False
    )
    figures = [Figure(f"{shards:,} shards, captured", (time.perf_counter() - began) / shards * 1e3, "ms a shard")]
    watch = Descriptors()
    watch.start()
    for name, do in (
        ("opened", lambda: CodeStore(place)),
        ("info", lambda: overview(CodeStore(place))),
        ("600 rows", lambda: store.rows(store.sites[0], np.arange(0, len(store), max(1, len(store) // 600)))),
        ("verified", store.verify),
    ):
        began = time.perf_counter()
        do()
        figures.append(Figure(f"{shards:,} shards, {name}", (time.perf_counter() - began) / shards * 1e3, "ms a shard"))
    watch.over.set()
    return [*figures, Figure(f"{shards:,} shards, open files at most", watch.most, "")]


def through_the_writer(place: Path, about: dict[str, Any], shards: int, pool: np.ndarray) -> float:
    """Write shards of all layers, each committed while the next is filled; return bytes a second."""
    keys = [f"L{site['layer']:02d}.pre" for site in about["sites"]]
    begun, last = time.perf_counter(), None
    with StoreWriter(place, about) as writer, ThreadPoolExecutor(1) as behind, ThreadPoolExecutor(8) as filling:
        for number in range(shards):
            first, rows = number * about["shard_documents"], np.arange(len(pool))
            documents = [Document(str(first + i), "a b c d " * 256) for i in range(about["shard_documents"])]
            columns = dict.fromkeys(tables.NUMBERS, rows % 1024) | {"document": first + rows // 1024}
            with writer.shard(number, len(pool), dict.fromkeys(keys, (384, "uint8")), documents) as shard:
                list(filling.map(lambda key, arrays=shard.arrays: arrays[key].__setitem__(slice(None), pool), keys))
            if last is not None:
                last.result()
            table = tables.token_table(columns, {})
            last = behind.submit(writer.commit, number, len(pool), table, documents, first)
        assert last is not None
        last.result()
        writer.finish(shards)
    return shards * pool.nbytes * len(keys) / (time.perf_counter() - begun)


def against_disk(out: Path) -> list[Figure]:
    """Compare the writer of twelve layers with writing and hashing alone, five interleaved pairs."""
    from benchmarks.gpu import write_and_hash  # noqa: PLC0415 - torch: only this comparison needs it

    pool = np.random.default_rng(0).integers(0, 256, (131_072, 384), dtype=np.uint8)
    about = {**manifest(out, 12), "shard_documents": len(pool) // 1024}
    run: Any = SimpleNamespace(scratch=out)
    pairs = []
    for _ in range(5):
        bare = write_and_hash(run, 12 * pool.nbytes, 12)
        pairs.append((bare, through_the_writer(out / "disk", about, 4, pool)))
        shutil.rmtree(out / "disk")
    shutil.rmtree(out / "small")
    bare, ours = (median(pair[i] for pair in pairs) / 1e9 for i in (0, 1))
    note = "pairs: " + ", ".join(f"{theirs / 1e9:.2f} and {mine / 1e9:.2f}" for theirs, mine in pairs)
    return [Figure("the writer of 12 layers", ours, "GB/s", bare, "writing and hashing alone", ours / bare, note=note)]


def main() -> None:
    """Measure every size in a process of its own; print, draw."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="where stores are written, and removed, and the picture stays")
    parser.add_argument("--most", type=int, default=10**7)
    parser.add_argument("--shards", type=int, default=0)
    parser.add_argument("--disk", action="store_true", help="the writer beside writing and hashing alone")
    options = parser.parse_args()
    machine, out, found = describe(), Path(options.out), []
    out.mkdir(parents=True, exist_ok=True)
    about = manifest(out)
    context = multiprocessing.get_context("spawn")
    for tokens in (n for n in SIZES if n <= options.most):
        answer = context.Queue()
        process = context.Process(target=measured, args=(out / "store", about, tokens, answer))
        process.start()
        found.append(answer.get())
        process.join()
        shutil.rmtree(out / "store")
    shutil.rmtree(out / "small")
    (out / "growth.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if found:
        picture(found, out / "growth.svg")
    figures = [
        Figure(f"{row['tokens']:,} tokens, {name}", row[key] * scale, unit)
        for row in found
        for name, key, scale, unit in (
            ("written", "write_s", 1e6 / row["tokens"], "us a token"),
            ("opened", "open_s", 1, "s"),
            ("6,000 rows read", "rows_s", 1, "s"),
            ("memory while writing", "write_mb", 1, "MB"),
        )
    ]
    if options.shards:
        figures += many_shards(out / "shards", options.shards)
        shutil.rmtree(out / "shards")
    if options.disk:
        figures += against_disk(out)
    report(figures, options.json, machine)


if __name__ == "__main__":
    main()
