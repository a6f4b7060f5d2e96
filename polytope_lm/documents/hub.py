"""Data sets of the Hugging Face hub, by name or directory, streamed; no code that comes with them is run.

CSV, JSON and Parquet are read as local files of these kinds are, so that both ways give the same values; the
library `datasets` finds the files and reads the other kinds. No file outside the data set is read.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import fsspec
import httpx
from huggingface_hub import DatasetCard
from yaml import YAMLError  # type: ignore[import-untyped]

from polytope_lm import files
from polytope_lm.documents import rows
from polytope_lm.errors import PolytopeError, brief

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from polytope_lm.documents.collection import Document
    from polytope_lm.documents.rows import Columns

_PATTERN = re.compile(r"(?P<name>[^:#]+)(?::(?P<config>[^:#]+))?(?:#(?P<split>[^:#]+))?")
# Builders that parse tables of text and nothing else: no scripts, no archives, no media decoders.
_PLAIN = ("arrow", "csv", "json", "parquet", "text")
_UNREADABLE = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, httpx.HTTPError, YAMLError)
_NOTE = 16 * files.MEGABYTE


def saved_splits(path: Path) -> tuple[str, ...]:
    """Return the splits of a saved `DatasetDict`, none for any other directory."""
    if not (path / "dataset_dict.json").is_file():
        return ()
    found = files.read_json(files.inside(path, "dataset_dict.json", "file"), "list of splits", _NOTE)
    splits = found.get("splits") if isinstance(found, dict) else None
    return tuple(map(str, splits)) if isinstance(splits, list) else ()


def hub(name: str, columns: Columns) -> Iterator[Document]:
    """Rows of `NAME`, `NAME:CONFIG`, `NAME#SPLIT` or a directory (split `train` unless said) as documents.

    Class-label columns give the class's name, not its number.
    """
    match = _PATTERN.fullmatch(name)
    local = Path(name).is_dir() if name else False
    if match is None and not local:
        raise PolytopeError(
            f"hub:{name}: not a data set's name; write hub:NAME, hub:NAME:CONFIG or hub:NAME:CONFIG#SPLIT"
        )
    base, config, split = (name, None, None) if local or match is None else match.groups()
    saved = any((Path(base) / note).is_file() for note in ("state.json", "dataset_dict.json"))
    read = _saved if saved else partial(_built, config=config)
    try:
        yield from read(base, split=split or "train", columns=columns)
    except _UNREADABLE as error:
        reason = str(error)[:200] or type(error).__name__
        raise PolytopeError(
            f"hub:{name}: {reason}; check name, split and network, or give a local file or directory"
        ) from None


def _saved(base: str, *, split: str, columns: Columns) -> Iterator[Document]:
    folder = Path(base)
    if (folder / "dataset_dict.json").is_file():
        _check_split(base, split, saved_splits(folder))
        folder = files.inside(folder, split, "split")
    state = files.read_json(files.inside(folder, "state.json", "file"), "saved data set", _NOTE)
    listed = [*(state["_data_files"] or ()), *(state.get("_indices_data_files") or ())]
    for path in ("dataset_info.json", *(str(entry["filename"]) for entry in listed)):
        files.open_regular(files.inside(folder, path, "file"), "saved data set").close()
    yield from dataset_rows(datasets.Dataset.load_from_disk(str(folder)), columns, base)


def _check_directory(base: str) -> None:
    """Refuse links and patterns that lead out of a data set's directory, before `datasets` follows them."""
    for folder, folders, names in os.walk(base):
        for path in (Path(folder, name) for name in (*folders, *names)):
            if path.is_symlink() and not path.resolve().is_relative_to(Path(base).resolve()):
                raise PolytopeError(
                    f"{base}: link {brief(path.relative_to(base).as_posix())} lies outside the directory, as those of "
                    f"the hub's cache do; give a copy without links (cp -rL {base} COPY)"
                )
    notes = {name: Path(base, name) for name in (datasets.config.REPOCARD_FILENAME, datasets.config.REPOYAML_FILENAME)}
    for name, note in notes.items():
        if not note.exists():
            continue
        with files.open_regular(note, "data set") as stream:
            text = stream.read(_NOTE).decode()
        card = text if name == datasets.config.REPOCARD_FILENAME else f"---\n{text}\n---\n"
        configs = getattr(DatasetCard(card, ignore_metadata_errors=True).data, "configs", None)
        for config in configs if isinstance(configs, list) else ():
            for pattern in _strings([config.get(key) for key in ("data_files", "data_dir")]):
                if Path(pattern).is_absolute() or ".." in Path(pattern).parts or "://" in pattern or "::" in pattern:
                    raise PolytopeError(f"{base}: data file {brief(pattern)} of {name} lies outside the directory")


