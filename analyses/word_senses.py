"""Do codes tell the senses of one word apart better than directions? Every layer of several models.

The word is the same, so nothing is explained by which word it is: the nearest other use of the same word, in
another sentence, has the same sense or not. Leave-one-out accuracy, macro over words and less its null, against raw
and centred cosine of `h` and rate-matched SimHash, each on its own; the neuron lens, the direction lens and the
cosine of `post` beside them, and the word's most frequent sense. A causal model sees only what is left
of the word, so the sentence is also given twice and its second copy read. Holm over a model's layers.

    python -m analyses.word_senses --data DIR --out DIR [--model NAME ...]

DIR/MODEL/READING/senses.json, DIR/result.json with all verdicts. Layers that are written are not computed again; a
run that was stopped goes on.
Scores are kept, texts are not.
"""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polytope_lm as plm
from analyses._corpora import ambiguous_words
from analyses._running import asked, folder_name, run, write_json
from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.layered import with_holm
from polytope_lm.predictions.senses.result import SensesResult
from polytope_lm.predictions.senses.test import senses

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

    from polytope_lm.models.model import Model

READINGS = {"once": False, "twice": True}


@dataclass(frozen=True)
class Options:
    """What is run.

    Attributes:
        data: where the sentences are.
        out: where results go.
        sentences: of each word, at most.
        resamples: of the bootstrap.
        seed: of every random choice.
        layers: which, or all (None).
        extra: representations to show besides.
        command: what the user typed.
        device: a torch device.

    """

    data: Path
    out: Path
    sentences: int
    resamples: int
    seed: int
    layers: tuple[int, ...] | None
    extra: tuple[str, ...]
    command: str
    device: str


def run_model(name: str, options: Options) -> list[SensesResult]:
    """Compare one model's readings: once, and twice where it is causal."""
    model = plm.load(name, device=options.device)
    readings = [reading for reading, twice in READINGS.items() if model.causal or not twice]
    return [_reading(model, name, reading, options) for reading in readings]


def _reading(model: Model, name: str, reading: str, options: Options) -> SensesResult:
    """Compare one model's layers by one reading, each layer written as it comes."""
    folder = options.out / folder_name(name) / reading
    wanted = [site.layer for site in model.sites]
    layers = wanted if options.layers is None else [i for i in options.layers if i in wanted]
    found = {layer: _again(folder / "layers" / f"{layer:02d}", options) for layer in layers}
    store = folder / "store"
    if None in found.values():
        start = time.perf_counter()
        documents = ambiguous_words(options.data, options.sentences, options.seed, given_twice=READINGS[reading])
        if store.is_dir():  # left by a run that was interrupted, perhaps of other settings
            shutil.rmtree(store)
        later = [layer for layer in wanted if layer >= min(layers)]  # joined to the last, as a further claim
        gated = any(site.premises.linearity == "gated" for site in model.sites)
        keep = ("u", "h", "post", *(("up",) if gated else ()))
        codes = plm.capture(
            model, documents, to=store, layers=later, keep=keep, tokens="word-final", progress=False,
            seed=options.seed,
        )  # fmt: skip
        for layer in (layer for layer, result in found.items() if result is None):
            made = senses(
                codes, layer, word="word", seed=options.seed, resamples=options.resamples, extra=options.extra
            )
            made.save(folder / "layers" / f"{layer:02d}")
            found[layer] = made
            said = f"{name}, read {reading}, layer {layer}: {made.verdicts[0].outcome}"
            print(f"{said} ({time.perf_counter() - start:.0f} s)", file=sys.stderr, flush=True)
        shutil.rmtree(store)
    parts = [each for each in found.values() if each is not None]
    compared = with_holm([each for part in parts for each in part.layers])
    result = replace(parts[0], layers=compared, command=options.command)
    result.save(folder)
    return result


