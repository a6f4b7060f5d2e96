"""Checking every file of a store against what was written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polytope_lm.codes import layout
from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def problems(path: Path) -> list[str]:
    """Check every file of a store; return one line for each thing that is wrong.

    Found are a byte that differs in any file, a file or shard that is missing, truncated or grown, anything
    that is not the store's, links, and a capture that did not finish.

    Args:
        path: the store's directory.

    """
    return list(_problems(path))


def _problems(path: Path) -> Iterator[str]:
    yield from _strangers(path, {layout.MANIFEST, layout.MANIFEST_SUM, layout.COMPLETE, layout.SHARDS})
    try:
        manifest = layout.read_manifest(path)
        there = layout.committed(path)
    except PolytopeError as error:
        yield str(error)
        return
    names = layout.array_names(layout.manifest_sites(manifest), manifest["keep"])
    files = {layout.TOKENS, layout.DOCUMENTS, *(f"{name}.npy" for name in names)}
    records = {}
    for number in there:
        shard = layout.shard_path(path, number)
        yield from _strangers(shard, {*files, layout.SHARD})
        try:
            records[number] = layout.read_record(shard)
        except PolytopeError as error:
            yield str(error)
            continue
        yield from _shard_problems(shard, files, records[number])
        if records[number].first_document != number * manifest["shard_documents"]:
            yield f"{shard}: holds the documents of another shard: delete it and run the capture again"
    if (path / layout.SHARDS).is_dir():
        yield from _strangers(path / layout.SHARDS, {layout.shard_name(n) for n in there})
    yield from _completion_problems(path, there, records)


def _completion_problems(path: Path, there: list[int], records: dict[int, layout.Record]) -> Iterator[str]:
    """Look for missing shards, and compare the note about the whole with its shards."""
    file, total = path / layout.COMPLETE, None
    try:
        total = layout.completed_shards(path)
        if total is None:
            yield f"{path}: not finished: run the capture again"
            return
    except PolytopeError as error:
        yield str(error)
    missing = set(range(max(total or 0, *(n + 1 for n in there), 0))) - set(there)
    for number in sorted(missing):
        yield f"{layout.shard_path(path, number)}: missing shard: run the capture again"
    whole = total is not None and not missing and len(records) == len(there)
    if whole and layout.read_bytes(file) != layout.completion([records[n] for n in there]):
        yield f"{file}: does not match the shards: delete it and run the capture again"


def _strangers(directory: Path, expected: set[str]) -> Iterator[str]:
    """Name what does not belong into a directory, and links in the place of the store's own files."""
    for path in sorted(directory.iterdir()):
        if path.is_symlink():
            yield f"{path}: a link: the store has only files of its own, remove it"
        elif layout.LOCK_NAME.fullmatch(path.name):
            if path.stat().st_size:
                yield f"{path}: not empty, as a lock of the store is: remove it"
        elif layout.LEFTOVER_NAME.fullmatch(path.name):
            yield f"{path}: left over from an interrupted capture; run the capture again"
        elif path.name not in expected:
            yield f"{path}: foreign: it is not the store's, move it away"


def _shard_problems(shard: Path, files: set[str], record: layout.Record) -> Iterator[str]:
    """Check one shard's files against its record."""
    cure = f"delete {shard} and run the capture again"
    for name in sorted(files):
        file, expected = shard / name, record.files.get(name)
        if not file.is_file():
            yield f"{file}: missing: {cure}"
        elif expected is None:
            yield f"{file}: not in the shard's record: {cure}"
        elif file.stat().st_size != expected.bytes:
            yield f"{file}: {file.stat().st_size} bytes, {expected.bytes} were written: {cure}"
        elif layout.sha256(file) != expected.sha256:
            yield f"{file}: a byte differs from what was written: {cure}"
