"""`polytope-lm selective`: which neurons fire for one value of a label."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from polytope_lm.cli import options as o
from polytope_lm.cli.options import ModelHere, Needed, model_of
from polytope_lm.cli.terminal import costing, counted, emit, say, show_table

By = Annotated[str, typer.Option(help="The label whose values are told apart, such as upos.")]
Layer = Annotated[int | None, typer.Option(help="The layer, where the store has several.")]
Rate = Annotated[float, typer.Option(min=0, max=1, help="False-discovery rate, documents being the units.")]
Least = Annotated[int, typer.Option(min=2, help="Fewest documents of a value that is tested.")]
Ablate = Annotated[bool, typer.Option("--ablate", help="Also the loss without them: the model runs again.")]
Most = Annotated[int, typer.Option(min=1, help="Neurons of a value that are ablated together, at most.")]
Draws = Annotated[int, typer.Option(min=1, help="Draws of random neurons of the same firing rates.")]
Resamples = Annotated[int, typer.Option(min=2, help="Bootstrap resamples of documents behind a change of loss.")]
Saved = Annotated[Path | None, typer.Option("--out", help="Directory for selective.json and report.html.")]


def selective(  # noqa: PLR0913
    store: o.StorePath, *, by: By, layer: Layer = None, alpha: Rate = 0.05, least: Least = 4, ablate: Ablate = False,
    most: Most = 50, draws: Draws = 5, seed: o.Seed = 0, resamples: Resamples = 1000, out: Saved = None,
    model: ModelHere = None, trust_remote_code: o.Trust = False, json: o.Json = False,
) -> None:  # fmt: skip
    """Find the neurons that fire for one value of a label: entropy, log-odds, false discoveries over documents.

    \b
    Examples:
      polytope-lm selective store --by upos --layer 2 --out neurons
    """  # noqa: D301
    from polytope_lm.codes.store.reader import open_store  # noqa: PLC0415

    opened = open_store(store)
    needed = Needed("to take the loss without its neurons", "give --model, or leave --ablate out")
    ran = model_of(opened, model, needed, trust=trust_remote_code) if ablate else None
    tokens, documents = opened.counts()
    beside = f", {1 + draws} ablations a value" if ablate else ""
    with costing("selective", f"{counted(tokens, 'token')} of {counted(documents, 'document')}{beside}"):
        result = opened.selective(
            by, layer, alpha=alpha, least=least, ablate=ablate, model=ran, most=most, draws=draws, seed=seed,
            resamples=resamples,
        )  # fmt: skip
    command = o.spelled(
        "selective", store, by=by, layer=layer, alpha=alpha, least=least, ablate=ablate, most=most, draws=draws,
        seed=seed, resamples=resamples, out=out, model=model,
    )  # fmt: skip
    result = replace(result, command=command)
    page = None
    if out is not None:
        from polytope_lm.report import write  # noqa: PLC0415

        result.save(out)
        page = write(out / "report.html", others=[result])
    if json:
        emit({**result.to_dict(), **({} if page is None else {"report": str(page)})})
        return
    heads, *rows = result.rows()
    show_table(heads, rows, elastic=("in context",))
    for note in result.notes():
        say(note)
    say(result.headline, style="bold")
    if page is not None:
        say(f"written: {page.resolve().as_uri()}")
