"""`polytope-lm cross`: every boundary crossed along one path between two prompts."""

from math import isfinite
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Annotated

import typer

from polytope_lm.cli import options as o
from polytope_lm.cli.terminal import columns, emit, say, show_table
from polytope_lm.files import expand

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polytope_lm.paths.crossings import Crossings, OutputChange
    from polytope_lm.paths.path import Path
    from polytope_lm.paths.profile import Profile

PromptA = Annotated[str, typer.Argument(metavar="PROMPT_A", help="The text at t = 0; its context is kept.")]
PromptB = Annotated[str, typer.Argument(metavar="PROMPT_B", help="The text at t = 1.")]
Layer = Annotated[int | None, typer.Option(help="The block whose MLP input is moved; not with --at embed.")]
At = Annotated[
    str,
    typer.Option(help="resid_mid: what the MLP's norm reads; mlp_in: what the MLP reads; embed: what block 0 reads."),
]
Shape = Annotated[str, typer.Option(help="line, or arc: a great circle, along which the length changes evenly.")]
Downstream = Annotated[bool, typer.Option("--downstream/--own-layer", help="Also follow later layers and the output.")]
Steps = Annotated[
    int | None,
    typer.Option(min=1, help="Search later layers in this many equal steps; by default points are added as needed."),
]
Position = Annotated[int, typer.Option(help="Which token of each prompt; -1 is the last.")]
OutOrNone = Annotated[FilePath | None, typer.Option("--out", help="Directory for crossings.json and report.html.")]

_STRIP = (20, 60)
"""Columns of a strip: as many as a terminal leaves, within these."""
_LESS = ("flip back", "on", "off", "missed", "found by")
"""Columns that a narrow terminal goes without, the first ones first."""
_BARS = " ▁▂▃▄▅▆▇█"


def cross(  # noqa: PLR0913
    model: o.ModelName, prompt_a: PromptA, prompt_b: PromptB, *, layer: Layer = None, at: At = "resid_mid",
    shape: Shape = "line", downstream: Downstream = True, steps: Steps = None, kind: o.Kind = None,
    position: Position = -1, out: OutOrNone = None,
    device: o.Device = "cpu", dtype: o.Dtype = "float32", revision: o.Revision = None,
    trust_remote_code: o.Trust = False, json: o.Json = False,
) -> None:  # fmt: skip
    """Find every boundary crossed between two prompts: a table and a strip a layer.

    The path's own layer is exact; later layers are evaluated at as many points as they need.

    \b
    Examples:
      polytope-lm cross tiny-gpt2 "We sat on the river bank" "We owe money to the bank" --layer 1
      polytope-lm cross tiny-gpt2 "a river bank" "the money bank" --layer 1 --shape arc --own-layer
    """  # noqa: D301
    from polytope_lm.models.loading import load  # noqa: PLC0415
    from polytope_lm.paths.path import path  # noqa: PLC0415
    from polytope_lm.paths.trace import profile  # noqa: PLC0415

    if layer is None and at != "embed":
        raise typer.BadParameter("needed, unless --at is embed", param_hint="--layer")
    loaded = load(model, device=device, dtype=dtype, revision=revision, trust_remote_code=trust_remote_code)
    line = path(loaded, prompt_a, prompt_b, at=at, layer=layer, kind=kind, shape=shape, position=position)
    followed = downstream and loaded.causal
    found = line.crossings(downstream=followed, steps=steps)
    page = _save(found, out) if out is not None else None
    if json:
        emit(found.to_dict())
        return
    _show(line, found)
    if followed:
        _show_output(found.output_change, profile(line))
    if downstream and not loaded.causal:
        say("later layers are not followed: this model is bidirectional")
    if page is not None:
        say(f"written: {page.resolve().as_uri()}")


def _save(found: "Crossings", out: FilePath) -> FilePath:
    from polytope_lm.report import write  # noqa: PLC0415

    out = expand(out, "--out")
    out.mkdir(parents=True, exist_ok=True)
    found.save(out / "crossings.json")
    return write(out / "report.html", crossings=[found])


def _show(line: "Path", found: "Crossings") -> None:
    say(f"A: {found.prompts[0]}", wrap=True)
    say(f"B: {found.prompts[1]}", wrap=True)
    own = found.site
    where = "between embeddings" if line.at == "embed" else f"in {found.space} of layer {own.layer}"
    say(f"{found.shape} {where}, length {found.length:.4g}; {own.premises}", wrap=True)
    say(f"from the token [{found.tokens[0]}] to the token [{found.tokens[1]}]", wrap=True)
    rows = []
    for part in found.layers:
        here = found.layer == part.layer
        n, on, back = int(here.sum()), int(found.on[here].sum()), found.flip_backs(part.layer)
        rows.append((part.layer, n, on, n - on, part.hamming, back, part.method, part.missed))
    numbers = ("layer", "crossings", "on", "off", "differ", "flip back")
    heads, kept, width = _fitting((*numbers, "found by", "missed"), rows, columns())
    strips = [f"|{found.strip(width, part.layer)}|" for part in found.layers]
    cells = [(*(row[i] for i in kept), strip) for row, strip in zip(rows, strips, strict=True)]
    show_table((*heads, "t from 0 to 1"), cells, right=numbers)
    if len(heads) < len(numbers) + 2:
        say("a wider terminal has more columns, --json has all", wrap=True)
    say("differ: bits in which the ends differ; flip back: crossings that do not show in the ends' codes", wrap=True)


def _fitting(
    heads: tuple[str, ...], rows: "Sequence[tuple[object, ...]]", room: int | None
) -> tuple[list[str], list[int], int]:
    """Return the columns for which a terminal has room beside a strip, which they are, and the strip's width."""
    kept = list(range(len(heads)))
    if room is None:
        return list(heads), kept, _STRIP[1]
    widths = [max(len(head), *(len(str(row[i])) for row in rows)) for i, head in enumerate(heads)]
    for name in _LESS:
        # Two bars, and two spaces behind each column.
        if sum(widths[i] + 2 for i in kept) + 2 + _STRIP[0] <= room:
            break
        kept.remove(heads.index(name))
    left = room - 2 - sum(widths[i] + 2 for i in kept)
    return [heads[i] for i in kept], kept, max(_STRIP[0], min(_STRIP[1], left))


def _show_output(change: "OutputChange | None", profile: "Profile") -> None:
    """Tell where the output changes: distances and likeliest tokens, then how sharply the residual moves."""
    if change is not None:
        tallest = max(float(change.js.max()), 1e-12)
        bars = "".join(_BARS[round(float(js) / tallest * (len(_BARS) - 1))] for js in change.js)
        numbers = f"at most {change.js.max():.3f}, sum {change.length:.3f}"
        say(f"output change (Jensen-Shannon distance of each step; {numbers}): |{bars}|", wrap=True)
        turns = [i for i in range(1, len(change.top)) if change.top[i] != change.top[i - 1]]
        then = "".join(f" -> {change.top[i]!r} at t = {change.t[i]:.2f}" for i in turns)
        changes = f"{len(turns)} change{'s' * (len(turns) != 1)}"
        say(f"likeliest next token ({changes}): {change.top[0]!r}{then}", wrap=True)
    if isfinite(profile.sharpness):  # not on a path of length zero
        scale = f"(1: even; {profile.steps}: one jump)"
        where = f"largest change in the step from t = {profile.sharpest / profile.steps:.2f}"
        say(f"sharpness of the output's change: {profile.sharpness:.2f} {scale}, {where}", wrap=True)
