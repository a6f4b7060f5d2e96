"""What is measured of a pair of prompts: crossings of the path between them, and what could explain them.

The path is straight, between the last tokens of both prompts (or their targets) in what the layer's norm
reads; downstream it runs in A's context. Crossings of the layer itself are in closed form, later ones by
`paths.solve.chebyshev`. Only numbers are kept, no text.
"""

from __future__ import annotations

import hashlib
import json
import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from polytope_lm.codes import soft
from polytope_lm.controls.planes import rate_matched_planes
from polytope_lm.errors import PolytopeError
from polytope_lm.geometry.linear_mapping import POINTS, curvature
from polytope_lm.models.hooks import read
from polytope_lm.pairs import Problem
from polytope_lm.paths.ends import end
from polytope_lm.paths.path import path as make_path
from polytope_lm.paths.resume import resumable
from polytope_lm.paths.solve.line import mlp_inputs
from polytope_lm.paths.trace import POINTS as READ
from polytope_lm.paths.trace import Trace, js_distance
from polytope_lm.predictions.boundaries.result import COLUMNS_FORMERLY, MISSED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path as FilePath

    from polytope_lm.controls.planes import Planes
    from polytope_lm.models.hooks import Tap
    from polytope_lm.models.model import Model
    from polytope_lm.pairs import Pair
    from polytope_lm.paths.path import Path

IN_LAYER, DOWNSTREAM, ALL = "in-layer crossings", "downstream crossings", "crossings"
FLIP_BACKS, FLIP_BACKS_IN, FLIP_BACKS_DOWN = "flip-backs", "in-layer flip-backs", "downstream flip-backs"
OUTCOMES = (ALL, FLIP_BACKS, IN_LAYER, DOWNSTREAM, FLIP_BACKS_IN, FLIP_BACKS_DOWN)
HAMMING_IN, HAMMING_DOWN = "endpoint Hamming, in-layer", "endpoint Hamming, downstream"
LENGTH, JS = "path length", "JS distance of the ends"
COVARIATES = (
    "Euclidean distance in x", "cosine distance in x", "Euclidean distance in u", "cosine distance in u",
    "Euclidean distance in h", "cosine distance in h", HAMMING_IN, HAMMING_DOWN, LENGTH, JS,
)  # fmt: skip
SOFT, CURVATURE = "soft distance", "LMN curvature"
MEASURES = (SOFT, CURVATURE)
_PLANES_SEEN = 41

Row = dict[str, float]


def plane_column(draw: int, what: str) -> str:
    """Return the name of one draw's `crossings` or `Hamming`."""
    return f"planes {draw}: {what}"


def planes_of(
    model: Model, pairs: Sequence[Pair], layers: Sequence[int], kind: str | None, *, draws: int, seed: int
) -> Planes:
    """Draw rate-matched hyperplanes for some layers from the codes of all pairs' ends."""
    points = READ.get(model.site(layers[0], kind).kind, ("h",))
    u: dict[int, list[np.ndarray]] = {layer: [] for layer in layers}
    bits: dict[int, list[np.ndarray]] = {layer: [] for layer in layers}
    for prompt in dict.fromkeys(text for pair in pairs for text in pair.prompts):
        try:
            last = end(model, prompt, "A", -1)
        except PolytopeError:
            continue  # reported where the pair itself is measured
        found: dict[Tap, np.ndarray] = {}
        taps: list[Tap] = [(layer, point) for layer in layers for point in ("u", *points)]

        def keep(value: torch.Tensor, tap: Tap, where: int = last.position, into: dict = found) -> None:  # type: ignore[type-arg]
            into[tap] = value[0, where].float().cpu().numpy()

        readers = {tap: (lambda value, tap=tap, keep=keep: keep(value, tap)) for tap in taps}
        read(model, torch.as_tensor(last.ids)[None], None, readers)
        for layer in layers:
            u[layer].append(found[layer, "u"])
            bits[layer].append(np.concatenate([found[layer, point] for point in points]) > 0)
    return rate_matched_planes(
        {layer: np.stack(rows) for layer, rows in u.items()},
        {layer: np.stack(rows) for layer, rows in bits.items()},
        draws=draws,
        seed=seed,
    )


