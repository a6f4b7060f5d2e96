"""One door to numba: machine code kept on disk where there is a place for it, safe from threads and forks.

Numba runs parallel kernels on one of three layers. *workqueue* aborts the process when two threads enter it:
parallel kernels take turns there. *omp* (GNU OpenMP) waits for ever in a process that was forked after its
threads had started, and so does torch's pool: such a process is told to *spawn* instead.
"""

from __future__ import annotations

import functools
import inspect
import os
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar, cast, overload

from threadpoolctl import threadpool_limits

from polytope_lm.errors import PolytopeError

F = TypeVar("F", bound=Callable[..., Any])


class _Pools:
    """Which pools of threads have started here, and which were lost because this process was forked."""

    def __init__(self) -> None:
        self.started: set[str] = set()
        self.lost: set[str] = set()
        self.turn = threading.Lock()

    def forked(self) -> None:
        """Begin anew in a child: threads are not forked, and a lock may be held by one of them for ever."""
        self.lost |= self.started
        self.started, self.turn = set(), threading.Lock()


_POOLS = _Pools()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_POOLS.forked)


def uses_threads(pool: str) -> None:
    """Note that a pool of threads that does not survive a fork is used from now on."""
    if pool in _POOLS.lost:
        raise PolytopeError(
            f"this process was forked after {pool}'s threads had started and would wait for them for ever: "
            "start processes by multiprocessing.get_context('spawn')"
        )
    _POOLS.started.add(pool)


@overload
def compiled(function: F) -> F: ...
@overload
def compiled(**options: Any) -> Callable[[F], F]: ...
def compiled(function: Any = None, **options: Any) -> Any:
    """Compile plain Python with numba, without the interpreter's lock; a parallel kernel is called from Python only."""
    if function is None:
        return lambda given: _made(given, options)
    return _made(function, options)


def _made(function: F, options: dict[str, Any]) -> F:
    import numba  # noqa: PLC0415 - half a second, and what guards torch's threads needs none

    plain = inspect.unwrap(function)
    try:
        made = numba.njit(cache=True, nogil=True, **options)(plain)
    except RuntimeError:  # no directory can be written: compiled anew in each process
        made = numba.njit(nogil=True, **options)(plain)
    return cast("F", _in_turn(made) if options.get("parallel") else made)


def _in_turn(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Guard a parallel kernel: one at a time where the layer wants it, none after a harmful fork."""

    @functools.wraps(kernel)
    def guarded(*args: Any) -> Any:
        if "numba" in _POOLS.lost:
            uses_threads("numba")
        if _layer() in {"omp", "tbb"}:
            return kernel(*args)
        # The first call decides on the layer. Under omp, torch has the same pool of threads and would from then
        # on have as many as numba starts: it keeps its own number.
        with _POOLS.turn, threadpool_limits() if _layer() is None else nullcontext():
            result = kernel(*args)
        if _layer() == "omp":
            uses_threads("numba")
        return result

    return guarded


def _layer() -> str | None:
    import numba  # noqa: PLC0415

    try:
        return str(numba.threading_layer())
    except ValueError:  # not decided yet
        return None
