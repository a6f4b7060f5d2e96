"""A network's regions while it is trained: recorded, and played in one page that needs nothing else, or in a GIF.

A frame is the exact picture at one update (`geometry.plane_regions`): the regions in the window, the output over them,
each region's dual point (the slope `A` of its map `y = A x + c`), and how the accuracy went so far. In the page
positions are rounded to a 65,535th of the window; nothing is left out.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polytope_lm.errors import PolytopeError
from polytope_lm.geometry.plane_regions import Regions, checked, regions
from polytope_lm.toys.boards import board, palette
from polytope_lm.toys.networks import Task, Trained, accuracy, fit
from polytope_lm.toys.pages import write_page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polytope_lm.geometry.relu_network import ReluNetwork
    from polytope_lm.toys.networks import Stack

_FINE = 65535
_POINTS = 400
"""Of the task, drawn in the page."""


@dataclass(frozen=True, eq=False, repr=False)
class Film:
    """A network's training, frame by frame.

    Attributes:
        goal: what was learnt.
        hidden: widths of the hidden layers.
        steps: updates done at each frame.
        networks: as they were then.
        accuracy: share of points of the right class then.
        trained: the last network.

    """

    goal: Task
    hidden: tuple[int, ...]
    steps: tuple[int, ...]
    networks: tuple[ReluNetwork, ...]
    accuracy: tuple[float, ...]
    trained: Trained

    def __len__(self) -> int:
        return len(self.steps)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.hidden))
        return f"Film: {self.goal.name}, {shape} neurons, {len(self)} frames, accuracy {self.accuracy[-1]:.3f}"

    def frame(self, number: int) -> Regions:
        """Return the exact picture of a frame."""
        return regions(self.networks[number], self.goal.window)

    def save_html(self, path: str | Path) -> Path:
        """Write one page with a play button, about 3 MB for 300 frames of 3 x 8 neurons; it asks no server.

        Raises:
            PolytopeError: the path can't be written.

        """
        return write_page(path, "film", f"Training on {self.goal.name}", _packed(self))

    def save_gif(self, path: str | Path, *, side: int = 480, every: int = 3, seconds: float = 0.08) -> Path:
        """Write a GIF for slides that shows what the page does: regions, folded output, dual points, accuracy so far.

        Args:
            path: of the file.
            side: pixels, four panels in them.
            every: one of so many frames, and the last.
            seconds: each is shown.

        Raises:
            PolytopeError: Pillow is not installed; a side below 120 or a number below 1.

        """
        if every < 1 or not seconds > 0:
            raise PolytopeError(f"every={every}, seconds={seconds}: give numbers above 0")
        numbers = sorted({*range(0, len(self), every), len(self) - 1})

        def painted(number: int) -> Any:
            return board(self.frame(number), self.steps, self.accuracy, number, side)

        # One palette for all, or colours would flicker.
        colours = palette()
        first, *others = [painted(number).quantize(palette=colours, dither=0) for number in numbers]
        milliseconds = [round(1000 * seconds)] * (len(numbers) - 1) + [2000]
        first.save(path, save_all=True, append_images=others, duration=milliseconds, loop=0)
        return Path(path)


def record(
    goal: Task, hidden: Sequence[int] = (8, 8, 8), *, seed: int = 0, frames: int = 300, steps: int = 900,
    rate: float = 0.02,
) -> Film:  # fmt: skip
    """Train a network and keep what it was at evenly spaced updates, the first and the last among them.

    Args:
        goal: of two inputs and two classes.
        hidden: widths of the hidden layers.
        seed: of the first weights.
        frames: how many, 2 or more.
        steps: updates, one a frame or more.
        rate: the peak learning rate.

    Raises:
        PolytopeError: a task of other inputs, or whose window has no area; more frames than updates; as `fit`.

    Examples:
        >>> from polytope_lm import toys
        >>> toys.record(toys.task("circle", 200), (3,), frames=5, steps=20).steps
        (0, 5, 10, 15, 20)

    """
    if goal.x.shape[1] != 2:
        raise PolytopeError(f"{goal.name} has {goal.x.shape[1]} inputs: regions lie in a plane, give a task of 2")
    checked(goal.window)  # frames are drawn in it, after the training
    if not 2 <= frames <= steps + 1:
        raise PolytopeError(f"frames={frames}: give 2 to {steps + 1}, the updates and the start")
    chosen = {round(step) for step in np.linspace(0, steps, frames)}
    kept: list[tuple[int, ReluNetwork]] = []

    def keep(step: int, stack: Stack) -> None:
        if step in chosen:
            kept.append((step, stack.networks()[0]))

    (trained,) = fit(goal, hidden, [seed], steps=steps, rate=rate, after=keep)
    networks = tuple(network for _, network in kept)
    scores = tuple(accuracy(network, goal) for network in networks)
    return Film(goal, tuple(hidden), tuple(step for step, _ in kept), networks, scores, trained)


def _packed(film: Film) -> dict[str, Any]:
    """Return what the page draws, its arrays as base64 of little-endian whole numbers."""
    x0, x1, y0, y1 = film.goal.window
    counts, xy, corners, sides, layers, values, duals = [], [], [], [], [], [], []
    for number in range(len(film)):
        found = film.frame(number)
        counts.append((len(found.vertices), len(found), len(found.corners)))
        xy.append((found.vertices - (x0, y0)) / (x1 - x0, y1 - y0) * _FINE)
        corners.append(found.corners)
        sides.append(found.sides)
        layers.append(found.layers + 1)
        values.append(found.values[:, 0])
        duals.append(found.maps.matrix[:, 0])
    height = max(np.abs(each).max() for each in values)
    reach = max(np.abs(each).max() for each in duals)
    points = slice(None, None, max(1, len(film.goal.x) // _POINTS))
    return {
        "window": [x0, x1, y0, y1],
        "hidden": list(film.hidden),
        "task": film.goal.name,
        "steps": list(film.steps),
        "accuracy": [round(each, 4) for each in film.accuracy],
        "counts": np.array(counts).ravel().tolist(),
        "height": float(height),
        "reach": float(reach),
        "points": film.goal.x[points].round(4).tolist(),
        "classes": film.goal.y[points].tolist(),
        "xy": _binary(xy, "<u2"),
        "corners": _binary(corners, "<u2"),
        "sides": _binary(sides, "u1"),
        "layers": _binary(layers, "u1"),
        "values": _binary([each / height * (_FINE // 2) for each in values], "<i2"),
        "duals": _binary([each / reach * (_FINE // 2) for each in duals], "<i2"),
    }


def _binary(parts: Sequence[np.ndarray], kind: str) -> str:
    whole = np.concatenate([part.ravel() for part in parts])
    return base64.b64encode(np.rint(whole).astype(kind).tobytes()).decode()
