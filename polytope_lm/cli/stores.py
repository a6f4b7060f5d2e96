"""`polytope-lm info`, `nearest` and `measure`: what a store holds, which tokens are alike, what can be counted."""

import re
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from polytope_lm.cli.options import Json, Layers, ModelHere, Needed, Seed, StorePath, Trust, model_of, parse_layers
from polytope_lm.cli.options import parse_names as names_of
from polytope_lm.cli.terminal import columns, complain, costing, counted, emit, in_context, say, show_table, size

if TYPE_CHECKING:
    import pandas as pd

    from polytope_lm.codes.code import Code, Nearest
    from polytope_lm.codes.overview import LayerOverview
    from polytope_lm.codes.store.reader import CodeStore

Verify = Annotated[bool, typer.Option("--verify", help="Check every file against its checksum.")]
Query = Annotated[
    str, typer.Argument(metavar="TEXT-OR-ROW", help="A text, whose last token is looked up, or a row number.")
]
Layer = Annotated[int | None, typer.Option(help="The layer; needed if the store has several.")]
Count = Annotated[int, typer.Option("-k", min=1, help="How many neighbours.")]

_VALUES_SHOWN = 12


class Per(StrEnum):
    """What has a row."""

    token = "token"  # noqa: S105 - no password
    prompt = "prompt"


PerWhat = Annotated[Per, typer.Option(help="A row a token, or a row a prompt (document).")]
Which = Annotated[
    str, typer.Option(help="Groups: boundary, jacobian, path, complexity, output; by default all the model has.")
]
Most = Annotated[int, typer.Option(min=1, help="Measure at most this many tokens or prompts, drawn at random.")]
Radius = Annotated[float, typer.Option(help="Radius of local complexity's frames, as a share of the norm.")]
Table = Annotated[Path | None, typer.Option("--out", help="A .csv or .parquet file for all rows.")]


class Rows(TyperCommand):
    """A command that takes row numbers: a negative one is no option that is missing."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse a negative row."""
        options = args[: args.index("--")] if "--" in args else args
        for before, arg in pairwise(("", *options)):
            if re.fullmatch(r"-\d+", arg) and not before.startswith("-"):
                msg = f"{arg} is not a row: rows count from 0 (write `--` before a text with a dash)"
                raise typer.BadParameter(msg, ctx=ctx, param_hint="TEXT-OR-ROW")
        return super().parse_args(ctx, args)


def info(store: StorePath, *, verify: Verify = False, json: Json = False) -> None:
    """Show what is in a store: model, sites, tokens, labels, firing rates, ambiguous bits, size.

    \b
    Examples:
      polytope-lm info store --verify
    """  # noqa: D301
    from polytope_lm.codes.store.reader import CodeStore, located, open_store  # noqa: PLC0415

    if verify:  # not opened by `open_store`, which stops at the first damaged file
        _verify(CodeStore(located(store)), store, json=json)
        return
    opened = open_store(store)
    facts = _facts(opened)
    if json:
        emit(facts, "info")
        return
    _show_facts(facts)


def _verify(opened: "CodeStore", place: Path, *, json: bool) -> None:
    problems = opened.verify()
    if json:
        emit({"store": str(place), "complete": opened.complete, "problems": problems}, "verification")
    else:
        for problem in problems:
            say(problem)
    if problems:
        one = len(problems) == 1
        complain(f"error: {place}: {len(problems)} {'file is' if one else 'files are'} not as written")
        raise typer.Exit(1)
    if not json:
        unfinished = "" if opened.complete else "; the capture is not complete"
        say(f"{place}: {counted(len(opened.shards), 'shard')}, every file as written{unfinished}")


def _facts(store: "CodeStore") -> dict[str, Any]:
    """Gather what `info` shows."""
    facts: dict[str, Any] = {
        "store": str(store.path),
        "complete": store.complete,
        "shards": len(store.shards),
        "bytes": int(store.shards["bytes"].sum()),
        "settings": dict(store.provenance),
    }
    empty: dict[str, Any] = {"tokens": 0, "documents": 0, "first_position": 0, "labels": {}, "sites": []}
    if not len(store.shards):
        return facts | empty
    from polytope_lm.codes.overview import overview  # noqa: PLC0415
    from polytope_lm.predictions.clusters.sampling import label_names  # noqa: PLC0415

    seen = overview(store)
    counts = {name: store.tokens[name].value_counts().to_dict() for name in label_names(store)}
    return facts | {
        "tokens": len(store),
        "documents": len(store.documents),
        "first_position": seen.first_position,
        "labels": {name: {str(value): int(n) for value, n in values.items()} for name, values in counts.items()},
        "sites": [_site(layer) for layer in seen.layers],
    }


