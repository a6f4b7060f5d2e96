"""Turn what `monosemanticity`, `word_senses` and `calibration` kept into the tables of docs/findings.md.

    python -m analyses.cluster_tables RUNS [--label upos ...]

RUNS is a directory: every comparison of clusters, of senses, and every calibration of intervals in it, at any depth,
gives rows; what was not run is not there. A model of which only some layers are written (in `layers/`) is shown by
these, as *unfinished*, Holm over them alone. Printed is Markdown. Nothing is run.

First every label and reading, over layers; then, for `--label` and for senses, every layer's differences with their
intervals; then the further claims and comparators: for these each with its verdict and the cell that decided, for
every label its outcome.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polytope_lm as plm
from analyses._running import read_json, run
from analyses.boundary_tables import markdown
from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.clusters.result import AGREEMENT, AMI, SHORT, ClustersResult
from polytope_lm.predictions.clusters.test import joined
from polytope_lm.predictions.layered import with_holm
from polytope_lm.predictions.senses.result import ACCURACY, MAJORITY, SensesResult
from polytope_lm.representations.binary import BOTH, CODE, THROUGH
from polytope_lm.representations.controls import SIMHASH
from polytope_lm.representations.directions import BOTH as BOTH_DIRECTIONS
from polytope_lm.representations.directions import CENTRED, K_MEANS_NAME, NMF_NAME, POST, RAW, TOP_NEURON
from polytope_lm.representations.routers import RANDOM_ROUTERS
from polytope_lm.statistics.verdict import OUTCOMES, ranges

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from polytope_lm.predictions.clusters.result import LayerComparison
    from polytope_lm.predictions.senses.result import LayerSenses
    from polytope_lm.statistics.estimate import Estimate
    from polytope_lm.statistics.verdict import Verdict

    Compared = ClustersResult | SensesResult

CONTROLS = (SIMHASH, RANDOM_ROUTERS)
CLUSTERS = (
    "model", "label", "layers", "verdict", "over raw: AMI", "agreement", "over centred: AMI", "agreement",
    "over SimHash: AMI", "agreement", "power",
)  # fmt: skip
SENSES = (
    "model, read", "layers", "verdict", "code", "over raw", "over centred", "over SimHash", "over majority", "power",
)  # fmt: skip
LAYERS = (
    (CODE, RAW), (CODE, CENTRED), (CODE, SIMHASH), (CODE, RANDOM_ROUTERS), (CODE, TOP_NEURON), (CODE, NMF_NAME),
    (CODE, K_MEANS_NAME), (CODE, POST[0]), (CODE, POST[1]), (CODE, MAJORITY), (THROUGH, CODE),
    (BOTH, BOTH_DIRECTIONS[0]), (BOTH, BOTH_DIRECTIONS[1]),
)  # fmt: skip
"""The differences that each layer's row shows, where they are there."""
BESIDE = (
    "model", "label or reading", "claim", "against", "verdict", "AMI or accuracy", "agreement", "power",
    "cell that decides",
)  # fmt: skip
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
        data = read_json(file)
        if "halves" in data and "nulls" in data:
            rates.append((str(file.parent.relative_to(folder)), data))
        elif {"clusters", "senses"} & {data.get("kind"), data.get("prediction")}:
            loaded = plm.load_result(file)
            (clusters if isinstance(loaded, ClustersResult) else senses).append(loaded)
    for layers in sorted(folder.rglob("layers")):
        if (layers.parent / "result.json").is_file() or (layers.parent / "senses.json").is_file():
            continue
        parts = [ClustersResult.from_dict(read_json(path)) for path in sorted(layers.glob("*.json"))]
        if parts:
            clusters.append(unfinished(joined(parts)))
        read = [SensesResult.load(path.parent) for path in sorted(layers.glob("*/senses.json"))]
        if read:
            every = with_holm([layer for part in read for layer in part.layers])
            senses.append(unfinished(replace(read[0], layers=every)))
    if not (clusters or senses or rates):
        raise PolytopeError(f"{folder}: no comparison of clusters or senses and no calibration in it")
    return clusters, senses, rates


