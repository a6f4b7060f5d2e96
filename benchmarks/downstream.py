"""Crossings in later layers, adaptive and in 33 steps, against a dense grid.

Run with `python -m benchmarks.downstream [--model tiny-gpt2] [--pairs 50] [--steps 4096] [--json]`. Pairs of
prompts that differ in meaning and wording, from each layer in turn (but the last). `--out FILE` writes one
JSON line a pair and goes on where it ended.

- found: share of the dense grid's crossings with one of the same neuron and direction at most a step away.
- placed: share of them that have it within 1e-4 in t.
- confirmed: of the pairs of crossings that the dense grid has not, the share whose sign the model itself has
  between the two.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import polytope_lm as plm
from benchmarks._machine import Figure, arguments, describe, report
from polytope_lm.paths.trace import Trace

if TYPE_CHECKING:
    from argparse import Namespace

    from polytope_lm.paths.crossings import Crossings
    from polytope_lm.paths.path import Path as ModelPath

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

    def __iadd__(self, other: Comparison) -> Comparison:  # noqa: PYI034 - a result, not a hierarchy
        for part in fields(Comparison):
            setattr(self, part.name, getattr(self, part.name) + getattr(other, part.name))
        return self

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
    return [(f"I thought about the {a} and the {b}", f"She never liked a {c} or my {d}") for a, b, c, d in drawn]


def compare(path: ModelPath, ours: Crossings, dense: Crossings, steps: int, into: Comparison) -> None:
    """Match one path's later crossings with a dense grid's, neuron by neuron, at most a step apart."""
    rows = [_by_neuron(part) for part in (ours, dense)]
    doubtful: list[tuple[int, int, float, float]] = []
    for layer in (part.layer for part in ours.layers if part.method != "closed form"):
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
        allowed = ours.method(layer).missed_estimate or 0
        into.allowed += allowed
        into.uncovered += max(0, missing - allowed)
    into.confirmed += 2 * _confirmed(path, doubtful)


def _by_neuron(crossings: Crossings) -> dict[tuple[int, int], list[tuple[float, bool]]]:
    """Collect each neuron's crossings; at several tokens it is as many neurons."""
    found: dict[tuple[int, int], list[tuple[float, bool]]] = {}
    neuron = crossings.neuron.astype(np.int64)
    if crossings.position is not None:
        neuron = neuron + crossings.position * np.int64(crossings.site.width)
    columns = (crossings.layer, neuron, crossings.t, crossings.on)
    for layer, key, t, on in zip(*(column.tolist() for column in columns), strict=True):
        found.setdefault((layer, key), []).append((t, on))
    return found


def _confirmed(path: ModelPath, pairs: list[tuple[int, int, float, float]]) -> int:
    """Count the pairs of crossings between which the model's own sign is another than just outside."""
    if not pairs:
        return 0
    t = np.array([[2 * a - (a + b) / 2, (a + b) / 2, 2 * b - (a + b) / 2] for *_, a, b in pairs]).clip(0, 1)
    runs = Trace(path, logits=True)
    values, first = runs.at(t.reshape(-1)), runs.sites[0].layer
    signs = np.array(
        [values[layer - first][3 * row : 3 * row + 3, neuron] > 0 for row, (layer, neuron, *_) in enumerate(pairs)]
    )
    return int(((signs[:, 1] != signs[:, 0]) & (signs[:, 1] != signs[:, 2])).sum())


def measure(model: Any, prompts: tuple[str, str], layer: int, options: Namespace) -> dict[str, Any]:
    """Compare one path's crossings with both grids'; plain numbers."""
    path = plm.path(model, *prompts, layer=layer, shape=options.shape)
    begin = time.perf_counter()
    ours = path.crossings(downstream=True, evaluations=options.evaluations)
    seconds = time.perf_counter() - begin
    dense = stepped(path, ours, options.steps)
    total = time.perf_counter() - begin
    adaptive, plain = Comparison(), Comparison()
    compare(path, ours, dense, options.steps, adaptive)
    compare(path, stepped(path, ours, 33), dense, 33, plain)
    return {
        "model": model.name, "revision": model.revision, "layer": layer, "shape": options.shape,
        "steps": options.steps, "evaluations": options.evaluations, "method": ours.layers[-1].method,
        "evaluated": sum(map(int, re.findall(r"(\d+) (?:nodes|held out)", ours.layers[-1].method))),
        "seconds": seconds, "all_seconds": total, "adaptive": asdict(adaptive), "plain": asdict(plain),
    }  # fmt: skip


