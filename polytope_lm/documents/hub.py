"""Data sets of the Hugging Face hub, by name or directory, streamed; no code that comes with them is run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import httpx

from polytope_lm.documents.rows import Columns, row_document
from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from polytope_lm.documents.collection import Document

_PATTERN = re.compile(r"(?P<name>[^:#]+)(?::(?P<config>[^:#]+))?(?:#(?P<split>[^:#]+))?")
# Builders that parse tables of text and nothing else: no scripts, no archives, no media decoders.
_PLAIN = ("arrow", "csv", "json", "parquet", "text")


def is_saved(path: Path) -> bool:
    """Whether `save_to_disk` of `datasets` wrote this directory."""
    return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()


def saved_splits(path: Path) -> tuple[str, ...]:
    """Return the splits of a saved `DatasetDict`, none for any other directory."""
    try:
        splits = json.loads((path / "dataset_dict.json").read_bytes())["splits"]
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    return tuple(map(str, splits)) if isinstance(splits, list) else ()


def hub(name: str, columns: Columns) -> Iterator[Document]:
    """Rows of `NAME`, `NAME:CONFIG`, `NAME#SPLIT` or a directory (split `train` unless said) as documents.

    Class-label columns give the class's name, not its number.

    Raises:
        PolytopeError: unknown or unreachable data set, no such split or column, data in other than plain
            tables.

    """
    if name and Path(name).is_dir():
        yield from _documents(_guarded(name, lambda: _stream(name, None, "train")), columns, name)
        return
    match = _PATTERN.fullmatch(name)
    if match is None:
        msg = f"hub:{name}: not a data set's name; write hub:NAME, hub:NAME:CONFIG or hub:NAME:CONFIG#SPLIT"
        raise PolytopeError(msg)
    base, config, split = match["name"], match["config"], match["split"] or "train"
    yield from _documents(_guarded(name, lambda: _stream(base, config, split)), columns, name)


def _guarded(name: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except (OSError, ValueError, RuntimeError, httpx.HTTPError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        msg = f"hub:{name}: {reason}; check name, split and network, or give a local file or directory"
        raise PolytopeError(msg) from None


def _load_saved(path: Path, split: str) -> Any:
    loaded = datasets.load_from_disk(str(path))
    if isinstance(loaded, datasets.DatasetDict):
        if split not in loaded:
            msg = f"{path}: no split {split!r}; splits: {', '.join(loaded)}"
            raise PolytopeError(msg)
        return loaded[split]
    return loaded


def _stream(name: str, config: str | None, split: str) -> Any:
    if is_saved(Path(name)):
        return _load_saved(Path(name), split)
    builder = datasets.load_dataset_builder(name, config)
    # the builder's module says which parser of `datasets` it is; the data set has no part in that name
    parser = type(builder).__module__.removeprefix("datasets.packaged_modules.").partition(".")[0]
    if parser not in _PLAIN:
        msg = (
            f"hub:{name}: its data are of kind {parser!r}, not plain tables ({', '.join(_PLAIN)}); "
            "convert them first"
        )
        raise PolytopeError(msg)
    return builder.as_streaming_dataset(split=split)


def _documents(data: Any, columns: Columns, name: str) -> Iterator[Document]:
    rows = iter(data)
    names = data.column_names
    if names is None:  # a stream without a schema: its first row has one
        first = _guarded(name, lambda: next(rows, {}))
        names, rows = list(first), iter(data)
    resolved = columns.resolve(names, name)
    classes = {c: f.int2str for c, f in (data.features or {}).items() if isinstance(f, datasets.ClassLabel)}
    stem = Path(name).name
    for number in range(2**63):
        row: Mapping[str, Any] | None = _guarded(name, lambda: next(rows, None))
        if row is None:
            return
        named = {c: _class_name(row[c], classes.get(c)) for c in resolved.wanted if c in row}
        yield row_document(named, resolved, f"{stem}#{number}", f"hub:{name}, row {number}")


def _class_name(value: Any, to_name: Callable[[int], str] | None) -> Any:
    return to_name(value) if to_name is not None and isinstance(value, int) and value >= 0 else value
