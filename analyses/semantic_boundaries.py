"""Do polytope boundaries follow meaning: the built-in pairs and word senses, several layers, every control.

    python -m analyses.semantic_boundaries --model tiny-gpt2 --out results/tiny-gpt2
    python -m analyses.semantic_boundaries --model smollm2-135m --senses DIR --out results/smollm2
    python -m analyses.semantic_boundaries --out results                # all three models

Each model is tested beside its weight-permuted and untrained twins, on the same pairs. `--senses` names a
directory of CoarseWSD words (`bank/test.data.txt` beside `bank/test.gold.txt`); its sentences are read twice,
so that a causal model knows the whole sentence at the target, and no text of it is kept.

For each model and set of pairs `OUT/SET/result.json` has every number, `OUT/SET/report.html` shows them,
`OUT/SET/pairs.parquet` has one row a pair, and `OUT/summary.csv` a row a layer. Finished pairs are kept in
`OUT/SET/pairs`: run again, it goes on.
How long a run takes is told first, from one pair in each layer.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

import polytope_lm as plm
from analyses._running import CAUSAL, PAIR_SETS, Asked, asked, run
from polytope_lm import pairs as pair_sets
from polytope_lm.predictions.boundaries import result as boundary_tables
from polytope_lm.predictions.boundaries.measure import measure_pair
from polytope_lm.report import write

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from polytope_lm.models.model import Model
    from polytope_lm.pairs import Pairs
    from polytope_lm.predictions.boundaries.result import BoundariesResult

LAYERS = {
    "tiny-gpt2": (0, 1, 2), "tiny-relu": (0, 1, 2), "smollm2-135m": (4, 9, 15, 24), "gemma3-270m": (3, 7, 13),
}  # fmt: skip
"""Early, middle and late; not the last one, after which nothing is downstream."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the analysis and print its verdicts."""
    run(lambda: _run_all(asked("semantic_boundaries", __doc__, argv, own_options, models=CAUSAL, layers=None)))


def _run_all(found: Asked) -> None:
    options = found.given
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in found.models:
        model = plm.load(name, device=options.device)
        folder = options.out / Path(name).name if len(found.models) > 1 else options.out
        for label, pairs in _sets(options).items():
            result = test(model, name, label, pairs, folder / label, found)
            rows += summary(name, label, result)
            pd.DataFrame(rows).to_csv(options.out / "summary.csv", index=False)
    print(pd.DataFrame(rows).to_string(index=False))


def test(model: Model, name: str, label: str, pairs: Pairs, folder: Path, found: Asked) -> BoundariesResult:
    """Test one model on one set of pairs, save the result and print the verdict."""
    options = found.given
    layers = found.layers or LAYERS.get(name)
    print(f"{name}, {pairs}", flush=True)
    if not (folder / "pairs").is_dir():
        print(f"{name}, {label}: {estimate(model, pairs, layers, len(options.controls))}", flush=True)
    result = plm.predictions.boundaries(
        model, pairs, layers, seed=options.seed, controls=options.controls, keep=folder / "pairs",
        shuffles=options.shuffles, draws=options.draws, progress=_told() if sys.stderr.isatty() else None,
    )  # fmt: skip
    result = replace(result, command=found.command)
    result.save(folder)
    write(folder / "report.html", boundaries=result)
    print(pd.DataFrame(boundary_tables.overview_rows(result), columns=boundary_tables.HEADS).to_string(index=False))
    for layer in result.layers:
        print("\n".join(boundary_tables.notes(layer)))
    print(f"{name}, {label}: {result.verdict}\n", flush=True)
    return result


def estimate(model: Model, pairs: Pairs, layers: Sequence[int] | None, controls: int) -> str:
    """Say how long a run will take, from a pair of median length in each layer."""
    chosen = list(layers or range(0, model.n_layers, max(1, model.n_layers // 4)))
    shortest = sorted(pairs, key=lambda pair: len(pair.a) + len(pair.b))
    median = shortest[len(shortest) // 2]
    measure_pair(model, shortest[0], chosen[0])  # compiles and warms up
    began = time.perf_counter()
    for layer in chosen:
        measure_pair(model, median, layer)
    seconds = (time.perf_counter() - began) * len(pairs) * (1 + controls)
    return f"about {seconds / 60:.0f} minutes to measure, one pair at a time, on this machine as it is now"


def summary(name: str, label: str, result: BoundariesResult) -> list[dict[str, object]]:
    """Return one row a layer: the numbers that a reader looks for first."""
    rows = []
    for layer in result.layers:
        beyond, verdict = layer.effect("flip-backs", "regressed").by_group, layer.verdict
        row: dict[str, object] = {
            "model": name, "pairs": label, "layer": layer.layer, "n": layer.pairs, "unit": layer.unit,
            "AUC crossings": layer.effect("crossings").by_group.value,
            "AUC cosine h": layer.effect("cosine distance in h").by_group.value,
            "AUC flip-backs": layer.effect("flip-backs").by_group.value,
            "beyond covariates": beyond.value, "low": beyond.low, "high": beyond.high,
            "beyond curvature": layer.beyond_curvature.by_group.value,
            "hyperplanes": sum(layer.planes) / len(layer.planes) if layer.planes else None,
        }  # fmt: skip
        row |= {control.name: control.effect.by_group.value for control in layer.controls}
        row |= {"crossings ~ Hamming": layer.correlation, "verdict": verdict.outcome, "p (Holm)": verdict.p_holm}
        rows.append(row)
    return rows


def _sets(options: argparse.Namespace) -> dict[str, Pairs]:
    found = {"builtin": pair_sets.builtin()}
    if options.senses is not None:
        found["senses"] = pair_sets.from_senses(
            options.senses, per_word=options.per_word, twice=True, seed=options.seed
        )
    return {name: pairs for name, pairs in found.items() if options.pairs in (None, name)}


def _told() -> Callable[[int, int, str], None]:
    began = time.perf_counter()

    def told(done: int, total: int, what: str) -> None:
        sys.stderr.write(f"\r{done:,} of {total:,} pairs, {what}, {time.perf_counter() - began:.0f} s ")

    return told


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name and name != "none")


def own_options(parser: argparse.ArgumentParser) -> None:
    """Add what only this analysis asks."""
    parser.add_argument("--senses", type=Path, help="directory of CoarseWSD words")
    parser.add_argument("--pairs", choices=PAIR_SETS, help="only this set")
    parser.add_argument("--per-word", type=int, default=60, help="sense pairs of each word (%(default)s)")
    parser.add_argument("--controls", type=_names, default=("permuted", "untrained"), help="or none")
    parser.add_argument("--draws", type=int, default=5, help="of rate-matched hyperplanes (%(default)s)")
    parser.add_argument("--shuffles", type=int, default=200, help="label permutations (%(default)s)")


if __name__ == "__main__":
    main()
