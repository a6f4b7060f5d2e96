"""The commands, put together; errors in one line, exit codes, quiet libraries."""

from __future__ import annotations

import logging
import os
import sys
import traceback as tracebacks
import warnings
from pathlib import Path  # noqa: TC003 - typer reads annotations
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup

import polytope_lm
from polytope_lm.cli import calibrating, commands, cross, demo, determining, diffing, firing, stores, testing, validity
from polytope_lm.cli.configuring import configured
from polytope_lm.cli.terminal import complain, emit
from polytope_lm.errors import PolytopeError

_QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Other libraries' warnings and bars would hide our one line; set before they are imported."""

USAGE: Any = typer.BadParameter.__bases__[0]
"""Every kind of wrong usage, which typer names nowhere else."""

JSON = "--json"
MISUSED = 2
INTERRUPTED = 130
CLOSED = 141
"""Exit codes: wrong usage; and what a shell reports after Ctrl-C, and of a program whose reader went away."""
_WIDEST = 200
"""Columns of `--help` on the widest terminal."""


class Commands(TyperGroup):
    """The group of all commands: what goes wrong in any of them becomes one line on stderr."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Let `--traceback` stand anywhere before a `--`."""
        options = args[: args.index("--")] if "--" in args else args
        if "--traceback" in options:
            args = ["--traceback", *(a for a in options if a != "--traceback"), *args[len(options) :]]
        ctx.meta[JSON] = JSON in options
        try:
            return super().parse_args(ctx, args)
        except USAGE as error:
            raise _misused(error, as_json=ctx.meta[JSON]) from None

    def invoke(self, ctx: Any) -> Any:
        """Run a command; turn its errors into a line and an exit code."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # What is left for a reader that went away goes away too.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(CLOSED) from None
        except KeyboardInterrupt:
            complain("interrupted; run again to go on")
            raise typer.Exit(INTERRUPTED) from None
        except typer.Abort:
            raise
        except USAGE as error:
            raise _misused(error, as_json=ctx.meta[JSON]) from None
        except Exception as error:
            if hasattr(error, "exit_code"):  # a command's own exit
                raise
            if ctx.params.get("traceback"):
                tracebacks.print_exc()
            else:
                complain(f"error: {_line(error)}")
            if ctx.meta[JSON]:
                emit({"error": _line(error), "exit_code": 1}, "error")
            raise typer.Exit(1) from None
        return result


def _misused(error: Any, *, as_json: bool) -> Exception:
    """Say wrong usage in one line, with the place of the help; without arguments, help itself is shown."""
    if error.ctx is None or type(error).__name__ == "NoArgsIsHelpError":
        return cast("Exception", error)
    said = str(error.format_message()).rstrip(".")
    line = f"{said}; `{error.ctx.command_path} --help` shows what can be given"
    complain(f"error: {line}")
    if as_json:
        emit({"error": line, "exit_code": MISUSED}, "error")
    return typer.Exit(MISUSED)


def _line(error: Exception) -> str:
    """Say in one line what went wrong."""
    if isinstance(error, PolytopeError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}; choose another place or mend its permissions"
    return f"{type(error).__name__}: {error} (unforeseen: `polytope-lm --traceback ...` shows where)"


app = typer.Typer(
    name="polytope-lm",
    cls=Commands,
    help="Spline codes of language models: which polytope a token is in, and whether it matters.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"max_content_width": _WIDEST, "help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"polytope-lm {polytope_lm.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    ctx: typer.Context,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="Options of the commands, a table each: [test.clusters].")
    ] = None,
    traceback: Annotated[  # noqa: ARG001 - `Commands` reads it
        bool, typer.Option("--traceback", help="Show where an error came from.")
    ] = False,
    version: Annotated[  # noqa: ARG001 - its callback does it
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Spline codes of language models: which polytope a token is in, and whether it matters.

    \b
    The whole job on the built-in sample, to one page:
      polytope-lm demo
    """  # noqa: D301 - \b keeps the next lines as they are
    if config is not None:
        ctx.default_map = configured(config, ctx.command)


app.command(short_help="The whole job on the built-in sample.")(demo.demo)
app.command(short_help="Known models; one's sites and premises.")(commands.models)
app.command(short_help="Codes of documents, into a store.")(commands.capture)
app.command(short_help="What is in a store.")(stores.info)
app.command(cls=stores.Rows, short_help="Nearest tokens by code and by direction.")(stores.nearest)
app.command(short_help="What can be counted of tokens or prompts.")(stores.measure)
app.command(short_help="Boundaries crossed between two prompts.")(cross.cross)
app.command(short_help="Neurons that fire for one value of a label.")(firing.selective)
app.command(short_help="Codes of two models: which bits differ.")(diffing.diff)
testing.app.command(short_help="Prediction 2: boundaries and meaning.")(testing.boundaries)
testing.app.command(short_help="Prediction 3: where directions stop being valid.")(validity.directions)
testing.app.command(short_help="What of an MLP's work its code carries.")(determining.determination)
app.add_typer(testing.app, name="test", short_help="Put a prediction to the test.")
app.command(short_help="How often a test is wrong on a store.")(calibrating.calibrate)
app.command(short_help="One page from saved results.")(commands.report)


class _Lines(logging.Handler):
    """Shows the library's own notices as inert lines."""

    def emit(self, record: logging.LogRecord) -> None:
        complain(f"note: {record.getMessage()}")


def main() -> None:
    """Run the command line; the entry point `polytope-lm`."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    logging.getLogger("polytope_lm").addHandler(_Lines())
    app(prog_name="polytope-lm")
