"""Are polytope regions monosemantic where directions are not? Prediction 1 in every layer of several models.

Protocol. The same words of a treebank are scored against `upos`, `xpos`, `deprel` (labels of a word) and
`genre` (of its document), tokens of news items against `topic`: 20 of each document at most, drawn at random, the
last token of a word. A document's label is every token's: neighbours in its own document never count, and the
document is the unit of every interval. k-medoids, k = 100 at 6,000 tokens (n/60 below), AMI and strict neighbour
agreement, each less its null, code against raw cosine of `h`, centred cosine of `h` and rate-matched SimHash;
beside them the paper's own comparators with verdicts of their own; Holm over a model's layers, label by label.

    python -m analyses.monosemanticity --data DIR --out DIR [--model NAME ...] [--layers 0,4] [--label upos ...]

DIR/MODEL/LABEL/result.json and report.html, DIR/result.json with all verdicts. Layers that are written are
not computed again; a run that was stopped goes on. Scores are kept, texts are not.
"""

from __future__ import annotations

import math
import shutil
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polytope_lm as plm
from analyses._corpora import news, treebank
from analyses._running import asked, folder_name, in_processes, read_json, run, words_drawn, write_json
from polytope_lm.codes.store.reader import open_store
from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.clusters.result import AGREEMENT, AMI, SIMHASH, ClustersResult
from polytope_lm.predictions.clusters.rounds import SPREAD, most_rounds, unsteady
from polytope_lm.predictions.clusters.sampling import PER_DOCUMENT
from polytope_lm.predictions.clusters.scoring import HALVES
from polytope_lm.predictions.clusters.test import clusters_by_label, joined, measured_again
from polytope_lm.report import write

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

    from polytope_lm.documents import Document
    from polytope_lm.models.model import Model

CORPORA = {"treebank": ("upos", "xpos", "deprel", "genre"), "news": ("topic",)}
NEWS_ITEMS = 600
CLAIMS = ("code", "rate-standardised code", "code, through to the output", "gate+up code")
KEEP = ("u", "h", "post")
"""What a layer's comparison needs; gated models have `up` besides."""


@dataclass(frozen=True)
class Options:
    """What is run.

    Attributes:
        data: where the corpora are.
        out: where results go.
        tokens: tokens compared.
        labels: which, of those that the corpora have.
        resamples: halves of the documents.
        seed: of every random choice.
        layers: which, or all (None).
        processes: how many work at once.
        extra: representations to show besides.
        command: what the user typed.
        device: a torch device.
        rounds: measurements at most of a layer that another seed could turn; None: by tokens.

    """

    data: Path
    out: Path
    tokens: int
    labels: tuple[str, ...]
    resamples: int
    seed: int
    layers: tuple[int, ...] | None
    processes: int
    extra: tuple[str, ...]
    command: str
    device: str
    rounds: int | None


@dataclass(frozen=True)
class LayerJob:
    """One layer of one model and corpus, for all labels of it."""

    store: Path
    out: Path
    layer: int
    labels: tuple[str, ...]
    tokens: int
    resamples: int
    seed: int
    extra: tuple[str, ...]

    def path(self, label: str) -> Path:
        """Where one label's scores of this layer are kept."""
        return self.out / label / "layers" / f"{self.layer:02d}.json"

    def done(self) -> bool:
        """Whether they are written, by the same settings.

        Raises:
            PolytopeError: by other settings.

        """
        there = [path for path in map(self.path, self.labels) if path.is_file()]
        wanted = (self.tokens, self.resamples, self.seed)
        for path in there:
            was = read_json(path)["settings"]
            if (was["max_tokens"], was["resamples"], was["seed"]) != wanted:
                msg = (
                    f"{path} has tokens, resamples, seed = {was['max_tokens']}, {was['resamples']}, "
                    f"{was['seed']}, not {wanted}; choose another --out"
                )
                raise PolytopeError(msg)
        return len(there) == len(self.labels)


def run_layer(job: LayerJob) -> str:
    """Compute one layer and write its scores; return a line that says so."""
    start = time.perf_counter()
    found = clusters_by_label(
        open_store(job.store), job.layer, job.labels, tokens=job.tokens, resamples=job.resamples,
        seed=job.seed, extra=job.extra, rounds=1,
    )  # fmt: skip
    for label, result in found.items():
        write_json(job.path(label), result.to_dict())
    outcomes = ", ".join(f"{label} {result.verdicts[0].outcome}" for label, result in found.items())
    return f"{job.out.name} layer {job.layer}: {outcomes} ({time.perf_counter() - start:.0f} s)"


