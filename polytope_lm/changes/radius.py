"""How far a direction can be trusted: predicted from derivatives at the point, and measured.

`x` stands at one position of one layer, `v` is a unit direction, `s` a step; `e(s) = |true - estimate| /
|true|` is the relative error of the first-order estimate. The *trust radius* is the least `s` at which `e`
exceeds `tau`: the first excess of 32 log-spaced steps, then bisection inside that interval (the error is not
monotone). Below the smallest step the read-out's rounding would be more than `tau/10` of the change; a radius
there, or beyond twice `|x|`, is *censored*.

*Predicted* it takes the clean run, one backward pass (both shared by all directions of a prompt) and two
forward passes, at `x + d v` and `x - d v`, `d = .015 |x|`. They give the output's first and second derivative
along `v`, `z1` and `z2`, and so `z(s) = z + s z1 + s^2 z2 / 2`: the softmax over it is taken exactly. Where a
number `m` is read, the gradient is exact and the difference quotient is not; what they differ by is the third
derivative, so that the predicted change is

    m(z(s)) - m(z) + (g.v - m'(z) . z1) s (1 - (s/d)^2).

The radius is then found as the measured one is, on the predicted change in place of the true one. Nothing of
this looks at the model further than `d` away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from polytope_lm.changes.flips import LayerTangent, Masses, masses, tangents, taps_from
from polytope_lm.changes.readout import Readout, length
from polytope_lm.changes.secant import secant_gradient
from polytope_lm.errors import PolytopeError
from polytope_lm.models.derivatives import Onward
from polytope_lm.paths.solve.line import in_layer_crossings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Float

    from polytope_lm.models.hooks import Tap

Beyond = Literal["", "below", "above"]
STEPS = 32
LOOK = 0.015
"""Of `|x|`: how far the two forward passes stand from it."""
LARGEST = 2.0
"""Of `|x|`: the largest step."""
_BISECTIONS = 10
_CURVE = 33
_AT_ONCE = 64
"""Rows of logits whose distributions are taken together."""


@dataclass(frozen=True, eq=False)
class Excess:
    """Where an error first exceeds tau, a row each; censored rows hold the bound, and say which in `beyond`."""

    radius: Float[np.ndarray, " n"]
    beyond: tuple[Beyond, ...]


def first_excess(
    error: Callable[[Float[Tensor, "n m"]], Float[Tensor, "n m"]], low: Float[np.ndarray, " n"], high: float, tau: float
) -> Excess:
    """Find the least step at which an error exceeds tau: a scan of 32 log-spaced steps, then bisection.

    Args:
        error: gives the error at steps, row by row.
        low: each row's smallest step.
        high: the largest.
        tau: the error that is allowed.

    """
    low = np.minimum(low, high)
    steps = low[:, None] * (high / low[:, None]) ** (np.arange(STEPS) / (STEPS - 1))
    over = ~(error(torch.as_tensor(steps)).numpy() <= tau)
    first = np.where(over.any(1), over.argmax(1), STEPS)
    beyond = tuple(_beyond(int(one), bound >= high) for one, bound in zip(first, low, strict=True))
    rows = np.arange(len(low))
    inside = np.clip(first, 1, STEPS - 1)
    near, far = np.log(steps[rows, inside - 1]), np.log(steps[rows, inside])
    searched = np.array([one == "" for one in beyond])
    for _ in range(_BISECTIONS if searched.any() else 0):
        middle = (near + far) / 2
        past = ~(error(torch.as_tensor(np.exp(middle))[:, None]).numpy()[:, 0] <= tau)
        near, far = np.where(past, near, middle), np.where(past, middle, far)
    bounds = np.where(first == 0, low, high)
    return Excess(np.where(searched, np.exp(far), bounds), beyond)


def _beyond(first: int, none_left: bool) -> Beyond:
    if first == 0 or none_left:
        return "below"
    return "above" if first == STEPS else ""


@dataclass(frozen=True, eq=False, repr=False)
class Look:
    """What was seen of the model near one place, for n directions; radii and estimates are made of it.

    Attributes:
        onward: the model from the place on.
        readout: what is read, the clean run's likeliest token filled in.
        v: unit directions, `[n, D]`.
        norm: `|x|`.
        step: `d`, how far the two passes stood from `x`.
        clean: the output, `[1, K]`.
        z1: its derivative along each direction, `[n, K]`.
        z2: its second derivative.
        slope: `g.v` where a number is read; else zeros.
        noise: rounding of the read-out.
        layers: what flip masses are made of; none where the read-out has no gradient, or they were not asked for.

    """

    onward: Onward
    readout: Readout
    v: Float[Tensor, "n D"]
    norm: float
    step: float
    clean: Float[Tensor, "1 K"]
    z1: Float[Tensor, "n K"]
    z2: Float[Tensor, "n K"]
    slope: Float[Tensor, " n"]
    noise: float
    layers: Sequence[LayerTangent] = ()

    def first_order(self, steps: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
        """Return the first-order estimate of the change at steps along each direction."""
        if self.readout.scalar:
            return steps * self.slope[:, None]
        return self._along(steps, second=False)

    def predicted(self, steps: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
        """Return the predicted change at steps along each direction."""
        found = self._along(steps, second=True)
        if self.readout.scalar:
            rest = self.slope - self._quotient
            found = found + rest[:, None] * steps * (1 - (steps / self.step) ** 2)
        return found

    @property
    def _quotient(self) -> Float[Tensor, " n"]:
        """The derivative of `m` by the difference quotient of the output."""
        z = self.clean.clone().requires_grad_()
        with torch.enable_grad():
            (g,) = torch.autograd.grad(self.readout.value(z).sum(), z)
        return (self.z1 * g).sum(-1)

    @property
    def curvature(self) -> Float[Tensor, " n"]:
        """Return `v'Hv` of a number, by the central difference; else the length of the second derivative."""
        if not self.readout.scalar:
            return length(self.z2)
        d = self.step
        ends = torch.cat([self.clean + d * self.z1 + d**2 / 2 * self.z2, self.clean - d * self.z1 + d**2 / 2 * self.z2])
        plus, minus = self.readout.change(ends, self.clean).chunk(2)
        return (plus + minus) / d**2

    def low(self, tau: float) -> Float[np.ndarray, " n"]:
        """Return each direction's smallest step: rounding is `tau/10` of the first-order change there."""
        wanted = 10 * self.noise / tau
        if self.readout.scalar:
            size = self.slope.abs()
        elif self.readout.vector:
            size = self.z1.norm(dim=-1)
        else:  # these grow with the square of the step
            at = self.first_order(torch.full((len(self.v), 1), self.step, dtype=torch.float64))[:, 0]
            return (self.step * (wanted / at.clamp(min=1e-300)).sqrt()).numpy()
        return (wanted / size.clamp(min=1e-300)).numpy()

    def error(self, true: Float[Tensor, "n m K"], steps: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
        """Return the relative error of the first-order estimate, given the output itself."""
        if self.readout.vector:
            moved = true - self.clean
            off = moved - steps[..., None] * self.z1[:, None]
            return length(off) / length(moved)
        return relative(self._changes(true), self.first_order(steps))

    def measured(self, tau: float) -> Excess:
        """Find the trust radius by running the model: 42 forward passes of a row a direction."""
        return first_excess(lambda steps: self.error(self.true(steps), steps), self.low(tau), self.largest, tau)

    def predicted_radius(self, tau: float) -> Excess:
        """Find the trust radius on the predicted change: nothing is run."""

        def error(steps: Tensor) -> Tensor:
            if self.readout.vector:
                second = steps[..., None] ** 2 / 2 * self.z2[:, None]
                whole = steps[..., None] * self.z1[:, None] + second
                return length(second) / length(whole)
            return relative(self.predicted(steps), self.first_order(steps))

        return first_excess(error, self.low(tau), self.largest, tau)

    def curvature_radius(self, tau: float) -> Excess:
        """Find the radius of a quadratic with this slope and curvature; of a number."""
        c = self.curvature[:, None]
        quadratic = lambda s: relative(s * self.slope[:, None] + s**2 / 2 * c, s * self.slope[:, None])  # noqa: E731
        return first_excess(quadratic, self.low(tau), self.largest, tau)

    def flip_radius(
        self, tau: float, flipped: Callable[[Tensor], Callable[[int, int], Tensor]] | None = None
    ) -> Excess:
        """Find where flip mass exceeds tau of the first-order change; `flipped(steps)`: by other boundaries."""

        def error(steps: Tensor) -> Tensor:
            mass = masses(self.layers, steps, None if flipped is None else flipped(steps)).flip
            return mass / self.first_order(steps).abs()

        return first_excess(error, self.low(tau), self.largest, tau)

    def smooth_radius(self, tau: float) -> Excess:
        """Find where the signed remainders of all neurons exceed tau of the change that they make."""

        def error(steps: Tensor) -> Tensor:
            first = self.first_order(steps)
            return relative(first + masses(self.layers, steps).signed, first)

        return first_excess(error, self.low(tau), self.largest, tau)

    def mass(self, steps: Float[Tensor, "n m"]) -> Masses:
        """Return flip masses at steps."""
        return masses(self.layers, steps)

    @property
    def largest(self) -> float:
        """The largest step."""
        return LARGEST * self.norm

    def true(self, steps: Float[Tensor, "n m"]) -> Float[Tensor, "n m K"]:
        """Run the model at steps along each direction."""
        x = self.onward.x.double().cpu()
        points = x + steps[..., None] * self.v[:, None]
        out = self.onward.run(points.flatten(0, 1).to(self.onward.x.dtype)).out
        return out.double().cpu().reshape(*steps.shape, -1)

    def true_change(self, steps: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
        """Run the model at steps along each direction; return the change of what is read."""
        return self._changes(self.true(steps))

    def only(self, row: int) -> Look:
        """Return what was seen along one of the directions."""
        part = slice(row, row + 1)
        return replace(self, v=self.v[part], z1=self.z1[part], z2=self.z2[part], slope=self.slope[part], layers=())

    def _along(self, steps: Tensor, *, second: bool) -> Float[Tensor, "n m"]:
        """Return the change of the output's polynomial along each direction, some rows at a time."""
        found = []
        for row, mine in enumerate(steps):
            for part in torch.split(mine, _AT_ONCE):
                z = self.clean + part[:, None] * self.z1[row]
                if second:
                    z = z + part[:, None] ** 2 / 2 * self.z2[row]
                found.append(self.readout.change(z, self.clean))
        return torch.cat(found).reshape(steps.shape)

    def _changes(self, out: Float[Tensor, "n m K"]) -> Float[Tensor, "n m"]:
        parts = torch.split(out.flatten(0, 1), _AT_ONCE)
        return torch.cat([self.readout.change(part, self.clean) for part in parts]).reshape(out.shape[:2])

    def secant(self) -> Float[Tensor, " n"]:
        """Return the secant's slope along each direction (one more forward and backward pass); of a number."""
        g, _ = secant_gradient(self.onward, self.readout.value)
        return self.v @ g.double().cpu()

    def ticks(self, direction: int, furthest: float) -> Float[np.ndarray, " k"]:
        """Return the steps at which this layer's own boundaries are crossed along a direction."""
        model, layer = self.onward.model, self.onward.layer
        if self.onward.at == "embed":
            return np.empty(0)
        x = self.onward.x.double().cpu().numpy()
        end = x + furthest * self.v[direction].numpy()
        found = in_layer_crossings(model.geometry(model.site(layer)), x[None], end[None], at=self.onward.at)
        return np.sort(found.t) * furthest

    def scale(self) -> Float[np.ndarray, " n"]:
        """Return the relative change of the scale of the norm before this MLP at `d` along each direction."""
        geometry = self.onward.model.geometry(self.onward.model.site(self.onward.layer))
        if geometry.norm == "none" or self.onward.at != "resid_mid":
            return np.zeros(len(self.v))
        x = self.onward.x.double().cpu().numpy()
        points = np.concatenate([x[None], x + self.step * self.v.numpy()])
        if geometry.norm == "LayerNorm":
            points = points - points.mean(axis=1, keepdims=True)
        sigma = np.sqrt((points**2).mean(axis=1) + geometry.eps)
        return np.asarray(sigma[1:] / sigma[0] - 1)


def relative(true: Tensor, estimate: Tensor) -> Tensor:
    """Return `|true - estimate| / |true|`; 0 where both are 0."""
    off = (true - estimate).abs()
    return torch.where(off == 0, torch.zeros_like(off), off / true.abs())


def look(
    onward: Onward, readout: Readout, directions: Float[np.ndarray, "n D"], *, parts: bool = True, inputs: bool = False
) -> Look:
    """Look at a model near one place, along n directions: one forward and one backward pass, and 2 n forwards.

    Args:
        onward: the model from the place on.
        readout: what is read.
        directions: of any length but zero.
        parts: also read what flip masses are made of.
        inputs: also what MLPs read, for other boundaries in the place of the network's own.

    Raises:
        PolytopeError: NaN in the output.

    """
    model = onward.model
    taps = taps_from(model, onward.layer, inputs=inputs) if parts and readout.scalar else []
    v = torch.as_tensor(directions, dtype=torch.float64)
    v = v / v.norm(dim=1, keepdim=True)
    slope, own = torch.zeros(len(v), dtype=torch.float64), readout
    worth: Mapping[Tap, Tensor] = {}
    if readout.scalar:  # the clean run and its backward pass at once
        g, clean, worth = onward.gradient(lambda out: readout.at(model, out.detach()).value(out), taps=taps)
        own, slope = readout.at(model, clean.out), v @ g[0].double().cpu()
    else:
        clean = onward.clean()
    if not bool(torch.isfinite(clean.out).all()):
        raise PolytopeError(f"{model.name}: NaN or infinite values in the output of this prompt; try dtype='float32'")
    x, norm = onward.x, float(onward.x.double().norm())
    if not norm:
        raise PolytopeError(f"{model.name}, layer {onward.layer}: the activation is zero here, so steps have no scale")
    d = LOOK * norm
    moved = (d * v).to(x.device, x.dtype)
    ran = onward.run(torch.cat([x + moved, x - moved]), taps)
    plus, minus = ran.out.double().cpu().chunk(2)
    z = clean.out.double().cpu()
    layers: Sequence[LayerTangent] = ()
    if taps:
        halves = {tap: value.chunk(2) for tap, value in ran.taps.items()}
        rates = {tap: (up - down) / (2 * d) for tap, (up, down) in halves.items()}
        layers = tangents(model, onward.layer, clean.taps, rates, worth)
    eps = float(torch.finfo(clean.out.dtype).eps)
    return Look(
        onward, own, v, norm, d, z, (plus - minus) / (2 * d), (plus + minus - 2 * z) / d**2, slope,
        2 * eps * max(1.0, float(z.abs().max())), layers,
    )  # fmt: skip


def curve_steps(furthest: float) -> Float[np.ndarray, " c"]:
    """Return the steps of a drawing, from 0."""
    return np.linspace(0, furthest, _CURVE)
