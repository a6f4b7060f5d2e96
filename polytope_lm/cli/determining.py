"""`polytope-lm test determination`: what of an MLP's work its code carries."""

from dataclasses import replace
from typing import Annotated

import typer

from polytope_lm.cli import options as o
from polytope_lm.cli.options import ModelHere, Needed, model_of
from polytope_lm.cli.terminal import costing, counted, emit, say, say_verdict, show_table

Documents = Annotated[int, typer.Option(min=1, help="Test at most this many documents, half of all at most.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Longest stretch of a document, special tokens included.")]
FitTokens = Annotated[int, typer.Option(min=1, help="Tokens of the other documents that are fitted on.")]
Neurons = Annotated[int, typer.Option(min=1, help="How many neurons of a token count as causal.")]
Draws = Annotated[int, typer.Option(min=1, help="Draws of each random control.")]
Together = Annotated[bool, typer.Option(help="Also all of the model's layers at once.")]
Resamples = Annotated[int, typer.Option(min=2, help="Bootstrap resamples of documents behind each interval.")]
Smallest = Annotated[float, typer.Option(min=0, help="The smallest difference of loss recovered of interest.")]


def determination(  # noqa: PLR0913
    store: o.StorePath, *, out: o.Out, layers: o.Layers = "all", documents: Documents = 40,
    max_tokens: MaxTokens = 128, fit_tokens: FitTokens = 8000, neurons: Neurons = 100, draws: Draws = 3,
    together: Together = True, seed: o.Seed = 0, resamples: Resamples = 1000, smallest_effect: Smallest = 0.01,
    model: ModelHere = None, trust_remote_code: o.Trust = False, json: o.Json = False,
) -> None:  # fmt: skip
    """Ask what a code determines: what is left of an MLP's work when only a part of its input is kept.

    The store's model runs again on its documents. Writes determination.json and report.html; finished
    documents are kept in OUT/layers. If it is interrupted, run it again: it continues.

    \b
    Examples:
      polytope-lm test determination store --layers 1 --out results
    """  # noqa: D301
    chosen = o.parse_layers(layers)
    from polytope_lm.codes.store.reader import open_store  # noqa: PLC0415
    from polytope_lm.predictions import determination as test  # noqa: PLC0415
    from polytope_lm.report import write  # noqa: PLC0415

    opened = open_store(store)
    needed = Needed("to write into its MLPs", "give --model")
    loaded = model_of(opened, model, needed, trust=trust_remote_code)
    wanted = None if isinstance(chosen, str) else chosen
    places = len(opened.layers) if wanted is None else len(wanted)
    beside = " and all at once" if together else ""
    counts = (
        f"up to {counted(documents, 'document')} of {counted(max_tokens, 'token')}, {counted(places, 'layer')}{beside}"
    )
    with costing("test determination", f"{counts}; finished documents are kept") as told:
        result = test(
            opened, wanted, model=loaded, documents=documents, max_tokens=max_tokens, fit_tokens=fit_tokens,
            neurons=neurons, draws=draws, together=together, seed=seed, resamples=resamples,
            smallest_effect=smallest_effect, to=out / "layers", progress=told,
        )  # fmt: skip
    s = result.settings
    command = o.spelled(
        "test", "determination", store, layers=layers, documents=documents, max_tokens=s.max_tokens,
        fit_tokens=fit_tokens, neurons=s.neurons, draws=s.draws, seed=s.seed, resamples=s.resamples,
        smallest_effect=s.smallest_effect, out=out, model=model, no_together=result.together is None,
    )  # fmt: skip
    result = replace(result, command=command)
    result.save(out)
    page = write(out / "report.html", others=[result])
    if json:
        emit({**result.to_dict(), "report": str(page)})
        return
    say_verdict(result)
    heads, *rows = result.rows()
    # What an arm makes of post is in the page.
    kept = [column for column, head in enumerate(heads) if head != "becomes"]
    show_table([heads[i] for i in kept], [[row[i] for i in kept] for row in rows])
    say()
    for note in result.notes():
        say(note)
    say(f"written: {page.resolve().as_uri()}")
