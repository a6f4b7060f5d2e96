"""The remainders that make a first-order estimate wrong, neuron by neuron, and those of neurons that flip.

Behind a ReLU they are all there is. Let `h = W u + b`, `out(u) = W_out act(h) + c`, and J the MLP's derivative
at `u`. Each neuron adds `w_out,i r_i` to the error of first order,

    r_i = act(h'_i) - act(h_i) - act'(h_i) (h'_i - h_i),    h' = h + s W v.

For a ReLU `r_i = 0` where the signs agree, and `|h'_i|` where they differ: off to on, `h'_i - 0 - 0`; on to
off, `0 - h_i - (h'_i - h_i) = -h'_i`. So

    out(u + s v) - out(u) - s J v = sum over flipped neurons of w_out,i |h'_i|,

nothing inside the polytope; the distance to its first boundary along `v` bounds the trust radius from below.
A smooth activation has a remainder in every neuron; for a gated one it is that of `act(g) up`.

Downstream the same is taken along the tangent: `h' = h + s dh`, `dh` each later pre-activation's derivative
along `v`, and `w_out,i . g_m`, the gradient of the read-out at the neuron's `post`, says what a remainder is
worth. *Flip mass* is the sum of `|r_i| |w_out,i . g_m|` over the neurons whose sign flips, over layers and
positions; the *smooth twin* is the signed sum over all neurons.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from polytope_lm.errors import PolytopeError
from polytope_lm.models.families import weight_and_bias
from polytope_lm.models.gates import activation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Bool, Float

    from polytope_lm.models.hooks import Tap
    from polytope_lm.models.model import Model

_CELLS = 2**24
"""Numbers of one layer held at once."""


@dataclass(frozen=True, eq=False, repr=False)
class LayerTangent:
    """One layer's pre-activations, their derivative along n directions, and what `post` is worth.

    Attributes:
        h: `[k, N]`, of the gate in a gated MLP.
        dh: `[n, k, N]`.
        worth: the gradient of the read-out at `post`, `[k, N]`.
        act: the activation.
        up: a gated MLP's other branch, `[k, N]`.
        dup: its derivative, `[n, k, N]`.
        u: what the MLP reads, `[k, D]`, where other boundaries in its place are to be tried.
        du: its derivative, `[n, k, D]`.

    """

    h: Float[Tensor, "k N"]
    dh: Float[Tensor, "n k N"]
    worth: Float[Tensor, "k N"]
    act: Callable[[Tensor], Tensor]
    up: Float[Tensor, "k N"] | None = None
    dup: Float[Tensor, "n k N"] | None = None
    u: Float[Tensor, "k D"] | None = None
    du: Float[Tensor, "n k D"] | None = None

    def remainder(self, steps: Float[Tensor, "n S"]) -> tuple[Float[Tensor, "n S k N"], Bool[Tensor, "n S k N"]]:
        """Return each neuron's remainder at steps along each direction, and whether its sign flips."""
        s = steps[:, :, None, None]
        moved = self.h + s * self.dh[:, None]
        up, moved_up = (
            (None, None) if self.up is None or self.dup is None else (self.up, self.up + s * self.dup[:, None])
        )
        return remainder(self.act, self.h, moved, up, moved_up), (moved > 0) != (self.h > 0)


def remainder(
    act: Callable[[Tensor], Tensor], h: Tensor, moved: Tensor, up: Tensor | None = None, moved_up: Tensor | None = None
) -> Tensor:
    """Return `act(h') - act(h) - act'(h) (h' - h)`, or the same of `act(h) up`."""
    at = h.detach().clone().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(act(at).sum(), at)
    value = act(h)
    if up is None or moved_up is None:
        return act(moved) - value - slope * (moved - h)
    return act(moved) * moved_up - value * up - slope * up * (moved - h) - value * (moved_up - up)


@dataclass(frozen=True, eq=False, repr=False)
class Masses:
    """Along each direction at each step.

    Attributes:
        flip: the flip mass, in the read-out's unit.
        signed: the smooth twin, signed.
        flips: how many neurons flip.

    """

    flip: Float[Tensor, "n S"]
    signed: Float[Tensor, "n S"]
    flips: Float[Tensor, "n S"]


