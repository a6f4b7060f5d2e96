"""`plm.documents`: one door to every source of text."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Literal

from polytope_lm.documents import plain_text
from polytope_lm.documents import rows as tables
from polytope_lm.documents.collection import RESERVED, Document, Documents
from polytope_lm.documents.plain_text import File
from polytope_lm.errors import PolytopeError, public

_log = logging.getLogger(__name__)
SAMPLE, HUB = "sample", "hub:"
_TEXT = (".txt", ".text", ".md", ".rst")
_JSON = (".jsonl", ".ndjson", ".json")
_CSV = (".csv", ".tsv")
_PARQUET = (".parquet", ".pq")
_CONLLU = (".conllu",)
_ALL = (*_TEXT, *_JSON, *_CSV, *_PARQUET, *_CONLLU)

Source = str | Path | Documents | Sequence[str | Document | Mapping[str, object]]
Reader = Callable[[File], Iterator[Document]]


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
                msg = f"{option.name}={value!r} means nothing for {source}; leave it out"
                raise PolytopeError(msg)

    @property
    def columns(self) -> tables.Columns:
        return tables.Columns(self.text_column, self.label_columns, self.id_column)

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
        text_column: a table's text; by default `text`, or the only column.
        label_columns: columns of a table that become labels of the document; an empty cell is no label.
        id_column: a table's identifiers; by default `id` if it is there; "": hashes of file name and row.
        header: whether a CSV file's first row names the columns; if not, they are "0", "1", ...
        senses: whether a `.data.txt` is CoarseWSD's; by default yes where its `.gold.txt` is beside it.
        max_documents: stop after so many (repeated and blank ones not counted).

    Raises:
        PolytopeError: a source that is missing or unknown, an option it cannot use; while iterating, what
            is wrong in the data, with file, line and the cure.

    """
    if split not in {None, "blank-lines"}:
        msg = f"split={split!r} is unknown; use 'blank-lines' or leave it out"
        raise PolytopeError(msg)
    if isinstance(label_columns, str):
        label_columns = (label_columns,)
    for label in label_columns:
        if label in RESERVED:
            msg = (
                f"label column {label!r} has the name of a column of a store's tables "
                f"({', '.join(RESERVED)}); rename it in the source"
            )
            raise PolytopeError(msg)
    options = _Options(split, text_column, tuple(label_columns), id_column, header, senses)
    if isinstance(source, Documents):
        options.only("Documents that are read already")
        return source if max_documents is None else _limited(source, max_documents)
    name, read = _open(source, options)
    return Documents(name, read, options=options.describe(), max_documents=max_documents)


def _limited(source: Documents, limit: int) -> Documents:
    return Documents(source.name, source.__iter__, options=source.options, max_documents=limit)


def _open(source: object, options: _Options) -> tuple[str, Callable[[], Iterator[Document]]]:
    if isinstance(source, str) and source == SAMPLE:
        options.only("the built-in sample")
        from polytope_lm.documents.sample import sample  # noqa: PLC0415 - half a megabyte of text

        return SAMPLE, sample
    if isinstance(source, str) and source.startswith(HUB):
        options.only("a hub data set", *_TABLE)
        return _hub(source.removeprefix(HUB), options)
    if isinstance(source, str) and not source:
        msg = "the source is an empty string; give a path, 'sample' or 'hub:NAME'"
        raise PolytopeError(msg)
    if isinstance(source, str | Path):
        return _open_path(Path(source), options)
    if isinstance(source, Sequence) and not isinstance(source, bytes):
        return _open_list(source, options)
    msg = (
        f"a source of type {type(source).__name__} cannot be read twice; "
        "give a path, a name or a list of texts"
    )
    raise PolytopeError(msg)


def _open_list(items: Sequence[object], options: _Options) -> tuple[str, Callable[[], Iterator[Document]]]:
    for number, item in enumerate(items):
        if not isinstance(item, str | Document | Mapping):
            msg = (
                f"item {number} of the list is of type {type(item).__name__}; "
                "give strings, Documents or mappings"
            )
            raise PolytopeError(msg)
    options.only("a list of texts", *(_TABLE if any(isinstance(item, Mapping) for item in items) else ()))
    kept = tuple(items)

    def read() -> Iterator[Document]:
        for number, item in enumerate(kept):
            if isinstance(item, Document):
                yield item
            elif isinstance(item, str):
                yield Document(str(number), item)
            elif isinstance(item, Mapping):
                place = f"row {number}"
                columns = options.columns.resolve(list(item), place)
                yield tables.row_document(item, columns, str(number), place)

    return f"{len(kept)} text{'s' if len(kept) != 1 else ''}", read


