"""How many different codes a layer has, and a few of its neurons, against the number of tokens.

Protocol. Every token of a treebank's short documents (40 to 400 characters). Expected distinct codes of n tokens
(`plm.distinct_codes`) of a layer's first 8, 16, 32 neurons and of the whole layer, beside independent neurons of the
same rates and random hyperplanes of the same rates on the same vectors; of both controls several draws, their mean,
least and greatest.

    python -m analyses.distinct_codes --data DIR --out DIR [--model NAME ...] [--layers 1,2] [--draws 5]

DIR/MODEL has the codes, captured once; DIR/result.json every number.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import polytope_lm as plm
from analyses._corpora import treebank
from analyses._running import CAUSAL, asked, folder_name, run, write_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from polytope_lm.geometry.distinct import DistinctCodes

SHORT, LONGEST = 40, 400


def together(draws: Sequence[DistinctCodes]) -> list[dict[str, Any]]:
    """Return a row a group of neurons: its codes, and what the draws of both controls have, for each n."""
    rows = []
    for same in zip(*(one.growths for one in draws), strict=True):
        row: dict[str, Any] = {"layer": same[0].layer, "neurons": same[0].neurons}
        row["distinct codes"] = [round(n, 2) for n in same[0].codes]
        for name in ("independent", "planes"):
            each = np.array([getattr(one, name) for one in same])
            for word, of in (("mean", np.mean), ("least", np.min), ("greatest", np.max)):
                row[f"{name}, {word}"] = [round(float(n), 2) for n in of(each, axis=0)]
        rows.append(row)
    return rows


def analyse(name: str, given: argparse.Namespace, layers: Any) -> dict[str, Any]:
    """Return one model's growths."""
    model = plm.load(name, device=given.device)
    short = [one for one in treebank(given.data) if SHORT <= len(one.text) <= LONGEST]
    chosen = (1, model.n_layers - 2) if layers is None else layers
    store = plm.capture(model, short, to=given.out / folder_name(name) / "store", layers=chosen, keep=("u",))
    draws = [plm.distinct_codes(store, seed=given.seed + i, most=len(store)) for i in range(given.draws)]
    first = draws[0]
    return {
        "tokens": len(store), "documents": len(short), "at": list(first.at), "draws": given.draws,
        "distinct tokens": [round(n, 2) for n in first.tokens], "growths": together(draws),
        "provenance": first.provenance,
    }  # fmt: skip


def show(models: Mapping[str, Mapping[str, Any]]) -> None:
    """Print what all tokens have."""
    for name, found in models.items():
        print(f"{name}: {found['tokens']:,} tokens, {found['distinct tokens'][-1]:,.0f} different ones")
        for row in found["growths"]:
            independent, planes = (row[f"{kind}, mean"][-1] for kind in ("independent", "planes"))
            print(
                f"  layer {row['layer']}, {row['neurons']:>5} neurons: {row['distinct codes'][-1]:,.0f} codes; "
                f"independent {independent:,.0f}, planes {planes:,.0f}"
            )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the analysis."""

    def own(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--data", type=Path, required=True, help="directory with treebank/")
        parser.add_argument("--draws", type=int, default=5, help="of each control (%(default)s)")

    chosen = asked("distinct_codes", __doc__, argv, own, models=CAUSAL, layers=None)

    def work() -> None:
        models = {name: analyse(name, chosen.given, chosen.layers) for name in chosen.models}
        write_json(chosen.given.out / "result.json", {"command": chosen.command, "models": models})
        show(models)

    run(work)


if __name__ == "__main__":
    main()
