"""Writing a store: one writer, whole shards, and a resume that ends in the same bytes."""

from __future__ import annotations

import contextlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from filelock import FileLock, Timeout

from polytope_lm.codes.store import layout, tables
from polytope_lm.documents import Document
from polytope_lm.errors import PolytopeError, brief
from polytope_lm.models.sources import changed_parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    import pyarrow as pa

_THREADS = min(8, os.cpu_count() or 1)  # that hash, without the interpreter's lock, and wait for the disk
_PATIENCE = 30.0  # seconds: nobody holds the store's short lock for longer
_SOURCE = {"texts": "texts", "ids": "identifiers", "labels": "labels or spans"}


@dataclass
class OpenShard:
    """A shard that is being filled, batch by batch."""

    arrays: dict[str, layout.Written]
    batches: int = 0  # how many are filled; above 0 at first where an interrupted run goes on


class StoreWriter:
    """The only way into a store, as a context manager that holds the lock of part `(i, n)`: every n-th shard."""

    def __init__(self, path: Path, manifest: Mapping[str, Any], part: tuple[int, int] = (1, 1)) -> None:
        self.path = path
        self.manifest = dict(manifest)
        self.part = part
        self._lock: FileLock | None = None
        self._finished: int | None = None
        self._digest = layout.digest(manifest)
        self._filled: dict[int, tuple[str, ...]] = {}

    def __enter__(self) -> Self:
        with layout.told(self.path, "making the store"):
            self._refuse_foreign()
            (self.path / layout.SHARDS).mkdir(parents=True, exist_ok=True)
        with layout.told(self.path, "locking the store"), self._gate():
            self._take_lock()
            try:
                self._settle_manifest()
                layout.committed(self.path)  # refuses a link in the place of the shards' directory
                self._sweep()
                self._finished = layout.completed_shards(self.path)
            except BaseException:
                self._free()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        # A lock that can't be taken back in order is left behind, empty and free: the next writer removes it.
        with contextlib.suppress(PolytopeError, OSError), self._gate():
            self._sweep()
            self._free()
        if self._lock is not None:
            self._lock.release()

    def wants(self, number: int) -> bool:
        """Whether a shard is this writer's and not there yet."""
        if self._finished is not None and number >= self._finished:
            raise PolytopeError(
                f"{self.path} was finished with {self._finished} shards and the source has more documents now: give "
                "the source as it was, or another --out"
            )
        return self._owns(number) and not layout.shard_path(self.path, number).exists()

    def _owns(self, number: int) -> bool:
        return number % self.part[1] == self.part[0] - 1

    def check(self, number: int, documents: Sequence[Document]) -> None:
        """Make sure that a shard that is there holds these documents and, if it is this part's, is undamaged."""
        shard = layout.shard_path(self.path, number)
        if not shard.exists():
            return
        record = layout.read_record(shard, self.manifest)
        if record.documents_sha256 != tables.fingerprint(documents):
            raise PolytopeError(
                f"{shard} holds other documents than the source has now from {documents[0].id!r} on: "
                f"give the source as it was, or another --out"
            )
        for name in layout.shard_files(self.manifest) if self._owns(number) else ():
            if problem := layout.check_file(shard, name, record):
                raise PolytopeError(problem)

    @contextlib.contextmanager
    def shard(
        self, number: int, rows: int, wanted: Mapping[str, tuple[int, str]], documents: Sequence[Document]
    ) -> Iterator[OpenShard]:
        """Open one shard's arrays for writing; `commit` makes it part of the store.

        What a keyboard interrupt leaves filled is kept with its sums, and the next run goes on from there.
        """
        temporary = self._temporary(number)
        shapes = {f"{name}.npy": ((rows, columns), dtype) for name, (columns, dtype) in wanted.items()}
        state = {"manifest": self._digest, "documents_sha256": tables.fingerprint(documents), "rows": rows}
        with layout.told(self.path, f"writing shard {layout.shard_name(number)}"):
            batches = _filled_before(temporary, state, shapes)
            with _gone_on_failure(temporary):
                if batches:
                    (temporary / layout.PARTIAL).unlink()
                    opened = {n: layout.Written(temporary / n, s, np.dtype(d)) for n, (s, d) in shapes.items()}
                else:
                    shutil.rmtree(temporary, ignore_errors=True)
                    temporary.mkdir()
                    opened = {n: layout.allocate(temporary / n, s, d) for n, (s, d) in shapes.items()}
                filling = OpenShard({name.removesuffix(".npy"): array for name, array in opened.items()}, batches)
                try:
                    yield filling
                except KeyboardInterrupt:
                    if filling.batches:
                        sums = {name: layout.sha256(temporary / name) for name in shapes}
                        note = {**state, "batches": filling.batches, "files": sums}
                        layout.write(temporary / layout.PARTIAL, layout.dump(note))
                    raise
                self._filled[number] = tuple(shapes)

    def commit(
        self, number: int, rows: int, tokens: pa.Table, documents: Sequence[Document], first: int,
        *, batch_tokens: int | None = None,
    ) -> None:  # fmt: skip
        """Write a filled shard's tables and its record, and rename it into place.

        `batch_tokens`: the size of its batches, if memory was too small for the manifest's.
        """
        temporary = self._temporary(number)
        with layout.told(self.path, f"writing shard {layout.shard_name(number)}"), _gone_on_failure(temporary):
            filled = self._filled.pop(number, ())
            # The disk is busy while sums are taken, and while the tables are made.
            with ThreadPoolExecutor(_THREADS) as syncing, ThreadPoolExecutor(_THREADS) as summing:
                synced = [syncing.submit(_sync, temporary / name) for name in filled]
                files = {name: summing.submit(_record, temporary / name) for name in filled}
                tables.write_parquet(tokens, temporary / layout.TOKENS)
                tables.write_parquet(tables.document_table(documents, first), temporary / layout.DOCUMENTS)
                for name in (layout.DOCUMENTS, layout.TOKENS):
                    synced.append(syncing.submit(_sync, temporary / name))
                    files[name] = summing.submit(_record, temporary / name)
                records = {name: files[name].result() for name in sorted(files)}
                for one in synced:
                    one.result()
            source = tables.fingerprint(documents)
            record = layout.Record(rows, first, len(documents), source, records, self._digest, batch_tokens)
            layout.write(temporary / layout.SHARD, record.to_bytes())
            temporary.rename(layout.shard_path(self.path, number))
            layout.sync_directory(temporary.parent)

    def finish(self, shards: int) -> bool:
        """Record that all shards are there; return False while another part's are missing."""
        with layout.told(self.path, "completing the store"), self._gate():
            there = layout.committed(self.path)
            if there and there[-1] >= shards:
                raise PolytopeError(
                    f"{layout.shard_path(self.path, there[-1])} holds documents that the source does not have any "
                    "more: give the source as it was, or another --out"
                )
            if len(there) < shards:
                return False
            content = layout.completion(
                layout.read_record(layout.shard_path(self.path, n), self.manifest) for n in there
            )
            file = self.path / layout.COMPLETE
            if not file.is_file() or file.is_symlink() or layout.read_bytes(file) != content:
                layout.write(file, content)
        return True

    def _temporary(self, number: int) -> Path:
        return self.path / layout.SHARDS / f".{layout.shard_name(number)}.tmp"

    def _refuse_foreign(self) -> None:
        """Never write among files that are not a store's."""
        if not os.path.lexists(self.path):
            return
        if not self.path.is_dir():
            raise PolytopeError(f"{self.path}: not a directory; choose another --out")
        if os.path.lexists(self.path / layout.MANIFEST):
            layout.read_manifest(self.path)
            return
        own = {layout.SHARDS, layout.MANIFEST + ".tmp", layout.MANIFEST_SUM, layout.MANIFEST_SUM + ".tmp"}
        names = sorted(p.name for p in self.path.iterdir() if not layout.LOCK_NAME.fullmatch(p.name))
        foreign = [name for name in names if name not in own]
        if foreign or layout.committed(self.path):
            what = foreign[0] if foreign else layout.SHARDS
            raise PolytopeError(f"{self.path}: holds {what!r} and is no store; choose an empty or new directory")

    @contextlib.contextmanager
    def _gate(self) -> Iterator[None]:
        """Hold the store's short lock, under which parts are locked and common files written."""
        gate = FileLock(self.path / layout.LOCK)
        try:
            gate.acquire(timeout=_PATIENCE)
        except Timeout:
            raise PolytopeError(
                f"{self.path}: another process keeps its lock; end it or choose another --out"
            ) from None
        try:
            yield
        finally:
            gate.release()

    def _take_lock(self) -> None:
        """Lock this writer's part; refuse while its part, or a part of another division, is being written."""
        own = f"{layout.LOCK}.{self.part[0]}.{self.part[1]}"
        locks = (p for p in sorted(self.path.glob(f"{layout.LOCK}.*")) if layout.LOCK_NAME.fullmatch(p.name))
        others = (p for p in locks if not p.name.endswith(f".{self.part[1]}"))  # of another division into parts
        for candidate in [*others, self.path / own]:
            lock = FileLock(candidate)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                raise PolytopeError(
                    f"{self.path}: another capture is writing this store; wait or choose another --out"
                ) from None
            if candidate.name == own:
                self._lock = lock
            else:
                candidate.unlink(missing_ok=True)
                lock.release()

    def _free(self) -> None:
        """Remove and release this part's lock; under the gate, so that nobody waits on a removed file."""
        if self._lock is not None:
            (self.path / f"{layout.LOCK}.{self.part[0]}.{self.part[1]}").unlink(missing_ok=True)
            self._lock.release()

    def _settle_manifest(self) -> None:
        """Write the manifest, or compare with the one that is there."""
        content = layout.dump(self.manifest)
        file = self.path / layout.MANIFEST
        if os.path.lexists(file):
            there = layout.read_manifest(self.path)
            if difference := first_difference(there, self.manifest):
                key, old, new = difference
                if what := _SOURCE.get(key.removeprefix("documents_sha256.")):
                    raise PolytopeError(
                        f"{self.path} was written from documents with other {what} than the source has now: "
                        f"give the source as it was, or another --out"
                    )
                why = ""
                if key == "revision":
                    changed, compared = changed_parts(str(old), str(new))
                    why = " (config and tokenizer were not recorded then, and can't be compared)"
                    why = f" (another {' and '.join(changed)})" if compared else why
                raise PolytopeError(
                    f"{self.path} was written with {key} {_short(old)}, this run has {_short(new)}{why}: use "
                    f"the same, or another --out"
                )
            return
        layout.write(self.path / layout.MANIFEST_SUM, layout.manifest_sum(content))
        layout.write(file, content)

    def _sweep(self) -> None:
        """Remove what dead runs left of this writer's own shards, and of common files."""
        for leftover in (self.path / layout.SHARDS).glob(".*.tmp"):
            number = layout.shard_number(leftover.name[1:-4])
            if number is None or not self._owns(number):
                continue
            if leftover.is_symlink():
                leftover.unlink()
            elif not (leftover / layout.PARTIAL).is_file():
                shutil.rmtree(leftover)
        for name in (layout.MANIFEST, layout.MANIFEST_SUM, layout.COMPLETE):
            (self.path / f"{name}.tmp").unlink(missing_ok=True)


