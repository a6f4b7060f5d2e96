"""The store's two tables: their columns, and reading and writing them as Parquet."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from polytope_lm.codes.store import layout
from polytope_lm.documents.collection import RESERVED
from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from polytope_lm.documents import Document

NUMBERS = ("document", "position", "start", "end", "token_id")
TOKEN_COLUMNS = (*NUMBERS, "token")
LABEL = "label."
_DOCUMENT_TYPES = {"index": pa.uint32(), "id": pa.string(), "text": pa.string()}
_TOKEN_TYPES = dict.fromkeys(NUMBERS, pa.uint32())
_LABEL_TYPES = {layout.TOKENS: pa.dictionary(pa.int32(), pa.string()), layout.DOCUMENTS: pa.string()}
_TYPES = {layout.TOKENS: _TOKEN_TYPES, layout.DOCUMENTS: _DOCUMENT_TYPES}


def check_label_names(names: Iterable[str]) -> None:
    """Refuse labels that would hide a column of the token or the document table."""
    for name in names:
        if name in RESERVED:
            raise PolytopeError(f"label {name!r} has the name of a column of a store's tables: rename it in the source")


def fingerprint(documents: Sequence[Document]) -> str:
    """Hash documents with their labels and spans, to notice a source that changed between runs."""
    digest = hashlib.sha256()
    for document in documents:
        digest.update(_plain([document.id, document.text, *_labels_of(document)]))
    return digest.hexdigest()


class SourceDigest:
    """What a source's documents are, apart: identifiers, and labels with spans (texts have their own sum)."""

    def __init__(self) -> None:
        self._ids, self._labels = hashlib.sha256(), hashlib.sha256()

    def add(self, document: Document) -> None:
        """Take in the next document."""
        self._ids.update(_plain([document.id]))
        self._labels.update(_plain(_labels_of(document)))

    def sums(self) -> dict[str, str]:
        """Return the SHA-256 sums of what was taken in, as a manifest has them."""
        return {"ids": self._ids.hexdigest(), "labels": self._labels.hexdigest()}


def _plain(data: list[Any]) -> bytes:
    return json.dumps(data, separators=(",", ":"), sort_keys=True).encode()


def _labels_of(document: Document) -> list[Any]:
    spans = [[s.start, s.end, s.kind, sorted(s.labels.items())] for s in document.spans]
    return [sorted(document.labels.items()), spans]


def document_table(documents: Sequence[Document], first: int) -> pa.Table:
    """Return the documents of a shard with their texts and labels, as one table."""
    labels = sorted({label for d in documents for label in d.labels})
    check_label_names(labels)
    columns: dict[str, Any] = {
        "index": pa.array(range(first, first + len(documents)), pa.uint32()),
        "id": pa.array([d.id for d in documents], pa.string()),
        "text": pa.array([d.text for d in documents], pa.string()),
    }
    columns |= {f"{LABEL}{n}": pa.array([d.labels.get(n) for d in documents], pa.string()) for n in labels}
    return pa.table(columns)


def token_table(columns: Mapping[str, np.ndarray], labels: Mapping[str, Sequence[str | None]]) -> pa.Table:
    """Return the token table with its explicit schema."""
    check_label_names(labels)
    table = {name: pa.array(np.asarray(columns[name], np.uint32), pa.uint32()) for name in NUMBERS}
    kind = _LABEL_TYPES[layout.TOKENS]
    return pa.table(table | {f"{LABEL}{n}": pa.array(v, pa.string()).cast(kind) for n, v in labels.items()})


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a table compactly: differences of numbers, dictionaries of texts."""
    numbers = {f.name: "DELTA_BINARY_PACKED" for f in table.schema if pa.types.is_unsigned_integer(f.type)}
    texts = [name for name in table.schema.names if name not in numbers]
    pq.write_table(table, path, compression="zstd", use_dictionary=texts, column_encoding=numbers, store_schema=True)


def read_parquet(shard: Path, name: str, record: layout.Record) -> pa.Table:
    """Read one of a shard's tables, and check its columns, its rows and the documents that it speaks of."""
    file, cure = shard / name, f"delete {shard} and run the capture again"
    if problem := layout.check_file(shard, name, record):
        raise PolytopeError(problem)
    rows = record.rows if name == layout.TOKENS else record.documents
    try:
        with pq.ParquetFile(file) as parquet:
            if (found := parquet.metadata.num_rows) != rows:
                raise PolytopeError(f"{file}: {found} rows, {rows} were written; {cure}")
            table = parquet.read()
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise PolytopeError(f"{file}: damaged ({str(error)[:60]!r}); {cure}") from error
    if problem := _problem(table, name, record):
        raise PolytopeError(f"{file}: {problem}; {cure}")
    plain = {c: table[c].cast(pa.string()) if c.startswith(LABEL) else table[c] for c in table.schema.names}
    return pa.table(plain)


def empty(name: str) -> pa.Table:
    """Return a table without rows."""
    return pa.table({column: pa.array([], kind) for column, kind in _TYPES[name].items()})


def _problem(table: pa.Table, name: str, record: layout.Record) -> str | None:
    """Say what is wrong with a table, if anything is."""
    types = _TYPES[name]
    names = table.schema.names
    labels = names[len(types) :]
    if names[: len(types)] != list(types) or len(set(names)) < len(names):
        return f"columns {names[:8]}, expected {list(types)} and labels"
    if any(not n.startswith(LABEL) or n.removeprefix(LABEL) in TOKEN_COLUMNS for n in labels):
        return f"labels {labels[:8]}, which a store does not have"
    expected = [*types.values(), *[_LABEL_TYPES[name]] * len(labels)]
    if table.schema.types != expected or any(table[column].null_count for column in types):
        return "columns of other types than a store has, or cells without a value"
    first, last = record.first_document, record.first_document + record.documents
    found = table.column(0).to_numpy().astype(np.int64)
    if name == layout.DOCUMENTS:
        whole = len(found) == record.documents and np.array_equal(found, first + np.arange(len(found)))
        return None if whole else "other documents than its record says"
    within = len(found) == record.rows and ((found >= first) & (found < last)).all()
    return None if within else f"{len(table)} rows, or tokens of other documents than its record says"
