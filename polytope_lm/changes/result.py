"""How far directions can be trusted, as records that save, load and draw themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from polytope_lm.errors import PolytopeError
from polytope_lm.plotting import Cloud, Curve, clouds, curves
from polytope_lm.result import Result

if TYPE_CHECKING:
    import plotly.graph_objects as go

DRAWN = 12
"""Triples whose curves are kept."""


@dataclass(frozen=True)
class Length:
    """A radius, or where it is not known the bound that it lies below or above."""

    value: float
    beyond: Literal["", "below", "above"] = ""

    @property
    def known(self) -> bool:
        """Whether it is no bound."""
        return not self.beyond

    def __str__(self) -> str:
        return f"{ {'': '', 'below': '< ', 'above': '> '}[self.beyond] }{self.value:.3g}"


@dataclass(frozen=True, eq=False)
class Curves:
    """What is drawn of one triple, at steps from 0.

    Attributes:
        steps: in the space's units.
        first: the first-order estimate.
        predicted: corrected by curvature.
        secant: RelP's estimate; empty where no number is read.
        true: the measured change; empty where it was not asked for.
        ticks: where this layer's own boundaries are crossed.

    """

    steps: Float[np.ndarray, " c"]
    first: Float[np.ndarray, " c"]
    predicted: Float[np.ndarray, " c"]
    secant: Float[np.ndarray, " _"]
    true: Float[np.ndarray, " _"]
    ticks: Float[np.ndarray, " _"]


@dataclass(frozen=True, eq=False)
class Radius:
    """One prompt, layer and direction.

    Attributes:
        prompt: which prompt, from 0.
        token: the text of the token at the place.
        layer: the block.
        direction: its name.
        read: what is read.
        norm: `|x|`.
        length: `|v|` as it was given: a radius over it is a coefficient.
        cosine: `cos(v, x)`.
        slope: `g.v` for a unit `v`; 0 where no number is read.
        curvature: `v'Hv` for a unit `v`, where a number is read; else the length of the second derivative.
        scale: the relative change of the norm's scale at `.015 |x|` along `v`.
        predicted: the predicted radius.
        by_curvature: that of a quadratic.
        by_flips: where flip mass along the tangent exceeds tau; None where it was not asked for.
        by_remainders: the same of the smooth twin.
        boundary: the step of this layer's first boundary along `v`; None: none up to twice `|x|`.
        measured: the measured radius; None where it was not asked for.
        curves: what is drawn of it; None beyond 12 triples.

    """

    prompt: int
    token: str
    layer: int
    direction: str
    read: str
    norm: float
    length: float
    cosine: float
    slope: float
    curvature: float
    scale: float
    predicted: Length
    by_curvature: Length | None
    by_flips: Length | None
    by_remainders: Length | None
    boundary: float | None
    measured: Length | None
    curves: Curves | None


@dataclass(frozen=True, repr=False)
class TrustRadius(Result):
    """How far directions can be trusted; a row a prompt, layer and direction.

    Attributes:
        prompts: the texts.
        at: the space of `x` and `v`.
        tau: the relative error that is allowed.
        unit: of a change of the read-out.
        triples: the rows.
        forwards: forward passes run to predict, versions counted one by one.
        backwards: backward passes run to predict.
        provenance: of the model.
        command: what reproduces it.

    """

    prompts: tuple[str, ...]
    at: str
    tau: float
    unit: str
    triples: tuple[Radius, ...]
    forwards: int
    backwards: int
    provenance: Mapping[str, Any]
    command: str

    kind = "trust radius"
    file = "trust-radius.json"
    tab = "Trust radius"
    question = "How far can these directions be trusted?"
    several = True

    @property
    def headline(self) -> str:
        """What came out, in a sentence."""
        share = np.median([one.predicted.value / one.norm for one in self.triples])
        text = (
            f"First-order estimates hold to {self.tau:.0%} up to a median step of {share:.1%} of the activation's "
            f"norm ({len(self.triples)} prompt, layer and direction triples, predicted)."
        )
        pairs = [
            (one.predicted.value, one.measured.value)
            for one in self.triples
            if one.measured is not None and one.measured.known and one.predicted.known
        ]
        if pairs:
            off = float(np.median([abs(math.log(a / b)) for a, b in pairs]))
            text += f" Measured beside: median factor {math.exp(off):.2f} between the two."
        return text

    def to_frame(self) -> pd.DataFrame:
        """Return one row a triple."""
        rows = []
        for one in self.triples:
            row: dict[str, object] = {
                "prompt": one.prompt, "token": one.token, "layer": one.layer, "direction": one.direction,
                "reads": one.read, "norm": one.norm, "length": one.length, "cosine": one.cosine,
                "slope": one.slope, "curvature": one.curvature, "scale": one.scale,
                "predicted": one.predicted.value, "predicted / norm": one.predicted.value / one.norm,
                "coefficient": one.predicted.value / one.length, "predicted beyond": one.predicted.beyond,
                "first boundary": one.boundary,
            }  # fmt: skip
            for name in ("by_curvature", "by_flips", "by_remainders", "measured"):
                found = getattr(one, name)
                row[name.replace("_", " ")] = None if found is None else found.value
            row["measured beyond"] = None if one.measured is None else one.measured.beyond
            rows.append(row)
        return pd.DataFrame(rows)

    def rows(self) -> list[tuple[str, ...]]:
        """Return what a reader wants first: each triple's radius, as a share of the norm and as a coefficient."""
        heads = ("prompt", "layer", "direction", "radius", "of the norm", "coefficient", "measured", "first boundary")
        rows: list[tuple[str, ...]] = [heads]
        for one in self.triples:
            name = f"{one.prompt}: ...{self.prompts[one.prompt][-24:]}"
            sign = str(one.predicted).partition(" ")[0] + " " if one.predicted.beyond else ""
            rows.append(
                (
                    name, str(one.layer), one.direction, str(one.predicted),
                    f"{sign}{one.predicted.value / one.norm:.1%}", f"{sign}{one.predicted.value / one.length:.3g}",
                    "" if one.measured is None else str(one.measured),
                    "" if one.boundary is None else f"{one.boundary:.3g}",
                )
            )  # fmt: skip
        return rows

    def notes(self) -> list[str]:
        """Say what the numbers are."""
        reads = ", ".join(dict.fromkeys(one.read for one in self.triples[:6]))
        notes = [
            (
                f"Radius: the least step in {self.at} at which first order is off by more than {self.tau:.0%} of the "
                f"true change of the {reads}. Coefficient: the radius in lengths of the direction as it was given."
            ),
            f"Predicted from {self.forwards} forward and {self.backwards} backward passes from the layer on.",
        ]
        bounds = [one for one in self.triples if one.predicted.beyond]
        if bounds:
            notes.append(
                f"{len(bounds)} of {len(self.triples)} radii are bounds: below what rounding lets be told, or above "
                "twice the norm."
            )
        return notes

    def plot(self, triple: int = 0) -> go.Figure:
        """Draw one triple: the true change, estimates of it, boundaries as ticks, the radius as a band.

        Args:
            triple: which row.

        Raises:
            PolytopeError: no such row, or its curves were not kept.

        """
        if not isinstance(triple, int) or not -len(self.triples) <= triple < len(self.triples):
            raise PolytopeError(f"triple = {triple!r}: there are {len(self.triples)}, from 0")
        one = self.triples[triple]
        drawn = one.curves
        if drawn is None:
            raise PolytopeError(f"triple {triple}: curves are kept of runs of up to {DRAWN} triples; ask for fewer")
        lines = [Curve("first order", drawn.steps, drawn.first), Curve("with curvature", drawn.steps, drawn.predicted)]
        if len(drawn.secant):
            lines.append(Curve("secant (RelP)", drawn.steps, drawn.secant))
        if len(drawn.true):
            lines.insert(0, Curve("true", drawn.steps, drawn.true))
        known = one.measured if one.measured is not None else one.predicted
        which = "measured" if one.measured is not None else "predicted"
        unit = f" ({self.unit})" if self.unit else ""
        return curves(
            lines, ticks=drawn.ticks, band=(0.0, known.value), band_name=f"trust radius, {which}",
            x=f"step along {one.direction} in {self.at} of layer {one.layer}", y=f"change of the {one.read}{unit}",
            title=f"{self.prompts[one.prompt]!r:.60}",
        )  # fmt: skip

    def figures(self) -> dict[str, go.Figure]:
        """Return the first triples' drawings."""
        there = [number for number, one in enumerate(self.triples) if one.curves is not None]
        return {f"triple {number}": self.plot(number) for number in there[:4]}

    def __repr__(self) -> str:
        return f"<TrustRadius: {self.headline}>"


