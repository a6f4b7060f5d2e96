"""`polytope-lm models`: what can be loaded, and what a model's sites are.

`polytope-lm capture`: codes of every sampled token of some documents, into a store.

`polytope-lm report`: one page from saved results.
"""

from importlib import resources
from json import loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polytope_lm.cli import options as o
from polytope_lm.cli.options import Json, Revision, Trust
from polytope_lm.cli.terminal import complain, counted, emit, say, show_table, size

if TYPE_CHECKING:
    from polytope_lm.models.model import Model

Name = Annotated[str | None, typer.Argument(help="A model, to see its sites and premises.")]


def models(
    name: Name = None, *, revision: Revision = None, trust_remote_code: Trust = False, json: Json = False
) -> None:
    """List the packaged models and the known families; with a name, show a model's sites and premises.

    \b
    Examples:
      polytope-lm models
      polytope-lm models tiny-gpt2
    """  # noqa: D301
    if name is None:
        _list(json=json)
        return
    from polytope_lm.models.loading import load  # noqa: PLC0415

    model = load(name, revision=revision, trust_remote_code=trust_remote_code)
    if json:
        emit(_facts(model), "model")
        return
    say(model)
    say(f"revision {model.revision}")
    rows = [(site.layer, site.key, site.width, site.hook, site.premises) for site in model.sites]
    show_table(("layer", "site", "bits", "hook point", "premises"), rows, right=("layer", "bits"))


def _facts(model: "Model") -> dict[str, Any]:
    sites = [
        {**site.to_dict(), "key": site.key, "premises": str(site.premises), "premises_met": site.premises.met}
        for site in model.sites
    ]
    named = {name: getattr(model, name) for name in ("name", "revision", "family", "causal", "d_model")}
    return {**named, "layers": model.n_layers, "context": model.context_length, "sites": sites}


def _list(*, json: bool) -> None:
    from polytope_lm.models.packaged import PACKAGED  # noqa: PLC0415

    if json:
        fields = ("name", "description", "family", "licence", "install", "installed")
        known = [{field: getattr(entry, field) for field in fields} for entry in PACKAGED.values()]
        emit({"models": known}, "models")
        return
    rows = [(e.name, "yes" if e.installed else e.install or "", e.description, e.licence) for e in PACKAGED.values()]
    show_table(("name", "installed", "what it is", "licence"), rows, elastic=("what it is", "licence"))
    say("A directory written by save_pretrained (./gpt2) or a hub name (gpt2) works, too.")
    say()
    say("Families, and what was proved of each by comparison with plain forward hooks:")
    text = resources.files("polytope_lm").joinpath("data/families.json").read_text(encoding="utf-8")
    families: list[dict[str, str]] = loads(text)
    columns = [column for column in families[0] if column != "MLP"]
    reasons = list(dict.fromkeys(v for row in families for v in row.values() if v.startswith("refused: ")))
    number = {reason: f"refused ({n})" for n, reason in enumerate(reasons, 1)}
    show_table(columns, [tuple(number.get(row[c], row[c]) for c in columns) for row in families])
    for n, reason in enumerate(reasons, 1):
        say(f"({n}) {reason.removeprefix('refused: ')}")


Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE", help="A file (.txt .jsonl .csv .parquet .conllu), a directory, hub:NAME or sample."
    ),
]
StoreOut = Annotated[Path, typer.Option("--out", help="The store's directory. Run it again to continue.")]
Tokens = Annotated[str, typer.Option(help="all, word-final, every:6,skip:100 or random:80.")]
Keep = Annotated[str, typer.Option(help="Activations to keep, such as u,h; comparisons need both.")]
KeepDtype = Annotated[str, typer.Option(help="float32 or float16.")]
Shard = Annotated[str, typer.Option(help="I/N: write every N-th shard; N processes share a store.")]
Workers = Annotated[int | None, typer.Option(help="Ray's workers; by default one a shard, as far as the machine goes.")]
GpusPerWorker = Annotated[float, typer.Option(help="Graphics cards of each of Ray's workers.")]
Bos = Annotated[bool | None, typer.Option("--bos/--no-bos", help="Begin with BOS; by default as the tokenizer does.")]
MinContext = Annotated[int | None, typer.Option(min=0, help="Least number of tokens before each stored token.")]
MaxLength = Annotated[int | None, typer.Option(min=1, help="Tokens of a window; by default the model's context.")]
AllPieces = Annotated[bool, typer.Option("--all-pieces", help="Label all tokens of a word, not only its last one.")]
Split = Annotated[str | None, typer.Option(help="blank-lines: each paragraph of a text is a document.")]
TextColumn = Annotated[str | None, typer.Option(help="A table's column of texts.")]
LabelColumns = Annotated[str, typer.Option(help="Columns that become labels, separated by commas.")]
NoHeader = Annotated[bool, typer.Option("--no-header", help="A CSV's columns are called 0, 1, ...")]
MaxDocuments = Annotated[int | None, typer.Option(min=1, help="Read at most this many documents.")]
ShardDocuments = Annotated[int | None, typer.Option(min=1, help="Documents per shard.")]


