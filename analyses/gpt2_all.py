"""Every question on GPT-2 small, with the paper's sample rule, and the tables that docs/findings.md has a place for.

GPT-2's weights come from the hub, or from a local copy: `--model gpt2`, or a directory. What it will cost is told
first, from a pass that is timed; `--cost` tells it and ends. Every step goes on where it was stopped.

| step | question |
|---|---|
| paper | are regions more monosemantic than directions? By the paper's sample rule, all 3,072 neurons; the built-in |
| | sample, or `--corpus` with `--label` |
| treebank | the same, by UPOS, XPOS, dependency relation, genre; topics of news (needs `--data`) |
| senses | word senses, sentences once and given twice (needs `--data`) |
| boundaries | do boundaries follow meaning? The built-in pairs, untrained and permuted twins |
| stable | are boundaries dense where the output changes? |
| directions | do polytopes say where a direction stops being valid? |
| determination | what does a code fix? |

    python -m analyses.gpt2_all --out DIR [--data DATA] [--model gpt2] [--step paper ...] [--layers 0,4,8] [--cost]

DIR/STEP/ is each analysis' own directory, DIR/tables.md the tables, dated. The paper's clustering settings are
unpublished: these are ours, so this is no replication. Its rule, `every:6,skip:100`, takes six tokens of each document,
evenly spaced, the first 100 left out; a shorter document gives none, and there is no cap: Kish's number is printed, and
these verdicts stand outside the default one. The built-in sample has 79 documents: give a corpus of thousands of long
ones, such as a JSONL file with a label, for a sample as large as the paper's.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import shutil
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import polytope_lm as plm
from analyses import (
    boundary_tables,
    cluster_tables,
    direction_validity,
    monosemanticity,
    one_bit_mlp,
    semantic_boundaries,
    stable_regions,
    word_senses,
)
from analyses._running import asked, read_json, run, write_json
from polytope_lm.predictions.clusters.result import ClustersResult
from polytope_lm.predictions.clusters.scoring import HALVES
from polytope_lm.predictions.clusters.test import joined

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from polytope_lm.documents import Document
    from polytope_lm.models.model import Model

RULE = "every:6,skip:100"
WINDOW = 1024
STEPS = ("paper", "treebank", "senses", "boundaries", "stable", "directions", "determination")
NEEDS_DATA = ("treebank", "senses")
KEEP = ("u", "h", "post")


@dataclass(frozen=True)
class Options:
    """What is run.

    Attributes:
        model: a name or a directory.
        out: where results go.
        data: where treebank, news and senses are; None: steps that need them are left out.
        corpus: documents of the paper's step; None: the built-in sample.
        labels: of the paper's step.
        layers: which, or all (None).
        size: how large each step is: `whole`, or `small` for a trial.
        seed: of every random choice.
        command: what was typed.
        device: a torch device.

    """

    model: str
    out: Path
    data: Path | None
    corpus: str | None
    labels: tuple[str, ...]
    layers: tuple[int, ...] | None
    size: str
    seed: int
    command: str
    device: str

    @property
    def layered(self) -> list[str]:
        """The layers as an analysis' argument."""
        return [] if self.layers is None else ["--layers", ",".join(map(str, self.layers))]


SMALL = {
    "treebank": ["--tokens", "120", "--resamples", "8", "--processes", "1", "--label", "upos"],
    "senses": ["--sentences", "12", "--resamples", "20"],
    "boundaries": ["--pairs", "builtin", "--controls", "none", "--draws", "1", "--shuffles", "5"],
    "stable": ["--max-pairs", "8", "--resamples", "20", "--no-untrained"],
    "directions": ["--prompts", "20", "--controls", ""],
    "determination": ["--tested", "2", "--fitting", "200", "--resamples", "20"],
}
"""What makes each analysis a trial of a few minutes."""

PASSES: dict[str, Callable[[int, int], int]] = {
    "paper": lambda layers, tokens: layers * tokens,
    "treebank": lambda _layers, _tokens: 26_000 + 600 * 60,
    "senses": lambda _layers, _tokens: 20 * 200 * 3 * 30,
    "boundaries": lambda layers, _tokens: 252 * layers * 3 * 60,
    "stable": lambda layers, _tokens: 252 * layers * 2 * 60,
    "directions": lambda layers, _tokens: 60 * layers * 3 * 24 * 100,
    "determination": lambda layers, _tokens: 40 * 128 * 40 * (layers + 1) + 8_000,
}
"""Tokens that go through the model, about: of each step, by layers and the corpus' tokens."""
PER_LAYER = {"paper": 2.0, "treebank": 12.0, "senses": 1.5}
"""Minutes of two cores a layer for clustering anew in halves, as measured on 6,000 tokens of other models."""


def cost(model: Model, documents: Sequence[Document], steps: Sequence[str], options: Options) -> list[str]:
    """Tell what each step costs, from one timed pass of a window: a line a step, and the whole."""
    layers = model.n_layers if options.layers is None else len(options.layers)
    text = max((document.text for document in documents), key=len)
    length = min(WINDOW, model.context_length)
    plm.encode(model, text[:200], layers=[model.n_layers - 1], keep=())  # the first pass also loads and compiles
    start = time.perf_counter()
    read = plm.encode(model, text[: 8 * length], layers=[model.n_layers - 1], keep=(), max_length=length)
    rate = len(read) / (time.perf_counter() - start)
    tokens = round(sum(len(document.text) for document in documents) * len(read) / len(text[: 8 * length]))
    lines, total = [f"{model.name}: {rate:,.0f} tokens/s, {layers} layers, corpus about {tokens:,} tokens"], 0.0
    for step in steps:
        passed = PASSES[step](layers, tokens)
        minutes = passed / rate / 60 + PER_LAYER.get(step, 0) * layers
        total += minutes
        lines.append(f"{step}: about {passed:,} tokens through the model, {minutes:,.0f} minutes")
    disk = 6 * len(documents) * 4 * sum(model.sites[0].width if name != "u" else model.d_model for name in KEEP)
    kept = f"; at most {disk / 1e9:.2g} GB of disk, one layer at a time" if "paper" in steps else ""
    return [*lines, f"together about {total / 60:.1f} hours{kept}"]


