"""Notebooks as they are shipped: run from top to bottom, with what they show.

    python -m analyses.executed_notebooks directions

runs notebooks/directions.py and writes notebooks/directions.ipynb with its outputs. Figures are kept for Jupyter, and
as pictures for pages that run no scripts. Needs the extra `docs`, playwright and a chromium (on the path, or
CHROMIUM=/its/path).
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PLOTLY = "application/vnd.plotly.v1+json"
WIDTH, HEIGHT = 900, 450


def pictures(figures: list[dict[str, Any]]) -> None:
    """Add to each output that holds a figure a picture of it."""
    import plotly.graph_objects as go  # noqa: PLC0415 - where there are figures
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - an extra's

    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as directory:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        for data in figures:
            there = {name: data[PLOTLY][name] for name in ("data", "layout")}
            file = Path(directory) / "figure.html"
            go.Figure(there).write_html(file, config={"displayModeBar": False}, default_height=f"{HEIGHT}px")
            page.goto(file.as_uri())
            page.wait_for_selector(".main-svg")
            page.wait_for_timeout(1000)
            data["image/png"] = base64.b64encode(page.screenshot()).decode()
        browser.close()


def main() -> None:
    """Run one notebook and write it with its outputs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the notebook, such as directions")
    name = parser.parse_args().name
    import jupytext  # noqa: PLC0415 - an extra's
    import nbclient  # noqa: PLC0415

    os.environ["PLOTLY_RENDERER"] = "plotly_mimetype"  # no copy of the library in every notebook
    notebook = jupytext.read(ROOT / "notebooks" / f"{name}.py")
    before = jupytext.read(ROOT / "notebooks" / f"{name}.ipynb").metadata
    with tempfile.TemporaryDirectory() as directory:
        nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": directory}}).execute()
    notebook.metadata = before
    outputs = [output.data for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    pictures([data for data in outputs if PLOTLY in data])
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran says nothing
    text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True)
    (ROOT / "notebooks" / f"{name}.ipynb").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
