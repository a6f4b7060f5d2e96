"""Draw what changes while the network on digits learns: counts, slopes and bits over updates.

Draws `docs/pictures/training-digits.svg` from `analyses/results/training-dynamics.json`, which
`analyses.training_dynamics` wrote: local complexity (r = .05 of the norm), the norm of the Jacobian, and the distance
of the code's bits, of a rate-matched SimHash's and of the weights to the last update's.

    python -m analyses.training_picture analyses/results/training-dynamics.json docs/pictures/training-digits.svg
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analyses._running import run
from polytope_lm.errors import PolytopeError, escaped
from polytope_lm.plotting import COLOURS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WIDTH, HEIGHT, MARGIN = 300, 220, 44
KINDS = ("training", "test", "random", "decision boundary")
PANELS = {
    "local complexity, r = .05 |x|": {kind: f"local complexity, r = 0.05 |x|, {kind}" for kind in KINDS},
    "norm of the Jacobian": {kind: f"norm of the Jacobian, {kind}" for kind in KINDS},
    "distance to the last update": {
        "bits of the code": "bits changed to the last",
        "bits of SimHash": "SimHash bits changed to the last",
        "weights, relative": "weights' relative change to the last",
    },
}
"""Each panel's curves, by name."""
DASHES = ("", "6 3", "2 3", "8 3 2 3")


def svg(steps: Sequence[int], values: Mapping[str, Sequence[float | None]]) -> str:
    """Return the picture: three panels side by side, updates from 0 on a logarithmic axis.

    Raises:
        PolytopeError: a quantity that was not measured.

    """
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {3 * WIDTH} {HEIGHT + 70}" font-family="sans-serif" '
    head += 'font-size="11" role="img" aria-label="Counts, slopes and bits over updates">'
    parts = [head, f'<rect width="{3 * WIDTH}" height="{HEIGHT + 70}" fill="white"/>']
    for number, (title, curves) in enumerate(PANELS.items()):
        parts.append(f'<g transform="translate({number * WIDTH} 0)">{_panel(title, curves, steps, values)}</g>')
    return "".join([*parts, "</svg>\n"])


def _panel(
    title: str, curves: Mapping[str, str], steps: Sequence[int], values: Mapping[str, Sequence[float | None]]
) -> str:
    for quantity in curves.values():
        if quantity not in values:
            raise PolytopeError(f"{quantity!r} was not measured: run analyses.training_dynamics digits again")
    top = max(value for quantity in curves.values() for value in values[quantity] if value is not None)
    x = np.log2(1 + np.asarray(steps, float))
    x = MARGIN + x / x.max() * (WIDTH - MARGIN - 12)
    low, high = HEIGHT - 24, 28
    parts = [
        f'<text x="{WIDTH / 2}" y="16" text-anchor="middle" font-size="12">{escaped(title)}</text>',
        f'<path d="M{MARGIN} {high}V{low}H{WIDTH - 12}" fill="none" stroke="#555"/>',
    ]
    parts += [
        f'<text x="{at:.1f}" y="{low + 14}" text-anchor="middle">{step}</text>'
        for at, step in zip(x, steps, strict=True)
        if step in {0, 16, 256, 4096}
    ]
    parts += [
        f'<text x="{MARGIN - 4}" y="{low - share * (low - high) + 4:.1f}" text-anchor="end">{share * top:.3g}</text>'
        for share in (0, 0.5, 1)
    ]
    for number, (name, quantity) in enumerate(curves.items()):
        there = [(at, v) for at, v in zip(x, values[quantity], strict=True) if v is not None]
        points = " ".join(f"{at:.1f},{low - v / top * (low - high):.1f}" for at, v in there)
        style = f'fill="none" stroke="{COLOURS[number]}" stroke-width="2" stroke-dasharray="{DASHES[number]}"'
        row, column = divmod(number, 2)
        left, base = MARGIN + column * 125, HEIGHT + 14 + 18 * row
        parts.append(f'<polyline points="{points}" {style}/>')
        parts.append(
            f'<path d="M{left} {base}h24" {style}/><text x="{left + 28}" y="{base + 4}">{escaped(name)}</text>'
        )
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT + 62}" text-anchor="middle" fill="#555">updates</text>')
    return "".join(parts)


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the picture."""
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m analyses.training_picture", description=summary)
    parser.add_argument("numbers", type=Path, help="training-dynamics.json")
    parser.add_argument("picture", type=Path, help="where the picture goes")
    chosen = parser.parse_args(argv)

    def work() -> None:
        rows = json.loads(chosen.numbers.read_text(encoding="utf-8"))["digits"]["steps"]
        names = {name for row in rows for name in row["values"]}
        values = {name: [row["values"].get(name) for row in rows] for name in names}
        chosen.picture.write_text(svg([row["step"] for row in rows], values), encoding="utf-8")

    run(work)


if __name__ == "__main__":
    main()