def _site(layer: "LayerOverview") -> dict[str, Any]:
    site = layer.site
    counted_bits = {name: getattr(layer, name) for name in ("dead", "always_on", "distinct_codes", "ambiguous")}
    return {
        "layer": site.layer, "key": site.key, "bits": site.width, "hook": site.hook,
        "premises": str(site.premises), "premises_met": site.premises.met,
        "firing_rate": layer.mean_bits_on / site.width, "rate_histogram": list(layer.rate_histogram),
        **counted_bits,
    }  # fmt: skip


def _show_facts(facts: dict[str, Any]) -> None:
    settings = facts["settings"]
    whole = "complete" if facts["complete"] else "NOT complete: run the capture again to go on"
    tokens, documents = (counted(facts[f"{what}s"], what) for what in ("token", "document"))
    counts = f"{tokens} of {documents}, {counted(facts['shards'], 'shard')}"
    say(f"{facts['store']}: {counts}, {size(facts['bytes'])}, {whole}")
    say(f"model {settings['model']} ({settings['family']}), revision {settings['revision']}")
    bos = "with BOS" if settings["bos"] else "without BOS"
    how = f"{settings['dtype']}, {settings['attention']} attention, {bos}"
    say(f"read as {how}; documents: {settings['documents']}")
    kept = ", ".join(settings["keep"]) or "nothing"
    say(f"tokens: {settings['tokens']}, seed {settings['seed']}; kept beside the bits: {kept}")
    if facts["first_position"]:
        first = f"a document's first and read without BOS: {counted(facts['first_position'], 'token')}"
        say(f"{first} (attention sinks, left out of headline scores)")
    for name, values in facts["labels"].items():
        shown = ", ".join(f"{value} {count:,}" for value, count in list(values.items())[:_VALUES_SHOWN])
        more = f", and {len(values) - _VALUES_SHOWN} more" if len(values) > _VALUES_SHOWN else ""
        say(f"label {name}: {shown or 'no value'}{more}")
    if facts["sites"]:
        _show_sites(facts["sites"])


def _show_sites(sites: list[dict[str, Any]]) -> None:
    rows = []
    for site in sites:
        unknown = "no signs" if site["key"].endswith(".router") else "h not kept"
        ambiguous = unknown if site["ambiguous"] is None else f"{site['ambiguous']:.1%}"
        counts = (f"{site['firing_rate']:.3f}", site["dead"], site["always_on"], f"{site['distinct_codes']:,}")
        rows.append((site["layer"], site["key"], site["bits"], *counts, ambiguous, site["premises"]))
    numbers = ("bits", "firing rate", "dead", "always on", "distinct codes", "|h| < 0.5")
    show_table(("layer", "site", *numbers, "premises"), rows, right=("layer", *numbers))


def nearest(
    store: StorePath, query: Query, *, layer: Layer = None, k: Count = 10, model: ModelHere = None,
    trust_remote_code: Trust = False, json: Json = False,
) -> None:  # fmt: skip
    """Show the tokens nearest to a token by code and by direction, side by side, in context.

    The token is a row of the store, or the last token of a text, which the store's own model reads.

    \b
    Examples:
      polytope-lm nearest store "He sat on the bank" --layer 2
      polytope-lm nearest store 17 --layer 2 -k 5
    """  # noqa: D301
    from polytope_lm.codes.store.reader import open_store  # noqa: PLC0415

    opened = open_store(store)
    is_row = query.isascii() and query.isdigit()
    found = opened.nearest(
        int(query) if is_row else _encoded(opened, query, layer, model, trust=trust_remote_code), k, layer
    )
    if json:
        emit(_nearest_facts(found, query, is_row=is_row), "nearest")
        return
    left, token, right = found.query.context
    site = found.query.site
    say(f"nearest to {left[-30:]}[{token}]{right[:30]} in {site.key} ({site.width} bits)")
    _show_nearest(found)


def _encoded(store: "CodeStore", text: str, layer: int | None, name: str | None, *, trust: bool) -> "Code":
    """Return the code of a text's last token, by the model that the store's codes come from."""
    from polytope_lm.codes.capture import encode  # noqa: PLC0415
    from polytope_lm.tokens.tokenising import specials  # noqa: PLC0415

    site, was = store.site(layer), store.provenance
    needed = Needed("to read a text", "give a row number, or --model")
    model = model_of(store, name, needed, trust=trust)
    around, were = specials(model.tokenizer, model.bos), was["special_tokens"]
    same = [list(around.prefix), list(around.suffix)] == [were["before"], were["after"]]
    options = {"bos": None if same else was["bos"], "max_length": was["max_length"]}
    kind = site.hook if site.kind == "custom" else site.kind
    codes = encode(model, [text], layers=[site.layer], kind=kind, **options)
    return codes.code(len(codes) - 1, site.layer)