def measure_pair(
    model: Model, pair: Pair, layer: int, *, kind: str | None = None, planes: Planes | None = None
) -> dict[str, float]:
    """Measure one pair: outcomes, covariates, measures and any hyperplanes' counts, by name."""
    path = make_path(model, *pair.prompts, layer=layer, kind=kind)
    own, apart = path.crossings(), _distances(path)
    last, inputs = model.n_layers - 1, range(layer, model.n_layers) if planes is not None else ()
    trace = Trace(path, residuals=[last], inputs=inputs)
    followed = trace.follow()
    later = trace.found(followed)
    inside, hamming = float(len(own)), float(own.layers[0].hamming)
    down = float(sum(len(one.t) for one in later))
    down_hamming = float(sum(one.method.hamming for one in later))
    stream = trace.read(followed, "resid_post", last)
    row = {
        IN_LAYER: inside, DOWNSTREAM: down, ALL: inside + down,
        FLIP_BACKS_IN: inside - hamming, FLIP_BACKS_DOWN: down - down_hamming,
        FLIP_BACKS: inside + down - hamming - down_hamming,
        HAMMING_IN: hamming, HAMMING_DOWN: down_hamming, LENGTH: float(path.length),
        MISSED: float(sum(one.method.missed_estimate or 0 for one in later)), **apart,
        CURVATURE: curvature(trace.along(followed, stream, np.linspace(0, 1, POINTS))),
    }  # fmt: skip
    if model.has_logits:
        chances = trace.decoded(stream[[0, -1]])
        row[JS] = float(js_distance(chances[:1], chances[1:])[0])
    if planes is not None:
        # At equal steps: where the model was run depends on the model's own crossings.
        t = np.linspace(0, 1, _PLANES_SEEN)
        seen = {n: trace.along(followed, trace.read(followed, "u", n), t) for n in inputs}
        counts = [planes.crossings(n, u.astype(np.float32)) for n, u in seen.items()]
        crossed, differ = (np.sum(column, axis=0) for column in zip(*counts, strict=True))
        for draw in range(planes.draws):
            row[plane_column(draw, "crossings")] = float(crossed[draw])
            row[plane_column(draw, "Hamming")] = float(differ[draw])
    return row


def _distances(path: Path) -> dict[str, float]:
    """Return how far the ends are apart in `x`, `u` and `h`, and by their soft codes."""
    geometry = path.model.geometry(path.site)
    x = np.stack([path.a, path.b])
    u = mlp_inputs(geometry, x)
    weight = geometry.weight.astype(np.float64)
    h = np.stack([row @ weight.T + geometry.bias for row in u])  # one by one: equal rows stay equal
    found = {}
    for name, ends in (("x", x), ("u", u), ("h", h)):
        found[f"Euclidean distance in {name}"] = float(np.linalg.norm(ends[1] - ends[0]))
        found[f"cosine distance in {name}"] = _cosine_distance(ends)
    # The up branch of a gated MLP has no P(on): the gate's part stands for the code.
    gate = h[:, : path.site.width // 2] if path.site.kind == "gate+up" else h
    activation = "relu" if path.site.kind == "up" else path.site.premises.activation
    found[SOFT] = _cosine_distance(2 * soft.probability(gate, activation) - 1)
    return found


def _cosine_distance(ends: np.ndarray) -> float:
    a, b = ends
    if np.array_equal(a, b):
        return 0.0
    return float(1 - a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def measure_pairs(
    model: Model,
    pairs: Sequence[Pair],
    layer: int,
    *,
    kind: str | None,
    planes: Planes | None,
    seed: int,
    kept: FilePath | None = None,
    told: Callable[[int], None] = lambda _done: None,
) -> tuple[dict[int, Row], list[Problem]]:
    """Measure pairs from one layer."""
    texts = json.dumps([[pair.line, *pair.prompts] for pair in pairs])
    head = {
        "pairs": len(pairs), "revision": model.revision, "dtype": str(model.dtype), "layer": layer,
        "kind": kind, "draws": planes.draws if planes else 0, "seed": seed,
        "pairs_sha256": hashlib.sha256(texts.encode()).hexdigest(),
    }  # fmt: skip

    def one(number: int) -> dict[str, Any]:
        return _measured(model, pairs[number], layer, kind=kind, planes=planes)

    entries = resumable(head, lambda left: ((n, partial(one, n)) for n in left), to=kept, told=told)
    lines = [pair.line for pair in pairs]
    rows = {
        line: {COLUMNS_FORMERLY.get(name, name): value for name, value in entry["found"].items()}
        for line, entry in zip(lines, entries, strict=True)
        if "found" in entry
    }
    bad = [Problem(line, entry["bad"]) for line, entry in zip(lines, entries, strict=True) if "bad" in entry]
    return rows, sorted(bad, key=lambda problem: problem.line)


def _measured(model: Model, pair: Pair, layer: int, **options: Any) -> dict[str, Any]:
    """Return a pair's numbers, or what is wrong with it."""
    try:
        row = measure_pair(model, pair, layer, **options)
    except PolytopeError as error:
        return {"bad": str(error)}
    bad = next((name for name, value in row.items() if not math.isfinite(value)), None)
    if bad is not None:
        return {"bad": f"{bad} is {row[bad]}; leave this pair out, or try dtype='float32'"}
    return {"found": row}
