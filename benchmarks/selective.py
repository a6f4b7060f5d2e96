"""Planted selective neurons and exchanged documents: how many are found, and how many false ones.

    python -m benchmarks.selective

20 of 3,072 neurons fire for a value at log-odds 1; base rates .05 to .5, 60 documents a value, 20 tokens a document,
intra-document correlation .1 (beta-distributed rates). The nulls have no such neuron.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from benchmarks._machine import Figure, arguments, describe, report
from polytope_lm.codes.codes import Codes
from polytope_lm.codes.hamming import hamming
from polytope_lm.models.sites import Premises, Site

if TYPE_CHECKING:
    from collections.abc import Sequence

_PLANTED, _DOCUMENTS, _TOKENS = 20, 60, 20


def codes(rng: np.random.Generator, neurons: int, planted: int) -> Codes:
    """Return codes with neurons that fire for the second of two values."""
    base = rng.uniform(0.05, 0.5, neurons)
    mine = np.repeat([False, True], _DOCUMENTS)
    logit = np.log(base / (1 - base)) + mine[:, None] * (np.arange(neurons) < planted)
    means = 1 / (1 + np.exp(-logit))
    rates = rng.beta(9 * means, 9 * (1 - means))  # 1 / (a + b + 1) = .1
    document = np.repeat(np.arange(2 * _DOCUMENTS), _TOKENS)
    bits = rng.random((len(document), neurons)) < rates[document]
    site = Site(0, "pre", "blocks.0.mlp.hook_pre", neurons, 8, Premises("smooth", "gelu", True, "LayerNorm"))
    table = pd.DataFrame({"document": document, "position": np.tile(np.arange(_TOKENS), 2 * _DOCUMENTS)})
    rest = {"start": 0, "end": 1, "token_id": 0, "token": "a", "value": np.where(mine[document], "b", "a")}
    table = table.assign(**rest)
    names = [f"d{i}" for i in range(2 * _DOCUMENTS)]
    return Codes((site,), table, {site.key: hamming.pack(bits)}, names, ["a"] * len(names))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure power, the share of false discoveries, and how often nulls find anything."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--runs", type=int, default=20, help="with planted neurons (%(default)s)")
    parser.add_argument("--nulls", type=int, default=100, help="without (%(default)s)")
    parser.add_argument("--neurons", type=int, default=3072)
    given = parser.parse_args(argv)
    machine, rng = describe(), np.random.default_rng(0)
    power, false = [], []
    for _ in range(given.runs):
        frame = codes(rng, given.neurons, _PLANTED).selective("value").to_frame()
        called = frame[frame["significant"] & (frame["value"] == "b")]
        planted = called[(called["neuron"] < _PLANTED) & (called["log_odds"] > 0)]
        power.append(len(planted) / _PLANTED)
        false.append((len(called) - len(planted)) / max(len(called), 1))
    hits = [
        bool(codes(rng, given.neurons, 0).selective("value").to_frame()["significant"].any())
        for _ in range(given.nulls)
    ]
    note = f"{given.neurons:,} neurons"
    figures = [
        Figure("planted neurons found", float(np.mean(power)), "", must=0.9, note=f"{given.runs} runs, {note}"),
        Figure("false among those found", float(np.mean(false)), "", must=0.05, bound="at most", note=note),
        Figure(
            "nulls that find any", float(np.mean(hits)), "", must=0.05, bound="at most", note=f"{given.nulls} nulls"
        ),
    ]
    report(figures, given.json, machine)


if __name__ == "__main__":
    main()
