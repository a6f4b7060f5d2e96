"""The store's files: their names, their checksums, and what may lie in its directory.

```
manifest.json  manifest.sha256      written once, before the first shard
shards/00000/  NAME.npy …           packed bits of a site (uint8 [rows, ceil(N/8)]), kept activations
               tokens.parquet       document, position, start, end, token_id, labels
               documents.parquet    index, id, text, labels
               shard.json           rows, first document, SHA-256 of each file: its presence commits the shard
complete.json                       how many shards and rows there are, once all are written
.lock.I.N                           held by the writer of part I of N
```

Checksums find accidents, not tampering: whoever can write the files can write the sums.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from polytope_lm.errors import PolytopeError

FORMAT = 1
MANIFEST, MANIFEST_SUM, COMPLETE, SHARDS = "manifest.json", "manifest.sha256", "complete.json", "shards"
TOKENS, DOCUMENTS, SHARD = "tokens.parquet", "documents.parquet", "shard.json"
LOCK_NAME = re.compile(r"\.lock\.\d+\.\d+")
SHARD_NAME = re.compile(r"\d{5,}")


def shard_name(number: int) -> str:
    """Return the directory name of a shard."""
    return f"{number:05d}"


def dump(data: Any) -> bytes:
    """Serialise plain data so that equal data gives equal bytes."""
    return (json.dumps(data, indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n").encode()


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make a rename inside a directory durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_json(path: Path) -> Any:
    """Read plain data.

    Raises:
        PolytopeError: the file is missing, a link, or no JSON.

    """
    if path.is_symlink() or not path.is_file():
        raise PolytopeError(f"{path}: no such file in the store; run `polytope-lm info STORE --verify`")
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise PolytopeError(f"{path}: damaged ({error}); delete what holds it and run the capture again") from error


@contextlib.contextmanager
def told(path: Path, doing: str) -> Iterator[None]:
    """Turn the file system's refusals into one line that says what was kept.

    Raises:
        PolytopeError: the disk is full, the directory can't be written, or another failure of the file system.

    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            reason = "the disk is full: free some space"
        elif error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            reason = "the directory can't be written: choose another or change its permissions"
        else:
            reason = f"{error.strerror or error}"
        raise PolytopeError(f"{path}: {doing}: {reason}; whatever was written is kept, run the same command again to go on") from error


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a store's manifest and check it against its own sum.

    Raises:
        PolytopeError: no store there, a damaged manifest, or one of another format version.

    """
    file = path / MANIFEST
    if not file.is_file():
        raise PolytopeError(f"{path}: no store here (no {MANIFEST}); `polytope-lm capture MODEL SOURCE --out {path}` makes one")
    sums = path / MANIFEST_SUM
    if not sums.is_file() or sha256(file) != sums.read_text(encoding="ascii", errors="replace").split(" ", maxsplit=1)[0].strip():
        raise PolytopeError(f"{file}: damaged: it does not match {MANIFEST_SUM}; restore it from a copy or capture anew")
    manifest: dict[str, Any] = read_json(file)
    if manifest.get("format") != FORMAT:
        raise PolytopeError(f"{path}: store format {manifest.get('format')}, this version reads {FORMAT}; update polytope_lm")
    return manifest


def committed(path: Path) -> list[int]:
    """Return the numbers of the shards that are committed, in order."""
    shards = path / SHARDS
    if not shards.is_dir():
        return []
    return sorted(int(p.name) for p in shards.iterdir() if SHARD_NAME.fullmatch(p.name) and p.is_dir() and not p.is_symlink())


def problems(path: Path, names: list[str]) -> list[str]:
    """Check every file of a store; return one line for each thing that is wrong.

    Args:
        path: the store's directory.
        names: the names of the arrays that each shard must hold.

    """
    found = _strangers(path, {MANIFEST, MANIFEST_SUM, COMPLETE, SHARDS})
    try:
        read_manifest(path)
    except PolytopeError as error:
        found.append(str(error))
    there = committed(path)
    total = len(there)
    if (path / COMPLETE).is_file():
        total = int(read_json(path / COMPLETE).get("shards", 0))
    missing = sorted(set(range(max([total, *(n + 1 for n in there)], default=0))) - set(there))
    found += [f"{path / SHARDS / shard_name(n)}: missing shard: run the capture again" for n in missing]
    if (path / SHARDS).is_dir():
        found += _strangers(path / SHARDS, {shard_name(n) for n in there})
    files = {TOKENS, DOCUMENTS, *(f"{name}.npy" for name in names)}
    for number in there:
        found += _shard_problems(path / SHARDS / shard_name(number), files)
    return found


def _strangers(directory: Path, expected: set[str]) -> list[str]:
    there = sorted(p for p in directory.iterdir() if p.name not in expected and not LOCK_NAME.fullmatch(p.name))
    lines = [f"{p}: a foreign file: it is not the store's, move it away" for p in there]
    return lines + [f"{directory / n}: a link, where the store has its own file" for n in sorted(expected) if (directory / n).is_symlink()]


def _shard_problems(shard: Path, files: set[str]) -> list[str]:
    """Check one shard's files against its record."""
    cure = f"delete {shard} and run the capture again"
    found = _strangers(shard, {*files, SHARD})
    try:
        record = read_json(shard / SHARD)
        sums = dict(record["files"])
    except (PolytopeError, KeyError, TypeError, ValueError) as error:
        return [*found, f"{shard / SHARD}: damaged or missing ({error}): {cure}"]
    body = {key: value for key, value in record.items() if key != "sha256"}
    if record.get("sha256") != hashlib.sha256(dump(body)).hexdigest():
        found.append(f"{shard / SHARD}: does not match its own checksum: {cure}")
    for name in sorted(files):
        file = shard / name
        if not file.is_file():
            found.append(f"{file}: missing: {cure}")
        elif file.stat().st_size != sums.get(name, {}).get("bytes"):
            found.append(f"{file}: truncated or grown to {file.stat().st_size} bytes, {sums.get(name, {}).get('bytes')} expected: {cure}")
        elif sha256(file) != sums[name]["sha256"]:
            found.append(f"{file}: a byte differs from what was written: {cure}")
    return found
