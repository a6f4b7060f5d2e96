"""The model run along a path: what later layers, the residual stream and the output do, from the same runs.

The residual stream is interpolated through the points where the model was evaluated, as `h` is, and decoded
by the model's own head; how far the distributions so found are from the model's own is measured at the
held-out points.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange

from polytope_lm.errors import PolytopeError
from polytope_lm.models.families import weight_and_bias
from polytope_lm.models.interventions import Patched, run_patched, run_replaced
from polytope_lm.paths.crossings import LayerMethod, OutputChange
from polytope_lm.paths.profile import STEPS, Profile
from polytope_lm.paths.solve import chebyshev, kinks
from polytope_lm.paths.solve.arc import arc_crossings
from polytope_lm.paths.solve.line import LineCrossings, in_layer_crossings, mlp_inputs
from polytope_lm.paths.solve.roots import linear_roots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from jaxtyping import Bool, Float, Int

    from polytope_lm.models.hooks import Tap
    from polytope_lm.models.model import Model
    from polytope_lm.models.sites import Point, Site
    from polytope_lm.paths.ends import Curve
    from polytope_lm.paths.solve.chebyshev import Followed

POINTS: Mapping[str, tuple[Point, ...]] = {"gate": ("gate",), "up": ("up",), "gate+up": ("gate", "up")}
"""What to read for a gated MLP's code kinds; for others `h`."""
_STEPS = 33  # of the output's change
_MOST_STEPS = 100_000
BLOCK = 512  # points whose activations are held at once


@dataclass(frozen=True, eq=False)
class Found:
    """One layer's crossings on one path, ordered by t; `token` is an index into the sequence."""

    method: LayerMethod
    t: Float[np.ndarray, " n"]
    neuron: Int[np.ndarray, " n"]
    on: Bool[np.ndarray, " n"]
    token: Int[np.ndarray, " n"]

    @property
    def site(self) -> Site:
        """Where the layer's codes live."""
        return self.method.site


def in_layer(curves: Sequence[Curve], level: float = 0.0) -> list[list[Found]]:
    """Solve the own layer of paths of one site, space and shape together, in closed form: a list for each path.

    With `level` found are the crossings of `h = level` in place of the code's.
    """
    one = curves[0]
    geometry = one.model.geometry(one.site)
    geometry = replace(geometry, bias=geometry.bias - level) if level else geometry
    solve: Callable[..., LineCrossings] = arc_crossings  # on the processor, wherever the model is
    if one.shape == "line":
        away = one.model.device if one.model.device.type == "cuda" else None
        solve = partial(in_layer_crossings, device=away)
    a, b = (np.concatenate(ends) for ends in zip(*(curve.ends() for curve in curves), strict=True))
    solved = solve(geometry, a, b, at=one.at)
    rows = np.cumsum([0, *(len(curve.counted) for curve in curves)])
    bounds = np.searchsorted(solved.pair, rows)
    found = []
    for i, curve in enumerate(curves):
        part = slice(*bounds[i : i + 2])
        order = np.argsort(solved.t[part], kind="stable")
        token = np.array(curve.counted)[solved.pair[part] - rows[i]]
        columns = (column[order] for column in (solved.t[part], solved.neuron[part], solved.on[part], token))
        hamming = int(solved.hamming[slice(*rows[i : i + 2])].sum())
        found.append([Found(LayerMethod(curve.site, "closed form", 0, hamming), *columns)])
    return found


