"""`polytope-lm diff`: which bits of the codes differ between two models."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from polytope_lm.cli import options as o
from polytope_lm.cli.commands import LabelColumns, MaxDocuments, Split, TextColumn
from polytope_lm.cli.terminal import costing, emit, say, show_table

ModelA = Annotated[str, typer.Argument(metavar="A", help="A model: a packaged name, a directory or a hub name.")]
ModelB = Annotated[str, typer.Argument(metavar="B", help="Another of the same architecture and tokenizer.")]
Source = Annotated[
    str, typer.Argument(metavar="SOURCE", help="Documents, as in capture; or a store that model A wrote.")
]
Layers = Annotated[str, typer.Option(help="Layers, such as 0,8, or all.")]
Tokens = Annotated[str, typer.Option(help="Tokens compared: all, word-final, random:80; of a store, its own.")]
Nulls = Annotated[str, typer.Option(help="Controls: weights, rounding, both (default) or none.")]
Draws = Annotated[int, typer.Option(min=1, help="Draws of the random weight change.")]
Resamples = Annotated[int, typer.Option(min=2, help="Bootstrap resamples of documents behind each interval.")]
Saved = Annotated[
    Path | None, typer.Option("--out", help="Directory for results and report.html; a stopped run goes on.")
]
By = Annotated[str | None, typer.Option(help="A label: also the share of flips on each of its values.")]
RevisionA = Annotated[str | None, typer.Option(help="The hub's branch, tag or commit of A.")]
RevisionB = Annotated[str | None, typer.Option(help="The same of B: two checkpoints have one name.")]


def diff(  # noqa: PLR0913
    model_a: ModelA, model_b: ModelB, source: Source, *, layers: Layers = "all", kind: o.Kind = None,
    tokens: Tokens = "all", nulls: Nulls = "weights,rounding", draws: Draws = 1, seed: o.Seed = 0,
    resamples: Resamples = 1000, by: By = None, out: Saved = None, split: Split = None,
    text_column: TextColumn = None, label_columns: LabelColumns = "", max_documents: MaxDocuments = None,
    revision_a: RevisionA = None, revision_b: RevisionB = None, device: o.Device = "cpu",
    dtype: o.Dtype = "float32", json: o.Json = False,
) -> None:  # fmt: skip
    """Compare the codes of two models on the same tokens: which neurons flip, how often and where.

    The models are loaded one after the other. Beside the flips stand those of as large a random weight change, and of
    model A in another number format.

    \b
    Examples:
      polytope-lm diff ./before ./after corpus.jsonl --label-columns domain --by domain --out diff
    """  # noqa: D301
    chosen, names = o.parse_layers(layers), () if nulls.strip() == "none" else o.parse_names(nulls)
    from polytope_lm.codes.store.layout import MANIFEST  # noqa: PLC0415
    from polytope_lm.codes.store.reader import open_store  # noqa: PLC0415
    from polytope_lm.documents import documents  # noqa: PLC0415
    from polytope_lm.predictions.diff.test import diff as test  # noqa: PLC0415

    read: Any = open_store(source) if (Path(source) / MANIFEST).is_file() else None
    how: dict[str, Any] = {"split": split, "text_column": text_column}
    if read is None:
        read = documents(source, max_documents=max_documents, label_columns=o.parse_names(label_columns), **how)
    passes = 2 + ("weights" in names) * draws + ("rounding" in names)
    with costing("diff", f"{passes} passes over {source}") as told:
        result = test(
            model_a, model_b, read, None if isinstance(chosen, str) else chosen, kind=kind, tokens=tokens,
            nulls=names, draws=draws, seed=seed, resamples=resamples, revision_a=revision_a, revision_b=revision_b,
            device=device, dtype=dtype, to=None if out is None else out / "passes", progress=told,
        )  # fmt: skip
    command = o.spelled(
        "diff", model_a, model_b, source, layers=layers, kind=kind, tokens=tokens, nulls=nulls, draws=draws, seed=seed,
        resamples=resamples, by=by, out=out, split=split, text_column=text_column, label_columns=label_columns or None,
        max_documents=max_documents, revision_a=revision_a, revision_b=revision_b, dtype=dtype,
    )  # fmt: skip
    result = replace(result, command=command)
    values = None if by is None else result.by(by)
    page = None
    if out is not None:
        from polytope_lm.report import write  # noqa: PLC0415

        result.save(out)
        page = write(out / "report.html", others=[result])
    if json:
        more = {} if values is None else {"by": values.to_dict("records")}
        emit({**result.to_dict(), **more, **({} if page is None else {"report": str(page)})})
        return
    heads, *rows = result.rows()
    show_table(heads, rows)
    for note in result.notes():
        say(note)
    if values is not None:
        cells = [
            [f"{cell:.4g}" if isinstance(cell, float) else cell for cell in row] for row in values.to_numpy().tolist()
        ]
        show_table(list(values.columns), cells)
    say(result.headline, style="bold")
    if page is not None:
        say(f"written: {page.resolve().as_uri()}")
