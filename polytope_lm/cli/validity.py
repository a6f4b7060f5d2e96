"""`polytope-lm test directions`: where directions stop being valid."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from polytope_lm.cli import options as o
from polytope_lm.cli.terminal import costing, emit, say, say_verdict, show_table

if TYPE_CHECKING:
    from polytope_lm.predictions.directions.result import DirectionsResult

Source = Annotated[str, typer.Argument(metavar="SOURCE", help="Documents, as in capture; sample is the built-in one.")]
Layers = Annotated[
    str, typer.Option(help="Layers, such as 4,15, or all; by default a quarter, a half, three quarters.")
]
Prompts = Annotated[int, typer.Option(min=20, help="Documents at most; the beginning of each is a prompt.")]
Tokens = Annotated[int, typer.Option(min=8, help="Tokens of a prompt.")]
Tau = Annotated[float, typer.Option(help="The relative error of first order that is allowed.")]
Resamples = Annotated[int, typer.Option(min=2, help="Bootstrap resamples behind each interval.")]
Smallest = Annotated[float, typer.Option(min=0, help="The smallest rank correlation of interest.")]
Controls = Annotated[str, typer.Option(help="Controls with other weights: permuted, untrained, or both.")]
Draws = Annotated[int, typer.Option(min=0, help="Draws of rate-matched hyperplanes.")]


def directions(  # noqa: PLR0913
    model: o.ModelName, source: Source, *, out: o.Out, layers: Layers = "", prompts: Prompts = 60,
    tokens: Tokens = 24, tau: Tau = 0.1, seed: o.Seed = 0, resamples: Resamples = 1000,
    smallest_effect: Smallest = 0.02, draws: Draws = 2,
    controls: Controls = "", device: o.Device = "cpu", dtype: o.Dtype = "float32",
    revision: o.Revision = None, trust_remote_code: o.Trust = False, json: o.Json = False,
) -> None:  # fmt: skip
    """Prediction 3: whether polytope boundaries tell where a direction stops being valid.

    Writes directions.json, directions.parquet and report.html; finished prompts are kept in OUT/prompts.jsonl.
    If it is interrupted, run it again: it continues.

    \b
    Examples:
      polytope-lm test directions tiny-gpt2 sample --layers 1 --prompts 20 --out results
    """  # noqa: D301
    chosen = o.parse_layers(layers) if layers else None
    from polytope_lm.models.loading import load  # noqa: PLC0415
    from polytope_lm.predictions.directions.test import directions as test  # noqa: PLC0415
    from polytope_lm.report import write  # noqa: PLC0415

    loaded = load(model, device=device, dtype=dtype, revision=revision, trust_remote_code=trust_remote_code)
    with costing("test directions", f"up to {prompts} prompts of {source}; finished prompts are kept") as told:
        result = test(
            loaded, source, chosen, prompts=prompts, tokens=tokens, tau=tau, seed=seed, resamples=resamples,
            smallest_effect=smallest_effect, draws=draws, controls=o.parse_names(controls),
            keep=out / "prompts.jsonl", progress=told,
        )  # fmt: skip
    tested = ",".join(str(layer.layer) for layer in result.layers)
    command = o.spelled(
        "test", "directions", model, source, layers=tested, prompts=prompts, tokens=tokens, tau=tau, seed=seed,
        resamples=resamples, smallest_effect=smallest_effect, draws=draws, out=out, controls=controls or None,
    )  # fmt: skip
    result = replace(result, command=command)
    result.save(out)
    page = write(out / "report.html", others=[result])
    if json:
        emit({**result.to_dict(), "report": str(page)})
        return
    say_verdict(result)
    show_directions(result)
    say(f"written: {page.resolve().as_uri()}")


def show_directions(result: "DirectionsResult") -> None:
    """Print each layer's numbers, question by question."""
    heads, *rows = result.rows()
    show_table(heads, rows)
    for note in result.notes():
        say(note)
    say()
