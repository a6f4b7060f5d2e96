"""Integrated gradients: how far off, how far they say that they are off, and what equal steps would give.

Run with `python -m benchmarks.integrated [--to FILE] [--cases 100] [--json]`; with `--to` it goes on where it
was stopped. On a real model: from one prompt's activation to another's, beside the same rule with 512 intervals.
On random ReLU networks: the piecewise closed form beside 20 and 50 equal steps.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import polytope_lm as plm
from benchmarks._machine import Figure, arguments, describe, report
from benchmarks.radius import prompts_of
from polytope_lm.changes.integrated import clenshaw_curtis, integrate, integrated_exactly
from polytope_lm.changes.readout import readout
from polytope_lm.geometry.relu_network import ReluNetwork
from polytope_lm.models.derivatives import Onward
from polytope_lm.paths.resume import resumable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from polytope_lm.models.model import Model

LAYERS = (4, 12, 20)
NODES = 512
_AT_ONCE = 64


def case(model: Model, prompts: Sequence[np.ndarray], number: int) -> dict[str, Any]:
    """Integrate from one prompt's activation to the next one's, by nested rules and by 512 intervals."""
    layer = LAYERS[number % len(LAYERS)]
    first, second = (prompts[(number + k) % len(prompts)] for k in (0, 1))
    onward = Onward(model, torch.as_tensor(first), layer)
    read = readout(model, "logprob").at(model, onward.clean().out)
    x = onward.x.double()
    delta = Onward(model, torch.as_tensor(second), layer).x.double() - x

    def slopes(t: np.ndarray) -> np.ndarray:
        parts = []
        for some in np.array_split(t, max(1, -(-len(t) // _AT_ONCE))):
            rows = (x + torch.as_tensor(some)[:, None] * delta).float()
            parts.append((onward.gradient(read.value, rows)[0].double() * delta).sum(1))
        return torch.cat(parts)[:, None].numpy()

    found = integrate(slopes)
    nodes, weights = clenshaw_curtis(NODES)
    fine = float(weights @ slopes(nodes)[:, 0])
    usual = {n: float(slopes(np.arange(1, n + 1) / n).mean()) for n in (20, 50)}
    ends = onward.run(torch.stack([x, x + delta]).float()).out.double()
    true = float(read.change(ends[1:], ends[:1])[0])
    return {
        "value": float(found.value[0]), "error": float(found.error[0]), "nodes": found.nodes, "fine": fine,
        "true": true, "off 20": usual[20] - fine, "off 50": usual[50] - fine,
    }  # fmt: skip


def networks(count: int) -> tuple[float, float, float]:
    """Return the closed form's largest error on ReLU networks of 2 to 4 layers, and medians of 20 and 50 steps."""
    worst, rules = 0.0, []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        widths = [10, *[40] * int(rng.integers(2, 5))]
        weights = [rng.standard_normal((n, m)) * np.sqrt(2 / m) for m, n in pairwise(widths)]
        network = ReluNetwork(weights, [rng.standard_normal(len(w)) * 0.3 for w in weights])
        out, a, b = rng.standard_normal(40), rng.standard_normal(10), rng.standard_normal(10)
        found = integrated_exactly(network, out, a, b)
        ends = np.maximum(network.pre(np.stack([a, b]))[-1], 0) @ out
        worst = max(worst, abs(float(found.value.sum() - (ends[1] - ends[0]))))
        rules.append((found.rules[20], found.rules[50]))
    return worst, *(float(one) for one in np.median(rules, axis=0))


def main() -> None:
    """Integrate and print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--to", help="a file that keeps finished cases")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--cases", type=int, default=100, help="pairs of prompts, three layers in turn (100)")
    asked = parser.parse_args()
    machine, model = describe(), plm.load(asked.model)
    prompts = prompts_of(model, 60)

    def work(left: Sequence[int]) -> Iterator[tuple[int, Callable[[], dict[str, Any]]]]:
        for number in left:
            yield number, partial(case, model, prompts, number)

    head = {"pairs": asked.cases, "model": model.revision, "nodes": NODES}
    told = lambda done: print(f"{done} of {asked.cases}", flush=True)  # noqa: E731
    cases = resumable(head, work, to=asked.to, workers=1, told=told)
    off = np.array([abs(one["value"] - one["fine"]) for one in cases])
    said = np.array([one["error"] for one in cases])
    size = np.array([abs(one["fine"]) for one in cases])
    worst, twenty, fifty = networks(50)
    nodes = float(np.median([one["nodes"] for one in cases]))
    steps = {n: float(np.median(np.abs([one[f"off {n}"] for one in cases]) / size)) for n in (20, 50)}
    report(
        [
            Figure("error estimate covers", float((off <= said).mean()), "of cases", must=0.95, note=f"{len(cases)}"),
            Figure("median error", float(np.median(off / size)), "of the change", steps[50], "50 equal steps",
                   note=f"{nodes:.0f} nodes in the median; 20 equal steps: {steps[20]:.3f}"),
            Figure("closed form on ReLU networks, worst", worst, "", fifty, "50 equal steps, median relative error",
                   must=1e-9, bound="at most", note=f"50 networks of 2 to 4 layers; 20 equal steps: {twenty:.3f}"),
        ],
        asked.json,
        machine,
    )  # fmt: skip


if __name__ == "__main__":
    main()