class Trace:
    """The model along one path: in the context of prompt A, whose prefix is computed once, or in both.

    Searched is the layer `only`, by default all later ones (between embeddings all). Read beside it are the
    next-token logits, if asked for and there, the output of layers in `residuals`, and MLPs' `inputs`.
    """

    def __init__(
        self,
        curve: Curve,
        *,
        only: Site | None = None,
        logits: bool = False,
        residuals: Sequence[int] = (),
        inputs: Sequence[int] = (),
    ) -> None:
        from polytope_lm.models.prefix import share_prefix  # noqa: PLC0415 - it imports transformers

        model, self.curve = curve.model, curve
        later = range(curve.site.layer + (curve.at != "embed"), model.n_layers)
        self.sites = [model.site(n, curve.site.kind) for n in later] if only is None else [only]
        self.logits = logits and model.has_logits
        self.beside: list[Tap] = [(n, "resid_post") for n in residuals] + [(n, "u") for n in inputs]
        self.prefix = None
        if curve.sequences is None and model.causal:
            ids, layer, position = torch.as_tensor(curve.input_ids), curve.site.layer, curve.position
            self.prefix = share_prefix(model, ids, layer=layer, position=position)
        whole = ", whole sequences" if curve.sequences is not None else ", full forwards"
        self.note = "" if self.prefix is not None else whole
        self._still: list[np.ndarray] | None = None
        # Behind ReLUs each layer's crossings bend what the next ones read: those of all tokens that move.
        self.pieces = piecewise(model, curve.site) and only is None and not curve.still
        around = self.pieces and curve.sequences is not None
        self.tokens = tuple(range(len(curve.input_ids))) if around else curve.counted

    def at(self, t: np.ndarray, *, streams: bool = False) -> list[np.ndarray]:
        """Run the model at points: `h` of each site, then any logits, then what is read beside; a row each.

        With `streams` what each site's norm reads comes last.

        Where several tokens are counted, their neurons stand one token after the other. A path whose ends are
        the same is run once: the rows of a batch may be rounded otherwise.
        """
        if not self.curve.still:
            return self._evaluated(t, streams=streams)
        self._still = self._still or self._evaluated(np.zeros(1), streams=streams)
        return [np.repeat(values, len(t), axis=0) for values in self._still]

    def _evaluated(self, t: np.ndarray, *, streams: bool) -> list[np.ndarray]:
        curve, points = self.curve, POINTS.get(self.curve.site.kind, ("h",))
        beside: list[Tap] = [*self.beside, *((site.layer, "x") for site in self.sites if streams)]
        run = self._run(t, [*((site.layer, point) for site in self.sites for point in points), *beside])
        shape = (len(t), len(self.tokens), -1)
        found = [[run.activations[s.layer, point].reshape(shape) for point in points] for s in self.sites]
        values = [rearrange(np.concatenate(kinds, axis=2), "t token n -> t (token n)") for kinds in found]
        where = [f"layer {site.layer}" for site in self.sites]
        if run.logits is not None:
            values, where = [*values, run.logits], [*where, "logits"]
        values += [run.activations[tap].reshape(len(t), -1) for tap in beside]
        where += [f"layer {layer}" for layer, _ in beside]
        for name, value in zip(where, values, strict=True):
            finite = np.isfinite(value).all(axis=1)
            if not finite.all():
                raise PolytopeError(
                    f"{curve.model.name}, {name}: NaN or infinite values at t = {t[~finite][0]:.3f} of this "
                    "path; try dtype='float32'"
                )
        return values

    def _run(self, t: np.ndarray, taps: list[Tap]) -> Patched:
        curve, layer, at = self.curve, self.curve.site.layer, self.curve.at
        if curve.sequences is not None:
            return run_replaced(
                curve.model, curve.input_ids, curve.versions(t), layer=layer, at=at, positions=self.tokens,
                taps=taps, logits=self.logits,
            )  # fmt: skip
        return run_patched(
            curve.model, curve.input_ids, curve.points(t), layer=layer, at=at, position=curve.position,
            taps=taps, logits=self.logits, prefix=self.prefix,
        )  # fmt: skip

    def follow(self, evaluations: int | None = None) -> Followed:
        """Add evaluation points until the crossings agree; see `paths.solve.chebyshev` and `paths.solve.kinks`."""
        curve, most = self.curve, evaluations or default_evaluations(self.curve.model, self.curve.site)
        if not (self.pieces and self.sites):
            return chebyshev.follow(self.at, evaluations=most, signs=len(self.sites))
        own, breaks = _layer(curve.model, curve.site), np.empty(0)
        if curve.at != "embed":
            moving = replace(curve, everywhere=curve.sequences is not None)
            breaks = np.concatenate([in_layer([moving], level)[0][0].t for level in own.act.at])

        def start(t: np.ndarray) -> kinks.Stream:
            points = curve.points(t)[:, None] if curve.sequences is None else curve.versions(t)
            if curve.at == "embed":
                return kinks.Stream(points, points)
            if curve.at == "resid_mid":
                return own.behind(points)
            geometry = replace(own.geometry, norm="none")  # what the norm reads does not move
            y = replace(own, geometry=geometry).behind(points).y - points
            return kinks.Stream(y, y)

        layers = [_layer(curve.model, site) for site in self.sites]
        return kinks.follow_pieces(partial(self.at, streams=True), start, layers, breaks, evaluations=most)

    def found(self, followed: Followed) -> list[Found]:
        """Return the crossings of each layer."""
        how = f"{followed.node.sum()} nodes, {(~followed.node).sum()} held out{self.note}"
        how = f"piecewise, {how}" if isinstance(followed, kinks.Pieced) else how
        found = []
        for number, (site, part) in enumerate(zip(self.sites, followed.layers, strict=True)):
            h = followed.values[number]
            method = LayerMethod(site, how, followed.missed_estimate(number), self._hamming(h[0], h[-1]))
            found.append(self._found(method, part.t, part.neuron, part.on))
        return found

    def _found(self, method: LayerMethod, t: np.ndarray, column: np.ndarray, on: np.ndarray) -> Found:
        """Say which token and neuron a column is."""
        width = method.site.width
        token = np.array(self.tokens)[column // width]
        here = np.isin(token, self.curve.counted)
        return Found(method, t[here], column[here] % width, on[here], token[here])

    def _hamming(self, first: np.ndarray, last: np.ndarray) -> int:
        """Count the bits in which the ends differ, at the tokens that are counted."""
        here = np.isin(self.tokens, self.curve.counted)
        return int(((first > 0) != (last > 0)).reshape(len(here), -1)[here].sum())

    def read(self, followed: Followed, point: Point | None = None, layer: int = -1) -> np.ndarray:
        """Return what was read beside `h` at the evaluation points: logits, or a point of a layer."""
        beside = 0 if point is None else self.logits + self.beside.index((layer, point))
        return followed.values[len(self.sites) + beside].astype(np.float64)

    def along(
        self, followed: Followed, values: Float[np.ndarray, "n K"], t: Float[np.ndarray, " points"]
    ) -> Float[np.ndarray, "points K"]:
        """Interpolate what was read; at t = 0 and 1 as it was."""
        if self.curve.still:
            return np.repeat(values[:1], len(t), axis=0)
        found = followed.interpolated(values, t)
        found[t == 0], found[t == 1] = values[0], values[-1]
        return found

    def decoded(self, residual: Float[np.ndarray, "rows D"]) -> Float[np.ndarray, "rows V"]:
        """Return the next-token distributions that the model's head makes of a residual stream."""
        from polytope_lm.models.logits import next_token_logits  # noqa: PLC0415 - it imports transformers

        rows = residual[:1] if self.curve.still else residual
        chances = probabilities(next_token_logits(self.curve.model, rows))
        return np.repeat(chances, len(residual) // len(rows), axis=0)

    def adaptive(self, evaluations: int | None) -> tuple[list[Found], OutputChange | None]:
        """Return each layer's crossings and any change of the output, from logits interpolated as `h` is.

        The change's `error` says how far the distribution so found is from the model's own at the held-out points.
        """
        followed = self.follow(evaluations)
        if not self.logits:
            return self.found(followed), None
        logits, t = self.read(followed), np.linspace(0, 1, _STEPS + 1)
        guessed, own = (probabilities(rows) for rows in (followed.guessed(logits), logits[~followed.node]))
        error = float(js_distance(guessed, own).max())
        along = self.along(followed, logits, t)
        return self.found(followed), output_change(t, along, self.curve.model.tokenizer, error)

    def grid(self, steps: int) -> tuple[list[Found], OutputChange | None]:
        """Look in equal steps, placing each sign change by linear interpolation."""
        if steps < 1:
            raise PolytopeError(f"steps={steps}: a grid needs at least 1 step (or leave it out)")
        if steps > _MOST_STEPS:
            raise PolytopeError(
                f"steps={steps}: a grid has at most {_MOST_STEPS:,} steps, a forward evaluation each (left "
                "out, points are added as needed)"
            )
        found, changes = [], []
        first: list[np.ndarray] = []
        for t, values in self._blocks(np.linspace(0, 1, steps + 1)):
            first, last = first or [h[0] for h in values], [h[-1] for h in values]
            found.append([linear_roots(t, h) for h in values[: len(self.sites)]])
            if self.logits:
                changes.append(output_change(t, values[-1], self.curve.model.tokenizer))
        parts = []
        for number, site in enumerate(self.sites):
            differ = self._hamming(first[number], last[number])
            method = LayerMethod(site, f"grid of {steps} steps{self.note}", None, differ)
            columns = zip(*(block[number] for block in found), strict=True)
            parts.append(self._found(method, *(np.concatenate(column) for column in columns)))
        if not changes:
            return parts, None
        begin, *rest = changes  # each block begins where the last one ends
        return parts, OutputChange(
            t=np.linspace(0, 1, steps + 1),
            js=np.concatenate([one.js for one in changes]),
            top=(*begin.top, *(token for one in rest for token in one.top[1:])),
            top_probability=np.concatenate([begin.top_probability, *(one.top_probability[1:] for one in rest)]),
        )

    def _blocks(self, t: np.ndarray) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        """Run the model at many points, some at a time; each block begins with the last one's last point."""
        before: list[np.ndarray] = []
        for first in range(0, len(t), BLOCK):
            points = t[first : first + BLOCK]
            values = self.at(points)
            if before:
                points = t[first - 1 : first + BLOCK]
                values = [np.concatenate([row, h]) for row, h in zip(before, values, strict=True)]
            before = [h[-1:] for h in values]
            yield points, values


def piecewise(model: Model, site: Site) -> bool:
    """Whether every MLP from a site's block on is affine between break points of its activation that are known."""
    if site.kind != "pre":
        return False
    later = (model.block(layer) for layer in range(site.layer, model.n_layers))
    return all("pre" in block.pre and block.bends is not None for block in later)


def default_evaluations(model: Model, site: Site) -> int:
    """Return how many evaluations a path has if not told: more behind piecewise affine activations."""
    return kinks.EVALUATIONS if piecewise(model, site) else chebyshev.EVALUATIONS


def _layer(model: Model, site: Site) -> kinks.Layer:
    """Take an MLP's numbers out of the model."""
    block = model.block(site.layer)
    down = weight_and_bias(block.down)[0].detach().float().cpu().numpy()
    assert block.bends is not None  # noqa: S101 - `piecewise` has asked
    geometry = model.geometry(site)
    geometry = replace(geometry, weight=geometry.weight.astype(np.float64))
    return kinks.Layer(geometry, down.astype(np.float64), block.bends, block.parallel, block.post_norm)


def profile(
    path: Curve,
    *,
    downstream: bool = True,
    evaluations: int | None = None,
    steps: int = STEPS,
    lens: bool = False,
    own: list[Found] | None = None,
) -> Profile:
    """Find a path's crossings and where the output changes, in equal steps.

    Args:
        path: a path of one position, in A's context.
        downstream: follow later layers, too, and the output.
        evaluations: forward evaluations at most, by default 40, behind ReLUs 160.
        steps: equal steps of the profile.
        lens: decode every later layer's output, too; takes several times as long.
        own: the crossings of the path's own layer, where they are known already.

    Raises:
        PolytopeError: a path of all positions or of both contexts, no step, a model that reads both ways with
            `downstream`, too few evaluations or too many, NaN along the path.

    """
    if path.sequences is not None or path.everywhere:
        raise PolytopeError("a profile is of one position in A's context: leave positions and context out")
    if steps < 1:
        raise PolytopeError(f"steps={steps}: a profile needs at least 1 step ({STEPS} is the default)")
    if path.at == "embed" and not downstream:
        raise PolytopeError("at='embed' has no closed form in any layer: give downstream=True")
    t, first, layers = np.linspace(0, 1, steps + 1), path.site.layer, path.model.n_layers
    found = [] if path.at == "embed" else own or in_layer([path])[0]
    more: dict[str, Any] = {}
    if downstream:
        trace = Trace(path, residuals=range(first if lens else layers - 1, layers))
        followed = trace.follow(evaluations)
        found = [*found, *trace.found(followed)]
        more = _output(trace, followed, t)
    missed = [one.method.missed_estimate for one in found]
    return Profile(
        layer=first,
        length=path.length,
        layers=np.arange(first, first + len(found)),
        counts=np.array([np.histogram(one.t, t)[0] for one in found]),
        crossings=np.array([len(one.t) for one in found]),
        on=np.array([one.on.sum() for one in found]),
        hamming=np.array([one.method.hamming for one in found]),
        returning=np.array([_returning(one.neuron) for one in found]),
        missed=np.array([-1 if most is None else most for most in missed]),
        lengths=_lengths(path, t),
        **more,
    )


def _output(trace: Trace, followed: Followed, t: Float[np.ndarray, " points"]) -> dict[str, Any]:
    """Return where the residual goes and how what it says changes, as a `Profile` has it."""
    layers = [layer for layer, _ in trace.beside]
    last = trace.read(followed, "resid_post", layers[-1])
    stream = trace.along(followed, last, t)
    found: dict[str, Any] = {
        "residual": np.linalg.norm(np.diff(stream, axis=0), axis=1),
        "distance": np.linalg.norm(stream - stream[0], axis=1),
    }
    if not trace.curve.model.has_logits:
        return found
    guessed = followed.guessed(last)
    chances = trace.decoded(np.concatenate([stream, guessed, last[~followed.node]]))
    along, theirs, own = np.split(chances, [len(t), len(t) + len(guessed)])
    found |= {"js": js_distances(along), "top": along.argmax(axis=1)}
    found["js_error"] = float(js_distance(theirs, own).max())
    if len(layers) > 1:
        earlier = (trace.read(followed, "resid_post", layer) for layer in layers[:-1])
        streams = (followed.interpolated(residual, t) for residual in earlier)
        found["lens"] = np.array([*(js_distances(trace.decoded(rows)) for rows in streams), found["js"]])
    return found


def _returning(neuron: np.ndarray) -> int:
    """Count the crossings of neurons that cross more than once."""
    times = np.unique(neuron, return_counts=True)[1]
    return int(times[times > 1].sum())


def _lengths(path: Curve, t: np.ndarray) -> dict[str, np.ndarray]:
    """Return the Euclidean length of each step in the path's own space and in what the MLP reads."""
    points = path.points(t)
    own = np.linalg.norm(np.diff(points, axis=0), axis=1)
    if path.at == "embed":  # what the MLP reads is what attention makes of it
        return {"path": own}
    inputs = points if path.at == "mlp_in" else mlp_inputs(path.model.geometry(path.site), points)
    return {"path": own, "u": np.linalg.norm(np.diff(inputs, axis=0), axis=1)}


def probabilities(logits: Float[np.ndarray, "rows V"]) -> Float[np.ndarray, "rows V"]:
    """Return the next-token distributions of logits, float64."""
    return np.asarray(torch.softmax(torch.from_numpy(np.asarray(logits)).double(), dim=1))


def js_distances(probabilities: Float[np.ndarray, "points V"]) -> Float[np.ndarray, " steps"]:
    """Return the Jensen-Shannon distance between successive distributions, a row each.

    `sqrt(H((p + q) / 2) - (H(p) + H(q)) / 2)`, `H` in bits: a metric from 0 to 1 (Endres & Schindelin 2003).
    """
    own = _entropy(probabilities)
    return _distance(probabilities[:-1], probabilities[1:], (own[:-1] + own[1:]) / 2)


def js_distance(p: Float[np.ndarray, "rows V"], q: Float[np.ndarray, "rows V"]) -> Float[np.ndarray, " rows"]:
    """Return the Jensen-Shannon distance of each row of `p` from the same row of `q`; see `js_distances`."""
    return _distance(p, q, (_entropy(p) + _entropy(q)) / 2)


def _distance(p: np.ndarray, q: np.ndarray, own: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt(np.clip((_entropy((p + q) / 2) - own) / np.log(2), 0.0, 1.0)))


def _entropy(p: np.ndarray) -> np.ndarray:
    # In float64 (the difference of two entropies is small) and by torch, which has a vectorised logarithm.
    return np.asarray(torch.special.entr(torch.from_numpy(np.ascontiguousarray(p)).double()).sum(1))


def output_change(
    t: Float[np.ndarray, " points"], logits: Float[np.ndarray, "points V"], tokenizer: Any, error: float = 0.0
) -> OutputChange:
    """Compare the next-token distributions along a path; `error` is how far they may be from the model's own."""
    chances = probabilities(logits)
    top = chances.argmax(axis=1)
    words = {int(token): str(tokenizer.decode([int(token)])) for token in np.unique(top)}
    likeliest = tuple(words[int(token)] for token in top)
    return OutputChange(t, js_distances(chances), likeliest, chances.max(axis=1), error)
