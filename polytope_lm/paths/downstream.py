"""The layers after a path's own: the model along the path, its crossings there, and its output's change."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from polytope_lm.errors import PolytopeError
from polytope_lm.models.interventions import Patched, run_patched, run_replaced
from polytope_lm.paths.adaptive import follow
from polytope_lm.paths.crossings import LayerMethod, OutputChange
from polytope_lm.paths.output import interpolated_change, joined, output_change

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from polytope_lm.models.hooks import Point, Tap
    from polytope_lm.models.sites import Site
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
