"""`polytope-lm calibrate`: how often the test of clusters is wrong on the user's own codes."""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from polytope_lm.cli import options as o
from polytope_lm.cli.terminal import costing, counted, emit, say, show_table


class Exchange(StrEnum):
    """How labels become labels that mean nothing."""

    documents = "between documents"
    drawn = "drawn per document"
    words = "within word and document"


Label = Annotated[str, typer.Option(help="The label that is exchanged, such as upos.")]
How = Annotated[Exchange, typer.Option(help="How the labels are exchanged; the first two are true nulls.")]
Runs = Annotated[int, typer.Option(min=1, help="How often they are exchanged.")]
Splits = Annotated[int, typer.Option(min=0, help="Splits of the documents into halves that must agree; 0: none.")]
Clusters = Annotated[int | None, typer.Option("--k", min=2, help="Clusters; by default 100, or n/60 below 6,000.")]
Tokens = Annotated[int, typer.Option(min=2, help="Compare at most this many tokens.")]
PerDocument = Annotated[int, typer.Option(min=1, help="Compare at most this many tokens of one document.")]
Resamples = Annotated[int, typer.Option(min=4, help="Half-samples of the documents behind each interval.")]
Smallest = Annotated[float, typer.Option(min=0, help="The smallest difference of interest.")]
Saved = Annotated[Path | None, typer.Option("--out", help="Directory for calibration.json.")]


def calibrate(  # noqa: PLR0913
    store: o.StorePath, *, label: Label, layers: o.Layers = "all", exchange: How = Exchange.documents,
    runs: Runs = 200, splits: Splits = 20, k: Clusters = None, tokens: Tokens = 6000,
    per_document: PerDocument = 20, seed: o.Seed = 0, resamples: Resamples = 40,
    smallest_effect: Smallest = 0.01, out: Saved = None, json: o.Json = False,
) -> None:  # fmt: skip
    """Say how often `test clusters` is wrong on a store: the same test with labels that mean nothing.

    Also splits the documents into halves, which must agree on the real labels.

    \b
    Examples:
      polytope-lm calibrate store --label upos --layers 2
    """  # noqa: D301
    chosen = o.parse_layers(layers)
    from polytope_lm.codes.store.reader import open_store  # noqa: PLC0415
    from polytope_lm.predictions.calibration.test import calibrate as test  # noqa: PLC0415

    opened = open_store(store)
    wanted = None if isinstance(chosen, str) else chosen
    places = len(opened.layers) if wanted is None else len(wanted)
    with costing(
        "calibrate", f"{counted(runs, 'exchange')} of labels, {counted(splits, 'split')} in {counted(places, 'layer')}"
    ) as told:
        result = test(
            opened, wanted, label, exchange=exchange.value, runs=runs, splits=splits, k=k, tokens=tokens,
            per_document=per_document, seed=seed, resamples=resamples, smallest_effect=smallest_effect, progress=told,
        )  # fmt: skip
    command = o.spelled(
        "calibrate", store, label=label, layers=layers, exchange=exchange.value, runs=runs, splits=splits,
        k=k, tokens=tokens, per_document=per_document, seed=seed, resamples=resamples,
        smallest_effect=smallest_effect, out=out,
    )  # fmt: skip
    result = replace(result, command=command)
    if out is not None:
        result.save(out)
    if json:
        emit(result.to_dict())
        return
    say(result.headline, style="bold")
    rows = [
        (str(layer.layer), name, str(rate), "" if mean is None else f"{mean:+.4f}")
        for layer in result.layers
        for name, rate, mean in (*layer.rates(), *((name, rate, None) for name, rate in layer.halves()))
    ]
    show_table(("layer", "rate", "how often", "mean difference"), rows)
    for note in result.notes():
        say(note)
