"""Files of a source, decoded line by line so that an error has its line number; plain text."""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from polytope_lm.documents.collection import Document
from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Iterator

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class File:
    """One file of a source.

    Attributes:
        path: where it is on this machine (shown in errors only).
        name: its path below the source, or its bare name: what identifiers are made of.

    """

    path: Path
    name: str

    def row_id(self, row: int) -> str:
        """Hash of name and row: the identifier of a row that brings none."""
        return hashlib.sha256(f"{self.name}\0{row}".encode()).hexdigest()[:16]


def lines(file: File) -> Iterator[tuple[int, str]]:
    r"""Lines of a UTF-8 file with their number from 1, line ends written as `\n`, a byte-order mark left out.

    Raises:
        PolytopeError: the file cannot be read, or a byte is not UTF-8 (with line, byte and the cure).

    """
    try:
        with file.path.open("rb") as handle:
            for number, raw in enumerate(handle, 1):
                yield number, _decode(file, number, raw).replace("\r\n", "\n")
    except OSError as error:
        msg = f"{file.path}: cannot be read ({error.strerror}); check the file and its permissions"
        raise PolytopeError(msg) from None


def _decode(file: File, number: int, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        msg = (
            f"{file.path}, line {number}: byte 0x{raw[error.start]:02x} is not UTF-8; "
            f"save the file as UTF-8 (for example: iconv -f latin1 -t utf-8)"
        )
        raise PolytopeError(msg) from None


def below(directory: Path) -> list[File]:
    """Regular files below a directory, sorted by name; hidden ones are passed over.

    Symbolic links are not followed: a directory from elsewhere must not pull in files from outside it. How
    many were passed over is said through `logging`.
    """
    files, links = [], 0
    for folder, folders, names in os.walk(directory, onerror=_unreadable):
        links += sum(Path(folder, name).is_symlink() for name in folders)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(folder, name)
            if path.is_symlink():
                links += 1
            elif path.is_file() and not name.startswith("."):
                files.append(File(path, path.relative_to(directory).as_posix()))
    if links:
        _log.warning("%s: %d symbolic link%s passed over", directory, links, "s" if links != 1 else "")
    return sorted(files, key=lambda file: file.name)


def _unreadable(error: OSError) -> None:
    msg = f"{error.filename}: cannot be read ({error.strerror}); check the directory and its permissions"
    raise PolytopeError(msg) from None


def text_file(file: File) -> Iterator[Document]:
    """One document: the whole file as it is."""
    yield Document(file.name, "".join(line for _, line in lines(file)))


def paragraphs(file: File) -> Iterator[Document]:
    """Make a document of each run of lines between blank ones; its id ends in the first line's number."""
    first, parts = 0, list[str]()
    for number, line in lines(file):
        if line.strip():
            first = first or number
            parts.append(line)
        elif parts:
            yield Document(f"{file.name}#{first}", "".join(parts).rstrip("\n"))
            first, parts = 0, []
    if parts:
        yield Document(f"{file.name}#{first}", "".join(parts).rstrip("\n"))
