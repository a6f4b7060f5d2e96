"""Small networks whose polytopes can be seen: what is counted of them, and the pictures of docs/toys.md.

    python -m analyses.toys --out OUT [--pictures docs/pictures] [--seeds 50]

XOR by construction and trained, with 2, 20 and 100 neurons; a circle in an annulus with 2, 3, 4 and 3 x 8 neurons, and
in how many seeds its inside is closed; XOR of annuli; sin(x) and sin(1/x): are breakpoints spaced as random points are,
and are they where the function bends? And how many regions a ReLU on each of d coordinates has. OUT/toys.json keeps the
numbers. Pictures need a chromium (`CHROMIUM` names it).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import spearmanr
from scipy.stats import t as student

from analyses._running import command_typed, run, write_json
from polytope_lm import toys
from polytope_lm.toys.bends import save_sliders

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from polytope_lm.toys.networks import Task, Trained

CURVES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sine": lambda x: np.abs(np.sin(x)),
    "sine of 1/x": lambda x: np.abs(2 * np.cos(1 / x) / x**3 - np.sin(1 / x) / x**4),
}
"""Of each function of one number, `|f''|`."""
BINS = 20


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


def drawn(directory: Path) -> None:
    """Write the pictures: figures and pages as a browser shows them, and the film as a GIF."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - pictures alone need it

    directory.mkdir(parents=True, exist_ok=True)
    (trained,) = toys.fit(toys.task("xor", 400), (8, 8), [1], steps=500)
    found = toys.regions(trained.network)
    film = toys.record(toys.task("circle"))
    film.save_gif(directory / "film.gif", side=300, every=5)
    with TemporaryDirectory() as name, sync_playwright() as playwright:
        work = Path(name)
        figures = {"regions": toys.above(found), "origami": toys.origami(found), "dual-points": toys.dual(found)}
        pages = {key: work / f"{key}.html" for key in figures}
        for key, figure in figures.items():
            figure.write_html(pages[key])
        pages["film"] = film.save_html(work / "film.html")
        pages["sliders"] = save_sliders(work / "sliders.html")
        shutil.copy(pages["sliders"], directory / "sliders.html")
        _photographed(playwright, pages, directory)


def _photographed(playwright: Any, pages: Mapping[str, Path], directory: Path) -> None:
    sizes = {"film": (1000, 1260), "sliders": (1000, 780)}
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
