"""How far a long job is: a bar where stderr is a terminal, a line a minute where it is not."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from polytope_lm.errors import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EVERY = 60.0
"""Seconds between two lines."""


@contextmanager
def progress(
    what: str, *, show: bool = True, stream: TextIO | None = None, every: float | None = None
) -> Iterator[Callable[[int, int | None, str], None]]:
    """Show on stderr how far a job is and how long it will still take.

    Args:
        what: the job's name, such as `capture`.
        show: False says nothing.
        stream: instead of stderr.
        every: seconds between two lines outside a terminal; by default a minute.

    Yields:
        A function to call with `(done, total, doing)`: steps done, steps in all (None: not known) and what is
        being done, as every function of this package with a `progress` argument does.

    """
    stream = stream or sys.stderr
    if not show:
        yield _nothing
    elif stream.isatty():
        yield from _bar(what, stream)
    else:
        lines = _Lines(what, stream, every or EVERY)
        lines.start()
        try:
            yield lines.told
        finally:
            lines.over.set()
            lines.join()


def _nothing(_done: int, _total: int | None = None, _doing: str = "") -> None:
    """Say nothing."""


def _bar(what: str, stream: TextIO) -> Iterator[Callable[[int, int | None, str], None]]:
    # memory and time: most jobs run outside a terminal
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    words = TextColumn("{task.description}", markup=False)
    columns = (words, BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=stream), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def told(done: int, total: int | None = None, doing: str = "") -> None:
            words = f"{what}: {visible(doing)}" if doing else what
            bar.update(task, completed=done, total=total, description=words)

        yield told


class _Lines(threading.Thread):
    """Writes a line at regular times, also while one step takes long."""

    def __init__(self, what: str, stream: TextIO, every: float) -> None:
        super().__init__(daemon=True, name=f"progress of {what}")
        self._what, self._stream, self._every = what, stream, every
        self._state: tuple[int, int | None, str] = (0, None, "")
        self._begin = time.monotonic()
        self.over = threading.Event()

    def told(self, done: int, total: int | None = None, doing: str = "") -> None:
        self._state = (done, total, doing)

    def run(self) -> None:
        while not self.over.wait(self._every):
            done, total, doing = self._state
            minutes = (time.monotonic() - self._begin) / 60
            parts = [f"{100 * done / total:.0f} %"] if total else [f"{done:,} done"] if done else []
            parts.append(f"{minutes:.0f} min so far")
            if total and 0 < done < total:
                parts.append(f"about {max(1, round(minutes * (total - done) / done))} min left")
            where = f" ({visible(doing)})" if doing else ""
            print(f"{self._what}: {', '.join(parts)}{where}", file=self._stream, flush=True)


def stepwise(progress: Callable[[int, int, str], None] | None, total: int) -> Callable[[str], None]:
    """Return what is called before each of `total` steps with its name, and tells `(done, total, what)`."""
    done = iter(range(total))

    def tell(what: str) -> None:
        if progress is not None:
            progress(next(done), total, what)

    return tell
