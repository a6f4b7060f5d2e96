"""`polytope-lm test boundaries`: do polytope boundaries follow meaning."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polytope_lm.cli import options as o
from polytope_lm.cli.terminal import complain, emit, progress, say, show_table

if TYPE_CHECKING:
    from polytope_lm.predictions.boundary_results import BoundariesResult, BoundarySettings

PairsFile = Annotated[
    str, typer.Argument(metavar="PAIRS", help="A JSON-lines file of prompt pairs, or builtin.")
]
Layers = Annotated[
    str, typer.Option(help="Layers, such as 4,15, or all; by default a quarter, a half, three quarters.")
]
Controls = Annotated[
    str, typer.Option(help="Other weights to measure beside: permuted, untrained, both (by default) or none.")
]
Draws = Annotated[int, typer.Option(min=0, help="Draws of rate-matched hyperplanes.")]
Shuffles = Annotated[int, typer.Option(min=0, help="Label permutations within groups.")]
Resamples = Annotated[int, typer.Option(min=2, help="Bootstrap resamples behind each interval.")]
Smallest = Annotated[float, typer.Option(min=0, help="The smallest difference of interest, in AUC.")]
_SHOWN = 5  # problems that are spelled out
_HOW = "AUC of different against same meaning; 95 % intervals over resampled"


def boundaries(  # noqa: PLR0913
    model: o.ModelName, pairs: PairsFile, *, out: o.Out, layers: Layers = "", kind: o.Kind = None,
    controls: Controls = "permuted,untrained", draws: Draws = 5, shuffles: Shuffles = 100,
    seed: o.Seed = 0, resamples: Resamples = 1000, smallest_effect: Smallest = 0.02,
    device: o.Device = "cpu", dtype: o.Dtype = "float32", revision: o.Revision = None,
    trust_remote_code: o.Trust = False, json: o.Json = False,
) -> None:  # fmt: skip
    """Prediction 2: do paths cross more boundaries where meaning changes, beyond what distance explains.

    Writes result.json, pairs.parquet and report.html; finished pairs are kept in OUT/pairs: run again, it
    goes on.

    \b
    Example:
      polytope-lm test boundaries tiny-gpt2 builtin --layers 1 --out results
    """  # noqa: D301
    chosen = o.parse_layers(layers) if layers else None
    names = () if controls.strip() == "none" else o.parse_names(controls)
    from polytope_lm.models.loading import load  # noqa: PLC0415
    from polytope_lm.predictions.boundaries import boundaries as test  # noqa: PLC0415
    from polytope_lm.report import write  # noqa: PLC0415

    loaded = load(model, device=device, dtype=dtype, revision=revision, trust_remote_code=trust_remote_code)
    with progress("crossing") as told:
        result = test(
            loaded, pairs, chosen, kind=kind, seed=seed, resamples=resamples, smallest_effect=smallest_effect,
            draws=draws, controls=names, shuffles=shuffles, keep=out / "pairs", progress=told,
        )  # fmt: skip
    tested = ",".join(str(layer.layer) for layer in result.layers)
    result = replace(result, command=_command(model, pairs, out, tested, result.settings))
    result.save(out)
    page = write(out / "report.html", boundaries=result)
    if json:
        emit({**result.to_dict(), "report": str(page)})
        return
    for problem in result.problems[:_SHOWN]:
        complain(f"left out: {problem}")
    if len(result.problems) > _SHOWN:
        complain(f"left out: {len(result.problems) - _SHOWN} more pairs; result.json has all")
    show_effects(result)
    say(result.verdict, style="bold")
    say(f"written: {page.resolve().as_uri()}")


def show_effects(result: "BoundariesResult") -> None:
    """Print each layer's effects before and after adjusting, variance inflation, and the controls."""
    from polytope_lm.predictions.boundary_tables import HEADS, notes, overview_rows  # noqa: PLC0415

    show_table(HEADS, overview_rows(result))
    say(f"{_HOW} {result.layers[0].unit}")
    say()
    for layer in result.layers:
        for text in notes(layer):
            say(text)
        say()


def _command(model: str, pairs: str, out: Path, layers: str, settings: "BoundarySettings") -> str:
    """Return the command that reproduces a test, every choice spelled out."""
    options: dict[str, object] = {
        "layers": layers, "kind": settings.kind, "controls": ",".join(settings.controls) or "none",
        "draws": settings.draws, "shuffles": settings.shuffles, "seed": settings.seed,
        "resamples": settings.resamples, "smallest-effect": settings.smallest_effect, "out": out,
    }  # fmt: skip
    if settings.kind == "pre":
        del options["kind"]
    words = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return shlex.join(["polytope-lm", "test", "boundaries", model, pairs, *words])
