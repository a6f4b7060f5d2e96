"""One moment of a training on one board, painted for slides: regions, output, dual points, accuracy so far."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from polytope_lm.errors import PolytopeError
from polytope_lm.plotting import COLOURS, INK, PAPER, RULE, SOFT
from polytope_lm.toys.pictures import EDGE, blend, image, pillow, shades

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polytope_lm.geometry.plane_regions import Regions

LEAST = 120
"""Pixels of a board's side, below which its four panels show nothing."""
_TITLE = 24
"""A title is one part in so many of the side high."""
_DOT, _AREA = 0.004, 0.115
"""A dual point's least radius, and what the root of its share of the window adds, in sides of its panel."""


def board(found: Regions, steps: Sequence[int], accuracy: Sequence[float], number: int, side: int = 480) -> Any:
    """Paint one frame of a training as a square Pillow image of four panels, each below its title.

    Args:
        found: the frame's regions, coloured by the output; the sheet and the dual points are theirs, too.
        steps: updates done at each frame of the whole film.
        accuracy: at each frame; it is drawn up to this one.
        number: of the frame.
        side: pixels of the whole.

    Raises:
        PolytopeError: Pillow is not installed; a side below 120.

    """
    if side < LEAST:
        raise PolytopeError(f"side={side}: four panels share it, give {LEAST} pixels or more")
    image_module, draw_module, font_module = pillow()
    title = side // _TITLE
    half, panel = side // 2, side // 2 - title - title // 3
    slopes = found.maps.matrix[:, 0]
    reach = 1.1 * max(float(np.abs(slopes).max()), 1e-9)
    panels = {
        f"{len(found):,} regions": image(found, panel),
        "output, folded": image(found, panel, folded=True),
        f"dual points, up to ±{reach:.{0 if reach >= 10 else 1}f}": _duals(found, reach, panel),
        f"update {steps[number]}: accuracy {accuracy[number]:.1%}": _curve(steps, accuracy, number, panel),
    }
    whole = image_module.new("RGB", (side, side), PAPER)
    draw = draw_module.Draw(whole)
    font = font_module.load_default(round(0.75 * title))
    for place, (told, picture) in enumerate(panels.items()):
        x, y = half * (place % 2) + title // 2, half * (place // 2) + title + title // 4
        draw.text((x, y - title // 4), told, fill=INK, font=font, anchor="ls")
        whole.paste(picture, (x, y))
        draw.rectangle((x - 1, y - 1, x + panel, y + panel), outline=RULE)
    return whole


def palette() -> Any:
    """Return the one palette of all boards, 64 colours as a Pillow image: of one board's own others would lack some.

    Raises:
        PolytopeError: Pillow is not installed.

    """
    image_module, _, _ = pillow()
    fills = [_rgb(blend(0.1 + 0.8 * level / 24)) for level in range(25)]
    # An edge is painted smoothly: half of it, half of what lies beside it.
    halves = (np.array(fills) + _rgb(EDGE)) // 2
    greys = np.linspace(0, 255, 13).round()[:, None].repeat(3, axis=1)
    colours = np.concatenate([fills, halves, greys, [_rgb(COLOURS[0])]]).astype(int)
    found = image_module.new("P", (1, 1))
    found.putpalette(colours.ravel().tolist())
    return found


def _rgb(colour: str) -> tuple[int, ...]:
    from PIL import ImageColor  # noqa: PLC0415 - only images need it

    return tuple(int(part) for part in ImageColor.getrgb(colour))


def _duals(found: Regions, reach: float, side: int) -> Any:
    """Paint each region at its slope, as large as its area, coloured as the region is."""
    image_module, draw_module, _ = pillow()
    large = 2 * side
    picture = image_module.new("RGB", (large, large), PAPER)
    draw = draw_module.Draw(picture)
    draw.line((0, side, large, side), fill=RULE, width=2)
    draw.line((side, 0, side, large), fill=RULE, width=2)
    places = side * (1 + found.maps.matrix[:, 0] / reach * (1, -1))
    radii = large * (_DOT + _AREA * np.sqrt(found.areas / found.areas.sum()))
    colours = shades(found)
    for which in np.argsort(-radii):  # the small ones last, or large ones hide them
        (x, y), r = places[which], radii[which]
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colours[which], outline=SOFT, width=1)
    return picture.resize((side, side), image_module.Resampling.LANCZOS)


def _curve(steps: Sequence[int], accuracy: Sequence[float], number: int, side: int) -> Any:
    """Paint the accuracy over the updates, up to a frame; the axis is as long as the whole training."""
    image_module, draw_module, font_module = pillow()
    large = 2 * side
    left, right, top, bottom = 0.17 * large, 0.95 * large, 0.06 * large, 0.88 * large
    picture = image_module.new("RGB", (large, large), PAPER)
    draw = draw_module.Draw(picture)
    font = font_module.load_default(max(1, large // 18))
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = bottom - share * (bottom - top)
        draw.line((left, y, right, y), fill=RULE, width=2)
        draw.text((left - 0.02 * large, y), f"{share:.0%}", fill=SOFT, font=font, anchor="rm")
    draw.text((left, 0.91 * large), "0", fill=SOFT, font=font, anchor="mt")
    draw.text((right, 0.91 * large), f"{steps[-1]} updates", fill=SOFT, font=font, anchor="rt")
    points = [
        (left + step / steps[-1] * (right - left), bottom - score * (bottom - top))
        for step, score in zip(steps[: number + 1], accuracy[: number + 1], strict=True)
    ]
    draw.line(points, fill=COLOURS[0], width=5, joint="curve")
    (x, y), r = points[-1], 0.018 * large
    draw.ellipse((x - r, y - r, x + r, y + r), fill=COLOURS[0])
    return picture.resize((side, side), image_module.Resampling.LANCZOS)