def unfinished(result: Any) -> Any:
    """Return a result of which more layers are to come, with a model's name that says so."""
    return replace(result, provenance={**result.provenance, "model": f"{result.provenance['model']} (unfinished)"})


def signed(value: float) -> str:
    """Write a number as the tables do: `+.048`, with a true minus."""
    return f"{value:+.3f}".replace("-", "\u2212").replace("0.", ".", 1)


def span(values: Sequence[float]) -> str:
    """Write the least and the greatest of some numbers, with their signs."""
    ends = [signed(min(values)), signed(max(values))]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def interval(one: Estimate) -> str:
    """Write a difference with its interval: `+.048 [+.033, +.063]`."""
    return f"{signed(one.value)} [{signed(one.low)}, {signed(one.high)}]"


def said(verdicts: dict[int, Verdict]) -> str:
    """Write which outcome which layers have: `behind (0-3), inconclusive (4)`."""
    by = {name: [layer for layer, each in verdicts.items() if each.outcome == name] for name in OUTCOMES}
    return ", ".join(f"{name} ({ranges(layers)})" for name, layers in by.items() if layers)


def powers(verdicts: Mapping[int, Verdict]) -> str:
    """Write the least true leads that would have been supported, where they are told: `.033 (9) to .108 (4)`."""
    there = {layer: each.power for layer, each in verdicts.items() if each.power is not None}
    ends = dict.fromkeys((min(there, key=there.__getitem__), max(there, key=there.__getitem__)) if there else ())
    return " to ".join(f"{lead(there[layer])} ({layer})" for layer in ends)


def lead(power: float | None) -> str:
    """Write a least true lead: `.033`; nothing where there is none."""
    return "" if power is None else signed(power).removeprefix("+")


def cells_of(layer: LayerComparison | LayerSenses, score: str) -> dict[tuple[str, str], Estimate]:
    """Return a layer's differences in one score, by claim and reference."""
    return {(d.representation, d.reference): d.estimate for d in layer.differences if d.score == score}


def clusters_row(result: ClustersResult) -> list[object]:
    """Return one model's and label's row: over its layers."""
    verdicts = {layer.layer: layer.verdict for layer in result.layers}
    leads = []
    for references in ((RAW,), (CENTRED,), CONTROLS):
        for score in (AMI, AGREEMENT):
            every = [cells_of(layer, score) for layer in result.layers]
            leads.append(
                span([cells[CODE, name].value for cells in every for name in references if (CODE, name) in cells])
            )
    model = result.provenance["model"]
    return [model, result.settings.label, ranges(verdicts), said(verdicts), *leads, powers(verdicts)]


def senses_row(result: SensesResult) -> list[object]:
    """Return one model's and reading's row: over its layers."""
    verdicts = {layer.layer: layer.verdict for layer in result.layers}
    level = [layer.score(CODE).level or 0.0 for layer in result.layers]
    leads = [
        span([layer.difference(CODE, reference).estimate.value for layer in result.layers])
        for reference in result.layers[0].references
    ]
    head = f"{result.provenance['model']}, {result.settings.reading}"
    return [head, ranges(verdicts), said(verdicts), span(level).replace("+", ""), *leads, powers(verdicts)]


def label_of(result: Compared) -> str:
    """Return a comparison's label, or its reading."""
    return result.settings.label if isinstance(result, ClustersResult) else result.settings.reading


def by_layer(results: Sequence[Compared], score: str) -> tuple[list[str], list[list[object]]]:
    """Return heads and a row a layer: the differences of `LAYERS` that some result has, with their intervals."""
    every = [(one, layer, cells_of(layer, score)) for one in results for layer in one.layers]
    shown = [pair for pair in LAYERS if any(pair in cells for _, _, cells in every)]
    heads = ["model", "label or reading", "layer", "verdict", "power"]
    for claim, reference in shown:
        over = "this layer's code" if reference == CODE else SHORT.get(reference, reference)
        heads.append(over if claim == CODE else f"{claim} over {over}")
    rows: list[list[object]] = [
        [
            one.provenance["model"], label_of(one), layer.verdict.place.partition(" ")[2], layer.verdict.outcome,
            lead(layer.verdict.power),
            *(interval(cells[pair]) if pair in cells else "" for pair in shown),
        ]
        for one, layer, cells in every
    ]  # fmt: skip
    return heads, rows


