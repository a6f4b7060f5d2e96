"""Writing a store: one writer, whole shards, and a resume that ends in the same bytes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from polytope_lm.codes import layout
from polytope_lm.documents import Document
from polytope_lm.errors import PolytopeError

TOKEN_COLUMNS = ("document", "position", "start", "end", "token_id")


class StoreWriter:
    """The only way into a store. Use it as a context manager: it holds the lock.

    Args:
        path: the store's directory; made if it is missing.
        manifest: what determines the bytes: model, revision, dtype, rules, sites, versions.
        part: `(i, n)`: this writer makes the shards whose number is `i - 1` modulo n.

    Raises:
        PolytopeError: another writer is at it, the directory holds something else, or its manifest differs.

    """

    def __init__(self, path: Path, manifest: Mapping[str, Any], part: tuple[int, int] = (1, 1)) -> None:
        self.path = path
        self.manifest = dict(manifest)
        self.part = part
        self._lock: FileLock | None = None

    def __enter__(self) -> Self:
        self._refuse_foreign()
        with layout.told(self.path, "making the store"):
            (self.path / layout.SHARDS).mkdir(parents=True, exist_ok=True)
        self._take_lock()
        try:
            self._settle_manifest()
            self._sweep()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            # The empty file stays: removing it would let two writers hold locks on two files of one name.
            self._lock.release()

    def wants(self, number: int) -> bool:
        """Whether a shard is this writer's and not there yet."""
        mine = number % self.part[1] == self.part[0] - 1
        return mine and not (self.path / layout.SHARDS / layout.shard_name(number)).exists()

    def check(self, number: int, documents: Sequence[Document]) -> None:
        """Make sure that a shard that is there holds these documents.

        Raises:
            PolytopeError: the source changed since.

        """
        shard = self.path / layout.SHARDS / layout.shard_name(number)
        if shard.exists() and layout.read_json(shard / layout.SHARD).get("documents_sha256") != fingerprint(documents):
            raise PolytopeError(
                f"{shard} holds other documents than the source has now at {documents[0].id!r}: "
                f"give the source as it was, or another --out"
            )

    @contextlib.contextmanager
    def shard(self, number: int, rows: int, arrays: Mapping[str, tuple[int, str]]) -> Iterator[dict[str, np.ndarray]]:
        """Open one shard's arrays for writing; `commit` makes it part of the store.

        Args:
            number: the shard's number.
            rows: tokens in it.
            arrays: name to (columns, dtype).

        Yields:
            The arrays `[rows, columns]`, memory-mapped. `commit` must follow; until then the shard does not exist.

        """
        temporary = self.path / layout.SHARDS / f".{layout.shard_name(number)}.tmp"
        with layout.told(self.path, f"writing shard {layout.shard_name(number)}"):
            try:
                temporary.mkdir()
                opened = {name: _allocate(temporary / f"{name}.npy", (rows, *spec[:1]), spec[1]) for name, spec in arrays.items()}
                yield opened
                for name, array in opened.items():
                    if isinstance(array, np.memmap):
                        array.flush()
                    else:
                        np.save(temporary / f"{name}.npy", array, allow_pickle=False)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise

    def commit(self, number: int, rows: int, tokens: pa.Table, documents: Sequence[Document], first: int) -> None:
        """Write a filled shard's tables and its record, and rename it into place.

        Args:
            number: the shard's number.
            rows: tokens in it.
            tokens: the token table, `rows` long.
            documents: its documents.
            first: index of its first document in the input.

        """
        name = layout.shard_name(number)
        temporary = self.path / layout.SHARDS / f".{name}.tmp"
        with layout.told(self.path, f"writing shard {name}"):
            _write_parquet(tokens, temporary / layout.TOKENS)
            _write_parquet(document_table(documents, first), temporary / layout.DOCUMENTS)
            files = {
                p.name: {"bytes": p.stat().st_size, "sha256": layout.sha256(p)} for p in sorted(temporary.iterdir())
            }
            record = {
                "rows": rows, "first_document": first, "documents": len(documents),
                "documents_sha256": fingerprint(documents), "files": files,
            }  # fmt: skip
            record["sha256"] = hashlib.sha256(layout.dump(record)).hexdigest()
            for file in temporary.iterdir():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
            layout.write(temporary / layout.SHARD, layout.dump(record))
            temporary.rename(temporary.with_name(name))
            layout.sync_directory(temporary.parent)

    def finish(self, shards: int) -> bool:
        """Record that all shards are there; return False while another part's are missing."""
        if layout.committed(self.path) != list(range(shards)):
            return False
        records = [layout.read_json(self.path / layout.SHARDS / layout.shard_name(n) / layout.SHARD) for n in range(shards)]
        content = layout.dump({"shards": shards, "rows": sum(r["rows"] for r in records)})
        with layout.told(self.path, "completing the store"):
            layout.write(self.path / layout.COMPLETE, content)
        return True

    def _refuse_foreign(self) -> None:
        """Never write among files that are not a store's."""
        if self.path.is_symlink() or (self.path.exists() and not self.path.is_dir()):
            raise PolytopeError(f"{self.path}: not a directory; choose another --out")
        if not self.path.is_dir() or (self.path / layout.MANIFEST).is_file():
            return
        own = {layout.SHARDS, layout.MANIFEST + ".tmp", layout.MANIFEST_SUM, layout.MANIFEST_SUM + ".tmp"}
        foreign = [p.name for p in self.path.iterdir() if p.name not in own and not layout.LOCK_NAME.fullmatch(p.name)]
        if foreign:
            raise PolytopeError(f"{self.path}: holds {foreign[0]!r} and is no store; choose an empty or new directory")

    def _take_lock(self) -> None:
        name = f".lock.{self.part[0]}.{self.part[1]}"
        others = [p for p in self.path.glob(".lock.*") if _of_other_division(p.name, self.part[1])]
        for candidate in [*others, self.path / name]:
            lock = FileLock(candidate)
            try:
                with layout.told(self.path, "locking the store"):
                    lock.acquire(timeout=0)
            except Timeout:
                raise PolytopeError(f"{self.path}: another capture is writing this store (it holds {candidate.name}); wait or choose another --out") from None
            if candidate.name == name:
                self._lock = lock
            else:
                lock.release()

    def _settle_manifest(self) -> None:
        """Write the manifest, or compare with the one that is there."""
        content = layout.dump(self.manifest)
        file = self.path / layout.MANIFEST
        if file.is_file():
            there = layout.read_manifest(self.path)
            for key in sorted({*there, *self.manifest}):
                if there.get(key) != self.manifest.get(key):
                    raise PolytopeError(
                        f"{self.path} was written with {key} {_short(there.get(key))}, this run has {_short(self.manifest.get(key))}: "
                        f"use the same, or another --out"
                    )
            return
        with layout.told(self.path, "writing the manifest"):
            layout.write(self.path / layout.MANIFEST_SUM, f"{hashlib.sha256(content).hexdigest()}  {layout.MANIFEST}\n".encode())
            layout.write(file, content)

    def _sweep(self) -> None:
        """Remove what dead runs left of this writer's own shards."""
        for leftover in (self.path / layout.SHARDS).glob(".*.tmp"):
            digits = leftover.name[1:-4]
            if layout.SHARD_NAME.fullmatch(digits) and int(digits) % self.part[1] == self.part[0] - 1:
                shutil.rmtree(leftover, ignore_errors=True)
        for leftover in self.path.glob("*.tmp"):
            leftover.unlink(missing_ok=True)


