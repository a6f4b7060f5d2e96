"""Rows of documents: JSON lines, CSV, Parquet, DataFrames, data sets, lists of mappings; one reading for all.

A value keeps the type that its source gives it: in CSV and JSON the label `007` stays `007` and `NO` stays `NO`, since
nothing is guessed. A label is then written as a string: 3 as `3`, 3.0 as `3.0`, true as `True`, a date as `2020-01-31`,
a time stamp as `2020-01-31 10:00:00`. An empty string, null, NaN or a key that is not there is no label.
"""

from __future__ import annotations

import csv
import datetime as dt
import decimal
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from polytope_lm.documents.collection import Document, check_text
from polytope_lm.errors import PolytopeError
from polytope_lm.files import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pandas as pd

    from polytope_lm.files import File

_LARGEST_FIELD = 2**31 - 1  # characters; the csv module's own 131,072 is shorter than a book chapter
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_MISSING = {"NAType", "NaTType"}  # pandas' own, without importing it


@dataclass(frozen=True)
class Columns:
    """Which columns of a table mean what.

    Attributes:
        text: the text's column; None: `text`, or the only one of a table with a header.
        labels: columns that become labels of the document.
        id: the identifier's column; None: `id` if there is one; "": none, rows get a hash of file name and row.
        classes: names of the numbers 0, 1, ... in columns that hold such.

    """

    text: str | None = None
    labels: tuple[str, ...] = ()
    id: str | None = None
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def resolve(self, present: Sequence[str], place: str) -> Columns:
        """Fill the defaults from a table's header."""
        listed = ", ".join(present) or "none"
        if len(set(present)) < len(present):
            raise PolytopeError(f"{place}: two columns have one name ({listed}); rename one")
        text = self.text
        if text is None:
            text = "text" if "text" in present else present[0] if len(present) == 1 else None
        if text is None:
            raise PolytopeError(f"{place}: which column is the text? name one with text_column; columns: {listed}")
        identifier = self.id if self.id is not None else "id" if "id" in present and text != "id" else ""
        for wanted in (text, *self.labels, *([identifier] if identifier else [])):
            if wanted not in present:
                raise PolytopeError(f"{place}: no column {wanted!r}; columns: {listed}")
        return replace(self, text=text, id=identifier)

    @property
    def wanted(self) -> list[str]:
        """The resolved columns, each once."""
        return list(dict.fromkeys(c for c in (self.text, *self.labels, self.id) if c))

    def document(self, row: Mapping[str, Any], fallback: str, place: str) -> Document:
        """Document of one row, which may lack labels; `fallback` is its identifier where it has none."""
        column = self.text if self.text is not None else "text"
        if column not in row:
            keys = ", ".join(map(str, islice(row, 20))) or "none"
            raise PolytopeError(
                f"{place}: no column {column!r}; the row has: {keys}; name the text's with text_column, or drop the row"
            )
        text = row[column]
        if not isinstance(text, str):
            raise PolytopeError(f"{place}: column {column!r} is {_kind(text)}, not a text; mend or drop the row")
        key = self.id if self.id is not None else "id" if "id" in row and column != "id" else ""
        if key and key not in row:
            raise PolytopeError(f"{place}: no column {key!r}; mend the row, or number rows with id_column=''")
        given = _plain(row[key]) if key else fallback
        if isinstance(given, bool) or not isinstance(given, str | int) or given == "":
            raise PolytopeError(
                f"{place}: id column {key!r} is {_kind(given)}; mend the row, or number rows with id_column=''"
            )
        labels = {}
        for name in self.labels:
            value = _plain(row.get(name))
            if (names := self.classes.get(name)) and str(value).isdecimal() and int(value) < len(names):
                value = names[int(value)]
            if (label := _label(value, name, place)) is not None:
                labels[name] = label
        try:
            return Document(str(given), text, labels)
        except PolytopeError as error:
            raise PolytopeError(f"{place}: {error}") from None


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _label(value: object, name: str, place: str) -> str | None:
    nothing = value is None or value == "" or type(value).__name__ in _MISSING
    if nothing or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str | int | float | decimal.Decimal | dt.date | dt.time):
        return str(value)
    raise PolytopeError(f"{place}: label column {name!r} is {_kind(value)}; a label is a string, a number or a date")


