"""Crossings in later layers, adaptive and in 33 steps, against a dense grid; and what sharing a prefix saves.

Run with `python -m benchmarks.downstream [--model tiny-gpt2] [--pairs 12] [--steps 4096] [--json]`. Pairs of
prompts that end in different words, from each of a few layers in turn.

- found: share of the dense grid's crossings with one of the same neuron and direction at most a step away.
- placed: share of them that have it within 1e-4 in t.
- confirmed: of the pairs of crossings that the dense grid has not, the share whose sign the model itself has
  between the two.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

import polytope_lm as plm
from benchmarks._machine import Figure, arguments, describe, report
from polytope_lm.models.interventions import run_patched
from polytope_lm.models.prefix import share_prefix
from polytope_lm.paths.downstream import Runs

if TYPE_CHECKING:
    from polytope_lm.paths.crossings import Crossings
    from polytope_lm.paths.path import Path

WORDS = "bank river money dog cat run quick table happy angry France London seven nine doctor nurse car red"
NEAR = 1e-4


@dataclass
class Comparison:
    """Counts over paths; `missing` are the dense grid's, `extra` ours."""

    crossings: int = 0
    missing: int = 0
    displaced: int = 0
    extra: int = 0
    confirmed: int = 0
    allowed: int = 0
    uncovered: int = 0

    @property
    def found(self) -> float:
        """Share of the dense grid's crossings."""
        return 1 - self.missing / max(1, self.crossings)

    @property
    def placed(self) -> float:
        """Share of the dense grid's crossings that have theirs within 1e-4."""
        return 1 - (self.missing + self.displaced) / max(1, self.crossings)


