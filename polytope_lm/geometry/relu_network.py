"""ReLU networks without norm or attention: every boundary on a line, from one to the next, exactly.

Between neighbouring boundaries of the layers before it, a layer is linear along the line, so a neuron
crosses at most once there, at the root of a linear function. The stretches of the first layer are cut at its
crossings, those at the second's, and so on: what marching from boundary to boundary finds, one layer at a
time. No step size; rounding is float64's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.errors import PolytopeError, brief
from polytope_lm.paths.solve.roots import linear_roots

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, eq=False, repr=False)
class Marched:
    """The crossings of one line, ordered by t.

    Attributes:
        t: where on the line, in [0, 1], `[n]`.
        layer: whose boundary it is, from 0, `[n]`.
        neuron: which neuron, `[n]`.
        on: whether the neuron turns on there (else off), `[n]`.
        hamming: bits of each layer in which the ends differ, `[L]`.

    """

    t: Float[np.ndarray, " n"]
    layer: Int[np.ndarray, " n"]
    neuron: Int[np.ndarray, " n"]
    on: Bool[np.ndarray, " n"]
    hamming: Int[np.ndarray, " L"]

    def __len__(self) -> int:
        return len(self.t)

    def __repr__(self) -> str:
        return f"Marched: {len(self):,} crossings in {len(self.hamming)} layers"

    def flip_backs(self, layer: int | None = None) -> int:
        """Return the crossings that the ends' codes don't tell, in one layer or in all."""
        here = slice(None) if layer is None else self.layer == layer
        differ = self.hamming.sum() if layer is None else self.hamming[layer]
        return len(self.t[here]) - int(differ)


@dataclass(frozen=True, eq=False)
class AffineMaps:
    """The maps `y = A x + c` of n regions.

    Attributes:
        matrix: `A`, `[n, K, D]`.
        offset: `c`, `[n, K]`.

    """

    matrix: Float[np.ndarray, "n K D"]
    offset: Float[np.ndarray, "n K"]


@dataclass(frozen=True, eq=False)
class ReluNetwork:
    """A network `x_0 = x, h_l = W_l x_l + b_l, x_{l+1} = max(h_l, 0)`; each layer's `h` has a code.

    Attributes:
        weights: `W_l`, `[N_l, N_{l-1}]`, those that a ReLU follows.
        biases: `b_l`, `[N_l]`.
        out: the last layer's weight `[K, N_L]` and bias `[K]`, which no ReLU follows. Without one the output is the
            last hidden layer's `x`.

    """

    weights: Sequence[Float[np.ndarray, "N M"]]
    biases: Sequence[Float[np.ndarray, " N"]]
    out: tuple[Float[np.ndarray, "K N"], Float[np.ndarray, " K"]] | None = None

    def __post_init__(self) -> None:
        """Refuse layers that don't fit together."""
        if not len(self.weights) or len(self.weights) != len(self.biases):
            raise PolytopeError(f"{len(self.weights)} weights and {len(self.biases)} biases: give one of each a layer")
        width = np.shape(self.weights[0])[-1]
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if np.ndim(weight) != 2 or np.shape(weight) != (len(bias), width):
                shapes = f"weight {np.shape(weight)}, bias {np.shape(bias)}"
                raise PolytopeError(f"layer {layer}: {shapes}, expected weight [N, {width}] and bias [N]")
            if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
                raise PolytopeError(f"layer {layer} has NaN or infinite weights")
            width = len(bias)
        if self.out is not None and np.shape(self.out[0]) != (len(self.out[1]), width):
            shapes = f"weight {np.shape(self.out[0])}, bias {np.shape(self.out[1])}"
            raise PolytopeError(f"the output layer: {shapes}, expected weight [K, {width}] and bias [K]")

    @classmethod
    def read(cls, module: torch.nn.Module) -> ReluNetwork:
        """Read a `torch.nn.Sequential` of linear layers with a ReLU after each, the last one with or without.

        Raises:
            PolytopeError: anything else in it; the message names the place and the module.

        """
        from torch import nn  # noqa: PLC0415 - a network of arrays needs none

        if not isinstance(module, nn.Sequential):
            raise PolytopeError(f"{type(module).__name__} is no Sequential of Linear and ReLU: give weights and biases")
        parts = [part for part in module if not isinstance(part, nn.Flatten | nn.Identity)]
        for place, part in enumerate(parts):
            if not isinstance(part, (nn.Linear, nn.ReLU)[place % 2]) or getattr(part, "bias", 0) is None:
                expected = ("Linear with a bias", "ReLU")[place % 2]
                raise PolytopeError(
                    f"layer {place // 2}: {brief(part)} where {expected} is expected: its regions are exact only "
                    "where the network is linear layers with a ReLU after each"
                )
        linear = [(_array(p.weight), _array(p.bias)) for p in parts if isinstance(p, nn.Linear)]
        hidden, out = (linear[:-1], linear[-1]) if len(parts) % 2 else (linear, None)
        return cls([w for w, _ in hidden], [b for _, b in hidden], out)

    @property
    def n_inputs(self) -> int:
        """D, how many numbers it reads."""
        return int(np.shape(self.weights[0])[1])

    def output(self, x: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n K"]:
        """Return the output at points, float64."""
        last: np.ndarray = np.maximum(self.pre(x)[-1], 0)
        if self.out is None:
            return last
        return np.asarray(last @ np.asarray(self.out[0], np.float64).T + self.out[1])

    def codes(self, x: Float[np.ndarray, "n D"]) -> Bool[np.ndarray, "n N"]:
        """Return `z = 1[h > 0]` at points, all layers' bits side by side."""
        return np.concatenate([h > 0 for h in self.pre(x)], axis=1)

    def affine(self, codes: Bool[np.ndarray, "n N"]) -> AffineMaps:
        """Return the output's map in the region of each code: `A = W_out diag(z_L) W_L ... diag(z_1) W_1`.

        Raises:
            PolytopeError: codes of another width.

        """
        widths = [len(bias) for bias in self.biases]
        bits = np.asarray(codes)
        if bits.ndim != 2 or bits.shape[1] != sum(widths):
            raise PolytopeError(f"codes have shape {bits.shape}, expected [n, {sum(widths)}]")
        matrix = np.broadcast_to(np.eye(self.n_inputs), (len(bits), self.n_inputs, self.n_inputs))
        offset = np.zeros((len(bits), self.n_inputs))
        layers = list(zip(self.weights, self.biases, strict=True))
        for (weight, bias), on in zip(layers, np.split(bits, np.cumsum(widths)[:-1], axis=1), strict=True):
            matrix = on[:, :, None] * (np.asarray(weight, np.float64) @ matrix)
            offset = on * (offset @ np.asarray(weight, np.float64).T + bias)
        if self.out is None:
            return AffineMaps(matrix, offset)
        last = np.asarray(self.out[0], np.float64)
        return AffineMaps(last @ matrix, offset @ last.T + self.out[1])

    def pre(self, x: Float[np.ndarray, "n D"]) -> list[Float[np.ndarray, "n _"]]:
        """Return each layer's `h` at points, float64.

        Raises:
            PolytopeError: points of another width.

        """
        found, values = [], np.asarray(x, dtype=np.float64)
        if values.shape[-1:] != (self.n_inputs,):
            raise PolytopeError(
                f"points have shape {values.shape}: the network reads {self.n_inputs} numbers, give as many"
            )
        for weight, bias in zip(self.weights, self.biases, strict=True):
            h = values @ np.asarray(weight, np.float64).T + np.asarray(bias, np.float64)
            found.append(h)
            values = np.maximum(h, 0)
        return found

    def crossings(self, a: Float[np.ndarray, " D"], b: Float[np.ndarray, " D"]) -> Marched:
        """Find every boundary between two points.

        Args:
            a: the line at t = 0, `[D]`.
            b: the line at t = 1, `[D]`.

        Raises:
            PolytopeError: ends of another width or with NaN.

        """
        ends = np.stack([self._checked(name, end) for name, end in (("a", a), ("b", b))])
        t, values, parts = np.array([0.0, 1.0]), ends, []
        hamming = np.array([((h[0] > 0) != (h[1] > 0)).sum() for h in self.pre(ends)])
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = values @ np.asarray(weight, np.float64).T + np.asarray(bias, np.float64)
            roots, neuron, on = linear_roots(t, h)
            parts.append((roots, np.full(len(roots), layer), neuron, on))
            t, h = _cut(t, h, roots, neuron)
            values = np.maximum(h, 0)
        t, layers, neuron, on = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(t, kind="stable")
        return Marched(t[order], layers[order], neuron[order], on[order], hamming)

    def _checked(self, name: str, end: np.ndarray) -> Float[np.ndarray, " D"]:
        width, value = np.shape(self.weights[0])[1], np.asarray(end, dtype=np.float64)
        if value.shape != (width,) or not np.isfinite(value).all():
            what = "NaN or infinite values" if value.shape == (width,) else f"shape {value.shape}"
            raise PolytopeError(f"{name} has {what}: give [{width}] numbers")
        return value


def _array(weight: torch.Tensor) -> np.ndarray:
    return np.asarray(weight.detach().double().cpu())


def _cut(
    t: np.ndarray, h: np.ndarray, roots: np.ndarray, neuron: np.ndarray
) -> tuple[Float[np.ndarray, " M"], Float[np.ndarray, "M N"]]:
    """Add the crossings to the points, `h` being zero there for the neuron that crosses."""
    every = np.union1d(t, roots)
    stretch = np.clip(np.searchsorted(t, every, side="right") - 1, 0, len(t) - 2)
    share = ((every - t[stretch]) / (t[stretch + 1] - t[stretch]))[:, None]
    cut = (1 - share) * h[stretch] + share * h[stretch + 1]
    cut[np.searchsorted(every, roots), neuron] = 0
    return every, cut
