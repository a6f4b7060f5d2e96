"""In-layer crossings of many prompt pairs at one site, beside plain numpy and a grid.

Run with `python -m benchmarks.crossings [--json]`. The residuals are given; only the search is timed. Shapes
are those of GPT-2 small (N = 3072, D = 768, LayerNorm, biases, about one neuron in five on); the weights are
random, since no time here depends on what was learnt.

- closed form, float32 numpy: the same two products, then the quadratic of all neurons at once, whole arrays
  at a time; it keeps no place, no order, and polishes nothing. A reader would write it first.
- grid, float32 numpy: the same two products, then signs at equally spaced places of every line: what public
  code does, without its forward passes.
"""

from __future__ import annotations

from functools import partial
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from benchmarks._machine import Figure, Machine, arguments, describe, interleaved, median_ratio, report
from polytope_lm.models.sites import Geometry
from polytope_lm.paths.solve.line import LineCrossings, in_layer_crossings

if TYPE_CHECKING:
    from argparse import Namespace

N, D, EPS = 3072, 768, 1e-5


def make_pairs(pairs: int, seed: int) -> tuple[Geometry, np.ndarray, np.ndarray]:
    """Draw a site and the ends of lines whose cosine is about one half, as two prompts' residuals have."""
    rng = np.random.default_rng(seed)
    site = Geometry(
        weight=(rng.standard_normal((N, D)) * 0.02).astype(np.float32),
        bias=(rng.standard_normal(N) * 0.3 - 0.5).astype(np.float32),
        gain=(1 + 0.1 * rng.standard_normal(D)).astype(np.float32),
        shift=(0.05 * rng.standard_normal(D)).astype(np.float32),
        eps=EPS,
        norm="LayerNorm",
    )
    shared, a, b = (rng.standard_normal((3, pairs, D)) * 3).astype(np.float32)
    return site, shared + a, shared + b


def folded(site: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Fold the norm's gain and bias into weight and bias, float32."""
    return site.weight * site.gain, site.bias + site.weight @ site.shift


def products(site: Geometry, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return `p0, p1` `[P, N]`, `q0, q1, q2` `[P, 1]` and the folded bias, float32."""
    weight, bias = folded(site)
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (a, b))
    d = b - a
    q0, q1, q2 = ((x * y).sum(axis=1, keepdims=True) / D for x, y in ((a, a), (a, d), (d, d)))
    return a @ weight.T, d @ weight.T, q0 + np.float32(EPS), 2 * q1, q2, bias


def closed_form_numpy(site: Geometry, a: np.ndarray, b: np.ndarray, block: int = 128) -> int:
    """Count the roots in (0, 1) of the quadratic of every neuron that solve the unsquared equation."""
    count = 0
    for first in range(0, len(a), block):
        p0, p1, q0, q1, q2, bias = products(site, a[first : first + block], b[first : first + block])
        square = bias * bias
        A, B, C = p1 * p1 - square * q2, 2 * p0 * p1 - square * q1, p0 * p0 - square * q0
        with np.errstate(invalid="ignore", divide="ignore"):
            pivot = -0.5 * (B + np.copysign(np.sqrt(B * B - 4 * A * C), B))
            for t in (pivot / A, C / pivot):
                count += int(((t > 0) & (t < 1) & ((p0 + p1 * t) * bias < 0)).sum())
    return count


def grid_numpy(site: Geometry, a: np.ndarray, b: np.ndarray, *, steps: int, block: int = 128) -> int:
    """Count the sign changes between equally spaced places."""
    count = 0
    places = np.linspace(0, 1, steps + 1, dtype=np.float32)
    for first in range(0, len(a), block):
        p0, p1, q0, q1, q2, bias = products(site, a[first : first + block], b[first : first + block])
        before = None
        for t in places:
            on = p0 + t * p1 + np.sqrt(q0 + t * (q1 + t * q2)) * bias > 0
            count += 0 if before is None else int((on != before).sum())
            before = on
    return count


def main() -> None:
    """Time all of them in turn on the same pairs and print the figures."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--pairs", type=int, default=1000, help="lines (1000)")
    parser.add_argument("--steps", type=int, default=128, help="steps of the grid (128)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each (5)")
    options = parser.parse_args()
    machine = describe()
    site, a, b = make_pairs(options.pairs, seed=0)
    runs = {
        "ours": partial(in_layer_crossings, site, a, b),
        "numpy": partial(closed_form_numpy, site, a, b),
        "grid": partial(grid_numpy, site, a, b, steps=options.steps),
    }
    found, plain, stepped = runs["ours"](), runs["numpy"](), runs["grid"]()  # compiles and warms up, too
    seconds = interleaved(runs, options.repeats)
    print_figures(options, found, {"numpy": plain, "grid": stepped}, seconds, machine)


def print_figures(
    options: Namespace, found: LineCrossings, counts: dict[str, int], seconds: dict[str, list[float]], machine: Machine
) -> None:
    """Print each figure beside its peer's."""
    ours, returns = median(seconds["ours"]), int(found.returns.sum())
    figures = [
        Figure(
            name="in-layer crossings, float64, ordered",
            value=ours,
            unit="s",
            peer=median(seconds[peer]),
            peer_name=f"{name} in float32 numpy",
            ratio=median_ratio(seconds[peer], seconds["ours"]),
            note=f"{options.pairs} lines, N = {N}, D = {D}: {len(found.t)} crossings, {returns} of them of "
            f"neurons that return; the peer finds {counts[peer]}",
        )
        for peer, name in (("numpy", "closed form"), ("grid", f"grid of {options.steps} steps"))
    ]
    if options.pairs == 1000:
        figures.append(Figure("the same", ours, "s", must=1.5, bound="at most", note="2 cores"))
    report(figures, options.json, machine)


if __name__ == "__main__":
    main()
