"""The store's files: their names, their checksums, and how they are written and read.

```
manifest.json  manifest.sha256      written once, before the first shard
shards/00000/  NAME.npy …           packed bits of a site (uint8 [rows, ceil(N/8)]), kept activations
               tokens.parquet       document, position, start, end, token_id, labels
               documents.parquet    index, id, text, labels
               shard.json           rows, first document, SHA-256 of each file and of the manifest: its
                                    presence commits the shard
complete.json                       how many shards and rows there are, once all are written
.lock                               held for moments: who may write is settled under it
.lock.I.N                           held by the writer of part I of N, while it writes
shards/.00000.tmp/                  a shard that is being written; with partial.json, one that was interrupted
```

Checksums find accidents, not tampering: whoever can write the files can write the sums. Names are generated
from checked values, never read from a file; links and whatever is no regular file are refused. What is
checked when: see `docs/reference.md`.

A shard's arrays: `.npy` files, filled by plain writes, mapped after they were checked.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import shutil
from dataclasses import asdict, dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from polytope_lm import files
from polytope_lm.errors import PolytopeError, brief
from polytope_lm.models.sites import Site

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

FORMAT = 2
READABLE = (1, 2)
"""Format 1 differs in one thing: its shards do not say which manifest they belong to."""
MANIFEST, MANIFEST_SUM, COMPLETE, SHARDS = "manifest.json", "manifest.sha256", "complete.json", "shards"
TOKENS, DOCUMENTS, SHARD, PARTIAL = "tokens.parquet", "documents.parquet", "shard.json", "partial.json"
LOCK = ".lock"
LOCK_NAME = re.compile(r"\.lock(\.[0-9]+\.[0-9]+)?")
LEFTOVER_NAME = re.compile(r"\.[0-9]{5,}\.tmp|(manifest\.json|manifest\.sha256|complete\.json)\.tmp")
KEEPABLE = ("x", "u", "h", "up", "post")
_SUM = re.compile(r"[0-9a-f]{64}")
_MOST_JSON, _MOST_BITS = 64 * files.MEGABYTE, 2**31


def shard_name(number: int) -> str:
    """Return the directory name of a shard."""
    return f"{number:05d}"


def shard_number(name: str) -> int | None:
    """Return a shard's number from its directory's name, None for any other name."""
    number = int(name) if name.isascii() and name.isdecimal() and len(name) < 19 else -1
    return number if number >= 0 and shard_name(number) == name else None


def shard_path(store: Path, number: int) -> Path:
    """Return the directory of a shard."""
    return store / SHARDS / shard_name(number)


def array_names(sites: Sequence[Site], keep: Sequence[str]) -> dict[str, tuple[Site, str | None]]:
    """Return the arrays of a shard, by name: `SITE` for packed bits, `SITE.NAME` for kept activations."""
    return {f"{s.key}.{name}" if name else s.key: (s, name) for s in sites for name in (None, *keep)}


def dump(data: Any) -> bytes:
    """Serialise plain data so that equal data gives equal bytes."""
    return (json.dumps(data, indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n").encode()


def sha256(path: Path) -> str:
    """Return the SHA-256 of a regular file, in hexadecimal."""
    with files.open_regular(path, "store's file") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(manifest: Mapping[str, Any]) -> str:
    """Return what a shard names its manifest by."""
    return hashlib.sha256(dump(manifest)).hexdigest()


def write(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut.

    What stands under the temporary name, a link too, is removed and never written to.
    """
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(temporary, flags, 0o666), "wb") as stream:
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