def _kind(value: object) -> str:
    return "empty" if value is None or value == "" else f"of type {type(value).__name__}"


def json_rows(file: File, columns: Columns) -> Iterator[Document]:
    """Make a document of each line, an object; blank lines are passed over. Or: of each item of one array."""
    for number, row, what in _json_values(file):
        place = f"{file.path}, {what} {number}"
        if not isinstance(row, dict):
            raise PolytopeError(f"{place}: a JSON {type(row).__name__}, not an object; write one {{...}} a line")
        yield columns.document(row, file.row_id(number), place)


def _json_values(file: File) -> Iterator[tuple[int, Any, str]]:
    lines = file.lines()
    for number, line in lines:
        if line.lstrip().startswith("[") and ".json" in file.path.suffixes:
            rows = parse_json(line + "".join(rest for _, rest in lines), str(file.path))
            yield from ((item, row, "item") for item, row in enumerate(rows, 1))
        elif line.strip():
            yield number, parse_json(line, f"{file.path}, line {number}"), "line"


def csv_rows(file: File, columns: Columns, *, header: bool = True, delimiter: str = ",") -> Iterator[Document]:
    """Make a document of each record; without header the columns are "0", "1", ..."""
    names: list[str] = []
    resolved = columns
    for number, record in _records(file.path, file.lines(), delimiter):
        place = f"{file.path}, line {number}"
        if not names:
            names = record if header else [str(i) for i in range(len(record))]
            resolved = columns.resolve(names, place)
            if header:
                continue
        if len(record) != len(names):
            raise PolytopeError(
                f"{place}: {len(record)} fields where the first row has {len(names)}; "
                f"mend the row's quotes or delimiters (the file's is the {DELIMITERS[delimiter]})"
            )
        yield resolved.document(dict(zip(names, record, strict=True)), file.row_id(number), place)


def sniff(file: File, columns: Columns, *, header: bool = True, default: str = ",") -> str:
    """Return what divides a table's fields: comma, semicolon, tab or vertical bar.

    The default, where its header has the wanted columns; then whichever gives a header with them; then one
    that divides the first 20 records alike, where the default does not divide the first at all.
    """
    wanted = {columns.text or "text", *columns.labels, *([columns.id] if columns.id else [])}
    order = sorted(DELIMITERS, key=lambda delimiter: delimiter != default)
    records = {delimiter: _first_records(file, delimiter) for delimiter in order}
    if header:
        for delimiter, found in records.items():
            if found and wanted <= set(found[0]):
                return delimiter
    if records[default] and len(records[default][0]) == 1:
        for delimiter, found in records.items():
            sizes = {len(record) for record in found}
            if len(sizes) == 1 and max(sizes) > 1:
                return delimiter
    return default


def _first_records(file: File, delimiter: str) -> list[list[str]]:
    try:
        return [record for _, record in islice(_records(file.path, islice(file.lines(), 50), delimiter), 20)]
    except PolytopeError:  # said when the table is read
        return []


