"""Turn what `stable_regions` and `semantic_boundaries` kept into the tables of docs/findings.md.

    python -m analyses.boundary_tables RUNS

RUNS is a directory: every `result.json` in it, at any depth, that is an alignment or a test of boundaries gives rows.
Printed is Markdown, a table for each kind: models and layers in order, verdicts in their own words. Nothing is run.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

import polytope_lm as plm
from analyses._running import run
from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.alignment.result import AlignmentResult
from polytope_lm.predictions.boundaries.result import BoundariesResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polytope_lm.predictions.alignment.result import LayerAlignment
    from polytope_lm.statistics.estimate import Estimate

ALIGNED = ("model", "layer", "pairs", "sharpness", "percentile", "beyond other pairs", "beyond speed", "verdict")
BOUNDARIES = (
    "model", "pairs", "layer", "n", "AUC of crossings, raw", "flip-backs beyond covariates", "hyperplanes",
    "other weights", "inflation of crossings", "verdict", "power",
)  # fmt: skip


def found(folder: Path) -> list[AlignmentResult | BoundariesResult]:
    """Load every result of both kinds below a directory, in the order of their places.

    Raises:
        PolytopeError: there is none, or one that can't be read.

    """
    kinds = {"alignment", "boundaries"}
    loaded = []
    for file in sorted(folder.rglob("result.json")):
        data = json.loads(file.read_text(encoding="utf-8"))
        if kinds & {data.get("kind"), data.get("prediction")}:
            loaded.append(plm.load_result(file))
    results = [one for one in loaded if isinstance(one, (AlignmentResult, BoundariesResult))]
    if not results:
        raise PolytopeError(f"{folder}: no alignment and no test of boundaries in any result.json of it")
    return results


def markdown(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table as Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def aligned(result: AlignmentResult) -> list[list[object]]:
    """Return a layer's sharp pairs, then all of them, then the untrained model's."""
    rows = []
    outcomes = result.outcomes or ("no verdict",) * len(result.layers)
    plateaus = result.plateaus or (None,) * len(result.layers)
    twins = result.twins or (None,) * len(result.layers)
    for layer, outcome, alone, twin in zip(result.layers, outcomes, plateaus, twins, strict=True):
        if alone is not None:
            rows.append(_row(alone, f"{alone.pairs} sharp", outcome))
        rows.append(_row(layer, f"{layer.pairs}", "" if alone is not None else outcome))
        if twin is not None:
            rows.append(_row(twin, f"{twin.pairs}, untrained", ""))
    return rows


def _row(one: LayerAlignment, pairs: str, outcome: str) -> list[object]:
    primary = one.primary
    ahead = "" if primary.beyond_speed is None else _interval(primary.beyond_speed)
    return [
        one.model, one.layer, pairs, f"{one.sharpness.value:.2f}", f"{primary.raw.value:.3f}",
        _interval(primary.beyond_pairs), ahead, outcome,
    ]  # fmt: skip


def bounded(result: BoundariesResult) -> list[list[object]]:
    """Return a row a layer."""
    rows = []
    for layer in result.layers:
        beyond = layer.effect("flip-backs", "regressed").by_group
        inflation = layer.inflation.get("crossings")
        planes = f"{sum(layer.planes) / len(layer.planes):.3f}" if layer.planes else ""
        others = ", ".join(f"{one.name} {one.effect.by_group.value:.3f}" for one in layer.controls)
        rows.append(
            [
                result.provenance.get("model", ""), result.settings.pairs, layer.layer, layer.pairs,
                f"{layer.effect('crossings').by_group.value:.3f}", _interval(beyond), planes, others,
                "infinite" if inflation is None else f"{inflation:.0f}", layer.verdict.outcome,
                "" if layer.verdict.power is None else f"{layer.verdict.power:.3f}",
            ]
        )  # fmt: skip
    return rows


def _interval(one: Estimate) -> str:
    return f"{one.value:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""

    def work() -> None:
        parser = argparse.ArgumentParser("analyses.boundary_tables", description=__doc__)
        parser.add_argument("runs", type=Path, help="directory of results")
        results = found(parser.parse_args(argv).runs)
        for heads, rows in (
            (ALIGNED, [row for one in results if isinstance(one, AlignmentResult) for row in aligned(one)]),
            (BOUNDARIES, [row for one in results if isinstance(one, BoundariesResult) for row in bounded(one)]),
        ):
            if rows:
                print(markdown(heads, rows), end="\n\n")

    run(work)


if __name__ == "__main__":
    main()