def write_whole(
    path: Path,
    manifest: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    table: pd.DataFrame,
    ids: Sequence[str],
    texts: Sequence[str],
) -> None:
    """Write codes that are in memory as a store of one shard."""
    if os.path.lexists(path / layout.MANIFEST):
        raise PolytopeError(f"{path}: holds a store; choose an empty or new directory")
    whole = {"documents": "codes in memory", **manifest, "format": layout.FORMAT, "shard_documents": len(ids) or 1}
    whole.pop("incomplete", None)
    try:
        layout.dump(whole)
    except (TypeError, ValueError) as error:
        raise PolytopeError(f"{path}: the codes' provenance is no plain data ({error})") from None
    documents = [Document(id=str(i), text=text) for i, text in zip(ids, texts, strict=True)]
    named = [name for name in table.columns if name not in tables.TOKEN_COLUMNS]
    labels = {n: [None if v is None or v != v else str(v) for v in table[n]] for n in named}  # noqa: PLR0124 - NaN
    tokens = tables.token_table({n: table[n].to_numpy() for n in tables.NUMBERS}, labels)
    wanted = {name: (array.shape[1], array.dtype.name) for name, array in arrays.items()}
    with StoreWriter(path, whole) as writer:
        if len(table):
            with writer.shard(0, len(table), wanted, documents) as shard:
                for name, array in arrays.items():
                    shard.arrays[name][:] = array
            writer.commit(0, len(table), tokens, documents, 0)
        writer.finish(int(len(table) > 0))


