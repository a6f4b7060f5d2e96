"""`polytope-lm test`: predictions of the polytope lens, put to the test."""

import json as jsons
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polytope_lm.cli import options as o
from polytope_lm.cli.again import ModelHere, Needed, model_of
from polytope_lm.cli.terminal import emit, progress, say, show_table

if TYPE_CHECKING:
    from polytope_lm.codes.store import CodeStore
    from polytope_lm.predictions.overview import CodeOverview
    from polytope_lm.predictions.results import ClustersResult, Estimate, Settings

app = typer.Typer(
    help="Put a prediction of the polytope lens to the test.", no_args_is_help=True, rich_markup_mode=None
)

Label = Annotated[str, typer.Option(help="The label that clusters are scored against, such as upos.")]
Clusters = Annotated[
    int | None, typer.Option("--k", min=2, help="Clusters; by default 100, or n/60 below 6,000 tokens.")
]
Tokens = Annotated[int, typer.Option(min=2, help="Compare so many tokens at most.")]
Resamples = Annotated[int, typer.Option(min=2, help="Halves of the documents behind each interval.")]
Smallest = Annotated[float, typer.Option(min=0, help="The smallest difference of interest.")]


@app.callback()
def _group() -> None:
    """Put a prediction of the polytope lens to the test."""


@app.command(short_help="Prediction 1: codes against directions.")
def clusters(  # noqa: PLR0913
    store: o.StorePath, *, label: Label, out: o.Out, layers: o.Layers = "all", k: Clusters = None,
    tokens: Tokens = 6000, seed: o.Seed = 0, resamples: Resamples = 200,
    smallest_effect: Smallest = 0.01, model: ModelHere = None, trust_remote_code: o.Trust = False,
    json: o.Json = False,
) -> None:  # fmt: skip
    """Prediction 1: do clusters of codes mean more than clusters of directions.

    A store captured without --keep u,h has its model run again. Writes result.json, tokens.parquet,
    overview.json and report.html.

    \b
    Example:
      polytope-lm test clusters store --label upos --layers 2 --out results
    """  # noqa: D301
    chosen = o.parse_layers(layers)
    from polytope_lm.codes.store import open_store  # noqa: PLC0415
    from polytope_lm.predictions import clusters as compare  # noqa: PLC0415
    from polytope_lm.predictions import overview  # noqa: PLC0415

    opened = _with_directions(open_store(store), model, trust=trust_remote_code)
    with progress("comparing") as told:
        wanted = None if isinstance(chosen, str) else chosen
        result = compare(
            opened, wanted, label, k=k, tokens=tokens, seed=seed, resamples=resamples,
            smallest_effect=smallest_effect, progress=told,
        )  # fmt: skip
    result = replace(result, command=_command(store, out, layers, result.settings, model))
    page = write_results(out, result, overview(opened))
    if json:
        emit({**result.to_dict(), "report": str(page)})
        return
    show_scores(result)
    say(result.verdict, style="bold")
    say(f"written: {page.resolve().as_uri()}")


def _with_directions(store: "CodeStore", name: str | None, *, trust: bool) -> "CodeStore":
    """Return a store that gives `u` and `h`: as it is, or with its model at hand."""
    if store.can_give("u") and store.can_give("h"):
        return store
    from polytope_lm.codes.capture import with_model  # noqa: PLC0415

    needed = Needed("for directions, as u and h were not kept", "give --model, or capture with --keep u,h")
    return with_model(store, model_of(store, name, needed, trust=trust))


def _command(store: Path, out: Path, layers: str, settings: "Settings", model: str | None) -> str:
    """Return the command that reproduces a comparison, every choice spelled out."""
    options: dict[str, object] = {
        "label": settings.label, "layers": layers, "k": settings.k, "tokens": settings.max_tokens,
        "seed": settings.seed, "resamples": settings.resamples,
        "smallest-effect": settings.smallest_effect, "out": out,
    }  # fmt: skip
    if model is not None:
        options["model"] = model
    words = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return shlex.join(["polytope-lm", "test", "clusters", str(store), *words])


def write_results(out: Path, result: "ClustersResult", seen: "CodeOverview") -> Path:
    """Write a comparison, what its codes look like, and their page; return the page."""
    from polytope_lm.report import write  # noqa: PLC0415

    result.save(out)
    save_overview(out, seen)
    return write(out / "report.html", clusters=result, overview=seen)


def save_overview(out: Path, seen: "CodeOverview") -> None:
    """Write what codes look like, where `polytope-lm report` finds it."""
    text = jsons.dumps(seen.to_dict(), indent=1, sort_keys=True, allow_nan=False)
    (out / "overview.json").write_text(text + "\n", encoding="utf-8")


def show_scores(result: "ClustersResult") -> None:
    """Print each layer's scores, and how far the code is ahead of both references."""
    from polytope_lm.predictions.results import REFERENCES, SCORES  # noqa: PLC0415

    for layer in result.layers:
        site = layer.site
        say(f"layer {site.layer} ({site.key}, {site.width} bits), k = {layer.k}; {site.premises}")
        rows = [
            (each.name, *(each.score(name).estimate for name in SCORES)) for each in layer.representations
        ]
        for reference in REFERENCES:
            ahead = (layer.difference("code", reference, score).estimate for score in SCORES)
            rows.append((f"code - {reference}", *(_signed(estimate) for estimate in ahead)))
        code = layer.representation("code")
        rows.append(("n, tokens", *(f"{code.score(name).n:,}" for name in SCORES)))
        show_table(("", *SCORES), rows)
        say()


def _signed(estimate: "Estimate") -> str:
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"