def masses(
    layers: Sequence[LayerTangent],
    steps: Float[Tensor, "n S"],
    flipped: Callable[[int, int], Bool[Tensor, "S k N"]] | None = None,
) -> Masses:
    """Sum remainders over layers and positions, along each direction at its own steps.

    `flipped(number, direction)` gives other boundaries' flips in place of the network's own.
    """
    found = Masses(*(torch.zeros(steps.shape, dtype=torch.float64) for _ in range(3)))
    for number, layer in enumerate(layers):
        size, own = max(1, _CELLS // (steps.shape[1] * layer.h.numel())), steps.to(layer.h.device)
        for first in range(0, len(steps), size):
            rows = slice(first, first + size)
            part = LayerTangent(
                layer.h,
                layer.dh[rows],
                layer.worth,
                layer.act,
                layer.up,
                None if layer.dup is None else layer.dup[rows],
            )
            rest, flips = part.remainder(own[rows])
            if flipped is not None:
                flips = torch.stack([flipped(number, direction) for direction in range(len(steps))[rows]])
            worth = rest * layer.worth
            found.flip[rows] += (worth.abs() * flips).sum((2, 3)).cpu()
            found.signed[rows] += worth.sum((2, 3)).cpu()
            found.flips[rows] += flips.sum((2, 3)).cpu()
    return found


def taps_from(model: Model, layer: int, *, inputs: bool = False) -> list[Tap]:
    """Return what has to be read for `tangents`: branches and `post` of the layers from one on, and `u` on request."""
    taps: list[Tap] = []
    for number in range(layer, model.n_layers):
        gated = "gate" in model.block(number).pre
        taps += [(number, "h"), *([(number, "up")] if gated else []), (number, "post")]  # type: ignore[list-item]
        taps += [(number, "u")] if inputs else []
    return taps


def tangents(
    model: Model, layer: int, clean: Mapping[Tap, Tensor], slope: Mapping[Tap, Tensor], worth: Mapping[Tap, Tensor]
) -> list[LayerTangent]:
    """Put together what `masses` needs.

    Args:
        model: the model.
        layer: the first one.
        clean: what was read in the clean run, `[1, k, N]`.
        slope: its derivative along n directions, `[n, k, N]`.
        worth: the gradient at `post`, `[1, k, N]`.

    Raises:
        PolytopeError: an MLP whose `post` is not `act(h)`, or `act(h) up`.

    """
    found = []
    for number in range(layer, model.n_layers):
        block = model.block(number)
        act = activation(block)
        h, post = clean[number, "h"][0], clean[number, "post"][0]
        up = clean[number, "up"][0] if "gate" in block.pre else None
        mine = act(h) if up is None else act(h) * up
        if not torch.allclose(mine, post, rtol=1e-3, atol=1e-3 * float(post.abs().max())):
            raise PolytopeError(
                f"{model.name}, layer {number}: post is not {block.activation} of h here, so its remainders have no "
                "formula: give parts=False"
            )
        dup = slope[number, "up"].double() if up is not None else None
        found.append(
            LayerTangent(
                h.double(), slope[number, "h"].double(), worth[number, "post"][0].double(), act,
                None if up is None else up.double(), dup,
                *((clean[number, "u"][0].double(), slope[number, "u"].double()) if (number, "u") in clean else ()),
            )
        )  # fmt: skip
    return found


@dataclass(frozen=True, eq=False, repr=False)
class InLayer:
    """The first-order error of one MLP, from `u` to `u'`, by neuron.

    Attributes:
        remainder: `r_i`, `[n, N]`.
        flipped: whose sign differs, `[n, N]`.
        error: `out(u') - out(u) - J (u' - u)`, `[n, D]`.
        of_flipped: the part of it that flipped neurons make, `[n, D]`.

    """

    remainder: Float[Tensor, "n N"]
    flipped: Bool[Tensor, "n N"]
    error: Float[Tensor, "n D"]
    of_flipped: Float[Tensor, "n D"]

    @property
    def share(self) -> Float[Tensor, " n"]:
        """The share of the error that sits in flipped neurons: `of_flipped . error / |error|^2`; NaN without error."""
        return (self.of_flipped * self.error).sum(-1) / self.error.square().sum(-1)


def in_layer(model: Model, layer: int, u: Float[Tensor, "n D"], moved: Float[Tensor, "n D"]) -> InLayer:
    """Take one MLP's first-order error apart, by its weights, in float64.

    Raises:
        PolytopeError: an activation without a formula.

    """
    block = model.block(layer)
    act = activation(block)

    def pre(kind: str, at: Tensor) -> Tensor:
        weight, bias = block.numbers(kind)
        return at.double() @ weight.to(at).double().T + (0.0 if bias is None else bias.to(at).double())

    kinds = tuple(block.pre)
    gate = "gate" if "gate" in kinds else kinds[0]
    h, other = pre(gate, u), pre(gate, moved)
    ups = (pre("up", u), pre("up", moved)) if gate == "gate" else (None, None)
    rest = remainder(act, h, other, *ups)
    flipped = (h > 0) != (other > 0)
    out = weight_and_bias(block.down)[0].to(rest).T
    return InLayer(rest, flipped, rest @ out, (rest * flipped) @ out)