@contextlib.contextmanager
def told(path: Path, doing: str) -> Iterator[None]:
    """Turn the file system's refusals into one line that says what was kept."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            reason = "the disk is full: free some space"
        elif error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            reason = "the directory can't be written: choose another or change its permissions"
        else:
            reason = f"{error.strerror or error}"
        raise PolytopeError(
            f"{path}: {doing}: {reason}; whatever was written is kept, run the same command again to go on"
        ) from error


def read_bytes(path: Path) -> bytes:
    """Read a whole JSON file or sum of the store."""
    if path.is_symlink() or not os.path.lexists(path):
        raise PolytopeError(f"{path}: no such file in the store, or a link; restore it or capture anew")
    return files.read_bytes(path, "store's file", _MOST_JSON)


def parse(path: Path, content: bytes) -> dict[str, Any]:
    """Read a JSON object."""
    data = files.parse_json(content, f"{path}: damaged")
    if not isinstance(data, dict):
        raise PolytopeError(f"{path}: damaged, a JSON {type(data).__name__} where an object was expected")
    return data


def manifest_sum(content: bytes) -> bytes:
    """Return the content of the file beside a manifest, as `sha256sum` writes it."""
    return f"{hashlib.sha256(content).hexdigest()}  {MANIFEST}\n".encode()


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a store's manifest; check its sum, its version, and the types of what is used of it."""
    file = path / MANIFEST
    if not os.path.lexists(file):
        raise PolytopeError(
            f"{path}: no store here (no {MANIFEST}); `polytope-lm capture MODEL SOURCE --out {path}` makes one"
        )
    content = read_bytes(file)
    if read_bytes(path / MANIFEST_SUM) != manifest_sum(content):
        raise PolytopeError(
            f"{file}: damaged: it and {MANIFEST_SUM} do not match; restore both from a copy or capture anew"
        )
    manifest = parse(file, content)
    if type(manifest.get("format")) is not int or manifest["format"] not in READABLE:
        raise PolytopeError(
            f"{path}: store format {brief(manifest.get('format'))}, this version reads {READABLE[0]} and "
            f"{READABLE[1]}; update polytope-lm"
        )
    _check_manifest(file, manifest)
    try:
        whole = dump(manifest) == content
    except (ValueError, RecursionError):
        whole = False
    if not whole:
        raise PolytopeError(f"{file}: damaged: not the JSON that a store is written with; capture anew")
    return manifest


def manifest_sites(manifest: Mapping[str, Any]) -> tuple[Site, ...]:
    """Return the sites of a manifest."""
    try:
        return tuple(Site.from_dict(data) for data in manifest["sites"])
    except (TypeError, RecursionError) as error:
        raise PolytopeError(f"no sites: {brief(manifest['sites'])}") from error


def _check_manifest(file: Path, manifest: Mapping[str, Any]) -> None:
    """Check what reading a store relies on; the rest of a manifest is only shown."""
    sites, keep, size = manifest.get("sites"), manifest.get("keep"), manifest.get("shard_documents")
    wrong = None
    if not isinstance(sites, list) or not sites:
        wrong = "sites is not a list of sites"
    elif not isinstance(keep, list) or any(name not in KEEPABLE for name in keep):
        wrong = f"keep is not a list of {', '.join(KEEPABLE)}"
    elif manifest.get("keep_dtype") not in ("float32", "float16"):
        wrong = "keep_dtype is neither float32 nor float16"
    elif type(size) is not int or size < 1:
        wrong = "shard_documents is not a number above 0"
    else:
        try:
            names = array_names(manifest_sites(manifest), keep)
        except PolytopeError as error:
            raise PolytopeError(f"{file}: {error}") from error
        if len(names) < len(sites) * (1 + len(keep)):
            wrong = "two of its sites have one name"
        elif any(max(site.width, site.d_model) > _MOST_BITS for site, _ in names.values()):
            wrong = f"a site is more than {_MOST_BITS:,} wide"
    if wrong:
        raise PolytopeError(f"{file}: {wrong}: this is no store of polytope-lm's, capture anew")