def _open_path(path: Path, options: _Options) -> tuple[str, Callable[[], Iterator[Document]]]:
    what = _what_is(path)
    if what == "directory":
        return _open_directory(path, options)
    if what != "file":
        msg = (
            f"{str(path)[:80]!r} is {what}; "
            "give a path, 'sample', 'hub:NAME', or a text itself in a list: documents([text])"
        )
        raise PolytopeError(msg)
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


def _open_directory(path: Path, options: _Options) -> tuple[str, Callable[[], Iterator[Document]]]:
    from polytope_lm.documents.senses import is_senses  # noqa: PLC0415

    name = path.resolve().name
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        options.only("a saved data set", *_TABLE)
        shown, read = _hub(str(path), options)
        return shown.removeprefix(HUB), read
    found = [file for file in plain_text.below(path) if file.path.suffix.lower() in _ALL]
    pairs = [file for file in found if options.senses is not False and is_senses(file)]
    found = pairs or found
    kinds = sorted({file.path.suffix.lower() for file in found})
    if not found:
        msg = f"{path}: no file that can be read; known endings: {', '.join(_ALL)}"
        raise PolytopeError(msg)
    readers = [(file, _reader(file, options)) for file in found]
    if len({_kind(kind) for kind in kinds}) > 1:
        msg = (
            f"{path}: files of several kinds ({', '.join(kinds)}); "
            "give one of them, or a directory of one kind"
        )
        raise PolytopeError(msg)
    return name, lambda: chain.from_iterable(reader(file) for file, reader in readers)


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
        return partial(tables.json_lines, columns=options.columns)
    if kind == _CSV:
        options.only(f"CSV ({file.path.name})", *_TABLE, "header")
        delimiter = "\t" if suffix == ".tsv" else ","
        return partial(tables.csv_rows, columns=options.columns, header=options.header, delimiter=delimiter)
    if kind == _PARQUET:
        options.only(f"Parquet ({file.path.name})", *_TABLE)
        return partial(tables.parquet_rows, columns=options.columns)
    if kind == _CONLLU:
        options.only(f"CoNLL-U ({file.path.name})")
        from polytope_lm.documents.treebank import treebank  # noqa: PLC0415 - brings conllu

        return treebank
    msg = f"{file.path}: unknown ending {suffix or '(none)'!r}; known: {', '.join(_ALL)}"
    raise PolytopeError(msg)


def _text_reader(file: File, options: _Options) -> Reader:
    from polytope_lm.documents import senses  # noqa: PLC0415

    wanted = senses.is_senses(file) if options.senses is None else options.senses
    if wanted:
        options.only(f"senses ({file.path.name})", "senses")
        if not senses.is_senses(file):
            msg = (
                f"{file.path}: no file of senses {senses.gold_of(file).path.name} beside it; "
                "add it, or senses=False"
            )
            raise PolytopeError(msg)
        return senses.senses
    options.only(f"a text file ({file.path.name})", "split", "senses")
    return plain_text.paragraphs if options.split else plain_text.text_file


def _hub(name: str, options: _Options) -> tuple[str, Callable[[], Iterator[Document]]]:
    from polytope_lm.documents import hub  # noqa: PLC0415 - brings datasets

    base, mark, split = name.partition("#")
    if base and Path(base).is_dir():
        if not mark and "train" in (splits := hub.saved_splits(Path(base))):
            mark, split = "#", "train"
            if len(splits) > 1:
                _log.warning(
                    "%s: split 'train' of %s; for another give hub:%s#SPLIT", base, ", ".join(splits), base
                )
        shown = f"{Path(base).resolve().name}{mark}{split}"
    else:
        shown = name
    return f"{HUB}{shown}", partial(hub.hub, name, options.columns)
