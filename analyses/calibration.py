"""Do the verdict's intervals hold on real codes? Nulls whose truth is 0, and halves that must agree.

*Nulls.* Labels that know nothing of the codes: the real ones exchanged between documents of similar size, and labels
drawn per document at an intra-class correlation of .1. One pool of 20 more labelings than trials is scored once; a
trial's null is the mean over 20 others of the pool (of agreement over 100). Counted: how often a difference's 95 %
interval excludes 0, and how often the verdict is *supported*.

*Halves.* With the real labels: documents are split into two halves A and B, the whole procedure is run on each with
the k of the whole sample, and `A - B` should lie within `t sqrt(se_A^2 + se_B^2)` in 95 % of splits.

Samples: 75 documents of 20 words (n = 1,500), and all documents, 20 words of each at most. Must: pooled at most 6.5 %
of intervals exclude 0, no cell more than 9 %; *supported* at most 2.5 %; halves agree in 93 to 97 % of splits.

    python -m analyses.calibration --data DIR --out DIR [--model NAME] [--layers 4,9,19] [--trials 400] [--splits 100]

DIR/cells.jsonl has a line for each null cell and each split as it comes; what is there is not computed again.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import polytope_lm as plm
from analyses._corpora import treebank
from analyses._running import asked, folder_name, read_lines, run, words_drawn, write_json
from polytope_lm.codes.store.reader import open_store
from polytope_lm.controls.labels import EXCHANGES
from polytope_lm.predictions.calibration.splits import halves_agree, part
from polytope_lm.predictions.calibration.trials import (
    CELLS,
    Bench,
    exchanged,
    pooled,
    rate_of,
    representations,
    set_up,
    trial,
)
from polytope_lm.predictions.clusters.sampling import PER_DOCUMENT, choose
from polytope_lm.predictions.clusters.scoring import HALVES, make_task
from polytope_lm.representations.controls import SIMHASH_DRAWS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.predictions.clusters.sampling import Sample

LABELS = ("upos", "genre")
NULLS = ("between documents", "drawn per document")
SMALL = 75
"""Documents of the small sample."""
EFFECT = 0.01


@dataclass(frozen=True)
class Place:
    """One sample of one layer."""

    model: str
    layer: int
    size: str


def sampled(codes: TokenCodes, label: str, size: str, seed: int) -> Sample:
    """Return all documents, 20 words of each at most, or 75 documents that have 20."""
    sample = choose(codes, label, tokens=10**6, seed=seed, also=LABELS)
    if size == "all":
        return sample
    counts = np.bincount(sample.documents)
    rng = np.random.default_rng(seed)
    return part(sample, rng.permutation(np.flatnonzero(counts == PER_DOCUMENT))[:SMALL])


def nulls(codes: TokenCodes, place: Place, trials: int, seed: int, done: set[str]) -> Iterator[dict[str, Any]]:
    """Yield a line for each label and kind of null of one place; clusters are found once for all."""
    wanted = [(label, null) for label in LABELS for null in NULLS if key_of(place, label, null) not in done]
    bench: Bench | None = None
    for label, null in wanted:
        sample = sampled(codes, label, place.size, seed)
        task = make_task(sample, None, seed, HALVES)
        bench = replace(bench, task=task) if bench else set_up(codes, place.layer, task, representations(SIMHASH_DRAWS))
        pools = pooled(bench, exchanged(task, null, trials + EXCHANGES))  # type: ignore[arg-type]
        found = [trial(bench, pools, which, EFFECT) for which in range(trials)]
        cells = {
            f"{score}: {reference}": {
                "excluded": sum(not each.differences[i].low <= 0 <= each.differences[i].high for each in found),
                "stated": float(np.sqrt(np.mean([each.differences[i].sd ** 2 for each in found]))),
                "true": float(np.std([each.differences[i].value for each in found])),
            }
            for i, (score, reference) in enumerate(CELLS)
        }
        supported = rate_of(found, "supported").events
        n, documents, size = sample.summary.tokens, sample.summary.documents, task.effective
        yield {
            "key": key_of(place, label, null), "trials": trials, "supported": supported, "cells": cells, "n": n,
            "documents": documents, "effective": size, "k": task.k,
        }  # fmt: skip


def splits(codes: TokenCodes, place: Place, count: int, seed: int, done: set[str]) -> Iterator[dict[str, Any]]:
    """Yield a line for each split of the documents: whether both halves agree, cell by cell and label by label."""
    samples = {label: sampled(codes, label, place.size, seed) for label in LABELS}
    k = make_task(samples[LABELS[0]], None, seed, 4).k
    for number in range(count):
        if key_of(place, "halves", str(number)) in done:
            continue
        found = halves_agree(
            codes, place.layer, samples, number, k=k, draws=SIMHASH_DRAWS, seed=seed, resamples=HALVES,
            smallest_effect=EFFECT,
        )  # fmt: skip
        agree = {
            f"{label}, {score}: {reference}": each
            for label, cells in found.items()
            for (score, reference), each in zip(CELLS, cells, strict=True)
        }
        yield {"key": key_of(place, "halves", str(number)), "agree": agree}


def key_of(place: Place, *more: str) -> str:
    """Name a line."""
    return " | ".join((place.model, str(place.layer), place.size, *more))


def summary(lines: Sequence[dict[str, Any]], command: str) -> dict[str, Any]:
    """Return the rates that must hold, of all lines."""
    null = [line for line in lines if "cells" in line]
    split = [line for line in lines if "agree" in line]
    rates = {
        f"{line['key']} | {cell}": found["excluded"] / line["trials"]
        for line in null
        for cell, found in line["cells"].items()
    }
    together: dict[str, list[bool]] = {}
    for line in split:
        place = line["key"].rpartition(" | halves")[0]
        for cell, within in line["agree"].items():
            together.setdefault(f"{place} | {cell}", []).append(within)
    return {
        "analysis": "calibration of the verdict's intervals",
        "command": command,
        "nulls": {
            "pooled": float(np.mean(list(rates.values()))) if rates else None,
            "worst": max(rates.items(), key=lambda item: item[1]) if rates else None,
            "supported": max((line["supported"] / line["trials"] for line in null), default=None),
            "cells": rates,
        },
        "halves": {
            "pooled": float(np.mean([each for cell in together.values() for each in cell])) if together else None,
            "splits": len(split),
            "splits of each": dict(Counter(line["key"].rpartition(" | halves")[0] for line in split)),
            "cells": {cell: float(np.mean(found)) for cell, found in together.items()},
        },
    }


def own_options(parser: argparse.ArgumentParser) -> None:
    """Add what only this analysis asks."""
    parser.add_argument("--data", type=Path, required=True, help="directory with treebank/")
    parser.add_argument("--trials", type=int, default=400, help="null labelings of each cell (%(default)s)")
    parser.add_argument("--splits", type=int, default=100, help="splits of each sample (%(default)s)")
    parser.add_argument("--size", action="append", choices=("small", "all"), help="a sample (default: both)")


def main(argv: Sequence[str] | None = None) -> None:
    """Compute what is missing and print the rates."""

    def work() -> None:
        found = asked("calibration", __doc__, argv, own_options, models=("tiny-gpt2",), layers="1")
        given, path = found.given, found.given.out / "cells.jsonl"
        given.out.mkdir(parents=True, exist_ok=True)
        for name in found.models:
            store = given.out / "stores" / folder_name(name)
            if not (store / "complete.json").exists():
                documents = words_drawn(treebank(given.data), PER_DOCUMENT + 1, given.seed)
                plm.capture(plm.load(name, device=found.given.device), documents, to=store, layers=found.layers,
                            keep=("u", "h"), tokens="word-final", progress=False, seed=given.seed)  # fmt: skip
            codes = open_store(store)
            for size in given.size or ("small", "all"):
                for layer in codes.layers if found.layers is None else found.layers:
                    place = Place(folder_name(name), layer, size)
                    done = {line["key"] for line in read_lines(path)}
                    for lines in (nulls(codes, place, given.trials, given.seed, done),
                                  splits(codes, place, given.splits, given.seed, done)):  # fmt: skip
                        for line in lines:
                            with path.open("a", encoding="utf-8") as file:
                                file.write(json.dumps(line) + "\n")
                            print(line["key"], file=sys.stderr, flush=True)
        result = summary(read_lines(path), found.command)
        write_json(given.out / "result.json", result)
        print(
            json.dumps({name: {k: v for k, v in result[name].items() if k != "cells"} for name in ("nulls", "halves")})
        )

    run(work)


if __name__ == "__main__":
    main()
