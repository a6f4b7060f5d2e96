"""How often a word's nearest other words share its part of speech, by code and by centred cosine, as they stand.

Strict neighbour agreement (10 neighbours of another lemma, form, token and document) of words drawn at random from a
treebank, without a cap on words of one document, and before any null is taken off. Each level stands beside the same
figure from plain numpy: all distances, then each token's row sorted; it shares no code with the package but the codes
themselves. Ties are broken otherwise there, so the two may differ in the last digits.

    python -m analyses.agreement_levels --data DIR --out DIR [--model smollm2-135m] [--layers 4,9] [--tokens 6000]

DIR/result.json. Verdicts are `analyses.monosemanticity`'s: they cap documents and count each score from its null.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import polytope_lm as plm
from analyses._corpora import treebank
from analyses._running import asked, run, write_json
from polytope_lm.predictions.clusters.sampling import choose
from polytope_lm.predictions.clusters.scoring import NEIGHBOURS
from polytope_lm.representations.arrays import LayerArrays
from polytope_lm.representations.binary import CODE
from polytope_lm.representations.directions import CENTRED
from polytope_lm.representations.distances import pairwise
from polytope_lm.representations.registry import get
from polytope_lm.seeds import tie_order
from polytope_lm.statistics.neighbours import agreements, strict_neighbours

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from jaxtyping import Float, Int

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.predictions.clusters.sampling import Sample


def levels(codes: TokenCodes, layer: int, sample: Sample, seed: int) -> dict[str, dict[str, float]]:
    """Return each representation's agreement, by the package and by plain numpy."""
    arrays, order = LayerArrays(codes, layer, sample.rows), tie_order(len(sample.rows), seed)
    h = np.asarray(codes.rows(codes.site(layer), sample.rows, "h"), np.float64)
    beside = {CODE: hamming_distances(h), CENTRED: centred_cosine_distances(h)}
    found = {}
    for name, distances in beside.items():
        near = strict_neighbours(pairwise(get(name).rows(arrays, seed=seed), name), sample.groups, NEIGHBOURS, order)
        found[name] = {
            "package": float(agreements(near, sample.labels[None])[0]),
            "plain numpy": sorted_agreement(distances, sample.groups, sample.labels),
        }
    return found


def hamming_distances(h: Float[np.ndarray, "n N"]) -> Float[np.ndarray, "n n"]:
    """Return in how many signs each two rows differ."""
    on = (h > 0).astype(np.float32)
    both, each = on @ on.T, on.sum(axis=1)
    distances: Float[np.ndarray, "n n"] = each[:, None] + each[None] - 2 * both
    return distances


def centred_cosine_distances(h: Float[np.ndarray, "n N"]) -> Float[np.ndarray, "n n"]:
    """Return one less the cosine of each two rows after their mean is taken off."""
    away = h - h.mean(axis=0)
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    distances: Float[np.ndarray, "n n"] = 1 - away @ away.T
    return distances


def sorted_agreement(
    distances: Float[np.ndarray, "n n"], groups: Int[np.ndarray, "n g"], labels: Int[np.ndarray, " n"], k: int = 10
) -> float:
    """Return the mean share of each row's k nearest that have its label, of those that share none of its groups."""
    shares = []
    for own, row in enumerate(distances):
        others = np.flatnonzero((groups != groups[own]).all(axis=1))
        if len(others):
            nearest = others[np.argsort(row[others], kind="stable")[:k]]
            shares.append(np.mean(labels[nearest] == labels[own]))
    return float(np.mean(shares))


def own_options(parser: argparse.ArgumentParser) -> None:
    """Add what only this analysis asks."""
    parser.add_argument("--data", type=Path, required=True, help="directory with treebank/")
    parser.add_argument("--tokens", type=int, default=6000, help="words compared (%(default)s)")
    parser.add_argument("--label", default="upos", help="upos, xpos, deprel or genre (%(default)s)")


def main(argv: Sequence[str] | None = None) -> None:
    """Read the treebank, print and write each layer's levels."""

    def work() -> None:
        found = asked("agreement_levels", __doc__, argv, own_options, models=("smollm2-135m",), layers="4,9")
        given, rows = found.given, list[dict[str, Any]]()
        for name in found.models:
            model = plm.load(name, device=given.device)
            layers = found.layers or range(model.n_layers)
            codes = plm.encode(model, treebank(given.data), layers=list(layers), tokens="word-final", keep=("h",))
            sample = choose(codes, given.label, tokens=given.tokens, seed=given.seed, per_document=None)
            for layer in layers:
                row = {"model": name, "layer": layer, "label": given.label, "words": len(sample.rows)}
                row |= {"documents": sample.summary.documents, "effective": sample.summary.effective}
                rows.append(row | {"levels": levels(codes, layer, sample, given.seed)})
                print(rows[-1], flush=True)
                write_json(given.out / "result.json", {"command": found.command, "rows": rows})

    run(work)


if __name__ == "__main__":
    main()
