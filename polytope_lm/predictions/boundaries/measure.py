"""What is measured of a pair of prompts: crossings of the path between them, and what could explain them.

The path is straight, between the last tokens of both prompts (or their targets) in what the layer's norm
reads; downstream it runs in A's context. Crossings of the layer itself are in closed form, later ones by
`paths.adaptive`. Only numbers are kept, no text.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import torch

from polytope_lm.codes import soft
from polytope_lm.controls.planes import rate_matched_planes
from polytope_lm.errors import PolytopeError
from polytope_lm.geometry.linear_mapping import POINTS, curvature
from polytope_lm.models.hooks import read
from polytope_lm.models.interventions import run_patched
from polytope_lm.paths.ends import end
from polytope_lm.paths.output import js_distance, probabilities
from polytope_lm.paths.path import path as make_path
from polytope_lm.paths.solve.chebyshev import EVALUATIONS, Followed, follow
from polytope_lm.paths.trace import mlp_inputs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from polytope_lm.controls.planes import Planes
    from polytope_lm.models.hooks import Point, Tap
    from polytope_lm.models.loading import Model
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
MISSED = "missed at most"

_POINTS: Mapping[str, tuple[Point, ...]] = {"gate": ("gate",), "up": ("up",), "gate+up": ("gate", "up")}


def plane_column(draw: int, what: str) -> str:
    """Return the name of one draw's `crossings` or `Hamming`."""
    return f"planes {draw}: {what}"


def planes_of(
    model: Model, pairs: Sequence[Pair], layers: Sequence[int], kind: str | None, *, draws: int, seed: int
) -> Planes:
    """Draw rate-matched hyperplanes for some layers from the codes of all pairs' ends.

    Args:
        model: the model.
        pairs: prompts; those that the model can't read are passed over.
        layers: layers.
        kind: code kind.
        draws: of each neuron's plane.
        seed: of the planes.

    """
    points = _POINTS.get(model.site(layers[0], kind).kind, ("h",))
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
    model: Model,
    pair: Pair,
    layer: int,
    *,
    kind: str | None = None,
    planes: Planes | None = None,
    lock: threading.Lock | None = None,
) -> dict[str, float]:
    """Measure one pair: outcomes, covariates, measures and any hyperplanes' counts, by name.

    Args:
        model: a causal model.
        pair: the prompts.
        layer: the path's layer.
        kind: code kind.
        planes: random hyperplanes of this layer and all later ones.
        lock: held while the model runs, where several pairs are measured at once: hooks are the model's.

    Raises:
        PolytopeError: what `paths.path` refuses: a prompt without a token or too long, NaN along the path, a
            model that reads both ways.

    """
    free = lock or threading.Lock()
    with free:  # a norm may be run to read its gain, so the geometry too
        path = make_path(model, *pair.prompts, layer=layer, kind=kind)
        run = _Run(path, free, with_u=planes is not None)
        own, apart = path.crossings(), _distances(path)
    followed = follow(run.at, evaluations=EVALUATIONS, signs=len(run.later))
    ends = [((h[0] > 0) != (h[-1] > 0)).sum() for h in followed.values[: len(run.later)]]
    inside, hamming = float(len(own)), float(own.layers[0].hamming)
    down, down_hamming = float(sum(len(part.t) for part in followed.layers)), float(sum(ends))
    row = {
        IN_LAYER: inside, DOWNSTREAM: down, ALL: inside + down,
        FLIP_BACKS_IN: inside - hamming, FLIP_BACKS_DOWN: down - down_hamming,
        FLIP_BACKS: inside + down - hamming - down_hamming,
        HAMMING_IN: hamming, HAMMING_DOWN: down_hamming, LENGTH: float(path.length),
        MISSED: float(sum(followed.missed_at_most(number) for number in range(len(run.later)))),
    }  # fmt: skip
    row |= apart | run.output(followed)
    return row | (_plane_counts(planes, run, followed) if planes is not None else {})


def _distances(path: Path) -> dict[str, float]:
    """Return how far the ends are apart in `x`, `u` and `h`, and by their soft codes."""
    geometry = path.model.geometry(path.site)
    x = np.stack([path.a, path.b])
    u = mlp_inputs(geometry, x)
    h = u @ geometry.weight.astype(np.float64).T + geometry.bias
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


class _Run:
    """The model along one path: `h` of later layers, the last block's output, then any `u`."""

    def __init__(self, path: Path, lock: threading.Lock, *, with_u: bool) -> None:
        from polytope_lm.models.prefix import share_prefix  # noqa: PLC0415 - it imports transformers

        model, layer = path.model, path.site.layer
        self.path, self.lock = path, lock
        self.later = range(layer + 1, model.n_layers)
        self.read_u = range(layer, model.n_layers) if with_u else range(0)
        self.points = _POINTS.get(path.site.kind, ("h",))
        ids = torch.as_tensor(path.input_ids)
        self.prefix = share_prefix(model, ids, layer=layer, position=path.position) if model.causal else None

    def at(self, t: np.ndarray) -> list[np.ndarray]:
        path = self.path
        last: Tap = (path.model.n_layers - 1, "resid_post")
        us: list[Tap] = [(layer, "u") for layer in self.read_u]
        taps: list[Tap] = [(layer, point) for layer in self.later for point in self.points]
        with self.lock:
            run = run_patched(
                path.model, path.input_ids, path.points(t), layer=path.site.layer, position=path.position,
                at=path.at, taps=[*taps, last, *us], logits=False, prefix=self.prefix,
            )  # fmt: skip
        got = run.activations
        values = [np.concatenate([got[layer, p] for p in self.points], axis=1) for layer in self.later]
        values += [got[tap] for tap in (last, *us)]
        if not all(np.isfinite(value).all() for value in values):
            raise PolytopeError(
                f"{path.model.name}: NaN or infinite values along the path from layer {path.site.layer}; try "
                "dtype='float32'"
            )
        return values

    def output(self, followed: Followed) -> dict[str, float]:
        """Return how far the ends' next-token distributions are apart, and how bent the map between is."""
        from polytope_lm.models.logits import next_token_logits  # noqa: PLC0415 - it imports transformers

        stream = followed.values[len(self.later)].astype(np.float64)
        places = followed.interpolated(stream, np.linspace(0, 1, POINTS))
        places[0], places[-1] = stream[0], stream[-1]
        found = {CURVATURE: curvature(places)}
        if self.path.model.has_logits:
            with self.lock:
                logits = next_token_logits(self.path.model, stream[[0, -1]])
            chances = probabilities(logits)
            found[JS] = float(js_distance(chances[:1], chances[1:])[0])
        return found


def _plane_counts(planes: Planes, run: _Run, followed: Followed) -> dict[str, float]:
    crossed, apart = np.zeros(planes.draws), np.zeros(planes.draws)
    for layer, u in zip(run.read_u, followed.values[len(run.later) + 1 :], strict=True):
        here, ends = planes.crossings(layer, u)
        crossed += here
        apart += ends
    found = {}
    for draw in range(planes.draws):
        found[plane_column(draw, "crossings")] = float(crossed[draw])
        found[plane_column(draw, "Hamming")] = float(apart[draw])
    return found
