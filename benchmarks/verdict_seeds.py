"""Do two verdicts on the same data agree whatever the seed: share of layers, but for those that are inconclusive.

Run with `python -m benchmarks.verdict_seeds [--seeds 5] [--worlds 12] [--model NAME[:LAYERS] ...] [--data DATA]
[--out DIR] [--json]`. The tokens stay; a seed moves the halves, first medoids, exchanges of labels and random controls.
Data: the code world and the direction world (2,000 tokens each, `--worlds` of each), and all layers (or those named) of
each `--model` (tiny-gpt2, tiny-relu) on the built-in sample (two labels) and, with `--data`, on the treebank (three
labels, 20 words a document; three seeds, for a verdict takes a minute or two a layer). Each seed of each is a line of
`DIR/runs.jsonl`; interrupted, it goes on where it stopped. What other calls left there is counted, too.

With `--rounds 1` no layer is measured again, however near a bound, and the figures say how far a seed then moves what
a verdict reads (`statistics.verdict.REACH`).
"""

from __future__ import annotations

from functools import cache, partial
from itertools import combinations
from pathlib import Path
from statistics import mean
from time import process_time
from typing import TYPE_CHECKING, Any

import numpy as np

import polytope_lm as plm
from analyses._corpora import treebank
from analyses._running import read_lines, words_drawn
from benchmarks._machine import Figure, arguments, describe, report
from benchmarks._runs import run_all
from polytope_lm.predictions.clusters.sampling import PER_DOCUMENT
from polytope_lm.predictions.clusters.test import clusters_by_label
from polytope_lm.worlds import code_world, direction_world

if TYPE_CHECKING:
    from benchmarks._runs import Job
    from polytope_lm.codes.codes import Codes

LABELS = ("class", "group")
TREEBANK_LABELS = ("upos", "deprel", "genre")
TREEBANK_SEEDS = 3
TREEBANK = "treebank"
"""The documents of the published tables, at the tests' own size. The others are nearer to the edge: the
built-in sample has a quarter of the tokens, and in the world of directions the code is one more draw of its random
control, ahead of the mean of five or not."""
MODELS = (TREEBANK, "sample")


@cache
def data(name: str, directory: Path | None = None) -> tuple[Codes, tuple[str, ...], int | None]:
    """Return some codes, their labels, and k (None: by the number of tokens); the treebank is in `directory`."""
    kind, _, which = name.partition(" ")
    if kind in MODELS:
        model, _, some = which.partition(":")
        given: dict[str, Any] = {
            "layers": [int(each) for each in some.split(",")] if some else "all",
            "keep": ("u", "h"),
        }
        if kind == "sample":
            return plm.encode(plm.load(model), plm.documents("sample"), tokens="random:20", **given), LABELS, None
        words = words_drawn(treebank(directory), PER_DOCUMENT, 0)  # type: ignore[arg-type]
        return plm.encode(plm.load(model), words, tokens="word-final", **given), TREEBANK_LABELS, None
    made = code_world(0.04, seed=int(which)) if kind == "code" else direction_world(seed=int(which))
    return made, ("label",), 50


def one_job(job: Job, directory: Path | None = None, rounds: int | None = None) -> list[dict[str, Any]]:
    """Return the verdicts of some seeds on one set of data: a line a seed, by layer and label.

    `errors` are the differences of the verdict's cells, in their own standard errors.
    """
    name, seeds = job
    lines = []
    for seed in seeds:
        start = process_time()
        codes, labels, k = data(name, directory)
        found = clusters_by_label(codes, None, labels, seed=seed, k=k, comparators=False, rounds=rounds)
        verdicts = {
            f"{label}, layer {layer.layer}": layer.verdict for label, result in found.items() for layer in result.layers
        }
        lines.append(
            {
                "world": name, "seed": seed, "seconds": process_time() - start,
                "outcomes": {place: verdict.outcome for place, verdict in verdicts.items()},
                "rounds": {place: verdict.rounds for place, verdict in verdicts.items()},
                "errors": {
                    place: [round(each.difference.value / each.difference.sd, 3) for each in verdict.cells]
                    for place, verdict in verdicts.items()
                },
            }
        )  # fmt: skip
    return lines


