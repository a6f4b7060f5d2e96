"""Cost and progress on stderr: on a terminal by default, nowhere else unless asked."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from polytope_lm.codes.cost import Cost


def on_terminal() -> bool:
    """Tell whether somebody watches stderr."""
    return sys.stderr.isatty()


@contextmanager
def reporter(cost: Cost, *, show: bool) -> Iterator[Callable[[int], None]]:
    """Show a capture's cost, then its progress in characters read.

    Args:
        cost: told before anything is computed.
        show: whether to.

    Yields:
        A function that takes the number of characters just read.

    """
    if not show:
        yield lambda _characters: None
        return
    console = Console(stderr=True)
    console.print(f"capture: {cost}", markup=False, highlight=False, soft_wrap=True)
    columns = (TextColumn("capture"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("capture", total=cost.characters)
        yield lambda characters: bar.update(task, advance=characters)
