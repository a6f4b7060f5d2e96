"""Affine maps of one layer, reduced to k: time and memory, without a D x D matrix.

`python -m benchmarks.affine_maps [--model NAME] [--layer 14] [--tokens 10000] [--k 100] [--json]`. The model reads the
built-in sample; tangent maps are made, clustered by k-means under the Frobenius norm, and each token finds its nearest
centre. The peer: the bytes that the tokens' whole matrices would take, and the time of their pairwise distances to the
centres, from a few tokens.
"""

from __future__ import annotations

from time import perf_counter, process_time

import numpy as np
import torch

import polytope_lm as plm
from benchmarks._machine import Figure, arguments, describe, peak_memory, report
from polytope_lm.geometry.affine import inputs_of, maps_at, reduce

TRIED = 20
LENGTH = 256


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--layer", type=int, default=14)
    parser.add_argument("--tokens", type=int, default=10_000)
    parser.add_argument("--k", type=int, default=100)
    options = parser.parse_args()
    machine = describe()
    model = plm.load(options.model)
    ids = [i for d in plm.documents("sample") for i in model.tokenizer(d.text)["input_ids"]]
    stretches = [
        np.array(ids[start : start + LENGTH]) for start in range(0, options.tokens + options.tokens // 100, LENGTH)
    ]
    began = perf_counter()
    u = inputs_of(model, stretches, options.layer)[: options.tokens]
    read = perf_counter() - began
    found = maps_at(model, options.layer, u)
    centres = reduce(found, options.k)
    nearest = centres.nearest(found)
    seconds, computing = perf_counter() - began, process_time()
    agree = float((nearest == centres.labels).mean())
    began = perf_counter()
    whole, middles = found[:TRIED].matrices().flatten(1), centres.maps[:TRIED].matrices().flatten(1)
    torch.cdist(whole, middles)
    peer = (perf_counter() - began) * len(found) * options.k / TRIED**2
    size = len(found) * whole.shape[1] * 4 / 1e9
    spent = f"{read:.0f} s of it reading, {computing:.0f} s of computing since the start"
    note = f"{spent}; {agree:.3f} of the tokens are nearest to their own cluster's centre"
    report(
        [
            Figure(f"{model.name}, layer {options.layer}: {len(found):,} maps, k = {options.k}", seconds, "s", must=180,
                   bound="at most", peer=peer, peer_name=f"one round of distances of whole matrices, from {TRIED}",
                   note=note),
            Figure("peak memory", peak_memory() / 1000, "GB", must=6, bound="at most", peer=size,
                   peer_name="whole matrices alone"),
        ],
        options.json, machine,
    )  # fmt: skip


if __name__ == "__main__":
    main()
