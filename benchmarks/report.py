"""The report with 20,000 tokens: how long a reader waits, beside the same page with 2,000.

Run with `python -m benchmarks.report [--tokens 20000] [--json]`; needs playwright and a chromium. The page is
of a planted world, repeated until there are enough tokens. Each wait is the time from the reader's act until
the browser has drawn a frame that shows its effect, the median of several; a lag above about 100 ms is felt.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import polytope_lm as plm
from benchmarks._machine import Figure, arguments, describe, report
from polytope_lm import report as pages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

    from polytope_lm.predictions.clusters.result import ClustersResult

FEW = 2000
REPEATS = 5
FELT = 100.0
"""Milliseconds."""

ACTS = {
    "search, one more letter": (
        "#overview",
        """i => {
            const field = document.getElementById('search');
            field.value = ['a', 'ab', 'w', 'wo', 'e'][i % 5];
            field.dispatchEvent(new Event('input'));
        }""",
    ),
    "clusters, open another": (
        "#clusters",
        "i => document.querySelectorAll('#cluster-table-a li[data-cluster] button')[i + 1].click()",
    ),
    "clusters, sort": (
        "#clusters",
        """i => {
            const order = document.getElementById('cluster-order-a');
            order.value = i % 2 ? 'size' : 'purity';
            order.dispatchEvent(new Event('change'));
        }""",
    ),
    "map, pick a token": (
        "#map",
        """i => {
            history.replaceState(null, '', '#map/0/' + (17 + i));
            dispatchEvent(new Event('hashchange'));
        }""",
    ),
}
WAIT = """async ([act, i]) => {
    const start = performance.now();
    eval(act)(i);
    await new Promise((shown) => requestAnimationFrame(() => setTimeout(shown, 0)));
    return performance.now() - start;
}"""


def base() -> ClustersResult:
    """Compare a planted world, with maps."""
    world = plm.worlds.code_world(tokens=FEW, documents=100, seed=0)
    result = plm.predictions.clusters(world, label="label", k=50, resamples=10)
    return plm.predictions.with_maps(world, result)


def repeated(result: ClustersResult, tokens: int) -> ClustersResult:
    """Return the result with its tokens repeated, neighbours inside each repetition."""
    if result.tokens is None:
        raise RuntimeError("a comparison has its tokens")
    parts = []
    for start in range(0, tokens, len(result.tokens)):
        part = result.tokens.copy()
        for name in part.columns:
            if "/neighbours/" in name:
                part[name] = [np.asarray(rows) + start for rows in part[name]]
        parts.append(part)
    table = pd.concat(parts, ignore_index=True)[:tokens]
    return replace(result, tokens=table, sample=replace(result.sample, tokens=tokens))


@contextmanager
def browser() -> Iterator[Page]:
    """Open a headless browser's page."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - an extra

    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        # The page allows no script but its own; the measuring one is ours.
        yield running.new_context(viewport={"width": 1280, "height": 800}, bypass_csp=True).new_page()
        running.close()


def waits(file: Path) -> dict[str, float]:
    """Return milliseconds: until the first screen is there, and of each act."""
    found = {}
    with browser() as page:
        page.goto(file.as_uri())
        page.wait_for_selector("html.ready")
        opened = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
        found["first screen"] = float(page.evaluate(opened))
        for name, (place, act) in ACTS.items():
            page.goto(f"{file.as_uri()}{place}")
            page.wait_for_selector("html.ready")
            page.evaluate(WAIT, [act, 0])
            found[name] = median(page.evaluate(WAIT, [act, i]) for i in range(1, REPEATS + 1))
    return found


def main() -> None:
    """Print each wait with both numbers of tokens."""
    parser = arguments("The report with many tokens: how long a reader waits.")
    parser.add_argument("--tokens", type=int, default=20_000, help="tokens on the page (%(default)s)")
    options = parser.parse_args()
    machine, result = describe(), base()
    with tempfile.TemporaryDirectory() as folder:
        files = {n: Path(folder) / f"{n}.html" for n in (FEW, options.tokens)}
        for n, file in files.items():
            pages.write(file, clusters=repeated(result, n))
        few, many = (waits(file) for file in files.values())
        size = files[options.tokens].stat().st_size / 1e6
    figures = [
        Figure(
            name,
            value,
            "ms",
            few[name],
            f"{FEW:,} tokens",
            must=None if name == "first screen" else FELT,
            bound="at most",
        )
        for name, value in many.items()
    ]
    report([*figures, Figure("the page's size", size, "MB")], options.json, machine)


if __name__ == "__main__":
    main()