def paper(model: Model, documents: Sequence[Document], options: Options) -> None:
    """Prediction 1 by the paper's sample rule, layer by layer: bits and activations of one layer are kept at a time."""
    small = options.size == "small"
    layers = range(model.n_layers) if options.layers is None else options.layers
    out = options.out / "paper"
    for layer in layers:
        places = {label: out / label / "layers" / f"{layer:02d}.json" for label in options.labels}
        missing = [label for label, place in places.items() if not place.is_file()]
        if not missing:
            continue
        store = plm.capture(
            model, documents, to=out / "store" / f"{layer:02d}", layers=[layer], keep=KEEP, tokens=RULE,
            max_length=min(WINDOW, model.context_length), progress=False,
        )  # fmt: skip
        for label in missing:
            result = plm.predictions.clusters(
                store, layer, label, tokens=200 if small else 6000, per_document=None, seed=options.seed,
                resamples=8 if small else HALVES,
            )  # fmt: skip
            write_json(places[label], result.to_dict())
            print(f"{model.name} layer {layer}, {label}: {result.verdicts[0].outcome}", file=sys.stderr, flush=True)
        shutil.rmtree(store.path.parent)
    for label in options.labels:
        parts = [ClustersResult.from_dict(read_json(out / label / "layers" / f"{n:02d}.json")) for n in layers]
        replace(joined(parts), command=options.command).save(out / label)


def others(step: str, options: Options) -> None:
    """Run one of the other analyses on this model."""
    where = ["--model", options.model, "--out", str(options.out / step), *options.layered, "--device", options.device]
    where += SMALL[step] if options.size == "small" else []
    if step in NEEDS_DATA:
        where += ["--data", str(options.data)]
    module = {
        "treebank": monosemanticity, "senses": word_senses, "boundaries": semantic_boundaries, "stable": stable_regions,
        "directions": direction_validity, "determination": one_bit_mlp,
    }[step]  # fmt: skip
    module.main(where)


def tables(options: Options) -> str:
    """Return the tables of all that is written, as Markdown, with the date and the command."""
    parts = [f"{options.model}, {dt.datetime.now(tz=dt.UTC):%Y-%m-%d}: `{options.command}`"]
    for steps, program, more in (
        (("paper", "treebank", "senses"), cluster_tables, [f"--label={label}" for label in ("upos", *options.labels)]),
        (("boundaries", "stable"), boundary_tables, []),
    ):
        if not any((options.out / step).is_dir() for step in steps):
            continue
        argv = [str(options.out), *more]
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            program.main(argv)
        parts.append(said.getvalue().strip())
    fixed = options.out / "determination" / "result.json"
    parts += [one_bit_mlp.tables(read_json(fixed))] if fixed.is_file() else []
    directions = options.out / "directions" / "result.json"
    if directions.is_file():
        for one in read_json(directions)["models"]:
            outcomes = "; ".join(f"layer {layer}: {outcome}" for layer, outcome in one["outcomes"].items())
            parts.append(f"Directions: {one['verdict']} ({outcomes})")
    return "\n\n".join(part for part in parts if part) + "\n"


def own_options(parser: argparse.ArgumentParser) -> None:
    """Add what only this analysis asks."""
    parser.add_argument("--data", type=Path, help="directory with treebank/, news/ and senses/")
    parser.add_argument("--corpus", help="documents of the paper's step (default: the built-in sample)")
    parser.add_argument("--label", action="append", help="labels of the paper's step (default: class, group)")
    parser.add_argument("--step", action="append", choices=STEPS, help="a step, may be repeated (default: all)")
    parser.add_argument("--size", choices=("whole", "small"), default="whole", help="small: a trial (%(default)s)")
    parser.add_argument("--cost", action="store_true", help="tell what it costs, and end")


def main(argv: Sequence[str] | None = None) -> None:
    """Tell the cost, run every step, write the tables."""

    def work() -> None:
        found = asked("gpt2_all", __doc__, argv, own_options, models=("gpt2",))
        given = found.given
        options = Options(
            found.models[0], given.out, given.data, given.corpus, tuple(given.label or ("class", "group")),
            found.layers, given.size, given.seed, found.command, given.device,
        )  # fmt: skip
        steps = [step for step in given.step or STEPS if given.data is not None or step not in NEEDS_DATA]
        model = plm.load(options.model, device=options.device)
        table = options.corpus is not None and Path(options.corpus).suffix not in {"", ".txt", ".conllu"}
        labels = options.labels if table else ()  # of a table's columns; others bring their own
        documents = list(plm.documents(options.corpus or "sample", label_columns=labels))
        print("\n".join(cost(model, documents, steps, options)), flush=True)
        if given.cost:
            return
        for step in steps:
            if step == "paper":
                paper(model, documents, options)
            else:
                others(step, options)
            text = tables(options)  # after each step, so that a stopped run has what is finished
            (options.out / "tables.md").write_text(text, encoding="utf-8")
        print(text)

    run(work)


if __name__ == "__main__":
    main()