@dataclass(frozen=True)
class FileRecord:
    """What a file was when its shard was committed."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Record:
    """What a shard was when it was committed."""

    rows: int
    first_document: int
    documents: int
    documents_sha256: str
    files: Mapping[str, FileRecord]
    manifest: str | None = None  # sum of the one that it was written under; None in format 1
    batch_tokens: int | None = None  # of its batches, where memory was too small for the manifest's

    def to_bytes(self) -> bytes:
        """Return the content of `shard.json`: plain data with a checksum of itself."""
        data = {name: value for name, value in asdict(self).items() if value is not None}
        return dump({**data, "sha256": hashlib.sha256(dump(data)).hexdigest()})


def read_record(shard: Path, manifest: Mapping[str, Any]) -> Record:
    """Read a shard's record."""
    file = shard / SHARD
    content = read_bytes(file)
    data = parse(file, content)
    cure = f"delete {shard} and run the capture again"
    try:
        files = {str(name): FileRecord(int(f["bytes"]), str(f["sha256"])) for name, f in data["files"].items()}
        rows, first, documents = counts = [int(data[key]) for key in ("rows", "first_document", "documents")]
        smaller = data.get("batch_tokens")
        record = Record(
            rows, first, documents, str(data["documents_sha256"]), files, data.get("manifest"),
            None if smaller is None else int(smaller),
        )  # fmt: skip
        whole = record.to_bytes() == content and min(counts) >= 0
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise PolytopeError(f"{file}: damaged ({type(error).__name__}: {str(error)[:60]}); {cure}") from error
    least = {name: rows if name.endswith(".npy") else 0 for name in files}  # a row of an array has a byte at least
    if not whole or not all(_SUM.fullmatch(f.sha256) for f in files.values()):
        raise PolytopeError(f"{file}: damaged: it does not match its own checksum; {cure}")
    if short := [name for name, f in files.items() if f.bytes < least[name]]:
        raise PolytopeError(f"{shard / short[0]}: fewer bytes than the {rows:,} rows of its record; {cure}")
    expected = digest(manifest) if manifest["format"] > 1 else None
    if record.manifest != expected:
        raise PolytopeError(
            f"{shard}: a shard of another store (it names manifest {record.manifest!s:.12}, this store's "
            f"is {expected!s:.12}); {cure}"
        )
    return record


def check_file(shard: Path, name: str, record: Record, *, sums_up_to: float = math.inf) -> str | None:
    """Compare a shard's file, up to so many bytes its sum too, with its record; return what is wrong."""
    file, expected = shard / name, record.files.get(name)
    cure = f"delete {shard} and run the capture again"
    if file.is_symlink() or not file.is_file():
        return f"{file}: missing, or a link: {cure}"
    if expected is None:
        return f"{file}: not in the shard's record: {cure}"
    if (size := file.stat().st_size) != expected.bytes:
        return f"{file}: {size} bytes, {expected.bytes} were written: {cure}"
    if size <= sums_up_to and sha256(file) != expected.sha256:
        return f"{file}: a byte differs from what was written: {cure}"
    return None


def shard_files(manifest: Mapping[str, Any]) -> list[str]:
    """Return the names of a shard's files beside its record."""
    names = array_names(manifest_sites(manifest), manifest["keep"])
    return sorted([TOKENS, DOCUMENTS, *(f"{name}.npy" for name in names)])


def missing_shards(there: Collection[int], least: int, most: int) -> tuple[int, list[int]]:
    """Count the shards that are not there though a later one is; return the first `most` of them too."""
    known, last = set(there), max(least, *(n + 1 for n in there), 0)
    return last - len(known), list(islice((n for n in range(last) if n not in known), most))


def committed(path: Path) -> list[int]:
    """Return the numbers of the shards that are committed, in order."""
    shards = path / SHARDS
    try:
        if shards.is_symlink():
            raise PolytopeError(f"{shards}: a link, where the store has its own directory; capture anew")
        if not shards.is_dir():
            return []
        found = ((shard_number(p.name), p) for p in shards.iterdir())
        return sorted(n for n, p in found if n is not None and p.is_dir() and not p.is_symlink())
    except OSError as error:
        raise PolytopeError(f"{shards}: can't be read ({error.strerror})") from error


def completion(records: Iterable[Record]) -> bytes:
    """Return the content of `complete.json`; the records are looked at one by one, as a million take gigabytes."""
    rows = shards = 0
    for record in records:
        rows, shards = rows + record.rows, shards + 1
    return dump({"shards": shards, "rows": rows})


def completed_shards(path: Path) -> int | None:
    """Return how many shards a finished store has, None if the capture did not finish."""
    file = path / COMPLETE
    if not os.path.lexists(file):
        return None
    shards = parse(file, read_bytes(file)).get("shards")
    if type(shards) is not int or shards < 0:
        raise PolytopeError(f"{file}: damaged: it does not say how many shards there are; delete it and capture again")
    return shards