@dataclass(frozen=True)
class AgainJob:
    """Another measurement of one layer, for the labels whose verdict another seed could turn.

    Attributes:
        layer: the layer's job.
        labels: those labels.
        number: of the measurement.

    """

    layer: LayerJob
    labels: tuple[str, ...]
    number: int


def measure_layer_again(job: AgainJob) -> str:
    """Measure one layer again and write the verdicts of all of its measurements; return a line that says so."""
    layer = job.layer
    results = {label: ClustersResult.from_dict(read_json(layer.path(label))) for label in layer.labels}
    for label, verdict in measured_again(open_store(layer.store), results, layer.layer, job.labels, job.number).items():
        (was,) = results[label].layers
        new = replace(was, verdict=was.verdict.beside(verdict, SPREAD))
        write_json(layer.path(label), replace(results[label], layers=(new,)).to_dict())
    return f"{layer.out.name} layer {layer.layer}: {', '.join(job.labels)} measured again ({job.number})"


def turning(jobs: Sequence[LayerJob], rounds: int | None) -> list[AgainJob]:
    """Return what is to be measured again: the layers that another seed could turn, by all layers of a label."""
    wanted: dict[tuple[int, int], list[str]] = {}
    for label in jobs[0].labels:
        result = joined([ClustersResult.from_dict(read_json(job.path(label))) for job in jobs])
        for place in unsteady(result.layers, rounds or most_rounds(result.sample.tokens)).items():
            wanted.setdefault(place, []).append(label)
    least = min((number for _, number in wanted), default=0)
    every = {job.layer: job for job in jobs}
    return [
        AgainJob(every[layer], tuple(labels), number) for (layer, number), labels in wanted.items() if number == least
    ]


def run_model(name: str, options: Options) -> list[ClustersResult]:
    """Capture, compare and write one model; return its results, label by label."""
    model = plm.load(name, device=options.device)
    out = options.out / folder_name(name)
    wanted = [site.layer for site in model.sites]
    layers = wanted if options.layers is None else [i for i in options.layers if i in wanted]
    results: list[ClustersResult] = []
    for corpus, every in CORPORA.items():
        labels = tuple(label for label in every if label in options.labels)
        if not labels:
            continue
        store = out / "stores" / corpus
        jobs = [
            LayerJob(store, out, layer, labels, options.tokens, options.resamples, options.seed, options.extra)
            for layer in layers
        ]
        missing = [job for job in jobs if not job.done()]
        if missing or turning(jobs, options.rounds):
            _capture(model, corpus, store, options)
            for said in in_processes(run_layer, missing, options.processes):
                print(said, file=sys.stderr, flush=True)
            while again := turning(jobs, options.rounds):
                for said in in_processes(measure_layer_again, again, options.processes):
                    print(said, file=sys.stderr, flush=True)
            shutil.rmtree(store.parent)
        results += [_whole(jobs, label, options) for label in labels]
    return results


def _capture(model: Model, corpus: str, store: Path, options: Options) -> None:
    """Store all layers of the drawn tokens, so that codes can be joined to the last; an interrupted run goes on."""
    documents, rule = _read(corpus, options)
    print(f"{model.name}: reading {corpus}, {len(documents)} documents", file=sys.stderr, flush=True)
    gated = any(site.premises.linearity == "gated" for site in model.sites)
    keep = (*KEEP, "up") if gated else KEEP
    try:
        plm.capture(model, documents, to=store, keep=keep, tokens=rule, progress=False, seed=options.seed)
    except PolytopeError:
        # Settings have changed since: what was half written is of no use to this run.
        if not store.is_dir():
            raise
        shutil.rmtree(store)
        plm.capture(model, documents, to=store, keep=keep, tokens=rule, progress=False, seed=options.seed)


def _read(corpus: str, options: Options) -> tuple[list[Document], str]:
    """Return the documents and the sample rule that stores a little more than the tokens compared.

    First positions without BOS are left out of the comparison: at most one of a document.
    """
    if corpus == "treebank":
        return words_drawn(treebank(options.data), PER_DOCUMENT + 1, options.seed), "word-final"
    documents = news(options.data, NEWS_ITEMS, options.seed)
    return documents, f"random:{min(PER_DOCUMENT, math.ceil(options.tokens / len(documents))) + 1}"


def _whole(jobs: Sequence[LayerJob], label: str, options: Options) -> ClustersResult:
    """Join one label's layers, write result.json and report.html."""
    parts = [ClustersResult.from_dict(read_json(job.path(label))) for job in jobs]
    result = joined(parts)
    settings = replace(result.settings, rounds=options.rounds or most_rounds(result.sample.tokens))
    result = replace(result, settings=settings, command=options.command)
    result.save(jobs[0].out / label)
    write(jobs[0].out / label / "report.html", clusters=result)
    return result