def capture(  # noqa: PLR0913
    model: o.ModelName, source: Source, *, out: StoreOut, layers: o.Layers = "all", kind: o.Kind = None,
    tokens: Tokens = "all", keep: Keep = "", keep_dtype: KeepDtype = "float32", shard: Shard = "1/1",
    engine: o.Engine = "here", workers: Workers = None, gpus_per_worker: GpusPerWorker = 0,
    seed: o.Seed = 0, bos: Bos = None, min_context: MinContext = None, max_length: MaxLength = None,
    all_pieces: AllPieces = False, split: Split = None, text_column: TextColumn = None,
    label_columns: LabelColumns = "", no_header: NoHeader = False, max_documents: MaxDocuments = None,
    shard_documents: ShardDocuments = None, device: o.Device = "cpu", dtype: o.Dtype = "float32",
    revision: o.Revision = None, trust_remote_code: o.Trust = False, json: o.Json = False,
) -> None:  # fmt: skip
    """Write the codes of every sampled token into a store. The cost is shown first; run it again to continue.

    \b
    Examples:
      polytope-lm capture tiny-gpt2 corpus.conllu --out store --layers 0,2 --keep u,h
    """  # noqa: D301
    chosen, part, rule = o.parse_layers(layers), o.parse_shard(shard), _checked_rule(tokens)
    from polytope_lm.documents import documents  # noqa: PLC0415

    how: dict[str, Any] = {"split": split, "text_column": text_column}
    texts = documents(
        source, header=not no_header, max_documents=max_documents, label_columns=o.parse_names(label_columns), **how
    )
    from polytope_lm.codes import capture as captures  # noqa: PLC0415
    from polytope_lm.models.loading import load  # noqa: PLC0415

    loaded = load(model, device=device, dtype=dtype, revision=revision, trust_remote_code=trust_remote_code)
    store = captures.capture(
        loaded, texts, to=out, layers=chosen, kind=kind, keep=o.parse_names(keep), tokens=rule, part=part,
        engine=engine, workers=workers, gpus_per_worker=gpus_per_worker,
        shard_documents=shard_documents, progress=None if json else True, seed=seed, bos=bos,
        all_pieces=all_pieces, min_context=min_context, max_length=max_length, keep_dtype=keep_dtype,
    )  # fmt: skip
    _show(store, json=json)
    if not {"u", "h"} <= set(store.kept):
        complain("a comparison with directions will run the model again; --keep u,h stores what it needs")


def _checked_rule(text: str) -> str:
    """Refuse a rule that means nothing before a model is loaded for it."""
    from polytope_lm.errors import PolytopeError  # noqa: PLC0415
    from polytope_lm.tokens.windowing import parse_rule  # noqa: PLC0415

    try:
        return str(parse_rule(text))
    except PolytopeError as error:
        raise typer.BadParameter(str(error), param_hint="--tokens") from error


def _show(store: Any, *, json: bool) -> None:
    shards = store.shards
    rows, documents, n_bytes = (int(shards[name].sum()) for name in ("rows", "documents", "bytes"))
    if json:
        emit({
            "store": str(store.path), "complete": store.complete, "tokens": rows, "documents": documents,
            "bytes": n_bytes, "shards": len(shards), "sites": [site.key for site in store.sites],
            "kept": list(store.kept),
        }, "capture")  # fmt: skip
        return
    counts = f"{counted(rows, 'token')} of {counted(documents, 'document')}"
    say(f"{store.path}: {counts}, {counted(len(store.sites), 'site')}, {size(n_bytes)}")
    if not store.complete:
        say("not complete: the other parts' shards are missing (run --shard I/N for each I)")
    say(f"next: polytope-lm info {store.path}")


Directories = Annotated[list[Path], typer.Argument(metavar="DIR...", help="What `test`, `cross` or `demo` wrote.")]
Page = Annotated[Path, typer.Option("--out", help="The HTML file.")]
Title = Annotated[str | None, typer.Option(help="Stands in the page's head; by default the model's name.")]


def report(
    directories: Directories, *, out: Page = Path("report.html"), title: Title = None, json: Json = False
) -> None:
    """Write one self-contained page from saved results.

    \b
    Examples:
      polytope-lm report results crossings --out report.html
    """  # noqa: D301
    from polytope_lm.report import from_directories  # noqa: PLC0415

    page = from_directories(directories, out, title=title)
    if json:
        emit({"report": str(page)}, "page")
    else:
        say(f"written: {page.resolve().as_uri()}")