# What numpy writes before a two-dimensional array. The header is Python source: it is matched, never
# evaluated.
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(?P<length>..)\{'descr': '(?P<descr>[|<][a-z]\d)', 'fortran_order': False, "
    rb"'shape': \((?P<rows>\d{1,15}), (?P<columns>\d{1,15})\), \} *\n",
    re.DOTALL,
)
_MOST = 512


class Written:
    """A `.npy` file whose rows are written in any order, from any thread; only assignment is offered.

    Not through a map: the disk takes twice as long to sync pages that a map dirtied, and the processor three times as
    long to fill them. No descriptor stays open, so that many layers need few.
    """

    def __init__(self, path: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self._path, self._shape, self._dtype = path, shape, dtype
        self._row = shape[1] * dtype.itemsize
        self._start = path.stat().st_size - shape[0] * self._row

    def __setitem__(self, key: Any, value: np.ndarray) -> None:
        """Write `[rows]`, or `[rows, some columns]`; consecutive rows go in one piece."""
        chosen, columns = key if isinstance(key, tuple) else (key, slice(None))
        rows = np.arange(self._shape[0])[chosen]
        first, last, _ = columns.indices(self._shape[1])
        shape = (len(rows), last - first)
        if 0 in shape:
            return
        content = np.ascontiguousarray(np.broadcast_to(value, shape), dtype=self._dtype).view(np.uint8)
        whole = shape[1] == self._shape[1]
        cuts = np.flatnonzero(np.diff(rows) != 1) + 1 if whole else np.arange(1, len(rows))
        descriptor = os.open(self._path, os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0))
        try:
            for a, b in pairwise([0, *cuts.tolist(), len(rows)]):
                place = self._start + int(rows[a]) * self._row + first * self._dtype.itemsize
                left = memoryview(content[a:b]).cast("B")  # type: ignore[arg-type]
                while left:
                    done = _write_at(descriptor, left, place)
                    left, place = left[done:], place + done
        finally:
            os.close(descriptor)


def _write_at(descriptor: int, content: memoryview, place: int) -> int:
    """Write at a place, without a position that threads would share where the system can."""
    if hasattr(os, "pwrite"):
        return os.pwrite(descriptor, content, place)
    os.lseek(descriptor, place, os.SEEK_SET)
    return os.write(descriptor, content)


def allocate(path: Path, shape: tuple[int, int], dtype: str) -> Written:
    """Make a new `.npy` file to be filled; a disk without room for it is an error now, not when it is half full."""
    kind = np.dtype(dtype)
    size = shape[0] * shape[1] * kind.itemsize
    if shutil.disk_usage(path.parent).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    with path.open("wb") as stream:
        header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        stream.truncate(stream.tell() + size)
    return Written(path, shape, kind)


def mapped(path: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> np.ndarray:
    """Map an `.npy` file after its header and size were checked; never unpickle, never follow a link."""
    cure = f"delete {path.parent} and run the capture again"
    try:
        if path.is_symlink() or not path.is_file():
            raise PolytopeError(f"{path}: missing, or a link; {cure}")
        with path.open("rb") as stream:
            header = _HEADER.match(stream.read(_MOST))
        size = path.stat().st_size
    except OSError as error:
        raise PolytopeError(f"{path}: can't be read ({error.strerror})") from error
    if header is None or header.end() != 10 + int.from_bytes(header["length"], "little"):
        raise PolytopeError(f"{path}: damaged: it does not begin as a plain array does; {cure}")
    found = (int(header["rows"]), int(header["columns"]))
    expected = header.end() + shape[0] * shape[1] * dtype.itemsize
    if found != shape or header["descr"].decode() != dtype.str or size != expected:
        raise PolytopeError(
            f"{path}: {header['descr'].decode()} {list(found)} in {size} bytes, expected {dtype.str} {list(shape)} in "
            f"{expected}; {cure}"
        )
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=header.end(), shape=shape)
