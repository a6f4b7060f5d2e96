"""Small networks whose polytopes can be seen: what is counted of them, and the pictures of docs/toys.md.

    python -m analyses.toys --out OUT [--pictures docs/pictures] [--seeds 50]

XOR by construction and trained, with 2, 20 and 100 neurons; a circle in an annulus with 2, 3, 4 and 3 x 8 neurons, and
in how many seeds its inside is closed; XOR of annuli; sin(x) and sin(1/x): are breakpoints spaced as random points are,
and are they where the function bends? And how many regions a ReLU on each of d coordinates has. OUT/toys.json keeps the
numbers. Pictures need Pillow and a chromium (`CHROMIUM` names it).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from plotly.subplots import make_subplots
from scipy.stats import spearmanr
from scipy.stats import t as student

from analyses._running import command_typed, run, write_json
from polytope_lm import toys
from polytope_lm.plotting import COLOURS, GRID, INK, PAPER, RULE, SOFT
from polytope_lm.toys.bends import save_sliders

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from plotly.graph_objects import Figure

    from polytope_lm.geometry.relu_network import ReluNetwork
    from polytope_lm.toys.networks import Task, Trained

CURVES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sine": lambda x: np.abs(np.sin(x)),
    "sine of 1/x": lambda x: np.abs(2 * np.cos(1 / x) / x**3 - np.sin(1 / x) / x**4),
}
"""Of each function of one number, `|f''|`."""
BINS = 20
DOTS = ("#00314D", "#5C2900")
"""A task's points: of class 1, and of class -1."""


def interval(values: Sequence[float]) -> dict[str, float]:
    """Return a mean over seeds and Student's 95 % interval."""
    each = np.asarray(values, float)
    half = student.ppf(0.975, len(each) - 1) * each.std(ddof=1) / np.sqrt(len(each))
    mean = each.mean()
    return {"mean": round(float(mean), 4), "low": round(float(mean - half), 4), "high": round(float(mean + half), 4)}


def breakpoints(trained: Trained, goal: Task) -> np.ndarray:
    """Return where a network of one number bends inside its window, exactly."""
    x0, x1 = goal.window[:2]
    return x0 + trained.network.crossings(np.array([x0]), np.array([x1])).t * (x1 - x0)


def on_a_line(name: str, seeds: int) -> dict[str, Any]:
    """Return how breakpoints lie: spacing against random points, density against `|f''|`."""
    goal = toys.task(name, 400)
    x0, x1 = goal.window[:2]
    edges = np.linspace(x0, x1, BINS + 1)
    fine = np.linspace(x0, x1, 50 * BINS, endpoint=False)
    bend = CURVES[name](fine).reshape(BINS, 50).mean(1)
    spread, ranks, counts, scores = [], [], [], []
    for trained in toys.fit(goal, (32, 32), range(seeds), steps=1500):
        at = breakpoints(trained, goal)
        random = np.sort(np.random.default_rng(trained.seed).uniform(x0, x1, len(at)))
        cv = [np.std(np.diff(each)) / np.mean(np.diff(each)) for each in (np.sort(at), random)]
        spread.append(cv[0] - cv[1])
        ranks.append(float(spearmanr(np.histogram(at, edges)[0], bend).statistic))
        counts.append(len(at))
        scores.append(trained.accuracy)
    return {
        "seeds": seeds, "breakpoints": interval(counts), "R2": interval(scores),
        "spacing: coefficient of variation less random points'": interval(spread),
        "density against |f''|: rank correlation": interval(ranks),
    }  # fmt: skip


def closed(hidden: tuple[int, ...], seeds: int) -> dict[str, Any]:
    """Return in how many seeds a circle's inside is closed, on the whole plane where there is one hidden layer."""
    goal = toys.task("circle", 400)
    whole = len(hidden) == 1
    found = toys.fit(goal, hidden, range(seeds), steps=1500)
    inside = []
    for trained in found:
        pieces = toys.pieces(trained.network, None if whole else (-3.0, 3.0, -3.0, 3.0))
        part = pieces.of((0, 0))
        inside.append(part >= 0 and bool(pieces.closed[part]))
    where = "the whole plane" if whole else "a window of side 6"
    scores = [t.accuracy for t in found]
    return {"seeds": seeds, "closed": sum(inside), "on": where, "accuracy": interval(scores)}


