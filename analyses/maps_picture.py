"""Draw how much of an MLP's work k maps do, beside what else k could have been spent on.

Draws `docs/pictures/maps.svg` from what `analyses.affine_maps` wrote and `analyses/results` keeps: loss recovered
against k, each kind of group with its intervals, one linear and one quadratic fit beside.

    python -m analyses.maps_picture docs/pictures/maps.svg analyses/results/affine-maps*.json
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyses._running import read_json, run
from polytope_lm.errors import PolytopeError, escaped
from polytope_lm.geometry.reduction import GROUPED, LINEAR, QUADRATIC
from polytope_lm.plotting import COLOURS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PANELS = (
    ("tiny-relu", 1, "tangent"), ("tiny-gpt2", 1, "tangent"), ("tiny-gpt2", 1, "secant"),
    ("smollm2-135m", 4, "secant"), ("smollm2-135m", 14, "tangent"), ("smollm2-135m", 14, "secant"),
)  # fmt: skip
WIDTH, HEIGHT, MARGIN, COLUMNS = 300, 230, 40, 3
NAMES = 4
"""On a line of the legend."""
LOW, HIGH = -1.0, 1.3
"""Of loss recovered; what lies below is outside the frame."""
DASHES = ("", "6 3", "2 3", "8 3 2 3", "10 4", "4 2", "1 2", "1 4")
APART = 0.06
"""Decades between neighbouring curves, so that their intervals can be told apart."""
BEFORE, BEHIND = 0.2, 0.4
"""Decades before the first k and behind the last, where the two fits' intervals stand."""


def svg(tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return the picture: a panel a layer.

    Args:
        tables: each model's rows, as `affine_maps` writes them.

    Raises:
        PolytopeError: a layer that was not run, or one without a ratio.

    """
    rows = -(-len(PANELS) // COLUMNS)
    names = (*GROUPED, LINEAR, QUADRATIC)
    lines = -(-len(names) // NAMES)
    width, height = COLUMNS * WIDTH, rows * HEIGHT + 14 + 18 * (lines + 1)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
    head += 'font-size="11" role="img" aria-label="Loss recovered against the number of maps">'
    parts = [head, f'<rect width="{width}" height="{height}" fill="white"/>']
    for number, (model, layer, kind) in enumerate(PANELS):
        found = [each for each in tables.get(model, ()) if (each["layer"], each["maps"]) == (layer, kind)]
        if not found:
            raise PolytopeError(f"{model}, layer {layer}, {kind}: not in these files, run analyses.affine_maps on it")
        down, across = divmod(number, COLUMNS)
        title = f"{model}, layer {layer}" + ("" if model == "tiny-relu" else f", {kind}")
        drawn = _panel(title, found[0]["arms"])
        parts.append(f'<g transform="translate({across * WIDTH} {down * HEIGHT})">{drawn}</g>')
    for number, name in enumerate(names):
        line, place = divmod(number, NAMES)
        left, base = MARGIN + place * (width - MARGIN) // NAMES, height - 32 - 18 * (lines - 1 - line)
        label = f"one {name} fit" if name in {LINEAR, QUADRATIC} else name
        parts.append(f'<path d="M{left} {base}h24" {_style(number)}/>')
        parts.append(f'<text x="{left + 28}" y="{base + 4}">{escaped(label)}</text>')
    note = "1: nothing lost, 0: as without the MLP, below -1: outside. Bars: 95 % intervals over tested documents."
    parts.append(f'<text x="{width / 2}" y="{height - 8}" text-anchor="middle" fill="#555">{note}</text>')
    return "".join([*parts, "</svg>\n"])


def _style(number: int) -> str:
    return f'fill="none" stroke="{COLOURS[number]}" stroke-width="2" stroke-dasharray="{DASHES[number]}"'


def _panel(title: str, arms: Mapping[str, Any]) -> str:
    """Draw one layer."""
    if any(each["recovered"] is None for each in arms.values()):
        raise PolytopeError(f"{title}: removing the MLP costs too little, so no loss recovered can be drawn")
    ks = sorted(int(name.split()[-1]) for name in arms if name.startswith(GROUPED[0]))
    left, right, top, bottom = MARGIN, WIDTH - 14, 28, HEIGHT - 34
    decades = math.log10(ks[-1] / ks[0]) + BEFORE + BEHIND

    def x(k: float, shift: float = 0.0) -> float:
        return left + (math.log10(k / ks[0]) + BEFORE + shift) / decades * (right - left)

    def y(value: float) -> float:
        return bottom - (value - LOW) / (HIGH - LOW) * (bottom - top)

    parts = [
        f'<text x="{WIDTH / 2}" y="16" text-anchor="middle" font-size="12">{escaped(title)}</text>',
        f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="#555"/>',
        f'<path d="M{left} {y(0):.1f}H{right}M{left} {y(1):.1f}H{right}" stroke="#ccc"/>',
        f'<text x="{(left + right) / 2}" y="{bottom + 27}" text-anchor="middle" fill="#555">k</text>',
    ]
    parts += [f'<text x="{x(k):.1f}" y="{bottom + 14}" text-anchor="middle">{k:,}</text>' for k in ks]
    parts += [f'<text x="{left - 4}" y="{y(v) + 4:.1f}" text-anchor="end">{v:g}</text>' for v in (-1, -0.5, 0, 0.5, 1)]
    # Of a picture within the picture nothing is seen beyond its frame.
    frame = f'x="{left}" y="{top}" width="{right - left}" height="{bottom - top}"'
    parts.append(f'<svg {frame} viewBox="{left} {top} {right - left} {bottom - top}">')
    for number, name in enumerate(GROUPED):
        found = [(x(k, APART * (number - (len(GROUPED) - 1) / 2)), arms[f"{name} {k}"]["recovered"]) for k in ks]
        points = " ".join(f"{at:.1f},{y(value):.1f}" for at, (value, _, _) in found)
        parts.append(f'<polyline points="{points}" {_style(number)}/>')
        bars = "".join(f"M{at:.1f} {y(low):.1f}V{y(high):.1f}" for at, (_, low, high) in found)
        parts.append(f'<path d="{bars}" stroke="{COLOURS[number]}"/>')
    for number, name in enumerate((LINEAR, QUADRATIC), start=len(GROUPED)):
        value, low, high = arms[name]["recovered"]
        at = right - 4 - 6 * (number - len(GROUPED))
        parts.append(f'<path d="M{left} {y(value):.1f}H{right}" {_style(number)}/>')
        parts.append(f'<path d="M{at} {y(low):.1f}V{y(high):.1f}" stroke="{COLOURS[number]}"/>')
    return "".join([*parts, "</svg>"])


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the picture."""
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m analyses.maps_picture", description=summary)
    parser.add_argument("picture", type=Path, help="where the picture goes")
    parser.add_argument("numbers", type=Path, nargs="+", help="affine-maps.json")
    chosen = parser.parse_args(argv)

    def work() -> None:
        tables = {model: rows for path in chosen.numbers for model, rows in read_json(path)["models"].items()}
        chosen.picture.write_text(svg(tables), encoding="utf-8")

    run(work)


if __name__ == "__main__":
    main()
