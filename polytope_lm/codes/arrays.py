"""A shard's arrays: `.npy` files, written into space that is there, mapped after they were checked."""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from pathlib import Path

# What numpy writes before a two-dimensional array. The header is Python source: it is matched, never
# evaluated.
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(?P<length>..)\{'descr': '(?P<descr>[|<][a-z]\d)', 'fortran_order': False, "
    rb"'shape': \((?P<rows>\d{1,15}), (?P<columns>\d{1,15})\), \} *\n",
    re.DOTALL,
)
_MOST = 512


def allocate(path: Path, shape: tuple[int, int], dtype: str) -> np.ndarray:
    """Map a new `.npy` file whose disk space is taken now: a full disk is an error, not a crash later."""
    if 0 in shape:
        np.save(path, np.empty(shape, dtype), allow_pickle=False)
        return np.empty(shape, dtype)
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as stream:
            try:
                os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
            except OSError as error:
                if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL}:
                    raise
    return array


def mapped(path: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> np.ndarray:
    """Map an `.npy` file after its header and size were checked; never unpickle, never follow a link.

    Args:
        path: the file.
        shape: what it must hold.
        dtype: its dtype.

    Raises:
        PolytopeError: missing, a link, or another array than expected.

    """
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
            f"{path}: {header['descr'].decode()} {list(found)} in {size} bytes, expected {dtype.str} "
            f"{list(shape)} in "
            f"{expected}; {cure}"
        )
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=header.end(), shape=shape)