def random_pairs(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Draw pairs of prompts."""
    rng = np.random.default_rng(seed)
    drawn = (rng.choice(WORDS.split(), 4, replace=False) for _ in range(count))
    return [
        (f"I thought about the {a} and the {b}", f"She never liked a {c} or my {d}") for a, b, c, d in drawn
    ]


def compare(path: Path, ours: Crossings, dense: Crossings, steps: int, into: Comparison) -> None:
    """Match one path's later crossings with a dense grid's, neuron by neuron, at most a step apart."""
    rows = [_by_neuron(part) for part in (ours, dense)]
    doubtful: list[tuple[int, int, float, float]] = []
    for layer in (part.layer for part in ours.layers[1:]):
        missing = 0
        for neuron in {key[1] for part in rows for key in part if key[0] == layer}:
            mine, theirs = (part.get((layer, neuron), []) for part in rows)
            into.crossings += len(theirs)
            left = list(mine)
            for t, on in theirs:
                near = [one for one in left if one[1] == on and abs(one[0] - t) <= 1 / steps + NEAR]
                if not near:
                    missing += 1
                    continue
                best = min(near, key=lambda one: abs(one[0] - t))
                into.displaced += abs(best[0] - t) > NEAR
                left.remove(best)
            into.extra += len(left)
            doubtful += [(layer, neuron, a[0], b[0]) for a, b in zip(left[::2], left[1::2], strict=False)]
        into.missing += missing
        allowed = ours.method(layer).missed_at_most or 0
        into.allowed += allowed
        into.uncovered += max(0, missing - allowed)
    into.confirmed += 2 * _confirmed(path, doubtful)


def _by_neuron(crossings: Crossings) -> dict[tuple[int, int], list[tuple[float, bool]]]:
    found: dict[tuple[int, int], list[tuple[float, bool]]] = {}
    columns = (crossings.layer, crossings.neuron, crossings.t, crossings.on)
    for layer, neuron, t, on in zip(*(column.tolist() for column in columns), strict=True):
        found.setdefault((layer, neuron), []).append((t, on))
    return found


def _confirmed(path: Path, pairs: list[tuple[int, int, float, float]]) -> int:
    """Count the pairs of crossings between which the model's own sign is another than just outside."""
    if not pairs:
        return 0
    t = np.array([[2 * a - (a + b) / 2, (a + b) / 2, 2 * b - (a + b) / 2] for *_, a, b in pairs]).clip(0, 1)
    values = Runs(path).at(t.reshape(-1))
    first = path.site.layer + 1
    signs = np.array(
        [
            values[layer - first][3 * row : 3 * row + 3, neuron] > 0
            for row, (layer, neuron, *_) in enumerate(pairs)
        ]
    )
    return int(((signs[:, 1] != signs[:, 0]) & (signs[:, 1] != signs[:, 2])).sum())


def sharing(model: plm.models.loading.Model, layer: int, places: int = 129) -> tuple[float, float]:
    """Time so many evaluations of a 64-token prompt's path: shared, and as whole sequences."""
    prompt = " ".join(random_pairs(16)[n][0] for n in range(16))
    ids = np.array(model.tokenizer(prompt)["input_ids"][:64])
    vectors = np.random.default_rng(0).standard_normal((places, model.d_model))
    point = "gate" if "gate" in model.block(0).pre else "h"
    taps = [(n, point) for n in range(layer, model.n_layers)]
    settings = {"layer": layer, "position": len(ids) - 1, "taps": taps}
    share_prefix(model, torch.as_tensor(ids), layer=layer, position=len(ids) - 1)  # its check, once a model
    begin = time.perf_counter()
    prefix = share_prefix(model, torch.as_tensor(ids), layer=layer, position=len(ids) - 1)
    run_patched(model, ids, vectors, **settings, prefix=prefix)
    middle = time.perf_counter()
    run_patched(model, ids, vectors, **settings)
    return middle - begin, time.perf_counter() - middle


def main() -> None:
    """Compare and print the figures."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--model", default="tiny-gpt2", help="%(default)s")
    parser.add_argument("--pairs", type=int, default=12, help="pairs of prompts (%(default)s)")
    parser.add_argument("--steps", type=int, default=4096, help="steps of the dense grid (%(default)s)")
    parser.add_argument("--layers", type=int, nargs="+", help="the paths' layers, in turn (all but the last)")
    parser.add_argument("--evaluations", type=int, default=40, help="forward evaluations (%(default)s)")
    options = parser.parse_args()
    model = plm.load(options.model)
    layers = options.layers or list(range(model.n_layers - 1))
    adaptive, plain, seconds = Comparison(), Comparison(), 0.0
    for number, (a, b) in enumerate(random_pairs(options.pairs)):
        path = plm.path(model, a, b, layer=layers[number % len(layers)])
        dense = path.crossings(downstream=True, steps=options.steps)
        begin = time.perf_counter()
        ours = path.crossings(downstream=True, evaluations=options.evaluations)
        seconds += time.perf_counter() - begin
        compare(path, ours, dense, options.steps, adaptive)
        compare(path, path.crossings(downstream=True, steps=33), dense, 33, plain)
    note = (
        f"{model.name}, {options.pairs} pairs, {adaptive.crossings} crossings in {options.steps} steps; "
        f"{adaptive.extra} more, {adaptive.confirmed} of them confirmed; missed at most {adaptive.allowed}, "
        f"{adaptive.uncovered} missed beyond that; {seconds / options.pairs:.2f} s a path"
    )
    figures = [
        Figure("found", 100 * adaptive.found, "%", peer=100 * plain.found, peer_name="33 steps", note=note),
        Figure(
            "placed within 1e-4", 100 * adaptive.placed, "%", peer=100 * plain.placed, peer_name="33 steps"
        ),
    ]
    shared, whole = sharing(model, layers[len(layers) // 2])
    figures.append(
        Figure("129 evaluations, prefix shared", shared, "s", peer=whole, peer_name="whole sequences",
               ratio=whole / shared, note=f"64 tokens, from layer {layers[len(layers) // 2]}")
    )  # fmt: skip
    report(figures, options.json, describe())


if __name__ == "__main__":
    main()
