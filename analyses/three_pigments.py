"""Draw three neurons that see cyan, magenta and yellow, and count the polytopes that their boundaries make.

Draws `docs/pictures/three-pigments.svg`: three arrangements of three lines in a plane, each region in the
colour of the pigments that are on there, and the eight octants of three planes in space. Regions are what a
linear program finds feasible (scipy's HiGHS), so none is drawn that is not there and none is left out.

    python -m analyses.three_pigments --out docs/pictures
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from scipy.optimize import linprog
from scipy.spatial import ConvexHull, HalfspaceIntersection

INKS = "CMY"
_LIGHT, _DARK = 238, 70
"""A channel of a colour without and with the pigment that takes it away."""
_HALF = 1.0
"""The window is a square of this half-width, and the space a cube."""


@dataclass(frozen=True)
class Arrangement:
    """Neuron i is on where `normals[i] . x + offsets[i] > 0`.

    Attributes:
        title: what the picture shows.
        normals: one row a neuron.
        offsets: one a neuron.

    """

    title: str
    normals: np.ndarray
    offsets: np.ndarray


def _turned(*degrees: float) -> np.ndarray:
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


ARRANGEMENTS = (
    Arrangement("through one point: six", _turned(90, 210, 330), np.zeros(3)),
    Arrangement("two parallel, cut by a third: six", _turned(90, 90, 0), np.array([-0.35, 0.35, 0.0])),
    Arrangement("in general position: seven", _turned(90, 210, 330), np.full(3, 0.3)),
    Arrangement("three planes in space: eight", np.eye(3), np.zeros(3)),
)


def regions(arrangement: Arrangement, half: float = _HALF) -> dict[tuple[bool, ...], np.ndarray]:
    """Return the corners of every region inside the window, by code.

    Args:
        arrangement: neurons' boundaries in 2 or 3 dimensions.
        half: half the window's width.

    Returns:
        For each code that occurs, `(corners, dimensions)`.

    """
    neurons, dimensions = arrangement.normals.shape
    sides = np.concatenate([np.eye(dimensions), -np.eye(dimensions)])
    found = {}
    for code in product((False, True), repeat=neurons):
        sign = np.where(code, -1.0, 1.0)
        # Rows of `a x + b <= 0`: the neurons' sides of their boundaries, then the window.
        a = np.concatenate([sign[:, None] * arrangement.normals, sides])
        b = np.concatenate([sign * arrangement.offsets, np.full(len(sides), -half)])
        # The largest ball inside: its centre is an interior point, its radius says whether there is one.
        norms = np.linalg.norm(a, axis=1)
        ball = linprog(
            np.append(np.zeros(dimensions), -1.0), A_ub=np.column_stack([a, norms]), b_ub=-b,
            bounds=[(None, None)] * dimensions + [(0, None)],
        )  # fmt: skip
        if ball.status == 0 and ball.x[-1] > 1e-9:
            found[code] = HalfspaceIntersection(np.column_stack([a, b]), ball.x[:-1]).intersections
    return found


def colour(code: tuple[bool, ...]) -> str:
    """Return what the pigments that are on mix to: cyan takes red away, magenta green, yellow blue."""
    return "#" + "".join(f"{_DARK if on else _LIGHT:02x}" for on in code)


def name(code: tuple[bool, ...]) -> str:
    """Return the pigments that are on, as letters."""
    return "".join(ink for ink, on in zip(INKS, code, strict=True) if on) or "none"


def _flat(arrangement: Arrangement, at: float) -> list[str]:
    """Draw a plane's regions, each with its code."""
    drawn = []
    for code, corners in regions(arrangement).items():
        outline = corners[ConvexHull(corners).vertices]
        drawn.append(_polygon(outline * (90, -90) + (at + 100, 100), code))
        middle = outline.mean(axis=0) * (90, -90) + (at + 100, 100)
        drawn.append(_label(middle, code))
    return drawn


def _solid(arrangement: Arrangement, at: float) -> list[str]:
    """Draw a space's regions as cubes moved apart, the far ones first, seen from a side where none hides another."""
    turn, lift = np.deg2rad((28, 24))
    view = np.array([[np.cos(turn), -np.sin(turn), 0], [-np.sin(lift) * np.sin(turn), -np.sin(lift) * np.cos(turn),
                     np.cos(lift)]])  # fmt: skip
    towards = np.cross(view[0], view[1])
    towards *= np.sign(towards[2])
    drawn = []
    for code, corners in sorted(regions(arrangement).items(), key=lambda each: each[1].mean(axis=0) @ towards):
        apart = corners * 0.6 + 0.6 * np.sign(corners.mean(axis=0))
        flat = apart @ view.T * (48, -48) + (at + 100, 100)
        nearest = int((apart @ towards).argmax())
        drawn.append(_polygon(flat[ConvexHull(flat).vertices], code))
        # The three edges that meet in the nearest corner: the ends differ from it in one coordinate.
        for end in flat[(~np.isclose(apart, apart[nearest])).sum(axis=1) == 1]:
            start = flat[nearest]
            drawn.append(f'<path d="M{start[0]:.1f} {start[1]:.1f}L{end[0]:.1f} {end[1]:.1f}"/>')
        drawn.append(_label(flat.mean(axis=0) + np.array([0, 6]), code))
    return drawn


def _polygon(points: np.ndarray, code: tuple[bool, ...]) -> str:
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polygon points="{places}" fill="{colour(code)}"/>'


def _label(at: np.ndarray, code: tuple[bool, ...]) -> str:
    ink = "#fff" if sum(code) > 1 else "#1d2125"
    return f'<text x="{at[0]:.1f}" y="{at[1] + 4:.1f}" fill="{ink}">{name(code)}</text>'


def svg() -> str:
    """Return the picture."""
    drawn: list[str] = []
    for i, arrangement in enumerate(ARRANGEMENTS):
        flat = arrangement.normals.shape[1] == 2
        drawn += _flat(arrangement, 210 * i) if flat else _solid(arrangement, 210 * i)
        drawn.append(f'<text x="{210 * i + 100}" y="214" class="title">{arrangement.title}</text>')
    style = (
        "polygon,path{stroke:#1d2125;stroke-width:1;stroke-linejoin:round;fill-rule:evenodd}path{fill:none}"
        "text{font:12px system-ui,sans-serif;text-anchor:middle}.title{font-size:12.5px;fill:#1d2125}"
    )
    alt = "Regions of three boundaries: six, six, seven, and eight in space"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 840 226" role="img" aria-label="{alt}">'
        f"<style>{style}</style><rect width='840' height='226' fill='#fff'/>{''.join(drawn)}</svg>\n"
    )


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(prog="python -m analyses.three_pigments", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory of the picture")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    (out / "three-pigments.svg").write_text(svg(), encoding="utf-8")


if __name__ == "__main__":
    main()