def beside(result: Compared) -> Iterable[list[object]]:
    """Yield a row for each further claim and comparator of a result, over its layers."""
    every = dict.fromkeys((each.claim, each.references) for layer in result.layers for each in layer.comparators)
    # Where a layer can't give one of a comparator's references, its verdict is against the others.
    whole = [key for key in every if not any(key[0] == claim and set(key[1]) < set(others) for claim, others in every)]
    for claim, references in whole:
        there = {
            layer.layer: each.verdict
            for layer in result.layers
            for each in layer.comparators
            if each.claim == claim and set(each.references) <= set(references)
        }
        cells: dict[str, list[Estimate]] = {}
        for verdict in there.values():
            for cell in verdict.cells:
                cells.setdefault(cell.score, []).append(cell.difference)
        main = AMI if isinstance(result, ClustersResult) else ACCURACY
        leads = [span([each.value for each in cells[score]]) if score in cells else "" for score in (main, AGREEMENT)]
        yield [
            result.provenance["model"], label_of(result), claim,
            ", ".join(SHORT.get(name, name) for name in references), said(there), *leads, powers(there),
            decides(there),
        ]  # fmt: skip


def by_label(results: Sequence[ClustersResult]) -> tuple[list[str], list[list[object]]]:
    """Return heads and a row for each model and label: the outcome of every further claim and comparator."""
    every = {
        (one.provenance["model"], one.settings.label): {(row[2], row[3]): row[4] for row in beside(one)}
        for one in results
    }
    shown = list(dict.fromkeys(pair for outcomes in every.values() for pair in outcomes))
    heads = ["model", "label", *(f"{claim} against {against}" for claim, against in shown)]
    return heads, [[*place, *(outcomes.get(pair, "") for pair in shown)] for place, outcomes in every.items()]


def decides(verdicts: dict[int, Verdict]) -> str:
    """Write the cell that decided where the claim does worst, with its interval and layer."""
    layer = min(verdicts, key=lambda n: verdicts[n].deciding.high)
    cell = verdicts[layer].deciding_cell
    score = "agreement" if cell.score == AGREEMENT else cell.score
    return f"{interval(cell.difference)} {score}, {SHORT.get(cell.reference, cell.reference)}, layer {layer}"


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
    parser.add_argument("--label", action="append", help="labels whose layers are shown one by one (upos)")
    given = parser.parse_args(argv)

    def work() -> None:
        clusters, senses, rates = found(given.runs)
        chosen = [one for one in clusters if one.settings.label in (given.label or ["upos"])]
        tables: list[tuple[str, Sequence[str], list[list[object]]]] = [
            ("Code ahead of its references, over layers", CLUSTERS, [clusters_row(one) for one in clusters]),
            ("Word senses, over layers", SENSES, [senses_row(one) for one in senses]),
            ("Layer by layer: how far the code is ahead, AMI", *by_layer(chosen, AMI)),
            ("Layer by layer: how far the code is ahead, agreement", *by_layer(chosen, AGREEMENT)),
            ("Word senses, layer by layer: accuracy", *by_layer(senses, ACCURACY)),
            ("Further claims and comparators", BESIDE, [row for one in (*chosen, *senses) for row in beside(one)]),
            ("Further claims and comparators, every label: the outcomes", *by_label(clusters)),
            ("Do the intervals hold", RATES, [rate_row(place, data) for place, data in rates]),
        ]
        print("\n\n".join(f"{title}:\n\n{markdown(heads, rows)}" for title, heads, rows in tables if rows))

    run(work)


if __name__ == "__main__":
    main()