def _again(folder: Path, options: Options) -> SensesResult | None:
    """Return what an earlier run wrote of a layer; None: nothing.

    Raises:
        PolytopeError: it was written with other settings.

    """
    if not (folder / "senses.json").is_file():
        return None
    result = SensesResult.load(folder)
    was = (max(word.sentences for word in result.words.values()), result.settings.resamples, result.settings.seed)
    if was[0] > options.sentences or was[1:] != (options.resamples, options.seed):
        msg = (
            f"{folder} has sentences, resamples, seed = {was}, not {options.sentences}, {options.resamples}, "
            f"{options.seed}; choose another --out"
        )
        raise PolytopeError(msg)
    return result


def rows_of(result: SensesResult) -> Iterable[dict[str, Any]]:
    """Yield one row a layer: the verdict, every accuracy, the code's differences, each with its interval."""
    for layer in result.layers:
        row: dict[str, Any] = {
            "model": result.provenance["model"], "reading": result.settings.reading, "layer": layer.layer,
            "outcome": layer.verdict.outcome, "premises_met": layer.verdict.premises_met,
            "p_holm": layer.verdict.p_holm, "power": layer.verdict.power,
            "deciding": str(layer.verdict.deciding_cell), "words": len(result.words), "sentences": result.sentences,
        }  # fmt: skip
        for score in layer.scores:
            row[score.name] = [score.estimate.value, score.estimate.low, score.estimate.high]
            row[f"level: {score.name}"] = score.level
        claims = {"code", "rate-standardised code", *(each.claim for each in layer.comparators)}
        for each in layer.differences:
            if each.representation in claims:
                ahead = each.estimate
                row[f"{each.representation} - {each.reference}"] = [ahead.value, ahead.low, ahead.high]
        row["comparators"] = [
            {
                "claim": each.claim, "against": list(each.references), "outcome": each.verdict.outcome,
                "deciding": str(each.verdict.deciding_cell), "power": each.verdict.power,
            }
            for each in layer.comparators
        ]  # fmt: skip
        yield row


def summary(results: Sequence[SensesResult], options: Options) -> dict[str, Any]:
    """Return all verdicts and scores of a run as plain data."""
    return {
        "analysis": "word senses",
        "command": options.command,
        "sample": f"up to {options.sentences} sentences of each word, drawn by seed {options.seed}",
        "words": {name: dict(word.senses) for name, word in results[0].words.items()},
        "versions": dict(results[0].versions),
        "verdicts": [
            {"model": r.provenance["model"], "reading": r.settings.reading, "verdict": r.verdict} for r in results
        ],
        "rows": [row for result in results for row in rows_of(result)],
    }


def show(results: Sequence[SensesResult]) -> None:
    """Print each model's and reading's verdict, and its layers in a table."""
    shown = ("code", "rate-standardised code", "cosine of h, raw", "cosine of h, centred")
    for result in results:
        print(f"\n{result.provenance['model']}, read {result.settings.reading}: {result.verdict}")
        print(f"  {'layer':>5} {'outcome':<13}   code  stand.    raw  centr. SimHash majority")
        for layer in result.layers:
            names = (*shown, "SimHash, rate-matched", "majority sense")
            values = " ".join(f"{layer.score(name).estimate.value:7.3f}" for name in names)
            print(f"  {layer.layer:>5} {layer.verdict.outcome:<13}{values}")


def own_options(parser: argparse.ArgumentParser) -> None:
    """Add what only this analysis asks."""
    parser.add_argument("--data", type=Path, required=True, help="directory with senses/WORD/")
    parser.add_argument("--sentences", type=int, default=200, help="of each word, at most (%(default)s)")
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap (%(default)s)")
    parser.add_argument("--extra", action="append", default=[], help="a representation to show besides")


def arguments(argv: Sequence[str] | None) -> tuple[tuple[str, ...], Options]:
    """Parse the command line: which models, and what is run on them."""
    found = asked("word_senses", __doc__, argv, own_options)
    given = found.given
    return found.models, Options(
        given.data, given.out, given.sentences, given.resamples, given.seed, found.layers,
        tuple(given.extra), found.command, given.device,
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
