"""One door to numba: machine code kept on disk where there is a place for it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast, overload

import numba

F = TypeVar("F", bound=Callable[..., Any])


@overload
def compiled(function: F) -> F: ...
@overload
def compiled(**options: Any) -> Callable[[F], F]: ...
def compiled(function: Any = None, **options: Any) -> Any:
    """Compile with numba, without the interpreter's lock.

    Args:
        function: plain Python; what checks its signature (in tests) is taken off first.
        options: of `numba.njit`, such as `parallel=True`.

    """
    if function is None:
        return lambda given: _made(given, options)
    return _made(function, options)


def _made(function: F, options: dict[str, Any]) -> F:
    plain = inspect.unwrap(function)
    try:
        made = numba.njit(cache=True, nogil=True, **options)(plain)
    except RuntimeError:  # no directory can be written: compiled anew in each process
        made = numba.njit(nogil=True, **options)(plain)
    return cast("F", made)
