"""A run over many pairs that can be stopped anywhere and goes on, from a file of JSON lines with checksums.

The first line says what was asked, and its digest is the run's mark; then one line a pair. Each line ends in
`"sum"`, 16 hexadecimal digits of the SHA-256 of mark and line. A line whose sum fails (a flipped bit, a cut,
another run's line) is dropped, and that pair is computed again. In a finished file the pairs are in order: it
has the bytes of a run that was never stopped. A file lock keeps a second run out.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from polytope_lm import files
from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path

FORMAT = 2
LARGEST = 2**32  # bytes of a file
_WHAT = "file of pairs"
_SUM = b',"sum":"%s"}'

Entry = dict[str, Any]


def resumable(
    head: Mapping[str, Any],
    work: Callable[[Sequence[int]], Iterable[tuple[int, Callable[[], Entry]]]],
    *,
    to: str | Path | None = None,
    workers: int = 2,
    told: Callable[[int], None] = lambda _done: None,
) -> list[Entry]:
    """Compute what is left of a run over pairs, some at a time, and keep each pair once it is done.

    Args:
        head: plain data: `pairs`, how many there are, and everything else that moves a number.
        work: given the numbers of the pairs that are left, yields each number with what computes its entry.
        to: the file; None keeps nothing.
        workers: threads.
        told: called with the number of pairs done, at first those of an earlier run.

    """
    with _kept(to, {"format": FORMAT, **head}) as (entries, keep):
        told(len(entries))
        left = [number for number in range(head["pairs"]) if number not in entries]
        for number, entry in _in_order(work(left), workers):
            entries[number] = {"pair": number, **entry}
            keep(entries[number])
            told(len(entries))
    return [entries[number] for number in range(head["pairs"])]


def _in_order(work: Iterable[tuple[int, Callable[[], Entry]]], workers: int) -> Iterator[tuple[int, Entry]]:
    waiting: deque[tuple[int, Future[Entry]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for number, compute in work:
                waiting.append((number, pool.submit(compute)))
                if len(waiting) > workers:
                    done, future = waiting.popleft()
                    yield done, future.result()
            for number, future in waiting:
                yield number, future.result()
        finally:  # whoever stops listening waits for the pairs at work, not for all that are queued
            pool.shutdown(wait=False, cancel_futures=True)


def encoded(head: Mapping[str, Any], entries: Iterable[Entry]) -> bytes:
    """Return a file's bytes: what was asked, then the entries in the order given."""
    mark = _mark_of(head)
    return b"".join([_line(head, ""), *(_line(entry, mark) for entry in entries)])


def _mark_of(head: Mapping[str, Any]) -> str:
    return hashlib.sha256(_body(head)).hexdigest()


def _body(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, allow_nan=False, separators=(",", ":")).encode()


def _sum(body: bytes, mark: str) -> bytes:
    return _SUM % hashlib.sha256(mark.encode() + body).hexdigest()[:16].encode()


def _line(data: Mapping[str, Any], mark: str) -> bytes:
    body = _body(data)
    return body[:-1] + _sum(body, mark) + b"\n"


def _data(line: bytes, mark: str) -> Entry | None:
    """Return a line's data, or None if its checksum fails."""
    size = len(_sum(b"", mark))
    body = line[:-size] + b"}"
    return json.loads(body) if line[-size:] == _sum(body, mark) else None


def read(path: str | Path) -> tuple[Entry, list[Entry]]:
    """Return what a file's run was asked and the entries that are whole, in order."""
    first, *lines = files.read_bytes(path, _WHAT, LARGEST).split(b"\n")
    head = _data(first, "")
    if head is not None:
        return head, list(_whole(lines, head).values())
    head = _former(first, path)
    former = (files.parse_json(line, f"{str(path)!r}, line {i}") for i, line in enumerate(lines[:-1], 2))
    entries = [one for one in former if isinstance(one, dict)]
    if [one.get("pair") for one in entries] != list(range(len(lines) - 1)):
        raise PolytopeError(f"{str(path)!r} holds pairs out of order: it is damaged; name another file")
    return head, entries


