"""Progress, told step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def teller(progress: Callable[[int, int, str], None] | None, total: int) -> Callable[[str], None]:
    """Return what is called before each of `total` steps with its name, and tells `(done, total, what)`."""
    done = iter(range(total))

    def tell(what: str) -> None:
        if progress is not None:
            progress(next(done), total, what)

    return tell
