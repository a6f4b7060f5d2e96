"""Are there stable regions, and do boundaries mark their edges? The built-in pairs' paths in several models.

Protocol. From the last token of each pair's first prompt to that of its second, straight in the residual
stream of several layers, in the first prompt's context; the same in the untrained model. Told of each layer:

- sharpness, `max d'(t) / d(1)` of the last block's output (1: a straight line; steps: one jump), and the
  share of paths above 2;
- changes of the likeliest next token;
- how many have a plateau, a sharpness above 3: the pairs that the verdict speaks of;
- alignment: the percentile of the crossing density where the output changes most, beyond other pairs' peaks
  and beyond the residual's own speed; verdict by `plm.predictions.alignment`, Holm over a model's layers.

    python -m analyses.stable_regions --out DIR [--model NAME ...] [--layers 0,9] [--pairs FILE.jsonl]

DIR/MODEL/result.json and report.html, DIR/MODEL/profiles/*.jsonl (a run that was stopped goes on from there),
DIR/result.json with all verdicts. Scores are kept, texts are not. Causal models only.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polytope_lm as plm
from analyses._running import CAUSAL, asked, folder_name, run, teller, write_json
from polytope_lm import pairs as pair_sets
from polytope_lm.errors import PolytopeError
from polytope_lm.paths.many import crossings_of_pairs
from polytope_lm.predictions.alignment.test import alignment
from polytope_lm.report import write

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from polytope_lm.models.model import Model
    from polytope_lm.pairs import Pairs
    from polytope_lm.predictions.alignment.result import AlignmentResult, LayerAlignment
LAYERS = (0, 1, 2, 4, 9, 15)
_TRIED = 3  # pairs that the time is estimated by


@dataclass(frozen=True)
class Options:
    """What is run.

    Attributes:
        out: where results go.
        layers: which, or the usual ones (None).
        pairs: the pairs.
        resamples: behind each interval.
        seed: of every random choice.
        untrained: whether the untrained model is run, too.
        command: what the user typed.
        device: a torch device.

    """

    out: Path
    layers: tuple[int, ...] | None
    pairs: Pairs
    resamples: int
    seed: int
    untrained: bool
    command: str
    device: str


def chosen_layers(model: Model, layers: tuple[int, ...] | None) -> list[int]:
    """Return the layers that are run: those asked for, or the usual ones, that the model has.

    Raises:
        PolytopeError: the model has none of them.

    """
    if layers is None:  # the last one has nothing downstream
        return [layer for layer in LAYERS if layer < model.n_layers - 1] or [0]
    there = [layer for layer in layers if layer < model.n_layers]
    if not there:
        raise PolytopeError(f"{model.name} has layers 0 to {model.n_layers - 1}, none of those asked for")
    return there


def estimated_minutes(model: Model, layers: Sequence[int], options: Options) -> float:
    """Run a few pairs from one layer and say how long all layers and models will take."""
    few, first = list(options.pairs)[:_TRIED], layers[0]
    crossings_of_pairs(model, few[:1], first)  # compiles and warms up
    start = time.perf_counter()
    crossings_of_pairs(model, few, first)
    each = (time.perf_counter() - start) / len(few) / (model.n_layers - first)
    evaluated = sum(model.n_layers - layer for layer in layers)
    return each * evaluated * len(options.pairs) * (1 + options.untrained) / 60


def run_model(name: str, options: Options) -> AlignmentResult:
    """Test one model; write and return what was found."""
    model = plm.load(name, device=options.device)
    out = options.out / folder_name(name)
    layers = chosen_layers(model, options.layers)
    minutes = estimated_minutes(model, layers, options)
    which = f"layers {', '.join(map(str, layers))}, {len(options.pairs)} pairs"
    beside = ", untrained too" if options.untrained else ""
    print(f"{model.name}: {which}{beside}: about {minutes:.0f} min less what is done already", flush=True)
    result = alignment(
        model, options.pairs, layers, untrained=options.untrained, seed=options.seed,
        resamples=options.resamples, to=out / "profiles", progress=teller(model.name, "paths"),
    )  # fmt: skip
    result = replace(result, command=options.command)
    result.save(out / "result.json")
    write(out / "report.html", alignment=result)
    return result


def summary(results: Sequence[AlignmentResult], options: Options) -> dict[str, Any]:
    """Return what DIR/result.json holds."""
    return {
        "command": options.command,
        "pairs": options.pairs.name,
        "settings": {"resamples": options.resamples, "seed": options.seed},
        "models": [
            {
                "model": result.layers[0].model,
                "verdict": result.verdict,
                "outcomes": {str(one.layer): word for one, word in _with_outcomes(result)},
                "sharp": {str(one.layer): n for one, n in zip(result.layers, result.sharp, strict=True)},
                "plateaus": [_row(one, None) for one in result.plateaus if one is not None],
                "rows": [_row(one, None) for one in (*result.layers, *result.twins)],
            }
            for result in results
        ],
    }


def _with_outcomes(result: AlignmentResult) -> list[tuple[LayerAlignment, str]]:
    return list(zip(result.layers, result.outcomes, strict=True)) if result.outcomes else []


def _row(one: LayerAlignment, outcome: str | None) -> dict[str, Any]:
    """Return one line of the table."""
    primary = one.primary
    row = {
        "model": one.model,
        "layer": one.layer,
        "pairs": one.pairs,
        "sharpness": str(one.sharpness),
        "above 2": round(one.sharp, 3),
        "argmax changes": round(one.argmax_changes, 2),
        "percentile": str(primary.raw),
        "beyond other pairs": str(primary.beyond_pairs),
        "beyond speed": str(primary.beyond_speed),
    }
    return row if outcome is None else {**row, "verdict": outcome}


def show(results: Sequence[AlignmentResult]) -> None:
    """Print a table of every model and layer, then the verdicts."""
    rows = []
    for result in results:
        outcomes = dict(zip((one.layer for one in result.layers), result.outcomes, strict=False))
        rows += [_row(one, outcomes.get(one.layer, "none")) for one in result.layers]
        rows += [_row(one, "sharp pairs alone") for one in result.plateaus if one is not None]
        rows += [_row(one, "(control)") for one in result.twins]
    lines = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for result in results:
        print(f"\n{result.layers[0].model}: {result.verdict}")
        for problem in result.problems:
            print(f"  left out: {problem}")


def own_options(parser: argparse.ArgumentParser) -> None:
    """Add what only this analysis asks."""
    parser.add_argument("--pairs", type=Path, help="a file of pairs (default: the built-in ones)")
    parser.add_argument("--max-pairs", type=int, help="the first so many (default: all)")
    parser.add_argument("--resamples", type=int, default=1000, help="of groups of pairs (%(default)s)")
    parser.add_argument("--no-untrained", action="store_true", help="leave the untrained models out")


def arguments(argv: Sequence[str] | None) -> tuple[tuple[str, ...], Options]:
    """Parse the command line: which models, and what is run on them."""
    found = asked("stable_regions", __doc__, argv, own_options, models=CAUSAL, layers=None)
    given = found.given
    pairs = pair_sets.builtin() if given.pairs is None else pair_sets.read(given.pairs)
    if given.max_pairs is not None:
        pairs = replace(pairs, pairs=pairs.pairs[: given.max_pairs])
    layers = None if given.layers is None else found.layers or tuple(range(1000))
    return found.models, Options(
        given.out, layers, pairs, given.resamples, given.seed, not given.no_untrained, found.command, given.device
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the analysis, write what it found, print its verdicts."""

    def work() -> None:
        models, options = arguments(argv)
        results = [run_model(name, options) for name in models]
        write_json(options.out / "result.json", summary(results, options))
        show(results)

    run(work)


if __name__ == "__main__":
    main()