def _former(first: bytes, path: str | Path) -> Entry:
    """Return the first line of a file of format 1, which had no checksums."""
    try:
        head = json.loads(first)
    except (ValueError, RecursionError):
        head = None
    if not isinstance(head, dict) or head.get("format") != 1 or not isinstance(head.get("pairs"), int):
        raise PolytopeError(f"{str(path)!r} holds no pairs of a run, or is damaged: name another file")
    return head


def _whole(lines: Iterable[bytes], head: Mapping[str, Any]) -> dict[int, Entry]:
    mark, found = _mark_of(head), {}
    for line in lines:
        entry = _data(line, mark)
        if entry is not None and entry["pair"] in range(head["pairs"]):
            found[entry["pair"]] = entry
    return dict(sorted(found.items()))


@contextmanager
def _kept(to: str | Path | None, head: Mapping[str, Any]) -> Iterator[tuple[dict[int, Entry], Callable[[Entry], None]]]:
    """Give the entries of an earlier run, and what keeps one more."""
    if to is None:
        yield {}, lambda _entry: None
        return
    from filelock import FileLock, Timeout  # noqa: PLC0415 - only where something is kept

    path = files.expand(to, "to")
    lock = path.with_name(path.name + ".lock")
    if path.is_symlink() or lock.is_symlink():
        raise PolytopeError(f"{str(path)!r} or its lock is a link: name a file that is none")
    if path.exists() and not path.is_file():
        raise PolytopeError(f"{str(path)!r} is no regular file: name another one")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(lock).acquire(timeout=0)
    except Timeout:
        raise PolytopeError(f"{str(path)!r} is being written by another run: wait for it") from None
    except OSError as error:
        raise PolytopeError(f"{str(path)!r} can't be written: {error.strerror or error}") from None
    with held:
        entries, mark = _resumed(path, head), _mark_of(head)
        with path.open("ab") as file:

            def keep(entry: Entry) -> None:
                file.write(_line(entry, mark))
                file.flush()

            yield entries, keep
        _rewrite(path, encoded(head, (entry for _, entry in sorted(entries.items()))))


def _resumed(path: Path, head: Mapping[str, Any]) -> dict[int, Entry]:
    """Return the whole lines of an earlier run of the same job, and leave only them in the file."""
    data = files.read_bytes(path, _WHAT, LARGEST) if path.exists() else b""
    first, *lines = data.split(b"\n")
    entries = _whole(lines, head)
    if not entries and not encoded(head, ()).startswith(data):
        there = _data(first, "")
        if there is None:
            there = None if b'{"run":' in first[:7] else _former(first, path)
        if there is None or there["format"] == 1:
            raise PolytopeError(
                f"{str(path)!r} was written by an earlier version, without checksums: name another file"
            )
        if there != json.loads(_body(head)):
            differ = _differences(there, head)
            raise PolytopeError(f"{str(path)!r} holds another run's pairs ({differ}): name another file")
    _rewrite(path, encoded(head, entries.values()), data)
    return entries


def _rewrite(path: Path, wanted: bytes, there: bytes | None = None) -> None:
    """Put bytes in a file's place at once, if they aren't there."""
    if wanted == (path.read_bytes() if there is None else there) and path.exists():
        return
    new = path.with_name(path.name + f".{os.getpid()}.tmp")
    new.unlink(missing_ok=True)
    with new.open("xb") as file:  # never through a link
        file.write(wanted)
    new.replace(path)


def _differences(there: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """Say in which settings two runs differ."""
    before, now = ({**one, **one.get("settings", {})} for one in (there, asked))
    names = [name for name in now if before.get(name) != now[name] and name != "settings"]
    return ", ".join(f"{n}: {str(before.get(n))[:40]}, asked {str(now[n])[:40]}" for n in names)