@contextlib.contextmanager
def _gone_on_failure(directory: Path) -> Iterator[None]:
    """Remove an unfinished shard whatever stopped it, but what an interrupt left in order."""
    try:
        yield
    except BaseException:
        if not (directory / layout.PARTIAL).is_file():
            shutil.rmtree(directory, ignore_errors=True)
        raise


def _filled_before(temporary: Path, state: Mapping[str, Any], shapes: Mapping[str, Any]) -> int:
    """Return how many batches an interrupted run filled of this very shard; 0 if it can't be built on."""
    try:
        if temporary.is_symlink() or not (temporary / layout.PARTIAL).is_file():
            return 0
        note = layout.parse(temporary, layout.read_bytes(temporary / layout.PARTIAL))
        batches, sums = note.pop("batches", 0), note.pop("files", None)
        if note != state or type(batches) is not int or sums != {n: layout.sha256(temporary / n) for n in shapes}:
            return 0
        for name, (shape, dtype) in shapes.items():
            layout.mapped(temporary / name, shape, np.dtype(dtype))
    except (PolytopeError, OSError):
        return 0
    return max(batches, 0)


def _record(file: Path) -> layout.FileRecord:
    return layout.FileRecord(file.stat().st_size, layout.sha256(file))


def _sync(file: Path) -> None:
    """Make sure that a file is on the disk."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def first_difference(there: Any, here: Any, key: str = "") -> tuple[str, Any, Any] | None:
    """Find the first place in which two pieces of plain data differ: its dotted name and both values."""
    if isinstance(there, dict) and isinstance(here, dict):
        pairs = [(k, there.get(k), here.get(k)) for k in sorted({*there, *here})]
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        pairs = [(str(i), a, b) for i, (a, b) in enumerate(zip(there, here, strict=True))]
    else:
        return None if there == here and type(there) is type(here) else (key, there, here)
    found = (first_difference(a, b, f"{key}.{name}".lstrip(".")) for name, a, b in pairs)
    return next((difference for difference in found if difference), None)


def _short(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        value = [item.get("hook") for item in value]
    return brief(value)
