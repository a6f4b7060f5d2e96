"""The layers after a path's own: the model along the path, its crossings there, and its output's change.

One path followed to the model's output: its crossings, and where the output changes, from the same runs.

The residual stream is interpolated through the places where the model was run, as `h` is, and decoded by the
model's own head; how far the distributions so found are from the model's own is measured at the held-out
places. One position moves, in the context of prompt A.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from polytope_lm.errors import PolytopeError
from polytope_lm.models.interventions import Patched, run_patched, run_replaced
from polytope_lm.paths.crossings import LayerMethod, OutputChange
from polytope_lm.paths.output import (
    interpolated_change,
    joined,
    js_distance,
    js_distances,
    output_change,
    probabilities,
)
from polytope_lm.paths.profile import STEPS, Profile
from polytope_lm.paths.solve.arc import arc_crossings
from polytope_lm.paths.solve.chebyshev import EVALUATIONS, Followed, follow
from polytope_lm.paths.solve.line import in_layer_crossings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from jaxtyping import Float

    from polytope_lm.models.hooks import Point, Tap
    from polytope_lm.models.sites import Geometry, Site
    from polytope_lm.paths.path import Path

_STEPS = 33  # of the output's change
_MOST_STEPS = 100_000
_BLOCK = 512  # places whose activations are held at once


class Part(NamedTuple):
    """Crossings of one layer; `token` is each one's index into the sequence."""

    t: np.ndarray
    layer: np.ndarray
    neuron: np.ndarray
    on: np.ndarray
    token: np.ndarray


class Later(NamedTuple):
    """What was found in the later layers: how, the crossings, and the output's change."""

    methods: list[LayerMethod]
    parts: list[Part]
    change: OutputChange | None