def stepped(path: ModelPath, ours: Crossings, steps: int) -> Crossings:
    """Look for the same layers' crossings in equal steps, without the next-token distribution."""
    runs = Trace(path, logits=True)
    runs.logits = False
    later, _ = runs.grid(steps)
    t, neuron, on = (np.concatenate([getattr(one, name) for one in later]) for name in ("t", "neuron", "on"))
    layer = np.repeat([one.site.layer for one in later], [len(one.t) for one in later])
    methods = tuple(one.method for one in later)
    return replace(ours, t=t, layer=layer, neuron=neuron, on=on, layers=methods, output_change=None)


def measured(options: Namespace) -> list[dict[str, Any]]:
    """Measure all pairs that the file does not hold yet; return all rows."""
    model = plm.load(options.model, device=options.device)
    layers = options.layers or list(range(model.n_layers - 1))
    kept = {"model": model.name, "revision": model.revision} | {
        name: getattr(options, name) for name in ("steps", "evaluations", "shape")
    }
    rows: dict[int, dict[str, Any]] = {}
    if options.out and options.out.exists():
        for row in map(json.loads, options.out.read_text(encoding="utf-8").splitlines()):
            number = row["pair"]
            same = kept | {"layer": layers[number % len(layers)]}
            if number < options.pairs and {name: row[name] for name in same} == same:
                rows[number] = row
    for number, prompts in enumerate(random_pairs(options.pairs)):
        if number in rows:
            continue
        rows[number] = {
            "pair": number, **measure(model, prompts, layers[number % len(layers)], options)
        }  # fmt: skip
        if options.out:
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[number]) + "\n")
    return [rows[number] for number in sorted(rows)]


def main() -> None:
    """Compare and print the figures."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--model", default="tiny-gpt2", help="%(default)s")
    parser.add_argument("--device", default="cpu", help="a torch device (%(default)s)")
    parser.add_argument("--pairs", type=int, default=50, help="pairs of prompts (%(default)s)")
    parser.add_argument("--steps", type=int, default=4096, help="steps of the dense grid (%(default)s)")
    parser.add_argument("--layers", type=int, nargs="+", help="the paths' layers, in turn (all but the last)")
    parser.add_argument("--shape", default="line", help="line or arc (%(default)s)")
    parser.add_argument("--evaluations", type=int, help="forward evaluations (40; behind ReLUs 160)")
    parser.add_argument("--out", type=Path, help="JSON lines, one a pair; pairs in it are not run again")
    options = parser.parse_args()
    machine = describe()
    report(figures(measured(options)), options.json, machine)


def figures(rows: list[dict[str, Any]]) -> list[Figure]:
    """Sum the pairs up."""
    adaptive, plain = Comparison(), Comparison()
    for row in rows:
        adaptive += Comparison(**row["adaptive"])
        plain += Comparison(**row["plain"])
    layers = sorted({row["layer"] for row in rows})
    seconds = np.array([row["seconds"] for row in rows])
    note = (
        f"{rows[0]['model']}, {len(rows)} pairs from layers {layers[0]} to {layers[-1]}, "
        f"{adaptive.crossings} crossings in {rows[0]['steps']} steps; {np.median(seconds):.2f} s a path"
    )
    extra = f"{adaptive.confirmed} of {adaptive.extra} that the grid has not are the model's own"
    covered = f"{adaptive.missing} missed, {adaptive.allowed} allowed for"
    evaluated = np.array([row["evaluated"] for row in rows])
    each = [f"{np.median(evaluated[[row['layer'] == n for row in rows]]):.0f} from layer {n}" for n in layers[:6]]
    grid = "33 steps"
    return [
        Figure("found", 100 * adaptive.found, "%", peer=100 * plain.found, peer_name=grid, must=99.99,
               note=note),
        Figure("placed within 1e-4", 100 * adaptive.placed, "%", peer=100 * plain.placed, peer_name=grid,
               must=99.9),
        Figure("evaluations, median", float(np.median(evaluated)), "", must=120, bound="at most",
               note=f"{', '.join(each)}; {evaluated.max()} at most"),
        Figure("confirmed", 100 * adaptive.confirmed / max(1, adaptive.extra), "%", note=extra),
        Figure("missed beyond missed_estimate", adaptive.uncovered, "", must=0, bound="at most", note=covered),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
