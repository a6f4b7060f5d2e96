"""Turn what `monosemanticity`, `word_senses` and `calibration` kept into the tables of docs/findings.md.

    python -m analyses.cluster_tables RUNS

RUNS is a directory: every comparison of clusters, of senses, and every calibration of intervals in it, at any depth,
gives rows. Printed is Markdown. Parts of a result (one layer each, in `layers/`) are left to the whole. Nothing is run.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polytope_lm as plm
from analyses._running import run
from analyses.boundary_tables import markdown
from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.clusters.result import AGREEMENT, AMI, ClustersResult
from polytope_lm.predictions.senses.result import ACCURACY, SensesResult
from polytope_lm.representations.controls import SIMHASH
from polytope_lm.representations.directions import CENTRED, RAW
from polytope_lm.statistics.verdict import OUTCOMES, ranges

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from polytope_lm.statistics.estimate import Estimate
    from polytope_lm.statistics.verdict import Verdict

CLUSTERS = (
    "model", "label", "layers", "verdict", "over raw: AMI", "agreement", "over centred: AMI", "agreement",
    "over SimHash: AMI", "agreement", "power",
)  # fmt: skip
SENSES = (
    "model, read",
    "layers",
    "verdict",
    "code",
    "over raw",
    "over centred",
    "over SimHash",
    "over majority",
    "power",
)
BESIDE = ("model", "label or reading", "claim", "against", "verdict", "AMI or accuracy", "agreement")
RATES = ("calibration", "pooled", "worst cell", "supported", "halves agree", "splits")


def found(folder: Path) -> tuple[list[ClustersResult], list[SensesResult], list[tuple[str, dict[str, Any]]]]:
    """Load every result below a directory, in the order of their places.

    Raises:
        PolytopeError: there is none, or one that can't be read.

    """
    clusters, senses, rates = [], [], []
    for file in sorted([*folder.rglob("result.json"), *folder.rglob("senses.json")]):
        if "layers" in file.relative_to(folder).parts:
            continue
        data = json.loads(file.read_text(encoding="utf-8"))
        if "halves" in data and "nulls" in data:
            rates.append((str(file.parent.relative_to(folder)), data))
        elif {"clusters", "senses"} & {data.get("kind"), data.get("prediction")}:
            loaded = plm.load_result(file)
            (clusters if isinstance(loaded, ClustersResult) else senses).append(loaded)
    if not (clusters or senses or rates):
        raise PolytopeError(f"{folder}: no comparison of clusters or senses and no calibration in it")
    return clusters, senses, rates


def span(values: Sequence[float], digits: int = 3) -> str:
    """Write the least and the greatest of some numbers, with their signs."""
    ends = [f"{value:+.{digits}f}".replace("-", "\u2212").replace("0.", ".", 1) for value in (min(values), max(values))]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def said(verdicts: dict[int, Verdict]) -> str:
    """Write which outcome which layers have: `behind (0-3), inconclusive (4)`."""
    by = {name: [layer for layer, each in verdicts.items() if each.outcome == name] for name in OUTCOMES}
    return ", ".join(f"{name} ({ranges(layers)})" for name, layers in by.items() if layers)


def powers(verdicts: Iterable[Verdict]) -> str:
    """Write the least true leads that would have been supported, where they are told."""
    there = [each.power for each in verdicts if each.power is not None]
    return span(there).replace("+", "") if there else ""


def clusters_row(result: ClustersResult) -> list[object]:
    """Return one model's and label's row: over its layers."""
    verdicts = {layer.layer: layer.verdict for layer in result.layers}
    leads = [
        span([layer.difference("code", reference, score).estimate.value for layer in result.layers])
        for reference in (RAW, CENTRED, SIMHASH)
        for score in (AMI, AGREEMENT)
    ]
    model = result.provenance["model"]
    return [model, result.settings.label, ranges(verdicts), said(verdicts), *leads, powers(verdicts.values())]


def senses_row(result: SensesResult) -> list[object]:
    """Return one model's and reading's row: over its layers."""
    verdicts = {layer.layer: layer.verdict for layer in result.layers}
    level = [layer.score("code").level or 0.0 for layer in result.layers]
    leads = [
        span([layer.difference("code", reference).estimate.value for layer in result.layers])
        for reference in result.layers[0].references
    ]
    head = f"{result.provenance['model']}, {result.settings.reading}"
    return [head, ranges(verdicts), said(verdicts), span(level).replace("+", ""), *leads, powers(verdicts.values())]


def beside(result: ClustersResult | SensesResult) -> Iterable[list[object]]:
    """Yield a row for each further claim and comparator of a result."""
    name = result.settings.label if isinstance(result, ClustersResult) else result.settings.reading
    every = dict.fromkeys((each.claim, each.references) for layer in result.layers for each in layer.comparators)
    for claim, references in every:
        there = {
            layer.layer: each.verdict
            for layer in result.layers
            for each in layer.comparators
            if (each.claim, each.references) == (claim, references)
        }
        cells: dict[str, list[Estimate]] = {}
        for verdict in there.values():
            for cell in verdict.cells:
                cells.setdefault(cell.score, []).append(cell.difference)
        leads = [span([each.value for each in cells[score]]) for score in (AMI, ACCURACY, AGREEMENT) if score in cells]
        yield [result.provenance["model"], name, claim, " and ".join(references), said(there), *leads]


def rate_row(place: str, data: dict[str, Any]) -> list[object]:
    """Return one calibration's row."""
    null, halves = data["nulls"], data["halves"]

    def share(value: float | None) -> str:
        return "" if value is None else f"{value:.1%}"

    worst = "" if null["worst"] is None else f"{share(null['worst'][1])} ({null['worst'][0]})"
    return [place, share(null["pooled"]), worst, share(null["supported"]), share(halves["pooled"]), halves["splits"]]


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables of a directory's results."""
    parser = argparse.ArgumentParser(
        prog="python -m analyses.cluster_tables", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("runs", type=Path, help="directory with kept results")
    given = parser.parse_args(argv)

    def work() -> None:
        clusters, senses, rates = found(given.runs)
        tables = [
            (CLUSTERS, [clusters_row(one) for one in clusters]),
            (SENSES, [senses_row(one) for one in senses]),
            (BESIDE, [row for one in (*clusters, *senses) for row in beside(one)]),
            (RATES, [rate_row(place, data) for place, data in rates]),
        ]
        print("\n\n".join(markdown(heads, rows) for heads, rows in tables if rows))

    run(work)


if __name__ == "__main__":
    main()
