"""What a terminal is sent: tables, lines, progress bars. Data never becomes markup or an escape sequence."""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from polytope_lm.errors import PolytopeError, visible
from polytope_lm.progress import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

_WIDE = 100_000
"""Columns of what is not a terminal: nothing is wrapped or cut in a pipe."""
_MEASURED = 3.0
"""Seconds after which the minutes of a long job are estimated."""
_WORTH_SAYING = 60.0
"""Seconds that a job must take for its minutes to be told before it begins."""
_GAP, _LEAST = "  ", 12
"""Between a table's columns; columns that an elastic one keeps on the narrowest terminal."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Let the command line end; rich's own way is exit code 1 without a word."""
        raise BrokenPipeError


def console(stream: IO[str] | None = None) -> Console:
    """Return a console on stdout (or another stream) that takes plain text only and never wraps in a pipe."""
    stream = stream or sys.stdout
    width = None if stream.isatty() else _WIDE
    return _Console(file=stream, width=width, markup=False, highlight=False, emoji=False)


def say(text: object = "", *, style: str = "", stream: IO[str] | None = None, wrap: bool = False) -> None:
    """Print one line; with `wrap` broken between words where a terminal is narrower."""
    console(stream).print(Text(visible(text), style=style), soft_wrap=not wrap)


def say_verdict(result: Any) -> None:
    """Print a result's verdict, and what was done to the model's weights."""
    weights = result.provenance.get("weights")
    say(f"{result.verdict} Weights: {weights}." if weights else result.verdict, style="bold")


def complain(text: object) -> None:
    """Print one line on stderr."""
    say(text, stream=sys.stderr)


SCHEMA = 1
"""Version of what `--json` prints: it grows by new keys; a key that goes or changes its meaning makes a new one."""


def emit(data: Mapping[str, Any], kind: str | None = None) -> None:
    """Print JSON, ASCII only, so that nothing in it is more than text: `schema`, `kind`, then the data.

    A result names its own kind.
    """
    said = {"schema": SCHEMA, "kind": kind or data["kind"], **data}
    sys.stdout.write(json.dumps(said, indent=1, allow_nan=False) + "\n")


def in_context(left: str, token: str, right: str, chars: int = 26) -> Text:
    """Return a token between its neighbours: bold, and in brackets for where nothing is bold."""
    before, after = visible(left)[-chars:], visible(right)[:chars]
    return Text.assemble(before, ("[" + visible(token) + "]", "bold"), after)


def columns() -> int | None:
    """Return how wide the terminal is; None where stdout is no terminal."""
    return console().width if sys.stdout.isatty() else None


def show_table(
    heads: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = (), elastic: Sequence[str] = ()
) -> None:
    """Print a table."""
    cells = [[c if isinstance(c, Text) else Text(visible(c)) for c in row] for row in rows]
    widths = [max([cell_len(head), *(row[i].cell_len for row in cells)]) for i, head in enumerate(heads)]
    stretch = [i for i, head in enumerate(heads) if head in elastic]
    over = sum(widths) + len(_GAP) * (len(heads) - 1) - (columns() or _WIDE)
    for i in stretch if over > 0 else ():
        widths[i] = max(_LEAST, widths[i] - -(-over // len(stretch)))
    for row in [[Text(head, style="dim") for head in heads], *cells]:
        for cell, head, width in zip(row, heads, widths, strict=True):
            cell.truncate(width, overflow="ellipsis")
            cell.align("right" if head in right else "left", width)
        line = Text(_GAP).join(row)
        line.rstrip()
        console().print(line, soft_wrap=True)


@contextmanager
def costing(
    what: str, counts: str, probe: Callable[[], float] | None = None
) -> Iterator[Callable[[int, int, str], None]]:
    """Show how far a long job is, and what it costs: before it begins by `probe`, else after its first steps.

    Args:
        what: the job's name.
        counts: what there is to do, in words; said at once.
        probe: does a small part of the job and returns about how many seconds all of it takes. What it refuses
            is left for the job itself to say.

    """
    begin, expected = time.monotonic(), 0.0
    if probe is not None:
        with suppress(PolytopeError):
            expected = probe()
    about = max(1, round(expected / 60))
    told_first = expected >= _WORTH_SAYING
    if told_first:
        complain(f"{what}: {counts}; about {counted(about, 'minute')}, as a small part of it shows")
    said: list[str] = [counts] * told_first

    def cost(done: int, total: int) -> None:
        if not said:
            said.append(counts)
            complain(f"{what}: {counts}")
        spent = time.monotonic() - begin
        if len(said) == 1 and done and (spent > _MEASURED or done > total / 10):
            said.append("minutes")
            minutes = spent * total / done / 60
            if minutes >= 1:
                how = f"the first {done:,} of {total:,} steps took {spent:.0f} s"
                complain(f"{what}: about {counted(round(minutes), 'minute')} in all; {how}")

    with progress(what) as told:

        def both(done: int, total: int, doing: str) -> None:
            cost(done, total)
            told(done, total, doing)

        yield both


class Stages:
    """Says what a long job does, stage by stage, with timings."""

    def __init__(self, total: int, write: Callable[[str], None]) -> None:
        self._total = total
        self._write = write
        self._number = 0
        self._start = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, doing: str) -> Iterator[Callable[[str], None]]:
        """Announce a stage; inside, call what it yields with one line on what came out."""
        self._number += 1
        self._write(f"[{self._number}/{self._total}] {name}: {doing}")
        start = time.perf_counter()
        lines: list[str] = []
        yield lines.append
        self.seconds[name] = time.perf_counter() - start
        for line in lines[:-1]:
            self._write(f"      {line}")
        last = lines[-1] if lines else "done"
        self._write(f"      {last} ({self.seconds[name]:.1f} s)")

    @property
    def elapsed(self) -> float:
        """Seconds since the job began."""
        return time.perf_counter() - self._start


def counted(n: int, what: str) -> str:
    """Return a number with its noun: `1 document`, `1,200 documents`."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def size(n_bytes: float) -> str:
    """Return a number of bytes in words, in powers of ten."""
    for unit in ("bytes", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "bytes" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.2f} GB"
