"""Paths that users give, and files that may be anything: read whole, regular ones only, up to a size."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from polytope_lm.errors import PolytopeError, brief

MEGABYTE = 2**20


def expand(path: str | os.PathLike[str], what: str = "path") -> Path:
    """Return a path that a user gave, `~` expanded.

    Args:
        path: what the user gave.
        what: the argument's name, for the error.

    Raises:
        PolytopeError: not a string or a path, empty, with a NUL, or `~` of someone unknown.

    """
    given = os.fspath(path) if isinstance(path, str | os.PathLike) else path
    if not isinstance(given, str) or not given or "\0" in given:
        raise PolytopeError(f"{what}={brief(path)} is no path; give a string or a pathlib.Path")
    try:
        return Path(given).expanduser()
    except RuntimeError:
        raise PolytopeError(
            f"{what}={brief(given)}: no home directory is known; give the whole path"
        ) from None


def open_regular(path: str | os.PathLike[str], what: str) -> BinaryIO:
    """Open a regular file to read bytes; a FIFO, device or directory is refused without waiting for it.

    Args:
        path: the file; a link to a regular file is followed.
        what: what the file is, for the error (`saved result`).

    Raises:
        PolytopeError: it is missing, not regular, or not permitted.

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
        raise PolytopeError(
            f"{os.fspath(path)}: the {what} cannot be read ({reason}); check the path"
        ) from None


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
    """Parse one JSON value.

    Raises:
        PolytopeError: malformed, nested too deep, or a number of too many digits.

    """
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
    """Return `directory/name` where that stays inside the directory, links followed.

    Raises:
        PolytopeError: `name` is absolute, or leads out of the directory by `..` or a link.

    """
    root = Path(directory).resolve()
    found = (root / name).resolve()
    if not found.is_relative_to(root):
        raise PolytopeError(f"{os.fspath(directory)}: {what} {brief(name)} lies outside the directory")
    return root / name
