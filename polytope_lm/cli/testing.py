"""`polytope-lm test`: predictions of the polytope lens, put to the test.

`polytope-lm test boundaries`: do polytope boundaries follow meaning.
"""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polytope_lm.cli import options as o
from polytope_lm.cli.options import ModelHere, Needed, model_of
from polytope_lm.cli.terminal import complain, costing, counted, emit, say, say_verdict, show_table
from polytope_lm.progress import progress

if TYPE_CHECKING:
    from polytope_lm.codes.store.reader import CodeStore
    from polytope_lm.predictions.boundaries.result import BoundariesResult
    from polytope_lm.predictions.clusters.result import ClustersResult

app = typer.Typer(
    help="Put a prediction of the polytope lens to the test.", no_args_is_help=True, rich_markup_mode=None
)

LONG = 4000
"""Tokens from which a comparison is worth a probe of its minutes: below, it is over soon."""

Label = Annotated[str, typer.Option(help="The label that clusters are scored against, such as upos.")]
Clusters = Annotated[
    int | None, typer.Option("--k", min=2, help="Clusters; by default 100, or n/60 below 6,000 tokens.")
]
Tokens = Annotated[int, typer.Option(min=2, help="Compare at most this many tokens.")]
PerDocument = Annotated[int, typer.Option(min=1, help="Compare at most this many tokens of one document.")]
Comparators = Annotated[bool, typer.Option(help="Also top neuron, NMF and k-means directions, joined codes.")]
Resamples = Annotated[int, typer.Option(min=2, help="Half-samples of the documents behind each interval.")]
Rounds = Annotated[
    int | None,
    typer.Option(min=1, help="Measure a layer that another seed could turn so often at most; by default 2 to 16."),
]
Smallest = Annotated[float, typer.Option(min=0, help="The smallest difference of interest.")]
Extra = Annotated[str, typer.Option(metavar="all/NAME,...", help="Other representations and controls to show, too.")]
Weights = Annotated[
    str | None,
    typer.Option(metavar="NAME,...", help="Controls with other weights: permuted, untrained. --extra all takes both."),
]
Multiverse = Annotated[
    bool, typer.Option("--multiverse", help="Also sweep k, seeds and clusterers, into multiverse.json.")
]
Groups = Annotated[bool, typer.Option("--groups", help="Also score the clusters in other ways, into groups.json.")]

Maps = Annotated[bool, typer.Option("--maps", help="Draw maps of the tokens, by code and by direction.")]


@app.callback()
def _group() -> None:
    """Put a prediction of the polytope lens to the test."""