@dataclass(frozen=True)
class ChangeEstimate:
    """One estimate of a change.

    Attributes:
        name: which.
        value: the estimate.
        off: the estimate less the truth.
        error: what the estimate itself says of its error; None where it says nothing.
        forwards: forward passes that it takes.
        backwards: backward passes.
        how: what was held, or how many nodes.

    """

    name: str
    value: float
    off: float
    error: float | None
    forwards: int
    backwards: int
    how: str


@dataclass(frozen=True)
class Change:
    """One change at one place.

    Attributes:
        layer: the block.
        position: of the token.
        token: its text.
        read: what is read.
        length: of the change.
        norm: `|x|`.
        true: the true change of what is read.
        estimates: of it.

    """

    layer: int
    position: int
    token: str
    read: str
    length: float
    norm: float
    true: float
    estimates: tuple[ChangeEstimate, ...]

    def estimate(self, name: str) -> ChangeEstimate:
        """Return the estimate of that name."""
        for one in self.estimates:
            if one.name == name:
                return one
        raise PolytopeError(f"no estimate {name!r}; there are {', '.join(one.name for one in self.estimates)}")


@dataclass(frozen=True, repr=False)
class Changes(Result):
    """What changing activations does, beside the estimates of it; a row a layer and position.

    Attributes:
        prompts: the prompt, and the other one where there is one.
        at: the space.
        size: how much of the change was made.
        unit: of a change of the read-out.
        changes: layer by layer and position by position.
        provenance: of the model.
        command: what reproduces it.

    """

    prompts: tuple[str, ...]
    at: str
    size: float
    unit: str
    changes: tuple[Change, ...]
    provenance: Mapping[str, Any]
    command: str

    kind = "change"
    file = "change.json"
    tab = "Changes"
    question = "Which estimate of a change is to be believed?"
    several = True

    @property
    def headline(self) -> str:
        """Which estimate to believe, in a sentence."""
        total = sum(abs(one.true) for one in self.changes) or 1.0
        names = [one.name for one in self.changes[0].estimates]
        off = {name: sum(abs(one.estimate(name).off) for one in self.changes) / total for name in names}
        parts = [f"{name} is off by {share:.0%}" for name, share in off.items()]
        count = len(self.changes)
        return f"Of the true change, summed over {count} change{'s' * (count > 1)}: {'; '.join(parts)}."

    def to_frame(self) -> pd.DataFrame:
        """Return one row a layer and position: the truth, each estimate and how far it is off."""
        rows = []
        for one in self.changes:
            row: dict[str, object] = {
                "layer": one.layer, "position": one.position, "token": one.token, "reads": one.read,
                "length": one.length, "length / norm": one.length / one.norm, "true": one.true,
            }  # fmt: skip
            for each in one.estimates:
                row |= {each.name: each.value, f"{each.name}: off": each.off, f"{each.name}: forwards": each.forwards}
            row["integrated gradients: says"] = one.estimates[-1].error
            rows.append(row)
        return pd.DataFrame(rows)

    def rows(self) -> list[tuple[str, ...]]:
        """Return the truth and the estimates of each change."""
        names = [one.name for one in self.changes[0].estimates]
        rows: list[tuple[str, ...]] = [("layer", "position", "token", "size / norm", "true", *names)]
        for one in self.changes:
            values = []
            for each in one.estimates:
                error = "" if each.error is None else f" +/- {each.error:.1g}"
                values.append(f"{each.value:+.4f}{error}")
            where = (str(one.layer), str(one.position), repr(one.token), f"{one.length / one.norm:.1%}")
            rows.append((*where, f"{one.true:+.4f}", *values))
        return rows

    def notes(self) -> list[str]:
        """Say what each estimate cost."""
        first = self.changes[0]
        costs = [f"{one.name} {one.forwards} and {one.backwards}" for one in first.estimates]
        held = first.estimate("secant (RelP)").how
        return [
            f"Change of the {first.read}{f' ({self.unit})' if self.unit else ''}, made at one place at a time.",
            f"Forward and backward passes: {', '.join(costs)} in the first row. Secant: {held}.",
        ]

    def plot(self) -> go.Figure:
        """Draw each estimate against the truth; on the diagonal it is right."""
        groups = [
            Cloud(
                name,
                [one.true for one in self.changes],
                [one.estimate(name).value for one in self.changes],
                [f"layer {one.layer}, position {one.position}" for one in self.changes],
            )
            for name in (one.name for one in self.changes[0].estimates)
        ]
        unit = f" ({self.unit})" if self.unit else ""
        figure = clouds(groups, "estimates of a change beside the truth", f"true change{unit}", y="estimate")
        ends = [min(one.true for one in self.changes), max(one.true for one in self.changes)]
        figure.add_shape(type="line", x0=ends[0], x1=ends[1], y0=ends[0], y1=ends[1], line={"dash": "dot", "width": 1})
        return figure

    def __repr__(self) -> str:
        return f"<Changes: {self.headline}>"