def agreements(lines: list[dict[str, Any]]) -> tuple[list[bool], int]:
    """Return whether each two seeds agree where neither is inconclusive, and how many others there are."""
    agreed, open_still = [], 0
    for a, b in combinations(lines, 2):
        for place in a["outcomes"].keys() & b["outcomes"].keys():
            both = (a["outcomes"][place], b["outcomes"][place])
            if "inconclusive" in both:
                open_still += 1
            else:
                agreed.append(both[0] == both[1])
    return agreed, open_still


def moved(lines: list[dict[str, Any]]) -> float:
    """Return the root mean square, over cells, of the standard deviation over seeds, in standard errors."""
    places = lines[0]["errors"]
    spreads = [np.std([line["errors"][place] for line in lines], axis=0, ddof=1) for place in places]
    return float(np.sqrt(np.mean(np.concatenate(spreads) ** 2)))


def main() -> None:
    """Do what is missing and print how often seeds agree."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--seeds", type=int, default=5, help="verdicts of the same data (5)")
    parser.add_argument("--worlds", type=int, default=12, help="planted worlds of each kind (12)")
    parser.add_argument("--model", action="append", help="NAME or NAME:0,4,9 (tiny-gpt2, tiny-relu)")
    parser.add_argument("--data", type=Path, help="directory with treebank/ (default: without it)")
    parser.add_argument("--rounds", type=int, help="measurements of a layer near a bound at most (by tokens, 2 to 16)")
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each (1)")
    parser.add_argument("--out", type=Path, default=Path("verdict-seeds"), help="directory of the verdicts")
    options = parser.parse_args()
    machine = describe()
    models = options.model or ["tiny-gpt2", "tiny-relu"]
    seeds = {f"sample {model}": options.seeds for model in models}
    if options.data:
        seeds |= {f"{TREEBANK} {model}": min(options.seeds, TREEBANK_SEEDS) for model in models}
    seeds |= {f"{kind} {n}": options.seeds for kind in ("code", "direction") for n in range(options.worlds)}
    wanted = [(name, seed) for name, count in seeds.items() for seed in range(count)]
    together = {name: 1 if name.startswith(TREEBANK) else count for name, count in seeds.items()}
    one = partial(one_job, directory=options.data, rounds=options.rounds)
    run_all(options.out / "runs.jsonl", wanted, together, one, options.jobs)
    lines = read_lines(options.out / "runs.jsonl")
    figures, every = [], []
    for kind in (TREEBANK, "sample", "code", "direction"):
        agreed: list[bool] = []
        still, names = 0, sorted({line["world"] for line in lines if line["world"].startswith(f"{kind} ")})
        for name in names:
            pairs, undecided = agreements([line for line in lines if line["world"] == name])
            agreed, still = agreed + pairs, still + undecided
        note = f"{sum(agreed)} of {len(agreed)} pairs of verdicts, {still} more with one that is inconclusive"
        if agreed:
            figures.append(Figure(f"{kind}: two seeds agree", mean(agreed), "of pairs", note=note))
            by = [moved([line for line in lines if line["world"] == name]) for name in names]
            figures.append(Figure(f"{kind}: a seed moves a cell by", float(np.sqrt(np.mean(np.square(by)))), "SE"))
        every += agreed
    figures.append(Figure("two seeds agree", mean(every), "of pairs", must=0.95))
    measured = [rounds for line in lines for rounds in line["rounds"].values()]
    figures.append(Figure("measurements of a layer", mean(measured), "", note=f"{max(measured)} at most"))
    figures.append(Figure("CPU a seed", mean(line["seconds"] for line in lines), "s"))
    report(figures, options.json, machine)


if __name__ == "__main__":
    main()
