"""Options that several commands share, and the small languages some of them are written in.

A store's own model, loaded again for what the store does not hold.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

if TYPE_CHECKING:
    from polytope_lm.codes.store.reader import CodeStore
    from polytope_lm.models.model import Model

Json = Annotated[bool, typer.Option("--json", help="Machine-readable JSON on stdout, and nothing else.")]
ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="A packaged name, a directory (./gpt2) or a hub name (gpt2).")
]
StorePath = Annotated[Path, typer.Argument(metavar="STORE", help="A store that `capture` wrote.")]
Out = Annotated[Path, typer.Option("--out", help="Directory for the results; it is created if missing.")]
Device = Annotated[str, typer.Option(help="A torch device, such as cpu or cuda.")]
Dtype = Annotated[str, typer.Option(help="float32, float16, bfloat16 or float64.")]
Revision = Annotated[str | None, typer.Option(help="The hub's branch, tag or commit.")]
Trust = Annotated[bool, typer.Option("--trust-remote-code", help="Run the model repository's own code.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of every random choice.")]
Kind = Annotated[str | None, typer.Option(help="Code kind of a gated MLP: gate (default), up or gate+up.")]
Layers = Annotated[str, typer.Option(help="Layers, such as 0,8, or all.")]


def parse_layers(text: str) -> list[int] | str:
    """Read `all` or indices such as `0,8`."""
    if text.strip() == "all":
        return "all"
    if not re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)*", text):
        msg = f"{text!r} is neither `all` nor indices such as 0,8"
        raise typer.BadParameter(msg, param_hint="--layers")
    return [int(part) for part in text.split(",")]


def parse_shard(text: str) -> tuple[int, int]:
    """Read `I/N`, I from 1 to N."""
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    part, parts = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= part <= parts:
        msg = f"{text!r} is not I/N with I from 1 to N, such as 2/8"
        raise typer.BadParameter(msg, param_hint="--shard")
    return part, parts


def parse_names(text: str) -> tuple[str, ...]:
    """Read names separated by commas; an empty text means none."""
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)


def spelled(*words: object, **options: object) -> str:
    """Write a command with its options: a line for a shell that reproduces a result; None and False are left out."""
    given = [(f"--{name.replace('_', '-')}", value) for name, value in options.items() if value is not None]
    more = [
        part for name, value in given if value is not False for part in ((name,) if value is True else (name, value))
    ]
    return shlex.join(map(str, ["polytope-lm", *words, *more]))


Engine = Annotated[str, typer.Option(help="here, or ray: workers of a Ray session (RAY_ADDRESS, or one started here).")]
ModelHere = Annotated[str | None, typer.Option("--model", help="Where the store's model is now, if it has moved.")]


class Needed(NamedTuple):
    """What the model is needed for, and what helps where it is gone."""

    why: str
    cure: str


def model_of(store: CodeStore, name: str | None, needed: Needed, *, trust: bool) -> Model:
    """Load the model that wrote a store."""
    from polytope_lm.errors import PolytopeError  # noqa: PLC0415
    from polytope_lm.models.loading import load  # noqa: PLC0415

    was = store.provenance
    try:
        model = load(name or was["model"], dtype=was["dtype"], revision=was["revision"], trust_remote_code=trust)
    except PolytopeError as error:
        msg = f"the store's model is needed {needed.why} ({needed.cure}): {error}"
        raise PolytopeError(msg) from error
    model.check_made(f"{store.path} was written", was, f"the same model is needed {needed.why}: {needed.cure}")
    return model