def rows_of(result: ClustersResult) -> Iterable[dict[str, Any]]:
    """Yield one row a layer: the verdict, the scores, the code's differences, each with its interval."""
    for layer in result.layers:
        verdict = layer.verdict
        row: dict[str, Any] = {
            "model": result.provenance["model"], "label": result.settings.label, "layer": layer.layer,
            "outcome": verdict.outcome, "rounds": verdict.rounds, "otherwise": list(verdict.otherwise),
            "premises_met": verdict.premises_met, "premises": verdict.premises,
            "deciding": [verdict.deciding_score, verdict.deciding_reference], "p_holm": verdict.p_holm,
            "power": verdict.power, "documents_needed": verdict.documents_needed,
            "k": layer.k, "tokens": result.sample.tokens, "documents": result.sample.documents,
            "effective": result.sample.effective, "left_out": dict(layer.left_out),
        }  # fmt: skip
        for score in (AMI, AGREEMENT):
            for each in layer.representations:
                estimate = each.score(score).estimate
                row[f"{score}: {each.name}"] = [estimate.value, estimate.low, estimate.high]
                row[f"{score} level: {each.name}"] = each.score(score).level
            for ahead in layer.differences:
                if ahead.score == score and ahead.representation in CLAIMS:
                    found = ahead.estimate
                    row[f"{score}: {ahead.representation} - {ahead.reference}"] = [found.value, found.low, found.high]
        row["comparators"] = [
            {
                "claim": each.claim, "against": list(each.references), "outcome": each.verdict.outcome,
                "deciding": str(each.verdict.deciding_cell), "power": each.verdict.power,
            }
            for each in layer.comparators
        ]  # fmt: skip
        yield row


def summary(results: Sequence[ClustersResult], options: Options) -> dict[str, Any]:
    """Return all verdicts and scores of a run as plain data."""
    return {
        "analysis": "monosemanticity",
        "command": options.command,
        "sample": {
            "treebank": f"words drawn at random, {PER_DOCUMENT} of each document at most, the last token of each",
            "news": f"random tokens of each of {NEWS_ITEMS:,} items; title and description as one text",
            "left out": "first positions read without BOS; repeated documents",
        },
        "versions": dict(results[0].versions),
        "verdicts": [
            {"model": result.provenance["model"], "label": result.settings.label, "verdict": result.verdict}
            for result in results
        ],
        "rows": [row for result in results for row in rows_of(result)],
    }


def show(results: Sequence[ClustersResult]) -> None:
    """Print each model's and label's verdict, and its layers in a table."""
    for result in results:
        print(f"\n{result.provenance['model']}, {result.settings.label}: {result.verdict}")
        names = ("code", "cosine of h, raw", "cosine of h, centred", SIMHASH)
        print(f"  {'layer':>5} {'outcome':<13} AMI: code, raw, centred, SimHash | agreement: the same")
        for layer in result.layers:
            cells = []
            for score in (AMI, AGREEMENT):
                values = [layer.representation(name).score(score).estimate.value for name in names]
                cells.append(" ".join(f"{value:6.3f}" for value in values))
            print(f"  {layer.layer:>5} {layer.verdict.outcome:<13} {' | '.join(cells)}")


def own_options(parser: argparse.ArgumentParser) -> None:
    """Add what only this analysis asks."""
    parser.add_argument("--data", type=Path, required=True, help="directory with treebank/ and news/")
    parser.add_argument("--tokens", type=int, default=6000, help="tokens compared (%(default)s)")
    every = [label for labels in CORPORA.values() for label in labels]
    parser.add_argument("--label", action="append", choices=every, help="a label, may be repeated (default: all)")
    parser.add_argument("--resamples", type=int, default=HALVES, help="half-samples of documents (%(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="layers at once (%(default)s)")
    parser.add_argument("--rounds", type=int, help="measurements at most of a layer near a bound (by tokens, 2 to 16)")
    parser.add_argument("--extra", action="append", default=[], help="a representation to show besides")


def arguments(argv: Sequence[str] | None) -> tuple[tuple[str, ...], Options]:
    """Parse the command line: which models, and what is run on them."""
    found = asked("monosemanticity", __doc__, argv, own_options)
    given = found.given
    return found.models, Options(
        given.data, given.out, given.tokens, tuple(given.label or [one for group in CORPORA.values() for one in group]),
        given.resamples, given.seed, found.layers,
        given.processes, tuple(given.extra), found.command, given.device,
        given.rounds,
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Run the analysis, write what it found, print its verdicts."""

    def work() -> None:
        models, options = arguments(argv)
        results = [result for name in models for result in run_model(name, options)]
        write_json(options.out / "result.json", summary(results, options))
        show(results)

    run(work)


if __name__ == "__main__":
    main()
