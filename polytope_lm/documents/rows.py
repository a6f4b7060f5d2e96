"""Tables of documents, a row each: JSON lines, CSV, Parquet, and whatever else yields mappings."""

from __future__ import annotations

import csv
import datetime as dt
import decimal
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from polytope_lm.documents.collection import Document
from polytope_lm.documents.plain_text import File, lines
from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_BATCH = 1024
_LARGEST_FIELD = (
    2**31 - 1
)  # characters; the csv module's own default of 131,072 is shorter than a book chapter


@dataclass(frozen=True)
class Columns:
    """Which columns of a table mean what.

    Attributes:
        text: the text's column; None: `text`, or the only one.
        labels: columns that become labels of the document.
        id: the identifier's column; None: `id` if there is one; "": none, rows get a hash of file name and
            row.

    """

    text: str | None = None
    labels: tuple[str, ...] = ()
    id: str | None = None

    def resolve(self, present: Sequence[str], place: str) -> Columns:
        """Fill the defaults from the columns that are there.

        Raises:
            PolytopeError: a named column is missing, or no text column is named and none is obvious,
                or two have one name.

        """
        listed = ", ".join(present) or "none"
        if len(set(present)) < len(present):
            msg = f"{place}: two columns have one name ({listed}); rename one"
            raise PolytopeError(msg)
        text = self.text
        if text is None:
            text = "text" if "text" in present else present[0] if len(present) == 1 else None
        if text is None:
            msg = f"{place}: which column is the text? name one with text_column; columns: {listed}"
            raise PolytopeError(msg)
        identifier = self.id if self.id is not None else "id" if "id" in present and text != "id" else ""
        for wanted in (text, *self.labels, *([identifier] if identifier else [])):
            if wanted not in present:
                msg = f"{place}: no column {wanted!r}; columns: {listed}"
                raise PolytopeError(msg)
        return Columns(text, self.labels, identifier)

    @property
    def wanted(self) -> list[str]:
        """The resolved columns, each once."""
        return list(dict.fromkeys(c for c in (self.text, *self.labels, self.id) if c))


def row_document(row: Mapping[str, object], columns: Columns, fallback: str, place: str) -> Document:
    """Document of one row by resolved columns.

    Raises:
        PolytopeError: the text is not a string, the identifier no string or whole number, or a label no
            plain value.

    """
    text = row[columns.text or ""]
    if not isinstance(text, str):
        msg = f"{place}: column {columns.text!r} is {_kind(text)}, not a text; mend or drop the row"
        raise PolytopeError(msg)
    found = {name: _label(row[name], name, place) for name in columns.labels}
    identifier: object = row[columns.id] if columns.id else fallback
    if isinstance(identifier, bool) or not isinstance(identifier, str | int) or identifier == "":
        msg = (
            f"{place}: id column {columns.id!r} is {_kind(identifier)}; "
            "mend the row, or number rows with id_column=''"
        )
        raise PolytopeError(msg)
    labels = {name: value for name, value in found.items() if value is not None}
    for what, value in (("text", text), ("id", str(identifier)), *labels.items()):
        _check_utf8(what, value, place)
    return Document(str(identifier), text, labels)


def _check_utf8(what: str, value: str, place: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON's \\ud800 escapes
        msg = (
            f"{place}: {what}, character {error.start} is the lone surrogate "
            f"U+{ord(value[error.start]):04X}, which is no text; replace it in the source"
        )
        raise PolytopeError(msg) from None


def _label(value: object, name: str, place: str) -> str | None:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str | int | float | decimal.Decimal | dt.date | dt.time):
        return str(value)
    msg = f"{place}: label column {name!r} is {_kind(value)}; a label is a string, a number or a date"
    raise PolytopeError(msg)


def _kind(value: object) -> str:
    return "empty" if value is None or value == "" else f"of type {type(value).__name__}"


def json_lines(file: File, columns: Columns) -> Iterator[Document]:
    """Make a document of each line, an object; blank lines are passed over."""
    for number, line in lines(file):
        if not line.strip():
            continue
        place = f"{file.path}, line {number}"
        row = _json_object(line, place)
        resolved = columns.resolve(list(row), place)
        yield row_document(row, resolved, file.row_id(number), place)


def _json_object(line: str, place: str) -> dict[str, object]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        msg = f"{place}: malformed JSON at character {error.pos} ({error.msg}); one complete object a line"
        raise PolytopeError(msg) from None
    except (ValueError, RecursionError) as error:  # a number of a million digits, a thousand open brackets
        msg = f"{place}: JSON that cannot be read ({error}); mend or drop the line"
        raise PolytopeError(msg) from None
    if not isinstance(row, dict):
        msg = f"{place}: a JSON {type(row).__name__}, not an object; write one {{...}} a line"
        raise PolytopeError(msg)
    return row


def csv_rows(
    file: File, columns: Columns, *, header: bool = True, delimiter: str = ","
) -> Iterator[Document]:
    """Make a document of each record of a quoted CSV file; without header the columns are "0", "1", ..."""
    records = _csv_records(file, delimiter)
    names: list[str] = []
    resolved = columns
    for number, record in records:
        place = f"{file.path}, line {number}"
        if not names:
            names = record if header else [str(i) for i in range(len(record))]
            resolved = columns.resolve(names, place)
            if header:
                continue
        if len(record) != len(names):
            msg = (
                f"{place}: {len(record)} fields where the first row has {len(names)}; "
                "mend the row's quotes or commas"
            )
            raise PolytopeError(msg)
        yield row_document(dict(zip(names, record, strict=True)), resolved, file.row_id(number), place)


def _csv_records(file: File, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Read records with the line they start on; empty lines are passed over."""
    reader = csv.reader((line for _, line in lines(file)), strict=True, delimiter=delimiter)
    while True:
        start = reader.line_num + 1
        previous = csv.field_size_limit(_LARGEST_FIELD)
        try:
            record = next(reader, None)
        except csv.Error as error:
            msg = f"{file.path}, line {start}: malformed CSV ({error}); mend the record's quotes"
            raise PolytopeError(msg) from None
        finally:
            csv.field_size_limit(previous)
        if record is None:
            return
        if record:
            yield start, record


def parquet_rows(file: File, columns: Columns) -> Iterator[Document]:
    """Make a document of each row, read batch by batch and only the columns in use."""
    import pyarrow as pa  # noqa: PLC0415 - heavy, and needed for Parquet alone
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        with pq.ParquetFile(file.path) as table:
            resolved = columns.resolve(table.schema_arrow.names, str(file.path))
            number = 0
            for batch in table.iter_batches(batch_size=_BATCH, columns=resolved.wanted):
                for row in batch.to_pylist():
                    number += 1
                    yield row_document(row, resolved, file.row_id(number), f"{file.path}, row {number}")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        msg = (
            f"{file.path}: not readable as Parquet ({reason}); write the file again or check its permissions"
        )
        raise PolytopeError(msg) from None
