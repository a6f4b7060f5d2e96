"""Paths that users give, and files that may be anything: read whole, regular ones only, up to a size."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polytope_lm.errors import PolytopeError, brief, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import BufferedReader

MEGABYTE = 2**20
LONGEST_LINE = 256 * MEGABYTE
_log = logging.getLogger(__name__)


def expand(path: str | os.PathLike[str], what: str = "path") -> Path:
    """Return a path that a user gave as argument `what`, `~` expanded."""
    given = os.fspath(path) if isinstance(path, str | os.PathLike) else path
    if not isinstance(given, str) or not given or "\0" in given:
        raise PolytopeError(f"{what}={brief(path)} is no path; give a string or a pathlib.Path")
    try:
        return Path(given).expanduser()
    except RuntimeError:
        raise PolytopeError(f"{what}={brief(given)}: no home directory is known; give the whole path") from None


def open_regular(path: str | os.PathLike[str], what: str) -> BufferedReader:
    """Open a regular file to read bytes; a FIFO, device or directory is refused without waiting for it.

    A link to a regular file is followed; `what` it is (`saved result`) is for the error.
    """
    try:
        # A FIFO without a writer would block: it is opened only to be refused.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
        if stat.S_ISREG(os.fstat(handle).st_mode):
            return os.fdopen(handle, "rb")
        os.close(handle)
        reason = "a directory" if Path(path).is_dir() else "a FIFO, socket or device"
        raise PolytopeError(f"{os.fspath(path)}: {reason}, not a regular file; give the {what}")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PolytopeError(f"{os.fspath(path)}: the {what} cannot be read ({reason}); check the path") from None


def read_bytes(path: str | os.PathLike[str], what: str, limit: int) -> bytes:
    """Read a regular file whole; refused as by `open_regular`, and if it has more than `limit` bytes."""
    with open_regular(path, what) as stream:
        try:
            data = stream.read(limit + 1)
        except OSError as error:
            raise PolytopeError(f"{os.fspath(path)}: the {what} cannot be read ({error.strerror})") from None
    if len(data) > limit:
        raise PolytopeError(f"{os.fspath(path)}: larger than the {limit:,} bytes that a {what} may have")
    return data


def read_text(path: str | os.PathLike[str], what: str, limit: int) -> str:
    """Read a regular file of UTF-8 whole, a byte-order mark left out; refused as by `read_bytes`."""
    data = read_bytes(path, what, limit)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PolytopeError(
            f"{os.fspath(path)}: byte {error.start} of the {what} is not UTF-8; save it as UTF-8"
        ) from None


def parse_json(text: str | bytes, place: str) -> Any:
    """Parse one JSON value; refuse what is malformed, nested too deep, or a number of too many digits."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise PolytopeError(f"{place}: malformed JSON at character {error.pos} ({error.msg})") from None
    except (ValueError, RecursionError) as error:
        raise PolytopeError(f"{place}: JSON that cannot be read ({error})") from None


def read_json(path: str | os.PathLike[str], what: str, limit: int = 64 * MEGABYTE) -> Any:
    """Read and parse a JSON file; refused as by `read_text` and `parse_json`."""
    return parse_json(read_text(path, what, limit), os.fspath(path))


def inside(directory: str | os.PathLike[str], name: str, what: str) -> Path:
    """Return `directory/name`; refuse what leads out of the directory: an absolute name, `..` or a link."""
    root = Path(directory).resolve()
    found = (root / name).resolve()
    if not found.is_relative_to(root):
        raise PolytopeError(f"{os.fspath(directory)}: {what} {brief(name)} lies outside the directory")
    return root / name


@dataclass(frozen=True)
class File:
    """One file of text, read line by line so that an error has its line number.

    Attributes:
        path: where it is on this machine (shown in errors only).
        name: its path below the source, or its bare name: what identifiers are made of.
        opener: opens what is no local file.

    """

    path: Path
    name: str
    opener: Callable[[], BufferedReader] | None = None

    def open(self) -> BufferedReader:
        """Open the file to read bytes; a local one must be regular."""
        return self.opener() if self.opener else open_regular(self.path, "source")

    def lines(self) -> Iterator[tuple[int, str]]:
        r"""Lines of UTF-8 with their number from 1, line ends written as `\n`, a byte-order mark left out."""
        number = 0
        try:
            with self.open() as stream:
                while raw := stream.readline(LONGEST_LINE + 1):
                    number += 1
                    if len(raw) > LONGEST_LINE:
                        raise PolytopeError(
                            f"{self.path}, line {number}: more than {LONGEST_LINE // MEGABYTE} MiB; divide it"
                        )
                    yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            raise PolytopeError(
                f"{self.path}, line {number}: byte 0x{error.object[error.start]:02x} is not UTF-8; save the "
                "file as UTF-8 (for example: iconv -f latin1 -t utf-8)"
            ) from None
        except OSError as error:
            raise PolytopeError(
                f"{self.path}: cannot be read ({error.strerror}); check the file and its permissions"
            ) from None

    def blocks(self) -> Iterator[tuple[int, list[str]]]:
        """Divide the lines at blank ones; each run with the number of its first."""
        for filled, found in groupby(self.lines(), lambda numbered: bool(numbered[1].strip())):
            if filled:
                run = list(found)
                yield run[0][0], [line for _, line in run]

    def row_id(self, row: int) -> str:
        """Hash of name and row: the identifier of a row that brings none."""
        return hashlib.sha256(f"{self.name}\0{row}".encode(errors="surrogateescape")).hexdigest()[:16]


def below(directory: Path) -> list[File]:
    """Regular files below a directory, sorted by name; hidden ones are passed over.

    Symbolic links are not followed: a directory from elsewhere must not pull in files from outside it. How
    many were passed over is said through `logging`.
    """
    found, links = [], 0
    for folder, folders, names in os.walk(directory, onerror=_unreadable):
        links += sum(Path(folder, name).is_symlink() for name in folders)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(folder, name)
            if path.is_symlink():
                links += 1
            elif path.is_file() and not name.startswith("."):
                found.append(File(path, path.relative_to(directory).as_posix()))
    if links:
        _log.warning("%s: %d symbolic link%s passed over", visible(directory), links, "s" if links != 1 else "")
    return sorted(found, key=lambda file: file.name)


def _unreadable(error: OSError) -> None:
    raise PolytopeError(
        f"{error.filename}: cannot be read ({error.strerror}); check the directory and its permissions"
    ) from None