def _of_other_division(name: str, parts: int) -> bool:
    """Whether a lock belongs to a run with another division into parts."""
    return bool(layout.LOCK_NAME.fullmatch(name)) and not name.endswith(f".{parts}")


def fingerprint(documents: Sequence[Document]) -> str:
    """Hash documents' ids and texts, to notice a source that changed between runs."""
    digest = hashlib.sha256()
    for document in documents:
        for part in (document.id, document.text):
            raw = part.encode("utf-8", "surrogatepass")
            digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()


def document_table(documents: Sequence[Document], first: int) -> pa.Table:
    """Return the documents of a shard with their texts and labels, as one table."""
    labels = sorted({label for d in documents for label in d.labels})
    columns: dict[str, Any] = {
        "index": pa.array(range(first, first + len(documents)), pa.uint32()),
        "id": pa.array([_text(d.id) for d in documents], pa.string()),
        "text": pa.array([_text(d.text) for d in documents], pa.string()),
    }
    columns |= {f"label.{name}": pa.array([d.labels.get(name) for d in documents], pa.string()) for name in labels}
    return pa.table(columns)


def token_table(columns: Mapping[str, np.ndarray], labels: Mapping[str, Sequence[str | None]]) -> pa.Table:
    """Return the token table with its explicit schema.

    Args:
        columns: `document`, `position`, `start`, `end`, `token_id`, each `[T]`.
        labels: label name to `[T]` values.

    """
    table = {name: pa.array(np.asarray(columns[name], np.uint32), pa.uint32()) for name in TOKEN_COLUMNS}
    dictionary = pa.dictionary(pa.int32(), pa.string())
    return pa.table(table | {f"label.{name}": pa.array(labels[name], pa.string()).cast(dictionary) for name in sorted(labels)})


def _text(text: str) -> str:
    """Replace lone surrogates, which UTF-8 can't hold, as the tokenizer does."""
    return text.encode("utf-8", "replace").decode() if not text.isascii() else text


def _write_parquet(table: pa.Table, path: Path) -> None:
    numbers = {name: "DELTA_BINARY_PACKED" for name in table.schema.names if pa.types.is_unsigned_integer(table.schema.field(name).type)}
    others = [name for name in table.schema.names if name not in numbers]
    pq.write_table(table, path, compression="zstd", use_dictionary=others, column_encoding=numbers, store_schema=True)


def _allocate(path: Path, shape: tuple[int, int], dtype: str) -> np.ndarray:
    """Map a new `.npy` file whose disk space is taken now: a full disk is then an error here, not a crash later."""
    if 0 in shape:
        return np.empty(shape, dtype)
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as stream:
            try:
                os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
            except OSError as error:
                if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL}:
                    raise
    return array


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