@app.command(short_help="Prediction 1: codes against directions.")
def clusters(  # noqa: PLR0913
    store: o.StorePath, *, label: Label, out: o.Out, layers: o.Layers = "all", k: Clusters = None,
    tokens: Tokens = 6000, per_document: PerDocument = 20, seed: o.Seed = 0, resamples: Resamples = 40,
    smallest_effect: Smallest = 0.01, comparators: Comparators = True, extra: Extra = "", weights: Weights = None,
    rounds: Rounds = None, multiverse: Multiverse = False, groups: Groups = False, maps: Maps = False,
    model: ModelHere = None, engine: o.Engine = "here", trust_remote_code: o.Trust = False, json: o.Json = False,
) -> None:  # fmt: skip
    """Prediction 1: whether clusters of codes mean more than clusters of directions.

    If the store was captured without --keep u,h, its model runs again. Writes result.json, tokens.parquet,
    overview.json, distinct-codes.json and report.html. What --extra, --weights, --multiverse, --groups and --maps
    add is shown, but is never part of the verdict.

    \b
    Examples:
      polytope-lm test clusters store --label upos --layers 2 --out results
    """  # noqa: D301
    chosen = o.parse_layers(layers)
    asked = None if weights is None else o.parse_names(weights)
    from polytope_lm.codes.store.reader import open_store  # noqa: PLC0415
    from polytope_lm.geometry.distinct import distinct_codes  # noqa: PLC0415
    from polytope_lm.predictions import clusters as compare  # noqa: PLC0415
    from polytope_lm.predictions import overview  # noqa: PLC0415
    from polytope_lm.report import write  # noqa: PLC0415

    opened = _with_directions(open_store(store), model, trust=trust_remote_code)
    opened = _with_weights(opened, asked, model, trust=trust_remote_code, helps=groups or extra == "all")
    there = len(opened.sites) if isinstance(chosen, str) else len(chosen)
    compared = counted(min(tokens, len(opened)), "token")
    wanted = None if isinstance(chosen, str) else chosen
    alike = partial(
        compare, opened, k=k, seed=seed, smallest_effect=smallest_effect, extra=parse_extra(extra),
        per_document=per_document, comparators=comparators,
    )  # fmt: skip

    def probe() -> float:
        """Take a quarter of the tokens, an eighth of the half-samples and one layer: distances go by squares."""
        few = max(2, resamples // 8)
        began = time.perf_counter()
        alike(opened.sites[0].layer, label, tokens=tokens // 4, resamples=few, rounds=1)
        return (time.perf_counter() - began) * 16 * there * resamples / few

    counts = f"up to {compared} in {counted(there, 'layer')}, layers near a bound more than once"
    with costing("test clusters", counts, probe if min(tokens, len(opened)) >= LONG else None) as told:
        result = alike(
            wanted, label, tokens=tokens, resamples=resamples, weights=asked, engine=engine, rounds=rounds,
            progress=told,
        )  # fmt: skip
    if maps:
        from polytope_lm.predictions import with_maps  # noqa: PLC0415

        with progress("drawing maps") as told:
            result = with_maps(opened, result, progress=told)
    s = result.settings
    command = o.spelled(
        "test", "clusters", store, label=s.label, layers=layers, k=s.k, tokens=s.max_tokens, seed=s.seed,
        per_document=s.per_document, no_comparators=not comparators, resamples=s.resamples,
        smallest_effect=s.smallest_effect, rounds=rounds, out=out, extra=extra or None, weights=weights,
        multiverse=multiverse, groups=groups, maps=maps, model=model,
    )  # fmt: skip
    result = replace(result, command=command)
    more = _more(opened, result, out, multiverse=multiverse, groups=groups)
    seen, grown = overview(opened), distinct_codes(opened, wanted, seed=seed)
    seen.save(out)
    grown.save(out)
    page = write(out / "report.html", clusters=result, overview=seen, others=[grown], **more)
    if json:
        emit({**result.to_dict(), "report": str(page)})
        return
    say_verdict(result)
    show_scores(result)
    say(f"written: {page.resolve().as_uri()}")


@app.command(short_help="Prediction 1 for mixtures of experts: paths through the routers.")
def routers(  # noqa: PLR0913
    store: o.StorePath, *, label: Label, out: o.Out, layers: o.Layers = "all", k: Clusters = None,
    tokens: Tokens = 6000, per_document: PerDocument = 20, seed: o.Seed = 0, resamples: Resamples = 40,
    smallest_effect: Smallest = 0.01, weights: Weights = None, model: ModelHere = None,
    trust_remote_code: o.Trust = False, json: o.Json = False,
) -> None:  # fmt: skip
    """Prediction 1 for mixtures of experts: whether paths through the routers mean more than directions do.

    A path is the experts that the routers of all --layers chose. It is compared with the cosine of the
    router logits, with random routers of equal load, with the router's input, and with each layer alone.
    Writes result.json, tokens.parquet, overview.json and report.html.

    \b
    Example:
      polytope-lm capture tiny-moe sample --kind router --keep u,h --tokens random:20 --out store
      polytope-lm test routers store --label class --out results
    """  # noqa: D301
    chosen = o.parse_layers(layers)
    asked = None if weights is None else o.parse_names(weights)
    from polytope_lm.codes.store.reader import open_store  # noqa: PLC0415
    from polytope_lm.predictions import overview  # noqa: PLC0415
    from polytope_lm.predictions import routers as compare  # noqa: PLC0415
    from polytope_lm.report import write  # noqa: PLC0415

    opened = _with_directions(open_store(store), model, trust=trust_remote_code)
    opened = _with_weights(opened, asked, model, trust=trust_remote_code, helps=False)
    with costing("test routers", f"up to {counted(min(tokens, len(opened)), 'token')}") as told:
        result = compare(
            opened, None if isinstance(chosen, str) else chosen, label, k=k, tokens=tokens, seed=seed,
            per_document=per_document, resamples=resamples, smallest_effect=smallest_effect, weights=asked,
            progress=told,
        )  # fmt: skip
    s = result.settings
    command = o.spelled(
        "test", "routers", store, label=s.label, layers=layers, k=s.k, tokens=s.max_tokens, seed=s.seed,
        per_document=s.per_document, resamples=s.resamples, smallest_effect=s.smallest_effect, out=out,
        weights=weights, model=model,
    )  # fmt: skip
    result, seen = replace(result, command=command), overview(opened)
    result.save(out)
    seen.save(out)
    page = write(out / "report.html", clusters=result, overview=seen)
    if json:
        emit({**result.to_dict(), "report": str(page)})
        return
    say_verdict(result)
    show_scores(result)
    say(f"written: {page.resolve().as_uri()}")


def _with_directions(store: "CodeStore", name: str | None, *, trust: bool) -> "CodeStore":
    """Return a store that gives `u` and `h`: as it is, or with its model at hand."""
    if store.can_give("u") and store.can_give("h"):
        return store
    from polytope_lm.codes.capture import with_model  # noqa: PLC0415

    needed = Needed("for directions, as u and h were not kept", "give --model, or capture with --keep u,h")
    return with_model(store, model_of(store, name, needed, trust=trust))


def _with_weights(
    store: "CodeStore", asked: tuple[str, ...] | None, name: str | None, *, trust: bool, helps: bool
) -> "CodeStore":
    """Return a store that has its model at hand where controls of the weights are asked for, or it helps.

    What it would only have helped with is left out where the model is gone, and the result says so.
    """
    if store.model is not None or not (asked or helps):
        return store
    from polytope_lm.codes.capture import with_model  # noqa: PLC0415
    from polytope_lm.errors import PolytopeError  # noqa: PLC0415

    needed = Needed("for its weights permuted or untrained", "give --model, or leave out --weights")
    try:
        return with_model(store, model_of(store, name, needed, trust=trust))
    except PolytopeError:
        if asked or name is not None:
            raise
        return store


def parse_extra(text: str) -> tuple[str, ...] | str:
    """Read `all` or names divided by commas, which some names have inside: the longest known name counts."""
    if text.strip() == "all":
        return "all"
    from polytope_lm.predictions.clusters.layers import NULLS  # noqa: PLC0415
    from polytope_lm.representations import registered  # noqa: PLC0415

    known = {*NULLS, *(each.name for each in registered())}
    parts, names = [part.strip() for part in text.split(",") if part.strip()], []
    while parts:
        ends = range(len(parts), 0, -1)
        end = next((end for end in ends if ", ".join(parts[:end]) in known), 1)
        names.append(", ".join(parts[:end]))
        del parts[:end]
    return tuple(names)


def _more(
    store: "CodeStore", result: "ClustersResult", out: Path, *, multiverse: bool, groups: bool
) -> "dict[str, Any]":
    """Write what else was asked for: multiverse.json, groups.json (one a layer); return it for the page."""
    result.save(out)  # before what may take hours
    layers, settings = [layer.layer for layer in result.layers], result.settings
    found: dict[str, Any] = {}
    if multiverse:
        from polytope_lm.predictions import multiverse as sweep  # noqa: PLC0415

        seeds = range(settings.seed, settings.seed + 3)
        with progress("sweeping") as told:
            found["multiverse"] = sweep(
                store, layers, labels=settings.label, tokens=settings.max_tokens, sample_seeds=seeds,
                progress=told,
            )  # fmt: skip
        found["multiverse"] = replace(found["multiverse"], command=result.command)
        found["multiverse"].save(out)
    if groups:
        from polytope_lm.predictions import groups as score  # noqa: PLC0415

        found["groups"] = []
        for layer in layers:
            with progress(f"scoring groups of layer {layer}") as told:
                scores = score(store, result, layer, seed=settings.seed, progress=told)
            found["groups"].append(replace(scores, command=result.command))
            found["groups"][-1].save(out if len(layers) == 1 else out / f"layer-{layer:02d}")
    return found


def show_scores(result: "ClustersResult") -> None:
    """Print each layer's scores, how far the code is ahead of each reference, and the further verdicts."""
    from polytope_lm.predictions.clusters.result import SCORES  # noqa: PLC0415

    for layer in result.layers:
        site = layer.site
        say(f"layer {site.layer} ({site.key}, {site.width} bits), k = {layer.k}; {site.premises}")
        rows = [(each.name, *(each.score(name) for name in SCORES)) for each in layer.representations]
        for reference in layer.references:
            ahead = [layer.difference("code", reference, score).estimate for score in SCORES]
            signed = (f"{each.value:+.3f} [{each.low:+.3f}, {each.high:+.3f}]" for each in ahead)
            rows.append((f"code - {reference}", *signed))
        code = layer.representation("code")
        rows.append(("n, tokens", *(f"{code.score(name).n:,}" for name in SCORES)))
        show_table(("", *SCORES), rows)
        say()
    for note in result.notes():
        say(note)
    say()


PairsFile = Annotated[str, typer.Argument(metavar="PAIRS", help="A JSON-lines file of prompt pairs, or builtin.")]
Layers = Annotated[
    str, typer.Option(help="Layers, such as 4,15, or all; by default a quarter, a half, three quarters.")
]
Controls = Annotated[
    str, typer.Option(help="Controls with other weights: permuted, untrained, both (default) or none.")
]
Draws = Annotated[int, typer.Option(min=0, help="Draws of rate-matched hyperplanes.")]
Shuffles = Annotated[int, typer.Option(min=0, help="Label permutations within groups.")]
PairResamples = Annotated[int, typer.Option(min=2, help="Bootstrap resamples behind each interval.")]
SmallestAuc = Annotated[float, typer.Option(min=0, help="The smallest difference of interest, in AUC.")]
_SHOWN = 5  # problems that are spelled out
_HOW = "AUC of different against same meaning; 95 % intervals over resampled"


def boundaries(  # noqa: PLR0913
    model: o.ModelName, pairs: PairsFile, *, out: o.Out, layers: Layers = "", kind: o.Kind = None,
    controls: Controls = "permuted,untrained", draws: Draws = 5, shuffles: Shuffles = 100,
    seed: o.Seed = 0, resamples: PairResamples = 1000, smallest_effect: SmallestAuc = 0.02,
    device: o.Device = "cpu", dtype: o.Dtype = "float32", revision: o.Revision = None,
    trust_remote_code: o.Trust = False, json: o.Json = False,
) -> None:  # fmt: skip
    """Prediction 2: whether paths cross more boundaries where meaning changes than distance explains.

    Writes result.json, pairs.parquet and report.html; finished pairs are kept in OUT/pairs. If it
    is interrupted, run it again: it continues.

    \b
    Examples:
      polytope-lm test boundaries tiny-gpt2 builtin --layers 1 --out results
    """  # noqa: D301
    chosen = o.parse_layers(layers) if layers else None
    names = () if controls.strip() == "none" else o.parse_names(controls)
    from polytope_lm.models.loading import load  # noqa: PLC0415
    from polytope_lm.predictions.boundaries.test import boundaries as test  # noqa: PLC0415
    from polytope_lm.predictions.boundaries.test import seconds  # noqa: PLC0415
    from polytope_lm.report import write  # noqa: PLC0415

    loaded = load(model, device=device, dtype=dtype, revision=revision, trust_remote_code=trust_remote_code)
    twins = " and ".join(["the model", *(f"its {name} twin" for name in names)])
    probe = partial(seconds, loaded, pairs, chosen, kind=kind, controls=names)
    with costing("test boundaries", f"pairs of {pairs}, in {twins}; finished pairs are kept", probe) as told:
        result = test(
            loaded, pairs, chosen, kind=kind, seed=seed, resamples=resamples, smallest_effect=smallest_effect,
            draws=draws, controls=names, shuffles=shuffles, keep=out / "pairs", progress=told,
        )  # fmt: skip
    tested, s = ",".join(str(layer.layer) for layer in result.layers), result.settings
    command = o.spelled(
        "test", "boundaries", model, pairs, layers=tested, kind=None if s.kind == "pre" else s.kind,
        controls=",".join(s.controls) or "none", draws=s.draws, shuffles=s.shuffles, seed=s.seed,
        resamples=s.resamples, smallest_effect=s.smallest_effect, out=out,
    )  # fmt: skip
    result = replace(result, command=command)
    result.save(out)
    page = write(out / "report.html", boundaries=result)
    if json:
        emit({**result.to_dict(), "report": str(page)})
        return
    say_verdict(result)
    for problem in result.problems[:_SHOWN]:
        complain(f"left out: {problem}")
    if len(result.problems) > _SHOWN:
        complain(f"left out: {len(result.problems) - _SHOWN} more pairs; result.json has all")
    show_effects(result)
    say(f"written: {page.resolve().as_uri()}")


def show_effects(result: "BoundariesResult") -> None:
    """Print each layer's effects before and after adjusting, variance inflation, and the controls."""
    from polytope_lm.predictions.boundaries.result import HEADS, notes, overview_rows  # noqa: PLC0415

    show_table(HEADS, overview_rows(result))
    say(f"{_HOW} {result.layers[0].unit}")
    say()
    for layer in result.layers:
        for text in notes(layer):
            say(text)
        say()
