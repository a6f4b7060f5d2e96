"""`plm.documents`: one door to every source of text."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from polytope_lm.documents import rows
from polytope_lm.documents.collection import RESERVED, Document, Documents, check_text
from polytope_lm.errors import PolytopeError, brief, public, visible
from polytope_lm.files import File, below, expand

if TYPE_CHECKING:
    from pathlib import Path

    import datasets
    import pandas as pd

    Source: TypeAlias = (
        str
        | os.PathLike[str]
        | Documents
        | Document
        | Sequence[str | Document | Mapping[str, object]]
        | pd.DataFrame
        | pd.Series[Any]
        | datasets.Dataset
        | datasets.IterableDataset
    )

_log = logging.getLogger(__name__)
SAMPLE, HUB = "sample", "hub:"
_TEXT, _JSON, _CSV = (".txt", ".text", ".md", ".rst"), (".jsonl", ".ndjson", ".json"), (".csv", ".tsv")
_PARQUET, _CONLLU = (".parquet", ".pq"), (".conllu",)
_ALL = (*_TEXT, *_JSON, *_CSV, *_PARQUET, *_CONLLU)

Reader = Callable[[File], Iterator[Document]]
Opened = tuple[str, Callable[[], Iterator[Document]]]


@dataclass(frozen=True)
class _Options:
    """What the user said about reading; a value that a source cannot use is refused, not passed over."""

    split: str | None = None
    text_column: str | None = None
    label_columns: tuple[str, ...] = ()
    id_column: str | None = None
    header: bool = True
    senses: bool | None = None

    def only(self, source: str, *usable: str) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            if value != option.default and option.name not in usable:
                raise PolytopeError(f"{option.name}={value!r} means nothing for {source}; leave it out")

    @property
    def columns(self) -> rows.Columns:
        return rows.Columns(self.text_column, self.label_columns, self.id_column)

    def describe(self) -> str:
        said = {
            "split at blank lines": self.split is not None,
            f"text column {self.text_column}": self.text_column is not None,
            f"label columns {', '.join(self.label_columns)}": bool(self.label_columns),
            f"id column {self.id_column or 'none'}": self.id_column is not None,
            "no header": not self.header,
            "not as senses": self.senses is False,
        }
        return "; ".join(words for words, holds in said.items() if holds)


_TABLE = ("text_column", "label_columns", "id_column")


@public
def documents(
    source: Source,
    *,
    split: Literal["blank-lines"] | None = None,
    text_column: str | None = None,
    label_columns: Sequence[str] = (),
    id_column: str | None = None,
    header: bool = True,
    senses: bool | None = None,
    max_documents: int | None = None,
) -> Documents:
    """Read documents from any source, lazily and as often as asked; the order never changes.

    Args:
        source: what to read: see the sources at the top of `polytope_lm.documents`.
        split: "blank-lines" makes a document of each paragraph of a text file.
        text_column: a table's text; by default `text`, or the only column (of JSON rows: `text`).
        label_columns: columns of a table that become labels of the document; an empty value is none.
        id_column: a table's identifiers; by default `id` if it is there; "": hashes of file name and row.
        header: whether a CSV file's first row names the columns; if not, they are "0", "1", ...
        senses: whether a `.data.txt` is CoarseWSD's; by default yes where its `.gold.txt` is beside it.
        max_documents: stop after so many (repeated and blank ones not counted).

    Raises:
        PolytopeError: a source that is missing or unknown, an option it cannot use; while iterating, what
            is wrong in the data, with file, line and the cure.

    Examples:
        >>> import polytope_lm as plm
        >>> rows = [{"text": "A river bank", "topic": "nature"}, {"text": "A bank loan", "topic": "money"}]
        >>> [document.labels for document in plm.documents(rows, label_columns=["topic"])]
        [{'topic': 'nature'}, {'topic': 'money'}]

    """
    if split not in {None, "blank-lines"}:
        raise PolytopeError(f"split={brief(split)} is unknown; use 'blank-lines' or leave it out")
    labels = (label_columns,) if isinstance(label_columns, str) else tuple(label_columns)
    for label in (*labels, *(name for name in (text_column, id_column) if name is not None)):
        check_text(label, "name of a column")
    for label in labels:
        if label in RESERVED:
            raise PolytopeError(
                f"label column {label!r} has the name of a column of a store's tables "
                f"({', '.join(RESERVED)}); rename it in the source"
            )
    options = _Options(split, text_column, labels, id_column, header, senses)
    if isinstance(source, Documents):
        options.only("Documents that are read already")
        if max_documents is None:
            return source
        return Documents(source.name, source.__iter__, options=source.options, max_documents=max_documents)
    name, read = _open(source, options)
    if labels:
        read = partial(_labelled, read, labels, name)
    return Documents(name, read, options=options.describe(), max_documents=max_documents)


def given(texts: Source) -> list[Document]:
    """Return texts to encode as documents, equal ones kept: a string is a text here, not a path."""
    if isinstance(texts, str | Document):
        texts = [texts]
    if isinstance(texts, Iterator):
        texts = list(texts)
    return list(texts if isinstance(texts, Documents) else _open_object(texts, _Options())[1]())


def _labelled(read: Callable[[], Iterator[Document]], labels: tuple[str, ...], name: str) -> Iterator[Document]:
    """Pass documents on; in the end, refuse a label that none of them has: its name is mistyped."""
    unseen = set(labels)
    for document in read():
        unseen.difference_update(document.labels)
        yield document
    if unseen:
        raise PolytopeError(f"{name}: no row has a label {min(unseen)!r}; check label_columns")


def _open(source: object, options: _Options) -> Opened:
    if isinstance(source, str) and source == SAMPLE:
        options.only("the built-in sample")
        from polytope_lm.documents.sample import sample  # noqa: PLC0415 - half a megabyte of text

        return SAMPLE, sample
    if isinstance(source, str) and source.startswith(HUB):
        options.only("a hub data set", *_TABLE)
        return _hub(source.removeprefix(HUB), options)
    if isinstance(source, str) and not source:
        raise PolytopeError("the source is an empty string; give a path, 'sample' or 'hub:NAME'")
    if isinstance(source, str | os.PathLike):
        return _open_path(expand(source, "source"), options)
    return _open_object(source, options)


def _open_object(source: object, options: _Options) -> Opened:
    if _is_a(source, "pandas.DataFrame"):
        options.only("a DataFrame", *_TABLE)
        kept: Any = source
        return f"DataFrame of {_count(kept, 'row')}", partial(rows.frame_rows, kept.copy(), options.columns)
    if _is_a(source, "pandas.Series"):
        options.only("a Series")
        kept = source
        return f"Series of {_count(kept, 'text')}", partial(rows.series_rows, kept.copy())
    if _is_a(source, "datasets.Dataset", "datasets.IterableDataset"):
        options.only("a data set", *_TABLE)
        from polytope_lm.documents.hub import dataset_rows  # noqa: PLC0415 - brings datasets

        return "data set", partial(dataset_rows, source, options.columns, "the data set")
    if isinstance(source, np.ndarray) and source.ndim == 1:
        source = source.tolist()
    if isinstance(source, Sequence) and not isinstance(source, str | bytes | bytearray | memoryview):
        for number, item in enumerate(source):
            if not isinstance(item, str | Document | Mapping):
                raise PolytopeError(
                    f"item {number} of the list is of type {type(item).__name__}; give strings, Documents or mappings"
                )
        tables = any(isinstance(item, Mapping) for item in source)
        options.only("a list of texts", *(_TABLE if tables else ()))
        return _count(source, "text"), partial(rows.mapping_rows, tuple(source), options.columns)
    raise PolytopeError(f"a source of type {type(source).__name__} is no collection of documents; {_cure(source)}")


def _cure(source: object) -> str:
    if isinstance(source, bytes | bytearray | memoryview):
        return "decode them first: [data.decode()]"
    if isinstance(source, Document):
        return "give a list: [document]"
    if isinstance(source, Mapping) and _is_a(source, "datasets.DatasetDict", "datasets.IterableDatasetDict"):
        return f"give one of its splits: {', '.join(map(repr, source))}"
    if isinstance(source, Mapping):
        return "write a row as [row], texts by identifier as pandas.Series(texts), columns as a DataFrame"
    if isinstance(source, Iterator):
        return "it can be read only once; give list(source)"
    return "give a path, a name, a list of texts, Documents or dicts, a DataFrame, a Series or a data set"


def _is_a(value: object, *names: str) -> bool:
    """Whether a value is of a class of another library, which need not be imported to know."""
    found = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(value).__mro__}
    return not found.isdisjoint(names)


def _count(source: Any, word: str) -> str:
    return f"{len(source)} {word}{'s' if len(source) != 1 else ''}"


def _open_path(path: Path, options: _Options) -> Opened:
    what = _what_is(path)
    if what == "directory":
        return _open_directory(path, options)
    if what != "file":
        raise PolytopeError(
            f"{str(path)[:80]!r} is {what}; "
            "give a path, 'sample', 'hub:NAME', or a text itself in a list: documents([text])"
        )
    file = File(path, path.name)
    return path.name, partial(_reader(file, options), file)


def _what_is(path: Path) -> str:
    try:
        if path.is_dir():
            return "directory"
        if path.is_file():
            return "file"
        return "not a regular file" if path.exists() else "no file or directory"
    except OSError as error:  # a text taken for a path is longer than a name may be
        return f"no path that can be read ({error.strerror})"


def _open_directory(path: Path, options: _Options) -> Opened:
    from polytope_lm.documents.senses import is_senses  # noqa: PLC0415

    if any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
        options.only("a saved data set", *_TABLE)
        shown, read = _hub(str(path), options)
        return shown.removeprefix(HUB), read
    found = [file for file in below(path) if file.path.suffix.lower() in _ALL]
    found = [file for file in found if options.senses is not False and is_senses(file)] or found
    kinds = sorted({file.path.suffix.lower() for file in found})
    if not found:
        raise PolytopeError(f"{path}: no file that can be read; known endings: {', '.join(_ALL)}")
    readers = [(file, _reader(file, options)) for file in found]
    if len({_kind(kind) for kind in kinds}) > 1:
        raise PolytopeError(
            f"{path}: files of several kinds ({', '.join(kinds)}); give one of them, or a directory of one kind"
        )
    return path.resolve().name, lambda: chain.from_iterable(reader(file) for file, reader in readers)


def _kind(suffix: str) -> tuple[str, ...]:
    return next((kind for kind in (_TEXT, _JSON, _CSV, _PARQUET, _CONLLU) if suffix in kind), ())


def _reader(file: File, options: _Options) -> Reader:
    """Reader of a file by its ending, options checked."""
    suffix = file.path.suffix.lower()
    kind = _kind(suffix)
    if kind == _TEXT:
        return _text_reader(file, options)
    if kind == _JSON:
        options.only(f"JSON lines ({file.path.name})", *_TABLE)
        return partial(rows.json_rows, columns=options.columns)
    if kind == _CSV:
        options.only(f"CSV ({file.path.name})", *_TABLE, "header")
        usual = "\t" if suffix == ".tsv" else ","
        delimiter = rows.sniff(file, options.columns, header=options.header, default=usual)
        if delimiter != usual:
            _log.warning("%s: its delimiter is the %s", visible(file.path), rows.DELIMITERS[delimiter])
        return partial(rows.csv_rows, columns=options.columns, header=options.header, delimiter=delimiter)
    if kind == _PARQUET:
        options.only(f"Parquet ({file.path.name})", *_TABLE)
        return partial(rows.parquet_rows, columns=options.columns)
    if kind == _CONLLU:
        options.only(f"CoNLL-U ({file.path.name})", "id_column")
        if options.id_column:
            raise PolytopeError(
                f"id_column={options.id_column!r} means nothing for CoNLL-U; '' numbers documents by line"
            )
        from polytope_lm.documents.treebank import treebank  # noqa: PLC0415 - brings conllu

        return partial(treebank, numbered=options.id_column == "")
    raise PolytopeError(f"{file.path}: unknown ending {suffix or '(none)'!r}; known: {', '.join(_ALL)}")


def _text_reader(file: File, options: _Options) -> Reader:
    from polytope_lm.documents import senses  # noqa: PLC0415

    if senses.is_senses(file) if options.senses is None else options.senses:
        options.only(f"senses ({file.path.name})", "senses")
        if not senses.is_senses(file):
            raise PolytopeError(
                f"{file.path}: no file of senses {senses.gold_of(file).path.name} beside it; add it, or senses=False"
            )
        return senses.senses
    options.only(f"a text file ({file.path.name})", "split", "senses")
    return paragraphs if options.split else _text_file


def _text_file(file: File) -> Iterator[Document]:
    yield Document(file.name, "".join(line for _, line in file.lines()))


def paragraphs(file: File) -> Iterator[Document]:
    """Make a document of each run of lines between blank ones; its id ends in the first line's number."""
    for first, lines in file.blocks():
        yield Document(f"{file.name}#{first}", "".join(lines).rstrip("\n"))


def _hub(name: str, options: _Options) -> tuple[str, Callable[[], Iterator[Document]]]:
    from polytope_lm.documents import hub  # noqa: PLC0415 - brings datasets

    base, mark, split = name.partition("#")
    shown = name
    if base and (folder := expand(base, "hub")).is_dir():
        if not mark and "train" in (splits := hub.saved_splits(folder)):
            mark, split = "#", "train"
            if len(splits) > 1:
                others = ", ".join(splits)
                _log.warning("%s", visible(f"{base}: split 'train' of {others}; for another give hub:{base}#SPLIT"))
        shown, name = f"{folder.resolve().name}{mark}{split}", f"{folder}{mark}{split}"
    return f"{HUB}{shown}", partial(hub.hub, name, options.columns)
