"""Small ReLU networks on functions of one and two numbers: built by hand, or trained in seconds from a seed.

Several seeds are trained at once, as one stack of networks that never meet: a seed's first weights are its own,
whatever the others are. Everything is float64, so that regions are those of the very weights that were trained.

Examples:
    >>> from polytope_lm import toys
    >>> (trained,) = toys.fit(toys.task("xor"), (8,), seeds=[0], steps=200)
    >>> found = toys.regions(trained.network, toys.task("xor").window)
    >>> round(float(found.areas.sum()), 9)  # of a window of 2 by 2
    4.0

"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise, product
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from polytope_lm.errors import PolytopeError, brief
from polytope_lm.geometry.plane_regions import SQUARE, Regions, Window, margin, regions
from polytope_lm.geometry.relu_network import ReluNetwork
from polytope_lm.toys.training import Training, train

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float, Int

RADII = (0.45, 0.75, 1.0)
"""Of the circle, and of the annulus around it."""


@dataclass(frozen=True, eq=False)
class Task:
    """What a toy network learns.

    Attributes:
        name: of the task.
        x: points, `[n, D]`.
        y: what to say there: a class, 1 or -1, or a number, `[n]`.
        window: where it is looked at.
        classes: whether `y` is a class, told by the output's sign.

    """

    name: str
    x: Float[np.ndarray, "n D"]
    y: Float[np.ndarray, " n"]
    window: Window
    classes: bool = True


def task(name: str, points: int = 1000, seed: int = 0) -> Task:
    """Return a task by its name, its points drawn from a seed.

    | name | what |
    |---|---|
    | `bits` | XOR of two bits: four points |
    | `xor` | the quadrants of the square of side 2: 1 where the signs of x and y differ |
    | `circle` | a disc of radius .45 (1) in an annulus from .75 to 1 (-1) |
    | `annuli` | two rings of each, by turns: the annuli's own XOR |
    | `sine` | `sin(x)` on [-6, 6] |
    | `sine of 1/x` | `sin(1/x)` on [.05, 1] |

    Raises:
        PolytopeError: another name; fewer than two points.

    """
    if points < 2:
        raise PolytopeError(f"points={points}: give 2 or more")
    if name not in _TASKS:
        raise PolytopeError(f"task {brief(name)}: choose among {', '.join(_TASKS)}")
    return _TASKS[name](points, np.random.default_rng(seed))


def _bits(_points: int, _rng: np.random.Generator) -> Task:
    x = np.array(list(product((0.0, 1.0), repeat=2)))
    return Task("bits", x, np.where(x.sum(axis=1) == 1, 1.0, -1.0), (-1.0, 2.0, -1.0, 2.0))


def _xor(points: int, rng: np.random.Generator) -> Task:
    x = rng.uniform(-1, 1, (points, 2))
    return Task("xor", x, np.where((x > 0).sum(axis=1) == 1, 1.0, -1.0), SQUARE)


def _ring(points: int, rng: np.random.Generator, inner: float, outer: float) -> Float[np.ndarray, "n 2"]:
    """Return points spread evenly over a ring's area."""
    radius, angle = np.sqrt(rng.uniform(inner**2, outer**2, points)), rng.uniform(0, 2 * np.pi, points)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _circle(points: int, rng: np.random.Generator) -> Task:
    inside = points // 2
    x = np.concatenate([_ring(inside, rng, 0, RADII[0]), _ring(points - inside, rng, *RADII[1:])])
    return Task("circle", x, np.where(np.arange(points) < inside, 1.0, -1.0), (-1.2, 1.2, -1.2, 1.2))


def _annuli(points: int, rng: np.random.Generator) -> Task:
    edges = np.linspace(0, 1, 5)
    which = np.arange(points) % 4
    x = np.concatenate([_ring(int((which == i).sum()), rng, edges[i], edges[i + 1]) for i in range(4)])
    return Task("annuli", x, np.where(np.sort(which) % 2 == 0, 1.0, -1.0), (-1.2, 1.2, -1.2, 1.2))


def _sine(points: int, _rng: np.random.Generator) -> Task:
    x = np.linspace(-6, 6, points)
    return Task("sine", x[:, None], np.sin(x), (-6.0, 6.0, -1.5, 1.5), classes=False)


def _sine_of_inverse(points: int, _rng: np.random.Generator) -> Task:
    x = np.linspace(0.05, 1, points)
    return Task("sine of 1/x", x[:, None], np.sin(1 / x), (0.05, 1.0, -1.5, 1.5), classes=False)


_TASKS: dict[str, Callable[[int, np.random.Generator], Task]] = {
    "bits": _bits,
    "xor": _xor,
    "circle": _circle,
    "annuli": _annuli,
    "sine": _sine,
    "sine of 1/x": _sine_of_inverse,
}


@dataclass(frozen=True, eq=False)
class Trained:
    """A network and how well it does.

    Attributes:
        network: with its output layer.
        seed: of its first weights.
        loss: at the end, over all points.
        accuracy: share of points of the right class; of a task without classes, R^2.

    """

    network: ReluNetwork
    seed: int
    loss: float
    accuracy: float


