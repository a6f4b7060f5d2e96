"""Notebooks as they are shipped: run from top to bottom, with what they show.

    python -m analyses.executed_notebooks directions

runs notebooks/directions.py and writes notebooks/directions.ipynb with its outputs. Figures are kept for Jupyter, and
as pictures for pages that run no scripts. Sliders, which are dead without a kernel, are shipped as a picture of their
state. Needs the extra `docs`, playwright and a chromium (on the path, or CHROMIUM=/its/path).
`python -m benchmarks.notebooks` runs the six that ask a question and sums their time.
"""

from __future__ import annotations

import argparse
import base64
import os
import shutil
import tempfile
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SIX = ("polytopes", "neighbours", "monosemantic", "boundaries", "directions", "maps")
"""Those that open with a question, in the order in which they are read."""
PLOTLY = "application/vnd.plotly.v1+json"
WIDGET, STATE = "application/vnd.jupyter.widget-view+json", "application/vnd.jupyter.widget-state+json"
WIDTH, HEIGHT = 900, 450
STYLE = (
    "<style>body{font:14px sans-serif;margin:8px}p{margin:4px}label{display:inline-block;width:5em}"
    "input{width:300px;vertical-align:middle;margin-right:1em}</style>"
)


def executed(name: str) -> Any:
    """Run a notebook from top to bottom, in a directory of its own, and return it with its outputs."""
    import jupytext  # noqa: PLC0415 - an extra's
    import nbclient  # noqa: PLC0415

    os.environ["PLOTLY_RENDERER"] = "plotly_mimetype"  # no copy of the library in every notebook
    notebook = jupytext.read(ROOT / "notebooks" / f"{name}.py")
    with tempfile.TemporaryDirectory() as directory:
        nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": directory}}).execute()
    return notebook


def controls(widget: str, states: dict[str, Any]) -> tuple[str, dict[str, Any] | None]:
    """Return a widget's controls as they stand, as HTML, and the figure below them if there is one.

    Args:
        widget: its id.
        states: of all the notebook's widgets, by id.

    """
    state = states[widget]["state"]
    rows, figure = [], None
    for reference in state.get("children", ()):
        below, under = controls(reference.removeprefix("IPY_MODEL_"), states)
        rows.append(below)
        figure = figure or under
    for output in state.get("outputs", ()):
        figure = figure or output.get("data", {}).get(PLOTLY)
    name = escape(str(state.get("description", "")))
    if "index" in state:
        rows.append(f"<p><label>{name}</label><b>{escape(str(state['_options_labels'][state['index']]))}</b></p>")
    elif "min" in state:
        ends = " ".join(f'{end}="{float(state[end])}"' for end in ("min", "max", "step", "value"))
        rows.append(f'<p><label>{name}</label><input type="range" {ends}><b>{state["value"]:g}</b></p>')
    return "".join(rows), figure


def pictures(outputs: list[dict[str, Any]], states: dict[str, Any], page: Any) -> None:
    """Add to each output that holds a figure a picture of it, and put one in the place of sliders.

    Args:
        outputs: data by media type, changed in place.
        states: of the notebook's widgets.
        page: a browser's.

    """
    import plotly.graph_objects as go  # noqa: PLC0415 - where there are figures

    page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
    with tempfile.TemporaryDirectory() as directory:
        for data in outputs:
            above, found = "", data.get(PLOTLY)
            if WIDGET in data:
                above, found = controls(data[WIDGET]["model_id"], states)
            if found is None:
                continue
            there = {name: found[name] for name in ("data", "layout")}
            html = go.Figure(there).to_html(config={"displayModeBar": False}, default_height=f"{HEIGHT}px")
            file = Path(directory) / "figure.html"
            file.write_text(html.replace("<body>", f"{STYLE}<body>{above}", 1), encoding="utf-8")
            page.goto(file.as_uri())
            page.wait_for_selector(".main-svg")
            page.wait_for_timeout(1000)
            data["image/png"] = base64.b64encode(page.screenshot(full_page=bool(above))).decode()
            if data.pop(WIDGET, None):
                data["text/plain"] = "sliders, as they stand at first: run the cell to move them"


def main() -> None:
    """Run one notebook and write it with its outputs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the notebook, such as directions")
    name = parser.parse_args().name
    import nbformat  # noqa: PLC0415 - an extra's
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    path, notebook = ROOT / "notebooks" / f"{name}.ipynb", executed(name)
    states = notebook.metadata.get("widgets", {}).get(STATE, {}).get("state", {})
    before = nbformat.read(path, as_version=4)
    notebook.metadata = before.metadata
    outputs = [output.data for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        pictures(outputs, states, browser.new_page())
        browser.close()
    for data in outputs:
        if "image/png" in data:
            data.pop("image/jpeg", None)  # the same picture
    for number, cell in enumerate(notebook.cells):
        cell.metadata.pop("execution", None)  # when it ran says nothing
        if number < len(before.cells):
            cell.id = before.cells[number].id
    nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