def _nearest_facts(found: "Nearest", query: str, *, is_row: bool) -> dict[str, Any]:
    left, token, right = found.query.context
    asked = {
        "row": int(query) if is_row else None,
        "text": None if is_row else query,
        "left": left,
        "token": token,
        "right": right,
    }
    sides = {"by_code": found.by_code, "by_direction": found.by_direction}
    tables = {name: None if side is None else side.to_dict("records") for name, side in sides.items()}
    return {"query": asked, "site": found.query.site.key, "layer": found.query.site.layer, **tables, "note": found.note}


def _show_nearest(found: "Nearest") -> None:
    by_code, by_direction = found.by_code, found.by_direction
    heads = ["bits", "by code", "row"]
    sides: list[list[Any]] = [by_code["hamming"].tolist(), _contexts(by_code), by_code["row"].tolist()]
    if by_direction is not None:
        heads += ["cosine", "by direction", "row "]
        sides += [[f"{c:.3f}" for c in by_direction["cosine"]], _contexts(by_direction), by_direction["row"].tolist()]
    show_table(heads, zip(*sides, strict=True), right=("bits", "row", "cosine", "row "), elastic=heads[1::3])
    say(found.note)


def _contexts(side: Any) -> list[Any]:
    width = columns()
    # Two contexts a line, and 40 columns for numbers, gaps and the tokens themselves.
    chars = 26 if width is None else min(26, max(8, (width - 40) // 4))
    rows = side[["left", "token", "right"]].itertuples(index=False)
    return [in_context(left, token, right, chars) for left, token, right in rows]


def measure(  # noqa: PLR0913
    store: StorePath, *, layers: Layers = "all", per: PerWhat = Per.token, which: Which = "", most: Most = 1000,
    radius: Radius = 0.005, seed: Seed = 0, model: ModelHere = None, trust_remote_code: Trust = False,
    out: Table = None, json: Json = False,
) -> None:  # fmt: skip
    """Measure the polytopes of a store's tokens or prompts: counts, each beside a smooth number.

    The store's own model is run again. Shown are medians and, in brackets, the 10th and 90th percentile; then how
    many different codes there are, beside what independent neurons of the same rates would have.

    \b
    Examples:
      polytope-lm measure store --layers 1,2 --out measures.csv
      polytope-lm measure store --per prompt --json
    """  # noqa: D301
    from polytope_lm.codes.store.reader import open_store  # noqa: PLC0415
    from polytope_lm.errors import PolytopeError  # noqa: PLC0415
    from polytope_lm.geometry.distinct import distinct_codes  # noqa: PLC0415
    from polytope_lm.geometry.token_measures import Settings  # noqa: PLC0415
    from polytope_lm.geometry.token_measures import measure as taken  # noqa: PLC0415

    if out is not None and out.suffix not in {".csv", ".parquet"}:
        raise PolytopeError(f"--out {out}: the name ends in {out.suffix or 'nothing'}; give a .csv or .parquet file")
    opened, chosen = open_store(store), parse_layers(layers)
    wanted, settings = None if isinstance(chosen, str) else chosen, Settings(radius=radius, seed=seed)
    ran = model_of(opened, model, Needed("to measure", "give --model"), trust=trust_remote_code)
    with costing("measure", f"at most {counted(most, per.value)}") as told:
        frame = taken(
            opened, layers=wanted, per=per.value, model=ran, most=most, which=names_of(which) or None,
            settings=settings, progress=told,
        )  # fmt: skip
    grown = distinct_codes(opened, wanted, seed=seed)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        frame.to_csv(out, index=False) if out.suffix == ".csv" else frame.to_parquet(out, index=False)
    if json:
        distinct = _records(grown.to_frame())
        emit({"store": str(store), "per": per.value, "rows": _records(frame), "distinct codes": distinct}, "measures")
        return
    _show_measures(frame, per.value)
    heads, *rows = grown.rows()
    say(grown.headline)
    show_table(heads, rows, right=heads[1:])
    if out is not None:
        say(f"written: {out}")


def _records(frame: "pd.DataFrame") -> list[dict[str, Any]]:
    """Return the rows as JSON has them: what does not exist is null."""
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def _show_measures(frame: "pd.DataFrame", per: str) -> None:
    left_out = {"document", "position", "layer", "boundary neuron", "radius"}
    numbers = [str(name) for name in frame.select_dtypes("number").columns if name not in left_out]
    every = frame["layer"].unique().tolist()
    rows = []
    for name in numbers:
        cells = []
        for layer in every:
            low, middle, high = frame.loc[frame["layer"] == layer, name].quantile([0.1, 0.5, 0.9])
            cells.append(f"{middle:.3g} [{low:.3g}, {high:.3g}]")
        rows.append((name, *cells))
    heads = [f"layer {layer}" for layer in every]
    show_table((f"of {counted(len(frame) // len(every), per)}", *heads), rows, right=heads)