def bits(seeds: int) -> dict[str, Any]:
    """Return XOR of two bits: the constructed network, and what trained ones of two neurons find."""
    margins = toys.existing(toys.exact_xor())
    learned, three = 0, 0
    goal = toys.task("bits")
    for trained in toys.fit(goal, (2,), range(seeds), steps=1500):
        right = trained.accuracy == 1
        learned += right
        three += right and len(toys.regions(trained.network, (0.0, 1.0, 0.0, 1.0))) == 3
    return {
        "margins of the four codes": {"".join("01"[b] for b in code): round(m, 4) for code, m in margins.items()},
        "seeds": seeds, "learned by two neurons": learned, "of them with three regions in the unit square": three,
    }  # fmt: skip


def numbers(seeds: int) -> dict[str, Any]:
    """Return everything that is counted."""
    found: dict[str, Any] = {"XOR of bits": bits(seeds)}
    for hidden in ((2,), (20,), (100,)):
        each = toys.fit(toys.task("xor", 400), hidden, range(5), steps=800)
        regions = [len(toys.regions(t.network)) for t in each]
        found[f"XOR, {hidden[0]} neurons"] = {
            "regions": interval(regions), "accuracy": interval([t.accuracy for t in each]),
        }  # fmt: skip
    for hidden, many in (((2,), seeds), ((3,), seeds), ((4,), seeds), ((8, 8, 8), min(seeds, 10))):
        found[f"circle, {' x '.join(map(str, hidden))}"] = closed(hidden, many)
    rings = toys.fit(toys.task("annuli", 800), (16, 16), range(3), steps=2000)
    found["annuli, 16 x 16"] = {
        "accuracy": interval([t.accuracy for t in rings]),
        "regions": interval([len(toys.regions(t.network, (-1.2, 1.2, -1.2, 1.2))) for t in rings]),
    }
    for name in CURVES:
        found[name] = on_a_line(name, min(seeds, 20))
    found["regions of a ReLU on each of d coordinates"] = {str(d): toys.orthants(d) for d in (1, 2, 3, 8, 12, 16)}
    return found


@dataclass(frozen=True)
class Panel:
    """One panel of a picture: a network over a window.

    Attributes:
        caption: above it.
        network: whose regions they are, cut once more where its output is 0, so that each piece has its sign's colour.
        goal: what it says, its points as dots; its window is drawn.
        turn: of the output as a sheet, in radians; None: from above, with dots.
        marks: words at places of the plane.

    """

    caption: str
    network: ReluNetwork
    goal: Task
    turn: float | None = None
    marks: tuple[tuple[float, float, str], ...] = ()


def panels() -> dict[str, list[Panel]]:
    """Return what each picture of planes shows: two networks built by hand, and five trained ones."""
    built = toys.exact_xor()
    assert built.out is not None  # noqa: S101 - it has one
    # Bits are told apart at one half; colours change at 0.
    half = replace(built, out=(built.out[0], built.out[1] - 0.5))
    corners = replace(toys.task("bits"), window=(-0.5, 1.5, -0.5, 1.5))
    codes = ((-0.3, -0.1, "code 00"), (0.37, 0.37, "code 10"), (1.15, 0.65, "code 11"))
    circle, ring, quadrants = toys.exact_circle(), toys.task("circle", 400), toys.task("xor", 400)
    found = {
        "toy-xor-built": [
            Panel("XOR by two neurons: no code 01", half, corners, marks=codes),
            Panel("its output: flat, up, down", half, corners, turn=-0.5),
        ],
        "toy-circle-built": [
            Panel("a circle by three neurons: six regions", circle, ring),
            Panel("its output: a tent of six faces", circle, ring, turn=0.6),
        ],
        "toy-xor-trained": [],
        "toy-annuli": [],
    }
    for neurons in (20, 100):
        (trained,) = toys.fit(quadrants, (neurons,), [0], steps=800)
        found["toy-xor-trained"].append(
            Panel(f"{neurons} neurons: {_told(trained, quadrants)}", trained.network, quadrants)
        )
    rings = toys.task("annuli", 800)
    (trained,) = toys.fit(rings, (16, 16), [0], steps=2000)
    found["toy-annuli"] += [
        Panel(f"16 x 16 neurons: {_told(trained, rings)}", trained.network, rings),
        Panel("its output", trained.network, rings, turn=0.6),
    ]
    return found