class Runs:
    """The model along one path: in the context of prompt A, whose prefix is computed once, or in both.

    Args:
        path: the path.
        only: the one layer to follow; by default all later ones (between embeddings all) and the logits.

    Raises:
        PolytopeError: the model reads both ways while A's context is kept.

    """

    def __init__(self, path: Path, *, only: int | None = None) -> None:
        from polytope_lm.models.prefix import share_prefix  # noqa: PLC0415 - it imports transformers

        model = path.model
        self.path = path
        first = path.site.layer + (path.at != "embed")
        layers = range(first, model.n_layers) if only is None else [only]
        self.sites = [model.site(n, path.site.kind) for n in layers]
        self.logits = only is None and model.has_logits
        self.prefix = None
        if path.sequences is None and model.causal:
            ids, layer, position = torch.as_tensor(path.input_ids), path.site.layer, path.position
            self.prefix = share_prefix(model, ids, layer=layer, position=position)
        self.tokenizer = model.tokenizer
        whole = ", whole sequences" if path.sequences is not None else ", full forwards"
        self.note = "" if self.prefix is not None else whole

    def at(self, t: np.ndarray) -> list[np.ndarray]:
        """Run the model at places: `h` of every layer, then any logits, a row a place.

        Where several tokens are counted, their neurons stand one token after the other.
        """
        path, points = self.path, _points(self.path.site.kind)
        run = self._run(t, [(site.layer, point) for site in self.sites for point in points])
        shape = (len(t), len(path.counted), -1)
        found = [[run.activations[s.layer, point].reshape(shape) for point in points] for s in self.sites]
        values = [np.concatenate(kinds, axis=2).reshape(len(t), -1) for kinds in found]
        for site, h in zip(self.sites, values, strict=True):
            _check_finite(h, t, f"{path.model.name}, layer {site.layer}")
        if run.logits is not None:
            _check_finite(run.logits, t, f"{path.model.name}, logits")
            values.append(run.logits)
        return values

    def _run(self, t: np.ndarray, taps: list[Tap]) -> Patched:
        path, layer, at = self.path, self.path.site.layer, self.path.at
        if path.sequences is not None:
            return run_replaced(
                path.model, path.input_ids, path.versions(t), layer=layer, at=at, positions=path.counted,
                taps=taps, logits=self.logits,
            )  # fmt: skip
        return run_patched(
            path.model, path.input_ids, path.points(t), layer=layer, at=at, position=path.position, taps=taps,
            logits=self.logits, prefix=self.prefix,
        )  # fmt: skip

    def _part(self, t: np.ndarray, site: Site, column: np.ndarray, on: np.ndarray) -> Part:
        """Say which token and neuron a column is."""
        token = np.array(self.path.counted)[column // site.width]
        return Part(t, np.full(len(t), site.layer), column % site.width, on, token)

    def grid(self, steps: int) -> Later:
        """Look in equal steps, placing each sign change by linear interpolation.

        Args:
            steps: how many, 100,000 at most.

        Raises:
            PolytopeError: no step or too many, or NaN along the path.

        """
        if steps < 1:
            raise PolytopeError(f"steps={steps}: a grid needs at least 1 step (or leave it out)")
        if steps > _MOST_STEPS:
            raise PolytopeError(
                f"steps={steps}: a grid has at most {_MOST_STEPS:,} steps, a forward evaluation each (left "
                "out, places are added as needed)"
            )
        t = np.linspace(0, 1, steps + 1)
        found, changes, ends = [], [], []
        for where, values in self._blocks(t):
            ends.append([h[[0, -1]] for h in values[: len(self.sites)]])
            here = zip(self.sites, values, strict=False)
            found.append([self._part(*_sign_changes(where, h, site)) for site, h in here])
            if self.logits:
                changes.append(output_change(where, values[-1], self.tokenizer))
        later = Later([], [part for layer in zip(*found, strict=True) for part in layer], None)
        for site, first, last in zip(self.sites, ends[0], ends[-1], strict=True):
            differ = _hamming(np.stack([first[0], last[-1]]))
            later.methods.append(LayerMethod(site, f"grid of {steps} steps{self.note}", None, differ))
        return later._replace(change=joined(changes) if changes else None)

    def _blocks(self, t: np.ndarray) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        """Run the model at many places, some at a time; each block begins with the last one's last place."""
        before: list[np.ndarray] = []
        for first in range(0, len(t), _BLOCK):
            places = t[first : first + _BLOCK]
            values = self.at(places)
            if before:
                places = t[first - 1 : first + _BLOCK]
                values = [np.concatenate([row, h]) for row, h in zip(before, values, strict=True)]
            before = [h[-1:] for h in values]
            yield places, values

    def adaptive(self, evaluations: int) -> Later:
        """Add places until the crossings agree; see `paths.adaptive`.

        Args:
            evaluations: forward evaluations at most.

        Raises:
            PolytopeError: too few evaluations, or NaN along the path.

        """
        found = follow(self.at, evaluations=evaluations, signs=len(self.sites))
        how = f"{found.node.sum()} nodes, {(~found.node).sum()} held out{self.note}"
        change = None
        if self.logits:
            change = interpolated_change(found, np.linspace(0, 1, _STEPS + 1), self.tokenizer)
        later = Later([], [], change)
        for number, (site, part) in enumerate(zip(self.sites, found.layers, strict=True)):
            missed, hamming = found.missed_at_most(number), _hamming(found.values[number])
            later.methods.append(LayerMethod(site, how, missed, hamming))
            later.parts.append(self._part(part.t, site, part.neuron, part.on))
        return later


def _hamming(h: np.ndarray) -> int:
    return int(((h[0] > 0) != (h[-1] > 0)).sum())


def _points(kind: str) -> Sequence[Point]:
    """Return what to read for a code kind."""
    points: dict[str, Sequence[Point]] = {"gate": ("gate",), "up": ("up",), "gate+up": ("gate", "up")}
    return points.get(kind, ("h",))


def _sign_changes(
    t: np.ndarray, h: np.ndarray, site: Site
) -> tuple[np.ndarray, Site, np.ndarray, np.ndarray]:
    """Place the sign changes between successive rows of `h` by linear interpolation, ordered by t."""
    on = h > 0
    step, neuron = np.nonzero(on[1:] != on[:-1])
    before, after = (h[step + shift, neuron].astype(np.float64) for shift in (0, 1))
    place = t[step] + (t[step + 1] - t[step]) * before / (before - after)
    order = np.argsort(place, kind="stable")
    return place[order], site, neuron[order], on[step + 1, neuron][order]


def _check_finite(values: np.ndarray, t: np.ndarray, where: str) -> None:
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        msg = f"{where}: NaN or infinite values at t = {t[~finite][0]:.3f} of this path; try dtype='float32'"
        raise PolytopeError(msg)


_POINTS: Mapping[str, tuple[Point, ...]] = {"gate": ("gate",), "up": ("up",), "gate+up": ("gate", "up")}


class Found(NamedTuple):
    """One layer's crossings."""

    t: np.ndarray
    neuron: np.ndarray
    on: np.ndarray
    hamming: int
    missed: int


def profile(
    path: Path,
    *,
    downstream: bool = True,
    evaluations: int = EVALUATIONS,
    steps: int = STEPS,
    lens: bool = False,
    lock: AbstractContextManager[Any] | None = None,
    own: Found | None = None,
) -> Profile:
    """Find a path's crossings and where the output changes, in equal steps.

    Args:
        path: a path of one position, in A's context.
        downstream: follow later layers, too, and the output.
        evaluations: forward evaluations at most; see `paths.adaptive`.
        steps: equal steps of the profile.
        lens: decode every later layer's output, too; takes several times as long.
        lock: held while the model runs, where several paths are followed at once: hooks are the model's.
        own: the crossings of the path's own layer, where they are known already.

    Raises:
        PolytopeError: a path of all positions or of both contexts, no step, a model that reads both ways with
            `downstream`, too few evaluations or too many, NaN along the path.

    """
    _check(path, steps, downstream=downstream)
    t = np.linspace(0, 1, steps + 1)
    found = [] if path.at == "embed" else [own or in_layer([path])[0]]
    more: dict[str, Any] = {}
    lock = lock or nullcontext()
    with lock:
        lengths = _lengths(path, t)
    if downstream:
        run = _Run(path, lens=lens, lock=lock)
        followed = follow(run.at, evaluations=evaluations, signs=len(run.layers))
        found += [_later(followed, number) for number in range(len(run.layers))]
        more = run.output(followed, t)
    return _counted(path, found, t, lengths=lengths, **more)


def _check(path: Path, steps: int, *, downstream: bool) -> None:
    if path.sequences is not None or path.everywhere:
        raise PolytopeError("a profile is of one position in A's context: leave positions and context out")
    if steps < 1:
        raise PolytopeError(f"steps={steps}: a profile needs at least 1 step ({STEPS} is the default)")
    if path.at == "embed" and not downstream:
        raise PolytopeError("at='embed' has no closed form in any layer: give downstream=True")


def _counted(path: Path, found: Sequence[Found], t: np.ndarray, **more: Any) -> Profile:
    """Count each layer's crossings, in the steps between `t` and in all; `more` of the profile is known."""
    first = path.site.layer
    return Profile(
        layer=first,
        length=path.length,
        layers=np.arange(first, first + len(found)),
        counts=np.array([np.histogram(part.t, t)[0] for part in found]),
        crossings=np.array([len(part.t) for part in found]),
        on=np.array([part.on.sum() for part in found]),
        hamming=np.array([part.hamming for part in found]),
        returning=np.array([_returning(part.neuron) for part in found]),
        missed=np.array([part.missed for part in found]),
        **more,
    )


def in_layer(paths: Sequence[Path]) -> list[Found]:
    """Solve the own layer of paths of one site, space and shape together, in closed form.

    Raises:
        PolytopeError: an end that isn't finite or has no direction, or opposite ends of an arc.

    """
    geometry, at = paths[0].model.geometry(paths[0].site), paths[0].at
    solve = in_layer_crossings if paths[0].shape == "line" else arc_crossings
    found = solve(geometry, np.stack([one.a for one in paths]), np.stack([one.b for one in paths]), at=at)
    bounds = np.searchsorted(found.pair, np.arange(len(paths) + 1))
    parts = [slice(*bounds[i : i + 2]) for i in range(len(paths))]
    return [
        Found(found.t[part], found.neuron[part], found.on[part], int(hamming), 0)
        for part, hamming in zip(parts, found.hamming, strict=True)
    ]


class _Run:
    """The model along one path: `h` of the layers that are searched, then residuals."""

    def __init__(self, path: Path, *, lens: bool, lock: AbstractContextManager[Any]) -> None:
        from polytope_lm.models.prefix import share_prefix  # noqa: PLC0415 - it imports transformers

        model, layer, position = path.model, path.site.layer, path.position
        self.path, self.lock = path, lock
        self.layers = range(layer + (path.at != "embed"), model.n_layers)
        self.decoded = tuple(range(layer if lens else model.n_layers - 1, model.n_layers))
        self.points: tuple[Point, ...] = _POINTS.get(path.site.kind, ("h",))
        with lock:
            ids = torch.as_tensor(path.input_ids)
            self.prefix = share_prefix(model, ids, layer=layer, position=position) if model.causal else None

    def at(self, t: np.ndarray) -> list[np.ndarray]:
        """Run the model at places: `h` of every searched layer, then the decoded layers' residuals."""
        path = self.path
        residuals: list[Tap] = [(layer, "resid_post") for layer in self.decoded]
        taps: list[Tap] = [(layer, point) for layer in self.layers for point in self.points]
        with self.lock:
            run = run_patched(
                path.model, path.input_ids, path.points(t), layer=path.site.layer, position=path.position,
                at=path.at, taps=[*taps, *residuals], logits=False, prefix=self.prefix,
            )  # fmt: skip
        read = run.activations
        values = [np.concatenate([read[layer, p] for p in self.points], axis=1) for layer in self.layers]
        values += [read[tap] for tap in residuals]
        for layer, value in zip([*self.layers, *self.decoded], values, strict=True):
            finite = np.isfinite(value).all(axis=1)
            if not finite.all():
                raise PolytopeError(
                    f"{path.model.name}, layer {layer}: NaN or infinite values at t = {t[~finite][0]:.3f} of "
                    "this path; try dtype='float32'"
                )
        return values

    def output(self, followed: Followed, t: Float[np.ndarray, " places"]) -> dict[str, Any]:
        """Return where the residual goes and how what it says changes at places, as a `Profile` has it."""
        last = followed.values[-1].astype(np.float64)
        stream = followed.interpolated(last, t)
        stream[0], stream[-1] = last[0], last[-1]
        found: dict[str, Any] = {
            "residual": np.linalg.norm(np.diff(stream, axis=0), axis=1),
            "distance": np.linalg.norm(stream - stream[0], axis=1),
        }
        if not self.path.model.has_logits:
            return found
        node = followed.node
        guessed = followed.guessed(last)
        chances = self._decoded(np.concatenate([stream, guessed, last[~node]]))
        held = len(guessed)
        along, theirs, own = np.split(chances, [len(t), len(t) + held])
        found |= {"js": js_distances(along), "top": along.argmax(axis=1)}
        found["js_error"] = float(js_distance(theirs, own).max())
        if len(self.decoded) > 1:
            streams = [followed.interpolated(r.astype(np.float64), t) for r in self._earlier(followed)]
            found["lens"] = np.array([*(js_distances(self._decoded(r)) for r in streams), found["js"]])
        return found

    def _earlier(self, followed: Followed) -> Sequence[np.ndarray]:
        return followed.values[len(self.layers) : -1]

    def _decoded(self, residual: np.ndarray) -> np.ndarray:
        from polytope_lm.models.logits import next_token_logits  # noqa: PLC0415 - it imports transformers

        with self.lock:
            logits = next_token_logits(self.path.model, residual)
        return probabilities(logits)


def _later(followed: Followed, number: int) -> Found:
    h, part = followed.values[number], followed.layers[number]
    hamming = int(((h[0] > 0) != (h[-1] > 0)).sum())
    return Found(part.t, part.neuron, part.on, hamming, followed.missed_at_most(number))


def _returning(neuron: np.ndarray) -> int:
    """Count the crossings of neurons that cross more than once."""
    times = np.unique(neuron, return_counts=True)[1]
    return int(times[times > 1].sum())


def _lengths(path: Path, t: np.ndarray) -> dict[str, np.ndarray]:
    """Return the Euclidean length of each step in the path's own space and in what the MLP reads."""
    points = path.points(t)
    own = np.linalg.norm(np.diff(points, axis=0), axis=1)
    if path.at == "embed":  # what the MLP reads is what attention makes of it
        return {"path": own}
    inputs = points if path.at == "mlp_in" else mlp_inputs(path.model.geometry(path.site), points)
    return {"path": own, "u": np.linalg.norm(np.diff(inputs, axis=0), axis=1)}


def mlp_inputs(geometry: Geometry, x: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n D"]:
    """Return `u = gain * C x / sigma + shift`, `sigma^2 = |C x|^2 / D + eps`; `x` itself without a norm.

    Args:
        geometry: the site's norm.
        x: what the norm reads, a row each.

    """
    if geometry.norm == "none":
        return x
    centred = x - x.mean(axis=1, keepdims=True) if geometry.norm == "LayerNorm" else x
    sigma = np.sqrt((centred**2).mean(axis=1, keepdims=True) + geometry.eps)
    found: np.ndarray = geometry.gain * centred / sigma + geometry.shift
    return found
