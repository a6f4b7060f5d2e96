"""How far directions can be trusted, whether polytope boundaries tell, and how far directions can steer.

Protocol. (1) Prediction 3 by `plm.predictions.directions` on beginnings of the built-in sample's documents:
predicted and measured trust radius, flips beyond curvature, shares, regions, scaling; a verdict a layer. (2) Ten
contrastive directions, each the mean last-token activation of four texts less that of four others: the largest
useful coefficient (95th percentile of per-token KL over a 48-token continuation = 1 nat), measured and predicted
without a rollout, beside one fraction of the norm for all and the layer's linear accessibility.

    python -m analyses.direction_validity --out DIR [--model NAME ...] [--layers 4,12] [--prompts 60] [--part steering]

DIR/MODEL/directions.json and report.html, DIR/MODEL/prompts.jsonl (a run that was stopped goes on from there),
DIR/MODEL/steering.json (goes on direction by direction), DIR/result.json with all verdicts. Scores are kept, texts
are not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import spearmanr

import polytope_lm as plm
from analyses._running import CAUSAL, asked, folder_name, read_json, run, write_json
from polytope_lm.predictions.directions.test import default_layers
from polytope_lm.report import write

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

    from polytope_lm.models.model import Model
    from polytope_lm.predictions.directions.result import DirectionsResult

FRAME = ("I think that it is", "She said it was", "The whole day felt", "They told us it would be")
CONTRASTS = {
    "praise": (" wonderful", " terrible"),
    "size": (" huge", " tiny"),
    "heat": (" hot", " cold"),
    "speed": (" fast", " slow"),
    "age": (" old", " new"),
    "wealth": (" rich", " poor"),
    "light": (" bright", " dark"),
    "strength": (" strong", " weak"),
    "mood": (" happy", " sad"),
    "difficulty": (" easy", " hard"),
}
"""Ten contrastive directions: what ends each frame on one side and on the other."""
PARTS = ("steering", "directions")
PROMPT = "When we came back to the house in the evening, the first thing that we noticed was"


@dataclass(frozen=True)
class Options:
    """What is run."""

    out: Path
    layers: tuple[int, ...] | None
    source: str
    prompts: int
    controls: tuple[str, ...]
    parts: tuple[str, ...]
    seed: int
    command: str
    device: str


def steering(model: Model, layers: Sequence[int], kept: Path, command: str) -> list[dict[str, Any]]:
    """Return each contrastive direction's coefficients at some layers; what `kept` has is not measured again."""
    rows: list[dict[str, Any]] = read_json(kept)["rows"] if kept.exists() else []
    continued = plm.changes.continuation(model, PROMPT)
    there = {(row["layer"], row["direction"]) for row in rows}
    for layer, name in product(layers, CONTRASTS):
        if (layer, name) in there:
            continue
        one, other = CONTRASTS[name]
        sides = [[frame + word for frame in FRAME] for word in (one, other)]
        vector = plm.changes.contrast(model, *sides, layer)
        found = plm.changes.steer(model, PROMPT, vector, layer, continued=continued)
        single = all(len(model.tokenizer(word, add_special_tokens=False)["input_ids"]) == 1 for word in (one, other))
        lens = None
        if single:  # after a text that speaks of one side, does the lens prefer its word?
            texts = [f"It was{word}, really{word}, so very" for word in (one, other)]
            lens = plm.changes.linear_accessibility(model, texts, [(one, other), (other, one)], layer)
        rows.append(
            {
                "direction": name, "layer": layer, "predicted": found.predicted, "measured": found.measured,
                "share of the norm": (found.measured or 0) * found.length / found.norm, "censored": found.censored,
                "predicted beyond": found.predicted_censored,
                "unit": found.norm / found.length, "linear accessibility": lens,
            }
        )  # fmt: skip
        write_json(kept, {"rows": rows, "command": command})
        print(
            f"  {model.name}, layer {layer}, {name}: predicted {found.predicted:.3g}, measured {found.measured:.3g}",
            flush=True,
        )
    return [row for row in rows if row["layer"] in layers]


