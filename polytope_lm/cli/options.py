"""Options that several commands share, and the small languages some of them are written in."""

# Without `from __future__ import annotations` here and in the commands: typer reads the annotations.

import re
from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Machine-readable JSON on stdout, and nothing else.")]
ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="A packaged name, a directory (./gpt2) or a hub name (gpt2).")
]
StorePath = Annotated[Path, typer.Argument(metavar="STORE", help="A store that `capture` wrote.")]
Out = Annotated[Path, typer.Option("--out", help="Directory for the results; made if it is missing.")]
Device = Annotated[str, typer.Option(help="A torch device, such as cpu or cuda.")]
Dtype = Annotated[str, typer.Option(help="float32, float16, bfloat16 or float64.")]
Revision = Annotated[str | None, typer.Option(help="The hub's branch, tag or commit.")]
Trust = Annotated[bool, typer.Option("--trust-remote-code", help="Run the model repository's own code.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of every random choice.")]
Kind = Annotated[str | None, typer.Option(help="Code kind of a gated MLP: gate (default), up or gate+up.")]
Layers = Annotated[str, typer.Option(help="Layers, such as 0,8, or all.")]


def parse_layers(text: str) -> list[int] | str:
    """Read `all` or indices such as `0,8`.

    Raises:
        typer.BadParameter: anything else.

    """
    if text.strip() == "all":
        return "all"
    if not re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)*", text):
        msg = f"{text!r} is neither `all` nor indices such as 0,8"
        raise typer.BadParameter(msg, param_hint="--layers")
    return [int(part) for part in text.split(",")]


def parse_shard(text: str) -> tuple[int, int]:
    """Read `I/N`, I from 1 to N.

    Raises:
        typer.BadParameter: anything else.

    """
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    part, parts = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= part <= parts:
        msg = f"{text!r} is not I/N with I from 1 to N, such as 2/8"
        raise typer.BadParameter(msg, param_hint="--shard")
    return part, parts


def parse_names(text: str) -> tuple[str, ...]:
    """Read names divided by commas; an empty text is none."""
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)
