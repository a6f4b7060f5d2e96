"""Write the page of a training: every number over updates, as curves that can be chosen, hidden and read off.

    python -m analyses.training_page analyses/results/training-dynamics.json docs/pictures/training.html
    python -m analyses.training_page ... --picture docs/pictures/training-page.png     # photographed in a browser

The numbers are what `analyses.training_dynamics page` wrote. The page needs nothing else: no server, no library.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyses._running import read_json, run
from polytope_lm.errors import PolytopeError
from polytope_lm.plotting import COLOURS
from polytope_lm.toys.pages import write_page

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DASHES = ("", "6 3", "2 3", "8 3 2 3", "12 3", "4 2 1 2", "1 2", "10 2 2 2 2 2")
BOUNDS = {", low": "low", ", high": "high"}


def panels(steps: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the curves of one network by panel: those whose names differ in their last part alone.

    Args:
        steps: of each checkpoint its `step` and `values` by name, in order.

    Returns:
        Curves with a `name` and `values`, None where a checkpoint lacks the number; with an interval, `low` and `high`.

    """
    names = dict.fromkeys(name for row in steps for name in row["values"])
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name in names:
        bound = next((end for end in BOUNDS if name.endswith(end)), "")
        title, _, last = name.removesuffix(bound).rpartition(", ")
        for ending in (" to the last", " since the one before"):
            title = f"changed{ending}" if name.endswith(ending) else title
            last = last.removesuffix(ending)
        curve = found.setdefault(title or last, {}).setdefault(last, {"name": last})
        curve[BOUNDS.get(bound, "values")] = [row["values"].get(name) for row in steps]
    return {title: list(curves.values()) for title, curves in found.items()}


def write(numbers: Mapping[str, Any], path: Path) -> Path:
    """Write the page and return its path.

    Args:
        numbers: by network, its `steps` and when what had `settled`.
        path: of the page.

    Raises:
        PolytopeError: nothing was measured, or the path can't be written.

    """
    networks = {
        name: {
            "steps": [row["step"] for row in each["steps"]],
            "settled": {key.removeprefix("settled: "): int(step) for key, step in each["settled"].items()},
            "panels": panels(each["steps"]),
        }
        for name, each in numbers.items()
    }
    if not networks:
        raise PolytopeError(f"nothing to draw in {path}: no network was measured; run analyses.training_dynamics")
    data = {"networks": networks, "colours": COLOURS, "dashes": DASHES}
    title = "What changes while a network is trained"
    return write_page(path, "training", title, data, room="analyses")


def photographed(page: Path, picture: Path) -> None:
    """Show local complexity of the last network in a browser, and take its picture."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - pictures alone need it

    with sync_playwright() as playwright:
        chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": 1100, "height": 1000})
        view.goto(page.resolve().as_uri())
        view.select_option("#network", "tiny-relu")
        view.screenshot(path=picture)
        browser.close()


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page and, where it is asked, its picture."""
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m analyses.training_page", description=summary)
    parser.add_argument("numbers", type=Path, help="training-dynamics.json")
    parser.add_argument("page", type=Path, help="where the page goes")
    parser.add_argument("--picture", type=Path, help="where its picture goes")
    chosen = parser.parse_args(argv)

    def work() -> None:
        page = write(read_json(chosen.numbers), chosen.page)
        if chosen.picture:
            photographed(page, chosen.picture)

    run(work)


if __name__ == "__main__":
    main()