def _records(path: object, lines: Iterable[tuple[int, str]], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Read records with the line they start on; empty lines are passed over.

    Between tabs a quotation mark is a character, as the format has it: a record is a line. Two ways of
    writing are undone: all fields quoted, by the first line; a field in quotes that has its own doubled.
    """
    lines = iter(lines)
    if (first := next(lines, None)) is None:
        return
    lines = chain([first], lines)
    if delimiter == "\t" and not all(_QUOTED.fullmatch(part) for part in first[1].rstrip("\r\n").split("\t")):
        for number, line in lines:
            if bare := line.rstrip("\r\n"):
                yield number, [_unquoted(part) for part in bare.split("\t")]
        return
    reader = csv.reader((line for _, line in lines), strict=True, delimiter=delimiter)
    while True:
        start = reader.line_num + 1
        previous = csv.field_size_limit(_LARGEST_FIELD)
        try:
            record = next(reader, None)
        except csv.Error as error:
            raise PolytopeError(f"{path}, line {start}: malformed CSV ({error}); mend the record's quotes") from None
        finally:
            csv.field_size_limit(previous)
        if record is None:
            return
        if record:
            yield start, record


def _unquoted(part: str) -> str:
    return part[1:-1].replace('""', '"') if '""' in part[1:-1] and _QUOTED.fullmatch(part) else part


def parquet_rows(file: File, columns: Columns) -> Iterator[Document]:
    """Make a document of each row, read batch by batch and only the columns in use."""
    import pyarrow as pa  # noqa: PLC0415 - heavy, and needed for Parquet alone
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        with file.open() as stream, pq.ParquetFile(stream) as table:
            schema = table.schema_arrow
            resolved = columns.resolve(schema.names, str(file.path))
            resolved = replace(resolved, classes=_class_names(schema.metadata, str(file.path)))
            number = 0
            for batch in table.iter_batches(batch_size=1024, columns=resolved.wanted):
                values = [_values(batch, name, f"{file.path}, rows from {number + 1}") for name in resolved.wanted]
                for row in zip(*values, strict=True):
                    number += 1
                    named = dict(zip(resolved.wanted, row, strict=True))
                    yield resolved.document(named, file.row_id(number), f"{file.path}, row {number}")
    except (pa.ArrowException, OSError, ValueError) as error:
        raise PolytopeError(
            f"{file.path}: not readable as Parquet ({error}); write the file again or check its permissions"
        ) from None


def _class_names(metadata: Mapping[bytes, bytes] | None, place: str) -> dict[str, list[str]]:
    """Return the names of classes, by column, that `datasets` writes into a Parquet file."""
    note = (metadata or {}).get(b"huggingface")
    try:
        features = parse_json(note, place)["info"]["features"] if note else {}
        return {name: [*map(str, f["names"])] for name, f in features.items() if f.get("_type") == "ClassLabel"}
    except (LookupError, TypeError, AttributeError):
        raise PolytopeError(f"{place}: its note of features is damaged; write the file again") from None


def _values(batch: Any, name: str, place: str) -> list[Any]:
    try:
        return list(batch.column(name).to_pylist())
    except (ValueError, OverflowError) as error:  # a year beyond 9999, bytes that are no text
        raise PolytopeError(f"{place}: column {name!r} has a value that cannot be read ({error})") from None


def mapping_rows(rows: Sequence[object], columns: Columns) -> Iterator[Document]:
    """Make a document of each item: a string, a Document, or a mapping."""
    for number, item in enumerate(rows):
        if isinstance(item, Document):
            yield item
        elif isinstance(item, Mapping):
            yield columns.document(item, str(number), f"row {number}")
        else:
            check_text(item, f"text {number}")
            yield Document(str(number), str(item))


def frame_rows(frame: pd.DataFrame, columns: Columns) -> Iterator[Document]:
    """Make a document of each row of a DataFrame; unique strings of its index are the identifiers."""
    names = [str(name) for name in frame.columns]
    resolved = columns.resolve(names, "the DataFrame")
    rows = zip(index_ids(frame), frame.itertuples(index=False, name=None), strict=True)
    for number, (name, row) in enumerate(rows):
        yield resolved.document(dict(zip(names, row, strict=True)), name, f"the DataFrame, row {number}")


def index_ids(frame: pd.DataFrame | pd.Series[Any]) -> list[str]:
    """Return the index of a DataFrame or Series where it is of unique strings, else the rows' numbers."""
    index = list(frame.index)
    named = all(isinstance(value, str) for value in index) and len(set(index)) == len(index)
    return index if named else [str(number) for number in range(len(index))]


def series_rows(series: pd.Series[Any]) -> Iterator[Document]:
    """Make a document of each text of a Series; unique strings of its index are the identifiers."""
    for name, text in zip(index_ids(series), series, strict=True):
        if not isinstance(text, str):
            raise PolytopeError(f"the Series, row {name!r}: {_kind(text)}, not a text; drop it (.dropna())")
        yield Document(name, text)
