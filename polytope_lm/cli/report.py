"""`polytope-lm report`: one page from saved results."""

from pathlib import Path
from typing import Annotated

import typer

from polytope_lm.cli.options import Json
from polytope_lm.cli.terminal import emit, say

Directories = Annotated[
    list[Path], typer.Argument(metavar="DIR...", help="What `test`, `cross` or `demo` wrote.")
]
Page = Annotated[Path, typer.Option("--out", help="The HTML file.")]
Title = Annotated[str | None, typer.Option(help="Stands in the page's head; by default the model's name.")]


def report(
    directories: Directories, *, out: Page = Path("report.html"), title: Title = None, json: Json = False
) -> None:
    """Write one self-contained page from saved results.

    \b
    Example:
      polytope-lm report results crossings --out report.html
    """  # noqa: D301
    from polytope_lm.report import from_directories  # noqa: PLC0415

    page = from_directories(directories, out, title=title)
    if json:
        emit({"report": str(page)})
    else:
        say(f"written: {page.resolve().as_uri()}")