class Stack(torch.nn.Module):
    """Networks of one shape, side by side.

    Args:
        widths: of all layers: inputs, hidden layers, outputs.
        seeds: one a network.

    """

    def __init__(self, widths: Sequence[int], seeds: Sequence[int]) -> None:
        super().__init__()
        weights: list[list[torch.Tensor]] = []
        for seed in seeds:
            rng = np.random.default_rng(seed)
            drawn = []
            for i, o in pairwise(widths):
                drawn += [rng.standard_normal((o, i)) * np.sqrt(2 / i), rng.uniform(-1, 1, o) / np.sqrt(i)]
            weights.append([torch.from_numpy(each) for each in drawn])
        self.parts = torch.nn.ParameterList([torch.stack(same) for same in zip(*weights, strict=True)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return every network's output, `[S, n, K]`."""
        for place in range(0, len(self.parts), 2):
            x = x @ self.parts[place].mT + self.parts[place + 1][:, None]
            x = torch.relu(x) if place + 2 < len(self.parts) else x
        return x

    def networks(self) -> list[ReluNetwork]:
        """Return them one by one, as they are now."""
        arrays = [part.detach().numpy().copy() for part in self.parts]
        weights, biases = arrays[::2], arrays[1::2]
        return [
            ReluNetwork([w[s] for w in weights[:-1]], [b[s] for b in biases[:-1]], (weights[-1][s], biases[-1][s]))
            for s in range(len(arrays[0]))
        ]


def fit(
    goal: Task,
    hidden: Sequence[int],
    seeds: Sequence[int] = (0,),
    *,
    steps: int = 2000,
    rate: float = 0.02,
    after: Callable[[int, Stack], None] = lambda _step, _stack: None,
) -> list[Trained]:
    """Train a network for each seed, on all points at once, by AdamW.

    Args:
        goal: what to learn: logistic loss for classes, else squared error.
        hidden: widths of the hidden layers.
        seeds: of the first weights.
        steps: updates.
        rate: the peak learning rate.
        after: called with the number of updates done and the networks, as `toys.training.train` calls it.

    Raises:
        PolytopeError: no hidden layer or one without neurons; no seeds or one below 0; one class only.

    """
    if not _numbers(hidden, 1):
        raise PolytopeError(f"hidden={brief(hidden)}: give each layer's width, whole numbers above 0 such as (8, 8)")
    if not _numbers(seeds, 0):
        raise PolytopeError(f"seeds={brief(seeds)}: give one or more, whole numbers from 0 such as [0, 1]")
    if goal.classes and len(np.unique(goal.y)) < 2:
        raise PolytopeError(f"{goal.name}: all {len(goal.y)} points are of class {goal.y[0]:g}: give two classes")
    stack = Stack((goal.x.shape[1], *hidden, 1), seeds)
    x, y = torch.from_numpy(goal.x), torch.from_numpy(goal.y)

    def losses(model: torch.nn.Module, _batch: object) -> torch.Tensor:
        out = model(x)[..., 0]
        each = torch.nn.functional.softplus(-y * out) if goal.classes else (out - y) ** 2
        return each.mean(dim=1)

    # A clip would let one network's gradient change another's step.
    training = Training(steps=steps, rate=rate, decay=0.0, clip=float("inf"), report=0)
    train(stack, losses, lambda _step: None, training, after=lambda step: after(step, stack))
    with torch.no_grad():
        last = losses(stack, None).tolist()
    return [
        Trained(network, int(seed), loss, accuracy(network, goal))
        for network, seed, loss in zip(stack.networks(), seeds, last, strict=True)
    ]


def _numbers(values: object, least: int) -> bool:
    """Whether there are several whole numbers, or one in a list, none of them below the least."""
    if not isinstance(values, Sequence | np.ndarray) or not len(values):
        return False
    return all(isinstance(v, int | np.integer) and not isinstance(v, bool) and v >= least for v in values)


def accuracy(network: ReluNetwork, goal: Task) -> float:
    """Return the share of points of the right class; of a task without classes, R^2."""
    out = network.output(goal.x)[:, 0]
    if goal.classes:
        return float((np.sign(out) == goal.y).mean())
    return 1 - float(((out - goal.y) ** 2).mean() / goal.y.var())


def exact_xor() -> ReluNetwork:
    """Return XOR of two bits by two neurons: `max(x+y, 0) - 2 max(x+y-1, 0)`, three regions, the fourth code empty."""
    return ReluNetwork([np.ones((2, 2))], [np.array([0.0, -1.0])], (np.array([[1.0, -2.0]]), np.zeros(1)))


def exact_circle(radius: float = 0.6) -> ReluNetwork:
    """Return a network of three neurons that is above 0 inside a hexagon alone: `radius - sum of max(w_i . x, 0)`.

    Its `w_i` are a third of a turn apart, so that one or two are on: six unit slopes, and six sides, `radius` from 0.
    """
    angles = np.deg2rad([90, 210, 330])
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return ReluNetwork([directions], [np.zeros(3)], (-np.ones((1, 3)), np.array([radius])))


def existing(network: ReluNetwork) -> dict[tuple[bool, ...], float]:
    """Return for each of the `2^N` codes by how much it exists on the whole plane (`margin`): not at all at 0 or below.

    Raises:
        PolytopeError: more than 12 neurons.

    """
    neurons = sum(len(bias) for bias in network.biases)
    if neurons > 12:
        raise PolytopeError(f"{neurons} neurons have 2^{neurons} codes: give at most 12, or draw `regions`")
    return {code: margin(network, np.array(code)) for code in product((False, True), repeat=neurons)}


def orthants(d: int) -> int:
    """Count the regions of a ReLU on each of `d` coordinates, by a point in each: `2^d`, why nothing is enumerated.

    Raises:
        PolytopeError: more than 20 coordinates.

    """
    if not 1 <= d <= 20:
        raise PolytopeError(f"d={d}: give 1 to 20, there are 2^d regions")
    network = ReluNetwork([np.eye(d)], [np.zeros(d)])
    points = 2.0 * ((np.arange(2**d)[:, None] >> np.arange(d)) & 1) - 1
    return len(np.unique(np.packbits(network.codes(points), axis=1), axis=0))


@dataclass(frozen=True, eq=False)
class Pieces:
    """The parts of the plane on which a network's output is above 0.

    Attributes:
        regions: those of the network and its output's sign.
        part: which part each region belongs to, -1 where the output is not above 0, `[R]`.
        closed: whether each part ends inside the window, `[P]`.

    """

    regions: Regions
    part: Int[np.ndarray, " R"]
    closed: np.ndarray

    def of(self, point: Sequence[float]) -> int:
        """Return the part that a point lies in, -1 for none."""
        found = self.part[self.regions.holding(point)]
        return int(found.max(initial=-1))


def pieces(network: ReluNetwork, window: Window | None = None) -> Pieces:
    """Find the connected parts on which a network says 1, and which of them are closed.

    A part that ends inside a window is closed on the whole plane, too. Without a window, one is taken that holds every
    corner of the whole plane's arrangement, so that a part which reaches its border goes on for ever.

    Two neurons close nothing, whatever their weights: with `f = c + a_1 max(h_1, 0) + a_2 max(h_2, 0)`, move so that
    `h_2` stays and `h_1` grows (if `a_1 >= 0`) or falls (else): `f` never falls, and the way has no end.

    Args:
        network: of two inputs and one output.
        window: where; None: the whole plane, for networks of one hidden layer.

    Raises:
        PolytopeError: no window for a deeper network; other inputs or outputs.

    """
    if network.out is None or len(network.out[1]) != 1:
        raise PolytopeError("the network has no single output whose sign tells the class: give one with `out`")
    if window is None:
        window = _whole(network)
    signed = ReluNetwork([*network.weights, network.out[0]], [*network.biases, network.out[1]])
    found = regions(signed, window)
    inside = found.codes[:, -1]
    edges = found.neighbours
    edges = edges[inside[edges].all(axis=1)]
    graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(len(found), len(found)))
    _, names = connected_components(graph, directed=False)
    part = np.full(len(found), -1)
    part[inside] = np.unique(names[inside], return_inverse=True)[1]
    closed = np.ones(part.max() + 1, bool)
    closed[np.unique(part[inside & found.on_border])] = False
    return Pieces(found, part, closed)


def _whole(network: ReluNetwork) -> Window:
    """Return a window around every point where two lines of a one-layer network and its output's zero meet."""
    if len(network.weights) != 1:
        raise PolytopeError(f"{len(network.weights)} hidden layers: the whole plane is known of one; give a window")
    assert network.out is not None  # noqa: S101 - `pieces` has looked
    w, b = np.asarray(network.weights[0], np.float64), np.asarray(network.biases[0], np.float64)
    codes = np.array(list(product((False, True), repeat=len(b))))
    maps = network.affine(codes)
    normals, offsets = np.concatenate([w, maps.matrix[:, 0]]), np.concatenate([b, maps.offset[:, 0]])
    lengths = np.linalg.norm(normals, axis=1)
    sloped = lengths > 1e-9 * lengths.max()  # a sum of normals that cancel has no line
    normals, offsets, lengths = normals[sloped], offsets[sloped], lengths[sloped]
    farthest = 1.0
    for i, j in combinations(range(len(normals)), 2):
        both = normals[[i, j]]
        if abs(np.linalg.det(both)) > 1e-9 * lengths[i] * lengths[j]:
            farthest = max(farthest, float(np.abs(np.linalg.solve(both, -offsets[[i, j]])).max()))
    # Parallel lines meet nowhere, but have to be in sight.
    side = 2 * max(farthest, float((np.abs(offsets) / lengths).max(initial=0)))
    return -side, side, -side, side