def compared(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Compare the predicted coefficient, and one fraction of the norm for all, with the measured one."""
    known = [row for row in rows if not row["censored"]]
    measured = np.array([row["measured"] for row in known])
    found: dict[str, float] = {"directions": len(known), "censored": len(rows) - len(known)}
    if len(known) < 3:
        return found
    guesses = {"predicted": [row["predicted"] for row in known], "fraction of the norm": [row["unit"] for row in known]}
    for name, values in guesses.items():
        log = np.log(np.array(values) / measured)
        found[f"{name}: rho"] = float(spearmanr(values, measured)[0])
        found[f"{name}: median |ln ratio|"] = float(np.median(np.abs(log)))
        # With the best single factor: what a constant could mend is no merit of a predictor.
        found[f"{name}: the same, best constant"] = float(np.median(np.abs(log - np.median(log))))
    return found


@dataclass(frozen=True)
class Found:
    """What was found of one model; None, or no rows: that part was not asked for."""

    model: str
    directions: DirectionsResult | None
    rows: Sequence[dict[str, Any]]


def run_model(name: str, options: Options) -> Found:
    """Test one model; write and return what was found."""
    model, out = plm.load(name, device=options.device), options.out / folder_name(name)
    layers = [n for n in options.layers or default_layers(model) if n < model.n_layers]
    result, rows = None, []
    if "steering" in options.parts:
        rows = steering(model, layers, out / "steering.json", options.command)
    if "directions" in options.parts:
        result = plm.predictions.directions(
            model, options.source, layers, prompts=options.prompts, controls=options.controls, seed=options.seed,
            keep=out / "prompts.jsonl",
            progress=lambda done, total, what: print(f"  {name}: {done} of {total}; {what}", flush=True),
        )  # fmt: skip
        result = replace(result, command=options.command)
        result.save(out)
        write(out / "report.html", others=[result])
    return Found(model.name, result, rows)


def summary(found: Sequence[Found], options: Options) -> dict[str, Any]:
    """Return what DIR/result.json holds."""
    models = []
    for one in found:
        entry: dict[str, Any] = {"model": one.model}
        if one.directions is not None:
            layers = one.directions.layers
            entry |= {
                "verdict": one.directions.verdict,
                "outcomes": {str(layer.layer): layer.verdict.outcome for layer in layers},
                "regions": {str(n.layer): n.regions.outcome for n in layers if n.regions is not None},
                "scaling": {str(n.layer): n.scaling.outcome for n in layers if n.scaling is not None},
                "rows": [_without_nothing(row) for row in one.directions.to_frame().to_dict("records")],
            }
        if one.rows:
            entry["steering"] = {"rows": list(one.rows), "compared": compared(one.rows)}
        models.append(entry)
    return {"command": options.command, "models": models}


def _without_nothing(row: dict[Any, Any]) -> dict[str, Any]:
    """Leave out what a row of a table does not have."""
    return {str(key): value for key, value in row.items() if value is not None and value == value}  # noqa: PLR0124 - NaN


def own_options(parser: argparse.ArgumentParser) -> None:
    """Add what only this analysis asks."""
    parser.add_argument("--source", default="sample", help="documents (default: the built-in sample)")
    parser.add_argument("--controls", default="permuted,untrained", help="other weights (%(default)s)")
    parser.add_argument("--prompts", type=int, default=60, help="documents at most (%(default)s)")
    parser.add_argument("--part", choices=PARTS, help="only this one (default: both)")


def arguments(argv: Sequence[str] | None) -> tuple[tuple[str, ...], Options]:
    """Parse the command line: which models, and what is run on them."""
    found = asked("direction_validity", __doc__, argv, own_options, models=CAUSAL, layers=None)
    given = found.given
    layers = None if given.layers is None else found.layers or tuple(range(1000))
    controls = tuple(filter(None, given.controls.split(",")))
    parts = PARTS if given.part is None else (given.part,)
    return found.models, Options(
        given.out, layers, given.source, given.prompts, controls, parts, given.seed, found.command, given.device
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the analysis, write what it found, print its verdicts."""

    def work() -> None:
        models, options = arguments(argv)
        found = [run_model(name, options) for name in models]
        data = summary(found, options)
        write_json(options.out / "result.json", data)
        for entry in data["models"]:
            print(f"\n{entry['model']}: {entry.get('verdict', 'directions not tested')}")
            for name, value in entry.get("steering", {}).get("compared", {}).items():
                print(f"  steering, {name}: {value:.3g}")

    run(work)


if __name__ == "__main__":
    main()