def _told(trained: Trained, goal: Task) -> str:
    return f"{len(toys.regions(trained.network, goal.window)):,} regions, accuracy {trained.accuracy:.1%}"


def painted(row: Sequence[Panel], side: int = 370, gap: int = 10, strip: int = 26) -> Any:
    """Return panels side by side as a Pillow image of 64 colours."""
    from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415 - pictures alone need it

    whole = Image.new("RGB", (len(row) * (side + gap) + gap, strip + side + gap), PAPER)
    draw, font = ImageDraw.Draw(whole), ImageFont.load_default(17)
    for place, panel in enumerate(row):
        cut = toys.pieces(panel.network, panel.goal.window).regions
        found = replace(cut, network=panel.network)
        if panel.turn is None:
            picture = toys.image(found, side)
            _dotted(picture, panel)
        else:
            picture = toys.image(found, side, folded=True, turn=panel.turn)
        x = gap + place * (side + gap)
        draw.text((x, strip - 7), panel.caption, fill=INK, font=font, anchor="ls")
        whole.paste(picture, (x, strip))
        draw.rectangle((x - 1, strip - 1, x + side, strip + side), outline=RULE)
    return whole.quantize(64, dither=Image.Dither.NONE)


def _dotted(picture: Any, panel: Panel) -> None:
    """Put a task's points and a panel's words on its picture."""
    from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415 - pictures alone need it

    side, fine = picture.width, 3  # painted finer and shrunk: dots are round
    layer = Image.new("RGBA", (fine * side, fine * side))
    draw = ImageDraw.Draw(layer)
    x0, x1, y0, y1 = panel.goal.window

    def placed(x: float, y: float) -> tuple[float, float]:
        return fine * side * (x - x0) / (x1 - x0), fine * side * (y1 - y) / (y1 - y0)

    few = len(panel.goal.x) < 10
    r, (one, other) = (7 * fine, COLOURS[:3:2]) if few else (1.6 * fine, DOTS)
    for point, kind in zip(panel.goal.x.tolist(), panel.goal.y, strict=True):
        x, y = placed(*point)
        fill = one if kind > 0 else other
        draw.ellipse((x - r, y - r, x + r, y + r), fill=fill, outline=INK if few else fill, width=fine)
    for *place, word in panel.marks:
        draw.text(
            placed(*place), word, fill=INK, font=ImageFont.load_default(fine * 17), anchor="mm",
            stroke_width=fine * 2, stroke_fill="#FFFFFF",
        )  # fmt: skip
    small = layer.resize((side, side), Image.Resampling.LANCZOS)
    picture.paste(small, mask=small)