def _strings(data: Any) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict | list | tuple):
        for entry in data.values() if isinstance(data, dict) else data:
            yield from _strings(entry)


def _built(base: str, *, config: str | None, split: str, columns: Columns) -> Iterator[Document]:
    if Path(base).is_dir():
        _check_directory(base)
    builder = datasets.load_dataset_builder(base, config)
    # the builder's module says which parser of `datasets` it is; the data set has no part in that name
    parser = type(builder).__module__.removeprefix("datasets.packaged_modules.").partition(".")[0]
    if parser not in _PLAIN:
        raise PolytopeError(
            f"hub:{base}: its data are of kind {parser!r}, not plain tables ({', '.join(_PLAIN)}); convert them first"
        )
    listed = {str(key): [str(path) for path in paths] for key, paths in builder.config.data_files.items()}
    _check_split(base, split, listed)
    found = [_data_file(base, builder.base_path, path) for path in listed[split]]
    given = builder.config
    if getattr(given, "field", None) or getattr(given, "names", None) or parser not in ("csv", "json", "parquet"):
        yield from dataset_rows(builder.as_streaming_dataset(split=split), columns, base)
        return
    columns = replace(columns, classes=_classes(builder.info.features))
    for file in found:
        if parser == "json":
            yield from rows.json_rows(file, columns)
        elif parser == "parquet":
            yield from rows.parquet_rows(file, columns)
        else:
            delimiter = given.sep if given.sep in rows.DELIMITERS else ","
            yield from rows.csv_rows(file, columns, delimiter=rows.sniff(file, columns, default=delimiter))


def _check_split(base: str, split: str, splits: Iterable[str]) -> None:
    if split not in splits:
        raise PolytopeError(f"{base}: no split {split!r}; splits: {', '.join(splits)}")


def _data_file(base: str, root: str, path: str) -> files.File:
    """Return a data file of a data set, refused where it lies outside."""
    if Path(base).is_dir():
        files.open_regular(files.inside(base, path, "data file"), "data set").close()
        name = Path(path).resolve().relative_to(Path(base).resolve()).as_posix()
    else:
        name = path.removeprefix(root.rstrip("/") + "/")
        if name == path or ".." in name.split("/"):
            raise PolytopeError(f"hub:{base}: data file {brief(path)} lies outside the data set")
    return files.File(Path(name), name, lambda: fsspec.open(path, "rb", compression="infer").open())


def dataset_rows(data: Any, columns: Columns, name: str) -> Iterator[Document]:
    """Make a document of each row of a `Dataset` or `IterableDataset`."""
    if data.column_names is not None:  # None: a stream without a schema
        columns = columns.resolve(data.column_names, name)
        data = data.select_columns(columns.wanted)
    columns = replace(columns, classes=_classes(data.features))
    stem = Path(name).name
    for number, row in enumerate(data):
        yield columns.document(row, f"{stem}#{number}", f"{name}, row {number}")


def _classes(features: Any) -> dict[str, list[str]]:
    return {c: list(f.names) for c, f in (features or {}).items() if isinstance(f, datasets.ClassLabel)}
