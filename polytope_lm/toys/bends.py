"""A function folded by a few neurons: a neuron's weight, the place of its bend, and the depth, under the reader's hand.

The layer is `f(x) = sum_i v_i max(w_i (x - p_i), 0)`: neuron i bends at `p_i = -b_i / w_i`. Depth d is the layer
applied d times, `f(f(...f(x)))`. The start is the tent, which doubles its pieces with each application: 2, 4, 8, 16.

In a notebook the sliders are ipywidgets (`sliders`); in a page they are plain JavaScript (`save_sliders`). Both draw
what `folded` computes: the pieces are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from polytope_lm.errors import PolytopeError
from polytope_lm.geometry.relu_network import ReluNetwork
from polytope_lm.toys.pages import write_page
from polytope_lm.toys.pictures import broken_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from jaxtyping import Float

WEIGHTS, BENDS, OUT = (2.0, 4.0, 1.0), (0.0, 0.5, 0.8), (1.0, -1.0, 0.0)
"""Of the tent on [0, 1]; a third neuron waits with nothing to say."""
DEEPEST = 6
SPAN = (-0.25, 1.25)
_NEAR = 1e-9


@dataclass(frozen=True, eq=False)
class Folded:
    """A continuous function of one number, piece by piece.

    Attributes:
        x: where pieces begin and end, the window's ends among them, `[P + 1]`.
        y: the function there.
        layer: which layer, or application of the one layer, bends it there, from 0, `[P - 1]`.

    """

    x: Float[np.ndarray, " P1"]
    y: Float[np.ndarray, " P1"]
    layer: np.ndarray

    @property
    def pieces(self) -> int:
        """How many linear pieces there are; neighbours with one slope count once."""
        slopes = np.diff(self.y) / np.diff(self.x)
        return 1 + int((np.abs(np.diff(slopes)) > 1e-6 * np.abs(slopes).max(initial=1)).sum())


def folded(
    weights: Sequence[float] = WEIGHTS,
    bends: Sequence[float] = BENDS,
    out: Sequence[float] = OUT,
    depth: int = 1,
    span: tuple[float, float] = SPAN,
) -> Folded:
    """Return the layer applied `depth` times, over a span of x.

    Args:
        weights: `w_i`.
        bends: `p_i`.
        out: `v_i`.
        depth: how often the layer is applied, 1 to 6.
        span: the least and greatest x.

    Raises:
        PolytopeError: as many numbers are not given to each; another depth; a span without length.

    Examples:
        >>> from polytope_lm.toys.bends import folded
        >>> [folded(depth=d, span=(0, 1)).pieces for d in (1, 2, 3, 4)]
        [2, 4, 8, 16]

    """
    if not len(weights) == len(bends) == len(out) > 0:
        raise PolytopeError(f"{len(weights)} weights, {len(bends)} bends, {len(out)} of out: give as many of each")
    if not 1 <= depth <= DEEPEST:
        raise PolytopeError(f"depth={depth}: give 1 to {DEEPEST}")
    w, p, v = (np.asarray(each, np.float64) for each in (weights, bends, out))
    network = ReluNetwork(
        [w[:, None], *[np.outer(w, v)] * (depth - 1)], [-w * p] * depth, (v[None], np.zeros(1))
    )  # the next application reads v . relu(h), so its weight is w v'
    return line(network, span)


def line(network: ReluNetwork, span: tuple[float, float]) -> Folded:
    """Return a network of one number piece by piece, with every place where it bends.

    Args:
        network: of one input; the first output is taken.
        span: the least and greatest x.

    Raises:
        PolytopeError: another number of inputs; a span without length.

    Examples:
        >>> import numpy as np
        >>> from polytope_lm import toys
        >>> from polytope_lm.geometry.relu_network import ReluNetwork
        >>> size = ReluNetwork([np.array([[1.0], [-1.0]])], [np.zeros(2)], (np.ones((1, 2)), np.zeros(1)))
        >>> found = toys.line(size, (-1, 2))  # |x|
        >>> found.x.tolist(), found.y.tolist()
        ([-1.0, 0.0, 2.0], [1.0, 0.0, 2.0])

    """
    if network.n_inputs != 1:
        raise PolytopeError(f"the network reads {network.n_inputs} numbers: a line is of one that reads 1")
    if not span[0] < span[1]:
        raise PolytopeError(f"span={span} has no length: give the least x first")
    found = network.crossings(*(np.array([end], np.float64) for end in span))
    # A bend that rounding has put beside another one, or beside an end, is that one.
    inside = (found.t > _NEAR) & (found.t < 1 - _NEAR) & (np.diff(found.t, prepend=0) > _NEAR)
    t = found.t[inside]
    x = span[0] + np.concatenate([[0.0], t, [1.0]]) * (span[1] - span[0])
    return Folded(x, network.output(x[:, None])[:, 0], found.layer[inside])


def sliders() -> Any:
    """Return sliders for a notebook: which neuron, its weight, the place of its bend, its voice, and the depth.

    Raises:
        PolytopeError: ipywidgets is not installed.

    """
    try:
        import ipywidgets  # noqa: PLC0415 - only a notebook needs it
    except ImportError as error:
        raise PolytopeError("sliders need ipywidgets: pip install ipywidgets, or write `save_sliders`' page") from error
    state = {"weight": list(WEIGHTS), "bend": list(BENDS), "out": list(OUT)}

    def draw(neuron: int, weight: float, bend: float, out: float, depth: int) -> None:
        here = {name: list(values) for name, values in state.items()}
        here["weight"][neuron], here["bend"][neuron], here["out"][neuron] = weight, bend, out
        found = folded(here["weight"], here["bend"], here["out"], depth)
        broken_line(found.x, found.y, f"{found.pieces} pieces").show()

    return ipywidgets.interactive(
        draw,
        neuron=ipywidgets.Dropdown(options=range(len(WEIGHTS)), value=1),
        weight=ipywidgets.FloatSlider(WEIGHTS[1], min=-6, max=6, step=0.1),
        bend=ipywidgets.FloatSlider(BENDS[1], min=-0.25, max=1.25, step=0.01),
        out=ipywidgets.FloatSlider(OUT[1], min=-2, max=2, step=0.05),
        depth=ipywidgets.IntSlider(1, min=1, max=DEEPEST),
    )


def save_sliders(path: str | Path) -> Path:
    """Write the same sliders as one page that needs nothing else.

    Raises:
        PolytopeError: the path can't be written.

    """
    data = {"weights": WEIGHTS, "bends": BENDS, "out": OUT, "deepest": DEEPEST, "span": SPAN}
    return write_page(path, "sliders", "Move a bend", data)