def lines() -> Figure:
    """Draw `sin(x)` and `sin(1/x)` as two networks have learnt them, a mark at every breakpoint."""
    rows = []
    for name in CURVES:
        goal = toys.task(name, 400)
        (trained,) = toys.fit(goal, (32, 32), [0], steps=1500)
        rows.append((goal, trained, toys.line(trained.network, goal.window[:2])))
    named = {"sine": "sin(x)", "sine of 1/x": "sin(1/x)"}
    titles = [f"{named[g.name]}: {len(f.x) - 2} breakpoints, R² {t.accuracy:.4f}" for g, t, f in rows]
    whole = make_subplots(rows=len(rows), cols=1, subplot_titles=titles, vertical_spacing=0.16)
    for row, (goal, _, found) in enumerate(rows, start=1):
        learnt = {"color": SOFT, "width": 1.5, "dash": "dot"}
        whole.add_scatter(x=goal.x[:, 0], y=goal.y, mode="lines", line=learnt, showlegend=False, row=row, col=1)
        for trace in toys.broken_line(found.x, found.y).data:
            whole.add_trace(trace, row=row, col=1)
        whole.update_xaxes(range=goal.window[:2], row=row, col=1)
        whole.update_yaxes(range=(-1.25, 1.25), row=row, col=1)
    whole.update_traces(selector={"mode": "lines+markers"}, line_width=2, marker_line_width=0)
    whole.update_xaxes(gridcolor=GRID, title="x", title_standoff=4)
    whole.update_yaxes(gridcolor=GRID)
    whole.update_layout(
        template="none", width=740, height=600, margin={"l": 45, "r": 15, "t": 40, "b": 45},
        font={"size": 13, "color": SOFT}, paper_bgcolor=PAPER, plot_bgcolor=PAPER,
    )  # fmt: skip
    return whole


def drawn(directory: Path) -> None:
    """Write the pictures: panels, figures and pages as a browser shows them, and the film as a GIF."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - pictures alone need it

    directory.mkdir(parents=True, exist_ok=True)
    (trained,) = toys.fit(toys.task("xor", 400), (8, 8), [1], steps=500)
    found = toys.regions(trained.network)
    film = toys.record(toys.task("circle"))
    film.save_gif(directory / "film.gif", every=5)
    for name, row in panels().items():
        painted(row).save(directory / f"{name}.png", optimize=True)
    with TemporaryDirectory() as name, sync_playwright() as playwright:
        work = Path(name)
        figures = {
            "regions": toys.above(found), "origami": toys.origami(found), "dual-points": toys.dual(found),
            "lines": lines(),
        }  # fmt: skip
        pages = {key: work / f"{key}.html" for key in figures}
        for key, figure in figures.items():
            figure.write_html(pages[key])
        pages["film"] = film.save_html(work / "film.html")
        pages["sliders"] = save_sliders(work / "sliders.html")
        shutil.copy(pages["sliders"], directory / "sliders.html")
        _photographed(playwright, pages, directory)


def _photographed(playwright: Any, pages: Mapping[str, Path], directory: Path) -> None:
    sizes = {"film": (1000, 1260), "sliders": (1000, 780), "lines": (756, 616)}
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    browser = playwright.chromium.launch(
        executable_path=chromium, args=["--no-sandbox", "--enable-unsafe-swiftshader", "--use-gl=swiftshader"]
    )
    for key, path in pages.items():
        width, height = sizes.get(key, (740, 580))
        page = browser.new_page(viewport={"width": width, "height": height})
        page.goto(path.as_uri())
        if key == "sliders":
            page.evaluate(
                "depth = document.getElementById('depth'); depth.value = 3; depth.dispatchEvent(new Event('input'))"
            )
        page.wait_for_timeout(2000)
        page.screenshot(path=directory / f"toy-{key}.png")
        page.close()
    browser.close()


def main(argv: Sequence[str] | None = None) -> None:
    """Count, and draw where it is asked."""
    parser = argparse.ArgumentParser(prog="python -m analyses.toys", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="directory for results")
    parser.add_argument("--pictures", type=Path, help="directory for pictures")
    parser.add_argument("--seeds", type=int, default=50, help="of each share (%(default)s)")
    given = parser.parse_args(argv)
    command = command_typed("toys", ["--out", "DIR", f"--seeds={given.seeds}"])
    found = numbers(given.seeds)
    write_json(given.out / "toys.json", {"command": command, **found})
    print("\n".join(f"{name}: {json.dumps(value)}" for name, value in found.items()))
    if given.pictures is not None:
        drawn(given.pictures)


if __name__ == "__main__":
    run(main)
